//! A queue pair under the model checker: every order in which a future, a device and others can meet.

use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};
use std::task::{Context, Poll, Wake};

use doorbell_device::{DmaMemory, Doorbell, HostMemory};
use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::driver::may_sleep;
use crate::queue::Exchange;
use crate::queue::pool::Pool;
use crate::sync::Ordering;

/// Counts how often it is woken. Not itself part of the model: the model runs one thread at a time.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, StdOrdering::SeqCst);
    }
}

impl Woken {
    fn new() -> (std::sync::Arc<Self>, Waker) {
        let woken = std::sync::Arc::new(Self::default());
        (woken.clone(), woken.into())
    }

    fn count(&self) -> usize {
        self.0.load(StdOrdering::SeqCst)
    }
}

fn queue(depth: u16) -> Arc<QueuePair> {
    queue_with(depth, Doorbell::from_fn(|_| {}))
}

fn queue_with(depth: u16, sq_doorbell: Doorbell) -> Arc<QueuePair> {
    let entries = usize::from(depth) + 1;
    let memory = DmaMemory::new(HostMemory::allocate(4096).unwrap(), 0x1000, || Ok(()));
    let parts = Parts {
        id: 1,
        depth,
        submission: Words::model(entries),
        completion: Words::model(entries),
        slots: Words::model(depth.into()),
        lists: Lists { words: Words::model(usize::from(depth) * 8), words_per_slot: 8 },
        pool: Pool::new(memory, 4096),
        sq_doorbell,
        cq_doorbell: Doorbell::from_fn(|_| {}),
        eager: false,
        exclusive: false,
    };
    Arc::new(QueuePair::new(parts, Box::new(|fault| panic!("{fault}"))))
}

/// The device: completes the command in entry `index` of the submission ring, on the first pass.
fn post(queue: &QueuePair, index: u16) {
    let [first, ..] = queue.submission.at(index);
    let cid = first.load(Ordering::Relaxed) >> 16 & 0xffff;
    let [result, status] = queue.completion.at(index);
    result.store(0, Ordering::Relaxed);
    let head = (index + 1) % (queue.depth() + 1);
    status.store(u64::from(head) | 1 << 16 | cid << 32 | 1 << 48, Ordering::Release);
}

fn start(exchange: &mut Exchange<'_>, waker: &Waker) -> bool {
    let build = |_: List<'_>, _: Option<&Run>| Ok::<_, std::convert::Infallible>(Command::default());
    exchange.poll_start(&mut Context::from_waker(waker), Notes::default(), build).is_ready()
}

fn is_done(exchange: &mut Exchange<'_>, waker: &Waker) -> bool {
    match exchange.poll_result(&mut Context::from_waker(waker)) {
        Poll::Ready(result) => result.is_ok(),
        Poll::Pending => false,
    }
}

/// Every slot can be taken, once.
fn all_free(queue: &QueuePair) -> bool {
    let mut inner = queue.lock.lock();
    let taken = std::iter::from_fn(|| queue.free.take(&mut inner.taken)).count();
    queue.unlock(inner);
    taken == usize::from(queue.depth())
}

/// A future that is pending when its completion is found is woken, by the waker of its last poll.
#[test]
fn loom_pair_no_wake_up_is_lost() {
    loom::model(|| {
        let queue = queue(1);
        let mut exchange = Exchange::new(&queue);
        assert!(start(&mut exchange, Waker::noop()));
        let device = queue.clone();
        let device = thread::spawn(move || {
            post(&device, 0);
            device.drain();
        });
        let (woken, waker) = Woken::new();
        let done = is_done(&mut exchange, &waker);
        device.join().unwrap();
        if !done {
            assert_eq!(woken.count(), 1);
            assert!(is_done(&mut exchange, &waker));
        }
        drop(exchange);
        assert!(all_free(&queue));
    });
}

