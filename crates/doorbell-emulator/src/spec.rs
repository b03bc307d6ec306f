//! Opening an emulated device.

use std::sync::Arc;
use std::time::Duration;

use doorbell_device::DeviceError;
use doorbell_device::inprocess::{InProcess, Run};

use crate::{Controller, ControllerConfig, Subsystem};

/// How often a controller with a thread of its own looks for what others did to its subsystem.
const HOUSEKEEPING: Duration = Duration::from_millis(10);

/// A device: a new controller of `subsystem`, run as `run` says.
pub fn emulated(
    subsystem: &Subsystem,
    config: ControllerConfig,
    run: Run,
) -> Result<Arc<InProcess<Controller>>, DeviceError> {
    let housekeeping = config.housekeeping.or((run == Run::Threaded).then_some(HOUSEKEEPING));
    let controller = Controller::new(subsystem, ControllerConfig { housekeeping, ..config });
    let address = format!("emulated:serial={},controller={}", subsystem.config().serial, controller.cntlid());
    let vectors = controller.config().vectors.into();
    InProcess::new(&address, controller, vectors, run)
}
