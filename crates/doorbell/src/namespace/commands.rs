//! Commands without data of their own: flush, write zeroes, write uncorrectable, verify.

use nvme_spec::nvm::{PrInfo, ReadWriteCdw12};
use nvme_spec::{Cdw0, Command, Completion, NvmOpcode};

use super::{Inner, Namespace, Protection};
use crate::error::RequestError;
use crate::queue::pooled::{self, Data};
use crate::queue::{Notes, QueuePair};

impl Inner {
    /// The queue of a CPU, made if there is none yet.
    pub(crate) async fn queue(&self, cpu: u32) -> Result<&QueuePair, RequestError> {
        match self.core.issuers.get(cpu)? {
            Some(queue) => Ok(queue),
            None => Ok(self.core.issuers.wait(&self.core, cpu).await?),
        }
    }

    /// Sends a command of this namespace on a CPU's queue, again if it fails for a passing reason; its data, if it has
    /// some, goes through the pool.
    pub(crate) async fn execute(
        &self,
        cpu: u32,
        command: Command,
        mut data: Data<'_>,
    ) -> Result<Completion, RequestError> {
        let mut retries = 0;
        loop {
            let error = match self.execute_once(cpu, command, data.reborrow()).await {
                Err(RequestError::Nvme(error)) => error,
                result => return result,
            };
            let Some(wait) = self.core.retry_after(&error, retries) else { return Err(error.into()) };
            retries = retries.saturating_add(1);
            self.queue(cpu).await?.count_retry();
            self.core.pause(wait).await;
        }
    }

    /// Sends a command of this namespace on a CPU's queue; its data, if it has some, goes through the pool.
    async fn execute_once(&self, cpu: u32, command: Command, data: Data<'_>) -> Result<Completion, RequestError> {
        self.wait_for_inherited().await;
        let queue = self.queue(cpu).await?;
        let max = self.max_data(queue);
        let submitted =
            pooled::submit(queue, self.core.layout, max, Notes::default, || self.check_present(), command, data)
                .await?;
        submitted.completion().await
    }

    /// Waits for inherited commands, whatever blocks they change.
    pub(crate) async fn wait_for_inherited(&self) {
        if self.is_held_back() {
            self.core.wait_for_inherited(self.nsid, None).await;
        }
    }

    /// Bytes that a command carries at most through the pool.
    pub(crate) fn max_data(&self, queue: &QueuePair) -> usize {
        queue.pool().capacity().min(self.core.max_transfer_bytes())
    }

    /// A command of an opcode for this namespace.
    pub(crate) fn command(&self, opcode: NvmOpcode) -> Command {
        Command { cdw0: Cdw0::new().with_opcode(opcode.0), nsid: self.nsid, ..Command::default() }
    }

    /// A command on a range of blocks, in as many parts as `limit` blocks each ask for, one after the other.
    async fn on_blocks(
        &self,
        cpu: u32,
        opcode: NvmOpcode,
        lba: u64,
        block_count: u64,
        limit: u32,
        change: impl Fn(ReadWriteCdw12) -> ReadWriteCdw12,
    ) -> Result<(), RequestError> {
        self.check_present()?;
        self.check_range(lba, block_count)?;
        let end = lba.saturating_add(block_count);
        let mut at = lba;
        while at < end {
            let part = end.saturating_sub(at).min(limit.clamp(1, 1 << 16).into());
            let mut cdw12 = change(ReadWriteCdw12::new().with_nlb(part.saturating_sub(1) as u16));
            let mut command = self.command(opcode);
            if let Protection::Type(pi) = self.fixed.protection
                && opcode != NvmOpcode::WRITE_UNCORRECTABLE
            {
                let by_lba = pi != 3;
                let info = PrInfo::new().with_pract(true).with_check_guard(true).with_check_reference(by_lba);
                cdw12 = cdw12.with_prinfo(info.into_bits());
                command.cdw14 = if by_lba { at as u32 } else { 0 };
            }
            command.cdw12 = cdw12.into();
            command.set_cdw10_11(at);
            self.execute(cpu, command, Data::None).await?;
            at = at.saturating_add(part);
        }
        Ok(())
    }

