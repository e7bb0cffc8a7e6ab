//! Block devices as the kernel has them: loop devices with tables, file systems, swap, and everything that uses them.
//!
//! Needs root and loop devices; says so and skips where there are none, and fails there when `CI` is set.

mod loop_device;

use imager_disk::usage::{Use, What};
use imager_disk::{Access, Device, DeviceNumber, Fault, FaultyDisk, Protection, ReadAt, System, WriteAt};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, SectorSize};
use loop_device::{LoopDevice, loop_on, mount, run, swap_on};
use std::path::Path;
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;
/// Partitions at 1, 5 and 9 MiB.
const THREE: &str = "label: gpt\nsize=4M\nsize=4M\nsize=4M\n";

fn open(path: &Path, access: Access) -> Device {
    Device::open(path, access, None).expect("it opens")
}

fn number(path: &Path) -> DeviceNumber {
    open(path, Access::Read).number().expect("a block device")
}

fn extent(start: u64, len: u64) -> Extent {
    Extent::new(ByteOffset::new(start), ByteLen::new(len)).expect("a small extent")
}

fn read(disk: &impl ReadAt, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xEE; len];
    disk.read_exact_at(ByteOffset::new(at), &mut bytes).expect("it reads");
    bytes
}

fn uses(path: &Path) -> Vec<Use> {
    System::new().uses(&open(path, Access::Read)).expect("the kernel tells")
}

fn format(node: &Path) {
    run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), node]);
}

#[test]
fn geometry_is_what_the_kernel_says() {
    for (bytes, sector) in [(512, SectorSize::B512), (4096, SectorSize::B4096)] {
        let Some(disk) = LoopDevice::new(16 * MIB, bytes, "") else { return };
        let device = open(&disk.path, Access::ReadDirect);
        let geometry = device.geometry();
        assert_eq!((geometry.size, geometry.logical), (ByteLen::new(16 * MIB), sector));
        assert!(geometry.physical >= sector && device.is_block() && device.is_direct());
        let other = Device::open(&disk.path, Access::Read, Some(SectorSize::B4096)).unwrap();
        assert_eq!(other.geometry().logical, SectorSize::B4096, "a table written elsewhere counts otherwise");
    }
}

#[test]
fn any_byte_of_a_disk_of_any_size_is_read_and_written() {
    for (sector, size) in [(512, MIB), (512, MIB + 3 * 512), (4096, MIB), (4096, MIB + 5 * 512)] {
        let Some(disk) = LoopDevice::new(size, sector, "") else { return };
        let device = open(&disk.path, Access::Write);
        let whole = size - size % u64::from(sector);
        assert_eq!(device.geometry().size, ByteLen::new(whole), "the kernel cannot reach a part of a sector");
        let size = whole;
        let mut model = vec![0; usize::try_from(size).unwrap()];
        let lens = [1_u64, 511, 512, 513, 4095, 4096, 4097, 70_000];
        for (value, len) in (1..).zip(lens) {
            for at in [0, 1, 511, 512, 4096, 4097, 300_000, size - len - 1, size - len] {
                let part = &mut model[usize::try_from(at).unwrap()..][..usize::try_from(len).unwrap()];
                part.fill(value);
                if at % 3 == 1 {
                    part.fill(0);
                    device.zero(extent(at, len)).unwrap();
                } else {
                    device.write_all_at(ByteOffset::new(at), part).unwrap();
                }
                assert!(read(&device, at, part.len()) == part, "{len} at {at} of {size}");
            }
        }
        assert!(read(&device, 0, model.len()) == model);
        device.flush().unwrap();
        device.drop_cache(device.geometry().extent());
        assert!(read(&device, 0, model.len()) == model);
        let beyond = device.write_all_at(ByteOffset::new(size - 1), b"xx").unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::Invalid);
        assert_eq!(device.data(extent(0, size)).unwrap().total(), ByteLen::new(size));
        drop(device);
        assert!(read(&open(&disk.path, Access::Read), 0, model.len()) == model);
        assert!(
            std::fs::read(disk.file()).unwrap()[..model.len()] == model,
            "it is in the file behind the disk"
        );
    }
}

#[test]
fn an_unreadable_run_fails_and_its_neighbours_do_not() {
    let Some(disk) = LoopDevice::new(4 * MIB, 512, "") else { return };
    open(&disk.path, Access::Write).write_all_at(ByteOffset::new(MIB), &[7; 4096]).unwrap();
    // The kernel fails what the file behind the disk no longer has.
    std::fs::File::options().write(true).open(disk.file()).unwrap().set_len(MIB + 4096).unwrap();
    let device = open(&disk.path, Access::ReadDirect);
    assert_eq!(read(&device, MIB, 4096), [7; 4096]);
    let error = device.read_exact_at(ByteOffset::new(2 * MIB), &mut [0; 4096]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("0x200000+0x1000"), "{error}");
}

