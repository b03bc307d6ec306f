//! The archive that a kernel takes its first file system from (newc, Documentation/driver-api/early-userspace).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive that is being written.
pub(super) struct Archive<W> {
    out: W,
    written: usize,
    inodes: u32,
    folders: Vec<String>,
}

impl Archive<BufWriter<File>> {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self::new(BufWriter::new(file)))
    }
}

impl<W: Write> Archive<W> {
    fn new(out: W) -> Self {
        Self { out, written: 0, inodes: 0, folders: Vec::new() }
    }

    /// A folder, with those above it.
    pub(super) fn folder(&mut self, path: &str) -> Result<()> {
        if path.is_empty() || self.folders.iter().any(|known| known == path) {
            return Ok(());
        }
        self.folder(above(path))?;
        self.folders.push(path.to_owned());
        self.entry(path, FOLDER, &[])
    }

    /// A file that can be run, with the folders above it.
    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.folder(above(path))?;
        self.entry(path, PROGRAM, bytes)
    }

    pub(super) fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.folder(above(path))?;
        self.entry(path, LINK, to.as_bytes())
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.inodes += 1;
        let size = u32::try_from(bytes.len()).with_context(|| format!("{path} is too large for a guest"))?;
        let name = u32::try_from(path.len() + 1)?;
        // inode, mode, user, group, links, time, size, device (2), its own device (2), name's size, checksum
        let fields = [self.inodes, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        let header: String = fields.iter().map(|field| format!("{field:08X}")).collect();
        self.put(b"070701")?;
        self.put(header.as_bytes())?;
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.align()?;
        self.put(bytes)?;
        self.align()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len();
        Ok(self.out.write_all(bytes)?)
    }

    fn align(&mut self) -> Result<()> {
        let padding = self.written.next_multiple_of(4) - self.written;
        self.put([0; 3].get(..padding).unwrap_or_default())
    }
}

fn above(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(above, _)| above)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn entries_are_as_the_kernel_reads_them() -> Result<()> {
        let mut archive = Archive::new(Vec::new());
        archive.file("a/b", b"hello")?;
        archive.file("a/c", b"")?;
        let bytes = archive.finish()?;
        let text = String::from_utf8_lossy(&bytes);
        // The folder comes once, before what is in it; data begins at a multiple of 4.
        assert_eq!(text.matches("070701").count(), 4);
        let (folder, file) = (text.find("0000a\0").is_some(), text.find("a/b\0").expect("it is in"));
        assert!(!folder || text.find("a\0").is_some_and(|at| at < file));
        let data = text.find("hello").expect("it is in");
        assert_eq!(data % 4, 0);
        assert_eq!(bytes.len() % 4, 0);
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
        Ok(())
    }
}
