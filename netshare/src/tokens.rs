//! The tokens of a share, in one small file that commands replace and a running server follows.
//!
//! The server keeps the file open that it read last and compares it with what is at the path: an open file's inode
//! cannot be used again, so a replaced file is always noticed, whatever the clock's resolution.

use crate::private::{self, Private};
use crate::{Scope, check_repository, token};
use imager_units::{Context, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const FILE: &str = "tokens.json";
const VERSION: u32 = 1;
const NAME_BYTES_MAX: usize = 63;

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its name, for people: `[A-Za-z0-9._-]{1,63}`.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// Where it may do so; `None` for every repository of the share.
    pub repositories: Option<BTreeSet<String>>,
    /// When it was made, RFC 3339.
    pub created: String,
}

impl Grant {
    /// Whether it is for this repository.
    pub(crate) fn is_for(&self, repository: &str) -> bool {
        self.repositories.as_ref().is_none_or(|only| only.contains(repository))
    }
}

/// The tokens of a share.
#[derive(Debug)]
pub struct Tokens {
    share: PathBuf,
    read: Mutex<Option<Snapshot>>,
}

/// The file as it was read last.
#[derive(Clone, Debug)]
struct Snapshot {
    /// Held open, so that no other file can have its inode.
    _file: Arc<File>,
    stamp: Stamp,
    tokens: Arc<Vec<Kept>>,
}

/// What tells one state of the file from another: device, inode, length, and when it was written.
type Stamp = (u64, u64, u64, i64, i64);

#[derive(Debug)]
struct Kept {
    digest: blake3::Hash,
    grant: Arc<Grant>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    tokens: Vec<Line>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    digest: String,
    scope: String,
    repositories: Option<BTreeSet<String>>,
    created: String,
}

impl Tokens {
    /// The tokens of the share at `share`; nothing is read yet.
    pub fn of(share: &Path) -> Self {
        Self { share: share.to_owned(), read: Mutex::default() }
    }

    /// Makes a token and returns its secret, which is kept nowhere.
    ///
    /// # Errors
    /// `Exists` when the name is taken, `Invalid` when it is no name; `Denied`, `OutOfSpace`, `Io` from the system.
    pub fn add(&self, grant: &Grant) -> Result<String> {
        check_name(&grant.name)?;
        grant.repositories.iter().flatten().try_for_each(|repository| check_repository(repository))?;
        let secret = token::generate()?;
        self.change(|lines| {
            if lines.iter().any(|line| line.name == grant.name) {
                let what = format!("there is a token named {} already", grant.name);
                return Err(Error::new(ErrorKind::Exists, what));
            }
            lines.push(Line {
                name: grant.name.clone(),
                digest: token::digest(&secret).to_hex().to_string(),
                scope: grant.scope.to_string(),
                repositories: grant.repositories.clone(),
                created: grant.created.clone(),
            });
            Ok(())
        })?;
        Ok(secret)
    }

    /// Ends a token: from the next request on it is unknown.
    ///
    /// # Errors
    /// `NotFound` when there is none of the name; `Denied`, `OutOfSpace`, `Io` from the system.
    pub fn revoke(&self, name: &str) -> Result<()> {
        self.change(|lines| {
            let before = lines.len();
            lines.retain(|line| line.name != name);
            if lines.len() == before {
                return Err(Error::new(ErrorKind::NotFound, format!("there is no token named {name}")));
            }
            Ok(())
        })
    }

    /// Every token, in the order in which they were made.
    ///
    /// # Errors
    /// `Corrupt` when the file cannot be understood; `Denied`, `Io` from the system.
    pub fn list(&self) -> Result<Vec<Grant>> {
        Ok(self.current()?.iter().map(|kept| Grant::clone(&kept.grant)).collect())
    }

    /// What a secret is for; `None` for one that is unknown or revoked. Takes the same time for all of them.
    ///
    /// # Errors
    /// `Corrupt` when the file cannot be understood; `Denied`, `Io` from the system.
    pub(crate) fn find(&self, secret: &str) -> Result<Option<Arc<Grant>>> {
        let digest = token::digest(secret);
        let mut found = None;
        for kept in self.current()?.iter() {
            if kept.digest == digest {
                found = Some(Arc::clone(&kept.grant));
            }
        }
        Ok(found)
    }

