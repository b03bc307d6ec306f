//! Doorbell Buffer Config: doorbells in the host's memory.

use doorbell_device::Access;
use nvme_spec::Status;

use super::Call;
use crate::controller::Controller;
use crate::queues::ShadowBuffers;

impl Controller {
    pub(super) fn doorbell_buffer_config(&mut self, call: &Call<'_>) -> Result<u64, Status> {
        let (values, event_indices) = (call.command.dptr.prp1(), call.command.dptr.prp2());
        let page = self.page_size();
        let valid = |address: u64| address != 0 && address.is_multiple_of(u64::from(page));
        if !valid(values) || !valid(event_indices) || values == event_indices {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        let dma = call.host.dma;
        for buffer in [values, event_indices] {
            dma.resolve(buffer, page as usize, Access::ReadWrite).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        }
        let buffers = ShadowBuffers { values, event_indices, len: page };
        let set = self.queues.set_shadow(dma, self.config.dstrd, buffers);
        set.map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        Ok(0)
    }
}
