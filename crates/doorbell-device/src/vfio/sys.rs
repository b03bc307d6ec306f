//! The system calls of VFIO and iommufd, with what makes them safe to call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use iommufd_bindings as iommufd;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};
use vfio_bindings::bindings::vfio;

/// A request of VFIO or iommufd: `_IO(';', number)`, which is all that either of them uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request(u8);

impl Request {
    pub(super) const GET_API_VERSION: Self = Self::vfio(0);
    pub(super) const CHECK_EXTENSION: Self = Self::vfio(1);
    pub(super) const SET_IOMMU: Self = Self::vfio(2);
    pub(super) const GROUP_GET_STATUS: Self = Self::vfio(3);
    pub(super) const DEVICE_GET_INFO: Self = Self::vfio(7);
    pub(super) const DEVICE_GET_REGION_INFO: Self = Self::vfio(8);
    pub(super) const DEVICE_GET_IRQ_INFO: Self = Self::vfio(9);
    pub(super) const DEVICE_RESET: Self = Self::vfio(11);
    pub(super) const IOMMU_GET_INFO: Self = Self::vfio(12);
    pub(super) const IOMMU_MAP_DMA: Self = Self::vfio(13);
    pub(super) const IOMMU_UNMAP_DMA: Self = Self::vfio(14);
    pub(super) const DEVICE_BIND_IOMMUFD: Self = Self::vfio(18);
    pub(super) const DEVICE_ATTACH_IOMMUFD_PT: Self = Self::vfio(19);

    pub(super) const IOAS_ALLOC: Self = Self(iommufd::IOMMUFD_CMD_IOAS_ALLOC as u8);
    pub(super) const IOAS_IOVA_RANGES: Self = Self(iommufd::IOMMUFD_CMD_IOAS_IOVA_RANGES as u8);
    pub(super) const IOAS_MAP: Self = Self(iommufd::IOMMUFD_CMD_IOAS_MAP as u8);
    pub(super) const IOAS_MAP_FILE: Self = Self(iommufd::IOMMUFD_CMD_IOAS_MAP_FILE as u8);
    pub(super) const IOAS_CHANGE_PROCESS: Self = Self(iommufd::IOMMUFD_CMD_IOAS_CHANGE_PROCESS as u8);
    pub(super) const IOAS_UNMAP: Self = Self(iommufd::IOMMUFD_CMD_IOAS_UNMAP as u8);

    const GROUP_SET_CONTAINER: Self = Self::vfio(4);
    const GROUP_GET_DEVICE_FD: Self = Self::vfio(6);
    const DEVICE_SET_IRQS: Self = Self::vfio(10);

    const fn vfio(number: u8) -> Self {
        Self((vfio::VFIO_BASE as u8).wrapping_add(number))
    }
}

/// A structure that begins with its own size in bytes, which the system neither reads nor writes beyond.
///
/// # Safety
/// It is `repr(C)`, of integers alone without padding, and `sized` sets its first field, a `u32`, to its size.
pub(super) unsafe trait Message: Copy {
    /// The same with its size filled in.
    fn sized(self) -> Self;
}

macro_rules! messages {
    ($size:ident: $($structure:ty),* $(,)?) => { $(
        const _: () = assert!(std::mem::offset_of!($structure, $size) == 0);
        // SAFETY: a structure of the kernel's interface: `repr(C)`, made of u32 and u64 (one s32) in their places, the
        // first of which is `$size`, as the line above sees.
        unsafe impl Message for $structure {
            fn sized(mut self) -> Self {
                self.$size = size_of::<Self>() as u32;
                self
            }
        }
    )* };
}

messages!(argsz:
    vfio::vfio_group_status, vfio::vfio_device_info, vfio::vfio_region_info, vfio::vfio_irq_info,
    vfio::vfio_iommu_type1_info, vfio::vfio_iommu_type1_dma_map, vfio::vfio_device_attach_iommufd_pt,
    Unmap, BindIommufd,
);
messages!(size:
    iommufd::iommu_ioas_alloc, iommufd::iommu_ioas_map, iommufd::iommu_ioas_map_file, iommufd::iommu_ioas_unmap,
    iommufd::iommu_ioas_change_process, IovaRanges,
);

/// `vfio_iommu_type1_dma_unmap`, without the array at its end.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Unmap {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) iova: u64,
    pub(super) size: u64,
}

/// `vfio_device_bind_iommufd` as it was at first, which every kernel takes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct BindIommufd {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) iommufd: i32,
    pub(super) out_devid: u32,
}

/// `iommu_ioas_iova_ranges`, whose array is elsewhere: [`iova_ranges`] sets it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct IovaRanges {
    size: u32,
    ioas_id: u32,
    num_iovas: u32,
    reserved: u32,
    allowed_iovas: u64,
    out_iova_alignment: u64,
}

/// An ioctl whose argument is a pointer, or a number in its place, and which returns a number.
struct Call {
    request: Request,
    argument: *mut rustix::ffi::c_void,
}

// SAFETY: `ioctl` is called with such a value only below, each time with a proof that the argument is what the request
// takes. The output is the number returned; nothing is read through the pointer.
unsafe impl Ioctl for Call {
    type Output = i32;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        ioctl::opcode::none(vfio::VFIO_TYPE, self.request.0)
    }

    fn as_ptr(&mut self) -> *mut rustix::ffi::c_void {
        self.argument
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut rustix::ffi::c_void) -> rustix::io::Result<i32> {
        Ok(out)
    }
}

