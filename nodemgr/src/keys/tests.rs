use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use proto::bundle::SecretPem;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData, SanType,
    SubjectPublicKeyInfo,
};

use super::*;

const NODE: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("randomness")).expect("a CA"))
    }

    fn certify(&self, uri: &str, key: &impl PublicKeyData) -> String {
        let mut params = CertificateParams::new(vec!["n1".to_owned()]).expect("a name");
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().expect("ASCII")));
        params.signed_by(key, &self.0).expect("signed").pem()
    }

    fn bundle(&self) -> Bundle {
        let key = KeyPair::generate().expect("randomness");
        let identity = format!("redbutton://node/{NODE}/nodemgr");
        Bundle {
            format: Bundle::FORMAT,
            certificate: self.certify(&identity, &key),
            identity,
            name: "n1".into(),
            controllers: vec!["gateway:1".into()],
            ca: self.0.pem(),
            key: SecretPem::new(key.serialize_pem()),
        }
    }

    fn install(&self, bundle: &Bundle) -> KeyInstall {
        let key = KeyPair::from_pem(bundle.key.expose()).expect("a key");
        KeyInstall {
            certificate: self.certify(&bundle.identity, &key),
            roots: self.0.pem(),
            controllers: vec!["controller:7444".into()],
            node: NODE.into(),
            name: "n1".into(),
            site: "princeton".into(),
            at_ms: clock_ms() - 5_000,
            expires_at_ms: 0,
        }
    }
}

async fn install(keys: &NodeKeys, install: KeyInstall) -> Result<(), Status> {
    Keys::install(keys, Request::new(install)).await.map(drop)
}

fn load(bundle: &Bundle, dir: &Path) -> NodeKeys {
    NodeKeys::load(bundle.clone(), dir.to_owned()).expect("a good bundle")
}

#[tokio::test]
async fn what_is_installed_is_kept_without_the_key_and_used_again() {
    let (ca, dir) = (Ca::new(), tempfile::tempdir().expect("a directory"));
    let bundle = ca.bundle();
    let keys = load(&bundle, dir.path());
    let request = Keys::request(&keys, Request::new(KeyRequest {}))
        .await
        .expect("a request");
    assert!(!request.into_inner().request.is_empty());
    let wish = ca.install(&bundle);
    install(&keys, wish.clone()).await.expect("installed");
    let now = keys.bundle();
    assert_eq!(now.certificate, wish.certificate);
    assert_eq!(now.controllers, ["gateway:1", "controller:7444"]);
    let path = dir.path().join("credentials.toml");
    let kept = std::fs::read_to_string(&path).expect("kept");
    assert!(!kept.contains("PRIVATE"));
    assert_eq!(
        std::fs::metadata(&path).expect("there").permissions().mode() & 0o777,
        0o600
    );

    let again = load(&bundle, dir.path());
    assert_eq!(again.bundle().certificate, wish.certificate);
    assert_eq!(
        again.floor().seconds(),
        u64::try_from(wish.at_ms / 1_000).expect("after 1970")
    );
    assert!(again.tell(NodeReport::default()).certificate_expires_at_ms > 0);
    assert!(!format!("{again:?}").contains("PRIVATE"));

    // A new bundle is never overruled by what was renewed for the old one.
    let other = ca.bundle();
    assert_eq!(load(&other, dir.path()).bundle().certificate, other.certificate);
    std::fs::write(&path, "format = 1\nx").expect("written");
    assert_eq!(load(&bundle, dir.path()).bundle().certificate, bundle.certificate);
}

#[tokio::test]
async fn what_would_not_dial_is_not_taken() {
    let (ca, other) = (Ca::new(), Ca::new());
    let dir = tempfile::tempdir().expect("a directory");
    let bundle = ca.bundle();
    let keys = load(&bundle, dir.path());
    let good = ca.install(&bundle);
    let stranger = KeyPair::generate().expect("randomness");
    let own = KeyPair::from_pem(bundle.key.expose()).expect("a key");
    let own = SubjectPublicKeyInfo::from_der(&own.subject_public_key_info()).expect("a key");
    let with = |change: &dyn Fn(&mut KeyInstall)| {
        let mut install = good.clone();
        change(&mut install);
        install
    };
    for (wrong, expected) in [
        (
            with(&|i| i.certificate = "x".into()),
            "certificate: peer sent no certificate",
        ),
        (
            with(&|i| i.certificate = ca.certify(&bundle.identity, &stranger)),
            "for key",
        ),
        (
            with(&|i| i.certificate = ca.certify("redbutton://person/alice", &own)),
            "speaks for redbutton://person/alice",
        ),
        (
            with(&|i| i.certificate = ca.certify("redbutton://controller", &own)),
            "speaks for redbutton://controller",
        ),
        (
            with(&|i| i.certificate = other.certify(&bundle.identity, &own)),
            "does not lead to the roots",
        ),
        (with(&|i| i.roots = other.0.pem()), "does not lead to the roots"),
        (with(&|i| i.roots = String::new()), "roots:"),
        (with(&|i| i.name = "Not a name".into()), "name:"),
        (
            with(&|i| i.node = "7ba7b810-9dad-11d1-80b4-00c04fd430c8".into()),
            "expected node 7ba7",
        ),
    ] {
        let status = install(&keys, wrong).await.expect_err(expected);
        assert!(
            status.message().contains(expected),
            "{expected}: {}",
            status.message()
        );
    }
    assert_eq!(keys.bundle().certificate, bundle.certificate);
    assert!(!dir.path().join("credentials.toml").exists());
}

#[tokio::test]
async fn a_disk_that_takes_nothing_costs_the_answer_and_not_the_certificate() {
    let (ca, dir) = (Ca::new(), tempfile::tempdir().expect("a directory"));
    let bundle = ca.bundle();
    let keys = load(&bundle, &dir.path().join("gone"));
    let wish = ca.install(&bundle);
    let status = install(&keys, wish.clone()).await.expect_err("no directory");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert!(status.message().contains("not durable"), "{}", status.message());
    assert_eq!(
        keys.bundle().certificate,
        wish.certificate,
        "the next dial uses it"
    );
}

#[test]
fn one_clock_that_runs_ahead_raises_no_floor() {
    let (now, later) = (1_800_000_000_000, 4_000_000_000_000);
    assert_eq!(agreed(later, now), 1_800_000_000, "the controller's clock");
    assert_eq!(agreed(now, later), 1_800_000_000, "our clock");
    assert_eq!(agreed(now, 0), 0, "1970");
    assert_eq!(agreed(i64::MIN, now), 0);
}

#[test]
fn a_refusal_is_bounded_and_plain() {
    let refusal = KeyRefusal {
        reason: format!("revoked\x1b[2J\n{}", "x".repeat(10_000)),
    };
    let shown = reason(&refusal);
    assert!(
        shown.len() <= MAX_REASON && !shown.contains(['\x1b', '\n']),
        "{shown:?}"
    );
}

proptest! {
    #[test]
    fn installing_noise_never_panics(
        certificate in ".{0,200}", roots in ".{0,200}", node in ".{0,40}", name in ".{0,40}",
        controllers in prop::collection::vec(".{0,300}", 0..40), at_ms in any::<i64>(),
    ) {
        let bundle = Ca::new().bundle();
        let pair = Pair::of_bundle(&bundle).expect("a key");
        let install = KeyInstall {
            certificate, roots, controllers, node, name, at_ms,
            site: String::new(), expires_at_ms: at_ms,
        };
        prop_assert!(pair.certified(&install, &bundle, None).is_err());
    }
}
