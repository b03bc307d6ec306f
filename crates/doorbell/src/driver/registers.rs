//! The controller's registers, and the waits on them (NVMe Base 2.0, Controller Initialization; Shutdown).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use doorbell_device::{Device, DeviceError};
use nvme_spec::registers::{Aqa, Cap, Cc, Crto, Csts, NSSR_MAGIC, Version, offset};

use crate::error::DriverError;
use crate::runtime::{Runtime, sleep};

/// No controller is given less time than this to become ready or to stop, whatever it says of itself.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// The longest pause between two looks at CSTS; the first ones follow quickly.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

pub(crate) struct Registers {
    device: Arc<dyn Device>,
    runtime: Arc<dyn Runtime>,
    pub(crate) cap: Cap,
    pub(crate) version: Version,
    /// 0 where the controller has no such register.
    pub(crate) crto: Crto,
    ready_wait: Duration,
    /// CC.EN was written as 1 some time: only another write makes sure that it is 0, whatever it reads as.
    enabled: AtomicBool,
}

impl Registers {
    /// Reads what never changes.
    pub(crate) fn new(device: Arc<dyn Device>, runtime: Arc<dyn Runtime>) -> Result<Self, DriverError> {
        let cap = read_cap(&*device)?;
        let read = || DriverError::device("reading the controller's registers");
        let version = Version::from(device.read32(offset::VS).map_err(read())?);
        let crto = if cap.crms() != 0 { device.read32(offset::CRTO).map_err(read())? } else { 0 };
        Ok(Self::known(device, runtime, (cap, version, Crto::from(crto))))
    }

    /// With what never changes as it is known already.
    pub(crate) fn known(
        device: Arc<dyn Device>,
        runtime: Arc<dyn Runtime>,
        (cap, version, crto): (Cap, Version, Crto),
    ) -> Self {
        let mut ready_wait = Duration::from_millis(cap.timeout_ms().into());
        if cap.crms() != 0 {
            let units = crto.crwmt().max(crto.crimt());
            ready_wait = ready_wait.max(Duration::from_millis(500).saturating_mul(units.into()));
        }
        let ready_wait = ready_wait.max(SHORTEST_WAIT);
        Self { device, runtime, cap, version, crto, ready_wait, enabled: AtomicBool::new(false) }
    }

    /// The controller was enabled by another driver.
    pub(crate) fn note_enabled(&self) {
        self.enabled.store(true, Ordering::Relaxed);
    }

    /// CAP, as it reads now.
    pub(crate) fn read_cap(&self) -> Result<Cap, DriverError> {
        read_cap(&*self.device)
    }

    pub(crate) fn csts(&self) -> Result<Csts, DeviceError> {
        match self.device.read32(offset::CSTS)? {
            u32::MAX => Err(DeviceError::Gone("CSTS reads all ones".into())),
            csts => Ok(Csts::from(csts)),
        }
    }

    pub(crate) fn cc(&self) -> Result<Cc, DeviceError> {
        match self.device.read32(offset::CC)? {
            u32::MAX => Err(DeviceError::Gone("CC reads all ones".into())),
            cc => Ok(Cc::from(cc)),
        }
    }

    fn set_cc(&self, cc: Cc) -> Result<(), DriverError> {
        self.device.write32(offset::CC, cc.into()).map_err(DriverError::device("writing CC"))
    }

    /// Waits until CSTS is as wanted. A fatal status ends the wait, unless it is the wait for a stop: a controller
    /// that has failed can still be disabled.
    async fn wait(
        &self,
        what: &'static str,
        limit: Duration,
        fatal_ends: bool,
        wanted: impl Fn(Csts) -> bool,
    ) -> Result<(), DriverError> {
        let started = self.runtime.now();
        let mut pause = Duration::from_micros(50);
        loop {
            // The time first: a look after it was up counts.
            let waited = self.runtime.now().saturating_sub(started);
            let csts = self.csts().map_err(DriverError::device("reading CSTS"))?;
            if wanted(csts) {
                return Ok(());
            }
            if fatal_ends && csts.cfs() {
                return Err(DriverError::Fatal { what, csts: csts.into() });
            }
            if waited >= limit {
                let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                return Err(DriverError::TimedOut { what, waited_ms, csts: csts.into() });
            }
            sleep(&*self.runtime, pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    /// CC.EN = 0, and CSTS.RDY read as 0 after: the controller then touches no memory.
    pub(crate) async fn disable(&self) -> Result<(), DriverError> {
        let cc = self.cc().map_err(DriverError::device("reading CC"))?;
        if cc.en() {
            let csts = self.csts().map_err(DriverError::device("reading CSTS"))?;
            if !csts.rdy() && !csts.cfs() && csts.shst() == Csts::SHST_NONE {
                // Clearing EN before RDY came is undefined; a controller stuck there is disabled all the same.
                let _ = self.wait("become ready", self.ready_wait, true, |csts| csts.rdy()).await;
            }
        }
        if cc.en() || self.enabled.load(Ordering::Relaxed) {
            self.set_cc(cc.with_en(false).with_shn(Cc::SHN_NONE))?;
        }
        self.wait("stop", self.ready_wait, false, |csts| !csts.rdy()).await
    }

    /// Resets the NVM subsystem, and with it all of its controllers. That this one has stopped is for
    /// [`disable`](Self::disable) to see.
    pub(crate) fn reset_subsystem(&self) -> Result<(), DeviceError> {
        self.device.write32(offset::NSSR, NSSR_MAGIC)
    }

    /// Where the admin queue is, then CC.EN = 1, and CSTS.RDY read as 1.
    pub(crate) async fn enable(&self, entries: u16, sq: u64, cq: u64, page_size: usize) -> Result<(), DriverError> {
        let last = entries.saturating_sub(1);
        let aqa = Aqa::new().with_asqs(last).with_acqs(last);
        let write = || DriverError::device("setting up the admin queue");
        self.device.write32(offset::AQA, aqa.into()).map_err(write())?;
        self.device.write64(offset::ASQ, sq).map_err(write())?;
        self.device.write64(offset::ACQ, cq).map_err(write())?;
        let css = if self.cap.css() & Cap::CSS_IOCS != 0 { Cc::CSS_ALL } else { Cc::CSS_NVM };
        // A page of 4 KiB is 0 in CC.MPS.
        let mps = page_size.trailing_zeros().saturating_sub(12) as u8;
        let cc = Cc::new().with_css(css).with_mps(mps).with_iosqes(6).with_iocqes(4).with_en(true);
        self.enabled.store(true, Ordering::Relaxed);
        self.set_cc(cc)?;
        self.wait("become ready", self.ready_wait, true, |csts| csts.rdy()).await
    }

    /// CC.SHN = 01b, and CSTS.SHST read as complete: caches are flushed and nothing is lost.
    pub(crate) async fn shut_down(&self, limit: Duration) -> Result<(), DriverError> {
        let cc = self.cc().map_err(DriverError::device("reading CC"))?;
        if !cc.en() {
            return Ok(());
        }
        self.set_cc(cc.with_shn(Cc::SHN_NORMAL))?;
        self.wait("shut down", limit, true, |csts| csts.shst() == Csts::SHST_COMPLETE).await
    }
}

fn read_cap(device: &dyn Device) -> Result<Cap, DriverError> {
    match device.read64(offset::CAP).map_err(DriverError::device("reading the controller's registers"))? {
        u64::MAX => Err(DriverError::NotThere),
        cap => Ok(Cap::from(cap)),
    }
}
