//! `inspect`.

use anyhow::Result;
use clap::Args;

use crate::cli::{Address, Global};
use crate::output::{self, Format};
use crate::payload::Payload;
use crate::{address, session};

/// Show the inside of a driver: controller, queues, namespaces, counters
#[derive(Args)]
#[command(after_help = "\
Opens every namespace and reads a block on each CPU, so that there is something to see.

Examples:
  doorbell inspect emulated:size=1G
  doorbell inspect emulated:size=1G,queues=2 --cpus 4 -o json")]
pub(crate) struct Inspect {
    #[command(flatten)]
    address: Address,
    /// CPUs that do I/O, each with a queue pair as far as the device has some
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    cpus: u32,
    /// Commands in flight on a queue pair
    #[arg(long, value_name = "COMMANDS", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4096))]
    depth: u32,
}

impl Inspect {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let device = address::open(&self.address.address)?;
        let options = |options: doorbell::DriverOptions| options.cpus(self.cpus).depth(self.depth);
        let view = session::with_device(device, global, options, async |driver| {
            let mut namespaces = Vec::new();
            for nsid in driver.namespaces().await? {
                namespaces.push(driver.namespace(nsid).await?);
            }
            if let Some(first) = namespaces.first() {
                let len = first.transfer_block_size() as usize;
                let payload = Payload::new(driver, len, true)?;
                for cpu in 0..self.cpus {
                    first.read(cpu, 0, 1, &payload.memory, payload.range(0, len)).await?;
                }
            }
            Ok(driver.inspect())
        })?;
        match global.output_format {
            Format::Normal => output::print(view.to_string()),
            Format::Json => output::print_json(&serde_json::to_value(view)?),
        }
    }
}
