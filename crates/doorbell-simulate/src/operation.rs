//! What clients do: futures that own all they need, so that they can be dropped in any order.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::time::Duration;

use doorbell::{
    DmaBuffer, DriverError, DriverOptions, GuestMemory, InheritedCommand, InheritedResult, LbaRange, Namespace,
    NamespaceError, NvmeDriver, PagedRange, RequestError, ReservationReport, ShutdownMode,
};
use nvme_spec::Command;
use nvme_spec::reservation::{AcquireAction, RegisterAction, ReleaseAction, ReservationType};

use crate::agreement::{Demand, Group};
use crate::model::Tick;
use crate::reserve::Wish;
use crate::scenario::Dropped;

/// What came of an operation.
pub(crate) enum Done {
    Io(Result<(), RequestError>, Vec<u8>),
    Opened(Result<NvmeDriver, DriverError>),
    Attached(Result<Namespace, NamespaceError>),
    Claimed(Box<InheritedResult>),
    Reserved(Result<Option<ReservationReport>, RequestError>),
    Ended,
}

pub(crate) type Running = Pin<Box<dyn Future<Output = Done>>>;

/// What an operation is, as far as it matters for what may come of it.
#[derive(Debug)]
pub(crate) enum What {
    Read {
        lba: u64,
        blocks: u64,
    },
    Write {
        lba: u64,
        stamps: Vec<u64>,
        fua: bool,
    },
    Compare {
        lba: u64,
        stamps: Vec<u64>,
    },
    CompareAndWrite {
        lba: u64,
        compared: Vec<u64>,
        written: Vec<u64>,
    },
    Copy {
        to: u64,
        blocks: u64,
    },
    Flush,
    Verify,
    Reserve(Demand),
    Open,
    Attach {
        namespace: usize,
    },
    Reset,
    Unregister,
    Shutdown,
    /// What another driver sent: the command, and the operation that it is all of, if there is one.
    Claimed(Sent, Option<Crossed>),
}

/// A command, and the queue that it is on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) queue: u16,
    pub(crate) command: Command,
}

/// An operation whose command another driver goes on with.
#[derive(Debug)]
pub(crate) struct Crossed {
    pub(crate) id: u64,
    pub(crate) disk: usize,
    pub(crate) start: Tick,
    pub(crate) lba: u64,
    pub(crate) blocks: u64,
    pub(crate) writes: bool,
    pub(crate) fua: bool,
    pub(crate) pages: Vec<u64>,
}

impl What {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::Compare { .. } => "compare",
            Self::CompareAndWrite { .. } => "compare and write",
            Self::Copy { .. } => "copy",
            Self::Flush => "flush",
            Self::Verify => "verify",
            Self::Reserve(demand) => reservation(*demand),
            Self::Open => "open",
            Self::Attach { .. } => "attach",
            Self::Reset => "reset",
            Self::Unregister => "unregister",
            Self::Shutdown => "shutdown",
            Self::Claimed(..) => "claimed",
        }
    }

    /// What a reservation must allow its host.
    pub(crate) fn group(&self) -> Option<Group> {
        match self {
            Self::Read { .. } | Self::Compare { .. } | Self::Verify => Some(Group::Read),
            Self::Write { .. } | Self::CompareAndWrite { .. } | Self::Copy { .. } | Self::Flush => Some(Group::Write),
            _ => None,
        }
    }

    pub(crate) fn is_io(&self) -> bool {
        !matches!(
            self,
            Self::Open | Self::Attach { .. } | Self::Reset | Self::Unregister | Self::Shutdown | Self::Claimed(..)
        )
    }
}

/// An operation under way.
pub(crate) struct Operation {
    pub(crate) id: u64,
    pub(crate) host: usize,
    pub(crate) disk: usize,
    pub(crate) what: What,
    pub(crate) start: Tick,
    pub(crate) deadline: Duration,
    pub(crate) future: Running,
    pub(crate) woken: Arc<Flag>,
    pub(crate) dropped: Option<Dropped>,
    /// Guest pages, which come back when it ends.
    pub(crate) pages: Vec<u64>,
}

