//! Memory that vanishes, each time in a process of its own: a handler for SIGBUS is the process's.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use doorbell_device::sigbus::{self, Substitute};
use doorbell_device::{HostMemory, Interrupt};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

const CHILD: &str = "DOORBELL_SIGBUS_CHILD";
const PAGE: usize = 4096;

/// Runs the test of this name again, in a child, where `in_child` says yes.
fn run_in_child(name: &str) -> ExitStatus {
    let this = std::env::current_exe().expect("this program");
    let mut command = Command::new(this);
    command.args(["--exact", name, "--nocapture"]).env(CHILD, "1");
    command.output().expect("the child runs").status
}

fn in_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Shared memory of so many pages, and the file that can be truncated under it.
fn shared(pages: usize) -> (Arc<File>, HostMemory) {
    let file = Arc::new(File::from(memfd_create("test", MemfdFlags::CLOEXEC).expect("a memfd")));
    ftruncate(&*file, (pages * PAGE) as u64).expect("its size");
    let memory = HostMemory::from_file(file.clone(), 0, pages * PAGE).expect("it is mapped");
    memory.write_at(0, &vec![7; pages * PAGE]).expect("it is writable");
    (file, memory)
}

fn byte(memory: &HostMemory, page: usize) -> u8 {
    let mut byte = [0];
    memory.read_at(page * PAGE + 5, &mut byte).expect("inside");
    byte[0]
}

#[test]
fn memory_that_is_truncated_gets_a_substitute() {
    if in_child() {
        for (substitute, reads_as) in [(Substitute::Ones, 0xff), (Substitute::Zeroes, 0)] {
            let (file, memory) = shared(4);
            let (_other_file, other) = shared(1);
            let (lost, other_lost) = (Interrupt::new().unwrap(), Interrupt::new().unwrap());
            sigbus::install().expect("installed");
            let guard = sigbus::guard(memory.clone(), substitute, &lost).expect("guarded");
            let _other = sigbus::guard(other.clone(), substitute, &other_lost).expect("guarded");
            ftruncate(&*file, PAGE as u64).expect("truncated");
            assert!(!lost.is_raised());
            assert_eq!((byte(&memory, 0), byte(&memory, 2)), (7, reads_as));
            assert_eq!((guard.replaced(), lost.take()), (1, 1));
            // What is written is forgotten by all others: the next page is as this one was.
            memory.write_at(2 * PAGE, &[9; PAGE]).expect("written");
            assert_eq!((byte(&memory, 2), byte(&memory, 3)), (9, reads_as));
            memory.write_at(PAGE, &[1]).expect("written");
            assert_eq!((guard.replaced(), byte(&memory, 1), byte(&memory, 0)), (3, reads_as, 7));
            assert_eq!((byte(&other, 0), other_lost.take()), (7, 0));
        }
        return;
    }
    assert!(run_in_child("memory_that_is_truncated_gets_a_substitute").success());
}

#[test]
fn without_the_handler_the_process_dies_as_ever() {
    if in_child() {
        let (file, memory) = shared(1);
        let lost = Interrupt::new().unwrap();
        let _guard = sigbus::guard(memory.clone(), Substitute::Ones, &lost).expect("guarded");
        ftruncate(&*file, 0).expect("truncated");
        byte(&memory, 0);
        return;
    }
    assert_eq!(run_in_child("without_the_handler_the_process_dies_as_ever").signal(), Some(libc::SIGBUS));
}

#[test]
fn memory_that_is_not_guarded_or_no_longer_is_still_ends_the_process() {
    if in_child() {
        sigbus::install().expect("installed");
        let (file, memory) = shared(2);
        let lost = Interrupt::new().unwrap();
        drop(sigbus::guard(memory.clone(), Substitute::Ones, &lost).expect("guarded"));
        ftruncate(&*file, 0).expect("truncated");
        byte(&memory, 0);
        return;
    }
    let status = run_in_child("memory_that_is_not_guarded_or_no_longer_is_still_ends_the_process");
    assert_eq!(status.signal(), Some(libc::SIGBUS));
}

