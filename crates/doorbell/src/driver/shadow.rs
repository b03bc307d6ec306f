//! Shadow doorbells (NVMe Base 2.0, Doorbell Buffer Config command): tails and heads are written to memory, from which the
//! controller takes them, and the doorbell itself rings only when the controller has asked for it.
//!
//! For each doorbell there are two words: the value, and the event index of the controller's, which says at which value
//! it stops looking by itself. Who writes a value reads the event index after, and who writes an event index reads the
//! value after: with a full barrier in between on both sides, one of them sees what the other has written.

use std::sync::{Arc, Mutex, PoisonError};

use doorbell_device::{Device, DeviceError, DmaMemory, Doorbell};
use nvme_spec::{AdminOpcode, Command, DataPointer};

use super::admin::Admin;
use crate::error::RequestError;
use crate::queue::pooled::Data;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, mb};

/// The buffers of a controller.
pub(crate) struct Shadows {
    /// A page of values, and one of event indices.
    memory: DmaMemory,
    page: usize,
    /// Whether the controller uses them in its present life.
    active: AtomicBool,
    rung: Mutex<AllRung>,
}

/// How often doorbells rang, though they have shadows.
#[derive(Default)]
struct AllRung {
    doorbells: Vec<Arc<Rung>>,
    /// Those that are no more.
    before: u64,
}

/// How often one doorbell rang. Alone on its cache lines: its queue's CPU is the only one to write there.
#[repr(align(128))]
#[derive(Default)]
struct Rung(AtomicU64);

impl Shadows {
    /// The controller knows nothing of them yet.
    pub(crate) fn new(device: &dyn Device, page: usize) -> Result<Arc<Self>, DeviceError> {
        let memory = device.allocate(page.saturating_mul(2), page as u64)?;
        Ok(Arc::new(Self::over_memory(memory, page, false)))
    }

    /// Goes on with those of another process. `None` if the memory is too small.
    pub(crate) fn inherit(memory: DmaMemory, page: usize, active: bool) -> Option<Arc<Self>> {
        let fits = memory.len() >= page.saturating_mul(2);
        fits.then(|| Arc::new(Self::over_memory(memory, page, active)))
    }

    fn over_memory(memory: DmaMemory, page: usize, active: bool) -> Self {
        Self { memory, page, active: AtomicBool::new(active), rung: Mutex::default() }
    }

    /// Their memory, and whether the controller uses them.
    pub(crate) fn memory(&self) -> (&DmaMemory, bool) {
        (&self.memory, self.active.load(Ordering::SeqCst))
    }

