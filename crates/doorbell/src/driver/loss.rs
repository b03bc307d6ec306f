//! Noticing that the device is taken away, without touching it.

use std::future::{pending, poll_fn};
use std::sync::Arc;

use doorbell_device::{Device, DeviceError};

use super::core::Core;
use crate::error::DeviceFailed;
use crate::runtime::Runtime;

/// Waits until the device is asked back, or found dead; for ever where only using it shows that.
pub(crate) async fn wait(device: &dyn Device, runtime: &dyn Runtime) -> DeviceFailed {
    let Some(loss) = device.loss() else { return pending().await };
    let mut watch = match runtime.watch(loss) {
        Ok(watch) => watch,
        Err(error) => {
            tracing::error!(%error, "the loss of the device cannot be waited for");
            return pending().await;
        }
    };
    loop {
        let signalled = poll_fn(|context| watch.poll(context)).await;
        match (device.check_present(), signalled) {
            (Err(error), _) => return failure(error),
            (Ok(()), Ok(())) => {}
            (Ok(()), Err(error)) => {
                tracing::error!(%error, "the loss of the device can no longer be waited for");
                return pending().await;
            }
        }
    }
}

/// What the driver makes of a device that is not present.
pub(crate) fn failure(error: DeviceError) -> DeviceFailed {
    match error {
        DeviceError::Gone(reason) => DeviceFailed::Lost(reason),
        error => DeviceFailed::Lost(error.to_string()),
    }
}

impl Core {
    /// The life of the task that waits for the device to be lost; again and again, if it may come back.
    pub(crate) async fn watch_for_loss(self: Arc<Self>) {
        let lost = async {
            loop {
                let lost = wait(&*self.device, &*self.options.runtime).await;
                let awaited = self.device.may_return();
                self.failure.failed(lost);
                if !awaited {
                    return;
                }
            }
        };
        futures_lite::future::or(lost, self.wait_not_running()).await;
    }
}
