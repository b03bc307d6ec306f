//! Going on when memory that was mapped is no longer there.
//!
//! A device's registers can vanish while they are mapped: it is unplugged, or its memory space is switched off. So can
//! shared memory, when the peer that made the file truncates it. The system then raises SIGBUS at the next access,
//! which ends the process. With this handler, memory that is [guarded](guard) gets a substitute instead, whoever
//! guards it is told, and the access goes on as if nothing had happened.
//!
//! A process has one handler for SIGBUS, which is the program's to choose: a library must not call [`install`]
//! unless told to. The command `doorbell` does. Faults outside of guarded memory go to the handler that was there
//! before, just as they did.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};

use crate::{DeviceError, HostMemory, Interrupt};

const PAGE: usize = 4096;
/// The pages that memory can consist of: what replaces one is as large.
const PAGES: [usize; 3] = [PAGE, 2 << 20, 1 << 30];
/// How many pieces of memory can be guarded at the same time.
const SLOTS: usize = 256;

/// What stands in for a page that is no longer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Substitute {
    /// All ones, as a device that is gone reads.
    Ones,
    /// Zeroes, as what a file was truncated to would read if it were still long enough.
    Zeroes,
}

/// Handles SIGBUS in this process from now on. Calling it again does nothing.
///
/// # Errors
/// If the system refuses.
pub fn install() -> Result<(), DeviceError> {
    static ONCE: Mutex<()> = Mutex::new(());
    let _once = ONCE.lock().unwrap_or_else(PoisonError::into_inner);
    if is_installed() {
        return Ok(());
    }
    ones()?;
    let before = current_action()?;
    // The handler needs it from its first call on.
    PREVIOUS.store(Box::into_raw(Box::new(before)), Ordering::SeqCst);
    let mut action = before;
    action.sa_sigaction = handler as *const () as usize;
    // On the alternate stack, as the handler that Rust brings wants it; the rest is as before.
    let kept = before.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART);
    action.sa_flags = kept | libc::SA_SIGINFO | libc::SA_ONSTACK;
    set_action(&action)?;
    INSTALLED.store(true, Ordering::SeqCst);
    Ok(())
}

/// Whether [`install`] was called.
#[must_use]
pub fn is_installed() -> bool {
    INSTALLED.load(Ordering::SeqCst)
}

/// Guards memory until what is returned is dropped: when a page of it is no longer there, the process has a substitute
/// of its own in its place, and `lost` is raised. Without [`install`] nothing happens then but what always did.
///
/// # Errors
/// If too much is guarded already.
pub fn guard(memory: HostMemory, substitute: Substitute, lost: &Interrupt) -> Result<Guard, DeviceError> {
    ones()?;
    let _lock = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
    let free = TABLE.iter().find(|slot| slot.start.load(Ordering::SeqCst) == 0);
    let slot = free.ok_or(DeviceError::Unsupported("more than 256 guarded pieces of memory in one process"))?;
    slot.len.store(memory.len(), Ordering::SeqCst);
    slot.ones.store(substitute == Substitute::Ones, Ordering::SeqCst);
    slot.lost.store(lost.event_fd().as_raw_fd(), Ordering::SeqCst);
    slot.replaced.store(0, Ordering::SeqCst);
    // Last: with it, the slot is there.
    slot.start.store(memory.as_ptr().expose_provenance(), Ordering::SeqCst);
    Ok(Guard { slot, _memory: memory, _lost: lost.clone() })
}

/// Memory that is guarded.
#[derive(Debug)]
pub struct Guard {
    slot: &'static Slot,
    /// Both are there for as long as the handler may use them.
    _memory: HostMemory,
    _lost: Interrupt,
}

impl Guard {
    /// How many pages have been replaced.
    #[must_use]
    pub fn replaced(&self) -> u64 {
        self.slot.replaced.load(Ordering::SeqCst)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _lock = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
        self.slot.start.store(0, Ordering::SeqCst);
        // A handler that has found the slot is still going to write to the descriptor, or to map over the memory. One
        // that comes later does not find it.
        while HANDLING.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
    }
}

/// A piece of memory, for the handler: it can take no lock, since it may have interrupted who holds it.
#[derive(Debug)]
struct Slot {
    /// 0 where there is none.
    start: AtomicUsize,
    len: AtomicUsize,
    ones: AtomicBool,
    lost: AtomicI32,
    replaced: AtomicU64,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        ones: AtomicBool::new(false),
        lost: AtomicI32::new(-1),
        replaced: AtomicU64::new(0),
    }
}; SLOTS];
/// Who changes the table.
static CHANGES: Mutex<()> = Mutex::new(());
/// How many handlers look at the table or use what they found there.
static HANDLING: AtomicUsize = AtomicUsize::new(0);
static INSTALLED: AtomicBool = AtomicBool::new(false);
/// What was done at SIGBUS before. Never freed: a handler may be reading it.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

