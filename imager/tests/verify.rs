//! Verification against damage of every kind to objects of every kind: found, and named to the byte.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a small disk, and what fails has failed"
)]

mod captured;

use captured::{Fixture, MAKERS, have, noise};
use imager::map::{MapReader, block_extent};
use imager::monitor::Silent;
use imager::verify::{self, Affected, Depth, Fault, Mark, Options, Scope, Status, VerifyReport};
use imager_image::manifest::{Manifest, Map, Run};
use imager_image::node::{Child, Content, Location, blocks_under, root_level};
use imager_image::pack::PackRef;
use imager_image::{CaptureId, names};
use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const READ: Options = Options { depth: Depth::ReadData, mark: Mark::Leave };
const LOOK: Options = Options { depth: Depth::Structure, mark: Mark::Leave };

/// What a damaged object is expected to take: by capture and volume key.
type Loss = BTreeMap<(CaptureId, String), ExtentSet>;

fn check(fixture: &Fixture, options: Options) -> VerifyReport {
    verify::run(&fixture.repository, Scope::All, options, &Silent::default()).unwrap()
}

fn maps(manifest: &Manifest) -> Vec<(String, &Map)> {
    let volumes = manifest.volumes.iter().filter_map(|v| Some((v.key.clone(), v.map.as_ref()?)));
    volumes.chain(manifest.disks.iter().map(|d| (format!("{}:remainder", d.number), &d.remainder))).collect()
}

fn reader<'r>(fixture: &'r Fixture, map: &Map) -> MapReader<'r> {
    MapReader::new(fixture.repository.frames().unwrap(), map).unwrap()
}

/// Every node of a map: what it covers and where it lies.
fn nodes(fixture: &Fixture, map: &Map) -> Vec<(Extent, Location)> {
    let mut reader = reader(fixture, map);
    let (blocks, size) = (reader.blocks(), reader.size());
    let mut found = Vec::new();
    for level in 0..=root_level(blocks) {
        for index in 0..blocks.div_ceil(blocks_under(level)) {
            if let Some(Child::Node(_, location)) = reader.child(level, index).unwrap() {
                let start = block_extent(index * blocks_under(level), size).start();
                let end = (start.get() + blocks_under(level) * 65_536).min(size.get());
                found.push((Extent::between(start, ByteOffset::new(end)), location));
            }
        }
    }
    found
}

/// What is lost of all captures when the frames of `pack` that `is_hit` says are.
fn expected(fixture: &Fixture, captures: &[Manifest], is_hit: &dyn Fn(&Location) -> bool) -> Loss {
    let mut loss = Loss::new();
    for manifest in captures {
        for (key, map) in maps(manifest) {
            let mut lost = ExtentSet::new();
            for (extent, location) in nodes(fixture, map) {
                if is_hit(&location) {
                    lost.insert(extent);
                }
            }
            let mut reader = reader(fixture, map);
            let (size, unit) = (reader.size(), reader.unit());
            for block in reader.blocks_with_content() {
                let (index, entry) = block.unwrap();
                let Content::Data(_, location) = entry.content else { continue };
                if is_hit(&location) {
                    let block = block_extent(index, size);
                    lost.extend(entry.mask.runs(unit, block.len().to_usize().unwrap()).map(|run| {
                        let at = |n: usize| block.start().saturating_add(ByteLen::new(n as u64));
                        Extent::between(at(run.start), at(run.end))
                    }));
                }
            }
            if !lost.is_empty() {
                loss.insert((manifest.header.id, key), lost);
            }
        }
    }
    loss
}

fn reported(affects: &[Affected]) -> Loss {
    let mut loss = Loss::new();
    for affected in affects {
        assert!(!affected.more_extents);
        let extents: ExtentSet = affected.extents.iter().copied().map(Run::extent).collect();
        assert_eq!(extents.total().get(), affected.bytes);
        let before = loss.insert((affected.capture, affected.key.clone()), extents);
        assert!(before.is_none(), "the same volume twice");
    }
    loss
}

/// The packs of a capture that hold blocks, and those that hold nodes.
fn packs(fixture: &Fixture, manifest: &Manifest) -> (Vec<PackRef>, Vec<PackRef>) {
    let (mut data, mut map_packs) = (BTreeMap::new(), BTreeMap::new());
    for (_, map) in maps(manifest) {
        map_packs.extend(nodes(fixture, map).into_iter().map(|(_, at)| (at.pack.id, at.pack)));
        for block in reader(fixture, map).blocks_with_content() {
            if let Content::Data(_, at) = block.unwrap().1.content {
                data.insert(at.pack.id, at.pack);
            }
        }
    }
    (data.into_values().collect(), map_packs.into_values().collect())
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(u64),
    Cut(u64),
    Grow,
    Delete,
}

/// Damages a file for as long as the value lives.
struct Damaged<'p>(&'p Path, Vec<u8>);

