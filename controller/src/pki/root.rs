//! Roots and the issuing certificates below them.

use proto::bundle::SecretPem;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use trust::Spki;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::PkiError;
use super::ca::{ISSUING_BACKDATE, ISSUING_LIFE, ROOT_BACKDATE, ROOT_LIFE, params};

/// Digits of a key's fingerprint in a name; enough for people to tell two apart.
const SHOWN: usize = 8;

fn of_ca(name: &str, length: u8, begins: OffsetDateTime, expires: OffsetDateTime) -> CertificateParams {
    let mut params = params(name, begins, expires);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

fn make(subject: &str) -> impl Fn(rcgen::Error) -> PkiError {
    move |source| PkiError::Make {
        subject: subject.to_owned(),
        source,
    }
}

fn named(kind: &str, key: &KeyPair) -> String {
    let spki = Spki::of_public_key(&key.subject_public_key_info()).to_string();
    format!("Redbutton {kind} {}", &spki[..SHOWN])
}

/// A new root: it signs issuing certificates and nothing else.
pub(super) fn make_root(now: OffsetDateTime) -> Result<(String, SecretPem), PkiError> {
    let make = make("a root");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(&make)?;
    let name = named("root", &key);
    let pem = of_ca(&name, 1, now - ROOT_BACKDATE, now + ROOT_LIFE)
        .self_signed(&key)
        .map_err(&make)?
        .pem();
    Ok((pem, SecretPem::new(key.serialize_pem())))
}

/// The certificate of a root of the version before, made again: the same name, key and end, but other certificates
/// may now stand between it and a leaf. What the old one signed leads to the new one and the other way round.
pub(super) fn widen_root(pem: &str, key: &SecretPem) -> Result<String, PkiError> {
    let unusable = |message| PkiError::Ca { message };
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| unusable("ca.pem is not an X.509 certificate in PEM"))?;
    let (begins, expires, name) = {
        let (_, old) = X509Certificate::from_der(&der)
            .map_err(|_| unusable("ca.pem is not an X.509 certificate in PEM"))?;
        let name = old.subject().iter_common_name().next();
        let name = name.and_then(|name| name.as_str().ok()).map(ToOwned::to_owned);
        let validity = old.validity();
        (
            validity.not_before.to_datetime(),
            validity.not_after.to_datetime(),
            name.ok_or_else(|| unusable("ca.pem has no common name"))?,
        )
    };
    let key = KeyPair::from_pem(key.expose()).map_err(|_| unusable("ca.key is not a private key in PEM"))?;
    let make = make("the root");
    Ok(of_ca(&name, 1, begins, expires)
        .self_signed(&key)
        .map_err(&make)?
        .pem())
}

/// A new issuing certificate below a root. It signs leaves and nothing else.
pub(super) fn make_issuing(
    root: &str,
    root_key: &SecretPem,
    now: OffsetDateTime,
) -> Result<(String, SecretPem), PkiError> {
    let unusable = |message| PkiError::Ca { message };
    let make = make("an issuing certificate");
    let der = CertificateDer::from_pem_slice(root.as_bytes())
        .map_err(|_| unusable("the root is not an X.509 certificate in PEM"))?;
    let (begins, ends) = {
        let (_, root) = X509Certificate::from_der(&der)
            .map_err(|_| unusable("the root is not an X.509 certificate in PEM"))?;
        let validity = root.validity();
        (
            validity.not_before.to_datetime(),
            validity.not_after.to_datetime(),
        )
    };
    if ends <= now {
        return Err(unusable("the root has ended: make a new one with `ca root add`"));
    }
    let root_key = KeyPair::from_pem(root_key.expose())
        .map_err(|_| unusable("the root's key is not a private key in PEM"))?;
    let root = Issuer::from_ca_cert_der(&der, root_key)
        .map_err(|_| unusable("the root is not an X.509 certificate in PEM"))?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(&make)?;
    let begins = (now - ISSUING_BACKDATE).max(begins);
    let pem = of_ca(&named("issuing", &key), 0, begins, (now + ISSUING_LIFE).min(ends))
        .signed_by(&key, &root)
        .map_err(&make)?
        .pem();
    Ok((pem, SecretPem::new(key.serialize_pem())))
}

/// What a certificate's key is known by.
pub(super) fn key_of(pem: &str) -> Result<Spki, PkiError> {
    let unusable = PkiError::Ca {
        message: "a root is not an X.509 certificate in PEM",
    };
    CertificateDer::from_pem_slice(pem.as_bytes())
        .ok()
        .and_then(|der| Spki::of_certificate(&der).ok())
        .ok_or(unusable)
}

/// From when until when a certificate in PEM is good.
pub(super) fn life_of(pem: &str) -> Result<(OffsetDateTime, OffsetDateTime), PkiError> {
    let unusable = || PkiError::Ca {
        message: "a certificate is not X.509 in PEM",
    };
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable())?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| unusable())?;
    let validity = certificate.validity();
    Ok((
        validity.not_before.to_datetime(),
        validity.not_after.to_datetime(),
    ))
}
