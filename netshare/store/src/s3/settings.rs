//! Where a bucket is and who we are to its service: as other tools for S3 take it, from the environment and `~/.aws`.

use crate::ObjectName;
use imager_units::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

const SCHEME: &str = "s3://";
const REGION: &str = "us-east-1";

/// `s3://BUCKET[/PREFIX]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Url {
    bucket: String,
    prefix: String,
}

impl S3Url {
    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What every key begins with, without a `/` at its end; may be empty.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl FromStr for S3Url {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        let wrong = || {
            // The URL is not repeated: a person may have put a secret into it.
            let what =
                "no URL of a bucket: s3://BUCKET/PREFIX is expected, the prefix of names with / between them";
            Error::new(ErrorKind::Invalid, what)
        };
        let rest = url.strip_prefix(SCHEME).ok_or_else(wrong)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let sound = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
        let is_bucket = (3..=63).contains(&bucket.len())
            && bucket.bytes().all(sound)
            && !bucket.starts_with(['.', '-'])
            && !bucket.ends_with(['.', '-']);
        // As the folders of a repository, so that no key means two things.
        if is_bucket && (prefix.is_empty() || ObjectName::new(prefix).is_ok()) {
            return Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
        }
        Err(wrong())
    }
}

impl fmt::Display for S3Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(f, "{SCHEME}{}{slash}{}", self.bucket, self.prefix)
    }
}

/// A secret, shown nowhere.
#[derive(Clone)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Who we are to the service, and where it is.
#[derive(Clone, Debug)]
pub struct S3Settings {
    pub(super) key_id: String,
    pub(super) secret: Secret,
    pub(super) token: Option<Secret>,
    pub(super) region: String,
    pub(super) endpoint: Option<String>,
}

impl S3Settings {
    /// From this process's environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`,
    /// `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_PROFILE`) and the files in `~/.aws`.
    ///
    /// # Errors
    /// `Denied` without credentials; `Invalid` for an endpoint that would send them in the clear to another machine.
    pub fn from_environment() -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        Self::find(&variable, &|path| std::fs::read_to_string(path).ok())
    }

    /// The same from any environment and any files.
    ///
    /// # Errors
    /// As `from_environment`.
    pub fn find(
        variable: &dyn Fn(&str) -> Option<String>,
        file: &dyn Fn(&Path) -> Option<String>,
    ) -> Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let profile = variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        let place = |name: &str, leaf: &str| {
            let home = || variable("HOME").map(|home| Path::new(&home).join(".aws").join(leaf));
            variable(name).map(PathBuf::from).or_else(home)
        };
        let read = |path: Option<PathBuf>| path.and_then(|path| file(&path)).unwrap_or_default();
        let keys = section(&read(place("AWS_SHARED_CREDENTIALS_FILE", "credentials")), &profile);
        let title = if profile == "default" { profile } else { format!("profile {profile}") };
        let config = section(&read(place("AWS_CONFIG_FILE", "config")), &title);
        let named = |name: &str| keys.get(name).or_else(|| config.get(name)).cloned();

        let in_environment = variable("AWS_ACCESS_KEY_ID").zip(variable("AWS_SECRET_ACCESS_KEY"));
        let (pair, token) = match in_environment {
            Some(pair) => (Some(pair), variable("AWS_SESSION_TOKEN")),
            None => {
                (named("aws_access_key_id").zip(named("aws_secret_access_key")), named("aws_session_token"))
            }
        };
        let (key_id, secret) = pair.ok_or_else(no_credentials)?;
        let region =
            variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).or_else(|| named("region"));
        let endpoint = variable("AWS_ENDPOINT_URL_S3")
            .or_else(|| variable("AWS_ENDPOINT_URL"))
            .or_else(|| named("endpoint_url"));
        Ok(Self {
            key_id,
            secret: Secret(secret),
            token: token.map(Secret),
            region: region.unwrap_or_else(|| REGION.to_owned()),
            endpoint: endpoint.map(check_endpoint).transpose()?,
        })
    }

    /// Whether requests go in the clear, which they do only within this machine.
    pub(super) fn is_plain(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"))
    }
}

fn no_credentials() -> Error {
    let what = "no credentials for the bucket: neither in the environment nor in ~/.aws/credentials";
    Error::with_source(ErrorKind::Denied, what, NoCredentials)
}

/// Why a bucket is not even asked.
#[derive(Clone, Copy, Debug)]
pub struct NoCredentials;

impl fmt::Display for NoCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the profile has no key")
    }
}

impl std::error::Error for NoCredentials {}

fn check_endpoint(url: String) -> Result<String> {
    let wrong =
        |why: &str| Err(Error::new(ErrorKind::Invalid, format!("the endpoint in AWS_ENDPOINT_URL {why}")));
    let Some((scheme, rest)) = url.split_once("://") else { return wrong("has no https:// before it") };
    let authority = rest.split('/').next().unwrap_or_default();
    // Others pass over spaces and control characters, and take \ for /.
    let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte));
    if authority.is_empty() || authority.contains('@') || !is_plain {
        return wrong("is no https://HOST[:PORT]");
    }
    match scheme {
        "https" => Ok(url),
        "http" if is_this_machine(authority) => Ok(url),
        "http" => wrong("begins with http://, which is allowed only to this machine: use https://"),
        _ => wrong("is no https:// URL"),
    }
}

