//! The Reservation Notification log page: a queue of notices, one of which is read at a time.

use std::collections::VecDeque;

use nvme_spec::log::{ReservationNotice, ReservationNotification};

use crate::reservation::Notice;
use crate::saved::{StateError, bad, notice, state};

/// Notices kept. Those that come after replace the oldest, as the log page count then shows.
const MOST: usize = 255;

#[derive(Debug, Default)]
pub(crate) struct ReservationLog {
    notices: VecDeque<(u64, u32, Notice)>,
    count: u64,
}

impl ReservationLog {
    pub(crate) fn add(&mut self, nsid: u32, notice: Notice) {
        self.count = self.count.checked_add(1).unwrap_or(1);
        if self.notices.len() >= MOST {
            self.notices.pop_front();
        }
        self.notices.push_back((self.count, nsid, notice));
    }

    /// The oldest notice, or an empty page.
    pub(crate) fn page(&self) -> ReservationNotification {
        let Some((count, nsid, notice)) = self.notices.front() else { return ReservationNotification::default() };
        ReservationNotification {
            log_page_count: *count,
            kind: ReservationNotice(*notice as u8),
            available: u8::try_from(self.notices.len().saturating_sub(1)).unwrap_or(u8::MAX),
            nsid: *nsid,
            ..ReservationNotification::default()
        }
    }

    /// The oldest notice was read; true if there are more.
    pub(crate) fn pop(&mut self) -> bool {
        self.notices.pop_front();
        !self.notices.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.notices.clear();
    }
}

impl ReservationLog {
    pub(crate) fn save(&self) -> state::ReservationLog {
        let notice = |(count, nsid, notice): &(u64, u32, Notice)| [*count, (*nsid).into(), *notice as u64];
        state::ReservationLog { count: self.count, notices: self.notices.iter().flat_map(notice).collect() }
    }

    pub(crate) fn restore(saved: &state::ReservationLog) -> Result<Self, StateError> {
        let (notices, rest) = saved.notices.as_chunks::<3>();
        if !rest.is_empty() || notices.len() > MOST {
            return bad(format!("{} words of reservation notices", saved.notices.len()));
        }
        let notices = notices.iter().map(|[count, nsid, kind]| Ok((*count, *nsid as u32, notice(*kind as u32)?)));
        Ok(Self { notices: notices.collect::<Result<_, StateError>>()?, count: saved.count })
    }
}
