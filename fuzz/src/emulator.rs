//! The emulated controllers, and a host that does whatever the bytes say.
//!
//! Two controllers of one subsystem and the memory that their host shares: registers, doorbells, commands, PRP lists and SGLs
//! anywhere. Whatever it is: nothing panics, each step has an end, and a reset brings the controller back.

use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use doorbell_device::inprocess::{InProcess, Run};
use doorbell_device::{Device, DmaMemory};
use doorbell_emulator::{Controller, ControllerConfig, NamespaceConfig, SglSupport, Subsystem, emulated};
use nvme_spec::identify::PiType;
use nvme_spec::registers::{Aqa, Cc, Csts, offset};
use nvme_spec::sgl::{SglDescriptor, SglId};
use nvme_spec::{AdminOpcode, Cdw0, Command, Completion, DataPointer, admin};
use zerocopy::{FromBytes, IntoBytes};

/// Pages of memory that the host shares with each controller.
const PAGES: u64 = 64;
/// Entries of each queue.
const ENTRIES: u32 = 32;
/// Queue pairs with a place of their own in memory: SQ n at page 2n, CQ n at page 2n + 1. Data begins after them.
const QUEUES: u16 = 3;

/// An address: mostly in shared memory.
#[derive(Arbitrary)]
enum Address {
    Page(u8),
    Near(u8, u16),
    Any(u64),
}

#[derive(Arbitrary)]
enum Pointer {
    Prp(Address, Address),
    Block(Address, u16),
    Segment(Address, u8),
    Any([u64; 2]),
}

#[derive(Arbitrary)]
enum Act {
    /// A command and its doorbell, as a host that knows what it does.
    Send {
        queue: u8,
        opcode: u8,
        flags: u8,
        nsid: u8,
        pointer: Pointer,
        dwords: [Dword; 6],
    },
    /// An Identify, a Get Log Page or a Get Features.
    Ask {
        which: u8,
        what: u8,
        nsid: u8,
        len: u16,
    },
    /// A command of whatever bits.
    Raw {
        queue: u8,
        words: [u64; 8],
    },
    Doorbell {
        index: u8,
        value: u16,
    },
    Register {
        dword: u8,
        value: u32,
    },
    /// An entry of a PRP list, or any word.
    Word {
        place: u16,
        value: Address,
    },
    Descriptor {
        place: u16,
        address: Address,
        length: u32,
        kind: u8,
    },
    Bytes {
        place: u16,
        bytes: [u8; 32],
    },
    Time(u16),
    /// Disabled, enabled and with queues.
    Again,
    Reset,
    Switch,
}

#[derive(Arbitrary)]
enum Dword {
    Zero,
    Small(u8),
    Word(u16),
    Any(u32),
}

impl Dword {
    fn value(&self) -> u32 {
        match *self {
            Dword::Zero => 0,
            Dword::Small(value) => value.into(),
            Dword::Word(value) => value.into(),
            Dword::Any(value) => value,
        }
    }
}

/// One controller, as its host sees it.
struct Host {
    device: Arc<InProcess<Controller>>,
    memory: DmaMemory,
    tails: [u32; QUEUES as usize],
    heads: [u32; QUEUES as usize],
    phases: [bool; QUEUES as usize],
    cid: u16,
}

impl Host {
    fn new(subsystem: &Subsystem, config: ControllerConfig) -> Option<Self> {
        let device = emulated(subsystem, config, Run::Stepped).ok()?;
        let memory = device.allocate(PAGES as usize * 4096, 1 << 16).ok()?;
        Some(Self { device, memory, tails: [0; 3], heads: [0; 3], phases: [true; 3], cid: 0 })
    }

    fn page(&self, page: u64) -> u64 {
        self.memory.iova() + page % PAGES * 4096
    }

    fn address(&self, address: &Address) -> u64 {
        match *address {
            Address::Page(page) => self.page(page.into()),
            Address::Near(page, at) => self.page(page.into()).wrapping_add(at.into()),
            Address::Any(address) => address,
        }
    }

