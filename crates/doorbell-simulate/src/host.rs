//! A host: a device, the driver that a program has for it, and the program's memory.

use std::sync::Arc;
use std::time::Duration;

use doorbell::{GuestMemory, HostId, Namespace, NvmeDriver, PAGE_SIZE, Recovery, Retries};
use doorbell_device::inprocess::InProcess;
use doorbell_device::wrap::{DmaLedger, FaultInjector, Rule};
use doorbell_device::{Access, Device, HostMemory};
use doorbell_emulator::{Controller, ControllerConfig, SglSupport, Subsystem};
use doorbell_sim::World;

use crate::agreement::host_id;
use crate::blame::Blame;
use crate::fault::{Kind, Planted};
use crate::handover::Held;
use crate::scenario::Setup;

/// Pages of guest memory.
const PAGES: u64 = 512;

pub(crate) struct Host {
    pub(crate) device: Arc<InProcess<Controller>>,
    pub(crate) injector: Arc<FaultInjector>,
    pub(crate) ledger: Arc<DmaLedger>,
    pub(crate) driver: Option<Arc<NvmeDriver>>,
    /// By NSID less one: a handle, and which disk it is for.
    pub(crate) namespaces: Vec<Option<(Arc<Namespace>, usize)>>,
    pub(crate) memory: GuestMemory,
    /// The same, as the driver knows it.
    pub(crate) registered: Option<GuestMemory>,
    pub(crate) free_pages: Vec<u64>,
    /// Pages that a dropped command may still use.
    pub(crate) quarantine: Vec<u64>,
    pub(crate) planted: Planted,
    /// The device works no more.
    pub(crate) dead: bool,
    /// A driver that was dropped may still be stopping the device.
    pub(crate) leaving: bool,
    pub(crate) blame: Blame,
    pub(crate) held: Option<Held>,
}

impl Host {
    pub(crate) fn new(world: &World, subsystem: &Subsystem, setup: &Setup) -> Result<Self, String> {
        let device = world.device(subsystem, controller(setup)).map_err(|error| error.to_string())?;
        let ledger = DmaLedger::new(device.clone());
        let injector = FaultInjector::new(ledger.clone(), [] as [Rule; 0]);
        let host = HostMemory::allocate(PAGES as usize * PAGE_SIZE).map_err(|error| error.to_string())?;
        let memory = GuestMemory::builder().region(0, host, Access::ReadWrite).build();
        Ok(Self {
            device,
            injector,
            ledger,
            driver: None,
            namespaces: vec![None; setup.namespaces.into()],
            memory: memory.map_err(|error| error.to_string())?,
            registered: None,
            // In no order, so that pages that belong together lie apart.
            free_pages: (0..PAGES).map(|page| page * 197 % PAGES).collect(),
            quarantine: Vec::new(),
            planted: Planted::new(),
            dead: false,
            leaving: false,
            blame: Blame::default(),
            held: None,
        })
    }

    /// Another device takes the place of one that works no more.
    pub(crate) fn replace_device(&mut self, world: &World, subsystem: &Subsystem, setup: &Setup) -> Result<(), String> {
        world.unplug(&self.device);
        let new = Self::new(world, subsystem, setup)?;
        self.device = new.device;
        self.ledger = new.ledger;
        self.injector = new.injector;
        self.planted = new.planted;
        self.dead = false;
        self.blame.of_a_new_device();
        Ok(())
    }

    pub(crate) fn options(&self, world: &World, setup: &Setup, index: usize) -> doorbell::DriverOptions {
        let recovery = match setup.resets {
            0 => Recovery::none(),
            resets => Recovery::default().resets(resets, Duration::from_secs(600)).replay(setup.replay),
        };
        let device: Arc<dyn Device> = self.injector.clone();
        world
            .options(device)
            .cpus(setup.cpus)
            .depth(setup.depth)
            .completion(setup.completion)
            .bounce_pool(setup.bounce_pages * PAGE_SIZE)
            .always_bounce(setup.always_bounce)
            .sgl(setup.sgl)
            .admin_timeout(Duration::from_secs(2))
            .io_timeout(Some(Duration::from_millis(setup.io_timeout_ms)))
            .shutdown_timeout(Duration::from_secs(1))
            .recovery(recovery)
            .retries(Retries::default().times(setup.retries))
            .host_id(HostId::Short(host_id(index)))
    }

    /// What has struck of the faults that were put in.
    pub(crate) fn struck(&self) -> Vec<Kind> {
        let applied = self.device.with_controller(|controller| controller.faults_applied());
        self.planted.struck(&applied, &self.injector)
    }

    /// Raises an interrupt on each vector where one was lost.
    pub(crate) fn interrupt(&self) {
        if !self.struck().iter().any(|kind| matches!(kind, Kind::InterruptLost | Kind::InterruptLostOutside)) {
            return;
        }
        for vector in 0..self.ledger.interrupt_count() {
            if let Ok(interrupt) = self.ledger.interrupt(vector) {
                interrupt.raise();
            }
        }
    }

    /// Whether the device works no more by now.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead && !self.to_come().contains(&Kind::Gone)
    }

    pub(crate) fn take_pages(&mut self, bytes: usize) -> Option<Vec<u64>> {
        let count = bytes.div_ceil(PAGE_SIZE);
        let at = self.free_pages.len().checked_sub(count)?;
        Some(self.free_pages.split_off(at))
    }
}

fn controller(setup: &Setup) -> ControllerConfig {
    ControllerConfig {
        queue_pairs: setup.queue_pairs,
        vectors: setup.vectors,
        mdts: setup.mdts,
        sgl: if setup.sgl { SglSupport::Bytes } else { SglSupport::None },
        volatile_write_cache: setup.volatile_cache,
        latency: (setup.latency_us > 0).then(|| Duration::from_micros(setup.latency_us)),
        ready_after: Duration::from_millis(setup.ready_ms),
        disable_after: Duration::from_millis(setup.ready_ms / 2),
        crdt: [2, 5, 10],
        ..ControllerConfig::default()
    }
}
