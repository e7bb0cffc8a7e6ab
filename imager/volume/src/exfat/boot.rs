//! The boot region of an exFAT volume (specification, section 3).
//!
//! Only the main region decides, as for every driver: the backup is for repair. A main region whose checksum is wrong
//! is damage, and the volume is copied whole.

use crate::bytes::Bytes;
use crate::read::read;
use imager_disk::ReadAt;
use imager_units::{ByteLen, ByteOffset, Error, Extent, Result};

/// Everything recognising needs lies in the first 512 bytes, whatever the sector size.
pub(super) const BOOT_BYTES: u64 = 512;

const FILE_SYSTEM_NAME: &[u8] = b"EXFAT   ";
const REVISION: u16 = 0x0100;
/// Sectors of a boot region before its checksum, and with it.
const CHECKED_SECTORS: u64 = 11;
const REGION_SECTORS: u64 = 12;
/// `VolumeFlags` and `PercentInUse` change while the volume is in use and are not part of the checksum.
const UNCHECKED_BYTES: [usize; 3] = [106, 107, 112];

const ACTIVE_FAT: u16 = 1;
const VOLUME_DIRTY: u16 = 2;
const MEDIA_FAILURE: u16 = 4;

/// A boot sector (section 3.1) with the names of the specification.
#[derive(Debug)]
pub(super) struct BootSector {
    volume_length: u64,
    fat_offset: u64,
    fat_length: u64,
    cluster_heap_offset: u64,
    cluster_count: u64,
    first_cluster_of_root_directory: u64,
    volume_serial_number: u32,
    file_system_revision: u16,
    volume_flags: u16,
    bytes_per_sector_shift: u32,
    sectors_per_cluster_shift: u32,
    number_of_fats: u8,
}

impl BootSector {
    /// Recognises a boot sector by its name and possible sizes of sectors and clusters.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let b = Bytes(bytes);
        let boot = Self {
            volume_length: b.le64(72)?,
            fat_offset: b.le32(80)?.into(),
            fat_length: b.le32(84)?.into(),
            cluster_heap_offset: b.le32(88)?.into(),
            cluster_count: b.le32(92)?.into(),
            first_cluster_of_root_directory: b.le32(96)?.into(),
            volume_serial_number: b.le32(100)?,
            file_system_revision: b.le16(104)?,
            volume_flags: b.le16(106)?,
            bytes_per_sector_shift: b.byte(108)?.into(),
            sectors_per_cluster_shift: b.byte(109)?.into(),
            number_of_fats: b.byte(110)?,
        };
        let is_possible = (9..=12).contains(&boot.bytes_per_sector_shift)
            && boot.bytes_per_sector_shift.saturating_add(boot.sectors_per_cluster_shift) <= 25;
        (b.is(3, FILE_SYSTEM_NAME) && is_possible).then_some(boot)
    }

    /// The serial number as `blkid` shows it.
    pub(super) fn uuid(&self) -> String {
        format!("{:04X}-{:04X}", self.volume_serial_number >> 16, self.volume_serial_number & 0xFFFF)
    }

    /// The size of a cluster.
    pub(super) fn cluster(&self) -> ByteLen {
        let shift = self.bytes_per_sector_shift.saturating_add(self.sectors_per_cluster_shift);
        ByteLen::new(1_u64.checked_shl(shift).unwrap_or(u64::MAX))
    }

    /// The size the boot sector states.
    pub(super) fn size(&self) -> ByteLen {
        self.sector_at(self.volume_length).saturating_since(ByteOffset::default())
    }

    /// Where a sector starts.
    fn sector_at(&self, sector: u64) -> ByteOffset {
        let bytes = 1_u64.checked_shl(self.bytes_per_sector_shift).unwrap_or(u64::MAX);
        ByteOffset::new(sector.saturating_mul(bytes))
    }

    /// Where a system would recognise the volume: the boot sector and its backup.
    pub(super) fn head(&self) -> [Extent; 2] {
        [0, REGION_SECTORS]
            .map(|sector| Extent::between(self.sector_at(sector), self.sector_at(sector.saturating_add(1))))
    }

    /// Whether the volume claims to be in order and of a kind that is understood.
    ///
    /// # Errors
    /// `Corrupt` when it was not unmounted or lost data, `Unsupported` for other revisions and for TexFAT.
    pub(super) fn check_flags(&self) -> Result<()> {
        if self.file_system_revision != REVISION {
            let [major, minor] = self.file_system_revision.to_be_bytes();
            return Err(Error::unsupported(format!("revision {major}.{minor:02} of exFAT is not known")));
        }
        if self.number_of_fats != 1 || self.volume_flags & ACTIVE_FAT != 0 {
            return Err(Error::unsupported("it has two FATs (TexFAT)"));
        }
        ensure(self.volume_flags & VOLUME_DIRTY == 0, "it was not unmounted")?;
        ensure(self.volume_flags & MEDIA_FAILURE == 0, "reads or writes failed that nobody has looked into")
    }

    /// Compares the main boot region with its checksum (section 3.4).
    ///
    /// # Errors
    /// `Io`; `Corrupt` when they disagree.
    pub(super) fn check_region(&self, volume: &dyn ReadAt) -> Result<()> {
        let region = read(volume, Extent::between(ByteOffset::default(), self.sector_at(CHECKED_SECTORS)))?;
        let counted = region.iter().enumerate().filter(|(at, _)| !UNCHECKED_BYTES.contains(at));
        let sum = counted
            .fold(0_u32, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u32::from(*byte)))
            .to_le_bytes();
        let repeated = Extent::between(self.sector_at(CHECKED_SECTORS), self.sector_at(REGION_SECTORS));
        let is_right = read(volume, repeated)?.chunks(sum.len()).all(|stored| stored == sum);
        ensure(is_right, "its checksum is wrong")
    }
}

