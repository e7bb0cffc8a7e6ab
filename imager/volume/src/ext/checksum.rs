//! The two checksums of ext4, in the raw form that the kernel keeps on disk.
//!
//! `metadata_csum` uses CRC-32C without the usual final inversion, chained over several pieces (fs/ext4/ext4.h,
//! `ext4_chksum`); the older `gdt_csum` uses CRC-16 (lib/crc16.c) from 0xFFFF.

use crc::{Algorithm, Crc, Table};

static CRC_32C_RAW: Algorithm<u32> = Algorithm {
    width: 32,
    poly: 0x1EDC_6F41,
    init: 0xFFFF_FFFF,
    refin: true,
    refout: true,
    xorout: 0,
    check: 0x1CF9_6D7C,
    residue: 0,
};

static CRC_32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32C_RAW);
static CRC_16: Crc<u16> = Crc::<u16>::new(&crc::CRC_16_MODBUS);

/// CRC-32C of `pieces` one after the other, going on from `seed` (all ones to begin).
pub(super) fn crc32c(seed: u32, pieces: &[&[u8]]) -> u32 {
    // The crate wants the start value as the polynomial is written, the disk holds it reflected.
    let mut digest = CRC_32C.digest_with_initial(seed.reverse_bits());
    pieces.iter().for_each(|piece| digest.update(piece));
    digest.finalize()
}

/// CRC-16 of `pieces` one after the other.
pub(super) fn crc16(pieces: &[&[u8]]) -> u16 {
    let mut digest = CRC_16.digest();
    pieces.iter().for_each(|piece| digest.update(piece));
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::{crc16, crc32c};

    #[test]
    fn published_check_values() {
        assert_eq!(!crc32c(!0, &[b"123456789"]), 0xE306_9283);
        assert_eq!(crc16(&[b"1234", b"56789"]), 0x4B37);
    }

    #[test]
    fn a_checksum_goes_on_where_another_ended() {
        assert_eq!(crc32c(crc32c(!0, &[b"1234"]), &[b"56789"]), crc32c(!0, &[b"123456789"]));
    }
}
