//! What a namespace is, as Identify says: its format, identity, size and limits.

use std::sync::Arc;

use nvme_spec::feature::FeatureId;
use nvme_spec::identify::cns::{Cns, csi};
use nvme_spec::identify::{
    IdentifyNamespace, IdentifyNamespaceNvm, LbaFormat, NamespaceIds, NamespaceList, PiFormat, PiType, Rescap,
};
use nvme_spec::registers::Version;
use nvme_spec::{NSID_ALL, Status};
use zerocopy::FromBytes;

use crate::driver::Core;
use crate::error::{DeviceMisbehaved, NamespaceError, NvmeError, RequestError};

/// The most namespaces that are believed in: a list that is longer does not end.
const MOST_NAMESPACES: usize = 1 << 20;
/// The most NSIDs that are tried one by one: controllers without a list have few namespaces.
const MOST_TRIED: u32 = 4096;

/// The identifiers of a namespace, which stay the same wherever it is seen (NVMe Base 2.0, Unique Identifier).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct NamespaceId {
    /// IEEE Extended Unique Identifier.
    pub eui64: Option<[u8; 8]>,
    /// Namespace Globally Unique Identifier.
    pub nguid: Option<[u8; 16]>,
    /// UUID.
    pub uuid: Option<[u8; 16]>,
}

impl NamespaceId {
    /// Whether there is any identifier at all.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.eui64.is_some() || self.nguid.is_some() || self.uuid.is_some()
    }
}

/// What is to be done with end-to-end protection information.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub enum Protection {
    /// There is none.
    None,
    /// Type 1, 2 or 3: the controller makes it when writing, checks and strips it when reading (PRACT = 1).
    Type(u8),
}

/// What never changes under a handle: another value is another disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fixed {
    pub(crate) id: NamespaceId,
    /// Bytes of a block's data, as a power of two.
    pub(crate) block_shift: u8,
    /// Bytes of metadata a block.
    pub(crate) metadata: u16,
    /// Whether the metadata lies behind each block's data.
    pub(crate) interleaved: bool,
    pub(crate) protection: Protection,
}

/// What may change, and does no harm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Details {
    pub(crate) read_only: bool,
    pub(crate) shared: bool,
    pub(crate) rescap: Rescap,
    pub(crate) dlfeat: u8,
    pub(crate) deallocate_granularity: u32,
    pub(crate) optimal_write: Option<u32>,
    pub(crate) optimal_write_size: Option<u32>,
    pub(crate) optimal_boundary: u16,
    pub(crate) atomic_write: u32,
    pub(crate) atomic_write_power_fail: u32,
    pub(crate) atomic_compare_write: u32,
    /// Blocks between atomic boundaries, and the offset of the first; 0 for none.
    pub(crate) atomic_boundary: (u32, u16),
    pub(crate) copy_range_blocks: u16,
    pub(crate) copy_blocks: u32,
    pub(crate) copy_ranges: u16,
    pub(crate) capacity: u64,
    pub(crate) utilization: u64,
}

/// A namespace as Identify shows it at a moment.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) block_count: u64,
    pub(crate) fixed: Fixed,
    pub(crate) details: Details,
    pub(crate) pages: Arc<Pages>,
}

/// The pages that all of it is from.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// CNS 00h.
    pub(crate) identify: Box<IdentifyNamespace>,
    /// CNS 05h of the NVM command set, where it was needed and is there.
    pub(crate) nvm: Option<Box<IdentifyNamespaceNvm>>,
    /// CNS 03h.
    pub(crate) ids: NamespaceIds,
}

impl Seen {
    /// What stands for a namespace that is there but cannot be used: equal to none that can.
    pub(crate) fn unusable() -> Self {
        let id = NamespaceId::default();
        let protection = Protection::None;
        Self {
            block_count: 0,
            fixed: Fixed { id, block_shift: 0, metadata: 0, interleaved: false, protection },
            details: Details::of(&IdentifyNamespace::default(), None, 0, 0),
            pages: Arc::default(),
        }
    }

