//! Which filesystem is on a volume, and its map.
//!
//! The rule is libblkid's (`blkid_do_safeprobe`): a container's signature wins, for whatever else is found lies inside
//! it; of filesystems there must be exactly one. Two are a left-over under a newer one, and which is which cannot be
//! told, so the volume is copied whole.

use crate::btrfs::Btrfs;
use crate::exfat::Exfat;
use crate::ext::Ext;
use crate::f2fs::F2fs;
use crate::fat::Fat;
use crate::md::{self, Md};
use crate::ntfs::Ntfs;
use crate::other;
use crate::swap::Swap;
use crate::xfs::Xfs;
use crate::{Filesystem, Member, State, UsedBlocks, UsedMap};
use imager_disk::ReadAt;
use imager_units::{ErrorKind, Result};
use std::error::Error;

/// The filesystems whose maps we read.
static READERS: [&dyn UsedBlocks; 8] = [&Btrfs, &Exfat, &Ext, &F2fs, &Fat, &Ntfs, &Swap, &Xfs];

struct Candidate {
    filesystem: Filesystem,
    reader: Option<&'static dyn UsedBlocks>,
}

/// What is on the volume; `None` when nothing is recognised. Where several filesystems are, the kind is `ambiguous`
/// and the head is all of theirs.
///
/// # Errors
/// `Io` when the volume cannot be read.
pub fn probe(volume: &dyn ReadAt) -> Result<Option<Filesystem>> {
    let mut found = candidates(volume)?;
    if found.len() < 2 {
        return Ok(found.pop().map(|candidate| candidate.filesystem));
    }
    let head = found.iter().flat_map(|candidate| candidate.filesystem.head.iter()).collect();
    let geometry = volume.geometry();
    Ok(Some(Filesystem {
        kind: "ambiguous",
        uuid: None,
        label: None,
        block: geometry.logical.as_len(),
        size: geometry.size,
        state: State::Unknown,
        head,
    }))
}

/// The bytes of the volume that count: its filesystem's map, or all of it with the reason why.
///
/// # Errors
/// `Io` when the volume cannot be read.
pub fn used(volume: &dyn ReadAt) -> Result<UsedMap> {
    used_with(volume, &[])
}

/// Which part of a filesystem that lies on several volumes this one is; `None` where it is no such part.
///
/// # Errors
/// `Io` when the volume cannot be read.
pub fn member(volume: &dyn ReadAt) -> Result<Option<Member>> {
    match candidates(volume)?.as_slice() {
        [Candidate { reader: Some(reader), .. }] => reader.member(volume),
        _ => Ok(None),
    }
}

/// As [`used`], of a volume whose filesystem lies on `others` as well: all that say they are of one [`Member::set`].
///
/// # Errors
/// `Io` when one of the volumes cannot be read.
pub fn used_with(volume: &dyn ReadAt, others: &[&dyn ReadAt]) -> Result<UsedMap> {
    decide(volume, others, &candidates(volume)?)
}

/// As [`used`], of what lies in a container: a container in it is not looked into.
pub(crate) fn used_by_filesystem(volume: &dyn ReadAt) -> Result<UsedMap> {
    match other::container(volume)? {
        Some(found) => {
            let reason = format!("{}: its used map is not read", found.kind);
            Ok(UsedMap::whole(volume.geometry().size, reason))
        }
        None => decide(volume, &[], &on(volume)?),
    }
}

fn decide(volume: &dyn ReadAt, others: &[&dyn ReadAt], found: &[Candidate]) -> Result<UsedMap> {
    let reason = match found {
        [] => "no filesystem recognised".to_owned(),
        [Candidate { filesystem, reader: None }] if filesystem.kind == "crypto_LUKS" => {
            format!(
                "{}: nobody can tell what is used in it without its key, so all of its {} are stored, and hardly get \
                 smaller; its open mapping can be captured instead",
                filesystem.kind,
                volume.geometry().size
            )
        }
        [Candidate { filesystem, reader: None }] => format!("{}: its used map is not read", filesystem.kind),
        [Candidate { filesystem, reader: Some(reader) }] => match reader.used_with(volume, others) {
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                format!("{}: {}", filesystem.kind, chain(&error))
            }
            other => return other,
        },
        several => {
            let kinds: Vec<_> = several.iter().map(|candidate| candidate.filesystem.kind).collect();
            format!("recognised as {} at once", kinds.join(" and "))
        }
    };
    Ok(UsedMap::whole(volume.geometry().size, reason))
}

fn candidates(volume: &dyn ReadAt) -> Result<Vec<Candidate>> {
    match other::container(volume)? {
        Some(found) if found.kind == md::KIND => {
            let member = Md.probe(volume)?.unwrap_or(found);
            Ok(vec![Candidate { filesystem: member, reader: Some(&Md) }])
        }
        Some(filesystem) => Ok(vec![Candidate { filesystem, reader: None }]),
        None => on(volume),
    }
}

/// What is recognised on a volume that is no container.
pub(crate) fn filesystems(volume: &dyn ReadAt) -> Result<Vec<Filesystem>> {
    Ok(on(volume)?.into_iter().map(|candidate| candidate.filesystem).collect())
}

