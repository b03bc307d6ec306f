//! Compare and write in one: a fused pair (NVMe Base 2.0, Fused Operations).

use std::future::poll_fn;

use nvme_spec::nvm::ReadWriteCdw12;
use nvme_spec::{Cdw0, Command, NvmOpcode};

use super::{Namespace, Protection};
use crate::error::{MemoryError, RequestError};
use crate::memory::run_pointers;
use crate::queue::{Exchange, Refused};

impl Namespace {
    /// Writes `write` if the blocks hold `compare`, both a whole number of blocks of one length, with nothing in
    /// between: the two halves go out in adjacent entries under one doorbell. A difference is
    /// [`ErrorClass::Miscompare`](crate::ErrorClass::Miscompare), and nothing is written.
    ///
    /// # Errors
    /// [`RequestError`]: slices of different lengths, more blocks than the device does so atomically (ACWU), blocks
    /// outside the namespace, a controller that cannot; then nothing was sent.
    pub async fn compare_and_write(
        &self,
        target_cpu: u32,
        lba: u64,
        compare: &[u8],
        write: &[u8],
        fua: bool,
    ) -> Result<(), RequestError> {
        let inner = self.inner();
        inner.check_present()?;
        if !inner.core.identify.fuses.compare_and_write() {
            return Err(RequestError::Unsupported("fused Compare and Write"));
        }
        if inner.fixed.protection != Protection::None {
            return Err(RequestError::Unsupported("fused Compare and Write with protection information"));
        }
        let block_size = inner.transfer_block_size;
        let blocks = compare.len().checked_div(block_size as usize).unwrap_or_default();
        if compare.len() != write.len() {
            return Err(RequestError::TooShort { len: write.len(), needed: compare.len() });
        }
        if !compare.len().is_multiple_of(block_size as usize) {
            return Err(RequestError::NotBlocks { len: compare.len(), block_size });
        }
        if blocks == 0 {
            return Ok(());
        }
        // NACWU where the namespace has its own, else ACWU, which is 0's based.
        let limit = match inner.details().atomic_compare_write {
            0 => u32::from(inner.core.identify.acwu).saturating_add(1),
            own => own,
        };
        let limit = limit.min(inner.max_transfer_blocks);
        if blocks as u64 > u64::from(limit) {
            return Err(RequestError::TooLarge { len: blocks as u64, max: limit.into(), unit: "blocks" });
        }
        inner.check_range(lba, blocks as u64)?;

        inner.wait_for_inherited().await;
        let queue = inner.queue(target_cpu).await?;
        if queue.depth() < 2 {
            return Err(RequestError::Unsupported("fused commands on a queue of one command"));
        }
        let pool = queue.pool();
        // Both halves' pages in one run, so that two such calls never wait for each other's second half.
        let half = compare.len().next_multiple_of(inner.core.page_size);
        if half.saturating_mul(2) > pool.capacity() {
            let (len, max) = (compare.len() as u64, pool.capacity() as u64 / 2);
            return Err(RequestError::TooLarge { len, max, unit: "bytes" });
        }
        let mut first = Exchange::new(queue);
        let mut second = Exchange::new(queue);
        poll_fn(|context| first.poll_pages(half.saturating_mul(2), context)).await;
        if first.run().is_none() {
            return Err(queue.lost().into());
        }
        // Each half keeps its own pages, whatever becomes of this future.
        first.share_pages(half, &mut second);
        let layout = inner.core.layout;
        let len = compare.len();
        let command = |opcode: NvmOpcode, fuse, fua| {
            let mut command = Command {
                cdw0: Cdw0::new().with_opcode(opcode.0).with_fuse(fuse),
                nsid: inner.nsid,
                cdw12: ReadWriteCdw12::new().with_nlb(blocks.saturating_sub(1) as u16).with_fua(fua).into(),
                ..Command::default()
            };
            command.set_cdw10_11(lba);
            command
        };
        let nowhere = || MemoryError::NotPresent { gpa: u64::MAX };
        let runs = [&first, &second].map(|exchange| exchange.run().map(|run| pool.memory(run)));
        let [Some((memory, at, _)), Some((_, second_at, _))] = runs else { return Err(nowhere().into()) };
        let memory = memory.clone();
        let started = poll_fn(|context| {
            first.poll_start_pair(&mut second, context, |[first_list, second_list]| {
                inner.check_present()?;
                // Not before: as long as the queue is held still, its pages may be another process's.
                memory.host().write_at(at, compare).map_err(|_| nowhere())?;
                memory.host().write_at(second_at, write).map_err(|_| nowhere())?;
                let mut one = command(NvmOpcode::COMPARE, Cdw0::FUSE_FIRST, false);
                let mut two = command(NvmOpcode::WRITE, Cdw0::FUSE_SECOND, fua);
                run_pointers(&memory, at, layout, first_list, None, len).ok_or_else(nowhere)?.put(&mut one);
                run_pointers(&memory, second_at, layout, second_list, None, len).ok_or_else(nowhere)?.put(&mut two);
                Ok::<_, RequestError>([one, two])
            })
        });
        match started.await {
            Ok(()) => {}
            Err(Refused::Lost(lost)) => return Err(lost.into()),
            Err(Refused::Build(error)) => return Err(error),
        }
        let written = poll_fn(|context| second.poll_result(context)).await;
        let compared = poll_fn(|context| first.poll_result(context)).await;
        // When the compare fails, the write is aborted; its status says less.
        compared?;
        written?;
        Ok(())
    }
}
