//! Identify Controller, field by field, under nvme-cli's names.

use anyhow::{Result, anyhow};
use nvme_spec::identify::{IdentifyController, PowerScale, PowerState};
use serde_json::{Value, json};
use zerocopy::FromBytes;

use crate::fields::{Bits, Fields, choice, flag, number};
use crate::output;

/// Names are padded to what nvme-cli pads them to.
const WIDTH: usize = 10;

pub(super) fn fields(page: &[u8; 4096], min_page_size: usize) -> Result<Fields> {
    let id = IdentifyController::read_from_bytes(&page[..]).map_err(|_| anyhow!("the structure has the wrong size"))?;
    let mut f = Fields::new("NVME Identify Controller:", WIDTH);
    identity(&mut f, &id, min_page_size);
    admin(&mut f, &id);
    limits(&mut f, &id);
    nvm(&mut f, &id);
    f.text("subnqn", id.subnqn.as_str());
    f.dec("ioccsz", id.ioccsz);
    f.dec("iorcsz", id.iorcsz);
    f.dec("icdoff", id.icdoff);
    f.dec("fcatt", id.fcatt);
    f.dec("msdbd", id.msdbd);
    f.dec("ofcs", id.ofcs);
    for (index, state) in id.power_states().iter().enumerate() {
        let (text, json) = power_state(state);
        f.item("psds", format!("ps{index:7}"), text, json);
    }
    Ok(f)
}

fn identity(f: &mut Fields, id: &IdentifyController, min_page_size: usize) {
    f.hex("vid", id.vid);
    f.hex("ssvid", id.ssvid);
    f.text("sn", id.sn.as_str());
    f.text("mn", id.mn.as_str());
    f.text("fr", id.fr.as_str());
    f.dec("rab", id.rab);
    let [low, middle, high] = id.ieee;
    f.add("ieee", format!("{high:02x}{middle:02x}{low:02x}"), u32::from_le_bytes([low, middle, high, 0]));
    f.bits("cmic", id.cmic.into_bits(), CMIC);
    f.dec("mdts", id.mdts);
    let most = id.max_transfer_bytes(min_page_size).map_or("no limit".into(), output::bytes);
    f.note(format!("  largest transfer: {most}\n"));
    f.hex("cntlid", id.cntlid);
    f.hex("ver", id.ver.into_bits());
    f.note(format!("  NVMe {}\n", id.ver));
    f.hex("rtd3r", id.rtd3r);
    f.hex("rtd3e", id.rtd3e);
    f.bits("oaes", id.oaes.into_bits(), OAES);
    f.bits("ctratt", id.ctratt.into_bits(), CTRATT);
    f.hex("rrls", id.rrls);
    f.bits("cntrltype", id.cntrltype.0, &[choice(7, 0, &["Not reported", "I/O", "Discovery", "Administrative"])]);
    f.text("fguid", output::hex(&id.fguid));
    f.dec("crdt1", id.crdt1);
    f.dec("crdt2", id.crdt2);
    f.dec("crdt3", id.crdt3);
    let report = &[flag(1, "NVMe Enclosure"), flag(0, "NVMe Storage Device")];
    f.bits("nvmsr", id.nvmsr.into_bits(), report);
    f.bits("vwci", id.vwci.into_bits(), &[flag(7, "VPD Write Cycles Remaining"), number(6, 0, "Write Cycles")]);
    f.bits("mec", id.mec.into_bits(), &[flag(1, "PCIe Port"), flag(0, "SMBus/I2C Port")]);
}

fn admin(f: &mut Fields, id: &IdentifyController) {
    f.bits("oacs", id.oacs.into_bits(), OACS);
    f.dec("acl", id.acl);
    f.dec("aerl", id.aerl);
    f.bits("frmw", id.frmw.into_bits(), FRMW);
    f.bits("lpa", id.lpa.into_bits(), LPA);
    f.dec("elpe", id.elpe);
    f.dec("npss", id.npss);
    f.bits("avscc", id.avscc, &[flag(0, "Standard Format of Admin Vendor Specific Commands")]);
    f.bits("apsta", id.apsta.into_bits(), &[flag(0, "Autonomous Power State Transitions")]);
    kelvins(f, "wctemp", id.wctemp);
    kelvins(f, "cctemp", id.cctemp);
    f.dec("mtfa", id.mtfa);
    f.dec("hmpre", id.hmpre);
    f.dec("hmmin", id.hmmin);
    f.wide("tnvmcap", id.tnvmcap.get());
    f.wide("unvmcap", id.unvmcap.get());
    f.hex("rpmbs", id.rpmbs);
    f.dec("edstt", id.edstt);
    f.dec("dsto", id.dsto);
    f.dec("fwug", id.fwug);
    f.dec("kas", id.kas);
}

