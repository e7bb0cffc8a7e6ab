//! A real disk (GPT, FAT, ext4, swap, a second ext4), made by the tools that make real ones, and captured into a folder.
//! Everything lies in one temporary folder that goes with the value.
#![allow(dead_code, reason = "each test crate uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot be prepared has failed"
)]

use imager::capture::{DataMode, Options};
use imager::captures;
use imager::monitor::Silent;
use imager::repository::Repository;
use imager::survey;
use imager_image::Compression;
use imager_image::manifest::{Consistency, Manifest};
use netshare_store::DirStore;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

pub(crate) const MIB: u64 = 1 << 20;
/// Start and length of each partition, in MiB.
pub(crate) const PARTITIONS: [(u64, u64); 4] = [(1, 34), (35, 80), (115, 16), (131, 60)];
const DISK_MIB: u64 = 200;

/// What is needed to make the disk.
pub(crate) const MAKERS: [&str; 6] = ["sfdisk", "mke2fs", "mkfs.fat", "mkswap", "mcopy", "debugfs"];

pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) image: PathBuf,
    pub(crate) repository: Repository,
}

/// Whether all tools are there. Says which is not; where nothing may be skipped that is a failure.
pub(crate) fn have(tools: &[&str]) -> bool {
    let there = |tool: &str| {
        ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|dir| Path::new(dir).join(tool).exists())
    };
    let missing: Vec<_> = tools.iter().filter(|tool| !there(tool)).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "missing tools: {missing:?}");
    println!("skipped: {missing:?} not found");
    false
}

pub(crate) fn command(tool: &str) -> Command {
    let mut command = Command::new(tool);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C");
    command
}

/// Runs a tool that must succeed and gives what it printed.
pub(crate) fn run(tool: &str, arguments: &[&str]) -> String {
    let output = command(tool).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {text}{errors}");
    text
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

impl Fixture {
    /// The disk, and an empty repository beside it.
    pub(crate) fn new() -> Self {
        Self::with_secret(None)
    }

    /// The same, the repository encrypted where there is a secret.
    pub(crate) fn with_secret(secret: Option<&[u8]>) -> Self {
        Self::prepare(secret, make_disk)
    }

    /// Another disk, made by `make` from a folder for its files and the path of the image.
    pub(crate) fn with_disk(make: impl FnOnce(&Path, &Path)) -> Self {
        Self::prepare(None, make)
    }

    fn prepare(secret: Option<&[u8]>, make: impl FnOnce(&Path, &Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        make(dir.path(), &image);
        let store = Arc::new(DirStore::create(&dir.path().join("repo")).unwrap());
        let repository = Repository::create(store, secret).unwrap();
        Self { dir, image, repository }
    }

    pub(crate) fn capture(&self) -> Manifest {
        let source = survey::open(&self.image, None).unwrap();
        let survey = survey::survey(vec![(1, source)], &survey::Assigned::new()).unwrap();
        let options = Options {
            machine: "web".to_owned(),
            kind: None,
            data: DataMode::Used,
            keep: Vec::new(),
            compression: Compression::Fast,
            consistency: Consistency::Offline,
            hardware_uuid: None,
            rebind: false,
            schedule: None,
        };
        let manifest = imager::capture::run(&self.repository, &survey, &options, &Silent::default()).unwrap();
        // As anybody else sees it.
        captures::by_id(&self.repository, manifest.header.id).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An object of the repository as a file.
    pub(crate) fn object(&self, name: &str) -> PathBuf {
        self.path("repo").join(name)
    }

    /// Changes bytes of the disk.
    pub(crate) fn poke(&self, at: u64, bytes: &[u8]) {
        File::options().write(true).open(&self.image).unwrap().write_all_at(bytes, at).unwrap();
    }
}

/// Gives a disk a partition table.
pub(crate) fn partition(image: &Path, script: &str) {
    let mut sfdisk =
        command("sfdisk").args(["--quiet", text(image)]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    sfdisk.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(sfdisk.wait().unwrap().success());
}

fn make_disk(dir: &Path, image: &Path) {
    File::create(image).unwrap().set_len(DISK_MIB * MIB).unwrap();
    let types = ["U", "L", "S", "L"];
    let mut script = "label: gpt\n".to_owned();
    for ((start, len), kind) in PARTITIONS.iter().zip(types) {
        script += &format!("start={start}MiB, size={len}MiB, type={kind}\n");
    }
    partition(image, &script);
    let disk = File::options().write(true).open(image).unwrap();
    // Boot code in the gap before the first partition, as a boot loader leaves it.
    disk.write_all_at(&noise(99, 30_000), 100 * 512).unwrap();
    disk.write_all_at(&noise(98, 400), 0).unwrap();
    for (number, (start, len)) in PARTITIONS.iter().enumerate() {
        let part = dir.join(format!("part{number}"));
        File::create(&part).unwrap().set_len(len * MIB).unwrap();
        match number {
            0 => make_fat(dir, &part),
            2 => drop(run("mkswap", &["-q", text(&part)])),
            _ => make_ext(dir, &part, number as u64),
        }
        copy(&part, &disk, start * MIB);
        fs::remove_file(part).unwrap();
    }
}

fn make_fat(dir: &Path, part: &Path) {
    run("mkfs.fat", &["-F", "32", "-n", "ESP", text(part)]);
    let file = dir.join("grubx64.efi");
    fs::write(&file, noise(1, 3_000_000)).unwrap();
    run("mcopy", &["-i", text(part), text(&file), "::/"]);
    fs::remove_file(file).unwrap();
}

fn make_ext(dir: &Path, part: &Path, seed: u64) {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("etc/conf.d")).unwrap();
    fs::write(tree.join("etc/hostname"), format!("host{seed}\n")).unwrap();
    for n in 0..40_u64 {
        let len = if n == 0 { 18_000_000 } else { 1000 + 9000 * n as usize };
        fs::write(tree.join(format!("etc/conf.d/noise{n}")), noise(seed * 100 + n, len)).unwrap();
        fs::write(tree.join(format!("text{n}")), "the same line again\n".repeat(500 * n as usize)).unwrap();
    }
    fs::write(tree.join("zeros"), vec![0; 3_000_000]).unwrap();
    let (label, block) = (format!("vol{seed}"), if seed == 1 { "4096" } else { "1024" });
    run("mke2fs", &["-q", "-t", "ext4", "-b", block, "-d", text(&tree), "-L", &label, text(part)]);
    // Freed blocks keep what was in them, and do not count.
    for n in [3, 17, 30] {
        run("debugfs", &["-w", "-R", &format!("rm /etc/conf.d/noise{n}"), text(part)]);
    }
    fs::remove_dir_all(tree).unwrap();
}

/// Copies what is not zero.
fn copy(part: &Path, disk: &File, at: u64) {
    let bytes = fs::read(part).unwrap();
    for (n, chunk) in bytes.chunks(4096).enumerate() {
        if chunk.iter().any(|byte| *byte != 0) {
            disk.write_all_at(chunk, at + n as u64 * 4096).unwrap();
        }
    }
}