impl<'p> Damaged<'p> {
    fn new(path: &'p Path, damage: Damage) -> Self {
        let sound = fs::read(path).unwrap();
        let mut bytes = sound.clone();
        match damage {
            Damage::Flip(at) => bytes[at as usize] ^= 0x04,
            Damage::Cut(len) => bytes.truncate(len as usize),
            Damage::Grow => bytes.push(0),
            Damage::Delete => {}
        }
        fs::remove_file(path).unwrap();
        if !matches!(damage, Damage::Delete) {
            fs::write(path, bytes).unwrap();
        }
        Self(path, sound)
    }
}

impl Drop for Damaged<'_> {
    fn drop(&mut self) {
        fs::write(self.0, &self.1).unwrap();
    }
}

/// Two captures: the second differs in parts of two volumes, so they share most packs and most nodes.
fn two_captures() -> (Fixture, Vec<Manifest>) {
    let fixture = Fixture::new();
    let first = fixture.capture();
    let (start, _) = captured::PARTITIONS[1];
    fixture.poke(start * captured::MIB + 20_000_000, &noise(7, 2_000_000));
    fixture.poke(captured::PARTITIONS[0].0 * captured::MIB + 2_000_000, &noise(8, 1_000_000));
    let second = fixture.capture();
    (fixture, vec![first, second])
}

#[test]
fn an_undamaged_repository_is_sound_however_far_one_looks() {
    if !have(&MAKERS) {
        return;
    }
    let (fixture, captures) = two_captures();
    for options in [LOOK, READ] {
        let report = check(&fixture, options);
        assert!(!report.has_damage(), "{:?}", report.damaged);
        assert_eq!((report.status, report.captures.len()), (Status::Ok, 2));
        assert!(report.warnings.is_empty());
        assert_eq!(report.captures[0].volumes.len(), maps(&captures[0]).len());
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["captures"][0]["status"], "ok");
        let read = if options == READ { report.pack_bytes } else { 0 };
        assert_eq!(report.read_bytes, read);
    }
    // As many packs as the share holds: nothing is kept that nobody needs.
    let on_share = walk(&fixture.object("packs"));
    assert_eq!(check(&fixture, LOOK).packs, on_share.len() as u64);
    let second = [captures[1].clone()];
    let one = verify::run(&fixture.repository, Scope::Captures(&second), READ, &Silent::default()).unwrap();
    assert_eq!(one.captures.len(), 1);
    let stopped = Silent::default();
    stopped.stop();
    assert!(verify::run(&fixture.repository, Scope::All, READ, &stopped).is_err());
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn damage_to_packs_is_found_and_names_exactly_what_it_takes() {
    if !have(&MAKERS) {
        return;
    }
    let (fixture, captures) = two_captures();
    let (data, map) = packs(&fixture, &captures[0]);
    let (data_2, map_2) = packs(&fixture, &captures[1]);
    assert!(data.len() > 1, "packs to share and packs not to");
    let both = |a: &[PackRef], b: &[PackRef]| {
        let (a, b): (BTreeSet<_>, BTreeSet<_>) =
            (a.iter().map(|p| p.id).collect(), b.iter().map(|p| p.id).collect());
        (a.intersection(&b).count(), b.difference(&a).count())
    };
    let ((shared, own), (shared_maps, own_maps)) = (both(&data, &data_2), both(&map, &map_2));
    assert!(shared > 0 && own > 0 && shared_maps > 0 && own_maps > 0);

    let all: BTreeMap<_, _> =
        [&data, &map, &data_2, &map_2].into_iter().flatten().map(|p| (p.id, *p)).collect();
    for pack in all.values() {
        let is_map = map.iter().chain(&map_2).any(|other| other.id == pack.id);
        let here = |location: &Location| location.pack.id == pack.id;
        let len = u64::from(pack.len);
        let at = |place: u64| Damage::Flip(place);
        let cases = [
            (at(200), Fault::Altered, false),
            (at(len / 2), Fault::Altered, false),
            // The trailer: nothing that a restore needs.
            (at(len - 3), Fault::Altered, false),
            (at(3), Fault::Altered, false),
            (Damage::Cut(len / 3), Fault::WrongLength, true),
            (Damage::Grow, Fault::WrongLength, true),
            (Damage::Cut(0), Fault::WrongLength, true),
            (Damage::Delete, Fault::Missing, true),
        ];
        for (damage, fault, shows_in_structure) in cases {
            let hit = |location: &Location| {
                here(location)
                    && match damage {
                        Damage::Flip(at) => {
                            let frame = location.frame.extent();
                            frame.start().get() <= at && at < frame.end().get()
                        }
                        Damage::Cut(len) => location.frame.extent().end().get() > len,
                        Damage::Grow => false,
                        Damage::Delete => true,
                    }
            };
            let loss = expected(&fixture, &captures, &hit);
            let path = fixture.object(&names::pack(pack.id));
            let damaged = Damaged::new(&path, damage);
            for options in [LOOK, READ] {
                let report = check(&fixture, options);
                let case = format!("{damage:?} of {} (map: {is_map}) {:?}", pack.id, options.depth);
                let found = report.damaged.iter().find(|d| d.object == names::pack(pack.id));
                let seen = options == READ || shows_in_structure || (is_map && !loss.is_empty());
                assert_eq!(found.is_some(), seen, "{case}");
                assert_eq!(report.damaged.len(), usize::from(seen), "{case}");
                let Some(found) = found else { continue };
                assert_eq!(found.fault, fault, "{case}: {}", found.message);
                let affects = reported(&found.affects);
                assert_eq!(affects.keys().collect::<Vec<_>>(), loss.keys().collect::<Vec<_>>(), "{case}");
                assert!(affects == loss, "{case}: other bytes than expected");
                for capture in &report.captures {
                    let lost: u64 = capture.volumes.iter().map(|v| v.damaged_bytes).sum();
                    let wanted: u64 = loss
                        .iter()
                        .filter(|((id, _), _)| *id == capture.capture)
                        .map(|(_, e)| e.total().get())
                        .sum();
                    assert_eq!(lost, wanted, "{case}");
                    let status = match (wanted, fault) {
                        (0, _) => Status::Ok,
                        (_, Fault::Missing) => Status::Incomplete,
                        _ => Status::Damaged,
                    };
                    assert_eq!(capture.status, status, "{case}");
                }
            }
            drop(damaged);
        }
    }
    assert!(!check(&fixture, READ).has_damage(), "the damage was not undone");
}

