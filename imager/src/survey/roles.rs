//! What each volume is for. `data` only when a person says so or the captured system's own fstab does: everything
//! that is not recognised for certain counts as the operating system and is imaged in full.

use super::fstab::{self, FSTAB, Mount};
use super::{Assigned, Survey, Volume};
use imager_disk::table::TableKind;
use imager_image::manifest::{Role, Stack};
use imager_units::Result;
use std::collections::{BTreeMap, BTreeSet};

/// Files that say how a system is put together; kept in the manifest for whoever rebuilds it by hand.
const SYSTEM_FILES: [&str; 5] =
    [FSTAB, "/etc/crypttab", "/etc/hostname", "/etc/os-release", "/etc/mdadm/mdadm.conf"];

/// Partition types the machine boots from: EFI system, BIOS boot, PReP, XBOOTLDR, Microsoft reserved and recovery.
const BOOT_TYPES: [&str; 8] = [
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "21686148-6449-6E6F-744E-656564454649",
    "9E1A2D38-C612-4316-AA26-8B49521E5A8B",
    "BC13C2FF-59E6-4262-A352-B275FD6F7172",
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE",
    "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC",
    "ef",
    "41",
];

/// Why a volume has its role where a person assigned it.
pub(super) const TOLD: &str = "as you said";

/// What fstabs told, by the places of volumes.
#[derive(Default)]
pub(super) struct Told {
    /// Volumes that hold an fstab or are named by one.
    pub(super) known: BTreeSet<usize>,
    /// Volumes that may hold one that could not be read, and why.
    pub(super) unread: BTreeMap<usize, String>,
}

/// Decides the role of every volume.
pub(super) fn assign(survey: &mut Survey, assigned: &Assigned) -> Result<Told> {
    let mut mounts: Vec<Mount> = Vec::new();
    let mut roots = Vec::new();
    let mut told = Told::default();
    for (index, volume) in survey.volumes.iter().enumerate() {
        let bytes = volume.content.as_ref().map_or(&volume.bytes, |content| &content.bytes);
        let kind = volume.mounted().map_or("", |filesystem| filesystem.kind);
        let found = fstab::read_files(kind, bytes, &volume.companions, &SYSTEM_FILES);
        told.unread.extend(found.unread.map(|why| (index, why)));
        for system in found.systems {
            let Some((_, text)) = system.iter().find(|(path, _)| path == FSTAB) else { continue };
            for mount in fstab::parse(text) {
                if !mounts.contains(&mount) {
                    mounts.push(mount);
                }
            }
            roots.push(index);
            survey.files.extend(system);
        }
    }
    // A line that fits two volumes (a clone beside its original) tells nothing about either.
    mounts.retain(|mount| named_by(mount, &survey.volumes) == 1);
    for (index, volume) in survey.volumes.iter_mut().enumerate() {
        let undivided =
            survey.disks.iter().any(|d| d.number == volume.disk && d.table.kind == TableKind::None);
        let alone = undivided && !matches!(volume.stack, Some(Stack::Logical { .. }));
        let at: Vec<_> = mounts.iter().filter(|m| names(m, volume)).map(|m| m.at.as_str()).collect();
        let (role, because) = recognise(volume, alone, roots.contains(&index), &at);
        (volume.role, volume.role_because) = (role, because);
        if !at.is_empty() || roots.contains(&index) {
            told.known.insert(index);
        }
        match at.as_slice() {
            // Beside its root, other subvolumes of the same filesystem.
            at if at.contains(&"/") => volume.name = "/".to_owned(),
            [at] if at.starts_with('/') => volume.name = (*at).to_owned(),
            _ if is_nameless_swap(volume) => volume.name = "swap".to_owned(),
            _ => {}
        }
    }
    for (key, role) in assigned {
        let key = survey.volume(key)?.key.clone();
        for volume in survey.volumes.iter_mut().filter(|v| v.key == key) {
            (volume.role, volume.role_because) = (*role, TOLD.to_owned());
        }
    }
    Ok(told)
}

/// Swap space without a label has no name of its own.
fn is_nameless_swap(volume: &Volume) -> bool {
    volume.role == Role::Swap && volume.name == volume.key
}

