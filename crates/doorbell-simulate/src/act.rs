//! What each action does.

use std::time::Duration;

use doorbell::RequestError;

use crate::fault::{Kind, Place};
use crate::model::{ZEROES, fill};
use crate::operation::{self, Operation, Running, Target, What};
use crate::run::{Check, Run, failure};
use crate::scenario::{Action, At, Dropped, Path, Step};

impl Run {
    pub(crate) fn act(&mut self, step: &Step) -> Check {
        let name = step.action.name();
        let dropped = step.dropped;
        let done = match step.action {
            Action::Read(at, path) => self.read(at, path, dropped)?,
            Action::Write(at, path, fua) => self.write(at, path, fua, dropped)?,
            Action::Zeroes(at, deallocate, fua) => {
                self.erase(at, fua, dropped, |target| operation::zeroes(target, deallocate, fua))?
            }
            Action::Deallocate(at) => self.erase(at, false, dropped, operation::deallocate)?,
            Action::Compare(at, same) => self.compare(at, same, dropped)?,
            Action::CompareAndWrite(at, same) => self.compare_and_write(at, same, dropped)?,
            Action::Copy(at, to) => self.copy(at, to, dropped)?,
            Action::Verify(at) => self.simple(at, What::Verify, dropped, operation::verify)?,
            Action::Flush(at) => self.simple(at, What::Flush, dropped, operation::flush)?,
            Action::Cancel(which) => self.cancel_one(which.into()),
            Action::Sleep(microseconds) => self.sleep(Duration::from_micros(microseconds.into())).map(|()| true)?,
            Action::Quiesce => self.quiesce().map(|()| true)?,
            Action::Fault(host, kind, skip) => {
                let host = usize::from(host) % self.hosts.len();
                self.plant(host, kind, skip);
                // Counted when it strikes.
                return Ok(());
            }
            Action::ResetAsked(host) => self.reset(host.into()),
            Action::PowerCycle => self.power_cycle(),
            Action::SubsystemReset => self.subsystem_reset(),
            Action::Unregister(host) => self.unregister(host.into()),
            Action::Register(host) => self.register(host.into())?,
            Action::DropNamespace(host, namespace) => self.drop_namespace(host.into(), namespace.into()),
            Action::DropDriver(host) => self.drop_driver(host.into()),
            Action::Shutdown(host) => self.shut_down(host.into()),
            Action::Resize(namespace, blocks) => self.resize(namespace.into(), blocks.into())?,
            Action::Replace(namespace, reset) => self.replace(namespace.into(), reset)?,
            Action::Remove(namespace, reset) => self.remove(namespace.into(), reset)?,
            Action::Inspect(host) => self.inspect(host.into()),
            Action::Save(host, steps, give) => self.save(host.into(), steps, give),
            // Counted as what came of the wish.
            Action::Reserve(at, wish, which) => return self.reserve(at, wish, which, dropped),
        };
        if done {
            self.tally.action(name);
        }
        Ok(())
    }

    fn stamps(&mut self, count: u32) -> Vec<u64> {
        (0..count).map(|_| self.stamp()).collect()
    }

    fn stamp(&mut self) -> u64 {
        self.next_stamp += 1;
        self.next_stamp << 16 | 0xb10c
    }

    fn bytes(&self, stamps: &[u64]) -> Vec<u8> {
        let block = self.setup.block_size as usize;
        let mut bytes = vec![0; stamps.len() * block];
        for (block, stamp) in bytes.chunks_exact_mut(block).zip(stamps) {
            fill(block, *stamp);
        }
        bytes
    }

    /// Bytes that no block holds.
    fn junk(&self, blocks: u32) -> Vec<u8> {
        vec![0xa5; blocks as usize * self.setup.block_size as usize]
    }

    fn read(&mut self, at: At, path: Path, dropped: Option<Dropped>) -> Check<bool> {
        let Some((host, disk, target)) = self.target(at)? else { return Ok(false) };
        let what = What::Read { lba: target.lba, blocks: target.blocks.into() };
        let data = self.junk(target.blocks);
        let mut pages = Vec::new();
        let future = match path {
            Path::Slice => operation::read_slice(target, data),
            Path::Buffer => match self.buffer(host, &data) {
                Some(buffer) => operation::read_buffer(target, buffer),
                None => return Ok(false),
            },
            Path::Guest => match self.guest(host, &data)? {
                Some((taken, memory)) => {
                    pages.clone_from(&taken);
                    operation::read_guest(target, memory, taken, data.len())
                }
                None => return Ok(false),
            },
        };
        self.start(host, disk, what, future, pages, dropped);
        Ok(true)
    }

