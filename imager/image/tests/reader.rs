//! The stand-alone reader in `reader/` against repositories built by this crate: the same bytes, and the right
//! words and exit status when something is wrong.

mod golden;

use golden::python::{has_modules, python, reader};
use golden::source::{Source, noise, text};
use golden::{Builder, Result, Style};
use imager_image::frame::FrameKind;
use imager_image::manifest::{Consistency, Header, Manifest};
use imager_image::node::Location;
use imager_image::{CaptureId, names};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
const CAPTURE: CaptureId = CaptureId([0xab; 16]);

/// A repository with one capture of a machine with three disks, and what should come out of it.
struct Lab {
    folder: TempDir,
    builder: Builder,
    manifest: Manifest,
    sources: Vec<(&'static str, Source)>,
}

/// Volume 1: partial masks, bytes that do not count, zeros, duplicates, a short last block.
fn boot() -> Source {
    Source::new(3 * MIB + 1536, 512)
        .used(0, &text(1, 200_000))
        .used(300_000, &noise(2, 70_000))
        .garbage(512 * KIB, &noise(3, 90_000))
        .used(512 * KIB + 4096, &noise(4, 1024))
        .zeros(MIB, 200 * KIB)
        .zeros(MIB + 512 * KIB + 512, 512)
        .used(2 * MIB, &text(1, 200_000))
        .used(3 * MIB, &noise(5, 1536))
}

/// Volume 2: large enough for a map of two levels, with a grain of 4 KiB and a last unit of 512 bytes.
fn system() -> Source {
    Source::new(10 * MIB + 512, 4096)
        .used(0, &noise(6, 700_000))
        .used(4 * MIB, &text(7, 1_000_000))
        .used(9 * MIB + 12_288, &noise(8, 5000))
        .used(10 * MIB, &noise(9, 512))
}

/// A logical volume, in pieces on two disks.
fn logical() -> Source {
    Source::new(MIB + 64 * KIB + 512 + 2 * MIB, 65_536)
        .used(MIB - 1000, &noise(10, 200_000))
        .zeros(2 * MIB, MIB)
}

/// A whole disk of more than a GiB: a map of three levels with subtrees that are unused and zero.
fn large() -> Source {
    Source::new(1029 * MIB + 512, 65_536)
        .used(0, &text(11, 100_000))
        .zeros(64 * MIB, 64 * MIB)
        .used(700 * MIB, &noise(12, 100_000))
        .used(1029 * MIB, &noise(13, 512))
}

/// The head of a disk and some sectors in gaps; its volumes lie elsewhere.
fn remainder(size: u64, seed: u64) -> Source {
    Source::new(size, 512)
        .used(0, &noise(seed, 34 * 512))
        .used(MIB - 512, &noise(seed + 1, 512))
        .used(size - 33 * 512, &noise(seed + 2, 33 * 512))
}

const BOOT_AT: u64 = MIB;
const SYSTEM_AT: u64 = 5 * MIB + 1536;
const LOGICAL_AT: [(u32, u64, u64); 2] = [(1, 16 * MIB, MIB + 64 * KIB + 512), (2, MIB, 2 * MIB)];

impl Lab {
    fn new(style: Style) -> Result<Self> {
        let folder = TempDir::new()?;
        let mut builder = Builder::create(folder.path(), style)?;
        let sources = vec![
            ("1", boot()),
            ("2", system()),
            ("vg/root", logical()),
            ("3:0", large()),
            ("disk 1", remainder(18 * MIB, 20)),
            ("disk 2", remainder(4 * MIB, 30)),
            ("disk 3", Source::new(1029 * MIB + 512, 512)),
        ];
        let mut maps = sources.iter().map(|(_, source)| builder.map(source));
        let mut map = || maps.next().expect("as many maps as sources");
        let volumes = vec![
            golden::volume("1", &[(1, BOOT_AT, 3 * MIB + 1536)], Some(map()?)),
            golden::volume("2", &[(1, SYSTEM_AT, 10 * MIB + 512)], Some(map()?)),
            golden::volume("vg/root", &LOGICAL_AT, Some(map()?)),
            golden::volume("3:0", &[(3, 0, 1029 * MIB + 512)], Some(map()?)),
            golden::volume("2:9", &[(2, 3 * MIB, 64 * KIB)], None),
        ];
        let disks = vec![
            golden::disk(1, map()?, &[(0, noise(20, 34 * 512))]),
            golden::disk(2, map()?, &[(0, noise(30, 34 * 512))]),
            golden::disk(3, map()?, &[]),
        ];
        drop(maps);
        let manifest = golden::manifest(golden::header("web", 7, CAPTURE), disks, volumes);
        builder.capture(&manifest)?;
        Ok(Self { folder, builder, manifest, sources })
    }

