//! Controllers that another process goes on with: saved and restored at any moment, they behave as if nothing had been.

use std::sync::atomic::Ordering;
use std::time::Duration;

use doorbell_device::{Device, DmaMemory};
use doorbell_emulator::{
    CommandMatch, Controller, ControllerConfig, CrossingError, Fault, FaultPlan, NamespaceConfig, SharedRamBackend,
    Storage, Subsystem,
};
use nvme_spec::admin::{create_io_cq, create_io_sq, get_log_page};
use nvme_spec::feature::FeatureId;
use nvme_spec::log::LogId;
use nvme_spec::{AdminOpcode, Command, Completion, DataPointer, NSID_ALL, NvmOpcode};
use proptest::prelude::*;

use crate::features::set;
use crate::harness::{Host, Ring, blocks, bytes, io_command, pattern};

const BLOCKS: u64 = 64;

/// A host whose controller's state can be had by another.
struct Twin {
    host: Host,
    buffer: DmaMemory,
}

fn memory() -> NamespaceConfig {
    let memory = SharedRamBackend::new(BLOCKS * 4096).unwrap();
    NamespaceConfig::new(Storage::Custom(Box::new(memory))).block_size(4096)
}

/// Puts another controller in the place of this one, made from nothing but its state.
pub(crate) fn replace(host: &mut Host) {
    let (bytes, fds) = host.subsystem.save().unwrap();
    let subsystem = Subsystem::restore(&bytes, fds, |_, _, _| None).unwrap();
    host.device.with_controller(|controller| {
        let state = controller.save().unwrap();
        *controller = Controller::restore(&subsystem, &state).unwrap();
    });
    host.subsystem = subsystem;
}

impl Twin {
    fn new() -> Self {
        let subsystem = Subsystem::default();
        subsystem.add_namespace(memory()).unwrap();
        subsystem.add_namespace(NamespaceConfig::null(1 << 30)).unwrap();
        let late = CommandMatch { every: 5, ..CommandMatch::io(NvmOpcode::READ.0) };
        let spoilt = CommandMatch { every: 7, skip: 3, ..CommandMatch::io(NvmOpcode::WRITE.0) };
        let faults = FaultPlan::on(late, Fault::delay(Duration::from_micros(30))).and_on(
            spoilt,
            Fault::CorruptCompletion { cid: None, sqid: None, sqhd: None, status_xor: 6, dw0: Some(9) },
        );
        let config = ControllerConfig { faults, shutdown_after: Duration::from_micros(50), ..Default::default() };
        let mut host = Host::enabled(&subsystem, config);
        // A small queue, so that completions are held back.
        host.create_queue_pair(1, 6);
        let buffer = host.allocate(4 * 4096);
        Self { host, buffer }
    }

    /// Does one thing, and gives what is seen of it.
    fn act(&mut self, step: &Step) -> Vec<Seen> {
        let host = &mut self.host;
        let data = DataPointer::prp(self.buffer.iova(), 0);
        let lba = u64::from(step.number) % BLOCKS;
        let io = |opcode| Command { dptr: data, ..blocks(opcode, lba, 1) };
        let admin = |command: Command| Command { dptr: data, ..command };
        match step.what {
            0..=3 => {
                self.buffer.host().write_at(0, &pattern(step.number.into(), 4096)).unwrap();
                host.submit(1, &io(NvmOpcode::WRITE));
            }
            4..=7 => drop(host.submit(1, &io(NvmOpcode::READ))),
            8 => drop(host.submit(1, &io_command(NvmOpcode::FLUSH))),
            9 => drop(host.submit(1, &blocks(NvmOpcode::WRITE_UNCORRECTABLE, lba, 2))),
            10 => drop(host.submit(1, &io(NvmOpcode::COMPARE))),
            11 => drop(host.submit(0, &AdminOpcode::ASYNC_EVENT_REQUEST.command())),
            12 => drop(host.submit(0, &admin(get_log_page(LogId::ERROR, NSID_ALL, 256, 0)))),
            13 => drop(host.submit(0, &admin(get_log_page(LogId::SMART, NSID_ALL, 512, 0)))),
            14 => drop(host.submit(0, &admin(get_log_page(LogId::CHANGED_NAMESPACES, NSID_ALL, 4096, 0)))),
            15 => drop(host.submit(0, &set(FeatureId::TEMPERATURE_THRESHOLD, step.number % 400))),
            16 => {
                let fid = FeatureId::TEMPERATURE_THRESHOLD.0.into();
                host.submit(0, &Command { cdw10: fid, ..AdminOpcode::GET_FEATURES.command() });
            }
            17 => host.subsystem.resize_namespace(1, (1 + lba) * 4096).unwrap(),
            18 => host.subsystem.set_read_only(1, step.number & 1 != 0).unwrap(),
            19 => {
                let identify = Command { nsid: 1, ..AdminOpcode::IDENTIFY.command() };
                host.submit(0, &admin(identify));
            }
            20 => {
                let ring = Ring::new(&*host.device, 2, 4, 4, host.page, host.dstrd);
                host.submit(0, &create_io_cq(2, 4, ring.cq.iova(), Some(1)));
                host.submit(0, &create_io_sq(2, 4, ring.sq.iova(), 2));
            }
            21 => drop(host.submit(0, &Command { cdw10: 2, ..AdminOpcode::DELETE_IO_SQ.command() })),
            22 => drop(host.submit(0, &Command { cdw10: 2, ..AdminOpcode::DELETE_IO_CQ.command() })),
            // A value that no queue can have.
            23 => host.ring(1).tail_bell.ring(77),
            _ => drop(host.pass(Duration::from_micros(u64::from(step.number % 64)))),
        }
        if step.runs {
            host.step();
        }
        let mut seen = Vec::new();
        for qid in [0, 1] {
            let most = if step.number & 4 != 0 { 32 } else { 0 };
            let taken = std::iter::from_fn(|| host.ring(qid).pop()).take(most);
            seen.extend(taken.map(Seen::Completion));
        }
        seen.push(Seen::Data(bytes(&self.buffer, 4 * 4096)));
        let interrupts = [0, 1].map(|vector| host.device.interrupt(vector).unwrap().take());
        seen.push(Seen::Status(host.csts().into_bits(), interrupts));
        seen
    }
}

