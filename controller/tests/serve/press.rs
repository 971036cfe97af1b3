//! From the press to the proof.

use proto::v1::{self, Outcome, release_wish::What};

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_press_reaches_every_node_and_comes_back_proven() {
    let world = World::new(&["n1.princeton.example@princeton", "n2.mit.example@mit"]).await;
    let nodes = [world.node("n1.princeton.example"), world.node("n2.mit.example")];
    for node in &nodes {
        node.dial();
        node.attached(1).await;
    }
    let dan = world.person("dan").await;
    let reply = dan
        .press("k1", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed");
    assert!(reply.created && reply.durable, "{reply:?}");
    let order = reply.order.expect("an order");
    assert_eq!(
        (order.kind.as_str(), order.person.as_str()),
        ("kill-slice", "dan")
    );
    assert_eq!(order.target, "princeton_codeen everywhere");
    let detail = dan.order_in(&order.id, v1::OrderState::Closed).await;
    let counts = detail.order.as_ref().expect("the order").counts.expect("counts");
    assert_eq!((counts.nodes, counts.killed, counts.proven), (2, 2, 2));
    assert!(
        detail
            .nodes
            .iter()
            .all(|node| node.answer.is_some() && node.answered_at_ms > 0),
        "{detail:?}"
    );
    for node in &nodes {
        let [command] = &node.told(1).await[..] else {
            panic!("one command")
        };
        assert_eq!(command.given, order.version);
        assert_eq!(command.now, order.version);
        assert!(
            matches!(&command.action, Some(v1::command::Action::Impose(hold)) if hold.slice == "princeton_codeen")
        );
    }
    let audit = world.audit().await;
    let of_order: Vec<_> = audit.iter().filter(|entry| entry.order == order.id).collect();
    assert_eq!(of_order[0].outcome, "allowed");
    assert_eq!(
        (of_order[0].person.as_str(), of_order[0].target.as_str()),
        ("dan", "princeton_codeen")
    );
    assert_eq!(of_order[1].outcome, "done");
    assert_eq!(of_order.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_obeys_when_it_returns() {
    let world = World::new(&["n1@princeton", "n2@princeton"]).await;
    let (here, mut away) = (world.node("n1"), world.node("n2"));
    here.dial();
    away.dial();
    here.attached(1).await;
    away.attached(1).await;
    away.hang_up();
    let alice = world.person("alice").await;
    until("the node to be seen leaving", || async {
        let node = alice
            .nodes()
            .get(v1::GetNodeRequest { node: "n2".into() })
            .await
            .expect("a node")
            .into_inner();
        (!node.node.expect("a node").attached).then_some(())
    })
    .await;
    let id = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed")
        .order
        .expect("an order")
        .id;
    let counts = until("the node that is there to answer", || async {
        let counts = alice
            .order(&id)
            .await
            .order
            .expect("the order")
            .counts
            .expect("counts");
        (counts.killed == 1).then_some(counts)
    })
    .await;
    assert_eq!((counts.nodes, counts.offline, counts.proven), (2, 1, 1));
    away.dial();
    let detail = alice.order_in(&id, v1::OrderState::Closed).await;
    assert_eq!(detail.order.expect("the order").counts.expect("counts").killed, 2);
    // Told once, before the sync, and the sync has the hold.
    assert_eq!(away.orders().len(), 1);
    assert_eq!(away.syncs().last().expect("a sync").holds.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_released_before_a_node_heard_of_it_is_superseded() {
    let world = World::new(&["n1@princeton"]).await;
    let alice = world.person("alice").await;
    let killed = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed")
        .order
        .expect("an order");
    let released = alice
        .press("r", release(What::Slice("princeton_codeen".into())))
        .await
        .expect("released")
        .order
        .expect("one");
    assert_eq!(released.holds, killed.holds);
    let node = world.node("n1");
    node.dial();
    let detail = alice.order_in(&killed.id, v1::OrderState::Closed).await;
    assert_eq!(detail.nodes[0].outcome(), Outcome::Superseded);
    assert_eq!(
        alice.order_in(&released.id, v1::OrderState::Closed).await.nodes[0].outcome(),
        Outcome::Released
    );
    let told = node.orders();
    assert!(
        matches!(&told[..], [command] if command.order == released.id),
        "{told:?}"
    );
    assert!(node.syncs()[0].holds.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_is_the_same_order_and_another_person_s_wish_is_another_hold() {
    let world = World::new(&["n1@princeton"]).await;
    let (dan, paula) = (world.person("dan").await, world.person("paula").await);
    let wish = || kill("princeton_codeen", fleet());
    let first = dan.press("k", wish()).await.expect("pressed");
    let again = dan.press("k", wish()).await.expect("the same");
    assert!(first.created && !again.created);
    assert_eq!(
        first.order.as_ref().map(|o| &o.id),
        again.order.as_ref().map(|o| &o.id)
    );
    let other = paula.press("k", wish()).await.expect("pressed");
    assert!(other.created);
    assert_ne!(
        first.order.as_ref().map(|o| &o.id),
        other.order.as_ref().map(|o| &o.id)
    );
    let holds = paula
        .orders()
        .holds(v1::ListHoldsRequest::default())
        .await
        .expect("holds")
        .into_inner()
        .holds;
    assert_eq!(holds.len(), 2);
    let presses = world
        .audit()
        .await
        .into_iter()
        .filter(|entry| entry.action == "kill-slice")
        .count();
    assert_eq!(presses, 2);
    // The key again, for something else.
    let refused = dan
        .press("k", freeze("princeton_codeen", fleet()))
        .await
        .expect_err("another wish");
    assert_eq!(code(&refused), "exists");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_of_several_holds_lifts_what_the_caller_may_and_names_the_rest() {
    let world = World::new(&["n1@princeton"]).await;
    let node = world.node("n1");
    node.dial();
    node.attached(1).await;
    let (dan, paula, alice) = (
        world.person("dan").await,
        world.person("paula").await,
        world.person("alice").await,
    );
    for (who, key) in [(&dan, "a"), (&paula, "b"), (&alice, "c")] {
        who.press(key, kill("princeton_codeen", fleet()))
            .await
            .expect("pressed");
    }
    let order = paula
        .press("r", release(What::Slice("princeton_codeen".into())))
        .await
        .expect("released")
        .order
        .expect("one");
    assert_eq!(order.holds.len(), 2, "support's stays");
    assert!(order.target.contains("still standing"), "{}", order.target);
    paula.order_in(&order.id, v1::OrderState::Closed).await;
    assert_eq!(
        node.told(5)
            .await
            .iter()
            .filter(|command| command.order == order.id)
            .count(),
        2
    );
    let left = alice
        .orders()
        .holds(v1::ListHoldsRequest::default())
        .await
        .expect("holds")
        .into_inner()
        .holds;
    assert_eq!(
        left.iter().map(|hold| hold.holder.as_str()).collect::<Vec<_>>(),
        ["alice"]
    );
    let refused = dan
        .press("r2", release(What::Hold(left[0].id.clone())))
        .await
        .expect_err("not theirs");
    assert_eq!(code(&refused), "refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_a_sliver_a_node_and_a_freeze() {
    let world = World::new(&["n1@princeton", "n2@mit"]).await;
    let nodes = [world.node("n1"), world.node("n2")];
    for node in &nodes {
        node.dial();
        node.attached(1).await;
    }
    let (ada, alice) = (world.person("ada").await, world.person("alice").await);
    for (key, wish, kind) in [
        ("1", kill("mit_chord", at_site("princeton")), "kill-slice"),
        ("2", kill("mit_chord", on_node("n1")), "kill-sliver"),
        ("3", freeze("mit_chord", on_node("n1")), "freeze-sliver"),
        ("4", kill("", on_node("n1")), "kill-node"),
        ("5", freeze("", on_node(&nodes[0].id.to_string())), "freeze-node"),
    ] {
        let order = ada.press(key, wish).await.expect(kind).order.expect("an order");
        assert_eq!(order.kind, kind);
        let detail = alice.order_in(&order.id, v1::OrderState::Closed).await;
        assert_eq!(detail.nodes.len(), 1, "{kind}");
        assert_eq!(detail.nodes[0].node_name, "n1");
    }
    assert!(nodes[1].orders().is_empty());
    let order = ada
        .press("6", release(What::Node("n1".into())))
        .await
        .expect("released")
        .order
        .expect("an order");
    assert_eq!(order.holds.len(), 2, "only those on the node itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_is_proven_by_another_boot_and_a_halt_needs_a_way_back() {
    let world = World::new(&["n1@princeton"]).await;
    let mut node = world.node("n1");
    node.dial();
    node.attached(1).await;
    let ada = world.person("ada").await;
    let reboot = v1::press_request::Wish::Reboot(v1::RebootWish { node: "n1".into() });
    let order = ada
        .press("r", reboot)
        .await
        .expect("pressed")
        .order
        .expect("an order");
    let detail = ada.order_in(&order.id, v1::OrderState::Answered).await;
    assert_eq!(detail.nodes[0].outcome(), Outcome::Accepted);
    node.reboot();
    node.dial();
    let detail = ada.order_in(&order.id, v1::OrderState::Closed).await;
    assert_eq!(detail.nodes[0].outcome(), Outcome::Rebooted);
    assert_eq!(node.orders().len(), 1, "not told again");

    let stop = |no_way_back| {
        v1::press_request::Wish::Stop(v1::StopWish {
            fleet: false,
            node: "n1".into(),
            no_way_back,
        })
    };
    let refused = ada.press("s", stop(false)).await.expect_err("no way back");
    assert_eq!(
        (refused.code(), code(&refused)),
        (tonic::Code::FailedPrecondition, "precondition")
    );
    let order = ada
        .press("s2", stop(true))
        .await
        .expect("pressed")
        .order
        .expect("an order");
    ada.order_in(&order.id, v1::OrderState::Closed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_never_go_down_however_many_press_at_once() {
    let world = World::new(&["n1@princeton"]).await;
    let node = world.node("n1");
    node.dial();
    node.attached(1).await;
    let (alice, otto) = (world.person("alice").await, world.person("otto").await);
    let mut presses = tokio::task::JoinSet::new();
    for n in 0..40 {
        let who = if n % 2 == 0 { alice.clone() } else { otto.clone() };
        presses.spawn(async move { who.press(&format!("k{n}"), kill("mit_chord", fleet())).await });
    }
    while let Some(pressed) = presses.join_next().await {
        pressed.expect("no panic").expect("pressed");
    }
    let told = node.told(40).await;
    let epochs: Vec<u64> = told
        .iter()
        .map(|command| command.now.expect("a version").epoch)
        .collect();
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
}
