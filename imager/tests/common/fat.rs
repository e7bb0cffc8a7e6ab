//! A FAT32 volume made by hand: any used map, any grain of masks from 512 bytes to 64 KiB, no tool needed.
//!
//! What is not a cluster always counts: the reserved sectors, both tables, and the tail behind the last cluster.

use super::extent;
use imager_disk::{MemoryDisk, ReadAt, WriteAt};
use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet, SectorSize};

/// How a volume is laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Bytes of a cluster: a power of two from 512 to 65536.
    pub(crate) cluster: u64,
    pub(crate) clusters: u64,
    /// Sectors before the tables, at least 33. More are taken so that clusters lie at multiples of their size.
    pub(crate) reserved: u64,
    /// Where the copy of the boot sector lies, in sectors, below `reserved`.
    pub(crate) backup: u64,
    /// By how many sectors clusters lie beside the multiples of their size, which makes the grain of masks finer.
    pub(crate) skew: u64,
    /// Bytes behind the last cluster.
    pub(crate) tail: u64,
}

impl Layout {
    /// A few clusters of 4 KiB with the backup in the first mebibyte.
    pub(crate) const SMALL: Self =
        Self { cluster: 4096, clusters: 400, reserved: 33, backup: 6, skew: 0, tail: 777 };
}

/// The volume.
pub(crate) struct FatVolume {
    pub(crate) layout: Layout,
    pub(crate) disk: MemoryDisk,
    reserved: u64,
    table_sectors: u64,
}

impl FatVolume {
    pub(crate) fn new(layout: Layout) -> Self {
        let table_sectors = ((layout.clusters + 2) * 4).div_ceil(512);
        let per_cluster = layout.cluster / 512;
        let data = (layout.reserved + 2 * table_sectors).next_multiple_of(per_cluster) + layout.skew;
        let reserved = data - 2 * table_sectors;
        let size = data * 512 + layout.clusters * layout.cluster + layout.tail;
        let disk = MemoryDisk::new(ByteLen::new(size), SectorSize::B512);
        let volume = Self { layout, disk, reserved, table_sectors };
        volume.format();
        volume
    }

    fn format(&self) {
        let sectors = (self.data_start() + self.layout.clusters * self.layout.cluster) / 512;
        let narrow = |n: u64| u16::try_from(n).unwrap().to_le_bytes();
        let wide = |n: u64| u32::try_from(n).unwrap().to_le_bytes();
        let mut boot = vec![0; 512];
        let mut put = |at: usize, value: &[u8]| boot[at..at + value.len()].copy_from_slice(value);
        put(0, &[0xEB, 0x58, 0x90]);
        put(3, b"halfhour");
        put(11, &narrow(512));
        put(13, &[u8::try_from(self.layout.cluster / 512).unwrap()]);
        put(14, &narrow(self.reserved));
        put(16, &[2]);
        put(21, &[0xF8]);
        put(32, &wide(sectors));
        put(36, &wide(self.table_sectors));
        put(44, &wide(2));
        put(50, &narrow(self.layout.backup));
        put(66, &[0x29, 0xCD, 0xAB, 0x34, 0x12]);
        put(71, b"NEEDLELABELFAT32   ");
        put(510, &[0x55, 0xAA]);
        self.write(0, &boot);
        self.write(self.layout.backup * 512, &boot);
        self.set(0, 0x0FFF_FFF8);
        self.set(1, 0x0FFF_FFFF);
        self.set_used(2, true);
    }

    /// Where the clusters start.
    pub(crate) fn data_start(&self) -> u64 {
        (self.reserved + 2 * self.table_sectors) * 512
    }

    pub(crate) fn size(&self) -> u64 {
        self.disk.geometry().size.get()
    }

    /// Where cluster `number`, counted from 2, lies.
    pub(crate) fn cluster(&self, number: u64) -> Extent {
        extent(self.data_start() + (number - 2) * self.layout.cluster, self.layout.cluster)
    }

    /// Where the copy of the boot sector lies.
    pub(crate) fn backup(&self) -> Extent {
        extent(self.layout.backup * 512, 512)
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        self.disk.write_all_at(ByteOffset::new(at), bytes).unwrap();
    }

    /// Allocates or frees a cluster, and touches nothing else.
    pub(crate) fn set_used(&self, cluster: u64, used: bool) {
        self.set(cluster, if used { 0x0FFF_FFFF } else { 0 });
    }

    fn set(&self, cluster: u64, entry: u32) {
        for copy in 0..2 {
            let table = (self.reserved + copy * self.table_sectors) * 512;
            self.write(table + cluster * 4, &entry.to_le_bytes());
        }
    }

    /// Allocates a cluster and fills it.
    pub(crate) fn put(&self, cluster: u64, bytes: &[u8]) {
        self.set_used(cluster, true);
        self.write(self.cluster(cluster).start().get(), bytes);
    }

    /// The volume as it is now; later writes do not reach it.
    pub(crate) fn snapshot(&self) -> MemoryDisk {
        self.disk.clone()
    }

    /// The bytes that count.
    pub(crate) fn mask(&self) -> ExtentSet {
        let used = imager_volume::used(&self.disk).unwrap();
        assert_eq!(used.certainty, imager_volume::Certainty::Exact);
        used.extents
    }
}
