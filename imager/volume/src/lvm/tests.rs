use super::{Group, Shape, read};
use imager_disk::{MemoryDisk, WriteAt};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, SectorSize};

const TEXT: &str = r#"contents = "Text Format Volume Group"
version = 1
vg {
    id = "1n3XnC-ZQjz-CwCu-t40c-hmR0-Y2wW-p86QlK"
    seqno = 3
    format = "lvm2" # informational
    status = ["RESIZEABLE", "READ", "WRITE"]
    flags = []
    extent_size = 128
    physical_volumes {
        pv0 {
            id = "ybyEKw-qLID-qNTo-Lp6T-DQcT-Re0G-Kti6bZ"
            status = ["ALLOCATABLE"]
            flags = []
            pe_start = 2048
            pe_count = 30
        }
        pv1 {
            id = "UlRz53-XKcC-yWfF-Mrxo-GHj9-sNol-vPLMl4"
            status = ["ALLOCATABLE"]
            flags = []
            pe_start = 2048
            pe_count = 30
        }
    }
    logical_volumes {
        root {
            id = "8rCqKT-UC8b-Fmbn-Bp5Z-kACy-k9Td-Dujild"
            status = ["READ", "WRITE", "VISIBLE"]
            flags = []
            segment_count = 2
            segment1 {
                start_extent = 0
                extent_count = 2
                type = "striped"
                stripe_count = 1
                stripes = ["pv0", 4]
            }
            segment2 {
                start_extent = 2
                extent_count = 4
                type = "striped"
                stripe_count = 2
                stripe_size = 128
                stripes = ["pv0", 6, "pv1", 0]
            }
        }
        thin {
            id = "9rCqKT-UC8b-Fmbn-Bp5Z-kACy-k9Td-Dujild"
            status = ["READ", "WRITE", "VISIBLE"]
            flags = []
            segment_count = 1
            segment1 {
                start_extent = 0
                extent_count = 100
                type = "thin"
                thin_pool = "pool"
            }
        }
        pool {
            id = "ArCqKT-UC8b-Fmbn-Bp5Z-kACy-k9Td-Dujild"
            status = ["READ", "WRITE", "VISIBLE"]
            flags = []
            segment_count = 1
            segment1 {
                start_extent = 0
                extent_count = 2
                type = "striped"
                stripe_count = 1
                stripes = ["pv1", 10]
            }
        }
    }
}
"#;

fn extent(unit: u64, count: u64) -> Extent {
    let start = ByteOffset::new((1 << 20) + unit * 65_536);
    Extent::between(start, start.saturating_add(ByteLen::new(count * 65_536)))
}

