//! The protocol by which an idle controller thread sleeps, in every interleaving.
//!
//! A lost wake-up is a deadlock here: the model's condition variable has no time-outs.

/// What the protocol is built on, from the model checker.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering, fence};
    pub(super) use loom::sync::{Condvar, Mutex, MutexGuard};
    pub(super) use std::sync::PoisonError;
}

#[path = "../src/inprocess/doze.rs"]
mod doze;

use std::sync::Arc;
use std::time::Duration;

use doze::Doze;
use loom::sync::atomic::AtomicU32;
use loom::thread;
use sync::{Mutex, Ordering};

struct World {
    lock: Mutex<()>,
    doze: Doze,
    doorbells: Vec<AtomicU32>,
}

impl World {
    fn new(doorbells: usize) -> Arc<Self> {
        let doorbells = (0..doorbells).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Self { lock: Mutex::new(()), doze: Doze::new(), doorbells })
    }

    fn ring(&self, index: usize, value: u32) {
        self.doorbells[index].store(value, Ordering::Release);
        self.doze.kick(&self.lock);
    }

    fn rung(&self) -> u32 {
        self.doorbells.iter().map(|doorbell| doorbell.load(Ordering::Acquire)).sum()
    }

    /// Runs until the doorbells add up to `last`, sleeping whenever they did not change.
    fn serve(&self, last: u32) {
        let mut seen = 0;
        while seen < last {
            self.doze.sleep(self.lock.lock().unwrap(), |()| {
                let rung = self.rung();
                if rung == seen { Ok(Duration::from_secs(1)) } else { Err(()) }
            });
            seen = self.rung();
        }
    }
}

#[test]
fn no_doorbell_of_one_thread_is_lost() {
    loom::model(|| {
        let world = World::new(1);
        let server = thread::spawn({
            let world = world.clone();
            move || world.serve(2)
        });
        world.ring(0, 1);
        world.ring(0, 2);
        server.join().unwrap();
    });
}

#[test]
fn no_doorbell_of_two_threads_is_lost() {
    // Every interleaving of three threads takes a minute; those with few preemptions find what there is to find.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let world = World::new(2);
        let server = thread::spawn({
            let world = world.clone();
            move || world.serve(2)
        });
        let other = thread::spawn({
            let world = world.clone();
            move || world.ring(1, 1)
        });
        world.ring(0, 1);
        other.join().unwrap();
        server.join().unwrap();
    });
}

#[test]
fn what_is_told_under_the_lock_is_not_lost() {
    loom::model(|| {
        let world = World::new(1);
        let server = thread::spawn({
            let world = world.clone();
            move || world.serve(1)
        });
        // As for stopping: told, and then woken whether it sleeps or not.
        world.doorbells[0].store(1, Ordering::Release);
        world.doze.wake(&world.lock);
        server.join().unwrap();
    });
}
