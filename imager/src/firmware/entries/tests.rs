//! Menus of firmware that is a folder.

use super::{Action, Menu, Restored, plan};
use crate::firmware::Firmware;
use crate::firmware::device_path::{HardDrive, Signature, partition};
use crate::firmware::facts::Facts;
use crate::firmware::load_option::LoadOption;
use crate::firmware::load_option::tests::debian;
use crate::firmware::variables::Variables;
use imager_image::manifest::Uefi;
use imager_units::Lba;

const ESP: &str = "AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE";
const OTHER: &str = "AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEE0";

fn drive(id: &str) -> HardDrive {
    HardDrive { number: 1, start: Lba::new(2048), sectors: 65_536, signature: Signature::parse(id).unwrap() }
}

struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    /// With these entries, tried in this order.
    fn new(entries: &[(u16, Vec<u8>)], order: &[u16]) -> Self {
        let machine = Self { root: tempfile::tempdir().unwrap() };
        let variables = machine.variables();
        std::fs::create_dir_all(variables.folder()).unwrap();
        for (number, value) in entries {
            variables.set(&super::entry_name(*number), value).unwrap();
        }
        variables.set_boot_order(order).unwrap();
        machine
    }

    fn variables(&self) -> Variables {
        Firmware::below(self.root.path()).variables()
    }

    fn captured(&self) -> Uefi {
        Facts::of(&Firmware::below(self.root.path())).uefi.unwrap()
    }
}

/// Something that the firmware has by itself.
fn builtin(name: u8) -> Vec<u8> {
    vec![1, 0, 0, 0, 4, 0, name, 0, 0, 0, 0x7f, 0xff, 4, 0]
}

fn restored() -> Vec<Restored> {
    vec![Restored { drive: drive(ESP), disk: "/dev/vda".into() }]
}

fn numbers(menu: &Menu) -> Vec<(u16, Action)> {
    menu.entries.iter().map(|entry| (entry.number, entry.action)).collect()
}

#[test]
fn a_menu_without_the_entry_gets_it_first_and_loses_nothing() {
    let old = Machine::new(&[(0, builtin(b'u')), (5, debian(&drive(ESP)))], &[5, 0]);
    let new = Machine::new(&[(0, builtin(b'v')), (1, builtin(b'w'))], &[0, 1]);
    let menu = plan(&old.captured(), &restored(), &new.variables()).unwrap();
    assert_eq!(numbers(&menu), [(5, Action::Write)]);
    assert_eq!(
        (menu.entries[0].description.as_str(), menu.entries[0].file.as_str()),
        ("debian", "\\EFI\\debian\\shimx64.efi")
    );
    assert!(menu.write(&new.variables()).is_empty());
    assert_eq!(new.variables().boot_order().unwrap(), [5, 0, 1]);
    assert_eq!(new.variables().get("Boot0005").unwrap(), Some(debian(&drive(ESP))));
    assert_eq!(new.variables().get("Boot0000").unwrap(), Some(builtin(b'v')));
}

#[test]
fn an_entry_that_is_there_stays_under_its_number() {
    let old = Machine::new(&[(0, debian(&drive(ESP))), (1, builtin(b'u'))], &[0, 1]);
    let new = Machine::new(&[(0, builtin(b'v')), (7, debian(&drive(ESP)))], &[0, 7]);
    let menu = plan(&old.captured(), &restored(), &new.variables()).unwrap();
    assert_eq!(numbers(&menu), [(7, Action::Keep)]);
    assert!(menu.write(&new.variables()).is_empty());
    assert_eq!(new.variables().boot_order().unwrap(), [7, 0]);
    assert_eq!(new.variables().boot_entries().unwrap(), [0, 7]);
}

