//! A drive that nearly goes to another process, and stays.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use doorbell::{DriverOptions, Namespace, NvmeDriver};
use doorbell_device::vfio::VfioDevice;
use doorbell_device::{Device, DeviceError, Leaving, Parts};
use futures_lite::future::block_on;

const BLOCKS: u32 = 64;
/// How often.
const ROUNDS: u8 = 10;

/// Goes as far as another process may before it is decided who has the drive, and back; with every descriptor that may be
/// missing, or another's. The drive does not notice.
pub(crate) fn run(device: Arc<dyn Device>) -> Result<()> {
    let driver = block_on(DriverOptions::new(device).open())?;
    let namespace = block_on(driver.namespace(1))?;
    write(&namespace, 0)?;
    for round in 1..=ROUNDS {
        nearly(&driver, true)?;
        check(&namespace, round - 1)?;
        write(&namespace, round)?;
    }
    let count = nearly(&driver, false)?;
    for missing in 0..count {
        hold(&driver, |_, leaving| {
            let mut parts = duplicate(leaving)?;
            parts.descriptors.remove(missing);
            ensure!(VfioDevice::adopt(parts).is_err(), "descriptor {missing} of {count} is not missed");
            Ok(())
        })?;
        check(&namespace, ROUNDS)?;
    }
    waits(&driver)?;
    check(&namespace, ROUNDS)?;
    println!(r#"{{"rounds":{ROUNDS},"descriptors":{count}}}"#);
    block_on(driver.shutdown());
    Ok(())
}

/// Has a second driver prepared on a second device, and drops both. How many descriptors it took that are not memory.
fn nearly(driver: &NvmeDriver, prepare: bool) -> Result<usize> {
    hold(driver, |saved, leaving| {
        let parts = duplicate(leaving)?;
        let all = parts.descriptors.len();
        let arriving = VfioDevice::adopt(parts)?;
        let refused = arriving.device().read32(0);
        ensure!(matches!(refused, Err(DeviceError::Gone(_))), "registers before it has begun: {refused:?}");
        if prepare {
            let options = DriverOptions::new(arriving.device().clone());
            drop(options.prepare_restore(saved, arriving.memory().to_vec())?);
        }
        let files = arriving.memory().iter().filter_map(|memory| Some(Arc::as_ptr(memory.host().file()?.0)));
        let mut files: Vec<_> = files.collect();
        files.sort_unstable();
        files.dedup();
        Ok(all - files.len())
    })
}

/// Holds driver and device still, for as long as `work` takes.
fn hold<T>(driver: &NvmeDriver, work: impl FnOnce(&[u8], &Leaving) -> Result<T>) -> Result<T> {
    let saved = driver.save()?;
    let leaving = driver.device().leave(saved.memory())?;
    let done = work(saved.state(), &leaving);
    drop(leaving);
    drop(saved);
    done
}

/// The parts as another process has them.
fn duplicate(leaving: &Leaving) -> Result<Parts> {
    let parts = leaving.parts();
    let descriptors = parts.descriptors.iter().map(|fd| fd.try_clone());
    Ok(Parts {
        kind: parts.kind.clone(),
        state: parts.state.clone(),
        descriptors: descriptors.collect::<Result<_, _>>().context("duplicating a descriptor")?,
    })
}

/// Who maps memory while it is held still waits, and has it after.
fn waits(driver: &NvmeDriver) -> Result<()> {
    let device = driver.device().clone();
    let (done, is_done) = mpsc::channel();
    let mapped = hold(driver, |_, _| {
        let maps = thread::spawn(move || {
            let mapped = device.allocate(4096, 4096);
            let _ = done.send(());
            mapped
        });
        let early = is_done.recv_timeout(Duration::from_millis(300));
        ensure!(early == Err(RecvTimeoutError::Timeout), "memory was mapped while the device was held still");
        Ok(maps)
    })?;
    match mapped.join() {
        Ok(memory) => drop(memory?),
        Err(_) => bail!("mapping panicked"),
    }
    Ok(())
}

fn write(namespace: &Namespace, value: u8) -> Result<()> {
    let data = vec![value; BLOCKS as usize * namespace.block_size() as usize];
    Ok(block_on(namespace.write_slice(0, 0, false, &data))?)
}

fn check(namespace: &Namespace, value: u8) -> Result<()> {
    let mut data = vec![!value; BLOCKS as usize * namespace.block_size() as usize];
    block_on(namespace.read_slice(0, 0, &mut data))?;
    ensure!(data.iter().all(|byte| *byte == value), "what was written is not there");
    Ok(())
}
