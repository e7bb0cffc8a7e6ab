//! Every reason to refuse: the documented exit status, words that help, and nothing written.

use halfhour_tests::device::{loop_over, mount, swap_on, tmpfs};
use halfhour_tests::{Imager, LoopDisk, MIB, Ran, Scratch, judge, junk, need, recipe, table, tool};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A captured machine.
struct Captured {
    scratch: Scratch,
    imager: Imager,
    disk: String,
}

impl Captured {
    fn new() -> Option<Self> {
        if !need::root() || !need::programs(&["sfdisk", "mkfs.fat", "mke2fs", "mkswap", "mcopy"]) {
            return None;
        }
        let scratch = Scratch::new();
        let disk = recipe::machine(&scratch, "machine.img");
        let imager = scratch.imager();
        imager.ok(&["capture", &disk, "--data", "used"]);
        Some(Self { scratch, imager, disk })
    }

    /// A disk on which the machine may be restored in place, attached.
    fn attached(&self, name: &str) -> Option<LoopDisk> {
        LoopDisk::attach(&self.scratch.copy(&self.disk, name), 512)
    }

    /// The plan's hash for a request.
    fn hash(&self, request: &[&str]) -> String {
        let plan = self.imager.json(&[request, &["--plan"]].concat());
        plan["plan"].as_str().expect("a hash").to_owned()
    }

    /// Fails unless the request ends so and `target` is the same afterwards.
    fn refused(&self, code: i32, target: &str, request: &[&str]) -> String {
        self.refused_by(&self.imager, code, target, request)
    }

    fn refused_by(&self, imager: &Imager, code: i32, target: &str, request: &[&str]) -> String {
        let before = judge::whole(target);
        let error = imager.fails(code, request);
        assert_eq!(judge::whole(target), before, "{request:?} wrote something");
        format!("{} / {}", error["message"].as_str().unwrap_or(""), error["advice"].as_str().unwrap_or(""))
    }
}

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not said: {text}");
    }
}

#[test]
fn a_source_that_is_written_is_refused_or_never_the_latest() {
    let Some(machine) = Captured::new() else { return };
    let Some(disk) = machine.attached("source.img") else { return };
    let imager = machine.scratch.imager_without_repository().with_repository(&machine.scratch.path("other"));
    imager.ok(&["init"]);
    let writable = mount(&disk.partition(2), &machine.scratch.path("at"), "rw");
    for source in [disk.path.as_str(), &disk.file] {
        let text = imager.fails(4, &["capture", source, "--machine", "m"]).to_string();
        says(&text, &["mounted", "rescue", "--allow-inconsistent"]);
    }
    assert_eq!(imager.json(&["list"])["captures"], json!([]), "nothing was published");
    let arguments = ["capture", &disk.path, "--machine", "m", "--allow-inconsistent"];
    let taken = imager.run_json(&arguments);
    assert_eq!(taken.expect_code(2).json()["consistency"], "inconsistent");
    says(&imager.fails(11, &["show", "m"]).to_string(), &["inconsistent"]);
    imager.fails(11, &["restore", "m@latest", "--to", &disk.path, "--plan"]);
    let id = taken.json()["capture"].as_str().expect("an id").to_owned();
    imager.ok(&["show", &format!("id:{id}")]);
    drop(writable);
    let readable = mount(&disk.partition(2), &machine.scratch.path("at"), "ro");
    let taken = imager.json(&["capture", &disk.path, "--machine", "m"]);
    assert_eq!(taken["consistency"], "offline", "a volume that nobody writes is at rest");
    drop(readable);
}

