//! QEMU, a kernel and the guests' tools, from Debian's packages: nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::apt::Apt;
use super::iommufd;
use super::kernel::{self, Modules};
use crate::{process, workspace};

/// What a lab is made of. Another recipe under the same name would leave what an older one made.
const RECIPE: &str = "2";
const PACKAGES: &[&str] = &[
    "qemu-system-x86",
    "seabios",
    "ipxe-qemu",
    "busybox-static",
    "nvme-cli",
    "fio",
    "e2fsprogs",
    "xfsprogs",
    "grub-common",
    "libc6",
];
const LIBRARIES: [&str; 3] =
    ["usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/ceph", "usr/lib/x86_64-linux-gnu/pulseaudio"];
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// Which releases of QEMU and of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Release {
    /// Debian 13 with its backports: QEMU 11, kernel 7
    TrixieBackports,
    /// Debian 12: QEMU 7.2, kernel 6.1
    Bookworm,
    /// As trixie-backports, with iommufd, which its kernel lacks, built from its source; needs root
    Iommufd,
}

impl Release {
    pub(super) fn name(self) -> &'static str {
        match self {
            Release::TrixieBackports => "trixie-backports",
            Release::Bookworm => "bookworm",
            Release::Iommufd => "iommufd",
        }
    }

    /// The release whose packages it is made of.
    pub(super) fn base(self) -> Self {
        match self {
            Release::Iommufd => Release::TrixieBackports,
            other => other,
        }
    }

    fn suites(self) -> &'static [&'static str] {
        match self {
            Release::TrixieBackports | Release::Iommufd => &["trixie", "trixie-backports"],
            Release::Bookworm => &["bookworm"],
        }
    }
}

/// A lab that is ready.
pub(super) struct Lab {
    folder: PathBuf,
    /// Modules that take the place of the kernel's own.
    rebuilt: Option<PathBuf>,
    /// What QEMU says of itself, and the kernel's version.
    pub(super) versions: String,
}

impl Lab {
    /// The lab that an earlier run made, or a new one.
    pub(super) fn ready(release: Release) -> Result<Self> {
        let folder = workspace::target().join("guest-lab").join(format!("{}-{RECIPE}", release.base().name()));
        let mut lab = Self { folder, rebuilt: None, versions: String::new() };
        if !lab.folder.exists() {
            let name = release.base().name();
            println!("fetching QEMU, a kernel and tools of Debian {name}");
            make(release, &lab.folder)
                .with_context(|| format!("the guest tests need packages of Debian {name}, which cannot be had"))?;
        }
        let qemu = process::output(lab.qemu().arg("--version"))?;
        let qemu = qemu.lines().next().unwrap_or_default().split(" (").next().unwrap_or_default();
        let kernel = only_entry(&lab.folder.join("root/usr/lib/modules"))?;
        let kernel = kernel.file_name().unwrap_or_default().to_string_lossy().into_owned();
        lab.versions = format!("{qemu}, Linux {kernel}");
        if release == Release::Iommufd {
            lab.rebuilt = Some(iommufd::modules(&kernel, release.suites())?);
            lab.versions += " with iommufd";
        }
        Ok(lab)
    }

    pub(super) fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    pub(super) fn modules(&self) -> Result<Modules> {
        let mut modules = Modules::below(&only_entry(&self.root().join("usr/lib/modules"))?)?;
        if let Some(folder) = &self.rebuilt {
            modules.find(folder)?;
        }
        Ok(modules)
    }

    /// QEMU, ready for its arguments. It ends when the thread that starts it does.
    pub(super) fn qemu(&self) -> Command {
        let share = self.root().join("usr/share");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        self.loaded(&mut command);
        command
            .env("QEMU_MODULE_DIR", self.root().join("usr/lib/x86_64-linux-gnu/qemu"))
            .arg(self.root().join("usr/bin/qemu-system-x86_64"));
        for folder in ["qemu", "seabios"] {
            command.arg("-L").arg(share.join(folder));
        }
        command.arg("-L").arg(self.root().join("usr/lib/ipxe/qemu"));
        command
    }

    /// A program of the lab for this machine, ready for its arguments.
    pub(super) fn tool(&self, name: &str) -> Command {
        let mut command = Command::new("env");
        self.loaded(&mut command);
        command.arg(self.root().join("usr/bin").join(name));
        command
    }

    /// A program of the lab, with the libraries that it needs: where each is to lie in a guest, and where it is here.
    pub(super) fn program(&self, name: &str) -> Result<Vec<(String, PathBuf)>> {
        let found = ["usr/bin", "usr/sbin"].into_iter().map(|folder| format!("{folder}/{name}"));
        let place = found.into_iter().find(|place| self.root().join(place).exists());
        let place = place.with_context(|| format!("the lab has no program `{name}`"))?;
        let program = self.root().join(&place);
        let mut command = Command::new("env");
        self.loaded(&mut command);
        let listed = process::observe(command.arg("--list").arg(&program), process::STEP_LIMIT)?;
        let mut files = vec![(place, program)];
        if !listed.succeeded() {
            // The loader lists nothing that is linked statically.
            return Ok(files);
        }
        for library in
            listed.stdout.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        {
            let path = PathBuf::from(library);
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push((format!("usr/lib/x86_64-linux-gnu/{name}"), path));
        }
        files.push((LOADER.to_owned(), self.root().join(LOADER)));
        Ok(files)
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Has a command go through the lab's own loader, so that its programs find the lab's libraries.
    fn loaded(&self, command: &mut Command) {
        let libraries = LIBRARIES.map(|folder| self.root().join(folder).display().to_string()).join(":");
        command.arg(self.root().join(LOADER)).args(["--library-path", &libraries]);
    }
}

/// Makes a lab beside its place, and moves it there when it is whole.
fn make(release: Release, folder: &Path) -> Result<()> {
    let new = folder.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("{} cannot be removed", new.display()))?;
    }
    let root = new.join("root");
    let apt = Apt::new(&new.join("apt"), release.suites())?;
    apt.unpack_with_dependencies(PACKAGES, &root)?;
    match release {
        Release::TrixieBackports | Release::Iommufd => {
            let binary = apt.newest("linux-binary-", "+deb13-amd64")?;
            let modules = binary.replacen("binary", "modules", 1);
            apt.unpack(&[&binary, &modules], &root)?;
        }
        Release::Bookworm => apt.unpack(&[&apt.newest("linux-image-6.1.", "-amd64")?], &root)?,
    }
    let image = image(&root)?;
    fs::write(new.join("vmlinux"), kernel::unpacked(&image)?)?;
    fs::rename(&new, folder).with_context(|| format!("{} cannot be made", folder.display()))
}

/// The kernel's image, wherever its package puts it.
fn image(root: &Path) -> Result<PathBuf> {
    let places = [root.join("boot"), only_entry(&root.join("usr/lib/modules"))?];
    let files =
        places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten().map(|entry| entry.path());
    let mut images =
        files.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")));
    images.next().context("the kernel's package has no image")
}

fn only_entry(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be listed", folder.display()))?;
    let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    ensure!(paths.len() == 1, "{} has {} entries instead of one", folder.display(), paths.len());
    paths.into_iter().next().context("no entry")
}
