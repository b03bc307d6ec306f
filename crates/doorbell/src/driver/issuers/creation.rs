//! Making I/O queues: one after the other, by a task that nobody's going away cancels.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use doorbell_device::{DeviceError, Interrupt};
use nvme_spec::admin::{DeleteQueueCdw10, create_io_cq, create_io_sq};
use nvme_spec::{AdminOpcode, Command};

use super::{Issuers, Owner};
use crate::driver::adaptive::Adaptive;
use crate::driver::core::Core;
use crate::driver::options::CompletionMode;
use crate::driver::queues::{self, Shape};
use crate::driver::service::{self, Served, Watched};
use crate::error::RequestError;
use crate::exclusive::ExclusiveQueue;
use crate::queue::QueuePair;
use crate::queue::pooled::Data;

/// How completions of a queue are found.
pub(in crate::driver) enum Attendance {
    /// At an interrupt of its own.
    ByVector(Watched),
    /// By the thread that polls while it pays, and sleeps until this interrupt when not.
    Adaptive(Arc<Adaptive>, Interrupt),
    /// At the admin queue's interrupt.
    ByAdminVector,
    /// By whoever polls.
    Polled,
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
                self.close_if_ended(&queue);
                Some(queue)
            }
            Some(Err(error)) => {
                tracing::warn!(cpu, %error, "no I/O queue could be created");
                let shared = Issuers::nearest(&wanted, cpu);
                if shared.is_some() {
                    // There are queues to share: the device gives no more.
                    wanted.exhausted = true;
                } else {
                    wanted.failures = wanted.failures.saturating_add(1);
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
            self.close_if_ended(queue);
        }
        drop(wanted);
        let result = made.map(|queue| ExclusiveQueue::new(self.clone(), queue));
        *owner.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        issuers.answered.notify(usize::MAX);
    }

    /// Whoever ends the controller closes the queues that it finds. It may not have found one that was made just then.
    fn close_if_ended(&self, queue: &QueuePair) {
        if self.check_running().is_err() {
            queue.close(self.lost());
        }
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
    pub(in crate::driver) fn attendance(&self, vector: Option<u32>) -> Result<Attendance, RequestError> {
        Ok(match vector {
            Some(0) => Attendance::ByAdminVector,
            Some(vector) if self.completion == CompletionMode::Adaptive && self.options.runtime.has_threads() => {
                Attendance::Adaptive(self.adaptive()?, self.device.interrupt(vector)?)
            }
            Some(vector) => Attendance::ByVector(self.watch(vector)?),
            None => Attendance::Polled,
        })
    }

    /// From here on, its completions are found.
    pub(in crate::driver) fn attend(&self, queue: Arc<QueuePair>, attendance: Attendance) {
        match attendance {
            Attendance::ByVector(watch) => self.serve("I/O interrupts", Arc::new(Served::new(queue)), Some(watch)),
            Attendance::Adaptive(adaptive, interrupt) => adaptive.add(queue, interrupt),
            Attendance::ByAdminVector => self.served_by_admin_vector.add(queue),
            Attendance::Polled => self.polled.add(queue),
        }
    }

    /// The thread that polls and sleeps by turns: started for the first queue.
    fn adaptive(&self) -> Result<Arc<Adaptive>, RequestError> {
        if let Some(adaptive) = self.adaptive.get() {
            return Ok(adaptive.clone());
        }
        let adaptive = Adaptive::new()?;
        let started = adaptive.start(self.options.runtime.clone(), self.stop.clone());
        started.map_err(|source| DeviceError::Io { what: "starting a thread", source })?;
        // Queues are made one after the other.
        Ok(self.adaptive.get_or_init(|| adaptive).clone())
    }

    /// Starts what looks at the queues that have no interrupt: a thread, or, where there are none, a task that pauses between
    /// two looks.
    pub(in crate::driver) fn start_polling(&self) -> Result<(), DeviceError> {
        if !self.options.runtime.has_threads() {
            self.serve("I/O completions", self.polled.clone(), None);
            return Ok(());
        }
        // A thread that was not asked for leaves others the CPU.
        let gentle = self.options.completion != CompletionMode::Polling;
        service::start_poller(self.polled.clone(), self.stop.clone(), gentle)
            .map_err(|source| DeviceError::Io { what: "starting a thread", source })
    }

    /// Starts the task that looks at queues.
    pub(in crate::driver) fn serve(&self, name: &'static str, queues: Arc<Served>, watch: Option<Watched>) {
        let task = service::serve(queues, watch, self.options.runtime.clone(), self.stop.clone());
        self.options.runtime.spawn(name, Box::pin(task));
    }

    /// The interrupt vector of a queue. Vector 0 is the admin queue's alone where there is another.
    pub(in crate::driver) fn vector_of(&self, id: u16) -> Option<u32> {
        let interrupts = match self.completion {
            CompletionMode::Interrupt | CompletionMode::Adaptive => self.device.interrupt_count(),
            CompletionMode::Polling | CompletionMode::CallerPolls => 0,
        };
        match interrupts {
            0 => None,
            1 => Some(0),
            // The others in turn, from 1 on.
            count => {
                let nth = u32::from(id).saturating_sub(1).checked_rem(count.saturating_sub(1))?;
                Some(nth.saturating_add(1))
            }
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

    pub(in crate::driver) fn watch(&self, vector: u32) -> Result<Watched, RequestError> {
        Ok(Watched::new(&*self.options.runtime, self.device.interrupt(vector)?)?)
    }

    /// Commands in flight a queue: as asked, as far as the controller's queues go (MQES is 0's based, and a ring has
    /// one entry more than commands).
    pub(crate) fn io_depth(&self) -> u16 {
        let entries = self.registers.cap.max_queue_entries();
        self.options.depth.min(entries.saturating_sub(1)).max(1) as u16
    }
}