#[test]
fn a_signal_that_somebody_sent_ends_the_process() {
    if in_child() {
        // Without the handler that Rust brings, which lets the first one pass.
        set_handler(libc::SIG_DFL, 0);
        sigbus::install().expect("installed");
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::BUS).expect("sent");
        std::thread::sleep(std::time::Duration::from_secs(5));
        return;
    }
    assert_eq!(run_in_child("a_signal_that_somebody_sent_ends_the_process").signal(), Some(libc::SIGBUS));
}

static SEEN: AtomicI32 = AtomicI32::new(0);

extern "C" fn plain(signal: libc::c_int) {
    SEEN.store(signal, Ordering::SeqCst);
    // SAFETY: `_exit` has no preconditions. A test that fails in a handler cannot unwind.
    unsafe { libc::_exit(40) };
}

extern "C" fn with_information(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the system, and our handler after it, pass a valid siginfo_t.
    let about = unsafe { &*info };
    // SAFETY: SIGBUS has an address.
    let address = unsafe { about.si_addr() } as usize;
    let code = if address != 0 && address.is_multiple_of(PAGE) { 41 } else { 42 };
    // SAFETY: as above.
    unsafe { libc::_exit(code) };
}

fn set_handler(handler: usize, flags: libc::c_int) {
    // SAFETY: all zeroes is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the handler has the parameters that the flags say.
    assert_eq!(unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) }, 0);
}

/// Has a handler installed before ours; faults at the start of memory that nobody guards.
fn fault_with(handler: usize, flags: libc::c_int) {
    set_handler(handler, flags);
    sigbus::install().expect("installed");
    sigbus::install().expect("a second time");
    let (guarded_file, guarded) = shared(1);
    let lost = Interrupt::new().unwrap();
    let _guard = sigbus::guard(guarded.clone(), Substitute::Ones, &lost).expect("guarded");
    ftruncate(&*guarded_file, 0).expect("truncated");
    assert_eq!((byte(&guarded, 0), SEEN.load(Ordering::SeqCst)), (0xff, 0));
    let (file, memory) = shared(1);
    ftruncate(&*file, 0).expect("truncated");
    memory.words()[0].load(Ordering::SeqCst);
}

#[test]
fn a_plain_handler_before_it_gets_what_is_not_guarded() {
    if in_child() {
        return fault_with(plain as *const () as usize, 0);
    }
    assert_eq!(run_in_child("a_plain_handler_before_it_gets_what_is_not_guarded").code(), Some(40));
}

#[test]
fn a_handler_with_information_before_it_gets_all_of_it() {
    if in_child() {
        return fault_with(with_information as *const () as usize, libc::SA_SIGINFO);
    }
    assert_eq!(run_in_child("a_handler_with_information_before_it_gets_all_of_it").code(), Some(41));
}

#[test]
fn a_fault_is_not_ignored_because_the_signal_was() {
    if in_child() {
        return fault_with(libc::SIG_IGN, 0);
    }
    assert_eq!(run_in_child("a_fault_is_not_ignored_because_the_signal_was").signal(), Some(libc::SIGBUS));
}

#[test]
fn memory_is_guarded_and_not_by_many_threads() {
    if in_child() {
        sigbus::install().expect("installed");
        let threads = (0..4).map(|_| {
            std::thread::spawn(|| {
                for _ in 0..200 {
                    let (file, memory) = shared(2);
                    let lost = Interrupt::new().unwrap();
                    let guard = sigbus::guard(memory.clone(), Substitute::Ones, &lost).expect("guarded");
                    ftruncate(&*file, 0).expect("truncated");
                    assert_eq!((byte(&memory, 1), guard.replaced(), lost.take()), (0xff, 1, 1));
                }
            })
        });
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().expect("it ends well"));
        // The table has room again.
        let (_file, memory) = shared(1);
        let lost = Interrupt::new().unwrap();
        let all: Vec<_> =
            (0..256).map(|_| sigbus::guard(memory.clone(), Substitute::Ones, &lost).expect("room")).collect();
        assert!(sigbus::guard(memory.clone(), Substitute::Ones, &lost).is_err());
        drop(all);
        return;
    }
    assert!(run_in_child("memory_is_guarded_and_not_by_many_threads").success());
}
