use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use nvme_spec::registers::offset as register;

use super::{lock, on_unmap, pass_on};
use crate::interrupt::Signal;
use crate::{Access, Device, DeviceError, DmaMemory, Doorbell, Interrupt, MapRequest};

/// What the events are known as to `tracing`.
const TARGET: &str = "doorbell_device::tracer";

/// Writes down what passes between driver and device: into a log of the latest events, in memory, and to `tracing` at
/// the trace level.
///
/// [`events`](Self::events) gives the log as values; printed, it is text, an event a line.
///
/// ```
/// use doorbell_device::wrap::{Tracer, What};
/// use doorbell_device::zero_work::ZeroWork;
/// use doorbell_device::Device;
///
/// let device = Tracer::new(ZeroWork::new(Default::default())?, 100);
/// device.doorbell(0x1000)?.ring(0);
/// assert_eq!(device.events()[0].what, What::Doorbell { offset: 0x1000, value: 0 });
/// # Ok::<(), doorbell_device::DeviceError>(())
/// ```
pub struct Tracer {
    device: Arc<dyn Device>,
    log: Arc<Log>,
}

/// Something that passed between driver and device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts from 1 in the order in which things happened.
    pub sequence: u64,
    /// What happened.
    pub what: What,
}

/// What happened. Calls are written down when they return, except doorbells and resets: those, before they are passed
/// on, so that what the device does about them comes after.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// A register was read.
    Read {
        /// Byte offset.
        offset: usize,
        /// 4 or 8.
        len: usize,
        /// What it was.
        value: u64,
    },
    /// A register was written.
    Write {
        /// Byte offset.
        offset: usize,
        /// 4 or 8.
        len: usize,
        /// What was written.
        value: u64,
    },
    /// A doorbell rang.
    Doorbell {
        /// Byte offset.
        offset: usize,
        /// The new tail or head.
        value: u32,
    },
    /// Memory was made reachable.
    Map {
        /// Where the device finds it.
        iova: u64,
        /// Bytes.
        len: usize,
        /// What the device may do.
        access: Access,
    },
    /// Memory is about to be no longer reachable.
    Unmap {
        /// Where the device found it.
        iova: u64,
        /// Bytes.
        len: usize,
    },
    /// A vector was asked for.
    Interrupt {
        /// Which.
        vector: u32,
    },
    /// The device signalled a vector; only seen of devices in this process.
    Raised {
        /// Which.
        vector: u32,
    },
    /// The driver found a vector signalled.
    Taken {
        /// Which.
        vector: u32,
        /// How often it was signalled since the last time.
        count: u64,
    },
    /// The function is about to be reset.
    Reset,
    /// A call failed.
    Failed {
        /// Which.
        call: &'static str,
        /// The error, printed.
        error: String,
    },
}

impl Tracer {
    /// Traces `device`, keeping the latest `capacity` events.
    pub fn new(device: Arc<dyn Device>, capacity: usize) -> Arc<Self> {
        let log = Log { capacity, state: Mutex::default() };
        Arc::new(Self { device, log: Arc::new(log) })
    }

    /// The events that are kept, oldest first.
    pub fn events(&self) -> Vec<Event> {
        lock(&self.log.state).events.iter().cloned().collect()
    }

    /// How many events there were, those no longer kept included.
    pub fn count(&self) -> u64 {
        lock(&self.log.state).count
    }

    /// Forgets the events that are kept. Numbering goes on.
    pub fn clear(&self) {
        lock(&self.log.state).events.clear();
    }

    fn call<T>(&self, call: &'static str, result: Result<T, DeviceError>) -> Result<T, DeviceError> {
        result.inspect_err(|error| self.log.add(What::Failed { call, error: error.to_string() }))
    }

    fn mapped(&self, memory: DmaMemory, access: Access) -> DmaMemory {
        let (iova, len) = (memory.iova(), memory.len());
        self.log.add(What::Map { iova, len, access });
        let log = self.log.clone();
        on_unmap(memory, move || log.add(What::Unmap { iova, len }))
    }
}

struct Log {
    capacity: usize,
    state: Mutex<LogState>,
}

#[derive(Default)]
struct LogState {
    count: u64,
    events: VecDeque<Event>,
}

impl Log {
    fn add(&self, what: What) {
        let mut state = lock(&self.state);
        state.count += 1;
        let event = Event { sequence: state.count, what };
        let printed = tracing::enabled!(target: TARGET, tracing::Level::TRACE).then(|| event.to_string());
        if self.capacity > 0 {
            if state.events.len() >= self.capacity {
                state.events.pop_front();
            }
            state.events.push_back(event);
        }
        drop(state);
        if let Some(printed) = printed {
            tracing::trace!(target: TARGET, "{printed}");
        }
    }
}

