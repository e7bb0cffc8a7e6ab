//! The firmware's variables, as Linux shows them in a folder (efivarfs, Documentation/filesystems/efivarfs.rst).
//!
//! A file is named by the variable and its owner's GUID, and begins with four bytes of attributes. The variables that
//! are written here are among those that the kernel knows and checks (`variable_validate`, drivers/firmware/efi/vars.c),
//! which are the ones that it does not make immutable; so no flag has to be taken off first.

use imager_units::{Context, Error, ErrorKind, Result};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The owner of the variables of the specification (`EFI_GLOBAL_VARIABLE`).
const OWNER: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Kept, and seen by the firmware and by the running system.
const ATTRIBUTES: u32 = 1 | 2 | 4;
const ATTRIBUTES_BYTES: usize = 4;
/// No entry is longer; firmware has some tens of kilobytes for all of them.
const MOST_BYTES: u64 = 64 << 10;
/// No firmware shows more.
const MOST_ENTRIES: usize = 512;

/// The variables of the specification.
#[derive(Clone, Debug)]
pub struct Variables {
    folder: PathBuf,
}

impl Variables {
    /// Those in a folder.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// What a variable holds; `None` when there is none.
    ///
    /// # Errors
    /// `Denied`, `Io` from the firmware; `Corrupt` when it is longer than one can be, or too short.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(name);
        let say = || format!("reading the firmware's variable {name}");
        let len = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata.context(say)?.len(),
        };
        let bytes = if len > MOST_BYTES { Vec::new() } else { fs::read(&path).context(say)? };
        let value = bytes.get(ATTRIBUTES_BYTES..).ok_or_else(|| {
            Error::corrupt(format!("the firmware's variable {name} has {len} bytes, which it cannot have"))
        })?;
        Ok(Some(value.to_vec()))
    }

    /// Makes or replaces a variable. The firmware takes it whole or not at all.
    ///
    /// # Errors
    /// `Denied`, `OutOfSpace`, `Io` from the firmware.
    pub fn set(&self, name: &str, value: &[u8]) -> Result<()> {
        let bytes = [&ATTRIBUTES.to_le_bytes(), value].concat();
        let say = || format!("writing the firmware's variable {name}");
        let mut file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path(name))
            .context(say)?;
        // One call is one change.
        let written = file.write(&bytes).context(say)?;
        if written == bytes.len() { Ok(()) } else { Err(Error::new(ErrorKind::Io, say())) }
    }

    /// The numbers of the boot entries.
    ///
    /// # Errors
    /// `Denied`, `Io` from the system.
    pub fn boot_entries(&self) -> Result<Vec<u16>> {
        let say = || format!("listing the firmware's variables in {}", self.folder.display());
        let mut numbers = Vec::new();
        for file in fs::read_dir(&self.folder).context(say)? {
            let name = file.context(say)?.file_name();
            numbers.extend(name.to_str().and_then(number_of));
        }
        numbers.sort_unstable();
        numbers.truncate(MOST_ENTRIES);
        Ok(numbers)
    }

    /// The numbers of the boot entries in the order in which they are tried.
    ///
    /// # Errors
    /// As [`Variables::get`].
    pub fn boot_order(&self) -> Result<Vec<u16>> {
        let value = self.get("BootOrder")?.unwrap_or_default();
        Ok(value
            .chunks_exact(2)
            .map(|pair| pair.iter().rev().fold(0, |n, byte| n << 8 | u16::from(*byte)))
            .collect())
    }

    /// Sets that order.
    ///
    /// # Errors
    /// As [`Variables::set`].
    pub fn set_boot_order(&self, order: &[u16]) -> Result<()> {
        let value: Vec<u8> = order.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.set("BootOrder", &value)
    }

    /// Whether Secure Boot is enforced; `None` when the firmware does not say.
    ///
    /// # Errors
    /// As [`Variables::get`].
    pub fn secure_boot(&self) -> Result<Option<bool>> {
        Ok(self.get("SecureBoot")?.and_then(|value| value.first().map(|on| *on == 1)))
    }

    /// Whether the folder shows any variable at all; without efivarfs mounted it is empty.
    pub fn is_mounted(&self) -> bool {
        fs::read_dir(&self.folder).is_ok_and(|mut files| files.next().is_some())
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}-{OWNER}"))
    }
}

/// The name of the variable that holds an entry.
pub fn entry_name(number: u16) -> String {
    format!("Boot{number:04X}")
}

/// The number of the entry in a file; `None` when it is none.
fn number_of(file: &str) -> Option<u16> {
    let digits = file.strip_suffix(OWNER)?.strip_suffix('-')?.strip_prefix("Boot")?;
    let number = u16::from_str_radix(digits, 16).ok()?;
    (entry_name(number).strip_prefix("Boot") == Some(digits)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::{OWNER, Variables, number_of};

    #[test]
    fn entries_are_told_from_other_variables() {
        let number = |name: &str| number_of(&format!("{name}-{OWNER}"));
        assert_eq!((number("Boot0001"), number("Boot00AF")), (Some(1), Some(0xaf)));
        for other in ["BootOrder", "BootNext", "Boot00af", "Boot1", "Boot+001", "BootCurrent", "Driver0001"] {
            assert_eq!(number(other), None, "{other}");
        }
        assert_eq!(number_of("Boot0001-00000000-0000-0000-0000-000000000000"), None);
    }

    #[test]
    fn what_is_set_is_read_back_with_the_attributes_of_a_kept_variable() {
        let folder = tempfile::tempdir().unwrap();
        let variables = Variables::at(folder.path());
        assert!(!variables.is_mounted());
        assert_eq!((variables.get("Boot0007").unwrap(), variables.boot_order().unwrap()), (None, Vec::new()));
        variables.set("Boot0007", b"entry").unwrap();
        variables.set_boot_order(&[7, 0x102]).unwrap();
        assert_eq!(variables.get("Boot0007").unwrap().as_deref(), Some(b"entry".as_slice()));
        assert_eq!(
            (variables.boot_order().unwrap(), variables.boot_entries().unwrap()),
            (vec![7, 0x102], vec![7])
        );
        let raw = std::fs::read(folder.path().join(format!("BootOrder-{OWNER}"))).unwrap();
        assert_eq!(raw, [7, 0, 0, 0, 7, 0, 2, 1]);
        assert_eq!(variables.secure_boot().unwrap(), None);
        variables.set("SecureBoot", &[1]).unwrap();
        assert_eq!(variables.secure_boot().unwrap(), Some(true));
        std::fs::write(folder.path().join(format!("Boot0008-{OWNER}")), [7]).unwrap();
        assert!(variables.get("Boot0008").is_err());
    }
}
