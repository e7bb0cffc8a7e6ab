//! Block devices: what the kernel enforces and counts while an operating system is put back onto a disk in use.

use halfhour_tests::tree::Tree;
use halfhour_tests::{Imager, LoopDisk, MIB, Scratch, judge, junk, need, recipe, table, tool};
use imager::captures;
use imager::monitor::Silent;
use imager::repository::{Found, Repository};
use imager::restore::plan::{self, Request, Scope};
use imager::restore::protection::Protected;
use imager::restore::untouched::Proof;
use imager::restore::volume::ReadBack;
use imager::restore::{self, Options, Report};
use imager_disk::{Access, Device};
use imager_units::ErrorKind;
use netshare_store::DirStore;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

/// Parts of a disk by the number of their partition.
const EFI: u32 = 1;
const ROOT: u32 = 2;
const DATA: u32 = 3;
const SWAP: u32 = 4;
/// Of a sector 0, what is not the table.
const BOOT_CODE_BYTES: u64 = 440;

fn place(number: u32) -> (u64, u64) {
    let (start, len) = recipe::MACHINE[usize::try_from(number - 1).expect("small")];
    (start * MIB, len * MIB)
}

/// A machine whose disk is a block device with sectors of so many bytes.
struct Machine {
    scratch: Scratch,
    imager: Imager,
    disk: LoopDisk,
}

impl Machine {
    /// `more` bytes are behind the last whole mebibyte of the disk.
    fn new(sector: u32, more: u64) -> Option<Self> {
        if !need::root() || !need::programs(&["sfdisk", "mkfs.fat", "mke2fs", "mkswap", "mcopy", "partx"]) {
            return None;
        }
        let scratch = Scratch::new();
        let file = scratch.file("machine.img", (recipe::MACHINE_MIB << 20) + more);
        let disk = LoopDisk::attach(&file, sector)?;
        table::write(&disk.path, &recipe::machine_table(sector.into()));
        disk.add_partitions();
        let parts: Vec<_> = (EFI..=SWAP).map(|number| disk.partition(number)).collect();
        recipe::fill_machine(&scratch, &parts);
        let imager = scratch.imager();
        Some(Self { scratch, imager, disk })
    }

    fn capture(&self) -> Value {
        self.imager.json(&["capture", &self.disk.path, "--machine", "m", "--rebind", "--data", "used"])
    }

    /// A request, confirmed by the plan's hash.
    fn confirmed(&self, request: &[&str]) -> Vec<String> {
        let hash = self.hash(request);
        request.iter().map(ToString::to_string).chain(["--confirm".to_owned(), hash]).collect()
    }

    fn hash(&self, request: &[&str]) -> String {
        let plan = self.imager.json(&[request, &["--plan"]].concat());
        plan["plan"].as_str().expect("a hash").to_owned()
    }

    fn assert_same(&self, number: u32, kind: &str, from: &str, to: &LoopDisk) {
        let what = format!("partition {number} of {}", to.path);
        judge::assert_same_filesystem(from, &to.partition(number), kind, &self.scratch, &what);
        if kind == "ext4" {
            let trees =
                (Tree::of_ext(from, &self.scratch), Tree::of_device(&to.partition(number), &self.scratch));
            trees.0.expect("the kernel mounts it").assert_same(&trees.1, &what);
        }
    }

    /// Copies of the partitions as they are now.
    fn originals(&self) -> Vec<String> {
        let copy = |number| {
            let to = self.scratch.name(&format!("original{number}"));
            let (start, len) = place(number);
            judge::extract(&self.disk.path, start, len, &to);
            to
        };
        (EFI..=SWAP).map(copy).collect()
    }
}

