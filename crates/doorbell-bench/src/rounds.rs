//! The loops that are measured.

use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use doorbell::RequestError;

/// Room for futures.
pub(crate) fn places<F>(in_flight: usize) -> Vec<Option<F>> {
    (0..in_flight).map(|_| None).collect()
}

/// Every future is pending once, then its completion is posted, found and claimed. For each there is an argument.
#[inline(always)]
pub(crate) fn run_rounds<F, A: Copy>(
    rounds: usize,
    pending: &mut [Option<F>],
    arguments: &[A],
    mut start: impl FnMut(u64, A) -> F,
    complete: impl Fn(),
) where
    F: Future<Output = Result<(), RequestError>> + Unpin,
{
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..rounds {
        for (i, (slot, argument)) in (0..).zip(pending.iter_mut().zip(arguments)) {
            let transfer = slot.insert(start(i, *argument));
            assert!(poll(transfer, &mut context).is_pending(), "nothing is completed yet");
        }
        complete();
        for slot in pending.iter_mut() {
            if let Some(transfer) = slot {
                assert!(matches!(poll(transfer, &mut context), Poll::Ready(Ok(()))), "all are completed");
            }
            *slot = None;
        }
    }
}

/// Every future is pending, but for the last, with which all are completed.
#[inline(always)]
pub(crate) fn run_together<F, A: Copy>(
    rounds: usize,
    pending: &mut [Option<F>],
    arguments: &[A],
    mut start: impl FnMut(u64, A) -> F,
    look: impl Fn() -> usize,
) where
    F: Future<Output = Result<(), RequestError>> + Unpin,
{
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..rounds {
        for (i, (slot, argument)) in (0..).zip(pending.iter_mut().zip(arguments)) {
            let transfer = slot.insert(start(i, *argument));
            if poll(transfer, &mut context).is_ready() {
                *slot = None;
            }
        }
        look();
        for slot in pending.iter_mut() {
            if let Some(transfer) = slot {
                assert!(matches!(poll(transfer, &mut context), Poll::Ready(Ok(()))), "all are completed");
            }
            *slot = None;
        }
    }
}

/// Every future is ready at once.
#[inline(always)]
pub(crate) fn run_ready<F>(rounds: usize, start: impl Fn() -> F)
where
    F: Future<Output = Result<(), RequestError>> + Unpin,
{
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..rounds {
        assert!(matches!(poll(&mut start(), &mut context), Poll::Ready(Ok(()))), "the device completes at once");
    }
}

/// Does nothing, and is pending once.
#[derive(Default)]
pub(crate) struct Once {
    polled: bool,
}

impl Future for Once {
    type Output = Result<(), RequestError>;

    /// Kept from being foreseen, otherwise no loop were left. Not called, so that a call is the driver's own to pay for.
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match black_box(std::mem::replace(&mut self.polled, true)) {
            false => Poll::Pending,
            true => Poll::Ready(Ok(())),
        }
    }
}

#[inline(always)]
pub(crate) fn poll<F: Future + Unpin>(future: &mut F, context: &mut Context<'_>) -> Poll<F::Output> {
    Pin::new(future).poll(context)
}
