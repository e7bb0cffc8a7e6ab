//! An encrypted repository tells nothing, and nothing in it can be exchanged unnoticed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::fat::{FatVolume, Layout};
use common::random::Random;
use common::{capture, difference, entries, is_recognised, names, plain, restore};
use imager::captures;
use imager::repository::{Found, Repository};
use imager_disk::{MemoryDisk, ReadAt};
use imager_image::Compression;
use imager_image::frame::FrameKind;
use imager_image::manifest::Manifest;
use imager_image::node::{Content, Location};
use imager_units::SectorSize;
use netshare_store::{MemoryStore, ObjectName, Store};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

const PASSWORD: &[u8] = b"correct horse battery staple";
const NEEDLE: &[u8; 64] = b"a needle of sixty-four bytes that lies in a file of this volume!";

fn object(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

fn encrypted() -> (Arc<MemoryStore>, Repository) {
    let store = Arc::new(MemoryStore::new());
    let repository = Repository::create(Arc::clone(&store) as Arc<dyn Store>, Some(PASSWORD)).unwrap();
    (store, repository)
}

/// A volume with a label, a serial number, a file name and a content that are known.
fn volume() -> FatVolume {
    let volume = FatVolume::new(Layout { cluster: 65_536, clusters: 60, ..Layout::SMALL });
    let mut random = Random::new(1);
    (3..30).for_each(|cluster| volume.put(cluster, &random.bytes(65_536)));
    volume.put(2, b"SECRETFTXT\x20\x20\0\0\0\0");
    volume.put(3, NEEDLE);
    let text: Vec<u8> = NEEDLE.iter().copied().cycle().take(65_536).collect();
    volume.put(51, &text);
    volume
}

/// What of the volume must not be seen.
const SECRETS: [&[u8]; 6] =
    [NEEDLE, b"sixty-four bytes", b"NEEDLELABEL", b"SECRETF", b"1234-ABCD", &[0xCD, 0xAB, 0x34, 0x12]];

/// The secrets that lie open in a share.
fn seen(store: &MemoryStore) -> Vec<(String, usize)> {
    let mut seen = Vec::new();
    for name in names(store, "") {
        let bytes = store.get(&object(&name)).unwrap();
        for (number, secret) in SECRETS.iter().enumerate() {
            if bytes.windows(secret.len()).any(|window| window == *secret) {
                seen.push((name.clone(), number));
            }
        }
    }
    seen
}

#[test]
fn nothing_of_a_volume_lies_open_in_an_encrypted_repository() {
    let volume = volume();
    let (store, repository) = encrypted();
    for _ in 0..2 {
        capture(&repository, volume.snapshot(), None).unwrap();
        volume.put(40, NEEDLE);
    }
    assert_eq!(seen(&store), []);
    // The eye that looks is not blind: a plain repository shows all but what is compressed.
    let open = plain();
    capture(&common::open(Arc::clone(&open)).unwrap(), volume.snapshot(), None).unwrap();
    assert!(!seen(&open).is_empty());
}

#[test]
fn the_same_volume_twice_is_two_different_repositories() {
    let volume = volume();
    let ids = || {
        let (_, repository) = encrypted();
        let manifest = capture(&repository, volume.snapshot(), None).unwrap();
        let all = entries(&repository, manifest.volumes[0].map.as_ref().unwrap()).unwrap();
        let id = all.iter().find_map(|(index, entry)| match entry.content {
            Content::Data(id, _) if *index == 10 => Some(id),
            _ => None,
        });
        id.unwrap()
    };
    assert_ne!(ids(), ids(), "whoever knows a block must not be able to look for it");
}

#[test]
fn only_the_password_opens_it() {
    let (store, _) = encrypted();
    let open = |password: &[u8]| match Repository::find(Arc::clone(&store) as Arc<dyn Store>).unwrap() {
        Found::Locked(locked) => locked.open(password).unwrap().is_ok(),
        Found::Open(_) => panic!("it is encrypted"),
    };
    assert!(open(PASSWORD));
    for wrong in [&b""[..], b"correct horse battery stapl", b"correct horse battery staple "] {
        assert!(!open(wrong));
    }
}

/// After damage: whatever is read is right, or is said to be wrong.
fn assert_right_or_refused(
    repository: &Repository,
    name: &str,
    original: &Manifest,
    volume: &FatVolume,
    what: &str,
) {
    let Ok(manifest) = captures::read(repository, name) else { return };
    assert!(manifest == *original, "{what}: another manifest");
    let size = volume.disk.geometry().size.to_usize().unwrap();
    let target = MemoryDisk::from_bytes(&vec![0xAA; size], SectorSize::B512);
    match restore(repository, &manifest, &target) {
        Ok(outcome) if outcome.is_complete => {
            let at = difference(&volume.mask(), &volume.disk.to_vec(), &target.to_vec());
            assert_eq!(at, None, "{what}: wrong data");
        }
        Ok(outcome) => assert!(!outcome.damaged.is_empty() && !is_recognised(&target), "{what}"),
        Err(_) => assert!(!is_recognised(&target), "{what}"),
    }
}

/// Places in an object of `len` bytes: all at both ends, some between.
fn places(len: usize) -> impl Iterator<Item = usize> {
    let ends = 100;
    (0..len).filter(move |at| *at < ends || *at + ends >= len || at.is_multiple_of(12_553))
}

fn flip_everything(store: &MemoryStore, repository: &Repository) -> usize {
    let volume = volume();
    let original = capture(repository, volume.snapshot(), None).unwrap();
    let manifest = names(store, "captures").remove(0);
    let mut flips = 0;
    for folder in ["packs", "captures", "index", "leases"] {
        for name in names(store, folder) {
            let len = store.len(&object(&name)).unwrap().unwrap().to_usize().unwrap();
            for at in places(len) {
                let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 1 << (at % 8);
                store.damage(&object(&name), flip).unwrap();
                assert_right_or_refused(
                    repository,
                    &manifest,
                    &original,
                    &volume,
                    &format!("{name} at {at}"),
                );
                store.damage(&object(&name), flip).unwrap();
                flips += 1;
            }
        }
    }
    assert_right_or_refused(repository, &manifest, &original, &volume, "mended");
    flips
}

#[test]
fn no_flipped_bit_anywhere_gives_wrong_data() {
    let (store, repository) = encrypted();
    println!("{} bits of an encrypted repository flipped", flip_everything(&store, &repository));
    let store = plain();
    let repository = common::open(Arc::clone(&store)).unwrap();
    println!("{} bits of a plain repository flipped", flip_everything(&store, &repository));
}

#[test]
fn a_flipped_bit_in_the_description_or_a_slot_opens_nothing_else() {
    let (store, repository) = encrypted();
    let id = repository.id();
    for name in ["halfhour.json".to_owned(), names(&*store, "keys").remove(0)] {
        let len = store.len(&object(&name)).unwrap().unwrap().to_usize().unwrap();
        for at in (0..len).step_by(if name == "halfhour.json" { 5 } else { 17 }) {
            let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 1;
            store.damage(&object(&name), flip).unwrap();
            if let Ok(found) = Repository::find(Arc::clone(&store) as Arc<dyn Store>) {
                match found {
                    Found::Open(_) => panic!("{name} at {at}: it is encrypted"),
                    Found::Locked(locked) => {
                        if let Ok(Ok(opened)) = locked.open(PASSWORD) {
                            assert_eq!(opened.id(), id, "{name} at {at}");
                        }
                    }
                }
            }
            store.damage(&object(&name), flip).unwrap();
        }
    }
}

/// Frames of blocks that lie in the same pack and have the same length.
fn twins(repository: &Repository, manifest: &Manifest) -> (Location, Location) {
    let all = entries(repository, manifest.volumes[0].map.as_ref().unwrap()).unwrap();
    let mut frames: Vec<Location> = Vec::new();
    for (_, entry) in all {
        let Content::Data(_, location) = entry.content else { continue };
        let twin = |other: &&Location| {
            other.pack == location.pack
                && other.frame.len == location.frame.len
                && other.frame != location.frame
        };
        if let Some(other) = frames.iter().find(twin) {
            return (*other, location);
        }
        frames.push(location);
    }
    panic!("noise makes frames of equal length")
}

fn pack_name(location: &Location) -> ObjectName {
    object(&imager_image::names::pack(location.pack.id))
}

#[test]
fn frames_that_changed_places_are_noticed() {
    let volume = volume();
    for (store, repository) in [encrypted(), {
        let store = plain();
        (Arc::clone(&store), common::open(store).unwrap())
    }] {
        let manifest = capture(&repository, volume.snapshot(), None).unwrap();
        let (a, b) = twins(&repository, &manifest);
        let bytes = store.get(&pack_name(&a)).unwrap();
        let (from, to) = (common::range(a.frame.extent()), common::range(b.frame.extent()));
        store
            .damage(&pack_name(&a), |pack| {
                pack[from.clone()].copy_from_slice(&bytes[to.clone()]);
                pack[to].copy_from_slice(&bytes[from]);
            })
            .unwrap();
        let target = MemoryDisk::new(volume.disk.geometry().size, SectorSize::B512);
        let outcome = restore(&repository, &manifest, &target).unwrap();
        assert!(!outcome.is_complete && outcome.damaged.total().get() >= 2 * 65_536);
        assert!(!is_recognised(&target));
    }
}

#[test]
fn a_frame_of_another_kind_or_repository_does_not_open() {
    let ((_, here), (_, there)) = (encrypted(), encrypted());
    let plain = common::open(plain()).unwrap();
    let kinds = [FrameKind::Blocks, FrameKind::Node, FrameKind::Table, FrameKind::Manifest, FrameKind::Index];
    for kind in kinds {
        let frame = here.codec(Compression::Fast).unwrap().seal(kind, b"content").unwrap();
        assert_eq!(here.codec(Compression::Fast).unwrap().open(kind, &frame).unwrap(), b"content");
        assert!(there.codec(Compression::Fast).unwrap().open(kind, &frame).is_err());
        assert!(plain.codec(Compression::Fast).unwrap().open(kind, &frame).is_err());
        let open = plain.codec(Compression::Fast).unwrap().seal(kind, b"content").unwrap();
        assert!(here.codec(Compression::Fast).unwrap().open(kind, &open).is_err(), "sealed is sealed");
        for other in kinds.into_iter().filter(|other| *other != kind) {
            // Even where the kind in the clear header and the digest over it are made to fit.
            let mut forged = frame.clone();
            forged[8] = other as u8;
            let digest = blake3::Hasher::new().update(&forged[..48]).update(&forged[80..]).finalize();
            forged[48..80].copy_from_slice(digest.as_bytes());
            assert!(here.codec(Compression::Fast).unwrap().open(other, &forged).is_err());
        }
    }
}

#[test]
fn objects_of_another_repository_or_under_another_name_are_not_taken() {
    let volume = volume();
    let ((store, here), (other_store, there)) = (encrypted(), encrypted());
    let manifest = capture(&here, volume.snapshot(), None).unwrap();
    capture(&there, volume.snapshot(), None).unwrap();
    let name = names(&*store, "captures").remove(0);
    let foreign = other_store.get(&object(&names(&*other_store, "captures").remove(0))).unwrap();
    // A manifest of another repository, in the place of ours.
    store.damage(&object(&name), |bytes| *bytes = foreign).unwrap();
    assert!(captures::read(&here, &name).is_err());
    // Ours, for another machine, time or id.
    let again = capture(&here, volume.snapshot(), None).unwrap();
    let mine = captures::name_of(&again.header);
    let bytes = here.store().get(&object(&mine)).unwrap();
    for elsewhere in [
        mine.replace("captures/m/", "captures/n/"),
        mine.replace("captures/m/2", "captures/m/1"),
        captures::name_of(&manifest.header).replace(&manifest.header.id.to_string(), &"ab".repeat(16)),
    ] {
        here.store().put(&object(&elsewhere), &bytes).unwrap();
        assert!(captures::read(&here, &elsewhere).is_err(), "{elsewhere}");
    }
    // A pack of the same length from there.
    let longest = |store: &dyn Store| {
        let packs = names(store, "packs");
        packs.into_iter().max_by_key(|pack| store.len(&object(pack)).unwrap()).unwrap()
    };
    let theirs = other_store.get(&object(&longest(&*other_store))).unwrap();
    let store = Arc::new(MemoryStore::new());
    let here = Repository::create(Arc::clone(&store) as Arc<dyn Store>, Some(PASSWORD)).unwrap();
    let manifest = capture(&here, volume.snapshot(), None).unwrap();
    store.damage(&object(&longest(&*store)), |bytes| *bytes = theirs).unwrap();
    let target = MemoryDisk::new(volume.disk.geometry().size, SectorSize::B512);
    let outcome = restore(&here, &manifest, &target).unwrap();
    assert!(!outcome.is_complete && !is_recognised(&target));
}

/// The command with a folder of its own.
struct Shell {
    dir: tempfile::TempDir,
}

impl Shell {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn share(&self) -> PathBuf {
        self.dir.path().join("share")
    }

    fn run(&self, password: Option<&str>, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imager"));
        command
            .args(arguments)
            .env("IMAGER_REPO", self.share())
            .env("IMAGER_STATE_DIR", self.dir.path().join("state"));
        for name in ["IMAGER_PASSWORD", "IMAGER_PASSWORD_FILE", "IMAGER_PASSWORD_COMMAND"] {
            command.env_remove(name);
        }
        command.envs(password.map(|password| ("IMAGER_PASSWORD", password)));
        command.stdin(std::process::Stdio::null()).output().unwrap()
    }

    fn expect(&self, code: i32, password: &str, arguments: &[&str]) -> Value {
        let output = self.run(Some(password), &[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn image(&self) -> String {
        let path = self.dir.path().join("disk.img");
        std::fs::write(&path, volume().disk.to_vec()).unwrap();
        path.display().to_string()
    }
}

fn ids(keys: &Value) -> Vec<String> {
    keys["keys"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn keys_come_and_go_and_the_last_one_stays() {
    let shell = Shell::new();
    shell.expect(0, "one", &["init", "--encrypt"]);
    let image = shell.image();
    shell.expect(0, "one", &["capture", &image, "--machine", "m"]);
    shell.expect(12, "two", &["key", "test"]);
    shell.expect(12, "two", &["list"]);
    shell.expect(12, "two", &["key", "add", "--recovery"]);
    assert!(!shell.run(None, &["list"]).status.success(), "nobody is asked where nobody sits");

    let file = shell.dir.path().join("new");
    std::fs::write(&file, "two\n").unwrap();
    let file = file.display().to_string();
    let second = shell.expect(0, "one", &["key", "add", "--new-password-file", &file, "--label", "second"]);
    let recovery = shell.expect(0, "two", &["key", "add", "--recovery"]);
    let added = |said: &Value| said["added"].as_str().unwrap().to_owned();
    let (second, third) = (added(&second), added(&recovery));
    let all = ids(&shell.expect(0, "", &["key", "list"]));
    let first = all.iter().find(|id| **id != second && **id != third).unwrap();
    assert_eq!(all.len(), 3);
    let recovery = recovery["recovery_key"].as_str().unwrap();
    // A recovery key works however it is typed, everywhere.
    for typed in [recovery.to_owned(), recovery.to_uppercase(), format!(" {recovery} ")] {
        shell.expect(0, &typed, &["key", "test"]);
        assert_eq!(shell.expect(0, &typed, &["list"])["captures"].as_array().unwrap().len(), 1);
    }
    // Whoever takes a key away shows that he holds another one.
    shell.expect(4, "one", &["key", "remove", first]);
    shell.expect(12, "nonsense", &["key", "remove", first]);
    shell.expect(0, "two", &["key", "remove", first]);
    shell.expect(12, "one", &["list"]);
    shell.expect(0, "two", &["list"]);
    shell.expect(0, recovery, &["key", "remove", &second]);
    shell.expect(12, "two", &["list"]);
    shell.expect(0, recovery, &["list"]);
    shell.expect(4, recovery, &["key", "remove", &third]);
    shell.expect(0, recovery, &["list"]);
}

#[test]
fn a_slot_that_opens_nothing_does_not_count_as_another_key() {
    let (shell, other) = (Shell::new(), Shell::new());
    shell.expect(0, "one", &["init", "--encrypt"]);
    other.expect(0, "other", &["init", "--encrypt"]);
    let only = ids(&shell.expect(0, "one", &["key", "list"])).remove(0);
    // One of another repository (or of an init that never ended), one that is damaged.
    let foreign = ids(&other.expect(0, "other", &["key", "list"])).remove(0);
    std::fs::copy(other.share().join("keys").join(&foreign), shell.share().join("keys").join(&foreign))
        .unwrap();
    std::fs::write(shell.share().join("keys").join("ab".repeat(8)), "{}").unwrap();
    shell.expect(4, "one", &["key", "remove", &only]);
    shell.expect(0, "one", &["list"]);
}

/// Puts another repository into the place of the one that was used.
fn exchange(at: &Path, by: &Path) {
    std::fs::rename(at, at.with_extension("away")).unwrap();
    std::fs::rename(by, at).unwrap();
}

#[test]
fn a_repository_that_was_exchanged_is_refused() {
    let (shell, other) = (Shell::new(), Shell::new());
    let image = shell.image();
    shell.expect(0, "one", &["init", "--encrypt"]);
    shell.expect(0, "one", &["capture", &image, "--machine", "m"]);
    other.expect(0, "", &["init"]);
    exchange(&shell.share(), &other.share());
    for command in [&["capture", image.as_str(), "--machine", "m"][..], &["list"], &["verify"]] {
        let said = shell.expect(4, "one", command);
        assert_eq!(said["error"]["kind"], "denied", "{said}");
    }
    assert_eq!(
        std::fs::read_dir(shell.share())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name() == "captures")
            .count(),
        0
    );

    // The same repository, said to be plain: its keys are then the ones that everybody knows.
    let away = shell.share().with_extension("away");
    let description: Value =
        serde_json::from_slice(&std::fs::read(away.join("halfhour.json")).unwrap()).unwrap();
    let mine: Value =
        serde_json::from_slice(&std::fs::read(shell.share().join("halfhour.json")).unwrap()).unwrap();
    let mut forged = mine.clone();
    forged["id"] = description["id"].clone();
    std::fs::write(shell.share().join("halfhour.json"), serde_json::to_vec(&forged).unwrap()).unwrap();
    let said = shell.run(Some("one"), &["list", "--json"]);
    assert!(matches!(said.status.code(), Some(1 | 3 | 4)), "{said:?}");
    let id = imager_image::RepositoryId(hex(description["id"].as_str().unwrap()));
    let master = imager_image::keys::MasterKey::public(id);
    let check = imager_image::Keys::new(id, &master, imager_image::keys::Encryption::None).check();
    for (_, value) in forged.as_object_mut().unwrap() {
        if value.as_str().is_some_and(|text| text.len() == check.len()) {
            *value = check.clone().into();
        }
    }
    std::fs::write(shell.share().join("halfhour.json"), serde_json::to_vec(&forged).unwrap()).unwrap();
    shell.expect(4, "one", &["list"]);
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}

#[test]
fn a_machine_that_lost_its_memory_of_repositories_says_so() {
    let shell = Shell::new();
    shell.expect(0, "one", &["init", "--encrypt"]);
    let pins = shell.dir.path().join("state/repositories.json");
    for damage in [&b""[..], b"{", b"[1]"] {
        std::fs::write(&pins, damage).unwrap();
        // Otherwise whoever can empty a file can exchange a repository.
        shell.expect(4, "one", &["list"]);
    }
    std::fs::remove_file(&pins).unwrap();
    shell.expect(0, "one", &["list"]);
}
