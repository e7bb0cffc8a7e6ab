//! Our reading of a table against everybody else's: for each layout that `tests/layouts/make` makes, the entries of
//! partx (libblkid), `sfdisk --json`, `sfdisk --dump` and the crates `gpt` and `mbrman`; and what we write when a
//! table moves to a larger disk, as sgdisk, sfdisk and fdisk judge it.
//!
//! sfdisk and sgdisk of Debian 12 take every file for a disk with sectors of 512 bytes; for 4096 there is fdisk.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use imager_disk::table::{self, Entry, EntryKind, RawArea, Table, TableKind};
use imager_disk::{Geometry, ReadAt};
use imager_units::{ByteLen, ByteOffset, Result, SectorSize};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TOOLS: [&str; 6] = ["sfdisk", "fdisk", "sgdisk", "partx", "mkfs.fat", "mkfs.ext4"];
const MIB: u64 = 1 << 20;

/// What a layout is, beyond what the tools say.
struct Expected {
    kind: TableKind,
    volumes: usize,
    /// Words that its warnings have, one for each warning.
    warnings: &'static [&'static str],
}

const fn gpt(volumes: usize, warnings: &'static [&'static str]) -> Expected {
    Expected { kind: TableKind::Gpt, volumes, warnings }
}

const fn mbr(volumes: usize, warnings: &'static [&'static str]) -> Expected {
    Expected { kind: TableKind::Mbr, volumes, warnings }
}

const fn none(warnings: &'static [&'static str]) -> Expected {
    Expected { kind: TableKind::None, volumes: 0, warnings }
}

macro_rules! layouts {
    ($($name:ident: $expected:expr;)*) => {
        $(#[test] fn $name() { judge(&stringify!($name).replace('_', "-"), &$expected); })*

        #[test]
        fn every_layout_of_the_recipe_is_judged() {
            let recipe = std::fs::read_to_string(recipe()).unwrap();
            let made = recipe.lines().filter_map(|line| line.strip_prefix("make_")?.split("()").next());
            let judged = [$(stringify!($name)),*];
            let left: Vec<_> = made.filter(|name| !judged.contains(name)).collect();
            assert!(left.is_empty(), "not judged: {left:?}");
        }
    };
}

layouts! {
    gpt_usual_512: gpt(4, &[]);
    gpt_usual_4k: gpt(4, &[]);
    gpt_sgdisk_512: gpt(3, &[]);
    gpt_many_512: gpt(201, &[]);
    gpt_130_4k: gpt(130, &[]);
    gpt_disorder_512: gpt(4, &[]);
    gpt_attributes_512: gpt(3, &[]);
    gpt_hybrid_512: gpt(4, &["hybrid"]);
    gpt_primary_damaged_512: gpt(4, &["primary GPT (sector 1) is damaged: its checksum"]);
    gpt_primary_gone_4k: gpt(4, &["primary GPT (sector 1) is damaged: it has no GPT signature"]);
    gpt_entries_damaged_512: gpt(4, &["primary GPT (sector 1) is damaged: the checksum of its entries"]);
    gpt_backup_damaged_512: gpt(4, &["backup GPT is damaged"]);
    gpt_backup_gone_4k: gpt(4, &["backup GPT is damaged"]);
    gpt_grown_512: gpt(4, &["protective MBR covers", "not in the disk's last sector"]);
    gpt_grown_4k: gpt(4, &["protective MBR covers", "not in the disk's last sector"]);
    gpt_differ_512: gpt(4, &["say different things"]);
    gpt_tiny_512: gpt(1, &[]);
    gpt_oddsize_512: gpt(4, &[]);
    gpt_oddsize_4k: gpt(4, &[]);
    gpt_odd_protective_512: gpt(4, &["covers 1000 sectors", "status 0x80"]);
    gpt_protective_max_512: gpt(4, &[]);
    gpt_same_guids_512: gpt(3, &["entry 1 has no GUID", "entries 2 and 3 have the same GUID"]);
    gpt_moved_array_512: gpt(4, &[]);
    mbr_usual_512: mbr(4, &[]);
    mbr_usual_4k: mbr(3, &[]);
    mbr_logicals_512: mbr(14, &[]);
    mbr_disorder_512: mbr(5, &[]);
    mbr_type_85_512: mbr(3, &[]);
    mbr_empty_link_512: mbr(2, &[]);
    mbr_empty_container_512: mbr(1, &[]);
    mbr_empty_512: mbr(0, &[]);
    mbr_over_gpt_512: mbr(1, &["like Linux, the GPT is ignored"]);
    mbr_oddsize_512: mbr(2, &[]);
    none_blank_512: none(&[]);
    none_fat_512: none(&[]);
    none_fat_mbr_512: none(&[]);
    none_ext4_512: none(&[]);
    none_ext4_loader_512: none(&[]);
    none_gpt_left_512: none(&["like Linux, the GPT is ignored"]);
}

// ---- the judges ----------------------------------------------------------------------------------------------------

fn judge(name: &str, expected: &Expected) {
    if !tools_are_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = make(dir.path(), name);
    let sector = if name.ends_with("-4k") { SectorSize::B4096 } else { SectorSize::B512 };
    let disk = FileDisk::open(&image, sector);
    let table = table::read(&disk).unwrap();

    assert_eq!(table.kind, expected.kind);
    assert_eq!(table.volumes().count(), expected.volumes);
    assert_warnings(&table.warnings, expected.warnings);
    assert_eq!(table::guess_sector_size(&disk).unwrap(), guessable(name, &table));
    assert_raw_is_on_disk(&table, &disk);
    let rebuilt = Table::rebuild(&table.raw, sector, table.size).unwrap();
    assert_eq!((&rebuilt.id, &rebuilt.entries), (&table.id, &table.entries));

    assert_eq!(ours(&table), partx(&image, sector), "partx");
    if table.kind != TableKind::None {
        compare_with_sfdisk(&table, &image);
        dump_makes_the_same_table(&table, dir.path());
    }
    moves_to_equal_size(&table, &disk);
    for growth in [u64::from(sector.get()), 63 * MIB + 512, 64 * MIB] {
        moves_to_larger(&table, dir.path(), growth);
    }
}

/// An MBR decides the sector size if it has a chain or entries that would not fit with another; a GPT always does,
/// even one that is only left over.
fn guessable(name: &str, table: &Table) -> Option<SectorSize> {
    let decides = table.kind != TableKind::None && !table.entries.is_empty();
    (decides || name.contains("gpt")).then_some(table.sector)
}

fn compare_with_sfdisk(table: &Table, image: &Path) {
    let device = image.to_str().unwrap();
    let theirs = dump(image, table.sector);
    let ours = table.sfdisk_dump(device);
    // sfdisk shows a table on a grown disk as it would write it: with the backup at the end.
    let moved = device.contains("grown");
    // It thinks aloud, and shows the alignment it derives from the size of a tiny disk.
    let noise = |line: &str| line.starts_with("omitting empty") || line.starts_with("grain:");
    let skip = |line: &&str| noise(line) || (moved && line.starts_with("last-lba:"));
    let lines = |text: &str| text.lines().filter(|line| !skip(line)).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&ours), lines(&theirs), "sfdisk --dump");
    if table.sector == SectorSize::B512 {
        assert_eq!(from_json(&run("sfdisk", &["--json", device], "")), simple(table), "sfdisk --json");
    }
}

