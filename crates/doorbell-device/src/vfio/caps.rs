//! The chains of capabilities behind VFIO's answers.

use std::ops::ControlFlow;

/// A capability's bytes, its 8-byte header included, in an answer whose chain begins at `first`.
///
/// The bytes go on to the end of the answer: how long a capability is depends on what it is.
pub(super) fn find(answer: &[u8], first: u32, id: u16) -> Option<&[u8]> {
    let mut at = first as usize;
    // No chain is longer than this; one that goes round ends.
    let found = (0..64).try_for_each(|_| {
        if at == 0 {
            return ControlFlow::Break(None);
        }
        let Some(header) = answer.get(at..) else { return ControlFlow::Break(None) };
        let (Some(this), Some(next)) = (read_u16(header, 0), read_u32(header, 4)) else {
            return ControlFlow::Break(None);
        };
        if this == id {
            return ControlFlow::Break(Some(header));
        }
        at = next as usize;
        ControlFlow::Continue(())
    });
    found.break_value().flatten()
}

/// The pairs of u64 of a capability that counts them at byte 8 and lists them from byte 16 on.
pub(super) fn pairs(capability: &[u8]) -> Vec<(u64, u64)> {
    let count = read_u32(capability, 8).unwrap_or(0) as usize;
    let listed = capability.get(16..).unwrap_or(&[]).chunks_exact(16).take(count);
    listed.filter_map(|pair| Some((read_u64(pair, 0)?, read_u64(pair, 8)?))).collect()
}

pub(super) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

pub(super) fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(id: u16, next: u32) -> Vec<u8> {
        [&id.to_ne_bytes()[..], &1u16.to_ne_bytes(), &next.to_ne_bytes()].concat()
    }

    #[test]
    fn a_capability_is_found_by_its_identifier() {
        let mut answer = vec![0; 8];
        answer.extend(header(3, 16));
        answer.extend(header(1, 0));
        answer.extend(2u32.to_ne_bytes());
        answer.extend(0u32.to_ne_bytes());
        for word in [0x1000u64, 0x1fff, 0x3000, 0x4fff, 7, 7] {
            answer.extend(word.to_ne_bytes());
        }
        assert_eq!(pairs(find(&answer, 8, 1).unwrap()), [(0x1000, 0x1fff), (0x3000, 0x4fff)]);
        assert!(find(&answer, 8, 2).is_none());
        assert!(find(&answer, 0, 1).is_none());
    }

    #[test]
    fn a_chain_that_leads_nowhere_ends() {
        let round = [header(3, 8), header(3, 0)].concat();
        assert!(find(&round, 8, 1).is_none());
        let own_tail = [vec![0; 8], header(3, 8)].concat();
        assert!(find(&own_tail, 8, 1).is_none());
        assert!(find(&own_tail, 4096, 3).is_none());
        assert!(find(&own_tail, 12, 3).is_none());
        assert_eq!(pairs(&header(1, 0)), []);
    }
}
