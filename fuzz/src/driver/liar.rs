use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use doorbell_device::Access;
use doorbell_device::inprocess::{Activity, Host, SoftController};
use nvme_spec::registers::{Aqa, Cap, Cc, Crto, Csts, Version, offset};
use nvme_spec::{Command, Completion};
use zerocopy::{FromBytes, IntoBytes};

use super::input::Input;

/// Queue identifiers that have a place among the doorbells.
const QUEUES: usize = 16;

/// A controller of which the input tells what it is and does: registers, completions, data, interrupts.
///
/// With nothing to draw it is an ordinary one. It sees for its part that the driver keeps to the rules: what a command
/// names stays mapped until the command is completed or the controller is stopped, and doorbells stay in their queues.
pub(super) struct Liar {
    pub(super) input: Input,
    pub(super) vectors: u16,
    cap: Cap,
    version: Version,
    pub(super) cc: Cc,
    aqa: Aqa,
    asq: u64,
    acq: u64,
    pub(super) fatal: bool,
    not_ready: bool,
    /// A register that goes on lying: what it reads as, and how often.
    stubborn: Option<(usize, u64, u8)>,
    pub(super) submission: BTreeMap<u16, Submission>,
    pub(super) completion: BTreeMap<u16, CompletionQueue>,
    /// Completions that come later: when, of which queue.
    due: Vec<(Duration, u16, Completion)>,
    pub(super) event_requests: Vec<u16>,
    /// What commands name, by queue and identifier, until it is not theirs any more.
    named: BTreeMap<(u16, u16), (u8, u64)>,
    /// Memory was written that may have been a command or a completion: it is not known who owns what.
    pub(super) blind: bool,
    /// What is to be done without being asked for.
    pub(super) mischief: bool,
    released: bool,
    /// It said something else of itself than what it is: where doorbells are, or how many entries a queue has.
    misled: bool,
    /// A reset failed: whatever it still wants to touch is taken away from it.
    pub(super) cut_off: bool,
}

pub(super) struct Submission {
    pub(super) base: u64,
    pub(super) entries: u32,
    pub(super) head: u32,
    pub(super) cqid: u16,
}

pub(super) struct CompletionQueue {
    pub(super) base: u64,
    pub(super) entries: u32,
    pub(super) tail: u32,
    pub(super) phase: bool,
    pub(super) vector: Option<u16>,
}

impl Liar {
    pub(super) fn new(input: Input, vectors: u16) -> Self {
        let cap = Cap::new()
            .with_mqes([63, 0, 1, 2, 7, 1023, u16::MAX][input.below(7) as usize])
            .with_cqr(true)
            .with_to([2, 0, 1, 255][input.below(4) as usize])
            .with_dstrd(input.below(3) as u8)
            .with_css(Cap::CSS_NVM)
            .with_nssrs(input.below(2) == 1)
            .with_mpsmin(input.below(3) as u8)
            .with_mpsmax(4)
            .with_crms(input.below(4) as u8);
        let version = [Version::V2_0, Version::V1_0, Version::V1_2, Version::V1_4][input.below(4) as usize];
        Self {
            input,
            vectors,
            cap,
            version,
            cc: Cc::new(),
            aqa: Aqa::new(),
            asq: 0,
            acq: 0,
            fatal: false,
            not_ready: false,
            stubborn: None,
            submission: BTreeMap::new(),
            completion: BTreeMap::new(),
            due: Vec::new(),
            event_requests: Vec::new(),
            named: BTreeMap::new(),
            blind: false,
            mischief: false,
            released: false,
            misled: false,
            cut_off: false,
        }
    }

    /// Whether it takes commands and answers them.
    fn works(&self) -> bool {
        self.cc.en() && !self.fatal && !self.not_ready
    }

    /// It touches nothing any more.
    pub(super) fn release(&mut self) {
        self.function_reset();
        self.released = true;
    }

    fn status(&self) -> Csts {
        let shutdown = if self.cc.shn() == Cc::SHN_NONE { Csts::SHST_NONE } else { Csts::SHST_COMPLETE };
        Csts::new().with_rdy(self.cc.en() && !self.not_ready).with_cfs(self.fatal).with_shst(shutdown)
    }

