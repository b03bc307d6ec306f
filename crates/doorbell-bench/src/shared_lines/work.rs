//! The I/O of two CPUs, in turns.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use anyhow::ensure;
use doorbell::{
    CompletionMode, ExclusiveQueue, GuestMemory, Namespace, NvmeDriver, PagedRange, ShadowDoorbells, Transfer,
};
use doorbell_device::{Access, HostMemory};
use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem};
use doorbell_sim::World;

/// What is written to says whose turn it is: the first CPU's, the other's, nobody's.
#[repr(align(64))]
struct Marks([AtomicU64; 3]);

static MARKS: Marks = Marks([const { AtomicU64::new(0) }; 3]);
/// Shared if asked for.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Commands of each kind in a turn, and turns of each CPU.
const COMMANDS: u64 = 8;
const TURNS: usize = 6;

/// Where the marks are.
pub(crate) fn marks() -> usize {
    std::ptr::from_ref(&MARKS).addr()
}

pub(crate) fn run(share: bool, shadows: bool) -> anyhow::Result<()> {
    let shadows = if shadows { ShadowDoorbells::WhereOffered } else { ShadowDoorbells::Never };
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::null(1 << 30))?;
    let world = World::new();
    // Doorbells have a cache line each, as far as that is the device's to say.
    let config = ControllerConfig { dstrd: 4, ..ControllerConfig::default() };
    let options = world.options(world.device(&subsystem, config)?);
    let options = options.exclusive_queues(2).completion(CompletionMode::CallerPolls).shadow_doorbells(shadows);
    let driver = world.run(options.open())?;
    let namespace = world.run(driver.namespace(1))?;
    let memory = GuestMemory::builder().region(0, HostMemory::allocate(1 << 20)?, Access::ReadWrite).build()?;
    let memory = driver.register_memory(&memory)?;
    let gpns: Vec<u64> = (0..2 * COMMANDS).collect();
    let mut cpus = Vec::new();
    for (cpu, gpns) in (0..2).zip(gpns.chunks(COMMANDS as usize)) {
        world.run(namespace.flush(cpu))?;
        let own = world.run(driver.exclusive_queue())?;
        let watched = false;
        cpus.push(Cpu { cpu, own, driver: &driver, namespace: &namespace, memory: &memory, gpns, share, watched });
    }
    for turn in 0..=TURNS {
        // What is made once, on the first use, is not looked at.
        cpus.iter_mut().for_each(|cpu| cpu.watched = turn > 0);
        // Those of the two CPUs lie apart from each other, and from everything else.
        let mut slices = vec![[[0; 512]; COMMANDS as usize]; 5];
        let mut reads: Vec<_> =
            cpus.iter().zip(slices.iter_mut().skip(1).step_by(2)).map(|(cpu, slices)| cpu.reads(slices)).collect();
        // The device works in between, which is looked at as little as what this thread does besides.
        let submitted = cpus.iter_mut().zip(&mut reads).all(|(cpu, reads)| cpu.submit(reads));
        ensure!(submitted, "not every command was submitted");
        while world.step_devices() {}
        let ended = cpus.iter_mut().zip(&mut reads).all(|(cpu, reads)| cpu.complete(reads));
        ensure!(ended, "not every command ended well");
    }
    drop(cpus);
    world.run(driver.shutdown());
    Ok(())
}

/// What one CPU does. Its exclusive queue is its owner's to keep apart.
#[repr(align(64))]
struct Cpu<'a> {
    cpu: u32,
    own: ExclusiveQueue,
    driver: &'a NvmeDriver,
    namespace: &'a Namespace,
    memory: &'a GuestMemory,
    gpns: &'a [u64],
    share: bool,
    watched: bool,
}

impl<'a> Cpu<'a> {
    fn range(&self, i: u64) -> Option<PagedRange<'a>> {
        PagedRange::new(0, 4096, self.gpns.get(i as usize..=i as usize)?)
    }

    fn reads<'b>(&self, slices: &'b mut [[u8; 512]]) -> Vec<Transfer<'b>>
    where
        'a: 'b,
    {
        let direct =
            (0..COMMANDS).filter_map(|i| Some(self.namespace.read(self.cpu, i * 8, 8, self.memory, self.range(i)?)));
        // Room besides, so that what the other CPU's are in lies apart.
        let mut reads = Vec::with_capacity(4 * COMMANDS as usize);
        reads.extend(direct);
        reads.extend(slices.iter_mut().map(|slice| self.namespace.read_slice(self.cpu, 0, slice)));
        reads
    }

    fn begin(&self) {
        if self.watched {
            MARKS.0[self.cpu as usize].store(1, Ordering::SeqCst);
        }
        if self.share {
            COUNTER.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn end() {
        MARKS.0[2].store(1, Ordering::SeqCst);
    }

    fn submit(&mut self, reads: &mut [Transfer<'_>]) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.begin();
        let pending = reads.iter_mut().all(|read| Pin::new(read).poll(&mut context).is_pending());
        let mut submitted = 0;
        for i in 0..COMMANDS {
            let Some(range) = self.range(i) else { continue };
            submitted += u64::from(self.own.read(self.namespace, i, i * 8, 8, self.memory, range).is_ok());
        }
        Self::end();
        pending && submitted == COMMANDS
    }

    fn complete(&mut self, reads: &mut [Transfer<'_>]) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.begin();
        self.driver.poll_cpu(self.cpu);
        let ended = reads.iter_mut().all(|read| matches!(Pin::new(read).poll(&mut context), Poll::Ready(Ok(()))));
        let own = self.own.poll().filter(|completed| completed.result.is_ok()).count() as u64;
        Self::end();
        ended && own == COMMANDS
    }
}
