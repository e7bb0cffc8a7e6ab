//! Sparse indexes: which pack may hold a block, for one block id in 64.
//!
//! Blocks that came together come again together, so one hit is enough to find the pack whose table lists the rest. An
//! index serves deduplication only: an entry that is missing costs space, one that is wrong is found out by the table.

use crate::cursor::{Cursor, narrow};
use crate::frame::{Codec, FrameKind};
use crate::id::{BlockId, PackId};
use crate::pack::PackRef;
use imager_units::Result;

/// A block id and the pack that holds the block.
pub type Hook = (BlockId, PackRef);

/// Whether a block id is one of the one in 64 that indexes list.
pub fn is_hook(id: BlockId) -> bool {
    id.0.first().is_some_and(|byte| byte & 0x3f == 0)
}

/// The object that lists `hooks`.
///
/// # Errors
/// As [`Codec::seal`].
pub fn encode(hooks: &[Hook], codec: &mut Codec<'_>) -> Result<Vec<u8>> {
    let mut packs: Vec<PackRef> = Vec::new();
    let mut body = Vec::new();
    for (id, pack) in hooks {
        // Hooks come in the order their packs were written.
        if packs.last() != Some(pack) {
            packs.push(*pack);
        }
        body.extend(id.0);
        body.extend(narrow::<u32>(packs.len().saturating_sub(1), "packs of an index")?.to_le_bytes());
    }
    let mut raw = narrow::<u32>(packs.len(), "packs of an index")?.to_le_bytes().to_vec();
    for pack in &packs {
        raw.extend(pack.id.0);
        raw.extend(pack.len.to_le_bytes());
    }
    raw.append(&mut body);
    codec.seal(FrameKind::Index, &raw)
}

/// The hooks that an index lists.
///
/// # Errors
/// `Corrupt` when it is damaged.
pub fn decode(bytes: &[u8], codec: &mut Codec<'_>) -> Result<Vec<Hook>> {
    let raw = codec.open(FrameKind::Index, bytes)?;
    let mut cursor = Cursor::new(&raw, "an index");
    let packs = (0..cursor.u32()?)
        .map(|_| Ok(PackRef { id: PackId(cursor.array()?), len: cursor.u32()? }))
        .collect::<Result<Vec<_>>>()?;
    let mut hooks = Vec::new();
    while cursor.left() > 0 {
        let id = BlockId(cursor.array()?);
        let at = usize::try_from(cursor.u32()?).unwrap_or(usize::MAX);
        match packs.get(at) {
            Some(pack) => hooks.push((id, *pack)),
            None => return cursor.corrupt("refers to a pack it does not list"),
        }
    }
    Ok(hooks)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};
    use crate::frame::{Codec, Compression};
    use crate::id::{BlockId, PackId, RepositoryId};
    use crate::keys::{Encryption, Keys, MasterKey};
    use crate::pack::PackRef;

    #[test]
    fn an_index_is_read_back() {
        let repository = RepositoryId([7; 16]);
        let keys = Keys::new(repository, &MasterKey::public(repository), Encryption::None);
        let mut codec = Codec::new(&keys, Compression::Small).unwrap();
        let pack = |n| PackRef { id: PackId([n; 32]), len: u32::from(n) };
        let hooks: Vec<_> = (0..9_u8).map(|n| (BlockId([n; 32]), pack(n / 3))).collect();
        let bytes = encode(&hooks, &mut codec).unwrap();
        assert_eq!(decode(&bytes, &mut codec).unwrap(), hooks);
        assert!(decode(&bytes[1..], &mut codec).is_err());
    }
}
