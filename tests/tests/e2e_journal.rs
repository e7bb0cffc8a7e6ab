//! The journal against a byte comparison: whatever is written to a disk, by whatever way, is marked; and where that is
//! not certain, it says so.

use halfhour_tests::journal::{Round, Watched, block_extent, contents};
use halfhour_tests::{MIB, binary, junk, need, tool};
use imager_journal::{ChangeLog, Ends, Journal, MARK_BYTES, Since};
use imager_units::{ByteOffset, ErrorKind, Extent, ExtentSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often an instant may be in doubt on a kernel that keeps events from us before a test gives up.
const DOUBTS: usize = 3;

#[test]
fn what_is_written_to_a_disk_is_marked_and_nothing_else() {
    let Some(watched) = Watched::new(64 * MIB, Ends::Both) else { return };
    let (mut log, node) = (watched.open(), watched.disk.path.as_str());
    let write = || junk::over(Path::new(node), 5 * MIB + 4096, 300_000);
    let round = &Round::of(&mut log, &[node], write).expect("no doubt")[0];
    println!("{round}");
    assert!(round.missed().is_empty(), "{round:?}");
    assert_eq!(round.marks.written.total().get(), 5 * MARK_BYTES.get());
    assert!(!log.is_marked(0, block_extent(80)));
    junk::over(Path::new(node), 5 * MIB, 10);
    tool("sync", &["-d", node]);
    assert!(log.is_marked(0, block_extent(80)) && !log.is_marked(0, block_extent(81)));
    assert_eq!(log.harvest().expect("a harvest")[0].written, block_extent(80).into());
    assert!(log.harvest().expect("a harvest")[0].written.is_empty());
}

#[test]
fn raw_writes_of_all_sizes_zeros_and_discards_are_marked() {
    let Some(watched) = Watched::new(200 * MIB, Ends::Both) else { return };
    if !need::programs(&["fio", "blkdiscard"]) {
        return;
    }
    let node = watched.disk.path.as_str();
    let fio = |options: &str| {
        let line = format!(
            "fio --name=x --randrepeat=0 --filename={node} --size=64m --offset=100m --output=/dev/null {options}"
        );
        tool("sh", &["-ec", &line]);
    };
    let acts: [(&str, &dyn Fn()); 7] = [
        ("512 bytes", &|| {
            fio("--rw=randwrite --bs=512 --direct=1 --ioengine=libaio --iodepth=32 --io_size=2m")
        }),
        ("unaligned, buffered", &|| {
            fio("--rw=randwrite --bs=1000-9000 --bs_unaligned=1 --ioengine=psync --io_size=8m")
        }),
        ("io_uring", &|| {
            fio("--rw=randwrite --bs=4k --direct=1 --ioengine=io_uring --iodepth=64 --io_size=16m")
        }),
        ("mmap", &|| fio("--rw=randwrite --bs=4k --ioengine=mmap --io_size=4m")),
        ("large", &|| fio("--rw=write --bs=4m --direct=1 --ioengine=libaio --iodepth=8")),
        ("zeros", &|| drop(tool("blkdiscard", &["-z", "-o", "120M", "-l", "9M", node]))),
        ("a discard", &|| drop(tool("blkdiscard", &["-o", "65536", "-l", "150M", node]))),
    ];
    let mut log = watched.open();
    for (what, act) in acts {
        let mut doubts = 0;
        let round = loop {
            match Round::of(&mut log, &[node], act) {
                Some(mut rounds) => break rounds.remove(0),
                None => doubts += 1,
            }
            assert!(doubts < DOUBTS, "in doubt again and again");
        };
        println!("{what}: {round}");
        assert!(round.missed().is_empty() && !round.changed.is_empty(), "{what}: {:?}", round.missed());
        let is_discard = what.contains("discard");
        assert_eq!(is_discard, !round.marks.discarded.is_empty(), "{what}");
    }
}

/// What a machine does to its file systems.
const CHURN: &str = r#"
    cd "$AT"; mkdir -p churn db; R=$ROUND
    fio --name=a --randrepeat=0 --directory=. --size=24m --rw=randwrite --bs=4k --direct=1 --ioengine=io_uring --iodepth=32 --io_size=8m --output=/dev/null
    fio --name=b --randrepeat=0 --directory=. --size=16m --rw=randwrite --bs=4k --ioengine=mmap --io_size=4m --output=/dev/null
    fio --name=c --randrepeat=0 --directory=. --size=8m --rw=randwrite --bs=700-5000 --bs_unaligned=1 --ioengine=psync --io_size=4m --fsync=16 --output=/dev/null
    for n in $(seq 60); do
        head -c $((n * 777)) /dev/urandom > churn/new; sync -d churn/new; mv churn/new churn/$((n % 20)).$R
    done
    python3 - <<'END'
import sqlite3
for mode in ("DELETE", "WAL"):
    db = sqlite3.connect("db/" + mode)
    db.execute("pragma journal_mode=" + mode)
    db.execute("create table if not exists t(a integer primary key, b blob)")
    for _ in range(20):
        db.execute("insert into t(b) values (randomblob(3000))")
        db.commit()
    db.execute("update t set b=randomblob(3000) where a%3=0")
    db.commit(); db.close()
END
    cp b.0.0 copy.$R; cp --reflink=auto a.0.0 twin.$R
    fallocate -p -o 1m -l 3m a.0.0; fallocate -z -o 6m -l 1m a.0.0 2>/dev/null || true; truncate -s 5m b.0.0
    rm -f copy.$((R - 1)) twin.$((R - 1)); fstrim . ; cd /
"#;

fn files(kind: &str, rounds: u32) {
    let mkfs = format!("mkfs.{kind}");
    if !need::programs(&["fio", "fstrim", "python3", &mkfs]) {
        return;
    }
    let Some(watched) = Watched::new(400 * MIB, Ends::Both) else { return };
    let node = watched.disk.path.as_str();
    tool(&mkfs, &["-q", node]);
    let at = watched.scratch.folder("at").display().to_string();
    let _mounted = halfhour_tests::device::mount(node, Path::new(&at), "defaults");
    let mut log = watched.open();
    let (mut done, mut doubts) = (0, 0);
    while done < rounds {
        let line = format!("export AT={at} ROUND={done}\n{CHURN}");
        match Round::of(&mut log, &[node], || drop(tool("bash", &["-ec", &line]))) {
            Some(round) => {
                println!("{kind}: {}", round[0]);
                assert!(round[0].missed().is_empty(), "missed: {:?}", round[0].missed());
                assert!(!round[0].changed.is_empty() && !round[0].marks.discarded.is_empty());
                done += 1;
            }
            None => doubts += 1,
        }
        assert!(doubts <= DOUBTS * usize::try_from(rounds).expect("few"), "in doubt again and again");
    }
    println!("{kind}: {done} rounds, {doubts} more in doubt");
}

fn rounds() -> u32 {
    if need::full() { 50 } else { 2 }
}

#[test]
fn all_that_happens_to_ext4_is_marked() {
    files("ext4", rounds());
}

#[test]
fn all_that_happens_to_xfs_is_marked() {
    files("xfs", rounds());
}

#[test]
fn all_that_happens_to_btrfs_is_marked() {
    files("btrfs", rounds());
}

#[test]
fn a_discard_of_any_length_is_marked_to_the_block() {
    let Some(watched) = Watched::new(40 << 30, Ends::Both) else { return };
    let mut log = watched.open();
    for (from, to) in [(1, 2), (3, 66), (63, 4097), (100, 4096 * 3 + 5), (5, 600_000), (0, 655_360)] {
        let (start, len) = (from << 16, (to - from) << 16);
        tool("blkdiscard", &["-o", &start.to_string(), "-l", &len.to_string(), &watched.disk.path]);
        let marks = log.harvest().expect("a harvest").remove(0);
        let all = marks.discarded.union(&marks.written);
        assert_eq!(all, Extent::between(ByteOffset::new(start), ByteOffset::new(to << 16)).into());
    }
}

/// A write is under way while its block is harvested and read, and lands then: whether it is marked again.
fn lands_late(ends: Ends) -> Option<bool> {
    if !need::programs(&["fsfreeze", "mkfs.ext4"]) {
        return None;
    }
    // A disk on a file of a file system that stands still: what is issued stays under way until it is thawed.
    let outer = halfhour_tests::Scratch::new();
    let below = halfhour_tests::LoopDisk::attach(&outer.file("below.img", 64 * MIB), 512)?;
    tool("mkfs.ext4", &["-q", &below.path]);
    let at = outer.folder("at");
    let _mounted = halfhour_tests::device::mount(&below.path, &at, "defaults");
    let image = at.join("disk.img").display().to_string();
    std::fs::write(&image, vec![0; 16 << 20]).expect("a file");
    tool("sync", &["-f", &image]);
    let watched = Watched::on(outer, &image, ends)?;
    let node = watched.disk.path.clone();
    let mut log = watched.open();
    log.harvest().expect("a harvest");
    let block = block_extent(9);
    let is_there = || {
        let mut byte = [0];
        File::open(&image)
            .and_then(|file| file.read_exact_at(&mut byte, block.start().get()))
            .expect("it reads");
        byte[0] != 0
    };
    tool("fsfreeze", &["-f", &at.display().to_string()]);
    let thaw = Thaw(at.display().to_string());
    let line = format!(
        "tr '\\0' x < /dev/zero | exec dd of={node} bs=4096 count=1 seek=144 oflag=direct iflag=fullblock status=none"
    );
    let mut writer = Command::new("sh").args(["-ec", &line]).spawn().expect("a writer");
    while !log.is_marked(0, block) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(log.harvest().expect("a harvest")[0].written, block.into());
    assert!(!is_there(), "the write has not landed");
    drop(thaw);
    assert!(writer.wait().expect("a child").success());
    assert!(is_there(), "the write has landed");
    let mut written = ExtentSet::new();
    let mut take = |_, extent| {
        written.insert(extent);
        true
    };
    log.harvest_frozen(&mut take).expect("an epoch");
    assert!(log.harvest().expect("a harvest")[0].written.is_empty());
    Some(written == block.into())
}

struct Thaw(String);

impl Drop for Thaw {
    fn drop(&mut self) {
        tool("fsfreeze", &["-u", &self.0]);
    }
}

#[test]
fn a_write_that_is_under_way_is_marked_again_when_it_lands() {
    let Some(is_marked) = lands_late(Ends::Both) else { return };
    assert!(is_marked);
    // Where the kernel kept its completion from the program, the sums tell, and what was taken meanwhile is taken again.
    assert_eq!(lands_late(Ends::Unseen), Some(true));
    // Marked at one end alone it is lost, and no sum tells: this is what the second mark is for.
    assert_eq!(lands_late(Ends::Issue), Some(false));
}

/// Copies like a capture while one block after the other is written once; how many blocks of the copy are stale at the
/// end. `None` when in doubt.
fn copied_under_writes() -> Option<usize> {
    let watched = Watched::new(256 * MIB, Ends::Both)?;
    let node = watched.disk.path.as_str();
    let mut log = watched.open();
    let copy = watched.scratch.file("copy.img", 256 * MIB);
    // Past the loop device, whose own queue would put our reads behind the writes.
    let (from, to) = (File::open(&watched.disk.file), File::options().write(true).open(&copy));
    let (from, to) = (from.expect("the disk"), to.expect("the copy"));
    let take = |blocks: &ExtentSet| {
        let mut buffer = vec![0; 4096];
        for start in blocks.iter().flat_map(|run| (run.start().get()..run.end().get()).step_by(1 << 16)) {
            from.read_exact_at(&mut buffer, start).expect("it reads");
            to.write_all_at(&buffer, start).expect("it writes");
        }
    };
    let options = "--direct=1 --ioengine=libaio --iodepth=128 --iodepth_batch=32 --bs=4k --rw=write:60k --buffer_pattern=0xa5 --size=255m";
    let line = format!("exec fio --name=x --filename={node} --output=/dev/null {options}");
    let mut fio = Command::new("sh").args(["-ec", &line]).spawn().expect("fio starts");
    let (mut passes, mut is_over, mut doubt) = (0, false, None);
    while !is_over {
        is_over = fio.try_wait().expect("a child").is_some();
        match log.harvest() {
            Ok(marks) => take(&marks[0].written),
            Err(error) => doubt = Some(error),
        }
        passes += 1;
    }
    assert!(fio.wait().expect("a child").success(), "fio failed");
    let same = contents(&watched.disk.file).iter().zip(contents(&copy)).filter(|(a, b)| **a == *b).count();
    println!("{passes} passes, {} of 4096 blocks are stale, in doubt: {doubt:?}", 4096 - same);
    doubt.is_none().then_some(4096 - same)
}

#[test]
fn a_copy_that_follows_the_marks_is_the_disk() {
    if !need::programs(&["fio"]) || !halfhour_tests::journal::can_follow() {
        return;
    }
    let stale: Vec<_> = (0..if need::full() { 20 } else { DOUBTS })
        .map_while(|n| (n == 0 || need::full()).then(copied_under_writes))
        .collect();
    assert!(stale.iter().flatten().all(|stale| *stale == 0), "{stale:?}");
}

fn since(log: &Journal, capture: &str) -> Since {
    log.since(capture).expect("an answer")
}

fn unknown(log: &Journal, capture: &str) -> String {
    match since(log, capture) {
        Since::Unknown(why) => why,
        known @ Since::Known(_) => panic!("{known:?}"),
    }
}

#[test]
fn a_later_process_knows_what_changed_since_each_capture() {
    let Some(watched) = Watched::new(64 * MIB, Ends::Both) else { return };
    let node = Path::new(&watched.disk.path);
    let write = |block: u64| {
        junk::over(node, block * MARK_BYTES.get(), 4096);
        tool("sync", &["-d", &watched.disk.path]);
    };
    let mut log = watched.open();
    write(1);
    let weekly = log.harvest_frozen(&mut |_, _| true).expect("an epoch");
    log.commit("weekly", weekly, &[]).expect("a cursor");
    write(2);
    let hourly = log.harvest_frozen(&mut |_, _| true).expect("an epoch");
    log.commit("hourly", hourly, &["weekly".to_owned()]).expect("a cursor");
    assert_eq!(
        Journal::open(std::slice::from_ref(&watched.name)).err().expect("it is in use").kind(),
        ErrorKind::Denied
    );
    drop(log);
    // Nobody is there.
    write(3);
    let mut log = watched.open();
    log.harvest().expect("a harvest");
    let blocks = |capture: &str| match since(&log, capture) {
        Since::Known(marks) => marks[0].written.iter().map(|run| run.start().get() >> 16).collect::<Vec<_>>(),
        Since::Unknown(why) => panic!("{why}"),
    };
    assert_eq!((blocks("weekly"), blocks("hourly")), (vec![2], vec![3]));
}

#[test]
fn a_process_that_is_killed_leaves_the_truth_or_says_that_it_does_not_know() {
    let Some(watched) = Watched::new(64 * MIB, Ends::Both) else { return };
    let node = watched.disk.path.as_str();
    let mut random = junk::Junk::new(7);
    let (mut known, mut unknowns) = (0, 0);
    for round in 0..if need::full() { 100 } else { 12 } {
        let base = format!("base-{round}");
        let mut log = watched.open();
        let epoch = log.harvest_frozen(&mut |_, _| true).expect("an epoch");
        log.commit(&base, epoch, &[]).expect("a cursor");
        drop(log);
        let before = contents(node);
        let mut child = Command::new(binary::built("halfhour-journal"));
        let mut child =
            child.args(["harvest", node, "other", &base]).stdout(Stdio::piped()).spawn().expect("it starts");
        let until = Instant::now() + Duration::from_millis(20 + random.number() % 300);
        while Instant::now() < until {
            let block = random.number() % 1024;
            junk::over(Path::new(node), block << 16, 4096);
            tool("sync", &["-d", node]);
        }
        child.kill().expect("a child");
        child.wait().expect("a child");
        let mut log = watched.open();
        match log.harvest() {
            Ok(_) => {}
            Err(error) => {
                println!("in doubt: {error}");
                continue;
            }
        }
        let truth = halfhour_tests::journal::changed(&before, &contents(node));
        match since(&log, &base) {
            Since::Known(marks) => {
                assert!(truth.difference(&marks[0].written).is_empty(), "missed");
                known += 1;
            }
            Since::Unknown(why) => {
                println!("round {round}: {why}");
                unknowns += 1;
            }
        }
    }
    println!("killed: {known} times all was known, {unknowns} times it was said not to be");
    assert!(known > 0, "it is of no use");
}

/// The record of epochs that was written last.
fn newest_record(disk: &str) -> std::path::PathBuf {
    let entries = std::fs::read_dir(format!("/run/halfhour/journal/{disk}")).expect("the journal's folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.to_string_lossy().contains("/epoch-")).max().expect("a record")
}

#[test]
fn whatever_is_in_doubt_is_said_and_begins_anew() {
    let Some(watched) = Watched::new(64 * MIB, Ends::Both) else { return };
    let (node, name) = (watched.disk.path.as_str(), watched.name.name());
    let write = || {
        junk::over(Path::new(node), 0, 4096);
        tool("sync", &["-d", node]);
    };
    let mut log = watched.open();
    let commit = |log: &mut Journal, capture: &str| {
        let epoch = log.harvest_frozen(&mut |_, _| true).expect("an epoch");
        log.commit(capture, epoch, &[]).expect("a cursor");
        assert!(matches!(since(log, capture), Since::Known(_)));
    };
    assert!(unknown(&log, "never").contains("knows nothing of capture never"));
    // A record that is torn, and one that is lost.
    commit(&mut log, "a");
    log.harvest().expect("a harvest");
    let record = newest_record(name);
    let bytes = std::fs::read(&record).expect("a record");
    std::fs::write(&record, &bytes[..bytes.len() - 1]).expect("it is torn");
    assert!(unknown(&log, "a").contains("not recorded"));
    std::fs::write(&record, &bytes).expect("it is whole");
    assert!(matches!(since(&log, "a"), Since::Known(_)));
    std::fs::remove_file(&record).expect("it is lost");
    assert!(unknown(&log, "a").contains("not recorded"));
    // What somebody declares.
    commit(&mut log, "b");
    log.taint("a block differs that was not marked").expect("it begins anew");
    assert!(unknown(&log, "b").contains("a block differs"));
    // Writes that the kernel does not count cannot be checked.
    commit(&mut log, "c");
    let switch = format!("/sys/block/{name}/queue/iostats");
    std::fs::write(&switch, "0").expect("a switch");
    write();
    std::fs::write(&switch, "1").expect("a switch");
    let doubt = log.harvest().expect_err("they were not counted");
    assert_eq!(doubt.kind(), ErrorKind::Corrupt, "{doubt}");
    println!("{doubt}; {}", unknown(&log, "c"));
    // It goes on from there.
    commit(&mut log, "d");
    write();
    log.harvest().expect("a harvest");
    assert!(matches!(since(&log, "d"), Since::Known(marks) if !marks[0].written.is_empty()));
    // A size that is another: only a journal that is started for it helps.
    File::options()
        .write(true)
        .open(&watched.disk.file)
        .and_then(|file| file.set_len(60 * MIB))
        .expect("a file");
    tool("losetup", &["-c", node]);
    for _ in 0..2 {
        assert!(log.harvest().expect_err("it is smaller").to_string().contains("size"));
        assert!(unknown(&log, "d").contains("size"));
    }
    drop(log);
    assert!(Journal::start(&watched.name).expect("it starts"));
    let mut log = watched.open();
    assert!(unknown(&log, "d").contains("knows nothing"));
    commit(&mut log, "e");
}
