//! What a namespace is made of, on the command line and over the control socket.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Once;

use anyhow::{Context, Result, bail, ensure};
use doorbell_emulator::{Backend, EmulatorError, FileBackend, NamespaceConfig, RingBackend, SharedRamBackend, Storage};

use crate::parse;

/// A namespace to be: `KIND:WHAT` and options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamespaceSpec {
    kind: Kind,
    block: Option<u32>,
    read_only: bool,
    /// A file: by io_uring, where the kernel lets us.
    uring: bool,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Ram(u64),
    Null(u64),
    Zero(u64),
    File(PathBuf),
    Device(DeviceSpec),
}

/// A namespace of a device: which, or the only one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceSpec {
    pub(crate) address: String,
    pub(crate) nsid: Option<u32>,
}

/// That a file is ours, as long as it is kept.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl From<OwnedFd> for Lock {
    /// One that another process had.
    fn from(fd: OwnedFd) -> Self {
        Self { file: fd.into() }
    }
}

impl Lock {
    /// The same lock, for another process.
    pub(crate) fn try_clone(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }
}

impl NamespaceSpec {
    /// The namespace, in blocks of `block` bytes where it does not say; `device` opens it where it is a device's.
    pub(crate) fn config(
        &self,
        block: u32,
        device: impl FnOnce(&DeviceSpec) -> Result<NamespaceConfig>,
    ) -> Result<NamespaceConfig> {
        let config = match &self.kind {
            Kind::Ram(size) => memory(*size),
            Kind::Null(size) => NamespaceConfig::null(*size),
            Kind::Zero(size) => NamespaceConfig::zero(*size),
            Kind::File(path) => self.in_file(path, self.block.unwrap_or(block))?,
            Kind::Device(spec) => {
                let config = device(spec)?;
                return Ok(NamespaceConfig { read_only: config.read_only || self.read_only, ..config });
            }
        };
        Ok(NamespaceConfig { read_only: self.read_only, ..config.block_size(self.block.unwrap_or(block)) })
    }

    /// Makes sure that no other namespace uses the same file, be it of this server or of another.
    pub(crate) fn lock(&self) -> Result<Option<Lock>> {
        let Kind::File(path) = &self.kind else { return Ok(None) };
        let file = self.open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { file })),
            Err(TryLockError::WouldBlock) => bail!("{}: another namespace uses this file already", path.display()),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// A file, which need not be writable for a namespace that is not.
    fn open(&self, path: &Path) -> Result<File> {
        let said = || path.display().to_string();
        let file = OpenOptions::new().read(true).write(!self.read_only).open(path).with_context(said)?;
        let kind = file.metadata().with_context(said)?.file_type();
        ensure!(kind.is_file() || kind.is_block_device(), "{}: neither a file nor a block device", path.display());
        Ok(file)
    }

    /// Storage in a file: by io_uring, or a command at a time where that is refused, as it is in many containers.
    fn in_file(&self, path: &Path, block: u32) -> Result<NamespaceConfig> {
        let said = || path.display().to_string();
        let file = self.open(path)?;
        let ring = self.uring.then(|| file.try_clone().and_then(RingBackend::new));
        let storage: Box<dyn Backend> = match ring {
            Some(Ok(ring)) => Box::new(ring),
            Some(Err(error)) if error.kind() == io::ErrorKind::Unsupported => {
                static ONCE: Once = Once::new();
                ONCE.call_once(
                    || tracing::warn!(%error, "no io_uring: files are read and written a command at a time"),
                );
                Box::new(FileBackend::new(file).with_context(said)?)
            }
            Some(Err(error)) => return Err(error).with_context(said),
            None => Box::new(FileBackend::new(file).with_context(said)?),
        };
        let (size, block) = (storage.size(), u64::from(block));
        if size == 0 || !size.is_multiple_of(block) {
            return Err(EmulatorError::FileSize { path: path.into(), size, block }.into());
        }
        Ok(NamespaceConfig::new(Storage::Custom(storage)))
    }
}

impl fmt::Display for NamespaceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for NamespaceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(device) = text.strip_prefix("device:") {
            return Self::of_device(device, text);
        }
        let mut parts = text.split(',');
        let first = parts.next().unwrap_or_default();
        let Some((kind, what)) = first.split_once(':') else {
            return Err("a namespace is KIND:WHAT, such as ram:1G, file:disk.img or null:1T".into());
        };
        let kind = match kind {
            "ram" => Kind::Ram(parse::size(what)?),
            "null" => Kind::Null(parse::size(what)?),
            "zero" => Kind::Zero(parse::size(what)?),
            "file" if what.is_empty() => return Err("a file is needed, such as file:disk.img".into()),
            "file" => Kind::File(what.into()),
            _ => {
                return Err(format!(
                    "there is no kind of namespace {kind:?}; there are ram, file, zero, null and device"
                ));
            }
        };
        let is_file = matches!(kind, Kind::File(_));
        let mut spec = Self { kind, block: None, read_only: false, uring: is_file, text: text.into() };
        for option in parts {
            match option.split_once('=') {
                Some(("block", value)) => spec.block = Some(block_size(value)?),
                None if option == "readonly" => spec.read_only = true,
                Some(("uring", value)) if is_file => spec.uring = on_or_off(value)?,
                _ => {
                    return Err(format!(
                        "there is no option {option:?}; there are block=, readonly, and uring= for files"
                    ));
                }
            }
        }
        Ok(spec)
    }
}

