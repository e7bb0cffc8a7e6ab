//! Three machines capture, verify and prune one repository at once, each as a process, and are killed at any instant. No
//! capture that is listed ever fails to read, every next run goes on, and what was removed comes back.
//!
//! The instants come from a seed that is printed, and may be given in `HALFHOUR_SEED`. Twelve kills, or two hundred where
//! `HALFHOUR_FULL` is set.

use halfhour_tests::junk::{Junk, poke};
use halfhour_tests::{Imager, MIB, Scratch, need};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

const MACHINES: [&str; 3] = ["a", "b", "c"];
const DISK_MIB: u64 = 12;
const KEEP: &str = "3";
/// A frame moves whole, whatever of it is needed; each is at most so long.
const FRAME: u64 = 256 << 10;

fn seed() -> u64 {
    let given = std::env::var("HALFHOUR_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = given.unwrap_or_else(|| now.map_or(1, |now| now.as_secs()));
    println!("HALFHOUR_SEED={seed}");
    seed
}

/// One machine: its disk, what it held at each capture, and its share of the killing.
struct Machine<'a> {
    name: &'static str,
    disk: String,
    copies: PathBuf,
    imager: &'a Imager,
    junk: Junk,
    takes: BTreeMap<&'static str, Duration>,
}

#[derive(Default)]
struct Counts {
    kills: AtomicU64,
    ended: AtomicU64,
    by: Mutex<BTreeMap<&'static str, u64>>,
}

impl Machine<'_> {
    /// Pieces of the disk become something else, which another machine may hold as well. Large pieces: of small ones many
    /// are stored twice, because sampled indexes miss them, and a few blocks of a frame keep all of it. What is measured
    /// is whether space comes back, not how well duplicates are found.
    fn change(&mut self) {
        let mut buffer = vec![0; 1 << 20];
        for _ in 0..1 + self.junk.number() % 5 {
            let at = self.junk.number() % DISK_MIB;
            Junk::new(self.junk.number() % 64).fill(&mut buffer);
            poke(Path::new(&self.disk), at << 20, &buffer);
        }
    }

    /// Leases of this machine, of which none is of a capture that lives.
    fn dead(&self) -> Vec<String> {
        let plan = self.imager.json(&["prune", "--plan"]);
        let leases = plan["leases"].as_array().expect("leases").iter();
        let ours = leases.filter(|lease| lease["machine"] == self.name);
        ours.map(|lease| lease["capture"].as_str().expect("an id").to_owned()).collect()
    }

    fn arguments(&mut self, what: &'static str) -> Vec<String> {
        let mut arguments: Vec<String> = match what {
            "capture" => vec!["capture", &self.disk, "--machine", self.name, "--role", "0=os"],
            "verify" => vec!["verify", "--read-data"],
            _ => vec!["prune", "--keep-last", KEEP, "--machine", self.name, "--force", "--yes"],
        }
        .into_iter()
        .map(str::to_owned)
        .collect();
        if what == "capture" && self.junk.number().is_multiple_of(3) {
            arguments.extend(["--kind".to_owned(), "full".to_owned()]);
        }
        if what == "prune" {
            for lease in self.dead() {
                arguments.extend(["--break-lease".to_owned(), lease]);
            }
        }
        arguments
    }

    /// Runs it to its end.
    fn run(&mut self, what: &'static str) {
        let arguments = self.arguments(what);
        let start = Instant::now();
        let ran = self.imager.run(&arguments);
        self.takes.insert(what, start.elapsed());
        // Another machine's prune may have removed the lease that we were to break.
        let lease_gone = ran.code == 1 && ran.stderr.contains("there is no lease");
        let none_such = ran.code == 11 && what == "prune";
        assert!(ran.code == 0 || lease_gone || none_such, "{ran:?}");
    }

    /// Runs it and kills it somewhere.
    fn kill(&mut self, what: &'static str, counts: &Counts) {
        let arguments = self.arguments(what);
        let whole = self.takes.get(what).copied().unwrap_or(Duration::from_millis(100));
        let permille = u32::try_from(self.junk.number() % 1100).expect("small");
        let mut command = self.imager.command(&arguments);
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
        std::thread::sleep(whole * permille / 1000);
        child.kill().expect("it is ours");
        let ended = child.wait().expect("it ends").code().is_some();
        counts.ended.fetch_add(u64::from(ended), Ordering::Relaxed);
        if !ended {
            counts.kills.fetch_add(1, Ordering::Relaxed);
            *counts.by.lock().expect("no panic").entry(what).or_default() += 1;
        }
    }

    /// Keeps what the disk holds beside each capture of it.
    fn remember(&self) {
        let list = self.imager.json(&["list", self.name]);
        for capture in list["captures"].as_array().expect("a list") {
            let copy = self.copies.join(capture["id"].as_str().expect("an id"));
            if !copy.exists() {
                std::fs::copy(&self.disk, copy).expect("a copy");
            }
        }
    }

    fn step(&mut self, counts: &Counts) {
        let what = ["capture", "capture", "capture", "prune", "prune", "verify"]
            [usize::try_from(self.junk.number() % 6).expect("small")];
        if what == "capture" {
            self.change();
        }
        self.kill(what, counts);
        self.remember();
        match self.junk.number() % 3 {
            0 => self.run("prune"),
            1 => {
                self.change();
                self.run("capture");
            }
            _ => self.run(what),
        }
        self.remember();
    }
}

