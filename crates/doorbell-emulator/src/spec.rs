//! Opening an emulated device: from data, or from an address such as `emulated:size=1G,block=4096`.

mod error;
mod values;

pub use error::SpecError;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use doorbell_device::DeviceError;
use doorbell_device::inprocess::{InProcess, Run};
use nvme_spec::identify::PiType;

use crate::config::{MAX_PAGE_SHIFT, MAX_QUEUE_ENTRIES, MAX_QUEUE_PAIRS, SglSupport};
use crate::{Controller, ControllerConfig, FaultPlan, NamespaceConfig, Storage, Subsystem, SubsystemConfig};

/// How often a controller with a thread of its own looks for what others did to its subsystem.
const HOUSEKEEPING: Duration = Duration::from_millis(10);
/// What an address begins with.
const SCHEME: &str = "emulated:";
/// The keys an address can have, in the order in which an error lists them.
const KEYS: &[&str] = &[
    "size",
    "file",
    "null",
    "zero",
    "block",
    "pi",
    "namespaces",
    "serial",
    "model",
    "queues",
    "mqes",
    "vectors",
    "mdts",
    "sgl",
    "dstrd",
    "mpsmin",
    "mpsmax",
    "version",
    "aerl",
    "vwc",
    "readonly",
    "latency",
    "fault",
];

/// A device: a new controller of `subsystem`, run as `run` says.
pub fn emulated(
    subsystem: &Subsystem,
    config: ControllerConfig,
    run: Run,
) -> Result<Arc<InProcess<Controller>>, DeviceError> {
    let controller = Controller::new(subsystem, with_housekeeping(config, run));
    let address = format!("{SCHEME}serial={},controller={}", subsystem.config().serial, controller.cntlid());
    start(&address, controller, run)
}

fn with_housekeeping(config: ControllerConfig, run: Run) -> ControllerConfig {
    let housekeeping = config.housekeeping.or((run == Run::Threaded).then_some(HOUSEKEEPING));
    ControllerConfig { housekeeping, ..config }
}

fn start(address: &str, controller: Controller, run: Run) -> Result<Arc<InProcess<Controller>>, DeviceError> {
    let vectors = controller.config().vectors.into();
    InProcess::new(address, controller, vectors, run)
}

/// An emulated device as an address names it: `emulated:` and keys, separated by commas.
///
/// | key | what it is |
/// |---|---|
/// | `size=1G` | bytes of each namespace, in memory; suffixes K, M, G, T, P (also KiB, ...) are powers of 1024 |
/// | `file=PATH` | the namespace is this file (without a comma in its name) |
/// | `null` | no data are moved: reads leave memory as it is, writes are forgotten; with `size` |
/// | `zero` | reads give zeroes, writes are forgotten; with `size` |
/// | `block=512` | bytes of a block, a power of two from 512 to 65536 |
/// | `pi=off` | protection information of 8 bytes a block: `off`, `on` (type 1), 1, 2, 3 |
/// | `namespaces=1` | how many, all alike |
/// | `serial=`, `model=` | what the device calls itself |
/// | `queues=64` | I/O queue pairs |
/// | `mqes=4095` | entries of the largest queue, less one |
/// | `vectors=65` | interrupt vectors; 0 can only be polled |
/// | `mdts=9` | a command moves at most 2 ^ MDTS smallest pages; 0 is no limit |
/// | `sgl=on` | SGLs: `on`, `off`, `dword` |
/// | `dstrd=0`, `mpsmin=0`, `mpsmax=4` | as in CAP |
/// | `version=2.0` | the version of NVMe, 1.0 to 2.0 |
/// | `aerl=3` | Asynchronous Event Requests, less one |
/// | `vwc=on` | a volatile write cache: `on`, `off` |
/// | `readonly=off` | the namespaces cannot be written to |
/// | `latency=10us` | time each I/O command takes, in ns, us, ms or s |
/// | `fault=FILE.json` | a [`FaultPlan`] |
///
/// ```
/// use doorbell_device::Device;
/// use doorbell_device::inprocess::Run;
/// use doorbell_emulator::EmulatedSpec;
///
/// let spec: EmulatedSpec = "emulated:size=1G,block=4096,queues=2".parse()?;
/// assert_eq!(spec.build(Run::Inline)?.address(), "emulated:size=1G,block=4096,queues=2");
/// # Ok::<(), doorbell_emulator::SpecError>(())
/// ```
#[derive(Debug, Clone)]
pub struct EmulatedSpec {
    address: String,
    /// Where the namespaces keep their blocks.
    pub storage: StorageSpec,
    /// Bytes of a block.
    pub block: u32,
    /// Protection information.
    pub protection: PiType,
    /// How many namespaces.
    pub namespaces: u32,
    /// Whether they are read-only.
    pub read_only: bool,
    /// The subsystem.
    pub subsystem: SubsystemConfig,
    /// The controller, but for its faults.
    pub controller: ControllerConfig,
    /// The file of the fault plan.
    pub faults: Option<PathBuf>,
}

