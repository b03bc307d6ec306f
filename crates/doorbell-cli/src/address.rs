//! Device addresses: a scheme, a colon, and what the scheme makes of the rest.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use doorbell_device::Device;
use doorbell_device::inprocess::Run;
use doorbell_device::vfio::{VfioDevice, VfioOptions};
use doorbell_device::zero_work::{Options, ZeroWork};
use doorbell_emulator::EmulatedSpec;
use doorbell_vfio_user::{VfioUserDevice, VfioUserOptions};

/// A kind of device address.
struct Scheme {
    name: &'static str,
    example: &'static str,
    open: fn(&str) -> Result<Arc<dyn Device>>,
}

/// Every kind there is.
const SCHEMES: &[Scheme] = &[
    Scheme { name: "pci", example: "pci:0000:01:00.0", open: pci },
    Scheme { name: "vfio-user", example: "vfio-user:/path/to/socket", open: vfio_user },
    Scheme { name: "emulated", example: "emulated:size=1G,block=4096", open: emulated },
    Scheme { name: "zero-work", example: "zero-work:32", open: zero_work },
];

/// What `-h` says of addresses.
pub(crate) const SHORT_HELP: &str = "Device address, such as pci:0000:01:00.0 or emulated:size=1G,block=4096";

/// What `--help` says of addresses.
pub(crate) const HELP: &str = "\
Device address, such as pci:0000:01:00.0 or emulated:size=1G,block=4096

pci:ADDRESS[,OPTION...]  a drive of this machine, bound to vfio-pci
  interface=group|iommufd, interrupts=msix|msi|intx|none, vectors=N

vfio-user:PATH[,OPTION...]  a controller that another process serves at a socket
  reconnect[=SECONDS]   wait so long (60) for a server that dies to come back
  timeout=SECONDS, vectors=N

emulated:KEY=VALUE,...  a controller in software, in this process:
  size=1G               in memory; gone when the command ends
  file=disk.img         in a file, which has to exist; whole blocks
  zero,size=1T          reads give zeroes, writes are forgotten
  null,size=1T          no data are moved: reads leave memory as it is, writes are forgotten
  block=512             bytes of a block
  and more: namespaces=, queues=, mqes=, vectors=, mdts=, sgl=, pi=, latency=, readonly=, vwc=, version=, fault=, ...

zero-work:N  a device that moves no data and completes commands N at a time: what bench itself and the driver cost";

/// Opens the device at an address.
pub(crate) fn open(address: &str) -> Result<Arc<dyn Device>> {
    let scheme = address.split_once(':').map(|(scheme, _)| scheme);
    let found = SCHEMES.iter().find(|known| Some(known.name) == scheme);
    let known = found.ok_or_else(|| {
        let examples: Vec<&str> = SCHEMES.iter().map(|known| known.example).collect();
        let wrong = match scheme {
            Some(scheme) => format!("there is no kind of device {scheme:?}"),
            None => "it names no kind of device".into(),
        };
        anyhow!("device address {address:?}: {wrong}; an address looks like {}", examples.join(" or "))
    })?;
    (known.open)(address).with_context(|| format!("device address {address:?}"))
}

fn pci(address: &str) -> Result<Arc<dyn Device>> {
    let options: VfioOptions = address.parse()?;
    Ok(VfioDevice::open_with(options)?)
}

fn vfio_user(address: &str) -> Result<Arc<dyn Device>> {
    let options: VfioUserOptions = address.parse()?;
    Ok(VfioUserDevice::open(options)?)
}

fn emulated(address: &str) -> Result<Arc<dyn Device>> {
    let spec: EmulatedSpec = address.parse()?;
    Ok(spec.build(Run::Threaded)?)
}

/// How long commands of a device without work wait at most for others to come with them.
const STRAGGLERS: Duration = Duration::from_millis(5);

fn zero_work(address: &str) -> Result<Arc<dyn Device>> {
    let count = address.strip_prefix("zero-work:").unwrap_or_default();
    let completes_at = count.parse().ok().filter(|count| (1..=4096).contains(count));
    let completes_at = completes_at.with_context(|| format!("{count:?} is no number from 1 to 4096"))?;
    let device = ZeroWork::new(Options { completes_at, ..Options::default() })?;
    if completes_at > 1 {
        let device = Arc::downgrade(&device);
        let complete = move || {
            while let Some(device) = device.upgrade() {
                // At a beginning and at an end there are fewer.
                device.complete_waiting();
                drop(device);
                std::thread::sleep(STRAGGLERS);
            }
        };
        std::thread::Builder::new().name("zero-work".into()).spawn(complete)?;
    }
    Ok(device)
}
