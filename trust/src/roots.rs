//! The roots that somebody trusts; several while one takes over from another.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::certificate::parse;

/// Most roots in one set.
const MAX: usize = 16;

/// Why a text holds no roots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootsError {
    /// Not PEM, or none or too many in it.
    #[error("roots are not between 1 and {MAX} certificates in PEM")]
    Pem,
    /// One of them cannot be a trust anchor.
    #[error("a root is not an X.509 certificate that can be trusted")]
    Anchor,
}

/// Certificates that are trusted for themselves.
#[derive(Debug, Clone)]
pub struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
}

impl Roots {
    /// Reads one or more certificates.
    ///
    /// # Errors
    /// When there is none, too many, or one that cannot be trusted.
    pub fn from_pem(pem: &str) -> Result<Self, RootsError> {
        let certificates: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| RootsError::Pem)?;
        if certificates.is_empty() || certificates.len() > MAX {
            return Err(RootsError::Pem);
        }
        let anchors = certificates
            .iter()
            .map(|root| anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned()))
            .collect::<Result<_, _>>()
            .map_err(|_| RootsError::Anchor)?;
        Ok(Self { anchors })
    }

    /// Whether the chain of a client or a signer, leaf first, leads to one of the roots. No clock: it is looked at as of the leaf's first
    /// second.
    #[must_use]
    pub fn vouch_for(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return false;
        };
        let Ok(begins) = parse(leaf).map(|leaf| leaf.validity().not_before.timestamp()) else {
            return false;
        };
        let Ok(begins) = u64::try_from(begins) else {
            return false;
        };
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(begins));
        EndEntityCert::try_from(leaf).is_ok_and(|leaf| {
            leaf.verify_for_usage(
                ALL_VERIFICATION_ALGS,
                &self.anchors,
                intermediates,
                at,
                KeyUsage::client_auth(),
                None,
                None,
            )
            .is_ok()
        })
    }
}
