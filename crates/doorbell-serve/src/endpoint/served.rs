//! What an endpoint's thread does: it runs the controller, and hears what others want in between.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use doorbell_device::inprocess::{Activity, SoftController};
use doorbell_emulator::{Controller, Mark};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Job, Shared};
use crate::listener::{Listener, turn_away};
use crate::pace::Pace;
use crate::session::{Pumped, Session};

/// How often the controller runs before the client's messages have their turn.
const RUNS: u32 = 64;
/// How often messages are asked for while the controller is busy; it costs three system calls.
const HEARING: Duration = Duration::from_micros(50);
/// How long after a message the next one is waited for as eagerly as a doorbell.
const TALK: Duration = Duration::from_millis(1);
/// How long storage is waited for before it is asked again: it wakes who waits.
const STORAGE: Duration = Duration::from_millis(10);
/// How long what is under way may take when the endpoint stops.
const FINISH: Duration = Duration::from_secs(2);

/// What the thread has.
pub(super) struct Served {
    pub(super) listener: Listener,
    pub(super) controller: Controller,
    pub(super) shared: Arc<Shared>,
    pub(super) jobs: Receiver<Job>,
    pub(super) started: Instant,
    pub(super) session: Option<Session>,
    pub(super) pace: Pace,
    /// When the last message came.
    pub(super) heard: Instant,
    /// When messages were last asked for; none if they have to be now.
    pub(super) listened: Option<Instant>,
    /// What of the client is waited for.
    pub(super) wanted: PollFlags,
    /// The client's session is being ended.
    pub(super) ending: bool,
    /// Another process serves the client and the socket.
    pub(super) left: bool,
}

impl Served {
    /// Goes on with what another process had under way.
    pub(super) fn resume(&mut self) {
        if let Some(session) = &self.session {
            let now = self.started.elapsed();
            session.with_host(|host| self.controller.resume(host, now));
        }
    }