/// Where an address says that blocks are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageSpec {
    /// In memory.
    Ram {
        /// Bytes.
        size: u64,
    },
    /// Nowhere: no data are moved.
    Null {
        /// Bytes.
        size: u64,
    },
    /// Nowhere: reads give zeroes.
    Zero {
        /// Bytes.
        size: u64,
    },
    /// In a file.
    File(PathBuf),
}

impl EmulatedSpec {
    /// The device. Files are opened now.
    pub fn build(&self, run: Run) -> Result<Arc<InProcess<Controller>>, SpecError> {
        let faults = self.faults.as_ref().map(read_faults).transpose()?.unwrap_or_default();
        let subsystem = self.build_subsystem()?;
        let config = ControllerConfig { faults, ..self.controller.clone() };
        let controller = Controller::new(&subsystem, with_housekeeping(config, run));
        Ok(start(&self.address, controller, run)?)
    }

    /// The subsystem with its namespaces, without a controller.
    pub fn build_subsystem(&self) -> Result<Subsystem, SpecError> {
        let subsystem = Subsystem::new(self.subsystem.clone());
        for _ in 0..self.namespaces {
            let storage = match &self.storage {
                StorageSpec::Ram { size } => Storage::Ram { size: *size },
                StorageSpec::Null { size } => Storage::Null { size: *size },
                StorageSpec::Zero { size } => Storage::Zero { size: *size },
                StorageSpec::File(path) => Storage::File(path.clone()),
            };
            let mut namespace = NamespaceConfig::new(storage).block_size(self.block);
            if self.protection != PiType::NONE {
                namespace = namespace.protection(self.protection);
            }
            namespace.read_only = self.read_only;
            subsystem.add_namespace(namespace)?;
        }
        Ok(subsystem)
    }
}

fn read_faults(path: &PathBuf) -> Result<FaultPlan, SpecError> {
    let failed = |reason: String| SpecError::FaultFile { path: path.clone(), reason };
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))
}

impl fmt::Display for EmulatedSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl FromStr for EmulatedSpec {
    type Err = SpecError;

    fn from_str(address: &str) -> Result<Self, SpecError> {
        let keys = address.strip_prefix(SCHEME).ok_or_else(|| SpecError::Scheme { address: address.into() })?;
        let mut spec = Self {
            address: address.into(),
            storage: StorageSpec::Ram { size: 0 },
            block: 512,
            protection: PiType::NONE,
            namespaces: 1,
            read_only: false,
            subsystem: SubsystemConfig::default(),
            controller: ControllerConfig::default(),
            faults: None,
        };
        let mut place = Place::default();
        let mut seen = BTreeSet::new();
        for pair in keys.split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) = match pair.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (pair, None),
            };
            if !KEYS.contains(&key) {
                return Err(SpecError::UnknownKey { key: key.into(), known: KEYS.join(", ") });
            }
            if !seen.insert(key) {
                return Err(SpecError::Twice { key: key.into() });
            }
            spec.set(&mut place, key, value)?;
        }
        spec.storage = place.storage()?;
        spec.check_sizes()?;
        if seen.contains("version") {
            // What the version has decides what else there is; what is given explicitly stays.
            spec.follow_version(&seen);
        }
        Ok(spec)
    }
}

/// What is said of where the blocks are.
#[derive(Default)]
struct Place {
    size: Option<u64>,
    file: Option<PathBuf>,
    null: bool,
    zero: bool,
}

impl Place {
    fn storage(self) -> Result<StorageSpec, SpecError> {
        match self {
            Self { file: Some(_), size: Some(_), .. } => Err(SpecError::Conflict { one: "file", other: "size" }),
            Self { file: Some(_), null: true, .. } => Err(SpecError::Conflict { one: "file", other: "null" }),
            Self { file: Some(_), zero: true, .. } => Err(SpecError::Conflict { one: "file", other: "zero" }),
            Self { null: true, zero: true, .. } => Err(SpecError::Conflict { one: "null", other: "zero" }),
            Self { file: Some(file), .. } => Ok(StorageSpec::File(file)),
            Self { size: Some(size), null: true, .. } => Ok(StorageSpec::Null { size }),
            Self { size: Some(size), zero: true, .. } => Ok(StorageSpec::Zero { size }),
            Self { size: Some(size), .. } => Ok(StorageSpec::Ram { size }),
            _ => Err(SpecError::NoSize),
        }
    }
}

