use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Where the server is, and how to deal with it.
///
/// As text: `vfio-user:PATH`, then any of `,reconnect`, `,reconnect=SECONDS`, `,timeout=SECONDS` and `,vectors=COUNT`.
/// A path with a comma can only be given to [`new`](Self::new).
///
/// ```
/// use std::time::Duration;
/// use doorbell_vfio_user::VfioUserOptions;
///
/// let options: VfioUserOptions = "vfio-user:/run/nvme0.sock,reconnect=5".parse()?;
/// assert_eq!(options, VfioUserOptions::new("/run/nvme0.sock").reconnect(Some(Duration::from_secs(5))));
/// # Ok::<(), doorbell_vfio_user::BadVfioUserAddress>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct VfioUserOptions {
    pub(crate) socket: PathBuf,
    pub(crate) reconnect: Option<Duration>,
    pub(crate) timeout: Duration,
    pub(crate) vectors: u32,
}

/// Text that is no address of a vfio-user server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadVfioUserAddress {
    /// There is no path.
    #[error("it names no socket: it looks like vfio-user:/path/to/socket")]
    NoPath,
    /// An option that there is not.
    #[error("there is no option {0:?}; there are reconnect, reconnect=SECONDS, timeout=SECONDS and vectors=COUNT")]
    NoSuchOption(String),
    /// A value that an option cannot have.
    #[error("{option}={value}: {option} is a number from 1 to {max}")]
    BadValue {
        /// The option.
        option: &'static str,
        /// What it was to be.
        value: String,
        /// The largest value.
        max: u64,
    },
}

/// How long a server that died is waited for, unless told.
const RECONNECT: Duration = Duration::from_secs(60);
const MAX_SECONDS: u64 = 86_400;
const MAX_VECTORS: u64 = 2048;

impl VfioUserOptions {
    /// The server at a socket, or at the socket `cntrl` in a directory, as SPDK names it; with 10 s for each reply, up
    /// to 64 interrupt vectors, and lost for good when the server dies.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), reconnect: None, timeout: Duration::from_secs(10), vectors: 64 }
    }

    /// Waits so long for a server that died to be there again, and goes on with it.
    pub fn reconnect(self, limit: Option<Duration>) -> Self {
        Self { reconnect: limit, ..self }
    }

    /// How long the server may take for a reply. One that takes longer is given up.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Interrupt vectors to use at most.
    pub fn vectors(self, vectors: u32) -> Self {
        Self { vectors, ..self }
    }

    /// The path of the socket itself.
    pub(crate) fn socket_path(&self) -> PathBuf {
        if self.socket.is_dir() { self.socket.join("cntrl") } else { self.socket.clone() }
    }

    pub(crate) fn address(&self) -> String {
        format!("vfio-user:{}", Path::display(&self.socket))
    }
}

impl FromStr for VfioUserOptions {
    type Err = BadVfioUserAddress;

    fn from_str(text: &str) -> Result<Self, BadVfioUserAddress> {
        let text = text.strip_prefix("vfio-user:").unwrap_or(text);
        let mut parts = text.split(',');
        let path = parts.next().filter(|path| !path.is_empty()).ok_or(BadVfioUserAddress::NoPath)?;
        parts.try_fold(Self::new(path), |options, part| {
            let seconds = |option, value| number(option, value, MAX_SECONDS).map(Duration::from_secs);
            Ok(match part.split_once('=') {
                None if part == "reconnect" => options.reconnect(Some(RECONNECT)),
                Some(("reconnect", value)) => options.reconnect(Some(seconds("reconnect", value)?)),
                Some(("timeout", value)) => options.timeout(seconds("timeout", value)?),
                Some(("vectors", value)) => {
                    let vectors = number("vectors", value, MAX_VECTORS)?;
                    options.vectors(u32::try_from(vectors).unwrap_or(u32::MAX))
                }
                _ => return Err(BadVfioUserAddress::NoSuchOption(part.into())),
            })
        })
    }
}

fn number(option: &'static str, value: &str, max: u64) -> Result<u64, BadVfioUserAddress> {
    let number = value.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| BadVfioUserAddress::BadValue { option, value: value.into(), max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["vfio-user:", "", ",reconnect", "vfio-user:,timeout=3"] {
            assert_eq!(text.parse::<VfioUserOptions>(), Err(BadVfioUserAddress::NoPath), "{text:?}");
        }
        for text in ["/a,", "/a,wait", "/a,reconnect,", "/a,path=/b"] {
            let error = text.parse::<VfioUserOptions>().unwrap_err();
            assert!(matches!(error, BadVfioUserAddress::NoSuchOption(_)), "{text:?}: {error}");
        }
        for text in ["/a,timeout=0", "/a,vectors=-1", "/a,reconnect=", "/a,timeout=86401", "/a,vectors=9999999999"] {
            let error = text.parse::<VfioUserOptions>().unwrap_err();
            assert!(matches!(error, BadVfioUserAddress::BadValue { .. }), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_directory_is_where_spdk_has_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let options = VfioUserOptions::new(directory.path());
        assert_eq!(options.socket_path(), directory.path().join("cntrl"));
        assert_eq!(VfioUserOptions::new("/nowhere/at.all").socket_path(), Path::new("/nowhere/at.all"));
    }
}
