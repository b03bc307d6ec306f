//! What is measured.

use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use doorbell::{
    CompletionMode, DmaBuffer, DriverOptions, ExclusiveQueue, GuestMemory, Namespace, NvmeDriver, PagedRange,
    RequestError,
};
use doorbell_device::zero_work::{Options, Queue, ZeroWork};
use futures_lite::future::block_on;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::bare::Bare;

/// A way to do I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Case {
    /// The rings without a driver.
    Bare,
    /// The loop that polls futures, with futures that do nothing.
    Executor,
    /// 4 KiB reads into guest memory.
    GuestRead,
    /// 4 KiB writes from guest memory.
    GuestWrite,
    /// 4 KiB reads into buffers of the driver's.
    BufferRead,
    /// 128 KiB reads into scattered guest pages: a PRP list.
    GuestReadScattered,
    /// 4 KiB reads through the bounce pool.
    BounceRead,
    /// 4 KiB reads into guest memory on a queue of one's own, without futures.
    Exclusive,
}

impl Case {
    pub(crate) fn all() -> Vec<Self> {
        use Case::*;
        vec![GuestRead, GuestWrite, BufferRead, GuestReadScattered, BounceRead, Exclusive]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Case::Bare => "(the bare ring itself)",
            Case::Executor => "(the loop that polls itself)",
            Case::GuestRead => "read 4 KiB, guest memory",
            Case::GuestWrite => "write 4 KiB, guest memory",
            Case::BufferRead => "read 4 KiB, DmaBuffer",
            Case::GuestReadScattered => "read 128 KiB, scattered guest pages",
            Case::BounceRead => "read 4 KiB, bounced",
            Case::Exclusive => "read 4 KiB, exclusive queue",
        }
    }
}

/// One case, set up.
pub(crate) enum Bench {
    Bare(Bare, usize),
    Executor(usize),
    Driver(Box<Driver>),
    Exclusive(Box<Exclusive>),
}

/// A queue of one's own.
pub(crate) struct Exclusive {
    own: ExclusiveQueue,
    driver: Driver,
}

pub(crate) struct Driver {
    case: Case,
    in_flight: usize,
    driver: NvmeDriver,
    namespace: Namespace,
    queue: Queue,
    memory: GuestMemory,
    buffers: Vec<Option<DmaBuffer>>,
}

impl Bench {
    pub(crate) fn new(case: Case, in_flight: usize) -> anyhow::Result<Self> {
        if case == Case::Bare {
            return Ok(Self::Bare(Bare::new()?, in_flight));
        }
        if case == Case::Executor {
            return Ok(Self::Executor(in_flight));
        }
        let device = ZeroWork::new(Options::default())?;
        let options = DriverOptions::new(device.clone())
            .cpus(1)
            .exclusive_queues(1)
            .depth(256)
            .completion(CompletionMode::CallerPolls);
        let driver = block_on(options.bounce_pool(2 << 20).open())?;
        let namespace = block_on(driver.namespace(1))?;
        let guest = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 64 << 20)])?;
        let memory = GuestMemory::new(&guest)?;
        let memory = if case == Case::BounceRead { memory } else { driver.register_memory(&memory)? };
        let buffers = (0..in_flight).map(|_| driver.allocate_buffer(4096).map(Some)).collect::<Result<_, _>>()?;
        // The first I/O makes the queue.
        let flushing = async {
            let mut flush = Box::pin(namespace.flush(0));
            loop {
                let done = futures_lite::future::poll_once(&mut flush).await;
                if let Some(result) = done {
                    return result;
                }
                device.complete(1, 1);
                driver.poll_cpu(0);
                std::thread::yield_now();
            }
        };
        block_on(flushing)?;
        if case == Case::Exclusive {
            let own = block_on(driver.exclusive_queue())?;
            let queue = device.queue(own.id()).ok_or_else(|| anyhow::anyhow!("the driver made no queue"))?;
            let driver = Driver { case, in_flight, driver, namespace, queue, memory, buffers };
            return Ok(Self::Exclusive(Box::new(Exclusive { own, driver })));
        }
        let queue = device.queue(1).ok_or_else(|| anyhow::anyhow!("the driver made no queue"))?;
        Ok(Self::Driver(Box::new(Driver { case, in_flight, driver, namespace, queue, memory, buffers })))
    }

    /// Runs at least so many commands; how many it were.
    pub(crate) fn run(&mut self, commands: usize) -> usize {
        match self {
            Bench::Bare(bare, in_flight) => {
                let rounds = commands.div_ceil(*in_flight);
                for _ in 0..rounds {
                    assert_eq!(bare.round(*in_flight), *in_flight, "every command ends");
                }
                rounds * *in_flight
            }
            Bench::Executor(in_flight) => {
                let rounds = commands.div_ceil(*in_flight);
                run_rounds(rounds, *in_flight, |_| Once::default(), || ());
                rounds * *in_flight
            }
            Bench::Driver(driver) => driver.run(commands),
            Bench::Exclusive(exclusive) => exclusive.run(commands),
        }
    }
}

