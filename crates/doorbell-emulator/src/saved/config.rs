//! What a controller can do. All of it crosses, so that a host sees the same controller whoever goes on with it.

use nvme_spec::identify::Oncs;
use nvme_spec::registers::Version;

use super::values::fixed;
use super::{StateError, bad, nanos, narrow, state, time};
use crate::config::{ControllerConfig, Descriptors, InterruptMode, SglSupport};
use crate::fault::FaultPlan;

impl state::Config {
    pub(crate) fn save(config: &ControllerConfig) -> Self {
        Self {
            version: config.version.into_bits(),
            vendor_id: config.vendor_id.into(),
            ieee_oui: config.ieee_oui.into(),
            firmware: config.firmware.clone(),
            queue_pairs: config.queue_pairs.into(),
            mqes: config.mqes.into(),
            dstrd: config.dstrd.into(),
            mpsmin: config.mpsmin.into(),
            mpsmax: config.mpsmax.into(),
            mdts: config.mdts.into(),
            sgl: match config.sgl {
                SglSupport::None => 0,
                SglSupport::Bytes => 1,
                SglSupport::Dwords => 2,
            },
            vectors: config.vectors.into(),
            interrupts: match config.interrupts {
                InterruptMode::MsiX => 0,
                InterruptMode::Msi => 1,
                InterruptMode::Pin => 2,
            },
            ready_after: nanos(config.ready_after),
            disable_after: nanos(config.disable_after),
            shutdown_after: nanos(config.shutdown_after),
            to: config.to.into(),
            crwmt: config.crwmt.map(Into::into),
            rtd3e: config.rtd3e,
            crdt: config.crdt.map(u32::from).into(),
            nssrs: config.nssrs,
            aerl: config.aerl.into(),
            acl: config.acl.into(),
            elpe: config.elpe.into(),
            oncs: config.oncs.into_bits().into(),
            format: config.format,
            doorbell_buffer_config: config.doorbell_buffer_config,
            compare_and_write: config.compare_and_write,
            volatile_write_cache: config.volatile_write_cache,
            flush_all: config.flush_all,
            host_id_128: config.host_id_128,
            wzsl: config.wzsl.into(),
            wusl: config.wusl.into(),
            vsl: config.vsl.into(),
            dmrl: config.dmrl.into(),
            dmrsl: config.dmrsl,
            dmsl: config.dmsl,
            awun: config.awun.into(),
            awupf: config.awupf.into(),
            acwu: config.acwu.into(),
            identify_nvm_controller: config.identify_nvm_controller,
            descriptors: match config.descriptors {
                Descriptors::Full => 0,
                Descriptors::Empty => 1,
                Descriptors::Refused => 2,
            },
            effects_log: config.effects_log,
            extended_log: config.extended_log,
            namespace_notices: config.namespace_notices,
            latency: config.latency.map(nanos),
            housekeeping: config.housekeeping.map(nanos),
        }
    }

    /// The fault plan crosses by itself, as it is now.
    pub(crate) fn restore(self) -> Result<ControllerConfig, StateError> {
        let crdt = self.crdt.iter().map(|crdt| narrow("CRDT", *crdt)).collect::<Result<Vec<u16>, _>>()?;
        let config = ControllerConfig {
            version: Version::from_bits(self.version),
            vendor_id: narrow("VID", self.vendor_id)?,
            ieee_oui: fixed("IEEE OUI", &self.ieee_oui)?,
            firmware: self.firmware,
            queue_pairs: narrow("queue pairs", self.queue_pairs)?,
            mqes: narrow("MQES", self.mqes)?,
            dstrd: narrow("DSTRD", self.dstrd)?,
            mpsmin: narrow("MPSMIN", self.mpsmin)?,
            mpsmax: narrow("MPSMAX", self.mpsmax)?,
            mdts: narrow("MDTS", self.mdts)?,
            sgl: match self.sgl {
                0 => SglSupport::None,
                1 => SglSupport::Bytes,
                2 => SglSupport::Dwords,
                other => return bad(format!("SGL support {other}")),
            },
            vectors: narrow("vectors", self.vectors)?,
            interrupts: match self.interrupts {
                0 => InterruptMode::MsiX,
                1 => InterruptMode::Msi,
                2 => InterruptMode::Pin,
                other => return bad(format!("interrupts of kind {other}")),
            },
            ready_after: time(self.ready_after),
            disable_after: time(self.disable_after),
            shutdown_after: time(self.shutdown_after),
            to: narrow("CAP.TO", self.to)?,
            crwmt: self.crwmt.map(|crwmt| narrow("CRWMT", crwmt)).transpose()?,
            rtd3e: self.rtd3e,
            crdt: crdt.try_into().or_else(|_| bad("not three CRDTs"))?,
            nssrs: self.nssrs,
            aerl: narrow("AERL", self.aerl)?,
            acl: narrow("ACL", self.acl)?,
            elpe: narrow("ELPE", self.elpe)?,
            oncs: Oncs::from_bits(narrow("ONCS", self.oncs)?),
            format: self.format,
            doorbell_buffer_config: self.doorbell_buffer_config,
            compare_and_write: self.compare_and_write,
            volatile_write_cache: self.volatile_write_cache,
            flush_all: self.flush_all,
            host_id_128: self.host_id_128,
            wzsl: narrow("WZSL", self.wzsl)?,
            wusl: narrow("WUSL", self.wusl)?,
            vsl: narrow("VSL", self.vsl)?,
            dmrl: narrow("DMRL", self.dmrl)?,
            dmrsl: self.dmrsl,
            dmsl: self.dmsl,
            awun: narrow("AWUN", self.awun)?,
            awupf: narrow("AWUPF", self.awupf)?,
            acwu: narrow("ACWU", self.acwu)?,
            identify_nvm_controller: self.identify_nvm_controller,
            descriptors: match self.descriptors {
                0 => Descriptors::Full,
                1 => Descriptors::Empty,
                2 => Descriptors::Refused,
                other => return bad(format!("descriptors {other}")),
            },
            effects_log: self.effects_log,
            extended_log: self.extended_log,
            namespace_notices: self.namespace_notices,
            latency: self.latency.map(time),
            housekeeping: self.housekeeping.map(time),
            faults: FaultPlan::default(),
        };
        Ok(config.normalised())
    }
}
