//! The controller: what it consists of, and how it goes from one state to the next.

mod interrupts;
mod lanes;
mod lifecycle;
mod saved;
mod serve;

pub use lanes::Mark;
pub(crate) use lanes::{Lanes, Waiting};
pub(crate) use serve::{Outcome, done};

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use doorbell_device::inprocess::{Activity, Host, SoftController};
use nvme_spec::Command;
use nvme_spec::event::EventKind;
use nvme_spec::log::LogId;
use nvme_spec::registers::{doorbell_stride, offset};

use crate::admin::changed::ChangedNamespaces;
use crate::admin::features::Features;
use crate::admin::reservation_log::ReservationLog;
use crate::config::{ControllerConfig, InterruptMode};
use crate::delayed::Delayed;
use crate::events::Events;
use crate::fault::{FaultPlan, FaultRule, Judge};
use crate::health::{Condition, Health};
use crate::namespace::Namespace;
use crate::port::Port;
use crate::queues::Queues;
use crate::registers::Registers;
use crate::reservation::HostId;
use crate::subsystem::Subsystem;
use crate::transfer::{Extents, ListBuffer};

/// An NVMe controller: a state machine, which acts when it is called.
///
/// Made into a device by [`InProcess`](doorbell_device::inprocess::InProcess), or at once by
/// [`emulated`](crate::emulated).
#[derive(Debug)]
pub struct Controller {
    pub(crate) config: ControllerConfig,
    pub(crate) subsystem: Subsystem,
    pub(crate) port: Arc<Port>,
    /// The namespaces that are attached, by NSID less one.
    pub(crate) table: Vec<Option<Arc<Namespace>>>,
    pub(crate) registers: Registers,
    pub(crate) queues: Queues,
    pub(crate) features: Features,
    pub(crate) events: Events,
    pub(crate) changed: ChangedNamespaces,
    pub(crate) reservation_log: ReservationLog,
    pub(crate) health: Health,
    pub(crate) delayed: Delayed,
    pub(crate) scratch: Scratch,
    pub(crate) host: HostId,
    pub(crate) now: Duration,
    /// When the controller first ran, or last had its power back.
    pub(crate) powered_on: Option<Duration>,
    judge: Judge,
    /// How often the controller was reset.
    epoch: u32,
    /// Completion queues whose interrupt is to be raised, a bit each.
    raise: u128,
    /// Interrupts that wait for more completions.
    gathering: Option<interrupts::Gathering>,
    /// Completion queues that may have a backlog.
    backlogged: bool,
    /// All that the last run did was to carry out what was in I/O queues, to the end.
    settled: bool,
    /// What a fault plan has done to the controller.
    plight: Plight,
    pub(crate) lanes: Lanes,
    /// What was under way at the last reset has ended when this has passed.
    reset_at: Mark,
    /// Deletions of submission queues that wait for the queues' commands.
    pub(crate) deletions: Vec<(u16, Command)>,
    /// Shutting down: storage that finishes later was told to flush.
    flushing: bool,
}

/// Memory used again and again, so that commands need no allocation.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) lists: ListBuffer,
    pub(crate) extents: Extents,
    /// Of the second half of a fused pair, or of metadata.
    pub(crate) more_extents: Extents,
    pub(crate) bytes: Vec<u8>,
    pub(crate) more_bytes: Vec<u8>,
}

/// Whether the controller still does what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Plight {
    #[default]
    None,
    Stuck,
    Gone,
}

impl Controller {
    /// A controller of `subsystem`, with the lowest controller identifier that is free. Fields of `config` outside of
    /// their range are brought into it.
    pub fn new(subsystem: &Subsystem, config: ControllerConfig) -> Self {
        let config = config.normalised();
        let port = subsystem.join();
        Self {
            lanes: Lanes::new(port.cntlid),
            registers: Registers::new(&config),
            host: port.host(),
            judge: Judge::new(config.faults.clone()),
            config,
            subsystem: subsystem.clone(),
            port,
            table: Vec::new(),
            queues: Queues::default(),
            features: Features::default(),
            events: Events::default(),
            changed: ChangedNamespaces::default(),
            reservation_log: ReservationLog::default(),
            health: Health::new(),
            delayed: Delayed::default(),
            scratch: Scratch::default(),
            now: Duration::ZERO,
            powered_on: None,
            epoch: 0,
            raise: 0,
            gathering: None,
            backlogged: false,
            settled: false,
            plight: Plight::None,
            reset_at: Mark::default(),
            deletions: Vec::new(),
            flushing: false,
        }
    }

