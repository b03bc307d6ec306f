//! Interrupts: by MSI-X, by MSI, or by the pin; and those that wait for more completions (Interrupt Coalescing).

use std::time::Duration;

use doorbell_device::inprocess::Host;
use nvme_spec::feature::InterruptCoalescing;

use super::Controller;
use crate::config::InterruptMode;

/// Units of Interrupt Coalescing's Aggregation Time.
const AGGREGATION_UNIT: Duration = Duration::from_micros(100);

/// Interrupts that wait for more completions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gathering {
    /// Their completion queues, a bit each.
    pub(super) queues: u128,
    /// When all of them come, whatever was completed until then.
    pub(super) until: Duration,
}

impl Controller {
    /// Raises the interrupts of completion queues that were posted to, once each; true if any had waited until now.
    #[inline]
    pub(super) fn raise_interrupts(&mut self, host: &Host<'_>) -> bool {
        if self.raise == 0 && self.gathering.is_none() {
            return false;
        }
        let waited = self.gather();
        self.raise_pending(host);
        waited
    }

    /// Keeps interrupts back that are to wait for more completions, and lets those come that have waited for long enough.
    fn gather(&mut self) -> bool {
        let due = self.gathering.take_if(|gathering| gathering.until <= self.now).map_or(0, |due| due.queues);
        let coalescing = self.features.interrupt_coalescing();
        if coalescing.time() != 0 && self.config.interrupts != InterruptMode::Pin {
            let waits = self.too_few_completions(coalescing) & !due;
            self.raise &= !waits;
            let gathering = self.gathering.get_or_insert(Gathering {
                queues: 0,
                until: self.now.saturating_add(AGGREGATION_UNIT.saturating_mul(coalescing.time().into())),
            });
            // Those that have enough now wait no longer.
            gathering.queues = gathering.queues & !self.raise | waits;
            if gathering.queues == 0 {
                self.gathering = None;
            }
        }
        self.raise |= due;
        due != 0
    }

    /// Of the I/O queues whose interrupt is to be raised, those with fewer completions than one is to be raised for.
    fn too_few_completions(&mut self, coalescing: InterruptCoalescing) -> u128 {
        let mut few = 0;
        let mut left = self.raise & !1;
        while left != 0 {
            let cqid = left.trailing_zeros() as u16;
            left &= left.wrapping_sub(1);
            let Some(queue) = self.queues.completion(cqid) else { continue };
            if queue.unannounced() <= coalescing.thr().into() && self.features.coalesces(queue.vector) {
                few |= 1 << (cqid & 127);
            }
        }
        few
    }

    fn raise_pending(&mut self, host: &Host<'_>) {
        let mut raised = 0u128;
        let pending = std::mem::take(&mut self.raise);
        let mut left = pending;
        while left != 0 {
            let cqid = left.trailing_zeros() as u16;
            left &= left.wrapping_sub(1);
            let Some(queue) = self.queues.completion(cqid) else { continue };
            let vector = if self.config.interrupts == InterruptMode::Pin { 0 } else { queue.vector };
            let masked = self.config.interrupts != InterruptMode::MsiX
                && self.registers.masked & 1u32.checked_shl(u32::from(vector)).unwrap_or(0) != 0;
            if masked {
                // It comes when it is unmasked.
                self.raise |= 1 << (cqid & 127);
                continue;
            }
            let bit = 1u128.checked_shl(u32::from(vector)).unwrap_or(0);
            queue.announce();
            if vector < self.config.vectors && (bit == 0 || raised & bit == 0) {
                raised |= bit;
                (host.interrupt)(vector);
            }
        }
    }

    /// The interrupt pin is asserted as long as any queue has entries.
    pub(super) fn assert_pin(&mut self, host: &Host<'_>) {
        for (cqid, queue) in (0u32..).zip(&mut self.queues.completion) {
            let Some(queue) = queue else { continue };
            if queue.interrupts && queue.refresh(host).is_ok() && !queue.is_empty() {
                self.raise |= 1 << (cqid & 127);
            }
        }
    }
}
