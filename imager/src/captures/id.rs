//! Finding a capture by its id, whatever its machine.
//!
//! That takes a look at the captures of all machines, which a server does not allow to one machine's token. Then its own
//! are all there is to find, and an answer says so.

use super::read;
use crate::repository::Repository;
use imager_image::names;
use imager_units::{Error, ErrorKind, Result};

/// Digits of a whole id.
const DIGITS: usize = 32;

/// Does `work` with the folder of all captures; or, where only one machine's may be looked at, with that one's. Says
/// which machine's that was.
pub(crate) fn in_sight<T>(
    repository: &Repository,
    mut work: impl FnMut(&str) -> Result<T>,
) -> Result<(T, Option<String>)> {
    match work(names::CAPTURES) {
        Err(error) if error.kind() == ErrorKind::Denied => {
            let own = repository.own_machine()?.ok_or(error)?;
            Ok((work(&format!("{}/{own}", names::CAPTURES))?, Some(own)))
        }
        done => Ok((done?, None)),
    }
}

/// The name under which the capture lies whose id starts with `prefix`. Its manifest may be damaged.
pub(crate) fn locate(repository: &Repository, prefix: &str) -> Result<String> {
    let (mut found, own) = in_sight(repository, |folder| with_id(repository, folder, prefix))?;
    if found.len() > 1 {
        found = narrow(repository, found, prefix.len() == DIGITS)?;
    }
    match (found.len(), found.pop(), own) {
        (1, Some(name), _) => Ok(name),
        (0, _, None) => Err(Error::new(ErrorKind::NotFound, format!("there is no capture id:{prefix}"))),
        (0, _, Some(own)) => {
            let what = format!(
                "there is no capture id:{prefix} of {own:?}, and the token shows no other machine's: a restore token does"
            );
            Err(Error::new(ErrorKind::NotFound, what))
        }
        (several, ..) => {
            let what =
                format!("id:{prefix} fits {several} captures: give more of its digits, or MACHINE@TIME");
            Err(Error::new(ErrorKind::Invalid, what))
        }
    }
}

/// The names of manifests in a folder whose id starts so, in order.
fn with_id(repository: &Repository, folder: &str, prefix: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    repository.store().list(folder, &mut |entry| {
        let name = entry.name.as_str();
        if names::manifest_parts(name).is_some_and(|(_, _, id)| id.to_string().starts_with(prefix)) {
            found.push(name.to_owned());
        }
        Ok(())
    })?;
    found.sort();
    found.dedup();
    Ok(found)
}

/// Of several names those that are captures: what was revoked never was one. Who gave the `whole` id means the capture
/// that has it, not what only lies under a name with it, such as a copy of a file; unless nothing else is there.
fn narrow(repository: &Repository, found: Vec<String>, whole: bool) -> Result<Vec<String>> {
    let (mut sound, mut damaged) = (Vec::new(), Vec::new());
    for name in found {
        match read(repository, &name) {
            Ok(_) => sound.push(name),
            Err(error) => match error.kind() {
                ErrorKind::NotFound => {}
                ErrorKind::Corrupt | ErrorKind::Unsupported => damaged.push(name),
                _ => return Err(error),
            },
        }
    }
    if sound.is_empty() || !whole {
        sound.append(&mut damaged);
    }
    Ok(sound)
}