impl NamespaceSpec {
    /// `ADDRESS[:NSID][,readonly]`. Addresses have commas of their own.
    fn of_device(device: &str, text: &str) -> Result<Self, String> {
        let (place, read_only) = device.strip_suffix(",readonly").map_or((device, false), |place| (place, true));
        let is_number = |nsid: &str| !nsid.is_empty() && nsid.bytes().all(|byte| byte.is_ascii_digit());
        let (address, nsid) = match place.rsplit_once(':').filter(|(rest, nsid)| rest.contains(':') && is_number(nsid))
        {
            Some((address, nsid)) => {
                let number = nsid.parse().ok().filter(|nsid| (1..=0xffff_fffe).contains(nsid));
                (address, Some(number.ok_or_else(|| format!("NSID {nsid} names no namespace; 1 to 4294967294 can"))?))
            }
            None => (place, None),
        };
        if !address.contains(':') {
            return Err("a device is needed, such as device:pci:0000:01:00.0 or device:vfio-user:/path:1".into());
        }
        let kind = Kind::Device(DeviceSpec { address: address.into(), nsid });
        Ok(Self { kind, block: None, read_only, uring: false, text: text.into() })
    }
}

/// Memory that another server can be given; where there are no addresses for so much, memory that it cannot.
fn memory(size: u64) -> NamespaceConfig {
    match SharedRamBackend::new(size) {
        Ok(memory) => NamespaceConfig::new(Storage::Custom(Box::new(memory))),
        Err(error) => {
            tracing::info!(%error, "in memory that no other server can take over");
            NamespaceConfig::ram(size)
        }
    }
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("on or off is needed".into()),
    }
}

/// Bytes of a block.
pub(crate) fn block_size(text: &str) -> Result<u32, String> {
    let bytes = parse::size(text).ok().filter(|bytes| bytes.is_power_of_two() && (512..=65_536).contains(bytes));
    bytes.and_then(|bytes| u32::try_from(bytes).ok()).ok_or_else(|| "a power of two from 512 to 65536 is needed".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_named_by_kind_and_place() {
        let spec = |text: &str| text.parse::<NamespaceSpec>();
        assert_eq!(spec("ram:1G").unwrap().kind, Kind::Ram(1 << 30));
        let file = spec("file:a:b").unwrap();
        assert_eq!((file.kind, file.uring), (Kind::File("a:b".into()), true));
        assert!(spec("file:a,uring=on").unwrap().uring && !spec("file:a,uring=off").unwrap().uring);
        let null = spec("null:1T,block=4k,readonly").unwrap();
        assert_eq!((null.kind, null.block, null.read_only), (Kind::Null(1 << 40), Some(4096), true));
        assert_eq!(spec("zero:1M").unwrap().kind, Kind::Zero(1 << 20));
        let device = |text: &str| {
            let spec = spec(text).unwrap();
            let Kind::Device(DeviceSpec { address, nsid }) = spec.kind else { panic!("{text} is a device's") };
            (address, nsid, spec.read_only)
        };
        assert_eq!(device("device:pci:0000:01:00.0"), ("pci:0000:01:00.0".into(), None, false));
        assert_eq!(device("device:pci:0000:01:00.0:7,readonly"), ("pci:0000:01:00.0".into(), Some(7), true));
        assert_eq!(device("device:vfio-user:/a,reconnect=5:1"), ("vfio-user:/a,reconnect=5".into(), Some(1), false));
        for (text, said) in [
            ("ram", "KIND:WHAT"),
            ("disk:1G", "there are ram, file, zero, null and device"),
            ("device:", "a device is needed"),
            ("device:1", "a device is needed"),
            ("device:vfio-user:/a:0", "NSID 0 names no namespace"),
            ("ram:", "a number is needed"),
            ("ram:1G,block=1000", "power of two"),
            ("ram:1G,block", "block=, readonly"),
            ("ram:1G,uring=on", "uring= for files"),
            ("file:a,uring=1", "on or off"),
            ("file:", "a file is needed"),
        ] {
            let error = spec(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