fn recognise(volume: &Volume, alone: bool, is_root: bool, at: &[&str]) -> (Role, String) {
    let because = |role, why: &str| (role, why.to_owned());
    let kind = volume.mounted().map(|f| f.kind);
    let type_id = volume.partition.as_ref().map(|p| p.type_id.as_str());
    if let Some(Stack::Physical { .. }) = volume.stack {
        return because(Role::Os, "holds logical volumes");
    }
    if alone {
        return because(Role::Os, "a disk that is one volume is always imaged in full");
    }
    if kind == Some("swap") {
        return because(Role::Swap, "holds a swap signature");
    }
    if type_id.is_some_and(|id| BOOT_TYPES.iter().any(|boot| boot.eq_ignore_ascii_case(id))) {
        return because(Role::Boot, "its partition type");
    }
    if is_root {
        return because(Role::Os, "holds /etc/fstab");
    }
    let mounted = || format!("its system mounts it at {}", at.join(", "));
    if at.is_empty() {
        return because(Role::Os, "not recognised as data");
    }
    if at.iter().any(|at| fstab::is_boot(at)) {
        return (Role::Boot, mounted());
    }
    if at.iter().any(|at| fstab::is_system(at) || !at.starts_with('/')) {
        return (Role::Os, mounted());
    }
    (Role::Data, mounted())
}

/// How many things a line of an fstab names.
fn named_by(mount: &Mount, volumes: &[Volume]) -> usize {
    volumes.iter().filter(|volume| names(mount, volume)).map(Volume::thing).collect::<BTreeSet<_>>().len()
}

/// Whether a line of an fstab names the volume by something that stays the same: UUID, label, partition GUID or name,
/// or the name of a logical volume.
fn names(mount: &Mount, volume: &Volume) -> bool {
    if matches!(volume.stack, Some(Stack::Logical { .. })) && is_node_of(&mount.source, &volume.key) {
        return true;
    }
    let filesystem = volume.mounted();
    let uuid = filesystem.and_then(|f| f.uuid.as_deref());
    let label = filesystem.and_then(|f| f.label.as_deref());
    let part_uuid = volume.partition.as_ref().and_then(|p| p.unique_id.as_deref());
    let part_name = volume.partition.as_ref().and_then(|p| p.name.as_deref());
    let same = |prefixes: [&str; 2], id: Option<&str>, exact: bool| {
        prefixes.iter().any(|prefix| {
            let wanted = mount.source.strip_prefix(prefix).map(|wanted| wanted.trim_matches('"'));
            match (wanted, id) {
                (Some(wanted), Some(id)) if exact => wanted == id,
                (Some(wanted), Some(id)) => wanted.eq_ignore_ascii_case(id),
                _ => false,
            }
        })
    };
    same(["UUID=", "/dev/disk/by-uuid/"], uuid, false)
        || same(["LABEL=", "/dev/disk/by-label/"], label, true)
        || same(["PARTUUID=", "/dev/disk/by-partuuid/"], part_uuid, false)
        || same(["PARTLABEL=", "/dev/disk/by-partlabel/"], part_name, true)
}

/// Whether `source` is a node of the logical volume `key` (`VG/LV`): device-mapper doubles the hyphens in names
/// (lvm(8)).
fn is_node_of(source: &str, key: &str) -> bool {
    let mapped = || {
        let (group, name) = key.split_once('/')?;
        let double = |part: &str| part.replace('-', "--");
        Some(source.strip_prefix("/dev/mapper/")? == format!("{}-{}", double(group), double(name)))
    };
    source.strip_prefix("/dev/") == Some(key) || mapped().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::is_node_of;

    #[test]
    fn a_logical_volume_is_named_by_either_of_its_nodes() {
        assert!(is_node_of("/dev/vg/root", "vg/root") && is_node_of("/dev/mapper/vg-root", "vg/root"));
        assert!(is_node_of("/dev/mapper/my--vg-the--root", "my-vg/the-root"));
        for other in
            ["/dev/mapper/my-vg-the-root", "/dev/vg/root2", "/dev/mapper/vg-roo", "vg/root", "/dev/root"]
        {
            assert!(!is_node_of(other, "my-vg/the-root") && !is_node_of(other, "vg/roo2"), "{other}");
        }
    }
}