/// Of two that look at once, at least one finds what was posted before.
#[test]
fn loom_pair_no_look_is_lost() {
    loom::model(|| {
        let queue = queue(1);
        let (woken, waker) = Woken::new();
        let mut exchange = Exchange::new(&queue);
        assert!(start(&mut exchange, &waker));
        let other = queue.clone();
        let other = thread::spawn(move || other.drain());
        post(&queue, 0);
        let found = queue.drain();
        assert_eq!(found + other.join().unwrap(), 1);
        assert_eq!(woken.count(), 1);
        assert!(is_done(&mut exchange, &waker));
    });
}

/// Dropped as it completes: the slot is free once, and the pages it held come back, not before the device is done.
#[test]
fn loom_pair_drop_meets_completion() {
    loom::model(|| {
        let queue = queue(1);
        let mut exchange = Exchange::new(&queue);
        assert!(exchange.poll_pages(1, &mut Context::from_waker(Waker::noop())).is_ready());
        assert!(start(&mut exchange, Waker::noop()));
        let device = queue.clone();
        let device = thread::spawn(move || {
            assert_eq!(device.pool.usage(), (1, 1), "the device is not done with it");
            post(&device, 0);
            device.drain();
        });
        drop(exchange);
        device.join().unwrap();
        assert_eq!(queue.pool.usage(), (1, 0));
        assert!(all_free(&queue));
    });
}

/// Who waits for a slot is woken when the only one is given back without the lock.
#[test]
fn loom_pair_no_waiter_is_forgotten() {
    loom::model(|| {
        let queue = queue(1);
        let mut first = Exchange::new(&queue);
        assert!(start(&mut first, Waker::noop()));
        post(&queue, 0);
        assert_eq!(queue.drain(), 1);
        let token = first.take_token();
        let other = queue.clone();
        let other = thread::spawn(move || assert!(other.claim_success(token)));
        let (woken, waker) = Woken::new();
        let mut second = Exchange::new(&queue);
        let started = start(&mut second, &waker);
        other.join().unwrap();
        if !started {
            assert_eq!(woken.count(), 1);
            assert!(start(&mut second, &waker), "a slot was granted");
        }
        post(&queue, 1);
        assert!(is_done(&mut second, &waker));
        assert!(all_free(&queue));
    });
}

/// Who leaves the line as a slot is granted to it passes it on.
#[test]
fn loom_pair_leaving_meets_grant() {
    loom::model(|| {
        let queue = queue(1);
        let mut first = Exchange::new(&queue);
        assert!(start(&mut first, Waker::noop()));
        post(&queue, 0);
        assert_eq!(queue.drain(), 1);
        let (woken, waker) = Woken::new();
        let mut second = Exchange::new(&queue);
        let mut third = Exchange::new(&queue);
        assert!(!start(&mut second, Waker::noop()));
        assert!(!start(&mut third, &waker));
        let token = first.take_token();
        let other = queue.clone();
        let other = thread::spawn(move || assert!(other.claim_success(token)));
        drop(second);
        other.join().unwrap();
        assert_eq!(woken.count(), 1);
        assert!(start(&mut third, &waker));
    });
}

/// Memory that is being unregistered: either its command is refused, or it is seen.
#[test]
fn loom_pair_unregister_meets_submit() {
    loom::model(|| {
        let queue = queue(1);
        let dead = Arc::new(crate::sync::AtomicBool::new(false));
        let (other, other_dead) = (queue.clone(), dead.clone());
        let submitter = thread::spawn(move || {
            let notes = Notes { registration: 7, ..Notes::default() };
            let build = |_: List<'_>| match other_dead.load(Ordering::Acquire) {
                true => Err(()),
                false => Ok(Command::default()),
            };
            other.start(Waker::noop(), &mut None, notes, build).is_ok()
        });
        dead.store(true, Ordering::Release);
        let retired = queue.retire(|slots, slot| slots.registration(slot) == 7);
        let seen = std::pin::pin!(retired).poll(&mut Context::from_waker(Waker::noop())).is_pending();
        let submitted = submitter.join().unwrap();
        assert_eq!(seen, submitted);
    });
}

