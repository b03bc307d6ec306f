use nvme_spec::identify::{
    Cmic, ControllerType, Ctratt, Fna, Frmw, Fuses, IdentifyController, Lpa, Nwpc, Oacs, Oaes, PowerState,
    QueueEntrySize, Sgls, Vwc,
};
use nvme_spec::registers::Version;
use nvme_spec::scalar::{Ascii, Le128};

use crate::admin::features::WARNING_TEMPERATURE;
use crate::config::SglSupport;
use crate::controller::Controller;
use crate::sync::read;

/// The temperature at which it becomes critical, in kelvins: CCTEMP.
const CRITICAL_TEMPERATURE: u16 = 353;

impl Controller {
    /// CNS 01h.
    pub(super) fn identify_controller(&self) -> IdentifyController {
        let config = &self.config;
        let subsystem = self.subsystem.config();
        let version = config.version;
        let [oui2, oui1, oui0] = config.ieee_oui;
        let capacity: u128 = self.subsystem.all().iter().map(|namespace| u128::from(bytes(namespace))).sum();
        let [crdt1, crdt2, crdt3] = config.crdt;
        let nqn = subsystem.nqn.clone().unwrap_or_else(|| default_nqn(&subsystem.serial));
        let mut page = IdentifyController {
            vid: config.vendor_id,
            ssvid: config.vendor_id,
            sn: Ascii::new(&subsystem.serial),
            mn: Ascii::new(&subsystem.model),
            fr: Ascii::new(&config.firmware),
            ieee: [oui0, oui1, oui2],
            cmic: Cmic::new().with_multi_controller(true),
            mdts: config.mdts,
            cntlid: self.port.cntlid,
            ver: if version >= Version::V1_2 { version } else { Version::new() },
            rtd3e: config.rtd3e,
            crdt1,
            crdt2,
            crdt3,
            oaes: Oaes::new().with_namespace_attribute(config.namespace_notices),
            ctratt: Ctratt::new().with_host_id_128(config.host_id_128),
            cntrltype: if version >= Version::V1_4 { ControllerType::IO } else { ControllerType::NOT_REPORTED },
            oacs: Oacs::new().with_format(config.format).with_doorbell_buffer_config(config.doorbell_buffer_config),
            acl: config.acl,
            aerl: config.aerl,
            frmw: Frmw::new().with_first_slot_read_only(true).with_slots(1),
            lpa: Lpa::new()
                .with_effects(config.effects_log)
                .with_extended(config.extended_log)
                .with_supported_pages(version >= Version::V2_0),
            elpe: config.elpe,
            wctemp: WARNING_TEMPERATURE,
            cctemp: CRITICAL_TEMPERATURE,
            tnvmcap: Le128::new(capacity),
            sqes: QueueEntrySize::new().with_required(6).with_maximum(6),
            cqes: QueueEntrySize::new().with_required(4).with_maximum(4),
            nn: self.max_nsid(),
            mnan: if version >= Version::V1_4 { subsystem.max_namespaces } else { 0 },
            oncs: self.oncs(),
            fuses: Fuses::new().with_compare_and_write(config.compare_and_write),
            fna: Fna::new(),
            vwc: self.vwc(),
            awun: config.awun,
            awupf: config.awupf,
            nwpc: Nwpc::new().with_write_protect(version >= Version::V1_4),
            acwu: config.acwu,
            cdfs: u16::from(config.oncs.copy()),
            sgls: sgls(config.sgl),
            psd: [PowerState::default(); 32],
            ..IdentifyController::default()
        };
        if version >= Version::V1_2 {
            // Ended by NUL, unlike the strings padded with spaces.
            for (to, from) in page.subnqn.0.iter_mut().take(223).zip(nqn.bytes()) {
                *to = from;
            }
        }
        if let Some(state) = page.psd.first_mut() {
            // 25 W.
            state.mp = 2500;
        }
        page
    }

    fn vwc(&self) -> Vwc {
        let flush_all = match (self.config.version >= Version::V1_4, self.config.flush_all) {
            (false, _) => 0,
            (true, false) => 2,
            (true, true) => 3,
        };
        Vwc::new().with_present(self.config.volatile_write_cache).with_flush_all(flush_all)
    }
}

fn sgls(support: SglSupport) -> Sgls {
    match support {
        SglSupport::None => Sgls::new(),
        SglSupport::Bytes => Sgls::new()
            .with_supported(1)
            .with_bit_bucket(true)
            .with_metadata_byte_aligned(true)
            .with_longer_than_data(true)
            .with_metadata_sgl(true),
        SglSupport::Dwords => Sgls::new().with_supported(2),
    }
}

fn default_nqn(serial: &str) -> String {
    format!("nqn.2014-08.org.nvmexpress:doorbell:{serial}")
}

fn bytes(namespace: &crate::namespace::Namespace) -> u64 {
    let state = read(&namespace.state);
    state.layout.bytes(state.blocks)
}
