//! A device that reaches for memory it was not given. Without this, nobody would know that the tests notice.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use doorbell_device::Device;
use nvme_spec::registers::{Csts, offset};

/// In no mapping: nothing was mapped.
const NOWHERE: u64 = 0x1234_5000;
/// 64-byte submission and 16-byte completion entries, enabled.
const ENABLED: u32 = 6 << 16 | 4 << 20 | 1;
/// Two entries in either admin queue, 0's based.
const TWO_ENTRIES: u32 = 1 << 16 | 1;

/// Enables the controller with admin queues that lie nowhere, and says that there is a command.
pub(crate) fn run(device: &dyn Device) -> Result<()> {
    device.write32(offset::CC, 0)?;
    ready(device, false)?;
    device.write32(offset::AQA, TWO_ENTRIES)?;
    device.write64(offset::ASQ, NOWHERE)?;
    device.write64(offset::ACQ, NOWHERE + 4096)?;
    device.write32(offset::CC, ENABLED)?;
    ready(device, true)?;
    device.doorbell(offset::DOORBELLS)?.ring(1);
    // Time to do it.
    thread::sleep(Duration::from_millis(500));
    device.write32(offset::CC, 0)?;
    ready(device, false)
}

fn ready(device: &dyn Device, wanted: bool) -> Result<()> {
    let begun = Instant::now();
    while Csts::from_bits(device.read32(offset::CSTS)?).rdy() != wanted {
        ensure!(begun.elapsed() < Duration::from_secs(10), "the controller does not become ready = {wanted}");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