fn ensure(sound: bool, otherwise: &str) -> Result<()> {
    if sound { Ok(()) } else { Err(Error::corrupt(format!("boot sector: {otherwise}"))) }
}

/// Where everything lies on an exFAT volume.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) cluster: ByteLen,
    /// The number of clusters; they are numbered from 2.
    pub(super) clusters: u64,
    /// The entries of the FAT that count.
    pub(super) fat: Extent,
    /// Where cluster 2 starts; everything before is structure.
    pub(super) heap_start: ByteOffset,
    pub(super) root: u64,
}

impl Layout {
    /// Derives the layout of a filesystem on a volume of `size`.
    ///
    /// # Errors
    /// `Corrupt` when the boot sector's numbers contradict each other or the volume.
    pub(super) fn new(boot: &BootSector, size: ByteLen) -> Result<Self> {
        ensure(boot.size() <= size, "the filesystem is longer than its volume")?;
        ensure(boot.fat_offset >= REGION_SECTORS.saturating_mul(2), "the FAT lies in the boot regions")?;
        let fat_end = boot.fat_offset.saturating_add(boot.fat_length);
        ensure(fat_end <= boot.cluster_heap_offset, "the FAT lies in the cluster heap")?;
        let sectors = boot.volume_length.checked_sub(boot.cluster_heap_offset);
        let room = sectors.and_then(|sectors| sectors.checked_shr(boot.sectors_per_cluster_shift));
        let is_room = (1..=room.unwrap_or_default()).contains(&boot.cluster_count);
        ensure(is_room, "the number of clusters is impossible")?;
        // Entries of four bytes, of which the first two belong to no cluster (section 4.1).
        let entries = ByteLen::new(boot.cluster_count.saturating_add(2).saturating_mul(4));
        let fat_start = boot.sector_at(boot.fat_offset);
        let fat = Extent::between(fat_start, fat_start.saturating_add(entries));
        ensure(fat.end() <= boot.sector_at(fat_end), "the FAT is too short for the clusters")?;
        let layout = Self {
            cluster: boot.cluster(),
            clusters: boot.cluster_count,
            fat,
            heap_start: boot.sector_at(boot.cluster_heap_offset),
            root: boot.first_cluster_of_root_directory,
        };
        ensure(layout.has(layout.root), "the root directory lies nowhere")?;
        Ok(layout)
    }

    /// Whether there is such a cluster.
    pub(super) fn has(&self, cluster: u64) -> bool {
        (2..self.clusters.saturating_add(2)).contains(&cluster)
    }

    /// The bytes of clusters `from..to`, cut to those that exist.
    pub(super) fn cluster_run(&self, from: u64, to: u64) -> Extent {
        let at = |cluster: u64| {
            let clusters = cluster.saturating_sub(2).min(self.clusters);
            self.heap_start.saturating_add(ByteLen::new(clusters.saturating_mul(self.cluster.get())))
        };
        Extent::between(at(from), at(to))
    }

    /// Where the last cluster ends.
    pub(super) fn heap_end(&self) -> ByteOffset {
        self.cluster_run(2, self.clusters.saturating_add(2)).end()
    }
}
