//! A share on which anything lies where prunes and captures leave word to each other: whatever it says, pruning takes
//! nothing away that a capture needs.
//!
//! The input is a number of objects: a byte for the kind, one for whose it is, one for the length, then what is in it.

#![no_main]

mod repository;

use imager::captures;
use imager::monitor::Silent;
use imager::prune::{self, Options};
use imager::repository::Repository;
use imager::view::CaptureView;
use imager_disk::ReadAt;
use imager_image::frame::FrameKind;
use imager_image::manifest::{Kind, Manifest};
use imager_image::moved::{Moved, MovedFrame};
use imager_image::pack::{PACK_TRAILER_BYTES, PackKind, PackRef, Table, table_span};
use imager_image::{CaptureId, Compression, PackId, names};
use imager_units::{ByteOffset, ErrorKind};
use libfuzzer_sys::fuzz_target;
use netshare_store::{MemoryStore, ObjectName};
use serde_json::json;
use std::sync::{Arc, LazyLock};

const BLOCK: usize = 64 << 10;

/// A share with history, and what is in it.
struct Share {
    store: Arc<MemoryStore>,
    disk: Vec<u8>,
    last: Manifest,
    gone: CaptureId,
    packs: Vec<Pack>,
}

struct Pack {
    pack: PackRef,
    table: Option<Table>,
}

static SHARE: LazyLock<Share> = LazyLock::new(|| {
    let store = repository::create();
    let opened = repository::open(&store);
    let mut disk = repository::noise(1, 8 * BLOCK);
    let first = repository::take(&opened, &disk, Kind::Full);
    disk[..2 * BLOCK].copy_from_slice(&repository::noise(2, 2 * BLOCK));
    let last = repository::take(&opened, &disk, Kind::Incremental);
    let gone = first.header.id;
    let remove = Options { remove: vec![gone], force: true, ..Options::default() };
    run(&opened, &remove).expect("nothing is in the way");
    let packs = packs(&opened);
    Share { store, disk, last, gone, packs }
});

fn run(repository: &Repository, options: &Options) -> imager_units::Result<()> {
    let plan = prune::plan(repository, options, &Silent::default())?;
    prune::run(repository, options, plan, &Silent::default()).map(drop)
}

fn packs(repository: &Repository) -> Vec<Pack> {
    let mut found = Vec::new();
    let listed = repository.store().list(names::PACKS, &mut |entry| {
        found.push(entry.name);
        Ok(())
    });
    listed.expect("memory is read");
    found.iter().filter_map(|name| pack(repository, name)).collect()
}

fn pack(repository: &Repository, name: &ObjectName) -> Option<Pack> {
    let bytes = repository.store().get(name).expect("memory is read");
    let pack = PackRef { id: names::pack_of(name.as_str())?, len: u32::try_from(bytes.len()).ok()? };
    let trailer = &bytes[bytes.len() - PACK_TRAILER_BYTES..];
    let span = table_span(pack.len, trailer).expect("it was just packed");
    let start = usize::try_from(span.offset).ok()?;
    let mut codec = repository.codec(Compression::Fast).expect("memory for a codec");
    let raw = codec.open(FrameKind::Table, bytes.get(start..start + usize::try_from(span.len).ok()?)?);
    let raw = raw.expect("it was just sealed");
    let table = [PackKind::Data, PackKind::Map].into_iter().find_map(|kind| Table::decode(kind, &raw).ok());
    Some(Pack { pack, table })
}

impl Share {
    fn pack(&self, which: u8) -> &Pack {
        &self.packs[usize::from(which) % self.packs.len()]
    }

    /// A capture: the last, the one that is gone, or one that nobody knows.
    fn capture(&self, which: u8) -> CaptureId {
        [self.last.header.id, self.gone, CaptureId([which; 16])][usize::from(which) % 3]
    }

    /// The packs whose bits are set.
    fn chosen(&self, bits: u8) -> Vec<PackId> {
        let is_set = |at: usize| bits & (1 << (at % 8)) != 0;
        (0..self.packs.len()).filter(|at| is_set(*at)).map(|at| self.packs[at].pack.id).collect()
    }

