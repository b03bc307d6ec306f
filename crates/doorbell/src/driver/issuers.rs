//! One I/O queue pair per CPU, made by the controller on that CPU's first I/O.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use event_listener::Event;
use nvme_spec::admin::{DeleteQueueCdw10, create_io_cq, create_io_sq};
use nvme_spec::{AdminOpcode, Command};

use super::core::Core;
use super::options::CompletionMode;
use super::queues::{self, Shape};
use super::save::NotYet;
use super::service::{self, Served, Watched};
use crate::error::RequestError;
use crate::exclusive::ExclusiveQueue;
use crate::queue::QueuePair;
use crate::queue::pooled::Data;

/// The queues of all CPUs.
pub(crate) struct Issuers {
    cpus: Box<[Issuer]>,
    /// How many I/O queue pairs of CPUs the device and its interrupts allow.
    limit: u16,
    /// How many in all.
    most: u16,
    wanted: Mutex<Wanted>,
    /// Something was added to `wanted`.
    ask: Event,
    /// Something in `wanted` was answered.
    answered: Event,
}

/// A CPU's way to its queue. Alone on its cache line: other CPUs' first I/Os do not disturb it.
#[repr(align(64))]
struct Issuer {
    queue: OnceLock<Arc<QueuePair>>,
}

#[derive(Default)]
struct Wanted {
    /// CPUs that wait for a queue, in order of arrival.
    cpus: Vec<u32>,
    /// How often making a queue has failed, and how the last time; waiters compare the number.
    failures: u64,
    last_failure: Option<Arc<RequestError>>,
    /// The queues there are, with the CPU each was made for.
    made: Vec<(u32, Arc<QueuePair>)>,
    /// Those that have an owner instead.
    exclusive: Vec<Arc<QueuePair>>,
    /// Who wants to own one, in order of arrival.
    owners: VecDeque<Arc<Owner>>,
    /// Set when no more queues can be had.
    exhausted: bool,
}

/// Somebody who waits for a queue of their own.
#[derive(Default)]
struct Owner {
    result: Mutex<Option<Result<ExclusiveQueue, RequestError>>>,
}

/// How completions of a queue are found.
pub(super) enum Attendance {
    /// At an interrupt of its own.
    ByVector(Watched),
    /// At the admin queue's interrupt.
    ByAdminVector,
    /// By whoever polls.
    Polled,
}

impl Wanted {
    fn queues(&self) -> impl Iterator<Item = &Arc<QueuePair>> {
        self.made.iter().map(|(_, queue)| queue).chain(&self.exclusive)
    }
}

