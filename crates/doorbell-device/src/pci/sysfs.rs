//! Reading and writing the system's own files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::processes::in_words;
use super::{BadPciAddress, PciAddress, Process, Use};

/// Why something about a PCI function cannot be had or done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PciError {
    /// Text that is no address.
    #[error(transparent)]
    BadAddress(#[from] BadPciAddress),
    /// There is no such function.
    #[error("there is no PCI function {0}")]
    NotFound(PciAddress),
    /// It was unplugged while something was done to it.
    #[error("{0} was there, and is gone: it was unplugged meanwhile")]
    Vanished(PciAddress),
    /// It is something else than an NVMe controller.
    #[error("{address} is no NVMe controller: its class is {class:06x}, not 010802")]
    NotNvme {
        /// The function.
        address: PciAddress,
        /// Its class code.
        class: u32,
    },
    /// The kernel has no such driver.
    #[error("the kernel has no driver {0} loaded: run modprobe {0}")]
    NoDriver(&'static str),
    /// Without an IOMMU, VFIO does not hand out a device.
    #[error("{0} is in no IOMMU group: the machine's IOMMU is off or absent (doorbell doctor says more)")]
    NoIommu(PciAddress),
    /// It is in use.
    #[error("{address} is in use: {}", list(.uses))]
    Busy {
        /// The function.
        address: PciAddress,
        /// By what.
        uses: Vec<Use>,
    },
    /// A process has it open through VFIO.
    #[error("{address} is open in {}; the kernel would wait until it is closed", in_words(.processes))]
    Open {
        /// The function.
        address: PciAddress,
        /// The processes that can be seen.
        processes: Vec<Process>,
    },
    /// The kernel took the request, but another driver, or none, has the function now.
    #[error("{address}: {wanted} did not take it, {} has it now", .found.as_deref().unwrap_or("no driver"))]
    NotTaken {
        /// The function.
        address: PciAddress,
        /// The driver that was to have it.
        wanted: &'static str,
        /// The driver that has it.
        found: Option<String>,
    },
    /// A change failed half-way, and what was before could not be had again.
    #[error("{cause}; and it is not as it was: {} has {address} now", .found.as_deref().unwrap_or("no driver"))]
    NotUndone {
        /// The function.
        address: PciAddress,
        /// Why the change failed.
        cause: Box<PciError>,
        /// The driver that has it.
        found: Option<String>,
    },
    /// The system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn list(uses: &[Use]) -> String {
    uses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

type Write = dyn Fn(&Path, &str) -> io::Result<()> + Send + Sync;
type Busy = dyn Fn(&Path, OFlags) -> bool + Send + Sync;

/// The system's files, under a root.
#[derive(Clone)]
pub struct Sysfs {
    root: PathBuf,
    write: Arc<Write>,
    busy: Arc<Busy>,
}

impl Default for Sysfs {
    /// Those of this machine.
    fn default() -> Self {
        Self::at("/")
    }
}

impl Sysfs {
    /// Those under another root: `ROOT/sys`, `ROOT/proc`, `ROOT/dev`, `ROOT/usr/share`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), write: Arc::new(|path, text| fs::write(path, text)), busy: Arc::new(open_is_refused) }
    }

    /// What is written goes to `write`: a kernel that is made up.
    #[cfg(test)]
    pub(crate) fn with_kernel(mut self, write: impl Fn(&Path, &str) -> io::Result<()> + Send + Sync + 'static) -> Self {
        self.write = Arc::new(write);
        self
    }

    /// What `busy` says is in use by others.
    #[cfg(test)]
    pub(crate) fn with_busy(mut self, busy: impl Fn(&Path) -> bool + Send + Sync + 'static) -> Self {
        self.busy = Arc::new(move |path, _| busy(path));
        self
    }

    /// A path under the root.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub(crate) fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// A file's text without the line feed at its end. `None` where it cannot be read: files come and go with their
    /// devices.
    pub(crate) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    /// A file's number: hexadecimal after `0x`, decimal otherwise.
    pub(crate) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        let text = self.text(path)?;
        match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    }

    /// What a link points to, as it stands there.
    pub(crate) fn target(&self, path: impl AsRef<Path>) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.to_string_lossy().into_owned())
    }

    /// The last part of what a link points to.
    pub(crate) fn link(&self, path: impl AsRef<Path>) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// The names in a folder, in order; none where there is no such folder.
    pub(crate) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(path)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Whether a block device cannot be had for oneself alone: a file system, a volume or anybody else has it. Also true
    /// of what is mounted in other mount namespaces.
    pub(crate) fn is_claimed(&self, path: impl AsRef<Path>) -> bool {
        (self.busy)(&self.path(path), OFlags::RDONLY | OFlags::EXCL | OFlags::NONBLOCK)
    }

    /// Whether a node that only one may open at a time is open.
    pub(crate) fn is_open(&self, path: impl AsRef<Path>) -> bool {
        (self.busy)(&self.path(path), OFlags::RDWR)
    }

    /// Tells the kernel something.
    pub(crate) fn tell(&self, path: impl AsRef<Path>, text: &str) -> Result<(), PciError> {
        let path = self.path(path);
        (self.write)(&path, text).map_err(|source| PciError::Io { path, source })
    }
}

/// Whether opening says EBUSY. What could be opened is closed at once.
fn open_is_refused(path: &Path, flags: OFlags) -> bool {
    matches!(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()), Err(Errno::BUSY))
}

impl std::fmt::Debug for Sysfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sysfs").field("root", &self.root).finish()
    }
}
