//! The boot sector of a FAT volume.
//!
//! Microsoft Extensible Firmware Initiative FAT32 File System Specification 1.03, section "Boot Sector and BPB", with
//! the kernel's reading of it (fs/fat/inode.c, `fat_read_bpb` and `fat_fill_super`) where volumes in the field differ:
//! no jump, type string or end mark is asked for by itself, and FAT32 is told by `BPB_FATSz16` being zero, because
//! small FAT32 volumes exist (mkfs.fat -F 32) that the cluster count alone would call FAT16.

use super::table::Width;
use crate::bytes::Bytes;
use imager_units::{ByteLen, ByteOffset, Error, Extent, Result};

/// Everything recognising needs lies in the first 512 bytes, whatever the sector size.
pub(super) const BOOT_BYTES: u64 = 512;

const MIRRORING_DISABLED: u16 = 0x80;
const ACTIVE_FAT: u16 = 0x0F;
const STATE_DIRTY: u8 = 1;
const BOOT_SIGNATURE: u8 = 0x29;
const DIRECTORY_ENTRY_BYTES: u64 = 32;
/// The largest count of clusters that is still FAT12, FAT16, FAT32 (fs/fat/fat.h, `MAX_FAT12` and so on).
const MAX_FAT12: u64 = 0xFF4;
const MAX_FAT16: u64 = 0xFFF4;
const MAX_FAT32: u64 = 0x0FFF_FFF6;

/// A boot sector with the names of the specification.
#[derive(Debug)]
pub(super) struct BootSector {
    bytes_per_sector: u64,
    sec_per_clus: u64,
    rsvd_sec_cnt: u64,
    pub(super) num_fats: u64,
    root_ent_cnt: u64,
    tot_sec: u64,
    pub(super) media: u8,
    fat_sz: u64,
    ext_flags: u16,
    root_clus: u32,
    bk_boot_sec: u64,
    is_fat32: bool,
    /// The flag that Linux and Windows set while the volume is in use (`BS_Reserved1`).
    pub(super) is_dirty: bool,
    vol_id: Option<u32>,
    vol_lab: Option<String>,
}

impl BootSector {
    /// Recognises a boot sector in its first 512 bytes: the kernel's conditions, and one of the usual outward signs.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let b = Bytes(bytes);
        let fat_sz16 = b.le16(22)?;
        let is_fat32 = fat_sz16 == 0;
        // From BS_DrvNum on, the two layouts differ only in where they start.
        let tail = Bytes(bytes.get(if is_fat32 { 64 } else { 36 }..)?);
        let has_identity = tail.byte(2)? == BOOT_SIGNATURE;
        let boot = Self {
            bytes_per_sector: b.le16(11)?.into(),
            sec_per_clus: b.byte(13)?.into(),
            rsvd_sec_cnt: b.le16(14)?.into(),
            num_fats: b.byte(16)?.into(),
            root_ent_cnt: b.le16(17)?.into(),
            tot_sec: match b.le16(19)? {
                0 => b.le32(32)?.into(),
                short => short.into(),
            },
            media: b.byte(21)?,
            fat_sz: if is_fat32 { b.le32(36)?.into() } else { fat_sz16.into() },
            ext_flags: if is_fat32 { b.le16(40)? } else { 0 },
            root_clus: b.le32(44)?,
            bk_boot_sec: b.le16(50)?.into(),
            is_fat32,
            is_dirty: tail.byte(1)? & STATE_DIRTY != 0,
            vol_id: if has_identity { tail.le32(3) } else { None },
            vol_lab: if has_identity { tail.text(7, 11) } else { None },
        };
        let looks_like_fat =
            b.is(510, &[0x55, 0xAA]) || tail.is(18, b"FAT") || matches!(bytes.first(), Some(0xEB | 0xE9));
        (boot.is_possible() && looks_like_fat).then_some(boot)
    }

    fn is_possible(&self) -> bool {
        self.bytes_per_sector.is_power_of_two()
            && (512..=4096).contains(&self.bytes_per_sector)
            && self.sec_per_clus.is_power_of_two()
            && self.rsvd_sec_cnt > 0
            && (1..=16).contains(&self.num_fats)
            && self.fat_sz > 0
            && self.tot_sec > 0
            && (self.media == 0xF0 || self.media >= 0xF8)
    }

    /// The serial number as `blkid` shows it.
    pub(super) fn uuid(&self) -> Option<String> {
        let id = self.vol_id?;
        Some(format!("{:04X}-{:04X}", id >> 16, id & 0xFFFF))
    }

    /// The label in the boot sector, which `NO NAME` stands in for.
    pub(super) fn label(&self) -> Option<String> {
        self.vol_lab.clone().filter(|label| label != "NO NAME")
    }

    /// The size of a cluster.
    pub(super) fn cluster(&self) -> ByteLen {
        ByteLen::new(self.bytes_per_sector.saturating_mul(self.sec_per_clus))
    }

    /// The size the boot sector states.
    pub(super) fn size(&self) -> ByteLen {
        self.sectors(self.tot_sec).len()
    }

    /// The first `count` sectors.
    fn sectors(&self, count: u64) -> Extent {
        // At most 2^32 sectors of 4096 bytes.
        Extent::first(ByteLen::new(count.saturating_mul(self.bytes_per_sector)))
    }

    /// Where a system would recognise the volume: the boot sector and its backup.
    pub(super) fn head(&self) -> Vec<Extent> {
        let first = self.sectors(1);
        let mut head = vec![first];
        if self.is_fat32 && self.bk_boot_sec > 0 && self.bk_boot_sec < self.rsvd_sec_cnt {
            head.push(Extent::between(
                self.sectors(self.bk_boot_sec).end(),
                self.sectors(self.bk_boot_sec.saturating_add(1)).end(),
            ));
        }
        head
    }
}

