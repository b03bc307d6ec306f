//! Data: `read`, `write`, `compare`.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use doorbell::{ErrorClass, RequestError, SplitPlan};
use serde_json::json;

use crate::cli::{Address, Global, Namespace};
use crate::output::{self, Format};
use crate::payload::Payload;
use crate::{parse, session};

/// What one command line moves at most; it is all in memory.
const MOST: u64 = 1 << 30;

/// Which blocks.
#[derive(Args)]
struct Blocks {
    /// First block (logical block address)
    #[arg(short, long, value_name = "LBA", default_value = "0", value_parser = parse::number)]
    start_block: u64,
    /// Number of blocks; 0's based, as in NVMe: 0 is one block, 7 are eight
    #[arg(short = 'c', long, value_name = "COUNT", value_parser = parse::number)]
    block_count: Option<u64>,
    /// Bytes of data: a whole number of blocks
    #[arg(short = 'z', long, value_name = "BYTES", value_parser = parse::size)]
    data_size: Option<u64>,
}

impl Blocks {
    /// How many blocks, if that was said.
    fn count(&self, block_size: u32) -> Result<Option<u64>> {
        let by_count = match self.block_count {
            Some(u64::MAX) => bail!("--block-count {:#x} is more blocks than there can be", u64::MAX),
            Some(count) => Some(count + 1),
            None => None,
        };
        let by_size = self.data_size.map(|bytes| whole_blocks(bytes, block_size)).transpose()?;
        let count = match (by_count, by_size) {
            (Some(count), Some(other)) if count != other => bail!(
                "--block-count {} (0's based) is {count} blocks, --data-size {} is {other} of {block_size} bytes",
                count - 1,
                other.saturating_mul(block_size.into()),
            ),
            (count, other) => count.or(other),
        };
        if let Some(count) = count {
            check_size(count, block_size)?;
        }
        Ok(count)
    }
}

fn whole_blocks(bytes: u64, block_size: u32) -> Result<u64> {
    if !bytes.is_multiple_of(block_size.into()) {
        bail!("{bytes} bytes of data are not a multiple of the block size, {block_size}");
    }
    Ok(bytes / u64::from(block_size))
}

fn check_size(count: u64, block_size: u32) -> Result<()> {
    match count.checked_mul(block_size.into()) {
        Some(bytes) if bytes <= MOST => Ok(()),
        _ => bail!(
            "{count} blocks of {block_size} bytes are too much for one command; at most {} are possible",
            output::bytes(MOST)
        ),
    }
}

/// Read blocks to standard output or to a file
#[derive(Args)]
#[command(after_help = "\
Examples:
  doorbell read emulated:file=disk.img --start-block 8 | hexdump -C
  doorbell read emulated:file=disk.img --block-count 7 --data eight-blocks.bin
  doorbell read emulated:file=disk.img --data-size 1M --data first-mebibyte.bin")]
pub(crate) struct Read {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    blocks: Blocks,
    /// File to write the data to [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    data: Option<PathBuf>,
}

impl Read {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        if self.data.is_none() && global.output_format == Format::Json {
            bail!("--output-format json needs --data FILE: standard output cannot have both the data and JSON");
        }
        let first = self.blocks.start_block;
        let (data, count) = session::with_driver(&self.address.address, global, async |driver| {
            let namespace = session::namespace(driver, self.namespace.namespace_id).await?;
            let block_size = namespace.transfer_block_size();
            let count = self.blocks.count(block_size)?.unwrap_or(1);
            session::check_range(&namespace, first, count)?;
            let len = (count * u64::from(block_size)) as usize;
            let payload = Payload::new(driver, len, true)?;
            let range = payload.range(0, len);
            namespace.read_large(0, first, count, &payload.memory, range, SplitPlan::default()).await?;
            Ok((payload.to_vec(len)?, count))
        })?;
        match &self.data {
            None => output::print(data),
            Some(path) => {
                create(path, &data)?;
                report("read", first, count, data.len(), global)
            }
        }
    }
}

/// Puts data into a file, all of it or none.
fn create(path: &Path, data: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        // What is no regular file (/dev/null, a pipe) is written to as it is.
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return File::options().write(true).open(path)?.write_all(data);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        // As a file has it that is just created, instead of readable for its owner only.
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        let mut file = builder.permissions(permissions).tempfile_in(folder)?;
        file.write_all(data)?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("{}: cannot be written", path.display()))
}

/// Write blocks from standard input or from a file
#[derive(Args)]
#[command(after_help = "\
Without --block-count and --data-size, all of the input is written.

