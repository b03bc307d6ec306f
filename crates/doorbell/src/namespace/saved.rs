//! A namespace that crosses over to another process.

use std::sync::Arc;
use std::sync::PoisonError;

use nvme_spec::identify::{IdentifyNamespace, IdentifyNamespaceNvm, NamespaceIds};
use zerocopy::{FromBytes, IntoBytes};

use super::Inner;
use super::info::{Pages, Seen};
use crate::driver::Core;
use crate::error::NamespaceError;
use crate::saved;

impl Inner {
    pub(crate) fn save(&self) -> saved::Namespace {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        saved::Namespace {
            nsid: self.nsid,
            removed: self.is_removed(),
            carry_metadata: self.carry_metadata,
            block_count: self.block_count(),
            identify: pages.identify.as_bytes().to_vec(),
            nvm: pages.nvm.as_ref().map(|nvm| nvm.as_bytes().to_vec()),
            eui64: pages.ids.eui64.map(Vec::from),
            nguid: pages.ids.nguid.map(Vec::from),
            uuid: pages.ids.uuid.map(Vec::from),
        }
    }
}

impl Core {
    /// Keeps a handle of the process before for who asks for it here.
    ///
    /// # Errors
    /// If it makes no sense.
    pub(crate) fn inherit_namespace(self: &Arc<Self>, saved: &saved::Namespace) -> Result<(), NamespaceError> {
        fn exact<const LEN: usize>(bytes: &Option<Vec<u8>>) -> Option<[u8; LEN]> {
            bytes.as_deref().and_then(|bytes| bytes.try_into().ok())
        }
        let ids = NamespaceIds {
            eui64: exact(&saved.eui64),
            nguid: exact(&saved.nguid),
            uuid: exact(&saved.uuid),
            csi: None,
        };
        let nvm = saved.nvm.as_deref().and_then(|bytes| IdentifyNamespaceNvm::read_from_bytes(bytes).ok());
        let identify = IdentifyNamespace::read_from_bytes(&saved.identify).unwrap_or_default();
        let pages = Pages { identify: Box::new(identify), nvm: nvm.map(Box::new), ids };
        let seen = Seen::of(saved.nsid, pages, (self.identify.awun, self.identify.awupf))?;
        let seen = Seen { block_count: saved.block_count, ..seen };
        let inner = Arc::new(Inner::new(self.clone(), saved.nsid, seen, saved.carry_metadata)?);
        if saved.removed {
            inner.remove();
        }
        self.namespaces.bequeath(inner);
        Ok(())
    }
}
