//! Packs: header, trailer and table of hostile bytes.

#![no_main]

use imager_image::PackId;
use imager_image::pack::{
    FrameSpan, Item, PACK_HEADER_BYTES, PACK_MOST_BYTES, PACK_TRAILER_BYTES, PackKind, PackRef, Table,
    kind_of, table_span,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = kind_of(data);
    for kind in [PackKind::Data, PackKind::Map] {
        let Ok(table) = Table::decode(kind, data) else { continue };
        assert_eq!(table.encode(kind).expect("it was decoded"), data);
        // Nothing it holds is larger than what it was read from, and its frames follow each other without a gap.
        let items: usize = table.frames.iter().map(|frame| frame.items.len()).sum();
        assert!(items * size_of::<Item>() <= data.len());
        let mut end = u64::try_from(PACK_HEADER_BYTES).expect("small");
        for frame in &table.frames {
            assert_eq!(u64::from(frame.span.offset), end);
            end += u64::from(frame.span.len);
        }
    }
    let Some((head, rest)) = data.split_at_checked(4) else { return };
    let pack_len = u32::from_le_bytes(head.try_into().expect("four bytes"));
    if let Ok(span) = table_span(pack_len, rest) {
        let end = u64::from(span.offset) + u64::from(span.len) + PACK_TRAILER_BYTES as u64;
        assert_eq!(end, u64::from(pack_len));
    }
    if let Some((numbers, _)) = rest.split_at_checked(8) {
        let number = |at: usize| u32::from_le_bytes(numbers[at..at + 4].try_into().expect("four bytes"));
        let (span, pack) =
            (FrameSpan { offset: number(0), len: number(4) }, PackRef { id: PackId([0; 32]), len: pack_len });
        if span.is_inside(pack) {
            assert!(u64::from(span.offset) + u64::from(span.len) < u64::from(pack_len));
            assert!(usize::try_from(pack_len).expect("64 bits") <= PACK_MOST_BYTES);
        }
    }
});