#[test]
fn an_operating_system_goes_back_through_its_partitions() {
    for (sector, more) in [(512, 0), (512, 512 * 3), (4096, 0), (4096, 4096 * 5)] {
        let Some(machine) = Machine::new(sector, more) else { return };
        let originals = machine.originals();
        let roles = machine.imager.json(&["inspect", &machine.disk.path]);
        let roles: Vec<_> =
            roles["volumes"].as_array().expect("volumes").iter().map(|v| &v["role"]).collect();
        assert_eq!(roles, ["boot", "os", "data", "swap"]);
        assert_eq!(machine.capture()["disks"][0]["logical_sector_bytes"], sector);
        let disk = &machine.disk;
        for number in [EFI, ROOT] {
            junk::over(Path::new(&disk.partition(number)), 0, place(number).1);
        }
        junk::over(Path::new(&disk.partition(DATA)), 8 * MIB, MIB);
        let code = judge::digest(&disk.path, 0, BOOT_CODE_BYTES);
        junk::poke(Path::new(&disk.path), 0, b"the code of a newer system");
        assert_ne!(judge::digest(&disk.path, 0, BOOT_CODE_BYTES), code);
        let before = [DATA, SWAP].map(|number| judge::whole(&disk.partition(number)));
        let request = machine.confirmed(&["restore", "m", "--to", &disk.path]);
        let report = machine.imager.json(&request);
        let after = [DATA, SWAP].map(|number| judge::whole(&disk.partition(number)));
        assert_eq!(before, after, "the other volumes are as they were");
        let untouched = report["untouched"].as_array().expect("a list");
        let told: Vec<_> =
            untouched.iter().map(|u| json!([u["key"], u["unchanged"], u["written_bytes"]])).collect();
        assert_eq!(told, [json!(["3", true, 0]), json!(["4", true, 0])], "by the kernel's count");
        assert_eq!((&report["verified"], &report["problems"]), (&json!(true), &json!([])));
        machine.assert_same(EFI, "fat12", &originals[0], disk);
        machine.assert_same(ROOT, "ext4", &originals[1], disk);
        assert_eq!(
            judge::digest(&disk.path, 0, BOOT_CODE_BYTES),
            code,
            "through the disk, between two claims"
        );
        let locked: Vec<_> = (EFI..=SWAP).filter(|number| disk.is_read_only(*number)).collect();
        assert_eq!(locked, Vec::<u32>::new(), "the others can be written again");
        other_boot_code_alone(&machine, &code);
        println!("sectors of {sector} bytes, {more} bytes more: right");
    }
}

/// Boot code goes between clearing the heads of all volumes and writing them, also where they are what they should be:
/// a system with half of its boot code must not be found.
fn other_boot_code_alone(machine: &Machine, code: &str) {
    let disk = &machine.disk;
    let restore = || machine.imager.json(&machine.confirmed(&["restore", "m", "--to", &disk.path]));
    assert_eq!(restore()["written_bytes"], 0, "all is there");
    junk::poke(Path::new(&disk.path), 0, b"the code of a newer system");
    let written = restore()["written_bytes"].as_u64().expect("bytes");
    assert_eq!(judge::digest(&disk.path, 0, BOOT_CODE_BYTES), code);
    assert!(written > MIB, "{written} bytes written: the heads came back as well");
}

