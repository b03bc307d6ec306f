//! Seeing inside while it runs: a typed tree that serializes to JSON and prints as text.

use std::fmt;

use super::core::{ControllerState, Core};
use super::options::CompletionMode;
use crate::namespace::NamespaceView;
use crate::queue::QueueState;

/// A driver as it is at a moment.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct DriverView {
    /// The controller.
    pub controller: ControllerView,
    /// The admin queue.
    pub admin: AdminView,
    /// Which queue each CPU uses that has issued I/O.
    pub cpus: Vec<CpuView>,
    /// The I/O queues.
    pub queues: Vec<QueueState>,
    /// The namespaces that have a handle.
    pub namespaces: Vec<NamespaceView>,
    /// Guest memory registrations.
    pub registrations: usize,
}

/// What a controller is, and where it is in its life.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct ControllerView {
    /// The device's address.
    pub address: String,
    /// Serial number.
    pub serial: String,
    /// Model number.
    pub model: String,
    /// Firmware revision.
    pub firmware: String,
    /// The specification's version that it says it follows.
    pub version: String,
    /// Where it is in its life.
    pub state: ControllerState,
    /// How often it was reset and brought back, or tried to be.
    pub resets: u64,
    /// Bytes of a page (CC.MPS).
    pub page_size: usize,
    /// Bytes of the largest transfer.
    pub max_transfer: usize,
    /// Whether data may go out as SGLs.
    pub sgl: bool,
    /// Where shadow doorbells are used, how often a doorbell rang all the same.
    pub shadow_doorbells: Option<u64>,
    /// `interrupt`, `polling` or `adaptive`.
    pub completion: String,
    /// What interrupts wait for, where the driver set that.
    pub interrupt_coalescing: Option<CoalescingView>,
    /// I/O queue pairs that there may be.
    pub queue_limit: u16,
    /// Queue pairs whose memory is kept because the device may still own it.
    pub condemned_queues: usize,
}

/// What an interrupt waits for: the one or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct CoalescingView {
    /// So many completions.
    pub completions: u16,
    /// So many microseconds since the first.
    pub time_us: u32,
}

/// The admin queue and what came of it.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct AdminView {
    /// The queue.
    pub queue: QueueState,
    /// The commands that the controller has not answered, event requests among them.
    pub pending: Vec<PendingCommand>,
    /// Asynchronous events so far, by event type.
    pub events: [u64; 8],
}

/// An admin command that was submitted and not answered.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct PendingCommand {
    /// Command identifier.
    pub cid: u16,
    /// Opcode.
    pub opcode: u8,
    /// Microseconds since it was submitted.
    pub age_us: u64,
}

/// Which queue a CPU uses.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct CpuView {
    /// The CPU.
    pub cpu: u32,
    /// Its queue's identifier.
    pub queue: u16,
    /// Whether the queue was made for another CPU and is shared, because no more could be had.
    pub shared: bool,
}

impl Core {
    pub(crate) fn inspect(&self) -> DriverView {
        let cpus = self.issuers.assignments().into_iter();
        DriverView {
            controller: ControllerView {
                address: self.device.address(),
                serial: self.identify.sn.to_string(),
                model: self.identify.mn.to_string(),
                firmware: self.identify.fr.to_string(),
                version: self.registers.version.to_string(),
                state: self.shown_state(),
                resets: self.resets.load(std::sync::atomic::Ordering::Relaxed),
                page_size: self.page_size,
                max_transfer: self.max_transfer_bytes(),
                sgl: self.layout.sgl,
                shadow_doorbells: self.shadows.as_ref().and_then(|shadows| shadows.rung()),
                completion: match self.completion {
                    CompletionMode::Interrupt => "interrupt",
                    CompletionMode::Polling => "polling",
                    CompletionMode::CallerPolls => "caller polls",
                    CompletionMode::Adaptive => "adaptive",
                }
                .into(),
                interrupt_coalescing: self.options.interrupt_coalescing.map(|coalescing| CoalescingView {
                    completions: u16::from(coalescing.thr()) + 1,
                    time_us: u32::from(coalescing.time()) * 100,
                }),
                queue_limit: self.issuers.limit(),
                condemned_queues: self.condemned().len(),
            },
            admin: self.inspect_admin(),
            cpus: cpus.map(|(cpu, queue, shared)| CpuView { cpu, queue, shared }).collect(),
            queues: self.issuers.queues().iter().map(|queue| queue.inspect()).collect(),
            namespaces: self.namespaces.views(),
            registrations: self.registrations.len(),
        }
    }

