//! A host that writes anything anywhere: nothing panics, nothing takes for ever, and a reset brings the controller back.

use std::time::Duration;

use doorbell_device::Device;
use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem};
use nvme_spec::identify::PiType;
use nvme_spec::registers::Cc;
use nvme_spec::{Cdw0, Command, DataPointer};
use proptest::prelude::*;

use crate::harness::{Host, Ring};

/// An address: often one that is mapped, sometimes anything.
fn address(base: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0u64..16).prop_map(move |page| base + page * 4096),
        2 => (0u64..65_536).prop_map(move |at| base + at),
        1 => any::<u64>(),
    ]
}

fn dword() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0u32..8, 2 => 0u32..0x1_0000, 1 => any::<u32>(), 1 => Just(u32::MAX)]
}

fn opcode() -> impl Strategy<Value = u8> {
    prop_oneof![8 => 0u8..0x1a, 1 => any::<u8>(), 1 => prop_oneof![Just(0x7cu8), Just(0x80)]]
}

fn command(base: u64) -> impl Strategy<Value = Command> {
    let cdw0 = (opcode(), 0u8..4, 0u8..4, any::<u16>()).prop_map(|(opcode, fuse, psdt, cid)| {
        // Most commands are neither fused nor odd.
        Cdw0::new().with_opcode(opcode).with_fuse(fuse & fuse >> 1).with_psdt(psdt).with_cid(cid)
    });
    let dwords = prop::array::uniform6(dword());
    (cdw0, 0u32..5, address(base), [address(base), address(base)], dwords, any::<bool>()).prop_map(
        |(cdw0, nsid, mptr, prp, [cdw10, cdw11, cdw12, cdw13, cdw14, cdw15], all)| Command {
            cdw0,
            nsid: if all && nsid == 4 { u32::MAX } else { nsid },
            cdw2: cdw15,
            cdw3: cdw14,
            mptr,
            dptr: DataPointer(prp),
            cdw10,
            cdw11,
            cdw12,
            cdw13,
            cdw14,
            cdw15,
        },
    )
}

/// Something that the host does.
#[derive(Debug, Clone)]
enum Act {
    Send(bool, Command),
    Doorbell(usize, u32),
    Register(usize, u32),
    Scribble(usize, u64),
    Pass(u64),
}

fn act(base: u64) -> impl Strategy<Value = Act> {
    let sgl = (0u8..5, 0u64..16, 0u32..64)
        .prop_map(move |(kind, page, units)| (base + page * 4096, u64::from(units * 16) | u64::from(kind) << 60));
    prop_oneof![
        30 => (any::<bool>(), command(base)).prop_map(|(admin, command)| Act::Send(admin, command)),
        2 => (0usize..16, prop_oneof![0u32..300, any::<u32>()]).prop_map(|(index, value)| Act::Doorbell(index, value)),
        1 => (0usize..32, any::<u32>()).prop_map(|(index, value)| Act::Register(index * 4, value)),
        4 => (0usize..8192, address(base)).prop_map(|(word, value)| Act::Scribble(word, value)),
        4 => (0usize..4096, sgl).prop_map(|(word, (_, high))| Act::Scribble(word * 2 + 1, high)),
        1 => (0u64..1_000_000).prop_map(Act::Pass),
    ]
}

/// The address at which the first thing that is mapped here always lies.
const BASE: u64 = 1 << 32;

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics(acts in prop::collection::vec(act(BASE), 1..250)) {
        let subsystem = Subsystem::default();
        subsystem.add_namespace(NamespaceConfig::ram(1 << 20).block_size(4096)).unwrap();
        subsystem.add_namespace(NamespaceConfig::ram(1 << 20).protection(PiType::TYPE1)).unwrap();
        subsystem.add_namespace(NamespaceConfig::null(1 << 60)).unwrap();
        let mut host = Host::off(&subsystem, ControllerConfig { mdts: 0, ..Default::default() });
        // The admin ring of the harness was mapped first; a larger arena takes the place it leaves behind.
        let arena = host.allocate(64 << 10);
        let shift = arena.iova().wrapping_sub(BASE);
        host.enable();
        host.create_queue_pair(1, 64);
        for act in acts {
            match act {
                Act::Send(admin, command) => {
                    let DataPointer([first, second]) = command.dptr;
                    let dptr = DataPointer([first.wrapping_add(shift), second.wrapping_add(shift)]);
                    let command = Command { dptr, mptr: command.mptr.wrapping_add(shift), ..command };
                    let ring: &mut Ring = if admin { &mut host.admin } else { &mut host.io[0] };
                    ring.push(&command);
                    ring.ring();
                    while ring.pop().is_some() {}
                }
                Act::Doorbell(index, value) => {
                    host.device.write32(0x1000 + index * 4, value).unwrap();
                }
                // Reserved places and the enable bit alike.
                Act::Register(offset, value) => host.device.write32(offset, value).unwrap(),
                Act::Scribble(word, value) => {
                    use std::sync::atomic::Ordering;
                    arena.host().words()[word].store(value.wrapping_add(shift), Ordering::Relaxed);
                }
                Act::Pass(micros) => {
                    host.pass(Duration::from_micros(micros));
                }
            }
            // As often as it says that there may be more to do; if that never ended, so would not the test.
            host.step();
        }
        // However it was treated, a reset brings it back.
        host.write_cc(Cc::new());
        host.pass(Duration::from_secs(1));
        host.device.reset().unwrap();
        host.enable();
        prop_assert!(host.identify(1, 0).is_ok());
    }
}
