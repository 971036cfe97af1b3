use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{ServerName as TlsName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, client::WebPkiServerVerifier, crypto::aws_lc_rs};

use super::*;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).expect("in range")
}

fn at(time: OffsetDateTime) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        time.unix_timestamp().cast_unsigned(),
    ))
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("one certificate")
}

fn roots(ca: &Ca) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(der(ca.pem())).expect("a CA");
    Arc::new(roots)
}

fn as_client(ca: &Ca, pem: &str, time: OffsetDateTime) -> Result<(), rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca), provider)
        .build()
        .expect("roots");
    verifier.verify_client_cert(&der(pem), &[], at(time)).map(drop)
}

fn as_server(ca: &Ca, pem: &str, name: &str, time: OffsetDateTime) -> Result<(), rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(ca), provider)
        .build()
        .expect("roots");
    let name = TlsName::try_from(name.to_owned()).expect("a name");
    verifier
        .verify_server_cert(&der(pem), &[], &name, &[], at(time))
        .map(drop)
}

fn identity(pem: &str) -> Identity {
    link::identity_of(&[der(pem)]).expect("one identity").0
}

#[test]
fn the_controller_serves_under_its_names_only() {
    let (ca, _) = Ca::generate(now()).expect("a CA");
    let names: Vec<ServerName> = ["localhost", "127.0.0.1", "::1"]
        .iter()
        .map(|name| name.parse().expect(name))
        .collect();
    let issued = ca.controller(&names, now()).expect("a certificate");
    assert_eq!(identity(&issued.certificate), Identity::Controller);
    for name in ["localhost", "127.0.0.1", "::1"] {
        as_server(&ca, &issued.certificate, name, now()).expect(name);
    }
    as_server(&ca, &issued.certificate, "elsewhere", now()).expect_err("another name");
    as_client(&ca, &issued.certificate, now()).expect_err("a server's certificate");
    let (other, _) = Ca::generate(now()).expect("a CA");
    as_server(&other, &issued.certificate, "localhost", now()).expect_err("another CA");
}

#[test]
fn people_and_nodes_are_clients_for_their_time() {
    let (ca, _) = Ca::generate(now()).expect("a CA");
    let alice: PersonName = "alice".parse().expect("valid");
    let node = NodeId::random();
    let node_name: NodeName = "node-1.example".parse().expect("valid");
    let person = ca.person(&alice, PERSON_LIFE, now()).expect("a certificate");
    let daemon = ca
        .node(node, &node_name, NODE_LIFE, now())
        .expect("a certificate");
    assert_eq!(identity(&person.certificate), Identity::Person(alice));
    assert_eq!(
        identity(&daemon.certificate),
        Identity::Daemon(node, DaemonRole::NodeManager)
    );
    for (issued, life) in [(&person, PERSON_LIFE), (&daemon, NODE_LIFE)] {
        as_client(&ca, &issued.certificate, now()).expect("a client");
        as_client(&ca, &issued.certificate, now() + life - Duration::minutes(1)).expect("its last minute");
        as_client(&ca, &issued.certificate, now() + life + Duration::minutes(1)).expect_err("too late");
        as_client(&ca, &issued.certificate, now() - Duration::hours(2)).expect_err("too early");
        assert_eq!(issued.expires, now() + life);
    }
    as_server(&ca, &person.certificate, "node-1.example", now()).expect_err("a client's certificate");
    as_server(&ca, &daemon.certificate, "node-1.example", now()).expect("people dial nodes");
    as_server(&ca, &daemon.certificate, "node-2.example", now()).expect_err("another node's name");
}

#[test]
fn a_ca_comes_back_from_its_files_and_nothing_outlives_it() {
    let (ca, key) = Ca::generate(now()).expect("a CA");
    let back = Ca::load(ca.pem().to_owned(), &key).expect("its own files");
    assert_eq!(back.expires(), ca.expires());
    let alice: PersonName = "alice".parse().expect("valid");
    let late = ca.expires() - Duration::days(1);
    let issued = back.person(&alice, PERSON_LIFE, late).expect("a certificate");
    assert_eq!(issued.expires, ca.expires());
    as_client(&ca, &issued.certificate, late).expect("signed by the same CA");
}

#[test]
fn a_person_cannot_sign() {
    let (ca, _) = Ca::generate(now()).expect("a CA");
    let mallory = ca
        .person(&"mallory".parse().expect("valid"), PERSON_LIFE, now())
        .expect("a certificate");
    let false_ca = Ca::load(mallory.certificate.clone(), &mallory.key).expect("a pair");
    let forged = false_ca
        .person(&"alice".parse().expect("valid"), PERSON_LIFE, now())
        .expect("a certificate");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&ca), provider)
        .build()
        .expect("roots");
    verifier
        .verify_client_cert(&der(&forged.certificate), &[der(&mallory.certificate)], at(now()))
        .expect_err("signed by a person");
}

#[test]
fn wrong_files_are_refused_without_showing_the_key() {
    let (ca, key) = Ca::generate(now()).expect("a CA");
    let (_, other) = Ca::generate(now()).expect("a CA");
    let cases = [
        (
            ca.pem().to_owned(),
            SecretPem::new("not a key".to_owned()),
            "ca.key is not a private key in PEM",
        ),
        (ca.pem().to_owned(), other, "ca.key is not the key of ca.pem"),
        (
            "not a certificate".to_owned(),
            key.clone(),
            "ca.pem is not an X.509 certificate in PEM",
        ),
    ];
    for (pem, key, expected) in cases {
        let error = Ca::load(pem, &key).expect_err(expected);
        assert_eq!(error.to_string(), format!("CA is unusable: {expected}"));
    }
    let secret = key.expose().lines().nth(1).expect("base64");
    assert!(!format!("{ca:?} {key:?}").contains(secret));
}

#[test]
fn server_names_are_checked() {
    for bad in ["", "*", "*.example", "A", "a b", "[::1]", "localhost:7443", "ä"] {
        assert!(bad.parse::<ServerName>().is_err(), "{bad:?} was accepted");
    }
}