#[test]
fn damage_to_manifests_is_found_and_spares_the_others() {
    if !have(&MAKERS) {
        return;
    }
    let (fixture, _) = two_captures();
    let report = check(&fixture, LOOK);
    let object = report.captures[0].object.clone();
    let path = fixture.object(&object);
    let len = fs::metadata(&path).unwrap().len();
    for damage in
        [Damage::Flip(0), Damage::Flip(len / 2), Damage::Flip(len - 1), Damage::Cut(len - 1), Damage::Cut(0)]
    {
        let damaged = Damaged::new(&path, damage);
        for options in [LOOK, READ] {
            let report = check(&fixture, options);
            assert_eq!(report.damaged.len(), 1, "{damage:?}");
            assert_eq!(
                (report.damaged[0].object.as_str(), report.damaged[0].fault),
                (object.as_str(), Fault::Altered)
            );
            let by = |name: &str| report.captures.iter().find(|c| c.object == name).unwrap().status;
            assert_eq!(by(&object), Status::Damaged, "{damage:?}");
            assert_eq!(by(&report.captures.iter().find(|c| c.object != object).unwrap().object), Status::Ok);
            assert_eq!(report.status, Status::Damaged);
        }
        // Even so it is found by its id, and by no other selection of captures that are sound.
        let id = names::manifest_parts(&object).unwrap().2.to_string();
        let selector = format!("id:{}", &id[..8]).parse().unwrap();
        let one =
            verify::run(&fixture.repository, Scope::Selected(&selector), LOOK, &Silent::default()).unwrap();
        assert_eq!((one.captures.len(), one.status), (1, Status::Damaged));
        drop(damaged);
    }
    // A manifest that is not there is no capture: its presence is the commit.
    let gone = Damaged::new(&path, Damage::Delete);
    let report = check(&fixture, READ);
    assert_eq!((report.captures.len(), report.has_damage()), (1, false));
    drop(gone);
}

#[test]
fn a_marked_pack_is_stored_again_by_the_next_capture() {
    if !have(&MAKERS) {
        return;
    }
    for secret in [None, Some(&b"secret"[..])] {
        a_marked_pack_is_stored_again(&Fixture::with_secret(secret));
    }
}

fn a_marked_pack_is_stored_again(fixture: &Fixture) {
    let verified = |mark| {
        let options = Options { mark, ..READ };
        verify::run(&fixture.repository, Scope::All, options, &Silent::default()).unwrap()
    };
    let first = fixture.capture();
    let (data, map) = packs(fixture, &first);
    let mut marks = Vec::new();
    // A pack of blocks, then one of nodes too.
    for pack in [data[0], map[0]] {
        let path = fixture.object(&names::pack(pack.id));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[200] ^= 1;
        fs::write(&path, bytes).unwrap();
        marks.push(names::marker(names::DAMAGED, pack.id));
        marks.sort();
        assert_eq!(verified(Mark::Damaged).marked, marks);
        let next = fixture.capture();
        // Marking again changes nothing.
        let report = verified(Mark::Damaged);
        assert_eq!(report.marked, marks);
        let status = |id| report.captures.iter().find(|c| c.capture == id).unwrap().status;
        assert_eq!(status(next.header.id), Status::Ok);
        assert_eq!(status(first.header.id), Status::Damaged);
    }
}
