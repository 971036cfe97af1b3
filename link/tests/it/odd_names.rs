//! Certificates that our own CA has signed and that nobody meant: what their names make of their holder.

use link::ListenConfig;
use rcgen::SanType;
use tokio::io::AsyncReadExt;

use crate::common::*;

#[tokio::test]
async fn wildcards_nul_and_names_without_end_speak_for_nobody_else() {
    let pki = Pki::new("ca");
    let mut door = pki.controller(ListenConfig::default());
    let (to, gauge) = (door.local_addr(), door.gauge());
    let odd = [
        "redbutton://person/*",
        "redbutton://*",
        "redbutton://person/",
        "redbutton://person/alice/",
        "redbutton://person/alice/../bob",
        "redbutton://person/../controller",
        "redbutton://person/alice\0",
        "redbutton://person/alice%00",
        "redbutton://person/Alice",
        "redbutton://person/alice?role=support",
        "redbutton://person/alice#bob",
        "redbutton://alice@controller",
        "redbutton://controller/",
        "redbutton://node/*/nodemgr",
        "redbutton:///person/alice",
        "redbutton:person/alice",
        "REDBUTTON://person/alice",
        "https://person/alice",
    ];
    for name in odd {
        let own = pki.issue_with(&[name], |_| {});
        let mut stream = tls_connect(pki.raw_client(Some(&own)), to)
            .await
            .expect("client side of the handshake");
        let error = within(name, stream.read_u8()).await.expect_err(name);
        assert!(error.to_string().contains("alert"), "{name:?}: {error}");
    }
    // One identity among thousands of other names: it is that one.
    let crowded = pki.issue_with(&[ALICE], |params| {
        for number in 0..1_500 {
            let host = format!("host-{number}.example").try_into().expect("ASCII");
            params.subject_alt_names.push(SanType::DnsName(host));
        }
    });
    // An identity in every place but the right one.
    let elsewhere = pki.issue_with(&[], |params| {
        let name = &mut params.distinguished_name;
        name.push(rcgen::DnType::CommonName, ALICE);
        name.push(rcgen::DnType::OrganizationName, ALICE);
        let mail = ALICE.try_into().expect("ASCII");
        params.subject_alt_names.push(SanType::Rfc822Name(mail));
    });
    let mut stream = tls_connect(pki.raw_client(Some(&elsewhere)), to)
        .await
        .expect("client side of the handshake");
    within("elsewhere", stream.read_u8())
        .await
        .expect_err("a common name is no identity");
    let _client = tls_connect(pki.raw_client(Some(&crowded)), to)
        .await
        .expect("handshake");
    let accepted = within("accept", door.accept()).await.expect("acceptor");
    assert_eq!(accepted.peer().identity.to_string(), ALICE);
    until("all counted", || {
        gauge.read().failed == odd.len() as u64 + 1 && gauge.read().in_progress == 0
    })
    .await;
    assert_eq!(gauge.read().completed, 1, "{:?}", gauge.read());
}
