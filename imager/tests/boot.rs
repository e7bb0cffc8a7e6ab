//! Whether a restored disk starts, asked after real restores onto files: by the captured machine's own standard.

#![expect(clippy::unwrap_used, reason = "what fails has failed")]

mod common;

use common::{open, options, plain};
use imager::boot_check::{self, Check};
use imager::capture;
use imager::firmware::{Facts, Kind};
use imager::monitor::Silent;
use imager::repository::Repository;
use imager::restore::plan::{self, Request, Scope};
use imager::restore::protection::Protected;
use imager::restore::untouched::Proof;
use imager::restore::volume::ReadBack;
use imager::restore::{self, Options};
use imager::survey::{self, Assigned};
use imager_image::manifest::Manifest;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;

struct Machine {
    folder: tempfile::TempDir,
    repository: Repository,
    manifest: Manifest,
}

fn poke(path: &Path, at: u64, bytes: &[u8]) {
    fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// An MBR disk of 8 MiB with GRUB, a boot volume (type 41, as PReP is) and one of a system.
fn disk(path: &Path) {
    fs::File::create(path).unwrap().set_len(8 * MIB).unwrap();
    let mut code = vec![0; 440];
    code[..3].copy_from_slice(&[0xeb, 0x63, 0x90]);
    code[0x5a..0x64].copy_from_slice(&[0, 0x80, 1, 0, 0, 0, 0, 0, 0, 0]);
    code[0x180..0x185].copy_from_slice(b"GRUB ");
    poke(path, 0, &code);
    poke(path, 510, &[0x55, 0xaa]);
    for (index, (type_code, start, sectors)) in
        [(0x41_u8, 2048_u32, 2048_u32), (0x83, 4096, 8192)].into_iter().enumerate()
    {
        let mut entry = vec![0, 0, 0, 0, type_code, 0, 0, 0];
        entry.extend(start.to_le_bytes());
        entry.extend(sectors.to_le_bytes());
        poke(path, 446 + 16 * index as u64, &entry);
        poke(path, u64::from(start) * SECTOR, &vec![type_code; 100_000]);
    }
    poke(path, SECTOR, &[0xfa; 40 * 512]);
    poke(path, SECTOR + 0x1dc, &[0; 24]);
    poke(path, SECTOR + 0x1f4, &[2, 0, 0, 0, 0, 0, 0, 0, 30, 0, 0x20, 8]);
}

impl Machine {
    /// Captured as a machine that starts by `kind`, after `change`.
    fn new(kind: Option<Kind>, change: fn(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("captured.img");
        disk(&path);
        change(&path);
        let repository = open(plain()).unwrap();
        let mut seen =
            survey::survey(vec![(1, survey::open(&path, None).unwrap())], &Assigned::new()).unwrap();
        seen.firmware = Facts { kind, ..Facts::default() };
        let manifest = capture::run(&repository, &seen, &options("m", None), &Silent::default()).unwrap();
        Self { folder, repository, manifest }
    }

    /// Restores onto a copy whose start was overwritten up to the first partition, the table spared.
    fn restored(&self, volumes: &[&str], running: Option<Kind>) -> Vec<Check> {
        let target: PathBuf = self.folder.path().join("target.img");
        disk(&target);
        poke(&target, 0, &[0; 440]);
        poke(&target, SECTOR, &vec![0; 60 * 512]);
        let request = Request {
            targets: vec![(1, target)],
            scope: Scope::InPlace,
            volumes: volumes.iter().map(ToString::to_string).collect(),
            erase: Vec::new(),
            erase_files: true,
            erase_volumes: Vec::new(),
            repository: None,
        };
        let plan = plan::plan(&self.repository, &self.manifest, &request).unwrap();
        let how = Options { read_back: ReadBack::Yes, proof: Proof::Samples, protected: Protected::Refuse };
        restore::run(&self.repository, &plan, how, &Silent::default()).unwrap();
        boot_check::check(&self.repository, &self.manifest, &plan, running).unwrap()
    }
}

fn told(checks: &[Check]) -> Vec<(&str, &str, bool)> {
    checks.iter().map(|check| (check.firmware, check.check, check.ok)).collect()
}

#[test]
fn a_restored_disk_starts_as_the_captured_one_did() {
    for kind in [Some(Kind::Bios), None] {
        let checks = Machine::new(kind, |_| {}).restored(&[], None);
        assert_eq!(told(&checks), [("bios", "boot code", true), ("bios", "GRUB core", true)]);
        assert!(
            checks.iter().all(|check| check.problem().is_none()) && boot_check::warnings(&checks).is_empty()
        );
    }
}

#[test]
fn what_was_not_restored_and_is_needed_is_missing() {
    let checks = Machine::new(Some(Kind::Bios), |_| {}).restored(&["2"], None);
    assert_eq!(told(&checks), [("bios", "boot code", false)]);
    let problem = checks[0].problem().unwrap();
    assert!(problem.message.contains("sector 0"), "{}", problem.message);
}

#[test]
fn a_disk_that_never_started_that_way_need_not_after_a_restore() {
    let machine = Machine::new(Some(Kind::Bios), |path| poke(path, SECTOR, &[0; 512]));
    let checks = machine.restored(&[], None);
    assert_eq!(told(&checks), [("bios", "boot code", true), ("bios", "GRUB core", false)]);
    assert!(checks.iter().all(|check| check.problem().is_none()));
    let warnings = boot_check::warnings(&checks);
    assert!(warnings.len() == 1 && warnings[0].contains("in the capture"), "{warnings:?}");
    let elsewhere = Machine::new(Some(Kind::Bios), |path| poke(path, 0, &[0; 440])).restored(&[], None);
    assert!(elsewhere.is_empty(), "the machine starts from another disk");
    // Where nobody knows how it started, boot code that leads nowhere is no way.
    let unknown = Machine::new(None, |path| poke(path, 0, &[0; 440])).restored(&[], None);
    assert!(unknown.is_empty());
}

#[test]
fn of_a_machine_with_uefi_boot_code_is_told_only_where_this_machine_could_use_it() {
    let machine = Machine::new(Some(Kind::Uefi), |_| {});
    assert!(machine.restored(&[], None).is_empty());
    let checks = machine.restored(&["2"], Some(Kind::Bios));
    assert_eq!(told(&checks), [("bios", "boot code", false)]);
    assert!(checks[0].problem().is_none() && boot_check::warnings(&checks).is_empty());
    assert!(boot_check::mismatch(&machine.manifest, Some(Kind::Bios)).unwrap().contains("UEFI"));
    assert_eq!(boot_check::mismatch(&machine.manifest, Some(Kind::Uefi)), None);
    assert_eq!(boot_check::mismatch(&machine.manifest, None), None);
}