    /// The controller was reset: it has forgotten them, and no value is what it was.
    pub(crate) fn forget(&self) {
        self.active.store(false, Ordering::SeqCst);
        for word in self.memory.host().dwords() {
            word.store(0, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Tells a controller that was just enabled, and has no I/O queues yet. One that refuses gets by without.
    pub(crate) async fn announce(&self, admin: &Admin) -> Result<(), RequestError> {
        self.forget();
        let (values, events) = (self.memory.iova(), self.memory.iova().saturating_add(self.page as u64));
        let command =
            Command { dptr: DataPointer::prp(values, events), ..AdminOpcode::DOORBELL_BUFFER_CONFIG.command() };
        match admin.command(command, Data::None).await {
            Ok(_) => self.active.store(true, Ordering::SeqCst),
            Err(RequestError::Nvme(error)) => tracing::warn!(%error, "the controller refused shadow doorbells"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// How often doorbells rang all the same; `None` if the controller does not use the shadows.
    pub(crate) fn rung(&self) -> Option<u64> {
        let all = || {
            let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
            rung.doorbells.iter().fold(rung.before, |sum, rung| sum.wrapping_add(rung.0.load(Ordering::Relaxed)))
        };
        self.active.load(Ordering::Relaxed).then(all)
    }

    /// A doorbell of a new queue with its shadow, `index` bytes behind the first doorbell. Those that no buffer reaches,
    /// which a large stride brings there, go without.
    pub(crate) fn over(self: &Arc<Self>, doorbell: Doorbell, index: usize) -> Doorbell {
        if let Some((shadow, event)) = self.place(index).as_ref().and_then(Place::get) {
            // What an earlier queue of this number left is not the new one's.
            shadow.store(0, Ordering::Relaxed);
            event.store(0, Ordering::Relaxed);
        }
        self.over_inherited(doorbell, index)
    }

    /// The same for a queue that the controller has already: its values are what it was told last.
    pub(crate) fn over_inherited(self: &Arc<Self>, doorbell: Doorbell, index: usize) -> Doorbell {
        let Some(place) = self.place(index) else { return doorbell };
        let (shadows, rung) = (self.clone(), self.another());
        Doorbell::from_fn(move |value| shadows.ring(&place, &doorbell, &rung, value))
    }

    /// The count of one more doorbell.
    fn another(&self) -> Arc<Rung> {
        let rung = Arc::<Rung>::default();
        let mut all = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let AllRung { doorbells, before } = &mut *all;
        doorbells.retain(|rung| {
            let lives = Arc::strong_count(rung) > 1;
            *before = before.wrapping_add(if lives { 0 } else { rung.0.load(Ordering::Relaxed) });
            lives
        });
        doorbells.push(rung.clone());
        rung
    }

    fn ring(&self, place: &Place, doorbell: &Doorbell, rung: &Rung, value: u32) {
        if !self.active.load(Ordering::Relaxed) {
            doorbell.ring(value);
        } else if place.get().is_none_or(|(shadow, event)| is_to_ring(shadow, event, value)) {
            rung.0.fetch_add(1, Ordering::Relaxed);
            doorbell.ring(value);
        }
    }
}

/// Writes a shadow. Whether the doorbell itself has to ring.
fn is_to_ring(shadow: &AtomicU32, event: &AtomicU32, value: u32) -> bool {
    let old = shadow.load(Ordering::Relaxed);
    shadow.store(value, Ordering::Release);
    mb();
    is_passed(event.load(Ordering::Relaxed) as u16, old as u16, value as u16)
}

/// Whether an event index is among the values from `old` on that end before `new`. Without the size of the queue: where
/// the value wraps, so does the difference. Whatever words a controller writes there, this is all that comes of it.
fn is_passed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// The two words of a doorbell.
#[cfg(not(doorbell_loom))]
struct Place {
    memory: DmaMemory,
    shadow: usize,
    event: usize,
}

#[cfg(not(doorbell_loom))]
impl Place {
    fn get(&self) -> Option<(&AtomicU32, &AtomicU32)> {
        let words = self.memory.host().dwords();
        words.get(self.shadow).zip(words.get(self.event))
    }
}

#[cfg(not(doorbell_loom))]
impl Shadows {
    /// Where the words of a doorbell are; nowhere if the buffer is too small.
    fn place(&self, index: usize) -> Option<Place> {
        let (memory, fits) = (self.memory.clone(), index.saturating_add(4) <= self.page);
        fits.then(|| Place { memory, shadow: index / 4, event: self.page.saturating_add(index) / 4 })
    }
}

#[cfg(doorbell_loom)]
struct Place {
    shadow: AtomicU32,
    event: AtomicU32,
}

#[cfg(doorbell_loom)]
impl Place {
    fn get(&self) -> Option<(&AtomicU32, &AtomicU32)> {
        Some((&self.shadow, &self.event))
    }
}

#[cfg(doorbell_loom)]
impl Shadows {
    fn place(&self, _: usize) -> Option<Place> {
        Some(Place { shadow: AtomicU32::new(0), event: AtomicU32::new(0) })
    }
}

#[cfg(all(test, not(doorbell_loom)))]
mod unit {
    use super::*;

    #[test]
    fn an_event_is_passed_by_exactly_those_steps_that_go_over_it() {
        for entries in [2, 3, 64, 65536] {
            let ends = || (0..3.min(entries)).chain(entries - 2..entries);
            for (old, event, steps) in ends().flat_map(|old| {
                let events = ends();
                events.flat_map(move |event| (1..5.min(entries)).map(move |steps| (old, event, steps)))
            }) {
                let at = |step: u32| (old + step) % entries;
                let over = (0..steps).any(|step| at(step) == event);
                let passed = is_passed(event as u16, old as u16, at(steps) as u16);
                assert_eq!(passed, over, "event {event}, {steps} steps from {old}, {entries} entries");
            }
        }
        assert!(!is_passed(7, 7, 7), "what does not move passes nothing");
    }
}

#[cfg(all(test, doorbell_loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// The controller is about to wait: it says from which value on it wants to be told, and looks once more.
    #[test]
    fn loom_shadow_no_value_is_missed() {
        loom::model(|| {
            let words = Arc::new((AtomicU32::new(3), AtomicU32::new(0)));
            let theirs = words.clone();
            let controller = thread::spawn(move || {
                let (shadow, event) = &*theirs;
                event.store(3, Ordering::Relaxed);
                mb();
                shadow.load(Ordering::Relaxed)
            });
            let rings = is_to_ring(&words.0, &words.1, 4);
            let seen = controller.join().unwrap();
            assert!(rings || seen == 4, "the controller waits, and nobody tells it");
        });
    }
}
