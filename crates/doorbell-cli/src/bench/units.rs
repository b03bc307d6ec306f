//! The blocks of a job: which unit comes next, and, when verifying, what each holds and who works on it.

use std::sync::atomic::{AtomicU32, Ordering};

use doorbell_device::{DeviceError, HostMemory};

use super::pattern::Stamp;
use super::rng::Rng;

/// How often a busy unit is passed over for its neighbour before the I/O waits.
const TRIES: u32 = 64;
const WRITER: u16 = u16::MAX;
/// Set in a generation that may or may not have reached the medium.
const UNKNOWN: u32 = 1 << 31;

/// The part of a namespace that a job has for itself, in units of one I/O each.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) first_block: u64,
    pub(super) units: u64,
    pub(super) blocks_per_unit: u32,
}

impl Region {
    #[inline]
    pub(super) fn lba(&self, unit: u64) -> u64 {
        self.first_block + unit * u64::from(self.blocks_per_unit)
    }
}

/// What is known of the units, when verifying.
#[derive(Debug)]
pub(super) struct Ledger {
    /// How often each was written; 0 never. In memory that another process can go on with.
    generations: HostMemory,
    /// Readers of each, or [`WRITER`].
    busy: Vec<u16>,
}

impl Ledger {
    pub(super) fn new(units: u64) -> Result<Self, DeviceError> {
        Ok(Self::in_memory(HostMemory::allocate(Self::bytes(units))?, units))
    }

    /// Bytes of memory for so many units.
    pub(super) fn bytes(units: u64) -> usize {
        usize::try_from(units).ok().and_then(|units| units.checked_mul(size_of::<u32>())).unwrap_or(usize::MAX)
    }

    /// With what another process knew, in memory of [`bytes`](Self::bytes). Nobody works on any unit.
    pub(super) fn in_memory(generations: HostMemory, units: u64) -> Self {
        let units = usize::try_from(units).unwrap_or(usize::MAX).min(generations.dwords().len());
        Self { generations, busy: vec![0; units] }
    }

    /// What another process needs to know what this one does.
    pub(super) fn memory(&self) -> &HostMemory {
        &self.generations
    }

    #[inline]
    fn generation(&self, unit: u64) -> &AtomicU32 {
        &self.generations.dwords()[unit as usize]
    }

    /// An I/O of another process is under way on a unit.
    pub(super) fn go_on(&mut self, unit: u64, write: bool) {
        if let Some(busy) = self.busy.get_mut(unit as usize) {
            *busy = if write { WRITER } else { *busy + 1 };
        }
    }

    /// Takes a unit for an I/O, if others that are in flight allow it: a write is alone on its unit.
    pub(super) fn try_begin(&mut self, unit: u64, write: bool) -> bool {
        let busy = &mut self.busy[unit as usize];
        match (write, *busy) {
            (true, 0) => *busy = WRITER,
            (false, readers) if readers < WRITER - 1 => *busy = readers + 1,
            _ => return false,
        }
        if write {
            let generation = self.generation(unit);
            // From now until it is done, and for good if it fails, what the unit holds is not known.
            let next = ((generation.load(Ordering::Relaxed) & !UNKNOWN) + 1) | UNKNOWN;
            generation.store(next, Ordering::Relaxed);
        }
        true
    }

    /// The generation that the write under way writes.
    pub(super) fn writing(&self, unit: u64) -> u64 {
        u64::from(self.generation(unit).load(Ordering::Relaxed) & !UNKNOWN)
    }

    /// Gives a unit back.
    pub(super) fn end(&mut self, unit: u64, write: bool, ok: bool) {
        if write {
            self.busy[unit as usize] = 0;
            if ok {
                let generation = self.generation(unit);
                generation.store(generation.load(Ordering::Relaxed) & !UNKNOWN, Ordering::Relaxed);
            }
        } else {
            self.busy[unit as usize] -= 1;
        }
    }

    /// The generation that a unit holds, if that is known.
    pub(super) fn known(&self, unit: u64) -> Option<u64> {
        let generation = self.generation(unit).load(Ordering::Relaxed);
        (generation != 0 && generation & UNKNOWN == 0).then_some(generation.into())
    }

    /// What a block of a unit should say.
    pub(super) fn stamp(run: u64, lba: u64, generation: u64) -> Stamp {
        Stamp { run, lba, generation }
    }
}

/// In which order units are visited.
#[derive(Debug)]
pub(super) enum Order {
    /// At random, for ever.
    Random(Rng),
    /// One after the other; from the start again, or once.
    Sequential { next: u64, once: bool },
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This unit.
    Unit(u64),
    /// Everything that could come is busy: after the next completion.
    Later,
    /// Nothing any more.
    End,
}