/// Memory that is being unregistered as the command in it completes: whoever waits for that hears of it, and not before.
#[test]
fn loom_pair_unregister_meets_completion() {
    loom::model(|| {
        let queue = queue(1);
        let mut exchange = Exchange::new(&queue);
        let notes = || Notes { registration: 7, ..Notes::default() };
        let build = |_: List<'_>, _: Option<&Run>| Ok::<_, std::convert::Infallible>(Command::default());
        assert!(exchange.poll_start(&mut Context::from_waker(Waker::noop()), notes(), build).is_ready());
        let posted = Arc::new(crate::sync::AtomicBool::new(false));
        let (device, device_posted) = (queue.clone(), posted.clone());
        let device = thread::spawn(move || {
            device_posted.store(true, Ordering::Release);
            post(&device, 0);
            device.drain();
        });
        // Nobody waits for the command itself any more.
        drop(exchange);
        let (woken, waker) = Woken::new();
        let mut retired = Box::pin(queue.retire(|slots, slot| slots.registration(slot) == 7));
        let ended = retired.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        assert!(!ended || posted.load(Ordering::Acquire));
        device.join().unwrap();
        if !ended {
            assert_eq!(woken.count(), 1);
            assert!(retired.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
        }
        drop(retired);
        assert!(all_free(&queue));
    });
}

/// A completion that comes as the adaptive poller is about to sleep: it is found before, or its interrupt ends the sleep.
#[test]
fn loom_adaptive_no_completion_is_slept_through() {
    loom::model(|| {
        let queue = queue(1);
        let (woken, waker) = Woken::new();
        let mut exchange = Exchange::new(&queue);
        assert!(start(&mut exchange, &waker));
        // Left over from what was found by polling.
        let raised = Arc::new(crate::sync::AtomicBool::new(true));
        let (device, interrupt) = (queue.clone(), raised.clone());
        let device = thread::spawn(move || {
            post(&device, 0);
            // As what is added to an eventfd.
            interrupt.swap(true, Ordering::AcqRel);
        });
        let queues = [(queue.clone(), raised.clone())];
        let sleeps = may_sleep(&queues, |raised| {
            raised.swap(false, Ordering::AcqRel);
        });
        device.join().unwrap();
        if sleeps {
            assert!(raised.load(Ordering::Acquire), "it sleeps on");
            assert_eq!(queue.drain(), 1);
        }
        assert_eq!(woken.count(), 1);
        assert!(is_done(&mut exchange, &waker));
    });
}

/// The queue is given up as its last command completes: the future ends either way.
#[test]
fn loom_pair_giving_up_meets_completion() {
    loom::model(|| {
        let queue = queue(1);
        let (woken, waker) = Woken::new();
        let mut exchange = Exchange::new(&queue);
        assert!(start(&mut exchange, &waker));
        post(&queue, 0);
        let other = queue.clone();
        let other = thread::spawn(move || other.drain());
        queue.give_up(Lost::Shutdown);
        other.join().unwrap();
        assert_eq!(woken.count(), 1);
        assert!(exchange.poll_result(&mut Context::from_waker(&waker)).is_ready());
        assert!(all_free(&queue));
    });
}

/// A result is claimed as the queue is held still, and handed over or gone on with: it is the future's or the other process's,
/// never both, never nobody's, and the future ends.
fn a_handover_meets_a_claim(commit: bool) {
    loom::model(move || {
        let queue = queue(1);
        let (woken, waker) = Woken::new();
        let mut exchange = Exchange::new(&queue);
        assert!(start(&mut exchange, &waker));
        post(&queue, 0);
        assert_eq!(queue.drain(), 1);
        let other = queue.clone();
        let other = thread::spawn(move || {
            let still = other.freeze().expect("it works");
            if commit {
                other.give_up(Lost::HandedOver);
            } else {
                other.thaw();
            }
            still.commands.len()
        });
        let mut result = exchange.poll_result(&mut Context::from_waker(&waker));
        let crossed = other.join().unwrap();
        if result.is_pending() {
            assert!(woken.count() > 1, "it is told of what was decided");
            result = exchange.poll_result(&mut Context::from_waker(&waker));
        }
        match result {
            Poll::Ready(Ok(_)) => assert!(!commit || crossed == 0, "it is the other process's"),
            Poll::Ready(Err(crate::RequestError::HandedOver)) => assert_eq!((commit, crossed), (true, 1)),
            other => panic!("{other:?}"),
        }
        drop(exchange);
        assert!(commit || all_free(&queue));
    });
}

#[test]
fn loom_pair_a_handover_meets_a_claim() {
    a_handover_meets_a_claim(true);
}

#[test]
fn loom_pair_a_handover_that_fails_meets_a_claim() {
    a_handover_meets_a_claim(false);
}

/// A command that is submitted while the controller is reset ends once: interrupted, or sent in the queue's next life.
#[test]
fn loom_pair_a_reset_meets_a_submission() {
    loom::model(|| {
        let queue = queue(1);
        let recovery = queue.clone();
        let recovery = thread::spawn(move || {
            recovery.pause();
            recovery.after_stop(&std::collections::BTreeSet::new());
            recovery.resume(|_, _| true);
        });
        let (woken, waker) = Woken::new();
        let mut exchange = Exchange::new(&queue);
        let started = start(&mut exchange, &waker);
        recovery.join().unwrap();
        if !started {
            assert!(woken.count() >= 1, "who waits is told");
            assert!(start(&mut exchange, &waker));
        }
        let sent = queue.lock.lock().sq.tail() != 0;
        if sent {
            post(&queue, 0);
            assert!(is_done(&mut exchange, &waker));
        } else {
            match exchange.poll_result(&mut Context::from_waker(&waker)) {
                Poll::Ready(Err(crate::RequestError::Interrupted)) => {}
                other => panic!("{other:?}"),
            }
        }
        drop(exchange);
        assert!(all_free(&queue));
    });
}

/// Of two that submit at once, one may leave its doorbell to the other, who waits for the lock: in the end the device is
/// told of both.
#[test]
fn loom_pair_no_command_stays_behind_the_doorbell() {
    loom::model(|| {
        let rung = std::sync::Arc::new(AtomicUsize::new(0));
        let bell = rung.clone();
        let queue = queue_with(2, Doorbell::from_fn(move |tail| bell.store(tail as usize, StdOrdering::SeqCst)));
        let other = queue.clone();
        let other = thread::spawn(move || {
            let mut exchange = Exchange::new(&other);
            assert!(start(&mut exchange, Waker::noop()));
            std::mem::forget(exchange);
        });
        let mut exchange = Exchange::new(&queue);
        assert!(start(&mut exchange, Waker::noop()));
        other.join().unwrap();
        assert_eq!(rung.load(StdOrdering::SeqCst), 2);
        std::mem::forget(exchange);
    });
}

/// A doorbell that was left to who waits for the lock is rung also if that one has nothing to submit.
#[test]
fn loom_pair_who_waits_in_vain_rings() {
    loom::model(|| {
        let rung = std::sync::Arc::new(AtomicUsize::new(0));
        let bell = rung.clone();
        let queue = queue_with(1, Doorbell::from_fn(move |tail| bell.store(tail as usize, StdOrdering::SeqCst)));
        let other = queue.clone();
        let other = thread::spawn(move || {
            if let Some(begun) = other.begin(Waker::noop()) {
                begun.withdraw();
            }
        });
        let mut exchange = Exchange::new(&queue);
        let started = start(&mut exchange, Waker::noop());
        other.join().unwrap();
        assert!(started || start(&mut exchange, Waker::noop()));
        assert_eq!(rung.load(StdOrdering::SeqCst), 1);
        std::mem::forget(exchange);
    });
}
