//! Registers and resets: `show-regs`, `reset`.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use doorbell::ControllerState;
use doorbell_device::Device;
use nvme_spec::registers::{Csts, offset};
use serde_json::json;

use super::register_fields;
use crate::cli::{Address, Global};
use crate::{address, output, session};

/// Show the controller's registers
#[derive(Args)]
#[command(after_help = "\
The registers are shown as they are found. With --enable, the controller is brought up first.

Examples:
  doorbell show-regs emulated:size=1G
  doorbell show-regs emulated:size=1G --enable
  doorbell show-regs emulated:size=1G -o json")]
pub(crate) struct ShowRegs {
    #[command(flatten)]
    address: Address,
    /// Bring the controller up first
    #[arg(long)]
    enable: bool,
    /// Say what the bits mean: always done; for nvme-cli's users
    #[arg(short = 'H', long)]
    human_readable: bool,
}

impl ShowRegs {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let fields = match self.enable {
            false => register_fields::read(&*address::open(&self.address.address)?)?,
            true => session::with_driver(&self.address.address, global, async |driver| {
                register_fields::read(&**driver.device())
            })?,
        };
        fields.print(global.output_format, true)
    }
}

/// Reset the controller, and see whether it comes back
#[derive(Args)]
#[command(after_help = "\
The controller is disabled (CC.EN = 0), enabled and identified. With --function, its PCI function, or what stands for
it, is reset before.

Examples:
  doorbell reset emulated:size=1G
  doorbell reset emulated:size=1G --function")]
pub(crate) struct Reset {
    #[command(flatten)]
    address: Address,
    /// Reset the function too
    #[arg(short, long)]
    function: bool,
}

impl Reset {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let device = address::open(&self.address.address)?;
        if self.function {
            device.reset().context("resetting the function")?;
        }
        let before = csts(&*device)?;
        let start = Instant::now();
        let state = session::with_device(device, global, |options| options.cpus(1), async |driver| Ok(driver.state()))?;
        let millis = start.elapsed().as_secs_f64() * 1e3;
        if state != ControllerState::Running {
            bail!("the controller did not stay up: {state:?}");
        }
        let was = if before.rdy() { "ready" } else { "not ready" };
        output::print_either(
            global.output_format,
            || format!("reset: the controller was {was}; disabled, enabled and shut down again in {millis:.1} ms"),
            || json!({ "was_ready": before.rdy(), "function": self.function, "milliseconds": millis }),
        )
    }
}

fn csts(device: &dyn Device) -> Result<Csts> {
    let csts = Csts::from_bits(device.read32(offset::CSTS).context("reading CSTS")?);
    match csts {
        Csts::GONE => bail!("the registers read all ones: nothing is there"),
        csts => Ok(csts),
    }
}
