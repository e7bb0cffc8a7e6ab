//! The share that holds the repository: what has to be asked to open it, and how `imager` is told.

use bootenv_init::Settings;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// A kind of share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Our own server.
    Https,
    /// Windows or Samba.
    Smb,
    /// NFS.
    Nfs,
    /// A bucket.
    S3,
    /// A folder of this machine.
    Folder,
}

/// Something to be typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    /// The repository's URL.
    Place,
    /// The share server's token.
    Token,
    /// The password of a file server's user.
    SharePassword,
    /// The name of a bucket's key.
    KeyId,
    /// The bucket's key.
    SecretKey,
    /// The bucket's region.
    Region,
    /// Where the bucket's service is.
    Endpoint,
    /// The passphrase of an encrypted repository.
    Passphrase,
}

impl Kind {
    /// Every kind, in the order of the menu.
    pub(crate) const ALL: [Self; 5] = [Self::Https, Self::Smb, Self::Nfs, Self::S3, Self::Folder];

    /// How a person calls it, and what its URL looks like.
    pub(crate) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Https => {
                ("A Halfhour share server", "https://HOST:PORT/NAME#FINGERPRINT, as netshare serve prints it")
            }
            Self::Smb => {
                ("A Windows or Samba share", "smb://USER@HOST/SHARE/FOLDER, a domain as DOMAIN;USER@HOST")
            }
            Self::Nfs => ("An NFS share", "nfs://HOST/EXPORT/FOLDER (NFS version 4)"),
            Self::S3 => ("An S3 bucket", "s3://BUCKET/PREFIX"),
            Self::Folder => (
                "A folder of this machine",
                "such as /mnt/backup; a disk has to be mounted at the shell first",
            ),
        }
    }

    /// What is asked to open it, in order.
    pub(crate) fn fields(self) -> &'static [Field] {
        match self {
            Self::Https => &[Field::Place, Field::Token],
            Self::Smb => &[Field::Place, Field::SharePassword],
            Self::Nfs | Self::Folder => &[Field::Place],
            Self::S3 => &[Field::Place, Field::KeyId, Field::SecretKey, Field::Region, Field::Endpoint],
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::Https => "https://",
            Self::Smb => "smb://",
            Self::Nfs => "nfs://",
            Self::S3 => "s3://",
            Self::Folder => "",
        }
    }

    /// The kind that a URL is of.
    pub(crate) fn of(url: &str) -> Self {
        let with_scheme = [Self::Https, Self::Smb, Self::Nfs, Self::S3];
        with_scheme.into_iter().find(|kind| url.starts_with(kind.scheme())).unwrap_or(Self::Folder)
    }
}

impl Field {
    /// How it is asked for.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Place => "URL",
            Self::Token => "Token",
            Self::SharePassword => "Password",
            Self::KeyId => "Access key",
            Self::SecretKey => "Secret key",
            Self::Region => "Region",
            Self::Endpoint => "Endpoint",
            Self::Passphrase => "Passphrase",
        }
    }

    /// What to know before answering.
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::Place => "",
            Self::Token => {
                "What netshare token add printed on the server: a restore or admin token, or this machine's own. Paste it."
            }
            Self::SharePassword => "The password of the user in the URL.",
            Self::KeyId => "The bucket's access key (AWS_ACCESS_KEY_ID).",
            Self::SecretKey => "The bucket's secret key (AWS_SECRET_ACCESS_KEY).",
            Self::Region => "The bucket's region, such as eu-central-1. Empty: as the service says.",
            Self::Endpoint => "Where the service is, such as https://s3.example.net. Empty: Amazon's.",
            Self::Passphrase => "The repository is encrypted: its passphrase, or its recovery key.",
        }
    }

    /// Whether it stays invisible.
    pub(crate) fn is_secret(self) -> bool {
        matches!(self, Self::Token | Self::SharePassword | Self::SecretKey | Self::Passphrase)
    }

    /// The variable by which `imager` takes it; the place is a word of the command.
    fn variable(self) -> Option<&'static str> {
        match self {
            Self::Place => None,
            Self::Token => Some("IMAGER_TOKEN"),
            Self::SharePassword => Some("IMAGER_SHARE_PASSWORD"),
            Self::KeyId => Some("AWS_ACCESS_KEY_ID"),
            Self::SecretKey => Some("AWS_SECRET_ACCESS_KEY"),
            Self::Region => Some("AWS_REGION"),
            Self::Endpoint => Some("AWS_ENDPOINT_URL"),
            Self::Passphrase => Some("IMAGER_PASSWORD"),
        }
    }
}

