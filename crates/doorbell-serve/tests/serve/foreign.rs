//! The client of the crate `vfio_user`, which Cloud Hypervisor is built on: nobody here wrote it.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use doorbell_device::{HostMemory, Interrupt};
use foreign_vfio_user::Client;

use crate::harness::{Server, wait_for};

const MSIX: u32 = 2;
const EVENTFD_TRIGGER: u32 = 1 << 2 | 1 << 5;

#[test]
fn a_foreign_client_drives_the_controller() {
    let server = Server::start();
    let mut client = Client::new(&server.path).unwrap();
    let bar = client.region(0).unwrap();
    assert_eq!((bar.size, bar.sparse_areas.len()), (0x4000, 1));
    let area = bar.sparse_areas[0];
    let file = bar.file_offset.as_ref().unwrap();
    let doorbells = Arc::new(file.file().try_clone().unwrap());
    let doorbells = HostMemory::from_file(doorbells, file.start() + area.offset, area.size as usize).unwrap();
    assert_eq!(client.region(7).unwrap().size, 4096);
    assert_eq!(client.get_irq_info(MSIX).unwrap().count, 5);

    let memory = HostMemory::allocate(0x10000).unwrap();
    let (file, offset) = memory.file().unwrap();
    client.dma_map(offset, 0x8000_0000, 0x10000, file.as_raw_fd()).unwrap();
    let interrupt = Interrupt::new().unwrap();
    client.set_irqs(MSIX, EVENTFD_TRIGGER, 0, 1, &[interrupt.as_fd().as_raw_fd()]).unwrap();

    // An admin queue of two entries, and Identify Controller in it.
    let mut identify = [0u8; 64];
    identify[0] = 0x06;
    identify[24..32].copy_from_slice(&0x8000_2000u64.to_le_bytes());
    identify[40] = 1;
    memory.write_at(0, &identify).unwrap();
    client.region_write(0, 0x24, &0x0001_0001u32.to_le_bytes()).unwrap();
    client.region_write(0, 0x28, &0x8000_0000u64.to_le_bytes()).unwrap();
    client.region_write(0, 0x30, &0x8000_1000u64.to_le_bytes()).unwrap();
    client.region_write(0, 0x14, &0x0046_0001u32.to_le_bytes()).unwrap();
    let mut csts = [0; 4];
    wait_for("CSTS.RDY", || {
        client.region_read(0, 0x1c, &mut csts).unwrap();
        csts[0] & 1 == 1
    });
    doorbells.dwords()[0].store(1, Ordering::Release);
    wait_for("the interrupt", || interrupt.take() > 0);
    let mut serial = [0; 12];
    memory.read_at(0x2004, &mut serial).unwrap();
    assert_eq!(&serial, b"DOORBELL0001");

    client.reset().unwrap();
    client.region_read(0, 0x1c, &mut csts).unwrap();
    assert_eq!(csts, [0; 4]);
    client.dma_unmap(0x8000_0000, 0x10000).unwrap();
    client.shutdown().unwrap();
    server.wait_until_free();
    server.check();
}
