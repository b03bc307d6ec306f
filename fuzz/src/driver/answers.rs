//! What the liar makes of commands.

use std::time::Duration;

use doorbell_device::inprocess::Host;
use nvme_spec::completion::StatusField;
use nvme_spec::identify::{
    Flbas, Fuses, IdentifyController, IdentifyControllerNvm, IdentifyNamespace, LbaFormat, Oncs, QueueEntrySize,
    Rescap, Sgls, cns::Cns,
};
use nvme_spec::registers::Version;
use nvme_spec::scalar::Ascii;
use nvme_spec::{AdminOpcode, Command, Completion, NvmOpcode, Status};
use zerocopy::IntoBytes;

use super::liar::{CompletionQueue, Liar, Submission};

/// Fields that the driver goes by, as bytes from the start of Identify Controller or Identify Namespace.
const CONTROLLER_FIELDS: [u64; 12] = [77, 78, 256, 258, 259, 512, 513, 516, 520, 522, 525, 536];
const NAMESPACE_FIELDS: [u64; 16] = [0, 7, 8, 24, 25, 26, 27, 29, 30, 31, 66, 74, 76, 80, 104, 130];

impl Liar {
    /// Carries a command out, more or less.
    pub(super) fn answer(&mut self, host: &Host<'_>, now: Duration, qid: u16, command: &Command) {
        let input = self.input.clone();
        let act = input.below(72);
        let status = match act {
            70 => Err(StatusField::from_bits(input.any::<u16>() & !1)),
            71 => Err(StatusField::new().with_sct(input.below(4) as u8).with_sc(input.below(0x30) as u8)),
            _ => self.carry_out(host, qid, command),
        };
        let (status, dw0) = match status {
            Ok(Some(dw0)) => (StatusField::new(), dw0),
            Ok(None) => return,
            Err(status) => (status, 0),
        };
        let Some(queue) = self.submission.get(&qid) else { return };
        let (cqid, sqhd) = (queue.cqid, queue.head as u16);
        let mut completion = Completion { dw0, dw1: 0, sqhd, sqid: qid, cid: command.cdw0.cid(), status };
        match act {
            53 => return,
            54 => completion.cid = input.any(),
            55 => completion.cid ^= 1 << input.below(16),
            56 => completion.sqid = input.any(),
            57 => completion.sqhd = input.any(),
            58 => completion.sqhd = input.below(64) as u16,
            59 => completion.dw0 = input.any(),
            60 => self.post(host, cqid, completion),
            61 => return self.post_later(now + Duration::from_micros(1 + input.below(256)), cqid, completion),
            62 => return self.post_later(now + Duration::from_millis(1 + input.below(256)), cqid, completion),
            63 => return self.post_later(now + Duration::from_secs(1 + input.below(256)), cqid, completion),
            64 => self.make_mischief(host),
            65 => {
                self.post(host, cqid, completion);
                return self.make_mischief(host);
            }
            66 => {
                self.fatal = true;
                return;
            }
            67 => return self.post(host, input.below(4) as u16, completion),
            68 => {
                self.post(host, cqid, completion);
                return self.post_later(now + Duration::from_secs(input.below(100)), cqid, completion);
            }
            69 => completion.dw1 = input.any(),
            _ => {}
        }
        self.post(host, cqid, completion);
    }

    /// Something that nobody asked for.
    pub(super) fn make_mischief(&mut self, host: &Host<'_>) {
        let input = self.input.clone();
        match input.below(8) {
            // An event.
            0 | 1 => {
                if let Some(cid) = self.event_requests.pop() {
                    let sqhd = self.submission.get(&0).map_or(0, |queue| queue.head as u16);
                    let kinds = [0x0004_0002, 0x0002_0001, 0x0001_0001, 0x0081_0006, 0x0003_0000, 0x000c_0002];
                    let kind = input.below(kinds.len() as u64 + 1) as usize;
                    let dw0 = kinds.get(kind).copied().unwrap_or_else(|| input.any());
                    self.post(host, 0, Completion { dw0, sqhd, cid, ..Completion::default() });
                }
            }
            2 => (host.interrupt)(input.below(u64::from(self.vectors) + 2) as u16),
            // A completion of nothing.
            3 => {
                let completion = Completion { cid: input.any(), sqhd: 0, sqid: 0, ..Completion::default() };
                let cqid = input.below(4) as u16;
                self.post(host, cqid, Completion { sqid: cqid, ..completion });
            }
            // Memory anywhere: near a queue, or near where some command points.
            4 | 5 => {
                self.blind = true;
                let queue = input.below(4) as u16;
                let base = match input.below(4) {
                    0 => self.completion.get(&queue).map(|queue| queue.base),
                    1 => self.submission.get(&queue).map(|queue| queue.base),
                    2 => Some(1 << 32),
                    _ => Some(input.any()),
                };
                let at = base.unwrap_or(1 << 32).wrapping_add(input.below(1 << 16));
                let bytes: [u8; 16] = input.any();
                let _ = host.dma.write(at, &bytes);
            }
            6 => self.fatal = true,
            // A device that forgets that it was enabled.
            _ => self.cc = self.cc.with_en(false),
        }
    }

