//! Which errors are explained by what happened.

use doorbell::RequestError;
use nvme_spec::Status;

use crate::fault::Kind;
use crate::host::Host;

/// What has happened to a host, since it was last seen to be well, that may make commands fail.
#[derive(Debug, Clone, Default)]
pub(crate) struct Blame {
    /// The driver was ended.
    pub(crate) ended: bool,
    /// The controller was reset, or something struck it for which it may be.
    pub(crate) disturbed: bool,
    pub(crate) unregistered: bool,
    pub(crate) mapping: bool,
    pub(crate) admin_fails: bool,
    pub(crate) removed: bool,
    pub(crate) resized: bool,
    /// Another driver goes on.
    pub(crate) handed_over: bool,
    /// How many commands have failed by now because of faults that each strike one of them.
    used: Vec<(Kind, usize)>,
}

/// The kinds of faults that end one command each, with a status of their own.
const OF_ONE: &[Kind] = &[Kind::FailsForNow, Kind::FailsWithDelay, Kind::FailsForGood, Kind::Medium, Kind::StatusLie];

impl Blame {
    /// A fault was put in.
    pub(crate) fn plant(&mut self, kind: Kind) {
        self.disturbed |= kind.disturbs();
        self.mapping |= kind == Kind::MapFails;
        self.admin_fails |= kind == Kind::AdminFails;
    }

    /// Everything is well: only what was put in and has not struck can make a command fail from now on.
    pub(crate) fn forget(&mut self, to_come: &[Kind]) {
        *self = Self { used: std::mem::take(&mut self.used), ..Self::default() };
        to_come.iter().for_each(|kind| self.plant(*kind));
    }

    /// What has struck another device explains nothing of this one's.
    pub(crate) fn of_a_new_device(&mut self) {
        self.used.clear();
    }

    pub(crate) fn is_any(&self) -> bool {
        let Self { ended, disturbed, unregistered, mapping, admin_fails, removed, resized, handed_over, .. } = *self;
        handed_over || ended || disturbed || unregistered || mapping || admin_fails || removed || resized
    }

    fn used(&mut self, kind: Kind) -> &mut usize {
        let at = self.used.iter().position(|(used, _)| *used == kind).unwrap_or_else(|| {
            self.used.push((kind, 0));
            self.used.len() - 1
        });
        &mut self.used[at].1
    }
}

impl Host {
    /// Whether an error is one that what happened can bring about. Each fault that strikes one command explains one error.
    pub(crate) fn permits(&mut self, error: &RequestError) -> bool {
        let blame = &self.blame;
        match error {
            RequestError::HandedOver => blame.handed_over,
            RequestError::Gone => blame.ended || blame.disturbed,
            RequestError::Nvme(error) => {
                let status = error.status;
                let aborted = [Status::ABORT_REQUESTED, Status::ABORTED_SQ_DELETION];
                (blame.disturbed || blame.ended) && aborted.contains(&status)
                    || blame.removed && is_absent(status)
                    || blame.resized && status == Status::LBA_OUT_OF_RANGE
                    || self.struck_by(status)
                    || self.blame.admin_fails && status == Status::INTERNAL_ERROR
            }
            RequestError::OutOfRange { .. } => blame.resized,
            RequestError::Interrupted | RequestError::Failed(_) | RequestError::Misbehaved(_) => blame.disturbed,
            RequestError::Memory(_) => blame.unregistered || blame.ended,
            RequestError::NoQueue(_) if blame.mapping || blame.disturbed => true,
            RequestError::NoQueue(cause) => self.permits(cause),
            RequestError::Device(_) => blame.mapping || blame.disturbed,
            _ => false,
        }
    }

    /// Whether a fault that ends one command with this status has struck once more than was seen so far.
    fn struck_by(&mut self, status: Status) -> bool {
        let struck = self.struck();
        OF_ONE.iter().any(|kind| {
            // A status that is changed on its way can become any other.
            let fits = *kind == Kind::StatusLie || kind.status() == Some(status);
            let times = struck.iter().filter(|struck| *struck == kind).count();
            let used = self.blame.used(*kind);
            let explained = fits && *used < times;
            *used += usize::from(explained);
            explained
        })
    }

    /// What was put in and has not struck yet.
    pub(crate) fn to_come(&self) -> Vec<Kind> {
        let applied = self.device.with_controller(|controller| controller.faults_applied());
        self.planted.to_come(&applied, &self.injector)
    }
}

/// What is answered where an identifier names no namespace is not settled by the specification.
pub(crate) fn is_absent(status: Status) -> bool {
    [Status::INVALID_NAMESPACE_OR_FORMAT, Status::INVALID_FIELD_IN_COMMAND].contains(&status)
}