    fn write(&mut self, at: At, path: Path, fua: bool, dropped: Option<Dropped>) -> Check<bool> {
        let Some((host, disk, target)) = self.target(at)? else { return Ok(false) };
        if self.is_copied(disk, &target) {
            return Ok(false);
        }
        let stamps = self.stamps(target.blocks);
        let data = self.bytes(&stamps);
        let lba = target.lba;
        let mut pages = Vec::new();
        let future = match path {
            Path::Slice => operation::write_slice(target, fua, data),
            Path::Buffer => match self.buffer(host, &data) {
                Some(buffer) => operation::write_buffer(target, fua, buffer),
                None => return Ok(false),
            },
            Path::Guest => match self.guest(host, &data)? {
                Some((taken, memory)) => {
                    pages.clone_from(&taken);
                    operation::write_guest(target, fua, memory, taken, data.len())
                }
                None => return Ok(false),
            },
        };
        self.start_write(
            host,
            disk,
            What::Write { lba, stamps: stamps.clone(), fua },
            lba,
            &stamps,
            future,
            pages,
            dropped,
        );
        Ok(true)
    }

    #[expect(clippy::too_many_arguments, reason = "what a write is")]
    fn start_write(
        &mut self,
        host: usize,
        disk: usize,
        what: What,
        lba: u64,
        stamps: &[u64],
        future: Running,
        pages: Vec<u64>,
        dropped: Option<Dropped>,
    ) {
        let oldest = self.oldest();
        let id = self.start(host, disk, what, future, pages, dropped);
        for (lba, stamp) in (lba..).zip(stamps) {
            self.disks[disk].model.write_begins(id, lba, *stamp, id, oldest);
        }
    }

    fn buffer(&mut self, host: usize, data: &[u8]) -> Option<doorbell::DmaBuffer> {
        let driver = self.hosts[host].driver.as_ref()?;
        let mut buffer = driver.allocate_buffer(data.len()).ok()?;
        buffer.write_at(0, data).ok()?;
        Some(buffer)
    }

    /// Guest pages with this in them.
    fn guest(&mut self, host: usize, data: &[u8]) -> Check<Option<(Vec<u64>, doorbell::GuestMemory)>> {
        let host = &mut self.hosts[host];
        let Some(pages) = host.take_pages(data.len()) else { return Ok(None) };
        for (page, data) in pages.iter().zip(data.chunks(doorbell::PAGE_SIZE)) {
            let written = host.memory.write_at(page * doorbell::PAGE_SIZE as u64, data);
            written.or_else(|error| failure("setup", error.to_string()))?;
        }
        let memory = host.registered.as_ref().unwrap_or(&host.memory).clone();
        Ok(Some((pages, memory)))
    }

    fn erase(
        &mut self,
        at: At,
        fua: bool,
        dropped: Option<Dropped>,
        future: impl FnOnce(Target) -> Running,
    ) -> Check<bool> {
        let Some((host, disk, target)) = self.target(at)? else { return Ok(false) };
        if self.is_copied(disk, &target) {
            return Ok(false);
        }
        let lba = target.lba;
        let stamps = vec![ZEROES; target.blocks as usize];
        let what = What::Write { lba, stamps: stamps.clone(), fua };
        self.start_write(host, disk, what, lba, &stamps, future(target), Vec::new(), dropped);
        Ok(true)
    }

    /// What blocks hold, or one of the possibilities; or something that they do not hold.
    fn expected(&mut self, disk: usize, target: &Target, same: bool) -> Vec<u64> {
        let now = self.tick();
        if !same {
            return self.stamps(target.blocks);
        }
        let blocks = target.lba..target.lba + u64::from(target.blocks);
        let model = &self.disks[disk].model;
        blocks.map(|lba| model.contents(lba, now).last().copied().unwrap_or(ZEROES)).collect()
    }

    fn compare(&mut self, at: At, same: bool, dropped: Option<Dropped>) -> Check<bool> {
        let Some((host, disk, target)) = self.target(at)? else { return Ok(false) };
        let stamps = self.expected(disk, &target, same);
        let data = self.bytes(&stamps);
        let what = What::Compare { lba: target.lba, stamps };
        self.start(host, disk, what, operation::compare(target, data), Vec::new(), dropped);
        Ok(true)
    }

    fn compare_and_write(&mut self, at: At, same: bool, dropped: Option<Dropped>) -> Check<bool> {
        let Some((host, disk, target)) = self.target(at)? else { return Ok(false) };
        if self.is_copied(disk, &target) {
            return Ok(false);
        }
        let compared = self.expected(disk, &target, same);
        let written = self.stamps(target.blocks);
        let (lba, one, two) = (target.lba, self.bytes(&compared), self.bytes(&written));
        let what = What::CompareAndWrite { lba, compared, written: written.clone() };
        let future = operation::compare_and_write(target, one, two);
        self.start_write(host, disk, what, lba, &written, future, Vec::new(), dropped);
        Ok(true)
    }

