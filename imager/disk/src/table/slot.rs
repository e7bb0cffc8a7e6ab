//! One 16-byte entry of an MBR or EBR.

use super::field::{bytes, le32};
use super::sectors::Sectors;
use imager_units::Extent;

/// An entry as stored; its start counts from wherever the sector that holds it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) status: u8,
    pub(super) type_code: u8,
    pub(super) start: u32,
    pub(super) sectors: u32,
}

/// The sector 0 type that stands for "see the GPT".
pub(super) const TYPE_PROTECTIVE: u8 = 0xee;

const TABLE: usize = 446;
const SLOT_BYTES: usize = 16;
const SIGNATURE: usize = 510;

impl Slot {
    /// The four entries of a sector.
    pub(super) fn read_all(sector: &[u8]) -> [Self; 4] {
        [0, 1, 2, 3].map(|i| Self::read(sector, slot_offset(i)))
    }

    fn read(sector: &[u8], at: usize) -> Self {
        let stored: [u8; SLOT_BYTES] = bytes(sector, at);
        let [status, _, _, _, type_code, ..] = stored;
        Self { status, type_code, start: le32(&stored, 8), sectors: le32(&stored, 12) }
    }

    /// Linux takes whatever has a length for a partition, even of type 0.
    pub(super) fn is_used(&self) -> bool {
        self.sectors != 0
    }

    /// Whether the entry is there and contains others.
    pub(super) fn is_extended(&self) -> bool {
        self.is_used() && matches!(self.type_code, 0x05 | 0x0f | 0x85)
    }

    pub(super) fn is_protective(&self) -> bool {
        self.type_code == TYPE_PROTECTIVE
    }

    pub(super) fn is_bootable(&self) -> bool {
        self.status == 0x80
    }

    /// Anything else in the status byte is code or text, not a table.
    pub(super) fn has_valid_status(&self) -> bool {
        matches!(self.status, 0 | 0x80)
    }

    /// First sector and number of sectors, the first counted from `base`.
    pub(super) fn place(&self, base: u64) -> (u64, u64) {
        (base.saturating_add(u64::from(self.start)), u64::from(self.sectors))
    }

    /// The bytes of a used entry that lies behind sector 0 and inside the disk. A container only has to start there:
    /// that it ends behind the end of a slightly smaller disk does no harm.
    pub(super) fn extent_inside(&self, sectors: &Sectors<'_>) -> Option<Extent> {
        let (start, count) = self.place(0);
        let room = sectors.count().saturating_sub(start);
        let count = if self.is_extended() { count.min(room) } else { count };
        let inside = start > 0 && count > 0 && count <= room;
        if inside { sectors.extent(start, count) } else { None }
    }
}

/// Where entry `index` (from 0) is stored in its sector.
pub(super) fn slot_offset(index: usize) -> usize {
    TABLE.saturating_add(index.saturating_mul(SLOT_BYTES))
}

/// Whether the sector ends like a boot sector, as MBRs and EBRs do.
pub(super) fn has_boot_signature(sector: &[u8]) -> bool {
    bytes(sector, SIGNATURE) == [0x55, 0xaa]
}
