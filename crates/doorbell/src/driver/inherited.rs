//! Commands of the process before: whoever claims one gets the device's one completion; and what new I/O must wait for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use nvme_spec::nvm::ReadWriteCdw12;
use nvme_spec::{Command, Completion, NvmOpcode};

use super::core::Core;
use crate::error::RequestError;
use crate::memory::DmaBuffer;
use crate::namespace;
use crate::queue::{Adopted, Changes, Held, QueuePair, Token, settled};

/// A command that another driver sent before this one took over: a future of its result. Dropped, the command goes on, and
/// its result is nobody's.
#[must_use = "dropped, its result is nobody's"]
pub struct InheritedCommand {
    core: Arc<Core>,
    queue: Arc<QueuePair>,
    token: Option<Token>,
    held: Option<Held>,
    command: Command,
    tag: u64,
    /// Its data goes through pages of the pool. Otherwise pages that it has there are a list of where its data goes.
    bounced: bool,
}

/// What became of an [`InheritedCommand`].
#[derive(Debug)]
#[non_exhaustive]
pub struct InheritedResult {
    /// The completion; an error status is an error.
    pub completion: Result<Completion, RequestError>,
    /// What was read, if it went through bounce pages: whole pages, of which the command's own bytes come first.
    pub data: Option<Vec<u8>>,
    /// The buffer that the command moved, if it was one.
    pub buffer: Option<DmaBuffer>,
}

impl InheritedCommand {
    pub(super) fn new(core: &Arc<Core>, queue: &Arc<QueuePair>, adopted: Adopted) -> Self {
        let Adopted { token, command, tag, bounced, held, .. } = adopted;
        let (core, queue) = (core.clone(), queue.clone());
        Self { core, queue, token: Some(token), held: Some(held), command, tag, bounced }
    }

    /// The queue that it is on; 0 is the admin queue.
    #[must_use]
    pub fn queue(&self) -> u16 {
        self.queue.id()
    }

    /// The command, as it was sent.
    #[must_use]
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// The number that its owner marked it with ([`Transfer::tag`](crate::Transfer::tag)).
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// The blocks that it reads or writes: the first, and how many. `None` of commands that say so elsewhere.
    #[must_use]
    pub fn blocks(&self) -> Option<(u64, u32)> {
        let has_blocks = self.queue.id() != 0
            && matches!(
                NvmOpcode(self.command.cdw0.opcode()),
                NvmOpcode::READ
                    | NvmOpcode::WRITE
                    | NvmOpcode::COMPARE
                    | NvmOpcode::WRITE_ZEROES
                    | NvmOpcode::WRITE_UNCORRECTABLE
                    | NvmOpcode::VERIFY
            );
        let count = u32::from(ReadWriteCdw12::from(self.command.cdw12).nlb()) + 1;
        has_blocks.then(|| (self.command.cdw10_11(), count))
    }

    /// Whether what it reads is [in its result](InheritedResult::data), and not where it is to be.
    #[must_use]
    pub fn brings_data(&self) -> bool {
        self.bounced && (self.queue.id() == 0 || matches!(self.command.cdw0.opcode() & 3, 2))
    }
}

impl Future for InheritedCommand {
    type Output = InheritedResult;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<InheritedResult> {
        let Some(token) = self.token else { return Poll::Pending };
        let completion = settled(ready!(self.queue.poll(token, context)));
        self.token = None;
        let Held { run, buffer } = self.held.take().unwrap_or_default();
        let mut data = None;
        if let Some(run) = run {
            if completion.is_ok() && self.brings_data() {
                let (memory, offset, len) = self.queue.pool().memory(&run);
                let mut bytes = vec![0; len];
                if memory.host().read_at(offset, &mut bytes).is_ok() {
                    data = Some(bytes);
                }
            }
            self.queue.pool().give_back(run);
        }
        Poll::Ready(InheritedResult { completion, data, buffer })
    }
}

impl Drop for InheritedCommand {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            self.queue.forget(token, self.held.take().unwrap_or_default());
        }
    }
}

impl fmt::Debug for InheritedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InheritedCommand")
            .field("device", &self.core.device.address())
            .field("queue", &self.queue())
            .field("command", &self.command)
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

/// Commands of the process before that change blocks: I/O on the same blocks waits for them.
#[derive(Default)]
pub(crate) struct Inherited(pub(super) Mutex<Vec<Change>>);

#[derive(Clone)]
pub(super) struct Change {
    queue: Arc<QueuePair>,
    token: Token,
    sequence: u64,
    changes: Changes,
}

impl Inherited {
    pub(super) fn add(&mut self, queue: &Arc<QueuePair>, adopted: &Adopted) {
        let changes = Changes::of(queue.id(), &adopted.command);
        let change = Change { queue: queue.clone(), token: adopted.token, sequence: adopted.sequence, changes };
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).push(change);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Change>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// New I/O on blocks that inherited commands change waits for those.
    pub(super) fn hold_back(self: &Arc<Self>, inherited: Inherited) {
        let mut changes = inherited.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !self.options.inherited_first {
            changes.retain(|change| change.changes != Changes::Nothing);
        }
        if changes.is_empty() {
            return;
        }
        *self.inherited.lock() = changes.clone();
        self.namespaces.held().iter().for_each(|namespace| namespace.set_held_back(true));
        let core = self.clone();
        let task = async move {
            for change in changes {
                change.wait().await;
            }
            core.inherited.lock().clear();
            core.namespaces.held().iter().for_each(|namespace| namespace.set_held_back(false));
        };
        self.options.runtime.spawn("inherited commands", Box::pin(task));
    }

    /// A handle that was made since: its disk may have been another handle's in the process before.
    pub(crate) fn hold_back_too(&self, namespace: &namespace::Inner) {
        // Under the lock, so that it ends as for the others.
        let changes = self.inherited.lock();
        if !changes.is_empty() {
            namespace.set_held_back(true);
        }
    }

    /// Waits until no inherited command changes what a command of these blocks reads or writes; `None` for all blocks.
    pub(crate) async fn wait_for_inherited(&self, nsid: u32, blocks: Option<(u64, u64)>) {
        for change in self.in_the_way(nsid, blocks) {
            change.wait().await;
        }
    }

    /// An error as long as [`wait_for_inherited`](Self::wait_for_inherited) would wait.
    pub(crate) fn check_inherited(&self, nsid: u32, blocks: Option<(u64, u64)>) -> Result<(), RequestError> {
        let waits = self.in_the_way(nsid, blocks).iter().any(Change::is_in_flight);
        if waits { Err(RequestError::WouldWait) } else { Ok(()) }
    }

    fn in_the_way(&self, nsid: u32, blocks: Option<(u64, u64)>) -> Vec<Change> {
        let own = match blocks {
            Some((first, count)) => Changes::Blocks { nsid, first, end: first.saturating_add(count) },
            None => Changes::Anything,
        };
        let all = self.options.inherited_first;
        self.inherited.lock().iter().filter(|change| all || change.changes.overlap(own)).cloned().collect()
    }
}

impl Change {
    async fn wait(&self) {
        self.queue.wait_for(self.token, self.sequence).await;
    }

    fn is_in_flight(&self) -> bool {
        self.queue.is_in_flight(self.token, self.sequence)
    }
}
