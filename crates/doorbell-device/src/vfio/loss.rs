//! Whether the device is still ours.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use vfio_bindings::bindings::vfio;

use super::function::Function;
use super::vectors;
use crate::{DeviceError, Interrupt};

/// The ways in which a device is lost.
const ASKED_BACK: &str = "the system wants it back: it is to be unplugged or unbound";
const LINK_FAILED: &str = "its PCIe link reported an error that cannot be corrected";
const VANISHED: &str = "its registers are no longer there";
const ALL_ONES: &str = "its registers read all ones";
const LET_GO: &str = "it was let go";

/// Knows, from whichever source, that the device is lost, and for the first of the reasons.
#[derive(Debug)]
pub(super) struct Loss {
    reason: OnceLock<String>,
    /// Whether its registers are of no use any more. Those of a device that is asked back are, to stop it with.
    unreachable: AtomicBool,
    /// What the system signals, or the handler of SIGBUS, or we do; and which reason that is.
    sources: [(Interrupt, &'static str); 3],
    any: Interrupt,
}

impl Loss {
    pub(super) fn new() -> Result<Self, DeviceError> {
        Self::with(Interrupt::new()?, Interrupt::new()?)
    }

    /// With what the system signals it with, or will.
    pub(super) fn with(asked_back: Interrupt, link_failed: Interrupt) -> Result<Self, DeviceError> {
        let reason = OnceLock::new();
        let sources = [(asked_back, ASKED_BACK), (link_failed, LINK_FAILED), (Interrupt::new()?, VANISHED)];
        let any = Interrupt::any_of(sources.each_ref().map(|(interrupt, _)| interrupt.clone()))?;
        Ok(Self { reason, unreachable: AtomicBool::new(false), sources, any })
    }

    /// Asks the system to signal it.
    pub(super) fn watch(&self, function: &Function) -> Result<(), DeviceError> {
        let [asked_back, link_failed] = self.notices();
        let request = vectors::signal(function, vfio::VFIO_PCI_REQ_IRQ_INDEX, asked_back)?;
        let error = vectors::signal(function, vfio::VFIO_PCI_ERR_IRQ_INDEX, link_failed)?;
        tracing::debug!(request, error, "notices of the device's loss");
        Ok(())
    }

    /// No more of that.
    pub(super) fn release(&self, function: &Function) {
        for index in [vfio::VFIO_PCI_REQ_IRQ_INDEX, vfio::VFIO_PCI_ERR_IRQ_INDEX] {
            vectors::disable(function, index);
        }
    }

    /// What the system signals it with.
    pub(super) fn notices(&self) -> [&Interrupt; 2] {
        let [(asked_back, _), (link_failed, _), _] = &self.sources;
        [asked_back, link_failed]
    }

    /// Signalled with any of the reasons.
    pub(super) fn any(&self) -> &Interrupt {
        &self.any
    }

    /// What to raise when the registers are no longer there.
    pub(super) fn vanished(&self) -> &Interrupt {
        let [.., (vanished, _)] = &self.sources;
        vanished
    }

    /// The registers were seen to read all ones.
    pub(super) fn all_ones(&self) -> DeviceError {
        // Perhaps the handler of SIGBUS made them so.
        self.unreachable(if self.vanished().is_raised() { VANISHED } else { ALL_ONES })
    }

    /// It was let go.
    pub(super) fn let_go(&self) {
        self.unreachable(LET_GO);
    }

    fn unreachable(&self, reason: &str) -> DeviceError {
        let known = self.reason.get_or_init(|| reason.into()).clone();
        self.unreachable.store(true, Ordering::SeqCst);
        self.vanished().raise();
        DeviceError::Gone(known)
    }

    /// The reason, if it is lost. No signal is taken: it is for all who wait.
    pub(super) fn check(&self) -> Result<(), DeviceError> {
        if self.reason.get().is_none() {
            let raised = self.sources.iter().find(|(interrupt, _)| interrupt.is_raised());
            if let Some((_, because)) = raised {
                self.reason.get_or_init(|| (*because).into());
            }
        }
        match self.reason.get() {
            Some(reason) => Err(DeviceError::Gone(reason.clone())),
            None => Ok(()),
        }
    }

    /// An error if its registers are of no use any more.
    pub(super) fn check_reachable(&self) -> Result<(), DeviceError> {
        if self.unreachable.load(Ordering::SeqCst) { self.check() } else { Ok(()) }
    }
}