    fn source(&self, name: &str) -> &Source {
        &self.sources.iter().find(|(known, _)| *known == name).expect("a source of this name").1
    }

    /// What disk 1 or 2 must look like.
    fn disk_image(&self, number: u32) -> Vec<u8> {
        let mut image = self.source(&format!("disk {number}")).image();
        let mut place = |at: u64, bytes: &[u8]| {
            let at = usize::try_from(at).expect("small");
            image[at..at + bytes.len()].copy_from_slice(bytes);
        };
        if number == 1 {
            place(BOOT_AT, &self.source("1").image());
            place(SYSTEM_AT, &self.source("2").image());
        }
        let mut logical = self.source("vg/root").image();
        for (disk, at, len) in LOGICAL_AT {
            let rest = logical.split_off(usize::try_from(len).expect("small"));
            if disk == number {
                place(at, &logical);
            }
            logical = rest;
        }
        image
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("output.img")
    }

    /// Runs the reader on the repository; `--output` and the password are added where they belong.
    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let password = self.folder.path().join("password.txt");
        std::fs::write(&password, "correct horse\r\n")?;
        self.run_with(&[], &password, arguments)
    }

    fn run_with(&self, python_flags: &[&str], password: &Path, arguments: &[&str]) -> Result<Output> {
        let _ = std::fs::remove_file(self.output());
        let mut command = Command::new(python());
        command.arg("-B").args(python_flags).arg(reader()).arg(self.folder.path()).args(arguments);
        command.arg("--password-file").arg(password);
        if arguments.first() == Some(&"restore") {
            command.arg("--output").arg(self.output());
        }
        Ok(command.output()?)
    }

    /// Restores a volume and wants every block as captured, but for those that `lost` names.
    fn check_volume(&self, key: &str, status: i32, lost: &[u64]) -> Result<String> {
        let output = self.run(&["restore", "web", "--volume", key])?;
        let said = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(status), "{said}");
        let (source, image) = (self.source(key), std::fs::File::open(self.output())?);
        assert_eq!(image.metadata()?.len(), source.size());
        let mut found = Vec::new();
        for number in 0..source.size().div_ceil(65_536) {
            found.resize(source.block_len(number), 0);
            std::os::unix::fs::FileExt::read_exact_at(&image, &mut found, number * 65_536)?;
            let expected = source.restored(number);
            let is_lost = lost.contains(&number);
            assert!(
                if is_lost { found.iter().all(|b| *b == 0) } else { found == expected },
                "{key} block {number}"
            );
        }
        Ok(said)
    }

    /// Changes one byte of a frame on the share.
    fn damage(&self, place: &Location) -> Result {
        let path = self.builder.path(&names::pack(place.pack.id));
        let mut bytes = std::fs::read(&path)?;
        bytes[usize::try_from(place.frame.offset + place.frame.len - 1)?] ^= 1;
        Ok(std::fs::write(path, bytes)?)
    }

    /// The place of a block of a volume, and all blocks of that volume that share its frame.
    fn frame_of(&self, key: &str, number: u64) -> (Location, Vec<u64>) {
        let source = self.source(key);
        let place = |n| self.builder.place(&source.restored(n));
        let wanted = place(number).expect("a stored block");
        let same = source
            .touched()
            .filter(|n| place(*n).is_some_and(|p| (p.pack, p.frame) == (wanted.pack, wanted.frame)));
        (wanted, same.collect())
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn disks_and_volumes_come_back_byte_for_byte() -> Result {
    for style in [Style::PLAIN, Style::ENCRYPTED] {
        if !has_modules("zstandard, nacl.bindings") {
            return Ok(());
        }
        let lab = Lab::new(style)?;
        assert!(std::fs::read_dir(lab.folder.path().join("packs"))?.count() > 5, "several packs");
        for number in [1, 2] {
            let output = lab.run(&["restore", "web", "--disk", &number.to_string()])?;
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
            assert!(std::fs::read(lab.output())? == lab.disk_image(number), "disk {number}");
            assert_eq!(said(&output).contains("volume 2:9 (2:9) is not in this capture"), number == 2);
        }
        for key in ["1", "2", "vg/root", "3:0"] {
            lab.check_volume(key, 0, &[])?;
        }
        let sparse = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(lab.output())?) * 512;
        assert!(sparse < 2 * MIB, "{sparse} bytes taken by what holds 200 KB");
    }
    Ok(())
}