#[test]
fn a_target_in_use_is_refused() {
    let Some(machine) = Captured::new() else { return };
    let Some(disk) = machine.attached("target.img") else { return };
    let request = ["restore", "machine", "--to", &disk.path];
    let hash = machine.hash(&request);
    let request = [&request[..], &["--confirm", &hash]].concat();
    for partition in [1, 2] {
        let node = disk.partition(partition);
        let _used: Box<dyn std::any::Any> = match partition {
            1 => Box::new(loop_over(&node)),
            _ => Box::new(mount(&node, &machine.scratch.path("at"), "ro")),
        };
        let text = machine.refused(4, &disk.path, &request);
        says(&text, &["in use", &format!("{}p{partition}", disk.name())]);
        let of_file = machine.refused(4, &disk.file, &["restore", "machine", "--to", &disk.file, "--yes"]);
        says(&of_file, &["in use", disk.name()]);
    }
    // What is not written may be in use; not so where the disk is a file, which has no partitions to keep apart.
    for partition in [3, 4] {
        let node = disk.partition(partition);
        let _used: Box<dyn std::any::Any> = match partition {
            4 => Box::new(swap_on(&node)),
            _ => Box::new(mount(&node, &machine.scratch.path("at"), "ro")),
        };
        assert_eq!(machine.hash(&["restore", "machine", "--to", &disk.path]), hash);
        let named = ["restore", "machine", "--to", &disk.path, "--volume", &partition.to_string(), "--plan"];
        says(&machine.refused(4, &disk.path, &named), &["in use", &format!("{}p{partition}", disk.name())]);
        let of_file = machine.refused(4, &disk.file, &["restore", "machine", "--to", &disk.file, "--yes"]);
        says(&of_file, &["in use", disk.name()]);
    }
    // A second name for the whole disk.
    {
        let _used = loop_over(&disk.path);
        says(&machine.refused(4, &disk.path, &request), &["in use", disk.name()]);
    }
    let bare = ["restore", "machine", "--bare-metal", "--to", &disk.path, "--erase", &disk.path, "--plan"];
    let _used = mount(&disk.partition(3), &machine.scratch.path("at"), "ro");
    says(&machine.refused(4, &disk.path, &bare), &["in use"]);
    let tables = ["restore", "machine", "--tables", "--to", &disk.path, "--plan"];
    says(&machine.refused(4, &disk.path, &tables), &["in use"]);
}

#[test]
fn the_disk_with_the_repository_is_refused() {
    let Some(machine) = Captured::new() else { return };
    let Some(disk) = machine.attached("target.img") else { return };
    // On a partition of the target; and in a file on that partition, mounted through a loop device.
    let at = machine.scratch.path("at");
    let _on = mount(&disk.partition(3), &at, "rw");
    let copy = |to: &Path| {
        let from = machine.imager.repository.display().to_string();
        tool("cp", &["-r", &from, &to.display().to_string()]);
    };
    let here = at.join("repository");
    copy(&here);
    let inner = at.join("share.img");
    std::fs::File::create(&inner).and_then(|file| file.set_len(4 * MIB)).expect("a file");
    tool("mke2fs", &["-q", "-F", &inner.display().to_string()]);
    let inner_at = machine.scratch.path("inner");
    let _inside = mount(&inner.display().to_string(), &inner_at, "rw,loop");
    let deep = inner_at.join("repository");
    let files = machine.scratch.imager_without_repository();
    for place in [&here, &deep] {
        let imager = files.with_repository(place);
        if place == &deep {
            imager.ok(&["init"]);
            let tiny = machine.scratch.file("tiny.img", 64 * 1024);
            imager.ok(&["capture", &tiny, "--machine", "machine"]);
        }
        for target in [&disk.path] {
            for more in [&["--yes"][..], &["--bare-metal", "--erase", target, "--yes"]] {
                let request = [&["restore", "machine", "--to", target], more].concat();
                let before = judge::digest(&disk.path, MIB, 32 * MIB);
                let error = imager.fails(4, &request);
                says(&error.to_string(), &["repository", "lies on"]);
                assert_eq!(judge::digest(&disk.path, MIB, 32 * MIB), before);
            }
        }
        // The file behind that disk is in use to begin with.
        says(&imager.fails(4, &["restore", "machine", "--to", &disk.file, "--yes"]).to_string(), &["in use"]);
    }
    // A target inside the repository's own folder.
    let inside = machine.imager.repository.join("packs/target.img").display().to_string();
    tool("cp", &["--sparse=always", &machine.disk, &inside]);
    machine.refused(4, &inside, &["restore", "machine", "--to", &inside, "--yes"]);
    let pack = some_pack(&machine.imager).display().to_string();
    machine.refused(4, &pack, &["restore", "machine", "--to", &pack, "--bare-metal", "--yes"]);
}

