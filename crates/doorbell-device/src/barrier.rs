//! The three barriers a driver needs, by the names the field knows them by.
//!
//! On x86-64, stores to write-back memory are seen in order by a device and by other CPUs, so the two DMA barriers
//! only keep the compiler in line. On aarch64 they are real instructions, over the outer shareable domain, in which
//! devices are.

use std::sync::atomic::{self, Ordering};

/// Orders stores to shared memory (a command) before a later store that tells the device of them (a doorbell).
#[inline(always)]
pub fn dma_wmb() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: assembly has to be what its operands and options say. `dmb oshst` reads and writes no register, no memory,
    // no flags and no stack; that `nomem` is not said only keeps the compiler from moving accesses across it.
    unsafe {
        std::arch::asm!("dmb oshst", options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "x86_64")]
    atomic::compiler_fence(Ordering::Release);
    #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
    atomic::fence(Ordering::SeqCst);
}

/// Orders a load that found the device's mark (a phase bit) before later loads of what the mark vouches for.
#[inline(always)]
pub fn dma_rmb() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as for `dma_wmb`.
    unsafe {
        std::arch::asm!("dmb oshld", options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "x86_64")]
    atomic::compiler_fence(Ordering::Acquire);
    #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
    atomic::fence(Ordering::SeqCst);
}

/// Orders every earlier access before every later one, a store before a load included: what shadow doorbells need
/// between writing the doorbell and reading the event index.
#[inline(always)]
pub fn mb() {
    atomic::fence(Ordering::SeqCst);
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as for `dma_wmb`.
    unsafe {
        std::arch::asm!("dmb osh", options(nostack, preserves_flags));
    }
}
