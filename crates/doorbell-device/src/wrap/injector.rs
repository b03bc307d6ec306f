use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use nvme_spec::registers::offset::DOORBELLS;

use super::fault::{Fault, MapFailure, Rule, Running};
use super::{lock, on_unmap, pass_on};
use crate::interrupt::Signal;
use crate::{Device, DeviceError, DmaMemory, Doorbell, Interrupt, MapRequest};

/// Makes a device fail, by a plan of [`Rule`]s. The plan can be changed while it runs. Where several rules apply, the
/// first that happens counts, and those after it do not have the chance.
///
/// ```
/// use doorbell_device::wrap::{Fault, FaultInjector};
/// use doorbell_device::zero_work::ZeroWork;
/// use doorbell_device::Device;
/// use nvme_spec::registers::offset;
///
/// let device = FaultInjector::new(ZeroWork::new(Default::default())?, [Fault::ResetFails.times(1)]);
/// assert!(device.reset().is_err());
/// assert!(device.reset().is_ok());
/// device.add(Fault::Gone);
/// assert_eq!(device.read32(offset::CSTS)?, u32::MAX);
/// # Ok::<(), doorbell_device::DeviceError>(())
/// ```
pub struct FaultInjector {
    device: Arc<dyn Device>,
    state: Arc<Mutex<State>>,
    /// Raised by [`lose`](Self::lose). There is none where the system has no more descriptors.
    lost: Option<Interrupt>,
}

#[derive(Default)]
struct State {
    plan: Vec<Running>,
    /// Doorbells that are held back, by offset, with what they were last rung with.
    delayed: BTreeMap<usize, (Doorbell, u32)>,
    live_mappings: usize,
    /// Why the device is lost.
    lost: Option<String>,
    /// How many mappings there were when it was let go.
    released_with: Option<usize>,
}

impl FaultInjector {
    /// `device`, failing by `plan`.
    pub fn new(device: Arc<dyn Device>, plan: impl IntoIterator<Item = impl Into<Rule>>) -> Arc<Self> {
        let injector = Arc::new(Self { device, state: Arc::default(), lost: Interrupt::new().ok() });
        plan.into_iter().for_each(|rule| injector.add(rule));
        injector
    }

    /// Adds a rule at the end of the plan.
    pub fn add(&self, rule: impl Into<Rule>) {
        lock(&self.state).plan.push(Running { rule: rule.into(), chances: 0, stuck: None });
    }

    /// Says that the device is lost, or asked back, for a reason. It works as before until it is let go.
    pub fn lose(&self, reason: impl Into<String>) {
        lock(&self.state).lost = Some(reason.into());
        if let Some(lost) = &self.lost {
            lost.raise();
        }
    }

    /// How many mappings there are.
    pub fn live_mappings(&self) -> usize {
        lock(&self.state).live_mappings
    }

    /// How many mappings there were when the device was let go; `None` if it was not.
    pub fn released_with(&self) -> Option<usize> {
        lock(&self.state).released_with
    }

    /// Drops all rules. Doorbells that are held back stay so until they are released.
    pub fn clear(&self) {
        lock(&self.state).plan.clear();
    }

    /// The plan, each rule with how often its fault happened.
    pub fn plan(&self) -> Vec<(Rule, u64)> {
        lock(&self.state).plan.iter().map(|running| (running.rule, running.happened())).collect()
    }

    /// Rings the doorbells that were held back, in the order of their offsets, and returns how many.
    pub fn release_doorbells(&self) -> usize {
        let delayed = std::mem::take(&mut lock(&self.state).delayed);
        for (doorbell, value) in delayed.values() {
            doorbell.ring(*value);
        }
        delayed.len()
    }

    fn read(&self, offset: usize, read: impl Fn() -> Result<u64, DeviceError>) -> Result<u64, DeviceError> {
        let fault = lock(&self.state).find(|fault| match *fault {
            Fault::ReadAs { register, .. } => register.is_none_or(|register| register == offset),
            Fault::ReadStuck { register } => register == offset,
            Fault::Gone | Fault::KnownGone => true,
            _ => false,
        });
        match fault {
            Some(Fault::ReadAs { value, .. }) => Ok(value),
            Some(stuck @ Fault::ReadStuck { .. }) => {
                let value = read()?;
                Ok(lock(&self.state).stuck(stuck, value))
            }
            Some(Fault::Gone) => Ok(u64::MAX),
            Some(_) => Err(gone()),
            None => read(),
        }
    }

    /// Whether a write of a register may pass.
    fn write(&self, offset: usize) -> Result<bool, DeviceError> {
        let fault = lock(&self.state).find(|fault| match *fault {
            Fault::WriteLost { register } => register.is_none_or(|register| register == offset),
            Fault::Gone | Fault::KnownGone => true,
            _ => false,
        });
        if fault == Some(Fault::KnownGone) { Err(gone()) } else { Ok(fault.is_none()) }
    }

    /// Maps `len` bytes with `map`, unless the plan is against it.
    fn mapped(
        &self,
        len: usize,
        map: impl FnOnce() -> Result<DmaMemory, DeviceError>,
    ) -> Result<DmaMemory, DeviceError> {
        {
            let mut state = lock(&self.state);
            let live = state.live_mappings;
            let fault = state.find(|fault| match *fault {
                Fault::MapLimit { mappings } => live >= mappings,
                Fault::MapFails(_) | Fault::Gone | Fault::KnownGone => true,
                _ => false,
            });
            match fault {
                Some(Fault::MapFails(failure)) => return Err(failure.error(len)),
                Some(Fault::MapLimit { .. }) => return Err(MapFailure::Limit.error(len)),
                Some(_) => return Err(gone()),
                None => {}
            }
        }
        let memory = map()?;
        lock(&self.state).live_mappings += 1;
        let state = self.state.clone();
        Ok(on_unmap(memory, move || lock(&state).live_mappings -= 1))
    }
}

