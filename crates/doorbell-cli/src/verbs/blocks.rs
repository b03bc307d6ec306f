//! What is done to blocks without moving data: `verify`, `copy`, `write-uncor`, `flush`, `dsm`, `write-zeroes`.

use anyhow::{Result, bail};
use clap::Args;
use doorbell::LbaRange;
use serde_json::json;

use crate::cli::{Address, Global, Namespace};
use crate::{output, parse, session};

/// A run of blocks.
#[derive(Args)]
struct Run {
    /// First block (logical block address)
    #[arg(short, long, value_name = "LBA", default_value = "0", value_parser = parse::number)]
    start_block: u64,
    /// Number of blocks; 0's based, as in NVMe: 0 is one block, 7 are eight
    #[arg(short = 'c', long, value_name = "COUNT", default_value = "0", value_parser = parse::number)]
    block_count: u64,
}

impl Run {
    fn count(&self) -> Result<u64> {
        match self.block_count.checked_add(1) {
            Some(count) => Ok(count),
            None => bail!("--block-count {:#x} is more blocks than there can be", self.block_count),
        }
    }

    /// Has `work` done with the namespace and the blocks, if it has them.
    fn on(
        &self,
        verb: &str,
        address: &Address,
        namespace: &Namespace,
        global: &Global,
        work: impl AsyncFnOnce(&doorbell::Namespace, u64) -> Result<(), doorbell::RequestError>,
    ) -> Result<()> {
        let count = self.count()?;
        session::with_driver(&address.address, global, async |driver| {
            let namespace = session::namespace(driver, namespace.namespace_id).await?;
            session::check_range(&namespace, self.start_block, count)?;
            Ok(work(&namespace, count).await?)
        })?;
        report(verb, self.start_block, count, global)
    }
}

fn report(verb: &str, first: u64, blocks: u64, global: &Global) -> Result<()> {
    let plural = if blocks == 1 { "" } else { "s" };
    output::print_either(
        global.output_format,
        || format!("{verb}: {blocks} block{plural} from block {first} on"),
        || json!({ "start_block": first, "blocks": blocks }),
    )
}

/// Have the device check that blocks can be read
#[derive(Args)]
#[command(after_help = "\
No data is moved. To check written patterns, see bench --verify.

Examples:
  doorbell verify emulated:file=disk.img --start-block 0 --block-count 127")]
pub(crate) struct Verify {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    run: Run,
}

impl Verify {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let first = self.run.start_block;
        self.run.on("verify", &self.address, &self.namespace, global, async |namespace, count| {
            namespace.verify(0, first, count).await
        })
    }
}

/// Make blocks unreadable until they are written again
#[derive(Args)]
#[command(after_help = "\
Examples:
  doorbell write-uncor emulated:file=disk.img --start-block 5 --block-count 0")]
pub(crate) struct WriteUncor {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    run: Run,
}

impl WriteUncor {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let first = self.run.start_block;
        self.run.on("write-uncor", &self.address, &self.namespace, global, async |namespace, count| {
            namespace.write_uncorrectable(0, first, count).await
        })
    }
}

/// Make blocks read as zeroes
#[derive(Args)]
#[command(after_help = "\
Examples:
  doorbell write-zeroes emulated:file=disk.img --start-block 8 --block-count 7
  doorbell write-zeroes emulated:file=disk.img --block-count 2047 --deac")]
pub(crate) struct WriteZeroes {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    run: Run,
    /// Let the device deallocate the blocks
    #[arg(short, long)]
    deac: bool,
    /// Complete only when the zeroes are on the medium
    #[arg(short, long)]
    force_unit_access: bool,
}

impl WriteZeroes {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let first = self.run.start_block;
        self.run.on("write-zeroes", &self.address, &self.namespace, global, async |namespace, count| {
            namespace.write_zeroes(0, first, count, self.deac, self.force_unit_access).await
        })
    }
}

/// Make what was written before durable
#[derive(Args)]
#[command(after_help = "\
Examples:
  doorbell flush emulated:file=disk.img")]
pub(crate) struct Flush {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    namespace: Namespace,
}

impl Flush {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let nsid = session::with_driver(&self.address.address, global, async |driver| {
            let namespace = session::namespace(driver, self.namespace.namespace_id).await?;
            namespace.flush(0).await?;
            Ok(namespace.nsid())
        })?;
        output::print_either(global.output_format, || format!("flush: namespace {nsid}"), || json!({ "nsid": nsid }))
    }
}

