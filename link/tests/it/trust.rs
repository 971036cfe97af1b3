//! Who gets in, and whom a daemon believes.

use std::time::{Duration, SystemTime};

use link::{
    Acceptor, CertificateError, DialConfig, Dialer, LinkState, ListenConfig, TlsError, client_config,
    identity_of, server_config,
};
use proptest::prelude::*;
use proto::Identity;
use proto::bundle::SecretPem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::common::*;

#[test]
fn a_certificate_speaks_for_its_one_name() {
    let pki = Pki::new("ca");
    for uri in [CONTROLLER, ALICE, NODE] {
        let (identity, _) = identity_of(&pki.issue(uri).chain()).expect(uri);
        assert_eq!(identity.to_string(), uri);
    }
    let (_, until) = identity_of(&pki.expired(ALICE).chain()).expect("validity is not looked at here");
    assert_eq!(
        until,
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800),
        "2020-01-01"
    );
    let beside_others = pki.issue_with(&["spiffe://example/x", ALICE, "https://example/"], |_| {});
    assert_eq!(
        identity_of(&beside_others.chain())
            .expect("one of ours")
            .0
            .to_string(),
        ALICE
    );
}

#[test]
fn any_other_certificate_speaks_for_nobody() {
    let pki = Pki::new("ca");
    let of = |uris: &[&str]| identity_of(&pki.issue_with(uris, |_| {}).chain()).expect_err("no identity");
    assert_eq!(of(&[]), CertificateError::NoName);
    assert_eq!(of(&["https://controller"]), CertificateError::NoName);
    assert_eq!(of(&[ALICE, CONTROLLER]), CertificateError::ManyNames(2));
    assert_eq!(of(&[ALICE, ALICE]), CertificateError::ManyNames(2));
    assert_eq!(
        of(&["Redbutton://controller", CONTROLLER]),
        CertificateError::ManyNames(2)
    );
    assert!(matches!(of(&["redbutton://root"]), CertificateError::Name(_)));
    assert!(matches!(
        of(&["REDBUTTON://controller"]),
        CertificateError::Name(_)
    ));
    assert_eq!(identity_of(&[]).expect_err("empty"), CertificateError::None);

    let mut der = pki.issue(ALICE).chain()[0].to_vec();
    der.push(0);
    assert_eq!(
        identity_of(&[der.clone().into()]).expect_err("a byte behind it"),
        CertificateError::Malformed
    );
    der.truncate(100);
    assert_eq!(
        identity_of(&[der.into()]).expect_err("cut off"),
        CertificateError::Malformed
    );
}

proptest! {
    /// What a stranger sends as a certificate is parsed before anybody trusts it.
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(identity_of(&[bytes.into()]).is_err());
    }

    #[test]
    fn no_damaged_byte_makes_the_parser_panic_or_a_person_more(at in any::<prop::sample::Index>(), with in any::<u8>()) {
        static DER: std::sync::LazyLock<Vec<u8>> =
            std::sync::LazyLock::new(|| Pki::new("ca").issue(ALICE).chain()[0].to_vec());
        let mut der = DER.clone();
        let at = at.index(der.len());
        der[at] = with;
        // A damaged name may name another person, never the controller or a node.
        if let Ok((identity, _)) = identity_of(&[der.into()]) {
            prop_assert!(matches!(identity, Identity::Person(_)), "{identity}");
        }
    }
}

