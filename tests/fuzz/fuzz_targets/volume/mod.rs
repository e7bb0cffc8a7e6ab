//! What must hold of every volume, whatever is on it.

use imager_disk::{MemoryDisk, ReadAt};
use imager_units::{ByteOffset, Result};
use imager_volume::{Certainty, UsedBlocks, UsedMap};

/// Looks at `disk` through `reader` and through detection.
pub fn check(disk: &MemoryDisk, reader: &dyn UsedBlocks) {
    let end = ByteOffset::new(disk.geometry().size.get());
    for found in [reader.probe(disk), imager_volume::probe(disk)] {
        if let Some(found) = found.expect("memory is always read") {
            assert!(found.head.end() <= end);
            let _recipe_or_reason = imager_volume::skeleton::recipe(found.kind, disk);
        }
    }
    if let Ok(map) = reader.used(disk) {
        assert_eq!(map.certainty, Certainty::Exact);
        check_map(&map, end);
    }
    let map = imager_volume::used(disk).expect("memory is always read");
    check_map(&map, end);
    if let Certainty::Whole(reason) = &map.certainty {
        assert_eq!(map.extents.total(), disk.geometry().size, "{reason}");
    }
}

fn check_map(map: &UsedMap, end: ByteOffset) {
    assert!(map.unit.get().is_power_of_two() && (512..=65_536).contains(&map.unit.get()));
    assert!(map.extents.end() <= end);
    assert_eq!(map.extents.align_out(map.unit, end), map.extents);
}

/// Looks for files through what reads one of at most so many bytes.
#[allow(dead_code, reason = "only some filesystems have files that are read")]
pub fn check_files(read: &dyn Fn(&str, u64) -> Result<Vec<u8>>) {
    for path in ["/etc/fstab", "link", "etc/../../etc/hostname"] {
        if let Ok(content) = read(path, 1 << 20) {
            assert!(content.len() <= 1 << 20);
        }
    }
}