impl Operation {
    /// What its command is known by, and what there is to know of it, if another driver goes on with it.
    pub(crate) fn crossed(&self) -> Option<(u64, Crossed)> {
        let (lba, blocks, writes, fua) = match &self.what {
            What::Read { lba, blocks } => (*lba, *blocks, false, false),
            What::Write { lba, stamps, fua } => (*lba, stamps.len() as u64, true, *fua),
            _ => return None,
        };
        let Self { id, disk, start, ref pages, .. } = *self;
        Some((id, Crossed { id, disk, start, lba, blocks, writes, fua, pages: pages.clone() }))
    }
}

/// A waker that remembers that it was woken.
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Where an operation's blocks are.
pub(crate) struct Target {
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) cpu: u32,
    pub(crate) lba: u64,
    pub(crate) blocks: u32,
    /// Its commands are marked with this.
    pub(crate) tag: u64,
}

pub(crate) fn read_guest(t: Target, memory: GuestMemory, pages: Vec<u64>, len: usize) -> Running {
    Box::pin(async move {
        let Some(range) = PagedRange::new(0, len, &pages) else { return Done::Ended };
        Done::Io(t.namespace.read(t.cpu, t.lba, t.blocks, &memory, range).tag(t.tag).await, Vec::new())
    })
}

pub(crate) fn write_guest(t: Target, fua: bool, memory: GuestMemory, pages: Vec<u64>, len: usize) -> Running {
    Box::pin(async move {
        let Some(range) = PagedRange::new(0, len, &pages) else { return Done::Ended };
        Done::Io(t.namespace.write(t.cpu, t.lba, t.blocks, fua, &memory, range).tag(t.tag).await, Vec::new())
    })
}

pub(crate) fn read_slice(t: Target, mut data: Vec<u8>) -> Running {
    Box::pin(async move { Done::Io(t.namespace.read_slice(t.cpu, t.lba, &mut data).await, data) })
}

pub(crate) fn write_slice(t: Target, fua: bool, data: Vec<u8>) -> Running {
    Box::pin(async move { Done::Io(t.namespace.write_slice(t.cpu, t.lba, fua, &data).await, Vec::new()) })
}

pub(crate) fn read_buffer(t: Target, buffer: DmaBuffer) -> Running {
    Box::pin(async move {
        let (buffer, result) = t.namespace.read_buffer(t.cpu, t.lba, t.blocks, buffer).tag(t.tag).await;
        Done::Io(result, buffer.to_vec())
    })
}

pub(crate) fn write_buffer(t: Target, fua: bool, buffer: DmaBuffer) -> Running {
    Box::pin(async move {
        Done::Io(t.namespace.write_buffer(t.cpu, t.lba, t.blocks, fua, buffer).tag(t.tag).await.1, Vec::new())
    })
}

pub(crate) fn zeroes(t: Target, deallocate: bool, fua: bool) -> Running {
    Box::pin(async move {
        Done::Io(t.namespace.write_zeroes(t.cpu, t.lba, t.blocks.into(), deallocate, fua).await, Vec::new())
    })
}

pub(crate) fn deallocate(t: Target) -> Running {
    Box::pin(async move {
        let range = LbaRange { lba: t.lba, block_count: t.blocks.into() };
        Done::Io(t.namespace.deallocate(t.cpu, &[range]).await, Vec::new())
    })
}

pub(crate) fn compare(t: Target, data: Vec<u8>) -> Running {
    Box::pin(async move { Done::Io(t.namespace.compare_slice(t.cpu, t.lba, &data).await, Vec::new()) })
}

pub(crate) fn compare_and_write(t: Target, compare: Vec<u8>, write: Vec<u8>) -> Running {
    Box::pin(
        async move { Done::Io(t.namespace.compare_and_write(t.cpu, t.lba, &compare, &write, false).await, Vec::new()) },
    )
}