/// Calls with a message, which the system may fill in.
pub(super) fn call<M: Message>(fd: impl AsFd, request: Request, message: &mut M) -> io::Result<i32> {
    *message = message.sized();
    let call = Call { request, argument: std::ptr::from_mut(message).cast() };
    // SAFETY: the descriptors of this module are VFIO's and iommufd's. They read and write no more than the size in the
    // message's first field, which is the message's own, and any bytes are valid for it.
    let result = unsafe { ioctl::ioctl(fd, call) };
    Ok(result?)
}

/// Calls with a number, or with none where the request takes none.
pub(super) fn call_number(fd: impl AsFd, request: Request, number: u32) -> io::Result<i32> {
    let call = Call { request, argument: std::ptr::without_provenance_mut(number as usize) };
    // SAFETY: requests that take a number touch no memory of ours; one that takes a pointer finds none at such a low
    // address, and fails.
    let result = unsafe { ioctl::ioctl(fd, call) };
    Ok(result?)
}

/// Calls with a message that is answered with more than fits into it, and returns all of the answer.
pub(super) fn call_long<M: Message>(fd: impl AsFd, request: Request, message: M) -> io::Result<Vec<u8>> {
    let mut first = message;
    call(fd.as_fd(), request, &mut first)?;
    // The answer's first field now says how much it would have been.
    // SAFETY: a `Message` begins with a u32.
    let needed = unsafe { std::ptr::from_ref(&first).cast::<u32>().read() };
    let len = (needed as usize).clamp(size_of::<M>(), 1 << 20);
    // Of words, so that it is aligned as the message is.
    let mut buffer = vec![0u64; len.div_ceil(8)];
    let start = buffer.as_mut_ptr();
    assert!(align_of::<M>() <= align_of::<u64>());
    // SAFETY: the buffer has room for a message, and is aligned for it.
    unsafe { start.cast::<M>().write(message.sized()) };
    // SAFETY: the first four bytes of the buffer.
    unsafe { start.cast::<u32>().write(len as u32) };
    // SAFETY: as in `call`; the size is that of the buffer, or less.
    let result = unsafe { ioctl::ioctl(fd, Call { request, argument: start.cast() }) };
    result?;
    Ok(buffer.iter().flat_map(|word| word.to_ne_bytes()).take(len).collect())
}

/// Puts a group into a container.
pub(super) fn set_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let mut number = container.as_raw_fd();
    let call = Call { request: Request::GROUP_SET_CONTAINER, argument: std::ptr::from_mut(&mut number).cast() };
    // SAFETY: the request reads an int, which is what it is given.
    let result = unsafe { ioctl::ioctl(group, call) };
    result?;
    Ok(())
}

/// The descriptor of a device of a group, by its name.
pub(super) fn device_of_group(group: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    let call = Call { request: Request::GROUP_GET_DEVICE_FD, argument: name.as_ptr().cast_mut().cast() };
    // SAFETY: the request reads a string up to its NUL.
    let fd = unsafe { ioctl::ioctl(group, call) }?;
    // SAFETY: it returns a new descriptor that is ours, opened with close-on-exec.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
}

/// Sets up interrupts of one kind (`VFIO_DEVICE_SET_IRQS`): `flags` say what the rest means.
///
/// A positive result is how many vectors there would have been where there were not enough.
pub(super) fn set_irqs(
    device: BorrowedFd<'_>,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    eventfds: &[i32],
) -> io::Result<i32> {
    if flags & vfio::VFIO_IRQ_SET_DATA_EVENTFD != 0 && eventfds.len() != count as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let size = eventfds.len().saturating_add(5).saturating_mul(4);
    let mut message: Vec<u32> = vec![size as u32, flags, index, start, count];
    message.extend(eventfds.iter().map(|fd| *fd as u32));
    let call = Call { request: Request::DEVICE_SET_IRQS, argument: message.as_mut_ptr().cast() };
    // SAFETY: the request reads as many bytes as the first field says, which is how long the message is; with
    // descriptors as data, it reads `count` of them, which is how many there are.
    let result = unsafe { ioctl::ioctl(device, call) };
    Ok(result?)
}

/// The ranges of IOVAs that an IOAS allows, first and last of each (`IOMMU_IOAS_IOVA_RANGES`).
pub(super) fn iova_ranges(iommufd: BorrowedFd<'_>, ioas_id: u32) -> io::Result<Vec<(u64, u64)>> {
    let mut ranges = vec![[0u64; 2]; 64];
    loop {
        let mut message = IovaRanges {
            size: 0,
            ioas_id,
            num_iovas: u32::try_from(ranges.len()).unwrap_or(u32::MAX),
            reserved: 0,
            allowed_iovas: ranges.as_mut_ptr().expose_provenance() as u64,
            out_iova_alignment: 0,
        };
        // What it writes elsewhere: at most `num_iovas` ranges of two u64 into the array, which has so many.
        let result = call(iommufd, Request::IOAS_IOVA_RANGES, &mut message);
        let count = message.num_iovas as usize;
        match result {
            Ok(_) => return Ok(ranges.into_iter().take(count).map(|[start, last]| (start, last)).collect()),
            Err(error) if error.raw_os_error() == Some(EMSGSIZE) && count > ranges.len() && count < 1 << 16 => {
                ranges.resize(count, [0; 2]);
            }
            Err(error) => return Err(error),
        }
    }
}

const EMSGSIZE: i32 = rustix::io::Errno::MSGSIZE.raw_os_error();
