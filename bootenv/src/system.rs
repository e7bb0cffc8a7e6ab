//! What Debian gives, ready in the cache: the kernel, the modules we take, the programs and tools, and firmware.

use crate::advice::Advice;
use crate::apt::Apt;
use crate::cache::{Cache, Freshness};
use crate::modules::{self, Modules};
use crate::monitor::Monitor;
use crate::packages;
use crate::program;
use crate::root::Root;
use crate::sources::Sources;
use crate::toolbox::Toolbox;
use crate::tree::Tree;
use crate::{contents, grub};
use imager_units::{Context, Error, ErrorKind, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Changes whenever what is made of the same packages would be another.
const RECIPE: &str = "2";
/// Packages of the tools that make the medium.
const TOOLS: [&str; 7] = ["binutils", "grub-common", "kmod", "mtools", "xorriso", "xz-utils", "zstd"];
/// Packages of firmware for network cards and storage controllers, under their names in one release or another.
const FIRMWARE: [&str; 11] = [
    "firmware-bnx2",
    "firmware-bnx2x",
    "firmware-cavium",
    "firmware-intel-misc",
    "firmware-linux-free",
    "firmware-misc-nonfree",
    "firmware-myricom",
    "firmware-netronome",
    "firmware-netxen",
    "firmware-qlogic",
    "firmware-realtek",
];
/// How hard modules are compressed.
const MODULE_LEVEL: &str = "-12";
/// Tables of depmod's that nothing on the medium reads.
const UNREAD: [&str; 3] = ["modules.symbols", "modules.symbols.bin", "modules.order"];

/// Whether firmware that is not free goes on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// No.
    Without,
    /// Yes: of it, what the modules on the medium ask for.
    With,
}

/// What Debian gives.
#[derive(Debug)]
pub struct System {
    toolbox: Toolbox,
    kernel: PathBuf,
    release: String,
    modules: PathBuf,
    firmware: Option<Root>,
    versions: String,
}

impl System {
    /// Fetches and unpacks what is not in the cache yet.
    ///
    /// # Errors
    /// When a mirror does not answer, or the disk is full.
    pub fn prepare(
        cache: &Cache,
        firmware: Firmware,
        freshness: Freshness,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        let mut kitchen = Kitchen { cache, sources: Sources::of_machine()?, freshness, apt: None, monitor };
        let system = kitchen.system()?;
        let toolbox = Toolbox::new(Root::new(system.join("root")));
        let kernel = kitchen.kernel()?;
        let release = read(&kernel.join("release"))?;
        let modules = kitchen.modules(&toolbox, &kernel, &release)?;
        let mut versions = read(&system.join("versions"))? + &read(&kernel.join("versions"))?;
        let mut firmware_root = None;
        if firmware == Firmware::With {
            let entry = kitchen.firmware()?;
            versions += &read(&entry.join("versions"))?;
            firmware_root = Some(Root::new(entry.join("root")));
        }
        let kernel = kernel.join("vmlinuz");
        Ok(Self { toolbox, kernel, release, modules, firmware: firmware_root, versions })
    }

    /// The tools, and the root that the programs of the medium are in.
    #[must_use]
    pub fn toolbox(&self) -> &Toolbox {
        &self.toolbox
    }

    /// The kernel, as Debian signed it.
    #[must_use]
    pub fn kernel(&self) -> &Path {
        &self.kernel
    }

    /// The kernel's release, as `uname -r` prints it.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// One line a package: name, version, architecture.
    #[must_use]
    pub fn versions(&self) -> &str {
        &self.versions
    }

    /// Puts the kernel's modules, and the firmware they ask for, into a tree.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn add_modules(&self, tree: &mut Tree) -> Result<()> {
        let files = files_below(&self.modules)?;
        for file in &files {
            let mode = 0o644;
            if !UNREAD.contains(&file.as_str()) {
                tree.file(
                    &format!("usr/lib/modules/{}/{file}", self.release),
                    mode,
                    self.modules.join(file),
                )?;
            }
        }
        let Some(root) = &self.firmware else { return Ok(()) };
        for name in self.asked_for(&files)? {
            // As the kernel looks for it: by its name, compressed or not.
            for name in [name.clone(), format!("{name}.zst"), format!("{name}.xz")] {
                if let Some(path) = root.resolve(format!("usr/lib/firmware/{name}"))? {
                    tree.file(&format!("usr/lib/firmware/{name}"), 0o644, path)?;
                }
            }
        }
        Ok(())
    }

    /// The names of firmware that the modules may ask for.
    fn asked_for(&self, files: &[String]) -> Result<BTreeSet<String>> {
        let mut modinfo = self.toolbox.command("modinfo")?;
        modinfo.args(["-F", "firmware"]);
        modinfo.args(files.iter().filter(|file| file.contains(".ko")).map(|file| self.modules.join(file)));
        Ok(program::run("modinfo", &mut modinfo)?.lines().map(str::to_owned).collect())
    }
}

/// Makes the entries of the cache.
struct Kitchen<'a> {
    cache: &'a Cache,
    sources: Sources,
    freshness: Freshness,
    apt: Option<Apt>,
    monitor: &'a dyn Monitor,
}

