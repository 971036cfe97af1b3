//! Certificates that have ended, and clocks that are wrong.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use link::{Acceptor, DialConfig, Dialer, Door, LinkState, ListenConfig, TimeFloor};
use proto::bundle::Bundle;
use rcgen::date_time_ymd;
use tokio_util::sync::CancellationToken;

use crate::common::*;

const INVITE: &str = "redbutton://invite/6ba7b810-9dad-11d1-80b4-00c04fd430c8";
/// 2019-06-01 and 2020-01-01: inside the ended certificates' life, and their end.
const INSIDE: u64 = 1_559_347_200;
const END: u64 = 1_577_836_800;

fn door(pki: &Pki, of: &Pki, ended: bool) -> Acceptor {
    let own = pki.issue(CONTROLLER);
    let door = Door::new(&of.ca(), &own.certificate, &own.key).expect("own texts");
    if ended {
        door.let_ended_in();
    }
    Acceptor::bind(
        local(),
        door.config().expect("a configuration"),
        ListenConfig::default(),
    )
    .expect("listener")
}

fn ended(pki: &Pki, uri: &str) -> Issued {
    pki.issue_with(&[uri], |params| {
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
    })
}

/// Whether the handshake ends well, as the listener counts it.
async fn is_let_in(door: &Acceptor, pki: &Pki, own: &Issued) -> bool {
    let before = door.gauge().read();
    let _stream = tls_connect(pki.raw_client(Some(own)), door.local_addr()).await;
    let gauge = door.gauge();
    until("the handshake", || {
        let now = gauge.read();
        now.completed + now.failed > before.completed + before.failed
    })
    .await;
    gauge.read().completed > before.completed
}

#[tokio::test]
async fn who_was_one_of_us_is_let_in_and_marked() {
    let pki = Pki::new("ca");
    let mut open = door(&pki, &pki, true);
    for uri in [ALICE, NODE] {
        let own = ended(&pki, uri);
        assert!(is_let_in(&open, &pki, &own).await, "{uri}");
        let accepted = within("accept", open.accept()).await.expect("acceptor");
        assert_eq!(accepted.peer().identity.to_string(), uri);
        assert!(accepted.peer().expired);
        assert_eq!(
            accepted.peer().certificate_expires,
            SystemTime::UNIX_EPOCH + Duration::from_secs(END)
        );
        assert_eq!(
            accepted.peer().key,
            trust::Spki::of_certificate(&own.chain()[0]).expect("well formed")
        );
    }
    assert!(is_let_in(&open, &pki, &pki.issue(NODE)).await);
    let accepted = within("accept", open.accept()).await.expect("acceptor");
    assert!(!accepted.peer().expired);
}

#[tokio::test]
async fn an_end_excuses_nothing_else() {
    let (pki, other) = (Pki::new("ca"), Pki::new("another"));
    let open = door(&pki, &pki, true);
    let early = pki.issue_with(&[NODE], |params| params.not_before = date_time_ymd(2090, 1, 1));
    let (foreign, nobody) = (ended(&other, NODE), pki.expired("redbutton://root"));
    for (case, own) in [
        ("another CA", foreign),
        ("nobody", nobody),
        ("an invite", ended(&pki, INVITE)),
        ("the controller", ended(&pki, CONTROLLER)),
        ("not yet", early),
    ] {
        assert!(!is_let_in(&open, &pki, &own).await, "{case}");
    }
    let strict = door(&pki, &pki, false);
    assert!(
        !is_let_in(&strict, &pki, &ended(&pki, NODE)).await,
        "only where the caller asks for it"
    );
}

#[tokio::test]
async fn roots_that_are_replaced_count_from_the_next_handshake_on() {
    let (pki, new) = (Pki::new("ca"), Pki::new("new"));
    let own = pki.issue(CONTROLLER);
    let open = Door::new(&pki.ca(), &own.certificate, &own.key).expect("own texts");
    let acceptor = Acceptor::bind(
        local(),
        open.config().expect("a configuration"),
        ListenConfig::default(),
    )
    .expect("listener");
    let of_new = new.issue(NODE);
    assert!(!is_let_in(&acceptor, &pki, &of_new).await);
    open.trust(&format!("{}{}", pki.ca(), new.ca())).expect("roots");
    assert!(is_let_in(&acceptor, &pki, &of_new).await);
    assert!(
        is_let_in(&acceptor, &pki, &pki.issue(NODE)).await,
        "the old one too"
    );
    open.trust(&new.ca()).expect("roots");
    assert!(!is_let_in(&acceptor, &pki, &pki.issue(NODE)).await);
}