    fn current(&self) -> Result<Arc<Vec<Kept>>> {
        let path = self.share.join(private::FOLDER).join(FILE);
        let say = || format!("reading {}", path.display());
        let at_path = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            found => found.context(say)?,
        };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = read.as_ref().filter(|snapshot| snapshot.stamp == stamp(&at_path)) {
            return Ok(Arc::clone(&snapshot.tokens));
        }
        let mut file = private::open(&path).context(say)?;
        let stamp = stamp(&file.metadata().context(say)?);
        let mut text = String::new();
        file.read_to_string(&mut text).context(say)?;
        let document: Document = serde_json::from_str(&text)
            .map_err(|error| Error::with_source(ErrorKind::Corrupt, say(), error))?;
        let tokens = Arc::new(understand(document).context(say)?);
        *read = Some(Snapshot { _file: Arc::new(file), stamp, tokens: Arc::clone(&tokens) });
        Ok(tokens)
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<Line>) -> Result<()>) -> Result<()> {
        let private = Private::of(&self.share)?;
        let _lock = private.lock()?;
        let mut lines: Vec<_> = self.current()?.iter().map(Line::from).collect();
        edit(&mut lines)?;
        let document = Document { version: VERSION, tokens: lines };
        let text = serde_json::to_string_pretty(&document)
            .map_err(|error| Error::with_source(ErrorKind::Io, "encoding the tokens", error))?;
        private.write(FILE, text.as_bytes())
    }
}

impl From<&Kept> for Line {
    fn from(kept: &Kept) -> Self {
        let Grant { name, scope, repositories, created } = Grant::clone(&kept.grant);
        let digest = kept.digest.to_hex().to_string();
        Self { name, digest, scope: scope.to_string(), repositories, created }
    }
}

fn stamp(metadata: &fs::Metadata) -> Stamp {
    (metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

fn understand(document: Document) -> Result<Vec<Kept>> {
    if document.version != VERSION {
        let what = format!("the tokens have version {}, this server knows {VERSION}", document.version);
        return Err(Error::unsupported(what));
    }
    let keep = |line: Line| {
        let digest = blake3::Hash::from_hex(&line.digest)
            .map_err(|error| Error::with_source(ErrorKind::Corrupt, format!("token {}", line.name), error))?;
        let scope = line.scope.parse::<Scope>().context(|| format!("token {}", line.name))?;
        let Line { name, repositories, created, .. } = line;
        Ok(Kept { digest, grant: Arc::new(Grant { name, scope, repositories, created }) })
    };
    document.tokens.into_iter().map(keep).collect()
}

fn check_name(name: &str) -> Result<()> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(sound) {
        return Ok(());
    }
    let what =
        format!("{name:?} is no name for a token: 1 to {NAME_BYTES_MAX} of A-Z, a-z, 0-9, '.', '_' and '-'");
    Err(Error::new(ErrorKind::Invalid, what))
}

#[cfg(test)]
mod tests {
    use super::{Grant, Tokens};
    use imager_units::ErrorKind;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn grant(name: &str) -> Grant {
        let scope = "machine:web".parse().unwrap();
        Grant { name: name.to_owned(), scope, repositories: None, created: "2026-11-21T00:00:00Z".to_owned() }
    }

    #[test]
    fn a_running_server_sees_every_change() {
        let share = tempfile::tempdir().unwrap();
        let (server, command) = (Tokens::of(share.path()), Tokens::of(share.path()));
        assert_eq!(server.find("halfhour_x").unwrap(), None);
        let mut secrets = Vec::new();
        for round in 0..20 {
            let name = format!("t{round}");
            let secret = command.add(&grant(&name)).unwrap();
            assert_eq!(server.find(&secret).unwrap().unwrap().name, name);
            assert_eq!(server.find(&format!("{secret}0")).unwrap(), None);
            secrets.push((name, secret));
        }
        for (name, secret) in secrets {
            command.revoke(&name).unwrap();
            assert_eq!(server.find(&secret).unwrap(), None);
        }
        assert_eq!(command.revoke("t0").unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn the_file_holds_no_secret_and_is_the_owners() {
        let share = tempfile::tempdir().unwrap();
        let tokens = Tokens::of(share.path());
        let secret = tokens.add(&grant("web")).unwrap();
        let folder = share.path().join(".netshare");
        let text = fs::read_to_string(folder.join("tokens.json")).unwrap();
        assert!(!text.contains(&secret[9..]), "{text}");
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(folder.clone()), mode(folder.join("tokens.json"))), (0o700, 0o600));
        assert_eq!(tokens.list().unwrap(), [grant("web")]);
        let left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn names_are_taken_once_and_damage_is_told() {
        let share = tempfile::tempdir().unwrap();
        let tokens = Tokens::of(share.path());
        tokens.add(&grant("web")).unwrap();
        assert_eq!(tokens.add(&grant("web")).unwrap_err().kind(), ErrorKind::Exists);
        assert_eq!(tokens.add(&grant("a b")).unwrap_err().kind(), ErrorKind::Invalid);
        fs::write(share.path().join(".netshare/tokens.json"), b"{").unwrap();
        assert_eq!(tokens.find("x").unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn commands_at_once_lose_nothing() {
        let share = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let tokens = Tokens::of(share.path());
                scope.spawn(move || tokens.add(&grant(&format!("t{number}"))).unwrap());
            }
        });
        assert_eq!(Tokens::of(share.path()).list().unwrap().len(), 8);
    }
}