pub(crate) fn copy(t: Target, to: u64) -> Running {
    Box::pin(async move {
        let from = LbaRange { lba: t.lba, block_count: t.blocks.into() };
        Done::Io(t.namespace.copy(t.cpu, to, &[from]).await, Vec::new())
    })
}

pub(crate) fn flush(t: Target) -> Running {
    Box::pin(async move { Done::Io(t.namespace.flush(t.cpu).await, Vec::new()) })
}

pub(crate) fn verify(t: Target) -> Running {
    Box::pin(async move { Done::Io(t.namespace.verify(t.cpu, t.lba, t.blocks.into()).await, Vec::new()) })
}

pub(crate) fn open(options: DriverOptions) -> Running {
    Box::pin(async move { Done::Opened(options.open().await) })
}

pub(crate) fn attach(driver: Arc<NvmeDriver>, nsid: u32) -> Running {
    Box::pin(async move { Done::Attached(driver.namespace(nsid).await) })
}

pub(crate) fn claim(command: InheritedCommand) -> Running {
    Box::pin(async move { Done::Claimed(Box::new(command.await)) })
}

pub(crate) fn reset(driver: Arc<NvmeDriver>) -> Running {
    Box::pin(async move { Done::Io(driver.reset_controller().await, Vec::new()) })
}

pub(crate) fn unregister(driver: Arc<NvmeDriver>, memory: GuestMemory) -> Running {
    Box::pin(async move {
        driver.unregister_memory(&memory).await;
        Done::Ended
    })
}

pub(crate) fn shutdown(driver: Arc<NvmeDriver>) -> Running {
    Box::pin(async move {
        driver.end(ShutdownMode::Reset).await;
        Done::Ended
    })
}

/// The kind of a reservation command, for counting.
pub(crate) fn reservation(demand: Demand) -> &'static str {
    match demand {
        Demand::Register { .. } => Wish::Register,
        Demand::Replace { .. } => Wish::Replace,
        Demand::Unregister { .. } => Wish::Unregister,
        Demand::Acquire { .. } => Wish::Acquire,
        Demand::Preempt { abort: false, .. } => Wish::Preempt,
        Demand::Preempt { abort: true, .. } => Wish::PreemptAndAbort,
        Demand::Release { .. } => Wish::Release,
        Demand::Clear { .. } => Wish::Clear,
        Demand::Report => Wish::Report,
    }
    .name()
}

pub(crate) fn reserve(t: Target, demand: Demand) -> Running {
    let (namespace, cpu) = (t.namespace, t.cpu);
    Box::pin(async move {
        let register = |action, own, key, persist| namespace.reservation_register(cpu, action, own, key, persist);
        let release = |action, own, kind| namespace.reservation_release(cpu, action, own, kind);
        let acquire = |action, own, other, kind| namespace.reservation_acquire(cpu, action, own, other, kind);
        let result = match demand {
            Demand::Register { key, persist } => register(RegisterAction::REGISTER, Some(0), key, persist).await,
            Demand::Replace { own, key } => register(RegisterAction::REPLACE, own, key, None).await,
            Demand::Unregister { own } => register(RegisterAction::UNREGISTER, Some(own), 0, None).await,
            Demand::Acquire { own, kind } => acquire(AcquireAction::ACQUIRE, own, 0, kind).await,
            Demand::Preempt { own, other, kind, abort: false } => {
                acquire(AcquireAction::PREEMPT, own, other, kind).await
            }
            Demand::Preempt { own, other, kind, abort: true } => {
                acquire(AcquireAction::PREEMPT_AND_ABORT, own, other, kind).await
            }
            Demand::Release { own, kind } => release(ReleaseAction::RELEASE, own, kind).await,
            Demand::Clear { own } => release(ReleaseAction::CLEAR, own, ReservationType::NONE).await,
            Demand::Report => return Done::Reserved(namespace.reservation_report_extended(cpu).await.map(Some)),
        };
        Done::Reserved(result.map(|()| None))
    })
}
