//! Reservations: `resv-register`, `resv-acquire`, `resv-release`, `resv-report`.

use anyhow::{Context, Result, bail};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use doorbell::ReservationReport;
use nvme_spec::reservation::{AcquireAction, RegisterAction, ReleaseAction, ReservationType};
use serde_json::{Value, json};

use crate::cli::{Address, Global, Namespace};
use crate::output::{self, Format};
use crate::{parse, session};

const TYPES: &str =
    "1 write exclusive, 2 exclusive access, 3 and 4 the same for registrants only, 5 and 6 for all registrants";

/// Register, unregister or replace a reservation key
#[derive(Args)]
#[command(after_help = "\
Examples:
  doorbell resv-register emulated:size=1G --nrkey 0xabc
  doorbell resv-register emulated:size=1G --rrega 2 --crkey 0xabc --nrkey 0xdef
  doorbell resv-register emulated:size=1G --nrkey 0xabc --iekey --cptpl 3")]
pub(crate) struct Register {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    namespace: Namespace,
    /// Current reservation key
    #[arg(short, long, value_name = "KEY", default_value = "0", value_parser = parse::number)]
    crkey: u64,
    /// New reservation key
    #[arg(short = 'k', long, value_name = "KEY", default_value = "0", value_parser = parse::number)]
    nrkey: u64,
    /// Action: 0 register, 1 unregister, 2 replace
    #[arg(short = 'a', long, value_name = "ACTION", default_value = "0")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=2))]
    rrega: u8,
    /// Persist through power loss: 0 as it is, 2 no, 3 yes
    #[arg(short = 'p', long, value_name = "CHANGE", default_value = "0", value_parser = ["0", "2", "3"])]
    cptpl: String,
    /// Ignore the existing key
    #[arg(short, long)]
    iekey: bool,
}

impl Register {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let ptpl = match self.cptpl.as_str() {
            "2" => Some(false),
            "3" => Some(true),
            _ => None,
        };
        let crkey = (!self.iekey).then_some(self.crkey);
        let nsid = on_namespace(&self.address, &self.namespace, global, "registering", async |namespace| {
            namespace.reservation_register(0, RegisterAction(self.rrega), crkey, self.nrkey, ptpl).await
        })?;
        let action = ["registered", "unregistered", "replaced"][usize::from(self.rrega)];
        output::print_either(
            global.output_format,
            || format!("resv-register: namespace {nsid}: {action}"),
            || json!({ "nsid": nsid, "rrega": self.rrega, "nrkey": self.nrkey }),
        )
    }
}

/// Acquire a reservation, or preempt another host's
#[derive(Args)]
#[command(after_help = "\
The host has to be registered first.

Examples:
  doorbell resv-acquire emulated:size=1G --crkey 0xabc --rtype 1
  doorbell resv-acquire emulated:size=1G --crkey 0xabc --racqa 1 --prkey 0xdef --rtype 3")]
pub(crate) struct Acquire {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    namespace: Namespace,
    /// Current reservation key
    #[arg(short, long, value_name = "KEY", default_value = "0", value_parser = parse::number)]
    crkey: u64,
    /// Reservation key to preempt
    #[arg(short, long, value_name = "KEY", default_value = "0", value_parser = parse::number)]
    prkey: u64,
    #[arg(short = 't', long, value_name = "TYPE", help = TYPES)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=6))]
    rtype: u8,
    /// Action: 0 acquire, 1 preempt, 2 preempt and abort
    #[arg(short = 'a', long, value_name = "ACTION", default_value = "0")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=2))]
    racqa: u8,
}

impl Acquire {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let rtype = ReservationType(self.rtype);
        let nsid = on_namespace(&self.address, &self.namespace, global, "acquiring", async |namespace| {
            namespace.reservation_acquire(0, AcquireAction(self.racqa), self.crkey, self.prkey, rtype).await
        })?;
        let action = ["acquired", "preempted", "preempted and aborted"][usize::from(self.racqa)];
        output::print_either(
            global.output_format,
            || format!("resv-acquire: namespace {nsid}: {action}, {}", rtype.name().unwrap_or("reserved")),
            || json!({ "nsid": nsid, "racqa": self.racqa, "rtype": self.rtype }),
        )
    }
}

