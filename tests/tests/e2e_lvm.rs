//! A server on LVM: its logical volumes are captured and restored one by one, on whatever disks they lie, judged by LVM's
//! own tools and by what was put into them.

use halfhour_tests::lvm::{self, Server};
use halfhour_tests::{Imager, judge, junk, tool};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

const KEYS: [&str; 7] = ["1", "2", "2:0", "vg-0/data", "vg-0/home", "vg-0/root", "vg-0/swap"];

fn volumes(report: &Value) -> BTreeMap<String, &Value> {
    let list = report["volumes"].as_array().expect("volumes").iter();
    list.map(|volume| (volume["key"].as_str().expect("a key").to_owned(), volume)).collect()
}

fn message(error: &Value) -> &str {
    error["message"].as_str().unwrap_or_default()
}

fn captured() -> Option<(Server, Imager)> {
    let server = Server::new()?;
    let imager = server.scratch.imager();
    imager.json(&["capture", &server.disks[0], &server.disks[1], "--machine", "m", "--data", "used"]);
    Some((server, imager))
}

/// What LVM says of the group: everything but the names of nodes.
fn told(server: &mut Server) -> Option<String> {
    server.with_nodes(|_, nodes| {
        lvm::lvm(nodes, "vgck", &["vg-0"]);
        let group =
            lvm::lvm(nodes, "vgs", &["--noheadings", "-o", "vg_name,vg_uuid,vg_seqno,pv_count,lv_count"]);
        let physical =
            lvm::lvm(nodes, "pvs", &["--noheadings", "-O", "pv_uuid", "-o", "pv_uuid,pv_used,pe_start"]);
        let logical =
            lvm::lvm(nodes, "lvs", &["--noheadings", "-a", "-o", "lv_name,lv_uuid,lv_size,segtype"]);
        format!("{group}{physical}{logical}")
    })
}

/// Overwrites the middle and the beginning of a logical volume.
fn wreck(server: &mut Server, name: &str) {
    server.with_nodes(|_, nodes| {
        for (node, start, len) in &lvm::places(nodes)[name] {
            junk::over(Path::new(node), *start, *len);
        }
    });
}

fn assert_holds(server: &mut Server, name: &str) {
    let found = server.with_nodes(|_, nodes| lvm::read(&lvm::places(nodes)[name])).expect("attached");
    let paths = [("was", &server.contents[name]), ("is", &found)].map(|(when, content)| {
        let path = server.scratch.name(&format!("{name}-{when}"));
        std::fs::write(&path, content).expect("a file");
        path
    });
    if name != "swap" {
        judge::assert_same_filesystem(&paths[0], &paths[1], "ext4", &server.scratch, name);
    }
    assert_eq!(judge::identity(&paths[0]), judge::identity(&paths[1]), "{name}");
}

#[test]
fn every_logical_volume_has_its_key_role_and_map() {
    let Some((server, imager)) = captured() else { return };
    let seen = imager.json(&["inspect", &server.disks[0], &server.disks[1]]);
    let by_key = volumes(&seen);
    assert_eq!(by_key.keys().collect::<Vec<_>>(), KEYS);
    let roles: Vec<_> = KEYS.iter().map(|key| by_key[*key]["role"].as_str().expect("a role")).collect();
    assert_eq!(roles, ["boot", "os", "os", "data", "data", "os", "swap"]);
    for name in ["data", "home", "root"] {
        let key = format!("vg-0/{name}");
        assert_eq!(by_key[&key]["exact"], true, "{key}");
        let file = server.scratch.name(&format!("{name}.raw"));
        imager.ok(&["export", "m", &file, "--volume", &key, "--format", "raw"]);
        let was = server.scratch.name(&format!("{name}.was"));
        std::fs::write(&was, &server.contents[name]).expect("a file");
        judge::assert_same_filesystem(&was, &file, "ext4", &server.scratch, &key);
    }
    for key in ["2", "2:0"] {
        let used = by_key[key]["used_bytes"].as_u64().expect("a number");
        assert!(used <= 5 << 20, "physical volume {key} does not count what lies in it: {used}");
    }
    imager.ok(&["verify", "m", "--read-data"]);
}

#[test]
fn the_system_goes_back_in_place_and_the_rest_is_untouched() {
    let Some((mut server, imager)) = captured() else { return };
    let before = told(&mut server);
    // Both ways: through files, and through the nodes of partitions.
    for through_nodes in [false, true] {
        wreck(&mut server, "root");
        let attached = through_nodes
            .then(|| server.disks.clone().map(|disk| halfhour_tests::LoopDisk::attach(&disk, 512)));
        let targets = match &attached {
            Some(disks) => disks.each_ref().map(|disk| disk.as_ref().expect("attached").path.clone()),
            None => server.disks.clone(),
        };
        let request = ["restore", "m", "--to", &targets[0], "--to", &targets[1]];
        let hash =
            imager.json(&[&request[..], &["--plan"]].concat())["plan"].as_str().expect("a hash").to_owned();
        let report = imager.json(&[&request[..], &["--confirm", &hash]].concat());
        drop(attached);
        let keys: Vec<_> = volumes(&report).into_keys().collect();
        assert_eq!(keys, ["1", "vg-0/root"], "{report}");
        let untouched = report["untouched"].as_array().expect("a list");
        let mut keys: Vec<_> = untouched.iter().map(|one| one["key"].as_str().expect("a key")).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["2", "2:0", "vg-0/data", "vg-0/home", "vg-0/swap"], "{report}");
        assert!(untouched.iter().all(|one| one["unchanged"] == true), "{report}");
        for name in ["root", "data", "home", "swap"] {
            assert_holds(&mut server, name);
        }
        assert_eq!(told(&mut server), before);
    }
}

