//! A drive that goes from one process to another, busy as it is. The system notices nothing: what it knows of the device
//! hangs on descriptors, and those go over.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use prost::Message;

use super::device::VfioDevice;
use super::iommu::Iommu;
use super::loss::Loss;
use super::node::Node;
use super::options::{Interface, InterruptKind, VfioOptions};
use super::space::{PassedMapping, PassedMemory, Space};
use super::vectors::Vectors;
use crate::{Arriving, Device, DeviceError, DmaMemory, Interrupt, Leaving, Parts};

/// What [`Parts::kind`] says.
const KIND: &str = "pci";

/// The descriptors are the device, what reaches the IOMMU (a group and a container, or iommufd), the eventfds of the two
/// notices of its loss and of each vector, and the files of the memory.
#[derive(Clone, PartialEq, Message)]
struct Passed {
    /// Address and options, as text.
    #[prost(string, tag = "1")]
    address: String,
    /// The number of the IOAS; without one it is reached through a group.
    #[prost(uint32, optional, tag = "2")]
    ioas: Option<u32>,
    /// How it interrupts, by name.
    #[prost(string, tag = "3")]
    interrupts: String,
    #[prost(uint32, tag = "4")]
    vectors: u32,
    #[prost(message, repeated, tag = "5")]
    mappings: Vec<PassedMapping>,
    /// The memory that is named, in that order.
    #[prost(message, repeated, tag = "6")]
    memory: Vec<PassedMemory>,
}

impl VfioDevice {
    /// Whether [`pass`](Self::pass) has a chance.
    pub(super) fn check_pass(&self) -> Result<(), DeviceError> {
        self.check_present()?;
        self.space.check_shareable()
    }

    pub(super) fn pass(&self, memory: &[DmaMemory]) -> Result<Leaving, DeviceError> {
        self.check_present()?;
        let me = self.me.upgrade().ok_or_else(|| DeviceError::Gone("it was let go".into()))?;
        let passed = self.space.hold(memory)?;
        // From here on, what fails lets it go on.
        let held = Held(Some(me));
        let duplicated = DeviceError::io("duplicating a descriptor");
        let mut descriptors = vec![self.function.with(|fd| fd.try_clone_to_owned().map_err(duplicated))?];
        descriptors.extend(passed.descriptors);
        let interrupts = self.loss.notices().into_iter().chain(self.vectors.all());
        for interrupt in interrupts {
            descriptors
                .push(interrupt.as_fd().try_clone_to_owned().map_err(DeviceError::io("duplicating an eventfd"))?);
        }
        descriptors.extend(passed.files.descriptors()?);
        let state = Passed {
            address: self.options.to_string(),
            ioas: passed.ioas,
            interrupts: self.vectors.kind().name().into(),
            vectors: self.vectors.count(),
            mappings: passed.mappings,
            memory: passed.memory,
        };
        let parts = Parts { kind: KIND.into(), state: state.encode_to_vec(), descriptors };
        Ok(Leaving::new(parts, move |left| held.decide(left)))
    }

    /// Goes on with a drive of another process: what [`Device::leave`] of a `VfioDevice` has given there.
    ///
    /// # Errors
    /// [`DeviceError::NotAdoptable`] if that makes no sense; others if the system refuses. The other process can go on then.
    pub fn adopt(parts: Parts) -> Result<Arriving, DeviceError> {
        let bad = |what: &str| DeviceError::NotAdoptable(what.into());
        if parts.kind != KIND {
            return Err(DeviceError::NotAdoptable(format!("it is a device of kind {:?}, not {KIND:?}", parts.kind)));
        }
        let Passed { address, ioas, interrupts, vectors, mappings, memory } =
            Passed::decode(&parts.state[..]).map_err(|error| DeviceError::NotAdoptable(error.to_string()))?;
        let options: VfioOptions =
            address.parse().map_err(|error| DeviceError::NotAdoptable(format!("{address:?}: {error}")))?;
        let kind = InterruptKind::named(&interrupts).ok_or_else(|| bad("its kind of interrupts is not known"))?;
        let mut descriptors = parts.descriptors.into_iter();
        let mut next = |what: &str| descriptors.next().ok_or_else(|| bad(what));
        let mut node = |node: Node, what: &str| {
            let fd = next(what)?;
            node.check(&fd).map(|()| fd)
        };
        let device = node(Node::Device, "the device is missing")?;
        let (iommu, interface) = match ioas {
            None => {
                let group = node(Node::Group, "the group is missing")?;
                let container = node(Node::Container, "the container is missing")?;
                (Iommu::Type1 { group, container }, Interface::Group)
            }
            Some(ioas) => {
                let iommufd = node(Node::Iommufd, "iommufd is missing")?;
                (Iommu::Iommufd { iommufd, ioas }, Interface::Iommufd)
            }
        };
        let notices = [(); 2].map(|()| next("a notice of its loss is missing").map(Interrupt::from_fd));
        let [asked_back, link_failed] = notices;
        let loss = Loss::with(asked_back?, link_failed?)?;
        let eventfds = (0..vectors).map(|_| next("an interrupt is missing")).collect::<Result<Vec<OwnedFd>, _>>()?;
        let files: Vec<Arc<File>> = descriptors.map(|fd| Arc::new(File::from(fd))).collect();
        let (space, arrived) = Space::adopt(iommu, &mappings, &memory, &files)?;
        let device = Self::assembled(options, interface, device, loss, space, |function| {
            Vectors::adopt(function, kind, eventfds)
        })?;
        let begun = device.clone();
        Ok(Arriving::new(device, arrived, move || begun.begin(&memory)))
    }

    fn begin(&self, memory: &[PassedMemory]) -> Result<(), DeviceError> {
        self.ours(true);
        self.space.begin(memory)?;
        // A pin that the process before has not unmasked.
        self.vectors.unmask();
        Ok(())
    }
}

/// Goes on here when dropped, or leaves.
struct Held(Option<Arc<VfioDevice>>);

impl Held {
    fn decide(mut self, left: bool) {
        if left && let Some(device) = self.0.take() {
            device.left();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(device) = self.0.take() {
            device.space.decide(false);
        }
    }
}
