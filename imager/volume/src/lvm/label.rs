//! What says that a volume is a physical volume: its label and where its areas lie.
//!
//! `struct label_header` (lvm2, lib/label/label.h), `struct pv_header` with `struct disk_locn` and
//! `struct pv_header_extension` (lib/format_text/layout.h). All integers are little-endian.

use super::id;
use crate::bytes::Bytes;
use crate::read::read_if_inside;
use crc::{Algorithm, Crc, Table};
use imager_disk::ReadAt;
use imager_units::{ByteLen, ByteOffset, Error, Extent, Result};

/// A label is in one of the first four sectors, which are of 512 bytes whatever the disk's.
const SECTOR_BYTES: u64 = 512;
const LABEL_SECTORS: u64 = 4;
/// The header extension's list of boot loader areas came with version 1, flags with version 2.
const EXTENSION_VERSION: u32 = 2;

/// LVM's CRC-32 (lib/misc/crc.c): the usual polynomial, another start value, no inversion at the end.
static CRC_RAW: Algorithm<u32> = Algorithm {
    width: 32,
    poly: 0x04C1_1DB7,
    // INITIAL_CRC, 0xF597A6CF, as the polynomial is written: the disk holds it reflected.
    init: 0xF365_E9AF,
    refin: true,
    refout: true,
    xorout: 0,
    check: 0x4991_CF02,
    residue: 0,
};
static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_RAW);

/// The checksum of `pieces` one after the other.
pub(super) fn checksum(pieces: &[&[u8]]) -> u32 {
    let mut digest = CRC.digest();
    pieces.iter().for_each(|piece| digest.update(piece));
    digest.finalize()
}

/// A physical volume as its label describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    /// Its UUID as LVM shows it.
    pub(super) id: String,
    /// The sector that the label is in.
    pub(super) at: Extent,
    /// Where data begins.
    pub(super) data_start: ByteOffset,
    /// Its metadata areas.
    pub(super) areas: Vec<Extent>,
}

/// The label of a volume.
///
/// # Errors
/// `Corrupt` when there is none, or more than one, or it contradicts itself; `Unsupported` when it is newer than we
/// know; `Io`.
pub(super) fn read(volume: &dyn ReadAt) -> Result<Label> {
    let mut found = None;
    for sector in 0..LABEL_SECTORS {
        let at = sector.saturating_mul(SECTOR_BYTES);
        let bytes = read_if_inside(volume, at, SECTOR_BYTES)?.unwrap_or_default();
        if Bytes(&bytes).is(0, b"LABELONE") {
            if found.is_some() {
                return Err(Error::corrupt("it has more than one label"));
            }
            let extent =
                Extent::between(ByteOffset::new(at), ByteOffset::new(at.saturating_add(SECTOR_BYTES)));
            found = Some(parse(&bytes, sector, extent)?);
        }
    }
    let label = found.ok_or_else(|| Error::corrupt("it has no label"))?;
    let inside = volume.geometry().extent();
    if !label.areas.iter().all(|area| inside.contains(*area)) || label.data_start > inside.end() {
        return Err(Error::corrupt("its label names areas outside of it"));
    }
    Ok(label)
}

fn parse(sector: &[u8], number: u64, at: Extent) -> Result<Label> {
    let b = Bytes(sector);
    let short = || Error::corrupt("its label is cut off");
    if b.le64(8) != Some(number) || !b.is(24, b"LVM2 001") {
        return Err(Error::corrupt("its label was written for another place"));
    }
    if b.le32(16) != Some(checksum(&[sector.get(20..).unwrap_or_default()])) {
        return Err(Error::corrupt("the checksum of its label is wrong"));
    }
    let mut next = usize::try_from(b.le32(20).ok_or_else(short)?).map_err(|_| short())?;
    let id = id(&b.text(next, 32).ok_or_else(short)?).ok_or_else(|| Error::corrupt("its UUID is none"))?;
    // Behind the UUID of 32 bytes, the size of the device (a hint).
    next = next.saturating_add(40);
    let data = locations(b, &mut next).ok_or_else(short)?;
    let areas = locations(b, &mut next).ok_or_else(short)?;
    let [data] = data.as_slice() else {
        return Err(Error::unsupported("its data lie in more than one area"));
    };
    let version = b.le32(next).ok_or_else(short)?;
    if version > EXTENSION_VERSION {
        return Err(Error::unsupported(format!("its label is of version {version}")));
    }
    Ok(Label { id, at, data_start: data.start(), areas })
}

/// A list of `struct disk_locn` up to the one that is all zero. A length of zero means up to the end of the device.
fn locations(b: Bytes<'_>, next: &mut usize) -> Option<Vec<Extent>> {
    let mut list = Vec::new();
    loop {
        let (offset, size) = (b.le64(*next)?, b.le64(next.checked_add(8)?)?);
        *next = next.checked_add(16)?;
        if offset == 0 {
            return Some(list);
        }
        list.push(Extent::new(ByteOffset::new(offset), ByteLen::new(size))?);
    }
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn the_start_value_is_lvms() {
        // Nothing after the start value leaves it as it is.
        assert_eq!(checksum(&[]), 0xF597_A6CF);
    }
}
