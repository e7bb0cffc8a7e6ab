//! Finding captures in a repository.

mod id;

pub(crate) use id::{in_sight, locate};

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

/// Hands every manifest of a machine, or of all that may be seen, to `each`, one at a time: a long history does not fit
/// into memory at once. What cannot be read comes with the reason. In the order of names: by machine and time.
///
/// # Errors
/// `Lost`, `Denied` from the share.
pub fn list(repository: &Repository, machine: Option<&str>, each: &mut dyn FnMut(Listed)) -> Result<()> {
    let objects = match machine {
        Some(machine) => objects(repository, &format!("{}/{machine}", names::CAPTURES))?,
        None => in_sight(repository, |folder| objects(repository, folder))?.0,
    };
    for object in objects {
        let manifest = read(repository, &object);
        // A revoked name never was a capture.
        if !matches!(&manifest, Err(error) if error.kind() == ErrorKind::NotFound) {
            each(Listed { object, manifest });
        }
    }
    Ok(())
}

/// The names of manifests in a folder, in order.
pub(crate) fn objects(repository: &Repository, folder: &str) -> Result<Vec<String>> {
    let mut objects = Vec::new();
    repository.store().list(folder, &mut |entry| {
        if names::manifest_parts(entry.name.as_str()).is_some() {
            objects.push(entry.name.as_str().to_owned());
        }
        Ok(())
    })?;
    objects.sort();
    Ok(objects)
}

/// Reads one manifest.
///
/// # Errors
/// As [`Manifest::decode`]; `Corrupt` also when it does not belong under its name.
pub fn read(repository: &Repository, name: &str) -> Result<Manifest> {
    decode(repository, name, &repository.store().get(&object(name)?)?)
}

/// The manifest that `bytes` under `name` are.
fn decode(repository: &Repository, name: &str, bytes: &[u8]) -> Result<Manifest> {
    let mut codec = repository.codec(Compression::Small)?;
    let manifest = Manifest::decode(bytes, &mut codec).context(|| format!("manifest {name}"))?;
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
/// `NotFound` when there is none; `Corrupt` when all there is is damaged; `Invalid` when an id fits several.
pub fn find(repository: &Repository, selector: &Selector) -> Result<(Manifest, Vec<String>)> {
    match selector {
        Selector::Id(prefix) => find_id(repository, prefix).map(|manifest| (manifest, Vec::new())),
        Selector::Latest(machine) => newest(repository, machine, None),
        Selector::At(machine, time) => newest(repository, machine, Some(&clock::rfc3339(*time))),
    }
}

fn find_id(repository: &Repository, prefix: &str) -> Result<Manifest> {
    read(repository, &locate(repository, prefix)?)
}

fn newest(
    repository: &Repository,
    machine: &str,
    not_after: Option<&str>,
) -> Result<(Manifest, Vec<String>)> {
    // RFC 3339 in UTC sorts as text.
    let in_time = |header: &Header| not_after.is_none_or(|time| header.time.as_str() <= time);
    let mut history = history(repository, machine, &in_time)?;
    let mut warnings = std::mem::take(&mut history.damaged);
    let mut inconsistent = Vec::new();
    for header in history.headers.iter().rev().filter(|header| in_time(header)) {
        match history.read(repository, header) {
            Ok(manifest) if manifest.consistency != Consistency::Inconsistent => {
                return Ok((manifest, warnings));
            }
            Ok(_) => {
                inconsistent.push(format!("id:{} is inconsistent, and used only by that name", header.id))
            }
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                warnings.push(format!("{} cannot be used: {error}", name_of(header)));
            }
            Err(error) => return Err(error),
        }
    }
    let when = not_after.map_or(String::new(), |time| format!(" at or before {time}"));
    // Captures that are there and damaged are not "none".
    let (kind, which) = match warnings.is_empty() {
        true if inconsistent.is_empty() => (ErrorKind::NotFound, "no capture"),
        true => (ErrorKind::NotFound, "no consistent capture"),
        false => (ErrorKind::Corrupt, "no usable capture"),
    };
    let reasons: String = warnings.iter().chain(&inconsistent).map(|reason| format!("; {reason}")).collect();
    Err(Error::new(kind, format!("there is {which} of {machine:?}{when}{reasons}")))
}

/// The newest capture that is `wanted` and can be read, inconsistent ones too: what the next one is compared with.
///
/// # Errors
/// `Lost`, `Denied` from the share.
pub fn newest_readable(
    repository: &Repository,
    history: &History,
    wanted: impl Fn(&Header) -> bool,
) -> Result<Option<Manifest>> {
    for header in history.headers.iter().rev().filter(|header| wanted(header)) {
        match history.read(repository, header) {
            Ok(manifest) => return Ok(Some(manifest)),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Lost | ErrorKind::Io | ErrorKind::Denied | ErrorKind::Cancelled
                ) =>
            {
                return Err(error);
            }
            Err(error) => tracing::warn!("capture {} cannot be compared with: {error}", header.id),
        }
    }
    Ok(None)
}

/// The name under which the manifest with this header lies.
pub fn name_of(header: &Header) -> String {
    names::manifest(&header.machine, &clock::compact(&header.time), header.id)
}

/// What a machine's folder tells without opening the manifests in it.
pub struct History {
    /// The clear headers of its captures by sequence.
    pub headers: Vec<Header>,
    /// What is damaged, each beginning with the object's name.
    pub damaged: Vec<String>,
    /// The newest manifest that was wanted, by its name: it is what is asked for next, and need not be fetched again.
    kept: Option<(String, Vec<u8>)>,
}

impl History {
    fn read(&self, repository: &Repository, header: &Header) -> Result<Manifest> {
        let name = name_of(header);
        match &self.kept {
            Some((kept, bytes)) if *kept == name => decode(repository, &name, bytes),
            _ => read(repository, &name),
        }
    }
}

/// The history of a machine. Of the manifests that are `wanted` the newest is kept.
///
/// # Errors
/// `Lost`, `Denied` from the share.
pub fn history(repository: &Repository, machine: &str, wanted: &dyn Fn(&Header) -> bool) -> Result<History> {
    // Names break a tie, so everybody agrees which is the newest.
    let order = |a: &Header, b: &Header| (a.sequence, &a.time, a.id).cmp(&(b.sequence, &b.time, b.id));
    let (mut headers, mut damaged) = (Vec::new(), Vec::new());
    let mut newest: Option<(Header, Vec<u8>)> = None;
    for name in objects(repository, &format!("{}/{machine}", names::CAPTURES))? {
        let bytes = repository.store().get(&object(name.as_str())?);
        match bytes.and_then(|bytes| Ok((Header::decode(&bytes)?, bytes))) {
            Ok((header, _)) if header.revoked => {}
            Ok((header, bytes)) => {
                let is_newer = newest.as_ref().is_none_or(|(newest, _)| order(newest, &header).is_lt());
                if is_newer && wanted(&header) && name == name_of(&header) {
                    newest = Some((header.clone(), bytes));
                }
                headers.push(header);
            }
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                damaged.push(format!("{name} cannot be used: {error}"));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    headers.sort_by(order);
    Ok(History { headers, damaged, kept: newest.map(|(header, bytes)| (name_of(&header), bytes)) })
}

/// The capture with this id, when its machine is known.
///
/// # Errors
/// `NotFound` when there is none.
pub fn by_id(repository: &Repository, id: CaptureId) -> Result<Manifest> {
    find_id(repository, &id.to_string())
}