    /// What the pages of namespace `nsid` say, of a controller with these atomic write units.
    pub(crate) fn of(nsid: u32, pages: Pages, (awun, awupf): (u16, u16)) -> Result<Self, NamespaceError> {
        let (ns, ids, nvm) = (&*pages.identify, &pages.ids, pages.nvm.as_deref());
        if let Some(csi) = ids.csi
            && csi != csi::NVM
        {
            let name = csi::name(csi).unwrap_or("an unknown");
            return Err(NamespaceError::CommandSet { nsid, csi, name });
        }
        if ns.nsze == 0 {
            return Err(NamespaceError::NotFound { nsid });
        }
        let format = lba_format(ns)?;
        let fixed = Fixed {
            id: identity(ids, ns),
            block_shift: format.lbads(),
            metadata: format.ms(),
            interleaved: ns.flbas.metadata_inline(),
            protection: protection(ns, format, nvm)?,
        };
        let (block_count, details) = (ns.nsze, Details::of(ns, nvm, awun, awupf));
        Ok(Seen { block_count, fixed, details, pages: Arc::new(pages) })
    }
}

impl Details {
    fn of(ns: &IdentifyNamespace, nvm: Option<&IdentifyNamespaceNvm>, awun: u16, awupf: u16) -> Self {
        let blocks = |zeroes_based: u16| u32::from(zeroes_based) + 1;
        let features = ns.nsfeat;
        let optimal = features.has_optimal_fields();
        let own_atomics = features.atomic();
        let pick = |own: u16, controllers: u16| if own_atomics && own != 0 { blocks(own) } else { blocks(controllers) };
        let deallocate_granularity = match nvm {
            Some(nvm) if features.has_npdgl() && nvm.npdgl != 0 => nvm.npdgl,
            _ if features.has_npdg() => blocks(ns.npdg),
            _ => 1,
        };
        Self {
            read_only: ns.nsattr.write_protected(),
            shared: ns.nmic.shared(),
            rescap: ns.rescap,
            dlfeat: ns.dlfeat.read_behavior(),
            deallocate_granularity,
            optimal_write: optimal.then(|| blocks(ns.npwg)),
            optimal_write_size: optimal.then(|| blocks(ns.nows)),
            optimal_boundary: ns.noiob,
            atomic_write: pick(ns.nawun, awun),
            atomic_write_power_fail: pick(ns.nawupf, awupf),
            atomic_compare_write: if own_atomics && ns.nacwu != 0 { blocks(ns.nacwu) } else { 0 },
            atomic_boundary: if ns.nabsn != 0 { (blocks(ns.nabsn), ns.nabo) } else { (0, 0) },
            copy_range_blocks: ns.mssrl,
            copy_blocks: ns.mcl,
            copy_ranges: u16::from(ns.msrc) + 1,
            capacity: ns.ncap,
            utilization: ns.nuse,
        }
    }
}

impl Core {
    /// Identifies a namespace and checks that it can be used.
    pub(crate) async fn see_namespace(&self, nsid: u32) -> Result<Seen, NamespaceError> {
        if nsid == 0 || nsid == NSID_ALL {
            return Err(NamespaceError::InvalidNsid { nsid });
        }
        let bytes = self.admin.identify(Cns::NAMESPACE, nsid, 0).await.map_err(|error| match error {
            // A controller may refuse an NSID that it does not have instead of showing zeroes.
            RequestError::Nvme(e) if e.status == Status::INVALID_NAMESPACE_OR_FORMAT && e.do_not_retry => {
                NamespaceError::NotFound { nsid }
            }
            error => NamespaceError::Request(error),
        })?;
        let ns = IdentifyNamespace::read_from_bytes(&bytes[..]).unwrap_or_default();
        let ids = self.descriptors(nsid).await?;
        let usable = ids.csi.is_none_or(|csi| csi == csi::NVM) && ns.nsze != 0 && lba_format(&ns).is_ok();
        let nvm = if usable && (ns.dps.pi_type() != PiType::NONE || ns.nsfeat.has_npdgl()) {
            self.identify_namespace_nvm(nsid).await?
        } else {
            None
        };
        Seen::of(nsid, Pages { identify: Box::new(ns), nvm, ids }, (self.identify.awun, self.identify.awupf))
    }