/// `None`: attached.
async fn first_failure(dialer: &Dialer, mut door: Acceptor) -> Option<String> {
    let stop = CancellationToken::new();
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let run = dialer.run(Node::new("n").routes(), stop.clone(), |state| {
        let _ = match state {
            LinkState::BackingOff { error, .. } => told.send(Some(error)),
            LinkState::Attached { .. } => told.send(None),
            LinkState::Connecting { .. } => Ok(()),
        };
    });
    let run = Box::pin(run);
    let serve = Box::pin(async {
        while let Some(accepted) = door.accept().await {
            let link = link::attach(accepted, link::LinkConfig::default())
                .await
                .expect("a link");
            let mut client =
                proto::v1::slivers_client::SliversClient::with_origin(link.clone(), link::Link::origin());
            let _ = client.report(proto::v1::ReportRequest {}).await;
            std::mem::forget(link);
        }
    });
    let first = async {
        let first = seen.recv().await.expect("a state");
        stop.cancel();
        first
    };
    within(
        "the first dial",
        Box::pin(async {
            tokio::select! { (_, first) = async { tokio::join!(run, first) } => first, () = serve => None }
        }),
    )
    .await
}

fn bundle_and_door(pki: &Pki, shown: &Issued) -> (Bundle, Acceptor) {
    let door = Acceptor::bind(local(), pki.server(shown), ListenConfig::default()).expect("listener");
    (pki.node_bundle(door.local_addr()), door)
}

#[tokio::test]
async fn a_wrong_clock_keeps_no_node_away_and_the_floor_still_counts() {
    let pki = Pki::new("ca");
    // To a node in 2040 every certificate of today looks like the first, to one in 1970 like the second.
    let late = pki.issue_with(&[CONTROLLER], |params| {
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 1, 1);
    });
    let config = DialConfig::default();
    for (case, shown, floor, expected) in [
        ("2040", ended(&pki, CONTROLLER), 0, None),
        ("2040, floor inside", ended(&pki, CONTROLLER), INSIDE, None),
        (
            "2040, floor behind",
            ended(&pki, CONTROLLER),
            END + 1,
            Some("expired"),
        ),
        ("1970", late, INSIDE, None),
    ] {
        let (bundle, door) = bundle_and_door(&pki, &shown);
        let dialer = Dialer::with_floor(&bundle, config, Arc::new(TimeFloor::new(floor))).expect("dialler");
        let failure = Box::pin(first_failure(&dialer, door)).await;
        match (expected, failure) {
            (None, None) => {}
            (Some(word), Some(error)) => assert!(error.contains(word), "{case}: {error}"),
            (expected, failure) => panic!("{case}: {failure:?} instead of {expected:?}"),
        }
    }
}

#[tokio::test]
async fn a_wrong_clock_excuses_nothing_else() {
    let pki = Pki::new("ca");
    for (case, shown, word) in [
        (
            "another CA",
            ended(&Pki::new("other"), CONTROLLER),
            "invalid peer certificate",
        ),
        ("a node", ended(&pki, NODE), "not for the controller"),
        (
            "another name",
            pki.issue_with(&[CONTROLLER], |params| {
                params.subject_alt_names.drain(..2);
                params.not_before = date_time_ymd(2019, 1, 1);
                params.not_after = date_time_ymd(2020, 1, 1);
            }),
            "not valid for name",
        ),
    ] {
        let (bundle, door) = bundle_and_door(&pki, &shown);
        let dialer = Dialer::with_floor(&bundle, DialConfig::default(), Arc::new(TimeFloor::default()))
            .expect("dialler");
        let error = Box::pin(first_failure(&dialer, door)).await.expect(case);
        assert!(error.contains(word), "{case}: {error}");
    }
}

#[tokio::test]
async fn renewed_credentials_count_from_the_next_dial_on() {
    let (pki, other) = (Pki::new("ca"), Pki::new("other"));
    let door = pki.controller(ListenConfig::default());
    let stranger = other.issue(NODE);
    let mut bundle = pki.bundle(
        &stranger,
        NODE,
        &[&format!("localhost:{}", door.local_addr().port())],
    );
    let dialer = Dialer::new(&bundle, DialConfig::default()).expect("dialler");
    let own = pki.issue(NODE);
    let mut broken = bundle.clone();
    broken.controllers.clear();
    assert!(dialer.credentials().replace(&broken).is_err());
    (bundle.certificate, bundle.key) = (own.certificate, own.key);
    dialer.credentials().replace(&bundle).expect("good");
    assert_eq!(Box::pin(first_failure(&dialer, door)).await, None);
}