fn is_this_machine(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The values below `[title]` in a file of AWS's form. Indented lines belong to nested settings and are passed over.
fn section(text: &str, title: &str) -> HashMap<String, String> {
    let mut inside = false;
    let mut values = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with([' ', '\t', '#', ';'])) {
        if let Some(rest) = line.trim_end().strip_prefix('[') {
            inside = rest.strip_suffix(']').is_some_and(|name| name.trim() == title);
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside) {
            values.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    values.retain(|_, value| !value.is_empty());
    values
}

#[cfg(test)]
mod tests {
    use super::{S3Settings, S3Url};
    use imager_units::{ErrorKind, Result};

    const CREDENTIALS: &str = "# mine\n[default]\naws_access_key_id = AKdefault\naws_secret_access_key=sDefault\n\
        [lab]\naws_access_key_id=AKlab\naws_secret_access_key = sLab==\naws_session_token = tLab\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\n[profile lab]\nregion=eu-north-1\n\
        endpoint_url = https://s3.lab.example\ns3 =\n  max_concurrent_requests = 20\n  region = wrong\n";

    fn find(variables: &[(&str, &str)]) -> Result<S3Settings> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        S3Settings::find(&variable, &|path| match path.to_str()? {
            "/home/x/.aws/credentials" => Some(CREDENTIALS.to_owned()),
            "/home/x/.aws/config" | "/etc/aws" => Some(CONFIG.to_owned()),
            _ => None,
        })
    }

    #[test]
    fn urls_name_a_bucket_and_a_prefix() {
        for (url, bucket, prefix) in [
            ("s3://backups", "backups", ""),
            ("s3://backups/", "backups", ""),
            ("s3://b.a-1/site/servers/", "b.a-1", "site/servers"),
        ] {
            let parsed: S3Url = url.parse().unwrap();
            assert_eq!((parsed.bucket(), parsed.prefix()), (bucket, prefix), "{url}");
            assert_eq!(parsed.to_string(), url.trim_end_matches('/'));
        }
        for url in [
            "s3://",
            "s3:///x",
            "s3://B/x",
            "s3://ab",
            "s3://abc//x",
            "s3://abc/../x",
            "s3://k:s@abc/x",
            "abc",
        ] {
            assert_eq!(url.parse::<S3Url>().unwrap_err().kind(), ErrorKind::Invalid, "{url}");
        }
    }

    #[test]
    fn the_environment_goes_before_the_files_and_profiles_are_kept_apart() {
        let home = ("HOME", "/home/x");
        let found = find(&[home]).unwrap();
        assert_eq!((found.key_id.as_str(), found.secret.expose()), ("AKdefault", "sDefault"));
        assert_eq!((found.region.as_str(), found.endpoint, found.token.is_none()), ("eu-west-1", None, true));
        let found = find(&[home, ("AWS_PROFILE", "lab")]).unwrap();
        assert_eq!((found.key_id.as_str(), found.secret.expose()), ("AKlab", "sLab=="));
        assert_eq!((found.region.as_str(), found.token.unwrap().expose()), ("eu-north-1", "tLab"));
        assert_eq!(found.endpoint.as_deref(), Some("https://s3.lab.example"));
        let mine = [("AWS_ACCESS_KEY_ID", "AK"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_REGION", "r"), home];
        let found = find(&mine).unwrap();
        assert_eq!((found.key_id.as_str(), found.region.as_str()), ("AK", "r"));
        let other = [("AWS_CONFIG_FILE", "/etc/aws"), mine[0], mine[1]];
        assert_eq!(find(&other).unwrap().region, "eu-west-1");
        assert_eq!(find(&mine[..2]).unwrap().region, "us-east-1");
    }

    #[test]
    fn without_credentials_nothing_is_opened_and_secrets_are_never_shown() {
        for variables in
            [&[][..], &[("AWS_ACCESS_KEY_ID", "AK")], &[("HOME", "/home/x"), ("AWS_PROFILE", "none")]]
        {
            assert_eq!(find(variables).unwrap_err().kind(), ErrorKind::Denied);
        }
        let shown = format!("{:?}", find(&[("HOME", "/home/x"), ("AWS_PROFILE", "lab")]).unwrap());
        assert!(!shown.contains("sLab") && !shown.contains("tLab"), "{shown}");
    }

    #[test]
    fn endpoints_in_the_clear_are_on_this_machine() {
        let keys = [("AWS_ACCESS_KEY_ID", "AK"), ("AWS_SECRET_ACCESS_KEY", "s")];
        let with = |url| find(&[keys[0], keys[1], ("AWS_ENDPOINT_URL", url)]);
        for url in ["http://127.0.0.1:9000", "http://localhost", "http://[::1]:1/", "https://s3.example:443"]
        {
            assert_eq!(with(url).unwrap().is_plain(), url.starts_with("http:"), "{url}");
        }
        for url in [
            "http://10.0.0.1",
            "http://localhost.evil",
            "http://127.0.0.1@evil",
            "ftp://x",
            "x",
            "https://",
            "https://k:s@x",
            "https://\r/k:s@x",
            "https://\\x",
            "https://x ",
        ] {
            assert_eq!(with(url).unwrap_err().kind(), ErrorKind::Invalid, "{url}");
        }
    }
}