impl Exclusive {
    fn run(&mut self, commands: usize) -> usize {
        let Self { own, driver: Driver { in_flight, namespace, queue, memory, .. } } = self;
        let gpns: Vec<u64> = (0..*in_flight as u64).collect();
        let rounds = commands.div_ceil(*in_flight);
        for _ in 0..rounds {
            for i in 0..*in_flight as u64 {
                let submitted = own.read(namespace, i, i, 1, memory, page(&gpns, i));
                assert!(submitted.is_ok(), "there is room");
            }
            queue.complete(usize::MAX);
            let mut found = 0;
            while found < *in_flight {
                for completed in own.poll() {
                    assert!(completed.result.is_ok(), "all succeed");
                    found += 1;
                }
            }
        }
        rounds * *in_flight
    }
}

impl Driver {
    fn run(&mut self, commands: usize) -> usize {
        let rounds = commands.div_ceil(self.in_flight);
        match self.case {
            Case::BufferRead => self.buffer_rounds(rounds),
            Case::GuestReadScattered => {
                // Every other page, so that none follows another.
                let gpns: Vec<u64> = (0..32).map(|page| page * 2).collect();
                let range = PagedRange::new(0, 32 * 4096, &gpns);
                self.rounds(rounds, |namespace, memory, i| namespace.read(0, i, 32, memory, range.unwrap_or(NONE)));
            }
            Case::GuestWrite => {
                let gpns: Vec<u64> = (0..self.in_flight as u64).collect();
                self.rounds(rounds, |namespace, memory, i| namespace.write(0, i, 1, false, memory, page(&gpns, i)));
            }
            _ => {
                let gpns: Vec<u64> = (0..self.in_flight as u64).collect();
                self.rounds(rounds, |namespace, memory, i| namespace.read(0, i, 1, memory, page(&gpns, i)));
            }
        }
        rounds * self.in_flight
    }

    #[inline(always)]
    fn rounds<'a>(
        &'a self,
        rounds: usize,
        start: impl Fn(&'a Namespace, &'a GuestMemory, u64) -> doorbell::Transfer<'a>,
    ) {
        let complete = || {
            self.queue.complete(usize::MAX);
            self.driver.poll_cpu(0);
        };
        run_rounds(rounds, self.in_flight, |i| start(&self.namespace, &self.memory, i), complete);
    }

    fn buffer_rounds(&mut self, rounds: usize) {
        let mut context = Context::from_waker(Waker::noop());
        let mut pending: Vec<Option<doorbell::BufferTransfer<'_>>> = (0..self.in_flight).map(|_| None).collect();
        for _ in 0..rounds {
            for (i, (slot, buffer)) in pending.iter_mut().zip(&mut self.buffers).enumerate() {
                let Some(buffer) = buffer.take() else { continue };
                let transfer = slot.insert(self.namespace.read_buffer(0, i as u64, 1, buffer));
                assert!(poll(transfer, &mut context).is_pending(), "nothing is completed yet");
            }
            self.queue.complete(usize::MAX);
            self.driver.poll_cpu(0);
            for (slot, place) in pending.iter_mut().zip(&mut self.buffers) {
                let Some(transfer) = slot else { continue };
                let Poll::Ready((buffer, Ok(()))) = poll(transfer, &mut context) else {
                    panic!("all are completed");
                };
                *place = Some(buffer);
                *slot = None;
            }
        }
    }
}

/// The loop that is measured: every future is pending once, then its completion is posted, found and claimed.
#[inline(always)]
fn run_rounds<F>(rounds: usize, in_flight: usize, start: impl Fn(u64) -> F, complete: impl Fn())
where
    F: Future<Output = Result<(), RequestError>> + Unpin,
{
    let mut context = Context::from_waker(Waker::noop());
    let mut pending: Vec<Option<F>> = (0..in_flight).map(|_| None).collect();
    for _ in 0..rounds {
        for (i, slot) in pending.iter_mut().enumerate() {
            let transfer = slot.insert(start(i as u64));
            assert!(poll(transfer, &mut context).is_pending(), "nothing is completed yet");
        }
        complete();
        for slot in &mut pending {
            if let Some(transfer) = slot {
                assert!(matches!(poll(transfer, &mut context), Poll::Ready(Ok(()))), "all are completed");
            }
            *slot = None;
        }
    }
}

/// Does nothing, and is pending once.
#[derive(Default)]
struct Once {
    polled: bool,
}

impl Future for Once {
    type Output = Result<(), RequestError>;

    /// Kept from being foreseen, otherwise no loop were left. Not called, so that a call is the driver's own to pay for.
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match black_box(std::mem::replace(&mut self.polled, true)) {
            false => Poll::Pending,
            true => Poll::Ready(Ok(())),
        }
    }
}

const NONE: PagedRange<'static> = match PagedRange::new(0, 0, &[]) {
    Some(range) => range,
    None => unreachable!(),
};

/// Page `i` of the guest.
#[inline(always)]
fn page(gpns: &[u64], i: u64) -> PagedRange<'_> {
    PagedRange::new(0, 4096, &gpns[i as usize..=i as usize]).unwrap_or(NONE)
}

#[inline(always)]
fn poll<F: Future + Unpin>(future: &mut F, context: &mut Context<'_>) -> Poll<F::Output> {
    Pin::new(future).poll(context)
}