/// Tell the device that ranges of blocks are no longer needed (Dataset Management)
#[derive(Args)]
#[command(after_help = "\
The n-th of --blocks belongs to the n-th of --slbs.

Examples:
  doorbell dsm emulated:file=disk.img --ad --slbs 0 --blocks 8
  doorbell dsm emulated:file=disk.img -d -s 0,64,128 -b 8,8,16")]
pub(crate) struct Dsm {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    namespace: Namespace,
    /// Deallocate the ranges
    #[arg(short = 'd', long, required = true)]
    ad: bool,
    /// First block of each range
    #[arg(short, long, value_name = "LBA,...", required = true, value_delimiter = ',', value_parser = parse::number)]
    slbs: Vec<u64>,
    /// Number of blocks of each range; not 0's based, as in NVMe: 8 are eight
    #[arg(short, long, value_name = "COUNT,...", required = true, value_delimiter = ',', value_parser = parse::number)]
    blocks: Vec<u64>,
}

impl Dsm {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let ranges = ranges(&self.slbs, &self.blocks, 0)?;
        let blocks = session::with_driver(&self.address.address, global, async |driver| {
            let namespace = session::namespace(driver, self.namespace.namespace_id).await?;
            for range in &ranges {
                session::check_range(&namespace, range.lba, range.block_count)?;
            }
            namespace.deallocate(0, &ranges).await?;
            Ok(ranges.iter().map(|range| u128::from(range.block_count)).sum::<u128>())
        })?;
        let count = ranges.len();
        output::print_either(
            global.output_format,
            || format!("dsm: deallocated {blocks} blocks in {count} ranges"),
            || json!({ "ranges": count, "blocks": blocks as u64 }),
        )
    }
}

/// Ranges of two lists of one length; `plus` is added to each number of blocks.
fn ranges(slbs: &[u64], blocks: &[u64], plus: u64) -> Result<Vec<LbaRange>> {
    if slbs.len() != blocks.len() {
        bail!(
            "--slbs has {} first blocks, --blocks has {} numbers of blocks; they belong together",
            slbs.len(),
            blocks.len()
        );
    }
    let range = |(lba, count): (&u64, &u64)| match count.checked_add(plus) {
        Some(block_count) => Ok(LbaRange { lba: *lba, block_count }),
        None => bail!("--blocks {count:#x} is more blocks than there can be"),
    };
    slbs.iter().zip(blocks).map(range).collect()
}

/// Copy ranges of blocks inside a namespace
#[derive(Args)]
#[command(after_help = "\
The sources are laid end to end at the destination. The n-th of --blocks belongs to the n-th of --slbs.

Examples:
  doorbell copy emulated:file=disk.img --sdlba 1024 --slbs 0 --blocks 7
  doorbell copy emulated:file=disk.img -d 1024 -s 0,64 -b 7,0")]
pub(crate) struct Copy {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    namespace: Namespace,
    /// First block of the destination
    #[arg(short = 'd', long, value_name = "LBA", value_parser = parse::number)]
    sdlba: u64,
    /// First block of each source
    #[arg(short, long, value_name = "LBA,...", required = true, value_delimiter = ',', value_parser = parse::number)]
    slbs: Vec<u64>,
    /// Number of blocks of each source; 0's based, as in NVMe: 0 is one block, 7 are eight
    #[arg(short, long, value_name = "COUNT,...", required = true, value_delimiter = ',', value_parser = parse::number)]
    blocks: Vec<u64>,
}

impl Copy {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let ranges = ranges(&self.slbs, &self.blocks, 1)?;
        let blocks = session::with_driver(&self.address.address, global, async |driver| {
            let namespace = session::namespace(driver, self.namespace.namespace_id).await?;
            let mut blocks = 0u64;
            for range in &ranges {
                session::check_range(&namespace, range.lba, range.block_count)?;
                blocks = blocks.saturating_add(range.block_count);
            }
            session::check_range(&namespace, self.sdlba, blocks)?;
            namespace.copy(0, self.sdlba, &ranges).await?;
            Ok(blocks)
        })?;
        let (to, count) = (self.sdlba, ranges.len());
        output::print_either(
            global.output_format,
            || format!("copy: {blocks} blocks of {count} ranges to block {to}"),
            || json!({ "ranges": count, "blocks": blocks, "start_block": to }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_belong_together() {
        assert_eq!(ranges(&[1, 2], &[3, 4], 1).unwrap()[1], LbaRange { lba: 2, block_count: 5 });
        assert!(ranges(&[1], &[], 0).is_err());
        assert!(ranges(&[1], &[u64::MAX], 1).is_err());
    }
}
