//! Statements: what is signed is checked, and everything else is refused for its own reason.

use proptest::prelude::*;
use proto::v1::SignedStatement;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType,
};
use trust::{Keyring, Kind, Roots, SHORT_BYTES, Signer, Spki, StatementError, verify};

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(parent: Option<&Authority>) -> Authority {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("randomness");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let made = match parent {
        None => params.self_signed(&key),
        Some(parent) => params.signed_by(&key, &parent.issuer),
    };
    Authority {
        pem: made.expect("a certificate").pem(),
        issuer: Issuer::new(params, key),
    }
}

/// Certificate and key of somebody.
fn leaf(authority: &Authority, uri: &str) -> (String, String) {
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("randomness");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ASCII"))];
    let made = params.signed_by(&key, &authority.issuer).expect("a certificate");
    (made.pem(), key.serialize_pem())
}

fn signer(authority: &Authority) -> Signer {
    let (pem, key) = leaf(authority, "redbutton://signer");
    Signer::load(&pem, &proto::bundle::SecretPem::new(key)).expect("a signer")
}

fn roots(authority: &Authority) -> Roots {
    Roots::from_pem(&authority.pem).expect("a root")
}

#[test]
fn what_a_signer_says_is_believed_by_whom_trusts_its_root() {
    let root = authority(None);
    let said = signer(&root).sign(Kind::Policy, b"policy".to_vec());
    assert_eq!(verify(&said, &roots(&root), Kind::Policy), Ok(&b"policy"[..]));
    let other = authority(None);
    assert_eq!(
        verify(&said, &roots(&other), Kind::Policy),
        Err(StatementError::Chain)
    );
    let both = Roots::from_pem(&format!("{}{}", other.pem, root.pem)).expect("two roots");
    assert!(
        verify(&said, &both, Kind::Policy).is_ok(),
        "the second root counts too"
    );
}

#[test]
fn a_chain_over_an_intermediate_counts_and_without_it_does_not() {
    let root = authority(None);
    let middle = authority(Some(&root));
    let (pem, key) = leaf(&middle, "redbutton://signer");
    let key = proto::bundle::SecretPem::new(key);
    let whole = Signer::load(&format!("{pem}{}", middle.pem), &key).expect("a signer");
    let said = whole.sign(Kind::Hold, b"x".to_vec());
    assert!(verify(&said, &roots(&root), Kind::Hold).is_ok());
    let cut = Signer::load(&pem, &key)
        .expect("a signer")
        .sign(Kind::Hold, b"x".to_vec());
    assert_eq!(
        verify(&cut, &roots(&root), Kind::Hold),
        Err(StatementError::Chain)
    );
}

#[test]
fn nobody_but_a_signer_makes_statements() {
    let root = authority(None);
    for uri in ["redbutton://controller", "redbutton://person/alice"] {
        let (pem, key) = leaf(&root, uri);
        let error = Signer::load(&pem, &proto::bundle::SecretPem::new(key)).expect_err(uri);
        assert!(error.to_string().contains(uri), "{error}");
    }
    // Its own certificate under a signature of the true signer's key is no better.
    let mut said = signer(&root).sign(Kind::Policy, b"p".to_vec());
    let (pem, _) = leaf(&root, "redbutton://person/alice");
    said.chain = vec![rustls_pki_types(&pem)];
    assert!(matches!(
        verify(&said, &roots(&root), Kind::Policy),
        Err(StatementError::NotSigner(_))
    ));
}

fn rustls_pki_types(pem: &str) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes())
        .expect("a certificate")
        .to_vec()
}

#[test]
fn another_kind_is_another_signature() {
    let root = authority(None);
    let maker = signer(&root);
    for kind in Kind::ALL {
        for other in Kind::ALL {
            let mut said = maker.sign(kind, b"body".to_vec());
            said.kind = other.number().into();
            assert_eq!(verify(&said, &roots(&root), other).is_ok(), kind == other);
            let mut ring = Keyring::new();
            ring.add(&maker.chain()[0]).expect("a signer");
            let short = maker.sign_short(kind, b"body");
            assert_eq!(ring.verify_short(other, b"body", &short), kind == other);
        }
    }
}

#[test]
fn a_keyring_knows_whom_it_was_told() {
    let (one, two) = (authority(None), authority(None));
    let (first, second) = (signer(&one), signer(&two));
    let mut ring = Keyring::new();
    ring.add(&first.chain()[0]).expect("a signer");
    assert!(ring.verify_short(Kind::Hold, b"h", &first.sign_short(Kind::Hold, b"h")));
    assert!(!ring.verify_short(Kind::Hold, b"h", &second.sign_short(Kind::Hold, b"h")));
    for cut in 0..SHORT_BYTES {
        assert!(!ring.verify_short(Kind::Hold, b"h", &first.sign_short(Kind::Hold, b"h")[..cut]));
    }
}

#[test]
fn a_key_has_one_name_in_all_its_certificates() {
    let root = authority(None);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("randomness");
    let names = ["redbutton://signer", "redbutton://controller"].map(|uri| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ASCII"))];
        let made = params.signed_by(&key, &root.issuer).expect("a certificate");
        Spki::of_certificate(made.der()).expect("well formed")
    });
    assert_eq!(names[0], names[1]);
    assert_eq!(names[0].to_string().parse::<Spki>().expect("own text"), names[0]);
    assert!("zz".parse::<Spki>().is_err());
}

proptest! {
    #[test]
    fn verify_never_panics_and_believes_no_changed_byte(
        body in proptest::collection::vec(any::<u8>(), 0..64),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..=255,
        part in 0_usize..3,
    ) {
        let root = authority(None);
        let mut said = signer(&root).sign(Kind::AuditHead, body);
        let bytes = match part {
            0 => &mut said.body,
            1 => &mut said.signature,
            _ => &mut said.chain[0],
        };
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(verify(&said, &roots(&root), Kind::AuditHead).is_err());
        }
    }

    #[test]
    fn verify_never_panics_on_anything(
        kind in 0_u32..9,
        body in proptest::collection::vec(any::<u8>(), 0..32),
        signature in proptest::collection::vec(any::<u8>(), 0..80),
        chain in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..6),
    ) {
        let root = authority(None);
        let said = SignedStatement { kind, body, signature, chain };
        prop_assert!(verify(&said, &roots(&root), Kind::Policy).is_err());
    }
}