#[test]
fn a_damaged_frame_costs_its_own_blocks_only() -> Result {
    if !has_modules("zstandard, nacl.bindings") {
        return Ok(());
    }
    for style in [Style::PLAIN, Style::ENCRYPTED] {
        let lab = Lab::new(style)?;
        let (place, lost) = lab.frame_of("2", 5);
        assert_eq!(lost, [4, 5, 6, 7]);
        lab.damage(&place)?;
        let said = lab.check_volume("2", 3, &lost)?;
        assert!(said.contains("DAMAGED volume 2 0x40000+0x40000: packs/"), "{said}");
        assert_eq!(said.matches("DAMAGED").count(), 1, "{said}");
        lab.check_volume("1", 0, &[])?;
        let output = lab.run(&["restore", "web", "--disk", "1"])?;
        assert_eq!(output.status.code(), Some(3));
        let mut expected = lab.disk_image(1);
        let from = usize::try_from(SYSTEM_AT + 0x40000)?;
        expected[from..from + 0x40000].fill(0);
        assert!(std::fs::read(lab.output())? == expected);
    }
    Ok(())
}

#[test]
fn packs_that_are_missing_or_cut_off_cost_what_was_in_them() -> Result {
    if !has_modules("zstandard, nacl.bindings") {
        return Ok(());
    }
    let lab = Lab::new(Style::PLAIN)?;
    let (place, _) = lab.frame_of("2", 0);
    let source = lab.source("2");
    let in_pack = |frames_from: u32| -> Vec<u64> {
        let of = |n: &u64| lab.builder.place(&source.restored(*n));
        let lost = |p: Location| p.pack == place.pack && p.frame.offset >= frames_from;
        source.touched().filter(|n| of(n).is_some_and(lost)).collect()
    };
    let path = lab.builder.path(&names::pack(place.pack.id));
    let bytes = std::fs::read(&path)?;
    let cut = place.frame.offset + place.frame.len;
    std::fs::write(&path, &bytes[..usize::try_from(cut)?])?;
    let rest = in_pack(cut);
    assert_eq!(rest, [4, 5, 6, 7]);
    lab.check_volume("2", 3, &rest)?;
    std::fs::remove_file(&path)?;
    let said = lab.check_volume("2", 3, &in_pack(0))?;
    assert!(said.contains("is missing"), "{said}");
    Ok(())
}

