use nvme_spec::identify::{
    Dlfeat, Dpc, Dps, ExtendedLbaFormat, Flbas, IdentifyNamespace, IdentifyNamespaceIndependent, IdentifyNamespaceNvm,
    IndependentNsfeat, Mc, Nmic, Nsattr, Nsfeat, Nstat, Rescap,
};
use nvme_spec::registers::Version;
use nvme_spec::scalar::Le128;

use crate::config::ControllerConfig;
use crate::controller::Controller;
use crate::namespace::{Namespace, State};
use crate::sync::read;

impl Controller {
    /// CNS 00h.
    pub(super) fn identify_namespace(&self, namespace: &Namespace) -> IdentifyNamespace {
        let state = read(&namespace.state);
        let config = &state.config;
        let version = self.config.version;
        let [nabsn, nabo, nabspf] = config.atomic_boundary;
        let index = config.format as u8;
        let mut page = IdentifyNamespace {
            nsze: state.blocks,
            ncap: state.blocks,
            nuse: state.blocks,
            nsfeat: nsfeat(&state),
            nlbaf: u8::try_from(config.formats.len().saturating_sub(1)).unwrap_or(u8::MAX),
            flbas: Flbas::new()
                .with_index_low(index & 0xf)
                .with_index_high(index >> 4 & 0b11)
                .with_metadata_inline(state.layout.inline),
            mc: Mc::new().with_inline(true).with_separate(true),
            dpc: Dpc::new().with_type1(true).with_type2(true).with_type3(true).with_first(true).with_last(true),
            dps: Dps::new().with_pi_type(state.layout.protection),
            nmic: Nmic::new().with_shared(config.shared),
            rescap: self.rescap(&state),
            dlfeat: if version >= Version::V1_3 { config.dlfeat } else { Dlfeat::new() },
            nabsn,
            nabo,
            nabspf,
            noiob: config.noiob,
            nvmcap: Le128::new(u128::from(state.layout.bytes(state.blocks))),
            nsattr: Nsattr::new().with_write_protected(state.write_protected),
            nguid: if version >= Version::V1_2 { state.ids.nguid.unwrap_or_default() } else { [0; 16] },
            eui64: if version >= Version::V1_1 { state.ids.eui64.unwrap_or_default() } else { [0; 8] },
            ..IdentifyNamespace::default()
        };
        if let Some(atomic) = config.atomic {
            (page.nawun, page.nawupf, page.nacwu) = (atomic.nawun, atomic.nawupf, atomic.nacwu);
        }
        if let Some(optimal) = config.optimal {
            (page.npwg, page.npwa, page.npdg, page.npda, page.nows) =
                (optimal.npwg, optimal.npwa, optimal.npdg, optimal.npda, optimal.nows);
        }
        if self.config.oncs.copy() {
            (page.mssrl, page.mcl, page.msrc) = (config.mssrl, config.mcl, config.msrc);
        }
        for (to, from) in page.lbaf.iter_mut().zip(&config.formats) {
            *to = *from;
        }
        page
    }

    fn rescap(&self, state: &State) -> Rescap {
        if self.config.oncs.reservations() { state.config.rescap } else { Rescap::new() }
    }
}

fn nsfeat(state: &State) -> Nsfeat {
    let optperf = match state.config.optimal {
        None => 0,
        Some(optimal) if optimal.npdgl != 0 => 2,
        Some(_) => 1,
    };
    Nsfeat::new().with_atomic(state.config.atomic.is_some()).with_optperf(optperf)
}

/// CNS 05h of the NVM command set.
pub(super) fn command_set_specific(state: &State) -> IdentifyNamespaceNvm {
    IdentifyNamespaceNvm {
        elbaf: [ExtendedLbaFormat::new(); 64],
        npdgl: state.config.optimal.map_or(0, |optimal| optimal.npdgl),
        ..IdentifyNamespaceNvm::default()
    }
}

/// CNS 08h.
pub(super) fn independent(state: &State, config: &ControllerConfig) -> IdentifyNamespaceIndependent {
    IdentifyNamespaceIndependent {
        nsfeat: IndependentNsfeat::new(),
        nmic: Nmic::new().with_shared(state.config.shared),
        rescap: if config.oncs.reservations() { state.config.rescap } else { Rescap::new() },
        nsattr: Nsattr::new().with_write_protected(state.write_protected),
        nstat: Nstat::new().with_ready(true),
        ..IdentifyNamespaceIndependent::default()
    }
}
