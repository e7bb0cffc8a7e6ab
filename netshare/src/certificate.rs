//! What the server proves itself by: a certificate of its own making that clients know by its fingerprint, or one that
//! somebody else vouches for.

use crate::private::{self, Private};
use imager_units::{Context, Error, ErrorKind, Result};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Certificate and key in one file: they cannot come apart.
const FILE: &str = "identity.pem";

/// What the server proves itself by.
#[derive(Clone, Debug)]
pub struct Identity {
    tls: Arc<ServerConfig>,
    fingerprint: String,
}

impl Identity {
    /// The share's own, made at the first call and kept in the share for its owner only.
    ///
    /// # Errors
    /// `Corrupt` when what was kept cannot be used; `NotFound`, `Denied`, `OutOfSpace`, `Io` from the system.
    pub fn self_signed(share: &Path) -> Result<Self> {
        let private = Private::of(share)?;
        let text = match private.read(FILE)? {
            // Nothing is locked for reading: a share may be served from a snapshot that cannot be written.
            Some(text) => text,
            None => make(&private)?,
        };
        let path = share.join(private::FOLDER).join(FILE);
        Self::from_pem(&text, &text).context(|| format!("reading the certificate in {}", path.display()))
    }

    /// From the files of a certificate (with those it needs, the server's own first) and its key, both PEM.
    ///
    /// # Errors
    /// `Corrupt` when they cannot be used together; `NotFound`, `Denied`, `Io` from the system.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self> {
        let read =
            |what, path: &Path| fs::read(path).context(|| format!("reading the {what} {}", path.display()));
        let (chain, key_text) = (read("certificate", certificate)?, read("key", key)?);
        Self::from_pem(&chain, &key_text)
            .context(|| format!("using {} with {}", certificate.display(), key.display()))
    }

    fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self> {
        let corrupt = |what: &str, error: Box<dyn std::error::Error + Send + Sync>| {
            Error::with_source(ErrorKind::Corrupt, what, error)
        };
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| corrupt("the certificate is no PEM", error.into()))?;
        let own = chain.first().ok_or_else(|| Error::corrupt("there is no certificate in it"))?;
        let fingerprint = fingerprint(own);
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| corrupt("the key is no PEM", error.into()))?;
        let mut tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| corrupt("no protocol version can be used", error.into()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| corrupt("certificate and key do not do", error.into()))?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls), fingerprint })
    }

    /// SHA-256 of the certificate, in lower-case hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(crate) fn tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.tls)
    }
}

/// By the hash of a cipher suite: rustls has SHA-256 in it, and no other crate is needed for it.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let suite = ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().expect("it is a suite of TLS 1.3");
    hex::encode(suite.common.hash_provider.hash(certificate.as_ref()).as_ref())
}

/// Makes the share's certificate, unless another process was faster.
fn make(private: &Private) -> Result<Vec<u8>> {
    let _lock = private.lock()?;
    if let Some(text) = private.read(FILE)? {
        return Ok(text);
    }
    let text = generate()?.into_bytes();
    private.write(FILE, &text)?;
    Ok(text)
}

/// A new certificate for the names of this machine, and its key.
fn generate() -> Result<String> {
    let fail = |error: rcgen::Error| Error::with_source(ErrorKind::Io, "making a certificate", error);
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(host_name());
    let made = rcgen::generate_simple_self_signed(names).map_err(fail)?;
    Ok(format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem()))
}

/// The machine's name, where it is one that a certificate can hold.
pub(crate) fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    Some(name).filter(|name| !name.is_empty() && name.bytes().all(sound))
}

#[cfg(test)]
mod tests {
    use super::Identity;
    use imager_units::ErrorKind;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_shares_own_certificate_stays_the_same_and_its_key_is_the_owners() {
        let share = tempfile::tempdir().unwrap();
        let first = Identity::self_signed(share.path()).unwrap();
        assert_eq!(first.fingerprint(), Identity::self_signed(share.path()).unwrap().fingerprint());
        assert_eq!(first.fingerprint().len(), 64);
        let file = share.path().join(".netshare/identity.pem");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let given = Identity::from_files(&file, &file).unwrap();
        assert_eq!(given.fingerprint(), first.fingerprint());
        fs::write(&file, b"nonsense").unwrap();
        assert_eq!(Identity::self_signed(share.path()).unwrap_err().kind(), ErrorKind::Corrupt);
        let absent = Identity::from_files(&share.path().join("none"), &file).unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound);
    }
}
