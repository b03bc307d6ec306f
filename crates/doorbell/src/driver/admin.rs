//! Admin commands.

use std::sync::Arc;
use std::time::Duration;

use nvme_spec::admin::{
    AbortCdw10, AbortResult, FormatNvmCdw10, GetFeaturesCdw10, IdentifyCdw10, IdentifyCdw11, SetFeaturesCdw10,
    get_log_page,
};
use nvme_spec::feature::FeatureId;
use nvme_spec::identify::cns::Cns;
use nvme_spec::log::LogId;
use nvme_spec::{AdminOpcode, Command, Completion};

use super::failure::Failure;
use crate::error::{DeviceFailed, RequestError};
use crate::memory::Layout;
use crate::queue::pooled::{self, Data};
use crate::queue::{Notes, QueuePair, Token};
use crate::runtime::{Runtime, sleep};

/// The admin queue and what waits on it.
pub(crate) struct Admin {
    pub(crate) queue: Arc<QueuePair>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) failure: Arc<Failure>,
    pub(crate) layout: Layout,
    pub(crate) limit: Duration,
}

impl Admin {
    /// Sends a command and waits for its completion. One that is not answered in time has the device given up.
    pub(crate) async fn command(&self, command: Command, data: Data<'_>) -> Result<Completion, RequestError> {
        self.command_if(|| Ok(()), command, data).await
    }

    /// As [`command`](Self::command), if `check` still allows it when there is room for it.
    pub(crate) async fn command_if(
        &self,
        check: impl Fn() -> Result<(), RequestError>,
        command: Command,
        data: Data<'_>,
    ) -> Result<Completion, RequestError> {
        match self.exchange(check, command, data, Some(self.limit)).await? {
            Some(completion) => Ok(completion),
            None => Err(self.stuck(command.cdw0.opcode())),
        }
    }

    /// Sees that a command of the process before is answered in time, which begins now.
    pub(crate) async fn expect(&self, opcode: u8, token: Token, sequence: u64) {
        if self.in_time(Some(self.limit), self.queue.wait_for(token, sequence)).await.is_none() {
            self.stuck(opcode);
        }
    }

    /// Waits for what the device is to answer, but not for ever: `None` when the time is up first. It begins anew when the queue
    /// was held still meanwhile, since nobody heard what the device said.
    async fn in_time<T>(&self, limit: Option<Duration>, answer: impl Future<Output = T>) -> Option<T> {
        let Some(limit) = limit else { return Some(answer.await) };
        futures_lite::future::or(async { Some(answer.await) }, async {
            loop {
                let before = self.queue.stillness();
                sleep(&*self.runtime, limit).await;
                if before.is_multiple_of(2) && self.queue.stillness() == before {
                    return None;
                }
            }
        })
        .await
    }

    /// A command was not answered in time: the device is given up, or reset.
    fn stuck(&self, opcode: u8) -> RequestError {
        let state = self.queue.inspect();
        let queue = format!(
            "head {}, phase {}, {} submitted, {} completed, {} interrupts seen",
            state.cq_head,
            u8::from(state.phase),
            state.counters.submitted,
            state.counters.completed,
            state.counters.interrupts
        );
        let failed = DeviceFailed::AdminTimeout { opcode, seconds: self.limit.as_secs(), queue };
        tracing::error!(%failed, "giving the device up");
        self.failure.failed(failed.clone());
        RequestError::Failed(failed)
    }

    /// As [`command`](Self::command), for commands that may take as long as they like.
    pub(crate) async fn command_unbounded(&self, command: Command, data: Data<'_>) -> Result<Completion, RequestError> {
        let completion = self.exchange(|| Ok(()), command, data, None).await?;
        // Without a limit, it is there.
        completion.ok_or(RequestError::Gone)
    }

    /// What goes with a command that is submitted now: the time, for whoever wants to know its age.
    pub(crate) fn notes(&self) -> Notes {
        Notes { tag: self.runtime.now().as_nanos() as u64, ..Notes::default() }
    }

