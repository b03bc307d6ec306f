//! A controller's ring, and what is under way there.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::task::Waker;

use doorbell_device::{DeviceError, FileRing, MemoryPiece};
use nvme_spec::{Status, StatusField};
use rustix::io::Errno;

use super::own::{compare, copy, failed, scatter, sync, verify, write_at, zero};
use super::pieces::{Pieces, length, pieces, rest};
use super::watch::Watch;
use crate::backend::claims::Claims;
use crate::lane::{Ended, Lane, Operation, Ticket};

/// Operations that the kernel has at a time.
const DEPTH: u32 = 256;

pub(super) struct RingLane {
    ring: FileRing,
    file: Arc<File>,
    claims: Arc<Claims>,
    waker: Waker,
    jobs: Vec<Option<Job>>,
    free: Vec<usize>,
    /// Jobs that have not begun, in order.
    waiting: VecDeque<usize>,
    ended: Vec<Ended>,
    _watch: Watch,
}

struct Job {
    ticket: Ticket,
    claim: Option<u64>,
    task: Task,
}

enum Task {
    Read {
        offset: u64,
        pieces: Vec<MemoryPiece>,
        fua: bool,
    },
    Write {
        offset: u64,
        pieces: Vec<MemoryPiece>,
        fua: bool,
    },
    Sync,
    /// What the controller's thread does.
    Own(Own),
}

type Own = Box<dyn FnOnce(&File) -> Result<(), Status> + Send>;

impl RingLane {
    pub(super) fn new(file: &Arc<File>, claims: &Arc<Claims>, waker: Waker) -> Result<Self, DeviceError> {
        let mut ring = FileRing::new(file.clone(), DEPTH)?;
        ring.signal(false);
        let watch = Watch::start(ring.ended().clone(), waker.clone())?;
        let (jobs, free, waiting, ended) = (Vec::new(), Vec::new(), VecDeque::new(), Vec::new());
        Ok(Self { ring, file: file.clone(), claims: claims.clone(), waker, jobs, free, waiting, ended, _watch: watch })
    }

    fn begin(&mut self, ticket: Ticket, claim: Option<(u64, u64, bool)>, task: Task) {
        let claim = claim.map(|(start, end, writes)| self.claims.add(start, end, writes, &self.waker).0);
        let job = Some(Job { ticket, claim, task });
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.jobs.push(None);
                self.jobs.len().saturating_sub(1)
            }
        };
        if let Some(place) = self.jobs.get_mut(index) {
            *place = job;
        }
        self.waiting.push_back(index);
    }

    fn end(&mut self, index: usize, result: Result<(), Status>) {
        let Some(Some(job)) = self.jobs.get_mut(index).map(Option::take) else { return };
        self.free.push(index);
        if let Some(claim) = job.claim {
            self.claims.remove(claim);
        }
        let status = result.err().map_or(StatusField::new(), |status| StatusField::new().with_status(status));
        self.ended.push(Ended { ticket: job.ticket, status });
    }

    /// Begins what has its turn.
    fn start(&mut self) {
        for _ in 0..self.waiting.len() {
            let Some(index) = self.waiting.pop_front() else { return };
            let Some(Some(job)) = self.jobs.get_mut(index) else { continue };
            let is_free = job.claim.is_none_or(|claim| self.claims.is_granted(claim));
            if !is_free || !self.ring.has_room() {
                self.waiting.push_back(index);
                continue;
            }
            let token = index as u64;
            let begun = match &mut job.task {
                Task::Read { offset, pieces, .. } => self.ring.read(token, *offset, pieces),
                Task::Write { offset, pieces, fua } => self.ring.write(token, *offset, pieces, *fua),
                Task::Sync => self.ring.sync(token),
                Task::Own(_) => {
                    let task = std::mem::replace(&mut job.task, Task::Sync);
                    let result = if let Task::Own(task) = task { task(&self.file) } else { Ok(()) };
                    self.end(index, result);
                    continue;
                }
            };
            if let Err(error) = begun {
                tracing::warn!(%error, "refused");
                self.end(index, Err(Status::DATA_TRANSFER_ERROR));
            }
        }
    }

    fn completed(&mut self, index: usize, moved: io::Result<usize>) {
        let Some(Some(job)) = self.jobs.get_mut(index) else { return };
        let moved = match moved {
            // It was interrupted before it began.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INTR | Errno::AGAIN)) => Ok(0),
            moved => moved,
        };
        let result = match (&job.task, moved) {
            (Task::Sync | Task::Own(_), moved) => moved.map(drop).map_err(|error| failed(&error, Status::WRITE_FAULT)),
            (Task::Read { offset, pieces, .. }, Ok(moved)) => {
                rest(*offset, pieces, moved, |at, memory, offset, len| {
                    let mut bytes = vec![0; len];
                    self.file.read_exact_at(&mut bytes, at).map_err(|e| failed(&e, Status::UNRECOVERED_READ_ERROR))?;
                    memory.write_at(offset, &bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)
                })
            }
            (Task::Write { offset, pieces, fua }, Ok(moved)) => {
                let all = rest(*offset, pieces, moved, |at, memory, offset, len| {
                    let mut bytes = vec![0; len];
                    memory.read_at(offset, &mut bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
                    self.file.write_all_at(&bytes, at).map_err(|e| failed(&e, Status::WRITE_FAULT))
                });
                let is_short = moved < length(pieces);
                all.and_then(|()| if *fua && is_short { sync(&self.file) } else { Ok(()) })
            }
            (Task::Read { .. }, Err(error)) => Err(failed(&error, Status::UNRECOVERED_READ_ERROR)),
            (Task::Write { .. }, Err(error)) => Err(failed(&error, Status::WRITE_FAULT)),
        };
        if result.is_ok() && matches!(job.task, Task::Read { fua: true, .. }) {
            // What was read is then on the medium, whoever wrote it.
            job.task = Task::Sync;
            self.waiting.push_back(index);
            return;
        }
        self.end(index, result);
    }
}

