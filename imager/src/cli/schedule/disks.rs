//! Which disks a schedule captures, by names that still mean the same disk after a restart.

use crate::cli::failure::Failure;
use imager_disk::{Access, Device, System};
use imager_units::{Context, Result};
use std::path::{Path, PathBuf};

/// A disk of the schedule.
pub(super) struct Chosen {
    /// What the schedule calls it.
    pub(super) name: String,
    /// Where it is now.
    pub(super) path: PathBuf,
    /// Whether it is a block device.
    pub(super) is_block: bool,
    /// Who may write to it while it is read.
    pub(super) users: Vec<String>,
}

/// The disks that a person named, or all fixed disks but those that hold the repository.
pub(super) fn choose(
    named: &[String],
    repository: Option<&Path>,
) -> std::result::Result<Vec<Chosen>, Failure> {
    let system = System::new();
    let named = if named.is_empty() { fixed(&system, repository)? } else { named.to_vec() };
    if named.is_empty() {
        return Err(Failure::usage("which disks? This machine shows none of its own: say --disk DISK"));
    }
    Ok(named.iter().map(|name| look(&system, name)).collect::<Result<_>>()?)
}

fn look(system: &System, name: &str) -> Result<Chosen> {
    let path = system.find(name)?;
    let device = Device::open(&path, Access::Read, None)?;
    let uses = system.uses(&device)?;
    Ok(Chosen {
        name: lasting(system, name, &device)?,
        is_block: device.is_block(),
        users: uses.iter().filter(|one| one.writes()).map(ToString::to_string).collect(),
        path,
    })
}

/// A name by which the disk is found after a restart: what the kernel calls it may be another's then.
fn lasting(system: &System, name: &str, device: &Device) -> Result<String> {
    let is_kernels = Path::new(name).parent() == Some(Path::new("/dev"));
    if device.is_block() && is_kernels {
        let identity = system.identity(device)?;
        let serial = identity.serial.map(|serial| format!("serial:{serial}"));
        let wwn = identity.wwn.map(|wwn| format!("wwn:{wwn}"));
        let is_it = |name: &String| system.find(name).is_ok_and(|found| found == identity.path);
        return Ok([serial, wwn].into_iter().flatten().find(is_it).unwrap_or_else(|| name.to_owned()));
    }
    if name.contains(':') && !Path::new(name).exists() {
        return Ok(name.to_owned());
    }
    // Links such as those of /dev/disk/by-id stay as they are.
    let path = std::path::absolute(name).context(|| format!("resolving {name}"))?;
    Ok(path.display().to_string())
}

pub(super) fn fixed(system: &System, repository: Option<&Path>) -> Result<Vec<String>> {
    let under_repository = repository.and_then(|path| system.backs_path(path).ok()).unwrap_or_default();
    let say = || "listing the disks of this machine".to_owned();
    let mut disks = Vec::new();
    for entry in std::fs::read_dir("/sys/block").context(say)? {
        let folder = entry.context(say)?.path();
        let is = |attribute: &str, value: &str| {
            std::fs::read_to_string(folder.join(attribute)).is_ok_and(|text| text.trim() == value)
        };
        let is_fixed =
            folder.join("device").exists() && is("removable", "0") && is("ro", "0") && !is("size", "0");
        let name =
            folder.file_name().map(|name| name.to_string_lossy().replace('!', "/")).unwrap_or_default();
        let path = format!("/dev/{name}");
        if is_fixed && let Ok(device) = Device::open(Path::new(&path), Access::Read, None) {
            let holds = device.number().is_some_and(|number| under_repository.contains(&number));
            disks.extend((!holds).then_some(path));
        }
    }
    disks.sort();
    Ok(disks)
}