fn on(volume: &dyn ReadAt) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for reader in READERS {
        found.extend(reader.probe(volume)?.map(|filesystem| Candidate { filesystem, reader: Some(reader) }));
    }
    let named = other::filesystems(volume)?;
    found.extend(named.into_iter().map(|filesystem| Candidate { filesystem, reader: None }));
    Ok(found)
}

/// An error with its causes in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{probe, used};
    use crate::Certainty;
    use imager_disk::MemoryDisk;
    use imager_units::SectorSize;

    const SIZE: usize = 1 << 20;
    /// Bytes at places of an otherwise empty volume.
    type Places<'a> = &'a [(usize, &'a [u8])];

    fn volume(places: Places<'_>) -> MemoryDisk {
        let mut bytes = vec![0; SIZE];
        for &(at, value) in places {
            bytes[at..at + value.len()].copy_from_slice(value);
        }
        MemoryDisk::from_bytes(&bytes, SectorSize::B512)
    }

    fn reason(volume: &MemoryDisk) -> String {
        match used(volume).unwrap().certainty {
            Certainty::Whole(reason) => reason,
            Certainty::Exact => panic!("a map of an unknown filesystem"),
        }
    }

    #[test]
    fn nothing_is_copied_whole() {
        let volume = volume(&[]);
        assert_eq!(probe(&volume).unwrap(), None);
        assert_eq!(reason(&volume), "no filesystem recognised");
        assert_eq!(used(&volume).unwrap().extents.total().get(), SIZE as u64);
    }

    #[test]
    fn names_are_blkids() {
        let uberblock: &[u8] = &0x00BA_B10C_u64.to_be_bytes();
        let uberblocks = [128, 129, 130, 131].map(|kib| (kib * 1024, uberblock));
        let end = |back| SIZE - back;
        let cases: [(&str, Places<'_>); 22] = [
            ("xfs", &[(0, b"XFSB")]),
            ("btrfs", &[(65_600, b"_BHRfS_M")]),
            ("ntfs", &[(3, b"NTFS    ")]),
            ("ReFS", &[(3, b"ReFS")]),
            ("hfsplus", &[(1024, b"H+\0\x04")]),
            ("apfs", &[(32, b"NXSB")]),
            ("iso9660", &[(32_769, b"CD001")]),
            ("squashfs", &[(0, b"hsqs"), (28, &[4])]),
            ("erofs", &[(1024, &[0xE2, 0xE1, 0xF5, 0xE0])]),
            ("jfs", &[(32_768, b"JFS1")]),
            ("reiserfs", &[(65_588, b"ReIsEr2Fs")]),
            ("nilfs2", &[(1024, &[2]), (1030, &[0x34, 0x34, 0x00, 0x04])]),
            ("LVM2_member", &[(512, b"LABELONE"), (536, b"LVM2 001")]),
            ("crypto_LUKS", &[(0, b"LUKS\xBA\xBE\0\x02")]),
            ("BitLocker", &[(3, b"-FVE-FS-")]),
            ("bcache", &[(4120, crate::other::BCACHE_MAGIC)]),
            ("zfs_member", &uberblocks),
            ("linux_raid_member", &[(4096, &[0xFC, 0x4E, 0x2B, 0xA9, 1]), (4240, &[8])]),
            ("linux_raid_member", &[(end(65_536), &[0xFC, 0x4E, 0x2B, 0xA9])]),
            ("linux_raid_member", &[(end(8192), &[0xFC, 0x4E, 0x2B, 0xA9, 1]), (end(8048), &[0xF0, 0x07])]),
            ("isw_raid_member", &[(end(1024), b"Intel Raid ISM Cfg Sig. ")]),
            ("ddf_raid_member", &[(end(512), &[0xDE, 0x11, 0xDE, 0x11])]),
        ];
        for (kind, places) in cases {
            let volume = volume(places);
            let found = probe(&volume).unwrap().unwrap_or_else(|| panic!("{kind} is not recognised"));
            assert_eq!(found.kind, kind);
            assert!(reason(&volume).starts_with(kind));
            let at = imager_units::ByteOffset::new(places[0].0 as u64);
            let magic = imager_units::Extent::between(at, at.saturating_add(imager_units::ByteLen::new(1)));
            assert!(found.head.contains(magic), "{kind}: the head has the magic");
        }
    }

    #[test]
    fn what_lies_in_a_container_is_not_looked_at() {
        let volume = volume(&[(0, b"XFSB"), (SIZE - 65_536, &[0xFC, 0x4E, 0x2B, 0xA9])]);
        assert_eq!(probe(&volume).unwrap().unwrap().kind, "linux_raid_member");
    }

    #[test]
    fn two_filesystems_are_none() {
        let volume = volume(&[(0, b"XFSB"), (65_600, b"_BHRfS_M")]);
        let found = probe(&volume).unwrap().unwrap();
        assert_eq!((found.kind, found.head.count()), ("ambiguous", 2));
        assert_eq!(reason(&volume), "recognised as btrfs and xfs at once");
    }
}
