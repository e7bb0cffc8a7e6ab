//! The boot sector, and where it says that everything lies.
//!
//! fs/ntfs/layout.h, `NTFS_BOOT_SECTOR`. The copy lies in the sector behind the last one that the filesystem counts,
//! which is the partition's last; where the partition grew afterwards, Windows still looks at the partition's end.

use crate::bytes::Bytes;
use imager_units::{ByteLen, ByteOffset, Error, Extent, ExtentSet, Result};

/// Everything that is read lies in the first 512 bytes, whatever the sector size.
pub(super) const BOOT_BYTES: u64 = 512;

const OEM_ID: &[u8] = b"NTFS    ";
/// From here on a number of sectors a cluster is the power of two whose negative logarithm it is.
const LEAST_LOGARITHM: u8 = 0x80;
/// Windows counts clusters in 32 bits.
const MOST_CLUSTERS: u64 = 1 << 32;
const MOST_CLUSTER_BYTES: u64 = 2 << 20;
const RECORD_BYTES: std::ops::RangeInclusive<u64> = 512..=65_536;

/// A boot sector with the names of the kernel's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct BootSector {
    bytes_per_sector: u16,
    sectors_per_cluster: u8,
    number_of_sectors: u64,
    mft_lcn: u64,
    mftmirr_lcn: u64,
    clusters_per_mft_record: u8,
    volume_serial_number: u64,
}

impl BootSector {
    /// Recognises a boot sector by its name, as everybody does.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let b = Bytes(bytes);
        if !b.is(3, OEM_ID) {
            return None;
        }
        Some(Self {
            bytes_per_sector: b.le16(0x0B)?,
            sectors_per_cluster: b.byte(0x0D)?,
            number_of_sectors: b.le64(0x28)?,
            mft_lcn: b.le64(0x30)?,
            mftmirr_lcn: b.le64(0x38)?,
            clusters_per_mft_record: b.byte(0x40)?,
            volume_serial_number: b.le64(0x48)?,
        })
    }

    /// The serial number as `blkid` shows it.
    pub(super) fn uuid(&self) -> String {
        format!("{:016X}", self.volume_serial_number)
    }

    fn sector(&self) -> u64 {
        let bytes = u64::from(self.bytes_per_sector);
        if bytes.is_power_of_two() { bytes.clamp(512, 4096) } else { 512 }
    }

    /// The size the boot sector states, without the copy behind it.
    pub(super) fn size(&self) -> ByteLen {
        ByteLen::new(self.number_of_sectors.saturating_mul(self.sector()))
    }

    /// Where a system would recognise a volume of `size`: the boot sector and its copy at either end.
    pub(super) fn head(&self, size: ByteLen) -> ExtentSet {
        let sector = ByteLen::new(self.sector());
        let last = ByteOffset::new(size.get()).align_down(sector).get().saturating_sub(sector.get());
        let at = |start: u64| {
            Extent::between(ByteOffset::new(start), ByteOffset::new(start).saturating_add(sector))
        };
        let places = [at(0), at(self.size().get()), at(last)];
        places.into_iter().map(|place| place.intersection(Extent::first(size))).collect()
    }
}

/// Where everything lies on an NTFS volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) cluster_bytes: u64,
    /// How many whole clusters there are.
    pub(super) clusters: u64,
    /// The first cluster of the master file table, and of the copy of its beginning.
    pub(super) mft: u64,
    pub(super) mirror: u64,
    /// How long a record of the master file table is.
    pub(super) record_bytes: u64,
}

fn ensure(sound: bool, otherwise: &str) -> Result<()> {
    if sound { Ok(()) } else { Err(Error::corrupt(format!("boot sector: {otherwise}"))) }
}

impl Layout {
    /// Derives the layout of a filesystem on a volume of `size`.
    ///
    /// # Errors
    /// `Corrupt` when the boot sector's numbers are impossible or contradict each other or the volume, `Unsupported`
    /// for sectors of 256 bytes, which no disk has, and for more than 2^32 clusters.
    pub(super) fn new(boot: &BootSector, size: ByteLen) -> Result<Self> {
        let sector = u64::from(boot.bytes_per_sector);
        if sector == 256 {
            return Err(Error::unsupported("sectors of 256 bytes"));
        }
        ensure(sector.is_power_of_two() && (512..=4096).contains(&sector), "the sector size is impossible")?;
        let cluster_bytes = sectors_per_cluster(boot.sectors_per_cluster)
            .and_then(|sectors| sectors.checked_mul(sector))
            .filter(|&bytes| bytes <= MOST_CLUSTER_BYTES);
        let Some(cluster_bytes) = cluster_bytes else {
            return Err(Error::corrupt("boot sector: the cluster size is impossible"));
        };
        let bytes = boot.number_of_sectors.checked_mul(sector);
        ensure(bytes.is_some_and(|bytes| bytes <= size.get()), "the filesystem is longer than its volume")?;
        let clusters = bytes.unwrap_or_default().checked_div(cluster_bytes).unwrap_or_default();
        if clusters > MOST_CLUSTERS {
            return Err(Error::unsupported("more clusters than Windows can count"));
        }
        let record_bytes = record_bytes(boot.clusters_per_mft_record, cluster_bytes);
        let Some(record_bytes) = record_bytes.filter(|bytes| RECORD_BYTES.contains(bytes)) else {
            return Err(Error::corrupt("boot sector: the size of a file record is impossible"));
        };
        ensure(boot.mft_lcn > 0 && boot.mft_lcn < clusters, "the master file table lies outside")?;
        ensure(boot.mftmirr_lcn > 0 && boot.mftmirr_lcn < clusters, "the table's copy lies outside")?;
        Ok(Self { cluster_bytes, clusters, mft: boot.mft_lcn, mirror: boot.mftmirr_lcn, record_bytes })
    }

    /// The bytes of clusters `from..to`.
    pub(super) fn extent(&self, from: u64, to: u64) -> Extent {
        let at = |cluster: u64| ByteOffset::new(cluster.saturating_mul(self.cluster_bytes));
        Extent::between(at(from), at(to))
    }
}

/// How many sectors a cluster has: the number itself, or two to the power of its negative (clusters over 64 KiB).
fn sectors_per_cluster(number: u8) -> Option<u64> {
    if number <= LEAST_LOGARITHM {
        return Some(u64::from(number)).filter(|sectors| sectors.is_power_of_two());
    }
    1_u64.checked_shl(u32::from(number.wrapping_neg()))
}

/// How long a record is: so many clusters, or two to the power of the negative number.
fn record_bytes(number: u8, cluster_bytes: u64) -> Option<u64> {
    let bytes = match number < LEAST_LOGARITHM {
        true => u64::from(number).checked_mul(cluster_bytes),
        false => 1_u64.checked_shl(u32::from(number.wrapping_neg())),
    };
    bytes.filter(|bytes| bytes.is_power_of_two())
}
