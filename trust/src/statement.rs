//! What is signed, and checking it.
//!
//! The signature (Ed25519, RFC 8032) is over: the 19 ASCII bytes `redbutton statement`, one byte 0, one byte
//! version (1), one byte kind, and then the body as it is. The version stands for this layout; a reader refuses
//! another one because the signature does not fit.

use ed25519_dalek::{Signature, VerifyingKey};
use proto::Identity;
use proto::v1::SignedStatement;
use rustls_pki_types::CertificateDer;

use crate::certificate::{identity_of, parse};
use crate::{CertificateError, Roots};

const DOMAIN: &[u8] = b"redbutton statement\0";
const VERSION: u8 = 1;
/// Largest body, bytes.
pub const MAX_BODY: usize = 8 << 20;
/// Longest chain, certificates.
const MAX_CHAIN: usize = 4;

/// What a statement says. The numbers stand under signatures: none is changed or used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What a node decides by when the controller is away.
    Policy,
    /// The end of the audit at some moment.
    AuditHead,
    /// A hold.
    Hold,
    /// The release of a hold.
    Release,
    /// That a second person agreed.
    Approval,
    /// A program that nodes may run as their own.
    Software,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 6] = [
        Kind::Policy,
        Kind::AuditHead,
        Kind::Hold,
        Kind::Release,
        Kind::Approval,
        Kind::Software,
    ];

    /// Under the signature and on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Kind::Policy => 1,
            Kind::AuditHead => 2,
            Kind::Hold => 3,
            Kind::Release => 4,
            Kind::Approval => 5,
            Kind::Software => 6,
        }
    }
}

/// Why a statement does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Of another kind than what was asked for.
    #[error("statement is of kind {got}, expected {expected}")]
    Kind {
        /// In the statement.
        got: u32,
        /// Asked for.
        expected: u8,
    },
    /// Larger than anything that is ever said.
    #[error("statement has {got} bytes, at most {MAX_BODY} are taken")]
    TooLarge {
        /// Bytes of its body.
        got: usize,
    },
    /// The certificates do not lead to a trusted root.
    #[error("statement is signed by somebody whom no trusted root vouches for")]
    Chain,
    /// The signer's certificate is malformed.
    #[error("certificate of the statement's signer")]
    Certificate(#[from] CertificateError),
    /// Somebody who may not make statements.
    #[error("statement is signed by {0}, expected redbutton://signer")]
    NotSigner(Identity),
    /// Not signed by that certificate's key.
    #[error("statement's signature is wrong")]
    Signature,
}

/// The bytes under a signature.
pub(crate) fn signed_bytes(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(DOMAIN.len() + 2 + body.len());
    bytes.extend_from_slice(DOMAIN);
    bytes.extend_from_slice(&[VERSION, kind.number()]);
    bytes.extend_from_slice(body);
    bytes
}

/// The body, if one of `roots` vouches for a signer who said this.
///
/// # Errors
/// When anything about it is not right.
pub fn verify<'a>(
    statement: &'a SignedStatement,
    roots: &Roots,
    kind: Kind,
) -> Result<&'a [u8], StatementError> {
    let SignedStatement {
        kind: got,
        body,
        signature,
        chain,
    } = statement;
    if *got != u32::from(kind.number()) {
        return Err(StatementError::Kind {
            got: *got,
            expected: kind.number(),
        });
    }
    if body.len() > MAX_BODY {
        return Err(StatementError::TooLarge { got: body.len() });
    }
    if chain.is_empty() || chain.len() > MAX_CHAIN {
        return Err(StatementError::Chain);
    }
    let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(&der[..])).collect();
    match identity_of(&chain)?.0 {
        Identity::Signer => {}
        other => return Err(StatementError::NotSigner(other)),
    }
    if !roots.vouch_for(&chain) {
        return Err(StatementError::Chain);
    }
    let key = public_key(&chain[0])?;
    let signature = Signature::from_slice(signature).map_err(|_| StatementError::Signature)?;
    key.verify_strict(&signed_bytes(kind, body), &signature)
        .map_err(|_| StatementError::Signature)?;
    Ok(body)
}

/// The Ed25519 key of a certificate.
pub(crate) fn public_key(certificate: &CertificateDer<'_>) -> Result<VerifyingKey, CertificateError> {
    let certificate = parse(certificate)?;
    let raw: &[u8] = &certificate.public_key().subject_public_key.data;
    raw.try_into()
        .ok()
        .and_then(|raw| VerifyingKey::from_bytes(raw).ok())
        .ok_or(CertificateError::Malformed)
}
