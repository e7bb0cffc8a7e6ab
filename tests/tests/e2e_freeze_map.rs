//! What a live filesystem says it has allocated, against what is found on the disk.

use halfhour_tests::load::{self, Load};
use halfhour_tests::{Filesystem, MIB, Scratch, need};
use imager_disk::{Access, Device, ReadAt, System};
use imager_journal::{Freeze, FreezeOptions, Freezer, live_map};
use imager_units::{ByteLen, ExtentSet};
use imager_volume::Certainty;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

const SIZE: u64 = 512;

#[test]
fn a_live_map_holds_everything_that_is_allocated_on_the_disk() {
    if !need::programs(&load::PROGRAMS) {
        return;
    }
    for kind in ["ext4", "xfs", "btrfs"] {
        let scratch = Scratch::new();
        let Some(filesystem) = Filesystem::make(&scratch, "a", kind, SIZE) else { return };
        let load =
            Load::start(&filesystem.at, &scratch.folder("log"), &["files", "packages", "holes", "trim"]);
        load.wait_for(150);
        let device =
            Device::open(Path::new(&filesystem.disk.path), Access::ReadDirect, None).expect("it opens");
        let guard = halfhour_tests::binary::built("halfhour-freezer").into();
        let options = FreezeOptions {
            limit: Duration::from_secs(30),
            guard: vec![guard, OsString::from("freeze-guard")],
            records: scratch.path("records"),
            ..FreezeOptions::default()
        };
        let number = device.number().expect("a device");
        let mut freezer = Freezer::open(System::new(), &[number], options).expect("it opens");
        let found = freezer.filesystems()[0].clone();
        let size = ByteLen::new(SIZE * MIB);
        let (mut live, mut cold) = (None, None);
        freezer.sync().expect("it syncs");
        let took = freezer.frozen(&mut |_| {
            live = live_map(&found, size).expect("it is mounted");
            cold = Some(cold_map(&device));
        });
        took.expect("it freezes");
        load.stop();
        let (live, cold) = (live.expect("a map"), cold.expect("it was parsed"));
        let missing = cold.difference(&live);
        println!("{kind}: live {}, on the disk {}", live.total(), cold.total());
        assert!(missing.is_empty(), "{kind}: {:?}", missing.iter().take(9).collect::<Vec<_>>());
        // It is a map, and not everything.
        assert!(live.total().get() < cold.total().get() + 48 * MIB, "{kind}");
    }
}

fn cold_map(device: &dyn ReadAt) -> ExtentSet {
    let map = imager_volume::used(device).expect("it is read");
    assert_eq!(map.certainty, Certainty::Exact);
    map.extents
}

#[test]
fn what_does_not_tell_has_no_live_map() {
    let scratch = Scratch::new();
    let Some(filesystem) = Filesystem::make(&scratch, "a", "ntfs", 64) else { return };
    let at = System::new().filesystems().expect("they are listed");
    let found = at.iter().find(|found| found.mounts.iter().any(|(_, at)| *at == filesystem.at));
    let map = live_map(found.expect("it is mounted"), ByteLen::new(64 * MIB)).expect("it is asked");
    assert!(map.is_none());
}