    /// The subsystem.
    pub fn subsystem(&self) -> &Subsystem {
        &self.subsystem
    }

    /// What the controller can do, as it was brought into range.
    pub fn config(&self) -> &ControllerConfig {
        &self.config
    }

    /// CNTLID.
    pub fn cntlid(&self) -> u16 {
        self.port.cntlid
    }

    /// Replaces the fault plan; counts begin anew.
    pub fn set_faults(&mut self, plan: FaultPlan) {
        self.judge = Judge::new(plan);
    }

    /// Adds a rule at the end of the fault plan.
    pub fn add_fault(&mut self, rule: FaultRule) {
        self.judge.add(rule);
    }

    /// How often each rule of the fault plan has applied.
    pub fn faults_applied(&self) -> Vec<u64> {
        self.judge.applied()
    }

    /// Tells the controller how it is doing. A warning that comes on is an asynchronous event, if the host wants those.
    pub fn set_condition(&mut self, condition: Condition) {
        self.health.condition = condition;
        self.check_health();
    }

    /// How it is doing.
    pub fn condition(&self) -> Condition {
        self.health.condition
    }

    /// Makes an asynchronous event of any kind, whatever the configuration says of it.
    pub fn raise_event(&mut self, kind: EventKind, log_page: LogId) {
        self.events.raise(kind, log_page);
    }

    /// How many I/O submission queues and completion queues there are.
    pub fn io_queues(&self) -> (usize, usize) {
        let completion = self.queues.completion.iter().skip(1).flatten().count();
        (self.queues.submission.iter().filter(|queue| queue.id != 0).count(), completion)
    }

    /// How many namespaces the controller has attached, as far as it has noticed.
    pub fn namespace_count(&self) -> usize {
        self.table.iter().flatten().count()
    }

    /// An attached namespace.
    #[inline]
    pub(crate) fn namespace(&self, nsid: u32) -> Option<&Arc<Namespace>> {
        self.table.get(nsid.wrapping_sub(1) as usize)?.as_ref()
    }

    /// NN.
    pub(crate) fn max_nsid(&self) -> u32 {
        if self.config.version < nvme_spec::registers::Version::V1_1 {
            // Before there was a list of namespaces, they were numbered without gaps from 1 to NN.
            self.table.len() as u32
        } else {
            self.subsystem.config().max_namespaces
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.subsystem.leave(self.port.cntlid);
    }
}

impl SoftController for Controller {
    fn register_space(&self) -> usize {
        let doorbells = (usize::from(self.config.queue_pairs).saturating_add(1))
            .saturating_mul(2)
            .saturating_mul(self.doorbell_stride());
        offset::DOORBELLS.saturating_add(doorbells.next_multiple_of(4096))
    }

    fn doorbell_stride(&self) -> usize {
        doorbell_stride(self.config.dstrd)
    }

    fn read_register(&mut self, offset: usize, len: usize) -> u64 {
        if self.plight == Plight::Gone {
            return u64::MAX;
        }
        // A reset of the subsystem is over by the time that anybody looks.
        if self.port.has_mail() {
            self.read_mail();
        }
        let low = u64::from(self.registers.read(offset));
        if len == 8 { low | u64::from(self.registers.read(offset.saturating_add(4))) << 32 } else { low }
    }

    fn write_register(&mut self, host: &Host<'_>, offset: usize, len: usize, value: u64) {
        if self.port.has_mail() {
            self.read_mail();
        }
        self.write_dword(host, offset, value as u32);
        if len == 8 {
            self.write_dword(host, offset.saturating_add(4), (value >> 32) as u32);
        }
    }