#[test]
fn broken_files_are_named_and_never_shown() {
    let pki = Pki::new("ca");
    let (own, other) = (pki.issue(CONTROLLER), pki.issue(ALICE));
    let secret = own.key.expose().lines().nth(1).expect("base64").to_owned();
    let config = |ca: &str, cert: &str, key: &str| {
        let error = server_config(ca, cert, &SecretPem::new(key.to_owned())).expect_err("broken");
        let shown = format!("{error} {error:?}");
        assert!(
            !shown.contains(&secret) && !shown.contains(&secret[..20]),
            "{shown}"
        );
        error
    };
    let (ca, cert, key) = (pki.ca(), own.certificate.clone(), own.key.expose().to_owned());
    assert!(matches!(
        config("", &cert, &key),
        TlsError::Missing {
            what: "CA certificate",
            ..
        }
    ));
    assert!(matches!(
        config(&ca, "x", &key),
        TlsError::Missing {
            what: "certificate",
            ..
        }
    ));
    assert!(matches!(
        config(&ca, &cert, &cert),
        TlsError::Missing { what: "key", .. }
    ));
    assert!(matches!(
        config(&ca, &cert, &key[..key.len() / 2]),
        TlsError::Pem { what: "key" }
    ));
    assert!(matches!(
        config(&ca, &cert, &key.replace('M', "*")),
        TlsError::Pem { what: "key" }
    ));
    assert!(matches!(config(&ca, &cert, other.key.expose()), TlsError::Own(_)));
    assert!(server_config(&ca, &cert, &own.key).is_ok());

    let nobody = pki.issue_with(&[], |_| {});
    let bundle = pki.bundle(&nobody, NODE, &["localhost:1"]);
    assert!(matches!(
        client_config(&bundle),
        Err(TlsError::OwnName(CertificateError::NoName))
    ));
}

/// Dials until the first failure and says what it was.
async fn refusal(dialer: &Dialer) -> String {
    let stop = CancellationToken::new();
    let (failures, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let run = dialer.run(Node::new("n").routes(), stop.clone(), |state| match state {
        LinkState::BackingOff { error, .. } => failures.send(error).expect("receiver"),
        LinkState::Attached { .. } => panic!("attached"),
        LinkState::Connecting { .. } => {}
    });
    let first = async {
        let error = seen.recv().await.expect("a failure");
        stop.cancel();
        error
    };
    within("a failed dial", async { tokio::join!(run, first).1 }).await
}

fn dialer(bundle: &proto::bundle::Bundle) -> Dialer {
    Dialer::new(bundle, DialConfig::default()).expect("usable bundle")
}

#[tokio::test]
async fn a_daemon_learns_that_its_certificate_was_refused() {
    let pki = Pki::new("ca");
    let mut door = pki.controller(ListenConfig::default());
    let here = format!("localhost:{}", door.local_addr().port());

    let (namesake, stranger) = (Pki::new("ca"), Pki::new("another ca"));
    let cases = [
        ("wrong CA of the same name", namesake.issue(NODE)),
        ("wrong CA", stranger.issue(NODE)),
        ("expired", pki.expired(NODE)),
    ];
    for (case, issued) in cases {
        let error = refusal(&dialer(&pki.bundle(&issued, NODE, &[&here]))).await;
        assert!(error.contains("refused our certificate"), "{case}: {error}");
    }
    let gauge = door.gauge();
    until("all counted", || gauge.read().in_progress == 0).await;
    let counts = gauge.read();
    assert_eq!(
        (counts.failed, counts.completed, counts.established),
        (3, 0, 0),
        "{counts:?}"
    );
    assert!(
        futures_util::FutureExt::now_or_never(door.accept()).is_none(),
        "somebody got in"
    );
}

#[tokio::test]
async fn strangers_stay_outside() {
    let pki = Pki::new("ca");
    let mut door = pki.controller(ListenConfig::default());
    let (to, gauge) = (door.local_addr(), door.gauge());
    let nobody = pki.issue_with(&[], |_| {});
    let double = pki.issue_with(&[ALICE, NODE], |_| {});
    for (case, own) in [
        ("no certificate", None),
        ("no name", Some(&nobody)),
        ("two names", Some(&double)),
    ] {
        // TLS 1.3: the client is through before the server has looked; the alert comes with the first read.
        let mut stream = tls_connect(pki.raw_client(own), to)
            .await
            .expect("client side of the handshake");
        let error = within(case, stream.read_u8()).await.expect_err(case);
        assert!(error.to_string().contains("alert"), "{case}: {error}");
    }
    let mut without = pki.raw_client(Some(&pki.issue(ALICE)));
    without.alpn_protocols.clear();
    let mut stream = tls_connect(without, to).await.expect("handshake without ALPN");
    assert!(
        matches!(within("no ALPN", stream.read(&mut [0; 8])).await, Ok(0) | Err(_)),
        "served without HTTP/2"
    );

    let old = pki.raw_client_of(Some(&pki.issue(ALICE)), &[&rustls::version::TLS12]);
    within("TLS 1.2", tls_connect(old, to))
        .await
        .expect_err("TLS 1.2 was spoken");

    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x16, 3, 1, 0xff, 0xff, 1, 2, 3],
        &[0; 4096],
    ] {
        let mut stream = tokio::net::TcpStream::connect(to).await.expect("connect");
        stream.write_all(garbage).await.expect("write");
        let _ = stream.shutdown().await;
        // An alert, an end or a reset: anything but a conversation.
        within("garbage", async {
            while !matches!(stream.read(&mut [0; 256]).await, Ok(0) | Err(_)) {}
        })
        .await;
    }
    until("all counted", || gauge.read().failed == 8).await;
    assert_eq!(
        (gauge.read().completed, gauge.read().in_progress),
        (0, 0),
        "{:?}",
        gauge.read()
    );

    // The door is still open to others.
    let alice = pki.issue(ALICE);
    let honest = tls_connect(pki.raw_client(Some(&alice)), to)
        .await
        .expect("handshake");
    let accepted = within("accept", door.accept()).await.expect("acceptor");
    assert_eq!(
        accepted.peer().identity.to_string(),
        ALICE,
        "the identity is delivered; the caller decides"
    );
    let key = trust::Spki::of_certificate(&alice.chain()[0]).expect("well formed");
    assert_eq!((accepted.peer().key, accepted.peer().expired), (key, false));
    assert_eq!(
        accepted.peer().address,
        honest.get_ref().0.local_addr().expect("address")
    );
    assert!(accepted.peer().certificate_expires > SystemTime::now());
}