#[derive(Debug, PartialEq)]
enum Seen {
    Completion(Completion),
    Data(Vec<u8>),
    Status(u32, [u64; 2]),
}

#[derive(Debug, Clone)]
struct Step {
    what: u8,
    number: u32,
    /// The controller runs after it.
    runs: bool,
    /// Another goes on with the controller after it.
    crosses: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..26u8, any::<u32>(), prop::bool::weighted(0.7), prop::bool::weighted(0.3));
    let step = step.prop_map(|(what, number, runs, crosses)| Step { what, number, runs, crosses });
    prop::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_controller_goes_on_as_if_nothing_had_been(steps in steps()) {
        let (mut stays, mut crosses) = (Twin::new(), Twin::new());
        // More commands than a ring has places for are the host's mistake, which both make alike.
        for step in &steps {
            prop_assert_eq!(stays.act(step), crosses.act(step));
            if step.crosses {
                replace(&mut crosses.host);
            }
        }
    }

    /// Whatever the bytes are, they are refused or make a controller that can be run.
    #[test]
    fn no_state_is_too_strange(at: prop::sample::Index, byte: u8, len: prop::sample::Index) {
        let twin = Twin::new();
        let (bytes, fds) = twin.host.subsystem.save().unwrap();
        let state = twin.host.device.with_controller(|controller| controller.save().unwrap());
        let spoil = |mut bytes: Vec<u8>| {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(bytes.len() - len.index(bytes.len()) * usize::from(byte & 1));
            bytes
        };
        let copies = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
        let _ = Subsystem::restore(&spoil(bytes.clone()), copies, |_, _, _| None);
        let subsystem = Subsystem::restore(&bytes, fds, |_, _, _| None).unwrap();
        if let Ok(restored) = Controller::restore(&subsystem, &spoil(state)) {
            twin.host.device.with_controller(|controller| *controller = restored);
            twin.host.step();
        }
    }
}

#[test]
fn shadow_doorbells_cross() {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(memory()).unwrap();
    let mut host = Host::with_queue(&subsystem, ControllerConfig::default());
    let (values, events) = (host.allocate(4096), host.allocate(4096));
    let dptr = DataPointer::prp(values.iova(), events.iova());
    host.admin_ok(&Command { dptr, ..AdminOpcode::DOORBELL_BUFFER_CONFIG.command() });
    for round in 1..20u32 {
        let flush = io_command(NvmOpcode::FLUSH);
        host.ring(1).push(&flush);
        // Only the shadow is written.
        values.host().dwords()[2].store(round, Ordering::Release);
        replace(&mut host);
        host.step();
        assert!(host.ring(1).peek().is_some_and(|completion| completion.status.is_success()), "{round}");
        let head = host.ring(1);
        head.pop();
        values.host().dwords()[3].store(round, Ordering::Release);
        host.step();
        assert_eq!(events.host().dwords()[2].load(Ordering::Acquire), round, "the next is to be told by a doorbell");
    }
}

#[test]
fn what_cannot_cross_is_refused() {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(memory()).unwrap();
    subsystem.check_crossing().unwrap();
    subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).unwrap();
    assert_eq!(subsystem.check_crossing(), Err(CrossingError::Storage { nsid: 2 }));
    assert_eq!(subsystem.save().unwrap_err(), CrossingError::Storage { nsid: 2 });
    subsystem.remove_namespace(2).unwrap();
    subsystem.check_crossing().unwrap();
}
