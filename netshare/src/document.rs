//! What a machine's token puts under names that others believe: only what speaks of that machine.
//!
//! A lease names the manifest that ends it, a manifest says whose it is, an index belongs to a capture. A machine that
//! could put any of them for another could make that one's capture fail, or stand in for it. A pack's name is the digest
//! of its bytes, so that nobody can put others in the place of one that a prune moved away.

use imager_image::{CaptureId, PackId, manifest, names};
use imager_units::{ErrorKind, Result};
use netshare_store::{DirStore, ObjectName, Store};
use serde::Deserialize;

/// How much of a document has to be seen: the fixed part of a manifest and the longest header.
pub(crate) const SEEN_BYTES: usize = 16 + (64 << 10);

/// A report is a frame of its own (FORMAT.md, section 12).
const REPORT_BYTES_MAX: u64 = imager_image::frame::FRAME_MOST_BYTES as u64;

/// A machine takes no more captures than this; behind the last number there would be no place for the next one.
const SEQUENCE_MAX: u64 = 1 << 40;

#[derive(Deserialize)]
struct Lease {
    manifest: String,
    machine: String,
}

/// Whether what is put at `name` has to be seen.
pub(crate) fn is_one(name: &ObjectName) -> bool {
    matches!(name.segments().next(), Some("leases" | "captures"))
}

/// Whether `head`, the beginning of an object of `len` bytes, may be put at `name` by the token of `machine`.
///
/// # Errors
/// Why not.
pub(crate) fn check(machine: &str, name: &ObjectName, head: &[u8], len: u64) -> Result<(), &'static str> {
    let is_whole = u64::try_from(head.len()) == Ok(len);
    match name.segments().collect::<Vec<_>>().as_slice() {
        ["leases", id] if is_whole => check_lease(machine, id, head),
        ["leases", _] => Err("a lease is not that long"),
        ["captures", _, _] => check_manifest(machine, name.as_str(), head),
        _ => Ok(()),
    }
}

fn check_lease(machine: &str, id: &str, document: &[u8]) -> Result<(), &'static str> {
    // A list of both would be read as a lease here, and not by whoever waits for it.
    if !document.trim_ascii_start().starts_with(b"{") {
        return Err("this is no lease");
    }
    let lease: Lease = serde_json::from_slice(document).map_err(|_| "this is no lease")?;
    let (whose, _, capture) = names::manifest_parts(&lease.manifest).ok_or("the lease names no manifest")?;
    if lease.machine != machine || whose != machine {
        return Err("the lease is another machine's");
    }
    if id.parse().ok() != Some(capture) {
        return Err("the lease is not of the capture it names");
    }
    Ok(())
}

fn check_manifest(machine: &str, name: &str, head: &[u8]) -> Result<(), &'static str> {
    let (_, time, id) = names::manifest_parts(name).ok_or("this is no name for a manifest")?;
    let header = manifest_header(head).ok_or("this is no manifest that this server knows")?;
    if header.machine != machine {
        return Err("the manifest is another machine's");
    }
    if header.id != id {
        return Err("the manifest is not of the capture in its name");
    }
    if header.revoked {
        return Err("only an admin revokes a capture");
    }
    if header.time.replace(['-', ':'], "") != time {
        return Err("the manifest is not of the time in its name");
    }
    if header.sequence > SEQUENCE_MAX {
        return Err("the manifest has no place that a capture could have");
    }
    Ok(())
}

/// The clear header; FORMAT.md, section 9.
fn manifest_header(head: &[u8]) -> Option<manifest::Header> {
    let rest = head.strip_prefix(&manifest::MANIFEST_MAGIC)?;
    let (version, rest) = rest.split_first_chunk()?;
    let (flags, rest) = rest.split_first_chunk::<2>()?;
    let (len, rest) = rest.split_first_chunk()?;
    if u16::from_le_bytes(*version) != imager_image::FORMAT_VERSION || *flags != [0; 2] {
        return None;
    }
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    serde_json::from_slice(rest.get(..len)?).ok()
}

/// Whether a machine may put bytes of this digest under a name at all.
///
/// # Errors
/// Why not.
pub(crate) fn check_name(name: &ObjectName, digest: blake3::Hash) -> Result<(), &'static str> {
    match name.segments().next() {
        Some(names::PACKS) if name.as_str() != names::pack(PackId(*digest.as_bytes())) => {
            Err("a pack's name is the digest of its bytes")
        }
        Some(names::INDEX | names::LEASES | names::CAPTURES) if capture_in(name).is_none() => {
            Err("the name is of no capture")
        }
        _ => Ok(()),
    }
}

/// Whether anybody but an admin may put so many bytes under a name: what is put to `reports/` is a report of a machine.
///
/// # Errors
/// Why not.
pub(crate) fn check_report(name: &ObjectName, len: u64) -> Result<(), &'static str> {
    match name.segments().next() {
        Some(names::REPORTS) if names::report_parts(name.as_str()).is_none() => {
            Err("this is no name for a report")
        }
        Some(names::REPORTS) if len > REPORT_BYTES_MAX => Err("a report is not that long"),
        _ => Ok(()),
    }
}

/// The capture that an index, a lease or a manifest is of, by its name.
fn capture_in(name: &ObjectName) -> Option<CaptureId> {
    let text = name.as_str();
    let marker = [names::INDEX, names::LEASES].iter().find_map(|folder| names::capture_of(folder, text));
    marker.or_else(|| names::manifest_parts(text).map(|(_, _, id)| id))
}