    fn run(&mut self, host: &Host<'_>, now: Duration) -> Activity {
        self.now = now;
        self.powered_on.get_or_insert(now);
        self.settled = false;
        let mut worked = self.lanes.poll();
        if self.port.has_mail() {
            self.read_mail();
            worked = true;
        }
        worked |= self.pass_time(host);
        worked |= self.post_finished(host);
        if self.is_processing() {
            let otherwise = worked;
            worked |= self.serve(host);
            // What was handed over is sent off.
            let sent = self.lanes.poll();
            worked |= sent;
            self.settled &= !otherwise && !sent && self.lanes.outstanding() == 0;
        }
        worked |= self.raise_interrupts(host);
        Activity { worked, wake_at: self.wake_at() }
    }

    fn is_settled(&self) -> bool {
        self.settled
    }

    /// Room for completions is nothing to act upon unless something waits for it.
    #[inline]
    fn heeds(&self, doorbell: usize) -> bool {
        let is_head = doorbell >> (self.config.dstrd & 0xf) & 1 == 1;
        !(is_head && self.settled)
    }

    fn function_reset(&mut self) {
        self.reset_function();
    }

    fn is_at_rest(&self) -> bool {
        self.lanes.has_passed(self.reset_at)
    }

    fn set_waker(&mut self, waker: Waker) {
        self.lanes.set_waker(waker);
    }

    fn fall_asleep(&mut self) -> bool {
        self.lanes.sleep()
    }
}

/// For whoever serves a controller whose storage finishes later.
impl Controller {
    /// Hears from storage, and of namespaces that came and went. Of the host nothing is needed for that, and nothing is
    /// told.
    pub fn hear_from_storage(&mut self) -> bool {
        if self.port.has_mail() {
            self.read_mail();
        }
        self.lanes.poll()
    }

    /// What is outstanding, up to now.
    pub fn mark(&self) -> Mark {
        self.lanes.mark()
    }

    /// Memory was taken away from the controller, from `iova` on: what was outstanding may still use it, and what is kept
    /// of it is given up, until what is returned [has passed](Self::has_passed).
    pub fn forget_memory(&mut self, iova: u64, len: u64) -> Mark {
        self.lanes.forget(iova, len)
    }

    /// Whether everything that was outstanding then has ended, and touches the host's memory no more.
    pub fn has_passed(&self, mark: Mark) -> bool {
        self.lanes.has_passed(mark)
    }

    /// Operations that storage has not ended.
    pub fn outstanding(&self) -> u32 {
        self.lanes.outstanding()
    }
}

impl Controller {
    fn write_dword(&mut self, host: &Host<'_>, offset: usize, value: u32) {
        if self.plight == Plight::Gone {
            return;
        }
        match offset {
            offset::CC => self.write_cc(host, value.into()),
            offset::NSSR if self.config.nssrs && value == nvme_spec::registers::NSSR_MAGIC => self.subsystem.reset(),
            offset::INTMC => {
                self.registers.write(offset, value);
                if self.config.interrupts == InterruptMode::Pin {
                    self.assert_pin(host);
                }
            }
            _ => self.registers.write(offset, value),
        }
    }

    #[inline]
    fn wake_at(&self) -> Option<Duration> {
        let nothing = self.delayed.is_empty()
            && !self.registers.will_change()
            && self.gathering.is_none()
            && self.judge.is_idle()
            && self.config.housekeeping.is_none();
        if nothing { None } else { self.next_time() }
    }

    fn next_time(&self) -> Option<Duration> {
        let times = [
            self.registers.next_change(),
            self.delayed.next_at(),
            self.gathering.map(|gathering| gathering.until),
            if self.judge.is_idle() { None } else { self.judge.next_time() },
            self.config.housekeeping.map(|interval| self.now.saturating_add(interval)),
        ];
        // What is due and has not happened waits for storage, which wakes, or for a host that resets a stuck controller.
        times.into_iter().flatten().filter(|at| *at > self.now).min()
    }
}
