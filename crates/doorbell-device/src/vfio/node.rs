//! What a descriptor is of: one that another process gave may be of anything, and only VFIO's own may be asked what VFIO is
//! asked.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{FileType, fstat, major, minor};

use crate::DeviceError;

/// The kinds of descriptors of VFIO and iommufd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    /// A device, by itself or of a group.
    Device,
    Group,
    Container,
    Iommufd,
}

/// The major number of devices that have only a minor one of their own.
const MISC: u32 = 10;

impl Node {
    /// # Errors
    /// [`DeviceError::NotAdoptable`] if the descriptor is of something else.
    pub(super) fn check(self, fd: impl AsFd) -> Result<(), DeviceError> {
        let what = DeviceError::io("asking what a descriptor is of");
        let stat = fstat(&fd).map_err(what)?;
        let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
        let is_node = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        let found = match self {
            // Opened by itself it is a node, and of a group it has no name in any folder.
            Self::Device => {
                (is_node && is_listed("devices", major, "vfio-dev")) || link(&fd) == "anon_inode:[vfio-device]"
            }
            Self::Group => is_node && is_listed("devices", major, "vfio"),
            Self::Container => is_node && major == MISC && is_listed("misc", minor, "vfio"),
            Self::Iommufd => is_node && major == MISC && is_listed("misc", minor, "iommu"),
        };
        match found {
            true => Ok(()),
            false => {
                Err(DeviceError::NotAdoptable(format!("a descriptor is of {:?}, not of {}", link(&fd), self.name())))
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Device => "a device of VFIO",
            Self::Group => "a group of VFIO",
            Self::Container => "a container of VFIO",
            Self::Iommufd => "iommufd",
        }
    }
}

/// Whether the kernel lists a number with this name in a file of `/proc`.
fn is_listed(file: &str, number: u32, name: &str) -> bool {
    let text = fs::read_to_string(format!("/proc/{file}")).unwrap_or_default();
    // Block devices have numbers of their own, and come last.
    let characters = text.split("Block devices:").next().unwrap_or_default();
    let listed = characters.lines().filter_map(|line| line.trim().split_once(' '));
    listed.into_iter().any(|(listed, its)| listed.parse() == Ok(number) && its.trim() == name)
}

fn link(fd: &impl AsFd) -> String {
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()));
    link.map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_passes_for_one() {
        let file = tempfile::tempfile().unwrap();
        let null = fs::File::open("/dev/null").unwrap();
        for node in [Node::Device, Node::Group, Node::Container, Node::Iommufd] {
            for fd in [&file, &null] {
                let error = node.check(fd).unwrap_err();
                assert!(matches!(error, DeviceError::NotAdoptable(_)), "{error}");
            }
        }
        assert!(is_listed("devices", 1, "mem"), "of which /dev/null is");
    }
}
