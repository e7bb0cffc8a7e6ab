//! The names of objects in a repository, and what may be read from one.

use crate::id::{CaptureId, PackId, SlotId};
use imager_units::{Error, ErrorKind, Result};

/// The repository's own description.
pub const DESCRIPTION: &str = "halfhour.json";
/// The folder of key slots.
pub const KEYS: &str = "keys";
/// The folder of manifests, a folder a machine.
pub const CAPTURES: &str = "captures";
/// The folder of packs.
pub const PACKS: &str = "packs";
/// The folder of sparse indexes.
pub const INDEX: &str = "index";
/// The folder of leases: captures under way.
pub const LEASES: &str = "leases";
/// The folder of tombstones: packs on their way out.
pub const TRASH: &str = "trash";
/// The folder that says where the blocks of a repacked pack went.
pub const MOVED: &str = "moved";
/// The folder of marks on packs found damaged.
pub const DAMAGED: &str = "damaged";
/// The folder of holds: captures that are not pruned.
pub const HOLDS: &str = "holds";
/// The folder of results of later verifications, a folder a capture.
pub const CHECKS: &str = "checks";
/// The folder of what one prune leaves for a later one.
pub const PRUNES: &str = "prunes";
/// The folder of reports of restores, a folder a machine.
pub const REPORTS: &str = "reports";
/// How to read the repository without us.
pub const INSTRUCTIONS: &str = "RESTORE.txt";
/// The stand-alone reader.
pub const READER: &str = "restore.py";

/// A machine's name: 1 to 63 of `a-z 0-9 -`, not starting with `-`.
///
/// # Errors
/// `Invalid` when `name` is none.
pub fn check_machine(name: &str) -> Result<()> {
    let sound = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=63).contains(&name.len()) && name.bytes().all(sound) && !name.starts_with('-') {
        return Ok(());
    }
    let what = format!("{name:?} is no machine name: 1 to 63 of a-z, 0-9 and '-', not starting with '-'");
    Err(Error::new(ErrorKind::Invalid, what))
}

/// Where a pack lies.
pub fn pack(id: PackId) -> String {
    let hex = id.to_string();
    format!("{PACKS}/{}/{hex}", hex.get(..2).unwrap_or_default())
}

/// The pack a name in `packs/`, `trash/`, `moved/` or `damaged/` speaks of.
pub fn pack_of(name: &str) -> Option<PackId> {
    let id = name.rsplit('/').next()?.parse().ok()?;
    // Only where a reader would look for it: a pack that strayed into another folder is not there.
    let sound = name == pack(id) || [TRASH, MOVED, DAMAGED].iter().any(|folder| name == marker(folder, id));
    sound.then_some(id)
}

/// Where a manifest lies; `time` is compact (`20261121T031500Z`).
pub fn manifest(machine: &str, time: &str, id: CaptureId) -> String {
    format!("{CAPTURES}/{machine}/{time}-{id}")
}

/// Machine, time and id of a manifest's name; `None` when it is none.
pub fn manifest_parts(name: &str) -> Option<(&str, &str, CaptureId)> {
    let (machine, time, id) = parts(CAPTURES, name)?;
    Some((machine, time, id.parse().ok()?))
}

/// Where a report lies; `time` is compact, `id` four random bytes.
pub fn report(machine: &str, time: &str, id: [u8; 4]) -> String {
    format!("{REPORTS}/{machine}/{time}-{}", hex::encode(id))
}

/// Machine and time of a report's name; `None` when it is none.
pub fn report_parts(name: &str) -> Option<(&str, &str)> {
    let (machine, time, id) = parts(REPORTS, name)?;
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (id.len() == 8 && id.bytes().all(is_hex)).then_some((machine, time))
}

/// Machine, time and the rest of a name in a machine's folder below `folder`.
fn parts<'a>(folder: &str, name: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    let (machine, file) = name.strip_prefix(folder)?.strip_prefix('/')?.split_once('/')?;
    let (time, id) = file.split_once('-')?;
    let digits = |part: Option<&str>| part.is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    let sound = time.len() == 16
        && digits(time.get(..8))
        && time.get(8..9) == Some("T")
        && digits(time.get(9..15))
        && time.ends_with('Z');
    check_machine(machine).ok()?;
    sound.then_some((machine, time, id))
}