fn dump_makes_the_same_table(table: &Table, dir: &Path) {
    let again = dir.join("again.img");
    blank(&again, table.size.get());
    let dump = table.sfdisk_dump(again.to_str().unwrap());
    if table.sector == SectorSize::B512 {
        run("sfdisk", &["--quiet", "--wipe", "never", again.to_str().unwrap()], &dump);
    } else {
        let script = dir.join("script");
        std::fs::write(&script, dump).unwrap();
        fdisk(&again, SectorSize::B4096, &format!("I\n{}\nw\n", script.display()));
    }
    let read = table::read(&FileDisk::open(&again, table.sector)).unwrap();
    assert_eq!((&read.id, &read.entries), (&table.id, &table.entries), "the dump makes another table");
}

fn moves_to_equal_size(table: &Table, disk: &FileDisk) {
    let moved = table.moved_to(table.size).unwrap();
    assert_eq!(moved.entries, table.entries);
    if table.warnings.iter().any(|warning| warning.contains("damaged")) {
        assert_warnings(&moved.warnings, &["was damaged"]);
        assert_eq!(moved.raw.len(), 5);
    } else {
        assert_eq!(moved.raw, table.raw);
        assert_raw_is_on_disk(&moved, disk);
    }
}

fn moves_to_larger(table: &Table, dir: &Path, growth: u64) {
    let size = ByteLen::new(table.size.get() + growth);
    let moved = table.moved_to(size).unwrap();
    assert_eq!((&moved.id, &moved.entries), (&table.id, &table.entries));
    let image = dir.join("larger.img");
    blank(&image, size.get());
    write(&image, &moved.raw);
    let read = table::read(&FileDisk::open(&image, table.sector)).unwrap();
    assert_eq!(read.raw, moved.raw);
    assert_eq!(ours(table), partx(&image, table.sector));
    match table.kind {
        TableKind::None => return,
        TableKind::Gpt => gpt_is_sound(&read, &image),
        TableKind::Mbr => mbr_is_the_same(&read, &image),
    }
    if table.sector == SectorSize::B512 {
        let said = run("sfdisk", &["--verify", image.to_str().unwrap()], "");
        assert!(said.contains("No errors detected"), "{said}");
    }
}

