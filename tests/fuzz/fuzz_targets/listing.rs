//! A server's listing: however it is cut into pieces it says the same, and what it names lies in the folder that was
//! asked for, once.
//!
//! The first byte chooses the folder, the second how long the pieces are.

#![no_main]

use imager_units::ErrorKind;
use libfuzzer_sys::fuzz_target;
use netshare_store::http::read_listing;
use std::collections::BTreeSet;
use std::path::{Component, Path};

const FOLDERS: [&str; 4] = ["", "packs", "captures/web", "a/b/c/d"];

fn read(folder: &str, text: &[u8], size: usize) -> (Vec<(String, u64)>, Result<(), ErrorKind>) {
    let mut entries = Vec::new();
    let read = read_listing(folder, text.chunks(size), &mut |entry| {
        entries.push((entry.name.to_string(), entry.len.get()));
        Ok(())
    });
    (entries, read.map_err(|error| error.kind()))
}

fuzz_target!(|data: &[u8]| {
    let [folder, size, text @ ..] = data else { return };
    let folder = FOLDERS[usize::from(*folder) % FOLDERS.len()];
    let found = read(folder, text, usize::from(*size) + 1);
    assert_eq!(found, read(folder, text, text.len().max(1)));
    let (entries, read) = found;
    for (name, _) in &entries {
        let below = Path::new(name).strip_prefix(folder).expect("it lies below the folder");
        assert!(below.components().next().is_some());
        assert!(below.components().all(|part| matches!(part, Component::Normal(_))), "{name}");
    }
    let names: BTreeSet<_> = entries.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), entries.len(), "a name comes twice");
    if read.is_ok() {
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), entries.len() + 1);
        assert_eq!(text.last(), Some(&b'\n'));
    }
});