impl Issuers {
    pub(crate) fn new(cpus: u32, limit: u16, most: u16) -> Self {
        Self {
            cpus: (0..cpus).map(|_| Issuer { queue: OnceLock::new() }).collect(),
            limit,
            most,
            wanted: Mutex::default(),
            ask: Event::new(),
            answered: Event::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue of a CPU, if it has one by now.
    #[inline]
    pub(crate) fn get(&self, cpu: u32) -> Result<Option<&Arc<QueuePair>>, RequestError> {
        match self.cpus.get(cpu as usize) {
            Some(issuer) => Ok(issuer.queue.get()),
            None => Err(RequestError::NoSuchCpu { cpu, count: self.cpus.len() as u32 }),
        }
    }

    fn has_room(&self, wanted: &Wanted) -> bool {
        wanted.queues().count() < usize::from(self.most)
    }

    /// How many queues of CPUs there may be.
    pub(crate) fn limit(&self) -> u16 {
        self.limit
    }

    /// How many queues there may be in all.
    pub(crate) fn most(&self) -> u16 {
        self.most
    }

    /// The queue that each CPU with one uses: CPU, queue, and whether it shares another CPU's.
    pub(crate) fn assignments(&self) -> Vec<(u32, u16, bool)> {
        let made = self.lock().made.clone();
        let of = |queue: &Arc<QueuePair>| made.iter().find(|(_, q)| Arc::ptr_eq(q, queue)).map(|(cpu, _)| *cpu);
        let cpus = self.cpus.iter().enumerate();
        cpus.filter_map(|(cpu, issuer)| {
            let queue = issuer.queue.get()?;
            Some((cpu as u32, queue.id(), of(queue) != Some(cpu as u32)))
        })
        .collect()
    }

    /// Every queue there is.
    pub(crate) fn queues(&self) -> Vec<Arc<QueuePair>> {
        self.lock().queues().cloned().collect()
    }

    /// Waits for a queue of one's own. Going away meanwhile leaves nothing behind.
    pub(crate) async fn wait_exclusive(&self, core: &Core) -> Result<ExclusiveQueue, RequestError> {
        let owner = Arc::new(Owner::default());
        self.lock().owners.push_back(owner.clone());
        self.ask.notify(1);
        loop {
            let listener = self.answered.listen();
            if let Some(result) = owner.result.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return result;
            }
            core.check_running()?;
            listener.await;
        }
    }

    /// Waits until a CPU has a queue. Going away meanwhile cancels nothing: the queue is made all the same.
    pub(crate) async fn wait(&self, core: &Core, cpu: u32) -> Result<&Arc<QueuePair>, RequestError> {
        let failures = {
            let mut wanted = self.lock();
            if !wanted.cpus.contains(&cpu) {
                wanted.cpus.push(cpu);
            }
            wanted.failures
        };
        self.ask.notify(1);
        loop {
            let listener = self.answered.listen();
            core.check_running()?;
            if let Some(queue) = self.get(cpu)? {
                return Ok(queue);
            }
            {
                let wanted = self.lock();
                if wanted.failures != failures
                    && !wanted.cpus.contains(&cpu)
                    && let Some(error) = &wanted.last_failure
                {
                    return Err(RequestError::NoQueue(error.clone()));
                }
            }
            listener.await;
        }
    }

    /// The queues there are, each with the CPU that it was made for.
    ///
    /// # Errors
    /// If they are not all that there are, or soon will be.
    pub(crate) fn made(&self) -> Result<Vec<(u32, Arc<QueuePair>)>, NotYet> {
        let wanted = self.lock();
        if !wanted.cpus.is_empty() || !wanted.owners.is_empty() {
            return Err(NotYet::MakingQueue);
        }
        if !wanted.exclusive.is_empty() {
            return Err(NotYet::ExclusiveQueue);
        }
        Ok(wanted.made.clone())
    }

    /// Goes on with queues of another process, each with the CPU that it was made for. A CPU that had none may share.
    pub(crate) fn inherit(&self, queues: Vec<(u32, Arc<QueuePair>)>) {
        let mut wanted = self.lock();
        for (cpu, queue) in &queues {
            if let Some(issuer) = self.cpus.get(*cpu as usize) {
                let _ = issuer.queue.set(queue.clone());
            }
        }
        wanted.made = queues;
    }

    /// The device forgot all queues: `act`, and the queues that there are to be made anew. None made before is added
    /// after.
    pub(crate) fn forget_life<T>(&self, act: impl FnOnce() -> T) -> Vec<Arc<QueuePair>> {
        let wanted = self.lock();
        act();
        wanted.queues().cloned().collect()
    }

    /// A queue has no owner any more: its identifier is taken until `condemned` lets it go.
    pub(crate) fn condemn(&self, queue: &Arc<QueuePair>, condemned: impl FnOnce()) -> bool {
        let mut wanted = self.lock();
        let before = wanted.exclusive.len();
        wanted.exclusive.retain(|other| !Arc::ptr_eq(other, queue));
        let was_there = wanted.exclusive.len() != before;
        if was_there {
            condemned();
        }
        was_there
    }

    /// Wakes who waits for a queue that will never be.
    pub(crate) fn wake_all(&self) {
        self.ask.notify(usize::MAX);
        self.answered.notify(usize::MAX);
    }

    fn nearest(wanted: &Wanted, cpu: u32) -> Option<Arc<QueuePair>> {
        wanted.made.iter().min_by_key(|(of, _)| of.abs_diff(cpu)).map(|(_, queue)| queue.clone())
    }
}

impl Core {
    /// The life of the task that makes queues.
    pub(crate) async fn make_queues(self: Arc<Self>) {
        loop {
            let listener = self.issuers.ask.listen();
            if self.check_running().is_err() {
                return self.issuers.wake_all();
            }
            let (cpu, owner) = {
                let wanted = self.issuers.lock();
                (wanted.cpus.first().copied(), wanted.owners.front().cloned())
            };
            match (cpu, owner) {
                (None, None) => listener.await,
                // Not while the controller is being set up again: how many queues there may be comes first.
                _ if self.is_recovering() => self.wait_recovered().await,
                _ if self.is_held_still() => self.wait_not_held().await,
                (Some(cpu), _) => self.make_queue(cpu).await,
                (None, Some(owner)) => self.make_exclusive_queue(&owner).await,
            }
        }
    }