/// Release a reservation, or clear all registrations
#[derive(Args)]
#[command(after_help = "\
Examples:
  doorbell resv-release emulated:size=1G --crkey 0xabc --rtype 1
  doorbell resv-release emulated:size=1G --crkey 0xabc --rrela 1")]
pub(crate) struct Release {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    namespace: Namespace,
    /// Current reservation key
    #[arg(short, long, value_name = "KEY", default_value = "0", value_parser = parse::number)]
    crkey: u64,
    #[arg(short = 't', long, value_name = "TYPE", default_value = "0", help = TYPES)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=6))]
    rtype: u8,
    /// Action: 0 release, 1 clear
    #[arg(short = 'a', long, value_name = "ACTION", default_value = "0")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=1))]
    rrela: u8,
}

impl Release {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        if self.rrela == 0 && self.rtype == 0 {
            bail!("--rtype is needed to release a reservation: {TYPES}");
        }
        let nsid = on_namespace(&self.address, &self.namespace, global, "releasing", async |namespace| {
            let rtype = ReservationType(self.rtype);
            namespace.reservation_release(0, ReleaseAction(self.rrela), self.crkey, rtype).await
        })?;
        let action = ["released", "cleared"][usize::from(self.rrela)];
        output::print_either(
            global.output_format,
            || format!("resv-release: namespace {nsid}: {action}"),
            || json!({ "nsid": nsid, "rrela": self.rrela, "rtype": self.rtype }),
        )
    }
}

fn on_namespace(
    address: &Address,
    namespace: &Namespace,
    global: &Global,
    what: &'static str,
    work: impl AsyncFnOnce(&doorbell::Namespace) -> Result<(), doorbell::RequestError>,
) -> Result<u32> {
    session::with_driver(&address.address, global, async |driver| {
        let namespace = session::namespace(driver, namespace.namespace_id).await?;
        let nsid = namespace.nsid();
        work(&namespace).await.with_context(|| format!("{what} for namespace {nsid}"))?;
        Ok(nsid)
    })
}

/// Show who is registered, and who holds the reservation
#[derive(Args)]
#[command(after_help = "\
Examples:
  doorbell resv-report emulated:size=1G
  doorbell resv-report emulated:size=1G -o json")]
pub(crate) struct Report {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    namespace: Namespace,
}

impl Report {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let (nsid, report) = session::with_driver(&self.address.address, global, async |driver| {
            let namespace = session::namespace(driver, self.namespace.namespace_id).await?;
            Ok((namespace.nsid(), namespace.reservation_report_extended(0).await?))
        })?;
        match global.output_format {
            Format::Normal => output::print(text(nsid, &report)),
            Format::Json => output::print_json(&json(&report)),
        }
    }
}

fn text(nsid: u32, report: &ReservationReport) -> String {
    let header = &report.header;
    let mut text = format!(
        "NVME Reservation status of namespace {nsid}:\n\n\
         gen       : {}\nrtype     : {} ({})\nregctl    : {}\nptpls     : {}\n",
        header.generation,
        header.rtype.0,
        header.rtype.name().unwrap_or("reserved"),
        header.regctl(),
        header.ptpls,
    );
    if !report.controllers.is_empty() {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(["cntlid", "rcsts", "rkey", "hostid"]);
        for controller in &report.controllers {
            let holder = if controller.rcsts.holder() { " (holds the reservation)" } else { "" };
            table.add_row([
                format!("{:#x}", controller.cntlid),
                format!("{}{holder}", controller.rcsts.into_bits()),
                format!("{:#x}", controller.rkey),
                output::hex(&controller.hostid),
            ]);
        }
        text += &format!("\n{}\n", table.trim_fmt());
    }
    text
}

fn json(report: &ReservationReport) -> Value {
    let controllers: Vec<Value> = report
        .controllers
        .iter()
        .map(|controller| {
            json!({
                "cntlid": controller.cntlid,
                "rcsts": controller.rcsts.into_bits(),
                "rkey": controller.rkey,
                "hostid": output::hex(&controller.hostid),
            })
        })
        .collect();
    json!({
        "gen": report.header.generation,
        "rtype": report.header.rtype.0,
        "regctl": report.header.regctl(),
        "ptpls": report.header.ptpls,
        "regctlext": controllers,
    })
}
