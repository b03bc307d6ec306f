//! Carries a scenario out, and holds what comes of it against the model.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use doorbell::{ControllerState, NvmeDriver};
use doorbell_emulator::{NamespaceConfig, Storage, Subsystem};
use doorbell_sim::World;
use nvme_spec::identify::NamespaceIds;

use crate::agreement::Agreements;
use crate::handover::Saves;
use crate::host::Host;
use crate::model::{Model, Tick};
use crate::operation::{self, Flag, Operation, Running, What};
use crate::rng::{Rng, mix};
use crate::scenario::{At, Dropped, Scenario, Setup, Step};
use crate::storage::Disk;
use crate::tally::Tally;

/// In this much virtual time every operation ends.
const BOUND: Duration = Duration::from_secs(400);
/// Without time passing, nothing takes as many turns.
const TURNS: u32 = 100_000;

/// What came of a scenario that was in order.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// Of everything that happened, in its order.
    pub(crate) hash: u64,
}

/// Why one was not.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// What it is, in short: the same for the same mistake.
    pub(crate) kind: &'static str,
    pub(crate) text: String,
    /// The step that it was found in; none at the end.
    pub(crate) step: Option<usize>,
}

pub(crate) type Check<T = ()> = Result<T, Failure>;

pub(crate) fn failure<T>(kind: &'static str, text: impl Into<String>) -> Check<T> {
    Err(Failure { kind, text: text.into(), step: None })
}

/// A namespace that there is, or was.
pub(crate) struct DiskState {
    pub(crate) storage: Disk,
    pub(crate) model: Model,
    pub(crate) agreements: Agreements,
    pub(crate) blocks: u64,
}

pub(crate) struct Run {
    pub(crate) setup: Setup,
    pub(crate) world: Rc<World>,
    pub(crate) subsystem: Subsystem,
    pub(crate) disks: Vec<DiskState>,
    /// By NSID less one: which disk is there.
    pub(crate) present: Vec<Option<usize>>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) operations: Vec<Operation>,
    /// Blocks that a copy reads: disk, first, last.
    pub(crate) copied: Vec<(u64, usize, u64, u64)>,
    pub(crate) now: Tick,
    pub(crate) next_stamp: u64,
    pub(crate) rng: Rng,
    pub(crate) tally: Tally,
    /// How many commands have ended with an error.
    pub(crate) failed: u64,
    /// When drivers are saved, besides the steps that say so.
    pub(crate) saves: Option<Saves>,
    /// How much has happened: looks at futures, tasks and devices.
    moments: u64,
    /// In this step, drivers have been saved so.
    saved: bool,
    hash: u64,
}

/// Carries it out. `tell` hears of everything, if anybody wants to.
pub(crate) fn run(scenario: &Scenario, tell: bool) -> Result<Outcome, Failure> {
    let mut run = Run::new(scenario)?;
    if let Err(failure) = run.all(scenario, tell) {
        run.abandon();
        return Err(failure);
    }
    run.tally.moments = run.moments;
    run.tally.seeds = 1;
    let kinds = [
        ("a seed with hosts that reserve", run.setup.reservations),
        ("a seed without interrupts", run.setup.vectors == 0),
    ];
    kinds.iter().filter(|(_, is)| *is).for_each(|(name, _)| run.tally.action(name));
    run.tally.virtual_seconds = run.world.now().as_secs();
    Ok(Outcome { tally: run.tally.clone(), hash: run.hash })
}

impl Run {
    fn new(scenario: &Scenario) -> Check<Self> {
        let setup = scenario.setup.clone();
        let world = Rc::new(World::new());
        let mut run = Self {
            subsystem: Subsystem::default(),
            disks: Vec::new(),
            present: vec![None; setup.namespaces.into()],
            hosts: Vec::new(),
            operations: Vec::new(),
            copied: Vec::new(),
            now: 1,
            next_stamp: 1,
            rng: Rng::new(mix(scenario.seed)),
            tally: Tally::default(),
            failed: 0,
            saves: setup.saves,
            moments: 0,
            saved: false,
            hash: 0xcbf2_9ce4_8422_2325,
            setup,
            world,
        };
        for namespace in 0..run.present.len() {
            run.add_disk(namespace)?;
        }
        for _ in 0..run.setup.hosts {
            let host = Host::new(&run.world, &run.subsystem, &run.setup);
            run.hosts.push(host.or_else(|error| failure("setup", error))?);
        }
        Ok(run)
    }

