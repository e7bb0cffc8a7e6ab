//! What most commands begin with: the repository, disks by name, a capture by name.

use super::args::Global;
use super::failure::Failure;
use super::progress::Waiting;
use super::{pins, secret};
use imager::captures::{self, Selector};
use imager::repository::{Found, Locked, Repository};
use imager::share::{self, Access, Location, Manners, Missing};
use imager_disk::System;
use imager_image::manifest::Manifest;
use imager_units::{Error, ErrorKind, SectorSize};
use netshare_store::Store;
use netshare_store::http::SILENCE;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where the repository lies.
pub(crate) fn location(global: &Global) -> Result<Location, Failure> {
    let missing = || Failure::usage("which repository? Say --repo URL or set IMAGER_REPO");
    Ok(Location::parse(global.repo.as_deref().filter(|url| !url.is_empty()).ok_or_else(missing)?)?)
}

/// Opens the repository, asking for its passphrase if it has one.
pub(crate) fn repository(global: &Global) -> Result<Repository, Failure> {
    let repository = match find(global)? {
        Found::Open(repository) => repository,
        Found::Locked(locked) => {
            let secret = secret::passphrase("Passphrase of the repository: ")?;
            match locked.open(&secret)? {
                Ok(repository) => repository,
                Err(_) => return Err(wrong_password()),
            }
        }
    };
    let location = location(global)?;
    pins::check(&location, &repository)?;
    // A server shows a machine's token that machine's captures and no others.
    if let Location::Https(_) = location {
        let access = access(global, &location, Missing::Fail)?;
        return Ok(repository.with_own_machine(Box::new(move || share::machine(&location, &access))));
    }
    Ok(repository)
}

/// The repository as it is found, before any passphrase.
pub(crate) fn find(global: &Global) -> Result<Found, Failure> {
    let store = open(global, &location(global)?, Missing::Fail)?;
    Repository::find(store).map_err(Failure::no_repository)
}

/// Opens a share with what this process was given for it.
pub(crate) fn open(
    global: &Global,
    location: &Location,
    missing: Missing,
) -> Result<Arc<dyn Store>, Failure> {
    pins::check_server(location)?;
    location.open(&access(global, location, missing)?).map_err(Failure::no_repository)
}

fn access(global: &Global, location: &Location, missing: Missing) -> Result<Access, Failure> {
    let (token, silence) = match location {
        Location::Folder(_) | Location::Mounted(_) => (None, SILENCE),
        Location::Https(_) => (secret::token()?, silence()?),
        Location::S3(_) => (None, silence()?),
    };
    let password = match location {
        Location::Mounted(url) if url.user().is_some() => secret::share_password(&url.to_string())?,
        _ => None,
    };
    let watch = Arc::new(Waiting::new(global));
    let manners = Manners { patience: global.patience, limit: global.limit, watch };
    Ok(Access { missing, token, password, silence, manners })
}

/// How long a server may say nothing.
fn silence() -> Result<Duration, Failure> {
    let Some(text) = std::env::var_os("IMAGER_TIMEOUT") else { return Ok(SILENCE) };
    let seconds =
        text.to_str().and_then(|text| text.parse().ok()).filter(|seconds| (1..=3600).contains(seconds));
    let wrong = || Failure::usage(format!("IMAGER_TIMEOUT is {text:?}: seconds are expected, 1 to 3600"));
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

/// The encrypted repository of a command about keys.
pub(crate) fn locked(global: &Global) -> Result<Locked, Failure> {
    match find(global)? {
        Found::Locked(locked) => Ok(locked),
        Found::Open(_) => {
            let what = Error::new(ErrorKind::Invalid, "the repository is not encrypted: it has no keys");
            Err(Failure::new(super::failure::USAGE, what, "encryption is chosen by imager init --encrypt"))
        }
    }
}

/// No key slot opens with what was given.
pub(crate) fn wrong_password() -> Failure {
    let what = Error::new(ErrorKind::Denied, "the passphrase opens no key of this repository");
    Failure::new(12, what, "check it, or use the recovery key")
}

/// The path of a disk that a person named.
pub(crate) fn disk(name: &str) -> Result<PathBuf, Failure> {
    Ok(System::new().find(name)?)
}

/// A sector size from the command line.
pub(crate) fn sector(bytes: Option<u32>) -> Result<Option<SectorSize>, Failure> {
    bytes.map(SectorSize::new).transpose().map_err(|error| Failure::new(super::failure::USAGE, error, ""))
}

/// The capture that a person named, and what he should know about the choice.
pub(crate) fn capture(repository: &Repository, name: &str) -> Result<(Manifest, Vec<String>), Failure> {
    let selector: Selector = name.parse()?;
    captures::find(repository, &selector).map_err(|error| match error.kind() {
        ErrorKind::Corrupt => Failure::damaged(error),
        _ => Failure::no_capture(error),
    })
}
