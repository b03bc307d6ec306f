//! The least a driver can be, for tests of devices: polled, one command at a time on the admin queue.
#![allow(dead_code, unreachable_pub, reason = "each test file uses another part")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use doorbell_device::{Device, DmaMemory, Doorbell, dma_rmb};
use nvme_spec::registers::{Aqa, Cap, Cc, Csts, cq_head_doorbell, offset, sq_tail_doorbell};
use nvme_spec::{AdminOpcode, Cdw0, Command, Completion, DataPointer};
use std::sync::atomic::Ordering;

/// A submission and a completion queue.
pub struct Pair {
    pub qid: u16,
    pub entries: u32,
    pub sq: DmaMemory,
    pub cq: DmaMemory,
    pub sq_doorbell: Doorbell,
    pub cq_doorbell: Doorbell,
    pub tail: u32,
    pub head: u32,
    pub phase: bool,
}

impl Pair {
    pub fn new(device: &dyn Device, qid: u16, entries: u32) -> Self {
        let dstrd = Cap::from_bits(device.read64(offset::CAP).unwrap()).dstrd();
        Self {
            qid,
            entries,
            sq: device.allocate(entries as usize * 64, 4096).unwrap(),
            cq: device.allocate(entries as usize * 16, 4096).unwrap(),
            sq_doorbell: device.doorbell(sq_tail_doorbell(qid, dstrd)).unwrap(),
            cq_doorbell: device.doorbell(cq_head_doorbell(qid, dstrd)).unwrap(),
            tail: 0,
            head: 0,
            phase: true,
        }
    }

    /// Writes a command without ringing.
    pub fn push(&mut self, command: &Command) {
        let at = self.tail as usize * 8;
        for (word, value) in self.sq.host().words()[at..at + 8].iter().zip(command.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
        self.tail = (self.tail + 1) % self.entries;
    }

    pub fn ring(&self) {
        self.sq_doorbell.ring(self.tail);
    }

    /// Takes a completion, if there is one, and gives its entry back.
    pub fn pop(&mut self) -> Option<Completion> {
        let at = self.head as usize * 2;
        let words = &self.cq.host().words()[at..at + 2];
        let high = words[1].load(Ordering::Acquire);
        if Completion::phase_of_word1(high) != self.phase {
            return None;
        }
        dma_rmb();
        let completion = Completion::from_words([words[0].load(Ordering::Relaxed), high]);
        self.head = (self.head + 1) % self.entries;
        self.phase ^= self.head == 0;
        self.cq_doorbell.ring(self.head);
        Some(completion)
    }
}

pub struct Driver {
    pub device: Arc<dyn Device>,
    pub admin: Pair,
    next_cid: u16,
}

impl Driver {
    /// Enables a device.
    pub fn new(device: Arc<dyn Device>) -> Self {
        let admin = Pair::new(&*device, 0, 32);
        let aqa = Aqa::new().with_asqs(31).with_acqs(31);
        device.write32(offset::AQA, aqa.into_bits()).unwrap();
        device.write64(offset::ASQ, admin.sq.iova()).unwrap();
        device.write64(offset::ACQ, admin.cq.iova()).unwrap();
        let cc = Cc::new().with_en(true).with_iosqes(6).with_iocqes(4);
        device.write32(offset::CC, cc.into_bits()).unwrap();
        assert!(Csts::from_bits(device.read32(offset::CSTS).unwrap()).rdy());
        Self { device, admin, next_cid: 1 }
    }

    /// Sends an admin command.
    pub fn send(&mut self, opcode: AdminOpcode, mut command: Command) -> u16 {
        let cid = self.next_cid;
        self.next_cid += 1;
        command.cdw0 = Cdw0::new().with_opcode(opcode.0).with_cid(cid);
        self.admin.push(&command);
        self.admin.ring();
        cid
    }

    /// Sends an admin command and waits for what becomes of it.
    pub fn admin(&mut self, opcode: AdminOpcode, command: Command) -> Completion {
        let cid = self.send(opcode, command);
        let completion = wait_for(|| self.admin.pop());
        assert_eq!(completion.cid, cid);
        completion
    }

    /// Sends an admin command that reads 4096 bytes.
    pub fn admin_read(&mut self, opcode: AdminOpcode, command: Command) -> (Completion, Vec<u8>) {
        let data = self.device.allocate(4096, 4096).unwrap();
        let completion = self.admin(opcode, Command { dptr: DataPointer::prp(data.iova(), 0), ..command });
        let mut bytes = vec![0; 4096];
        data.host().read_at(0, &mut bytes).unwrap();
        (completion, bytes)
    }

    /// Makes an I/O queue pair.
    pub fn create_pair(&mut self, qid: u16, entries: u32) -> Pair {
        let pair = Pair::new(&*self.device, qid, entries);
        let cdw10 = u32::from(qid) | (entries - 1) << 16;
        let cq = Command { dptr: DataPointer::prp(pair.cq.iova(), 0), cdw10, cdw11: 1, ..Command::default() };
        let made = self.admin(AdminOpcode::CREATE_IO_CQ, cq);
        assert!(made.status.is_success(), "{made:?}");
        let cdw11 = 1 | u32::from(qid) << 16;
        let sq = Command { dptr: DataPointer::prp(pair.sq.iova(), 0), cdw10, cdw11, ..Command::default() };
        let made = self.admin(AdminOpcode::CREATE_IO_SQ, sq);
        assert!(made.status.is_success(), "{made:?}");
        pair
    }
}

/// Asks until there is an answer, for a second at most.
pub fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "nothing came for a second");
        std::thread::yield_now();
    }
}