/// What becomes of the text with one thing changed.
fn refused(from: &str, to: &str) -> (ErrorKind, String) {
    assert!(TEXT.contains(from), "{from} is there");
    let error = Group::parse(&TEXT.replacen(from, to, 1)).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn linear_and_striped_volumes_are_plain_and_the_rest_is_opaque() {
    let group = Group::parse(TEXT).unwrap();
    assert_eq!((group.name.as_str(), group.seqno, group.physical.len()), ("vg", 3, 2));
    let root = &group.logical[0];
    assert_eq!(root.shape, Shape::Plain);
    let pieces: Vec<_> = root.pieces.iter().map(|piece| (piece.physical, piece.extent)).collect();
    // The first stripe goes on where the linear segment ended.
    assert_eq!(pieces, [(0, extent(4, 3)), (1, extent(0, 1)), (0, extent(7, 1)), (1, extent(1, 1))]);
    let shapes: Vec<_> = group.logical[1..].iter().map(|logical| logical.shape.clone()).collect();
    assert_eq!(shapes, [Shape::Opaque("thin".into()), Shape::Opaque("part of a thin".into())]);
}

#[test]
fn a_physical_volume_keeps_what_is_no_volume_and_nothing_that_is() {
    let group = Group::parse(TEXT).unwrap();
    let size = ByteLen::new(4 << 20);
    let (first, second) = (group.used(0, size).unwrap(), group.used(1, size).unwrap());
    let metadata = Extent::first(ByteLen::new(1 << 20));
    assert!(first.contains(metadata) && second.contains(metadata));
    assert!(second.contains(extent(10, 2)), "the pool is copied with its physical volume");
    assert!(!first.overlaps(extent(0, 30)) && !second.overlaps(extent(0, 10)));
    assert!(first.contains(Extent::between(extent(30, 0).start(), ByteOffset::new(4 << 20))), "the tail");
    assert_eq!(group.used(0, ByteLen::new(2 << 20)).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_group_that_is_not_whole_at_rest_and_alone_is_refused_with_the_reason() {
    for (from, to, said) in [
        ("\"WRITE\"]", "\"WRITE\", \"EXPORTED\"]", "is exported"),
        ("\"WRITE\"]", "\"WRITE\", \"PARTIAL\"]", "is partial"),
        ("\"WRITE\"]", "\"WRITE\", \"CLUSTERED\"]", "shared between machines"),
        ("seqno = 3", "seqno = 3 lock_type = \"sanlock\"", "shared between machines"),
        ("\"WRITE\"]", "\"WRITE\", \"NEW\"]", "not known (NEW)"),
        ("flags = []\n            pe", "flags = [\"MISSING\"]\n            pe", "marked MISSING"),
        ("pe_start = 2048", "pe_start = 2049", "64 KiB"),
        ("extent_size = 128", "extent_size = 2", "64 KiB"),
        ("type = \"thin\"", "type = \"new\" on = \"pv0\"", "lies on physical volumes"),
        ("physical_volumes", "more { } physical_volumes", "more, which is not known"),
        ("\"pv1\", 10", "\"pool_tdata\", 10", "no disk"),
    ] {
        let (kind, message) = refused(from, to);
        assert_eq!(kind, ErrorKind::Unsupported, "{message}");
        assert!(message.contains(said), "{message:?} does not say {said:?}");
    }
}

#[test]
fn metadata_that_contradict_themselves_are_refused() {
    for (from, to) in [
        ("\"pv1\", 10", "\"pv1\", 29"),
        ("\"pv1\", 10", "\"pv1\", 1"),
        ("\"pv1\", 10", "\"pv1\", -1"),
        ("\"pv1\", 10", "\"pv1\""),
        ("\"pv1\", 10", "10, \"pv1\""),
        ("start_extent = 2", "start_extent = 3"),
        ("segment_count = 2", "segment_count = 3"),
        ("segment_count = 2", "segment_count = 99999999999"),
        ("stripe_count = 2", "stripe_count = 3"),
        ("stripe_count = 2", "stripe_count = 0"),
        ("stripe_size = 128", "stripe_size = 0"),
        ("stripe_size = 128", "stripe_size = 96"),
        ("extent_count = 4", "extent_count = 0"),
        ("extent_count = 4", "extent_count = 4611686018427387904"),
        ("pe_count = 30", "pe_count = 9223372036854775807"),
        ("extent_size = 128", "extent_size = 9223372036854775807"),
        ("id = \"1n3XnC-ZQjz", "id = \"1n3XnCZ-Qjz"),
        ("UlRz53-XKcC-yWfF-Mrxo-GHj9-sNol-vPLMl4", "ybyEKw-qLID-qNTo-Lp6T-DQcT-Re0G-Kti6bZ"),
        ("root {", "-root {"),
        ("root {", "../root {"),
        ("seqno = 3", "seqno = 3 seqno = 4"),
        ("vg {", "other { } vg {"),
    ] {
        let (kind, message) = refused(from, to);
        assert_eq!(kind, ErrorKind::Corrupt, "{from} -> {to}: {message}");
    }
}

#[test]
fn stripes_too_fine_to_list_are_copied_with_their_physical_volumes() {
    let pieces = 8192;
    let text = TEXT
        .replace("pe_count = 30", "pe_count = 4000")
        .replacen("extent_count = 4", &format!("extent_count = {}", pieces / 8), 1)
        .replacen("\"pv1\", 10", "\"pv1\", 3000", 1)
        .replacen("stripe_size = 128", "stripe_size = 8", 1);
    let group = Group::parse(&text).unwrap();
    assert_eq!(group.logical[0].shape, Shape::Opaque("in stripes of 4.0 KiB".into()));
    let used = group.used(0, ByteLen::new(300 << 20)).unwrap();
    assert!(used.contains(extent(4, 2 + pieces / 16)), "{used:?}");
}

#[test]
fn what_has_no_label_is_no_physical_volume() {
    let disk = MemoryDisk::new(ByteLen::new(1 << 20), SectorSize::B512);
    assert_eq!(read(&disk).unwrap_err().kind(), ErrorKind::Corrupt);
    disk.write_all_at(ByteOffset::new(512), b"LABELONE").unwrap();
    assert_eq!(read(&disk).unwrap_err().kind(), ErrorKind::Corrupt);
}
