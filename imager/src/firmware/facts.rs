//! What a capture takes along of the firmware of the machine whose disks it reads.

use super::device_path::{self, Signature};
use super::load_option::LoadOption;
use super::variables::{Variables, entry_name};
use super::{Firmware, Kind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use imager_image::manifest::{BootEntry, BootPartition, Uefi};
use imager_units::Result;

/// What the firmware tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Which kind it is.
    pub kind: Option<Kind>,
    /// What it was told to start.
    pub uefi: Option<Uefi>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

impl Facts {
    /// Asks the firmware. What it does not tell is a warning: a capture is not worth less for it.
    pub fn of(firmware: &Firmware) -> Self {
        let mut facts = Self { kind: firmware.kind(), ..Self::default() };
        if facts.kind != Some(Kind::Uefi) {
            return facts;
        }
        let variables = firmware.variables();
        if !variables.is_mounted() {
            let folder = variables.folder().display();
            facts.warnings.push(format!(
                "the firmware's boot entries are not in the capture: {folder} shows none (mount -t efivarfs efivarfs {folder})"
            ));
            return facts;
        }
        match facts.read(&variables) {
            Ok(uefi) => facts.uefi = Some(uefi),
            Err(error) => {
                let why = imager_volume::chain(&error);
                facts.warnings.push(format!("the firmware's boot entries are not in the capture: {why}"));
            }
        }
        facts
    }

    fn read(&mut self, variables: &Variables) -> Result<Uefi> {
        let mut uefi = Uefi {
            secure_boot: variables.secure_boot()?,
            boot_order: variables.boot_order()?,
            entries: Vec::new(),
        };
        for number in variables.boot_entries()? {
            match entry(variables, number) {
                Ok(entry) => uefi.entries.extend(entry),
                Err(error) => {
                    let (name, why) = (entry_name(number), imager_volume::chain(&error));
                    self.warnings.push(format!("boot entry {name} is not in the capture: {why}"));
                }
            }
        }
        Ok(uefi)
    }
}

/// An entry, unless it went away meanwhile.
fn entry(variables: &Variables, number: u16) -> Result<Option<BootEntry>> {
    variables.get(&entry_name(number))?.map(|bytes| described(number, &bytes)).transpose()
}

fn described(number: u16, bytes: &[u8]) -> Result<BootEntry> {
    let option = LoadOption::parse(bytes)?;
    let partition = device_path::partition(&option.path)?.map(|(drive, _)| BootPartition {
        number: drive.number,
        start_lba: drive.start.get(),
        sectors: drive.sectors,
        id: match drive.signature {
            Signature::None => String::new(),
            signature => signature.to_string(),
        },
    });
    Ok(BootEntry {
        number,
        base64: STANDARD.encode(bytes),
        description: option.description(),
        active: option.is_active(),
        partition,
        file: device_path::file(&option.path)?,
    })
}

#[cfg(test)]
mod tests {
    use super::Facts;
    use crate::firmware::load_option::LoadOption;
    use crate::firmware::{Firmware, Kind};

    #[test]
    fn firmware_that_shows_no_variables_is_a_warning() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("sys/firmware/efi/efivars")).unwrap();
        let facts = Facts::of(&Firmware::below(root.path()));
        assert_eq!((facts.kind, facts.uefi), (Some(Kind::Uefi), None));
        assert!(facts.warnings.join("").contains("efivarfs"), "{:?}", facts.warnings);
    }

    #[test]
    fn entries_are_kept_byte_for_byte_and_damaged_ones_named() {
        let root = tempfile::tempdir().unwrap();
        let firmware = Firmware::below(root.path());
        let variables = firmware.variables();
        std::fs::create_dir_all(variables.folder()).unwrap();
        let shell =
            [&[1, 0, 0, 0, 4, 0][..], &[b'S', 0, b'h', 0, 0, 0], &[0x7f, 0xff, 4, 0], b"more"].concat();
        variables.set("Boot0003", &shell).unwrap();
        variables.set("Boot0004", b"junk").unwrap();
        variables.set_boot_order(&[3, 4]).unwrap();
        variables.set("SecureBoot", &[0]).unwrap();
        let facts = Facts::of(&firmware);
        assert!(facts.warnings.len() == 1 && facts.warnings[0].contains("Boot0004"), "{:?}", facts.warnings);
        let uefi = facts.uefi.unwrap();
        assert_eq!((uefi.secure_boot, uefi.boot_order.as_slice()), (Some(false), &[3, 4][..]));
        let [entry] = uefi.entries.as_slice() else { panic!("{uefi:?}") };
        assert_eq!((entry.number, entry.description.as_str(), entry.active), (3, "Sh", true));
        assert_eq!((&entry.partition, &entry.file), (&None, &None));
        let option = LoadOption::parse(&shell).unwrap();
        assert_eq!((option.optional_data.as_slice(), option.encode().unwrap()), (b"more".as_slice(), shell));
    }
}
