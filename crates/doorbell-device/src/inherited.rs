//! Descriptors that this process was started with.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use crate::DeviceError;

/// The process, the number and the name of a descriptor that it left for itself.
const LEFT: &str = "DOORBELL_LEFT";
/// The first number of those that a service manager passes.
const FIRST: RawFd = 3;

/// Has `command` leave a descriptor for the program that takes this process's place, by `exec`, where [`inherited`] finds it.
/// Once that has failed, [`DescriptorLeft`] is to be dropped.
///
/// # Errors
/// If the system refuses it.
pub fn leave_for_exec<'a>(
    command: &mut Command,
    name: &str,
    descriptor: &'a OwnedFd,
) -> Result<DescriptorLeft<'a>, DeviceError> {
    fcntl_setfd(descriptor, FdFlags::empty()).map_err(DeviceError::io("leaving a descriptor open"))?;
    command.env(LEFT, format!("{}:{}:{name}", std::process::id(), descriptor.as_raw_fd()));
    Ok(DescriptorLeft(descriptor))
}

/// A descriptor that programs started by this process have, until this is dropped.
#[derive(Debug)]
#[must_use = "dropped, it does not cross"]
pub struct DescriptorLeft<'a>(&'a OwnedFd);

impl Drop for DescriptorLeft<'_> {
    fn drop(&mut self) {
        // It fails for no descriptor that is open.
        let _ = fcntl_setfd(self.0, FdFlags::CLOEXEC);
    }
}

/// A descriptor of this name that this process was started with: by [the program before](leave_for_exec), or by a service manager
/// (`LISTEN_FDS` and `LISTEN_FDNAMES`, `sd_listen_fds_with_names`(3)). Each is given once. None if none was announced, or what was
/// is not there: the environment may be that of an earlier program.
///
/// # Errors
/// If the system refuses it.
pub fn inherited(name: &str) -> Result<Option<OwnedFd>, DeviceError> {
    static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let left = from_before(&var(LEFT), std::process::id(), name);
    let Some(number) = left.or_else(|| {
        let (pid, count, names) = (var("LISTEN_PID"), var("LISTEN_FDS"), var("LISTEN_FDNAMES"));
        passed(&pid, &count, &names, std::process::id(), name)
    }) else {
        return Ok(None);
    };
    if !TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(number) {
        return Ok(None);
    }
    // SAFETY: the environment says that this very process was started with the descriptor, for whoever asks here: so nobody
    // else in it owns it, and nobody else is given it, as each number is taken once. That it is one that the process was started
    // with, and not one that it has opened since, is looked at below, by a call that refuses what is not open; until then
    // only its number is used, which no call but that one sees, and what is another's is not closed.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    match fcntl_getfd(&descriptor) {
        // Whatever this program opens itself is closed by `exec`, so this is not of this program.
        Ok(flags) if !flags.contains(FdFlags::CLOEXEC) => {}
        other => {
            tracing::warn!(
                number,
                name,
                ?other,
                "the environment names a descriptor that this process was not started with"
            );
            std::mem::forget(descriptor);
            return Ok(None);
        }
    }
    let what = "keeping a descriptor that this process was started with to itself";
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC).map_err(DeviceError::io(what))?;
    Ok(Some(descriptor))
}

fn from_before(left: &str, own_pid: u32, name: &str) -> Option<RawFd> {
    let mut parts = left.splitn(3, ':');
    let (pid, number, of) = (parts.next()?, parts.next()?, parts.next()?);
    (pid.parse() == Ok(own_pid) && of == name).then(|| number.parse().ok().filter(|number| *number >= FIRST))?
}

fn passed(pid: &str, count: &str, names: &str, own_pid: u32, name: &str) -> Option<RawFd> {
    if pid.parse() != Ok(own_pid) {
        return None;
    }
    let numbers = FIRST..FIRST.checked_add(count.parse().ok()?)?;
    numbers.zip(names.split(':')).find(|(_, of)| *of == name).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_a_number() {
        assert_eq!(passed("7", "3", "a:drive:c", 7, "drive"), Some(4));
        assert_eq!(passed("7", "1", "a:drive:c", 7, "drive"), None, "fewer came");
        for (pid, count) in [("8", "3"), ("", "3"), ("7", ""), ("7", "-1"), ("7", "99999999999"), ("7", "2147483647")] {
            assert_eq!(passed(pid, count, "a:drive:c", 7, "drive"), None, "{pid:?} {count:?}");
        }
        assert_eq!(from_before("7:9:drive:1", 7, "drive:1"), Some(9));
        for left in ["", "7", "7:9", "8:9:drive", "7:2:drive", "7:x:drive", "7:-4:drive", "7:9:other"] {
            assert_eq!(from_before(left, 7, "drive"), None, "{left:?}");
        }
    }

    #[test]
    fn nothing_is_had_that_was_not_passed() {
        assert!(inherited("drive").unwrap().is_none());
    }

    #[test]
    fn a_descriptor_is_left_open_for_as_long_as_it_is_said() {
        let descriptor = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let mut command = Command::new("true");
        let left = leave_for_exec(&mut command, "drive", &descriptor).unwrap();
        assert!(fcntl_getfd(&descriptor).unwrap().is_empty());
        drop(left);
        assert_eq!(fcntl_getfd(&descriptor).unwrap(), FdFlags::CLOEXEC);
        let (_, value) = command.get_envs().find(|(key, _)| *key == LEFT).unwrap();
        let value = value.unwrap().to_str().unwrap();
        assert_eq!(from_before(value, std::process::id(), "drive"), Some(descriptor.as_raw_fd()));
    }
}
