//! Several pieces of memory in one mapping: there may be only so many of these.

use crate::{DmaMemory, HostMemory, MapRequest};

/// Pieces that lie side by side, in this process and for the device, and what is asked for all of them.
pub(super) struct Group {
    pub(super) request: MapRequest,
    parts: Vec<HostMemory>,
}

/// Puts requests together where each continues the one before.
pub(super) fn merge(requests: Vec<MapRequest>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for request in requests {
        if let Some(last) = groups.last_mut()
            && last.continues(&request)
            && let Some(joined) = HostMemory::joined(&[last.request.host.clone(), request.host.clone()])
        {
            last.request.host = joined;
            last.parts.push(request.host);
            continue;
        }
        groups.push(Group { parts: vec![request.host.clone()], request });
    }
    groups
}

impl Group {
    fn continues(&self, next: &MapRequest) -> bool {
        let own = &self.request;
        let follows = own.offset.wrapping_add(own.host.len() as u64).checked_rem(own.align)
            == next.offset.checked_rem(next.align);
        own.access == next.access && own.align == next.align && follows
    }

    /// The pieces of a group that was mapped as a whole. The mapping stays until the last of them goes.
    pub(super) fn split(self, whole: &DmaMemory) -> impl Iterator<Item = DmaMemory> {
        let mut iova = whole.iova();
        self.parts.into_iter().map(move |host| {
            let (at, keep) = (iova, whole.clone());
            iova = iova.saturating_add(host.len() as u64);
            DmaMemory::new(host, at, move || {
                drop(keep);
                Ok(())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::Access;

    fn pieces(memory: &HostMemory, pages: &[(usize, usize)]) -> Vec<HostMemory> {
        pages.iter().map(|(first, count)| memory.part(first * 4096, count * 4096).unwrap()).collect()
    }

    fn request(host: HostMemory, offset: u64) -> MapRequest {
        MapRequest { host, access: Access::ReadWrite, align: 2 << 20, offset }
    }

    fn lens(groups: &[Group]) -> Vec<usize> {
        groups.iter().map(|group| group.request.host.len() / 4096).collect()
    }

    #[test]
    fn what_lies_side_by_side_is_one_mapping() {
        let memory = HostMemory::allocate(16 * 4096).unwrap();
        let [a, b, c, d] = &pieces(&memory, &[(0, 4), (4, 2), (6, 1), (8, 8)])[..] else { unreachable!() };
        let page = |page: u64| page * 4096;
        let ask = |of: &[(&HostMemory, u64)]| {
            merge(of.iter().map(|(host, offset)| request((*host).clone(), page(*offset))).collect())
        };
        assert_eq!(lens(&ask(&[(a, 0), (b, 4), (c, 6)])), [7]);
        assert_eq!(lens(&ask(&[(a, 0), (b, 4), (d, 6)])), [6, 8], "not side by side in this process");
        assert_eq!(lens(&ask(&[(a, 0), (b, 5), (c, 7)])), [4, 3], "nor for the device");
        assert_eq!(lens(&ask(&[(b, 0), (a, 2)])), [2, 4], "in this order only");
        let read = MapRequest { access: Access::Read, ..request(b.clone(), page(4)) };
        assert_eq!(lens(&merge(vec![request(a.clone(), 0), read])), [4, 2], "nor with other rights");
    }

    #[test]
    fn the_pieces_of_a_mapping_keep_it() {
        let memory = HostMemory::allocate(8 * 4096).unwrap();
        let parts = pieces(&memory, &[(0, 4), (4, 3)]);
        let requests = parts.iter().zip([0, 4 * 4096]).map(|(host, offset)| request(host.clone(), offset)).collect();
        let group = merge(requests).pop().unwrap();
        let unmapped = Arc::new(AtomicUsize::new(0));
        let count = unmapped.clone();
        let whole = DmaMemory::new(group.request.host.clone(), 0x10_0000, move || {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        let mut pieces: Vec<DmaMemory> = group.split(&whole).collect();
        drop(whole);
        assert_eq!(
            pieces.iter().map(|piece| (piece.iova(), piece.len() / 4096)).collect::<Vec<_>>(),
            [(0x10_0000, 4), (0x10_4000, 3)]
        );
        pieces[1].host().write_at(0, b"hello").unwrap();
        let mut back = [0; 5];
        memory.read_at(4 * 4096, &mut back).unwrap();
        assert_eq!(&back, b"hello");
        pieces.remove(0);
        assert_eq!(unmapped.load(Ordering::SeqCst), 0);
        pieces.clear();
        assert_eq!(unmapped.load(Ordering::SeqCst), 1);
    }
}
