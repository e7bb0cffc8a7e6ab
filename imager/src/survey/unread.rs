//! Where no fstab could be read, nothing tells data from the operating system, and a person must hear of it: a default
//! restore would put old data over newer.

use super::fstab::FSTAB;
use super::roles::Told;
use super::{Survey, Volume};
use imager_image::manifest::{Role, Stack};
use std::collections::HashSet;

/// How the warning begins; a plan of a restore finds it in the manifest by that.
pub const NO_FSTAB: &str = "no /etc/fstab";

/// What a Unix system may have its root on, or what may hold such a filesystem.
const MAY_HOLD_A_SYSTEM: [&str; 17] = [
    "LVM2_member",
    "bcache",
    "bcachefs",
    "btrfs",
    "crypto_LUKS",
    "ddf_raid_member",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "isw_raid_member",
    "jfs",
    "linux_raid_member",
    "nilfs2",
    "reiserfs",
    "xfs",
    "zfs_member",
];

/// The warning, where volumes count as the operating system only because nothing says otherwise: several of them and no
/// fstab at all, and one may hold a system whose fstab would have said; or beside an fstab that was read, whatever may
/// hold another system and is not named.
pub(super) fn warning(survey: &Survey, told: &Told) -> Option<String> {
    let counts = |v: &Volume| v.role == Role::Os && !matches!(v.stack, Some(Stack::Physical { .. }));
    let untold = survey.volumes.iter().enumerate().filter(|(_, v)| counts(v) && !v.is_told());
    let untold: Vec<_> = untold.filter(|(place, _)| !told.known.contains(place)).collect();
    let may_hold = |v: &Volume| v.mounted().is_some_and(|f| MAY_HOLD_A_SYSTEM.contains(&f.kind));
    let reasons = reasons(survey, told);
    if survey.files.contains_key(FSTAB) {
        let keys: Vec<_> = untold.iter().filter(|(_, v)| may_hold(v)).map(|(_, v)| v.key.as_str()).collect();
        return beside_another(&keys).map(|said| said + &reasons);
    }
    let things: HashSet<_> = untold.iter().map(|(_, volume)| volume.thing()).collect();
    if things.len() < 2 || !untold.iter().any(|(_, v)| may_hold(v)) {
        return None;
    }
    let keys: Vec<_> = untold.iter().map(|(_, volume)| volume.key.as_str()).collect();
    Some(format!(
        "{NO_FSTAB} could be read: volumes {} all count as the operating system, and a default restore overwrites \
         them; for each that holds data, capture with --role KEY=data{reasons}",
        list(&keys)
    ))
}

fn beside_another(keys: &[&str]) -> Option<String> {
    match keys {
        [] => None,
        [key] => Some(format!(
            "{NO_FSTAB} that could be read names volume {key}: it counts as the operating system, and a default restore \
             overwrites it; if it holds data, capture with --role {key}=data"
        )),
        keys => Some(format!(
            "{NO_FSTAB} that could be read names volumes {}: they count as the operating system, and a default restore \
             overwrites them; for each that holds data, capture with --role KEY=data",
            list(keys)
        )),
    }
}

/// Why files could not be read, volume by volume.
fn reasons(survey: &Survey, told: &Told) -> String {
    let reason = |(place, why): (&usize, &String)| {
        survey
            .volumes
            .get(*place)
            .map(|volume| format!("; volume {} cannot be looked into: {why}", volume.key))
    };
    told.unread.iter().filter_map(reason).collect()
}

fn list(keys: &[&str]) -> String {
    match keys.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => keys.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Assigned, Source, survey};
    use imager_disk::identity::DiskIdentity;
    use imager_disk::{MemoryDisk, ReadAt, WriteAt};
    use imager_image::manifest::Role;
    use imager_units::{ByteLen, ByteOffset, SectorSize};
    use std::sync::Arc;

    /// What is said of a disk with partitions of 1 MiB, each of which begins with these bytes.
    fn warned(heads: &[&[u8]], assigned: &[(&str, Role)]) -> Vec<String> {
        let disk = MemoryDisk::new(ByteLen::new(6 << 20), SectorSize::B512);
        let mut mbr = vec![0; 512];
        mbr[510..].copy_from_slice(&[0x55, 0xAA]);
        for (entry, head) in heads.iter().enumerate() {
            let (at, start) = (446 + 16 * entry, 2048 * (u32::try_from(entry).unwrap() + 1));
            mbr[at + 4] = 0x83;
            mbr[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            mbr[at + 12..at + 16].copy_from_slice(&2048_u32.to_le_bytes());
            disk.write_all_at(ByteOffset::new(u64::from(start) * 512), head).unwrap();
        }
        disk.write_all_at(ByteOffset::ZERO, &mbr).unwrap();
        let identity = DiskIdentity {
            path: "/dev/memory".into(),
            model: "memory".to_owned(),
            serial: None,
            wwn: None,
            size: disk.geometry().size,
            kernel_name: None,
        };
        let assigned: Assigned = assigned.iter().map(|(key, role)| ((*key).to_owned(), *role)).collect();
        let seen = survey(vec![(1, Source { device: Arc::new(disk), identity })], &assigned).unwrap();
        seen.warnings.into_iter().filter(|warning| warning.starts_with(super::NO_FSTAB)).collect()
    }

    #[test]
    fn volumes_that_nothing_tells_from_the_system_are_named_with_the_way_out() {
        let said = warned(&[b"XFSB", b"XFSB", b"raw"], &[]);
        assert_eq!(
            said,
            [
                "no /etc/fstab could be read: volumes 1, 2 and 3 all count as the operating system, and a default \
              restore overwrites them; for each that holds data, capture with --role KEY=data; volume 1 cannot be \
              looked into: version 0 of the format is not known; volume 2 cannot be looked into: version 0 of the format \
              is not known"
            ]
        );
        let said = warned(&[b"LUKS\xBA\xBE\0\x01", b"XFSB", b"raw"], &[("3", Role::Data)]);
        assert!(said.len() == 1 && said[0].contains("volumes 1 and 2 all"), "{said:?}");
    }

    #[test]
    fn nothing_is_said_where_nothing_is_left_to_tell() {
        assert!(warned(&[b"XFSB"], &[]).is_empty(), "the only volume is what it is");
        assert!(warned(&[b"raw", b"raw"], &[]).is_empty(), "no system that has an fstab");
        assert!(warned(&[b"XFSB", b"XFSB"], &[("2", Role::Data)]).is_empty());
        assert!(warned(&[b"XFSB", b"XFSB"], &[("1", Role::Os), ("2", Role::Os)]).is_empty());
    }
}
