//! The key that somebody is known by.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use crate::CertificateError;
use crate::certificate::parse;

/// SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), as in RFC 7469: the same for every
/// certificate of one key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spki([u8; 32]);

/// Why a text is no [`Spki`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key fingerprint {got:?} is not 64 hexadecimal digits")]
pub struct SpkiError {
    /// What was given, cut to 80 characters.
    pub got: String,
}

impl Spki {
    /// Takes a hash that was stored.
    #[must_use]
    pub const fn new(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// Of a SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn of_public_key(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }

    /// Of a certificate's key.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        Ok(Self::of_public_key(parse(certificate)?.public_key().raw))
    }

    /// The hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Spki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Spki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Spki {
    type Err = SpkiError;

    fn from_str(text: &str) -> Result<Self, SpkiError> {
        let bad = || SpkiError {
            got: text.chars().take(80).collect(),
        };
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut hash = [0; 32];
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(Self(hash))
    }
}
