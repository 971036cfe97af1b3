//! A state directory of the version before: keys in clear, every leaf directly below the root.
//!
//! The root keeps its name and key, so that every bundle that is out trusts what is issued now, and what is out is
//! trusted until it ends. Only its certificate is made again: the old one allowed nothing between it and a leaf.

use std::fs;
use std::io;
use std::path::Path;

use proto::bundle::SecretPem;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::authority::AuthorityError;
use super::kept::Kept;
use super::{Ca, FileError, PkiError, ServerName, root};
use crate::admin::files;

/// Reads it. Changes nothing.
pub(super) fn read(dir: &Path, now: OffsetDateTime) -> Result<Kept, AuthorityError> {
    let ca = text(dir, files::CA)?;
    let key = SecretPem::new(text(dir, files::OLD_CA_KEY)?);
    // Says by name which of the two is broken, or that they do not belong together.
    Ca::load(ca.clone(), &key)?;
    let names = names(&text(dir, files::OLD_CONTROLLER)?)?;
    // There was a version without statements; and a key without a certificate was never used.
    let signer = match (
        optional(dir, files::OLD_SIGNER)?,
        optional(dir, files::OLD_SIGNER_KEY)?,
    ) {
        (Some(_), Some(key)) => Some(SecretPem::new(key)),
        _ => None,
    };
    let widened = root::widen_root(&ca, &key)?;
    let mut kept = Kept::below(widened, key, &names, signer.as_ref(), now)?;
    kept.migrated = true;
    Ok(kept)
}

fn text(dir: &Path, name: &'static str) -> Result<String, AuthorityError> {
    optional(dir, name)?.ok_or_else(|| AuthorityError::NoController {
        dir: dir.to_owned(),
        missing: name,
    })
}

fn optional(dir: &Path, name: &str) -> Result<Option<String>, AuthorityError> {
    let path = dir.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::io(&path, "read")(error).into()),
    }
}

/// DNS names and addresses in the controller's certificate.
fn names(pem: &str) -> Result<Vec<ServerName>, PkiError> {
    let unusable = || PkiError::Ca {
        message: "controller.pem is not an X.509 certificate in PEM with names",
    };
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable())?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| unusable())?;
    let names = certificate.subject_alternative_name().map_err(|_| unusable())?;
    let names = names.ok_or_else(unusable)?;
    let mut found = Vec::new();
    for name in &names.value.general_names {
        match name {
            GeneralName::DNSName(name) => found.push(name.parse()?),
            GeneralName::IPAddress(bytes) => {
                let four = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
                let ip = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
                found.push(ServerName::Ip(ip.map_err(|_| unusable())?));
            }
            _ => {}
        }
    }
    if found.is_empty() {
        Err(unusable())
    } else {
        Ok(found)
    }
}