fn limits(f: &mut Fields, id: &IdentifyController) {
    f.bits("hctma", id.hctma, &[flag(0, "Host Controlled Thermal Management")]);
    kelvins(f, "mntmt", id.mntmt);
    kelvins(f, "mxtmt", id.mxtmt);
    f.bits("sanicap", id.sanicap.into_bits(), SANICAP);
    f.dec("hmminds", id.hmminds);
    f.dec("hmmaxd", id.hmmaxd);
    f.dec("nsetidmax", id.nsetidmax);
    f.dec("endgidmax", id.endgidmax);
    f.dec("anatt", id.anatt);
    f.bits("anacap", id.anacap.into_bits(), ANACAP);
    f.dec("anagrpmax", id.anagrpmax);
    f.dec("nanagrpid", id.nanagrpid);
    f.dec("pels", id.pels);
    f.dec("domainid", id.domainid);
    f.wide("megcap", id.megcap.get());
    f.bits("sqes", id.sqes.into_bits(), SQES);
    f.bits("cqes", id.cqes.into_bits(), CQES);
    f.dec("maxcmd", id.maxcmd);
    f.dec("nn", id.nn);
}

fn nvm(f: &mut Fields, id: &IdentifyController) {
    f.bits("oncs", id.oncs.into_bits(), ONCS);
    f.bits("fuses", id.fuses.into_bits(), &[flag(0, "Fused Compare and Write")]);
    f.bits("fna", id.fna.into_bits(), FNA);
    f.bits("vwc", id.vwc.into_bits(), VWC);
    f.dec("awun", id.awun);
    f.dec("awupf", id.awupf);
    f.bits("icsvscc", id.icsvscc, &[flag(0, "Standard Format of I/O Vendor Specific Commands")]);
    f.bits("nwpc", id.nwpc.into_bits(), NWPC);
    f.dec("acwu", id.acwu);
    f.bits("ocfs", id.cdfs, CDFS);
    f.bits("sgls", id.sgls.into_bits(), SGLS);
    f.dec("mnan", id.mnan);
    f.wide("maxdna", id.maxdna.get());
    f.dec("maxcna", id.maxcna);
}

fn kelvins(f: &mut Fields, name: &str, kelvins: u16) {
    f.dec(name, kelvins);
    if kelvins != 0 {
        f.note(format!("  {} °C ({kelvins} K)\n", i32::from(kelvins) - 273));
    }
}

fn power_state(state: &PowerState) -> (String, Value) {
    let max = if state.flags.mxps() { f64::from(state.mp) / 10_000.0 } else { f64::from(state.mp) / 100.0 };
    let operational = if state.flags.nops() { "non-operational" } else { "operational" };
    let text = format!(
        "mp:{max:.2}W {operational} enlat:{} exlat:{} rrt:{} rrl:{} rwt:{} rwl:{} idle_power:{} active_power:{}",
        state.enlat,
        state.exlat,
        state.rrt,
        state.rrl,
        state.rwt,
        state.rwl,
        watts(state.idlp, state.ips),
        watts(state.actp, state.apws),
    );
    let json = json!({
        "max_power": state.mp,
        "max_power_scale": u8::from(state.flags.mxps()),
        "non-operational_state": u8::from(state.flags.nops()),
        "entry_lat": state.enlat,
        "exit_lat": state.exlat,
        "read_tput": state.rrt,
        "read_lat": state.rrl,
        "write_tput": state.rwt,
        "write_lat": state.rwl,
        "idle_power": state.idlp,
        "idle_scale": state.ips.scale(),
        "active_power": state.actp,
        "active_power_work": state.apws.workload(),
        "active_scale": state.apws.scale(),
    });
    (text, json)
}

fn watts(power: u16, scale: PowerScale) -> String {
    match scale.scale() {
        1 => format!("{:.4}W", f64::from(power) / 10_000.0),
        2 => format!("{:.2}W", f64::from(power) / 100.0),
        _ => "-".into(),
    }
}

const CMIC: &[Bits] =
    &[flag(3, "ANA"), flag(2, "SR-IOV Virtual Function"), flag(1, "Multi Controller"), flag(0, "Multi Port")];
