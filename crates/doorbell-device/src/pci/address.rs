use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a PCI function is: domain, bus, device and function, as in `0000:01:00.0`.
///
/// ```
/// use doorbell_device::pci::PciAddress;
///
/// let address: PciAddress = "01:00.0".parse()?;
/// assert_eq!(address.to_string(), "0000:01:00.0");
/// # Ok::<(), doorbell_device::pci::BadPciAddress>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// Text that is no PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no PCI address: it looks like 0000:01:00.0 or 01:00.0, in hexadecimal, device to 1f, function to 7")]
pub struct BadPciAddress(pub String);

impl PciAddress {
    /// The function at an address; `None` where the device is beyond 31 or the function beyond 7.
    pub fn new(domain: u32, bus: u8, device: u8, function: u8) -> Option<Self> {
        (device < 32 && function < 8).then_some(Self { domain, bus, device, function })
    }

    /// The domain, also called segment; 0 on most machines.
    pub fn domain(&self) -> u32 {
        self.domain
    }

    /// The bus.
    pub fn bus(&self) -> u8 {
        self.bus
    }

    /// The device on the bus, to 31.
    pub fn device(&self) -> u8 {
        self.device
    }

    /// The function of the device, to 7.
    pub fn function(&self) -> u8 {
        self.function
    }

    /// The folder that sysfs has for it, if it is there.
    pub fn sysfs(&self) -> PathBuf {
        PathBuf::from(format!("/sys/bus/pci/devices/{self}"))
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl FromStr for PciAddress {
    type Err = BadPciAddress;

    fn from_str(text: &str) -> Result<Self, BadPciAddress> {
        parse(text).ok_or_else(|| BadPciAddress(text.into()))
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (slot, function) = text.rsplit_once('.')?;
    let (bus, device) = slot.rsplit_once(':')?;
    let (domain, bus) = bus.rsplit_once(':').unwrap_or(("0", bus));
    // Linux numbers the domains of some bridges from 10000 on, with five digits and more.
    PciAddress::new(
        hex(domain, 8)?,
        u8::try_from(hex(bus, 2)?).ok()?,
        u8::try_from(hex(device, 2)?).ok()?,
        u8::try_from(hex(function, 1)?).ok()?,
    )
}

/// A number of at most so many digits; `from_str_radix` alone would take a sign too.
fn hex(text: &str, digits: usize) -> Option<u32> {
    let plain = text.len() <= digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if plain { u32::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_it_is_written() {
        for (text, canonical) in [
            ("0000:01:00.0", "0000:01:00.0"),
            ("01:00.0", "0000:01:00.0"),
            ("1:0.7", "0000:01:00.7"),
            ("10000:e1:1f.7", "10000:e1:1f.7"),
            ("00FF:fF:0A.0", "00ff:ff:0a.0"),
        ] {
            let address: PciAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(address));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let wrong = [
            "",
            ".",
            ":.",
            "01",
            "01:00",
            "01.0",
            "01:00.8",
            "01:20.0",
            "100:00.0",
            "+1:00.0",
            "01:00.-0",
            "01:00.00",
            "0:0:01:00.0",
            "g0:00.0",
            " 01:00.0",
            "01:00.0 ",
            "123456789:01:00.0",
            "::.0",
            "01:00.0/..",
            "é:00.0",
        ];
        for text in wrong {
            assert_eq!(text.parse::<PciAddress>(), Err(BadPciAddress(text.into())), "{text:?}");
        }
    }
}
