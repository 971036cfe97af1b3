//! Whom one has reached when one dials a node itself: TLS that insists on that node, and what it says of itself.
//!
//! A node's certificate lasts a day, and on the day on which this is needed there may be nobody to renew it. So one
//! that has ended counts as of its last second; chain, name, identity and possession of the key are checked as ever.
//! What is lost: whoever stole the key of a node deceives us also after its certificate has ended.

use std::sync::Arc;

use proto::{DaemonRole, Identity, NodeId, NodeName};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

/// Which node is wanted. At least one of the two is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) id: Option<NodeId>,
    pub(crate) name: Option<NodeName>,
}

/// Somebody else answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its certificate speaks for {got}, not for the node that was asked for")]
pub(crate) struct OtherNode {
    pub(crate) got: String,
}

/// webpki's check, and: the certificate speaks for that node's manager.
#[derive(Debug)]
pub(crate) struct OnlyNode {
    roots: RootCertStore,
    wanted: Wanted,
    provider: Arc<CryptoProvider>,
}

impl OnlyNode {
    /// Trusts these roots (PEM). `None`: there is none among them.
    pub(crate) fn new(roots_pem: &str, wanted: Wanted) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots_pem.as_bytes()) {
            roots.add(root.ok()?).ok()?;
        }
        (!roots.is_empty()).then(|| Self {
            roots,
            wanted,
            provider: Arc::new(default_provider()),
        })
    }
}

fn other(got: &dyn std::fmt::Display) -> Error {
    let got = got.to_string();
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(OtherNode { got }))))
}

impl ServerCertVerifier for OnlyNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let (identity, until) =
            trust::identity_of(std::slice::from_ref(end_entity)).map_err(|e| other(&e))?;
        let last = until.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now.min(UnixTime::since_unix_epoch(last)),
            self.provider.signature_verification_algorithms.all,
        )?;
        let is_it = match &identity {
            Identity::Daemon(id, DaemonRole::NodeManager) => {
                self.wanted.id.is_none_or(|wanted| wanted == *id)
            }
            _ => false,
        };
        if !is_it {
            return Err(other(&identity));
        }
        if let Some(name) = &self.wanted.name {
            let name = ServerName::try_from(name.as_str()).map_err(|_| other(&"no name"))?;
            verify_server_name(&certificate, &name)?;
        } else if self.wanted.id.is_none() {
            return Err(other(&identity));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
