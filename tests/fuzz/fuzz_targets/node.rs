//! Map nodes: what decodes is encoded the one way there is, and refers to nothing outside its packs.
//!
//! The first four bytes choose the place (level, children, unit, length of the last block), the rest is the node.

#![no_main]

use imager_image::node::{Child, Content, Location, Node};
use imager_image::{BLOCK_BYTES, MaskUnit, NODE_FANOUT};
use libfuzzer_sys::fuzz_target;

fn check(location: &Location) {
    assert!(location.frame.is_inside(location.pack));
}

fuzz_target!(|data: &[u8]| {
    let Some((&[level, count, unit, last], bytes)) = data.split_first_chunk::<4>() else { return };
    let level = level % 8;
    let count = usize::from(count) % (NODE_FANOUT + 2);
    let unit = MaskUnit::from_log2(9 + unit % 8).expect("9 to 16");
    let last = (usize::from(last) + 1) * (BLOCK_BYTES / 256);
    let Ok(node) = Node::decode(bytes, level, count, unit, last) else { return };
    assert_eq!(node.encode(unit, last).expect("it was decoded"), bytes);
    match &node {
        Node::Leaf(entries) => {
            assert_eq!((level, entries.len()), (0, count));
            for (index, entry) in entries.iter().enumerate() {
                let full = unit.full(if index + 1 == count { last } else { BLOCK_BYTES });
                assert!(entry.mask.union(entry.unreadable).is_within(full));
                assert_eq!(entry.mask.without(entry.unreadable), entry.mask);
                if let Content::Data(_, location) = &entry.content {
                    check(location);
                }
            }
        }
        Node::Inner(found, children) => {
            assert_eq!((*found, children.len()), (level, count));
            for child in children {
                if let Child::Node(_, location) = child {
                    check(location);
                    assert_eq!(location.at, 0);
                }
            }
        }
    }
});
