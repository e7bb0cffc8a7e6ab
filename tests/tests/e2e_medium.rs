//! The rescue medium, looked at with tools that are not ours: what is on it, who signed it, whether its programs start,
//! whether it is the same when it is built again, and whether machines start from it.

use halfhour_tests::lab::{Firmware, Hardware, Machine, Start};
use halfhour_tests::{Scratch, binary, device, medium, need, skip, tool, try_tool};
use std::path::{Path, PathBuf};

/// As apt does when it cannot go online, whatever this machine's way to its mirror is.
const NO_WAY_OUT: [(&str, &str); 2] =
    [("http_proxy", "http://127.0.0.1:9"), ("https_proxy", "http://127.0.0.1:9")];
/// The medium has to be smaller, and the archive that is unpacked into memory too.
const ISO_BYTES_MAX: u64 = 120 << 20;

/// A file as other programs take it.
fn name(path: &Path) -> String {
    path.display().to_string()
}

/// What lies in a folder of an ISO, taken out by xorriso.
fn taken_out(iso: &Path, inside: &str, to: &Path) {
    tool("xorriso", &["-osirrox", "on", "-indev", &name(iso), "-extract", inside, &name(to)]);
    tool("chmod", &["-R", "u+w", &name(to)]);
}

/// The rescue system, as the kernel would unpack it.
fn unpacked(initrd: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    let whole = to.with_extension("archives");
    tool("zstd", &["-q", "-d", "-f", &name(initrd), "-o", &name(&whole)]);
    let bytes = std::fs::read(&whole).expect("archives");
    let mut rest = bytes.as_slice();
    // The name with its length before it: busybox has the name alone in it.
    let end = b"0000000B00000000TRAILER!!!\0";
    while let Some(at) = rest.windows(end.len()).position(|window| window == end) {
        let (archive, after) = rest.split_at((at + end.len()).next_multiple_of(4));
        std::fs::write(&whole, archive).expect("an archive");
        let line = "cd \"$1\" && cpio -i -d -u -m --quiet --no-absolute-filenames <\"$2\"";
        tool("sh", &["-ec", line, "sh", &name(to), &name(&whole)]);
        rest = after;
    }
    assert!(rest.is_empty(), "something follows the archives");
}

#[test]
fn a_medium_is_what_it_says() {
    let scratch = Scratch::new();
    if !need::programs(&["xorriso", "sbverify", "cpio", "zstd", "sfdisk", "modinfo"]) {
        return;
    }
    let settings = "repo = \"https://10.0.2.2:7443/default#ab\"\ntoken = \"secret\"\n";
    let Some(iso) = medium::iso(&scratch, "rescue", settings, &[]) else { return };
    let len = iso.metadata().expect("an ISO").len();
    println!("{len} bytes");
    assert!(len < ISO_BYTES_MAX, "{len} bytes");

    // A disc for both firmwares, and a disk with a table.
    let report = tool("xorriso", &["-indev", &name(&iso), "-report_el_torito", "plain"]);
    assert!(report.contains("BIOS") && report.contains("UEFI"), "{report}");
    let table = tool("sfdisk", &["--dump", &name(&iso)]);
    assert!(table.contains("C12A7328-F81F-11D2-BA4B-00A0C93EC93B"), "an EFI system partition: {table}");

    let tree = scratch.path("iso");
    taken_out(&iso, "/", &tree);
    signed(&iso, &tree);
    let system = scratch.path("system");
    unpacked(&tree.join("boot/initrd.img"), &system);
    signed_modules(&system);
    starts_its_programs(&system);

    let config = scratch.path("config");
    std::fs::create_dir_all(&config).expect("a folder");
    let line = "cd \"$1\" && cpio -i -d --quiet <\"$2\"";
    tool("sh", &["-ec", line, "sh", &name(&config), &name(&tree.join("boot/config.img"))]);
    let kept = std::fs::read_to_string(config.join("etc/halfhour/rescue.toml")).expect("the settings");
    assert_eq!(kept, settings);
    let modes = tool("stat", &["-c", "%a", &name(&config.join("etc/halfhour/rescue.toml")), &name(&iso)]);
    assert_eq!(modes, "600\n600\n", "nobody else reads the token");
}

