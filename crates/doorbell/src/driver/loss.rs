//! Noticing that the device is taken away, without touching it.

use std::future::poll_fn;
use std::sync::Arc;

use doorbell_device::Interrupt;

use super::core::Core;
use crate::error::DeviceFailed;

impl Core {
    /// The life of the task that waits for the device to be asked back, or to be found dead.
    pub(crate) async fn watch_for_loss(self: Arc<Self>, loss: Interrupt) {
        let mut watch = match self.options.runtime.watch(loss) {
            Ok(watch) => watch,
            Err(error) => return tracing::error!(%error, "the loss of the device cannot be waited for"),
        };
        let lost = async {
            loop {
                let signalled = poll_fn(|context| watch.poll(context)).await;
                match (self.device.check_present(), signalled) {
                    (Err(error), _) => return DeviceFailed::Lost(error.to_string()),
                    (Ok(()), Ok(())) => {}
                    (Ok(()), Err(error)) => {
                        tracing::error!(%error, "the loss of the device can no longer be waited for");
                        std::future::pending::<()>().await;
                    }
                }
            }
        };
        let lost = async { Some(lost.await) };
        let ended = async {
            self.wait_not_running().await;
            None
        };
        if let Some(lost) = futures_lite::future::or(lost, ended).await {
            self.failure.failed(lost);
        }
    }
}
