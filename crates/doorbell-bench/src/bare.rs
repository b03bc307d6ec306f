//! The floor: the same commands and completions on the same rings, with no driver.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use doorbell_device::inprocess::Run;
use doorbell_device::zero_work::{Options, Queue, ZeroWork};
use doorbell_device::{Device, DmaMemory, Doorbell, dma_rmb};
use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem, emulated};
use nvme_spec::admin::{create_io_cq, create_io_sq};
use nvme_spec::nvm::ReadWriteCdw12;
use nvme_spec::registers::{Aqa, Cap, Cc, cq_head_doorbell, offset, sq_tail_doorbell};
use nvme_spec::{Cdw0, Command, Completion, DataPointer, NvmOpcode};

use crate::case::{Case, Storage, Way};
use crate::driver::BLOCK;

/// Entries of the rings.
const ENTRIES: u16 = 257;
/// Where the completion ring begins, in words.
const CQ: usize = 8192 * 4 / 8;
/// Bytes of an emulated namespace.
const RAM: u64 = 64 << 20;

/// A queue pair driven by hand.
pub(crate) struct Bare {
    _device: Arc<dyn Device>,
    /// The device's side, where it works only when told.
    queue: Option<Queue>,
    memory: DmaMemory,
    /// The command, but for its identifier and its LBA.
    command: [u64; 8],
    blocks: u64,
    sq_doorbell: Doorbell,
    cq_doorbell: Doorbell,
    tail: u16,
    head: u16,
    phase: bool,
}

impl Bare {
    pub(crate) fn new(case: Case) -> anyhow::Result<Self> {
        if let Way::Emulated(storage) = case.way {
            let subsystem = Subsystem::default();
            let namespace = match storage {
                Storage::Null => NamespaceConfig::null(RAM),
                Storage::Ram => NamespaceConfig::ram(RAM),
            };
            subsystem.add_namespace(namespace.block_size(BLOCK as u32))?;
            let device = emulated(&subsystem, ControllerConfig::default(), Run::Inline)?;
            return Self::over(device, case, |_| Ok(None));
        }
        let device =
            ZeroWork::new(Options { completes_at: u32::from(case.way == Way::BareInline), ..Options::default() })?;
        let own = device.clone();
        Self::over(device, case, move |id| {
            let queue = own.queue(id).ok_or_else(|| anyhow::anyhow!("the device did not make the queue"))?;
            Ok((case.way != Way::BareInline).then_some(queue))
        })
    }

    fn over(
        device: Arc<dyn Device>,
        case: Case,
        queue: impl FnOnce(u16) -> anyhow::Result<Option<Queue>>,
    ) -> anyhow::Result<Self> {
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
        let opcode = if case.write { NvmOpcode::WRITE } else { NvmOpcode::READ };
        let blocks = (case.bytes / BLOCK) as u64;
        let command = Command {
            cdw0: Cdw0::new().with_opcode(opcode.0),
            nsid: 1,
            // Behind the rings.
            dptr: DataPointer::prp(memory.iova() + 15 * 4096, 0),
            cdw12: ReadWriteCdw12::new().with_nlb((blocks - 1) as u16).into(),
            ..Command::default()
        };
        Ok(Self {
            queue: queue(1)?,
            memory,
            command: command.to_words(),
            blocks,
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
            let mut command = self.command;
            command[0] |= (i as u64) << 16;
            command[5] = i as u64 * self.blocks;
            let at = usize::from(self.tail) * 8;
            for (cell, word) in words[at..at + 8].iter().zip(command) {
                cell.store(word, Ordering::Relaxed);
            }
            self.tail = if self.tail + 1 == ENTRIES { 0 } else { self.tail + 1 };
            self.sq_doorbell.ring(self.tail.into());
        }
        if let Some(queue) = &self.queue {
            queue.complete(usize::MAX);
        }
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
