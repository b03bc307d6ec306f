//! Asynchronous events (NVMe Base 2.0, "Asynchronous Event Request command"): what waits to be told, what is masked
//! until its log page is read, and which requests wait.

use std::collections::VecDeque;

use nvme_spec::event::{AsyncEvent, EventKind, EventType};
use nvme_spec::log::LogId;

use crate::saved::{StateError, narrow, state};

/// Event types there can be: three bits.
const TYPES: usize = 8;

/// The state of all events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Command identifiers of the requests that wait, oldest first.
    pub(crate) requests: VecDeque<u16>,
    /// Events that wait, oldest first; each kind once.
    pending: VecDeque<AsyncEvent>,
    /// By type: an event was sent and its log page not read since.
    masked: [bool; TYPES],
}

impl Events {
    /// Something happened.
    pub(crate) fn raise(&mut self, kind: EventKind, log_page: LogId) {
        let event = AsyncEvent::of(kind, log_page);
        if !self.pending.contains(&event) {
            self.pending.push_back(event);
        }
    }

    /// The next request to complete, and with what.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<(u16, AsyncEvent)> {
        if self.pending.is_empty() || self.requests.is_empty() {
            return None;
        }
        let index = self.pending.iter().position(|event| !self.is_masked(event.event_type()))?;
        let event = self.pending.remove(index)?;
        let cid = self.requests.pop_front()?;
        if let Some(masked) = self.masked.get_mut(usize::from(event.event_type().0)) {
            *masked = true;
        }
        Some((cid, event))
    }

    /// Whether no event waits.
    pub(crate) fn is_quiet(&self) -> bool {
        self.pending.is_empty()
    }

    fn is_masked(&self, event_type: EventType) -> bool {
        self.masked.get(usize::from(event_type.0)).copied().unwrap_or_default()
    }

    /// A log page was read, which clears the events it belongs to and lets them come again.
    pub(crate) fn log_was_read(&mut self, log_page: LogId) {
        let event_type = match log_page {
            LogId::ERROR => EventType::ERROR,
            LogId::SMART => EventType::SMART,
            LogId::CHANGED_NAMESPACES => EventType::NOTICE,
            LogId::RESERVATION_NOTIFICATION => EventType::IO_COMMAND_SET,
            _ => return,
        };
        self.pending.retain(|event| event.log_page() != log_page);
        if let Some(masked) = self.masked.get_mut(usize::from(event_type.0)) {
            *masked = false;
        }
    }

    /// A reset forgets requests and events.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Events {
    pub(crate) fn save(&self) -> state::Events {
        let masked = self.masked.iter().rev().fold(0, |bits, masked| bits << 1 | u32::from(*masked));
        state::Events {
            requests: self.requests.iter().map(|cid| (*cid).into()).collect(),
            pending: self.pending.iter().map(|event| event.into_bits()).collect(),
            masked,
        }
    }

    pub(crate) fn restore(saved: &state::Events) -> Result<Self, StateError> {
        let requests = saved.requests.iter().map(|cid| narrow("CID", *cid)).collect::<Result<_, _>>()?;
        let pending = saved.pending.iter().map(|event| AsyncEvent::from_bits(*event)).collect();
        let masked = std::array::from_fn(|bit| saved.masked >> (bit & 31) & 1 != 0);
        Ok(Self { requests, pending, masked })
    }
}