    fn carry_out(&mut self, host: &Host<'_>, qid: u16, command: &Command) -> Result<Option<u32>, StatusField> {
        if qid != 0 {
            if NvmOpcode(command.cdw0.opcode()) == NvmOpcode::RESERVATION_REPORT {
                self.deliver(host, command, vec![0; 256], &[4, 5, 6, 9]);
            } else if NvmOpcode(command.cdw0.opcode()) == NvmOpcode::READ {
                self.deliver(host, command, vec![0x5a; 512], &[]);
            }
            return Ok(Some(0));
        }
        self.admin(host, command)
    }

    fn admin(&mut self, host: &Host<'_>, command: &Command) -> Result<Option<u32>, StatusField> {
        let refused = |status| Err(StatusField::new().with_status(status).with_dnr(true));
        match AdminOpcode(command.cdw0.opcode()) {
            AdminOpcode::IDENTIFY => {
                let (data, fields): (Vec<u8>, &[u64]) = match (Cns(command.cdw10 as u8), command.nsid) {
                    (Cns::CONTROLLER, _) => (controller().as_bytes().to_vec(), &CONTROLLER_FIELDS),
                    (Cns::NAMESPACE, 1..=3) => (namespace().as_bytes().to_vec(), &NAMESPACE_FIELDS),
                    (Cns::NAMESPACE_DESCRIPTORS, 1..=3) => (vec![4, 1, 0, 0, 0], &[0, 1, 4, 5, 6]),
                    (Cns::ACTIVE_NAMESPACES | Cns::ACTIVE_NAMESPACES_CSI, 0) => {
                        ([1u32, 2].as_bytes().to_vec(), &[0, 3, 4, 8, 12])
                    }
                    (Cns::CONTROLLER_CSI, _) => {
                        (IdentifyControllerNvm::default().as_bytes().to_vec(), &[0, 1, 2, 3, 4, 8])
                    }
                    (Cns::NAMESPACE_INDEPENDENT, 1..=3) => ([[0; 14].as_slice(), &[1]].concat(), &[0, 1, 14]),
                    _ => (Vec::new(), &[]),
                };
                let mut page = data;
                page.resize(4096, 0);
                self.deliver(host, command, page, fields);
                Ok(Some(0))
            }
            AdminOpcode::GET_LOG_PAGE => {
                let dwords = (command.cdw10 >> 16 | command.cdw11 << 16) as usize;
                self.deliver(host, command, vec![0; (dwords + 1).min(1024) * 4], &[0, 1, 2, 3, 4, 8]);
                Ok(Some(0))
            }
            AdminOpcode::GET_FEATURES => {
                self.deliver(host, command, vec![0; 64], &[0, 1]);
                Ok(Some(if self.input.below(4) == 3 { self.input.any() } else { 0 }))
            }
            AdminOpcode::SET_FEATURES if command.cdw10 & 0xff == 7 => {
                let counts = [0x0003_0003, 0, 0xffff_ffff, 0x0001_0000];
                Ok(Some(counts[self.input.below(4) as usize]))
            }
            AdminOpcode::CREATE_IO_CQ => self.create_cq(host, command).map_or_else(refused, |()| Ok(Some(0))),
            AdminOpcode::CREATE_IO_SQ => self.create_sq(host, command).map_or_else(refused, |()| Ok(Some(0))),
            AdminOpcode::DELETE_IO_SQ => self
                .submission
                .remove(&(command.cdw10 as u16))
                .map_or(refused(Status::INVALID_QUEUE_IDENTIFIER), |_| Ok(Some(0))),
            AdminOpcode::DELETE_IO_CQ => self
                .completion
                .remove(&(command.cdw10 as u16))
                .map_or(refused(Status::INVALID_QUEUE_IDENTIFIER), |_| Ok(Some(0))),
            AdminOpcode::ASYNC_EVENT_REQUEST => {
                self.event_requests.push(command.cdw0.cid());
                Ok(None)
            }
            AdminOpcode::ABORT => Ok(Some(1)),
            _ => Ok(Some(0)),
        }
    }

