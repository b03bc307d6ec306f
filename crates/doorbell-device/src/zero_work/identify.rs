use nvme_spec::identify::{Flbas, IdentifyController, IdentifyNamespace, LbaFormat, QueueEntrySize, Sgls};
use nvme_spec::registers::Version;
use nvme_spec::scalar::{Ascii, Le128};
use nvme_spec::{Command, Status};
use zerocopy::IntoBytes;

use super::admin::EVENT_REQUESTS;
use super::device::Options;

type Page = [u8; 4096];

/// "Doorbell", as an identifier.
const EUI64: [u8; 8] = *b"doorbell";
const NGUID: [u8; 16] = *b"doorbell0works01";

/// The data structure that an Identify command asks for (NVMe Base 2.0, "Identify Command").
pub(super) fn answer(options: &Options, command: &Command) -> Result<Page, Status> {
    let nsid = command.nsid;
    let exists =
        || if (1..=options.namespaces).contains(&nsid) { Ok(()) } else { Err(Status::INVALID_NAMESPACE_OR_FORMAT) };
    let nvm_command_set = || if command.cdw11 >> 24 == 0 { Ok(()) } else { Err(Status::INVALID_FIELD_IN_COMMAND) };
    match command.cdw10 & 0xff {
        0x00 => exists().map(|()| namespace(options, nsid)),
        0x01 => Ok(controller(options)),
        0x02 => active_list(options, nsid),
        0x03 => exists().map(|()| descriptors(nsid)),
        // I/O command set specific namespace and controller: nothing beyond the defaults.
        0x05 => exists().and_then(|()| nvm_command_set()).map(|()| [0; 4096]),
        0x06 => nvm_command_set().map(|()| [0; 4096]),
        0x07 => nvm_command_set().and_then(|()| active_list(options, nsid)),
        0x08 => exists().map(|()| independent()),
        _ => Err(Status::INVALID_FIELD_IN_COMMAND),
    }
}

fn controller(options: &Options) -> Page {
    let data = IdentifyController {
        vid: 0xffff,
        ssvid: 0xffff,
        sn: Ascii::new("0"),
        mn: Ascii::new("Doorbell zero-work device"),
        fr: Ascii::new(env!("CARGO_PKG_VERSION")),
        mdts: options.mdts,
        cntlid: 1,
        ver: Version::V2_0,
        cntrltype: nvme_spec::identify::ControllerType::IO,
        aerl: EVENT_REQUESTS as u8 - 1,
        acl: 3,
        sqes: QueueEntrySize::new().with_required(6).with_maximum(6),
        cqes: QueueEntrySize::new().with_required(4).with_maximum(4),
        nn: options.namespaces,
        sgls: if options.sgls { Sgls::new().with_supported(1) } else { Sgls::new() },
        subnqn: Ascii::new("nqn.2014-08.org.nvmexpress:uuid:646f6f72-6265-6c6c-b000-776f726b7331"),
        ..IdentifyController::default()
    };
    page(data.as_bytes())
}

fn namespace(options: &Options, nsid: u32) -> Page {
    let mut data = IdentifyNamespace {
        nsze: options.block_count,
        ncap: options.block_count,
        nuse: options.block_count,
        flbas: Flbas::new(),
        nvmcap: Le128::new(u128::from(options.block_count) << options.block_shift),
        nguid: numbered(NGUID, nsid),
        eui64: numbered(EUI64, nsid),
        ..IdentifyNamespace::default()
    };
    data.lbaf[0] = LbaFormat::new().with_lbads(options.block_shift);
    page(data.as_bytes())
}

/// The active namespaces above `nsid`, in order.
fn active_list(options: &Options, nsid: u32) -> Result<Page, Status> {
    if nsid >= 0xffff_fffe {
        return Err(Status::INVALID_NAMESPACE_OR_FORMAT);
    }
    let above = nsid.saturating_add(1)..=options.namespaces;
    let list: Vec<u8> = above.flat_map(u32::to_le_bytes).collect();
    Ok(page(&list))
}

/// Another identifier for each namespace.
fn numbered<const N: usize>(mut identifier: [u8; N], nsid: u32) -> [u8; N] {
    for (byte, number) in identifier.iter_mut().rev().zip((nsid - 1).to_le_bytes()) {
        *byte ^= number;
    }
    identifier
}

/// Namespace Identification Descriptors: type, length, two reserved bytes, identifier.
fn descriptors(nsid: u32) -> Page {
    let mut list = Vec::with_capacity(64);
    let (eui64, nguid) = (numbered(EUI64, nsid), numbered(NGUID, nsid));
    for (kind, id) in [(1, &eui64[..]), (2, &nguid[..]), (4, &[0][..])] {
        list.extend([kind, id.len() as u8, 0, 0]);
        list.extend(id);
    }
    page(&list)
}

/// I/O Command Set Independent Identify Namespace: ready (NSTAT.NRDY), nothing else.
fn independent() -> Page {
    let mut data = [0; 4096];
    data[14] = 1;
    data
}

fn page(bytes: &[u8]) -> Page {
    let mut page = [0; 4096];
    page.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    page
}
