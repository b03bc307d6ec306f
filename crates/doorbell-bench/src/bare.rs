//! The floor: the same commands and completions on the same rings, with no driver.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use doorbell_device::zero_work::{Options, Queue, ZeroWork};
use doorbell_device::{Device, DmaMemory, Doorbell, dma_rmb};
use nvme_spec::admin::{create_io_cq, create_io_sq};
use nvme_spec::registers::{Aqa, Cap, Cc, cq_head_doorbell, offset, sq_tail_doorbell};
use nvme_spec::{Cdw0, Command, Completion, DataPointer, NvmOpcode};

/// Entries of the rings.
const ENTRIES: u16 = 257;

/// A queue pair driven by hand.
pub(crate) struct Bare {
    _device: Arc<ZeroWork>,
    queue: Queue,
    memory: DmaMemory,
    sq_doorbell: Doorbell,
    cq_doorbell: Doorbell,
    tail: u16,
    head: u16,
    phase: bool,
}

/// Where the completion ring begins, in words.
const CQ: usize = 8192 * 4 / 8;

impl Bare {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let device = ZeroWork::new(Options::default())?;
        let cap = Cap::from(device.read64(offset::CAP)?);
        let admin = device.allocate(8192, 4096)?;
        device.write32(offset::AQA, Aqa::new().with_asqs(31).with_acqs(31).into())?;
        device.write64(offset::ASQ, admin.iova())?;
        device.write64(offset::ACQ, admin.iova() + 4096)?;
        device.write32(offset::CC, Cc::new().with_en(true).with_iosqes(6).with_iocqes(4).into())?;
        let memory = device.allocate(65536, 4096)?;
        let commands = [
            create_io_cq(1, ENTRIES.into(), memory.iova() + CQ as u64 * 8, None),
            create_io_sq(1, ENTRIES.into(), memory.iova(), 1),
        ];
        let doorbell = device.doorbell(sq_tail_doorbell(0, cap.dstrd()))?;
        for (i, command) in commands.iter().enumerate() {
            for (j, word) in command.to_words().into_iter().enumerate() {
                admin.host().words()[i * 8 + j].store(word, Ordering::Relaxed);
            }
            doorbell.ring(i as u32 + 1);
        }
        let queue = device.queue(1).ok_or_else(|| anyhow::anyhow!("the device did not make the queue"))?;
        Ok(Self {
            queue,
            memory,
            sq_doorbell: device.doorbell(sq_tail_doorbell(1, cap.dstrd()))?,
            cq_doorbell: device.doorbell(cq_head_doorbell(1, cap.dstrd()))?,
            _device: device,
            tail: 0,
            head: 0,
            phase: true,
        })
    }

    /// `in_flight` commands, submitted, completed, reaped.
    #[inline]
    pub(crate) fn round(&mut self, in_flight: usize) -> usize {
        let words = self.memory.host().words();
        for i in 0..in_flight {
            let mut command = Command {
                cdw0: Cdw0::new().with_opcode(NvmOpcode::READ.0).with_cid(i as u16),
                nsid: 1,
                dptr: DataPointer::prp(0x10_0000, 0),
                ..Command::default()
            };
            command.set_cdw10_11(i as u64);
            let at = usize::from(self.tail) * 8;
            for (cell, word) in words[at..at + 8].iter().zip(command.to_words()) {
                cell.store(word, Ordering::Relaxed);
            }
            self.tail = if self.tail + 1 == ENTRIES { 0 } else { self.tail + 1 };
            self.sq_doorbell.ring(self.tail.into());
        }
        self.queue.complete(usize::MAX);
        let mut found = 0;
        loop {
            let at = CQ + usize::from(self.head) * 2;
            let word1 = words[at + 1].load(Ordering::Acquire);
            if Completion::phase_of_word1(word1) != self.phase {
                break;
            }
            dma_rmb();
            let completion = Completion::from_words([words[at].load(Ordering::Relaxed), word1]);
            found += usize::from(completion.status.is_success());
            self.head += 1;
            if self.head == ENTRIES {
                self.head = 0;
                self.phase = !self.phase;
            }
        }
        self.cq_doorbell.ring(self.head.into());
        found
    }
}
