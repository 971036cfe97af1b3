//! Who may not, what they learn, and what the audit keeps of it.

use proto::v1::{self, press_request::Wish, release_wish::What};
use tonic::Code;

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_is_refused_what_is_not_its_own_and_the_audit_has_it() {
    let world = World::new(&["n1@princeton", "n2@mit"]).await;
    let reboot = |node: &str| Wish::Reboot(v1::RebootWish { node: node.into() });
    let attempts = [
        ("dan", kill("mit_chord", fleet())),
        ("dan", kill("", on_node("n1"))),
        ("dan", reboot("n1")),
        ("paula", kill("mit_chord", fleet())),
        ("paula", reboot("n1")),
        ("ada", kill("princeton_codeen", fleet())),
        ("ada", kill("princeton_codeen", at_site("mit"))),
        ("ada", reboot("n2")),
        ("nora", kill("princeton_codeen", fleet())),
    ];
    for (at, (who, wish)) in attempts.iter().enumerate() {
        let person = world.person(who).await;
        let refused = person
            .press(&format!("k{at}"), wish.clone())
            .await
            .expect_err(who);
        assert_eq!(
            (refused.code(), code(&refused)),
            (Code::PermissionDenied, "refused"),
            "{who} {wish:?}"
        );
    }
    let audit = world.audit().await;
    let refused: Vec<_> = audit.iter().filter(|entry| entry.outcome == "refused").collect();
    assert_eq!(refused.len(), attempts.len());
    for (entry, (who, _)) in refused.iter().zip(&attempts) {
        assert_eq!(entry.person, *who);
        assert_eq!(entry.reason, "floods a bank");
        assert!(!entry.detail.is_empty() && entry.order.is_empty());
    }
    let alice = world.person("alice").await;
    let orders = alice
        .orders()
        .list(v1::ListOrdersRequest::default())
        .await
        .expect("orders")
        .into_inner()
        .orders;
    assert!(orders.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_and_what_is_not_yours_look_alike() {
    let world = World::new(&["n1@princeton"]).await;
    let (alice, peter, dan) = (
        world.person("alice").await,
        world.person("peter").await,
        world.person("dan").await,
    );
    let order = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed")
        .order
        .expect("one");
    let nobody = "01930000-0000-7000-8000-000000000000";
    let get = async |who: &Person, id: &str| {
        who.orders()
            .get(v1::GetOrderRequest { id: id.into() })
            .await
            .expect_err("refused")
    };
    let (foreign, absent) = (get(&peter, &order.id).await, get(&peter, nobody).await);
    assert_eq!(code(&foreign), "refused");
    assert_eq!(
        foreign.message().replace(&order.id, "ID"),
        absent.message().replace(nobody, "ID")
    );
    assert_eq!(foreign.code(), absent.code());
    assert_eq!(code(&get(&alice, nobody).await), "not-found");

    let watch = peter
        .orders()
        .watch(v1::WatchOrderRequest {
            id: order.id.clone(),
            until_settled: false,
        })
        .await;
    assert_eq!(watch.expect_err("refused").code(), Code::PermissionDenied);

    let reboot = |node: &str| Wish::Reboot(v1::RebootWish { node: node.into() });
    let here = dan.press("a", reboot("n1")).await.expect_err("refused");
    let there = dan.press("b", reboot("n9")).await.expect_err("refused");
    assert_eq!(
        here.message().replace("n1", "N"),
        there.message().replace("n9", "N")
    );
    assert_eq!(
        code(&alice.press("c", reboot("n9")).await.expect_err("absent")),
        "not-found"
    );

    let hold = order.holds[0].id.clone();
    let here = peter
        .press("d", release(What::Hold(hold.clone())))
        .await
        .expect_err("refused");
    let there = peter
        .press("e", release(What::Hold(nobody.into())))
        .await
        .expect_err("refused");
    assert_eq!(
        here.message().replace(&hold, "H"),
        there.message().replace(nobody, "H")
    );

    let here = dan
        .press("f", kill("mit_chord", fleet()))
        .await
        .expect_err("refused");
    let there = dan
        .press("g", kill("mit_nothing", fleet()))
        .await
        .expect_err("refused");
    assert_eq!(
        here.message().replace("mit_chord", "S"),
        there.message().replace("mit_nothing", "S")
    );
    assert_eq!(
        code(
            &alice
                .press("h", kill("mit_nothing", fleet()))
                .await
                .expect_err("absent")
        ),
        "not-found"
    );
    assert_eq!(
        code(
            &alice
                .press("i", kill("mit_chord", at_site("nowhere")))
                .await
                .expect_err("absent")
        ),
        "not-found"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_and_oversized_requests_are_named() {
    let world = World::new(&[]).await;
    let alice = world.person("alice").await;
    let press = async |change: fn(&mut v1::PressRequest)| {
        let mut request = v1::PressRequest {
            idempotency_key: "k".into(),
            reason: "r".into(),
            evidence: String::new(),
            wish: Some(kill("princeton_codeen", fleet())),
        };
        change(&mut request);
        alice.orders().press(request).await.expect_err("refused")
    };
    for (change, names) in [
        ((|r| r.reason.clear()) as fn(&mut v1::PressRequest), "reason"),
        (|r| r.idempotency_key = "x".repeat(129), "idempotency_key"),
        (|r| r.wish = Some(kill("Princeton", fleet())), "hold.slice"),
        (|r| r.wish = None, "wish"),
    ] {
        let refused = press(change).await;
        assert_eq!(
            (refused.code(), code(&refused)),
            (Code::InvalidArgument, "malformed")
        );
        assert!(refused.message().contains(names), "{}", refused.message());
    }
    let huge = press(|r| r.evidence = "x".repeat(2 << 20)).await;
    assert_eq!(huge.code(), Code::OutOfRange, "{huge:?}");
    let all = alice
        .press("k", freeze("", fleet()))
        .await
        .expect_err("all or nothing");
    assert_eq!((all.code(), code(&all)), (Code::Unimplemented, "unimplemented"));
    // The connection survives all of it.
    alice
        .people()
        .who_am_i(v1::WhoAmIRequest {})
        .await
        .expect("still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_role_one_may_ask_who_one_is_and_nothing_else() {
    let world = World::new(&["n1@princeton"]).await;
    let nora = world.person("nora").await;
    let me = nora
        .people()
        .who_am_i(v1::WhoAmIRequest {})
        .await
        .expect("who")
        .into_inner();
    assert_eq!(me.person.expect("me").name, "nora");
    assert!(me.certificate_expires_at_ms > 0);
    let people = nora
        .people()
        .list(v1::ListPeopleRequest::default())
        .await
        .expect("a list")
        .into_inner()
        .people;
    assert!(people.iter().all(|person| person.name == "nora"), "{people:?}");
    assert!(
        nora.sites()
            .list(v1::ListSitesRequest::default())
            .await
            .expect("a list")
            .into_inner()
            .sites
            .is_empty()
    );
    assert!(
        nora.slices()
            .list(v1::ListSlicesRequest::default())
            .await
            .expect("a list")
            .into_inner()
            .slices
            .is_empty()
    );
    assert!(
        nora.nodes()
            .list(v1::ListNodesRequest::default())
            .await
            .expect("a list")
            .into_inner()
            .nodes
            .is_empty()
    );
    assert!(
        nora.orders()
            .list(v1::ListOrdersRequest::default())
            .await
            .expect("a list")
            .into_inner()
            .orders
            .is_empty()
    );
    assert!(
        nora.audit()
            .list(v1::ListAuditRequest::default())
            .await
            .expect("a list")
            .into_inner()
            .entries
            .is_empty()
    );
    let export = nora
        .audit()
        .export(v1::ExportAuditRequest { from: 1 })
        .await
        .expect_err("refused");
    assert_eq!(export.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_s_certificate_is_no_person_s_and_a_person_s_no_node_s() {
    let world = World::new(&["n1@princeton"]).await;
    let bundle = world.load("n1", world.people);
    let channel = connect(&bundle, world.people).await;
    let call = async {
        Person { channel: channel? }
            .people()
            .who_am_i(v1::WhoAmIRequest {})
            .await
            .map_err(Box::<dyn std::error::Error>::from)
    };
    assert!(call.await.is_err());
    // A person dials the daemons' port and serves `Slivers`: nothing is attached.
    world.person("alice").await;
    let person = world.load("alice", world.daemons);
    let dialer = link::Dialer::new(&person, link::DialConfig::default()).expect("a good bundle");
    let dropped = tokio::sync::Notify::new();
    let dial = dialer.run(
        tonic::service::Routes::default(),
        tokio_util::sync::CancellationToken::new(),
        |state| {
            if matches!(state, link::LinkState::BackingOff { .. }) {
                dropped.notify_one();
            }
        },
    );
    tokio::select! {
        () = dial => panic!("dials for ever"),
        () = dropped.notified() => {}
        () = tokio::time::sleep(CAP) => panic!("was not dropped"),
    }
}
