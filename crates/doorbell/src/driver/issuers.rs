//! One I/O queue pair per CPU, made by the controller on that CPU's first I/O.

mod creation;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use event_listener::Event;

pub(super) use self::creation::Attendance;
use super::core::Core;
use super::save::NotYet;
use crate::error::RequestError;
use crate::exclusive::ExclusiveQueue;
use crate::queue::QueuePair;

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

    /// The queues there are, each with the CPU that it was made for, which means nothing of those that have an owner.
    ///
    /// # Errors
    /// If they are not all that there are, or soon will be.
    pub(crate) fn made(&self) -> Result<Vec<(u32, Arc<QueuePair>)>, NotYet> {
        let wanted = self.lock();
        if !wanted.cpus.is_empty() || !wanted.owners.is_empty() {
            return Err(NotYet::MakingQueue);
        }
        let owned = wanted.exclusive.iter().map(|queue| (0, queue.clone()));
        Ok(wanted.made.iter().cloned().chain(owned).collect())
    }

    /// Goes on with queues of another process, each with the CPU that it was made for, if it has no owner. A CPU that had
    /// none may share.
    pub(crate) fn inherit(&self, queues: Vec<(u32, Arc<QueuePair>)>) {
        let mut wanted = self.lock();
        for (cpu, queue) in queues {
            if queue.is_exclusive() {
                wanted.exclusive.push(queue);
                continue;
            }
            if let Some(issuer) = self.cpus.get(cpu as usize) {
                let _ = issuer.queue.set(queue.clone());
            }
            wanted.made.push((cpu, queue));
        }
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
