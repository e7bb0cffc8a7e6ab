//! CRC-32C (Castagnoli), by which ext4, XFS and Btrfs protect their structures.

use crc::{Algorithm, Crc, Table};

/// Without the usual final inversion, so that one sum can go on where another ended.
static RAW: Algorithm<u32> = Algorithm {
    width: 32,
    poly: 0x1EDC_6F41,
    init: 0xFFFF_FFFF,
    refin: true,
    refout: true,
    xorout: 0,
    check: 0x1CF9_6D7C,
    residue: 0,
};

static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&RAW);

/// The raw sum of `pieces` one after the other, going on from `seed` (all ones to begin).
pub(crate) fn raw(seed: u32, pieces: &[&[u8]]) -> u32 {
    // The crate wants the start value as the polynomial is written, the disk holds it reflected.
    let mut digest = CRC.digest_with_initial(seed.reverse_bits());
    pieces.iter().for_each(|piece| digest.update(piece));
    digest.finalize()
}

/// The sum of `pieces` one after the other as it is published.
pub(crate) fn crc32c(pieces: &[&[u8]]) -> u32 {
    !raw(!0, pieces)
}

#[cfg(test)]
mod tests {
    use super::{crc32c, raw};

    #[test]
    fn published_check_value() {
        assert_eq!(crc32c(&[b"1234", b"56789"]), 0xE306_9283);
    }

    #[test]
    fn a_sum_goes_on_where_another_ended() {
        assert_eq!(raw(raw(!0, &[b"1234"]), &[b"56789"]), raw(!0, &[b"123456789"]));
    }
}
