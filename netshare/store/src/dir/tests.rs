//! What is particular to folders; the rest is in `conformance`.

use super::{DirStore, Links, Upload};
use crate::conformance::{Clients, conformance};
use crate::{Entry, ObjectName, Put, Store};
use imager_units::{ByteLen, ErrorKind, Extent, Result};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// A share that takes its folder with it.
struct Scratch {
    store: DirStore,
    _folder: tempfile::TempDir,
}

impl Scratch {
    fn new(links: Links) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut store = DirStore::create(&folder.path().join("a/share")).unwrap();
        store.links = links;
        Self { store, _folder: folder }
    }

    fn root(&self) -> &Path {
        &self.store.root
    }
}

impl Store for Scratch {
    fn location(&self) -> String {
        self.store.location()
    }
    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        self.store.put(name, bytes)
    }
    fn get(&self, name: &ObjectName) -> Result<Vec<u8>> {
        self.store.get(name)
    }
    fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
        self.store.get_range(name, part)
    }
    fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>> {
        self.store.len(name)
    }
    fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        self.store.list(folder, each)
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.store.delete(name)
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

fn listed(store: &dyn Store) -> Vec<String> {
    let mut names = Vec::new();
    store
        .list("", &mut |entry| {
            names.push(entry.name.to_string());
            Ok(())
        })
        .unwrap();
    names.sort();
    names
}

/// A folder whose every client is one that opened it anew.
fn folder(links: Links) -> Clients {
    let scratch = Scratch::new(links);
    Box::new(move || {
        let mut store = DirStore::open(scratch.root()).unwrap();
        store.links = links;
        Box::new(store)
    })
}

#[test]
fn a_folder_conforms() {
    conformance(|| folder(Links::Tried));
}

#[test]
fn a_folder_without_hard_links_conforms() {
    conformance(|| folder(Links::Refused));
}

#[test]
fn nothing_temporary_stays_behind() {
    for links in [Links::Tried, Links::Refused] {
        let share = Scratch::new(links);
        for object in ["captures/m/1", "packs/00/1"] {
            share.put(&name(object), b"bytes").unwrap();
            assert!(share.put(&name(object), b"other").is_err());
            let folder = share.root().join(object).parent().unwrap().to_owned();
            assert_eq!(fs::read_dir(folder).unwrap().count(), 1);
        }
    }
}

#[test]
fn listings_pass_over_what_is_not_ours() {
    let share = Scratch::new(Links::Tried);
    share.put(&name("packs/00/ours"), b"x").unwrap();
    let root = share.root();
    fs::write(root.join("packs/00/.tmp-1-2-3"), b"cut off").unwrap();
    fs::write(root.join("packs/00/a person's notes"), b"").unwrap();
    fs::write(root.join("packs/00/n\u{fc}"), b"").unwrap();
    fs::create_dir_all(root.join("deep/1/2/3/4/5")).unwrap();
    fs::write(root.join("deep/1/2/3/4/file"), b"").unwrap();
    fs::create_dir(root.join(".snapshot")).unwrap();
    fs::write(root.join(".snapshot/old"), b"").unwrap();
    symlink(root, root.join("loop")).unwrap();
    symlink("/etc/hostname", root.join("packs/00/link")).unwrap();
    assert_eq!(listed(&share), ["packs/00/ours"]);
    share.list("loop", &mut |_| panic!("a link was followed")).unwrap();
}

#[test]
fn what_another_process_removes_is_put_again() {
    let share = Scratch::new(Links::Tried);
    share.put(&name("packs/00/1"), b"x").unwrap();
    fs::remove_dir_all(share.root().join("packs")).unwrap();
    assert_eq!(share.put(&name("packs/00/1"), b"x").unwrap(), Put::Created);
    fs::remove_dir_all(share.root().join("packs")).unwrap();
    assert_eq!(share.put(&name("packs/01/1"), b"x").unwrap(), Put::Created);
}