/// Everything that the firmware and the kernel check is signed by whom they trust.
fn signed(iso: &Path, tree: &Path) {
    let issuers = |path: &Path| tool("sbverify", &["--list", &name(path)]);
    assert!(issuers(&tree.join("boot/vmlinuz")).contains("Debian Secure Boot CA"));
    let table = tool("sfdisk", &["--json", &name(iso)]);
    let table: serde_json::Value = serde_json::from_str(&table).expect("JSON");
    let partitions = table["partitiontable"]["partitions"].as_array().expect("partitions");
    let system = partitions
        .iter()
        .find(|entry| entry["type"].as_str().is_some_and(|kind| kind.starts_with("C12A7328")));
    let start = system.and_then(|entry| entry["start"].as_u64()).expect("an EFI system partition") * 512;
    for (file, by) in [
        ("BOOTX64.EFI", "Microsoft Corporation UEFI CA 2011"),
        ("grubx64.efi", "Debian Secure Boot CA"),
        ("mmx64.efi", "Debian Secure Boot CA"),
    ] {
        let to = tree.join(file);
        tool(
            "mcopy",
            &["-n", "-i", &format!("{}@@{start}", name(iso)), &format!("::EFI/BOOT/{file}"), &name(&to)],
        );
        assert!(issuers(&to).contains(by), "{file}: {}", issuers(&to));
    }
}

/// No module is there that a kernel under Secure Boot would refuse.
fn signed_modules(system: &Path) {
    let all = tool("find", &[&name(&system.join("usr/lib/modules")), "-name", "*.ko*"]);
    let all: Vec<_> = all.lines().collect();
    assert!(all.len() > 500, "{} modules", all.len());
    let unsigned =
        "for f; do zstd -dcq \"$f\" | tail -c 28 | grep -q 'Module signature appended' || echo \"$f\"; done";
    let unsigned = tool("sh", &[&["-c", unsigned, "sh"], all.as_slice()].concat());
    assert_eq!(unsigned, "");
    for driver in [
        "ahci",
        "ata_piix",
        "nvme",
        "virtio_blk",
        "virtio_scsi",
        "megaraid_sas",
        "mpt3sas",
        "hpsa",
        "aacraid",
        "smartpqi",
        "lpfc",
        "qla2xxx",
        "vmw_pvscsi",
        "hv_storvsc",
        "xen_blkfront",
        "usb_storage",
        "uas",
        "xhci_pci",
        "ehci_pci",
        "sdhci_pci",
        "dm_mod",
        "dm_crypt",
        "dm_snapshot",
        "raid1",
        "raid456",
        "bonding",
        "8021q",
        "e1000",
        "e1000e",
        "igb",
        "igc",
        "ixgbe",
        "i40e",
        "ice",
        "bnx2",
        "bnx2x",
        "bnxt_en",
        "tg3",
        "r8169",
        "mlx4_en",
        "mlx5_core",
        "virtio_net",
        "vmxnet3",
        "hv_netvsc",
        "xen_netfront",
        "ena",
        "gve",
        "atlantic",
        "be2net",
        "sfc",
        "cifs",
        "nfsv4",
        "nfsv3",
        "vfat",
        "isofs",
        "ext4",
        "xfs",
        "btrfs",
        "fuse",
        "loop",
        "nbd",
        "efivarfs",
        "usbhid",
        "hid_generic",
        "qemu_fw_cfg",
        "squashfs",
        "overlay",
        "nls_utf8",
        "nls_iso8859_1",
        "nls_cp437",
        "ccm",
        "gcm",
        "cmac",
        "md4",
        "button",
    ] {
        let file = |line: &&&str| {
            let file = line.rsplit('/').next().unwrap_or_default().replace('-', "_");
            file.split(".ko").next() == Some(driver)
        };
        let builtin = format!("/{driver}.ko");
        let release = std::fs::read_dir(system.join("usr/lib/modules"))
            .expect("modules")
            .flatten()
            .next()
            .expect("a kernel");
        let is_builtin = || {
            let list = std::fs::read_to_string(release.path().join("modules.builtin")).expect("a list");
            list.lines().any(|line| line.replace('-', "_").ends_with(&builtin))
        };
        assert!(all.iter().any(|line| file(&line)) || is_builtin(), "no {driver}");
    }
}

