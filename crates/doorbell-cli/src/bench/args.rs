//! What `bench` is asked for, under fio's names.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::parse;

/// Measure a device: I/Os per second, latency, CPU time; with --verify, check what it stores
#[derive(Args)]
#[command(after_help = "\
Each job is a thread with its own queue pair and its own part of the namespace. Guest memory is registered once, and
data moves without a copy unless --bounce is given.

Without an address, an emulated device of 1 GiB is made, checked (64 MiB are written, read back and compared) and
measured. With an address and a --rw that writes, THE DEVICE'S DATA IS OVERWRITTEN.

Ctrl-C ends it in order, and what was measured is printed; a second Ctrl-C ends it at once.

Examples:
  doorbell bench
  doorbell bench emulated:size=1G,block=4096 --rw randrw --rwmixread 70 --iodepth 64 --verify
  doorbell bench emulated:null,size=1T --rw randread --bs 4k --iodepth 32 --numjobs 2 --completion polling
  doorbell bench vfio-user:/run/nvme0.sock --rw randrw --verify --size 1G --handover-every 500ms
  doorbell bench emulated:file=disk.img --rw write --bs 128k --size 64M --runtime 10s -o json")]
pub(crate) struct Bench {
    #[arg(value_name = "ADDRESS", long_help = crate::address::HELP)]
    #[arg(help = "Device address [default: an emulated device of 1 GiB]")]
    pub(crate) address: Option<String>,
    /// Namespace identifier [default: the only one there is]
    #[arg(short, long, value_name = "NSID", value_parser = parse::number32)]
    pub(crate) namespace_id: Option<u32>,
    /// What to do
    #[arg(long, visible_alias = "readwrite", value_enum, value_name = "KIND", default_value_t = Rw::Randread)]
    pub(crate) rw: Rw,
    /// Bytes of an I/O
    #[arg(long, value_name = "BYTES", default_value = "4k", value_parser = parse::size)]
    pub(crate) bs: u64,
    /// I/Os in flight, for each job
    #[arg(long, value_name = "IOS", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) iodepth: u32,
    /// Jobs: threads, each with its own queue pair
    #[arg(long, value_name = "JOBS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) numjobs: u32,
    /// How long to measure; a number alone is seconds
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse::duration)]
    pub(crate) runtime: Duration,
    /// How much of the namespace to use, from its start on, for all jobs together [default: all of it]
    #[arg(long, value_name = "BYTES", value_parser = parse::size)]
    pub(crate) size: Option<u64>,
    /// How many percent of a mix are reads
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) rwmixread: u32,
    /// Write a pattern that names its own block, and check every block that is read
    #[arg(long)]
    pub(crate) verify: bool,
    /// Seed of the random blocks [default: another one each time]
    #[arg(long, value_parser = parse::number)]
    pub(crate) seed: Option<u64>,
    /// Hand the device to a fresh process so often, under load
    ///
    /// The process after goes on with all that is in flight. Printed are the pause (the longest that a job had no completion
    /// around a handover), how long saving took, and that no I/O was lost or done twice. For devices that can go to another
    /// process: vfio-user:PATH and pci:ADDRESS
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub(crate) handover_every: Option<Duration>,
    /// Take over, from the process at standard input
    #[arg(long, hide = true, requires = "handover_every")]
    pub(crate) go_on: bool,
    /// Move all data through bounce buffers
    #[arg(long)]
    pub(crate) bounce: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rw {
    /// Read one block after the other
    Read,
    /// Write one block after the other
    Write,
    /// Read blocks at random
    Randread,
    /// Write blocks at random
    Randwrite,
    /// Read and write blocks at random
    Randrw,
}

impl Rw {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Rw::Read => "read",
            Rw::Write => "write",
            Rw::Randread => "randread",
            Rw::Randwrite => "randwrite",
            Rw::Randrw => "randrw",
        }
    }

    pub(crate) fn writes(self) -> bool {
        matches!(self, Rw::Write | Rw::Randwrite | Rw::Randrw)
    }

    pub(crate) fn is_random(self) -> bool {
        matches!(self, Rw::Randread | Rw::Randwrite | Rw::Randrw)
    }

    /// How many of 2^32 I/Os are reads.
    pub(crate) fn read_share(self, rwmixread: u32) -> u64 {
        match self {
            Rw::Read | Rw::Randread => 1 << 32,
            Rw::Write | Rw::Randwrite => 0,
            Rw::Randrw => (u64::from(rwmixread) << 32) / 100,
        }
    }
}