    fn copy(&mut self, at: At, to: u16, dropped: Option<Dropped>) -> Check<bool> {
        let Some((host, disk, target)) = self.target(at)? else { return Ok(false) };
        let blocks = u64::from(target.blocks);
        let from = target.lba;
        let to = u64::from(to) % (self.disks[disk].blocks - blocks + 1);
        if from < to + blocks && to < from + blocks {
            return Ok(false);
        }
        let written = |operation: &Operation| {
            let (lba, count) = match &operation.what {
                What::Write { lba, stamps, .. } | What::CompareAndWrite { lba, written: stamps, .. } => {
                    (*lba, stamps.len() as u64)
                }
                What::Copy { to, blocks } => (*to, *blocks),
                _ => return false,
            };
            operation.disk == disk && lba < from + blocks && from < lba + count
        };
        let into = |copied: &(u64, usize, u64, u64)| copied.1 == disk && copied.2 < to + blocks && to < copied.3;
        if self.operations.iter().any(written) || self.copied.iter().any(into) {
            return Ok(false);
        }
        let oldest = self.oldest();
        let what = What::Copy { to, blocks };
        let id = self.start(host, disk, what, operation::copy(target, to), Vec::new(), dropped);
        self.copied.push((id, disk, from, from + blocks));
        let model = &mut self.disks[disk].model;
        for offset in 0..blocks {
            for stamp in model.all_contents(from + offset) {
                model.write_begins(id, to + offset, stamp, id, oldest);
            }
        }
        Ok(true)
    }

    /// Whether a copy reads some of these blocks: nobody writes to them meanwhile.
    fn is_copied(&self, disk: usize, target: &Target) -> bool {
        let (first, end) = (target.lba, target.lba + u64::from(target.blocks));
        self.copied.iter().any(|(_, of, from, to)| *of == disk && *from < end && first < *to)
    }

    fn simple(
        &mut self,
        at: At,
        what: What,
        dropped: Option<Dropped>,
        future: impl FnOnce(Target) -> Running,
    ) -> Check<bool> {
        let Some((host, disk, target)) = self.target(at)? else { return Ok(false) };
        self.start(host, disk, what, future(target), Vec::new(), dropped);
        Ok(true)
    }

    fn cancel_one(&mut self, which: usize) -> bool {
        let of_io: Vec<usize> = (0..self.operations.len()).filter(|at| self.operations[*at].what.is_io()).collect();
        if of_io.is_empty() {
            return false;
        }
        self.cancel(of_io[which % of_io.len()]);
        true
    }

    /// Drops an operation's future. What it wrote may take effect until all has ended.
    pub(crate) fn cancel(&mut self, at: usize) {
        let operation = self.operations.swap_remove(at);
        self.note(operation.id ^ 1 << 63);
        self.tally.outcome(&format!("{}: dropped", operation.what.name()));
        self.hosts[operation.host].quarantine.extend(operation.pages);
    }

    fn plant(&mut self, host: usize, kind: Kind, skip: u8) {
        let timeout = Duration::from_millis(self.setup.io_timeout_ms);
        let host = &mut self.hosts[host];
        if host.dead || host.driver.is_none() {
            return;
        }
        host.blame.plant(kind);
        host.dead |= kind.is_for_good();
        match kind.place((skip % 32).into(), timeout) {
            Place::Controller(rule) => {
                host.device.with_controller(|controller| controller.add_fault(rule));
                host.planted.in_controller(kind);
            }
            Place::Around(rule) => {
                host.injector.add(rule);
                host.planted.around(kind);
            }
            Place::Loss => {
                host.injector.lose("the simulation wants it");
                self.world.notice_interrupts();
                *self.tally.faults.entry(kind.name()).or_default() += 1;
            }
        }
    }

    fn reset(&mut self, host: usize) -> bool {
        let index = host % self.hosts.len();
        let host = &mut self.hosts[index];
        let Some(driver) = host.driver.clone() else { return false };
        host.blame.disturbed = true;
        self.start(index, 0, What::Reset, operation::reset(driver), Vec::new(), None);
        true
    }

    fn power_cycle(&mut self) -> bool {
        let (now, oldest) = (self.tick(), self.oldest());
        self.subsystem.power_cycle();
        for disk in &mut self.disks {
            if self.setup.volatile_cache {
                disk.storage.lose_power(&mut self.rng);
            }
            disk.model.power_lost(now, oldest);
            disk.agreements.power_lost(now);
        }
        self.hosts.iter_mut().for_each(|host| host.blame.disturbed = true);
        true
    }

    pub(crate) fn subsystem_reset(&mut self) -> bool {
        self.subsystem.reset();
        self.hosts.iter_mut().for_each(|host| host.blame.disturbed = true);
        true
    }

