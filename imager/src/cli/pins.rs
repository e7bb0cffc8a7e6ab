//! What this machine knows of the repositories it used: their ids, whether they were encrypted, and by which
//! certificate their servers were known. The place is the key; a URL's fingerprint is no part of it.
//!
//! A share that suddenly shows another repository at the same place, or one that is no longer encrypted, is refused:
//! a capture must not go where somebody else can read it because a folder was exchanged.

use super::failure::Failure;
use imager::repository::Repository;
use imager::share::Location;
use imager_image::keys::Encryption;
use imager_units::{Error, ErrorKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pin {
    id: String,
    encrypted: bool,
    /// Of the certificate that the URL named, for a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
}

type Pins = BTreeMap<String, Pin>;

fn file() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = || std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    let folder = match std::env::var_os("IMAGER_STATE_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None if nix::unistd::geteuid().is_root() => PathBuf::from("/var/lib/halfhour"),
        None => state()?.join("halfhour"),
    };
    Some(folder.join("repositories.json"))
}

/// What is known. A file that is damaged is refused: else whoever can spoil it can exchange a repository.
fn read() -> Result<Pins, Failure> {
    let Some(file) = file() else { return Ok(Pins::default()) };
    let pins = match std::fs::read(&file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(std::io::Error::from),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Pins::default()),
        Err(error) => Err(error),
    };
    pins.map_err(|error| {
        let what = format!("{}, which says what repositories were used here, cannot be read", file.display());
        let advice = "remove it if every repository may be used as it is found";
        Failure::new(4, Error::with_source(ErrorKind::Denied, what, error), advice)
    })
}

fn pin_of(location: &Location, repository: &Repository) -> Pin {
    let encrypted = repository.encryption() != Encryption::None;
    Pin { id: repository.id().to_string(), encrypted, fingerprint: fingerprint(location) }
}

fn fingerprint(location: &Location) -> Option<String> {
    location.fingerprint().map(|fingerprint| fingerprint.to_string())
}

/// Remembers a repository that was just made here.
pub(crate) fn remember(location: &Location, repository: &Repository) -> Result<(), Failure> {
    let mut pins = read()?;
    pins.insert(repository.store().location(), pin_of(location, repository));
    let Some(file) = file() else { return Ok(()) };
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(file.parent().unwrap_or(&file))?;
        let next = file.with_extension(format!("{}.new", std::process::id()));
        let mut written = std::fs::File::create(&next)?;
        written.write_all(&serde_json::to_vec_pretty(&pins)?)?;
        written.sync_all()?;
        std::fs::rename(&next, &file)
    };
    if let Err(error) = write() {
        tracing::info!("{} is not written: {error}", file.display());
    }
    Ok(())
}

/// Refuses a repository that is not the one known at this place; remembers a new one.
pub(crate) fn check(location: &Location, repository: &Repository) -> Result<(), Failure> {
    let place = repository.store().location();
    let found = pin_of(location, repository);
    match read()?.get(&place) {
        None => remember(location, repository)?,
        Some(known) if *known == found => {}
        Some(known) => {
            let sealed = if known.encrypted { "encrypted " } else { "" };
            let what = format!(
                "{place} held the {sealed}repository {} when it was last used; now it holds {}",
                known.id,
                repository.id()
            );
            return Err(refused(what));
        }
    }
    Ok(())
}

fn refused(what: String) -> Failure {
    let file = file().unwrap_or_default();
    let advice = format!("if that is right, remove its entry from {} and run again", file.display());
    Failure::new(4, Error::new(ErrorKind::Denied, what), advice)
}

/// Refuses a URL that names another certificate than when it was last used, before anything is sent there: who can
/// change a URL in a script could lead captures elsewhere.
pub(crate) fn check_server(location: &Location) -> Result<(), Failure> {
    let Location::Https(url) = location else { return Ok(()) };
    let pins = read()?;
    let Some(known) = pins.get(&url.to_string()) else { return Ok(()) };
    let now = fingerprint(location);
    if known.fingerprint == now {
        return Ok(());
    }
    let say = |fingerprint: &Option<String>| match fingerprint {
        Some(fingerprint) => format!("the certificate {fingerprint}"),
        None => "any certificate this system trusts".to_owned(),
    };
    let (was, is) = (say(&known.fingerprint), say(&now));
    Err(refused(format!("{url} was used with {was}; now the URL asks for {is}")))
}
