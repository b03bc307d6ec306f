use std::fmt;
use std::str::FromStr;

use crate::pci::{BadPciAddress, PciAddress};

/// A drive, and how to use it. As text it is `pci:0000:01:00.0`, with options behind commas:
/// `pci:01:00.0,interface=group,interrupts=msix,vectors=4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VfioOptions {
    /// Where it is.
    pub address: PciAddress,
    /// How to reach it; by default the device's own node and iommufd if there are, else the group and a container.
    pub interface: Option<Interface>,
    /// Which interrupts to use; by default the best that it has.
    pub interrupts: Option<InterruptKind>,
    /// How many vectors to use at most; by default one more than this process has CPUs.
    pub vectors: Option<u32>,
}

/// A way to reach a device through VFIO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interface {
    /// `/dev/vfio/N` and the container `/dev/vfio/vfio`, with an IOMMU of type 1.
    Group,
    /// `/dev/vfio/devices/vfioN` and `/dev/iommu`.
    Iommufd,
}

/// How a function interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InterruptKind {
    /// MSI-X: many vectors.
    MsiX,
    /// MSI: few vectors.
    Msi,
    /// A pin, which is level-triggered.
    Intx,
    /// Not at all.
    None,
}

/// Text that is no address of a drive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadVfioAddress {
    /// It does not begin with the kind of address.
    #[error("{0:?} does not begin with pci:")]
    Scheme(String),
    /// The PCI address is none.
    #[error(transparent)]
    Pci(#[from] BadPciAddress),
    /// There is no such option.
    #[error("there is no option {0:?}; there are interface=, interrupts= and vectors=")]
    Option(String),
    /// An option does not take this value.
    #[error("option {option} is {value:?}, allowed is {allowed}")]
    Value {
        /// Which option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What would be allowed.
        allowed: &'static str,
    },
}

impl VfioOptions {
    /// The defaults for a drive.
    #[must_use]
    pub fn new(address: PciAddress) -> Self {
        Self { address, interface: None, interrupts: None, vectors: None }
    }
}

impl FromStr for VfioOptions {
    type Err = BadVfioAddress;

    fn from_str(text: &str) -> Result<Self, BadVfioAddress> {
        let rest = text.strip_prefix("pci:").ok_or_else(|| BadVfioAddress::Scheme(text.into()))?;
        let mut parts = rest.split(',');
        let mut options = Self::new(parts.next().unwrap_or_default().parse()?);
        for part in parts {
            let (name, value) = part.split_once('=').ok_or_else(|| BadVfioAddress::Option(part.into()))?;
            let bad = |option, allowed| BadVfioAddress::Value { option, value: value.into(), allowed };
            match name {
                "interface" => {
                    let found = [Interface::Group, Interface::Iommufd].into_iter().find(|i| i.name() == value);
                    options.interface = Some(found.ok_or_else(|| bad("interface", "group or iommufd"))?);
                }
                "interrupts" => {
                    let found = InterruptKind::named(value);
                    options.interrupts = Some(found.ok_or_else(|| bad("interrupts", "msix, msi, intx or none"))?);
                }
                "vectors" => {
                    let vectors = value.parse().ok().filter(|vectors| (1..=2048).contains(vectors));
                    options.vectors = Some(vectors.ok_or_else(|| bad("vectors", "1 to 2048"))?);
                }
                _ => return Err(BadVfioAddress::Option(name.into())),
            }
        }
        Ok(options)
    }
}

impl fmt::Display for VfioOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pci:{}", self.address)?;
        if let Some(interface) = self.interface {
            write!(f, ",interface={}", interface.name())?;
        }
        if let Some(interrupts) = self.interrupts {
            write!(f, ",interrupts={}", interrupts.name())?;
        }
        if let Some(vectors) = self.vectors {
            write!(f, ",vectors={vectors}")?;
        }
        Ok(())
    }
}

impl Interface {
    fn name(self) -> &'static str {
        match self {
            Interface::Group => "group",
            Interface::Iommufd => "iommufd",
        }
    }
}

impl InterruptKind {
    const ALL: [Self; 4] = [Self::MsiX, Self::Msi, Self::Intx, Self::None];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            InterruptKind::MsiX => "msix",
            InterruptKind::Msi => "msi",
            InterruptKind::Intx => "intx",
            InterruptKind::None => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_it_is_written() {
        for text in [
            "pci:0000:01:00.0",
            "pci:0000:01:00.0,interface=group,interrupts=intx",
            "pci:0000:01:00.0,interface=iommufd,interrupts=msi,vectors=2",
        ] {
            assert_eq!(text.parse::<VfioOptions>().unwrap().to_string(), text);
        }
        assert_eq!("pci:01:00.0".parse::<VfioOptions>().unwrap().to_string(), "pci:0000:01:00.0");
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (text, says) in [
            ("0000:01:00.0", "does not begin with pci:"),
            ("pci:", "is no PCI address"),
            ("pci:01:00.0,", "no option \"\""),
            ("pci:01:00.0,speed=9", "no option \"speed\""),
            ("pci:01:00.0,interface=legacy", "allowed is group or iommufd"),
            ("pci:01:00.0,interrupts=", "allowed is msix, msi, intx or none"),
            ("pci:01:00.0,vectors=0", "allowed is 1 to 2048"),
        ] {
            let error = text.parse::<VfioOptions>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
