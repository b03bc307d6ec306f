//! The rings against a device that is a few lines of arithmetic of its own.

use doorbell_device::{DmaMemory, HostMemory};
use proptest::prelude::*;

use super::*;

fn words<const N: usize>(entries: u16) -> Words<N> {
    let memory = HostMemory::allocate(usize::from(entries) * N * 8).unwrap();
    Words::new(DmaMemory::new(memory, 0, || Ok(())), 0, entries.into()).unwrap()
}

#[derive(Debug, Clone)]
enum Op {
    Submit,
    /// The device completes so many.
    Complete(usize),
    /// The driver takes so many completions.
    Take(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => Just(Op::Submit),
        1 => (1usize..5).prop_map(Op::Complete),
        1 => (1usize..5).prop_map(Op::Take),
    ];
    prop::collection::vec(op, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Commands and completions arrive as they were sent, in order, through any number of wraps.
    #[test]
    fn rings_carry_everything_in_order(entries in 2u16..20, ops in ops()) {
        let (sq_words, cq_words) = (words(entries), words(entries));
        clear(&sq_words, &cq_words);
        let (mut sq, mut cq) = (SubmissionRing::new(1, entries), CompletionRing::new(entries));
        // What was sent, and how much of it: the n-th thing lies in entry n modulo the size, its phase in the quotient.
        let (mut sent, mut completed, mut taken) = (0u64, 0u64, 0u64);
        let size = u64::from(entries);
        for op in ops {
            match op {
                Op::Submit if sent - taken < size - 1 => {
                    sq.push(&sq_words, &std::array::from_fn(|i| sent * 8 + i as u64));
                    sent += 1;
                    prop_assert_eq!(u64::from(sq.tail()), sent % size);
                }
                Op::Submit => {}
                Op::Complete(count) => {
                    let end = sent.min(completed + count as u64);
                    for n in completed..end {
                        for (i, word) in sq_words.at((n % size) as u16).iter().enumerate() {
                            prop_assert_eq!(word.load(Ordering::Relaxed), n * 8 + i as u64);
                        }
                        let phase = n / size % 2 == 0;
                        let [first, second] = cq_words.at((n % size) as u16);
                        first.store(n, Ordering::Relaxed);
                        second.store(u64::from(phase) << 48, Ordering::Release);
                    }
                    completed = end;
                }
                Op::Take(count) => {
                    for _ in 0..count {
                        prop_assert_eq!(cq.is_posted(&cq_words), taken < completed);
                        match cq.ahead(cq_words.all(), 1).first().and_then(|entry| cq.posted(entry)) {
                            Some([word, _]) => prop_assert_eq!(word, taken),
                            None => break,
                        }
                        cq.pop(1);
                        taken += 1;
                        prop_assert_eq!(u64::from(cq.head()), taken % size);
                        prop_assert_eq!(cq.phase(), taken / size % 2 == 0);
                    }
                }
            }
        }
    }
}

#[test]
fn every_size_wraps() {
    for entries in [2, 3, 64, 65, 4096, 4097] {
        let cq_words = words(entries);
        let mut cq = CompletionRing::new(entries);
        for n in 0..u32::from(entries) * 3 {
            let at = (n % u32::from(entries)) as u16;
            assert!(!cq.is_posted(&cq_words), "entry {n} of {entries} is an old one");
            let phase = n / u32::from(entries) % 2 == 0;
            cq_words.at(at)[1].store(u64::from(phase) << 48, Ordering::Relaxed);
            assert!(cq.is_posted(&cq_words));
            cq.pop(1);
        }
    }
}

#[test]
fn a_completion_names_its_ring_and_an_entry() {
    for id in [0, 1, 7, u16::MAX] {
        let sq = SubmissionRing::new(id, 4);
        let named = |sqid, sqhd| sq.is_named_by(Completion { sqid, sqhd, cid: 3, ..Completion::default() }.to_words());
        assert!(named(id, 0));
        assert!(named(id, 3));
        assert!(!named(id, 4));
        assert!(!named(id, u16::MAX));
        assert!(!named(id.wrapping_add(1), 0));
        assert!(!named(id.wrapping_sub(1), 0));
        assert!(!named(id.wrapping_sub(1), u16::MAX));
    }
}
