//! Doorbells and interrupts by themselves.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use doorbell_device::{Doorbell, HostMemory, Interrupt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn is_readable(interrupt: &Interrupt) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(interrupt.as_fd(), PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
}

#[test]
fn interrupts_count_until_taken() {
    let interrupt = Interrupt::new().unwrap();
    assert_eq!((interrupt.take(), is_readable(&interrupt)), (0, false));
    interrupt.raise();
    interrupt.clone().raise();
    assert!(is_readable(&interrupt));
    assert_eq!((interrupt.take(), interrupt.take()), (2, 0));
    assert!(!is_readable(&interrupt));
}

#[test]
fn an_interrupt_that_overflows_neither_blocks_nor_is_lost() {
    let interrupt = Interrupt::new().unwrap();
    rustix::io::write(&interrupt, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    interrupt.raise();
    assert_eq!(interrupt.take(), u64::MAX - 1);
}

#[test]
fn an_eventfd_of_others_is_as_good() {
    let interrupt = Interrupt::new().unwrap();
    let other = Interrupt::from_fd(interrupt.as_fd().try_clone_to_owned().unwrap());
    other.raise();
    assert_eq!(interrupt.take(), 1);
}

#[test]
fn a_doorbell_in_memory_is_one_dword() {
    let memory = HostMemory::allocate(4096).unwrap();
    let doorbell = Doorbell::in_memory(memory.clone(), 4092).unwrap();
    doorbell.ring(0x1234_5678);
    let rung: Vec<usize> =
        (0..1024).filter(|dword| memory.dwords()[*dword].load(Ordering::Relaxed) == 0x1234_5678).collect();
    assert_eq!(rung, [1023]);
    for offset in [1, 2, 4094, 4096, usize::MAX - 3] {
        assert!(Doorbell::in_memory(memory.clone(), offset).is_none(), "{offset}");
    }
}

#[test]
fn a_doorbell_that_is_a_call_is_called() {
    let sum = Arc::new(AtomicU32::new(0));
    let doorbell = Doorbell::from_fn({
        let sum = sum.clone();
        move |value| {
            sum.fetch_add(value, Ordering::Relaxed);
        }
    });
    doorbell.ring(5);
    doorbell.clone().ring(6);
    assert_eq!(sum.load(Ordering::Relaxed), 11);
}

#[test]
fn any_of_several_interrupts_is_signalled_while_one_of_them_is() {
    let sources = [Interrupt::new().unwrap(), Interrupt::new().unwrap()];
    let any = Interrupt::any_of(sources.clone()).unwrap();
    assert_eq!((any.take(), is_readable(&any)), (0, false));
    sources[1].raise();
    assert!(is_readable(&any) && any.is_raised());
    // Whoever waits for all of them takes nothing away from whoever waits for one.
    assert_eq!((any.take(), any.take(), sources[1].is_raised()), (1, 1, true));
    any.raise();
    assert_eq!((any.take(), sources[0].take(), sources[1].take()), (2, 1, 1));
    assert_eq!((any.take(), is_readable(&any)), (0, false));
}

#[test]
fn a_level_triggered_interrupt_is_unmasked_once_it_is_handled() {
    let unmasked = Arc::new(AtomicU32::new(0));
    let counts = unmasked.clone();
    let interrupt = Interrupt::level_triggered(move || {
        counts.fetch_add(1, Ordering::SeqCst);
    });
    let interrupt = interrupt.unwrap();
    interrupt.raise();
    assert_eq!((interrupt.take(), unmasked.load(Ordering::SeqCst)), (1, 0));
    interrupt.handled();
    assert_eq!(unmasked.load(Ordering::SeqCst), 1);
    Interrupt::new().unwrap().handled();
}
