//! The driver on the device that does no work.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use doorbell::{
    CompletionMode, DmaBuffer, DriverOptions, ExclusiveQueue, GuestMemory, Namespace, NvmeDriver, PagedRange,
};
use doorbell_device::zero_work::{Options, Queue, ZeroWork};
use doorbell_device::{Access, HostMemory};
use futures_lite::future::block_on;

use crate::case::{Case, Layout, Way};
use crate::rounds::{places, poll, run_ready, run_rounds, run_together};

/// Bytes of a block.
pub(crate) const BLOCK: usize = 512;
const PAGE: usize = 4096;
/// All of the guest's memory, however many regions it has.
const GUEST: usize = 128 << 20;

/// A driver with what it moves data to and from.
pub(crate) struct Driver {
    case: Case,
    in_flight: usize,
    device: Arc<ZeroWork>,
    driver: NvmeDriver,
    namespaces: Vec<Namespace>,
    queues: Vec<Queue>,
    memory: GuestMemory,
    buffers: Vec<Option<DmaBuffer>>,
    /// The pages of the I/Os of a round, one after the other.
    gpns: Vec<u64>,
}

/// A queue of one's own.
pub(crate) struct Exclusive {
    own: ExclusiveQueue,
    driver: Driver,
}

impl Driver {
    pub(crate) fn new(case: Case, in_flight: usize) -> anyhow::Result<Self> {
        let options = Options {
            block_shift: BLOCK.trailing_zeros() as u8,
            namespaces: case.shape.namespaces,
            sgls: case.layout == Layout::Sgl,
            completes_at: match case.way {
                Way::Ready => 1,
                Way::Together => in_flight as u32,
                _ => 0,
            },
            ..Options::default()
        };
        let device = ZeroWork::new(options)?;
        let options = DriverOptions::new(device.clone())
            .cpus(case.shape.queues)
            .exclusive_queues(u32::from(case.way == Way::Exclusive))
            .depth(in_flight.clamp(256, 4095) as u32)
            .bounce_pool(2 << 20)
            .completion(CompletionMode::CallerPolls);
        let driver = block_on(options.open())?;
        let namespaces = (1..=case.shape.namespaces).map(|nsid| block_on(driver.namespace(nsid)));
        let namespaces = namespaces.collect::<Result<Vec<_>, _>>()?;
        let memory = guest(case.shape.regions)?;
        let memory = if case.way == Way::Bounce { memory } else { driver.register_memory(&memory)? };
        let buffers = if case.way == Way::Buffer { in_flight } else { 0 };
        let buffers = (0..buffers).map(|_| driver.allocate_buffer(case.bytes).map(Some)).collect::<Result<_, _>>()?;
        let queues = (0..case.shape.queues).map(|cpu| queue(&device, &driver, &namespaces[0], cpu));
        let queues = queues.collect::<anyhow::Result<_>>()?;
        let gpns = pages(case, in_flight, &memory);
        Ok(Self { case, in_flight, device, driver, namespaces, queues, memory, buffers, gpns })
    }

    pub(crate) fn run(&mut self, rounds: usize) {
        let (bytes, write) = (self.case.bytes, self.case.write);
        let blocks = (bytes / BLOCK) as u32;
        if self.case.way == Way::Buffer {
            return self.buffer_rounds(rounds, blocks, write);
        }
        let ranges = ranges(&self.gpns, bytes);
        let (namespace, memory) = (&self.namespaces[0], &self.memory);
        let mut places = places(self.in_flight);
        match (self.case.way, write) {
            (Way::Ready, false) => run_ready(rounds, || namespace.read(0, 0, blocks, memory, ranges[0])),
            (Way::Ready, true) => run_ready(rounds, || namespace.write(0, 0, blocks, false, memory, ranges[0])),
            (Way::Together, _) => {
                let start = |i, range| namespace.read(0, i, blocks, memory, range);
                run_together(rounds, &mut places, &ranges, start, || self.driver.poll_cpu(0));
            }
            (_, false) if self.queues.len() + self.namespaces.len() > 2 => self.spread_rounds(rounds, blocks, &ranges),
            (_, false) => {
                let start = |i, range| namespace.read(0, i, blocks, memory, range);
                run_rounds(rounds, &mut places, &ranges, start, || self.complete(0));
            }
            (_, true) => {
                let start = |i, range| namespace.write(0, i, blocks, false, memory, range);
                run_rounds(rounds, &mut places, &ranges, start, || self.complete(0));
            }
        }
    }

    #[inline(always)]
    fn complete(&self, cpu: usize) {
        self.queues[cpu].complete(usize::MAX);
        self.driver.poll_cpu(cpu as u32);
    }

