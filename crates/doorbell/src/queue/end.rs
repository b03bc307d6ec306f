//! How a queue pair ends: it takes no more commands, is given up, or lets go of memory.

use std::sync::PoisonError;

use super::pair::{Gate, Inner, QueuePair, Rest};
use super::slots::{Slots, State};
use crate::error::{DeviceMisbehaved, Lost};

impl QueuePair {
    #[cold]
    #[inline(never)]
    pub(super) fn halt(&self, inner: &mut Inner, fault: Box<DeviceMisbehaved>) {
        tracing::error!(queue = self.id, %fault, "the device broke the protocol");
        inner.rare.halted = true;
        // Whoever comes waits until it is decided what becomes of the controller.
        if inner.rare.gate == Gate::Open {
            inner.rare.gate = Gate::Paused;
        }
        inner.rare.rest().fault = Some(fault.clone());
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(*fault);
    }

    /// How the device broke the protocol on this queue, if it did.
    pub(crate) fn fault(&self) -> Option<DeviceMisbehaved> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes no more commands, for that reason; what is in flight goes on.
    pub(crate) fn close(&self, lost: Lost) {
        let _ = self.lost.set(lost);
        self.locked(|inner| {
            inner.rare.gate = Gate::Closed;
            let wakers = inner.rare.waiting.wakers();
            inner.rare.rest().wakers = wakers;
        });
        self.pool.close();
    }

    /// Ends every command without a result. Only when the device can no longer touch any of their memory, or that
    /// memory is leaked.
    pub(crate) fn give_up(&self, lost: Lost) {
        let _ = self.lost.set(lost);
        self.locked(|inner| {
            inner.rare.gate = Gate::Closed;
            inner.rare.halted = true;
            inner.rare.unrung.forget();
            let mut rest = Rest { wakers: inner.rare.waiting.wakers(), retired: true, ..Rest::default() };
            for index in 0..self.depth() {
                let slot = self.slots.at(index);
                let (state, cid) = slot.state();
                match state {
                    State::InFlight => {
                        slot.set_state(State::Lost, cid);
                        rest.wakers.extend(inner.wakers.get_mut(usize::from(index)).and_then(Option::take));
                    }
                    State::Orphaned => {
                        slot.set_state(State::Free, cid);
                        inner.taken.put_back(index);
                    }
                    State::Free | State::Done | State::Returned | State::Lost | State::Interrupted => {}
                }
            }
            rest.held.extend(inner.held.drain(..).map(|(_, held)| held));
            inner.rare.ended = self.exclusive;
            if let Some(frozen) = inner.rare.frozen.take() {
                self.end_frozen(*frozen, &mut rest);
                rest.wakers.extend(inner.wakers.iter_mut().filter_map(Option::take));
            }
            inner.rare.rest = Some(Box::new(rest));
        });
        self.pool.close();
    }

    /// Keeps its memory for the rest of the process's life: the device goes on using it.
    pub(crate) fn leak(self: std::sync::Arc<Self>) {
        std::mem::forget(self);
    }

    /// Why commands ended without a result.
    pub(crate) fn lost(&self) -> Lost {
        self.lost.get().cloned().unwrap_or(Lost::Shutdown)
    }

    /// Waits until the device is done with every command for which `names` holds.
    pub(crate) async fn retire(&self, names: impl Fn(&Slots, u16) -> bool) {
        /// One of those who wait, also if its future is dropped meanwhile.
        struct Retiring<'a>(&'a QueuePair);

        impl Drop for Retiring<'_> {
            fn drop(&mut self) {
                self.0.locked(|inner| inner.rare.retiring -= 1);
            }
        }

        self.locked(|inner| inner.rare.retiring += 1);
        let _retiring = Retiring(self);
        loop {
            let listener = self.retired.listen();
            if !self.is_busy(&names) {
                break;
            }
            listener.await;
        }
    }

    /// Whether the device is not done with a command for which `names` holds.
    pub(super) fn is_busy(&self, names: impl Fn(&Slots, u16) -> bool) -> bool {
        (0..self.depth()).any(|slot| {
            let (state, _) = self.slots.at(slot).state();
            matches!(state, State::InFlight | State::Orphaned) && names(&self.slots, slot)
        })
    }
}
