//! The key, and whether a certificate for it may be used.

use std::time::UNIX_EPOCH;

use proto::bundle::{Bundle, SecretPem};
use proto::v1::KeyInstall;
use proto::{DaemonRole, Identity, NodeName};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use trust::{Roots, Spki};

/// Addresses that a bundle lists at most.
const MAX_CONTROLLERS: usize = 16;
/// Bytes of an address.
const MAX_ADDRESS: usize = 260;

/// Why there is no key, or a certificate is not taken. Never shows the key.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The key's text.
    #[error("the bundle's key is not a private key in PEM (PKCS#8)")]
    Key,
    /// The library refused.
    #[error("cannot make a {what}")]
    Make {
        /// Key or request.
        what: &'static str,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// What the controller sent.
    #[error("{what}: {why}")]
    Install {
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The thread that writes.
    #[error("cannot make the keys' thread")]
    Thread(#[from] std::io::Error),
}

/// A key with its fingerprint. `Debug` shows the fingerprint alone.
pub(super) struct Pair {
    key: KeyPair,
    pem: SecretPem,
    spki: Spki,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key: _, pem: _, spki } = self;
        f.debug_struct("Pair").field("spki", spki).finish_non_exhaustive()
    }
}

impl Pair {
    pub(super) fn of_bundle(bundle: &Bundle) -> Result<Self, PairError> {
        Self::of_pem(bundle.key.clone())
    }

    pub(super) fn of_pem(pem: SecretPem) -> Result<Self, PairError> {
        // The parser's error is dropped: it may speak of the key.
        let key = KeyPair::from_pem(pem.expose()).map_err(|_| PairError::Key)?;
        let spki = Spki::of_public_key(&key.subject_public_key_info());
        Ok(Self { key, pem, spki })
    }

    pub(super) fn make() -> Result<Self, PairError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|source| PairError::Make { what: "key", source })?;
        Self::of_pem(SecretPem::new(key.serialize_pem()))
    }

    pub(super) const fn spki(&self) -> Spki {
        self.spki
    }

    pub(super) const fn pem(&self) -> &SecretPem {
        &self.pem
    }

    /// PKCS#10, DER. Says nothing but the key: the rest is the controller's to know.
    pub(super) fn request(&self) -> Result<Vec<u8>, PairError> {
        let made = CertificateParams::default().serialize_request(&self.key);
        made.map(|request| request.der().to_vec())
            .map_err(|source| PairError::Make {
                what: "certificate request",
                source,
            })
    }

    /// The bundle that an installation makes of the one before, if it would dial. `expected`: whom it must speak
    /// for, where that is known.
    pub(super) fn certified(
        &self,
        install: &KeyInstall,
        before: &Bundle,
        expected: Option<&str>,
    ) -> Result<Bundle, PairError> {
        let wrong = |what| {
            move |why: &dyn std::fmt::Display| PairError::Install {
                what,
                why: why.to_string(),
            }
        };
        let certificate = wrong("certificate");
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(install.certificate.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|_| certificate(&"not PEM"))?;
        let (identity, _) = trust::identity_of(&chain).map_err(|error| certificate(&error))?;
        let leaf = chain.first().ok_or_else(|| certificate(&"none"))?;
        let spki = Spki::of_certificate(leaf).map_err(|error| certificate(&error))?;
        if spki != self.spki {
            return Err(certificate(&format!("for key {spki}, ours is {}", self.spki)));
        }
        match &identity {
            Identity::Daemon(node, DaemonRole::NodeManager) if node.to_string() == install.node => {}
            other => {
                return Err(certificate(&format!(
                    "speaks for {other}, expected node {}",
                    install.node
                )));
            }
        }
        let identity = identity.to_string();
        if let Some(expected) = expected.filter(|expected| *expected != identity) {
            return Err(certificate(&format!("speaks for {identity}, we are {expected}")));
        }
        let roots = Roots::from_pem(&install.roots).map_err(|error| wrong("roots")(&error))?;
        if !roots.vouch_for(&chain) {
            return Err(certificate(&"does not lead to the roots that come with it"));
        }
        let name: NodeName = install.name.parse().map_err(|error| wrong("name")(&error))?;
        Ok(Bundle {
            format: Bundle::FORMAT,
            identity,
            name: name.to_string(),
            controllers: addresses(&before.controllers, &install.controllers),
            ca: install.roots.clone(),
            certificate: install.certificate.clone(),
            key: self.pem.clone(),
        })
    }
}

/// Those that work now, and then those that are new: an address that somebody gave this node by hand, a gateway's,
/// is not lost because the controller does not know it.
fn addresses(before: &[String], new: &[String]) -> Vec<String> {
    let fits = |address: &&String| {
        address.len() <= MAX_ADDRESS && address.contains(':') && address.chars().all(|c| c.is_ascii_graphic())
    };
    let new: Vec<&String> = new
        .iter()
        .filter(fits)
        .filter(|new| !before.contains(new))
        .collect();
    let mut all: Vec<String> = before
        .iter()
        .take(MAX_CONTROLLERS.saturating_sub(new.len()).max(1))
        .cloned()
        .collect();
    all.extend(new.into_iter().cloned());
    all.truncate(MAX_CONTROLLERS);
    all
}

/// When a certificate ends, milliseconds since 1970.
pub(super) fn ends(pem: &str) -> Option<i64> {
    let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, until) = trust::validity_of(&leaf).ok()?;
    i64::try_from(until.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_address_that_works_is_kept(
            before in prop::collection::vec("[a-z]{1,5}:[0-9]{1,4}", 1..20),
            new in prop::collection::vec("[a-z ]{0,5}:?[0-9]{0,4}", 0..20),
        ) {
            let all = addresses(&before, &new);
            prop_assert_eq!(&all[0], &before[0]);
            prop_assert!(all.len() <= MAX_CONTROLLERS);
            if before.len() + new.len() <= MAX_CONTROLLERS {
                prop_assert!(before.iter().all(|address| all.contains(address)));
            }
            prop_assert!(all.iter().all(|address| !address.contains(' ')));
        }
    }
}
