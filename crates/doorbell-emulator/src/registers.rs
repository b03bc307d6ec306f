//! The controller's registers (NVMe Base 2.0, "Controller Properties"), and what enabling, disabling and shutting down
//! do to them over time.

use std::time::Duration;

use nvme_spec::registers::{Aqa, Cap, Cc, Crto, Csts, Version, offset};

use crate::config::{ControllerConfig, InterruptMode};
use crate::saved::{nanos, state, time};

/// The registers.
#[derive(Debug)]
pub(crate) struct Registers {
    pub(crate) cap: Cap,
    version: Version,
    crto: Crto,
    pub(crate) cc: Cc,
    pub(crate) csts: Csts,
    pub(crate) aqa: Aqa,
    pub(crate) asq: u64,
    pub(crate) acq: u64,
    /// Which of 32 vectors INTMS has masked.
    pub(crate) masked: u32,
    maskable: bool,
    /// What is under way.
    pub(crate) change: Option<Change>,
    pub(crate) shutdown: Option<Due>,
}

/// A change of CSTS.RDY that takes time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Enabling(Due),
    Disabling(Due),
}

/// When something is done: the moment it began is only known when the controller next runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    takes: Duration,
    at: Option<Duration>,
}

impl Due {
    pub(crate) fn after(takes: Duration) -> Self {
        Self { takes, at: None }
    }

    /// Whether it is done at `now`; where the time is not known, whether it takes none.
    pub(crate) fn is_over(&mut self, now: Option<Duration>) -> bool {
        match now {
            Some(now) => *self.at.get_or_insert(now.saturating_add(self.takes)) <= now,
            None => self.takes.is_zero(),
        }
    }

    pub(crate) fn at(&self) -> Option<Duration> {
        self.at
    }
}

impl Registers {
    pub(crate) fn new(config: &ControllerConfig) -> Self {
        let has_crto = config.version >= Version::V2_0;
        let cap = Cap::new()
            .with_mqes(config.mqes)
            .with_cqr(true)
            .with_to(config.to)
            .with_dstrd(config.dstrd)
            .with_nssrs(config.nssrs)
            .with_css(Cap::CSS_NVM)
            .with_mpsmin(config.mpsmin)
            .with_mpsmax(config.mpsmax)
            .with_crms(if has_crto { Cap::CRMS_WITH_MEDIA } else { 0 });
        let crwmt = config.crwmt.unwrap_or(u16::from(config.to));
        let crto = if has_crto { Crto::new().with_crwmt(crwmt) } else { Crto::new() };
        Self {
            cap,
            version: config.version,
            crto,
            cc: Cc::new(),
            csts: Csts::new(),
            aqa: Aqa::new(),
            asq: 0,
            acq: 0,
            masked: 0,
            maskable: config.interrupts != InterruptMode::MsiX,
            change: None,
            shutdown: None,
        }
    }

    /// The 32-bit register at an offset that is a multiple of 4.
    pub(crate) fn read(&self, offset: usize) -> u32 {
        let low = |value: u64| value as u32;
        let high = |value: u64| (value >> 32) as u32;
        match offset {
            offset::CAP => low(self.cap.into_bits()),
            0x04 => high(self.cap.into_bits()),
            offset::VS => self.version.into_bits(),
            offset::INTMS | offset::INTMC => self.masked,
            offset::CC => self.cc.into_bits(),
            offset::CSTS => self.csts.into_bits(),
            offset::AQA => self.aqa.into_bits(),
            offset::ASQ => low(self.asq),
            0x2c => high(self.asq),
            offset::ACQ => low(self.acq),
            0x34 => high(self.acq),
            offset::CRTO => self.crto.into_bits(),
            // NSSR reads as 0, and so does what is not there: no controller memory buffer, no persistent memory
            // region, no boot partitions.
            _ => 0,
        }
    }