#[test]
fn a_number_that_is_taken_is_not_overwritten() {
    let old = Machine::new(&[(0, debian(&drive(ESP)))], &[0]);
    let new = Machine::new(&[(0, builtin(b'v')), (1, b"junk".to_vec())], &[0]);
    let menu = plan(&old.captured(), &restored(), &new.variables()).unwrap();
    assert_eq!(numbers(&menu), [(2, Action::Write)]);
    assert!(menu.write(&new.variables()).is_empty());
    assert_eq!(new.variables().boot_order().unwrap(), [2, 0]);
    assert_eq!(new.variables().get("Boot0001").unwrap().as_deref(), Some(b"junk".as_slice()));
}

#[test]
fn entries_for_other_disks_are_none_of_our_business() {
    let old = Machine::new(&[(0, debian(&drive(OTHER))), (1, builtin(b'u'))], &[0, 1]);
    let new = Machine::new(&[(3, builtin(b'v'))], &[3]);
    let menu = plan(&old.captured(), &restored(), &new.variables()).unwrap();
    assert!(menu.entries.is_empty() && menu.write(&new.variables()).is_empty());
    assert_eq!(new.variables().boot_order().unwrap(), [3]);
}

#[test]
fn an_entry_that_is_not_tried_by_itself_stays_out_of_the_order() {
    let old = Machine::new(&[(0, debian(&drive(ESP))), (1, builtin(b'u'))], &[1]);
    let new = Machine::new(&[], &[]);
    let menu = plan(&old.captured(), &restored(), &new.variables()).unwrap();
    assert!(menu.write(&new.variables()).is_empty());
    assert_eq!(
        (new.variables().boot_entries().unwrap(), new.variables().boot_order().unwrap()),
        (vec![0], vec![])
    );
}

#[test]
fn a_path_through_old_controllers_becomes_one_that_begins_with_the_partition() {
    let mut option = LoadOption::parse(&debian(&drive(ESP))).unwrap();
    let pci = [2, 1, 12, 0, 0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0, 1, 1, 6, 0, 0, 4];
    let elsewhere = HardDrive { start: Lba::new(34), ..drive(ESP) };
    option.path = [&pci[..], &elsewhere.encode(), option.path.get(42..).unwrap()].concat();
    let old = Machine::new(&[(0, option.encode().unwrap())], &[0]);
    let new = Machine::new(&[], &[]);
    let menu = plan(&old.captured(), &restored(), &new.variables()).unwrap();
    assert!(menu.write(&new.variables()).is_empty());
    let written = LoadOption::parse(&new.variables().get("Boot0000").unwrap().unwrap()).unwrap();
    assert_eq!(written.encode().unwrap(), debian(&drive(ESP)));
    assert_eq!(partition(&written.path).unwrap().unwrap().0, drive(ESP));
}

#[test]
fn on_an_mbr_disk_signature_and_number_tell_the_partition() {
    let mbr = |number| HardDrive { number, signature: Signature::Mbr(0xc0ff_ee00), ..drive(ESP) };
    let old = Machine::new(&[(0, debian(&mbr(1))), (1, debian(&mbr(2)))], &[1, 0]);
    let new = Machine::new(&[], &[]);
    let restored = vec![Restored { drive: mbr(2), disk: "/dev/vda".into() }];
    let menu = plan(&old.captured(), &restored, &new.variables()).unwrap();
    assert_eq!(numbers(&menu), [(1, Action::Write)]);
}

#[test]
fn what_the_firmware_refuses_is_told_with_the_command_that_does_it() {
    let old = Machine::new(&[(0, debian(&drive(ESP)))], &[0]);
    let new = Machine::new(&[(4, builtin(b'v'))], &[4]);
    let menu = plan(&old.captured(), &restored(), &new.variables()).unwrap();
    // A folder in its place cannot be written.
    std::fs::create_dir(new.variables().folder().join("Boot0000-8be4df61-93ca-11d2-aa0d-00e098032b8c"))
        .unwrap();
    let warnings = menu.write(&new.variables());
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    let by_hand = "efibootmgr --create --disk '/dev/vda' --part 1 --label 'debian' --loader '\\EFI\\debian\\shimx64.efi'";
    assert!(warning.contains(by_hand), "{warning}");
    assert_eq!(new.variables().boot_order().unwrap(), [4], "what is not there is not tried");
}
