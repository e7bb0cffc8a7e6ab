use super::{Cursor, Folder};
use crate::log::Marks;
use crate::record::{Origin, Record, changes};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent};
use std::collections::BTreeSet;
use std::fs;

fn origin(era: u64) -> Origin {
    Origin::for_tests(era)
}

fn epoch(number: u64) -> Record {
    let at = Extent::new(ByteOffset::new(number << 16), ByteLen::new(1 << 16)).unwrap();
    let marks = Marks { written: at.into(), ..Marks::default() };
    Record { origin: origin(1), first: number, last: number, marks }
}

fn cursor(capture: &str, epoch: u64) -> Cursor {
    Cursor { capture: capture.to_owned(), origin: origin(1), epoch }
}

#[test]
fn a_second_user_is_refused_until_the_first_is_gone() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = Folder::at(&scratch.path().join("sda"));
    let lock = folder.lock().unwrap();
    let refused = folder.lock().err().unwrap();
    assert_eq!((refused.kind(), refused.to_string().contains("sda")), (ErrorKind::Denied, true));
    drop(lock);
    folder.lock().unwrap();
}

#[test]
fn compaction_keeps_what_each_cursor_needs_and_no_more() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = Folder::at(scratch.path());
    (1..=100).for_each(|number| folder.put_epoch(&epoch(number)).unwrap());
    let truth = folder.epochs(&origin(1)).unwrap();
    folder.put_cursor(&cursor("weekly", 10)).unwrap();
    folder.put_cursor(&cursor("hourly", 60)).unwrap();
    folder.put_cursor(&cursor("old", 3)).unwrap();
    folder.keep(&BTreeSet::from(["weekly", "hourly"]), &origin(1)).unwrap();
    let kept = folder.epochs(&origin(1)).unwrap();
    let spans: Vec<_> = kept.iter().take(2).map(|record| (record.first, record.last)).collect();
    assert_eq!((spans, kept.len()), (vec![(11, 60), (61, 61)], 41));
    for after in [10, 60] {
        assert_eq!(changes(&kept, after, 100), changes(&truth, after, 100));
    }
    assert_eq!(changes(&kept, 3, 100), Err(4));
    let mut names: Vec<_> = folder.cursors().unwrap().into_iter().map(|cursor| cursor.capture).collect();
    names.sort();
    assert_eq!(names, ["hourly", "weekly"]);
    // Without cursors nothing is needed.
    folder.keep(&BTreeSet::new(), &origin(1)).unwrap();
    assert!(folder.epochs(&origin(1)).unwrap().is_empty());
}

#[test]
fn what_is_torn_or_of_another_origin_is_as_good_as_absent() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = Folder::at(scratch.path());
    (1..=3).for_each(|number| folder.put_epoch(&epoch(number)).unwrap());
    folder.put_cursor(&cursor("a", 0)).unwrap();
    for entry in fs::read_dir(scratch.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("epoch-00000000000000000002") {
            fs::write(&path, &fs::read(&path).unwrap()[..50]).unwrap();
        }
    }
    assert_eq!(changes(&folder.epochs(&origin(1)).unwrap(), 0, 3), Err(2));
    assert!(folder.epochs(&origin(2)).unwrap().is_empty());
    fs::write(scratch.path().join("cursor-a"), b"torn").unwrap();
    assert!(folder.cursors().unwrap().is_empty());
    folder.compact(&origin(2)).unwrap();
    assert!(folder.epochs(&origin(1)).unwrap().is_empty());
}

#[test]
fn a_gap_is_not_joined_over() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = Folder::at(scratch.path());
    (1..=9).filter(|&number| number != 5).for_each(|number| folder.put_epoch(&epoch(number)).unwrap());
    folder.put_cursor(&cursor("a", 0)).unwrap();
    folder.put_cursor(&cursor("b", 9)).unwrap();
    folder.compact(&origin(1)).unwrap();
    assert_eq!(changes(&folder.epochs(&origin(1)).unwrap(), 0, 9), Err(5));
}

#[test]
fn an_id_cannot_lead_out_of_the_folder() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = Folder::at(scratch.path());
    for id in ["", "../a", "a/b", "a.b"] {
        assert_eq!(folder.put_cursor(&cursor(id, 1)).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
