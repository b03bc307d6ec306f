/// How far a handover is, for whoever [watches](crate::Handover::on_step) it.
///
/// [`Taken`](Self::Taken) is the one after which the controller is the new process's. What happens to either process before it,
/// or to the new one before it has [`Told`](Self::Told) the old one, leaves the controller to the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Old: the new process is there. Until here, I/O goes on.
    Greeted,
    /// Old: the driver is held still and saved.
    Saved,
    /// Old: the device is held still.
    Held,
    /// Old: the state has been sent.
    Offered,
    /// Old: all descriptors have been sent.
    Sent,
    /// New: the state and all descriptors have come.
    Received,
    /// New: the device is there, and its memory mapped.
    Adopted,
    /// New: the driver is there.
    Prepared,
    /// New: the controller is this process's.
    Taken,
    /// New: the old process was told so.
    Told,
    /// New: I/O goes on.
    TakenOver,
    /// Old: it knows that the controller is the other's.
    Informed,
    /// Old: all that was pending has ended.
    HandedOver,
}

/// All steps, in about the order in which they come.
pub const STEPS: [Step; 13] = [
    Step::Greeted,
    Step::Saved,
    Step::Held,
    Step::Offered,
    Step::Sent,
    Step::Received,
    Step::Adopted,
    Step::Prepared,
    Step::Taken,
    Step::Told,
    Step::TakenOver,
    Step::Informed,
    Step::HandedOver,
];
