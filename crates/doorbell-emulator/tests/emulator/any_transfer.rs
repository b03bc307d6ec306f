//! PRPs and SGLs of random shape, against a model: the same pieces, written down by hand.

use doorbell_device::DmaMemory;
use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem};
use nvme_spec::sgl::SglDescriptor;
use nvme_spec::{Cdw0, Command, DataPointer, NvmOpcode};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::harness::{Host, blocks, bytes, pattern};

/// Bytes of the memory that pieces are cut from.
const ARENA: usize = 1 << 20;

fn host(mpsmin: u8, shift: u32) -> Host {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::ram(16 << 20).block_size(1 << shift)).unwrap();
    Host::with_queue(&subsystem, ControllerConfig { mpsmin, mdts: 0, ..Default::default() })
}

/// Writes the pieces of `arena` that `command` describes, reads them back into another arena, and compares.
fn round_trip(host: &mut Host, arena: &DmaMemory, command: Command, pieces: &[(usize, usize)], lba: u64) {
    let before = pattern(lba, ARENA);
    arena.host().write_at(0, &before).unwrap();
    let mut write = blocks(NvmOpcode::WRITE, lba, command.cdw12 + 1);
    write = Command { cdw0: write.cdw0.with_psdt(command.cdw0.psdt()), dptr: command.dptr, ..write };
    host.io_ok(&write);
    let data: Vec<u8> = pieces.iter().flat_map(|(at, len)| &before[*at..at + len]).copied().collect();
    // What was stored, read through one plain buffer.
    let plain = host.allocate(data.len());
    let (dptr, _lists) = host.prp(&plain, 0, data.len() as u64);
    host.io_ok(&Command { dptr, ..blocks(NvmOpcode::READ, lba, command.cdw12 + 1) });
    assert!(bytes(&plain, data.len()) == data);
    // Read back into the same pieces, and nowhere else.
    arena.host().zero(0, ARENA).unwrap();
    host.io_ok(&Command { cdw0: write.cdw0.with_opcode(NvmOpcode::READ.0), ..write });
    let mut expected = vec![0; ARENA];
    let mut done = 0;
    for (at, len) in pieces {
        expected[*at..at + len].copy_from_slice(&data[done..done + len]);
        done += len;
    }
    assert!(bytes(arena, ARENA) == expected);
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn prps(
        mpsmin in prop_oneof![Just(0u8), Just(1), Just(4)],
        shift in prop_oneof![Just(9u32), Just(12)],
        count in 1usize..400,
        offset: Index,
        order in Just((0..256usize).collect::<Vec<_>>()).prop_shuffle(),
        list_offset: Index,
        lba in 0u64..100,
    ) {
        let mut host = host(mpsmin, shift);
        let page = host.page as usize;
        let arena = host.allocate(ARENA);
        let len = (count << shift).min(ARENA - page) >> shift << shift;
        let offset = offset.index(page / 4) * 4;
        let order: Vec<usize> = order.into_iter().filter(|index| *index < ARENA / page).collect();
        // Pages of the arena in any order; data begins at an offset into the first.
        let mut pieces = Vec::new();
        let mut rest = len;
        for (index, place) in order.iter().enumerate() {
            let start = if index == 0 { offset } else { 0 };
            let part = rest.min(page - start);
            if part > 0 {
                pieces.push((place * page + start, part));
            }
            rest -= part;
        }
        prop_assume!(rest == 0);
        let entries: Vec<u64> = pieces[1..].iter().map(|(at, _)| arena.iova() + *at as u64).collect();
        let mut lists = Vec::new();
        let second = match entries[..] {
            [] => 0,
            [only] => only,
            _ => {
                // The first list page is entered somewhere, which may be at its last entry.
                let slots = page / 8;
                let start = list_offset.index(slots);
                let room = slots - start;
                let first = host.allocate(page);
                let address = first.iova() + start as u64 * 8;
                if entries.len() <= room {
                    for (index, entry) in entries.iter().enumerate() {
                        first.host().write_at((start + index) * 8, &entry.to_le_bytes()).unwrap();
                    }
                } else {
                    let (early, late) = entries.split_at(room - 1);
                    lists = host.lists(late);
                    for (index, entry) in early.iter().chain([&lists[0].iova()]).enumerate() {
                        first.host().write_at((start + index) * 8, &entry.to_le_bytes()).unwrap();
                    }
                }
                lists.push(first);
                address
            }
        };
        let dptr = DataPointer::prp(arena.iova() + pieces[0].0 as u64, second);
        let command = Command { cdw12: (len >> shift) as u32 - 1, dptr, ..Command::default() };
        round_trip(&mut host, &arena, command, &pieces, lba);
    }

    #[test]
    fn sgls(
        cuts in prop::collection::vec((any::<Index>(), 1usize..9000), 1..40),
        segments in prop::collection::vec(1usize..6, 1..20),
        lba in 0u64..100,
    ) {
        let mut host = host(0, 9);
        let arena = host.allocate(ARENA);
        // Pieces that do not overlap: each in a stretch of the arena of its own.
        let stretch = ARENA / cuts.len();
        let mut pieces: Vec<(usize, usize)> = cuts
            .iter()
            .enumerate()
            .map(|(index, (at, len))| {
                let len = (*len).min(stretch);
                (index * stretch + at.index(stretch - len + 1), len)
            })
            .collect();
        let total: usize = pieces.iter().map(|(_, len)| len).sum();
        let count = (total / 512).max(1);
        // Made a whole number of blocks by what the last piece has.
        let excess = total as isize - (count * 512) as isize;
        let last = pieces.last_mut().unwrap();
        prop_assume!(last.1 as isize > excess);
        last.1 = (last.1 as isize - excess) as usize;
        prop_assume!(last.0 + last.1 <= ARENA);
        let descriptors: Vec<SglDescriptor> =
            pieces.iter().map(|(at, len)| SglDescriptor::data_block(arena.iova() + *at as u64, *len as u32)).collect();
        // Cut into segments of these lengths, and linked from the last to the first.
        let mut groups = Vec::new();
        let mut rest = &descriptors[..];
        let mut lengths = segments.iter().cycle();
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*lengths.next().unwrap()).min(rest.len()));
            groups.push(now.to_vec());
            rest = later;
        }
        let mut memories = Vec::new();
        let mut next: Option<SglDescriptor> = None;
        for mut group in groups.into_iter().rev() {
            let is_last = next.is_none();
            group.extend(next);
            let memory = host.allocate(group.len() * 16);
            memory.host().write_at(0, zerocopy::IntoBytes::as_bytes(group.as_slice())).unwrap();
            let (address, len) = (memory.iova(), group.len() as u32 * 16);
            next = Some(if is_last {
                SglDescriptor::last_segment(address, len)
            } else {
                SglDescriptor::segment(address, len)
            });
            memories.push(memory);
        }
        let command = Command {
            cdw0: Cdw0::new().with_psdt(Cdw0::PSDT_SGL),
            cdw12: count as u32 - 1,
            dptr: DataPointer::sgl(next.unwrap()),
            ..Command::default()
        };
        round_trip(&mut host, &arena, command, &pieces, lba);
    }
}
