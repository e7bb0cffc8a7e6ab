//! Looking at a volume's tree without changing anything on it.
//!
//! Where its filesystem is mounted, through one mount more, read-only and without times of access, of the whole
//! filesystem: what is mounted over its folders is not in it. A folder of the filesystem is held open meanwhile, so that
//! it is not unmounted by others and mounted by us. Where it is not mounted, by a read-only mount that leaves its log alone, on a
//! read-only loop device.

use super::mount::{self, Mount};
use crate::survey::{Survey, Volume};
use imager_disk::{Access, Device, DeviceNumber, LoopDevice, System, Writing};
use imager_image::manifest::Stack;
use imager_units::{Context, Error, ErrorKind, Extent, Result};
use imager_volume::skeleton::Recipe;
use rustix::fd::BorrowedFd;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A look at a volume.
pub(super) struct Look {
    mount: Mount,
    /// The number of the device that it is mounted from elsewhere.
    number: Option<DeviceNumber>,
    /// The number of the subvolume that is mounted when none is named.
    default: Option<u64>,
    _held: Held,
}

/// What must not go while we look.
enum Held {
    Folder { _open: File },
    Device { _loop: Attached, _claim: Option<Box<Device>> },
}

/// A loop device that Btrfs must not remember when it is gone.
pub(super) struct Attached {
    device: LoopDevice,
    is_known: bool,
}

impl Attached {
    pub(super) fn new(device: LoopDevice, kind: &str) -> Self {
        Self { device, is_known: kind == "btrfs" }
    }

    pub(super) fn path(&self) -> &Path {
        self.device.path()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.is_known
            && let Err(error) = imager_disk::subvolume::forget(self.device.path())
        {
            tracing::debug!("{}: {error}", self.device.path().display());
        }
    }
}

impl Look {
    /// The root of its tree.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.mount.root()
    }

    /// The number of the subvolume that is mounted when none is named, where there are such things.
    pub(super) fn default(&self) -> Option<u64> {
        self.default
    }

    /// Whether it is mounted elsewhere.
    pub(super) fn is_live(&self) -> bool {
        self.number.is_some()
    }

    /// Whether a folder lies on it.
    pub(super) fn is_under(&self, folder: &Path) -> bool {
        let Some(number) = self.number else { return false };
        System::new().backs_path(folder).is_ok_and(|below| below.contains(&number))
    }
}

/// A volume's node, where it has one.
struct Node {
    path: PathBuf,
    number: DeviceNumber,
}

/// Looks at a volume.
///
/// # Errors
/// `Denied` when it is in use where we cannot see it, or we may not mount; `Unsupported` when the kernel cannot; `Io`.
pub(super) fn look(survey: &Survey, volume: &Volume, recipe: &Recipe) -> Result<Look> {
    let system = System::new();
    let node = node(&system, survey, volume)?;
    let all = system.filesystems()?;
    let mounted = node.as_ref().and_then(|node| {
        all.iter().find(|filesystem| filesystem.devices.contains(&node.number)).map(|found| (node, found))
    });
    let Some((node, filesystem)) = mounted else { return unmounted(survey, volume, recipe, node) };
    for (id, at) in &filesystem.mounts {
        let Ok(folder) = File::options().read(true).custom_flags(nix::libc::O_PATH).open(at) else {
            continue;
        };
        if mount_of(&folder) != Some(*id) {
            // Something is mounted over it.
            continue;
        }
        let options = if filesystem.read_only { vec!["ro"] } else { Vec::new() };
        let (mount, default) = mounts(&filesystem.kind, &node.path, options, recipe)?;
        return Ok(Look { mount, number: Some(node.number), default, _held: Held::Folder { _open: folder } });
    }
    Err(Error::new(ErrorKind::Denied, "it is mounted only where other mounts hide it"))
}

/// The kernel's number of the mount that an open folder is in (proc(5), `fdinfo`).
fn mount_of(folder: &File) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", folder.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

/// All of a filesystem, and the number of the subvolume that is mounted when none is named.
fn mounts(
    kind: &str,
    device: &Path,
    mut options: Vec<&str>,
    recipe: &Recipe,
) -> Result<(Mount, Option<u64>)> {
    if recipe.look_all.is_empty() {
        return Ok((Mount::new(kind, device, &options, mount::Access::Look)?, None));
    }
    let by_default = Mount::new(kind, device, &options, mount::Access::Look)?;
    let default = imager_disk::subvolume::number_of(by_default.open_root()?)?;
    options.extend(recipe.look_all);
    Ok((Mount::new(kind, device, &options, mount::Access::Look)?, default))
}

fn unmounted(survey: &Survey, volume: &Volume, recipe: &Recipe, node: Option<Node>) -> Result<Look> {
    let disk = survey.disks.iter().find(|disk| disk.number == volume.disk);
    let disk = disk.ok_or_else(|| Error::new(ErrorKind::NotFound, "its disk is not there"))?;
    let (path, part) = match (&node, volume.pieces.as_slice()) {
        (Some(node), _) => (node.path.as_path(), Extent::first(volume.size())),
        (None, [piece]) => (disk.identity.path.as_path(), piece.extent),
        (None, _) => {
            let what = "it lies in pieces, and the kernel has no device for it: activate its volume group";
            return Err(Error::unsupported(what));
        }
    };
    let claim = node.as_ref().map(|node| claim(&node.path)).transpose()?;
    let file = File::open(path).context(|| format!("opening {}", path.display()))?;
    let sector = volume.bytes.geometry().logical;
    let device = Attached::new(LoopDevice::new(&file, part, sector, Writing::No)?, recipe.kind);
    let options = std::iter::once("ro").chain(recipe.look.iter().copied()).collect();
    let (mount, default) = mounts(recipe.kind, device.path(), options, recipe)?;
    Ok(Look {
        mount,
        number: None,
        default,
        _held: Held::Device { _loop: device, _claim: claim.map(Box::new) },
    })
}

/// Keeps others from beginning to use a device, and forgets what the kernel remembers of it.
fn claim(path: &Path) -> Result<Device> {
    let device = Device::open(path, Access::ReadClaimed, None)
        .context(|| "it is in use, though not mounted where this process sees it".to_owned())?;
    device.drop_cache(imager_disk::ReadAt::geometry(&device).extent());
    Ok(device)
}

fn node(system: &System, survey: &Survey, volume: &Volume) -> Result<Option<Node>> {
    let at = |path: PathBuf| DeviceNumber::of_node(&path).map(|number| Node { path, number });
    if let Some(Stack::Logical { .. }) = volume.stack {
        return Ok(at(Path::new("/dev").join(&volume.key)));
    }
    let disk = survey.disks.iter().find(|disk| disk.number == volume.disk);
    let Some(disk) = disk.and_then(|disk| at(disk.identity.path.clone())) else { return Ok(None) };
    if volume.partition.is_none() {
        return Ok(Some(disk));
    }
    let partitions = system.partitions(disk.number)?;
    let own = partitions.into_iter().find(|partition| partition.extent == volume.extent);
    Ok(own.and_then(|own| at(own.path)))
}
