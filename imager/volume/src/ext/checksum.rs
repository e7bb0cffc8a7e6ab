//! The two checksums of ext4, in the raw form that the kernel keeps on disk.
//!
//! `metadata_csum` uses CRC-32C without the usual final inversion, chained over several pieces (fs/ext4/ext4.h,
//! `ext4_chksum`); the older `gdt_csum` uses CRC-16 (lib/crc16.c) from 0xFFFF.

pub(super) use crate::crc32c::raw as crc32c;

use crc::Crc;

static CRC_16: Crc<u16> = Crc::<u16>::new(&crc::CRC_16_MODBUS);

/// CRC-16 of `pieces` one after the other.
pub(super) fn crc16(pieces: &[&[u8]]) -> u16 {
    let mut digest = CRC_16.digest();
    pieces.iter().for_each(|piece| digest.update(piece));
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::crc16;

    #[test]
    fn published_check_value() {
        assert_eq!(crc16(&[b"1234", b"56789"]), 0x4B37);
    }
}
