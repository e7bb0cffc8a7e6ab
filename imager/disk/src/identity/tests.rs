use super::Sources;
use crate::system::described::Machine;
use crate::{Access, Device};
use imager_units::{ByteLen, ErrorKind};

fn machine() -> Machine {
    let machine = Machine::new();
    // SATA, as libata shows it.
    machine.disk("sda", "8:0").partition("sda", 2, "8:2", 2048, 100).partition(
        "sda",
        10,
        "8:10",
        4096,
        1 << 32,
    );
    machine.attribute("sda", "device/vendor", "ATA     ");
    machine.attribute("sda", "device/model", "SAMSUNG MZ7LH480\n");
    machine.attribute("sda", "device/vpd_pg80", b"\0\x80\0\x14      S45PNA0M 123456");
    machine.attribute("sda", "device/wwid", "naa.5002538e40a1b2c3\n");
    // NVMe.
    machine.disk("nvme0n1", "259:0");
    machine.attribute("nvme0n1", "device/model", "INTEL SSDPE2KX010T8                     \n");
    machine.attribute("nvme0n1", "device/serial", "PHLJ0001  \n");
    machine.attribute("nvme0n1", "wwid", "eui.01000000010000005cd2e4\n");
    // virtio, with a serial given to the hypervisor.
    machine.disk("vda", "254:0");
    machine.attribute("vda", "device/vendor", "0x1af4\n");
    machine.attribute("vda", "serial", "root-disk\n");
    machine.file("sys/bus/virtio/x", "");
    std::os::unix::fs::symlink(
        machine.path("sys/bus/virtio"),
        machine.path("sys/devices/vda/device/subsystem"),
    )
    .unwrap();
    // An old RAID controller that only udev knows.
    machine.disk("cciss!c0d0", "104:0");
    machine.file("run/udev/data/b104:0", "N:cciss/c0d0\nE:ID_MODEL=LOGICAL_VOLUME\nE:ID_SERIAL_SHORT=PA\u{1}B\nE:ID_WWN=0x600508b1\nG:systemd\n");
    // The other path of a mirrored enclosure, and a hidden one of NVMe multipath.
    machine.disk("sdb", "8:16");
    machine.attribute("sdb", "device/vendor", "QEMU    ");
    machine.attribute("sdb", "device/model", "QEMU HARDDISK   ");
    machine.attribute("sdb", "device/wwid", "naa.5002538e40a1b2c3\n");
    machine.disk("nvme0c0n1", "259:1");
    machine.attribute("nvme0c0n1", "hidden", "1\n");
    machine.attribute("nvme0c0n1", "device/serial", "PHLJ0001\n");
    machine
}

#[test]
fn each_kind_of_disk_is_asked_where_it_answers() {
    let machine = machine();
    for (name, model, serial, wwn) in [
        ("sda", "SAMSUNG MZ7LH480", Some("S45PNA0M 123456"), Some("naa.5002538e40a1b2c3")),
        ("nvme0n1", "INTEL SSDPE2KX010T8", Some("PHLJ0001"), Some("eui.01000000010000005cd2e4")),
        ("vda", "virtio", Some("root-disk"), None),
        ("cciss!c0d0", "LOGICAL_VOLUME", Some("PA B"), Some("0x600508b1")),
        ("sdb", "QEMU HARDDISK", None, Some("naa.5002538e40a1b2c3")),
    ] {
        let folder = machine.path("sys/devices").join(name);
        let sources = Sources::new(&machine.system, &folder);
        let found = (sources.model(), sources.serial(), sources.wwn());
        assert_eq!(found, (model.to_owned(), serial.map(str::to_owned), wwn.map(str::to_owned)), "{name}");
    }
}

/// A disk at USB, below a hub, whose own device has these attributes.
fn usb(machine: &Machine, name: &str, number: &str, port: &str, attributes: &[(&str, &str)]) {
    let (hub, device) = ("pci/usb1/1-1".to_owned(), format!("pci/usb1/1-1/{port}"));
    for (attribute, text) in [("idVendor", "1d6b"), ("serial", "0000:00:02.0"), ("product", "Hub")] {
        machine.attribute(&hub, attribute, text);
    }
    attributes.iter().for_each(|(attribute, text)| machine.attribute(&device, attribute, text));
    let scsi = format!("{device}/{port}:1.0/host6/target6:0:0/6:0:0:0");
    machine.attribute(&scsi, "vendor", "Kingston\n");
    machine.attribute(&scsi, "model", "DataTraveler 3.0\n");
    machine.disk(name, number);
    let link = machine.path(&format!("sys/devices/{name}/device"));
    std::os::unix::fs::symlink(machine.path(&format!("sys/devices/{scsi}")), link).unwrap();
}