#[test]
fn a_disk_that_does_not_fit_is_refused() {
    let Some(machine) = Captured::new() else { return };
    let blank = machine.scratch.file("blank.img", 64 * MIB);
    {
        let Some(other) = LoopDisk::attach(&blank, 4096) else { return };
        let request = ["restore", "machine", "--to", &other.path, "--bare-metal", "--plan"];
        says(&machine.refused(4, &other.path, &request), &["logical sectors of 4096", "512"]);
        machine.refused(4, &other.path, &["restore", "machine", "--to", &other.path, "--plan"]);
    }
    let small = machine.scratch.file("small.img", 50 * MIB);
    let Some(small) = LoopDisk::attach(&small, 512) else { return };
    let request = ["restore", "machine", "--to", &small.path, "--bare-metal", "--plan"];
    says(&machine.refused(4, &small.path, &request), &["smaller"]);
    let tables = ["restore", "machine", "--to", &small.path, "--tables", "--plan"];
    machine.refused(4, &small.path, &tables);
    let Some(blank) = LoopDisk::attach(&blank, 512) else { return };
    let text = machine.refused(4, &blank.path, &["restore", "machine", "--to", &blank.path, "--plan"]);
    says(&text, &["--tables", "--bare-metal"]);
}

/// How a disk differs, and what makes it differ.
type Way<'a> = (&'a str, &'a dyn Fn(&str));

#[test]
fn a_disk_that_is_divided_otherwise_is_refused() {
    let Some(machine) = Captured::new() else { return };
    let ways: [Way; 5] = [
        ("moved", &|disk| {
            table::write(
                disk,
                &recipe::machine_table(512)
                    .replace("start=18432", "start=18440")
                    .replace("size=49152", "size=49144"),
            )
        }),
        ("of another type", &|disk| {
            tool("sfdisk", &["-q", "--no-reread", "--part-type", disk, "2", "swap"]);
        }),
        ("of another GUID", &|disk| {
            tool("sfdisk", &["-q", "--part-uuid", disk, "2", "99999999-0000-4000-8000-000000000002"]);
        }),
        ("absent", &|disk| {
            tool("sfdisk", &["-q", "--delete", disk, "2"]);
        }),
        ("an MBR", &|disk| {
            table::write(disk, "label: dos\nstart=2048, size=16384, type=ef\nstart=18432, size=49152\n")
        }),
    ];
    for (what, change) in ways {
        let target = machine.scratch.copy(&machine.disk, "target.img");
        change(&target);
        let text = machine.refused(4, &target, &["restore", "machine", "--to", &target, "--yes"]);
        says(&text, &["divided otherwise", "right disk"]);
        let text = machine.refused(4, &target, &["restore", "machine", "--to", &target, "--tables", "--yes"]);
        says(&text, &["differs"]);
        println!("{what}: refused");
    }
    // A disk that was one volume does not go where a table is.
    let bare = machine.scratch.file("bare.img", 16 * MIB);
    tool("mke2fs", &["-q", "-F", &bare]);
    machine.imager.ok(&["capture", &bare]);
    let target = machine.scratch.copy(&machine.disk, "target.img");
    machine.refused(4, &target, &["restore", "bare", "--to", &target, "--yes"]);
    // Only the volumes that are to be written have to be as they were.
    tool("sfdisk", &["-q", "--delete", &target, "3"]);
    machine.imager.ok(&["restore", "machine", "--to", &target, "--yes"]);
}

