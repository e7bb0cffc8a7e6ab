//! Finding the disks of this machine, and what each is: the kernel says which and who uses them, `imager inspect` what
//! is on them. A disk on which nothing can be seen is a disk still: it may be what has to be restored.

use crate::child::{self, Stop};
use crate::disk::Disk;
use crate::documents::inspected::Inspected;
use crate::effect::News;
use crate::order::Order;
use imager_disk::{Access, Device, ReadAt, System};
use imager_units::{ByteOffset, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Memory that looks like a disk, drives for other media, and what lies on other disks.
const NOT_DISKS: [&str; 5] = ["ram", "zram", "fd", "sr", "dm-"];

/// Where the descriptor of an ISO 9660 filesystem is (ECMA-119, 8.4): after 16 sectors of 2048 bytes.
const ISO_DESCRIPTOR: ByteOffset = ByteOffset::new(16 * 2048);

/// The disks that the kernel knows.
pub(crate) fn paths() -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir("/sys/block")
        .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    names.retain(|name: &String| {
        let read = |attribute: &str| {
            fs::read_to_string(format!("/sys/block/{name}/{attribute}")).unwrap_or_default()
        };
        let is_other = NOT_DISKS.iter().any(|kind| name.starts_with(kind));
        !is_other && !matches!(read("size").trim(), "" | "0") && read("hidden").trim() != "1"
    });
    names.sort();
    names.into_iter().map(|name| Path::new("/dev").join(name.replace('!', "/"))).collect()
}

/// Looks at disks, one by one, telling how many were looked at.
pub(crate) fn look(
    paths: &[PathBuf],
    imager: &Path,
    repository: Option<&Path>,
    stop: &Stop,
    tell: &dyn Fn(News),
) -> Vec<Disk> {
    let mut disks = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        if stop.is_asked() {
            break;
        }
        tell(News::Looked(index, paths.len()));
        match identify(path, repository) {
            Ok(mut disk) => {
                disk.content = inspect(&disk.path, imager, stop);
                disks.push(disk);
            }
            Err(error) => disks.push(unknown(path, chain(&error))),
        }
    }
    disks
}

fn identify(path: &Path, repository: Option<&Path>) -> Result<Disk> {
    let device = Device::open(path, Access::Read, None)?;
    let system = System::new();
    let identity = system.identity(&device)?;
    let uses = system.uses(&device)?;
    let geometry = device.geometry();
    Ok(Disk {
        path: identity.path.display().to_string(),
        model: identity.model,
        serial: identity.serial,
        wwn: identity.wwn,
        size: geometry.size.get(),
        sector: geometry.logical.get().into(),
        is_block: device.is_block(),
        uses: uses.iter().map(ToString::to_string).collect(),
        is_medium: is_medium(&device),
        holds_repository: repository
            .is_some_and(|repository| holds(&system, &device, &identity.path, repository)),
        content: Ok(Inspected::default()),
    })
}

/// Whether the repository's folder lies on a disk; when that cannot be found out, the plan will.
fn holds(system: &System, device: &Device, path: &Path, repository: &Path) -> bool {
    let under = system.backs_path(repository).unwrap_or_default();
    let partitions = device.number().and_then(|number| system.partitions(number).ok()).unwrap_or_default();
    let ours = device.number().into_iter().chain(partitions.iter().map(|partition| partition.device));
    ours.into_iter().any(|number| under.contains(&number))
        || repository.canonicalize().is_ok_and(|repository| path.starts_with(repository))
}

/// Whether it is our own medium: an ISO 9660 filesystem of our name.
fn is_medium(device: &Device) -> bool {
    let mut descriptor = [0; 2048];
    let fits = device.geometry().size.get() >= ISO_DESCRIPTOR.get().saturating_add(2048);
    if !fits || device.read_exact_at(ISO_DESCRIPTOR, &mut descriptor).is_err() {
        return false;
    }
    is_our_descriptor(&descriptor)
}

/// Whether a primary volume descriptor (ECMA-119, 8.4) is that of a rescue medium.
fn is_our_descriptor(descriptor: &[u8]) -> bool {
    descriptor.get(1..6) == Some(b"CD001".as_slice())
        && descriptor.get(40..72).is_some_and(|label| label.starts_with(b"HALFHOUR"))
}

fn inspect(path: &str, imager: &Path, stop: &Stop) -> std::result::Result<Inspected, String> {
    let ended = child::run(imager, &Order::look("", &["inspect", path], None), stop);
    ended.result().map(Inspected::read).map_err(|failure| failure.message)
}

fn unknown(path: &Path, why: String) -> Disk {
    Disk {
        path: path.display().to_string(),
        model: "unknown".to_owned(),
        serial: None,
        wwn: None,
        size: 0,
        sector: 0,
        is_block: true,
        uses: Vec::new(),
        is_medium: false,
        holds_repository: false,
        content: Err(why),
    }
}

fn chain(error: &imager_units::Error) -> String {
    let mut said = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        said = format!("{said}: {error}");
        next = error.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::is_our_descriptor;

    #[test]
    fn our_own_medium_is_known_by_its_label() {
        let mut descriptor = [b' '; 2048];
        descriptor[1..6].copy_from_slice(b"CD001");
        assert!(!is_our_descriptor(&descriptor));
        descriptor[40..55].copy_from_slice(b"HALFHOUR_RESCUE");
        assert!(is_our_descriptor(&descriptor));
        descriptor[1] = 0;
        assert!(!is_our_descriptor(&descriptor) && !is_our_descriptor(&[]));
    }
}