impl Device for Tracer {
    pass_on! {
        address() -> String;
        doorbells_are_slow() -> bool;
        interrupt_count() -> u32;
        completes_inline() -> bool;
        loss() -> Option<Interrupt>;
        check_present() -> Result<(), DeviceError>;
        may_return() -> bool;
        release() -> Result<(), DeviceError>;
    }

    fn read32(&self, offset: usize) -> Result<u32, DeviceError> {
        let value = self.call("read32", self.device.read32(offset))?;
        self.log.add(What::Read { offset, len: 4, value: value.into() });
        Ok(value)
    }

    fn read64(&self, offset: usize) -> Result<u64, DeviceError> {
        let value = self.call("read64", self.device.read64(offset))?;
        self.log.add(What::Read { offset, len: 8, value });
        Ok(value)
    }

    fn write32(&self, offset: usize, value: u32) -> Result<(), DeviceError> {
        self.call("write32", self.device.write32(offset, value))?;
        self.log.add(What::Write { offset, len: 4, value: value.into() });
        Ok(())
    }

    fn write64(&self, offset: usize, value: u64) -> Result<(), DeviceError> {
        self.call("write64", self.device.write64(offset, value))?;
        self.log.add(What::Write { offset, len: 8, value });
        Ok(())
    }

    fn doorbell(&self, offset: usize) -> Result<Doorbell, DeviceError> {
        let inner = self.call("doorbell", self.device.doorbell(offset))?;
        let log = self.log.clone();
        Ok(Doorbell::from_fn(move |value| {
            log.add(What::Doorbell { offset, value });
            inner.ring(value);
        }))
    }

    fn map(&self, request: MapRequest) -> Result<DmaMemory, DeviceError> {
        let access = request.access;
        let memory = self.call("map", self.device.map(request))?;
        Ok(self.mapped(memory, access))
    }

    fn allocate(&self, len: usize, align: u64) -> Result<DmaMemory, DeviceError> {
        let memory = self.call("allocate", self.device.allocate(len, align))?;
        Ok(self.mapped(memory, Access::ReadWrite))
    }

    fn interrupt(&self, vector: u32) -> Result<Interrupt, DeviceError> {
        let interrupt = self.call("interrupt", self.device.interrupt(vector))?;
        self.log.add(What::Interrupt { vector });
        let log = Arc::downgrade(&self.log);
        interrupt.watch(Arc::as_ptr(&self.log).addr(), move |signal| {
            if let Some(log) = log.upgrade() {
                log.add(match signal {
                    Signal::Raised => What::Raised { vector },
                    Signal::Taken(count) => What::Taken { vector, count },
                });
            }
            true
        });
        Ok(interrupt)
    }

    fn reset(&self) -> Result<(), DeviceError> {
        self.log.add(What::Reset);
        self.call("reset", self.device.reset())
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("device", &self.address()).field("count", &self.count()).finish()
    }
}

impl fmt::Display for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.events().iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:6} ", self.sequence)?;
        match &self.what {
            What::Read { offset, len, value } => {
                write!(f, "{:8} {} = {value:X}h", format!("read{}", len * 8), Register(*offset))
            }
            What::Write { offset, len, value } => {
                write!(f, "{:8} {} = {value:X}h", format!("write{}", len * 8), Register(*offset))
            }
            What::Doorbell { offset, value } => write!(f, "doorbell {} = {value}", Register(*offset)),
            What::Map { iova, len, access } => write!(f, "map      {iova:#x}, {len:#x} bytes, {access:?}"),
            What::Unmap { iova, len } => write!(f, "unmap    {iova:#x}, {len:#x} bytes"),
            What::Interrupt { vector } => write!(f, "vector   {vector} asked for"),
            What::Raised { vector } => write!(f, "vector   {vector} raised"),
            What::Taken { vector, count } => write!(f, "vector   {vector} taken, {count} times"),
            What::Reset => f.write_str("reset"),
            What::Failed { call, error } => write!(f, "failed   {call}: {error}"),
        }
    }
}

/// A register by name, or else by offset.
struct Register(usize);

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            register::CAP => "CAP",
            register::VS => "VS",
            register::INTMS => "INTMS",
            register::INTMC => "INTMC",
            register::CC => "CC",
            register::CSTS => "CSTS",
            register::NSSR => "NSSR",
            register::AQA => "AQA",
            register::ASQ => "ASQ",
            register::ACQ => "ACQ",
            register::CRTO => "CRTO",
            other => return write!(f, "{other:X}h"),
        })
    }
}