/// sgdisk, fdisk and the crate `gpt` find both copies sound and the backup at the end.
fn gpt_is_sound(table: &Table, image: &Path) {
    if table.sector == SectorSize::B512 {
        let said = run("sgdisk", &["--verify", image.to_str().unwrap()], "");
        let duplicates = table.warnings.iter().any(|warning| warning.contains("same GUID"));
        assert!(said.contains("No problems found") || duplicates, "{said}");
    }
    let said = fdisk(image, table.sector, "v\nq\n");
    assert!(said.contains("No errors detected") && !said.contains("corrupt"), "{said}");

    let block = gpt::disk::LogicalBlockSize::try_from(u64::from(table.sector.get())).unwrap();
    let disk = gpt::GptConfig::new().logical_block_size(block).open(image).unwrap();
    let (primary, backup) = (disk.primary_header().unwrap(), disk.backup_header().unwrap());
    assert_eq!(backup.current_lba, table.sector.sectors_in(table.size) - 1);
    assert_eq!((primary.backup_lba, backup.backup_lba), (backup.current_lba, primary.current_lba));
    assert_eq!(disk.guid().to_string().to_uppercase(), table.id.clone().unwrap());
    let theirs = disk.partitions().iter().filter(|(_, found)| found.is_used());
    let theirs = theirs.map(|(&number, found)| {
        let id = found.part_guid.to_string().to_uppercase();
        (number, found.first_lba, found.last_lba, Some(id), found.flags, found.name.clone())
    });
    let ours = table.entries.iter().map(|entry| {
        let (start, len) = place(table, entry);
        let name = entry.name.clone().unwrap_or_default();
        (entry.number, start, start + len - 1, entry.unique_id.clone(), entry.attributes, name)
    });
    assert_eq!(theirs.collect::<Vec<_>>(), ours.collect::<Vec<_>>());
}

/// The crate `mbrman` finds the same entries, where it reads the chain at all.
fn mbr_is_the_same(table: &Table, image: &Path) {
    let mut file = File::open(image).unwrap();
    let mbr = match mbrman::MBR::read_from(&mut file, table.sector.get()) {
        Ok(mbr) => mbr,
        Err(error) => return println!("mbrman does not read this chain: {error}"),
    };
    let theirs = mbr.iter().filter(|(_, found)| found.is_used() && found.sectors > 0);
    let theirs = theirs.map(|(_, found)| (u64::from(found.sectors), format!("{:x}", found.sys)));
    let ours = table.entries.iter().map(|entry| (place(table, entry).1, entry.type_id.clone()));
    assert_eq!(theirs.collect::<Vec<_>>(), ours.collect::<Vec<_>>());
}

// ---- what others say -----------------------------------------------------------------------------------------------

/// Number, start and length in sectors of 512 bytes, type, and attributes (GPT) or status (MBR).
type Row = (u32, u64, u64, String, u64);

fn ours(table: &Table) -> Vec<Row> {
    let row = |entry: &Entry| {
        let flags = match (table.kind, entry.bootable) {
            (TableKind::Gpt, _) => entry.attributes,
            (_, true) => 0x80,
            (_, false) => 0,
        };
        let (start, len) = (entry.extent.start().get() / 512, entry.extent.len().get() / 512);
        (entry.number, start, len, entry.type_id.to_lowercase(), flags)
    };
    table.entries.iter().map(row).collect()
}

fn partx(image: &Path, sector: SectorSize) -> Vec<Row> {
    let size = sector.get().to_string();
    let args = ["--sector-size", &size, "--output", "NR,START,SECTORS,TYPE,FLAGS", "--noheadings", "--raw"];
    // Fails where there is no table.
    let output = Command::new("partx").args(args).arg(image).env("PATH", path()).output().unwrap();
    let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
    let row = |line: &str| -> Row {
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let type_id = words[3].trim_start_matches("0x").to_owned();
        (
            u32::try_from(number(0)).unwrap(),
            number(1),
            number(2),
            type_id,
            words.get(4).map_or(0, |word| hex(word)),
        )
    };
    String::from_utf8(output.stdout).unwrap().lines().map(row).collect()
}