#[test]
fn a_disk_at_usb_has_the_serial_number_of_its_own_device_only() {
    let machine = Machine::new();
    usb(&machine, "sdc", "8:32", "1-1.2", &[("idVendor", "0951"), ("serial", "E0D5\u{7f}5EA573\n")]);
    // One without a number, in the same hub.
    usb(&machine, "sdd", "8:48", "1-1.3", &[("idVendor", "0951")]);
    let said = |name: &str| {
        let folder = machine.path("sys/devices").join(name);
        let sources = Sources::new(&machine.system, &folder);
        (sources.model(), sources.serial())
    };
    let model = "Kingston DataTraveler 3.0".to_owned();
    assert_eq!(said("sdc"), (model.clone(), Some("E0D5 5EA573".to_owned())));
    assert_eq!(said("sdd"), (model, None), "nothing of the hub");
    assert_eq!(machine.system.find("serial:E0D5 5EA573").unwrap(), machine.path("dev/sdc"));
    // Two slots of a card reader share their device's number, and two sticks may have the same one.
    usb(&machine, "sde", "8:64", "1-1.4", &[("idVendor", "0951"), ("serial", "E0D5 5EA573\n")]);
    assert_eq!(machine.system.find("serial:E0D5 5EA573").unwrap_err().kind(), ErrorKind::Invalid);
    // What udev says of a disk is what captures know it by.
    machine.file("run/udev/data/b8:32", "E:ID_SERIAL_SHORT=OWN\n");
    assert_eq!(said("sdc").1.as_deref(), Some("OWN"));
}

#[test]
fn disks_are_found_by_what_they_say() {
    let machine = machine();
    let find = |selector: &str| machine.system.find(selector);
    for (selector, name) in [
        ("serial:S45PNA0M 123456", "sda"),
        ("serial: s45pna0m   123456 ", "sda"),
        ("serial:PHLJ0001", "nvme0n1"),
        ("wwn:0x01000000010000005CD2E4", "nvme0n1"),
        ("wwn:naa.600508b1", "cciss/c0d0"),
    ] {
        assert_eq!(find(selector).unwrap(), machine.path("dev").join(name), "{selector}");
    }
}

#[test]
fn absent_and_ambiguous_disks_are_errors_that_name_the_candidates() {
    let machine = machine();
    let absent = machine.system.find("serial:NONE").unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    assert!(absent.to_string().contains("nvme0n1 (INTEL SSDPE2KX010T8 serial:PHLJ0001 wwn:eui."), "{absent}");
    assert!(!absent.to_string().contains("nvme0c0n1"));
    let several = machine.system.find("wwn:5002538e40a1b2c3").unwrap_err();
    assert_eq!(several.kind(), ErrorKind::Invalid);
    assert!(several.to_string().contains("sda") && several.to_string().contains("sdb"), "{several}");
    for empty in ["serial:", "wwn:", "serial:  "] {
        assert_eq!(machine.system.find(empty).unwrap_err().kind(), ErrorKind::NotFound, "{empty:?}");
    }
    let path = machine.system.find("/absent/disk").unwrap_err();
    assert_eq!(path.kind(), ErrorKind::NotFound);
}

#[test]
fn partitions_are_counted_in_sectors_of_512_bytes_and_sorted_by_number() {
    let machine = machine();
    let partitions = machine.system.partitions("8:0".parse().unwrap()).unwrap();
    let found: Vec<_> =
        partitions.iter().map(|p| (p.number, p.extent.start().get(), p.extent.len().get())).collect();
    assert_eq!(found, [(2, 2048 * 512, 100 * 512), (10, 4096 * 512, (1 << 32) * 512)]);
    assert_eq!(partitions[1].path, machine.path("dev/sda10"));
    assert_eq!(
        (partitions[1].device, partitions[1].kernel_name.as_str()),
        ("8:10".parse().unwrap(), "sda10")
    );
    assert!(machine.system.partitions("8:2".parse().unwrap()).unwrap().is_empty());
    machine.attribute("sda/sda2", "size", "18446744073709551615");
    assert_eq!(machine.system.partitions("8:0".parse().unwrap()).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_file_has_no_serial_and_a_canonical_path() {
    let machine = machine();
    machine.file("disk.img", [1; 700]);
    std::os::unix::fs::symlink("disk.img", machine.path("link")).unwrap();
    let device = Device::open(&machine.path("link"), Access::Read, None).unwrap();
    let identity = machine.system.identity(&device).unwrap();
    assert_eq!(identity.path, machine.path("disk.img").canonicalize().unwrap());
    assert_eq!((identity.model.as_str(), identity.serial, identity.size), ("file", None, ByteLen::new(700)));
}
