//! One entry of the firmware's boot menu: `EFI_LOAD_OPTION` (UEFI 2.10, 3.1.3).

use super::device_path;
use imager_units::{Error, Result};

/// The firmware may start it by itself (`LOAD_OPTION_ACTIVE`).
const ACTIVE: u32 = 1;

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOption {
    /// Flags of the specification.
    pub attributes: u32,
    /// What the menu shows, as UCS-2 without its NUL: kept as it is, since not all of it need be Unicode.
    description: Vec<u8>,
    /// What is started, as stored.
    pub path: Vec<u8>,
    /// What the program is given.
    pub optional_data: Vec<u8>,
}

impl LoadOption {
    /// Reads an entry.
    ///
    /// # Errors
    /// `Corrupt` when it is cut off.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (attributes, rest) = bytes.split_first_chunk().ok_or_else(cut_off)?;
        let (path_len, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
        let units = rest.chunks_exact(2).position(|unit| unit == [0, 0]).ok_or_else(cut_off)?;
        let (description, rest) = rest.split_at_checked(units.saturating_mul(2)).ok_or_else(cut_off)?;
        let rest = rest.get(2..).ok_or_else(cut_off)?;
        let path_len = usize::from(u16::from_le_bytes(*path_len));
        let (path, optional_data) = rest.split_at_checked(path_len).ok_or_else(cut_off)?;
        Ok(Self {
            attributes: u32::from_le_bytes(*attributes),
            description: description.to_vec(),
            path: path.to_vec(),
            optional_data: optional_data.to_vec(),
        })
    }

    /// The entry as it is stored.
    ///
    /// # Errors
    /// `Corrupt` when its path is longer than an entry can say.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let path_len =
            u16::try_from(self.path.len()).map_err(|_| Error::corrupt("a device path that is too long"))?;
        let mut bytes = self.attributes.to_le_bytes().to_vec();
        bytes.extend(path_len.to_le_bytes());
        bytes.extend(&self.description);
        bytes.extend([0, 0]);
        bytes.extend(&self.path);
        bytes.extend(&self.optional_data);
        Ok(bytes)
    }

    /// What the menu shows.
    pub fn description(&self) -> String {
        device_path::text(&self.description)
    }

    /// Whether the firmware starts it by itself.
    pub fn is_active(&self) -> bool {
        self.attributes & ACTIVE != 0
    }
}

fn cut_off() -> Error {
    Error::corrupt("a boot entry that is cut off")
}

#[cfg(test)]
pub(super) mod tests;