/// Where a capture's lease lies.
pub fn lease(id: CaptureId) -> String {
    format!("{LEASES}/{id}")
}

/// Where a capture's sparse index lies.
pub fn index(id: CaptureId) -> String {
    format!("{INDEX}/{id}")
}

/// Where a capture's hold lies.
pub fn hold(id: CaptureId) -> String {
    format!("{HOLDS}/{id}")
}

/// Where a prune's record lies.
pub fn prune(id: CaptureId) -> String {
    format!("{PRUNES}/{id}")
}

/// Where it is said where frames of a pack went: in part 0, and in further ones for frames that went later.
pub fn moved(id: PackId, part: u32) -> String {
    if part == 0 { marker(MOVED, id) } else { format!("{MOVED}/{id}-{part}") }
}

/// Pack and part of such a name; `None` when it is none.
pub fn moved_part(name: &str) -> Option<(PackId, u32)> {
    let file = name.strip_prefix(MOVED)?.strip_prefix('/')?;
    let (id, part) = file.split_once('-').unwrap_or((file, "0"));
    let (id, part) = (id.parse().ok()?, part.parse().ok()?);
    // Only as a reader would ask for it.
    (name == moved(id, part)).then_some((id, part))
}

/// The capture that a name in `folder` (leases, holds, prunes, index) speaks of.
pub fn capture_of(folder: &str, name: &str) -> Option<CaptureId> {
    name.strip_prefix(folder)?.strip_prefix('/')?.parse().ok()
}

/// Where a key slot lies.
pub fn slot(id: SlotId) -> String {
    format!("{KEYS}/{id}")
}

/// A pack's marker in `folder`.
pub fn marker(folder: &str, id: PackId) -> String {
    format!("{folder}/{id}")
}

#[cfg(test)]
mod tests {
    use super::{
        TRASH, capture_of, check_machine, hold, manifest, manifest_parts, marker, moved, moved_part, pack,
        pack_of, report, report_parts,
    };
    use crate::id::{CaptureId, PackId};

    #[test]
    fn names_are_read_back_and_others_are_not() {
        let id = CaptureId([0xab; 16]);
        let name = manifest("web-1", "20261121T031500Z", id);
        assert_eq!(manifest_parts(&name), Some(("web-1", "20261121T031500Z", id)));
        for other in ["captures/Web/20261121T031500Z-ab", "captures/web/x-ab", "captures/web", "packs/aa/bb"]
        {
            assert_eq!(manifest_parts(other), None);
        }
        let told = report("web-1", "20261121T031500Z", [0xab, 0, 1, 2]);
        assert_eq!(told, "reports/web-1/20261121T031500Z-ab000102");
        assert_eq!(report_parts(&told), Some(("web-1", "20261121T031500Z")));
        for other in ["reports/web/20261121T031500Z-AB000102", "reports/web/20261121T031500Z-ab0001", &name] {
            assert_eq!(report_parts(other), None);
        }
        let packed = PackId([0xcd; 32]);
        assert_eq!(pack_of(&pack(packed)), Some(packed));
        assert_eq!(pack_of(&marker(TRASH, packed)), Some(packed));
        assert_eq!(pack_of(&format!("packs/00/{packed}")), None);
        assert!(pack(packed).starts_with("packs/cd/cdcd"));
        for part in [0, 1, 12] {
            assert_eq!(moved_part(&moved(packed, part)), Some((packed, part)));
        }
        for other in [format!("moved/{packed}-0"), format!("moved/{packed}-01"), format!("trash/{packed}")] {
            assert_eq!(moved_part(&other), None);
        }
        assert_eq!((capture_of("holds", &hold(id)), capture_of("leases", &hold(id))), (Some(id), None));
        assert!(check_machine("").is_err() && check_machine("-a").is_err() && check_machine("a_b").is_err());
    }
}