    /// `None` if the device did not answer within `limit`. Waiting for a place in the queue is no fault of the device.
    async fn exchange(
        &self,
        check: impl Fn() -> Result<(), RequestError>,
        command: Command,
        data: Data<'_>,
        limit: Option<Duration>,
    ) -> Result<Option<Completion>, RequestError> {
        // Admin commands carry PRPs only (NVMe over PCIe).
        let layout = Layout { sgl: false, ..self.layout };
        let max = self.queue.pool().capacity();
        let submitted = pooled::submit(&self.queue, layout, max, || self.notes(), check, command, data).await?;
        self.in_time(limit, submitted.completion()).await.transpose()
    }

    /// Identify (NVMe Base 2.0, Identify command): 4096 bytes.
    pub(crate) async fn identify(&self, cns: Cns, nsid: u32, csi: u8) -> Result<Box<[u8; 4096]>, RequestError> {
        let mut bytes = Box::new([0; 4096]);
        let command = Command {
            nsid,
            cdw10: IdentifyCdw10::new().with_cns(cns).into(),
            cdw11: IdentifyCdw11::new().with_csi(csi).into(),
            ..AdminOpcode::IDENTIFY.command()
        };
        self.command(command, Data::In(&mut bytes[..])).await?;
        Ok(bytes)
    }

    pub(crate) async fn get_features(
        &self,
        fid: FeatureId,
        sel: u8,
        nsid: u32,
        cdw11: u32,
        data: &mut [u8],
    ) -> Result<u32, RequestError> {
        let cdw10 = GetFeaturesCdw10::new().with_fid(fid).with_sel(sel).into();
        let command = Command { nsid, cdw10, cdw11, ..AdminOpcode::GET_FEATURES.command() };
        let data = if data.is_empty() { Data::None } else { Data::In(data) };
        Ok(self.command(command, data).await?.dw0)
    }

    pub(crate) async fn set_features(
        &self,
        fid: FeatureId,
        save: bool,
        nsid: u32,
        cdw11: u32,
        data: &[u8],
    ) -> Result<u32, RequestError> {
        let cdw10 = SetFeaturesCdw10::new().with_fid(fid).with_sv(save).into();
        let command = Command { nsid, cdw10, cdw11, ..AdminOpcode::SET_FEATURES.command() };
        let data = if data.is_empty() { Data::None } else { Data::Out(data) };
        Ok(self.command(command, data).await?.dw0)
    }

    /// Get Log Page of any length, in as many commands as the transfer limit asks for. `retain` keeps the event that
    /// the page belongs to.
    pub(crate) async fn log_page(
        &self,
        lid: LogId,
        nsid: u32,
        retain: bool,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), RequestError> {
        let pages = self.queue.pool().capacity().min(4096 << 4);
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let (part, after) = rest.split_at_mut(rest.len().min(pages));
            let mut command = get_log_page(lid, nsid, part.len() as u64, at);
            // Until the last part is read, the event stays: what is read must be of one moment as far as it can be.
            let retain = retain || !after.is_empty();
            command.cdw10 = nvme_spec::admin::GetLogPageCdw10::from(command.cdw10).with_rae(retain).into();
            self.command(command, Data::In(part)).await?;
            at = at.saturating_add(part.len() as u64);
            rest = after;
        }
        Ok(())
    }

    /// Format NVM: as long as it takes.
    pub(crate) async fn format(&self, nsid: u32, cdw10: FormatNvmCdw10) -> Result<(), RequestError> {
        let command = Command { nsid, cdw10: cdw10.into(), ..AdminOpcode::FORMAT_NVM.command() };
        self.command_unbounded(command, Data::None).await?;
        Ok(())
    }

    /// Abort: whether the command was aborted. Its slot stays taken until its own completion.
    pub(crate) async fn abort(&self, sqid: u16, cid: u16) -> Result<bool, RequestError> {
        let cdw10 = AbortCdw10::new().with_sqid(sqid).with_cid(cid).into();
        let command = Command { cdw10, ..AdminOpcode::ABORT.command() };
        let completion = self.command(command, Data::None).await?;
        Ok(!AbortResult::from(completion.dw0).not_aborted())
    }
}
