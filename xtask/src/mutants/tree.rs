//! A copy of the sources, to break things in.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::{root, target};

/// The copy. It stays from run to run, and so do its build products, so that only what changed is built again.
pub(crate) struct Tree {
    folder: PathBuf,
    /// Keeps other runs out.
    _lock: fs::File,
}

impl Tree {
    /// Brings the copy up to date with what git knows and what it would add.
    pub(crate) fn sync() -> Result<Self> {
        let base = target().join("mutants");
        fs::create_dir_all(&base).with_context(|| format!("{} cannot be made", base.display()))?;
        let lock = fs::File::create(base.join("lock")).context("the copy cannot be locked")?;
        lock.try_lock().context("mutants run already")?;
        let folder = base.join("tree");
        let files = files()?;
        for file in &files {
            copy(&root().join(file), &folder.join(file)).with_context(|| format!("{file} cannot be copied"))?;
        }
        remove_others(&folder, &files.iter().map(|file| folder.join(file)).collect())
            .context("the copy cannot be cleaned")?;
        Ok(Self { folder, _lock: lock })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Changes a file until the returned value is dropped.
    pub(crate) fn change(&self, file: &str, change: impl FnOnce(&str) -> Result<String>) -> Result<Changed> {
        let path = self.folder.join(file);
        let original = fs::read_to_string(&path).with_context(|| format!("{file} cannot be read"))?;
        let changed = change(&original)?;
        fs::write(&path, changed).with_context(|| format!("{file} cannot be written"))?;
        Ok(Changed { path, original })
    }
}

/// A file with a mutant in it.
pub(crate) struct Changed {
    path: PathBuf,
    original: String,
}

impl Drop for Changed {
    fn drop(&mut self) {
        // If this fails, the next run's sync repairs it.
        let _ = fs::write(&self.path, &self.original);
    }
}

/// What git knows, and what it would add.
fn files() -> Result<Vec<String>> {
    let mut command = Command::new("git");
    command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let mut files: Vec<String> = process::output(&mut command)?.split_terminator('\0').map(str::to_owned).collect();
    // What git knows may be gone.
    files.retain(|file| root().join(file).is_file());
    Ok(files)
}

/// Leaves a file that is the same alone: cargo builds again what is newer than its products.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let new = fs::read(from)?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(to, new)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}

fn remove_others(folder: &Path, keep: &HashSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, keep)?;
        } else if !keep.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn what_is_the_same_is_not_written_again() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (from, to) = (folder.path().join("from"), folder.path().join("deep/to"));
        fs::write(&from, "one")?;
        copy(&from, &to)?;
        let written = fs::metadata(&to)?.modified()?;
        copy(&from, &to)?;
        assert_eq!(fs::metadata(&to)?.modified()?, written);
        fs::write(&from, "two")?;
        copy(&from, &to)?;
        assert_eq!(fs::read_to_string(&to)?, "two");
        Ok(())
    }

    #[test]
    fn a_change_is_taken_back() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("file");
        fs::write(&path, "one")?;
        let tree = Tree { folder: folder.path().to_owned(), _lock: fs::File::create(folder.path().join("lock"))? };
        let changed = tree.change("file", |text| Ok(text.replace("one", "two")))?;
        assert_eq!(fs::read_to_string(&path)?, "two");
        drop(changed);
        assert_eq!(fs::read_to_string(&path)?, "one");
        Ok(())
    }

    #[test]
    fn what_is_gone_goes() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("b"))?;
        for name in ["a", "b/c", "b/d"] {
            fs::write(path(name), "")?;
        }
        remove_others(folder.path(), &HashSet::from([path("a"), path("b/d")]))?;
        assert!(path("a").exists() && path("b/d").exists() && !path("b/c").exists());
        Ok(())
    }
}
