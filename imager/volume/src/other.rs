//! Filesystems and containers that are recognised by name and copied whole.
//!
//! One table: where a structure starts, the magic in it, and where its UUID and label lie when that is simple.
//! Names and positions are libblkid's (util-linux, libblkid/src/superblocks). Weak magics have a check of their own.
//! A place that cannot be read recognises nothing: the volume is then copied whole anyway, and a bad sector under a
//! filesystem that we do know must not stop its capture.

use crate::bytes::Bytes;
use crate::read::read_if_inside;
use crate::{Filesystem, State};
use imager_disk::ReadAt;
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, Result};

/// How much of a structure is looked at.
const STRUCTURE_BYTES: u64 = 1024;
/// What around a structure's start belongs to the head.
const HEAD_BYTES: ByteLen = ByteLen::new(4096);

/// Where a structure starts.
#[derive(Clone, Copy)]
enum At {
    Start(u64),
    /// So many bytes before the end, the end being rounded down to a multiple of the second number.
    End(u64, u64),
}

/// How an identifier is written.
#[derive(Clone, Copy)]
enum Id {
    None,
    /// Sixteen bytes.
    Uuid(usize),
    /// Text.
    Text(usize, usize),
    /// Thirty-two letters and digits behind LVM's label header.
    Lvm,
}

