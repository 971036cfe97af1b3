//! Who we are to TLS: the bundle's certificate and roots, and a key that is in the bundle or in an ssh-agent.

use std::sync::Arc;

use proto::bundle::Bundle;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::agent::{self, AgentError};

/// Why a bundle's contents make no credentials. Never shows any of them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    /// One of the texts is not what it should be.
    #[error("{0} in the bundle cannot be used")]
    Part(&'static str),
    /// The key is in an agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// From when until when a certificate is good, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    from_ms: i64,
    until_ms: i64,
}

impl Validity {
    /// Nothing can be done with it any more but to renew it.
    pub(crate) const fn has_ended(self, now_ms: i64) -> bool {
        self.until_ms <= now_ms
    }

    /// When it ends.
    pub(crate) const fn until_ms(self) -> i64 {
        self.until_ms
    }

    /// More than half of it is over: time to renew.
    pub(crate) const fn is_half_over(self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.from_ms) > self.until_ms.saturating_sub(now_ms)
    }
}

/// A bundle, ready for TLS.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) bundle: Bundle,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) validity: Validity,
    /// SubjectPublicKeyInfo, DER.
    pub(crate) public_key: Vec<u8>,
}

impl Credentials {
    /// Reads the texts of a bundle.
    ///
    /// # Errors
    /// Names the text that is wrong, or what is wrong with the agent.
    pub(crate) fn new(bundle: Bundle) -> Result<Self, CredentialsError> {
        use CredentialsError::Part;
        let mut roots = RootCertStore::empty();
        for ca in CertificateDer::pem_slice_iter(bundle.ca.as_bytes()) {
            let ca = ca.map_err(|_| Part("the CA's certificate"))?;
            roots.add(ca).map_err(|_| Part("the CA's certificate"))?;
        }
        let chain = CertificateDer::pem_slice_iter(bundle.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Part("the certificate"))?;
        let (validity, public_key) = facts(&chain).ok_or(Part("the certificate"))?;
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| Part("this program's TLS"))?
            .with_root_certificates(roots);
        let mut tls = match agent::is_reference(bundle.key.expose()) {
            true => {
                let key = agent::signing_key(&public_key)?;
                builder.with_client_cert_resolver(Arc::new(Held(Arc::new(CertifiedKey::new(chain, key)))))
            }
            false => {
                let key = PrivateKeyDer::from_pem_slice(bundle.key.expose().as_bytes())
                    .map_err(|_| Part("the key"))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|_| Part("certificate and key"))?
            }
        };
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            bundle,
            tls: Arc::new(tls),
            validity,
            public_key,
        })
    }
}

impl Credentials {
    /// The same, but the other end must be who `verifier` says instead of the controller.
    pub(crate) fn toward(mut self, verifier: impl ServerCertVerifier + 'static) -> Self {
        let mut tls = (*self.tls).clone();
        tls.dangerous().set_certificate_verifier(Arc::new(verifier));
        self.tls = Arc::new(tls);
        self
    }
}

fn facts(chain: &[CertificateDer<'_>]) -> Option<(Validity, Vec<u8>)> {
    let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    let validity = Validity {
        from_ms: leaf.validity().not_before.timestamp().saturating_mul(1_000),
        until_ms: leaf.validity().not_after.timestamp().saturating_mul(1_000),
    };
    Some((validity, leaf.public_key().raw.to_vec()))
}

/// The one certificate, with a key that is elsewhere.
#[derive(Debug)]
struct Held(Arc<CertifiedKey>);

impl ResolvesClientCert for Held {
    fn resolve(&self, _: &[&[u8]], offered: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(offered).map(|_| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_time_and_the_end_are_told_apart() {
        let day = Validity {
            from_ms: 0,
            until_ms: 100,
        };
        for (now, half, ended) in [
            (-5, false, false),
            (0, false, false),
            (50, false, false),
            (51, true, false),
            (99, true, false),
            (100, true, true),
            (i64::MAX, true, true),
        ] {
            assert_eq!(
                (day.is_half_over(now), day.has_ended(now)),
                (half, ended),
                "at {now}"
            );
        }
    }
}
