//! The controller's registers, one by one, under nvme-cli's names.

use anyhow::{Context, Result};
use doorbell_device::Device;
use nvme_spec::registers::{Cap, Version, offset};

use crate::fields::{Bits, Fields, choice, flag, number};

/// Reads all registers that the controller has.
pub(super) fn read(device: &dyn Device) -> Result<Fields> {
    let word = |offset| device.read32(offset).with_context(|| format!("reading the register at {offset:#x}"));
    let long = |offset| device.read64(offset).with_context(|| format!("reading the register at {offset:#x}"));
    let mut f = Fields::new("NVME Controller Registers:", 8);
    let cap = Cap::from_bits(long(offset::CAP)?);
    f.bits("cap", cap.into_bits(), CAP);
    let version = Version::from_bits(word(offset::VS)?);
    f.hex("version", version.into_bits());
    f.note(format!("  NVMe {version}\n"));
    f.hex("intms", word(offset::INTMS)?);
    f.hex("intmc", word(offset::INTMC)?);
    f.bits("cc", word(offset::CC)?, CC);
    f.bits("csts", word(offset::CSTS)?, CSTS);
    f.hex("nssr", word(offset::NSSR)?);
    let aqa = &[
        number(27, 16, "Admin Completion Queue Size, 0's based"),
        number(11, 0, "Admin Submission Queue Size, 0's based"),
    ];
    f.bits("aqa", word(offset::AQA)?, aqa);
    f.hex("asq", long(offset::ASQ)?);
    f.hex("acq", long(offset::ACQ)?);
    f.bits("cmbloc", word(offset::CMBLOC)?, CMBLOC);
    f.bits("cmbsz", word(offset::CMBSZ)?, CMBSZ);
    if cap.bps() {
        f.hex("bpinfo", word(offset::BPINFO)?);
        f.hex("bprsel", word(offset::BPRSEL)?);
        f.hex("bpmbl", long(offset::BPMBL)?);
    }
    if cap.cmbs() {
        f.hex("cmbmsc", long(offset::CMBMSC)?);
        f.hex("cmbsts", word(offset::CMBSTS)?);
        f.hex("cmbebs", word(offset::CMBEBS)?);
        f.hex("cmbswtp", word(offset::CMBSWTP)?);
    }
    if cap.crms() != 0 {
        let crto = &[
            number(31, 16, "Ready Independent of Media Timeout, in units of 500 ms"),
            number(15, 0, "Ready With Media Timeout, in units of 500 ms"),
        ];
        f.bits("crto", word(offset::CRTO)?, crto);
    }
    if cap.pmrs() {
        f.hex("pmrcap", word(offset::PMRCAP)?);
        f.hex("pmrctl", word(offset::PMRCTL)?);
        f.hex("pmrsts", word(offset::PMRSTS)?);
        f.hex("pmrebs", word(offset::PMREBS)?);
        f.hex("pmrswtp", word(offset::PMRSWTP)?);
        f.hex("pmrmscl", word(offset::PMRMSCL)?);
        f.hex("pmrmscu", word(offset::PMRMSCU)?);
    }
    Ok(f)
}

const CAP: &[Bits] = &[
    flag(60, "Controller Ready Independent of Media"),
    flag(59, "Controller Ready With Media"),
    flag(58, "NVM Subsystem Shutdown"),
    flag(57, "Controller Memory Buffer"),
    flag(56, "Persistent Memory Region"),
    number(55, 52, "Memory Page Size Maximum: 2 ^ (12 + n) bytes"),
    number(51, 48, "Memory Page Size Minimum: 2 ^ (12 + n) bytes"),
    choice(
        47,
        46,
        &["Power Scope Not Reported", "Controller Power Scope", "Domain Power Scope", "NVM Subsystem Power Scope"],
    ),
    flag(45, "Boot Partition"),
    flag(44, "No I/O Command Set"),
    flag(43, "One or more I/O Command Sets"),
    flag(37, "NVM Command Set"),
    flag(36, "NVM Subsystem Reset"),
    number(35, 32, "Doorbell Stride: 2 ^ (2 + n) bytes"),
    number(31, 24, "Timeout, in units of 500 ms"),
    choice(
        18,
        17,
        &[
            "Round Robin only",
            "Weighted Round Robin with Urgent Priority Class",
            "Vendor Specific Arbitration",
            "Weighted Round Robin and Vendor Specific Arbitration",
        ],
    ),
    choice(16, 16, &["Contiguous Queues Not Required", "Contiguous Queues Required"]),
    number(15, 0, "Maximum Queue Entries, 0's based"),
];
const CC: &[Bits] = &[
    choice(24, 24, &["Ready With Media Mode", "Ready Independent of Media Mode"]),
    number(23, 20, "I/O Completion Queue Entry Size: 2 ^ n bytes"),
    number(19, 16, "I/O Submission Queue Entry Size: 2 ^ n bytes"),
    choice(15, 14, &["No Shutdown Notification", "Normal Shutdown", "Abrupt Shutdown"]),
    choice(13, 11, &["Round Robin", "Weighted Round Robin with Urgent Priority Class"]),
    number(10, 7, "Memory Page Size: 2 ^ (12 + n) bytes"),
    choice(
        6,
        4,
        &[
            "NVM Command Set",
            "Reserved",
            "Reserved",
            "Reserved",
            "Reserved",
            "Reserved",
            "All Supported I/O Command Sets",
            "Admin Command Set only",
        ],
    ),
    choice(0, 0, &["Disabled", "Enabled"]),
];
const CSTS: &[Bits] = &[
    choice(6, 6, &["Controller Shutdown", "NVM Subsystem Shutdown"]),
    choice(5, 5, &["Processing", "Processing Paused"]),
    choice(4, 4, &["No NVM Subsystem Reset Occurred", "NVM Subsystem Reset Occurred"]),
    choice(
        3,
        2,
        &["Normal Operation (no shutdown requested)", "Shutdown Processing Occurring", "Shutdown Processing Complete"],
    ),
    choice(1, 1, &["No Fatal Error", "Fatal Error"]),
    choice(0, 0, &["Not Ready", "Ready"]),
];
const CMBLOC: &[Bits] = &[number(31, 12, "Offset, in size units"), number(2, 0, "Base Indicator Register")];
const CMBSZ: &[Bits] = &[
    number(31, 12, "Size, in size units"),
    number(11, 8, "Size Units: 2 ^ (12 + 4n) bytes"),
    flag(4, "Write Data"),
    flag(3, "Read Data"),
    flag(2, "PRP and SGL Lists"),
    flag(1, "Completion Queues"),
    flag(0, "Submission Queues"),
];