    fn inspect_admin(&self) -> AdminView {
        let queue = self.admin.queue.inspect();
        let now = self.options.runtime.now().as_nanos() as u64;
        let pending = queue.commands.iter().map(|command| PendingCommand {
            cid: command.cid,
            opcode: command.opcode,
            age_us: now.saturating_sub(command.tag) / 1000,
        });
        AdminView { pending: pending.collect(), queue, events: self.events.counts() }
    }
}

impl fmt::Display for DriverView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.controller;
        writeln!(f, "controller {}", c.address)?;
        writeln!(f, "  {} {} (firmware {}, NVMe {})", c.model, c.serial, c.firmware, c.version)?;
        writeln!(f, "  state {:?}, completions by {}", c.state, c.completion)?;
        if let Some(coalescing) = c.interrupt_coalescing {
            let CoalescingView { completions, time_us } = coalescing;
            writeln!(f, "  an interrupt waits for {completions} completions or {time_us} us")?;
        }
        writeln!(f, "  page {} B, largest transfer {} B, SGL {}", c.page_size, c.max_transfer, c.sgl)?;
        if let Some(rung) = c.shadow_doorbells {
            writeln!(f, "  shadow doorbells; {rung} rang all the same")?;
        }
        writeln!(f, "  {} of {} I/O queues", self.queues.len(), c.queue_limit)?;
        writeln!(f, "  {} guest memory registrations", self.registrations)?;
        for cpu in &self.cpus {
            let shared = if cpu.shared { " (shared)" } else { "" };
            writeln!(f, "  CPU {:>3} uses queue {}{shared}", cpu.cpu, cpu.queue)?;
        }
        write!(f, "{}", self.admin.queue)?;
        for command in &self.admin.pending {
            writeln!(f, "  pending {:#06x}: opcode {:#04x}, for {} us", command.cid, command.opcode, command.age_us)?;
        }
        for queue in &self.queues {
            write!(f, "{queue}")?;
        }
        for namespace in &self.namespaces {
            write!(f, "{namespace}")?;
        }
        Ok(())
    }
}

impl fmt::Display for QueueState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.id == 0 { "admin queue".into() } else { format!("I/O queue {}", self.id) };
        writeln!(
            f,
            "{name}: depth {}, {} in flight, {} waiting, SQ tail {} head {}, CQ head {} phase {}",
            self.depth,
            self.commands.len(),
            self.waiting,
            self.sq_tail,
            self.sq_head,
            self.cq_head,
            u8::from(self.phase)
        )?;
        let n = &self.counters;
        writeln!(
            f,
            "  {} submitted, {} completed, {} doorbells, {} interrupts, {} polls ({} found), {} bounced, {} waited",
            n.submitted, n.completed, n.doorbells, n.interrupts, n.polls, n.polls_found, n.bounced, n.waited
        )?;
        writeln!(f, "  bounce pool: {} of {} pages in use", self.pool_in_use, self.pool_pages)?;
        if let Some(fault) = &self.fault {
            writeln!(f, "  fault: {fault}")?;
        }
        for command in &self.commands {
            writeln!(
                f,
                "  command {:#06x}: opcode {:#04x}, namespace {}, {}",
                command.cid, command.opcode, command.nsid, command.state
            )?;
        }
        Ok(())
    }
}