#[test]
fn a_group_that_changed_since_is_refused() {
    let Some((mut server, imager)) = captured() else { return };
    let original = server.disks.clone().map(|disk| {
        server
            .scratch
            .copy(&disk, &format!("{}.copy", Path::new(&disk).file_name().expect("a name").display()))
    });
    let changes: [(&[&str], &str); 4] = [
        (&["lvreduce", "-f", "-y", "-L", "40M", "vg-0/root"], "does not lie where it was captured"),
        (&["lvremove", "-f", "-y", "vg-0/root"], "does not lie where it was captured"),
        (&["vgremove", "-f", "-y", "vg-0"], "does not lie where it was captured"),
        (&["vgchange", "--uuid", "vg-0"], "does not lie where it was captured"),
    ];
    for (change, said) in changes {
        for (disk, original) in server.disks.iter().zip(&original) {
            std::fs::copy(original, disk).expect("as it was");
        }
        server.with_nodes(|_, nodes| lvm::lvm(nodes, change[0], &change[1..]));
        let before = server.disks.clone().map(|disk| judge::whole(&disk));
        let error =
            imager.fails(4, &["restore", "m", "--to", &server.disks[0], "--to", &server.disks[1], "--yes"]);
        assert!(message(&error).contains(said), "{change:?}: {error}");
        assert_eq!(
            before,
            server.disks.clone().map(|disk| judge::whole(&disk)),
            "{change:?}: nothing was written"
        );
    }
    // Nor is one of its disks enough, or the wrong order of both.
    let error = imager.fails(4, &["restore", "m", "--to", &server.disks[0], "--yes"]);
    assert!(message(&error).contains("lies on disks 1 and 2"), "{error}");
}

#[test]
fn lost_metadata_come_back_when_their_volumes_are_named() {
    let Some((mut server, imager)) = captured() else { return };
    let before = told(&mut server);
    wreck(&mut server, "root");
    server.with_nodes(|_, nodes| {
        nodes.iter().for_each(|node| junk::poke(Path::new(node), 0, &vec![0; 1 << 20]))
    });
    let request =
        ["restore", "m", "--to", &server.disks[0].clone(), "--to", &server.disks[1].clone(), "--yes"];
    let error = imager.fails(4, &request);
    assert!(message(&error).contains("--volume 2 --volume 2:0"), "{error}");
    let named = ["--volume", "2", "--volume", "2:0", "--volume", "vg-0/root"];
    imager.json(&[&request[..], &named].concat());
    assert_eq!(told(&mut server), before);
    for name in ["root", "data", "home", "swap"] {
        assert_holds(&mut server, name);
    }
}

#[test]
fn a_whole_group_comes_back_on_empty_disks() {
    let Some((mut server, imager)) = captured() else { return };
    let before = told(&mut server);
    for disk in &server.disks {
        junk::over(Path::new(disk), 0, std::fs::metadata(disk).expect("a disk").len());
    }
    let request = ["restore", "m", "--to", &server.disks[0].clone(), "--to", &server.disks[1].clone()];
    imager.json(&[&request[..], &["--bare-metal", "--yes"]].concat());
    assert_eq!(told(&mut server), before);
    for name in ["root", "data", "home", "swap"] {
        assert_holds(&mut server, name);
    }
    tool("sfdisk", &["--verify", &server.disks[0]]);
}

#[test]
fn a_group_that_is_not_understood_is_copied_whole_with_the_reason() {
    let Some(mut server) = Server::new() else { return };
    let imager = server.scratch.imager();
    let uuids = server.with_nodes(|_, nodes| lvm::lvm(nodes, "pvs", &["--noheadings", "-o", "pv_uuid"]));
    let uuids = uuids.expect("attached");
    let whole = |server: &Server, disks: usize, said: &str| {
        let seen = imager.json(
            &[&["inspect"], &server.disks.iter().take(disks).map(String::as_str).collect::<Vec<_>>()[..]]
                .concat(),
        );
        let by_key = volumes(&seen);
        assert!(by_key.keys().all(|key| !key.contains('/')), "{seen}");
        assert!(seen["warnings"].to_string().contains(said), "{said:?} is not in {}", seen["warnings"]);
        seen["warnings"].to_string()
    };
    let warned = whole(&server, 1, "lacks its physical volume");
    assert!(uuids.split_whitespace().any(|uuid| warned.contains(uuid)), "{warned} names one of {uuids}");
    // The second disk's metadata as they were before the last change.
    let two = server.disks[1].clone();
    let mut old = vec![0; 1 << 20];
    std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::open(&two).expect("a disk"), &mut old, 0)
        .expect("reading");
    server.with_nodes(|_, nodes| lvm::lvm(nodes, "lvrename", &["vg-0", "home", "house"]));
    assert!(imager.json(&["inspect", &server.disks[0], &two])["volumes"].to_string().contains("vg-0/house"));
    junk::poke(Path::new(&two), 0, &old);
    whole(&server, 2, "differ");
    junk::poke(Path::new(&two), 512 + 40, &[0xAA]);
    whole(&server, 2, "checksum of its label");
    junk::poke(Path::new(&two), 0, &old);
    junk::over(Path::new(&two), 4096 + 512, 900 << 10);
    whole(&server, 2, "checksum of its metadata");
    junk::poke(Path::new(&two), 4096 + 3, &[0xAA]);
    whole(&server, 2, "header of a metadata area");
}