    /// One object, as its bytes describe it.
    fn object(&self, repository: &Repository, kind: u8, whose: u8, data: &[u8]) -> (String, Vec<u8>) {
        let (pack, capture) = (self.pack(whose).pack.id, self.capture(whose));
        let byte = |at: usize| data.get(at).copied().unwrap_or(0);
        match kind % 10 {
            0 => (names::prune(capture), data.to_vec()),
            1 => {
                let (tombstones, orphans) = (self.chosen(byte(0)), self.chosen(byte(1)));
                let leases: Vec<_> = data.iter().skip(2).map(|which| self.capture(*which)).collect();
                let record = json!({ "tombstones": tombstones, "orphans": orphans, "leases": leases });
                (names::prune(capture), record.to_string().into_bytes())
            }
            2 => (names::lease(capture), data.to_vec()),
            3 => {
                let manifest = names::manifest("web", "20261121T031500Z", self.capture(byte(0)));
                (names::lease(capture), json!({ "manifest": manifest, "machine": "web" }).to_string().into())
            }
            4 => (names::marker(names::TRASH, pack), data.to_vec()),
            5 => (names::marker(names::DAMAGED, pack), data.to_vec()),
            6 => (names::hold(capture), data.to_vec()),
            7 => {
                let mut codec = repository.codec(Compression::Fast).expect("memory for a codec");
                let raw = [pack.0.as_slice(), data].concat();
                let sealed = codec.seal(FrameKind::Moved, &raw).expect("inputs are short");
                (names::moved(pack, 0), sealed)
            }
            8 => (names::moved(pack, 0), self.moved(repository, whose, data)),
            _ => (names::index(capture), data.to_vec()),
        }
    }

    /// Frames of a pack that are said to be where other frames are.
    fn moved(&self, repository: &Repository, whose: u8, data: &[u8]) -> Vec<u8> {
        let from = self.pack(whose);
        let spans = from.table.iter().flat_map(|table| &table.frames).map(|frame| frame.span);
        let to = data.iter().skip(1).filter_map(|which| {
            let to = self.pack(*which);
            let frames = &to.table.as_ref()?.frames;
            (to.pack != from.pack).then(|| (to.pack, frames[usize::from(which / 16) % frames.len()].span))
        });
        let moved = spans.zip(to).map(|(from, (pack, to))| MovedFrame { from, pack, to });
        let mut codec = repository.codec(Compression::Fast).expect("memory for a codec");
        let moved = Moved { pack: from.pack, frames: moved.collect() };
        moved.encode(&mut codec).expect("it is short")
    }
}

fuzz_target!(|data: &[u8]| {
    let share = &*SHARE;
    let store = Arc::new(MemoryStore::clone(&share.store));
    let opened = repository::open(&store);
    let (mut rest, mut documents) = (data, Vec::new());
    while let Some(([kind, whose, len], behind)) = rest.split_first_chunk() {
        let (object, behind) = behind.split_at_checked(usize::from(*len)).unwrap_or((behind, &[]));
        let (name, bytes) = share.object(&opened, *kind, *whose, object);
        let name = ObjectName::new(name).expect("a name of ours");
        if opened.store().put(&name, &bytes).is_ok() && name.is_below(names::MOVED) {
            documents.push(name);
        }
        rest = behind;
    }
    for _ in 0..3 {
        if let Err(error) = run(&opened, &Options::default()) {
            assert!(matches!(error.kind(), ErrorKind::Denied | ErrorKind::Corrupt), "{error:?}");
        }
        // A document that says the wrong place hides what is elsewhere too; that it is there counts here.
        let store = Arc::new(MemoryStore::clone(&store));
        for name in &documents {
            let _ = store.damage(name, |bytes| bytes.fill(0));
        }
        whole(&repository::open(&store), share);
    }
});

/// The capture is there and reads as it was taken.
fn whole(repository: &Repository, share: &Share) {
    let mut found = Vec::new();
    captures::list(repository, None, &mut |listed| found.push(listed)).expect("memory is read");
    assert_eq!(found.len(), 1);
    let manifest = found.remove(0).manifest.expect("nobody touched it");
    assert_eq!(manifest, share.last);
    let view = CaptureView::new(repository, manifest).disk(1).expect("it has one");
    let mut bytes = vec![0; share.disk.len()];
    view.read_exact_at(ByteOffset::ZERO, &mut bytes).expect("a pack that was needed is gone");
    assert!(bytes == share.disk, "other bytes than were captured");
}