/// Every program finds its libraries in the rescue system itself.
fn starts_its_programs(system: &Path) {
    if !need::root() {
        return;
    }
    let root = name(system);
    let inside = |words: &[&str]| tool("chroot", &[&[root.as_str()], words].concat());
    let programs = tool("find", &[&format!("{root}/usr/bin"), &format!("{root}/usr/sbin"), "-type", "f"]);
    let mut count = 0;
    for program in programs.lines().map(|path| path.trim_start_matches(&root)) {
        let bytes = std::fs::read(format!("{root}{program}")).expect("a program");
        let is_static = !bytes.windows(10).any(|window| window == b"/ld-linux-");
        if bytes.starts_with(b"\x7fELF") && !is_static {
            let libraries = inside(&["/lib64/ld-linux-x86-64.so.2", "--list", program]);
            assert!(!libraries.contains("not found"), "{program}: {libraries}");
            count += 1;
        }
    }
    assert!(count > 30, "{count} programs");
    assert!(inside(&["/usr/bin/imager", "--version"]).starts_with("imager "));
    assert!(inside(&["/usr/bin/bootenv-console", "--version"]).starts_with("bootenv-console "));
    assert!(inside(&["/bin/busybox", "sh", "-n", "/etc/udhcpc/script"]).is_empty());
    assert!(inside(&["/sbin/modprobe", "--show-depends", "-S", &release(system), "ext4"]).contains("jbd2"));
    assert!(inside(&["/usr/bin/imager", "--help"]).contains("restore"));
    let (bundle, begin) = (format!("{root}/etc/ssl/certs/ca-certificates.crt"), "BEGIN CERTIFICATE");
    let authorities = std::fs::read_to_string(bundle).expect("authorities").matches(begin).count();
    assert!(authorities > 100, "{authorities} authorities");
}

fn release(system: &Path) -> String {
    let entry = std::fs::read_dir(system.join("usr/lib/modules"))
        .expect("modules")
        .flatten()
        .next()
        .expect("a kernel");
    entry.file_name().into_string().expect("a release")
}

#[test]
fn the_same_packages_and_programs_give_the_same_bytes() {
    let scratch = Scratch::new();
    let Some(first) =
        medium::iso(&scratch, "first", "repo = \"/mnt\"\n", &["--kernel-option", "halfhour.plain"])
    else {
        return;
    };
    // Another cache, in which all is made again that is made of packages; another time zone, language and umask.
    let cache = scratch.folder("cache");
    if !need::full() {
        let line = "cp -al \"$1\"/system-* \"$1\"/kernel-* \"$2\"/ 2>/dev/null || cp -a \"$1\"/system-* \"$1\"/kernel-* \"$2\"/";
        tool("sh", &["-ec", line, "sh", &name(&medium::cache()), &name(&cache)]);
    }
    let second = scratch.path("second.iso");
    let programs = medium::programs(&scratch);
    let line = "umask 077; export TZ=Asia/Tokyo LC_ALL=C.UTF-8; exec \"$@\"";
    let bootenv = name(binary::bootenv());
    let config = scratch.name("first.toml");
    tool(
        "sh",
        &[
            "-ec",
            line,
            "sh",
            &bootenv,
            "build",
            "--programs",
            &name(&programs),
            "--cache",
            &name(&cache),
            "--output",
            &name(&second),
            "--config",
            &config,
            "--kernel-option",
            "halfhour.plain",
        ],
    );
    tool("cmp", &[name(&first), name(&second)]);
}

