//! Interrupts: by MSI-X, by MSI, or by the pin.

use doorbell_device::inprocess::Host;

use super::Controller;
use crate::config::InterruptMode;

impl Controller {
    /// Raises the interrupts of completion queues that were posted to, once each.
    #[inline]
    pub(super) fn raise_interrupts(&mut self, host: &Host<'_>) {
        if self.raise != 0 {
            self.raise_pending(host);
        }
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
