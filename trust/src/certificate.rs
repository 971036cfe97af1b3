//! Whom a certificate speaks for.

use std::time::{Duration, SystemTime};

use proto::{Identity, IdentityError};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Why a certificate speaks for nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No certificate at all.
    #[error("peer sent no certificate")]
    None,
    /// Not X.509, or with something behind it.
    #[error("certificate is malformed")]
    Malformed,
    /// Without a `redbutton://` URI among its subject alternative names.
    #[error("certificate has no redbutton:// name")]
    NoName,
    /// With several of them.
    #[error("certificate has {0} redbutton:// names, expected one")]
    ManyNames(usize),
    /// The one that it has names nobody.
    #[error(transparent)]
    Name(#[from] IdentityError),
    /// Somebody else than the controller answered.
    #[error("certificate speaks for {0}, not for the controller")]
    NotController(Identity),
}

pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(CertificateError::Malformed),
    }
}

/// Whom a chain speaks for, and until when: the one `redbutton://` URI among the leaf's subject alternative names.
/// Says nothing about who signed it.
///
/// # Errors
/// When there is no leaf, it is malformed, or it has not exactly one such name.
pub fn identity_of(chain: &[CertificateDer<'_>]) -> Result<(Identity, SystemTime), CertificateError> {
    let certificate = parse(chain.first().ok_or(CertificateError::None)?)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| CertificateError::Malformed)?;
    let mut ours = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            // Any spelling of the scheme counts as an attempt, so that two spellings are two names.
            GeneralName::URI(uri)
                if uri
                    .get(..10)
                    .is_some_and(|s| s.eq_ignore_ascii_case("redbutton:")) =>
            {
                Some(*uri)
            }
            _ => None,
        });
    let uri = ours.next().ok_or(CertificateError::NoName)?;
    match ours.count() {
        0 => {}
        more => return Err(CertificateError::ManyNames(more + 1)),
    }
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Ok((
        uri.parse()?,
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
    ))
}

/// From when until when a certificate is good.
///
/// # Errors
/// When it is malformed.
pub fn validity_of(certificate: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), CertificateError> {
    let validity = parse(certificate)?.validity().clone();
    let at = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Ok((
        at(validity.not_before.timestamp()),
        at(validity.not_after.timestamp()),
    ))
}
