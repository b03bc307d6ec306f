//! What is on the wire, request by request.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use doorbell_device::Interrupt;
use rustix::io::Errno;
use vfio_user::wire::{self, Command, Header, irq, region};
use vfio_user::{Call, CallError, Caller};
use zerocopy::IntoBytes;

use crate::harness::{DATA, Host, PATIENCE, Server, wait_for};

/// A refusal with an errno.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, CallError>, expected: Errno) {
    match result.unwrap_err() {
        CallError::Refused { errno, .. } => assert_eq!(Errno::from_raw_os_error(errno as i32), expected),
        other => panic!("{other}"),
    }
}

fn read(caller: &mut Caller, region: u32, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    caller.region_read(region, offset, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_version_byte_by_byte() {
    let server = Server::start();
    let mut raw = UnixStream::connect(&server.path).unwrap();
    raw.set_read_timeout(Some(PATIENCE)).unwrap();
    // As another client than ours proposes it, with things that we do not know.
    let text = b"{\"capabilities\":{\"max_msg_fds\":8,\"migration\":{\"pgsize\":4096},\"twin_socket\":{\"supported\":true}}}\0";
    let mut bytes = Vec::new();
    for half in [0xabcdu16, 1] {
        bytes.extend(half.to_ne_bytes());
    }
    for word in [20 + text.len() as u32, 0, 0, 0x0001_0000] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(text);
    raw.write_all(&bytes).unwrap();
    let mut header = [0; 20];
    raw.read_exact(&mut header).unwrap();
    assert_eq!(header[..4], bytes[..4], "the same identifier and command");
    assert_eq!(header[8..12], 1u32.to_ne_bytes(), "a reply");
    assert_eq!(header[16..20], 0x0001_0000u32.to_ne_bytes(), "version 0.1");
    let size = u32::from_ne_bytes(header[4..8].try_into().unwrap());
    let mut text = vec![0; size as usize - 20];
    raw.read_exact(&mut text).unwrap();
    let text = std::str::from_utf8(text.strip_suffix(&[0]).unwrap()).unwrap();
    assert!(text.contains("\"max_dma_maps\":8192") && !text.contains("migration"), "{text}");
}

#[test]
fn it_is_an_nvme_controller_on_a_pci_bus() {
    let server = Server::start();
    let mut caller = server.caller();
    let info = caller.device_info().unwrap();
    assert_eq!((info.flags, info.regions, info.irqs), (wire::DEVICE_RESET | wire::DEVICE_PCI, 9, 5));
    assert_eq!(read(&mut caller, region::CONFIG, 9, 3), [0x02, 0x08, 0x01]);
    // CAP: contiguous queues, 4096 entries; VS 2.0.
    let cap = read(&mut caller, region::BAR0, 0, 8);
    assert_eq!(cap[..3], [0xff, 0x0f, 0x01]);
    assert_eq!(read(&mut caller, region::BAR0, 8, 4), [0, 0, 2, 0]);
    // Parts of a register, and doorbells, which read as nothing.
    assert_eq!(read(&mut caller, region::BAR0, 10, 1), [2]);
    assert_eq!(read(&mut caller, region::BAR0, 0xffe, 4)[2..], [0, 0]);
    for index in 0..9 {
        let size = caller.region_info(index).unwrap().info.size;
        let expected = match index {
            region::BAR0 => 0x4000,
            4 => 0x2000,
            region::CONFIG => 4096,
            _ => 0,
        };
        assert_eq!(size, expected, "region {index}");
    }
    for index in 0..5 {
        let expected = [1, 0, 5, 0, 0][index as usize];
        assert_eq!(caller.irq_info(index).unwrap().count, expected, "interrupts of kind {index}");
    }
    refused(caller.region_info(9), Errno::INVAL);
    refused(caller.irq_info(5), Errno::INVAL);
}

#[test]
fn accesses_outside_of_a_region_are_refused() {
    let server = Server::start();
    let mut caller = server.caller();
    for (region, offset, len) in [
        (region::BAR0, 0x3ffd, 4),
        (region::BAR0, u64::MAX - 1, 4),
        (region::CONFIG, 4093, 4),
        (region::CONFIG, u64::MAX, 1),
        (1, 0, 4),
        (9, 0, 4),
        (u32::MAX, 0, 4),
        (region::BAR0, 0, 1 << 20),
    ] {
        refused(caller.region_read(region, offset, &mut vec![0; len]), Errno::INVAL);
    }
    refused(caller.region_write(region::BAR0, 0x3ffe, &[0; 4]), Errno::INVAL);
    refused(caller.region_write(region::BAR0, 0x14, &[0; 2]), Errno::INVAL);
    refused(caller.region_write(region::CONFIG, 4095, &[0; 2]), Errno::INVAL);
    server.endpoint.stop();
}

#[test]
fn what_is_not_there_is_not_supported() {
    let server = Server::start();
    let mut caller = server.caller();
    let nothing = [0; 64];
    for command in [
        Command::DeviceGetRegionIoFds,
        Command::DirtyPages,
        Command::DeviceFeature,
        Command::MigrationDataRead,
        Command::MigrationDataWrite,
        Command::DmaRead,
        Command::DmaWrite,
    ] {
        refused(caller.call(command, &[&nothing], &[]), Errno::NOTSUP);
    }
    refused(caller.call(Command::Version, &[&nothing[..4]], &[]), Errno::INVAL);
    // A command that nobody knows.
    let mut connection = server_connection(caller);
    connection.send(Header { id: 5, command: 99, ..Header::default() }, &[], &[], Some(PATIENCE)).unwrap();
    let reply = connection.receive(Some(PATIENCE)).unwrap().header;
    assert_eq!((reply.id, reply.command, reply.flags, reply.error), (5, 99, 0x21, Errno::NOSYS.raw_os_error() as u32));
}

/// The connection of a client that has agreed on a version.
fn server_connection(caller: Caller) -> vfio_user::Connection {
    let stream = UnixStream::from(caller.as_fd().try_clone_to_owned().unwrap());
    vfio_user::Connection::new(stream, vfio_user::Limits::default())
}

#[test]
fn writes_without_a_reply_have_none_even_if_they_fail() {
    let server = Server::start();
    let mut caller = server.caller();
    let write = |offset: u64| wire::RegionAccess { offset, region: region::BAR0, count: 4 };
    caller.tell(Command::RegionWrite, &[write(0x24).as_bytes(), &0x0003_0003u32.to_le_bytes()], &[]).unwrap();
    caller.tell(Command::RegionWrite, &[write(1 << 40).as_bytes(), &[0; 4]], &[]).unwrap();
    caller.tell(Command::RegionRead, &[write(0).as_bytes()], &[]).unwrap();
    caller.tell(Command::DmaUnmap, &[&[0; 24]], &[]).unwrap();
    let mut connection = server_connection(caller);
    let access = write(0x24);
    connection.send(Header::request(77, Command::RegionRead), &[access.as_bytes()], &[], Some(PATIENCE)).unwrap();
    let reply = connection.receive(Some(PATIENCE)).unwrap();
    assert_eq!(reply.header.id, 77, "the first reply is to the only request that wants one");
    assert_eq!(reply.payload[16..], 0x0003_0003u32.to_le_bytes());
}

#[test]
fn many_writes_come_in_one_message() {
    let server = Server::start();
    let mut caller = server.caller();
    let write = |offset: u64, data: u64, count: u32| wire::MultiWrite {
        access: wire::RegionAccess { offset, region: region::BAR0, count },
        data: data.to_ne_bytes(),
    };
    let writes = [write(0x24, 0x0007_0007, 4), write(0x28, 0x1_2345_6000, 8)];
    let reply = caller.call(Command::RegionWriteMulti, &[&2u64.to_ne_bytes(), writes.as_bytes()], &[]).unwrap();
    assert_eq!(reply.payload, 2u64.to_ne_bytes());
    assert_eq!(read(&mut caller, region::BAR0, 0x28, 8), 0x1_2345_6000u64.to_le_bytes());
}

#[test]
fn commands_are_carried_out_and_interrupts_come() {
    let server = Server::start();
    let mut host = Host::new(server.caller());
    host.enable();
    assert_eq!(host.admin(0x06, 0, DATA, 1, 0), 0, "identify controller");
    assert_eq!(&host.block(DATA)[4..16], b"DOORBELL0001");
    assert_eq!(host.interrupts[0].take(), 1);
    host.create_queues();
    host.fill(DATA, 0x5a);
    assert_eq!(host.io(0x01, DATA, 7), 0, "write");
    assert_eq!(host.io(0x02, DATA + 512, 7), 0, "read");
    assert_eq!(host.block(DATA + 512), vec![0x5a; 512]);
    wait_for("the interrupt of the I/O queue", || host.interrupts[1].take() > 0);
}

#[test]
fn a_doorbell_can_be_a_message_as_well() {
    let server = Server::start();
    let mut host = Host::new(server.caller());
    host.enable();
    let mapped = std::mem::replace(&mut host.doorbells, doorbell_device::HostMemory::allocate(4096).unwrap());
    // The SQE is written to where it belongs, the doorbell to nowhere; then it is rung by a message.
    std::thread::scope(|scope| {
        let doorbells = host.doorbells.clone();
        let mut second = server_connection_of(&host.caller);
        let ringing = scope.spawn(move || {
            wait_for("the tail", || doorbells.dwords()[0].load(std::sync::atomic::Ordering::Acquire) == 1);
            let access = wire::RegionAccess { offset: 0x1000, region: region::BAR0, count: 4 };
            let header = Header { flags: wire::flags::NO_REPLY, ..Header::request(900, Command::RegionWrite) };
            second.send(header, &[access.as_bytes(), &1u32.to_le_bytes()], &[], Some(PATIENCE)).unwrap();
        });
        assert_eq!(host.admin(0x06, 0, DATA, 1, 0), 0);
        ringing.join().unwrap();
    });
    assert_eq!(mapped.dwords()[0].load(std::sync::atomic::Ordering::Acquire), 1, "both are the same word");
}

fn server_connection_of(caller: &Caller) -> vfio_user::Connection {
    let stream = UnixStream::from(caller.as_fd().try_clone_to_owned().unwrap());
    vfio_user::Connection::new(stream, vfio_user::Limits::default())
}

#[test]
fn vectors_are_set_one_at_a_time_and_taken_away() {
    let server = Server::start();
    let mut caller = server.caller();
    let signal = Interrupt::new().unwrap();
    let (eventfd, none) = (wire::SET_DATA_EVENTFD, wire::SET_DATA_NONE);
    let trigger = wire::SET_ACTION_TRIGGER;
    let set = |data: u32, start: u32, count: u32| {
        let flags = data | trigger;
        wire::IrqSet { flags, index: irq::MSIX, start, count, ..Default::default() }
    };
    caller.set_irqs(set(eventfd, 4, 1), &[], &[signal.as_fd()]).unwrap();
    caller.set_irqs(set(none, 4, 1), &[], &[]).unwrap();
    assert_eq!(signal.take(), 1, "a trigger raises it");
    caller.set_irqs(set(wire::SET_DATA_BOOL, 3, 2), &[1, 0], &[]).unwrap();
    assert_eq!(signal.take(), 0);
    // No descriptor takes it away; what is raised then waits until there is one.
    caller.set_irqs(set(eventfd, 4, 1), &[], &[]).unwrap();
    caller.set_irqs(set(none, 4, 1), &[], &[]).unwrap();
    assert_eq!(signal.take(), 0);
    caller.set_irqs(set(eventfd, 4, 1), &[], &[signal.as_fd()]).unwrap();
    assert_eq!(signal.take(), 1);
    caller.set_irqs(set(none, 0, 0), &[], &[]).unwrap();
    caller.set_irqs(set(none, 4, 1), &[], &[]).unwrap();
    assert_eq!(signal.take(), 0, "all were taken away");
    refused(caller.set_irqs(set(eventfd, 5, 1), &[], &[signal.as_fd()]), Errno::INVAL);
    refused(caller.set_irqs(set(eventfd, 0, 3), &[], &[signal.as_fd()]), Errno::INVAL);
    let file = tempfile::tempfile().unwrap();
    refused(caller.set_irqs(set(eventfd, 0, 1), &[], &[file.as_fd()]), Errno::INVAL);
}

#[test]
fn the_pin_is_used_while_no_vector_is() {
    let server = Server::start();
    let mut host = Host::new(server.caller());
    let set = |index: u32, flags: u32| wire::IrqSet { flags, index, start: 0, count: 1, ..Default::default() };
    let all = wire::IrqSet { count: 0, ..set(irq::MSIX, wire::SET_DATA_NONE | wire::SET_ACTION_TRIGGER) };
    host.caller.set_irqs(all, &[], &[]).unwrap();
    let pin = Interrupt::new().unwrap();
    let arm = set(irq::INTX, wire::SET_DATA_EVENTFD | wire::SET_ACTION_TRIGGER);
    host.caller.set_irqs(arm, &[], &[pin.as_fd()]).unwrap();
    host.caller.set_irqs(set(irq::INTX, wire::SET_DATA_NONE | wire::SET_ACTION_MASK), &[], &[]).unwrap();
    host.enable();
    assert_eq!(host.admin(0x06, 0, DATA, 1, 0), 0);
    assert_eq!(pin.take(), 0, "it is masked");
    host.caller.set_irqs(set(irq::INTX, wire::SET_DATA_NONE | wire::SET_ACTION_UNMASK), &[], &[]).unwrap();
    assert_eq!(pin.take(), 1);
}
