//! One copy of a GPT: a header sector and the entry array it points to (UEFI 2.10, section 5.3).
//!
//! A copy is sound when every check that Linux (`block/partitions/efi.c`) and sfdisk make holds, and a few more; what
//! is wrong with one that is not sound is said in words, because the reader will go on with the other copy and warn.
//! The one thing we take and Linux does not is an entry size other than 128 bytes, which UEFI allows.

use super::RawArea;
use super::field::{bytes, le32, le64, put};
use super::guid::Guid;
use super::sectors::Sectors;
use imager_units::Extent;
use std::error::Error as _;

/// Where the primary header is, always.
pub(super) const PRIMARY_LBA: u64 = 1;
/// Where the primary array is, unless somebody moved it.
pub(super) const ARRAY_LBA: u64 = 2;

const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER_BYTES: usize = 12;
const HEADER_CRC: usize = 16;
const MY_LBA: usize = 24;
const ALTERNATE_LBA: usize = 32;
const FIRST_USABLE_LBA: usize = 40;
const LAST_USABLE_LBA: usize = 48;
const DISK_GUID: usize = 56;
const PARTITION_ENTRY_LBA: usize = 72;
const NUMBER_OF_ENTRIES: usize = 80;
const SIZE_OF_ENTRY: usize = 84;
const ARRAY_CRC: usize = 88;
const LEAST_HEADER_BYTES: u32 = 92;
const MOST_ARRAY_BYTES: u64 = 1 << 20;

/// A sound copy of a GPT.
#[derive(Clone, Debug)]
pub(super) struct GptCopy {
    /// The sector with the header.
    pub(super) header: RawArea,
    /// The sectors with the entries.
    pub(super) array: RawArea,
}

/// Why a copy is not sound, to be put behind "… is damaged: ".
pub(super) type Flaw = String;

impl GptCopy {
    /// Reads and checks the copy whose header is in sector `lba`.
    pub(super) fn load(sectors: &Sectors<'_>, lba: u64) -> Result<Self, Flaw> {
        let header = read(sectors, lba, 1)?;
        check_header(&header.bytes, sectors, lba)?;
        let (at, count) = array_place(&header.bytes, sectors, lba)?;
        let array = read(sectors, at, count)?;
        let copy = Self { header, array };
        let (found, stated) = (crc32fast::hash(copy.used_array()), le32(&copy.header.bytes, ARRAY_CRC));
        if found != stated {
            return Err(format!(
                "the checksum of its entries is {found:#010x}, the header says {stated:#010x}"
            ));
        }
        Ok(copy)
    }

    pub(super) fn my_lba(&self) -> u64 {
        le64(&self.header.bytes, MY_LBA)
    }

    pub(super) fn alternate_lba(&self) -> u64 {
        le64(&self.header.bytes, ALTERNATE_LBA)
    }

    pub(super) fn first_usable_lba(&self) -> u64 {
        le64(&self.header.bytes, FIRST_USABLE_LBA)
    }

    pub(super) fn last_usable_lba(&self) -> u64 {
        le64(&self.header.bytes, LAST_USABLE_LBA)
    }

    pub(super) fn array_lba(&self) -> u64 {
        le64(&self.header.bytes, PARTITION_ENTRY_LBA)
    }

    pub(super) fn disk_guid(&self) -> Guid {
        Guid::read(&self.header.bytes, DISK_GUID)
    }

    /// How many entries the array has room for.
    pub(super) fn slots(&self) -> u32 {
        le32(&self.header.bytes, NUMBER_OF_ENTRIES)
    }

    /// The entries as stored, used or not, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &[u8]> {
        let each = usize::try_from(le32(&self.header.bytes, SIZE_OF_ENTRY)).unwrap_or(usize::MAX);
        self.used_array().chunks_exact(each.max(1))
    }

    /// The array without what fills its last sector.
    fn used_array(&self) -> &[u8] {
        let len = usize::try_from(array_bytes(&self.header.bytes)).unwrap_or(usize::MAX);
        self.array.bytes.get(..len).unwrap_or(&self.array.bytes)
    }

    /// The bytes of the disk that the copy takes.
    pub(super) fn extents(&self) -> [Extent; 2] {
        [self.header.extent(), self.array.extent()]
    }

    /// Whether both copies say the same, wherever they are.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let same =
            |from: usize, to: usize| self.header.bytes.get(from..to) == other.header.bytes.get(from..to);
        same(FIRST_USABLE_LBA, PARTITION_ENTRY_LBA)
            && same(NUMBER_OF_ENTRIES, ARRAY_CRC)
            && self.used_array() == other.used_array()
    }

    /// The header sector of the same table for another place, with its checksum.
    pub(super) fn header_at(&self, place: &Place) -> Vec<u8> {
        let mut sector = self.header.bytes.clone();
        put(&mut sector, MY_LBA, &place.my_lba.to_le_bytes());
        put(&mut sector, ALTERNATE_LBA, &place.alternate_lba.to_le_bytes());
        put(&mut sector, LAST_USABLE_LBA, &place.last_usable_lba.to_le_bytes());
        put(&mut sector, PARTITION_ENTRY_LBA, &place.array_lba.to_le_bytes());
        let crc = header_crc(&sector);
        put(&mut sector, HEADER_CRC, &crc.to_le_bytes());
        sector
    }
}

