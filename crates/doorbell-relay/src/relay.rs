//! A namespace as storage.

use std::sync::Arc;

use doorbell::Namespace;
use doorbell_emulator::{AtomicUnits, NamespaceConfig, OptimalSizes, Storage};
use nvme_spec::identify::{Dlfeat, NamespaceIds, cns::csi};

use crate::Follower;
use crate::below::{Below, Shared};

/// A namespace of a controller that Doorbell drives, as storage.
pub struct Relay {
    shared: Arc<Shared>,
    below: Below,
}

impl Relay {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { below: Below::new(&shared), shared }
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.shared.namespace
    }

    /// To have what becomes of it become of the namespace above as well.
    #[must_use]
    pub fn follower(&self) -> Follower {
        Follower::new(&self.shared)
    }

    /// A namespace with this storage, and with its identity, block size, limits and preferences.
    #[must_use]
    pub fn config(self) -> NamespaceConfig {
        let namespace = &self.shared.namespace;
        let less_one = |blocks: u32| u16::try_from(blocks.saturating_sub(1)).unwrap_or(u16::MAX);
        let in_blocks = |bytes: u32| bytes.checked_div(namespace.block_size()).unwrap_or_default();
        let id = namespace.id();
        let ids = NamespaceIds { eui64: id.eui64, nguid: id.nguid, uuid: id.uuid, csi: Some(csi::NVM) };
        let (atomic, power_fail) = namespace.atomic_write_units();
        let acwu = self.shared.drive.driver.identify().acwu;
        let (boundary, boundary_offset) = namespace.atomic_boundary();
        let physical = less_one(in_blocks(namespace.physical_block_size()));
        let granularity = namespace.preferred_deallocate_granularity();
        let optimal = OptimalSizes {
            npwg: physical,
            npwa: physical,
            npdg: less_one(granularity),
            npda: 0,
            nows: namespace.optimal_io_size().map_or(physical, |bytes| less_one(in_blocks(bytes))),
            npdgl: if granularity > 1 << 16 { granularity } else { 0 },
        };
        let boundary = if boundary == 0 { [0; 3] } else { [less_one(boundary), boundary_offset, less_one(boundary)] };
        let mut config = NamespaceConfig {
            ids: id.is_known().then_some(ids),
            read_only: namespace.is_read_only(),
            dlfeat: Dlfeat::new().with_read_behavior(namespace.deallocated_read_behavior()),
            atomic: Some(AtomicUnits { nawun: less_one(atomic), nawupf: less_one(power_fail), nacwu: acwu }),
            atomic_boundary: boundary,
            noiob: namespace.optimal_io_boundary(),
            optimal: Some(optimal),
            formats: Vec::new(),
            ..NamespaceConfig::new(Storage::Null { size: 0 })
        }
        .with_format(namespace.block_size(), 0);
        config.storage = Storage::Custom(Box::new(self.below));
        config
    }
}
