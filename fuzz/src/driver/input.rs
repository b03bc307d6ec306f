use std::sync::{Arc, Mutex, PoisonError};

use arbitrary::{Arbitrary, Unstructured};

/// The fuzzer's bytes. The device and its host draw from them in the order in which things happen. When they are used up,
/// all that is drawn is 0, and 0 stands for what is proper everywhere, so that each run comes to an end.
#[derive(Clone)]
pub(super) struct Input(Arc<Mutex<Rest>>);

struct Rest {
    data: Vec<u8>,
    at: usize,
}

impl Input {
    pub(super) fn new(data: &[u8]) -> Self {
        Self(Arc::new(Mutex::new(Rest { data: data.to_vec(), at: 0 })))
    }

    pub(super) fn is_used_up(&self) -> bool {
        let rest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rest.at >= rest.data.len()
    }

    /// Any value of a type.
    pub(super) fn any<T: for<'a> Arbitrary<'a> + Default>(&self) -> T {
        self.draw(|rest| rest.arbitrary())
    }

    /// A number below `end`, of as few bytes as will do.
    pub(super) fn below(&self, end: u64) -> u64 {
        self.draw(|rest| rest.int_in_range(0..=end.saturating_sub(1)))
    }

    /// One time in 64, of one byte.
    pub(super) fn seldom(&self) -> bool {
        self.below(64) == 63
    }

    fn draw<T: Default>(&self, from: impl FnOnce(&mut Unstructured<'_>) -> arbitrary::Result<T>) -> T {
        let mut rest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut source = Unstructured::new(rest.data.get(rest.at..).unwrap_or_default());
        let value = from(&mut source).unwrap_or_default();
        rest.at = rest.data.len() - source.len();
        value
    }
}
