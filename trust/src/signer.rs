//! The key that makes statements, and the keys whose short signatures are known.

use std::collections::HashMap;
use std::fmt;

use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use proto::Identity;
use proto::bundle::SecretPem;
use proto::v1::SignedStatement;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::certificate::identity_of;
use crate::statement::{public_key, signed_bytes};
use crate::{CertificateError, Kind, Spki};

/// Bytes of a short signature: 8 of the key's id, 64 of the signature.
pub const SHORT_BYTES: usize = 72;
const ID_BYTES: usize = 8;

/// The first bytes of the [`Spki`].
type KeyId = [u8; ID_BYTES];

/// Why there is no signer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// Not PEM.
    #[error("signer's certificate is not valid PEM")]
    Pem,
    /// Not PKCS#8, or not Ed25519. Says nothing of the key.
    #[error("signer's key is not an Ed25519 key in PKCS#8")]
    Key,
    /// The certificate of somebody else.
    #[error("signer's certificate speaks for {0}, expected redbutton://signer")]
    NotSigner(Identity),
    /// The certificate itself.
    #[error("signer's certificate")]
    Certificate(#[from] CertificateError),
    /// They do not belong together.
    #[error("signer's key is not the key of its certificate")]
    Mismatch,
}

/// Makes statements. Prints nothing of its key.
pub struct Signer {
    key: SigningKey,
    chain: Vec<CertificateDer<'static>>,
    id: KeyId,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key: _, chain: _, id } = self;
        f.debug_struct("Signer").field("id", id).finish_non_exhaustive()
    }
}

impl Signer {
    /// Takes up a signer: its certificate with the chain behind it, and its key (PKCS#8).
    ///
    /// # Errors
    /// When they are malformed, somebody else's, or do not belong together.
    pub fn load(chain_pem: &str, key: &SecretPem) -> Result<Self, SignerError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| SignerError::Pem)?;
        match identity_of(&chain)?.0 {
            Identity::Signer => {}
            other => return Err(SignerError::NotSigner(other)),
        }
        // The parser's error is dropped: it may speak of the key.
        let key = SigningKey::from_pkcs8_pem(key.expose()).map_err(|_| SignerError::Key)?;
        if public_key(&chain[0])? != key.verifying_key() {
            return Err(SignerError::Mismatch);
        }
        let id = key_id(&chain[0])?;
        Ok(Self { key, chain, id })
    }

    /// Says `body`, with everything that somebody with the roots needs to check it.
    #[must_use]
    pub fn sign(&self, kind: Kind, body: Vec<u8>) -> SignedStatement {
        let signature = self.key.sign(&signed_bytes(kind, &body));
        SignedStatement {
            kind: kind.number().into(),
            signature: signature.to_vec(),
            chain: self.chain.iter().map(|der| der.to_vec()).collect(),
            body,
        }
    }

    /// Says `body`, for those who know the key already ([`Keyring`]).
    #[must_use]
    pub fn sign_short(&self, kind: Kind, body: &[u8]) -> [u8; SHORT_BYTES] {
        let mut short = [0; SHORT_BYTES];
        let (id, signature) = short.split_at_mut(ID_BYTES);
        id.copy_from_slice(&self.id);
        signature.copy_from_slice(&self.key.sign(&signed_bytes(kind, body)).to_bytes());
        short
    }

    /// Its certificate and what is behind it.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

fn key_id(certificate: &CertificateDer<'_>) -> Result<KeyId, CertificateError> {
    let mut id = [0; ID_BYTES];
    id.copy_from_slice(&Spki::of_certificate(certificate)?.as_bytes()[..ID_BYTES]);
    Ok(id)
}

/// Signers that are known, old ones too: a signature stays good when its key is no longer used.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    keys: HashMap<KeyId, VerifyingKey>,
}

impl Keyring {
    /// Nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a signer by its certificate. Whether it may be trusted is the caller's to know.
    ///
    /// # Errors
    /// When it is no signer's.
    pub fn add(&mut self, certificate: &CertificateDer<'_>) -> Result<(), SignerError> {
        match identity_of(std::slice::from_ref(certificate))?.0 {
            Identity::Signer => {}
            other => return Err(SignerError::NotSigner(other)),
        }
        self.keys.insert(key_id(certificate)?, public_key(certificate)?);
        Ok(())
    }

    /// Whether one of them said `body`.
    #[must_use]
    pub fn verify_short(&self, kind: Kind, body: &[u8], short: &[u8]) -> bool {
        let Some((id, signature)) = short.split_at_checked(ID_BYTES) else {
            return false;
        };
        let Ok(signature) = Signature::from_slice(signature) else {
            return false;
        };
        self.keys
            .get(id)
            .is_some_and(|key| key.verify_strict(&signed_bytes(kind, body), &signature).is_ok())
    }
}