impl Lane for RingLane {
    fn submit(&mut self, ticket: Ticket, operation: Operation<'_>) -> Result<(), Status> {
        let reads = |offset: u64, len: usize| Some((offset, offset.saturating_add(len as u64), false));
        let writes = |offset: u64, len: usize| Some((offset, offset.saturating_add(len as u64), true));
        match operation {
            Operation::Read { offset, to, fua } => {
                let claim = reads(offset, to.len());
                let task = match pieces(&to)? {
                    Pieces::Straight(pieces) => Task::Read { offset, pieces, fua },
                    Pieces::Odd(pieces) => Task::Own(Box::new(move |file| scatter(file, offset, &pieces, fua))),
                };
                self.begin(ticket, claim, task);
            }
            Operation::Write { offset, from, fua } => {
                let claim = writes(offset, from.len());
                let task = match pieces(&from)? {
                    Pieces::Straight(pieces) => Task::Write { offset, pieces, fua },
                    Pieces::Odd(_) => {
                        let bytes = from.copy()?;
                        Task::Own(Box::new(move |file| write_at(file, offset, &bytes, fua)))
                    }
                };
                self.begin(ticket, claim, task);
            }
            Operation::Compare { offset, with } => {
                let bytes = with.copy()?;
                self.begin(
                    ticket,
                    reads(offset, bytes.len()),
                    Task::Own(Box::new(move |file| compare(file, offset, &bytes))),
                );
            }
            Operation::CompareAndWrite { offset, compare: old, write, fua } => {
                let (old, new) = (old.copy()?, write.copy()?);
                let claim = writes(offset, new.len());
                let task = move |file: &File| {
                    compare(file, offset, &old)?;
                    write_at(file, offset, &new, fua)
                };
                self.begin(ticket, claim, Task::Own(Box::new(task)));
            }
            Operation::Copy { from, to, fua } => {
                let from = from.to_vec();
                // It touches several places: everything else has to be done, and to wait.
                self.begin(
                    ticket,
                    Some((0, u64::MAX, true)),
                    Task::Own(Box::new(move |file| copy(file, &from, to, fua))),
                );
            }
            Operation::Verify { offset, len } => {
                let claim = Some((offset, offset.saturating_add(len), false));
                self.begin(ticket, claim, Task::Own(Box::new(move |file| verify(file, offset, len))));
            }
            Operation::WriteZeroes { offset, len, fua, .. } => self.zero(ticket, vec![(offset, len)], fua),
            Operation::Deallocate { ranges } => self.zero(ticket, ranges.to_vec(), false),
            Operation::Flush => self.begin(ticket, None, Task::Sync),
            _ => return Err(Status::INVALID_COMMAND_OPCODE),
        }
        Ok(())
    }

    fn sleep(&mut self, asleep: bool) -> bool {
        self.ring.signal(asleep);
        !self.ended.is_empty() || self.ring.has_ended()
    }

    fn poll(&mut self, ended: &mut Vec<Ended>) {
        while let Some((token, moved)) = self.ring.take_ended() {
            self.completed(token as usize, moved);
        }
        self.start();
        if let Err(error) = self.ring.submit() {
            tracing::error!(%error, "io_uring_enter");
        }
        ended.append(&mut self.ended);
    }
}

impl RingLane {
    fn zero(&mut self, ticket: Ticket, ranges: Vec<(u64, u64)>, fua: bool) {
        let start = ranges.iter().map(|(offset, _)| *offset).min().unwrap_or_default();
        let end = ranges.iter().map(|(offset, len)| offset.saturating_add(*len)).max().unwrap_or_default();
        let task = move |file: &File| zero(file, &ranges, fua);
        self.begin(ticket, Some((start, end, true)), Task::Own(Box::new(task)));
    }
}

impl Drop for RingLane {
    fn drop(&mut self) {
        // Others may wait for what this one was to do. What the kernel has, the ring waits for.
        for job in self.jobs.iter().flatten() {
            if let Some(claim) = job.claim {
                self.claims.remove(claim);
            }
        }
    }
}