#[test]
fn a_damaged_map_node_costs_its_subtree_only() -> Result {
    if !has_modules("zstandard, nacl.bindings") {
        return Ok(());
    }
    let lab = Lab::new(Style::ENCRYPTED)?;
    // The second leaf of volume 2 has 33 blocks; no other node of a grain of 4 KiB has so many.
    let raw = |place: &Location| golden::open(&lab.builder, FrameKind::Node, place).expect("a node");
    let leaf = lab.builder.node_places().find(|place| raw(place).starts_with(&[0, 12, 33, 0]));
    lab.damage(&leaf.ok_or("no such leaf")?)?;
    let said = lab.check_volume("2", 3, &(128..161).collect::<Vec<_>>())?;
    assert!(said.contains("DAMAGED volume 2 0x800000+0x200200: map node: packs/"), "{said}");
    Ok(())
}

#[test]
fn what_the_source_could_not_give_is_named() -> Result {
    if !has_modules("zstandard, nacl.bindings") {
        return Ok(());
    }
    let mut lab = Lab::new(Style::PLAIN)?;
    let bad = system().unreadable(65_536, 65_536).unreadable(4 * MIB + 8192, 4096);
    let map = lab.builder.map(&bad)?;
    lab.manifest.header = golden::header("web", 8, CaptureId([0xcd; 16]));
    lab.manifest.volumes[1].map = Some(map);
    lab.builder.capture(&lab.manifest)?;
    lab.sources[1].1 = bad;
    let said = lab.check_volume("2", 2, &[])?;
    assert!(said.contains("MISSING volume 2 0x10000+0x10000: "), "{said}");
    assert!(said.contains("MISSING volume 2 0x402000+0x1000: "), "{said}");
    Ok(())
}

#[test]
fn captures_are_chosen_as_the_engine_chooses_them() -> Result {
    if !has_modules("zstandard, nacl.bindings") {
        return Ok(());
    }
    let lab = Lab::new(Style::ENCRYPTED)?;
    let capture = |machine: &str, sequence, id: u8, consistency| -> Result<String> {
        let header = golden::header(machine, sequence, CaptureId([id; 16]));
        lab.builder.capture(&Manifest { consistency, ..golden::manifest(header, vec![], vec![]) })
    };
    capture("web", 6, 0xff, Consistency::Offline)?;
    capture("web", 9, 0x01, Consistency::Inconsistent)?;
    capture("db", 1, 0x02, Consistency::Frozen)?;
    let revoked: Header = golden::header("web", 10, CaptureId([3; 16]));
    let name = names::manifest("web", golden::CREATED_COMPACT, revoked.id);
    lab.builder.put(&name, &revoked.revocation()?)?;
    let shown =
        |wanted: &str| -> Result<String> { Ok(String::from_utf8(lab.run(&["show", wanted])?.stdout)?) };
    for wanted in ["web", "web@latest", "id:abababab", &format!("id:{CAPTURE}")] {
        assert!(shown(wanted)?.contains(&format!("id:{CAPTURE}  offline")), "{wanted}");
    }
    assert!(shown("web")?.contains("volume vg/root: vg/root, 3.1 MiB, os"));
    assert!(shown("id:01010101")?.contains("inconsistent"));
    for unknown in ["nobody", "id:99999999", "id:03030303"] {
        assert_eq!(lab.run(&["show", unknown])?.status.code(), Some(11), "{unknown}");
    }
    for wrong in
        [&["show", "id:123"][..], &["show"], &["restore", "web"], &["restore", "web", "--volume", "7"]]
    {
        assert_eq!(lab.run(wrong)?.status.code(), Some(64), "{wrong:?}");
    }
    let listed = lab.run(&["list"])?;
    let lines = String::from_utf8(listed.stdout)?;
    assert_eq!((listed.status.code(), lines.lines().count()), (Some(0), 4), "{lines}");
    assert!(lines.starts_with("db  2026-11-21T03:15:00Z  full  sequence 1  id:02"));
    // A damaged manifest is named, and another one found.
    let damaged = capture("web", 8, 0x04, Consistency::Offline)?;
    std::fs::write(lab.builder.path(&damaged), b"cut off")?;
    let output = lab.run(&["show", "web"])?;
    assert!(said(&output).contains(&format!("DAMAGED {damaged}")), "{}", said(&output));
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(lab.run(&["show", "db"])?.status.code(), Some(0));
    assert_eq!(lab.run(&["show", "id:04040404"])?.status.code(), Some(3), "there, but damaged");
    Ok(())
}

