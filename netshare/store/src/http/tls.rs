//! Whom we talk to: the one certificate of a fingerprint, or whomever this system's roots vouch for.
//!
//! A handshake that ends here has not sent anything of ours: the token goes out only behind it.

use super::refusal::Refusal;
use super::url::Fingerprint;
use imager_units::{Error, ErrorKind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use std::sync::Arc;

/// TLS 1.3 and 1.2 with servers that `fingerprint` or the system's roots accept.
pub(crate) fn config(fingerprint: Option<Fingerprint>) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match fingerprint {
        Some(fingerprint) => Arc::new(Pinned { fingerprint, provider: Arc::clone(&provider) }),
        None => Arc::new(rustls_platform_verifier::Verifier::new(Arc::clone(&provider)).map_err(no_roots)?),
    };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder =
        builder.map_err(|error| Error::with_source(ErrorKind::Unsupported, "preparing TLS", error))?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn no_roots(error: rustls::Error) -> Error {
    tracing::debug!("{error}");
    Error::with_source(ErrorKind::Denied, "no server can be told from an impostor", Refusal::NoRoots)
}

/// Accepts one certificate, whatever name, issuer and dates are in it.
#[derive(Debug)]
struct Pinned {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match fingerprint_of(end_entity) {
            Some(found) if found == self.fingerprint => Ok(ServerCertVerified::assertion()),
            Some(found) => {
                let refusal = OtherError(Arc::new(Refusal::Fingerprint(found)));
                Err(rustls::Error::InvalidCertificate(CertificateError::Other(refusal)))
            }
            None => Err(rustls::Error::General("SHA-256 is missing".to_owned())),
        }
    }

    // That the certificate is the right one is not enough: whoever shows it must hold its key.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn fingerprint_of(certificate: &[u8]) -> Option<Fingerprint> {
    let suite = ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13()?;
    let digest = suite.common.hash_provider.hash(certificate);
    digest.as_ref().try_into().ok().map(Fingerprint)
}