    fn pointer(&self, pointer: &Pointer) -> (DataPointer, u8) {
        let segment = |address, length, last| match last {
            true => SglDescriptor::last_segment(address, length),
            false => SglDescriptor::segment(address, length),
        };
        match pointer {
            Pointer::Prp(first, second) => (DataPointer::prp(self.address(first), self.address(second)), 0),
            Pointer::Block(at, len) => {
                (DataPointer::sgl(SglDescriptor::data_block(self.address(at), u32::from(*len) * 16)), 1)
            }
            Pointer::Segment(at, count) => {
                let (length, last) = (u32::from(count / 2) * 16, count % 2 == 0);
                (DataPointer::sgl(segment(self.address(at), length, last)), 1)
            }
            Pointer::Any(words) => (DataPointer(*words), 1),
        }
    }

    /// Puts a command into a ring and rings; takes what was completed.
    fn send(&mut self, queue: u16, command: &Command) {
        let queue = queue % QUEUES;
        let at = usize::from(queue);
        self.cid = self.cid.wrapping_add(1);
        let command = Command { cdw0: command.cdw0.with_cid(self.cid), ..*command };
        let place = usize::from(queue) * 2 * 4096 + self.tails[at] as usize * 64;
        let _ = self.memory.host().write_at(place, command.as_bytes());
        self.tails[at] = (self.tails[at] + 1) % ENTRIES;
        self.ring(2 * queue, self.tails[at]);
    }

    fn take(&mut self) {
        for queue in 0..QUEUES {
            let at = usize::from(queue);
            for _ in 0..ENTRIES {
                let mut entry = [0; 16];
                let place = (usize::from(queue) * 2 + 1) * 4096 + self.heads[at] as usize * 16;
                let _ = self.memory.host().read_at(place, &mut entry);
                let Ok(completion) = Completion::read_from_bytes(&entry) else { break };
                if completion.status.phase() != self.phases[at] {
                    break;
                }
                self.heads[at] += 1;
                if self.heads[at] == ENTRIES {
                    self.heads[at] = 0;
                    self.phases[at] = !self.phases[at];
                }
                self.ring(2 * queue + 1, self.heads[at]);
            }
        }
    }

    fn ring(&self, index: u16, value: u32) {
        let stride = 4 << (self.device.read64(offset::CAP).unwrap_or_default() >> 32 & 0xf);
        let _ = self.device.write32(offset::DOORBELLS + usize::from(index) * stride, value);
    }

    fn enable(&mut self, now: Duration) {
        let _ = self.device.write32(offset::CC, 0);
        self.device.step(now);
        let bytes = vec![0; QUEUES as usize * 2 * 4096];
        let _ = self.memory.host().write_at(0, &bytes);
        (self.tails, self.heads, self.phases) = ([0; 3], [0; 3], [true; 3]);
        let last = ENTRIES as u16 - 1;
        let _ = self.device.write32(offset::AQA, Aqa::new().with_asqs(last).with_acqs(last).into_bits());
        let _ = self.device.write64(offset::ASQ, self.page(0));
        let _ = self.device.write64(offset::ACQ, self.page(1));

        let cc = Cc::new().with_en(true).with_iosqes(6).with_iocqes(4);
        let _ = self.device.write32(offset::CC, cc.into_bits());
        self.device.step(now);
    }

    fn create_queues(&mut self, now: Duration) {
        for queue in 1..QUEUES {
            let (sq, cq) = (self.page(u64::from(queue) * 2), self.page(u64::from(queue) * 2 + 1));
            self.send(0, &admin::create_io_cq(queue, ENTRIES, cq, Some(queue)));
            self.send(0, &admin::create_io_sq(queue, ENTRIES, sq, queue));
        }
        self.device.step(now);
        self.take();
    }

    fn is_ready(&self) -> bool {
        Csts::from(self.device.read32(offset::CSTS).unwrap_or_default()).rdy()
    }