    fn all(&mut self, scenario: &Scenario, tell: bool) -> Check {
        for (number, step) in &scenario.steps {
            self.step(*number, step, tell).map_err(|failure| Failure { step: Some(*number), ..failure })?;
        }
        self.finish()
    }

    /// Something went wrong, and nothing more is asked. Drivers still stop their devices: memory of those that run is kept for
    /// good, and whoever shrinks a schedule fails often.
    fn abandon(&mut self) {
        self.saves = None;
        self.operations.clear();
        for host in &mut self.hosts {
            (host.held, host.driver, host.registered) = (None, None, None);
            host.namespaces.clear();
            host.injector.clear();
        }
        let _ = self.sleep(Duration::from_secs(60));
    }

    pub(crate) fn tick(&mut self) -> Tick {
        self.now += 1;
        self.now
    }

    /// Mixes what happened into the hash.
    pub(crate) fn note(&mut self, what: u64) {
        let now = self.world.now().as_nanos() as u64;
        self.hash = mix(self.hash ^ mix(what ^ now.rotate_left(32)));
    }

    /// When the oldest operation under way began.
    pub(crate) fn oldest(&self) -> Tick {
        self.operations.iter().map(|operation| operation.start).min().unwrap_or(self.now)
    }

    /// A new namespace in a place that is empty.
    pub(crate) fn add_disk(&mut self, namespace: usize) -> Check {
        let storage = Disk::new(self.setup.blocks, self.setup.block_size);
        let model = Model::new(self.setup.blocks, self.setup.volatile_cache);
        self.disks.push(DiskState { storage, model, agreements: Agreements::new(), blocks: self.setup.blocks });
        self.insert_disk(namespace, self.disks.len() - 1)
    }

    pub(crate) fn insert_disk(&mut self, namespace: usize, disk: usize) -> Check {
        let config = self.namespace_config(namespace, disk);
        self.present[namespace] = Some(disk);
        let now = self.tick();
        self.disks[disk].agreements.begin_anew(now);
        match self.subsystem.add_namespace(config) {
            Ok(_) => Ok(()),
            Err(error) => failure("setup", error.to_string()),
        }
    }

    pub(crate) fn namespace_config(&self, namespace: usize, disk: usize) -> NamespaceConfig {
        let storage = Storage::Custom(Box::new(self.disks[disk].storage.clone()));
        let nguid = Some((disk as u128 + 1).to_be_bytes());
        NamespaceConfig {
            ids: Some(NamespaceIds { nguid, ..NamespaceIds::default() }),
            shared: self.setup.hosts > 1,
            ..NamespaceConfig::new(storage).block_size(self.setup.block_size).nsid(namespace as u32 + 1)
        }
    }

    fn step(&mut self, number: usize, step: &Step, tell: bool) -> Check {
        if tell {
            println!("{number:>6} {:?} {step}", self.world.now());
        }
        self.tick();
        self.note(number as u64);
        self.saved = false;
        self.count_down()?;
        self.act(step)?;
        for _ in 0..step.turns {
            self.turn()?;
        }
        while self.operations.len() > self.setup.in_flight {
            self.go_on()?;
        }
        Ok(())
    }

    /// Starts an operation.
    pub(crate) fn start(
        &mut self,
        host: usize,
        disk: usize,
        what: What,
        future: Running,
        pages: Vec<u64>,
        dropped: Option<Dropped>,
    ) -> u64 {
        let start = self.tick();
        let deadline = self.world.now() + BOUND;
        let id = start;
        if what.is_io() {
            self.tally.io += 1;
        }
        self.operations.push(Operation {
            id,
            host,
            disk,
            what,
            start,
            deadline,
            future,
            woken: Flag::new(),
            dropped,
            pages,
        });
        id
    }

