//! A controller's signer and its policy, for tests.

use prost::Message;
use proto::bundle::SecretPem;
use proto::v1::{self, PolicyPerson, PolicySnapshot, SignedStatement};
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType,
};
use trust::{Kind, Signer};

/// A root with a signer under it.
pub(crate) struct Centre {
    pub(crate) root: String,
    pub(crate) signer: Signer,
}

impl Centre {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("randomness");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("randomness");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("redbutton://signer".try_into().expect("ASCII"))];
        let chain = params.signed_by(&key, &issuer).expect("a certificate").pem();
        let signer = Signer::load(&chain, &SecretPem::new(key.serialize_pem())).expect("a signer");
        Self { root, signer }
    }

    pub(crate) fn sign(&self, policy: &PolicySnapshot) -> SignedStatement {
        self.signer.sign(Kind::Policy, policy.encode_to_vec())
    }
}

/// A snapshot for nodes of princeton: alice is support, dave works on princeton_codeen.
pub(crate) fn policy(epoch: u64) -> PolicySnapshot {
    let person = |name: &str, role: v1::Role, slice: &str| PolicyPerson {
        name: name.into(),
        grants: vec![v1::Grant {
            role: role.into(),
            slice: slice.into(),
            site: String::new(),
        }],
    };
    PolicySnapshot {
        version: Some(v1::Version {
            incarnation: 1,
            epoch,
        }),
        issued_at_ms: 1_000 + i64::try_from(epoch).expect("small"),
        site: "princeton".into(),
        people: vec![
            person("alice", v1::Role::Support, ""),
            person("dave", v1::Role::Developer, "princeton_codeen"),
        ],
        slices: vec!["princeton_codeen".into()],
        ..PolicySnapshot::default()
    }
}