    /// Makes a queue for a CPU, or lets it share one.
    async fn make_queue(self: &Arc<Self>, cpu: u32) {
        let issuers = &self.issuers;
        let room = {
            let wanted = issuers.lock();
            !wanted.exhausted && wanted.made.len() < usize::from(issuers.limit) && issuers.has_room(&wanted)
        };
        let life = self.resets.load(Ordering::SeqCst);
        let made = if room { Some(self.create_queue(life, false).await) } else { None };
        let mut wanted = issuers.lock();
        if room && self.resets.load(Ordering::SeqCst) != life {
            // The controller was reset meanwhile, and does not know the queue: from the start, once more.
            return;
        }
        wanted.cpus.retain(|waiting| *waiting != cpu);
        let queue = match made {
            Some(Ok(queue)) => {
                wanted.made.push((cpu, queue.clone()));
                Some(queue)
            }
            Some(Err(error)) => {
                tracing::warn!(cpu, %error, "no I/O queue could be created");
                let shared = Issuers::nearest(&wanted, cpu);
                if shared.is_some() {
                    // There are queues to share: the device gives no more.
                    wanted.exhausted = true;
                } else {
                    wanted.failures += 1;
                    wanted.last_failure = Some(Arc::new(error));
                }
                shared
            }
            None => Issuers::nearest(&wanted, cpu),
        };
        if let (Some(queue), Some(issuer)) = (queue, issuers.cpus.get(cpu as usize)) {
            tracing::debug!(cpu, queue = queue.id(), "I/O queue");
            let _ = issuer.queue.set(queue);
        }
        drop(wanted);
        issuers.answered.notify(usize::MAX);
    }

    /// Makes a queue for an owner, who may have gone away meanwhile: then it goes as well.
    async fn make_exclusive_queue(self: &Arc<Self>, owner: &Arc<Owner>) {
        let issuers = &self.issuers;
        let room = issuers.has_room(&issuers.lock());
        let life = self.resets.load(Ordering::SeqCst);
        let made = match room {
            true => self.create_queue(life, true).await.map_err(|error| RequestError::NoQueue(Arc::new(error))),
            false => Err(RequestError::NoMoreQueues { limit: issuers.most }),
        };
        let mut wanted = issuers.lock();
        if room && self.resets.load(Ordering::SeqCst) != life {
            // The controller was reset meanwhile, and does not know the queue: from the start, once more.
            return;
        }
        wanted.owners.pop_front();
        if let Ok(queue) = &made {
            tracing::debug!(queue = queue.id(), "exclusive I/O queue");
            wanted.exclusive.push(queue.clone());
        }
        drop(wanted);
        let result = made.map(|queue| ExclusiveQueue::new(self.clone(), queue));
        *owner.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        issuers.answered.notify(usize::MAX);
    }

    /// Creates a queue pair on the host and on the device. What a failure leaves behind is undone, or, where the
    /// device may still own it, kept until the controller is disabled.
    async fn create_queue(self: &Arc<Self>, life: u64, exclusive: bool) -> Result<Arc<QueuePair>, RequestError> {
        let id = self.free_identifier().await;
        let vector = if exclusive { None } else { self.vector_of(id) };
        let shape = Shape {
            id,
            depth: self.io_depth(),
            page_size: self.page_size,
            dstrd: self.registers.cap.dstrd(),
            pool: self.options.bounce_pool,
            max_transfer: self.max_transfer_bytes(),
            sgl: self.layout.sgl,
            eager: self.completion.looks_after_submitting(&*self.device),
            shadows: self.shadows.clone(),
            exclusive,
        };
        let queue = queues::build(&*self.device, &shape, self.failure.clone())?;
        // Waiting for the interrupt begins before the device can raise it.
        let attendance = self.attendance(vector)?;
        self.announce_queue(&queue, life).await?;
        if !exclusive {
            self.attend(queue.clone(), attendance);
        }
        Ok(queue)
    }

    /// How completions of a queue with this interrupt vector will be found.
    pub(super) fn attendance(&self, vector: Option<u32>) -> Result<Attendance, RequestError> {
        Ok(match vector {
            Some(0) => Attendance::ByAdminVector,
            Some(vector) => Attendance::ByVector(self.watch(vector)?),
            None => Attendance::Polled,
        })
    }

