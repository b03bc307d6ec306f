//! The pattern that `--verify` writes: every block names itself, its run and its generation, and is summed up.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `DOORBELL` |
//! | 8..16 | run: a number of this invocation's |
//! | 16..24 | LBA |
//! | 24..32 | generation: counts the writes to the block |
//! | 32..40 | checksum of the block, without these 8 bytes |
//! | 40.. | words derived from all that |
//!
//! Words are little-endian.

use std::fmt;

use super::rng::mix;

const MAGIC: u64 = u64::from_le_bytes(*b"DOORBELL");
const HEADER: usize = 40;
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a block should hold, and what it was found to hold.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Miscompare {
    /// The block that was read.
    pub(crate) lba: u64,
    /// Of this run, what was written to it last.
    pub(crate) expected: Stamp,
    /// What came instead.
    pub(crate) found: Found,
}

/// What a block says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Stamp {
    pub(crate) run: u64,
    pub(crate) lba: u64,
    pub(crate) generation: u64,
}

/// What came instead of the expected block.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Found {
    /// All bytes are the same.
    AllBytes(u8),
    /// A whole block of ours, but another one.
    Other(Stamp),
    /// The header of a block of ours, with other contents than it sums up.
    Damaged(Stamp),
    /// No block of ours; its first bytes, in hexadecimal.
    Foreign(String),
}

/// Fills a block.
#[inline]
pub(crate) fn fill(block: &mut [u8], stamp: Stamp) {
    let seed = seed(stamp);
    let (header, body) = block.split_at_mut(HEADER);
    for (index, word) in body.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&body_word(seed, index).to_le_bytes());
    }
    let sum = checksum(stamp, body);
    for (to, word) in header.chunks_exact_mut(8).zip([MAGIC, stamp.run, stamp.lba, stamp.generation, sum]) {
        to.copy_from_slice(&word.to_le_bytes());
    }
}

/// Checks a block.
#[inline]
pub(crate) fn check(block: &[u8], expected: Stamp) -> Result<(), Box<Miscompare>> {
    let (magic, stamp, sum) = header(block);
    if magic == MAGIC && stamp == expected && sum == checksum(stamp, &block[HEADER..]) {
        return Ok(());
    }
    Err(Box::new(Miscompare { lba: expected.lba, expected, found: found(block) }))
}

#[cold]
fn found(block: &[u8]) -> Found {
    let (magic, stamp, sum) = header(block);
    if block.iter().all(|byte| *byte == block[0]) {
        Found::AllBytes(block[0])
    } else if magic != MAGIC {
        Found::Foreign(crate::output::hex(&block[..16]))
    } else if sum == checksum(stamp, &block[HEADER..]) {
        Found::Other(stamp)
    } else {
        Found::Damaged(stamp)
    }
}

fn header(block: &[u8]) -> (u64, Stamp, u64) {
    let word = |index: usize| u64::from_le_bytes(block[index * 8..][..8].try_into().unwrap_or_default());
    (word(0), Stamp { run: word(1), lba: word(2), generation: word(3) }, word(4))
}

#[inline]
fn seed(stamp: Stamp) -> u64 {
    mix(stamp.run ^ mix(stamp.lba ^ mix(stamp.generation)))
}

#[inline]
fn body_word(seed: u64, index: usize) -> u64 {
    (seed ^ index as u64).wrapping_mul(ODD)
}

/// Four sums side by side, so that they do not wait for each other.
#[inline]
fn checksum(stamp: Stamp, body: &[u8]) -> u64 {
    let mut sums = [MAGIC, stamp.run, stamp.lba, stamp.generation];
    let mut step = |index: usize, word: u64| {
        let sum = &mut sums[index % 4];
        *sum = (*sum ^ word).wrapping_mul(ODD).rotate_left(29);
    };
    let (four, rest) = body.as_chunks::<32>();
    for words in four {
        for (index, word) in words.as_chunks::<8>().0.iter().enumerate() {
            step(index, u64::from_le_bytes(*word));
        }
    }
    for (index, word) in rest.as_chunks::<8>().0.iter().enumerate() {
        step(index, u64::from_le_bytes(*word));
    }
    sums.into_iter().fold(body.len() as u64, |sum, next| mix(sum ^ next))
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} generation {} of run {:016x}", self.lba, self.generation, self.run)
    }
}

impl fmt::Display for Miscompare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}: expected {}, found ", self.lba, self.expected)?;
        match &self.found {
            Found::AllBytes(byte) => write!(f, "nothing but bytes {byte:#04x}"),
            Found::Other(stamp) => write!(f, "{stamp}"),
            Found::Damaged(stamp) => write!(f, "{stamp}, damaged: its checksum is wrong"),
            Found::Foreign(hex) => write!(f, "what bench never wrote: {hex}..."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { run: 0x0123_4567_89ab_cdef, lba: 77, generation: 3 };

    fn block(size: usize) -> Vec<u8> {
        let mut block = vec![0; size];
        fill(&mut block, STAMP);
        block
    }

    #[test]
    fn what_is_filled_is_right() {
        for size in [512, 520, 4096, 65536] {
            assert_eq!(check(&block(size), STAMP), Ok(()), "{size}");
        }
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let good = block(512);
        for bit in 0..512 * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&bad, STAMP).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn swapped_words_are_found() {
        let mut bad = block(4096);
        let (first, second) = bad.split_at_mut(2048);
        first[1024..1032].swap_with_slice(&mut second[..8]);
        assert!(matches!(check(&bad, STAMP).unwrap_err().found, Found::Damaged(stamp) if stamp == STAMP));
    }

    #[test]
    fn a_torn_block_is_found() {
        let mut torn = block(4096);
        let mut newer = vec![0; 4096];
        fill(&mut newer, Stamp { generation: 4, ..STAMP });
        torn[..512].copy_from_slice(&newer[..512]);
        let miscompare = check(&torn, Stamp { generation: 4, ..STAMP }).unwrap_err();
        assert!(matches!(miscompare.found, Found::Damaged(stamp) if stamp.generation == 4));
    }

    #[test]
    fn what_was_found_is_named() {
        let good = block(512);
        for expected in [Stamp { lba: 78, ..STAMP }, Stamp { generation: 4, ..STAMP }, Stamp { run: 1, ..STAMP }] {
            assert_eq!(check(&good, expected).unwrap_err().found, Found::Other(STAMP));
        }
        let text = check(&good, Stamp { lba: 78, ..STAMP }).unwrap_err().to_string();
        assert_eq!(
            text,
            "block 78: expected block 78 generation 3 of run 0123456789abcdef, \
             found block 77 generation 3 of run 0123456789abcdef"
        );
        assert_eq!(check(&[0; 512], STAMP).unwrap_err().found, Found::AllBytes(0));
        let foreign: Vec<u8> = (0..=255).chain(0..=255).collect();
        assert_eq!(
            check(&foreign, STAMP).unwrap_err().found,
            Found::Foreign("000102030405060708090a0b0c0d0e0f".into())
        );
    }
}