impl State {
    /// The first rule that is of interest and whose fault happens.
    fn find(&mut self, of_interest: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut of_interest = self.plan.iter_mut().filter(|running| of_interest(&running.rule.fault));
        of_interest.find_map(|running| running.chance().then_some(running.rule.fault))
    }

    /// What a stuck register reads as, now that it would read as `value`.
    fn stuck(&mut self, fault: Fault, value: u64) -> u64 {
        let running = self.plan.iter_mut().find(|running| running.rule.fault == fault);
        running.map_or(value, |running| *running.stuck.get_or_insert(value))
    }
}

fn ring(state: &Mutex<State>, inner: &Doorbell, offset: usize, value: u32) {
    let mut state = lock(state);
    let fault = state.find(|fault| match *fault {
        Fault::DoorbellLost { doorbell } | Fault::DoorbellDelayed { doorbell } => {
            doorbell.is_none_or(|doorbell| doorbell == offset)
        }
        Fault::Gone | Fault::KnownGone => true,
        _ => false,
    });
    match fault {
        Some(Fault::DoorbellDelayed { .. }) => {
            state.delayed.insert(offset, (inner.clone(), value));
        }
        Some(_) => {}
        None => {
            // What is held back of this doorbell is out of date now.
            state.delayed.remove(&offset);
            drop(state);
            inner.ring(value);
        }
    }
}

fn gone() -> DeviceError {
    DeviceError::Gone("by an injected fault".into())
}

impl Device for FaultInjector {
    pass_on! {
        address() -> String;
        interrupt_count() -> u32;
        completes_inline() -> bool;
    }

    fn read32(&self, offset: usize) -> Result<u32, DeviceError> {
        self.read(offset, || self.device.read32(offset).map(u64::from)).map(|value| value as u32)
    }

    fn read64(&self, offset: usize) -> Result<u64, DeviceError> {
        self.read(offset, || self.device.read64(offset))
    }

    fn write32(&self, offset: usize, value: u32) -> Result<(), DeviceError> {
        if offset >= DOORBELLS {
            ring(&self.state, &self.device.doorbell(offset)?, offset, value);
            return Ok(());
        }
        if self.write(offset)? { self.device.write32(offset, value) } else { Ok(()) }
    }

    fn write64(&self, offset: usize, value: u64) -> Result<(), DeviceError> {
        if self.write(offset)? { self.device.write64(offset, value) } else { Ok(()) }
    }

    fn doorbell(&self, offset: usize) -> Result<Doorbell, DeviceError> {
        let inner = self.device.doorbell(offset)?;
        let state = self.state.clone();
        Ok(Doorbell::from_fn(move |value| ring(&state, &inner, offset, value)))
    }

    fn map(&self, request: MapRequest) -> Result<DmaMemory, DeviceError> {
        self.mapped(request.host.len(), || self.device.map(request))
    }

    fn allocate(&self, len: usize, align: u64) -> Result<DmaMemory, DeviceError> {
        self.mapped(len, || self.device.allocate(len, align))
    }

    fn interrupt(&self, vector: u32) -> Result<Interrupt, DeviceError> {
        let interrupt = self.device.interrupt(vector)?;
        let state = Arc::downgrade(&self.state);
        interrupt.watch(Arc::as_ptr(&self.state).addr(), move |signal| {
            let Some(state) = state.upgrade().filter(|_| signal == Signal::Raised) else { return true };
            let fault = lock(&state).find(|fault| match *fault {
                Fault::InterruptLost { vector: lost } => lost.is_none_or(|lost| lost == vector),
                Fault::Gone | Fault::KnownGone => true,
                _ => false,
            });
            fault.is_none()
        });
        Ok(interrupt)
    }

    fn doorbells_are_slow(&self) -> bool {
        self.device.doorbells_are_slow()
    }

    fn loss(&self) -> Option<Interrupt> {
        match (self.lost.clone(), self.device.loss()) {
            (Some(own), Some(other)) => Interrupt::any_of([own, other]).ok(),
            (own, other) => own.or(other),
        }
    }

    fn check_present(&self) -> Result<(), DeviceError> {
        match lock(&self.state).lost.clone() {
            Some(reason) => Err(DeviceError::Gone(reason)),
            None => self.device.check_present(),
        }
    }

    /// What an injected fault has taken away stays away.
    fn may_return(&self) -> bool {
        lock(&self.state).lost.is_none() && self.device.may_return()
    }

    /// A device that cannot be let go is reset instead: it touches no memory after that either.
    fn release(&self) -> Result<(), DeviceError> {
        match self.device.release() {
            Err(DeviceError::Unsupported(_)) => self.device.reset()?,
            result => result?,
        }
        let mut state = lock(&self.state);
        let live = state.live_mappings;
        state.released_with.get_or_insert(live);
        let plan = std::mem::take(&mut state.plan);
        let gone = Running { rule: Fault::KnownGone.into(), chances: 0, stuck: None };
        state.plan = std::iter::once(gone).chain(plan).collect();
        Ok(())
    }

    fn reset(&self) -> Result<(), DeviceError> {
        let fault = lock(&self.state).find(|fault| matches!(fault, Fault::ResetFails | Fault::Gone | Fault::KnownGone));
        match fault {
            Some(Fault::ResetFails) => {
                Err(DeviceError::Io { what: "reset (an injected fault)", source: std::io::ErrorKind::TimedOut.into() })
            }
            Some(_) => Err(gone()),
            None => self.device.reset(),
        }
    }
}

impl fmt::Debug for FaultInjector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultInjector").field("device", &self.address()).field("plan", &self.plan()).finish()
    }
}
