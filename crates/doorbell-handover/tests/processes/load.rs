//! I/O that checks what it reads, and that another process can go on with: what it knows lies in shared memory.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use doorbell::{GuestMemory, InheritedCommand, Namespace, NvmeDriver, PagedRange, RequestError, Restored};
use doorbell_device::{Access, HostMemory};
use doorbell_handover::Luggage;
use futures_lite::future::{block_on, poll_fn};

/// I/Os at a time, unless the environment says so.
const SLOTS: u64 = 24;
/// Units that each slot writes in turn.
const UNITS: u64 = 4;
const UNIT: usize = 4096;

/// What a slot is about: words of the ledger.
const IDLE: u64 = 0;
const WRITING: u64 = 1;
const READING: u64 = 2;

fn slots() -> u64 {
    std::env::var("DOORBELL_TEST_DEPTH").map_or(SLOTS, |depth| depth.parse().unwrap())
}

#[derive(Clone)]
pub(crate) struct Load {
    slots: u64,
    namespace: Arc<Namespace>,
    memory: GuestMemory,
    /// For each slot: what it does, the unit, its generation; then, each unit's generation.
    ledger: HostMemory,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Held while futures are polled.
    polling: Mutex<()>,
    stop: AtomicBool,
    done: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Stopped,
    HandedOver,
}

impl Load {
    pub(crate) fn begin(driver: &NvmeDriver) -> Self {
        let slots = slots();
        let namespace = Arc::new(block_on(driver.namespace(1)).unwrap());
        // A driver cannot be saved while a queue is being made.
        (0..driver.cpus().min(2)).for_each(|cpu| block_on(namespace.flush(cpu)).unwrap());
        let host = HostMemory::allocate(slots as usize * UNIT).unwrap();
        let memory = GuestMemory::builder().region(0, host, Access::ReadWrite).build().unwrap();
        let memory = driver.register_memory(&memory).unwrap();
        let ledger = HostMemory::allocate(1 << 16).unwrap();
        Self { slots, namespace, memory, ledger, shared: Arc::default() }
    }

    pub(crate) fn go_on(restored: &Restored, luggage: Luggage) -> Self {
        let namespace = Arc::new(block_on(restored.driver.namespace(1)).unwrap());
        let [memory] = &restored.guest_memory[..] else { panic!("{:?}", restored.guest_memory) };
        let file = File::from(luggage.descriptors.into_iter().next().unwrap());
        let ledger = HostMemory::from_file(Arc::new(file), 0, 1 << 16).unwrap();
        Self { slots: slots(), namespace, memory: memory.clone(), ledger, shared: Arc::default() }
    }

    /// The ledger, when no future is polled: what has ended is in there.
    pub(crate) fn luggage(&self) -> Result<Luggage, std::io::Error> {
        let _still = self.shared.polling.lock().unwrap();
        let (file, _) = self.ledger.file().unwrap();
        Ok(Luggage { bytes: Vec::new(), descriptors: vec![OwnedFd::from(file.try_clone()?)] })
    }

    /// On a thread of its own. Commands of the process before are waited for first, each by its slot.
    pub(crate) fn run(self, inherited: Vec<InheritedCommand>) -> Running {
        let load = self.clone();
        let thread = std::thread::spawn(move || block_on(load.all(inherited)));
        Running { load: self, thread }
    }

