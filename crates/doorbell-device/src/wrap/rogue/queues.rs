use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use nvme_spec::registers::{Aqa, Cc, offset};
use nvme_spec::{AdminOpcode, Command};

use super::RogueQueue;
use crate::inprocess::DmaSpace;
use crate::{Access, dma_rmb};

/// What was learnt by listening to the driver.
#[derive(Default)]
pub(super) struct Queues {
    cc: Cc,
    aqa: Aqa,
    asq: u64,
    acq: u64,
    /// How far the admin submission queue was read.
    admin_head: u32,
    completion: BTreeMap<u16, RogueQueue>,
}

impl Queues {
    pub(super) fn completion_queues(&self) -> Vec<RogueQueue> {
        self.completion.values().copied().collect()
    }

    pub(super) fn completion_queue(&self, qid: u16) -> Option<RogueQueue> {
        self.completion.get(&qid).copied()
    }

    /// The driver writes 32 bits of a register.
    pub(super) fn wrote(&mut self, offset: usize, value: u32) {
        let low = |old: u64| old & !0xffff_ffff | u64::from(value);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            offset::CC => self.configured(Cc::from_bits(value)),
            offset::AQA => self.aqa = Aqa::from_bits(value),
            offset::ASQ => self.asq = low(self.asq),
            0x2c => self.asq = high(self.asq),
            offset::ACQ => self.acq = low(self.acq),
            0x34 => self.acq = high(self.acq),
            _ => {}
        }
    }

    fn configured(&mut self, cc: Cc) {
        let was = std::mem::replace(&mut self.cc, cc);
        if was.en() == cc.en() {
            return;
        }
        self.completion.clear();
        self.admin_head = 0;
        if cc.en() {
            let entries = u32::from(self.aqa.acqs()) + 1;
            self.completion.insert(0, RogueQueue { qid: 0, iova: self.acq, entries, vector: Some(0) });
        }
    }

    /// The admin doorbell is about to ring: reads the commands that the device will read.
    pub(super) fn admin_rings(&mut self, tail: u32, space: &DmaSpace) {
        let entries = u32::from(self.aqa.asqs()) + 1;
        if !self.cc.en() || tail >= entries {
            return;
        }
        dma_rmb();
        while self.admin_head != tail {
            if let Some(command) = read_command(space, self.asq + u64::from(self.admin_head) * 64) {
                self.sent(&command);
            }
            self.admin_head = (self.admin_head + 1) % entries;
        }
    }

    fn sent(&mut self, command: &Command) {
        let qid = command.cdw10 as u16;
        match AdminOpcode(command.cdw0.opcode()) {
            // Contiguous ones only: of the others, PRP1 is a list.
            AdminOpcode::CREATE_IO_CQ if command.cdw11 & 1 == 1 => {
                let queue = RogueQueue {
                    qid,
                    iova: command.dptr.prp1(),
                    entries: (command.cdw10 >> 16) + 1,
                    vector: (command.cdw11 & 2 != 0).then_some((command.cdw11 >> 16) as u16),
                };
                self.completion.insert(qid, queue);
            }
            AdminOpcode::DELETE_IO_CQ => {
                self.completion.remove(&qid);
            }
            _ => {}
        }
    }
}

fn read_command(space: &DmaSpace, iova: u64) -> Option<Command> {
    let view = space.view();
    let (host, offset) = view.resolve(iova, 64, Access::Read).ok()?;
    let words = host.words().get(offset / 8..)?.first_chunk::<8>()?;
    Some(Command::from_words(words.each_ref().map(|word| word.load(Ordering::Relaxed))))
}
