//! Little-endian fields at published offsets.
//!
//! Callers hold whole sectors and entries, so a field always lies inside; one that does not reads as zeros and is not
//! written, which keeps every parser above free of panics without a check on each line.

/// The `N` bytes from `at`.
pub(super) fn bytes<const N: usize>(sector: &[u8], at: usize) -> [u8; N] {
    sector.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

/// The 16-bit number at `at`.
pub(super) fn le16(sector: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(sector, at))
}

/// The 32-bit number at `at`.
pub(super) fn le32(sector: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(sector, at))
}

/// The 64-bit number at `at`.
pub(super) fn le64(sector: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(sector, at))
}

/// Writes `value` at `at`.
pub(super) fn put(sector: &mut [u8], at: usize, value: &[u8]) {
    let room = sector.get_mut(at..).and_then(|rest| rest.get_mut(..value.len()));
    if let Some(room) = room {
        room.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::{le16, le32, le64, put};

    #[test]
    fn a_field_outside_reads_as_zero_and_is_not_written() {
        let mut sector = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(le16(&sector, 6), 0x0807);
        assert_eq!(le32(&sector, 5), 0);
        assert_eq!(le64(&sector, usize::MAX), 0);
        put(&mut sector, 7, &[9, 9]);
        assert_eq!(sector[7], 8);
        put(&mut sector, 6, &[9, 9]);
        assert_eq!(le16(&sector, 6), 0x0909);
    }
}