impl Kitchen<'_> {
    /// Programs and tools with all they depend on, in `root`, and their `versions`.
    fn system(&mut self) -> Result<PathBuf> {
        let names = [contents::PACKAGES.as_slice(), &grub::PACKAGES, &TOOLS].concat();
        let recipe = format!("1 {} {names:?}", self.sources.release());
        self.entry("system", &recipe, |kitchen, at| {
            let debs = at.join("debs");
            kitchen.apt()?.fetch_with_dependencies(&names, &debs)?;
            kitchen.monitor.step("unpacking Debian's programs");
            unpack(&debs, at)
        })
    }

    /// The signed kernel of the chosen suite: `vmlinuz`, `release`, `versions`, and all modules in `root`.
    fn kernel(&mut self) -> Result<PathBuf> {
        let suite = self.sources.kernel_suite();
        self.entry("kernel", &format!("1 {suite}"), |kitchen, at| {
            let debs = at.join("debs");
            let name = kitchen.apt()?.newest_kernel(&suite)?;
            kitchen.monitor.step(&format!("fetching {name}"));
            kitchen.apt()?.fetch(&suite, &[&name], &debs)?;
            kitchen.monitor.step("unpacking the kernel");
            unpack(&debs, at)?;
            let release = name.trim_start_matches("linux-image-").to_owned();
            let vmlinuz = at.join("root/boot").join(format!("vmlinuz-{release}"));
            fs::rename(&vmlinuz, at.join("vmlinuz")).context(|| format!("taking {}", vmlinuz.display()))?;
            write(&at.join("release"), &release)
        })
    }

    /// The modules of the list, with depmod's tables. Each is compressed for itself, so that only the few that a machine
    /// needs are ever unpacked; their signatures, inside, stay as they are.
    fn modules(&mut self, toolbox: &Toolbox, kernel: &Path, release: &str) -> Result<PathBuf> {
        let recipe = format!("{RECIPE} {MODULE_LEVEL} {} {}", read(&kernel.join("versions"))?, modules::LIST);
        let folder = |base: &Path| base.join("lib/modules").join(release);
        let entry = self.entry("modules", &recipe, |kitchen, at| {
            kitchen.monitor.step("choosing the kernel's modules");
            let from = kernel.join("root");
            depmod(toolbox, &from, release)?;
            let (from, to) = (folder(&from), folder(at));
            let mut files = Modules::open(&from)?.select(modules::LIST)?;
            let compressed: Vec<_> =
                files.iter().filter(|file| file.ends_with(".xz")).map(|file| to.join(file)).collect();
            files.extend(["modules.builtin", "modules.builtin.modinfo", "modules.order"].map(str::to_owned));
            for file in &files {
                copy(&from.join(file), &to.join(file))?;
            }
            if !compressed.is_empty() {
                let mut xz = toolbox.command("xz")?;
                program::run("xz", xz.args(["-d", "-q"]).args(&compressed))?;
            }
            let plain = files
                .iter()
                .filter(|file| file.contains(".ko"))
                .map(|file| to.join(file.trim_end_matches(".xz")));
            let mut zstd = toolbox.command("zstd")?;
            program::run("zstd", zstd.args(["-q", "--rm", MODULE_LEVEL]).args(plain))?;
            depmod(toolbox, at, release)
        })?;
        Ok(folder(&entry))
    }

    /// Firmware in `root`, and its `versions`.
    fn firmware(&mut self) -> Result<PathBuf> {
        let suite = self.sources.kernel_suite();
        self.entry("firmware", &format!("{RECIPE} {suite} {FIRMWARE:?}"), |kitchen, at| {
            kitchen.monitor.step("fetching firmware");
            let apt = kitchen.apt()?;
            let known = apt.names("firmware-")?;
            let names: Vec<_> = FIRMWARE.into_iter().filter(|name| known.contains(*name)).collect();
            if !names.iter().any(|name| name.starts_with("firmware-bnx2")) {
                return Err(Advice::error(
                    ErrorKind::NotFound,
                    "this machine's Debian mirror has no non-free-firmware",
                    "name a mirror that has it in apt's sources, or build without --firmware",
                ));
            }
            let debs = at.join("debs");
            apt.fetch(&suite, &names, &debs)?;
            unpack(&debs, at)
        })
    }

    fn entry(
        &mut self,
        sort: &str,
        recipe: &str,
        make: impl FnOnce(&mut Self, &Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let (cache, freshness) = (self.cache, self.freshness);
        cache.entry(sort, recipe, freshness, |at| make(self, at))
    }

    /// apt, whose lists are fetched when the first package is wanted.
    fn apt(&mut self) -> Result<&Apt> {
        if self.apt.is_none() {
            self.monitor.step("fetching Debian's packages");
            self.apt = Some(Apt::create(&self.cache.folder("apt")?, &self.sources)?);
        }
        self.apt.as_ref().ok_or_else(|| Error::new(ErrorKind::Io, "no apt"))
    }
}

/// Unpacks packages into `root`, notes their `versions`, and throws them away.
fn unpack(debs: &Path, at: &Path) -> Result<()> {
    packages::unpack(debs, &at.join("root"))?;
    write(&at.join("versions"), &packages::versions(debs)?)?;
    fs::remove_dir_all(debs).context(|| format!("removing {}", debs.display()))
}

fn depmod(toolbox: &Toolbox, base: &Path, release: &str) -> Result<()> {
    let mut depmod = toolbox.command("depmod")?;
    program::run("depmod", depmod.arg("-b").arg(base).arg(release)).map(drop)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::copy(from, to));
    copied.map(drop).context(|| format!("copying {}", from.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(|| format!("reading {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(|| format!("writing {}", path.display()))
}

/// The files below a folder, by path from it, sorted.
fn files_below(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        let reading = || format!("reading {}", next.display());
        for entry in fs::read_dir(&next).context(reading)? {
            let entry = entry.context(reading)?;
            let path = entry.path();
            if entry.file_type().context(reading)?.is_dir() {
                left.push(path);
            } else if let Ok(inside) = path.strip_prefix(folder) {
                files.push(inside.to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}
