use audit::{Hash, Head};
use proptest::prelude::*;
use proto::Version;
use proto::bundle::SecretPem;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType,
};
use trust::Signer;

use super::*;

fn controller() -> (String, Signer) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("randomness");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).expect("a certificate").pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("randomness");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI("redbutton://signer".try_into().expect("ASCII"))];
    let pem = params.signed_by(&key, &issuer).expect("a certificate").pem();
    let signer = Signer::load(&pem, &SecretPem::new(key.serialize_pem())).expect("a signer");
    (root, signer)
}

fn stated(sequence: u64, hash: u8, incarnation: u64, at_ms: i64) -> Stated {
    let version = Version {
        incarnation,
        epoch: 1,
    };
    let head = Head {
        sequence,
        hash: Hash::new([hash; 32]),
    };
    Stated { head, version, at_ms }
}

fn said(signer: &Signer, stated: Stated) -> SignedStatement {
    signer.sign(Kind::AuditHead, stated.encode())
}

fn locked(heads: &Mutex<Heads>) -> std::sync::MutexGuard<'_, Heads> {
    heads.lock().expect("no panic")
}

fn kept(heads: &Heads) -> Option<Stated> {
    let head = heads.witnessed().head?;
    Stated::decode(&head.body).ok()
}

#[test]
fn the_highest_is_kept_across_a_restart_and_what_contradicts_it_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let (root, signer) = controller();
    let roots = Roots::from_pem(&root).expect("a root");
    let heads = Mutex::new(Heads::load(dir.path()));
    assert!(matches!(
        hear(&heads, said(&signer, stated(1, 1, 1, 1))),
        Err(HeadError::NoRoots)
    ));
    locked(&heads).trust(roots.clone());
    let ten = stated(10, 1, 1, 100);
    assert_eq!(hear(&heads, said(&signer, ten)).expect("good"), Judged::Higher);
    assert_eq!(
        hear(&heads, said(&signer, stated(9, 7, 1, 50))).expect("good"),
        Judged::Stale
    );
    // The same place, another hash; and a lower place, said later.
    for rewritten in [stated(10, 2, 1, 101), stated(9, 3, 1, 102)] {
        for _ in 0..3 {
            assert_eq!(
                hear(&heads, said(&signer, rewritten)).expect("good"),
                Judged::Rewritten
            );
        }
    }
    assert_eq!(kept(&locked(&heads)), Some(ten), "the first one stays");
    let again = Mutex::new(Heads::load(dir.path()));
    locked(&again).trust(roots);
    assert_eq!(kept(&locked(&again)), Some(ten));
    let pairs = locked(&again).witnessed().contradictions;
    assert_eq!(pairs.len(), 2, "each once");
    assert!(
        pairs
            .iter()
            .all(|pair| pair.earlier.as_ref().map(|head| &head.body) == Some(&ten.encode()))
    );
    // The chain goes on from another life of the database.
    let lower = stated(5, 4, 2, 200);
    assert_eq!(
        hear(&again, said(&signer, lower)).expect("good"),
        Judged::Restored
    );
    assert_eq!(kept(&locked(&again)), Some(lower));
    assert_eq!(locked(&again).witnessed().contradictions.len(), 3);
    for sequence in 6..20 {
        let hash = u8::try_from(100 + sequence).expect("small");
        hear(&again, said(&signer, stated(sequence, hash, 2, 300))).expect("good");
        hear(&again, said(&signer, stated(sequence, 0, 2, 301))).expect("good");
    }
    assert_eq!(
        locked(&again).witnessed().contradictions.len(),
        MOST_PAIRS,
        "bounded"
    );
}

#[test]
fn only_the_controllers_word_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let (root, signer) = controller();
    let (_, stranger) = controller();
    let heads = Mutex::new(Heads::load(dir.path()));
    locked(&heads).trust(Roots::from_pem(&root).expect("a root"));
    let high = stated(u64::MAX, 9, 9, 9);
    assert!(matches!(
        hear(&heads, said(&stranger, high)),
        Err(HeadError::Statement(_))
    ));
    let policy = signer.sign(Kind::Policy, high.encode());
    assert!(matches!(hear(&heads, policy), Err(HeadError::Statement(_))));
    let mut edited = said(&signer, high);
    edited.body[8] ^= 1;
    assert!(matches!(hear(&heads, edited), Err(HeadError::Statement(_))));
    let short = signer.sign(Kind::AuditHead, vec![1, 2, 3]);
    assert!(matches!(hear(&heads, short), Err(HeadError::Stated(_))));
    assert_eq!(kept(&locked(&heads)), None);
}

#[test]
fn a_corrupt_file_is_set_aside_and_the_node_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let (root, signer) = controller();
    let roots = Roots::from_pem(&root).expect("a root");
    let heads = Mutex::new(Heads::load(dir.path()));
    locked(&heads).trust(roots.clone());
    hear(&heads, said(&signer, stated(10, 1, 1, 100))).expect("good");
    let path = dir.path().join(FILE);
    let whole = fs::read(&path).expect("the file");
    for at in 0..whole.len() {
        let mut torn = whole.clone();
        torn[at] ^= 1;
        fs::write(&path, &torn).expect("written");
        assert_eq!(kept(&Heads::load(dir.path())), None, "byte {at}");
        fs::write(&path, &whole[..at]).expect("written");
        assert_eq!(kept(&Heads::load(dir.path())), None, "cut at {at}");
    }
    assert!(dir.path().join("audit-heads.corrupt").exists());
    let heads = Mutex::new(Heads::load(dir.path()));
    locked(&heads).trust(roots);
    let eleven = stated(11, 1, 1, 100);
    hear(&heads, said(&signer, eleven)).expect("good");
    assert_eq!(kept(&Heads::load(dir.path())), Some(eleven));
}

proptest! {
    #[test]
    fn reading_the_file_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let mut framed = MAGIC.to_vec();
        framed.extend_from_slice(&u32::try_from(bytes.len()).expect("small").to_le_bytes());
        framed.extend_from_slice(&bytes);
        let sum = crc32c::crc32c(&framed);
        framed.extend_from_slice(&sum.to_le_bytes());
        let _ = decode(&framed);
    }
}