#[test]
fn what_cannot_be_built_says_what_to_do_next() {
    let scratch = Scratch::new();
    let Some(iso) = medium::iso(&scratch, "there", "", &[]) else { return };
    let before = std::fs::read(&iso).expect("an ISO");
    let programs = medium::programs(&scratch);
    let new = scratch.name("new.iso");
    let says = |programs: &Path, code: i32, options: &[&str], words: &[&str]| {
        let ran = medium::build(programs, &medium::cache(), options);
        ran.expect_code(code);
        let error = ran.json()["error"].clone();
        let text = format!("{} {}", error["message"], error["advice"]);
        assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
        assert!(!error["advice"].as_str().unwrap_or_default().is_empty(), "no advice: {error}");
    };

    says(&programs, 1, &["--output", &name(&iso)], &["is there already", "--overwrite"]);
    says(&programs, 1, &["--output", &name(scratch.folder("folder").as_path())], &["is not a file"]);
    // A device is never replaced by a file.
    says(&programs, 1, &["--output", "/dev/null", "--overwrite"], &["is not a file"]);
    says(
        &programs,
        1,
        &["--output", &scratch.name("no/where.iso")],
        &["there is no folder", "name a file elsewhere"],
    );
    says(&programs, 64, &["--output", &new, "--kernel-option", "a=\"b\""], &["--kernel-option", "--config"]);
    says(&programs, 64, &["--output", &new, "--kernel-option", "halfhour.tokn=x"], &["tokn"]);

    let config = scratch.name("wrong.toml");
    std::fs::write(&config, "repo = \"/mnt\"\ntokn = \"x\"\n").expect("settings");
    says(&programs, 64, &["--output", &new, "--config", &config], &["wrong.toml", "line 2", "tokn"]);
    says(&programs, 1, &["--output", &new, "--config", &scratch.name("none.toml")], &["none.toml"]);

    let few = scratch.folder("few");
    says(&few, 1, &["--output", &new], &["bootenv-init", "scripts/rescue"]);
    for (program, from) in [
        ("imager", binary::imager()),
        ("bootenv-console", binary::console()),
        ("bootenv-init", binary::imager()),
    ] {
        std::os::unix::fs::symlink(from, few.join(program)).expect("a link");
    }
    says(&few, 64, &["--output", &new], &["bootenv-init", "not a static program", "crt-static"]);

    assert!(!Path::new(&new).exists());
    assert_eq!(std::fs::read(&iso).expect("an ISO"), before, "what was there is there");
}

#[test]
fn half_a_task_is_a_warning_because_the_rest_may_be_said_at_the_start() {
    let scratch = Scratch::new();
    let config = scratch.name("half.toml");
    std::fs::write(&config, "repo = \"/mnt\"\ncapture = \"web-1\"\n").expect("settings");
    let Some(ran) = medium::built(&scratch, &["--output", &scratch.name("half.iso"), "--config", &config])
    else {
        return;
    };
    assert!(ran.json()["warnings"][0].as_str().is_some_and(|warning| warning.contains("target")), "{ran:?}");
}

#[test]
fn without_a_mirror_the_build_says_so() {
    let scratch = Scratch::new();
    let mut command = tool_command(&scratch);
    command.args(["--cache", &scratch.name("cache"), "--output", &scratch.name("x.iso")]).envs(NO_WAY_OUT);
    let output = command.output().expect("bootenv runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        skip("this machine reaches its mirror without a proxy's leave");
        return;
    }
    assert!(said.contains("apt-get update") && said.contains("mirror"), "{said}");
    assert!(!scratch.path("x.iso").exists());
}

#[test]
fn a_full_disk_leaves_what_was_there() {
    let scratch = Scratch::new();
    if !need::root() {
        return;
    }
    let Some(iso) = medium::iso(&scratch, "whole", "", &[]) else { return };
    let small = scratch.folder("small");
    let _full = device::tmpfs(&small, 16 << 20);
    let output = small.join("rescue.iso");
    std::fs::write(&output, "before").expect("a file");
    let ran = medium::build(
        &medium::programs(&scratch),
        &medium::cache(),
        &["--output", &name(&output), "--overwrite"],
    );
    ran.expect_code(1);
    assert_eq!(ran.json()["error"]["kind"], "outofspace", "{ran:?}");
    assert_eq!(std::fs::read_to_string(&output).expect("a file"), "before");
    assert_eq!(std::fs::read_dir(&small).expect("a folder").count(), 1, "nothing unfinished is left");
    drop(iso);
}