    /// A write to a register without further effect.
    pub(crate) fn write(&mut self, offset: usize, value: u32) {
        let with_low = |register: u64| register & !0xffff_ffff | u64::from(value);
        let with_high = |register: u64| register & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            offset::INTMS if self.maskable => self.masked |= value,
            offset::INTMC if self.maskable => self.masked &= !value,
            offset::CSTS if Csts::from(value).nssro() => self.csts.set_nssro(false),
            offset::AQA => self.aqa = Aqa::from(value & 0x0fff_0fff),
            offset::ASQ => self.asq = with_low(self.asq) & !0xfff,
            0x2c => self.asq = with_high(self.asq),
            offset::ACQ => self.acq = with_low(self.acq) & !0xfff,
            0x34 => self.acq = with_high(self.acq),
            _ => {}
        }
    }

    /// Whether the controller can be enabled as it is set up.
    pub(crate) fn enable_is_valid(&self) -> bool {
        let Self { cap, cc, .. } = self;
        let page = cc.page_size() as u64;
        (cap.mpsmin()..=cap.mpsmax()).contains(&cc.mps())
            && cc.css() == Cc::CSS_NVM
            && cc.ams() == 0
            && self.aqa.asqs() > 0
            && self.aqa.acqs() > 0
            && self.asq.is_multiple_of(page)
            && self.acq.is_multiple_of(page)
            && !cc.crime()
    }

    /// What a controller level reset clears; AQA, ASQ and ACQ stay.
    pub(crate) fn reset(&mut self) {
        self.masked = 0;
        self.shutdown = None;
        self.change = None;
        self.csts = Csts::new().with_rdy(self.csts.rdy()).with_nssro(self.csts.nssro());
    }

    /// Whether they say that commands are taken.
    #[inline]
    pub(crate) fn take_commands(&self) -> bool {
        const ASKED: u32 = Csts::new().with_rdy(true).with_cfs(true).with_shst(0b11).into_bits();
        const READY: u32 = Csts::new().with_rdy(true).into_bits();
        self.csts.into_bits() & ASKED == READY && self.cc.en()
    }

    /// Whether something is going to change by itself.
    #[inline]
    pub(crate) fn will_change(&self) -> bool {
        self.change.is_some() || self.shutdown.is_some()
    }

    /// The earliest time at which something is going to change by itself.
    pub(crate) fn next_change(&self) -> Option<Duration> {
        let ready = self.change.and_then(|change| match change {
            Change::Enabling(due) | Change::Disabling(due) => due.at(),
        });
        [ready, self.shutdown.and_then(|due| due.at())].into_iter().flatten().min()
    }
}

impl Registers {
    pub(crate) fn save(&self) -> state::Registers {
        let (enabling, disabling) = match self.change {
            Some(Change::Enabling(due)) => (Some(due.save()), None),
            Some(Change::Disabling(due)) => (None, Some(due.save())),
            None => (None, None),
        };
        state::Registers {
            cc: self.cc.into_bits(),
            csts: self.csts.into_bits(),
            aqa: self.aqa.into_bits(),
            asq: self.asq,
            acq: self.acq,
            masked: self.masked,
            enabling,
            disabling,
            shutdown: self.shutdown.map(Due::save),
        }
    }

    /// Those of a controller with this configuration.
    pub(crate) fn restore(config: &ControllerConfig, saved: state::Registers) -> Self {
        let enabling = saved.enabling.map(|due| Change::Enabling(Due::restore(due)));
        let disabling = saved.disabling.map(|due| Change::Disabling(Due::restore(due)));
        Self {
            cc: Cc::from_bits(saved.cc),
            csts: Csts::from_bits(saved.csts),
            aqa: Aqa::from_bits(saved.aqa),
            asq: saved.asq,
            acq: saved.acq,
            masked: saved.masked,
            change: enabling.or(disabling),
            shutdown: saved.shutdown.map(Due::restore),
            ..Self::new(config)
        }
    }
}

impl Due {
    fn save(self) -> state::Due {
        state::Due { takes: nanos(self.takes), at: self.at.map(nanos) }
    }

    fn restore(saved: state::Due) -> Self {
        Self { takes: time(saved.takes), at: saved.at.map(time) }
    }
}
