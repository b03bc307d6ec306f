//! A controller as its subsystem sees it, and what the subsystem leaves for it to notice.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::reservation::{HostId, Notice};
use crate::saved::{self, StateError, bad, narrow, state};
use crate::sync::lock;

/// Reservation notices that wait for a controller to look; those that come after are lost.
const MAX_NOTICES: usize = 255;

/// A controller, as the subsystem sees it.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) cntlid: u16,
    /// Whether there is mail.
    flag: AtomicBool,
    mail: Mutex<Mail>,
    host: Mutex<HostId>,
}

/// What a controller has to notice.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    /// The set of namespaces is another one.
    pub(crate) table: bool,
    /// Attributes of these namespaces changed.
    pub(crate) changed: BTreeSet<u32>,
    pub(crate) notices: Vec<(u32, Notice)>,
    /// Outstanding commands to these namespaces are aborted (Preempt and Abort).
    pub(crate) abort: BTreeSet<u32>,
    pub(crate) reset: Option<Reset>,
}

/// What resets all controllers of a subsystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reset {
    Subsystem,
    PowerCycle,
}

impl Port {
    pub(crate) fn new(cntlid: u16) -> Self {
        Self {
            cntlid,
            flag: AtomicBool::new(true),
            mail: Mutex::new(Mail { table: true, ..Mail::default() }),
            host: Mutex::new(HostId::Unset { cntlid, epoch: 0 }),
        }
    }

    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    pub(crate) fn collect(&self) -> Mail {
        let mut mail = lock(&self.mail);
        self.flag.store(false, Ordering::Release);
        std::mem::take(&mut *mail)
    }

    pub(crate) fn post(&self, write: impl FnOnce(&mut Mail)) {
        let mut mail = lock(&self.mail);
        write(&mut mail);
        self.flag.store(true, Ordering::Release);
    }

    /// Leaves notices of reservations of a namespace.
    pub(crate) fn notify(&self, nsid: u32, notices: impl Iterator<Item = Notice>, abort: bool) {
        self.post(|mail| {
            mail.notices.extend(notices.map(|notice| (nsid, notice)));
            mail.notices.truncate(MAX_NOTICES);
            if abort {
                mail.abort.insert(nsid);
            }
        });
    }

    pub(crate) fn set_host(&self, host: HostId) {
        *lock(&self.host) = host;
    }

    pub(crate) fn host(&self) -> HostId {
        *lock(&self.host)
    }
}

impl Port {
    pub(crate) fn save(&self) -> state::Port {
        let mail = lock(&self.mail);
        state::Port {
            cntlid: self.cntlid.into(),
            host: Some(self.host().into()),
            changed: mail.changed.iter().copied().collect(),
            notices: mail.notices.iter().flat_map(|(nsid, notice)| [*nsid, *notice as u32]).collect(),
            abort: mail.abort.iter().copied().collect(),
            reset: match mail.reset {
                None => 0,
                Some(Reset::Subsystem) => 1,
                Some(Reset::PowerCycle) => 2,
            },
        }
    }

    pub(crate) fn restore(saved: state::Port) -> Result<Self, StateError> {
        let port = Self::new(narrow("CNTLID", saved.cntlid)?);
        port.set_host(saved.host.unwrap_or_default().restore()?);
        let (notices, rest) = saved.notices.as_chunks::<2>();
        if !rest.is_empty() || notices.len() > MAX_NOTICES {
            return bad(format!("{} words of notices", saved.notices.len()));
        }
        let notices = notices.iter().map(|[nsid, kind]| Ok((*nsid, saved::notice(*kind)?)));
        let notices = notices.collect::<Result<_, StateError>>()?;
        let reset = match saved.reset {
            0 => None,
            1 => Some(Reset::Subsystem),
            2 => Some(Reset::PowerCycle),
            other => return bad(format!("reset of kind {other}")),
        };
        let (changed, abort) = (saved.changed.into_iter().collect(), saved.abort.into_iter().collect());
        // Whoever goes on looks at the namespaces first.
        *lock(&port.mail) = Mail { table: true, changed, notices, abort, reset };
        Ok(port)
    }
}
