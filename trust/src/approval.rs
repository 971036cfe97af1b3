//! A person's word that a backup may take over: a text file, signed with the key of their certificate.
//!
//! Signed is: the 26 ASCII bytes `redbutton restore approval`, one byte 0, one byte version (1), the 32 bytes of
//! SHA-256 of the backup.

use std::time::SystemTime;

use proto::{Identity, PersonName};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use webpki::{EndEntityCert, aws_lc_rs};

use crate::{CertificateError, Roots, identity_of};

const DOMAIN: &[u8] = b"redbutton restore approval\0";
/// The format of the file, and the version under the signature.
const FORMAT: u8 = 1;
/// Largest file, bytes.
const MAX: usize = 64 << 10;

/// Why an approval does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// Not such a file.
    #[error("it is not what `redbutton sign-restore` writes")]
    Form,
    /// Of another backup.
    #[error("it is for another backup: {got}, this one is {expected}")]
    Digest {
        /// In the file.
        got: String,
        /// Of the backup.
        expected: String,
    },
    /// The certificate is malformed.
    #[error("its certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// Not a person's.
    #[error("it is signed by {0}, not by a person")]
    NotPerson(Identity),
    /// Somebody of another controller.
    #[error("no trusted root vouches for its signer")]
    Chain,
    /// The day is over.
    #[error("the certificate of {0} has ended: log in again and sign anew")]
    Ended(PersonName),
    /// Not by that key.
    #[error("its signature is wrong")]
    Signature,
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreApproval {
    format: u8,
    /// SHA-256 of the backup, hexadecimal.
    backup: String,
    /// ECDSA P-256 with SHA-256 (ASN.1), or Ed25519; hexadecimal.
    signature: String,
    /// The signer's certificate with its chain, PEM.
    certificate: String,
}

impl RestoreApproval {
    /// The bytes to sign for a backup with this SHA-256.
    #[must_use]
    pub fn to_sign(digest: &[u8; 32]) -> Vec<u8> {
        [DOMAIN, &[FORMAT], digest].concat()
    }

    /// Puts the file together.
    #[must_use]
    pub fn new(digest: &[u8; 32], signature: &[u8], chain_pem: &str) -> Self {
        Self {
            format: FORMAT,
            backup: hex(digest),
            signature: hex(signature),
            certificate: chain_pem.to_owned(),
        }
    }

    /// The text of the file.
    #[must_use]
    pub fn to_text(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// When it is no such file.
    pub fn parse(text: &str) -> Result<Self, ApprovalError> {
        if text.len() > MAX {
            return Err(ApprovalError::Form);
        }
        let read: Self = toml::from_str(text).map_err(|_| ApprovalError::Form)?;
        if read.format == FORMAT {
            Ok(read)
        } else {
            Err(ApprovalError::Form)
        }
    }

    /// Who agreed to the backup with this SHA-256, if a trusted root vouches for them at `now`.
    ///
    /// # Errors
    /// When anything about it is not right.
    pub fn verify(
        &self,
        digest: &[u8; 32],
        roots: &Roots,
        now: SystemTime,
    ) -> Result<PersonName, ApprovalError> {
        if self.backup != hex(digest) {
            return Err(ApprovalError::Digest {
                got: self.backup.chars().take(64).collect(),
                expected: hex(digest),
            });
        }
        let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| ApprovalError::Form)?;
        let (identity, ends) = identity_of(&chain)?;
        let Identity::Person(person) = identity else {
            return Err(ApprovalError::NotPerson(identity));
        };
        if !roots.vouch_for(&chain) {
            return Err(ApprovalError::Chain);
        }
        if ends <= now {
            return Err(ApprovalError::Ended(person));
        }
        let leaf = EndEntityCert::try_from(&chain[0]).map_err(|_| ApprovalError::Form)?;
        let signature = unhex(&self.signature).ok_or(ApprovalError::Form)?;
        let message = Self::to_sign(digest);
        let right = [aws_lc_rs::ECDSA_P256_SHA256, aws_lc_rs::ED25519]
            .into_iter()
            .any(|algorithm| leaf.verify_signature(algorithm, &message, &signature).is_ok());
        if right {
            Ok(person)
        } else {
            Err(ApprovalError::Signature)
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}
