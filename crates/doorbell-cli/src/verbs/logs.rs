//! Log pages: `smart-log`, `error-log`.

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use nvme_spec::NSID_ALL;
use nvme_spec::log::{ErrorEntry, HealthLog, LogId};
use serde_json::{Value, json};
use zerocopy::FromBytes;

use crate::cli::{Address, Global};
use crate::fields::{Bits, Fields, choice};
use crate::output::{self, Format};
use crate::{parse, session};

/// Show the SMART / health log
#[derive(Args)]
#[command(after_help = "\
Examples:
  doorbell smart-log emulated:size=1G
  doorbell smart-log emulated:size=1G --human-readable
  doorbell smart-log emulated:size=1G -o json")]
pub(crate) struct SmartLog {
    #[command(flatten)]
    address: Address,
    /// Namespace identifier; 0xffffffff is the controller
    #[arg(short, long, value_name = "NSID", default_value = "0xffffffff", value_parser = parse::number32)]
    namespace_id: u32,
    /// Say what the bits mean
    #[arg(short = 'H', long)]
    human_readable: bool,
    /// Print the log page's bytes as they are
    #[arg(short = 'b', long, conflicts_with = "human_readable")]
    raw_binary: bool,
}

impl SmartLog {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let page = session::with_driver(&self.address.address, global, async |driver| {
            let mut page = [0; size_of::<HealthLog>()];
            let read = driver.log_page(LogId::SMART, self.namespace_id, true, 0, &mut page).await;
            read.context("reading the SMART / health log")?;
            Ok(page)
        })?;
        if self.raw_binary {
            return output::print(page);
        }
        let log = HealthLog::read_from_bytes(&page).map_err(|_| anyhow!("the log page has the wrong size"))?;
        match global.output_format {
            Format::Normal => {
                let title =
                    format!("Smart Log for NVME device:{} namespace-id:{:x}", self.address.address, self.namespace_id);
                health_fields(&log, title, true).print(Format::Normal, self.human_readable)
            }
            Format::Json => health_fields(&log, String::new(), false).print(Format::Json, false),
        }
    }
}

/// The log, under the names that nvme-cli has for people and, not the same ones, for JSON.
fn health_fields(log: &HealthLog, title: String, for_people: bool) -> Fields {
    let mut f = Fields::new(title, 40);
    let name = |text: &'static str, json: &'static str| if for_people { text } else { json };
    f.bits("critical_warning", log.critical_warning.into_bits(), WARNINGS);
    let kelvins = log.temperature();
    f.add("temperature", format!("{} °C ({kelvins} K)", i32::from(kelvins) - 273), kelvins);
    let percent = |f: &mut Fields, name: &str, value: u8| f.add(name, format!("{value}%"), value);
    percent(&mut f, name("available_spare", "avail_spare"), log.available_spare);
    percent(&mut f, name("available_spare_threshold", "spare_thresh"), log.available_spare_threshold);
    percent(&mut f, name("percentage_used", "percent_used"), log.percentage_used);
    let group = name("endurance group critical warning summary", "endurance_grp_critical_warning_summary");
    f.hex(group, log.endurance_group_warning);
    for (text, json, units) in [
        ("Data Units Read", "data_units_read", log.data_units_read.get()),
        ("Data Units Written", "data_units_written", log.data_units_written.get()),
    ] {
        let bytes = u64::try_from(units.saturating_mul(512_000)).unwrap_or(u64::MAX);
        let units_text = format!("{} ({})", output::thousands(units), output::bytes(bytes));
        f.add(name(text, json), units_text, u64::try_from(units).unwrap_or(u64::MAX));
    }
    for (name, count) in [
        ("host_read_commands", log.host_reads),
        ("host_write_commands", log.host_writes),
        ("controller_busy_time", log.busy_minutes),
        ("power_cycles", log.power_cycles),
        ("power_on_hours", log.power_on_hours),
        ("unsafe_shutdowns", log.unsafe_shutdowns),
        ("media_errors", log.media_errors),
        ("num_err_log_entries", log.error_log_entries),
    ] {
        f.add(name, output::thousands(count.get()), count.saturating_u64());
    }
    f.dec(name("Warning Temperature Time", "warning_temp_time"), log.warning_temperature_minutes);
    f.dec(name("Critical Composite Temperature Time", "critical_comp_time"), log.critical_temperature_minutes);
    for (index, kelvins) in (1..).zip(log.temperature_sensors).filter(|(_, kelvins)| *kelvins != 0) {
        let sensor =
            if for_people { format!("Temperature Sensor {index}") } else { format!("temperature_sensor_{index}") };
        f.add(sensor, format!("{} °C ({kelvins} K)", i32::from(kelvins) - 273), kelvins);
    }
    let [one, two] = log.thermal_transitions;
    f.dec(name("Thermal Management T1 Trans Count", "thm_temp1_trans_count"), one);
    f.dec(name("Thermal Management T2 Trans Count", "thm_temp2_trans_count"), two);
    let [one, two] = log.thermal_seconds;
    f.dec(name("Thermal Management T1 Total Time", "thm_temp1_total_time"), one);
    f.dec(name("Thermal Management T2 Total Time", "thm_temp2_total_time"), two);
    f
}

