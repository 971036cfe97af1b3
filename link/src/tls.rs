//! The TLS of every connection between two of us, and whom a certificate speaks for.
//!
//! TLS 1.3 only, HTTP/2 by ALPN, client certificates required, provider aws-lc-rs given explicitly (a process-wide
//! default would panic when a second provider is compiled in). No session resumption: a resumed session skips the
//! chain, so that a revoked node could come back; the gain is 10–20 % of a reconnect (LINK.md).
//!
//! Both verifiers are webpki's with one more question at the end, asked inside the handshake so that the refused
//! side receives an alert and can say so: does the certificate name somebody (server), is it the controller
//! (client).

use std::sync::Arc;

use proto::Identity;
use proto::bundle::{Bundle, SecretPem};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, ServerConfig,
};
use rustls::{SignatureScheme, version};
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use trust::{CertificateError, identity_of};

use crate::TimeFloor;

/// The only protocol spoken, in ALPN.
pub(crate) const ALPN: &[u8] = b"h2";

/// Why PEM texts make no TLS configuration. Never shows any of them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or cut off.
    #[error("{what} is not valid PEM")]
    Pem {
        /// Which of the texts.
        what: &'static str,
    },
    /// PEM, but with nothing of that kind in it.
    #[error("{what} holds no {expected}")]
    Missing {
        /// Which of the texts.
        what: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// The CA's certificate cannot be a trust anchor.
    #[error("CA certificate cannot be trusted")]
    Anchor(#[source] rustls::Error),
    /// The certificate and the key do not belong together, or are of an unknown kind.
    #[error("certificate and key cannot be used together")]
    Own(#[source] rustls::Error),
    /// Our own certificate names nobody.
    #[error("own certificate")]
    OwnName(#[from] CertificateError),
    /// The verifier or the protocol version could not be set up.
    #[error("TLS set-up failed: {0}")]
    Setup(String),
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS of a listener: `ca_pem` signs the peers, `cert_pem` (leaf first) and `key_pem` (PKCS#8, SEC1 or PKCS#1) are ours.
///
/// # Errors
/// When a text holds not what it should; the error says which and shows none of it.
pub fn server_config(
    ca_pem: &str,
    cert_pem: &str,
    key_pem: &SecretPem,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let inner = WebPkiClientVerifier::builder_with_provider(roots(ca_pem)?, provider.clone())
        .build()
        .map_err(|e| TlsError::Setup(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|e| TlsError::Setup(e.to_string()))?
        .with_client_cert_verifier(Arc::new(NamedClient(inner)))
        .with_single_cert(chain(cert_pem)?, key(key_pem)?)
        .map_err(TlsError::Own)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// TLS of somebody who dials the controller with this bundle. The other end must be signed by the bundle's CA, carry
/// the dialled name (DNS or IP) and speak for [`Identity::Controller`].
///
/// # Errors
/// When a text in the bundle holds not what it should; the error says which and shows none of it.
pub fn client_config(bundle: &Bundle) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_by(bundle, None)
}

/// The same, of a machine whose clock may be wrong.
pub(crate) fn client_config_by(
    bundle: &Bundle,
    floor: Option<Arc<TimeFloor>>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let own = chain(&bundle.certificate)?;
    identity_of(&own)?;
    let inner = WebPkiServerVerifier::builder_with_provider(roots(&bundle.ca)?, provider.clone())
        .build()
        .map_err(|e| TlsError::Setup(e.to_string()))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|e| TlsError::Setup(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OnlyController { inner, floor }))
        .with_client_auth_cert(own, key(&bundle.key)?)
        .map_err(TlsError::Own)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::Missing {
            what,
            expected: "certificate",
        }),
        Ok(found) => Ok(found),
        Err(_) => Err(TlsError::Pem { what }),
    }
}

pub(crate) fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates("certificate", pem)
}

pub(crate) fn roots(pem: &str) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA certificate", pem)? {
        roots.add(certificate).map_err(TlsError::Anchor)?;
    }
    Ok(Arc::new(roots))
}

pub(crate) fn key(pem: &SecretPem) -> Result<PrivateKeyDer<'static>, TlsError> {
    // The parser's error is dropped: it may quote the text.
    PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).map_err(|e| match e {
        PemError::NoItemsFound => TlsError::Missing {
            what: "key",
            expected: "private key",
        },
        _ => TlsError::Pem { what: "key" },
    })
}

pub(crate) fn refused(error: CertificateError) -> rustls::Error {
    rustls::Error::InvalidCertificate(rustls::CertificateError::Other(OtherError(Arc::new(error))))
}

/// webpki's check, and: the certificate names exactly one of us.
#[derive(Debug)]
struct NamedClient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for NamedClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        identity_of(std::slice::from_ref(end_entity)).map_err(refused)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// webpki's check, and: the certificate speaks for the controller. Any node's certificate is signed by the same CA,
/// and may well carry the right DNS name.
#[derive(Debug)]
struct OnlyController {
    inner: Arc<WebPkiServerVerifier>,
    floor: Option<Arc<TimeFloor>>,
}

impl OnlyController {
    /// As of another moment of the certificate's life, when only our clock speaks against it.
    fn at_its_time(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        error: rustls::Error,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError as C;
        let by_clock = matches!(
            error,
            rustls::Error::InvalidCertificate(
                C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. }
            )
        );
        let Some(floor) = self.floor.as_ref().filter(|_| by_clock) else {
            return Err(error);
        };
        let (begins, ends) = trust::validity_of(end_entity).map_err(refused)?;
        match floor.within(begins, ends) {
            Some(at) => self
                .inner
                .verify_server_cert(end_entity, intermediates, server_name, &[], at),
            None => Err(error),
        }
    }
}

impl ServerCertVerifier for OnlyController {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.inner
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let verified = match verified {
            Ok(verified) => verified,
            Err(error) => self.at_its_time(end_entity, intermediates, server_name, error)?,
        };
        match identity_of(std::slice::from_ref(end_entity)).map_err(refused)? {
            (Identity::Controller, _) => Ok(verified),
            (other, _) => Err(refused(CertificateError::NotController(other))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