/// Where everything lies on a FAT volume.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) width: Width,
    /// The number of clusters that have an entry in the FAT; they are numbered from 2.
    pub(super) clusters: u64,
    pub(super) cluster: ByteLen,
    /// The copies of the FAT that count: all, or the active one where mirroring is off.
    pub(super) fats: Vec<Extent>,
    /// Where cluster 2 starts; everything before is structure.
    pub(super) data_start: ByteOffset,
    /// The root directory of FAT12 and FAT16, or the first cluster of FAT32's.
    pub(super) root: Extent,
}

fn ensure(sound: bool, otherwise: &str) -> Result<()> {
    if sound { Ok(()) } else { Err(Error::corrupt(format!("boot sector: {otherwise}"))) }
}

impl Layout {
    /// Derives the layout of a filesystem on a volume of `size`.
    ///
    /// # Errors
    /// `Corrupt` when the boot sector's numbers contradict each other or the volume.
    pub(super) fn new(boot: &BootSector, size: ByteLen) -> Result<Self> {
        ensure(boot.size() <= size, "the filesystem is longer than its volume")?;
        let root_bytes = boot.root_ent_cnt.saturating_mul(DIRECTORY_ENTRY_BYTES);
        let root_sectors = root_bytes.div_ceil(boot.bytes_per_sector);
        let fats_end = boot.rsvd_sec_cnt.saturating_add(boot.num_fats.saturating_mul(boot.fat_sz));
        let data = fats_end.saturating_add(root_sectors);
        ensure(data < boot.tot_sec, "the FATs leave no room for data")?;
        let counted = boot.tot_sec.saturating_sub(data).checked_div(boot.sec_per_clus).unwrap_or_default();
        let (width, most) = width(boot.is_fat32, counted);
        // As the kernel: the width follows from the space, then clusters without an entry do not exist.
        let entries = width.entries_in(boot.fat_sz.saturating_mul(boot.bytes_per_sector));
        let clusters = counted.min(entries.saturating_sub(2));
        ensure((1..=most).contains(&clusters), "the number of clusters is impossible")?;
        let mut layout = Self {
            width,
            clusters,
            cluster: boot.cluster(),
            fats: fats(boot)?,
            data_start: boot.sectors(data).end(),
            root: Extent::between(boot.sectors(fats_end).end(), boot.sectors(data).end()),
        };
        if boot.is_fat32 {
            layout.root =
                layout.cluster_run(boot.root_clus.into(), u64::from(boot.root_clus).saturating_add(1));
        }
        Ok(layout)
    }

    /// The bytes of clusters `from..to`, cut to those that exist.
    pub(super) fn cluster_run(&self, from: u64, to: u64) -> Extent {
        let at = |cluster: u64| {
            let clusters = cluster.saturating_sub(2).min(self.clusters);
            self.data_start.saturating_add(ByteLen::new(clusters.saturating_mul(self.cluster.get())))
        };
        Extent::between(at(from), at(to))
    }

    /// Where the last cluster ends.
    pub(super) fn data_end(&self) -> ByteOffset {
        self.cluster_run(2, self.clusters.saturating_add(2)).end()
    }
}

/// The specification counts clusters and nothing else. The kernel takes a volume without `BPB_FATSz16` for FAT32
/// first, and counts only to tell FAT12 from FAT16.
fn width(is_fat32: bool, clusters: u64) -> (Width, u64) {
    match is_fat32 {
        true => (Width::Fat32, MAX_FAT32),
        false if clusters <= MAX_FAT12 => (Width::Fat12, MAX_FAT12),
        false => (Width::Fat16, MAX_FAT16),
    }
}

fn fats(boot: &BootSector) -> Result<Vec<Extent>> {
    let copy = |number: u64| {
        let start =
            |n: u64| boot.sectors(boot.rsvd_sec_cnt.saturating_add(n.saturating_mul(boot.fat_sz))).end();
        Extent::between(start(number), start(number.saturating_add(1)))
    };
    if boot.ext_flags & MIRRORING_DISABLED == 0 {
        return Ok((0..boot.num_fats).map(copy).collect());
    }
    let active = u64::from(boot.ext_flags & ACTIVE_FAT);
    ensure(active < boot.num_fats, "the active FAT does not exist")?;
    Ok(vec![copy(active)])
}