/// Whether a name speaks of another machine's capture: one that is under way, or one that is there. Two captures with one
/// id could not be told apart by whoever restores, holds or removes one.
///
/// # Errors
/// `Denied`, `Io` from the disk.
pub(crate) fn is_anothers(store: &DirStore, machine: &str, name: &ObjectName) -> Result<bool> {
    let Some(id) = capture_in(name) else { return Ok(false) };
    match store.get(&ObjectName::new(names::lease(id))?) {
        Ok(lease) => {
            return Ok(serde_json::from_slice::<Lease>(&lease).is_ok_and(|lease| lease.machine != machine));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut is_anothers = false;
    store.list(names::CAPTURES, &mut |entry| {
        let whose = names::manifest_parts(entry.name.as_str());
        is_anothers |= whose.is_some_and(|(whose, _, there)| there == id && whose != machine);
        Ok(())
    })?;
    Ok(is_anothers)
}

#[cfg(test)]
mod tests {
    use super::{check, check_report};
    use imager_image::manifest::{Header, Kind};
    use imager_image::{CaptureId, names};
    use netshare_store::ObjectName;
    use proptest::prelude::{any, proptest};

    const TIME: &str = "20261121T031500Z";

    fn header(machine: &str, id: CaptureId) -> Header {
        Header {
            machine: machine.to_owned(),
            time: "2026-11-21T03:15:00Z".to_owned(),
            kind: Kind::Full,
            id,
            sequence: 1,
            previous: None,
            revoked: false,
        }
    }

    fn manifest(header: &Header) -> Vec<u8> {
        let json = serde_json::to_vec(header).unwrap();
        let mut bytes = imager_image::manifest::MANIFEST_MAGIC.to_vec();
        bytes.extend(1_u16.to_le_bytes());
        bytes.extend(0_u16.to_le_bytes());
        bytes.extend(u32::try_from(json.len()).unwrap().to_le_bytes());
        bytes.extend(json);
        bytes.extend([0; 64]);
        bytes
    }

    fn judge(name: &str, bytes: &[u8]) -> Result<(), &'static str> {
        check("web", &ObjectName::new(name).unwrap(), bytes, bytes.len() as u64)
    }

    #[test]
    fn a_machine_puts_its_own_manifests_only() {
        let (id, other) = (CaptureId([7; 16]), CaptureId([8; 16]));
        let name = format!("captures/web/{TIME}-{id}");
        judge(&name, &manifest(&header("web", id))).unwrap();
        assert!(judge(&name, &manifest(&header("db", id))).is_err());
        assert!(judge(&name, &manifest(&header("web", other))).is_err());
        assert!(judge(&name, &manifest(&Header { revoked: true, ..header("web", id) })).is_err());
        assert!(judge(&name, &manifest(&Header { sequence: u64::MAX, ..header("web", id) })).is_err());
        assert!(
            judge(&name, &manifest(&Header { time: "\u{1b}[2J".to_owned(), ..header("web", id) })).is_err()
        );
        let later = format!("captures/web/20261121T031501Z-{id}");
        assert!(judge(&later, &manifest(&header("web", id))).is_err());
        let mut flagged = manifest(&header("web", id));
        flagged[10] = 1;
        assert!(judge(&name, &flagged).is_err());
        assert!(judge("captures/web/notes", &manifest(&header("web", id))).is_err());
        assert!(judge(&name, b"{}").is_err());
        let revocation = Header { revoked: true, ..header("web", id) }.revocation().unwrap();
        assert_eq!(judge(&name, &revocation), Err("only an admin revokes a capture"));
    }

    #[test]
    fn a_machine_puts_its_own_leases_only() {
        let id = CaptureId([7; 16]);
        let lease = |machine: &str, whose: &str, id| {
            let manifest = format!("captures/{whose}/{TIME}-{id}");
            serde_json::json!({ "manifest": manifest, "machine": machine }).to_string().into_bytes()
        };
        let name = format!("leases/{id}");
        judge(&name, &lease("web", "web", id)).unwrap();
        assert!(judge(&name, &lease("db", "db", id)).is_err());
        assert!(judge(&name, &lease("web", "db", id)).is_err());
        assert!(judge(&name, &lease("web", "web", CaptureId([8; 16]))).is_err());
        assert!(judge(&name, b"").is_err());
        let list = serde_json::json!([format!("captures/web/{TIME}-{id}"), "web"]).to_string();
        assert!(judge(&name, list.as_bytes()).is_err());
        let long = check("web", &ObjectName::new(name.as_str()).unwrap(), &lease("web", "web", id), 1 << 20);
        assert!(long.is_err());
        judge("packs/00/x", b"anything").unwrap();
    }

    #[test]
    fn what_is_put_to_reports_is_a_report_of_bounded_length() {
        let check = |name: &str, len| check_report(&ObjectName::new(name).unwrap(), len).is_ok();
        let name = names::report("web", TIME, [7; 4]);
        assert!(check(&name, 1 << 20) && check("packs/00/x", 1 << 25) && check("reportsx/web/x", 1 << 25));
        assert!(!check(&name, 1 << 21));
        for other in ["reports", "reports/web", "reports/web/x", &format!("{name}/x"), &format!("{name}00")] {
            assert!(!check(other, 10), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let name = format!("captures/web/{TIME}-{}", CaptureId([7; 16]));
            let _any = judge(&name, &bytes);
            let mut longer = manifest(&header("web", CaptureId([7; 16])))[..16].to_vec();
            longer.extend(bytes);
            let _any = judge(&name, &longer);
        }
    }
}