#[test]
fn wrong_passwords_places_and_files_are_told_apart() -> Result {
    if !has_modules("zstandard, nacl.bindings") {
        return Ok(());
    }
    let lab = Lab::new(Style::ENCRYPTED)?;
    let wrong = lab.folder.path().join("wrong.txt");
    std::fs::write(&wrong, "wrong")?;
    let output = lab.run_with(&[], &wrong, &["restore", "web", "--disk", "1"])?;
    assert_eq!(output.status.code(), Some(12), "{}", said(&output));
    assert!(!lab.output().exists());
    let elsewhere = Command::new(python()).arg("-B").arg(reader()).args(["/dev", "list"]).output()?;
    assert_eq!(elsewhere.status.code(), Some(10));
    // An existing file stays as it is, whatever it is.
    let arguments =
        [lab.folder.path(), "restore".as_ref(), "web".as_ref(), "--volume".as_ref(), "1".as_ref()];
    let mut command = Command::new(python());
    command.arg("-B").arg(reader()).args(arguments).arg("--output").arg(&wrong);
    let password = lab.folder.path().join("password.txt");
    std::fs::write(&password, "correct horse")?;
    let refused = command.arg("--password-file").arg(password).output()?;
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert_eq!(std::fs::read(&wrong)?, b"wrong");
    Ok(())
}

#[test]
fn without_modules_the_zstd_command_is_enough_and_a_missing_nacl_is_named() -> Result {
    let bare = ["-I", "-S"];
    let zstd = Command::new("zstd").arg("--version").output().is_ok_and(|output| output.status.success());
    let none = Path::new("/dev/null");
    let lab = Lab::new(Style::PLAIN)?;
    let output = lab.run_with(&bare, none, &["restore", "web", "--disk", "2"])?;
    if zstd {
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(std::fs::read(lab.output())? == lab.disk_image(2));
    } else {
        assert!(said(&output).contains("python3-zstandard"), "{}", said(&output));
    }
    let output = Lab::new(Style::ENCRYPTED)?.run_with(&bare, none, &["restore", "web", "--disk", "2"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("python3-nacl"), "{}", said(&output));
    Ok(())
}

#[test]
fn its_own_blake3_is_blake3() -> Result {
    // As in BLAKE3's published test vectors: bytes counting to 250 and starting over, and their key and context.
    let key = *b"whats the Elvish word for friend";
    let context = "BLAKE3 2019-12-27 16:29:52 test vectors context";
    let lengths =
        [0, 1, 63, 64, 65, 1023, 1024, 1025, 2047, 2048, 2049, 3072, 5121, 65_535, 65_536, 262_145_usize];
    let script = format!(
        "import sys; sys.path.insert(0, {folder:?}); import restore as r\n\
         for n in {lengths:?}:\n\
         \x20   d = bytes(i % 251 for i in range(n))\n\
         \x20   print(r.plain_blake3(d).hex(), r.plain_blake3(d, key={key:?}.encode()).hex(), \
         r.plain_blake3(d, context={context:?}).hex())",
        folder = reader().parent().ok_or("a folder")?,
        key = std::str::from_utf8(&key)?,
    );
    let output = Command::new(python()).args(["-B", "-c", &script]).output()?;
    assert!(output.status.success(), "{}", said(&output));
    let printed = String::from_utf8(output.stdout)?;
    assert!(printed.starts_with("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262 "));
    for (line, len) in printed.lines().zip(lengths) {
        let data: Vec<u8> = (0..=250).cycle().take(len).collect();
        let expected = format!(
            "{} {} {}",
            blake3::hash(&data),
            blake3::keyed_hash(&key, &data),
            hex::encode(blake3::derive_key(context, &data))
        );
        assert_eq!(line, expected, "of {len} bytes");
    }
    assert_eq!(printed.lines().count(), lengths.len());
    Ok(())
}