impl Order {
    /// Where it is in sequence.
    pub(super) fn position(&self) -> u64 {
        match self {
            Order::Random(_) => 0,
            Order::Sequential { next, .. } => *next,
        }
    }

    /// The next unit that `begin` agrees to. In sequence, those that are not `wanted` are passed over.
    #[inline]
    pub(super) fn next(
        &mut self,
        units: u64,
        mut begin: impl FnMut(u64) -> bool,
        wanted: impl Fn(u64) -> bool,
    ) -> Next {
        match self {
            Order::Random(rng) => {
                let mut unit = rng.below(units);
                for _ in 0..TRIES {
                    if begin(unit) {
                        return Next::Unit(unit);
                    }
                    unit = if unit + 1 == units { 0 } else { unit + 1 };
                }
                Next::Later
            }
            Order::Sequential { next, once } => {
                if *next == units && !*once {
                    *next = 0;
                }
                while *next < units && !wanted(*next) {
                    *next += 1;
                }
                if *next == units {
                    return Next::End;
                }
                let unit = *next;
                if begin(unit) {
                    *next += 1;
                    Next::Unit(unit)
                } else {
                    Next::Later
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_alone_on_its_unit() {
        let mut ledger = Ledger::new(2).unwrap();
        assert!(ledger.try_begin(0, false) && ledger.try_begin(0, false));
        assert!(!ledger.try_begin(0, true));
        ledger.end(0, false, true);
        ledger.end(0, false, true);
        assert!(ledger.try_begin(0, true));
        assert!(!ledger.try_begin(0, true) && !ledger.try_begin(0, false));
        assert!(ledger.try_begin(1, false));
    }

    #[test]
    fn what_a_unit_holds_is_known_after_a_write_that_succeeded() {
        let mut ledger = Ledger::new(1).unwrap();
        assert_eq!(ledger.known(0), None);
        assert!(ledger.try_begin(0, true));
        assert_eq!((ledger.writing(0), ledger.known(0)), (1, None));
        ledger.end(0, true, true);
        assert_eq!(ledger.known(0), Some(1));
        assert!(ledger.try_begin(0, true));
        ledger.end(0, true, false);
        assert_eq!(ledger.known(0), None);
        assert!(ledger.try_begin(0, true));
        assert_eq!(ledger.writing(0), 3);
        ledger.end(0, true, true);
        assert_eq!(ledger.known(0), Some(3));
    }

    #[test]
    fn another_process_goes_on_with_what_is_known() {
        let mut ledger = Ledger::new(3).unwrap();
        assert!(ledger.try_begin(0, true) && ledger.try_begin(1, true));
        ledger.end(0, true, true);
        let (file, _) = ledger.memory().file().unwrap();
        let memory = HostMemory::from_file(file.clone(), 0, ledger.memory().len()).unwrap();
        let mut other = Ledger::in_memory(memory, 3);
        other.go_on(1, true);
        assert_eq!((other.known(0), other.known(1), other.try_begin(1, false)), (Some(1), None, false));
        other.end(1, true, true);
        assert_eq!(other.known(1), Some(1));
    }

    #[test]
    fn once_ends_and_otherwise_it_begins_again() {
        let mut once = Order::Sequential { next: 0, once: true };
        let units: Vec<Next> = (0..3).map(|_| once.next(2, |_| true, |_| true)).collect();
        assert_eq!(units, [Next::Unit(0), Next::Unit(1), Next::End]);
        let mut again = Order::Sequential { next: 0, once: false };
        let units: Vec<Next> = (0..3).map(|_| again.next(2, |_| true, |_| true)).collect();
        assert_eq!(units, [Next::Unit(0), Next::Unit(1), Next::Unit(0)]);
        assert_eq!(again.next(2, |_| false, |_| true), Next::Later);
    }

    #[test]
    fn in_sequence_unwanted_units_are_passed_over() {
        let mut order = Order::Sequential { next: 0, once: true };
        let units: Vec<Next> = (0..3).map(|_| order.next(5, |_| true, |unit| unit % 2 == 1)).collect();
        assert_eq!(units, [Next::Unit(1), Next::Unit(3), Next::End]);
    }

    #[test]
    fn at_random_the_neighbour_of_a_busy_unit_is_taken() {
        let mut order = Order::Random(Rng::new(1));
        for _ in 0..100 {
            assert_eq!(order.next(10, |unit| unit == 3, |_| true), Next::Unit(3));
        }
        assert_eq!(order.next(10, |_| false, |_| true), Next::Later);
    }
}