#[test]
fn the_other_partitions_cannot_be_written_meanwhile() {
    let Some(machine) = Machine::new(512, 0) else { return };
    machine.capture();
    let disk = &machine.disk;
    junk::over(Path::new(&disk.partition(ROOT)), 0, place(ROOT).1);
    let request = machine.confirmed(&["restore", "m", "--to", &disk.path]);
    // Slow enough to look at: stopped as soon as the first head is cleared.
    let mut command = machine.imager.command(&request);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let pid = child.id().to_string();
    let mut seen = Vec::new();
    while child.try_wait().expect("a child").is_none() {
        tool("kill", &["-STOP", &pid]);
        let locked = [disk.is_read_only(DATA), disk.is_read_only(SWAP), disk.is_read_only(ROOT)];
        if locked[0] {
            // What is written through the partition by somebody else fails.
            let write = [
                "if=/dev/zero",
                &format!("of={}", disk.partition(DATA)),
                "bs=4096",
                "count=1",
                "oflag=direct",
            ];
            assert!(halfhour_tests::try_tool("dd", &write).is_err(), "the data volume refuses writes");
        }
        seen.push(locked);
        tool("kill", &["-CONT", &pid]);
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    assert!(seen.contains(&[true, true, false]), "both were locked, the root was not: {seen:?}");
    assert!(!disk.is_read_only(DATA) && !disk.is_read_only(SWAP));
}

#[test]
fn a_mounted_data_volume_stays_mounted_and_is_not_locked() {
    for options in ["rw", "ro"] {
        let Some(machine) = Machine::new(512, 0) else { return };
        let originals = machine.originals();
        machine.capture();
        let disk = &machine.disk;
        let request = ["restore", "m", "--to", &disk.path];
        let unmounted = machine.hash(&request);
        let at = machine.scratch.path("srv");
        let mounted = halfhour_tests::device::mount(&disk.partition(DATA), &at, options);
        if options == "rw" {
            std::fs::write(at.join("before"), "before").expect("it is mounted to be written");
        }
        for number in [EFI, ROOT] {
            junk::over(Path::new(&disk.partition(number)), 0, place(number).1);
        }
        let plan = machine.imager.json(&[&request[..], &["--plan"]].concat());
        let used = format!("{}p3 is mounted", disk.name());
        assert!(
            plan["disks"][0]["in_use"][0]["uses"][0].as_str().is_some_and(|text| text.starts_with(&used))
        );
        assert_eq!((&plan["plan"], &plan["disks"][0]["in_use"][0]["key"]), (&json!(unmounted), &json!("3")));
        let ran = machine.imager.ok(&machine.confirmed(&request));
        let said = "volume 3: in use: written by its own users, not by this restore (the kernel counted only our writes";
        assert!(ran.stdout.contains(said) && ran.stdout.contains("volume 4: untouched"), "{}", ran.text());
        assert!(!disk.is_read_only(DATA));
        if options == "rw" {
            std::fs::write(at.join("after"), "after").expect("it can still be written");
        }
        drop(mounted);
        assert_eq!(judge::fsck(&disk.partition(DATA), "ext4").0, Some(0));
        machine.assert_same(EFI, "fat12", &originals[0], disk);
        machine.assert_same(ROOT, "ext4", &originals[1], disk);
        let report = machine.imager.json(&machine.confirmed(&request));
        assert_eq!(report["untouched"][0]["unchanged"], true, "nobody uses it any more: {report}");
    }
}

#[test]
fn a_volume_that_comes_into_use_after_the_plan_is_found_before_the_first_write() {
    let Some(machine) = Machine::new(512, 0) else { return };
    machine.capture();
    let disk = &machine.disk;
    junk::over(Path::new(&disk.partition(ROOT)), 0, place(ROOT).1);
    for (number, said) in [(EFI, "is in use"), (ROOT, "is in use"), (DATA, "came into use since")] {
        let node = disk.partition(number);
        let before = judge::whole(&disk.path);
        let claim = move || Device::open(Path::new(&node), Access::ReadClaimed, None).expect("it is free");
        let error = restored_after(&machine, claim).expect_err("it is in use");
        println!("{error:?}");
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(format!("{error:?}").contains(said), "{error:?}");
        assert_eq!(judge::whole(&disk.path), before, "nothing was written");
        let locked: Vec<_> = (EFI..=SWAP).filter(|number| disk.is_read_only(*number)).collect();
        assert_eq!(locked, Vec::<u32>::new());
    }
    // The same with boot code, which has to be the captured one while the data volume is in use.
    let mounted = halfhour_tests::device::mount(&disk.partition(DATA), &machine.scratch.path("srv"), "ro");
    let path = disk.path.clone();
    let error =
        restored_after(&machine, move || junk::poke(Path::new(&path), 0, b"other")).expect_err("it differs");
    assert!(format!("{error:?}").contains("boot code"), "{error:?}");
    drop(mounted);
}

/// Makes the plan, does something, and carries the plan out.
fn restored_after<T>(machine: &Machine, then: impl FnOnce() -> T) -> imager_units::Result<Report> {
    let Found::Open(repository) = Repository::find(Arc::new(DirStore::open(&machine.imager.repository)?))?
    else {
        panic!("it has no passphrase");
    };
    let (newest, _) = captures::find(&repository, &"m".parse()?)?;
    let request = Request {
        targets: vec![(1, machine.disk.path.clone().into())],
        scope: Scope::InPlace,
        volumes: Vec::new(),
        erase: Vec::new(),
        erase_files: false,
        erase_volumes: Vec::new(),
        repository: None,
    };
    let plan = plan::plan(&repository, &newest, &request)?;
    let _kept = then();
    let options = Options { read_back: ReadBack::Yes, proof: Proof::Samples, protected: Protected::Refuse };
    restore::run(&repository, &plan, options, &Silent::default())
}

#[test]
fn a_plan_has_one_hash_wherever_it_is_asked_for() {
    let Some(machine) = Machine::new(512, 0) else { return };
    machine.capture();
    let other = machine.scratch.copy(&machine.disk.file, "other.img");
    let Some(other) = LoopDisk::attach(&other, 512) else { return };
    let here = ["restore", "m", "--to", &machine.disk.path];
    let first = machine.hash(&here);
    assert_eq!(machine.hash(&here), first, "the same request");
    junk::over(Path::new(&machine.disk.partition(ROOT)), 0, MIB);
    assert_eq!(machine.hash(&here), first, "whatever is there already");
    assert_ne!(machine.hash(&["restore", "m", "--to", &other.path]), first, "another disk");
    let fewer = [&here[..], &["--volume", "2"]].concat();
    assert_ne!(machine.hash(&fewer), first, "another choice of volumes");
    machine.capture();
    assert_ne!(machine.hash(&here), first, "another capture");
    let tables = [&here[..], &["--tables"]].concat();
    assert_ne!(machine.hash(&tables), machine.hash(&here), "another scope");
}

#[test]
fn a_lost_disk_is_made_anew_with_partitions_for_the_kernel() {
    for sector in [512, 4096] {
        let Some(machine) = Machine::new(sector, 0) else { return };
        let originals = machine.originals();
        machine.capture();
        let file = machine.scratch.file("new.img", (recipe::MACHINE_MIB + 33) * MIB);
        let Some(new) = LoopDisk::attach(&file, sector) else { return };
        let request = machine.confirmed(&["restore", "m", "--to", &new.path, "--bare-metal"]);
        machine.imager.ok(&request);
        new.add_partitions();
        for (number, kind) in [(EFI, "fat12"), (ROOT, "ext4"), (DATA, "ext4"), (SWAP, "swap")] {
            let original = &originals[usize::try_from(number - 1).expect("small")];
            machine.assert_same(number, kind, original, &new);
        }
        assert!(table::is_sound_gpt(&new.path));
        // Once more it is not blank: only with its name.
        let again = ["restore", "m", "--to", &new.path, "--bare-metal"];
        machine.imager.fails(4, &[&again[..], &["--plan"]].concat());
        let erase = [&again[..], &["--erase", &new.path]].concat();
        machine.imager.ok(&machine.confirmed(&erase));
        // A lost table comes back alone.
        let len = Path::new(&file).metadata().expect("it").len();
        for at in [0, len - MIB] {
            junk::poke(Path::new(&new.path), at, &vec![0; usize::try_from(MIB).expect("small")]);
        }
        tool("partx", &["--delete", "--nr", "1-4", &new.path]);
        machine.imager.ok(&machine.confirmed(&["restore", "m", "--to", &new.path, "--tables"]));
        new.add_partitions();
        machine.assert_same(DATA, "ext4", &originals[2], &new);
        machine.imager.ok(&machine.confirmed(&["restore", "m", "--to", &new.path]));
    }
}

#[test]
fn a_newer_hibernated_system_does_not_wake_up() {
    let Some(machine) = Machine::new(512, 0) else { return };
    machine.capture();
    let disk = &machine.disk;
    let before = judge::identity(&disk.partition(SWAP));
    junk::poke(Path::new(&disk.partition(SWAP)), 4096 - 20, b"SWAPSPACE2S1SUSPEND\0");
    assert!(!judge::identity(&disk.partition(SWAP)).lines().any(|line| line == "TYPE=swap"));
    let request = machine.confirmed(&["restore", "m", "--to", &disk.path]);
    let report = machine.imager.json(&request);
    assert!(report["warnings"].to_string().contains("hibernated"), "{report}");
    assert_eq!(judge::identity(&disk.partition(SWAP)), before, "it is swap space again");
    drop(halfhour_tests::device::swap_on(&disk.partition(SWAP)));
    // Without the system it is nobody's business.
    junk::poke(Path::new(&disk.partition(SWAP)), 4096 - 20, b"SWAPSPACE2S1SUSPEND\0");
    machine.imager.ok(&machine.confirmed(&["restore", "m", "--to", &disk.path, "--volume", "1"]));
    assert!(!judge::identity(&disk.partition(SWAP)).lines().any(|line| line == "TYPE=swap"));
}

#[test]
fn two_disks_keep_their_numbers_in_whatever_order() {
    let Some(machine) = Machine::new(512, 0) else { return };
    let imager = &machine.imager;
    let second = machine.scratch.file("second.img", 40 * MIB);
    let script = "label: gpt\nlabel-id: 33333333-0000-4000-8000-000000000000\nstart=2048, size=32768\nstart=34816, size=32768\n";
    table::write(&second, script);
    junk::over(Path::new(&second), MIB, 16 * MIB);
    let Some(second) = LoopDisk::attach(&second, 512) else { return };
    let capture = |disks: [&str; 2]| {
        imager.json(&["capture", disks[0], disks[1], "--machine", "pair", "--rebind", "--data", "used"])
    };
    let numbers = |capture: &Value| -> Vec<_> {
        let disks = capture["disks"].as_array().expect("disks").iter();
        disks.map(|disk| (disk["disk"].as_u64(), disk["table"]["id"].as_str().map(str::to_owned))).collect()
    };
    let first = capture([&machine.disk.path, &second.path]);
    let again = capture([&second.path, &machine.disk.path]);
    assert_eq!(numbers(&first), numbers(&again));
    let keys: Vec<_> = again["volumes"].as_array().expect("volumes").iter().map(|v| &v["key"]).collect();
    assert_eq!(keys, ["1", "2", "3", "4", "2:1", "2:2"]);
    let new: u64 =
        again["volumes"].as_array().expect("volumes").iter().filter_map(|v| v["new_bytes"].as_u64()).sum();
    assert_eq!(new, 0, "nothing is stored twice");
    // One of two, by its number; the wrong one is refused.
    junk::over(Path::new(&second.partition(1)), 0, 16 * MIB);
    let before = judge::whole(&machine.disk.path);
    let to = format!("2={}", second.path);
    imager.ok(&machine.confirmed(&["restore", "pair", "--to", &to]));
    judge::assert_same_bytes((&second.file, 0), (&second.path, 0), &[(0, 40 * MIB)], "the second");
    assert_eq!(judge::whole(&machine.disk.path), before);
    imager.fails(4, &["restore", "pair", "--to", &second.path, "--plan"]);
    let crossed = [format!("1={}", second.path), format!("2={}", machine.disk.path)];
    imager.fails(4, &["restore", "pair", "--to", &crossed[0], &crossed[1], "--plan"]);
    let twice = [format!("1={}", second.path), format!("2={}", second.path)];
    imager.fails(64, &["restore", "pair", "--to", &twice[0], &twice[1], "--plan"]);
    imager.fails(64, &["restore", "pair", "--to", &format!("3={}", second.path), "--plan"]);
}