/// Number, start and length in sectors, type and GUID.
type Simple = (u32, u64, u64, String, Option<String>);

fn simple(table: &Table) -> Vec<Simple> {
    let row = |entry: &Entry| {
        let (start, len) = place(table, entry);
        (entry.number, start, len, entry.type_id.clone(), entry.unique_id.clone())
    };
    table.entries.iter().map(row).collect()
}

/// The partitions in sfdisk's JSON, which has one field a line.
fn from_json(json: &str) -> Vec<Simple> {
    let field = |object: &str, key: &str| {
        let line = object.lines().find_map(|line| line.trim().strip_prefix(&format!("\"{key}\": ")))?;
        Some(line.trim_end_matches(',').trim_matches('"').to_owned())
    };
    let object = |object: &str| {
        let node = object.split('"').next().unwrap();
        let digits = node.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
        let number = |key| field(object, key).unwrap().parse().unwrap();
        let type_id = field(object, "type").unwrap();
        (digits.parse().unwrap(), number("start"), number("size"), type_id, field(object, "uuid"))
    };
    json.split("\"node\": \"").skip(1).map(object).collect()
}

fn dump(image: &Path, sector: SectorSize) -> String {
    if sector == SectorSize::B512 {
        return run("sfdisk", &["--dump", image.to_str().unwrap()], "");
    }
    let file = image.with_extension("dump");
    fdisk(image, sector, &format!("O\n{}\nq\n", file.display()));
    std::fs::read_to_string(file).unwrap()
}

fn fdisk(image: &Path, sector: SectorSize, commands: &str) -> String {
    let size = sector.get().to_string();
    run("fdisk", &["--sector-size", &size, "--wipe", "never", image.to_str().unwrap()], commands)
}

// ---- files and processes -------------------------------------------------------------------------------------------

struct FileDisk {
    file: File,
    geometry: Geometry,
}

impl FileDisk {
    fn open(path: &Path, sector: SectorSize) -> Self {
        let file = File::open(path).unwrap();
        let size = ByteLen::new(file.metadata().unwrap().len());
        Self { file, geometry: Geometry { size, logical: sector, physical: sector } }
    }
}

impl ReadAt for FileDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.geometry.check(offset, ByteLen::of(buf))?;
        self.file.read_exact_at(buf, offset.get()).unwrap();
        Ok(())
    }
}

fn place(table: &Table, entry: &Entry) -> (u64, u64) {
    let (start, len) = (entry.extent.start(), entry.extent.len());
    (table.sector.lba_of(start).get(), table.sector.sectors_in(len))
}

fn assert_warnings(found: &[String], expected: &[&str]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "'{found}' does not say '{expected}'");
    }
}

fn assert_raw_is_on_disk(table: &Table, disk: &FileDisk) {
    for area in &table.raw {
        let mut bytes = vec![0; area.bytes.len()];
        disk.read_exact_at(area.start, &mut bytes).unwrap();
        assert!(bytes == area.bytes, "the area at {} differs from the disk", area.start);
    }
    assert!(table.volumes().all(|entry| entry.kind != EntryKind::Extended));
}

fn blank(path: &Path, size: u64) {
    File::create(path).unwrap().set_len(size).unwrap();
}

fn write(path: &Path, areas: &[RawArea]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    for area in areas {
        file.write_all_at(&area.bytes, area.start.get()).unwrap();
    }
}

fn recipe() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/layouts/make")
}

fn make(dir: &Path, name: &str) -> PathBuf {
    let said = run(recipe().to_str().unwrap(), &[dir.to_str().unwrap(), name], "");
    assert_eq!(said.trim(), format!("{name}.img"));
    dir.join(said.trim())
}

/// Runs a tool to success and returns what it said; dumps and JSON without the complaints.
fn run(tool: &str, args: &[&str], input: &str) -> String {
    let mut command = Command::new(tool);
    command.args(args).env("LC_ALL", "C").env("PATH", path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{tool} {args:?} failed: {said}{complained}");
    if args.iter().any(|arg| matches!(*arg, "--dump" | "--json")) {
        said.into()
    } else {
        format!("{said}{complained}")
    }
}

fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Whether the tools are installed; in CI they have to be.
fn tools_are_there() -> bool {
    let path = path();
    let there = |tool: &&&str| path.split(':').any(|dir| Path::new(dir).join(tool).exists());
    let missing: Vec<_> = TOOLS.iter().filter(|tool| !there(tool)).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "missing: {missing:?}");
    println!("skipped: missing {missing:?}");
    false
}
