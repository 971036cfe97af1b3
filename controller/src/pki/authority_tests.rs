use std::os::unix::fs::PermissionsExt;

use link::Door;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, crypto::aws_lc_rs};
use time::Duration;
use trust::{Kind, Roots, verify};

use super::super::NODE_LIFE;
use super::*;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).expect("in range")
}

fn names() -> Vec<ServerName> {
    ["localhost", "127.0.0.1", "::1"]
        .iter()
        .map(|name| name.parse().expect(name))
        .collect()
}

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .expect("PEM")
}

/// Whether a chain of a client leads to one of the roots.
fn leads_to(roots_pem: &str, chain_pem: &str, at: OffsetDateTime) -> bool {
    let mut roots = RootCertStore::empty();
    for root in chain(roots_pem) {
        roots.add(root).expect("a root");
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(aws_lc_rs::default_provider()))
            .build()
            .expect("roots");
    let chain = chain(chain_pem);
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        at.unix_timestamp().cast_unsigned(),
    ));
    verifier.verify_client_cert(&chain[0], &chain[1..], at).is_ok()
}

fn node(authority: &Authority, at: OffsetDateTime) -> String {
    let name = "n1.example".parse().expect("a name");
    authority
        .ca()
        .node(proto::NodeId::random(), &name, NODE_LIFE, at)
        .expect("a certificate")
        .certificate
}

fn new() -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(dir.path(), &names(), now()).expect("made");
    (dir, authority)
}

fn roots(dir: &Path) -> String {
    fs::read_to_string(dir.join(files::CA)).expect("there")
}

#[test]
fn leaves_hang_below_an_issuing_ca_and_nothing_stands_in_clear() {
    let (dir, authority) = new();
    let leaf = node(&authority, now());
    assert_eq!(chain(&leaf).len(), 2);
    assert!(leads_to(&roots(dir.path()), &leaf, now()));
    let view = authority.view();
    let (controller, key) = view.controller();
    Door::new(view.roots_pem(), controller, key).expect("what a door shows");
    let said = authority.signer().sign(Kind::Policy, b"x".to_vec());
    let trusted = Roots::from_pem(&roots(dir.path())).expect("roots");
    assert_eq!(verify(&said, &trusted, Kind::Policy), Ok(&b"x"[..]));
    for entry in fs::read_dir(dir.path()).expect("a directory") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("readable");
        assert!(
            !bytes.windows(11).any(|window| window == b"PRIVATE KEY"),
            "{}",
            path.display()
        );
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o600
        );
    }
    assert!(!format!("{authority:?} {view:?}").contains("PRIVATE"));
}

#[test]
fn it_comes_back_as_it_was() {
    let (dir, authority) = new();
    let leaf = node(&authority, now());
    let said = authority.signer().sign(Kind::Policy, b"x".to_vec());
    drop(authority);
    let again = Authority::open(dir.path(), now()).expect("opens");
    assert!(leads_to(again.view().roots_pem(), &leaf, now()));
    assert_eq!(
        again.signer().sign(Kind::Policy, b"x".to_vec()),
        said,
        "another signer"
    );
}

#[test]
fn a_leaf_cannot_sign_and_an_issuing_ca_makes_no_other() {
    let (_dir, authority) = new();
    let view = authority.view();
    let (controller, key) = view.controller();
    let first = controller.split_inclusive("-----END CERTIFICATE-----\n").next();
    let forged = Ca::load(first.expect("a leaf").to_owned(), key)
        .expect("a pair")
        .person(&"alice".parse().expect("a name"), Duration::hours(1), now())
        .expect("a certificate");
    let forged = format!("{}{controller}", forged.certificate);
    assert!(!leads_to(view.roots_pem(), &forged, now()));

    let kept = read(authority.dir.as_path()).expect("readable").0;
    let (below, below_key) =
        root::make_issuing(&kept.issuing.certificate, &kept.issuing.key, now()).expect("made");
    let forged = Ca::issuing(String::new(), below, &below_key)
        .expect("a pair")
        .person(&"alice".parse().expect("a name"), Duration::hours(1), now())
        .expect("a certificate");
    let forged = format!("{}{}", forged.certificate, kept.issuing.certificate);
    assert!(!leads_to(view.roots_pem(), &forged, now()), "path length 0");
}

