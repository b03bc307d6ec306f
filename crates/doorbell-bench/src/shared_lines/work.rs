//! The I/O of two CPUs, in turns.

use std::pin::Pin;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use anyhow::ensure;
use doorbell::{CompletionMode, ExclusiveQueue, GuestMemory, Namespace, NvmeDriver, PagedRange, ShadowDoorbells};
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
    let mut own = Vec::new();
    for cpu in 0..2 {
        world.run(namespace.flush(cpu))?;
        own.push(world.run(driver.exclusive_queue())?);
    }
    let (begin, end) = (Barrier::new(3), Barrier::new(3));
    let results = std::thread::scope(|scope| {
        let cpus: Vec<_> = own
            .into_iter()
            .enumerate()
            .map(|(cpu, own)| {
                let (driver, namespace, memory, begin, end) = (&driver, &namespace, &memory, &begin, &end);
                scope.spawn(move || Cpu { cpu, own, driver, namespace, memory, share }.work([begin, end]))
            })
            .collect();
        // First one CPU submits, then the other; then the device works; then each takes what is completed.
        for turn in 0..TURNS * 4 {
            if turn % 4 == 2 {
                while world.step_devices() {}
            }
            begin.wait();
            end.wait();
        }
        cpus.into_iter().map(|cpu| cpu.join()).collect::<Vec<_>>()
    });
    for result in results {
        ensure!(result.is_ok_and(|done| done), "not every command ended well");
    }
    world.run(driver.shutdown());
    Ok(())
}

struct Cpu<'a> {
    cpu: usize,
    own: ExclusiveQueue,
    driver: &'a NvmeDriver,
    namespace: &'a Namespace,
    memory: &'a GuestMemory,
    share: bool,
}

impl Cpu<'_> {
    /// Submits, and takes what is completed, in turns with the other CPU and the device; whether all ended well.
    fn work(mut self, [begin, end]: [&Barrier; 2]) -> bool {
        let cpu = self.cpu as u32;
        let gpns: Vec<u64> = (0..COMMANDS).map(|page| page + COMMANDS * u64::from(cpu)).collect();
        let range = |i: u64| PagedRange::new(0, 4096, gpns.get(i as usize..=i as usize)?);
        let mut context = Context::from_waker(Waker::noop());
        let mut well = true;
        for _ in 0..TURNS {
            let mut slices = vec![[0; 512]; COMMANDS as usize];
            let mut reads: Vec<_> = (0..COMMANDS)
                .filter_map(|i| Some(self.namespace.read(cpu, i * 8, 8, self.memory, range(i)?)))
                .chain(slices.iter_mut().map(|slice| self.namespace.read_slice(cpu, 0, slice)))
                .collect();
            let mut done = 0;
            for part in 0..2 {
                for turn in 0..2 {
                    begin.wait();
                    if turn == self.cpu {
                        MARKS.0[turn].store(1, Ordering::SeqCst);
                        if self.share {
                            COUNTER.fetch_add(1, Ordering::Relaxed);
                        }
                        if part == 0 {
                            well &= reads.iter_mut().all(|read| Pin::new(read).poll(&mut context).is_pending());
                            let submitted = (0..COMMANDS).filter_map(|i| {
                                self.own.read(self.namespace, i, i * 8, 8, self.memory, range(i)?).ok()
                            });
                            well &= submitted.count() as u64 == COMMANDS;
                        } else {
                            self.driver.poll_cpu(cpu);
                            well &= reads
                                .iter_mut()
                                .all(|read| matches!(Pin::new(read).poll(&mut context), Poll::Ready(Ok(()))));
                            done += self.own.poll().filter(|completed| completed.result.is_ok()).count();
                        }
                        MARKS.0[2].store(1, Ordering::SeqCst);
                    }
                    end.wait();
                }
            }
            well &= done as u64 == COMMANDS;
        }
        well
    }
}