const OAES: &[Bits] = &[
    flag(31, "Discovery Log Change Notices"),
    flag(27, "Zone Descriptor Changed Notices"),
    flag(15, "Normal NSS Shutdown Event"),
    flag(14, "Endurance Group Event Aggregate Log Page Change Notices"),
    flag(13, "LBA Status Information Notices"),
    flag(12, "Predictable Latency Event Aggregate Log Change Notices"),
    flag(11, "Asymmetric Namespace Access Change Notices"),
    flag(9, "Firmware Activation Notices"),
    flag(8, "Namespace Attribute Changed Event"),
];
const CTRATT: &[Bits] = &[
    flag(19, "Flexible Data Placement"),
    flag(15, "Extended LBA Formats"),
    flag(14, "Delete NVM Set"),
    flag(13, "Delete Endurance Group"),
    flag(12, "Variable Capacity Management"),
    flag(11, "Fixed Capacity Management"),
    flag(10, "Multi Domain Subsystem"),
    flag(9, "UUID List"),
    flag(8, "SQ Associations"),
    flag(7, "Namespace Granularity"),
    flag(6, "Traffic Based Keep Alive"),
    flag(5, "Predictable Latency Mode"),
    flag(4, "Endurance Groups"),
    flag(3, "Read Recovery Levels"),
    flag(2, "NVM Sets"),
    flag(1, "Non-Operational Power State Permissive"),
    flag(0, "128-bit Host Identifier"),
];
const OACS: &[Bits] = &[
    flag(10, "Command and Feature Lockdown"),
    flag(9, "Get LBA Status Capability"),
    flag(8, "Doorbell Buffer Config"),
    flag(7, "Virtualization Management"),
    flag(6, "NVMe-MI Send and Receive"),
    flag(5, "Directives"),
    flag(4, "Device Self-test"),
    flag(3, "NS Management and Attachment"),
    flag(2, "FW Commit and Download"),
    flag(1, "Format NVM"),
    flag(0, "Security Send and Receive"),
];
const FRMW: &[Bits] = &[
    flag(5, "Multiple FW or Boot Update Detection"),
    flag(4, "Firmware Activate Without Reset"),
    number(3, 1, "Number of Firmware Slots"),
    choice(0, 0, &["Firmware Slot 1 Read/Write", "Firmware Slot 1 Read-Only"]),
];
const LPA: &[Bits] = &[
    flag(6, "Telemetry Log Data Area 4"),
    flag(5, "Supported Log Pages, Feature and MI Effects Pages"),
    flag(4, "Persistent Event log"),
    flag(3, "Telemetry host/controller initiated log page"),
    flag(2, "Extended data for Get Log Page"),
    flag(1, "Command Effects Log Page"),
    flag(0, "SMART/Health Log Page per NS"),
];
const SANICAP: &[Bits] = &[
    choice(31, 30, &["Media modification after sanitize not defined", "Media not modified", "Media modified"]),
    flag(29, "No-Deallocate After Sanitize Inhibition"),
    flag(2, "Overwrite Sanitize Operation"),
    flag(1, "Block Erase Sanitize Operation"),
    flag(0, "Crypto Erase Sanitize Operation"),
];
const ANACAP: &[Bits] = &[
    flag(7, "Non-zero Group ID"),
    flag(6, "Group ID that does not change"),
    flag(4, "ANA Change state"),
    flag(3, "ANA Persistent Loss state"),
    flag(2, "ANA Inaccessible state"),
    flag(1, "ANA Non-optimized state"),
    flag(0, "ANA Optimized state"),
];
const SQES: &[Bits] =
    &[number(7, 4, "Max SQ Entry Size, as a power of two"), number(3, 0, "Min SQ Entry Size, as a power of two")];
const CQES: &[Bits] =
    &[number(7, 4, "Max CQ Entry Size, as a power of two"), number(3, 0, "Min CQ Entry Size, as a power of two")];
const ONCS: &[Bits] = &[
    flag(8, "Copy"),
    flag(7, "Verify"),
    flag(6, "Timestamp"),
    flag(5, "Reservations"),
    flag(4, "Save and Select"),
    flag(3, "Write Zeroes"),
    flag(2, "Data Set Management"),
    flag(1, "Write Uncorrectable"),
    flag(0, "Compare"),
];
const FNA: &[Bits] = &[
    choice(3, 3, &["Format Broadcast NSID (FFFFFFFFh) Supported", "Format Broadcast NSID (FFFFFFFFh) Not Supported"]),
    flag(2, "Crypto Erase as part of Secure Erase"),
    choice(1, 1, &["Crypto Erase Applies to Single Namespace", "Crypto Erase Applies to All Namespaces"]),
    choice(0, 0, &["Format Applies to Single Namespace", "Format Applies to All Namespaces"]),
];
const VWC: &[Bits] = &[
    choice(
        2,
        1,
        &[
            "Flush of all namespaces not said",
            "Reserved",
            "Flush of all namespaces Not Supported",
            "Flush of all namespaces Supported",
        ],
    ),
    choice(0, 0, &["Volatile Write Cache Not Present", "Volatile Write Cache Present"]),
];
const NWPC: &[Bits] = &[
    flag(2, "Permanent Write Protect"),
    flag(1, "Write Protect Until Power Supply"),
    flag(0, "No Write Protect and Write Protect Namespace"),
];
const CDFS: &[Bits] =
    &[flag(3, "Copy Format 3h"), flag(2, "Copy Format 2h"), flag(1, "Copy Format 1h"), flag(0, "Copy Format 0h")];
const SGLS: &[Bits] = &[
    flag(21, "Transport SGL Data Block Descriptor"),
    flag(20, "Address Field of SGL as an Offset"),
    flag(19, "MPTR Containing SGL"),
    flag(18, "SGL Length Larger than Buffer"),
    flag(17, "Byte-Aligned Contiguous Metadata Buffers"),
    flag(16, "SGL Bit Bucket"),
    number(15, 8, "SGL Descriptor Threshold"),
    flag(2, "Keyed SGL Data Block"),
    choice(1, 0, &["SGLs Not Supported", "SGLs Supported, Byte Aligned", "SGLs Supported, Dword Aligned"]),
];
