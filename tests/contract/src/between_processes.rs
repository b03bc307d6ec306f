//! What another process needs, and what it must not do before the controller is its own.

use std::sync::Arc;

use doorbell::{ControllerState, RestoreError};
use doorbell_device::{Device, DeviceError, DmaMemory, Doorbell, HostMemory, Interrupt, MapRequest};
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan};
use nvme_spec::NvmOpcode;
use nvme_spec::feature::FeatureId;

use crate::bench::{Bench, pattern};
use crate::hands::{Watched, gpns, poll, whole};
use crate::spy::Spy;

#[test]
fn h9_who_only_prepares_to_take_over_touches_nothing() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let data = pattern(9, 16 << 10);
    bench.run(w.namespace.write_slice(0, 50, false, &data)).expect("written");
    bench.world.settle();
    for _ in 0..3 {
        let saved = w.driver.save().expect("saved");
        // Not even registers are there, until the device is this one's.
        let elsewhere = Arc::new(Elsewhere(w.spy.clone()));
        let prepared = bench.world.options(elsewhere).prepare_restore(saved.state(), saved.memory().to_vec());
        let prepared = prepared.expect("prepared");
        bench.world.settle();
        drop(prepared);
        drop(saved);
        let mut bytes = vec![0; 16 << 10];
        bench.run(w.namespace.read_slice(1, 50, &mut bytes)).expect("read");
        assert!(bytes == data);
    }
    assert_eq!(w.driver.state(), ControllerState::Running);
    let saved = w.driver.save().expect("saved");
    let options = bench.world.options(w.spy.clone());
    let prepared = options.prepare_restore(saved.state(), saved.memory().to_vec()).expect("prepared");
    saved.hand_over();
    let restored = prepared.take_over().expect("taken over");
    let mut bytes = vec![0; 16 << 10];
    let namespace = bench.run(restored.driver.namespace(1)).expect("namespace 1");
    bench.run(namespace.read_slice(1, 50, &mut bytes)).expect("read");
    assert!(bytes == data);
}

/// A device that another process still has: its doorbells are known, and are not to be rung.
struct Elsewhere(Arc<Spy>);

impl Device for Elsewhere {
    fn address(&self) -> String {
        self.0.address()
    }

    fn read32(&self, offset: usize) -> Result<u32, DeviceError> {
        panic!("register {offset:#x} was read")
    }

    fn read64(&self, offset: usize) -> Result<u64, DeviceError> {
        panic!("register {offset:#x} was read")
    }

    fn write32(&self, offset: usize, _value: u32) -> Result<(), DeviceError> {
        panic!("register {offset:#x} was written")
    }

    fn write64(&self, offset: usize, _value: u64) -> Result<(), DeviceError> {
        panic!("register {offset:#x} was written")
    }

    fn doorbell(&self, offset: usize) -> Result<Doorbell, DeviceError> {
        Ok(Doorbell::from_fn(move |_| panic!("doorbell {offset:#x} was rung")))
    }

    fn map(&self, _request: MapRequest) -> Result<DmaMemory, DeviceError> {
        panic!("memory was mapped")
    }

    fn interrupt_count(&self) -> u32 {
        self.0.interrupt_count()
    }

    fn interrupt(&self, vector: u32) -> Result<Interrupt, DeviceError> {
        self.0.interrupt(vector)
    }

    fn reset(&self) -> Result<(), DeviceError> {
        panic!("the device was reset")
    }
}

/// States that versions before have written, oldest first. None is ever changed; a version that writes others adds one, which
/// this test leaves where `DOORBELL_STATE_TO` says.
const STATES: [&[u8]; 2] = [include_bytes!("../states/v1.state"), include_bytes!("../states/v2.state")];

#[test]
fn h8_what_versions_before_have_written_is_gone_on_with() {
    let bench = Bench::new();
    let w = Watched::with(&bench, ControllerConfig::default(), |options| options.exclusive_queues(1));
    bench.run(w.driver.set_features(FeatureId::ARBITRATION, false, 0, 3, &[])).expect("set");
    let plan = FaultPlan::on(CommandMatch::io(NvmOpcode::WRITE.0), Fault::delay(std::time::Duration::from_secs(1)));
    w.spy.device().with_controller(|controller| controller.set_faults(plan));
    let pages = gpns(0, 4);
    let mut straight = w.namespace.write(0, 8, 32, false, &w.memory, whole(&pages)).tag(77);
    assert!(poll(&mut straight).is_pending());
    let data = pattern(4, 8 << 10);
    let mut bounced = w.namespace.write_slice(0, 100, false, &data).tag(78);
    assert!(poll(&mut bounced).is_pending());
    let mut own = bench.run(w.driver.exclusive_queue()).expect("a queue");
    own.write(&w.namespace, 79, 200, 8, false, &w.memory, whole(&gpns(8, 1))).expect("sent");
    let saved = w.driver.save().expect("saved");
    if let Some(path) = std::env::var_os("DOORBELL_STATE_TO") {
        std::fs::write(path, saved.state()).expect("written");
    }
    for state in STATES.into_iter().chain([saved.state()]) {
        let mut memory = Vec::new();
        let prepared = loop {
            let elsewhere = Arc::new(Elsewhere(w.spy.clone()));
            // It says what memory it speaks of, a piece at a time.
            match bench.world.options(elsewhere).prepare_restore(state, memory.clone()) {
                Err(RestoreError::Memory { index, iova, len }) if index == memory.len() => {
                    let host = HostMemory::allocate(len as usize).expect("memory");
                    memory.push(DmaMemory::new(host, iova, || Ok(())));
                }
                prepared => break prepared.expect("prepared"),
            }
        };
        assert!(!memory.is_empty(), "{prepared:?}");
    }
    drop(saved);
    bench.run(straight).expect("written");
    bench.run(bounced).expect("written");
}
