use super::{Design, Finding, Level, Part, Tree, design};
use crate::survey::fstab::FSTAB;
use imager_image::manifest::Role;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const GIB: u64 = 1 << 30;

fn part(key: &str, name: &str, role: Role, disk: u32) -> Part {
    Part {
        key: key.to_owned(),
        name: name.to_owned(),
        role,
        filesystem: Some("ext4".to_owned()),
        size_bytes: 20 * GIB,
        free_bytes: Some(10 * GIB),
        disks: BTreeSet::from([disk]),
        stack: None,
    }
}

fn machine(parts: Vec<Part>, fstab: &str) -> Design {
    let files = [(FSTAB.to_owned(), fstab.to_owned())].into();
    Design { parts, files, ..Design::default() }
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn of<'f>(findings: &'f [Finding], check: &str) -> Vec<(Level, &'f str)> {
    findings.iter().filter(|f| f.check == check).map(|f| (f.level, f.what.as_str())).collect()
}

#[test]
fn a_machine_as_the_method_wants_it_has_nothing_to_be_told() {
    let parts = vec![part("1", "/", Role::Os, 1), part("2:1", "/srv", Role::Data, 2)];
    let findings = design(&machine(parts, "UUID=1 / ext4\nLABEL=data /srv ext4\n"), None);
    assert!(findings.iter().all(|finding| finding.level == Level::Good), "{findings:?}");
    assert_eq!(findings.len(), 4);
}

#[test]
fn what_is_built_otherwise_is_said_with_a_reason_and_a_way_out() {
    let full = Part { free_bytes: Some(GIB), ..part("1", "/", Role::Os, 1) };
    let mut bad = machine(vec![full], "/dev/sda1 / ext4\n/dev/disk/by-path/pci-1 /srv ext4\n");
    bad.files
        .insert("/etc/crypttab".to_owned(), "# c\nroot UUID=1 none tpm2-device=auto\nswap x y\n".to_owned());
    let findings = design(&bad, None);
    assert_eq!(of(&findings, "data-apart")[0].0, Level::Warning);
    assert_eq!(
        of(&findings, "names")[0],
        (Level::Problem, "/etc/fstab names /dev/sda1, /dev/disk/by-path/pci-1")
    );
    assert_eq!(of(&findings, "keys").len(), 1);
    assert_eq!(of(&findings, "room")[0].1, "volume 1 (/) has 1.0 GiB free of 20.0 GiB");
    let silent = findings.iter().filter(|f| f.level > Level::Good && (f.why.is_empty() || f.todo.is_empty()));
    assert_eq!(silent.count(), 0);
    let shared = machine(vec![part("1", "/", Role::Os, 1), part("2", "/srv", Role::Data, 1)], "");
    assert_eq!(of(&design(&shared, None), "disks-apart")[0].0, Level::Advice);
}

#[test]
fn the_files_of_a_running_system_tell_what_binds_it_to_its_hardware() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro\n");
    write(root.path(), "etc/initramfs-tools/initramfs.conf", "# x\nMODULES=most\n");
    write(root.path(), "etc/initramfs-tools/conf.d/driver-policy", "MODULES=dep\n");
    write(root.path(), "etc/netplan/50.yaml", "match:\n  macaddress: 52:54:00:12:34:56\n");
    write(root.path(), "etc/systemd/network/10.link", "#MACAddress=52:54:00:12:34:56\n");
    write(root.path(), "var/lib/postgresql/15/main/PG_VERSION", "15");
    fs::create_dir_all(root.path().join("srv/lost+found")).unwrap();
    let tree = Tree::below(root.path());
    let findings = design(&machine(vec![part("1", "/", Role::Os, 1)], ""), Some(&tree));
    assert_eq!(of(&findings, "names"), [(Level::Problem, "the kernel was told root=/dev/vda1")]);
    assert_eq!(of(&findings, "drivers")[0].0, Level::Warning);
    assert_eq!(
        of(&findings, "network")[0].1,
        "network cards are known by their addresses in /etc/netplan/50.yaml"
    );
    let misplaced = of(&findings, "data-on-system");
    assert!(misplaced.len() == 1 && misplaced[0].1.starts_with("/var/lib/postgresql "), "{misplaced:?}");
}