    /// From here on, its completions are found.
    pub(super) fn attend(&self, queue: Arc<QueuePair>, attendance: Attendance) {
        match attendance {
            Attendance::ByVector(watch) => self.serve("I/O interrupts", Arc::new(Served::new(queue)), Some(watch)),
            Attendance::ByAdminVector => self.served_by_admin_vector.add(queue),
            Attendance::Polled => self.polled.add(queue),
        }
    }

    /// Starts the task that looks at queues.
    pub(super) fn serve(&self, name: &'static str, queues: Arc<Served>, watch: Option<Watched>) {
        let task = service::serve(queues, watch, self.options.runtime.clone(), self.stop.clone());
        self.options.runtime.spawn(name, Box::pin(task));
    }

    /// The interrupt vector of a queue. Vector 0 is the admin queue's alone where there is another.
    pub(super) fn vector_of(&self, id: u16) -> Option<u32> {
        let interrupts = match self.completion {
            CompletionMode::Interrupt | CompletionMode::Adaptive => self.device.interrupt_count(),
            CompletionMode::Polling | CompletionMode::CallerPolls => 0,
        };
        match interrupts {
            0 => None,
            1 => Some(0),
            count => Some(1 + (u32::from(id) - 1) % (count - 1)),
        }
    }

    /// Creates a queue pair on the device, in this life of it (`resets`) only. What a failure leaves there is undone, or
    /// the queue's memory kept.
    pub(crate) async fn announce_queue(&self, queue: &Arc<QueuePair>, life: u64) -> Result<(), RequestError> {
        let id = queue.id();
        let entries = u32::from(queue.depth()) + 1;
        let (sq, cq) = queue.ring_iovas();
        let vector = if queue.is_exclusive() { None } else { self.vector_of(id) };
        let iv = vector.map(|v| v as u16);
        let same_life = || match self.resets.load(Ordering::SeqCst) == life {
            true => Ok(()),
            false => Err(RequestError::Interrupted),
        };
        let create = create_io_cq(id, entries, cq, iv);
        if let Err(error) = self.admin.command_if(same_life, create, Data::None).await {
            self.after_failed_create(&error, queue);
            return Err(error);
        }
        let create = create_io_sq(id, entries, sq, id);
        if let Err(error) = self.admin.command_if(same_life, create, Data::None).await {
            // The device has the completion queue: take it back, or keep its memory.
            match error {
                RequestError::Nvme(_) if self.delete_queue(AdminOpcode::DELETE_IO_CQ, id).await => {}
                RequestError::Nvme(_) => self.condemned().push(queue.clone()),
                _ => self.after_failed_create(&error, queue),
            }
            return Err(error);
        }
        Ok(())
    }

    /// The lowest identifier that no queue has, the half-made ones included that the device did not give back. Those
    /// are asked for again.
    async fn free_identifier(&self) -> u16 {
        let condemned = self.condemned().clone();
        for queue in condemned {
            if self.delete_queue(AdminOpcode::DELETE_IO_CQ, queue.id()).await {
                self.condemned().retain(|other| !Arc::ptr_eq(other, &queue));
            }
        }
        let wanted = self.issuers.lock();
        let condemned = self.condemned();
        let taken = |id: &u16| wanted.queues().chain(&*condemned).any(|q| q.id() == *id);
        (1..u16::MAX).find(|id| !taken(id)).unwrap_or(u16::MAX)
    }

    /// An error status means that the device does not have the queue, and so does a reset; any other failure leaves that
    /// open.
    fn after_failed_create(&self, error: &RequestError, queue: &Arc<QueuePair>) {
        if !matches!(error, RequestError::Nvme(_) | RequestError::Interrupted) {
            self.condemned().push(queue.clone());
        }
    }

    /// Deletes a queue on the device; whether that is certain.
    pub(crate) async fn delete_queue(&self, opcode: AdminOpcode, id: u16) -> bool {
        let command = Command { cdw10: DeleteQueueCdw10::new().with_qid(id).into(), ..opcode.command() };
        self.admin.command(command, Data::None).await.is_ok()
    }

    pub(super) fn watch(&self, vector: u32) -> Result<Watched, RequestError> {
        Ok(Watched::new(&*self.options.runtime, self.device.interrupt(vector)?)?)
    }

    /// Commands in flight a queue: as asked, as far as the controller's queues go (MQES is 0's based, and a ring has
    /// one entry more than commands).
    pub(crate) fn io_depth(&self) -> u16 {
        let entries = self.registers.cap.max_queue_entries();
        self.options.depth.min(entries.saturating_sub(1)).max(1) as u16
    }
}