Examples:
  doorbell write emulated:file=disk.img --data image.bin
  head -c 4096 /dev/urandom | doorbell write emulated:file=disk.img --start-block 8 --block-count 7
  doorbell write emulated:file=disk.img --data image.bin --force-unit-access")]
pub(crate) struct Write {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    blocks: Blocks,
    /// File to take the data from [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Complete only when the data is on the medium
    #[arg(short, long)]
    force_unit_access: bool,
}

impl Write {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let first = self.blocks.start_block;
        let (count, bytes) = session::with_driver(&self.address.address, global, async |driver| {
            let namespace = session::namespace(driver, self.namespace.namespace_id).await?;
            let data = input(self.data.as_deref(), &self.blocks, namespace.transfer_block_size())?;
            let count = whole_blocks(data.len() as u64, namespace.transfer_block_size())?;
            session::check_range(&namespace, first, count)?;
            let payload = Payload::of(driver, &data)?;
            let range = payload.range(0, data.len());
            let (fua, plan) = (self.force_unit_access, SplitPlan::default());
            namespace.write_large(0, first, count, fua, &payload.memory, range, plan).await?;
            Ok((count, data.len()))
        })?;
        report("write", first, count, bytes, global)
    }
}

/// The data for a command: as many blocks as were asked for, or all there is.
fn input(path: Option<&Path>, blocks: &Blocks, block_size: u32) -> Result<Vec<u8>> {
    let wanted = blocks.count(block_size)?.map(|count| count * u64::from(block_size));
    let name = path.map_or("standard input".into(), |path| path.display().to_string());
    let source: Box<dyn std::io::Read> = match path {
        None => Box::new(std::io::stdin()),
        Some(path) => Box::new(File::open(path).with_context(|| name.clone())?),
    };
    let mut data = Vec::new();
    source.take(wanted.unwrap_or(MOST + 1)).read_to_end(&mut data).with_context(|| name.clone())?;
    let len = data.len() as u64;
    match wanted {
        Some(wanted) if len < wanted => {
            bail!(
                "{name} has {len} bytes, but {} blocks of {block_size} bytes need {wanted}",
                wanted / u64::from(block_size)
            )
        }
        None if len == 0 => bail!("{name} is empty; at least one block of {block_size} bytes is needed"),
        None if len > MOST => bail!("{name} has more than {}, the most for one command", output::bytes(MOST)),
        None if !len.is_multiple_of(block_size.into()) => {
            bail!("{name} has {len} bytes, which is not a multiple of the block size, {block_size}")
        }
        _ => Ok(data),
    }
}

/// Compare blocks with standard input or with a file
#[derive(Args)]
#[command(after_help = "\
The device compares. The exit status is 0 if all blocks are the same, 1 if not.
Without --block-count and --data-size, all of the input is compared.

Examples:
  doorbell compare emulated:file=disk.img --data image.bin
  doorbell compare emulated:file=disk.img --start-block 8 --block-count 7 < eight-blocks.bin")]
pub(crate) struct Compare {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    blocks: Blocks,
    /// File to compare with [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    data: Option<PathBuf>,
}

impl Compare {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let first = self.blocks.start_block;
        let (count, bytes) = session::with_driver(&self.address.address, global, async |driver| {
            let namespace = session::namespace(driver, self.namespace.namespace_id).await?;
            let block_size = namespace.transfer_block_size();
            let data = input(self.data.as_deref(), &self.blocks, block_size)?;
            let count = whole_blocks(data.len() as u64, block_size)?;
            session::check_range(&namespace, first, count)?;
            let payload = Payload::of(driver, &data)?;
            let mut done = 0;
            while done < count {
                let part = (count - done).min(namespace.max_transfer_block_count().into());
                let bytes = part as usize * block_size as usize;
                let range = payload.range(done as usize * block_size as usize, bytes);
                match namespace.compare(0, first + done, part as u32, &payload.memory, range).await {
                    Err(RequestError::Nvme(error)) if error.class() == ErrorClass::Miscompare => {
                        bail!("blocks {} to {} differ from the data", first + done, first + done + part - 1)
                    }
                    result => result?,
                }
                done += part;
            }
            Ok((count, data.len()))
        })?;
        report("compare", first, count, bytes, global)
    }
}

fn report(verb: &str, first: u64, blocks: u64, bytes: usize, global: &Global) -> Result<()> {
    match global.output_format {
        Format::Normal => {
            let outcome = if verb == "compare" { "the same: " } else { "" };
            let plural = if blocks == 1 { "" } else { "s" };
            output::print(format!("{verb}: {outcome}{blocks} block{plural} from block {first} on, {bytes} bytes\n"))
        }
        Format::Json => output::print_json(&json!({ "start_block": first, "blocks": blocks, "bytes": bytes })),
    }
}
