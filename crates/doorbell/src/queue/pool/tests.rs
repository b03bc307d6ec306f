//! The pool against a list of pages and a line of those who wait.

use std::collections::VecDeque;

use doorbell_device::HostMemory;
use proptest::prelude::*;

use super::*;

const PAGE: usize = 4096;

fn pool(pages: usize) -> Pool {
    Pool::new(DmaMemory::new(HostMemory::allocate(pages * PAGE).unwrap(), 0, || Ok(())), PAGE)
}

/// Pages as a plain list, and the first run that is long enough by trying them all.
struct Model {
    used: Vec<bool>,
    line: VecDeque<(usize, usize)>,
}

impl Model {
    fn first_fit(&self, pages: usize) -> Option<usize> {
        (0..=self.used.len().checked_sub(pages)?).find(|at| self.used[*at..at + pages].iter().all(|used| !used))
    }

    fn set(&mut self, range: Range<usize>, used: bool) {
        for page in range {
            assert_ne!(self.used[page], used, "page {page} has one owner at a time");
            self.used[page] = used;
        }
    }

    /// Serves the line: who was granted what.
    fn serve(&mut self) -> Vec<(usize, Range<usize>)> {
        let mut granted = Vec::new();
        while let Some((id, pages)) = self.line.front().copied() {
            let Some(at) = self.first_fit(pages) else { break };
            self.line.pop_front();
            self.set(at..at + pages, true);
            granted.push((id, at..at + pages));
        }
        granted
    }
}

/// One that took, or wants to take, a run.
struct User {
    bytes: usize,
    place: Option<Place>,
    run: Option<Run>,
    /// Where the model says that its run lies, once it has one.
    expected: Option<Range<usize>>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn runs_are_first_fit_in_order_of_arrival(
        pages in 1usize..24,
        ops in prop::collection::vec((0u8..5, 1usize..100_000, any::<prop::sample::Index>()), 0..200),
    ) {
        let pool = pool(pages);
        let mut model = Model { used: vec![false; pages], line: VecDeque::new() };
        let mut users: Vec<Option<User>> = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        for (op, bytes, which) in ops {
            let alive: Vec<usize> = (0..users.len()).filter(|id| users[*id].is_some()).collect();
            if op < 2 || alive.is_empty() {
                let bytes = bytes.min(pool.capacity());
                let id = users.len();
                model.line.push_back((id, bytes.div_ceil(PAGE)));
                users.push(Some(User { bytes, place: None, run: None, expected: None }));
            } else {
                // Goes away: with its run, or out of the line.
                let id = alive[which.index(alive.len())];
                let user = users[id].take().unwrap();
                model.line.retain(|(waiting, _)| *waiting != id);
                if let Some(range) = user.expected {
                    model.set(range, false);
                }
                if let Some(run) = user.run {
                    pool.give_back(run);
                }
                if let Some(place) = user.place {
                    pool.leave(place);
                }
            }
            for (id, range) in model.serve() {
                users[id].as_mut().unwrap().expected = Some(range);
            }
            // Every other time they do not even ask, as futures that were not polled yet.
            for user in users.iter_mut().flatten().filter(|user| user.run.is_none() && (op != 4 || user.place.is_none())) {
                match pool.poll_take(user.bytes, &mut user.place, &mut context) {
                    Poll::Ready(run) => {
                        prop_assert_eq!(Some(run.range()), user.expected.clone());
                        prop_assert!(user.place.is_none());
                        user.run = Some(run);
                    }
                    Poll::Pending => prop_assert_eq!(user.expected.clone(), None),
                }
            }
            prop_assert_eq!(pool.usage(), (pages, model.used.iter().filter(|used| **used).count()));
        }
        // As long as somebody holds pages there is progress, and in the end all are back.
        while let Some(user) = users.iter_mut().flatten().find(|user| user.expected.is_some()) {
            let range = user.expected.take().unwrap();
            let run = match user.run.take() {
                Some(run) => run,
                None => match pool.poll_take(user.bytes, &mut user.place, &mut context) {
                    Poll::Ready(run) => run,
                    Poll::Pending => panic!("it was granted"),
                },
            };
            model.set(range, false);
            pool.give_back(run);
            for (id, range) in model.serve() {
                users[id].as_mut().unwrap().expected = Some(range);
            }
        }
        prop_assert!(model.line.is_empty());
        prop_assert_eq!(pool.usage(), (pages, 0));
    }

    /// The parts of a run are the run, and go back one by one.
    #[test]
    fn split_keeps_every_page(pages in 1usize..20, at in 0usize..22) {
        let pool = pool(20);
        let Poll::Ready(run) = pool.poll_take(pages * PAGE, &mut None, &mut Context::from_waker(Waker::noop())) else {
            panic!("the pool is empty of users");
        };
        let (first, rest) = pool.split(run, at * PAGE);
        let whole = at == 0 || at >= pages;
        prop_assert_eq!(rest.is_none(), whole);
        prop_assert_eq!(first.range(), 0..if whole { pages } else { at });
        pool.give_back(first);
        if let Some(rest) = rest {
            prop_assert_eq!(rest.range(), at..pages);
            pool.give_back(rest);
        }
        prop_assert_eq!(pool.usage(), (20, 0));
    }
}
