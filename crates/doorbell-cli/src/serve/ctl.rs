//! `ctl`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use doorbell_emulator::FaultPlan;

use super::control::{Order, Size, order};
use crate::cli::Global;
use crate::output::{self, Format};

/// Change and watch a server while it runs (its --control socket)
#[derive(Args)]
#[command(after_help = "\
Examples:
  doorbell serve --socket /tmp/nvme0.sock --namespace ram:1G --control /tmp/control.sock &
  doorbell ctl /tmp/control.sock add ram:64M,block=4096
  doorbell ctl /tmp/control.sock resize 1 2G
  doorbell ctl /tmp/control.sock statistics
  doorbell ctl /tmp/control.sock faults plan.json
  doorbell ctl /tmp/control.sock shutdown")]
pub(crate) struct Ctl {
    /// The server's control socket
    #[arg(value_name = "PATH")]
    control: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Add a namespace, and print its NSID
    Add {
        /// As --namespace of serve, such as ram:1G
        #[arg(value_name = "SPEC")]
        namespace: String,
        /// Namespace identifier [default: the lowest free one]
        #[arg(short, long, value_name = "NSID")]
        nsid: Option<u32>,
    },
    /// Remove a namespace
    Remove {
        /// Namespace identifier
        nsid: u32,
    },
    /// Change a namespace's size
    Resize {
        /// Namespace identifier
        nsid: u32,
        /// Bytes, such as 2G
        size: String,
    },
    /// Show clients, queues, memory and namespaces
    Statistics,
    /// Have things go wrong from now on, as a fault plan says
    Faults {
        /// The plan, in JSON
        #[arg(value_name = "FILE")]
        plan: PathBuf,
        /// Only for the controller at this socket
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
    },
    /// End the server in order
    Shutdown,
}

impl Ctl {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let answer = order(&self.control, &self.what.order()?)?;
        match (global.output_format, &self.what) {
            (Format::Normal, What::Add { .. }) => output::print(format!("{}\n", answer["nsid"])),
            (Format::Normal, What::Remove { .. } | What::Resize { .. } | What::Faults { .. } | What::Shutdown) => {
                Ok(())
            }
            _ => output::print_json(&answer),
        }
    }
}

impl What {
    fn order(&self) -> Result<Order> {
        Ok(match self {
            Self::Add { namespace, nsid } => Order::Add { namespace: namespace.clone(), nsid: *nsid },
            Self::Remove { nsid } => Order::Remove { nsid: *nsid },
            Self::Resize { nsid, size } => Order::Resize { nsid: *nsid, size: Size::Text(size.clone()) },
            Self::Statistics => Order::Statistics {},
            Self::Faults { plan, socket } => {
                let name = || plan.display().to_string();
                let text = std::fs::read(plan).with_context(name)?;
                let plan: FaultPlan = serde_json::from_slice(&text).with_context(name)?;
                Order::Faults { socket: socket.clone(), plan }
            }
            Self::Shutdown => Order::Shutdown {},
        })
    }
}
