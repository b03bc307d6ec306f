//! From an address to a driver, and back: opened, used, shut down in order.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use doorbell::{CompletionMode, DriverOptions, Namespace, NvmeDriver};
use doorbell_device::Device;
use futures_lite::future::block_on;
use nvme_spec::NSID_ALL;

use crate::address;
use crate::cli::Global;

/// Opens the device, has `work` done with it on one CPU, and shuts it down, whatever came of that.
pub(crate) fn with_driver<T>(
    address: &str,
    global: &Global,
    work: impl AsyncFnOnce(&NvmeDriver) -> Result<T>,
) -> Result<T> {
    let device = address::open(address)?;
    with_device(device, global, |options| options.cpus(1), work)
}

/// As [`with_driver`], on a device that is open, and with options changed.
pub(crate) fn with_device<T>(
    device: Arc<dyn Device>,
    global: &Global,
    change: impl FnOnce(DriverOptions) -> DriverOptions,
    work: impl AsyncFnOnce(&NvmeDriver) -> Result<T>,
) -> Result<T> {
    let address = device.address();
    let completion = global.completion.map_or(CompletionMode::Interrupt, CompletionMode::from);
    let options = change(DriverOptions::new(device).completion(completion));
    block_on(async {
        let driver = options.open().await.context(address)?;
        let result = work(&driver).await;
        driver.shutdown().await;
        result
    })
}

/// The namespace asked for, or the only one there is.
pub(crate) async fn nsid(driver: &NvmeDriver, asked: Option<u32>) -> Result<u32> {
    if let Some(nsid) = asked {
        return Ok(nsid);
    }
    let all = driver.namespaces().await.context("listing namespaces")?;
    match all[..] {
        [only] => Ok(only),
        [] => bail!("the device has no namespace"),
        _ => {
            let first: Vec<String> = all.iter().take(8).map(u32::to_string).collect();
            let more = if all.len() > 8 { ", ..." } else { "" };
            bail!("the device has {} namespaces: choose with --namespace-id ({}{more})", all.len(), first.join(", "))
        }
    }
}

/// A handle for the namespace asked for, or for the only one there is.
pub(crate) async fn namespace(driver: &NvmeDriver, asked: Option<u32>) -> Result<Namespace> {
    let nsid = nsid(driver, asked).await?;
    if nsid == 0 || nsid == NSID_ALL {
        bail!("namespace {nsid:#x} is no single namespace; 1 to 0xfffffffe are");
    }
    Ok(driver.namespace(nsid).await?)
}

/// An error if blocks are outside of the namespace. The driver says so too; here is said what there would be.
pub(crate) fn check_range(namespace: &Namespace, first: u64, count: u64) -> Result<()> {
    let there_are = namespace.block_count();
    match first.checked_add(count) {
        Some(end) if end <= there_are => Ok(()),
        _ => {
            let (nsid, last) = (namespace.nsid(), there_are.saturating_sub(1));
            let what =
                if count == 1 { format!("block {first} is") } else { format!("{count} blocks from {first} on are") };
            bail!("{what} not in namespace {nsid}, which has blocks 0 to {last}")
        }
    }
}