    /// An aligned pair of registers.
    fn pair(&self, offset: usize) -> u64 {
        match offset {
            offset::CAP => self.cap.into_bits(),
            offset::VS => self.version.into_bits().into(),
            0x10 => u64::from(self.cc.into_bits()) << 32,
            0x18 => u64::from(self.status().into_bits()) << 32,
            0x20 => u64::from(self.aqa.into_bits()) << 32,
            offset::ASQ => self.asq,
            offset::ACQ => self.acq,
            offset::CRTO => Crto::new().with_crwmt(1).into_bits().into(),
            _ => 0,
        }
    }

    fn configure(&mut self, host: &Host<'_>, cc: Cc) {
        let was = std::mem::replace(&mut self.cc, cc);
        if was.en() != cc.en() {
            self.forget(host);
            self.not_ready = cc.en() && self.input.seldom();
        }
        if cc.en() && !was.en() {
            let (asq, acq) = (u32::from(self.aqa.asqs()) + 1, u32::from(self.aqa.acqs()) + 1);
            self.submission.insert(0, Submission { base: self.asq, entries: asq, head: 0, cqid: 0 });
            let queue = CompletionQueue { base: self.acq, entries: acq, tail: 0, phase: true, vector: Some(0) };
            self.completion.insert(0, queue);
        }
    }

    fn forget(&mut self, host: &Host<'_>) {
        self.fatal = false;
        self.submission.clear();
        self.completion.clear();
        self.due.clear();
        self.event_requests.clear();
        self.blind = false;
        host.doorbells.dwords().iter().for_each(|doorbell| doorbell.store(0, Ordering::Release));
    }

    fn doorbell(&self, qid: u16) -> usize {
        2 * usize::from(qid) * self.doorbell_stride() / 4
    }

    pub(super) fn clear_doorbell(&self, host: &Host<'_>, qid: u16, completion: bool) {
        let at = self.doorbell(qid) + usize::from(completion) * self.doorbell_stride() / 4;
        if let Some(doorbell) = host.doorbells.dwords().get(at) {
            doorbell.store(0, Ordering::Release);
        }
    }

    /// The next command of a queue.
    fn fetch(&mut self, host: &Host<'_>, qid: u16) -> Option<Command> {
        let at = self.doorbell(qid);
        let queue = self.submission.get_mut(&qid)?;
        let tail = host.doorbells.dwords().get(at)?.load(Ordering::Acquire);
        let within = tail < queue.entries;
        assert!(within || self.misled, "a doorbell of {tail} in a queue of {} entries", queue.entries);
        if queue.head == tail || !within {
            return None;
        }
        let mut bytes = [0; 64];
        let read = host.dma.read(queue.base + u64::from(queue.head) * 64, &mut bytes);
        assert!(read.is_ok() || self.cut_off, "the memory of submission queue {qid} is not the device's any more");
        queue.head = (queue.head + 1) % queue.entries;
        Command::read_from_bytes(&bytes).ok()
    }

    /// Remembers what a command names: the first byte of it.
    fn note(&mut self, qid: u16, command: &Command) {
        let address = match command.cdw0.psdt() {
            0 => command.dptr.prp1(),
            _ => command.dptr.as_sgl().address,
        };
        if address != 0 {
            self.named.insert((qid, command.cdw0.cid()), (command.cdw0.opcode(), address));
        }
    }

    fn check_named(&self, host: &Host<'_>) {
        if self.blind || self.cut_off || !self.cc.en() {
            return;
        }
        for ((qid, cid), (opcode, address)) in &self.named {
            let there = host.dma.resolve(*address, 1, Access::Read).is_ok()
                || host.dma.resolve(*address, 1, Access::Write).is_ok();
            assert!(there, "command {cid:#x} ({opcode:#x}) of queue {qid} is not done, and {address:#x} is unmapped");
        }
    }