#[test]
fn a_device_behind_faults_has_them() {
    let Some(disk) = LoopDevice::new(MIB, 512, "") else { return };
    let device = FaultyDisk::new(open(&disk.path, Access::Write), [Fault::Bad(extent(4096, 512))]);
    assert_eq!(device.read_exact_at(ByteOffset::new(4000), &mut [0; 100]).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(read(&device, 4608, 10), [0; 10]);
}

#[test]
fn an_exclusive_claim_is_respected_both_ways() {
    let Some(disk) = LoopDevice::new(16 * MIB, 512, THREE) else { return };
    let first = open(&disk.partition(1), Access::Write);
    for claimed in [disk.partition(1), disk.path.clone()] {
        let error = Device::open(&claimed, Access::Write, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("is in use"), "{error}");
    }
    let error = Device::open(&disk.partition(1), Access::ReadClaimed, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let second = open(&disk.partition(2), Access::ReadClaimed);
    let error = Device::open(&disk.partition(2), Access::Write, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(second.write_all_at(ByteOffset::ZERO, b"x").unwrap_err().kind(), ErrorKind::Denied);
    let boot_code = open(&disk.path, Access::WriteShared);
    boot_code.write_all_at(ByteOffset::ZERO, &[0x90; 440]).unwrap();
    drop((first, second));
    assert_eq!(read(&open(&disk.path, Access::ReadDirect), 0, 440), [0x90; 440]);
}

#[test]
fn a_mounted_partition_is_found_from_its_disk_and_its_file() {
    let Some(disk) = LoopDevice::new(16 * MIB, 512, THREE) else { return };
    format(&disk.partition(1));
    assert!(uses(&disk.path).is_empty() && uses(&disk.partition(1)).is_empty());
    let on = format!("{}p1", disk.name());
    for (options, read_only) in [("rw", false), ("ro", true)] {
        let at = disk.beside("a place");
        let mounted = mount(&disk.partition(1), &at, options);
        let expected = Use { on: on.clone(), what: What::Mounted { at: at.clone(), read_only } };
        assert_eq!(uses(&disk.partition(1)), std::slice::from_ref(&expected));
        assert_eq!(uses(&disk.path), std::slice::from_ref(&expected));
        assert_eq!(expected.writes(), !read_only);
        let of_file = uses(&disk.file());
        assert!(of_file.contains(&expected) && of_file.iter().any(|u| u.what == What::Loop(disk.name())));
        assert!(uses(&disk.partition(2)).is_empty());
        assert_eq!(
            Device::open(&disk.partition(1), Access::Write, None).unwrap_err().kind(),
            ErrorKind::Denied
        );
        drop(mounted);
    }
    assert!(uses(&disk.path).is_empty());
}

#[test]
fn swap_and_stacked_devices_are_found() {
    let Some(disk) = LoopDevice::new(16 * MIB, 512, THREE) else { return };
    let swap = swap_on(&disk.partition(2));
    let (above, undo) = loop_on(&disk.partition(3));
    format(&above);
    let mounted = mount(&above, &disk.beside("stacked"), "rw");
    let found: Vec<_> = uses(&disk.path).iter().map(Use::to_string).collect();
    let (name, above) = (disk.name(), above.file_name().unwrap().to_string_lossy().into_owned());
    for expected in [
        format!("{name}p2 is swap space in use"),
        format!("{name}p3 is the file behind {above}"),
        format!("{above} is mounted at {}", disk.beside("stacked").display()),
    ] {
        assert!(found.contains(&expected), "{expected} is among {found:?}");
    }
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(uses(&disk.partition(1)).is_empty());
    drop((mounted, undo, swap));
}

#[test]
fn a_mount_in_another_namespace_is_a_claim() {
    let Some(disk) = LoopDevice::new(16 * MIB, 512, THREE) else { return };
    format(&disk.partition(1));
    let at = disk.beside("elsewhere");
    std::fs::create_dir(&at).unwrap();
    let script = "mount \"$0\" \"$1\" && echo mounted && read -r end";
    let mut other = Command::new("unshare");
    other.args(["-m", "--propagation", "private", "sh", "-c", script]).arg(disk.partition(1)).arg(&at);
    let mut other = other.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(other.stdout.take().unwrap()), &mut said)
        .unwrap();
    let found = uses(&disk.path);
    drop(other.stdin.take());
    other.wait().unwrap();
    assert_eq!(said, "mounted\n");
    assert_eq!(found, [Use { on: format!("{}p1", disk.name()), what: What::Claimed }]);
}

#[test]
fn the_disks_under_a_path_are_found_through_loop_devices() {
    let Some(disk) = LoopDevice::new(16 * MIB, 512, THREE) else { return };
    format(&disk.partition(1));
    let mounted = mount(&disk.partition(1), &disk.beside("share"), "rw");
    let system = System::new();
    let under = system.backs_path(&disk.beside("share")).unwrap();
    let below_the_file = system.backs_path(&disk.file()).unwrap();
    assert!(under.contains(&number(&disk.path)) && under.contains(&number(&disk.partition(1))));
    assert!(!under.contains(&number(&disk.partition(2))));
    assert!(below_the_file.iter().all(|device| under.contains(device)), "{under:?} {below_the_file:?}");
    assert!(!below_the_file.contains(&number(&disk.path)));
    drop(mounted);
}

#[test]
fn a_write_protected_device_refuses_writes_until_it_is_released() {
    let Some(disk) = LoopDevice::new(16 * MIB, 512, THREE) else { return };
    let switch = open(&disk.partition(2), Access::Read);
    let writer = open(&disk.partition(2), Access::WriteShared);
    writer.write_all_at(ByteOffset::ZERO, &[1; 4096]).unwrap();
    switch.protect(Protection::ReadOnly).unwrap();
    assert_eq!(switch.protection().unwrap(), Protection::ReadOnly);
    assert_eq!(writer.write_all_at(ByteOffset::ZERO, &[2; 4096]).unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(writer.zero(extent(0, 4096)).unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(Device::open(&disk.partition(2), Access::Write, None).unwrap_err().kind(), ErrorKind::Denied);
    open(&disk.partition(1), Access::Write).write_all_at(ByteOffset::ZERO, &[1; 512]).unwrap();
    switch.protect(Protection::Writable).unwrap();
    writer.write_all_at(ByteOffset::ZERO, &[3; 4096]).unwrap();
    assert_eq!(read(&writer, 0, 4096), [3; 4096]);
}

#[test]
fn counters_rise_by_exactly_what_was_written() {
    let Some(disk) = LoopDevice::new(16 * MIB, 512, THREE) else { return };
    let system = System::new();
    let numbers = [disk.path.clone(), disk.partition(1), disk.partition(2)].map(|path| number(&path));
    let count = || numbers.map(|number| system.write_counters(number).unwrap());
    let before = count();
    let device = open(&disk.partition(1), Access::Write);
    device.write_all_at(ByteOffset::new(512), &[1; 3 * 4096]).unwrap();
    device.write_all_at(ByteOffset::new(MIB), &[1; 512]).unwrap();
    device.flush().unwrap();
    read(&device, 0, 10_000);
    let written = ByteLen::new(3 * 4096 + 512);
    let after = count();
    let risen = [0, 1, 2].map(|at: usize| after[at].since(before[at]));
    assert_eq!((risen[0].written, risen[1].written), (written, written));
    assert!(risen[2].is_nothing() && !risen[0].is_nothing());
    device.zero(extent(2 * MIB, MIB)).unwrap();
    let zeroed = count();
    let risen = [0, 1, 2].map(|at: usize| zeroed[at].since(after[at]));
    assert_eq!((risen[0].written, risen[1].written), (ByteLen::new(MIB), ByteLen::new(MIB)));
    assert!(risen[2].is_nothing() && risen[1].discards == 0);
}

#[test]
fn partitions_are_listed_and_a_new_table_is_read() {
    for sector in [512, 4096] {
        let Some(disk) = LoopDevice::new(16 * MIB, sector, THREE) else { return };
        let system = System::new();
        let list = || system.partitions(number(&disk.path)).unwrap();
        let found: Vec<_> = list().into_iter().map(|p| (p.number, p.path, p.extent)).collect();
        let expected = [1, 2, 3].map(|n| (n, disk.partition(n), extent((n as u64 * 4 - 3) * MIB, 4 * MIB)));
        assert_eq!(found, expected, "with sectors of {sector} bytes");
        let writer = open(&disk.path, Access::Write);
        writer.zero(writer.geometry().extent()).unwrap();
        writer.flush().unwrap();
        writer.reread_table().unwrap();
        assert!(list().is_empty());
    }
}

#[test]
fn a_table_is_not_read_again_while_a_partition_is_in_use() {
    let Some(disk) = LoopDevice::new(16 * MIB, 512, THREE) else { return };
    format(&disk.partition(1));
    let mounted = mount(&disk.partition(1), &disk.beside("here"), "rw");
    let error = open(&disk.path, Access::Read).reread_table().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    drop(mounted);
    open(&disk.path, Access::Read).reread_table().unwrap();
}

#[test]
fn a_loop_device_is_identified_by_what_it_is() {
    let Some(disk) = LoopDevice::new(16 * MIB, 512, THREE) else { return };
    let link = disk.beside("link");
    std::os::unix::fs::symlink(disk.partition(2), &link).unwrap();
    let system = System::new();
    assert_eq!(system.find(link.to_str().unwrap()).unwrap(), disk.partition(2));
    let identity = system.identity(&open(&link, Access::Read)).unwrap();
    assert_eq!((identity.path, identity.size), (disk.partition(2), ByteLen::new(4 * MIB)));
    assert_eq!(identity.kernel_name, Some(format!("{}p2", disk.name())));
    assert_eq!((identity.model.as_str(), identity.serial, identity.wwn), ("loop", None, None));
    assert_eq!(system.find("serial:no such disk").unwrap_err().kind(), ErrorKind::NotFound);
}