    /// CNS 05h of the NVM command set; `None` where the controller refuses it.
    async fn identify_namespace_nvm(&self, nsid: u32) -> Result<Option<Box<IdentifyNamespaceNvm>>, RequestError> {
        if self.registers.version < Version::V1_2 {
            return Ok(None);
        }
        match self.admin.identify(Cns::NAMESPACE_CSI, nsid, csi::NVM).await {
            Ok(bytes) => Ok(IdentifyNamespaceNvm::read_from_bytes(&bytes[..]).ok().map(Box::new)),
            Err(RequestError::Nvme(error)) if is_refusal(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// CNS 03h; empty where the controller refuses it.
    async fn descriptors(&self, nsid: u32) -> Result<NamespaceIds, RequestError> {
        if self.registers.version < Version::V1_3 {
            return Ok(NamespaceIds::default());
        }
        match self.admin.identify(Cns::NAMESPACE_DESCRIPTORS, nsid, 0).await {
            Ok(bytes) => Ok(NamespaceIds::parse(&bytes[..])),
            // A passing failure must not look like a namespace that has lost its identity.
            Err(RequestError::Nvme(error)) if is_refusal(&error) => {
                tracing::debug!(nsid, %error, "no identification descriptors");
                Ok(NamespaceIds::default())
            }
            Err(error) => Err(error),
        }
    }

    /// The identifiers of a namespace, whether it can be used or not.
    pub(crate) async fn namespace_id(&self, nsid: u32) -> Result<NamespaceId, NamespaceError> {
        let ids = self.descriptors(nsid).await?;
        let bytes = self.admin.identify(Cns::NAMESPACE, nsid, 0).await?;
        let ns = IdentifyNamespace::read_from_bytes(&bytes[..]).unwrap_or_default();
        let id = identity(&ids, &ns);
        if ns.nsze == 0 && !id.is_known() {
            return Err(NamespaceError::NotFound { nsid });
        }
        Ok(id)
    }

    /// The active namespaces, ascending.
    pub(crate) async fn list_namespaces(&self) -> Result<Vec<u32>, RequestError> {
        if self.registers.version < Version::V1_1 {
            // There was no list then, and a controller that knows one bit of CNS only would answer another question.
            return self.try_namespaces().await;
        }
        let mut nsids: Vec<u32> = Vec::new();
        loop {
            let after = nsids.last().copied().unwrap_or(0);
            let bytes = match self.admin.identify(Cns::ACTIVE_NAMESPACES, after, 0).await {
                Ok(bytes) => bytes,
                Err(RequestError::Nvme(error)) if after == 0 && is_refusal(&error) => {
                    return self.try_namespaces().await;
                }
                Err(error) => return Err(error),
            };
            let list = NamespaceList::read_from_bytes(&bytes[..]).unwrap_or_default();
            for nsid in list.iter() {
                let bad = |why| DeviceMisbehaved::BadData {
                    what: "an NSID of the active namespace list",
                    value: nsid.into(),
                    why,
                };
                if nsid <= nsids.last().copied().unwrap_or(0) || nsid > 0xffff_fffe {
                    return Err(bad("the list is not ascending").into());
                }
                if nsids.len() == MOST_NAMESPACES {
                    return Err(bad("the list does not end").into());
                }
                nsids.push(nsid);
            }
            if !list.is_full() {
                return Ok(nsids);
            }
        }
    }

    /// The namespaces of a controller without a list: the NSIDs from 1 to NN, less those without a size.
    async fn try_namespaces(&self) -> Result<Vec<u32>, RequestError> {
        let mut nsids = Vec::new();
        if self.identify.nn > MOST_TRIED {
            tracing::warn!(nn = self.identify.nn, "only the first {MOST_TRIED} namespaces are looked for");
        }
        for nsid in 1..=self.identify.nn.min(MOST_TRIED) {
            match self.admin.identify(Cns::NAMESPACE, nsid, 0).await {
                Ok(bytes) => {
                    if IdentifyNamespace::read_from_bytes(&bytes[..]).is_ok_and(|ns| ns.nsze != 0) {
                        nsids.push(nsid);
                    }
                }
                Err(RequestError::Nvme(error)) if is_refusal(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(nsids)
    }

    /// Turns the volatile write cache on or off, where there is one.
    pub(crate) async fn volatile_write_cache_enabled(&self) -> Result<bool, RequestError> {
        if !self.identify.vwc.present() {
            return Ok(false);
        }
        let value = self.admin.get_features(FeatureId::VOLATILE_WRITE_CACHE, 0, 0, 0, &mut []).await?;
        Ok(value & 1 != 0)
    }
}

/// Whether a status means that there is no such thing, and not that something went wrong for now. Controllers do not
/// always say Do Not Retry when they should.
fn is_refusal(error: &NvmeError) -> bool {
    let refusals =
        [Status::INVALID_FIELD_IN_COMMAND, Status::INVALID_COMMAND_OPCODE, Status::INVALID_NAMESPACE_OR_FORMAT];
    error.do_not_retry || refusals.contains(&error.status)
}

/// The format in use. Where there are 16 or more, the index has two more bits.
fn lba_format(ns: &IdentifyNamespace) -> Result<LbaFormat, NamespaceError> {
    let high = if ns.nlbaf >= 16 { ns.flbas.index_high() } else { 0 };
    let index = ns.flbas.index_low() | high << 4;
    let count = u16::from(ns.nlbaf).saturating_add(ns.nulbaf.into()).saturating_add(1);
    let count = u8::try_from(count.min(64)).unwrap_or(64);
    let format = match ns.lbaf.get(usize::from(index)) {
        Some(format) if index < count => *format,
        _ => return Err(NamespaceError::FlbasInvalid { index, count }),
    };
    match format.lbads() {
        9..=16 => Ok(format),
        _ => Err(NamespaceError::LbaFormatInvalid(format)),
    }
}

/// Whether the controller can take care of the metadata: if it is nothing but 8 bytes of protection information.
fn protection(
    ns: &IdentifyNamespace,
    format: LbaFormat,
    nvm: Option<&IdentifyNamespaceNvm>,
) -> Result<Protection, NamespaceError> {
    let pi = ns.dps.pi_type();
    if pi == PiType::NONE {
        return Ok(Protection::None);
    }
    let index = usize::from(ns.lba_format_index());
    let extended = nvm.and_then(|nvm| nvm.elbaf.get(index)).map(|elbaf| elbaf.pif());
    let guard16 = extended.is_none_or(|pif| pif == PiFormat::GUARD_16);
    if format.ms() == 8 && guard16 {
        return Ok(Protection::Type(pi.0));
    }
    // More metadata than the protection information, or a wider guard: PRACT alone does not take care of it.
    Err(NamespaceError::Metadata { bytes: format.ms() })
}

fn identity(ids: &NamespaceIds, ns: &IdentifyNamespace) -> NamespaceId {
    let some = |bytes: [u8; 16]| (bytes != [0; 16]).then_some(bytes);
    let eui64 = (ns.eui64 != [0; 8]).then_some(ns.eui64);
    NamespaceId { eui64: ids.eui64.or(eui64), nguid: ids.nguid.or_else(|| some(ns.nguid)), uuid: ids.uuid }
}