    /// Puts a completion into a queue, if there is room, and interrupts.
    pub(super) fn post(&mut self, host: &Host<'_>, cqid: u16, completion: Completion) {
        let Some(queue) = self.completion.get_mut(&cqid) else { return };
        // Whatever it names is free from now on.
        for qid in [cqid, completion.sqid] {
            self.named.remove(&(qid, completion.cid));
        }
        let completion = Completion { status: completion.status.with_phase(queue.phase), ..completion };
        let written = host.dma.write(queue.base + u64::from(queue.tail) * 16, completion.as_bytes());
        assert!(written.is_ok() || self.cut_off, "the memory of completion queue {cqid} is not the device's any more");
        queue.tail += 1;
        if queue.tail == queue.entries {
            queue.tail = 0;
            queue.phase = !queue.phase;
        }
        match self.input.below(64) {
            // A lost interrupt, and one too many of another vector.
            62 => {}
            63 => (host.interrupt)(self.input.below(u64::from(self.vectors) + 2) as u16),
            _ => {
                if let Some(vector) = queue.vector {
                    (host.interrupt)(vector);
                }
            }
        }
    }

    pub(super) fn post_later(&mut self, at: Duration, cqid: u16, completion: Completion) {
        self.due.push((at, cqid, completion));
    }
}

impl SoftController for Liar {
    fn register_space(&self) -> usize {
        (offset::DOORBELLS + 2 * QUEUES * self.doorbell_stride()).next_multiple_of(4096)
    }

    fn doorbell_stride(&self) -> usize {
        4 << self.cap.dstrd()
    }

    fn read_register(&mut self, offset: usize, len: usize) -> u64 {
        if self.released {
            return u64::MAX;
        }
        let pair = self.pair(offset & !7);
        let value = if offset.is_multiple_of(8) { pair } else { pair >> 32 };
        let mut read = match &mut self.stubborn {
            Some((at, lie, times)) if *at == offset && *times > 0 => {
                *times -= 1;
                *lie
            }
            _ => match self.input.below(48) {
                43 => u64::MAX,
                44 => 0,
                45 => value ^ 1 << self.input.below(64),
                46 => self.input.any(),
                47 => {
                    self.stubborn = Some((offset, self.input.any(), self.input.any()));
                    value
                }
                _ => value,
            },
        };
        let seen = if len == 4 { 0xffff_ffff } else { u64::MAX };
        read &= seen;
        self.misled |= offset & !7 == offset::CAP && read != value & seen;
        if offset == offset::CSTS && !self.cc.en() && !Csts::from_bits(read as u32).rdy() {
            self.named.clear();
        }
        read
    }

    fn write_register(&mut self, host: &Host<'_>, offset: usize, len: usize, value: u64) {
        let low = |old: u64| old & !0xffff_ffff | value & 0xffff_ffff;
        let high = |old: u64| old & 0xffff_ffff | value << 32;
        match (offset, len) {
            _ if self.released => {}
            (offset::CC, _) => self.configure(host, Cc::from_bits(value as u32)),
            (offset::AQA, _) => self.aqa = Aqa::from_bits(value as u32),
            (offset::ASQ, 8) => self.asq = value,
            (offset::ACQ, 8) => self.acq = value,
            (offset::ASQ, _) => self.asq = low(self.asq),
            (offset::ACQ, _) => self.acq = low(self.acq),
            (0x2c, _) => self.asq = high(self.asq),
            (0x34, _) => self.acq = high(self.acq),
            _ => {}
        }
    }

    fn run(&mut self, host: &Host<'_>, now: Duration) -> Activity {
        self.check_named(host);
        let mut worked = std::mem::take(&mut self.mischief);
        if worked && self.cc.en() {
            self.make_mischief(host);
        }
        if self.works() {
            for qid in self.submission.keys().copied().collect::<Vec<_>>() {
                while let Some(command) = self.fetch(host, qid) {
                    worked = true;
                    if !self.blind {
                        self.note(qid, &command);
                    }
                    self.answer(host, now, qid, &command);
                }
            }
            let (due, later) = std::mem::take(&mut self.due).into_iter().partition(|(at, ..)| *at <= now);
            self.due = later;
            for (_, cqid, completion) in due {
                worked = true;
                self.post(host, cqid, completion);
            }
        }
        // One that does nothing any more waits for nothing either.
        let next = self.due.iter().map(|(at, ..)| *at).min();
        Activity { worked, wake_at: next.filter(|_| self.works()) }
    }

    fn function_reset(&mut self) {
        self.cc = Cc::new();
        self.fatal = false;
        self.submission.clear();
        self.completion.clear();
        self.due.clear();
        self.event_requests.clear();
        self.named.clear();
        self.blind = false;
    }
}
