//! Where no fstab could be read, nothing tells data from the operating system, and a person must hear of it: a default
//! restore would put old data over newer.

use super::{Survey, Volume};
use imager_image::manifest::{Role, Stack};
use std::collections::HashSet;

/// How the warning begins; a plan of a restore finds it in the manifest by that.
pub const NO_FSTAB: &str = "no /etc/fstab could be read";

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

/// The warning, where several volumes count as the operating system only because nothing says otherwise, and one of
/// them may hold a system whose fstab would have.
pub(super) fn warning(survey: &Survey) -> Option<String> {
    let counts = |v: &&Volume| v.role == Role::Os && !matches!(v.stack, Some(Stack::Physical { .. }));
    let untold: Vec<_> = survey.volumes.iter().filter(counts).filter(|v| !v.is_told()).collect();
    let may_hold = |volume: &&Volume| volume.mounted().is_some_and(|f| MAY_HOLD_A_SYSTEM.contains(&f.kind));
    let things: HashSet<_> = untold.iter().map(|volume| thing(volume)).collect();
    if survey.files.contains_key("/etc/fstab") || things.len() < 2 || !untold.iter().any(may_hold) {
        return None;
    }
    let keys: Vec<_> = untold.iter().map(|volume| volume.key.as_str()).collect();
    let (last, others) = keys.split_last()?;
    Some(format!(
        "{NO_FSTAB}: volumes {} and {last} all count as the operating system, and a default restore overwrites them; \
         for each that holds data, capture with --role KEY=data",
        others.join(", ")
    ))
}

/// What a volume is a part of: the devices of one filesystem, and the members of one array, are one thing to tell.
fn thing(volume: &Volume) -> &str {
    match &volume.stack {
        Some(Stack::Member { array, .. }) => array,
        _ if volume.companions.is_empty() => &volume.key,
        _ => volume.mounted().and_then(|f| f.uuid.as_deref()).unwrap_or(&volume.key),
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
              restore overwrites them; for each that holds data, capture with --role KEY=data"
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
