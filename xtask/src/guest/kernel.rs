//! A packaged kernel: its image, unpacked, and its modules.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

/// How kernels and modules are packed: what they begin with, and what unpacks them.
const PACKINGS: [(&[u8], &str); 3] =
    [(b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\x00", "xz"), (b"\x1f\x8b\x08", "gzip")];
const ELF: &[u8] = b"\x7fELF";

/// The kernel inside a boot image. Unpacked here it starts sooner than by unpacking itself under emulation.
pub(super) fn unpacked(image: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(image).with_context(|| format!("{} cannot be read", image.display()))?;
    for (magic, unpack) in PACKINGS {
        let starts = bytes.windows(magic.len()).enumerate().filter(|(_, window)| *window == magic);
        for (start, _) in starts {
            // What follows the packed kernel is not part of it, so that the tool complains in any case.
            let kernel = piped(unpack, bytes.get(start..).unwrap_or_default())?;
            if kernel.starts_with(ELF) {
                return Ok(kernel);
            }
        }
    }
    bail!("{} holds no kernel packed in a way that is known here", image.display())
}

/// The modules of a kernel, by name.
pub(super) struct Modules {
    files: BTreeMap<String, PathBuf>,
}

impl Modules {
    /// Those below a folder.
    pub(super) fn below(folder: &Path) -> Result<Self> {
        let mut modules = Self { files: BTreeMap::new() };
        modules.find(folder)?;
        Ok(modules)
    }

    /// These modules, unpacked, each behind those it depends on. What is built into the kernel is not among them.
    pub(super) fn with_dependencies(&self, names: &[String]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut loaded = Vec::new();
        for name in names {
            self.add(&plain(name), &mut loaded)?;
        }
        Ok(loaded)
    }

    fn add(&self, name: &str, loaded: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
        if loaded.iter().any(|(known, _)| known == name) {
            return Ok(());
        }
        let Some(file) = self.files.get(name) else { return Ok(()) };
        let bytes = fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let packing = PACKINGS.iter().find(|(magic, _)| bytes.starts_with(magic));
        let module = packing.map_or_else(|| Ok(bytes.clone()), |(_, unpack)| piped(unpack, &bytes))?;
        for other in depends(&module) {
            self.add(&other, loaded)?;
        }
        loaded.push((name.to_owned(), module));
        Ok(())
    }

    /// Adds those below a folder, which take the place of others of their names.
    pub(super) fn find(&mut self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("{} cannot be listed", folder.display()))? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                self.find(&path)?;
            } else if let Some((name, end)) = path.file_name().and_then(|name| name.to_str()?.split_once('.'))
                && matches!(end, "ko" | "ko.xz" | "ko.zst" | "ko.gz")
            {
                self.files.insert(plain(name), path.clone());
            }
        }
        Ok(())
    }
}

/// As the kernel spells a module's name.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// The modules that a module needs, as its own description says.
fn depends(module: &[u8]) -> Vec<String> {
    let mut entries = module.split(|byte| *byte == 0).filter_map(|entry| entry.strip_prefix(b"depends="));
    let list = entries.next().map(|list| String::from_utf8_lossy(list).into_owned()).unwrap_or_default();
    list.split(',').filter(|name| !name.is_empty()).map(plain).collect()
}

/// What a tool makes of its input. It may complain; the caller looks at the result.
fn piped(tool: &str, input: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(tool)
        .args(["-dcq"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start `{tool}`, which unpacks kernels and modules"))?;
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(input)));
        child.wait_with_output()
    });
    Ok(output.with_context(|| format!("cannot read from `{tool}`"))?.stdout)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_module() {
        assert_eq!(depends(b"\0license=GPL\0depends=nvme-core,nvme-auth\0x"), ["nvme_core", "nvme_auth"]);
        assert_eq!(depends(b"\0depends=\0"), [""; 0]);
        assert_eq!(depends(b"nothing"), [""; 0]);
    }

    #[test]
    fn modules_come_behind_what_they_need() -> Result<()> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("sub"))?;
        fs::write(folder.path().join("sub/vfio-pci.ko"), b"\x7fELF\0depends=vfio\0")?;
        fs::write(folder.path().join("vfio.ko"), b"\x7fELF\0depends=irqbypass\0")?;
        let modules = Modules::below(folder.path())?.with_dependencies(&["vfio-pci".into(), "vfio".into()])?;
        assert_eq!(modules.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["vfio", "vfio_pci"]);
        Ok(())
    }

    #[test]
    fn a_kernel_is_found_inside_its_image() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let image = folder.path().join("vmlinuz");
        let packed = Command::new("sh").args(["-c", "printf '\\177ELF and more' | gzip -c"]).output()?.stdout;
        fs::write(&image, [b"MZ loader ".as_slice(), &packed, b" tail"].concat())?;
        assert_eq!(unpacked(&image)?, b"\x7fELF and more");
        fs::write(&image, b"no kernel")?;
        assert!(unpacked(&image).is_err());
        Ok(())
    }
}