#[test]
fn a_share_that_went_away_is_not_an_empty_one() {
    let mut share = Scratch::new(Links::Tried);
    share.put(&name("a"), b"x").unwrap();
    share.store.device ^= 1;
    let calls = [
        share.put(&name("b"), b"x").map(drop),
        share.get(&name("b")).map(drop),
        share.len(&name("b")).map(drop),
        share.delete(&name("b")),
        share.list("", &mut |_| Ok(())),
    ];
    for call in calls {
        assert_eq!(call.unwrap_err().kind(), ErrorKind::Io);
    }
    assert!(!share.root().join("b").exists());
}

#[test]
fn a_folder_that_is_not_there_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let error = DirStore::open(&folder.path().join("absent")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("is the share mounted?"), "{error}");
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    assert_eq!(DirStore::open(&file).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn an_object_in_the_way_of_a_folder_is_an_error() {
    let share = Scratch::new(Links::Tried);
    share.put(&name("a"), b"x").unwrap();
    assert!(share.put(&name("a/b"), b"x").is_err());
    share.put(&name("c/d"), b"x").unwrap();
    assert_eq!(share.put(&name("c"), b"x").unwrap_err().kind(), ErrorKind::Exists);
}

/// A file system of one MiB, unmounted when dropped.
struct Tiny(tempfile::TempDir);

impl Tiny {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(folder.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        assert!(std::env::var_os("CI").is_none(), "no file system can be mounted here");
        println!("skipped: no file system can be mounted here (needs root)");
        None
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[test]
fn a_full_share_says_so_and_keeps_no_part() {
    let Some(tiny) = Tiny::mount() else { return };
    for links in [Links::Tried, Links::Refused] {
        let mut share = DirStore::open(tiny.0.path()).unwrap();
        share.links = links;
        for object in ["packs/00/large", "captures/m/large"].map(name) {
            let error = share.put(&object, &vec![1; 2 << 20]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfSpace);
            assert_eq!(fs::read_dir(tiny.0.path()).unwrap().count(), 0);
        }
    }
    let share = DirStore::open(tiny.0.path()).unwrap();
    assert_eq!(share.put(&name("packs/00/small"), b"fits").unwrap(), Put::Created);
}

#[test]
fn an_unmounted_share_is_noticed() {
    let Some(tiny) = Tiny::mount() else { return };
    let share = DirStore::open(tiny.0.path()).unwrap();
    share.put(&name("a"), b"x").unwrap();
    assert!(Command::new("umount").arg("-l").arg(tiny.0.path()).status().unwrap().success());
    assert_eq!(share.put(&name("b"), b"x").unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(share.get(&name("a")).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(share.list("", &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(fs::read_dir(tiny.0.path()).unwrap().count(), 0);
}

fn upload<'a>(share: &'a DirStore, object: &str, pieces: &[&[u8]]) -> Upload<&'a DirStore> {
    let mut upload = Upload::begin(share, name(object)).unwrap();
    pieces.iter().for_each(|piece| upload.write(piece).unwrap());
    upload
}

#[test]
fn an_object_in_pieces_is_the_same_as_one_in_one() {
    for links in [Links::Tried, Links::Refused] {
        let share = Scratch::new(links);
        for object in ["captures/m/1", "packs/00/1"] {
            let pieces: [&[u8]; 3] = [b"one ", b"", b"two"];
            assert_eq!(upload(&share.store, object, &pieces).finish().unwrap(), Put::Created);
            assert_eq!(share.get(&name(object)).unwrap(), b"one two");
            assert_eq!(upload(&share.store, object, &[b"one two"]).finish().unwrap(), Put::Present);
            for others in [&[][..], &[&b"one"[..]], &[b"one two", b"!"], &[b"one ", b"tvo"]] {
                let error = upload(&share.store, object, others).finish().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Exists, "{others:?}");
            }
        }
    }
}

#[test]
fn an_upload_that_is_given_up_leaves_nothing_not_even_folders() {
    let share = Scratch::new(Links::Tried);
    drop(upload(&share.store, "captures/m/1", &[b"cut off"]));
    assert_eq!(fs::read_dir(share.root()).unwrap().count(), 0);
    // Somebody who relies on the folder meanwhile keeps it, or makes it again.
    let (first, second) =
        (upload(&share.store, "packs/00/1", &[b"1"]), upload(&share.store, "packs/00/2", &[b"2"]));
    drop(first);
    assert_eq!(second.finish().unwrap(), Put::Created);
    assert_eq!(listed(&share), ["packs/00/2"]);
    // Of several that are given up the last one takes the folders along.
    let (first, second) =
        (upload(&share.store, "index/00/1", &[b"1"]), upload(&share.store, "index/00/2", &[b"2"]));
    drop(first);
    drop(second);
    assert!(!share.root().join("index").exists());
    drop(upload(&share.store, "trash/1", &[b"cut off"]));
    assert_eq!(share.put(&name("trash/1"), b"x").unwrap(), Put::Created);
}

#[test]
fn uploads_that_are_given_up_do_not_disturb_others() {
    let share = Scratch::new(Links::Tried);
    let put_and_delete = &|thread: usize| {
        for round in 0..50 {
            let object = format!("reports/m{}/{thread}-{round}", round % 3);
            drop(upload(&share.store, &object, &[b"cut off"]));
            assert_eq!(upload(&share.store, &object, &[b"x"]).finish().unwrap(), Put::Created);
            share.delete(&name(&object)).unwrap();
        }
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4).map(|thread| scope.spawn(move || put_and_delete(thread))).collect();
        while !writers.iter().all(|writer| writer.is_finished()) {
            share.list("reports", &mut |_| Ok(())).unwrap();
        }
    });
    assert_eq!(listed(&share), [""; 0]);
}

#[test]
fn of_uploads_at_once_one_wins_and_the_others_are_compared() {
    for links in [Links::Tried, Links::Refused] {
        let share = Scratch::new(links);
        let all =
            [b"same", b"same", b"else"].map(|bytes: &[u8; 4]| upload(&share.store, "trash/1", &[bytes]));
        let results = all.map(|upload| upload.finish().map_err(|error| error.kind()));
        assert_eq!(results, [Ok(Put::Created), Ok(Put::Present), Err(ErrorKind::Exists)]);
        assert_eq!(fs::read_dir(share.root().join("trash")).unwrap().count(), 1);
    }
}

#[test]
fn what_a_share_that_flickers_seems_to_lack_is_looked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("share");
    let store = DirStore::create(&root).unwrap();
    let (here, gone) = (ObjectName::new("packs/aa/x").unwrap(), ObjectName::new("packs/aa/y").unwrap());
    store.put(&here, b"12345").unwrap();
    // As if it went away before the first look and came back for the second.
    fs::rename(&root, dir.path().join("away")).unwrap();
    fs::create_dir(&root).unwrap();
    assert_eq!(store.get(&here).unwrap(), b"12345");
    assert_eq!(store.len(&here).unwrap(), Some(ByteLen::new(5)));
    assert_eq!(store.file(&here).unwrap().1, ByteLen::new(5));
    assert_eq!(store.get(&gone).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.len(&gone).unwrap(), None);
}

#[test]
fn without_hard_links_of_two_at_one_name_only_one_is_told_that_it_won() {
    for name in ["packs/aa/x", "index/x", "leases/x"] {
        let dir = tempfile::tempdir().unwrap();
        let store = DirStore { links: Links::Refused, ..DirStore::open(dir.path()).unwrap() };
        let name = ObjectName::new(name).unwrap();
        let begin = |bytes: &[u8]| {
            let mut upload = Upload::begin(&store, name.clone()).unwrap();
            upload.write(bytes).unwrap();
            upload
        };
        let (first, second, same) = (begin(b"first"), begin(b"other"), begin(b"first"));
        assert_eq!(first.finish().unwrap(), Put::Created);
        assert_eq!(second.finish().unwrap_err().kind(), ErrorKind::Exists);
        assert_eq!(same.finish().unwrap(), Put::Present);
        assert_eq!(store.get(&name).unwrap(), b"first");
    }
}