/// What differs between the header of a table in one place and in another.
pub(super) struct Place {
    pub(super) my_lba: u64,
    pub(super) alternate_lba: u64,
    pub(super) last_usable_lba: u64,
    pub(super) array_lba: u64,
}

/// Where the other copy is according to a header that need not be sound, as a second place to look.
pub(super) fn alternate_hint(sectors: &Sectors<'_>) -> Option<u64> {
    let header = read(sectors, PRIMARY_LBA, 1).ok()?;
    (bytes(&header.bytes, 0) == *SIGNATURE).then(|| le64(&header.bytes, ALTERNATE_LBA))
}

fn read(sectors: &Sectors<'_>, lba: u64, count: u64) -> Result<RawArea, Flaw> {
    sectors.read(lba, count).map_err(|error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

fn check_header(header: &[u8], sectors: &Sectors<'_>, lba: u64) -> Result<(), Flaw> {
    if bytes(header, 0) != *SIGNATURE {
        return Err("it has no GPT signature".to_owned());
    }
    let (size, most) = (le32(header, HEADER_BYTES), sectors.sector().get());
    if !(LEAST_HEADER_BYTES..=most).contains(&size) {
        return Err(format!("its header size is {size}, not from {LEAST_HEADER_BYTES} to {most}"));
    }
    let (found, stated) = (header_crc(header), le32(header, HEADER_CRC));
    if found != stated {
        return Err(format!("its checksum is {found:#010x}, it says {stated:#010x}"));
    }
    if le64(header, MY_LBA) != lba {
        return Err(format!("it says that it is sector {}", le64(header, MY_LBA)));
    }
    let (first, last) = (le64(header, FIRST_USABLE_LBA), le64(header, LAST_USABLE_LBA));
    if first > last || last > sectors.last() {
        let end = sectors.last();
        return Err(format!("its usable sectors are {first} to {last} on a disk whose last sector is {end}"));
    }
    Ok(())
}

/// First sector and number of sectors of the entry array.
fn array_place(header: &[u8], sectors: &Sectors<'_>, lba: u64) -> Result<(u64, u64), Flaw> {
    let (slots, each) = (le32(header, NUMBER_OF_ENTRIES), le32(header, SIZE_OF_ENTRY));
    if !each.is_power_of_two() || !(128..=4096).contains(&each) {
        return Err(format!("its entries are {each} bytes each, not a power of two from 128 to 4096"));
    }
    let bytes = array_bytes(header);
    if slots == 0 || bytes > MOST_ARRAY_BYTES {
        return Err(format!("it has room for {slots} entries of {each} bytes"));
    }
    let (at, count) = (le64(header, PARTITION_ENTRY_LBA), sectors.sectors_for(bytes));
    let end = at.saturating_add(count);
    if at < ARRAY_LBA || end > sectors.count() || (at..end).contains(&lba) {
        return Err(format!("its entries are in {count} sectors from sector {at}"));
    }
    Ok((at, count))
}

fn array_bytes(header: &[u8]) -> u64 {
    u64::from(le32(header, NUMBER_OF_ENTRIES)).saturating_mul(u64::from(le32(header, SIZE_OF_ENTRY)))
}

/// The checksum over the stated header size, with the checksum itself as zeros.
fn header_crc(header: &[u8]) -> u32 {
    let size = usize::try_from(le32(header, HEADER_BYTES)).unwrap_or(usize::MAX);
    let mut covered = header.get(..size).unwrap_or(header).to_vec();
    put(&mut covered, HEADER_CRC, &[0; 4]);
    crc32fast::hash(&covered)
}