    async fn all(&self, inherited: Vec<InheritedCommand>) -> Ended {
        let mut by_slot: Vec<Option<InheritedCommand>> = (0..self.slots).map(|_| None).collect();
        // The driver may have been looking at namespaces.
        for command in inherited.into_iter().filter(|command| command.queue() != 0) {
            let slot = command.tag() as usize;
            assert!(by_slot[slot].replace(command).is_none(), "slot {slot} had two commands");
        }
        type Pending<'a> = Pin<Box<dyn Future<Output = Ended> + Send + 'a>>;
        let slots = (0..self.slots).zip(by_slot);
        let mut pending: Vec<Pending<'_>> =
            slots.map(|(slot, command)| Box::pin(self.slot(slot, command)) as Pending<'_>).collect();
        let mut ends = Vec::new();
        poll_fn(|context| {
            let _polling = self.shared.polling.lock().unwrap();
            pending.retain_mut(|slot| match slot.as_mut().poll(context) {
                Poll::Ready(end) => {
                    ends.push(end);
                    false
                }
                Poll::Pending => true,
            });
            if pending.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let end = ends[0];
        assert!(ends.iter().all(|other| *other == end), "{ends:?}");
        end
    }

    async fn slot(&self, slot: u64, inherited: Option<InheritedCommand>) -> Ended {
        if let Some(command) = inherited {
            let (what, unit, generation) = (self.word(slot, 0), self.word(slot, 1), self.word(slot, 2));
            let (first, _) = command.blocks().unwrap();
            assert_eq!(first, self.lba(unit), "what slot {slot} was about");
            command.await.completion.unwrap();
            match what {
                WRITING => self.generation(unit).store(generation, Ordering::SeqCst),
                READING => self.check(slot, unit, generation),
                other => panic!("slot {slot} does {other}, and had a command"),
            }
        }
        let mut turn = 0;
        while !self.shared.stop.load(Ordering::SeqCst) {
            let unit = slot * UNITS + turn % UNITS;
            turn += 1;
            // A unit may have been written before this turn, in the process before.
            let old = self.generation(unit).load(Ordering::SeqCst);
            if old != 0
                && let Err(end) = self.read_back(slot, unit, old).await
            {
                return end;
            }
            let new = old + 1;
            self.fill(slot, unit, new);
            self.about(slot, WRITING, unit, new);
            if let Err(end) = self.issue(slot, unit, true).await {
                return end;
            }
            self.generation(unit).store(new, Ordering::SeqCst);
            if let Err(end) = self.read_back(slot, unit, new).await {
                return end;
            }
        }
        Ended::Stopped
    }

    async fn read_back(&self, slot: u64, unit: u64, generation: u64) -> Result<(), Ended> {
        self.memory.write_at(slot * UNIT as u64, &[0; UNIT]).unwrap();
        self.about(slot, READING, unit, generation);
        self.issue(slot, unit, false).await?;
        self.check(slot, unit, generation);
        Ok(())
    }

    async fn issue(&self, slot: u64, unit: u64, write: bool) -> Result<(), Ended> {
        let pages = [slot];
        let range = PagedRange::new(0, UNIT, &pages).unwrap();
        let (cpu, lba, blocks) = ((slot % 2) as u32, self.lba(unit), UNIT as u32 / self.namespace.block_size());
        let transfer = match write {
            true => self.namespace.write(cpu, lba, blocks, false, &self.memory, range),
            false => self.namespace.read(cpu, lba, blocks, &self.memory, range),
        };
        match pin!(transfer.tag(slot)).await {
            Ok(_) => {
                self.about(slot, IDLE, 0, 0);
                self.shared.done.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            Err(RequestError::HandedOver) => Err(Ended::HandedOver),
            Err(error) => panic!("{error}"),
        }
    }

    fn lba(&self, unit: u64) -> u64 {
        unit * (UNIT as u64 / u64::from(self.namespace.block_size()))
    }

    fn about(&self, slot: u64, what: u64, unit: u64, generation: u64) {
        for (at, value) in [what, unit, generation].into_iter().enumerate() {
            self.ledger.words()[slot as usize * 3 + at].store(value, Ordering::SeqCst);
        }
    }

    fn word(&self, slot: u64, at: usize) -> u64 {
        self.ledger.words()[slot as usize * 3 + at].load(Ordering::SeqCst)
    }

    fn generation(&self, unit: u64) -> &AtomicU64 {
        &self.ledger.words()[(self.slots * 3 + unit) as usize]
    }

    fn pattern(unit: u64, generation: u64) -> Vec<u8> {
        (0..UNIT as u64).map(|at| (at ^ (at >> 8) ^ unit.wrapping_mul(31) ^ generation.wrapping_mul(7)) as u8).collect()
    }

    fn fill(&self, slot: u64, unit: u64, generation: u64) {
        self.memory.write_at(slot * UNIT as u64, &Self::pattern(unit, generation)).unwrap();
    }

    #[track_caller]
    fn check(&self, slot: u64, unit: u64, generation: u64) {
        let mut found = vec![0; UNIT];
        self.memory.read_at(slot * UNIT as u64, &mut found).unwrap();
        assert!(found == Self::pattern(unit, generation), "unit {unit} is not of generation {generation}");
    }
}

pub(crate) struct Running {
    load: Load,
    thread: JoinHandle<Ended>,
}

impl Running {
    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    /// Waits until so many more I/Os are done.
    pub(crate) fn wait_for(&self, more: u64) {
        let goal = self.load.shared.done.load(Ordering::SeqCst) + more;
        while self.load.shared.done.load(Ordering::SeqCst) < goal {
            assert!(!self.thread.is_finished(), "the load has ended");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn stop(&self) {
        self.load.shared.stop.store(true, Ordering::SeqCst);
    }

    pub(crate) fn end(self) -> Ended {
        self.thread.join().unwrap()
    }
}