    pub(super) fn serve(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            let now = Instant::now();
            let mut worked = self.is_time_to_hear(now) && self.hear(now);
            if self.left {
                return self.listener.leave();
            }
            let rests_until = self.session.as_mut().and_then(Session::rests_until);
            let activity = if rests_until.is_some() { Activity::default() } else { self.run(now) };
            worked |= activity.worked;
            if worked {
                self.pace.worked();
            } else {
                self.pause(now, activity.wake_at, rests_until);
            }
        }
        self.finish();
    }

    fn is_time_to_hear(&self, now: Instant) -> bool {
        let since = |then: Instant| now.saturating_duration_since(then);
        self.listened.is_none_or(|listened| since(listened) >= HEARING) || since(self.heard) < TALK
    }

    /// Takes what others want: jobs, clients, and what these say. Says whether there was anything.
    fn hear(&mut self, now: Instant) -> bool {
        self.listened = Some(now);
        let jobs = self.do_jobs();
        if self.left {
            // What comes now is another process's to answer.
            return true;
        }
        let clients = self.take_clients();
        let messages = self.take_messages();
        if clients || messages {
            self.heard = now;
        }
        jobs || clients || messages
    }

    /// Runs the controller for a while, with what the client has mapped as it is.
    fn run(&mut self, now: Instant) -> Activity {
        let Some(session) = &self.session else {
            // What was removed is let go, client or not.
            self.controller.hear_from_storage();
            return Activity::default();
        };
        let time = now.saturating_duration_since(self.started);
        let controller = &mut self.controller;
        let (activity, runs) = session.with_host(|host| {
            let mut worked = 0;
            for _ in 0..RUNS {
                let activity = controller.run(host, time);
                if !activity.worked {
                    return (Activity { worked: worked > 0, ..activity }, worked);
                }
                worked = u64::saturating_add(worked, 1);
            }
            (Activity { worked: true, wake_at: None }, worked)
        });
        if runs > 0 {
            self.shared.statistics.runs.fetch_add(runs, Ordering::Relaxed);
        }
        activity
    }

    /// Sleeps, if the controller has been idle for long enough, until something may have happened.
    fn pause(&mut self, now: Instant, wake_at: Option<Duration>, rests_until: Option<Instant>) {
        let enabled = self.session.is_some() && self.is_enabled();
        let looks_again = match self.pace.idle(now) {
            // Only an enabled controller has doorbells to look for.
            _ if !enabled => None,
            None if rests_until.is_none() => {
                std::hint::spin_loop();
                return;
            }
            pause => pause,
        };
        let at = wake_at.and_then(|at| self.started.checked_add(at)).map(|at| at.saturating_duration_since(now));
        let rest = rests_until.map(|until| until.saturating_duration_since(now));
        let timeout = [looks_again, at, rest].into_iter().flatten().min();
        if let Some(session) = &mut self.session {
            session.explain_faults();
        }
        // Between the last time that messages were asked for and now, one may have come; `poll` tells.
        self.listened = None;
        self.shared.statistics.sleeps.fetch_add(1, Ordering::Relaxed);
        self.sleep(timeout);
    }

    /// Sleeps until something happens, but for no longer than this.
    fn sleep(&mut self, timeout: Option<Duration>) {
        // Either this is seen by who calls, or the call is seen here.
        self.shared.asleep.store(true, Ordering::SeqCst);
        if !self.controller.fall_asleep() && !self.shared.called.swap(false, Ordering::SeqCst) {
            self.wait(timeout);
        }
        self.shared.asleep.store(false, Ordering::SeqCst);
    }

    fn wait(&self, timeout: Option<Duration>) {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = vec![
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::from_borrowed_fd(self.shared.wake.as_fd(), PollFlags::IN),
        ];
        fds.extend(self.session.iter().map(|session| PollFd::new(session, self.wanted)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "waiting for clients");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn is_enabled(&mut self) -> bool {
        // CC.EN.
        self.controller.read_register(0x14, 4) & 1 != 0
    }

    fn do_jobs(&mut self) -> bool {
        if self.shared.wake.take() == 0 {
            return false;
        }
        while !self.left
            && let Ok(job) = self.jobs.try_recv()
        {
            job(self);
        }
        true
    }

    fn take_clients(&mut self) -> bool {
        let mut any = false;
        while let Some(stream) = self.listener.accept() {
            any = true;
            // The present one may have gone, unnoticed yet.
            self.take_messages();
            if self.session.is_some() {
                tracing::warn!(socket = %self.listener_path(), "a second client is turned away");
                self.shared.statistics.turned_away.fetch_add(1, Ordering::Relaxed);
                turn_away(stream);
                continue;
            }
            match Session::new(stream, &self.controller) {
                Ok(session) => self.begin_session(session),
                Err(error) => tracing::error!(%error, "a client cannot be served"),
            }
        }
        any
    }

    pub(super) fn take_messages(&mut self) -> bool {
        let Some(session) = &mut self.session else { return false };
        match session.pump(&mut self.controller) {
            Ok(pumped) => {
                self.wanted = match pumped {
                    Pumped { blocked: true, .. } => PollFlags::OUT,
                    Pumped { waits: true, .. } => PollFlags::empty(),
                    _ => PollFlags::IN,
                };
                if pumped.worked {
                    self.count_memory();
                }
                pumped.worked
            }
            Err(end) => {
                self.end_session(&end.to_string());
                true
            }
        }
    }

    fn listener_path(&self) -> String {
        self.listener.path().display().to_string()
    }

    fn begin_session(&mut self, session: Session) {
        self.session = Some(session);
        let statistics = &self.shared.statistics;
        statistics.clients.fetch_add(1, Ordering::Relaxed);
        statistics.connected.store(true, Ordering::Relaxed);
    }

    /// The client goes with its memory and interrupts; the controller is as after power-on for the next.
    fn end_session(&mut self, why: &str) {
        let Some(mut session) = self.session.take() else { return };
        tracing::info!(socket = %self.listener_path(), why, "the client's session ends");
        self.ending = true;
        session.reset(&mut self.controller);
        // Nothing is left that would touch its memory when it has gone.
        let gone = self.controller.forget_memory(0, u64::MAX);
        self.wait_for_storage(gone);
        self.ending = false;
        drop(session);
        self.wanted = PollFlags::IN;
        self.shared.statistics.connected.store(false, Ordering::Relaxed);
        self.count_memory();
    }

    /// Waits until what was outstanding has ended; when the server stops, not for long.
    fn wait_for_storage(&mut self, mark: Mark) {
        let mut stopping = None;
        while !self.controller.has_passed(mark) {
            self.controller.hear_from_storage();
            self.do_jobs();
            let now = Instant::now();
            if self.shared.stop.load(Ordering::Acquire)
                && now.saturating_duration_since(*stopping.get_or_insert(now)) >= FINISH
            {
                tracing::warn!(outstanding = self.controller.outstanding(), "storage has not finished");
                return;
            }
            self.sleep(Some(STORAGE));
        }
    }

    fn count_memory(&self) {
        let (mappings, bytes, faults) = self.session.as_ref().map(Session::memory).unwrap_or_default();
        let statistics = &self.shared.statistics;
        statistics.mappings.store(mappings as u64, Ordering::Relaxed);
        statistics.mapped_bytes.store(bytes, Ordering::Relaxed);
        statistics.dma_faults.store(faults, Ordering::Relaxed);
    }

    /// The end: commands that were taken are completed.
    fn finish(&mut self) {
        let deadline = Instant::now().checked_add(FINISH);
        loop {
            let now = Instant::now();
            // Without something that takes time, a command is completed as soon as it is taken.
            let Activity { wake_at, .. } = self.run(now);
            let is_done = wake_at.is_none() && self.controller.outstanding() == 0;
            if is_done || deadline.is_none_or(|deadline| now >= deadline) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.end_session("the server stops");
    }
}
