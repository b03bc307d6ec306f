//! Real NVMe drives, through the system's VFIO.
//!
//! The drive is bound to `vfio-pci` instead of the system's NVMe driver, and this process is allowed to open its device
//! node; `docs/vfio.md` says how. It then belongs to this process alone: its registers are mapped, its interrupts are
//! eventfds, and its DMA goes through the IOMMU to the memory that it was given and to no other.
//!
//! ```no_run
//! use doorbell_device::Device;
//! use doorbell_device::vfio::VfioDevice;
//!
//! let device = VfioDevice::open(&"0000:01:00.0".parse()?)?;
//! println!("{}: {} interrupts", device.address(), device.interrupt_count());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Losing the drive
//! When the drive is to be unplugged, the system asks for it back and waits until it is let go. [`Device::loss`] is
//! signalled then, and a driver that is open lets it go. Whoever holds a device without a driver has to watch it
//! themselves, or drop it soon.
//!
//! A drive that vanishes while its registers are mapped may raise SIGBUS: see [`sigbus`](crate::sigbus).

mod bar;
mod caps;
mod device;
mod function;
mod iommu;
mod iova;
mod loss;
mod merge;
mod node;
mod open;
mod options;
mod passed;
mod space;
mod sys;
mod vectors;

pub use device::VfioDevice;
pub use options::{BadVfioAddress, Interface, InterruptKind, VfioOptions};

#[cfg(doc)]
use crate::Device;