#[tokio::test]
async fn a_daemon_believes_the_controller_alone() {
    let pki = Pki::new("ca");
    let impostors = [
        ("a node", pki.issue(NODE), "not for the controller"),
        ("a person", pki.issue(ALICE), "not for the controller"),
        ("nobody", pki.issue_with(&[], |_| {}), "no redbutton:// name"),
        (
            "both",
            pki.issue_with(&[NODE, CONTROLLER], |_| {}),
            "2 redbutton:// names",
        ),
        (
            "another host",
            pki.issue_with(&[CONTROLLER], |p| drop(p.subject_alt_names.drain(..2))),
            "not valid for name",
        ),
        (
            "another CA",
            Pki::new("another ca").issue(CONTROLLER),
            "invalid peer certificate",
        ),
        ("expired", pki.expired(CONTROLLER), "expired"),
    ];
    for (case, issued, expected) in impostors {
        let mut door =
            Acceptor::bind(local(), pki.server(&issued), ListenConfig::default()).expect("listener");
        let error = refusal(&dialer(&pki.node_bundle(door.local_addr()))).await;
        assert!(error.contains(expected), "{case}: {error}");
        let gauge = door.gauge();
        until(case, || gauge.read().in_progress == 0).await;
        assert_eq!(gauge.read().completed, 0, "{case}");
        assert!(
            futures_util::FutureExt::now_or_never(door.accept()).is_none(),
            "{case} was talked to"
        );
    }
}

#[tokio::test]
async fn an_ip_address_is_a_name_too() {
    let pki = Pki::new("ca");
    let mut door = pki.controller(ListenConfig::default());
    let bundle = pki.bundle(&pki.issue(NODE), NODE, &[&door.local_addr().to_string()]);
    let (dialer, stop) = (dialer(&bundle), CancellationToken::new());
    let run = dialer.run(Node::new("n").routes(), stop.clone(), |_| {});
    let accept = async {
        let identity = door.accept().await.expect("acceptor").peer().identity.clone();
        stop.cancel();
        identity
    };
    let identity = within("accept", async { tokio::join!(run, accept).1 }).await;
    assert_eq!(identity, NODE.parse::<Identity>().expect("identity"));
}
