//! What translates the device's addresses: one of two interfaces of the system to the same thing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use iommufd_bindings as iommufd;
use vfio_bindings::bindings::vfio;

use super::caps;
use super::sys::{self, Request, Unmap};
use crate::{Access, DeviceError, HostMemory};

/// The address space of a device.
#[derive(Debug)]
pub(super) enum Iommu {
    /// A container with an IOMMU of type 1, and the group that is in it. The order is that of closing.
    Type1 { group: OwnedFd, container: OwnedFd },
    /// An IOAS of iommufd, which the device is attached to.
    Iommufd { iommufd: OwnedFd, ioas: u32 },
}

impl Iommu {
    /// The IOVAs that can be used, first and last of each range.
    pub(super) fn ranges(&self) -> Result<Vec<(u64, u64)>, DeviceError> {
        let what = DeviceError::io("asking the IOMMU for its address ranges");
        match self {
            Self::Type1 { container, .. } => {
                let info = type1_info(container).map_err(what)?;
                let ranges = capability(&info, vfio::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE).map(caps::pairs);
                ranges.ok_or(DeviceError::Unsupported("telling its IOVA ranges (Linux does from 5.4 on)"))
            }
            Self::Iommufd { iommufd, ioas } => sys::iova_ranges(iommufd.as_fd(), *ioas).map_err(what),
        }
    }

    /// How many more mappings there may be, where that is known.
    pub(super) fn mappings_left(&self) -> Option<u32> {
        match self {
            Self::Type1 { container, .. } => {
                let info = type1_info(container).ok()?;
                caps::read_u32(capability(&info, vfio::VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL)?, 8)
            }
            Self::Iommufd { .. } => None,
        }
    }

    /// Maps memory of this process for the device at `iova`.
    pub(super) fn map(&self, iova: u64, host: &HostMemory, access: Access) -> io::Result<()> {
        let (vaddr, len) = (host.as_ptr().expose_provenance() as u64, host.len() as u64);
        let reads = access.allows(Access::Read);
        let writes = access.allows(Access::Write);
        match self {
            Self::Type1 { container, .. } => {
                let read = if reads { vfio::VFIO_DMA_MAP_FLAG_READ } else { 0 };
                let write = if writes { vfio::VFIO_DMA_MAP_FLAG_WRITE } else { 0 };
                let flags = read | write;
                let mut message = vfio::vfio_iommu_type1_dma_map { argsz: 0, flags, vaddr, iova, size: len };
                sys::call(container, Request::IOMMU_MAP_DMA, &mut message)?;
            }
            Self::Iommufd { iommufd, ioas } => {
                let read = if reads { iommufd::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE } else { 0 };
                let write = if writes { iommufd::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE } else { 0 };
                let flags = read | write | iommufd::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA;
                if let Some((file, start)) = host.file() {
                    // By its file, so that it can be made another process's (Linux 6.13, and memfds only).
                    let fd = file.as_raw_fd();
                    let mut message =
                        iommufd::iommu_ioas_map_file { size: 0, flags, ioas_id: *ioas, fd, start, length: len, iova };
                    if sys::call(iommufd, Request::IOAS_MAP_FILE, &mut message).is_ok() {
                        return Ok(());
                    }
                }
                let mut message = iommufd::iommu_ioas_map {
                    flags,
                    ioas_id: *ioas,
                    user_va: vaddr,
                    length: len,
                    iova,
                    ..Default::default()
                };
                sys::call(iommufd, Request::IOAS_MAP, &mut message)?;
            }
        }
        Ok(())
    }

    /// Takes a mapping down. When it returns, the device cannot reach the memory any more.
    pub(super) fn unmap(&self, iova: u64, len: u64) -> Result<(), DeviceError> {
        let what = DeviceError::io("unmapping DMA memory");
        let unmapped = match self {
            Self::Type1 { container, .. } => {
                let mut message = Unmap { argsz: 0, flags: 0, iova, size: len };
                sys::call(container, Request::IOMMU_UNMAP_DMA, &mut message).map_err(what)?;
                message.size
            }
            Self::Iommufd { iommufd, ioas } => {
                let mut message = iommufd::iommu_ioas_unmap { ioas_id: *ioas, iova, length: len, ..Default::default() };
                sys::call(iommufd, Request::IOAS_UNMAP, &mut message).map_err(what)?;
                message.length
            }
        };
        if unmapped != len {
            let only = format!("{unmapped:#x} of {len:#x} bytes at IOVA {iova:#x} were unmapped");
            return Err(DeviceError::io("unmapping DMA memory")(io::Error::other(only)));
        }
        Ok(())
    }
}

impl Iommu {
    /// What reaches it, for another process; the device is not among it.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Type1 { group, container } => vec![group.as_fd(), container.as_fd()],
            Self::Iommufd { iommufd, .. } => vec![iommufd.as_fd()],
        }
    }

    /// The memory that another process has had locked for it counts as this process's from now on.
    pub(super) fn change_process(&self) -> io::Result<()> {
        match self {
            // What is locked stays that of whoever mapped it, until it is unmapped.
            Self::Type1 { .. } => Ok(()),
            Self::Iommufd { iommufd, .. } => {
                let mut message = iommufd::iommu_ioas_change_process::default();
                sys::call(iommufd, Request::IOAS_CHANGE_PROCESS, &mut message).map(drop)
            }
        }
    }
}

/// What a container says of its IOMMU, with all capabilities.
fn type1_info(container: &OwnedFd) -> io::Result<Vec<u8>> {
    let empty = vfio::vfio_iommu_type1_info { argsz: 0, flags: 0, iova_pgsizes: 0, cap_offset: 0, pad: 0 };
    sys::call_long(container, Request::IOMMU_GET_INFO, empty)
}

fn capability(info: &[u8], id: u32) -> Option<&[u8]> {
    let flags = caps::read_u32(info, std::mem::offset_of!(vfio::vfio_iommu_type1_info, flags))?;
    let first = caps::read_u32(info, std::mem::offset_of!(vfio::vfio_iommu_type1_info, cap_offset))?;
    if flags & vfio::VFIO_IOMMU_INFO_CAPS == 0 { None } else { caps::find(info, first, u16::try_from(id).ok()?) }
}