struct Signature {
    kind: &'static str,
    at: At,
    magic_at: usize,
    magic: &'static [u8],
    /// More that must hold of the structure that starts at a byte.
    check: fn(Bytes<'_>, u64) -> bool,
    id: Id,
    label: Option<(usize, usize)>,
    copies: &'static [At],
}

const fn signature(kind: &'static str, at: At, magic_at: usize, magic: &'static [u8]) -> Signature {
    Signature { kind, at, magic_at, magic, check: |_, _| true, id: Id::None, label: None, copies: &[] }
}

impl Signature {
    const fn check(self, check: fn(Bytes<'_>, u64) -> bool) -> Self {
        Self { check, ..self }
    }

    const fn id(self, id: Id) -> Self {
        Self { id, ..self }
    }

    const fn label(self, at: usize, len: usize) -> Self {
        Self { label: Some((at, len)), ..self }
    }

    const fn copies(self, copies: &'static [At]) -> Self {
        Self { copies, ..self }
    }
}

const MD_MAGIC: &[u8] = &[0xFC, 0x4E, 0x2B, 0xA9];
pub(crate) const BCACHE_MAGIC: &[u8] =
    &[0xC6, 0x85, 0x73, 0xF6, 0x4E, 0x1A, 0x45, 0xCA, 0x82, 0x65, 0xF5, 0x7F, 0x48, 0xBA, 0x6D, 0x81];
const BITLOCKER_TO_GO: &[u8] =
    &[0x3B, 0xD6, 0x67, 0x49, 0x29, 0x2E, 0xD8, 0x4A, 0x83, 0x99, 0xF6, 0xA3, 0x39, 0xE3, 0xD0, 0x01];

/// Volumes that hold other volumes. Found first: what looks like a filesystem on one is a part of it.
static CONTAINERS: &[Signature] = &[
    lvm(0),
    lvm(512),
    lvm(1024),
    lvm(1536),
    md(At::Start(0)),
    md(At::Start(4096)),
    md(At::End(8192, 4096)),
    signature("linux_raid_member", At::End(65_536, 65_536), 0, MD_MAGIC).check(|b, _| b.le32(4) == Some(0)),
    signature("linux_raid_member", At::End(65_536, 65_536), 0, &[0xA9, 0x2B, 0x4E, 0xFC])
        .check(|b, _| b.be32(4) == Some(0)),
    signature("isw_raid_member", At::End(1024, 512), 0, b"Intel Raid ISM Cfg Sig. "),
    signature("ddf_raid_member", At::End(512, 512), 0, &[0xDE, 0x11, 0xDE, 0x11]),
    signature("ddf_raid_member", At::End(257 * 512, 512), 0, &[0xDE, 0x11, 0xDE, 0x11]),
    signature("crypto_LUKS", At::Start(0), 0, b"LUKS\xBA\xBE")
        .check(|b, _| matches!(b.be16(6), Some(1 | 2)))
        .id(Id::Text(168, 40))
        // LUKS2: where the second header is, for each length of the first that there may be (at 0x4000 to 0x400000);
        // the lower ones are in the first mebibyte, which is a head anyway.
        .copies(&[At::Start(1 << 20), At::Start(2 << 20), At::Start(4 << 20)]),
    signature("BitLocker", At::Start(0), 3, b"-FVE-FS-"),
    signature("BitLocker", At::Start(0), 3, b"MSWIN4.1").check(|b, _| b.is(424, BITLOCKER_TO_GO)),
    signature("bcache", At::Start(4096), 24, BCACHE_MAGIC).id(Id::Uuid(40)).label(72, 32),
];

static FILESYSTEMS: &[Signature] = &[
    signature("ReFS", At::Start(0), 0, b"\0\0\0ReFS\0"),
    signature("hfsplus", At::Start(1024), 0, b"H+").check(|b, _| b.be16(2) == Some(4)),
    signature("hfsplus", At::Start(1024), 0, b"HX").check(|b, _| b.be16(2) == Some(5)),
    signature("apfs", At::Start(0), 32, b"NXSB").id(Id::Uuid(72)),
    signature("iso9660", At::Start(32_768), 1, b"CD001").label(40, 32),
    signature("squashfs", At::Start(0), 0, b"hsqs").check(|b, _| b.le16(28) == Some(4)),
    signature("erofs", At::Start(1024), 0, &[0xE2, 0xE1, 0xF5, 0xE0]).id(Id::Uuid(48)).label(64, 16),
    signature("jfs", At::Start(32_768), 0, b"JFS1").id(Id::Uuid(136)).label(152, 16),
    signature("reiserfs", At::Start(65_536), 52, b"ReIsErFs"),
    signature("reiserfs", At::Start(65_536), 52, b"ReIsEr2Fs").id(Id::Uuid(84)).label(100, 16),
    signature("reiserfs", At::Start(65_536), 52, b"ReIsEr3Fs").id(Id::Uuid(84)).label(100, 16),
    signature("nilfs2", At::Start(1024), 6, &[0x34, 0x34]).check(nilfs2).id(Id::Uuid(152)).label(168, 80),
];

const fn lvm(at: u64) -> Signature {
    signature("LVM2_member", At::Start(at), 0, b"LABELONE").check(|b, _| b.is(24, b"LVM2 001")).id(Id::Lvm)
}

/// Versions 1.0 (at the end), 1.1 and 1.2: `struct mdp_superblock_1`, which says at which sector it lies.
const fn md(at: At) -> Signature {
    signature("linux_raid_member", at, 0, MD_MAGIC)
        .check(|b, base| b.le32(4) == Some(1) && b.le64(144) == Some(base / 512))
        .id(Id::Uuid(16))
        .label(32, 32)
}

/// Two bytes of magic are few: the revision, the structure's length and the block size must be possible as well.
fn nilfs2(b: Bytes<'_>, _: u64) -> bool {
    b.le32(0) == Some(2)
        && b.le16(8).is_some_and(|len| (280..=1024).contains(&len))
        && b.le32(20).is_some_and(|log| log <= 6)
}

/// The container on the volume, if it is one.
///
/// # Errors
/// None of the volume's: see the module.
pub(crate) fn container(volume: &dyn ReadAt) -> Result<Option<Filesystem>> {
    for signature in CONTAINERS {
        if let Some(found) = signature.probe(volume)? {
            return Ok(Some(found));
        }
    }
    zfs(volume)
}

/// Every filesystem of the table that is recognised.
///
/// # Errors
/// None of the volume's: see the module.
pub(crate) fn filesystems(volume: &dyn ReadAt) -> Result<Vec<Filesystem>> {
    FILESYSTEMS.iter().filter_map(|signature| signature.probe(volume).transpose()).collect()
}

impl At {
    fn offset(self, size: ByteLen) -> Option<u64> {
        match self {
            Self::Start(at) => Some(at),
            Self::End(back, unit) => {
                ByteOffset::new(size.get()).align_down(ByteLen::new(unit)).get().checked_sub(back)
            }
        }
    }

