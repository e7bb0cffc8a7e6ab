//! GUIDs as UEFI stores and everybody prints them (UEFI 2.10, appendix A).

use super::field::{bytes, le16, le32};
use std::fmt;

/// A GUID as stored: the first three groups little-endian, the rest as it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Guid([u8; 16]);

impl Guid {
    /// The GUID at `at`.
    pub(super) fn read(sector: &[u8], at: usize) -> Self {
        Self(bytes(sector, at))
    }

    /// Whether it says "none".
    pub(super) fn is_zero(self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b, c) = (le32(&self.0, 0), le16(&self.0, 4), le16(&self.0, 6));
        write!(f, "{a:08X}-{b:04X}-{c:04X}-")?;
        for (i, byte) in self.0.iter().enumerate().skip(8) {
            let dash = if i == 10 { "-" } else { "" };
            write!(f, "{dash}{byte:02X}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Guid;

    #[test]
    fn the_esp_type_prints_as_everybody_prints_it() {
        let stored =
            [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
        assert_eq!(Guid::read(&stored, 0).to_string(), "C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
        assert!(!Guid::read(&stored, 0).is_zero());
    }
}
