//! Bounds-checked integers out of bytes that someone else wrote.
//!
//! Every parser of this crate reads through [`Bytes`]: an offset past the end is `None`, never a panic, and the width
//! and byte order of a field stand where it is read.

/// Bytes of a volume, to be looked at by offset.
#[derive(Clone, Copy)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    /// The `len` bytes at `at`.
    pub(crate) fn slice(self, at: usize, len: usize) -> Option<&'a [u8]> {
        self.0.get(at..at.checked_add(len)?)
    }

    /// The `N` bytes at `at`.
    pub(crate) fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.slice(at, N)?.try_into().ok()
    }

    /// Whether `magic` stands at `at`.
    pub(crate) fn is(self, at: usize, magic: &[u8]) -> bool {
        self.slice(at, magic.len()) == Some(magic)
    }

    /// One byte.
    pub(crate) fn byte(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    /// Little-endian, 16 bits.
    pub(crate) fn le16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    /// Little-endian, 32 bits.
    pub(crate) fn le32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    /// Little-endian, 64 bits.
    pub(crate) fn le64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    /// Big-endian, 16 bits.
    pub(crate) fn be16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_be_bytes)
    }

    /// Big-endian, 32 bits.
    pub(crate) fn be32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_be_bytes)
    }

    /// Big-endian, 64 bits.
    pub(crate) fn be64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_be_bytes)
    }

    /// Text of at most `len` bytes up to the first NUL, without blanks at its end; `None` when nothing is left.
    pub(crate) fn text(self, at: usize, len: usize) -> Option<String> {
        let field = self.slice(at, len)?;
        let text = field.split(|&byte| byte == 0).next()?;
        let text = String::from_utf8_lossy(text).trim_end().to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// The sixteen bytes of a UUID as RFC 9562 writes them; `None` when all are zero.
    pub(crate) fn uuid(self, at: usize) -> Option<String> {
        let bytes: [u8; 16] = self.array(at)?;
        if bytes == [0; 16] {
            return None;
        }
        let mut text = String::with_capacity(36);
        for (place, byte) in bytes.iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn a_field_past_the_end_is_none() {
        let bytes = Bytes(&[1, 2, 3, 4]);
        assert_eq!(bytes.le32(0), Some(0x0403_0201));
        assert_eq!(bytes.be16(2), Some(0x0304));
        assert_eq!(bytes.le32(1), None);
        assert_eq!(bytes.le64(usize::MAX), None);
        assert!(!bytes.is(3, &[4, 5]));
    }

    #[test]
    fn text_ends_at_nul_and_loses_its_padding() {
        assert_eq!(Bytes(b"root\0junk").text(0, 9).as_deref(), Some("root"));
        assert_eq!(Bytes(b"BOOT       ").text(0, 11).as_deref(), Some("BOOT"));
        assert_eq!(Bytes(b"\0\0\0\0").text(0, 4), None);
    }

    #[test]
    fn uuids_look_like_uuids() {
        let bytes: Vec<u8> = (1..=16).collect();
        assert_eq!(Bytes(&bytes).uuid(0).as_deref(), Some("01020304-0506-0708-090a-0b0c0d0e0f10"));
        assert_eq!(Bytes(&[0; 16]).uuid(0), None);
    }
}