#[test]
fn nothing_is_written_without_consent() {
    let Some(machine) = Captured::new() else { return };
    let Some(disk) = machine.attached("target.img") else { return };
    let request = ["restore", "machine", "--to", &disk.path];
    let with = |more: &[&'static str]| [&request[..], more].concat();
    let text = machine.refused(4, &disk.path, &with(&[]));
    says(&text, &["--confirm", "--yes", "nothing was written"]);
    says(&machine.refused(4, &disk.path, &with(&["--yes"])), &["--confirm"]);
    says(&machine.refused(4, &disk.path, &with(&["--confirm", "0123456789abcdef"])), &["--plan"]);
    // An image file needs consent too.
    let file = machine.scratch.copy(&machine.disk, "file.img");
    machine.refused(4, &file, &["restore", "machine", "--to", &file]);
    // Made anew: consent to the plan is not consent to lose what is there, unless it is named.
    let bare = with(&["--bare-metal"]);
    for more in [&["--plan"][..], &["--yes"], &["--erase", "some other disk", "--yes"]] {
        let text = machine.refused(4, &disk.path, &[&bare[..], more].concat());
        says(&text, &["not blank", "--erase"]);
    }
    let file_request = ["restore", "machine", "--to", &file, "--bare-metal", "--confirm", "00"];
    says(&machine.refused(4, &file, &file_request), &["not blank", "--erase"]);
    let plan = machine.imager.run(&with(&["--plan"]));
    assert!(plan.stdout.contains("plan ") && plan.code == 0, "{plan:?}");
}

#[test]
fn what_is_not_there_has_a_status_of_its_own() {
    let Some(machine) = Captured::new() else { return };
    let (imager, scratch) = (&machine.imager, &machine.scratch);
    let target = scratch.copy(&machine.disk, "target.img");
    for capture in
        ["nobody", "nobody@latest", "machine@2001-01-01", "id:00000000", "machine@2001-01-01T00:00Z"]
    {
        for command in [&["show", capture][..], &["restore", capture, "--to", &target, "--yes"]] {
            says(&machine.refused(11, &target, command), &["imager list"]);
        }
    }
    for place in [scratch.path("absent"), scratch.folder("empty")] {
        let other = imager.with_repository(&place);
        for command in
            [&["list"][..], &["capture", &target], &["restore", "machine", "--to", &target, "--yes"]]
        {
            machine.refused_by(&other, 10, &target, command);
        }
    }
    let description = imager.repository.join("halfhour.json");
    let text = std::fs::read_to_string(&description).expect("it is there");
    let newer = text
        .replace("\"min_reader\": 1", "\"min_reader\": 9")
        .replace("\"min_reader\":1", "\"min_reader\":9");
    assert_ne!(text, newer);
    std::fs::remove_file(&description)
        .and_then(|()| std::fs::write(&description, newer))
        .expect("it is replaced");
    for command in [&["list"][..], &["capture", &target], &["restore", "machine", "--to", &target, "--yes"]] {
        machine.refused(13, &target, command);
    }
}

#[test]
fn a_wrong_passphrase_has_a_status_of_its_own() {
    let Some(machine) = Captured::new() else { return };
    let sealed = machine.imager.with_repository(&machine.scratch.path("sealed"));
    let right = sealed.with("IMAGER_PASSWORD", "correct horse");
    right.ok(&["init", "--encrypt"]);
    right.ok(&["capture", &machine.disk, "--data", "used"]);
    let target = machine.scratch.copy(&machine.disk, "target.img");
    let restore = ["restore", "machine", "--to", &target, "--yes"];
    let wrong = sealed.with("IMAGER_PASSWORD", "wrong");
    for command in [&["list"][..], &restore, &["capture", &machine.disk, "--data", "used"], &["key", "test"]]
    {
        machine.refused_by(&wrong, 12, &target, command);
    }
    // Without any, and nobody to ask.
    for command in [&["list"][..], &restore] {
        says(&machine.refused_by(&sealed, 12, &target, command), &["IMAGER_PASSWORD"]);
    }
    junk::over(Path::new(&target), 9 * MIB, 24 * MIB);
    right.ok(&restore);
    right.ok(&["key", "test"]);
    assert_eq!(judge::digest(&target, 9 * MIB, 4096), judge::digest(&machine.disk, 9 * MIB, 4096));
    // A repository in place of the one that is known, and one that is suddenly open, are not used.
    let known = sealed.repository.display().to_string();
    std::fs::rename(&sealed.repository, machine.scratch.path("aside")).expect("it moves");
    tool("cp", &["-r", &machine.imager.repository.display().to_string(), &known]);
    says(
        &machine.refused_by(&right, 4, &target, &["capture", &machine.disk, "--data", "used"]),
        &["encrypted"],
    );
}

fn packs(imager: &Imager) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![imager.repository.join("packs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn some_pack(imager: &Imager) -> PathBuf {
    packs(imager).into_iter().next().expect("a pack")
}

#[test]
fn damage_in_the_repository_is_told_and_kept_away_from_the_disk() {
    let Some(machine) = Captured::new() else { return };
    let packs = packs(&machine.imager);
    let target = machine.scratch.copy(&machine.disk, "target.img");
    let request = ["restore", "machine", "--to", &target, "--bare-metal", "--yes"];
    let (mut maps, mut data) = (0, 0);
    for pack in &packs {
        let whole = std::fs::read(pack).expect("a pack");
        for (place, remove) in [(whole.len() / 3, false), (whole.len() * 3 / 5, false), (0, true)] {
            junk::over(Path::new(&target), 0, 60 * MIB);
            let before = judge::whole(&target);
            std::fs::remove_file(pack).expect("it goes");
            if !remove {
                let mut bytes = whole.clone();
                bytes[place] ^= 0x10;
                std::fs::write(pack, bytes).expect("it is damaged");
            }
            let ran = machine.imager.run_json(&request);
            std::fs::write(pack, &whole).expect("it is mended");
            let is_written = judge::whole(&target) != before;
            if ran.code == 0 {
                // What was hit is not needed by a restore: a table of contents, a gap.
                println!("{}: not noticed at {place}", pack.display());
                continue;
            }
            ran.expect_code(3);
            if is_written {
                data += 1;
                withheld(&machine, &ran, &target);
            } else {
                maps += 1;
                says(&ran.json()["error"].to_string(), &["advice", "nothing was written"]);
            }
        }
    }
    assert!(maps >= 2 && data >= 1, "both kinds were hit: {maps} {data} of {} packs", packs.len());
    machine.imager.ok(&request);
    judge::assert_same_bytes((&machine.disk, 0), (&target, 0), &[(0, 440), (512, 33 * 512)], "mended");
}

/// The rest is restored; what is damaged is not recognisable, and neither is the disk.
fn withheld(machine: &Captured, ran: &Ran, target: &str) {
    let report = ran.json();
    assert_eq!(table::dump(target, 512), None, "the disk has no table");
    let volumes = report["volumes"].as_array().expect("volumes");
    let complete = |volume: &&Value| volume["complete"] == true;
    assert!(volumes.iter().filter(complete).count() < volumes.len(), "something is incomplete: {report}");
    let problems = report["problems"].as_array().expect("a list");
    assert!(!problems.is_empty() && problems.iter().all(|p| p["extents"][0][1].is_u64()), "{report}");
    for (volume, (start, len)) in volumes.iter().zip(recipe::MACHINE) {
        let at = judge::identity_at(target, start * MIB, len * MIB);
        if volume["complete"] == true {
            let part = [machine.scratch.name("a.part"), machine.scratch.name("b.part")];
            judge::extract(&machine.disk, start * MIB, len * MIB, &part[0]);
            judge::extract(target, start * MIB, len * MIB, &part[1]);
            let kind = ["fat", "ext4", "ext4", "swap"]
                [recipe::MACHINE.iter().position(|v| v.0 == start).expect("one")];
            judge::assert_same_filesystem(&part[0], &part[1], kind, &machine.scratch, "a complete volume");
        } else {
            assert!(at.is_empty(), "a damaged volume is not recognisable: {at}");
        }
    }
}

#[test]
fn a_damaged_manifest_is_told_and_an_earlier_capture_used() {
    let Some(machine) = Captured::new() else { return };
    let folder = machine.imager.repository.join("captures/machine");
    let manifests = || -> Vec<_> {
        std::fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path()).collect()
    };
    let first = manifests();
    let again = machine.imager.json(&["capture", &machine.disk, "--data", "used"]);
    let damage = |path: &PathBuf| {
        let mut bytes = std::fs::read(path).expect("a manifest");
        let at = bytes.len() - 9;
        bytes[at] ^= 1;
        std::fs::remove_file(path).and_then(|()| std::fs::write(path, bytes)).expect("it is damaged");
    };
    let second = manifests().into_iter().find(|path| !first.contains(path)).expect("a second one");
    damage(&second);
    assert_eq!(machine.imager.run(&["list"]).code, 3);
    let target = machine.scratch.copy(&machine.disk, "target.img");
    let request = ["restore", "machine", "--to", &target, "--yes"];
    let report = machine.imager.json(&request);
    assert_ne!(report["capture"], again["capture"]);
    says(&report["warnings"].to_string(), &["cannot be used"]);
    let id = format!("id:{}", again["capture"].as_str().expect("an id"));
    machine.refused(3, &target, &["restore", &id, "--to", &target, "--yes"]);
    damage(&first[0]);
    machine.refused(3, &target, &request);
}

#[test]
fn a_full_share_publishes_nothing_and_goes_on_with_more_room() {
    let Some(machine) = Captured::new() else { return };
    let at = machine.scratch.path("share");
    let _share = tmpfs(&at, 3 * MIB / 2);
    let imager = machine.imager.with_repository(&at.join("repository"));
    imager.ok(&["init"]);
    let error = imager.fails(1, &["capture", &machine.disk, "--data", "used"]);
    says(&error.to_string(), &["room", "run it again"]);
    assert_eq!(imager.json(&["list"])["captures"], json!([]));
    tool("mount", &["-o", "remount,size=64M", &at.display().to_string()]);
    imager.ok(&["capture", &machine.disk, "--data", "used"]);
    let target = machine.scratch.file("target.img", 60 * MIB);
    imager.ok(&["restore", "machine", "--to", &target, "--bare-metal", "--yes"]);
    // A share that became read-only takes no capture, and gives everything back.
    tool("mount", &["-o", "remount,ro", &at.display().to_string()]);
    let error = imager.fails(1, &["capture", &machine.disk, "--data", "used"]);
    says(&error.to_string(), &["permissions"]);
    std::fs::remove_file(&target).expect("a file of ours");
    let target = machine.scratch.file("target.img", 60 * MIB);
    let fresh = Imager { state: machine.scratch.path("another-state"), ..imager.clone() };
    fresh.ok(&["restore", "machine", "--to", &target, "--bare-metal", "--yes"]);
    judge::assert_same_bytes((&machine.disk, 0), (&target, 0), &[(0, MIB)], "from a read-only share");
}

#[test]
fn an_interrupted_capture_is_not_there_and_goes_on() {
    let scratch = Scratch::new();
    let imager = scratch.imager();
    let disk = scratch.junk("disk.img", 700 * MIB);
    let mut child = start(&imager, &["capture", &disk, "--machine", "m", "--json"]);
    wait_until(&mut child, || imager.repository.join("packs").is_dir() && packs(&imager).len() >= 5);
    let ran = interrupt(child);
    ran.expect_code(130);
    assert_eq!(ran.json()["error"]["kind"], "cancelled");
    assert_eq!(imager.json(&["list"])["captures"], json!([]), "nothing was published");
    let before = packs(&imager);
    let report = imager.json(&["capture", &disk, "--machine", "m", "--data", "used"]);
    assert_eq!(report["problems"], json!([]));
    // What was stored is used: all but what lies before a pack's first listed block.
    let volume = &report["volumes"][0];
    let [new, read] = ["new_bytes", "read_bytes"].map(|field| volume[field].as_u64().expect("a number"));
    println!("{} packs were there; {new} of {read} bytes were new", before.len());
    assert!(new + 4 * 8 * MIB < read, "what was stored is used");
}

#[test]
fn an_interrupted_restore_does_not_look_finished_and_goes_on() {
    let scratch = Scratch::new();
    if !need::programs(&["mke2fs"]) {
        return;
    }
    let imager = scratch.imager();
    let disk = scratch.file("disk.img", 500 * MIB);
    let tree = scratch.folder("tree");
    for n in 0..20 {
        let path = tree.join(format!("file{n}"));
        std::fs::File::create(&path).expect("a file");
        junk::over(&path, n, 20 * MIB);
    }
    tool("mke2fs", &["-q", "-F", "-t", "ext4", "-d", &tree.display().to_string(), &disk]);
    imager.ok(&["capture", &disk, "--machine", "m", "--data", "used"]);
    let target = scratch.junk("target.img", 500 * MIB);
    let page = |image: &str| judge::digest(image, 150 * MIB, 4096);
    let wanted = page(&disk);
    assert_ne!(page(&target), wanted);
    let mut child = start(&imager, &["restore", "m", "--to", &target, "--yes", "--json"]);
    wait_until(&mut child, || page(&target) == wanted);
    let ran = interrupt(child);
    ran.expect_code(130);
    says(&ran.json()["error"]["advice"].to_string(), &["same command"]);
    assert_eq!(judge::identity_at(&target, 0, 500 * MIB), "", "it is not recognisable");
    let report = imager.json(&["restore", "m", "--to", &target, "--yes"]);
    let matched = report["matched_bytes"].as_u64().expect("a number");
    println!("{matched} bytes were there when it went on");
    assert!(matched > 50 * MIB, "it goes on where it was");
    judge::assert_same_filesystem(&disk, &target, "ext4", &scratch, "after an interruption");
}

fn start(imager: &Imager, arguments: &[&str]) -> Child {
    let mut command = imager.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

fn wait_until(child: &mut Child, mut what: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !what() {
        assert!(Instant::now() < limit, "it takes too long");
        assert!(child.try_wait().expect("a child").is_none(), "it ended too soon");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn interrupt(child: Child) -> Ran {
    tool("kill", &["-INT", &child.id().to_string()]);
    Ran::new("an interrupted command".to_owned(), &child.wait_with_output().expect("it ends"))
}
