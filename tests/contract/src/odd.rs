//! Fault plans that make devices odd in what Identify says.

use doorbell_emulator::{CommandMatch, Fault, FaultPlan, Patch};
use nvme_spec::AdminOpcode;
use nvme_spec::Status;
use nvme_spec::identify::cns::Cns;
use nvme_spec::identify::{IdentifyNamespace, LbaFormat};
use zerocopy::IntoBytes;

/// Identify with a CNS value.
pub(crate) fn identify(cns: Cns) -> CommandMatch {
    CommandMatch { cdw10: Some(cns.0.into()), ..CommandMatch::admin(AdminOpcode::IDENTIFY.0) }
}

/// Bytes from `offset` on are others.
pub(crate) fn patch(offset: u64, bytes: &[u8]) -> Fault {
    Fault::CorruptData(Patch { offset, set: bytes.to_vec(), ..Patch::default() })
}

/// All namespaces look like `page`.
pub(crate) fn namespaces_are(page: &IdentifyNamespace) -> FaultPlan {
    FaultPlan::on(identify(Cns::NAMESPACE), patch(0, page.as_bytes()))
}

/// 1000 blocks of 512 bytes in the first of `formats` (LBADS and bytes of metadata).
pub(crate) fn page(formats: &[(u8, u16)]) -> IdentifyNamespace {
    let mut page = IdentifyNamespace {
        nsze: 1000,
        ncap: 1000,
        nlbaf: formats.len() as u8 - 1,
        nguid: [7; 16],
        ..IdentifyNamespace::default()
    };
    for (format, (lbads, ms)) in page.lbaf.iter_mut().zip(formats) {
        *format = LbaFormat::new().with_lbads(*lbads).with_ms(*ms);
    }
    page
}

/// Fails with a status that asks for no retry.
pub(crate) fn refused(status: Status) -> Fault {
    Fault::Fail { sct: status.sct(), sc: status.sc(), dnr: true, crd: 0, more: false }
}
