//! What most tests begin with: a subsystem, a controller, a driver, a namespace.

use std::future::Future;
use std::sync::Arc;

use doorbell::{DriverOptions, GuestMemory, Namespace, NvmeDriver};
use doorbell_device::inprocess::InProcess;
use doorbell_emulator::{Controller, ControllerConfig, NamespaceConfig, Subsystem};
use doorbell_sim::World;
use vm_memory::{GuestAddress, GuestMemoryMmap};

pub(crate) type Device = Arc<InProcess<Controller>>;

/// A world with one subsystem.
pub(crate) struct Bench {
    pub(crate) world: World,
    pub(crate) subsystem: Subsystem,
}

impl Bench {
    /// Without a namespace.
    pub(crate) fn empty() -> Self {
        Self { world: World::new(), subsystem: Subsystem::default() }
    }

    /// With namespace 1: 16 MiB of RAM in blocks of 512 bytes.
    pub(crate) fn new() -> Self {
        Self::with(NamespaceConfig::ram(16 << 20))
    }

    pub(crate) fn with(namespace: NamespaceConfig) -> Self {
        let bench = Self::empty();
        bench.subsystem.add_namespace(namespace).expect("a namespace");
        bench
    }

    pub(crate) fn device(&self, config: ControllerConfig) -> Device {
        self.world.device(&self.subsystem, config).expect("a device")
    }

    pub(crate) fn options(&self, config: ControllerConfig) -> DriverOptions {
        self.world.options(self.device(config))
    }

    /// A driver of a controller of its own.
    pub(crate) fn driver(&self, config: ControllerConfig) -> NvmeDriver {
        self.run(self.options(config).open()).expect("the controller comes up")
    }

    /// A driver of an ordinary controller, and namespace 1.
    pub(crate) fn up(&self) -> (NvmeDriver, Namespace) {
        let driver = self.driver(ControllerConfig::default());
        let namespace = self.run(driver.namespace(1)).expect("namespace 1");
        (driver, namespace)
    }

    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.world.run(future)
    }
}

/// A guest with `pages` pages from address 0 on, not registered with any driver.
pub(crate) fn guest(pages: usize) -> GuestMemory {
    let mmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), pages * 4096)]).expect("guest memory");
    GuestMemory::new(&mmap).expect("guest memory")
}

/// `len` bytes that differ from place to place and from `seed` to `seed`.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}
