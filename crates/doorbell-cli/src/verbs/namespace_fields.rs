//! Identify Namespace, field by field, under nvme-cli's names.

use anyhow::{Result, anyhow};
use nvme_spec::identify::{IdentifyNamespace, LbaFormat};
use serde_json::{Value, json};
use zerocopy::FromBytes;

use crate::fields::{Bits, Fields, choice, flag, hexadecimal, number};
use crate::output;

const WIDTH: usize = 8;

pub(super) fn fields(nsid: u32, page: &[u8; 4096], decoded: bool) -> Result<Fields> {
    let ns = IdentifyNamespace::read_from_bytes(&page[..]).map_err(|_| anyhow!("the structure has the wrong size"))?;
    let mut f = Fields::new(format!("NVME Identify Namespace {nsid}:"), WIDTH);
    f.hex("nsze", ns.nsze);
    if let Some(block) = ns.lba_format().and_then(LbaFormat::data_size) {
        f.note(format!("  {} in blocks of {block} bytes\n", output::bytes(ns.nsze.saturating_mul(block))));
    }
    f.hex("ncap", ns.ncap);
    f.hex("nuse", ns.nuse);
    f.bits("nsfeat", ns.nsfeat.into_bits(), NSFEAT);
    f.dec("nlbaf", ns.nlbaf);
    f.bits("flbas", ns.flbas.into_bits(), FLBAS);
    f.bits("mc", ns.mc.into_bits(), &[flag(1, "Metadata Pointer"), flag(0, "Metadata as Part of Extended Data LBA")]);
    f.bits("dpc", ns.dpc.into_bits(), DPC);
    f.bits("dps", ns.dps.into_bits(), DPS);
    f.bits("nmic", ns.nmic.into_bits(), &[flag(0, "Sharing with other controllers")]);
    f.bits("rescap", ns.rescap.into_bits(), RESCAP);
    f.bits("fpi", ns.fpi.into_bits(), &[flag(7, "Format Progress Indicator"), number(6, 0, "Percent that remain")]);
    f.bits("dlfeat", ns.dlfeat.into_bits(), DLFEAT);
    for (name, blocks) in [("nawun", ns.nawun), ("nawupf", ns.nawupf), ("nacwu", ns.nacwu)] {
        f.dec(name, blocks);
    }
    for (name, blocks) in [("nabsn", ns.nabsn), ("nabo", ns.nabo), ("nabspf", ns.nabspf), ("noiob", ns.noiob)] {
        f.dec(name, blocks);
    }
    f.wide("nvmcap", ns.nvmcap.get());
    let optimal = [("npwg", ns.npwg), ("npwa", ns.npwa), ("npdg", ns.npdg), ("npda", ns.npda), ("nows", ns.nows)];
    if ns.nsfeat.has_optimal_fields() {
        for (name, blocks) in optimal {
            f.dec(name, blocks);
        }
    }
    f.dec("mssrl", ns.mssrl);
    f.dec("mcl", ns.mcl);
    f.dec("msrc", ns.msrc);
    f.dec("nulbaf", ns.nulbaf);
    f.dec("anagrpid", ns.anagrpid);
    f.bits(
        "nsattr",
        ns.nsattr.into_bits(),
        &[choice(0, 0, &["Namespace Not Write Protected", "Namespace Write Protected"])],
    );
    f.dec("nvmsetid", ns.nvmsetid);
    f.dec("endgid", ns.endgid);
    f.text("nguid", output::hex(&ns.nguid));
    f.text("eui64", output::hex(&ns.eui64));
    let in_use = usize::from(ns.lba_format_index());
    for (index, format) in ns.lba_formats().iter().enumerate() {
        let (text, json) = lba_format(*format, index == in_use, decoded);
        f.item("lbafs", format!("lbaf {index:2}"), text, json);
    }
    Ok(f)
}

