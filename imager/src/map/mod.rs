//! Block maps: building them while a capture runs, and reading them back.

mod builder;
mod reader;

pub use builder::{Draft, MapBuilder, NodeSink, Place};
pub use reader::{MapReader, Piece};

use imager_image::{BLOCK_BYTES, NODE_FANOUT};
use imager_units::{ByteLen, ByteOffset, Extent};

/// A block as a length.
pub const BLOCK: ByteLen = ByteLen::new(BLOCK_BYTES as u64);

/// The fan-out of a map's nodes.
pub const FANOUT: u64 = NODE_FANOUT as u64;

/// How many blocks a volume of `size` has.
pub fn block_count(size: ByteLen) -> u64 {
    size.get().div_ceil(BLOCK.get())
}

/// Where block `index` of a volume of `size` lies in it.
pub fn block_extent(index: u64, size: ByteLen) -> Extent {
    let start = ByteOffset::new(index.saturating_mul(BLOCK.get()));
    Extent::between(start, start.saturating_add(BLOCK).min(ByteOffset::new(size.get())))
}

/// The length of a volume's last block.
pub fn last_block_len(size: ByteLen) -> usize {
    match size.get() % BLOCK.get() {
        0 => BLOCK_BYTES,
        rest => usize::try_from(rest).unwrap_or(BLOCK_BYTES),
    }
}

/// How many nodes a map of `blocks` blocks has at `level`; level 0 are the leaves.
fn nodes_at(level: u8, blocks: u64) -> u64 {
    blocks.div_ceil(imager_image::node::blocks_under(level))
}

/// How many children node `index` of `level` has.
fn children_of(level: u8, index: u64, blocks: u64) -> usize {
    let below = if level == 0 { blocks } else { nodes_at(level - 1, blocks) };
    let rest = below.saturating_sub(index.saturating_mul(FANOUT)).min(FANOUT);
    usize::try_from(rest).unwrap_or(NODE_FANOUT)
}
