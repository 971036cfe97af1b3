//! Keys in an ssh-agent: they sign, and never leave it (nor the security key or smart card behind it).
//!
//! ```text
//! Credentials ─▶ signing_key ─▶ Key ── TLS CertificateVerify ─┐
//! login ───────▶ find ────────▶ Key ── certificate request ───┴─▶ wire: sign ─▶ SSH_AUTH_SOCK
//! ```
//! Ed25519 and ECDSA P-256; anything else in the agent is passed over. The bundle holds the word `ssh-agent` where
//! others hold a key: which of the agent's keys it is follows from the certificate.
//!
//! The agent is asked anew for each signature (it may have been locked, or another one started) and may ask its
//! human first: an answer is waited for up to a minute.

mod der;
mod wire;

use std::fmt;
use std::sync::Arc;

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData};
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

pub(crate) use wire::AgentError;

/// What stands in a bundle instead of a key.
const REFERENCE: &str = "ssh-agent";

/// Whether a bundle's key is such a word.
pub(crate) fn is_reference(key: &str) -> bool {
    key.trim() == REFERENCE
}

/// The word for a bundle.
pub(crate) fn reference() -> String {
    REFERENCE.to_owned()
}

/// Kinds of keys that we can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ed25519,
    P256,
}

/// A key in the agent.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    kind: Kind,
    /// The public key as ssh has it.
    blob: Vec<u8>,
    /// The public key's own bytes: 32 of Ed25519, an uncompressed point of P-256.
    raw: Vec<u8>,
    /// What its owner calls it.
    pub(crate) comment: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("kind", &self.kind)
            .field("comment", &self.comment)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// `SHA256:…`, as `ssh-add -l` prints it.
    pub(crate) fn fingerprint(&self) -> String {
        wire::fingerprint(&self.blob)
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, AgentError> {
        let mut agent = wire::Agent::connect()?;
        let signature = agent.sign(&self.blob, message)?;
        match self.kind {
            Kind::Ed25519 => signature.ed25519(),
            Kind::P256 => signature.p256().map(|(r, s)| der::signature(&r, &s)),
        }
    }
}

/// The agent's key of this comment or fingerprint.
///
/// # Errors
/// When there is no agent, no such key, or several.
pub(crate) fn find(wanted: &str) -> Result<Key, AgentError> {
    let keys = wire::Agent::connect()?.keys()?;
    let mut fits = keys
        .iter()
        .filter(|key| key.comment == wanted || key.fingerprint() == wanted);
    match (fits.next(), fits.next()) {
        (Some(key), None) => Ok(key.clone()),
        (Some(_), Some(_)) => Err(AgentError::Several {
            wanted: wanted.to_owned(),
        }),
        (None, _) => Err(AgentError::NoSuchKey {
            wanted: wanted.to_owned(),
            there: keys
                .iter()
                .map(|key| format!("{:?}", key.comment))
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

/// The agent's key with this SubjectPublicKeyInfo, for TLS.
///
/// # Errors
/// When there is no agent, or it does not have the key.
pub(crate) fn signing_key(public_key: &[u8]) -> Result<Arc<dyn SigningKey>, AgentError> {
    let keys = wire::Agent::connect()?.keys()?;
    let key = keys
        .into_iter()
        .find(|key| key.subject_public_key_info() == public_key);
    Ok(Arc::new(key.ok_or(AgentError::NotThere)?))
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.raw
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.kind {
            Kind::Ed25519 => &PKCS_ED25519,
            Kind::P256 => &PKCS_ECDSA_P256_SHA256,
        }
    }
}

/// For certificate requests.
impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        // The library's errors have no room for ours; `login` asks first.
        self.signature(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = self.scheme();
        offered
            .contains(&scheme)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.kind {
            Kind::Ed25519 => SignatureAlgorithm::ED25519,
            Kind::P256 => SignatureAlgorithm::ECDSA,
        }
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.signature(message)
            .map_err(|error| rustls::Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        match self.kind {
            Kind::Ed25519 => SignatureScheme::ED25519,
            Kind::P256 => SignatureScheme::ECDSA_NISTP256_SHA256,
        }
    }
}
