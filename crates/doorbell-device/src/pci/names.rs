//! Names of vendors and devices, from the list that distributions carry as `pci.ids`.

use std::fs;

use super::Sysfs;

/// Where distributions put it.
const PLACES: [&str; 4] =
    ["/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids", "/usr/share/pci.ids", "/var/lib/pciutils/pci.ids"];

/// The list, or none.
#[derive(Debug, Default)]
pub struct PciIds {
    text: String,
}

impl PciIds {
    /// The first list that there is.
    pub fn load(sysfs: &Sysfs) -> Self {
        let read = |place: &&str| fs::read(sysfs.path(place)).ok();
        let bytes = PLACES.iter().find_map(read).unwrap_or_default();
        Self { text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    /// The vendor's name, and the device's.
    pub fn name(&self, vendor: u16, device: u16) -> (Option<&str>, Option<&str>) {
        let (vendor, device) = (format!("{vendor:04x}"), format!("{device:04x}"));
        let mut lines = self.text.lines().skip_while(|line| id(line, 0) != Some(&vendor));
        let Some(first) = lines.next() else { return (None, None) };
        // Classes follow the vendors, as `C 01  Name`.
        let of_vendor = lines.take_while(|line| line.starts_with(['\t', '#']) || line.is_empty());
        let found = of_vendor.into_iter().find(|line| id(line, 1) == Some(&device));
        (first.get(4..).map(str::trim), found.and_then(|line| Some(line.get(5..)?.trim())))
    }
}

/// The four digits of a line that stands so many tabs deep, if a name follows.
fn id(line: &str, tabs: usize) -> Option<&str> {
    let rest = line.get(tabs..).filter(|_| line.bytes().take(tabs).all(|byte| byte == b'\t'))?;
    let (digits, name) = rest.split_at_checked(4)?;
    let is_id = digits.bytes().all(|byte| byte.is_ascii_hexdigit()) && name.starts_with("  ");
    is_id.then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_they_stand() {
        let text = "# comment\n144d  Samsung\n\ta804  SM961\n\t\t144d a801  SM963\n\n\ta808  SM981\n1b36  Red Hat\n\t0010  QEMU NVMe\nC 01  Mass\n\t08  NVMe\n";
        let ids = PciIds { text: text.into() };
        assert_eq!(ids.name(0x144d, 0xa808), (Some("Samsung"), Some("SM981")));
        assert_eq!(ids.name(0x1b36, 0x0010), (Some("Red Hat"), Some("QEMU NVMe")));
        assert_eq!(ids.name(0x1b36, 0xa808), (Some("Red Hat"), None), "another vendor's device");
        assert_eq!(ids.name(0x144d, 0xa801), (Some("Samsung"), None), "a subsystem is no device");
        assert_eq!(ids.name(0xffff, 0), (None, None));
        assert_eq!(PciIds::default().name(1, 2), (None, None));
    }

    #[test]
    fn text_that_is_no_list_names_nothing() {
        for text in ["144d", "144d\n\ta808\n", "é44d  x\n", "\t\t\t", "144d  \n\ta808  \n"] {
            let ids = PciIds { text: text.into() };
            assert!(ids.name(0x144d, 0xa808).1.is_none_or(str::is_empty), "{text:?}");
        }
    }
}