fn bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .map(|path| if path.is_dir() { bytes(&path) } else { path.metadata().expect("a file").len() })
        .sum()
}

/// Unfinished files of the killed look as if they were left long ago.
fn age(folder: &Path) -> u64 {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            count += age(&path);
        } else if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".tmp-")) {
            let file = std::fs::File::options().write(true).open(&path).expect("it opens");
            file.set_modified(SystemTime::now() - Duration::from_secs(200_000)).expect("it ages");
            count += 1;
        }
    }
    count
}

/// Prunes until nothing changes; whatever is under way is dead.
fn settle(imager: &Imager) {
    for _ in 0..10 {
        let plan = imager.json(&["prune", "--plan"]);
        let mut arguments = vec!["prune".to_owned(), "--yes".to_owned()];
        for lease in plan["leases"].as_array().expect("leases") {
            arguments
                .extend(["--break-lease".to_owned(), lease["capture"].as_str().expect("an id").to_owned()]);
        }
        let report = imager.json(&arguments);
        let none = |field: &str| report[field].as_u64() == Some(0);
        if none("deleted_packs") && none("waiting_packs") && none("moved_packs") {
            return;
        }
    }
    panic!("pruning comes to no end");
}

/// What a new repository with the same captures takes.
fn fresh(scratch: &Scratch, imager: &Imager, copies: &Path) -> u64 {
    let repository = scratch.folder("fresh");
    let fresh = imager.with_repository(&repository);
    fresh.ok(&["init"]);
    let list = imager.json(&["list"]);
    let mut captures: Vec<&Value> = list["captures"].as_array().expect("a list").iter().collect();
    captures.sort_by_key(|capture| capture["sequence"].as_u64());
    let disk = scratch.name("fresh.img");
    for capture in captures {
        let (id, machine) =
            (capture["id"].as_str().expect("an id"), capture["machine"].as_str().expect("a name"));
        std::fs::copy(copies.join(id), &disk).expect("a copy");
        fresh.ok(&["capture", &disk, "--machine", machine, "--role", "0=os"]);
        fresh.ok(&["verify", &format!("{machine}@latest")]);
    }
    fresh.ok(&["prune", "--yes"]);
    bytes(&repository)
}

#[test]
fn captures_verifies_and_prunes_of_three_machines_killed_at_any_instant() {
    let (wanted, seed) = (if need::full() { 200 } else { 12 }, seed());
    let scratch = Scratch::new();
    let imager = scratch.imager();
    let copies = scratch.folder("copies");
    let mut machines: Vec<Machine<'_>> = Vec::new();
    for (number, name) in (1..).zip(MACHINES) {
        let disk = scratch.file(&format!("{name}.img"), DISK_MIB * MIB);
        let (copies, takes) = (copies.clone(), BTreeMap::new());
        let mut machine =
            Machine { name, disk, copies, imager: &imager, junk: Junk::new(seed + number), takes };
        machine.change();
        ["capture", "verify", "prune"].into_iter().for_each(|what| machine.run(what));
        machine.remember();
        machines.push(machine);
    }
    let (counts, mut rounds) = (Counts::default(), 0);
    while counts.kills.load(Ordering::Relaxed) < wanted {
        std::thread::scope(|scope| {
            for machine in &mut machines {
                let counts = &counts;
                scope.spawn(move || (0..3).for_each(|_| machine.step(counts)));
            }
        });
        rounds += 1;
        imager.ok(&["verify", "--read-data"]);
    }
    for machine in &mut machines {
        machine.run("prune");
    }
    imager.ok(&["verify", "--read-data"]);
    let unfinished = age(&imager.repository);
    settle(&imager);
    imager.ok(&["verify", "--read-data"]);
    let list = imager.json(&["list"]);
    let listed = list["captures"].as_array().expect("a list").len() as u64;
    for capture in list["captures"].as_array().expect("a list") {
        let id = capture["id"].as_str().expect("an id");
        let target = scratch.file("target.img", DISK_MIB * MIB);
        imager.ok(&["restore", &format!("id:{id}"), "--bare-metal", "--to", &target, "--yes"]);
        let same = std::fs::read(&target).expect("a file") == std::fs::read(copies.join(id)).expect("a file");
        assert!(same, "capture {id} restores what was captured");
    }
    let (left, least) = (bytes(&imager.repository), fresh(&scratch, &imager, &copies));
    let by = counts.by.lock().expect("no panic").clone();
    let (kills, ended) = (counts.kills.load(Ordering::Relaxed), counts.ended.load(Ordering::Relaxed));
    println!(
        "{kills} killed in {rounds} rounds ({by:?}; {ended} had ended), {unfinished} unfinished files; {listed} captures \
         in {left} bytes, a new repository of them has {least}"
    );
    // Of each pack that stays at least half is needed; a revocation of each killed capture stays.
    let most = least * 2 + listed * FRAME + kills * 1024;
    assert!(left <= most, "{left} bytes are left, {least} would do");
}
