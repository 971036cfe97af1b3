//! Keys that were made elsewhere: what comes to be certified, and the certificates for it.
//!
//! Of a request only the key counts, and that its holder signed: names and extensions in it are ignored, the
//! certificate says what the controller knows.

use proto::{DaemonRole, Identity, InviteId, NodeId, NodeName, PersonName};
use rcgen::{
    CertificateSigningRequestParams, ExtendedKeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    PublicKeyData, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateSigningRequestDer;
use time::{Duration, OffsetDateTime};
use trust::Spki;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::ca::{node_names, node_usage};
use super::{Ca, Issued, PkiError};

/// Longest request or key, bytes. Ours have under 400.
const MAX: usize = 4 << 10;

/// Why a request is not certified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Longer than any honest one.
    #[error("certificate request has {got} bytes, at most {MAX} are read")]
    TooLong {
        /// How many.
        got: usize,
    },
    /// Not PKCS#10 or not a SubjectPublicKeyInfo, or with something behind it.
    #[error("certificate request is malformed")]
    Malformed,
    /// Whoever sent it does not hold the key.
    #[error("certificate request is not signed by its own key")]
    Signature,
    /// A kind of key that we do not certify.
    #[error("certificate request has a key of another kind than ECDSA P-256 or Ed25519")]
    Kind,
}

/// A key to certify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    key: SubjectPublicKeyInfo,
    spki: Spki,
}

/// A certificate for somebody's own key.
#[derive(Debug, Clone)]
pub struct Certified {
    /// Whom it speaks for.
    pub identity: Identity,
    /// The certificate and its chain, PEM, leaf first.
    pub chain: String,
    /// When it ends.
    pub expires: OffsetDateTime,
}

impl Requested {
    /// Reads PKCS#10, DER. Its holder has the key: the signature is checked.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn from_request(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > MAX {
            return Err(RequestError::TooLong { got: der.len() });
        }
        // Asked for by its own parts, so that the reason can be told apart; rcgen takes no trailing bytes for an error.
        let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
            return Err(RequestError::Malformed);
        };
        let key = Self::from_public_key(request.certification_request_info.subject_pki.raw)?;
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        // Twice: this one also refuses what a certificate of ours could not say.
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|_| RequestError::Malformed)?;
        Ok(key)
    }

    /// Reads a SubjectPublicKeyInfo, DER. Says nothing about who holds the key.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn from_public_key(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > MAX {
            return Err(RequestError::TooLong { got: der.len() });
        }
        let key = SubjectPublicKeyInfo::from_der(der).map_err(|error| match error {
            rcgen::Error::UnsupportedSignatureAlgorithm => RequestError::Kind,
            _ => RequestError::Malformed,
        })?;
        let alg = key.algorithm();
        // A point is 65 bytes uncompressed, an Ed25519 key 32; certificates with other lengths help nobody.
        let fits = (alg == &PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == 65)
            || (alg == &PKCS_ED25519 && key.der_bytes().len() == 32);
        if !fits {
            return Err(RequestError::Kind);
        }
        // Of what a certificate will carry, not of what came: two spellings must not be two keys.
        let spki = Spki::of_public_key(&key.subject_public_key_info());
        Ok(Self { key, spki })
    }

    /// What the holder is known by.
    #[must_use]
    pub const fn spki(&self) -> Spki {
        self.spki
    }

    pub(crate) const fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }
}

impl Ca {
    /// A person's certificate for the key that they made.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn certify_person(
        &self,
        name: &PersonName,
        requested: &Requested,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Certified, PkiError> {
        let identity = Identity::Person(name.clone());
        let usage = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (chain, expires) = self.certify_key(&identity, requested.key(), Vec::new(), usage, life, now)?;
        Ok(Certified {
            identity,
            chain,
            expires,
        })
    }

    /// An invite's certificate, with its key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn invite(&self, id: InviteId, life: Duration, now: OffsetDateTime) -> Result<Issued, PkiError> {
        let identity = Identity::Invite(id);
        self.issue(
            identity,
            Vec::new(),
            vec![ExtendedKeyUsagePurpose::ClientAuth],
            life,
            now,
        )
    }

    /// A node manager's certificate for the key that it made.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn certify_node(
        &self,
        id: NodeId,
        name: &NodeName,
        requested: &Requested,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Certified, PkiError> {
        let identity = Identity::Daemon(id, DaemonRole::NodeManager);
        let (names, usage) = (node_names(name)?, node_usage());
        let (chain, expires) = self.certify_key(&identity, requested.key(), names, usage, life, now)?;
        Ok(Certified {
            identity,
            chain,
            expires,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, SanType};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn request(key: &KeyPair) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.subject_alt_names = vec![SanType::URI("redbutton://controller".try_into().expect("ascii"))];
        params.serialize_request(key).expect("made").der().to_vec()
    }

    #[test]
    fn only_the_key_of_a_request_counts() {
        let now = OffsetDateTime::now_utc();
        let (ca, _) = Ca::generate(now).expect("randomness");
        for alg in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
            let key = KeyPair::generate_for(alg).expect("randomness");
            let requested = Requested::from_request(&request(&key)).expect("good");
            assert_eq!(
                requested,
                Requested::from_public_key(&key.subject_public_key_info()).expect("good")
            );
            let done = ca
                .certify_person(&"alice".parse().expect("a name"), &requested, Duration::HOUR, now)
                .expect("certified");
            let chain: Vec<_> = CertificateDer::pem_slice_iter(done.chain.as_bytes())
                .collect::<Result<_, _>>()
                .expect("PEM");
            let (identity, _) = trust::identity_of(&chain).expect("names somebody");
            assert_eq!(identity.to_string(), "redbutton://person/alice");
            assert_eq!(
                Spki::of_certificate(&chain[0]).expect("well formed"),
                requested.spki()
            );
        }
    }

    #[test]
    fn what_is_no_request_of_its_own_key_is_refused_by_name() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("randomness");
        let good = request(&key);
        let mut forged = good.clone();
        *forged.last_mut().expect("bytes") ^= 1;
        let mut trailing = good.clone();
        trailing.push(0);
        let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("randomness");
        for (der, expected) in [
            (forged, RequestError::Signature),
            (trailing, RequestError::Malformed),
            (Vec::new(), RequestError::Malformed),
            (good[..good.len() - 1].to_vec(), RequestError::Malformed),
            (vec![0x30; MAX + 1], RequestError::TooLong { got: MAX + 1 }),
            (request(&other), RequestError::Kind),
        ] {
            assert_eq!(Requested::from_request(&der).expect_err("refused"), expected);
        }
        assert_eq!(
            Requested::from_public_key(&other.subject_public_key_info()).expect_err("refused"),
            RequestError::Kind
        );
    }

    proptest! {
        #[test]
        fn reading_a_request_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Requested::from_request(&bytes);
            let _ = Requested::from_public_key(&bytes);
        }

        #[test]
        fn reading_a_spoilt_request_never_panics(at in 0usize..400, with in any::<u8>()) {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("randomness");
            let mut der = request(&key);
            let at = at % der.len();
            der[at] = with;
            if let Ok(requested) = Requested::from_request(&der) {
                let own = Requested::from_public_key(&key.subject_public_key_info()).expect("good");
                prop_assert_eq!(requested, own, "another key, by byte {}", at);
            }
        }
    }
}
