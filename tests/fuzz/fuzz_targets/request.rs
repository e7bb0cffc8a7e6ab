//! What a client asks of the server, and what a machine puts where others believe it.
//!
//! The first byte chooses: a path; a manifest's clear header, tried as it is and with magic and length before it; a
//! lease. A document is taken only if those who read it later find that it speaks of the machine whose token put it.

#![no_main]

use imager_image::manifest::{Header, MANIFEST_MAGIC};
use imager_image::{CaptureId, FORMAT_VERSION, PackId, names};
use libfuzzer_sys::fuzz_target;
use netshare::fuzz;
use netshare_store::ObjectName;
use serde_json::Value;
use std::path::{Component, Path};

const MACHINE: &str = "web";
const TIME: &str = "20261121T031500Z";
const ID: CaptureId = CaptureId([7; 16]);

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    match first % 4 {
        0 => path(rest),
        1 => manifest(rest),
        2 => manifest(&enclosed(rest)),
        _ => lease(rest),
    }
});

fn path(bytes: &[u8]) {
    let Ok(path) = std::str::from_utf8(bytes) else { return };
    let Ok((repository, name, methods)) = fuzz::target(path) else { return };
    let Some(repository) = repository else { return assert_eq!(path, "/healthz") };
    netshare::check_repository(&repository).expect("it was read from a path");
    let again = match (methods, name.as_str()) {
        ("GET, PUT", "") => format!("/{repository}"),
        ("GET", "") => format!("/{repository}/list"),
        ("GET", _) => format!("/{repository}/list/{name}"),
        _ => format!("/{repository}/objects/{name}"),
    };
    assert_eq!(again, path);
    let place = Path::new(&repository).join(&name);
    assert!(place.components().all(|part| matches!(part, Component::Normal(_))), "{place:?}");
    if let Ok(name) = ObjectName::new(name) {
        let digest = blake3::hash(bytes);
        let is_pack = name.segments().next() == Some(names::PACKS);
        let taken = fuzz::check_name(&name, digest).is_ok();
        assert!(!taken || !is_pack || name.as_str() == names::pack(PackId(*digest.as_bytes())));
    }
}

fn object(name: String) -> ObjectName {
    ObjectName::new(name).expect("a name of ours")
}

/// The beginning of a manifest with this clear header.
fn enclosed(header: &[u8]) -> Vec<u8> {
    let mut bytes = MANIFEST_MAGIC.to_vec();
    bytes.extend(FORMAT_VERSION.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(u32::try_from(header.len()).expect("inputs are short").to_le_bytes());
    bytes.extend(header);
    bytes
}

fn manifest(bytes: &[u8]) {
    let name = object(names::manifest(MACHINE, TIME, ID));
    let mut whole = bytes.to_vec();
    whole.extend(blake3::hash(bytes).as_bytes());
    let head = &whole[..whole.len().min(fuzz::SEEN_BYTES)];
    let taken = fuzz::check(MACHINE, &name, head, whole.len() as u64).is_ok();
    let Ok(header) = Header::decode(&whole) else { return };
    let time: String = header.time.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let own = header.machine == MACHINE && header.id == ID && !header.revoked && time == TIME;
    assert!(own || !taken, "another's was taken: {header:?}");
    let revocation = header.revocation().expect("it was read");
    assert!(fuzz::check(MACHINE, &name, &revocation, revocation.len() as u64).is_err());
}

fn lease(bytes: &[u8]) {
    let name = object(names::lease(ID));
    let taken = fuzz::check(MACHINE, &name, bytes, bytes.len() as u64).is_ok();
    assert!(fuzz::check(MACHINE, &name, bytes, bytes.len() as u64 + 1).is_err(), "only a part was seen");
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else { return };
    let of = document["manifest"].as_str().and_then(names::manifest_parts);
    let own = of.is_some_and(|(machine, _, id)| machine == MACHINE && id == ID);
    assert_eq!(taken, own && document["machine"] == MACHINE && !is_ambiguous(bytes), "{document}");
}

/// Whether a field comes twice, so that two readers could read different leases.
fn is_ambiguous(bytes: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Fields {
        #[serde(rename = "manifest")]
        _manifest: Value,
        #[serde(rename = "machine")]
        _machine: Value,
    }
    serde_json::from_slice::<Fields>(bytes).is_err()
}