    fn head(self, size: ByteLen) -> Extent {
        let start =
            self.offset(size).map_or(ByteOffset::new(u64::MAX), ByteOffset::new).align_down(HEAD_BYTES);
        Extent::between(start, start.saturating_add(HEAD_BYTES)).intersection(Extent::first(size))
    }
}

impl Signature {
    fn probe(&self, volume: &dyn ReadAt) -> Result<Option<Filesystem>> {
        let size = volume.geometry().size;
        let Some(base) = self.at.offset(size) else { return Ok(None) };
        let len = size.get().saturating_sub(base).min(STRUCTURE_BYTES);
        let Some(bytes) = look(volume, base, len)? else { return Ok(None) };
        let b = Bytes(&bytes);
        if !b.is(self.magic_at, self.magic) || !(self.check)(b, base) {
            return Ok(None);
        }
        let places = std::iter::once(&self.at).chain(self.copies);
        Ok(Some(Filesystem {
            uuid: self.id.read(b),
            label: self.label.and_then(|(at, len)| b.text(at, len)),
            head: places.map(|at| at.head(size)).collect(),
            ..unread(self.kind, volume)
        }))
    }
}

impl Id {
    fn read(self, b: Bytes<'_>) -> Option<String> {
        match self {
            Self::None => None,
            Self::Uuid(at) => b.uuid(at),
            Self::Text(at, len) => b.text(at, len),
            Self::Lvm => lvm_uuid(b),
        }
    }
}

/// `pv_header.pv_uuid`, behind the label's `offset_xl`.
fn lvm_uuid(b: Bytes<'_>) -> Option<String> {
    crate::lvm::id(&b.text(usize::try_from(b.le32(20)?).ok()?, 32)?)
}

/// A filesystem of which only the name is known.
fn unread(kind: &'static str, volume: &dyn ReadAt) -> Filesystem {
    let geometry = volume.geometry();
    Filesystem {
        kind,
        uuid: None,
        label: None,
        block: geometry.logical.as_len(),
        size: geometry.size,
        state: State::Unknown,
        head: Extent::default().into(),
    }
}

/// As [`read_if_inside`], but what cannot be read is not there.
fn look(volume: &dyn ReadAt, offset: u64, len: u64) -> Result<Option<Vec<u8>>> {
    match read_if_inside(volume, offset, len) {
        Err(error) if error.kind() == ErrorKind::Io => Ok(None),
        other => other,
    }
}

const ZFS_LABEL_BYTES: u64 = 256 << 10;
const ZFS_UBERBLOCKS_OFFSET: u64 = 128 << 10;
const ZFS_UBERBLOCK_MAGIC: u64 = 0x00BA_B10C;

/// ZFS keeps four labels, each with a ring of uberblocks; as libblkid, four uberblocks make a member.
fn zfs(volume: &dyn ReadAt) -> Result<Option<Filesystem>> {
    let size = volume.geometry().size;
    let labels = [
        At::Start(0),
        At::Start(ZFS_LABEL_BYTES),
        At::End(ZFS_LABEL_BYTES * 2, ZFS_LABEL_BYTES),
        At::End(ZFS_LABEL_BYTES, ZFS_LABEL_BYTES),
    ];
    let mut uberblocks = 0_usize;
    for label in labels {
        let Some(base) = label.offset(size) else { continue };
        let ring = base.saturating_add(ZFS_UBERBLOCKS_OFFSET);
        let bytes = look(volume, ring, ZFS_UBERBLOCKS_OFFSET)?.unwrap_or_default();
        let magics = bytes.chunks_exact(1024).filter_map(|block| Bytes(block).le64(0));
        let found =
            magics.filter(|&magic| magic == ZFS_UBERBLOCK_MAGIC || magic.swap_bytes() == ZFS_UBERBLOCK_MAGIC);
        uberblocks = uberblocks.saturating_add(found.count());
        if uberblocks >= 4 {
            let whole = |at: At| {
                let start = at.offset(size).map_or(ByteOffset::new(u64::MAX), ByteOffset::new);
                let end = start.saturating_add(ByteLen::new(ZFS_LABEL_BYTES));
                Extent::between(start, end).intersection(Extent::first(size))
            };
            let head = labels.into_iter().map(whole).collect();
            return Ok(Some(Filesystem { head, ..unread("zfs_member", volume) }));
        }
    }
    Ok(None)
}