    fn act(&mut self, act: &Act, now: Duration) {
        let at = |place: u16| usize::from(place) * 16 % (PAGES as usize * 4096 - 64);
        match act {
            Act::Send { queue, opcode, flags, nsid, pointer, dwords } => {
                let (dptr, psdt) = self.pointer(pointer);
                // Most commands are not fused.
                let fuse = if flags % 16 > 12 { flags / 16 % 4 } else { 0 };
                let psdt = if flags % 16 == 0 { flags / 16 % 4 } else { psdt };
                let cdw0 = Cdw0::new().with_opcode(*opcode).with_fuse(fuse).with_psdt(psdt);
                let [cdw10, cdw11, cdw12, cdw13, cdw14, cdw15] = dwords.each_ref().map(Dword::value);
                let (nsid, mptr) =
                    (if *nsid == 255 { u32::MAX } else { (*nsid % 8).into() }, self.page((*flags).into()));
                let command =
                    Command { cdw0, nsid, mptr, dptr, cdw10, cdw11, cdw12, cdw13, cdw14, cdw15, ..Command::default() };
                self.send((*queue).into(), &command);
            }
            Act::Ask { which, what, nsid, len } => {
                let opcodes = [
                    AdminOpcode::IDENTIFY,
                    AdminOpcode::GET_LOG_PAGE,
                    AdminOpcode::GET_FEATURES,
                    AdminOpcode::SET_FEATURES,
                    AdminOpcode::ASYNC_EVENT_REQUEST,
                    AdminOpcode::ABORT,
                ];
                let opcode = opcodes[usize::from(*which) % opcodes.len()];
                let dptr = DataPointer::prp(self.page(8), self.page(9));
                let (nsid, cdw11) = ((*nsid % 8).into(), (*len).into());
                let cdw10 = u32::from(*what) | u32::from(*len) << 16;
                self.send(0, &Command { nsid, dptr, cdw10, cdw11, ..opcode.command() });
            }
            Act::Raw { queue, words } => self.send((*queue).into(), &Command::from_words(*words)),
            Act::Doorbell { index, value } => self.ring((index % 16).into(), (*value).into()),
            Act::Register { dword, value } => {
                let _ = self.device.write32(usize::from(*dword) * 4, *value);
                let _ = self.device.read32(usize::from(*dword) * 4);
            }
            Act::Word { place, value } => {
                let value = self.address(value);
                let _ = self.memory.host().write_at(at(*place) / 2, &value.to_le_bytes());
            }
            Act::Descriptor { place, address, length, kind } => {
                let mut descriptor = SglDescriptor::data_block(self.address(address), *length);
                descriptor.id = SglId::from_bits(*kind);
                let _ = self.memory.host().write_at(at(*place), descriptor.as_bytes());
            }
            Act::Bytes { place, bytes } => drop(self.memory.host().write_at(at(*place), bytes)),
            Act::Again => {
                self.enable(now);
                self.create_queues(now);
            }
            Act::Reset => drop(self.device.reset()),
            Act::Time(_) | Act::Switch => {}
        }
        self.device.step(now);
        self.take();
    }
}

/// What the controllers can do, as drawn.
fn config(input: &mut Unstructured<'_>) -> arbitrary::Result<ControllerConfig> {
    let default = match input.int_in_range(0..=3)? {
        3u8 => ControllerConfig::nvme_1_0(),
        _ => ControllerConfig::default(),
    };
    let sgl = [SglSupport::default(), SglSupport::None, SglSupport::Dwords];
    Ok(ControllerConfig {
        mdts: input.int_in_range(0..=2)?,
        dstrd: input.int_in_range(0..=1)?,
        sgl: sgl[input.int_in_range(0..=2usize)?],
        queue_pairs: 4,
        vectors: 4,
        latency: (input.int_in_range(0..=1u8)? == 1).then_some(Duration::from_micros(50)),
        ..default
    })
}

/// Emulated controllers with an arbitrary host.
pub fn emulator(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let subsystem = Subsystem::default();
    let namespaces = [
        NamespaceConfig::ram(1 << 20).block_size(4096),
        NamespaceConfig::ram(1 << 20).protection(PiType::TYPE1),
        NamespaceConfig::null(1 << 60),
    ];
    for namespace in namespaces {
        let _ = subsystem.add_namespace(namespace);
    }
    let Ok(config) = config(&mut input) else { return };
    let hosts = [config.clone(), ControllerConfig { latency: None, ..config }];
    let Some(mut hosts): Option<Vec<Host>> = hosts.into_iter().map(|config| Host::new(&subsystem, config)).collect()
    else {
        return;
    };
    let mut now = Duration::ZERO;
    for host in &mut hosts {
        host.act(&Act::Again, now);
    }
    let mut current = 0;
    while !input.is_empty() {
        let Ok(act) = Act::arbitrary(&mut input) else { break };
        match act {
            Act::Switch => current = 1 - current,
            Act::Time(units) => now += Duration::from_micros(100) * units.into(),
            _ => {}
        }
        hosts[current].act(&act, now);
        now += Duration::from_micros(1);
    }
    for host in &mut hosts {
        // However it was treated, a reset brings it back.
        let _ = host.device.reset();
        host.enable(now);
        assert!(host.is_ready(), "it does not come back");
        host.create_queues(now);
    }
}