    fn unregister(&mut self, host: usize) -> bool {
        let index = host % self.hosts.len();
        let host = &mut self.hosts[index];
        let (Some(driver), Some(memory)) = (host.driver.clone(), host.registered.take()) else { return false };
        host.blame.unregistered = true;
        self.start(index, 0, What::Unregister, operation::unregister(driver, memory), Vec::new(), None);
        true
    }

    fn register(&mut self, host: usize) -> Check<bool> {
        let index = host % self.hosts.len();
        let host = &mut self.hosts[index];
        let Some(driver) = host.driver.clone() else { return Ok(false) };
        // What it was registered as before goes with the last command that uses it.
        match driver.register_memory(&host.memory) {
            Ok(memory) => host.registered = Some(memory),
            // What is saved says which memory there is.
            Err(RequestError::WouldWait) if host.held.is_some() => {}
            Err(error) if host.blame.mapping || host.permits(&error) => {}
            Err(error) => return failure("error", format!("guest memory cannot be registered: {error}")),
        }
        Ok(true)
    }

    fn drop_namespace(&mut self, host: usize, namespace: usize) -> bool {
        let host = host % self.hosts.len();
        let namespaces = &mut self.hosts[host].namespaces;
        let namespace = namespace % namespaces.len();
        namespaces[namespace].take().is_some()
    }

    fn drop_driver(&mut self, host: usize) -> bool {
        let index = host % self.hosts.len();
        let host = &mut self.hosts[index];
        let Some(driver) = host.driver.take() else { return false };
        host.blame.ended = true;
        host.namespaces.iter_mut().for_each(|namespace| *namespace = None);
        host.registered = None;
        host.leaving = true;
        self.count(&driver);
        // The last share of it may be in some operation.
        drop(driver);
        true
    }

    fn shut_down(&mut self, host: usize) -> bool {
        let index = host % self.hosts.len();
        let host = &mut self.hosts[index];
        let Some(driver) = host.driver.take() else { return false };
        host.blame.ended = true;
        host.namespaces.iter_mut().for_each(|namespace| *namespace = None);
        host.registered = None;
        self.count(&driver);
        self.start(index, 0, What::Shutdown, operation::shutdown(driver), Vec::new(), None);
        true
    }

    fn resize(&mut self, namespace: usize, blocks: u64) -> Check<bool> {
        let namespace = namespace % self.present.len();
        let Some(disk) = self.present[namespace] else { return Ok(false) };
        let now = self.tick();
        let blocks = self.setup.blocks / 2 + blocks % (self.setup.blocks / 2 + 1);
        let size = blocks * u64::from(self.setup.block_size);
        let resized = self.subsystem.resize_namespace(namespace as u32 + 1, size);
        resized.or_else(|error| failure("setup", error.to_string()))?;
        let state = &mut self.disks[disk];
        state.blocks = blocks;
        state.model.cut_off(blocks, now);
        self.hosts.iter_mut().for_each(|host| host.blame.resized = true);
        Ok(true)
    }

    /// Another namespace takes the place of one. A host cannot know before it is told: so that no command of the old
    /// one's reaches the new one, the subsystem is reset at the same moment, or all hosts have seen the old one go.
    fn replace(&mut self, namespace: usize, reset: bool) -> Check<bool> {
        let namespace = namespace % self.present.len();
        self.gone(namespace, reset)?;
        if !reset {
            self.quiesce()?;
        }
        self.add_disk(namespace)?;
        Ok(true)
    }

    /// A namespace goes, or comes back.
    fn remove(&mut self, namespace: usize, reset: bool) -> Check<bool> {
        let namespace = namespace % self.present.len();
        if self.gone(namespace, reset)? {
            return Ok(true);
        }
        let last = (0..self.disks.len()).rev().find(|disk| !self.present.contains(&Some(*disk)));
        match last {
            Some(disk) if self.present.len() == 1 => self.insert_disk(namespace, disk)?,
            _ => {
                if !reset {
                    self.quiesce()?;
                }
                self.add_disk(namespace)?;
            }
        }
        Ok(true)
    }

    fn gone(&mut self, namespace: usize, reset: bool) -> Check<bool> {
        if reset {
            self.subsystem_reset();
        }
        self.hosts.iter_mut().for_each(|host| host.blame.removed = true);
        if self.present[namespace].take().is_none() {
            return Ok(false);
        }
        let removed = self.subsystem.remove_namespace(namespace as u32 + 1);
        removed.or_else(|error| failure("setup", error.to_string()))?;
        Ok(true)
    }

    fn inspect(&mut self, host: usize) -> bool {
        let host = host % self.hosts.len();
        let Some(driver) = &self.hosts[host].driver else { return false };
        let _ = (driver.inspect().to_string(), driver.device().address());
        true
    }
}
