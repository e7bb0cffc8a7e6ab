//! The journal against a byte comparison: whatever is written to a disk, by whatever way, is marked; and where that is
//! not certain, it says so.

mod journal;

use halfhour_tests::{MIB, tool};
use imager_journal::{ChangeLog, Ends};
use journal::Watched;
use std::path::Path;

#[test]
fn what_is_written_to_a_disk_is_marked_and_nothing_else() {
    let Some(watched) = Watched::new("disk.img", 64 * MIB, Ends::Both) else { return };
    let mut log = watched.open();
    log.harvest().expect("a first harvest");
    let before = watched.contents();
    halfhour_tests::junk::over(Path::new(&watched.disk.path), 5 * MIB + 4096, 300_000);
    tool("sync", &["-f", &watched.disk.path]);
    let marks = log.harvest().expect("a harvest");
    watched.assert_covers(&before, &marks[0]);
    println!("{marks:?}");
    let total = marks[0].written.total().get();
    assert!((300_000..=512 * 1024).contains(&total), "{total}");
    assert!(log.harvest().expect("a harvest")[0].written.is_empty());
}
