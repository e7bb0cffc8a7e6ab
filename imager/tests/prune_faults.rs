//! Shares that fail in the middle of a prune: whatever call fails, nothing that is needed is lost, and the next prune ends
//! where the first would have.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;
mod pruned;

use common::{names, plain};
use imager::verify::{Depth, Mark};
use imager_units::{ByteLen, ErrorKind};
use netshare_store::{FaultyStore, MemoryStore, Store, StoreFault};
use pruned::{
    KIB_64, assert_sound, check, fill, last, noise, object, pack_bytes, prune, settle, take, try_prune,
};
use std::sync::Arc;

/// Everything a prune may find to do: captures to remove, packs to tombstone, to delete, to empty and to heal, leftovers.
fn everything() -> Arc<MemoryStore> {
    let (store, volume) = (plain(), noise(1, 24));
    take(Arc::clone(&store), "m", &volume);
    fill(&volume, 2, 2..22);
    take(Arc::clone(&store), "m", &volume);
    fill(&volume, 3, 2..14);
    let old = names(&*store, "packs");
    take(Arc::clone(&store), "m", &volume);
    // The first goes, and packs of it get tombstones.
    prune(Arc::clone(&store), &last(2));
    let other = noise(4, 12);
    take(Arc::clone(&store), "n", &other);
    for pack in names(&*store, "packs").into_iter().filter(|pack| !old.contains(pack)) {
        let name = object(&pack);
        if store.len(&name).unwrap().unwrap().get() > 10 * KIB_64 {
            store.damage(&name, |bytes| bytes[4000] ^= 1).unwrap();
        }
    }
    check(Arc::clone(&store), Depth::ReadData, Mark::Damaged);
    // Sent again, so that it can be healed.
    take(Arc::clone(&store), "m", &volume);
    take(Arc::clone(&store), "n", &other);
    let orphan = take(Arc::clone(&store), "o", &noise(5, 6));
    store.delete(&object(&imager::captures::name_of(&orphan.header))).unwrap();
    store.delete(&object(&imager_image::names::lease(orphan.header.id))).unwrap();
    store
}

#[test]
fn whatever_call_fails_nothing_is_lost_and_the_next_prune_finishes() {
    let start = everything();
    let done = Arc::new((*start).clone());
    let counting = Arc::new(FaultyStore::new(Arc::clone(&done), []));
    let report = prune(Arc::clone(&counting), &last(2));
    println!("{} calls: {report:?}", counting.calls());
    assert!(report.deleted_packs > 0 && report.moved_packs > 0 && report.waiting_packs > 0, "{report:?}");
    settle(&done);
    assert_sound(&done, "without a fault");
    let least = pack_bytes(&*done);
    let step = if std::env::var_os("HALFHOUR_FULL").is_some() { 1 } else { 3 };
    let mut runs = 0;
    for nth in (1..=counting.calls()).step_by(step) {
        for fault in [
            StoreFault::Fails { nth, kind: ErrorKind::Io },
            StoreFault::FailsAfter { nth, kind: ErrorKind::Io },
            StoreFault::Gone { nth, kind: ErrorKind::Lost },
            StoreFault::Truncates { nth, len: ByteLen::new(20) },
        ] {
            let store = Arc::new((*start).clone());
            let faulty = FaultyStore::new(Arc::clone(&store), [fault]);
            let failed = try_prune(faulty, &last(2)).err();
            // As much is readable as before, or more: what was damaged is damaged or healed.
            let report = check(Arc::clone(&store), Depth::ReadData, Mark::Leave);
            let before = check(Arc::clone(&start), Depth::ReadData, Mark::Leave);
            let lost = |report: &imager::verify::VerifyReport| -> u64 {
                report
                    .damaged
                    .iter()
                    .flat_map(|damaged| &damaged.affects)
                    .map(|affected| affected.bytes)
                    .sum()
            };
            assert!(lost(&report) <= lost(&before), "{fault:?}, {failed:?}: {:#?}", report.damaged);
            prune(Arc::clone(&store), &last(2));
            settle(&store);
            assert_sound(&store, &format!("{fault:?}"));
            let left = pack_bytes(&*store);
            // A new pack of which only a part was announced stays while half of it is needed.
            assert!(left * 2 <= least * 3, "{fault:?}: {left} bytes left, {least} without");
            runs += 1;
        }
    }
    println!("{runs} faults");
}

#[test]
fn a_share_that_does_not_let_us_delete_loses_nothing() {
    let start = everything();
    let before = check(Arc::clone(&start), Depth::Structure, Mark::Leave).captures.len();
    let counting = FaultyStore::new(Arc::new((*start).clone()), []);
    prune(counting, &last(2));
    let store = Arc::new((*start).clone());
    struct NoDelete(Arc<MemoryStore>);
    impl Store for NoDelete {
        fn location(&self) -> String {
            self.0.location()
        }
        fn put(
            &self,
            name: &netshare_store::ObjectName,
            bytes: &[u8],
        ) -> imager_units::Result<netshare_store::Put> {
            self.0.put(name, bytes)
        }
        fn get(&self, name: &netshare_store::ObjectName) -> imager_units::Result<Vec<u8>> {
            self.0.get(name)
        }
        fn get_range(
            &self,
            name: &netshare_store::ObjectName,
            part: imager_units::Extent,
        ) -> imager_units::Result<Vec<u8>> {
            self.0.get_range(name, part)
        }
        fn len(&self, name: &netshare_store::ObjectName) -> imager_units::Result<Option<ByteLen>> {
            self.0.len(name)
        }
        fn list(
            &self,
            folder: &str,
            each: &mut dyn FnMut(netshare_store::Entry) -> imager_units::Result<()>,
        ) -> imager_units::Result<()> {
            self.0.list(folder, each)
        }
        fn delete(&self, name: &netshare_store::ObjectName) -> imager_units::Result<()> {
            Err(imager_units::Error::new(ErrorKind::Denied, format!("{name} may not be deleted")))
        }
    }
    let error = try_prune(NoDelete(Arc::clone(&store)), &last(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().starts_with("deleting "), "{error}");
    assert_eq!(pruned::objects(&*store), pruned::objects(&*start));
    assert_eq!(check(store, Depth::Structure, Mark::Leave).captures.len(), before);
}