    /// A limit that is a power of two in units of CAP.MPSMIN (VSL, WZSL, WUSL), in blocks. 0 is no limit of its own.
    fn size_limit(&self, exponent: u8) -> u32 {
        if exponent == 0 {
            return 1 << 16;
        }
        let bytes = (self.core.registers.cap.min_page_size() as u64).checked_shl(exponent.into()).unwrap_or(u64::MAX);
        let blocks = bytes >> self.fixed.block_shift;
        u32::try_from(blocks).unwrap_or(u32::MAX).clamp(1, 1 << 16)
    }
}

impl Namespace {
    /// Makes what was written before durable (NVM Command Set, Flush).
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn flush(&self, target_cpu: u32) -> Result<(), RequestError> {
        let command = self.inner().command(NvmOpcode::FLUSH);
        self.inner().execute(target_cpu, command, Data::None).await?;
        Ok(())
    }

    /// Makes blocks read as zeroes; with `deallocate`, the device may give them up for that. Split where the
    /// controller limits its size (WZSL).
    ///
    /// # Errors
    /// [`RequestError`]: blocks outside the namespace, or a controller without Write Zeroes; then nothing was sent.
    pub async fn write_zeroes(
        &self,
        target_cpu: u32,
        lba: u64,
        block_count: u64,
        deallocate: bool,
        fua: bool,
    ) -> Result<(), RequestError> {
        let inner = self.inner();
        if !inner.core.identify.oncs.write_zeroes() {
            return Err(RequestError::Unsupported("Write Zeroes"));
        }
        let limit = inner.size_limit(inner.core.nvm.wzsl);
        let change = |cdw12: ReadWriteCdw12| cdw12.with_deac(deallocate).with_fua(fua);
        inner.on_blocks(target_cpu, NvmOpcode::WRITE_ZEROES, lba, block_count, limit, change).await
    }

    /// Makes blocks unreadable until they are written again. Split where the controller limits its size (WUSL).
    ///
    /// # Errors
    /// As [`write_zeroes`](Self::write_zeroes).
    pub async fn write_uncorrectable(&self, target_cpu: u32, lba: u64, block_count: u64) -> Result<(), RequestError> {
        let inner = self.inner();
        if !inner.core.identify.oncs.write_uncorrectable() {
            return Err(RequestError::Unsupported("Write Uncorrectable"));
        }
        let limit = inner.size_limit(inner.core.nvm.wusl);
        inner.on_blocks(target_cpu, NvmOpcode::WRITE_UNCORRECTABLE, lba, block_count, limit, |cdw12| cdw12).await
    }

    /// Has the device check that blocks can be read, without moving them. Split where the controller limits its size
    /// (VSL).
    ///
    /// # Errors
    /// As [`write_zeroes`](Self::write_zeroes).
    pub async fn verify(&self, target_cpu: u32, lba: u64, block_count: u64) -> Result<(), RequestError> {
        let inner = self.inner();
        if !inner.core.identify.oncs.verify() {
            return Err(RequestError::Unsupported("Verify"));
        }
        let limit = inner.size_limit(inner.core.nvm.vsl);
        inner.on_blocks(target_cpu, NvmOpcode::VERIFY, lba, block_count, limit, |cdw12| cdw12).await
    }

    /// Any command of the NVM command set for this namespace, as it is, and once. For what has no method of its own.
    ///
    /// # Errors
    /// [`RequestError`], an error status among them.
    pub async fn command_in(
        &self,
        target_cpu: u32,
        command: Command,
        data: &mut [u8],
    ) -> Result<Completion, RequestError> {
        let command = Command { nsid: self.nsid(), ..command };
        let data = if data.is_empty() { Data::None } else { Data::In(data) };
        self.inner().execute_once(target_cpu, command, data).await
    }
}
