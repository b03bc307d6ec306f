//! `format`.

use anyhow::{Context, Result, bail};
use clap::Args;
use nvme_spec::NSID_ALL;
use nvme_spec::admin::FormatNvmCdw10;
use nvme_spec::identify::cns::Cns;
use nvme_spec::identify::{LbaFormat, PiType};
use serde_json::json;

use super::identify::identify_namespace;
use crate::cli::{Address, Global};
use crate::{output, parse, session};

/// Format a namespace: all of its data is lost
#[derive(Args)]
#[command(after_help = "\
id-ns lists the formats. Without --lbaf and --block-size, the format stays what it is.

Examples:
  doorbell format emulated:size=1G --lbaf 1
  doorbell format emulated:size=1G,namespaces=2 --namespace-id 2 --block-size 4096
  doorbell format emulated:size=1G --ses 1")]
pub(crate) struct Format {
    #[command(flatten)]
    address: Address,
    /// Namespace identifier; 0xffffffff for all [default: the only one there is]
    #[arg(short, long, value_name = "NSID", value_parser = parse::number32)]
    namespace_id: Option<u32>,
    /// Index of the LBA format
    #[arg(short, long, value_name = "INDEX", conflicts_with = "block_size")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..64))]
    lbaf: Option<u8>,
    /// Bytes of a block: the first format with this many, and without metadata
    #[arg(short, long, value_name = "BYTES", value_parser = parse::size)]
    block_size: Option<u64>,
    /// Secure erase: 0 none, 1 user data, 2 cryptographic
    #[arg(short, long, default_value = "0", value_parser = clap::value_parser!(u8).range(0..8))]
    ses: u8,
    /// Protection information: 0 none, or type 1, 2 or 3
    #[arg(short = 'i', long, default_value = "0", value_parser = clap::value_parser!(u8).range(0..8))]
    pi: u8,
    /// Protection information in the last (0) or first (1) bytes of metadata
    #[arg(short = 'p', long, default_value = "0", value_parser = clap::value_parser!(u8).range(0..2))]
    pil: u8,
    /// Metadata in a buffer of its own (0) or at the end of each block (1)
    #[arg(short, long, default_value = "0", value_parser = clap::value_parser!(u8).range(0..2))]
    ms: u8,
}

impl Format {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let (nsid, index, format) = session::with_driver(&self.address.address, global, async |driver| {
            let nsid = session::nsid(driver, self.namespace_id).await?;
            // All namespaces have the same formats where all are formatted at once.
            let like = if nsid == NSID_ALL { driver.namespaces().await?.first().copied().unwrap_or(1) } else { nsid };
            let ns = identify_namespace(driver, Cns::NAMESPACE, like).await?;
            if ns.nsze == 0 {
                bail!("there is no namespace {nsid:#x}; list-ns lists those there are");
            }
            let index = self.index(ns.lba_formats(), ns.lba_format_index())?;
            let cdw10 = FormatNvmCdw10::new()
                .with_lbafl(index & 0xf)
                .with_lbafu(index >> 4)
                .with_mset(self.ms != 0)
                .with_pi(PiType(self.pi))
                .with_pil(self.pil != 0)
                .with_ses(self.ses);
            driver.format(nsid, cdw10).await.with_context(|| format!("formatting namespace {nsid:#x}"))?;
            let ns = identify_namespace(driver, Cns::NAMESPACE, like).await?;
            Ok((nsid, ns.lba_format_index(), ns.lba_format().unwrap_or_default()))
        })?;
        let size = format.data_size().unwrap_or_default();
        let metadata = format.ms();
        let name = if nsid == NSID_ALL { "all namespaces".into() } else { format!("namespace {nsid}") };
        output::print_either(
            global.output_format,
            || format!("format: {name}: LBA format {index}, blocks of {size} bytes, {metadata} bytes of metadata"),
            || json!({ "nsid": nsid, "lbaf": index, "block_size": size, "metadata_size": metadata }),
        )
    }

    /// The index of the format asked for.
    fn index(&self, formats: &[LbaFormat], current: u8) -> Result<u8> {
        let last = formats.len().saturating_sub(1);
        if let Some(index) = self.lbaf {
            if usize::from(index) > last {
                bail!("--lbaf {index} is no LBA format of the namespace, which has 0 to {last}");
            }
            return Ok(index);
        }
        let Some(size) = self.block_size else { return Ok(current) };
        let fits = |format: &LbaFormat| format.data_size() == Some(size) && format.ms() == 0;
        match formats.iter().position(fits) {
            Some(index) => Ok(index as u8),
            None => {
                let sizes = formats.iter().filter(|format| format.ms() == 0).filter_map(|format| format.data_size());
                let sizes: Vec<String> = sizes.map(|size| size.to_string()).collect();
                bail!("--block-size {size} is in no LBA format without metadata; there are {}", sizes.join(", "))
            }
        }
    }
}