fn lba_format(format: LbaFormat, in_use: bool, decoded: bool) -> (String, Value) {
    let marker = if in_use { " (in use)" } else { "" };
    let text = match decoded {
        false => {
            format!("ms:{:<3} lbads:{:<2} rp:{}{marker}", format.ms(), format.lbads(), hexadecimal(format.rp().into()))
        }
        true => {
            let performance = ["Best", "Better", "Good", "Degraded"];
            let performance = performance.get(usize::from(format.rp())).unwrap_or(&"Reserved");
            let data = format.data_size().map_or("none".into(), |size| format!("{size} bytes"));
            let (ms, rp) = (format.ms(), hexadecimal(format.rp().into()));
            let sizes = format!("Metadata Size: {ms:<3} bytes - Data Size: {data:<10}");
            format!("{sizes} - Relative Performance: {rp} {performance}{marker}")
        }
    };
    (text, json!({ "ms": format.ms(), "ds": format.lbads(), "rp": format.rp(), "in_use": in_use }))
}

const NSFEAT: &[Bits] = &[
    choice(
        5,
        4,
        &[
            "NPWG and its kin Not Supported",
            "NPWG, NPWA, NPDG, NPDA, NOWS Supported",
            "NPWG, NPWA, NPDGL, NPDAL, NOWS Supported",
            "All of NPWG and its kin Supported",
        ],
    ),
    choice(3, 3, &["NGUID and EUI64 fields if non-zero, Reused", "NGUID and EUI64 fields if non-zero, Never Reused"]),
    flag(2, "Deallocated or Unwritten Logical Block error"),
    flag(1, "Namespace-specific atomic units (NAWUN, NAWUPF, NACWU)"),
    flag(0, "Thin Provisioning"),
];
const FLBAS: &[Bits] = &[
    number(6, 5, "Most significant 2 bits of Current LBA Format Selected"),
    choice(4, 4, &["Metadata Transferred in Separate Contiguous Buffer", "Metadata Transferred at End of Data LBA"]),
    number(3, 0, "Least significant 4 bits of Current LBA Format Selected"),
];
const DPC: &[Bits] = &[
    flag(4, "Protection Information Transferred as Last Bytes of Metadata"),
    flag(3, "Protection Information Transferred as First Bytes of Metadata"),
    flag(2, "Protection Information Type 3"),
    flag(1, "Protection Information Type 2"),
    flag(0, "Protection Information Type 1"),
];
const DPS: &[Bits] = &[
    choice(
        3,
        3,
        &[
            "Protection Information is in Last Bytes of Metadata",
            "Protection Information is in First Bytes of Metadata",
        ],
    ),
    choice(
        2,
        0,
        &[
            "Protection Information Disabled",
            "Protection Information Type 1",
            "Protection Information Type 2",
            "Protection Information Type 3",
        ],
    ),
];
const RESCAP: &[Bits] = &[
    choice(7, 7, &["Ignore Existing Key as before NVMe 1.3", "Ignore Existing Key as of NVMe 1.3"]),
    flag(6, "Exclusive Access - All Registrants"),
    flag(5, "Write Exclusive - All Registrants"),
    flag(4, "Exclusive Access - Registrants Only"),
    flag(3, "Write Exclusive - Registrants Only"),
    flag(2, "Exclusive Access"),
    flag(1, "Write Exclusive"),
    flag(0, "Persist Through Power Loss"),
];
const DLFEAT: &[Bits] = &[
    choice(4, 4, &["Guard of Deallocated Blocks is FFFFh", "Guard of Deallocated Blocks is a CRC"]),
    flag(3, "Deallocate Bit in the Write Zeroes Command"),
    choice(
        2,
        0,
        &[
            "Bytes Read From a Deallocated Block Not Reported",
            "Bytes Read From a Deallocated Block are 0x00",
            "Bytes Read From a Deallocated Block are 0xFF",
        ],
    ),
];