    /// A round on each queue in turn, over all namespaces.
    fn spread_rounds(&self, rounds: usize, blocks: u32, ranges: &[PagedRange<'_>]) {
        let mut namespaces = self.namespaces.iter().cycle();
        let mut pending = places(self.in_flight);
        for round in 0..rounds {
            let cpu = round % self.queues.len();
            let start = |i, range| {
                let namespace = namespaces.next().unwrap_or(&self.namespaces[0]);
                namespace.read(cpu as u32, i, blocks, &self.memory, range)
            };
            run_rounds(1, &mut pending, ranges, start, || self.complete(cpu));
        }
    }

    fn buffer_rounds(&mut self, rounds: usize, blocks: u32, write: bool) {
        let mut context = Context::from_waker(Waker::noop());
        let mut pending: Vec<Option<doorbell::BufferTransfer<'_>>> = places(self.in_flight);
        let (namespace, queue, driver) = (&self.namespaces[0], &self.queues[0], &self.driver);
        for _ in 0..rounds {
            for (i, (slot, buffer)) in (0..).zip(pending.iter_mut().zip(&mut self.buffers)) {
                let Some(buffer) = buffer.take() else { continue };
                let transfer = slot.insert(match write {
                    true => namespace.write_buffer(0, i, blocks, false, buffer),
                    false => namespace.read_buffer(0, i, blocks, buffer),
                });
                assert!(poll(transfer, &mut context).is_pending(), "nothing is completed yet");
            }
            queue.complete(usize::MAX);
            driver.poll_cpu(0);
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

impl Exclusive {
    pub(crate) fn new(case: Case, in_flight: usize) -> anyhow::Result<Self> {
        let mut driver = Driver::new(case, in_flight)?;
        let own = block_on(driver.driver.exclusive_queue())?;
        let queue = driver.device.queue(own.id());
        driver.queues = vec![queue.ok_or_else(|| anyhow::anyhow!("the driver made no queue"))?];
        Ok(Self { own, driver })
    }

    pub(crate) fn run(&mut self, rounds: usize) {
        let Self { own, driver: Driver { case, in_flight, namespaces, queues, memory, gpns, .. } } = self;
        let (namespace, queue, ranges) = (&namespaces[0], &queues[0], ranges(gpns, case.bytes));
        let blocks = (case.bytes / BLOCK) as u32;
        for _ in 0..rounds {
            for (i, range) in (0..).zip(&ranges) {
                let submitted = match case.write {
                    true => own.write(namespace, i, i, blocks, false, memory, *range),
                    false => own.read(namespace, i, i, blocks, memory, *range),
                };
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
    }
}

/// The device's side of a CPU's queue, which its first I/O makes.
fn queue(device: &ZeroWork, driver: &NvmeDriver, namespace: &Namespace, cpu: u32) -> anyhow::Result<Queue> {
    let id = u16::try_from(cpu + 1)?;
    let flushing = async {
        let mut flush = Box::pin(namespace.flush(cpu));
        loop {
            if let Some(result) = futures_lite::future::poll_once(&mut flush).await {
                return result;
            }
            device.complete(id, 1);
            driver.poll_cpu(cpu);
            std::thread::yield_now();
        }
    };
    block_on(flushing)?;
    device.queue(id).ok_or_else(|| anyhow::anyhow!("the driver made no queue"))
}

/// A guest's memory in regions, with a hole after each.
fn guest(regions: u32) -> anyhow::Result<GuestMemory> {
    let each = GUEST / regions as usize;
    let mut builder = GuestMemory::builder();
    for region in 0..u64::from(regions) {
        builder = builder.region(region * 2 * each as u64, HostMemory::allocate(each)?, Access::ReadWrite);
    }
    Ok(builder.build()?)
}

/// The pages of a round's I/Os: for each all that it needs, in regions far apart if there are several.
fn pages(case: Case, in_flight: usize, memory: &GuestMemory) -> Vec<u64> {
    let regions: Vec<u64> = memory.regions().map(|(gpa, ..)| gpa / PAGE as u64).collect();
    let step = if case.layout == Layout::Scattered { 2 } else { 1 };
    let each = case.bytes.div_ceil(PAGE) as u64;
    let of = |io: usize| {
        // Large ones may share theirs; nothing is written to them.
        let within = if regions.len() > 1 { 0 } else { io as u64 % 64 };
        let first = regions[io * 1031 % regions.len()] + within * each * step;
        (0..each).map(move |page| first + page * step)
    };
    (0..in_flight).flat_map(of).collect()
}

/// The ranges of a round's I/Os.
fn ranges(gpns: &[u64], bytes: usize) -> Vec<PagedRange<'_>> {
    let ranges = gpns.chunks(bytes.div_ceil(PAGE)).map(|pages| PagedRange::new(0, bytes, pages));
    ranges.map(|range| range.unwrap_or(NONE)).collect()
}

const NONE: PagedRange<'static> = match PagedRange::new(0, 0, &[]) {
    Some(range) => range,
    None => unreachable!(),
};