/// A page of ones in a file, which the handler can map without having to write to it.
fn ones() -> Result<BorrowedFd<'static>, DeviceError> {
    static ONES: OnceLock<OwnedFd> = OnceLock::new();
    if ONES.get().is_none() {
        let fd = memfd_create("doorbell-ones", MemfdFlags::CLOEXEC).map_err(DeviceError::io("memfd_create"))?;
        let written = rustix::io::pwrite(&fd, &[0xff; PAGE], 0).map_err(DeviceError::io("writing a memfd"))?;
        if written != PAGE {
            return Err(DeviceError::io("writing a memfd")(std::io::Error::from(std::io::ErrorKind::WriteZero)));
        }
        let fd = ONES.get_or_init(|| fd);
        ONES_FD.store(fd.as_raw_fd(), Ordering::SeqCst);
    }
    ONES.get().map(AsFd::as_fd).ok_or(DeviceError::Unsupported("a page of ones"))
}

/// The same, for the handler.
static ONES_FD: AtomicI32 = AtomicI32::new(-1);

/// The handler. It calls nothing but system calls and atomics.
extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system calls a handler with SA_SIGINFO with a valid siginfo_t, which is there until it returns.
    let about = unsafe { &*info };
    let code = about.si_code;
    // Greater than 0: raised by the system, so that there is an address, and not by another process.
    if code > 0 {
        // SAFETY: SIGBUS has an address.
        let address = unsafe { about.si_addr() };
        HANDLING.fetch_add(1, Ordering::SeqCst);
        let replaced = replace(address as usize);
        HANDLING.fetch_sub(1, Ordering::SeqCst);
        if replaced {
            return;
        }
    }
    as_before(signal, info, context, code);
}

/// Puts a substitute in the place of the page that `address` is in, if it is guarded.
fn replace(address: usize) -> bool {
    let found = TABLE.iter().find_map(|slot| {
        let start = slot.start.load(Ordering::SeqCst);
        let len = slot.len.load(Ordering::SeqCst);
        (start != 0 && address.wrapping_sub(start) < len).then_some((slot, start, len))
    });
    let Some((slot, start, len)) = found else { return false };
    let fits = |page: usize| {
        let begins = address & !page.wrapping_sub(1);
        let inside = begins >= start && begins.checked_add(page)? <= start.checked_add(len)?;
        inside.then_some((begins, page))
    };
    let ones = slot.ones.load(Ordering::SeqCst);
    // Part of a huge page cannot be replaced: the system refuses without changing anything, and it goes as a whole.
    let replaced = PAGES.into_iter().filter_map(fits).any(|(begins, page)| put(begins, page, ones));
    if replaced {
        slot.replaced.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the descriptor is that of an eventfd, which the guard keeps open: it waits for this handler.
        let lost = unsafe { BorrowedFd::borrow_raw(slot.lost.load(Ordering::SeqCst)) };
        // As in `Interrupt::raise`.
        let _ = rustix::io::write(lost, &1u64.to_ne_bytes());
    }
    replaced
}

/// Maps a substitute over the page that begins at an address in guarded memory.
fn put(begins: usize, page: usize, ones: bool) -> bool {
    let at = ptr::with_exposed_provenance_mut(begins);
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // Written to, it becomes a page of our own: the next reader of ones still finds ones.
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    if !ones {
        // SAFETY: the page is part of memory that its guard keeps mapped, and of which only atomics and volatile copies
        // are made, which expect other contents at any time.
        return unsafe { mmap_anonymous(at, page, protection, flags) }.is_ok();
    }
    // SAFETY: stored by `ones`, and never closed.
    let fd = unsafe { BorrowedFd::borrow_raw(ONES_FD.load(Ordering::SeqCst)) };
    // There is one such page. Registers are never in huge ones.
    // SAFETY: as above.
    page == PAGE && unsafe { mmap(at, page, protection, flags, fd, 0) }.is_ok()
}

/// Does what would have been done without this handler.
fn as_before(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void, code: libc::c_int) {
    let previous = PREVIOUS.load(Ordering::SeqCst);
    // SAFETY: set before this handler was installed, and never freed.
    let previous = unsafe { &*previous };
    match previous.sa_sigaction {
        // Somebody sent it to a process that wants to know nothing of it. A fault cannot be ignored.
        libc::SIG_IGN if code <= 0 => {}
        libc::SIG_IGN | libc::SIG_DFL => end(signal, code),
        address if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: sigaction(2): with SA_SIGINFO it is a function with these parameters.
            let action: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(address) };
            action(signal, info, context);
        }
        address => {
            // SAFETY: sigaction(2): without, it is a function with this one.
            let action: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(address) };
            action(signal);
        }
    }
}

/// Lets the signal end the process: a fault comes again as soon as the handler returns, what was sent is sent again.
fn end(signal: libc::c_int, code: libc::c_int) {
    // SAFETY: all zeroes is a valid `sigaction`: the default, without flags, with an empty mask.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    let _ = set_action(&default);
    if code <= 0 {
        // SAFETY: `raise` has no preconditions.
        unsafe { libc::raise(signal) };
    }
}

fn current_action() -> Result<libc::sigaction, DeviceError> {
    // SAFETY: as in `end`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: it only writes to `action`.
    let result = unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &mut action) };
    if result == 0 { Ok(action) } else { Err(DeviceError::io("asking for SIGBUS")(std::io::Error::last_os_error())) }
}

fn set_action(action: &libc::sigaction) -> Result<(), DeviceError> {
    // SAFETY: the handler is ours, which is async-signal-safe and has the parameters that SA_SIGINFO wants, or the default.
    let result = unsafe { libc::sigaction(libc::SIGBUS, action, ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(DeviceError::io("handling SIGBUS")(std::io::Error::last_os_error())) }
}
