//! A case, set up to be run.

use crate::bare::Bare;
use crate::case::{Case, Way};
use crate::driver::{Driver, Exclusive};
use crate::rounds::{Once, places, run_rounds};

/// A case, set up to be run, with so many commands in flight on each queue.
pub(crate) struct Bench {
    kind: Kind,
    in_flight: usize,
}

enum Kind {
    Bare(Box<Bare>),
    Executor,
    Driver(Box<Driver>),
    Exclusive(Box<Exclusive>),
}

impl Bench {
    pub(crate) fn new(case: Case, in_flight: usize) -> anyhow::Result<Self> {
        let kind = match case.way {
            Way::Bare | Way::BareInline | Way::Emulated(_) => Kind::Bare(Box::new(Bare::new(case)?)),
            Way::Executor => Kind::Executor,
            Way::Exclusive => Kind::Exclusive(Box::new(Exclusive::new(case, in_flight)?)),
            Way::Guest | Way::Buffer | Way::Bounce | Way::Ready | Way::Together => {
                Kind::Driver(Box::new(Driver::new(case, in_flight)?))
            }
        };
        Ok(Self { kind, in_flight })
    }

    /// Runs at least so many commands; how many it were.
    #[inline(never)]
    pub(crate) fn run(&mut self, commands: usize) -> usize {
        let rounds = commands.div_ceil(self.in_flight);
        match &mut self.kind {
            Kind::Bare(bare) => {
                for _ in 0..rounds {
                    assert_eq!(bare.round(self.in_flight), self.in_flight, "every command ends");
                }
            }
            Kind::Executor => {
                let arguments = vec![(); self.in_flight];
                run_rounds(rounds, &mut places(self.in_flight), &arguments, |_, ()| Once::default(), || ());
            }
            Kind::Driver(driver) => driver.run(rounds),
            Kind::Exclusive(exclusive) => exclusive.run(rounds),
        }
        rounds * self.in_flight
    }
}