#[test]
fn a_new_issuing_ca_leaves_no_gap() {
    let (dir, authority) = new();
    let (before, bundle_roots) = (node(&authority, now()), roots(dir.path()));
    authority.rotate_issuing(now()).expect("rotated");
    let after = node(&authority, now());
    assert_ne!(chain(&before)[1], chain(&after)[1], "the same issuing CA");
    for leaf in [&before, &after] {
        assert!(
            leads_to(&bundle_roots, leaf, now()),
            "roots that were handed out before"
        );
        assert!(leads_to(&roots(dir.path()), leaf, now()));
    }
    assert_eq!(roots(dir.path()), bundle_roots);
}

#[test]
fn a_new_root_comes_in_steps_that_have_an_order() {
    let (dir, authority) = new();
    let said = authority.signer().sign(Kind::Policy, b"x".to_vec());
    let (old_leaf, old_roots) = (node(&authority, now()), roots(dir.path()));
    let order = |done: Result<(), AuthorityError>| match done {
        Err(AuthorityError::Order(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(order(authority.switch_root(now())).contains("add one first"));
    assert!(order(authority.retire_root()).contains("no old root"));

    let added = authority.add_root(now()).expect("added");
    assert!(order(authority.add_root(now()).map(drop)).contains("under way"));
    assert_eq!(chain(&roots(dir.path())).len(), 2);
    assert!(
        leads_to(&old_roots, &node(&authority, now()), now()),
        "nothing is issued below it"
    );

    authority.switch_root(now()).expect("switched");
    assert_eq!(authority.view().root(), added);
    let new_leaf = node(&authority, now());
    let both = roots(dir.path());
    assert!(!leads_to(&old_roots, &new_leaf, now()));
    assert!(leads_to(&both, &new_leaf, now()) && leads_to(&both, &old_leaf, now()));

    authority.retire_root().expect("retired");
    let alone = roots(dir.path());
    assert!(leads_to(&alone, &new_leaf, now()) && !leads_to(&alone, &old_leaf, now()));
    // The signer kept its key: what it said before is checked by whoever trusts either root.
    let again = authority.signer().sign(Kind::Policy, b"x".to_vec());
    assert_eq!(again.signature, said.signature);
    let trusted = Roots::from_pem(&alone).expect("roots");
    assert_eq!(verify(&again, &trusted, Kind::Policy), Ok(&b"x"[..]));
}

#[test]
fn a_staged_root_can_be_taken_back() {
    let (dir, authority) = new();
    let before = roots(dir.path());
    authority.add_root(now()).expect("added");
    authority.retire_root().expect("taken back");
    assert_eq!(roots(dir.path()), before);
}

#[test]
fn upkeep_renews_what_is_half_over_and_takes_up_what_others_changed() {
    let (dir, authority) = new();
    assert_eq!(authority.upkeep(now()).expect("nothing"), Upkeep::default());
    let controller = |authority: &Authority| authority.view().controller().0.to_owned();
    let before = controller(&authority);
    let later = now() + Duration::days(16);
    let done = authority.upkeep(later).expect("renewed");
    assert!(done.changed && done.controller && !done.issuing);
    assert_ne!(controller(&authority), before);
    let later = now() + Duration::days(400);
    let done = authority.upkeep(later).expect("renewed");
    assert!(done.changed && done.controller && done.issuing);
    assert!(leads_to(&roots(dir.path()), &node(&authority, later), later));

    let other = Authority::open(dir.path(), later).expect("another process");
    other.rotate_issuing(later).expect("rotated");
    assert!(authority.upkeep(later).expect("taken up").changed);
    assert_eq!(controller(&authority), controller(&other));
    assert!(!authority.upkeep(later).expect("nothing").changed);

    // At the end of the root an issuing CA can live no longer: nothing is renewed over and over.
    let last = now() + Duration::days(3_600);
    authority.upkeep(last).expect("renewed");
    assert!(!authority.upkeep(last).expect("nothing").issuing);
}

fn golden() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/state-v1");
    for name in ["ca.pem", "ca.key", "controller.pem", "controller.key"] {
        fs::copy(from.join(name), dir.path().join(name)).expect("the fixture");
    }
    dir
}

#[test]
fn a_directory_of_the_version_before_is_moved_and_its_bundles_stay_good() {
    let dir = golden();
    let old_root = roots(dir.path());
    let bundle = include_str!("../../tests/golden/state-v1/bundles/n1.bundle");
    let bundle = proto::bundle::Bundle::parse(bundle).expect("a bundle");
    let authority = Authority::open(dir.path(), now()).expect("moved");
    for name in ["ca.key", "controller.key", "controller.pem", "signer.key"] {
        assert!(!dir.path().join(name).exists(), "{name}");
    }
    assert!(
        leads_to(&roots(dir.path()), &bundle.certificate, now()),
        "old leaf, new root"
    );
    assert!(
        leads_to(&old_root, &node(&authority, now()), now()),
        "new leaf, old root"
    );
    let view = authority.view();
    let (shown, _) = view.controller();
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain(shown)[0])
        .map(|(rest, leaf)| {
            (
                rest.len(),
                leaf.subject_alternative_name()
                    .expect("names")
                    .expect("some")
                    .value
                    .general_names
                    .len(),
            )
        })
        .expect("X.509");
    assert_eq!(leaf, 3, "localhost, 127.0.0.1 and the identity");
    let trusted = Roots::from_pem(&old_root).expect("roots");
    let said = authority.signer().sign(Kind::Policy, b"x".to_vec());
    assert_eq!(verify(&said, &trusted, Kind::Policy), Ok(&b"x"[..]));
}

#[test]
fn a_signer_of_the_version_before_keeps_its_key_and_half_of_one_is_none() {
    let dir = golden();
    let key = SecretPem::new(fs::read_to_string(dir.path().join("ca.key")).expect("there"));
    let ca = Ca::load(roots(dir.path()), &key).expect("a pair");
    let signer = ca.signer(now()).expect("a signer");
    fs::write(dir.path().join("signer.key"), signer.key.expose()).expect("written");
    let id =
        |authority: &Authority| Spki::of_certificate(&authority.signer().chain()[0]).expect("well formed");
    fs::write(dir.path().join("signer.pem"), &signer.certificate).expect("written");
    let authority = Authority::open(dir.path(), now()).expect("moved");
    assert_eq!(Some(id(&authority)), signer.spki().ok());

    // Left by a crash between the two files, of the version before.
    let dir = golden();
    fs::write(dir.path().join("signer.key"), "half").expect("written");
    Authority::open(dir.path(), now()).expect("moved");
}

#[test]
fn a_broken_directory_is_named_and_left_alone() {
    for (name, text, expected) in [
        (
            "ca.key",
            "x",
            "CA is unusable: ca.key is not a private key in PEM",
        ),
        (
            "ca.pem",
            "x",
            "CA is unusable: ca.pem is not an X.509 certificate in PEM",
        ),
        (
            "controller.pem",
            "x",
            "CA is unusable: controller.pem is not an X.509 certificate in PEM with names",
        ),
    ] {
        let dir = golden();
        fs::write(dir.path().join(name), text).expect("written");
        let error = Authority::open(dir.path(), now()).expect_err(name);
        assert_eq!(error.to_string(), expected);
        assert!(!dir.path().join(files::PKI).exists() && dir.path().join("ca.key").exists());
    }
    let dir = golden();
    fs::remove_file(dir.path().join("controller.pem")).expect("ours");
    let error = Authority::open(dir.path(), now())
        .expect_err("incomplete")
        .to_string();
    assert!(error.contains("(controller.pem is missing)"), "{error}");
    let error = Authority::open(Path::new("/nonexistent/place"), now())
        .expect_err("nothing")
        .to_string();
    assert!(error.contains("holds no controller"), "{error}");
}