const WARNINGS: &[Bits] = &[
    choice(5, 5, &["Persistent Memory Region as it should be", "Persistent Memory Region is read-only or unreliable"]),
    choice(4, 4, &["Volatile memory backup as it should be", "Volatile memory backup failed"]),
    choice(3, 3, &["Media can be written", "Media are read-only"]),
    choice(2, 2, &["Reliable", "NVM subsystem reliability is degraded"]),
    choice(1, 1, &["Temperature within its thresholds", "Temperature beyond a threshold"]),
    choice(0, 0, &["Available spare above its threshold", "Available spare below its threshold"]),
];

/// Show the error log
#[derive(Args)]
#[command(after_help = "\
Examples:
  doorbell error-log emulated:size=1G
  doorbell error-log emulated:size=1G --log-entries 4 -o json")]
pub(crate) struct ErrorLog {
    #[command(flatten)]
    address: Address,
    /// Most entries to show, the newest first
    #[arg(short = 'e', long, value_name = "COUNT", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    log_entries: u16,
    /// Print the log page's bytes as they are
    #[arg(short = 'b', long)]
    raw_binary: bool,
}

impl ErrorLog {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let page = session::with_driver(&self.address.address, global, async |driver| {
            let entries = self.log_entries.min(driver.identify().error_log_entries());
            let mut page = vec![0; usize::from(entries) * size_of::<ErrorEntry>()];
            let read = driver.log_page(LogId::ERROR, NSID_ALL, true, 0, &mut page).await;
            read.context("reading the error log")?;
            Ok(page)
        })?;
        if self.raw_binary {
            return output::print(page);
        }
        let Ok(entries) = <[ErrorEntry]>::ref_from_bytes(&page) else { bail!("the log page has the wrong size") };
        match global.output_format {
            Format::Normal => output::print(error_table(&self.address.address, entries)),
            Format::Json => {
                let errors: Vec<Value> = entries.iter().map(error_json).collect();
                output::print_json(&json!({ "errors": errors }))
            }
        }
    }
}

fn error_table(address: &str, entries: &[ErrorEntry]) -> String {
    let used: Vec<&ErrorEntry> = entries.iter().filter(|entry| entry.error_count != 0).collect();
    let mut text = format!("Error Log Entries for device:{address} entries:{}\n", used.len());
    if used.is_empty() {
        text += "no errors\n";
        return text;
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["error_count", "sqid", "cmdid", "status_field", "lba", "nsid", "vs"]);
    for entry in used {
        table.add_row([
            entry.error_count.to_string(),
            entry.sqid.to_string(),
            format!("{:#x}", entry.cid),
            entry.status.status().to_string(),
            format!("{:#x}", entry.lba),
            format!("{:#x}", entry.nsid),
            entry.vendor_log_page.to_string(),
        ]);
    }
    text + &table.trim_fmt() + "\n"
}

fn error_json(entry: &ErrorEntry) -> Value {
    json!({
        "error_count": entry.error_count,
        "sqid": entry.sqid,
        "cmdid": entry.cid,
        "status_field": entry.status.into_bits() >> 1,
        "phase_tag": entry.status.into_bits() & 1,
        "parm_error_location": entry.parameter_error_location.into_bits(),
        "lba": entry.lba,
        "nsid": entry.nsid,
        "vs": entry.vendor_log_page,
        "trtype": entry.trtype,
        "csi": entry.csi,
        "opcode": entry.opcode,
        "cs": entry.command_specific,
        "trtype_spec_info": entry.transport_specific,
        "log_page_version": entry.version,
    })
}
