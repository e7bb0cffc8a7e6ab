//! CRC-32C, by which version 5 protects every structure (fs/xfs/libxfs/xfs_cksum.h).

pub(super) use crate::crc32c::crc32c;

/// Whether the little-endian checksum at `at` is that of `bytes` with zeros in its place.
pub(super) fn is_right(bytes: &[u8], at: usize) -> bool {
    let parts = bytes.split_at_checked(at).and_then(|(before, rest)| {
        let (sum, behind) = rest.split_first_chunk::<4>()?;
        Some((before, *sum, behind))
    });
    parts.is_some_and(|(before, sum, behind)| crc32c(&[before, &[0; 4], behind]) == u32::from_le_bytes(sum))
}

#[cfg(test)]
mod tests {
    use super::{crc32c, is_right};

    #[test]
    fn the_checksum_itself_counts_as_zero() {
        let mut bytes = *b"head....tail";
        let sum = crc32c(&[b"head", &[0; 4], b"tail"]);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        assert!(is_right(&bytes, 4));
        bytes[0] ^= 1;
        assert!(!is_right(&bytes, 4));
        assert!(!is_right(&bytes, 9));
    }
}