fn tool_command(scratch: &Scratch) -> std::process::Command {
    let mut command = tool::command(&name(binary::bootenv()));
    command.args(["build", "--programs"]).arg(medium::programs(scratch));
    command
}

/// How a machine starts from a medium.
const STARTS: [&str; 7] = [
    "BIOS, CD",
    "BIOS, USB",
    "UEFI, CD",
    "UEFI, USB",
    "Secure Boot, USB",
    "BIOS, network",
    "Secure Boot, network",
];

#[test]
fn machines_start_from_it() {
    let scratch = Scratch::new();
    for start in need::sample("starts of the medium", &STARTS, 1) {
        let (firmware, way) = start.split_once(", ").expect("two words");
        let firmware = match firmware {
            "BIOS" => Firmware::SeaBios,
            "UEFI" => Firmware::Ovmf,
            _ => Firmware::SecureBoot,
        };
        let Some(from) = source(&scratch, firmware, way) else { return };
        let Some(hardware) = Hardware::new(&scratch, &start.replace(", ", "-"), firmware) else { return };
        let disk = scratch.file("disk", 64 << 20);
        let mut machine = hardware.disk(&disk, halfhour_tests::lab::Bus::Virtio, "LAB0001").power_on(&from);
        machine.expect("halfhour: started");
        machine.expect("halfhour: network eth0 10.0.2.15");
        is_quiet(&machine);
        machine.cut_power();
    }
}

fn source(scratch: &Scratch, firmware: Firmware, way: &str) -> Option<Start> {
    if way == "network" {
        let folder = scratch.path("boot-files");
        let folder =
            if folder.is_dir() { folder } else { medium::boot_files(scratch, "boot-files", "", &[])? };
        let first = if firmware == Firmware::SeaBios { "boot.ipxe" } else { "bootx64.efi" };
        return Some(Start::Network(folder, first.to_owned()));
    }
    let iso = scratch.path("medium.iso");
    let iso = if iso.is_file() { iso } else { medium::iso(scratch, "medium", "", &[])? };
    Some(if way == "CD" { Start::Cd(iso) } else { Start::Usb(iso) })
}

/// The kernel found nothing wrong with what it was given.
fn is_quiet(machine: &Machine) {
    let console = machine.console();
    for complaint in ["Key was rejected", "Initramfs unpacking failed", "module verification failed"] {
        assert!(!console.contains(complaint), "{complaint}\n{console}");
    }
}

#[test]
fn secure_boot_refuses_a_kernel_that_debian_did_not_sign() {
    let scratch = Scratch::new();
    if !need::programs(&["xorriso", "sbattach"]) {
        return;
    }
    let Some(hardware) = Hardware::new(&scratch, "unsigned", Firmware::SecureBoot) else { return };
    let Some(iso) = medium::iso(&scratch, "signed", "", &[]) else { return };
    let kernel: PathBuf = scratch.path("vmlinuz");
    taken_out(&iso, "/boot/vmlinuz", &kernel);
    tool("sbattach", &["--remove", &name(&kernel)]);
    let unsigned = scratch.path("unsigned.iso");
    let replaced = try_tool(
        "xorriso",
        &[
            "-indev",
            &name(&iso),
            "-outdev",
            &name(&unsigned),
            "-boot_image",
            "any",
            "replay",
            "-map",
            &name(&kernel),
            "/boot/vmlinuz",
        ],
    );
    assert!(replaced.is_ok(), "{replaced:?}");
    let mut machine = hardware.power_on(&Start::Cd(unsigned));
    let (which, _) = machine.expect_any(&["bad shim signature", "halfhour: started"]);
    assert_eq!(which, 0, "it was started");
    machine.cut_power();
}