impl EmulatedSpec {
    fn set(&mut self, place: &mut Place, key: &str, value: Option<&str>) -> Result<(), SpecError> {
        if key == "null" || key == "zero" {
            let place = if key == "null" { &mut place.null } else { &mut place.zero };
            *place = value.is_none_or(|value| value != "off");
            return match value {
                None | Some("on" | "off") => Ok(()),
                Some(value) => Err(SpecError::bad(key, value, "on or off")),
            };
        }
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return Err(SpecError::NoValue { key: key.into() });
        };
        let number = |from: u64, to: u64| values::number(key, value, from, to);
        let controller = &mut self.controller;
        match key {
            "size" => place.size = Some(values::size(key, value)?),
            "file" => place.file = Some(value.into()),
            "block" => self.block = values::block(key, value)?,
            "pi" => self.protection = values::protection(key, value)?,
            "namespaces" => self.namespaces = number(1, self.subsystem.max_namespaces.into())? as u32,
            "serial" => self.subsystem.serial = values::text(key, value, 20)?,
            "model" => self.subsystem.model = values::text(key, value, 40)?,
            "queues" => controller.queue_pairs = number(1, MAX_QUEUE_PAIRS.into())? as u16,
            "mqes" => controller.mqes = number(1, u64::from(MAX_QUEUE_ENTRIES).saturating_sub(1))? as u16,
            "vectors" => controller.vectors = number(0, 2048)? as u16,
            "mdts" => controller.mdts = number(0, 16)? as u8,
            "sgl" => {
                controller.sgl = match value {
                    "on" => SglSupport::Bytes,
                    "off" => SglSupport::None,
                    "dword" => SglSupport::Dwords,
                    _ => return Err(SpecError::bad(key, value, "on, off or dword")),
                }
            }
            "dstrd" => controller.dstrd = number(0, 8)? as u8,
            "mpsmin" => controller.mpsmin = number(0, MAX_PAGE_SHIFT.into())? as u8,
            "mpsmax" => controller.mpsmax = number(0, MAX_PAGE_SHIFT.into())? as u8,
            "version" => controller.version = values::version(key, value)?,
            "aerl" => controller.aerl = number(0, 255)? as u8,
            "vwc" => controller.volatile_write_cache = values::switch(key, value)?,
            "readonly" => self.read_only = values::switch(key, value)?,
            "latency" => controller.latency = Some(values::duration(key, value)?).filter(|time| !time.is_zero()),
            _ => self.faults = Some(value.into()),
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), SpecError> {
        if let StorageSpec::Ram { size } | StorageSpec::Null { size } | StorageSpec::Zero { size } = self.storage
            && !size.is_multiple_of(self.block.into())
        {
            let allowed = format!("a multiple of the block size, {}", self.block);
            return Err(SpecError::BadValue { key: "size".into(), value: size.to_string(), allowed });
        }
        if matches!(self.storage, StorageSpec::File(_)) && self.namespaces != 1 {
            return Err(SpecError::Conflict { one: "file", other: "namespaces" });
        }
        if self.controller.mpsmax < self.controller.mpsmin {
            let allowed = format!("at least mpsmin, {}", self.controller.mpsmin);
            return Err(SpecError::BadValue {
                key: "mpsmax".into(),
                value: self.controller.mpsmax.to_string(),
                allowed,
            });
        }
        Ok(())
    }

    fn follow_version(&mut self, seen: &BTreeSet<&str>) {
        use nvme_spec::registers::Version;
        let version = self.controller.version;
        if version < Version::V1_2 {
            let given = &self.controller;
            let sgl = if seen.contains("sgl") { given.sgl } else { SglSupport::None };
            self.controller = ControllerConfig {
                sgl,
                oncs: ControllerConfig::nvme_1_0().oncs,
                doorbell_buffer_config: false,
                host_id_128: false,
                effects_log: false,
                extended_log: false,
                namespace_notices: false,
                nssrs: false,
                rtd3e: 0,
                ..given.clone()
            };
        }
        if version < Version::V2_0 {
            self.controller.identify_nvm_controller = false;
        }
    }
}
