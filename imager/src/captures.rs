//! Finding captures in a repository.

use crate::clock;
use crate::repository::{Repository, object};
use imager_image::manifest::{Consistency, Header, Manifest};
use imager_image::{CaptureId, Compression, names};
use imager_units::{Context, Error, ErrorKind, Result};
use std::str::FromStr;

/// How a person names a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The newest of a machine that is not inconsistent.
    Latest(String),
    /// The newest of a machine that is not after a time.
    At(String, jiff::Timestamp),
    /// The one whose id starts so.
    Id(String),
}

/// A manifest's name on the share and what was found under it.
pub struct Listed {
    /// The object's name.
    pub object: String,
    /// The manifest, or why it cannot be used.
    pub manifest: Result<Manifest>,
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(hex) = text.strip_prefix("id:") {
            let sound = (8..=32).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit());
            let short = || Error::new(ErrorKind::Invalid, "an id is given by 8 to 32 hexadecimal digits");
            return sound.then(|| Self::Id(hex.to_ascii_lowercase())).ok_or_else(short);
        }
        let (machine, when) = text.split_once('@').unwrap_or((text, "latest"));
        names::check_machine(machine)?;
        match when {
            "latest" => Ok(Self::Latest(machine.to_owned())),
            time => Ok(Self::At(machine.to_owned(), clock::parse(time)?)),
        }
    }
}

/// Every manifest of a machine, or of all, by machine and sequence. What cannot be read is listed with the reason.
///
/// # Errors
/// `Io`, `Denied` from the share.
pub fn list(repository: &Repository, machine: Option<&str>) -> Result<Vec<Listed>> {
    let folder = machine.map_or_else(|| names::CAPTURES.to_owned(), |m| format!("{}/{m}", names::CAPTURES));
    let mut objects = Vec::new();
    repository.store().list(&folder, &mut |entry| {
        if names::manifest_parts(entry.name.as_str()).is_some() {
            objects.push(entry.name.as_str().to_owned());
        }
        Ok(())
    })?;
    objects.sort();
    let mut listed = Vec::new();
    for object in objects {
        let manifest = read(repository, &object);
        // A revoked name never was a capture.
        if !matches!(&manifest, Err(error) if error.kind() == ErrorKind::NotFound) {
            listed.push(Listed { object, manifest });
        }
    }
    let order = |listed: &Listed| match &listed.manifest {
        Ok(manifest) => (manifest.header.machine.clone(), manifest.header.sequence),
        Err(_) => (listed.object.clone(), u64::MAX),
    };
    listed.sort_by_key(order);
    Ok(listed)
}

/// Reads one manifest.
///
/// # Errors
/// As [`Manifest::decode`]; `Corrupt` also when it does not belong under its name.
pub fn read(repository: &Repository, name: &str) -> Result<Manifest> {
    let bytes = repository.store().get(&object(name)?)?;
    let mut codec = repository.codec(Compression::Small)?;
    let manifest = Manifest::decode(&bytes, &mut codec).context(|| format!("manifest {name}"))?;
    let belongs = names::manifest_parts(name).is_some_and(|(machine, time, id)| {
        machine == manifest.header.machine
            && id == manifest.header.id
            && time == clock::compact(&manifest.header.time)
    });
    if belongs {
        Ok(manifest)
    } else {
        Err(Error::corrupt(format!("manifest {name} belongs under another name")))
    }
}

/// The capture a person named, and what he should know about the choice.
///
/// # Errors
/// `NotFound` when there is none; `Invalid` when an id fits several.
pub fn find(repository: &Repository, selector: &Selector) -> Result<(Manifest, Vec<String>)> {
    match selector {
        Selector::Id(prefix) => find_id(repository, prefix).map(|manifest| (manifest, Vec::new())),
        Selector::Latest(machine) => newest(repository, machine, None),
        Selector::At(machine, time) => newest(repository, machine, Some(&clock::rfc3339(*time))),
    }
}

fn find_id(repository: &Repository, prefix: &str) -> Result<Manifest> {
    let mut found = Vec::new();
    repository.store().list(names::CAPTURES, &mut |entry| {
        let name = entry.name.as_str();
        if names::manifest_parts(name).is_some_and(|(_, _, id)| id.to_string().starts_with(prefix)) {
            found.push(name.to_owned());
        }
        Ok(())
    })?;
    match found.as_slice() {
        [] => Err(Error::new(ErrorKind::NotFound, format!("there is no capture id:{prefix}"))),
        [name] => read(repository, name),
        _ => Err(Error::new(ErrorKind::Invalid, format!("id:{prefix} fits {} captures", found.len()))),
    }
}

fn newest(
    repository: &Repository,
    machine: &str,
    not_after: Option<&str>,
) -> Result<(Manifest, Vec<String>)> {
    let mut warnings = Vec::new();
    let mut best: Option<Manifest> = None;
    for listed in list(repository, Some(machine))? {
        match listed.manifest {
            Err(error) => warnings.push(format!("{} cannot be used: {error}", listed.object)),
            Ok(manifest) => {
                // RFC 3339 in UTC sorts as text.
                let in_time = not_after.is_none_or(|time| manifest.header.time.as_str() <= time);
                if in_time && manifest.consistency != Consistency::Inconsistent {
                    best = Some(manifest);
                }
            }
        }
    }
    let none = || {
        let when = not_after.map_or(String::new(), |time| format!(" at or before {time}"));
        Error::new(ErrorKind::NotFound, format!("there is no capture of {machine:?}{when}"))
    };
    best.map(|manifest| (manifest, warnings)).ok_or_else(none)
}

/// The clear headers of a machine's captures, without needing to open them.
///
/// # Errors
/// `Io`, `Denied` from the share. A damaged one is passed over.
pub fn headers(repository: &Repository, machine: &str) -> Result<Vec<Header>> {
    let mut found = Vec::new();
    repository.store().list(&format!("{}/{machine}", names::CAPTURES), &mut |entry| {
        if names::manifest_parts(entry.name.as_str()).is_some() {
            let header = repository.store().get(&entry.name).and_then(|bytes| Header::decode(&bytes));
            found.extend(header.ok().filter(|header| !header.revoked));
        }
        Ok(())
    })?;
    found.sort_by_key(|header: &Header| header.sequence);
    Ok(found)
}

/// The capture with this id, when its machine is known.
///
/// # Errors
/// `NotFound` when there is none.
pub fn by_id(repository: &Repository, id: CaptureId) -> Result<Manifest> {
    find_id(repository, &id.to_string())
}