    fn create_cq(&mut self, host: &Host<'_>, command: &Command) -> Result<(), Status> {
        let qid = command.cdw10 as u16;
        if qid == 0 || self.completion.contains_key(&qid) {
            return Err(Status::INVALID_QUEUE_IDENTIFIER);
        }
        let vector = (command.cdw11 & 2 != 0).then_some((command.cdw11 >> 16) as u16);
        let entries = (command.cdw10 >> 16) + 1;
        let queue = CompletionQueue { base: command.dptr.prp1(), entries, tail: 0, phase: true, vector };
        self.clear_doorbell(host, qid, true);
        self.completion.insert(qid, queue);
        Ok(())
    }

    fn create_sq(&mut self, host: &Host<'_>, command: &Command) -> Result<(), Status> {
        let (qid, cqid) = (command.cdw10 as u16, (command.cdw11 >> 16) as u16);
        if qid == 0 || self.submission.contains_key(&qid) || !self.completion.contains_key(&cqid) {
            return Err(Status::INVALID_QUEUE_IDENTIFIER);
        }
        let queue = Submission { base: command.dptr.prp1(), entries: (command.cdw10 >> 16) + 1, head: 0, cqid };
        self.clear_doorbell(host, qid, false);
        self.submission.insert(qid, queue);
        Ok(())
    }

    /// Writes data to where a command points, after some of it was changed: in `fields` above all.
    fn deliver(&self, host: &Host<'_>, command: &Command, mut data: Vec<u8>, fields: &[u64]) {
        let input = &self.input;
        let changes = input.below(16).saturating_sub(11);
        for _ in 0..changes {
            let at = match input.below(fields.len() as u64 + 1) as usize {
                field if field < fields.len() => fields[field] as usize,
                _ => input.below(data.len() as u64) as usize,
            };
            let value: u64 = match input.below(4) {
                0 => u64::from(input.any::<u8>()),
                1 => u64::MAX,
                2 => u64::from(input.any::<u16>()),
                _ => input.any(),
            };
            let len = 1 << input.below(4);
            data.iter_mut().skip(at).take(len).zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
        }
        if command.cdw0.psdt() != 0 {
            let sgl = command.dptr.as_sgl();
            let len = data.len().min(sgl.length as usize);
            let _ = host.dma.write(sgl.address, &data[..len]);
            return;
        }
        let (prp1, prp2) = (command.dptr.prp1(), command.dptr.prp2());
        let page = self.cc.page_size() as u64;
        let (first, second) = data.split_at(data.len().min((page - prp1 % page) as usize));
        let _ = host.dma.write(prp1, first);
        let _ = host.dma.write(prp2, second);
    }
}

fn controller() -> IdentifyController {
    IdentifyController {
        sn: Ascii::new("1"),
        mn: Ascii::new("A controller"),
        mdts: 5,
        cntlid: 1,
        ver: Version::V2_0,
        aerl: 3,
        acl: 3,
        sqes: QueueEntrySize::new().with_required(6).with_maximum(6),
        cqes: QueueEntrySize::new().with_required(4).with_maximum(4),
        nn: 3,
        oncs: Oncs::from_bits(0x1ff),
        fuses: Fuses::new().with_compare_and_write(true),
        acwu: 7,
        cdfs: 1,
        sgls: Sgls::new().with_supported(1),
        ..IdentifyController::default()
    }
}

fn namespace() -> IdentifyNamespace {
    let mut data = IdentifyNamespace {
        nsze: 1 << 16,
        ncap: 1 << 16,
        flbas: Flbas::new(),
        rescap: Rescap::from_bits(0xff),
        mssrl: 64,
        mcl: 256,
        msrc: 3,
        nguid: [7; 16],
        ..IdentifyNamespace::default()
    };
    data.lbaf[0] = LbaFormat::new().with_lbads(9);
    data
}