/// What was typed or set, by kind of question. It outlives a wrong answer.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Share {
    values: BTreeMap<Field, String>,
}

impl Share {
    /// What the medium was told.
    pub(crate) fn of(settings: &Settings) -> Self {
        let mut share = Self::default();
        let known = [
            (Field::Place, &settings.repo),
            (Field::Token, &settings.token),
            (Field::SharePassword, &settings.share_password),
            (Field::Passphrase, &settings.password),
        ];
        for (field, value) in known {
            share.set(field, value.as_deref().unwrap_or_default());
        }
        share
    }

    /// What a field is so far.
    pub(crate) fn get(&self, field: Field) -> &str {
        self.values.get(&field).map(String::as_str).unwrap_or_default()
    }

    /// Gives a field its value.
    pub(crate) fn set(&mut self, field: Field, value: &str) {
        if value.is_empty() {
            self.values.remove(&field);
        } else {
            self.values.insert(field, value.to_owned());
        }
    }

    /// Where the repository is, as `imager` is told.
    pub(crate) fn place(&self) -> &str {
        self.get(Field::Place)
    }

    /// The folder on this machine, if it is one: no disk that holds it may be written.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        let path = self.place().strip_prefix("file://").unwrap_or(self.place());
        path.starts_with('/').then(|| PathBuf::from(path))
    }

    /// Sets the place as a person typed it, for that kind.
    ///
    /// # Errors
    /// Says what is expected.
    pub(crate) fn set_place(&mut self, kind: Kind, typed: &str) -> Result<(), String> {
        let (typed, (_, form)) = (typed.trim(), kind.words());
        let url = match (kind, typed.contains("://")) {
            (_, true) => typed.to_owned(),
            (_, false) => format!("{}{typed}", kind.scheme()),
        };
        let rest = url.strip_prefix(kind.scheme()).unwrap_or_default();
        if rest.is_empty() || (kind == Kind::Folder && !url.starts_with('/')) || Kind::of(&url) != kind {
            return Err(format!("that is none of this kind: {form}"));
        }
        if url != self.place() {
            // A passphrase and credentials belong to one place.
            self.values.remove(&Field::Passphrase);
        }
        self.set(Field::Place, &url);
        Ok(())
    }

    /// What `imager` is told in its environment.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let kind = Kind::of(self.place());
        let asked = |field: &Field| kind.fields().contains(field) || *field == Field::Passphrase;
        let fields = self.values.iter().filter(|(field, _)| asked(field));
        fields.filter_map(|(field, value)| Some((field.variable()?, value.clone()))).collect()
    }
}

/// Secrets stay out of logs.
impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("place", &self.place()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Field, Kind, Share};

    #[test]
    fn a_place_is_completed_or_refused_with_what_is_expected() {
        let mut share = Share::default();
        share.set_place(Kind::Https, " host:8443/default#ab ").expect("right");
        assert_eq!(share.place(), "https://host:8443/default#ab");
        share.set_place(Kind::Folder, "/mnt/backup").expect("right");
        for (kind, wrong) in [
            (Kind::Https, ""),
            (Kind::Https, "smb://u@h/s"),
            (Kind::Https, "http://h/x"),
            (Kind::Folder, "backup"),
            (Kind::Folder, "s3://bucket"),
        ] {
            share.set_place(kind, wrong).expect_err(wrong);
        }
        assert_eq!(share.place(), "/mnt/backup", "a wrong answer changes nothing");
    }

    #[test]
    fn imager_is_told_only_what_that_kind_needs_and_logs_nothing() {
        let mut share = Share::default();
        share.set_place(Kind::Https, "https://h/d#f").expect("right");
        share.set(Field::Token, "hush");
        share.set(Field::SharePassword, "other");
        assert_eq!(share.variables(), [("IMAGER_TOKEN", "hush".to_owned())]);
        assert!(!format!("{share:?}").contains("hush"));
        share.set(Field::Passphrase, "secret");
        share.set_place(Kind::Https, "https://h/e#f").expect("right");
        assert_eq!(share.get(Field::Passphrase), "", "it was another repository's");
    }
}
