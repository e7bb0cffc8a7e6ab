//! The kernel's part: loaded, attached, and pinned in the kernel's own file system for it, so that it goes on when the
//! process that started it is gone, and any later one finds it.
//!
//! A folder a disk below [`PINS`] has the two attachments, the marks of writes and of discards, what the program was told
//! of its disk, and a few words that live exactly as long as the marks.

use crate::about::{ABOUT_BYTES, About};
use imager_units::{Context, Error, ErrorKind, Result};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, PrintLevel, Program};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::fs;
use std::io::ErrorKind as Os;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// As `build.rs` compiled it.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/journal.bpf.o"));

const BPF_FS: &str = "/sys/fs/bpf";
/// Where the trackers are pinned.
pub(crate) const PINS: &str = "/sys/fs/bpf/halfhour";
/// The two attachments.
const LINKS: [&str; 2] = ["issued", "completed"];

/// At which end of a write it is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Ends {
    /// At both: the only way that loses nothing.
    Both,
    /// When it is handed to the driver alone. Only to show that this loses writes.
    Issue,
    /// The same, and its completion goes unseen. Only to show that this is noticed.
    Unseen,
}

impl Ends {
    pub(crate) const fn bits(self) -> u32 {
        match self {
            Self::Both => 3,
            Self::Issue => 1,
            Self::Unseen => 5,
        }
    }
}

/// A disk's pins.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// Those of the disk of this name.
    pub(crate) fn of(name: &str) -> Self {
        Self { folder: Path::new(PINS).join(name) }
    }

    /// The names of all disks that have some.
    pub(crate) fn names() -> Result<Vec<String>> {
        let entries = match fs::read_dir(PINS) {
            Err(error) if error.kind() == Os::NotFound => return Ok(Vec::new()),
            entries => entries.context(|| format!("reading {PINS}"))?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<_> = names.filter(|name| !name.ends_with(UNFINISHED)).collect();
        names.sort();
        Ok(names)
    }

    /// Whether there are any.
    pub(crate) fn exist(&self) -> bool {
        self.folder.exists()
    }

    /// When they were made.
    pub(crate) fn made(&self) -> Option<SystemTime> {
        self.folder.join("about").metadata().and_then(|metadata| metadata.modified()).ok()
    }

    /// What the program was told; `None` when another version told it.
    pub(crate) fn about(&self) -> Result<Option<About>> {
        let map = self.map("about")?;
        let value =
            map.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).map_err(|e| failed("reading a map", e))?;
        Ok(value.and_then(|bytes| About::parse(&bytes)))
    }

    /// A map.
    pub(crate) fn map(&self, name: &str) -> Result<MapHandle> {
        let path = self.folder.join(name);
        MapHandle::from_pinned_path(&path).map_err(|e| failed(format!("opening {}", path.display()), e))
    }

    /// The programs, to be asked what they missed.
    pub(crate) fn programs(&self) -> Result<[OwnedFd; 2]> {
        let open = |name: &str| {
            let path = self.folder.join(name);
            let link = Link::open(&path).and_then(|link| link.info());
            link.and_then(|info| Program::fd_from_id(info.prog_id))
                .map_err(|e| failed(format!("opening {}", path.display()), e))
        };
        Ok([open(LINKS[0])?, open(LINKS[1])?])
    }

    /// Loads and attaches the program for a disk and pins it, in the place of one that was there: that goes last.
    pub(crate) fn load(&self, about: &About) -> Result<()> {
        mount_file_system()?;
        let new = Self { folder: self.folder.with_file_name(format!("{}{UNFINISHED}", self.name())) };
        new.remove()?;
        fs::create_dir_all(&new.folder).context(|| format!("making {}", new.folder.display()))?;
        let made = load(about).and_then(|mut object| new.pin(&mut object));
        if let Err(error) = made {
            drop(new.remove());
            return Err(error);
        }
        self.remove()?;
        fs::rename(&new.folder, &self.folder).context(|| format!("pinning {}", self.folder.display()))
    }

    fn pin(&self, object: &mut Object) -> Result<()> {
        for mut map in object.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            // What C has for variables are maps of the names of its sections.
            let name = match name.rsplit('.').next() {
                Some("rodata") => "about",
                Some("bss") => "state",
                _ => &name,
            };
            map.pin(self.folder.join(name)).map_err(|e| failed(format!("pinning {name}"), e))?;
        }
        for program in object.progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            let mut link = program.attach().map_err(|e| failed(format!("attaching {name}"), e))?;
            link.pin(self.folder.join(&name)).map_err(|e| failed(format!("pinning {name}"), e))?;
        }
        Ok(())
    }

    /// Takes all of it away: nothing is marked any more.
    pub(crate) fn remove(&self) -> Result<()> {
        let say = || format!("removing {}", self.folder.display());
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == Os::NotFound => return Ok(()),
            entries => entries.context(say)?,
        };
        for entry in entries {
            fs::remove_file(entry.context(say)?.path()).context(say)?;
        }
        fs::remove_dir(&self.folder).context(say)
    }

    fn name(&self) -> String {
        self.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// What ends the name of pins that are being made.
const UNFINISHED: &str = "-unfinished";

/// Which program this is: what another one keeps with its marks may mean something else.
pub(crate) fn version() -> u64 {
    blake3::hash(PROGRAM).as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The program in the kernel, told which disk to follow.
fn load(about: &About) -> Result<Object> {
    libbpf_rs::set_print(Some((PrintLevel::Info, |_, said| tracing::debug!("libbpf: {}", said.trim_end()))));
    let say = |what: &str| format!("{what} the program that marks writes");
    let mut builder = ObjectBuilder::default();
    let opened = builder.name("journal").and_then(|builder| builder.open_memory(PROGRAM));
    let mut object = opened.map_err(|e| failed(say("opening"), e))?;
    let words = u32::try_from(about.levels.words()).unwrap_or(u32::MAX);
    for mut map in object.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if name.ends_with(".rodata") {
            let value = map.initial_value_mut().filter(|value| value.len() == ABOUT_BYTES);
            let value = value.ok_or_else(|| Error::corrupt("the program is not of this version"))?;
            value.copy_from_slice(&about.to_bytes());
        } else if !name.ends_with(".bss") {
            map.set_max_entries(words).map_err(|e| failed(say("sizing"), e))?;
        }
    }
    object.load().map_err(|e| failed(say("loading"), e))
}

/// As systemd does at the start of a machine.
fn mount_file_system() -> Result<()> {
    let kind = statfs(BPF_FS).map(|found| found.filesystem_type());
    if kind == Ok(BPF_FS_MAGIC) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mounted = mount(Some("bpf"), BPF_FS, Some("bpf"), flags, Some("mode=700"));
    mounted.map_err(std::io::Error::from).context(|| format!("mounting {BPF_FS}"))
}

fn failed(what: impl Into<String>, error: libbpf_rs::Error) -> Error {
    let kind = match error.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => ErrorKind::Denied,
        libbpf_rs::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Io,
    };
    Error::with_source(kind, what, error)
}
