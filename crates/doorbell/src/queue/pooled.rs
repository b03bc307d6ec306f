//! Commands whose data, if they have some, goes through the pool: admin commands, and all that are not on the I/O path.

use std::future::poll_fn;

use nvme_spec::{Command, Completion};

use super::{Exchange, Notes, QueuePair, Refused};
use crate::error::{MemoryError, RequestError};
use crate::memory::{Layout, run_pointers};

/// What such a command moves.
pub(crate) enum Data<'a> {
    None,
    /// From the device.
    In(&'a mut [u8]),
    /// To the device.
    Out(&'a [u8]),
}

impl Data<'_> {
    /// The same once more.
    pub(crate) fn reborrow(&mut self) -> Data<'_> {
        match self {
            Data::None => Data::None,
            Data::In(bytes) => Data::In(bytes),
            Data::Out(bytes) => Data::Out(bytes),
        }
    }

    fn len(&self) -> usize {
        match self {
            Data::None => 0,
            Data::In(bytes) => bytes.len(),
            Data::Out(bytes) => bytes.len(),
        }
    }
}

/// A command that the device has, and where its data goes.
pub(crate) struct Submitted<'q, 'd> {
    exchange: Exchange<'q>,
    data: Data<'d>,
}

const NOWHERE: MemoryError = MemoryError::NotPresent { gpa: u64::MAX };

/// Waits for pages and a slot, then submits. `max` is the most bytes of data that it may have; `notes` is asked in the
/// moment of submission, and `check` whether it may go out at all.
pub(crate) async fn submit<'q, 'd>(
    queue: &'q QueuePair,
    layout: Layout,
    max: usize,
    notes: impl Fn() -> Notes,
    check: impl Fn() -> Result<(), RequestError>,
    command: Command,
    data: Data<'d>,
) -> Result<Submitted<'q, 'd>, RequestError> {
    let mut exchange = Exchange::new(queue);
    let len = data.len();
    if len > max {
        return Err(RequestError::TooLarge { len: len as u64, max: max as u64, unit: "bytes" });
    }
    if len != 0 {
        poll_fn(|context| exchange.poll_pages(len, context)).await;
    }
    let started = poll_fn(|context| {
        exchange.poll_start(context, notes(), |list, run| {
            check()?;
            let mut command = command;
            if let Some(run) = run {
                let (memory, at, _) = queue.pool().memory(run);
                match &data {
                    Data::Out(bytes) => memory.host().write_at(at, bytes).map_err(|_| NOWHERE)?,
                    // What the device does not write must not be what an earlier command left.
                    Data::None | Data::In(_) => memory.host().zero(at, len).map_err(|_| NOWHERE)?,
                }
                run_pointers(memory, at, layout, list, None, len).ok_or(NOWHERE)?.put(&mut command);
            }
            Ok::<_, RequestError>(command)
        })
    });
    match started.await {
        Ok(()) => Ok(Submitted { exchange, data }),
        Err(Refused::Lost(lost)) => Err(lost.into()),
        Err(Refused::Build(error)) => Err(error),
    }
}

impl Submitted<'_, '_> {
    /// Waits for the result, and copies what was read to where it belongs.
    pub(crate) async fn completion(mut self) -> Result<Completion, RequestError> {
        let completion = poll_fn(|context| self.exchange.poll_result(context)).await?;
        if let (Data::In(bytes), Some(run)) = (self.data, self.exchange.run()) {
            let (memory, at, _) = self.exchange.queue().pool().memory(run);
            memory.host().read_at(at, bytes).map_err(|_| NOWHERE)?;
        }
        Ok(completion)
    }
}
