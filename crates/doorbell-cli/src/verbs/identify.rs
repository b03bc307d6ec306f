//! What there is: `list-ns`, `id-ctrl`, `id-ns`.

use anyhow::{Context, Result, bail};
use clap::Args;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use doorbell::NvmeDriver;
use nvme_spec::identify::cns::Cns;
use nvme_spec::identify::{IdentifyNamespace, NamespaceList};
use serde_json::{Value, json};
use zerocopy::FromBytes;

use super::{controller_fields, namespace_fields};
use crate::cli::{Address, Global, Namespace};
use crate::output::{self, Format};
use crate::{parse, session};

/// List namespaces
#[derive(Args)]
#[command(after_help = "\
Examples:
  doorbell list-ns emulated:size=1G,namespaces=3
  doorbell list-ns emulated:size=1G -o json")]
pub(crate) struct ListNs {
    #[command(flatten)]
    address: Address,
    /// Only namespaces from this identifier on
    #[arg(short, long, value_name = "NSID", value_parser = parse::number32, default_value = "1")]
    namespace_id: u32,
    /// All namespaces of the subsystem, not only those that the controller has attached
    #[arg(short, long)]
    all: bool,
}

impl ListNs {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let rows = session::with_driver(&self.address.address, global, async |driver| {
            let mut rows = Vec::new();
            for nsid in self.nsids(driver).await? {
                let cns = if self.all { Cns::ALLOCATED_NAMESPACE } else { Cns::NAMESPACE };
                rows.push((nsid, identify_namespace(driver, cns, nsid).await?));
            }
            Ok(rows)
        })?;
        match global.output_format {
            Format::Normal => output::print(table(&rows)),
            Format::Json => {
                let list: Vec<Value> = rows.iter().map(|(nsid, ns)| json_row(*nsid, ns)).collect();
                output::print_json(&json!({ "nsid_list": list }))
            }
        }
    }

    async fn nsids(&self, driver: &NvmeDriver) -> Result<Vec<u32>> {
        if !self.all {
            let all = driver.namespaces().await.context("listing namespaces")?;
            return Ok(all.into_iter().filter(|nsid| *nsid >= self.namespace_id).collect());
        }
        let mut nsids: Vec<u32> = Vec::new();
        loop {
            let after = nsids.last().copied().unwrap_or(self.namespace_id.saturating_sub(1));
            let list = driver.identify_raw(Cns::ALLOCATED_NAMESPACES, after, 0).await;
            let list = list.context("listing allocated namespaces")?;
            let Ok(list) = NamespaceList::read_from_bytes(&list[..]) else { break };
            nsids.extend(list.iter().take_while(|nsid| *nsid > after));
            if !list.is_full() || nsids.last().is_none_or(|last| *last == after) {
                break;
            }
        }
        Ok(nsids)
    }
}

fn table(rows: &[(u32, IdentifyNamespace)]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["NSID", "Size", "Blocks", "Block size", "Metadata", "NGUID"]);
    for (nsid, ns) in rows {
        let format = ns.lba_format().unwrap_or_default();
        let block = format.data_size().unwrap_or_default();
        table.add_row([
            nsid.to_string(),
            output::bytes(ns.nsze.saturating_mul(block)),
            ns.nsze.to_string(),
            block.to_string(),
            format.ms().to_string(),
            output::hex(&ns.nguid),
        ]);
    }
    for column in table.column_iter_mut().take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt() + "\n"
}

fn json_row(nsid: u32, ns: &IdentifyNamespace) -> Value {
    let format = ns.lba_format().unwrap_or_default();
    let block = format.data_size().unwrap_or_default();
    json!({
        "nsid": nsid,
        "bytes": ns.nsze.saturating_mul(block),
        "blocks": ns.nsze,
        "block_size": block,
        "metadata_size": format.ms(),
        "nguid": output::hex(&ns.nguid),
        "eui64": output::hex(&ns.eui64),
    })
}

/// Identify Namespace; an error where there is none.
pub(super) async fn identify_namespace(driver: &NvmeDriver, cns: Cns, nsid: u32) -> Result<IdentifyNamespace> {
    let page = driver.identify_raw(cns, nsid, 0).await.with_context(|| format!("identifying namespace {nsid:#x}"))?;
    match IdentifyNamespace::read_from_bytes(&page[..]) {
        Ok(ns) => Ok(ns),
        Err(_) => bail!("identifying namespace {nsid:#x}: the structure has the wrong size"),
    }
}

/// Identify the controller
#[derive(Args)]
#[command(after_help = "\
Examples:
  doorbell id-ctrl emulated:size=1G
  doorbell id-ctrl emulated:size=1G --human-readable
  doorbell id-ctrl emulated:size=1G -o json
  doorbell id-ctrl emulated:size=1G --raw-binary > id-ctrl.bin")]
pub(crate) struct IdCtrl {
    #[command(flatten)]
    address: Address,
    /// Say what the bits mean
    #[arg(short = 'H', long)]
    human_readable: bool,
    /// Print the structure's bytes as they are
    #[arg(short = 'b', long, conflicts_with = "human_readable")]
    raw_binary: bool,
}

impl IdCtrl {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let (page, page_size) = session::with_driver(&self.address.address, global, async |driver| {
            let page = driver.identify_raw(Cns::CONTROLLER, 0, 0).await.context("identifying the controller")?;
            Ok((page, driver.capabilities().0.min_page_size()))
        })?;
        if self.raw_binary {
            return output::print(&page[..]);
        }
        controller_fields::fields(&page, page_size)?.print(global.output_format, self.human_readable)
    }
}

/// Identify a namespace
#[derive(Args)]
#[command(after_help = "\
Examples:
  doorbell id-ns emulated:size=1G,block=4096
  doorbell id-ns emulated:size=1G,namespaces=2 --namespace-id 2 -H
  doorbell id-ns emulated:size=1G -o json")]
pub(crate) struct IdNs {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    namespace: Namespace,
    /// Say what the bits mean
    #[arg(short = 'H', long)]
    human_readable: bool,
    /// Print the structure's bytes as they are
    #[arg(short = 'b', long, conflicts_with = "human_readable")]
    raw_binary: bool,
    /// Also a namespace that the controller has not attached
    #[arg(short, long)]
    force: bool,
}

impl IdNs {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let (nsid, page) = session::with_driver(&self.address.address, global, async |driver| {
            let nsid = session::nsid(driver, self.namespace.namespace_id).await?;
            let cns = if self.force { Cns::ALLOCATED_NAMESPACE } else { Cns::NAMESPACE };
            let page = driver.identify_raw(cns, nsid, 0).await;
            Ok((nsid, page.with_context(|| format!("identifying namespace {nsid:#x}"))?))
        })?;
        if page.iter().all(|byte| *byte == 0) {
            bail!("there is no namespace {nsid:#x}; list-ns lists those there are");
        }
        if self.raw_binary {
            return output::print(&page[..]);
        }
        namespace_fields::fields(nsid, &page, self.human_readable)?.print(global.output_format, self.human_readable)
    }
}
