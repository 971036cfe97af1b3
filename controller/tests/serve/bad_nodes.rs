//! Nodes that lie, babble, or say nothing.

use std::time::Duration;

use proto::v1::command::Action;
use proto::v1::{self, Answer, Outcome};

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_never_answers_holds_up_nobody() {
    let world = World::new(&["n1@princeton", "n2@princeton"]).await;
    let mute = world.node("n1").answering(|_| Vec::new());
    let good = world.node("n2");
    mute.dial();
    good.dial();
    mute.attached(1).await;
    good.attached(1).await;
    let alice = world.person("alice").await;
    let id = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed")
        .order
        .expect("one")
        .id;
    mute.told(1).await;
    let detail = until("the good node's result", || async {
        let detail = alice.order(&id).await;
        (detail.order.as_ref()?.counts?.killed == 1).then_some(detail)
    })
    .await;
    let counts = detail.order.expect("the order").counts.expect("counts");
    assert_eq!((counts.sent, counts.killed), (1, 1));
    // It is told again when it comes back.
    let mut mute = mute;
    mute.hang_up();
    mute.dial();
    mute.told(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_for_others_unknown_orders_and_twice_change_nothing() {
    let world = World::new(&["n1@princeton", "n2@mit"]).await;
    let alice = world.person("alice").await;
    let own = alice
        .press("k", kill("princeton_codeen", on_node("n1")))
        .await
        .expect("pressed")
        .order
        .expect("one")
        .id;
    let foreign = alice
        .press("l", kill("princeton_codeen", on_node("n2")))
        .await
        .expect("pressed")
        .order
        .expect("one")
        .id;
    let liar = world.node("n1").answering({
        let foreign = foreign.clone();
        move |command| {
            if command.order.is_empty() {
                return obedient(command);
            }
            let claim = |order: &str, outcome| Answer {
                order: order.into(),
                ..answer(command, outcome, true)
            };
            vec![
                claim(&foreign, Outcome::Killed),
                claim("01930000-0000-7000-8000-000000000000", Outcome::Killed),
                claim("not an order", Outcome::Killed),
                answer(command, Outcome::Killed, true),
                answer(command, Outcome::Failed, false),
                answer(command, Outcome::Killed, true),
            ]
        }
    });
    liar.dial();
    let detail = alice.order_in(&own, v1::OrderState::Closed).await;
    assert_eq!(detail.nodes[0].outcome(), Outcome::Killed);
    let detail = alice.order(&foreign).await;
    assert_eq!(
        detail.nodes[0].outcome(),
        Outcome::Offline,
        "another node's word counted"
    );
    let audit = world.audit().await;
    assert_eq!(audit.iter().filter(|entry| entry.order == own).count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_a_failure_that_says_so() {
    let world = World::new(&["n1@princeton"]).await;
    let node = world.node("n1").answering(|command| match &command.action {
        Some(Action::Impose(_)) => vec![Answer {
            outcome: 99,
            ..answer(command, Outcome::Killed, true)
        }],
        Some(Action::Release(_)) => vec![answer(command, Outcome::Rebooted, true)],
        _ => obedient(command),
    });
    node.dial();
    node.attached(1).await;
    let alice = world.person("alice").await;
    let id = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed")
        .order
        .expect("one")
        .id;
    let detail = alice.order_in(&id, v1::OrderState::Answered).await;
    assert_eq!(detail.nodes[0].outcome(), Outcome::Failed);
    assert!(
        detail.nodes[0]
            .answer
            .as_ref()
            .expect("its words")
            .detail
            .contains("unknown outcome 99")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_speaks_for_another_or_reports_nonsense_is_not_attached() {
    let world = World::new(&["n1@princeton", "n2@princeton", "n3@princeton"]).await;
    let victim = world.node("n2").id.to_string();
    let liar = world.node("n1").reporting(|report| report.node = victim);
    let nonsense = world
        .node("n3")
        .reporting(|report| report.boot_id = "x".repeat(1_000));
    liar.dial();
    nonsense.dial();
    let alice = world.person("alice").await;
    let id = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed")
        .order
        .expect("one")
        .id;
    let good = world.node("n2");
    good.dial();
    until("the honest node's result", || async {
        (alice.order(&id).await.order?.counts?.killed == 1).then_some(())
    })
    .await;
    assert!(liar.syncs().is_empty() && nonsense.syncs().is_empty());
    let counts = alice
        .order(&id)
        .await
        .order
        .expect("the order")
        .counts
        .expect("counts");
    assert_eq!((counts.offline, counts.killed), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_answer_is_cut_and_kept() {
    let world = World::new(&["n1@princeton"]).await;
    let node = world.node("n1").answering(|command| {
        let mut answers = obedient(command);
        answers[0].detail = "d".repeat(100_000);
        let process = v1::Process {
            command_line: "c".repeat(1_000),
            ..Default::default()
        };
        answers[0].slivers = vec![v1::SliverProof {
            slice: "princeton_codeen".into(),
            evidence: Some(v1::Evidence {
                processes: vec![process; 500],
                incomplete: String::new(),
            }),
            ..Default::default()
        }];
        answers
    });
    node.dial();
    node.attached(1).await;
    let alice = world.person("alice").await;
    let id = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed")
        .order
        .expect("one")
        .id;
    let detail = alice.order_in(&id, v1::OrderState::Closed).await;
    let answer = detail.nodes[0].answer.as_ref().expect("its words");
    assert_eq!(answer.detail.len(), 1_000);
    assert_eq!(answer.slivers.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_takes_nothing_is_cut_and_its_node_obeys_when_it_returns() {
    let world = World::new(&["n1@princeton", "n2@princeton"]).await;
    // Blocks for good at the first order: nothing is read from the link any more.
    let stuck = world.node("n1").answering(|command| {
        if !command.order.is_empty() {
            std::thread::park_timeout(Duration::from_secs(600));
        }
        obedient(command)
    });
    let good = world.node("n2");
    good.dial();
    good.attached(1).await;
    // The stuck node gets a runtime of its own, so that it stops nobody else here.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let dialling = stuck.clone();
    runtime.spawn(async move { dialling.dial().await });
    stuck.attached(1).await;
    let alice = world.person("alice").await;
    let attached = async || {
        let node = alice
            .nodes()
            .get(v1::GetNodeRequest { node: "n1".into() })
            .await
            .expect("a node")
            .into_inner();
        node.node.expect("the node").attached
    };
    let mut pressed = 0;
    while attached().await && pressed < 2_000 {
        let request = v1::PressRequest {
            idempotency_key: format!("k{pressed}"),
            reason: "r".repeat(1_000),
            evidence: "e".repeat(1_000),
            wish: Some(kill("princeton_codeen", fleet())),
        };
        alice.orders().press(request).await.expect("pressed");
        pressed += 1;
    }
    assert!(pressed < 2_000, "the stuck link was never cut");
    good.told(pressed).await;
    runtime.shutdown_background();
    let again = world.node("n1");
    again.dial();
    assert_eq!(again.told(pressed).await.len(), pressed);
}
