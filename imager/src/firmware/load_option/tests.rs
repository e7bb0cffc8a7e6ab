//! Entries that OVMF (edk2 2022.11, Debian 12) made for a virtio disk and for its shell, and one as `efibootmgr` makes
//! them.

use super::LoadOption;
use crate::firmware::device_path::{HardDrive, Signature, file, nodes, partition};
use imager_units::Lba;
use proptest::prelude::{any, proptest};

const DISK: &str = "010000001600550045004600490020004d00690073006300200044006500760069006300650000000201\
                    0c00d041030a00000000010106000001\
                    7fff0400\
                    4eac0881119f594d850ee21a522c59b2";
const SHELL: &str = "010000002c00450046004900200049006e007400650072006e0061006c0020005300680065006c006c000000\
                     04071400c9bdb87cebf8344faaea3ee4af6516a10406140083a5047c3e9e1c4fad65e05268d0b4d17fff0400";

/// `efibootmgr --create --disk /dev/vda --part 1 --label debian --loader '\EFI\debian\shimx64.efi'`.
pub(in crate::firmware) fn debian(drive: &HardDrive) -> Vec<u8> {
    let wide = |text: &str| text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let name = wide("\\EFI\\debian\\shimx64.efi");
    let mut path = drive.encode();
    path.extend([4, 4]);
    path.extend(u16::try_from(name.len() + 4).unwrap().to_le_bytes());
    path.extend(name);
    path.extend([0x7f, 0xff, 4, 0]);
    let mut entry = vec![1, 0, 0, 0];
    entry.extend(u16::try_from(path.len()).unwrap().to_le_bytes());
    entry.extend(wide("debian"));
    entry.extend(path);
    entry
}

#[test]
fn what_firmware_made_is_read_and_written_back() {
    for (hex, description, count, optional) in
        [(DISK, "UEFI Misc Device", 2, 16), (SHELL, "EFI Internal Shell", 2, 0)]
    {
        let bytes = hex::decode(hex).unwrap();
        let option = LoadOption::parse(&bytes).unwrap();
        assert_eq!((option.description().as_str(), option.is_active()), (description, true));
        assert_eq!((nodes(&option.path).unwrap().len(), option.optional_data.len()), (count, optional));
        assert_eq!((partition(&option.path).unwrap(), file(&option.path).unwrap()), (None, None));
        assert_eq!(option.encode().unwrap(), bytes);
    }
}

#[test]
fn what_an_installer_made_names_a_partition_and_a_file() {
    let signature = Signature::parse("AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE").unwrap();
    let drive = HardDrive { number: 1, start: Lba::new(2048), sectors: 65_536, signature };
    let bytes = debian(&drive);
    let option = LoadOption::parse(&bytes).unwrap();
    assert_eq!(option.description(), "debian");
    assert_eq!(file(&option.path).unwrap().as_deref(), Some("\\EFI\\debian\\shimx64.efi"));
    assert_eq!(partition(&option.path).unwrap().map(|(drive, _)| drive), Some(drive));
    assert_eq!(option.encode().unwrap(), bytes);
    for len in 0..bytes.len() {
        assert!(LoadOption::parse(&bytes[..len]).is_err(), "{len}");
    }
}

#[test]
fn a_name_cannot_control_the_terminal_that_shows_it() {
    let mut bytes =
        debian(&HardDrive { number: 1, start: Lba::new(1), sectors: 1, signature: Signature::None });
    bytes[6] = 0x1b;
    assert!(!LoadOption::parse(&bytes).unwrap().description().contains('\u{1b}'));
}

proptest! {
    #[test]
    fn what_is_read_is_written_back_whatever_it_is(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(option) = LoadOption::parse(&bytes) {
            assert_eq!(option.encode().unwrap(), bytes);
            let _any = (option.description(), partition(&option.path), file(&option.path));
        }
    }
}