    /// Polls what was woken; whether there was anything.
    pub(crate) fn poll(&mut self) -> Check<bool> {
        let mut any = false;
        let mut at = 0;
        while let Some(operation) = self.operations.get_mut(at) {
            if !operation.woken.take() {
                at += 1;
                continue;
            }
            any = true;
            self.moment()?;
            let Some(operation) = self.operations.get_mut(at) else { break };
            if operation.dropped == Some(Dropped::Woken(0)) {
                self.cancel(at);
                continue;
            }
            let waker = Waker::from(operation.woken.clone());
            match operation.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Pending => match &mut operation.dropped {
                    Some(Dropped::After(1)) => self.cancel(at),
                    Some(Dropped::After(polls) | Dropped::Woken(polls)) => {
                        *polls -= 1;
                        at += 1;
                    }
                    None => at += 1,
                },
                Poll::Ready(done) => {
                    let operation = self.operations.swap_remove(at);
                    self.note(operation.id);
                    self.ended(operation, done)?;
                }
            }
        }
        Ok(any)
    }

    /// Lets everybody do what there is to do now, once; whether there was anything.
    pub(crate) fn turn(&mut self) -> Check<bool> {
        let mut any = self.poll()?;
        if self.setup.completion == doorbell::CompletionMode::CallerPolls {
            for driver in self.hosts.iter().filter_map(|host| host.driver.as_ref()) {
                any |= driver.poll() > 0;
            }
        }
        let mut result = Ok(());
        any |= self.world.clone().turn_and(|| {
            if result.is_ok() {
                result = self.moment();
            }
        });
        result.map(|()| any)
    }

    /// Something has happened, and nothing else yet: now and then, a driver is saved.
    fn moment(&mut self) -> Check {
        self.moments += 1;
        match self.saves {
            // Once a step: whoever takes over is to get somewhere.
            Some(saves) if saves.are_due(self.moments) && !self.saved => {
                self.saved = true;
                self.save_between(saves.then)
            }
            _ => Ok(()),
        }
    }

    /// As [`turn`](Self::turn), and lets time pass if there is nothing to do.
    pub(crate) fn go_on(&mut self) -> Check {
        if self.turn()? || self.decide_all()? {
            return Ok(());
        }
        let Some(next) = self.next_time() else {
            let stuck: Vec<_> = self.operations.iter().map(|operation| operation.what.name()).collect();
            return failure("hang", format!("nothing will ever happen any more, and these have not ended: {stuck:?}"));
        };
        self.world.advance(next);
        let now = self.world.now();
        if let Some(late) = self.operations.iter().find(|operation| operation.deadline < now) {
            let driver = self.hosts[late.host].driver.as_ref().map(|driver| driver.inspect().to_string());
            let text = format!(
                "{:?} of host {} has not ended in {BOUND:?}\n{}",
                late.what,
                late.host,
                driver.unwrap_or_default()
            );
            return failure("hang", text);
        }
        Ok(())
    }

    pub(crate) fn next_time(&self) -> Option<Duration> {
        let next = self.world.next_deadline();
        // Whoever polls looks again soon, though nothing tells them to.
        let polls = self.setup.completion == doorbell::CompletionMode::CallerPolls && !self.operations.is_empty();
        let soon = polls.then(|| self.world.now() + Duration::from_millis(1));
        [next, soon].into_iter().flatten().min()
    }

    /// Goes on until nothing is left to do at this moment.
    pub(crate) fn settle(&mut self) -> Check {
        for _ in 0..TURNS {
            if !self.turn()? {
                return Ok(());
            }
        }
        failure("busy", "there is always something to do, and no time passes")
    }

    /// Lets time pass.
    pub(crate) fn sleep(&mut self, delay: Duration) -> Check {
        let until = self.world.now() + delay;
        loop {
            self.settle()?;
            let next = self.next_time().filter(|next| *next <= until);
            self.world.advance(next.unwrap_or(until));
            if next.is_none() {
                return self.settle();
            }
        }
    }

    /// Goes on until an operation has ended.
    pub(crate) fn wait_for(&mut self, id: u64) -> Check {
        while self.operations.iter().any(|operation| operation.id == id) {
            self.go_on()?;
        }
        Ok(())
    }

    /// A host's driver, which is opened if there is none; none if that fails.
    pub(crate) fn driver(&mut self, index: usize) -> Check<Option<Arc<NvmeDriver>>> {
        let host = &mut self.hosts[index];
        if let Some(driver) = &host.driver {
            if matches!(driver.state(), ControllerState::Running | ControllerState::Recovering) {
                return Ok(Some(driver.clone()));
            }
            host.namespaces.iter_mut().for_each(|namespace| *namespace = None);
            host.registered = None;
            host.driver = None;
            host.leaving = true;
            self.quiesce()?;
        }
        let opening =
            |operation: &Operation| operation.host == index && matches!(operation.what, What::Open | What::Shutdown);
        if self.operations.iter().any(opening) {
            return Ok(None);
        }
        if self.hosts[index].leaving {
            self.wait_until_left(index)?;
        }
        // One that was held still may have gone on meanwhile, in another driver.
        if let Some(driver) = &self.hosts[index].driver {
            return Ok(Some(driver.clone()));
        }
        let host = &mut self.hosts[index];
        if host.dead {
            for kind in host.struck() {
                *self.tally.faults.entry(kind.name()).or_default() += 1;
            }
            let replaced = host.replace_device(&self.world, &self.subsystem, &self.setup);
            replaced.or_else(|error| failure("setup", error))?;
        }
        let options = self.hosts[index].options(&self.world, &self.setup, index);
        // Whoever is not waited for comes up all the same, and leaves at once.
        let dropped = self.rng.one_in(8).then(|| Dropped::After(1 + self.rng.below(2) as u8));
        let id = self.start(index, 0, What::Open, operation::open(options), Vec::new(), dropped);
        self.wait_for(id)?;
        self.hosts[index].leaving = self.hosts[index].driver.is_none();
        Ok(self.hosts[index].driver.clone())
    }

    /// Adds up what a driver counted.
    pub(crate) fn count(&mut self, driver: &NvmeDriver) {
        let view = driver.inspect();
        let counters = &mut self.tally.counters;
        let mut add = |name, count| *counters.entry(name).or_default() += count;
        add("controller resets", view.controller.resets);
        for queue in &view.queues {
            add("commands sent once more after a reset", queue.counters.replayed);
            add("commands tried again", queue.counters.retried);
            add("commands dropped in flight", queue.counters.orphaned);
            add("commands that waited for a slot", queue.counters.waited);
            add("commands through the bounce pool", queue.counters.bounced);
        }
    }

    /// Which namespace a step means, if a handle for it can be had.
    pub(crate) fn target(&mut self, at: At) -> Check<Option<(usize, usize, operation::Target)>> {
        let host = usize::from(at.host) % self.hosts.len();
        let namespace = usize::from(at.namespace) % self.present.len();
        let Some(driver) = self.driver(host)? else { return Ok(None) };
        let held = self.hosts[host].namespaces[namespace].clone();
        let held = held.filter(|(handle, _)| !handle.is_removed());
        let (handle, disk) = match held {
            Some(held) => held,
            None => {
                self.hosts[host].namespaces[namespace] = None;
                if self.present[namespace].is_none() {
                    return Ok(None);
                }
                let attach = operation::attach(driver, namespace as u32 + 1);
                let id = self.start(host, 0, What::Attach { namespace }, attach, Vec::new(), None);
                self.wait_for(id)?;
                match &self.hosts[host].namespaces[namespace] {
                    Some(held) => held.clone(),
                    None => return Ok(None),
                }
            }
        };
        if self.hosts[host].is_dead() && self.present[namespace] != Some(disk) {
            // A device that goes away is not waited for until its driver knows what the namespace is now.
            return Ok(None);
        }
        let most = handle.max_transfer_block_count();
        let blocks = u32::from(at.blocks).min(most).min(self.disks[disk].blocks as u32);
        let lba = u64::from(at.lba) % (self.disks[disk].blocks - u64::from(blocks) + 1);
        let cpu = u32::from(at.cpu) % self.setup.cpus;
        Ok(Some((host, disk, operation::Target { namespace: handle, cpu, lba, blocks, tag: self.now + 1 })))
    }
}
