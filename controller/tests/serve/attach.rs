//! Nodes come, go and come back.

use proto::bundle::Bundle;
use proto::v1::{self, release_wish::What};
use proto::{HoldId, NodeId};
use time::OffsetDateTime;

use crate::world::*;

async fn node_of(who: &Person, node: &str) -> v1::NodeDetail {
    who.nodes()
        .get(v1::GetNodeRequest { node: node.into() })
        .await
        .expect("a node")
        .into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_is_kept_also_when_the_node_has_left() {
    let mut world = World::new(&["n1@princeton"]).await;
    let mut node = world.node("n1").reporting(|report| {
        report.slivers = vec![v1::SliverState {
            slice: "princeton_codeen".into(),
            activity: v1::SliverActivity::Running.into(),
            ..v1::SliverState::default()
        }];
    });
    node.dial();
    node.attached(1).await;
    let alice = world.person("alice").await;
    let detail = node_of(&alice, "n1").await;
    let shown = detail.node.expect("the node");
    assert!(shown.attached && shown.last_seen_ms > 0 && shown.kernel == "6.18-simulated");
    let dan = world.person("dan").await;
    let slice = async || {
        let request = v1::GetSliceRequest {
            name: "princeton_codeen".into(),
        };
        dan.slices().get(request).await.expect("the slice").into_inner()
    };
    let detail = slice().await;
    assert_eq!(detail.slice.expect("the slice").running_on, 1);
    assert_eq!(detail.slivers[0].node_name, "n1");
    node.hang_up();
    until("the node to leave", || async {
        (!node_of(&alice, "n1").await.node?.attached).then_some(())
    })
    .await;
    assert_eq!(slice().await.slice.expect("the slice").running_on, 0);
    world.stop().await;
    world.start().await;
    let alice = world.person("alice").await;
    let detail = node_of(&alice, "n1").await;
    assert_eq!(detail.report.expect("the last report").slivers.len(), 1);
    assert!(detail.node.expect("the node").last_seen_ms > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_the_controller_nothing_is_lost() {
    let mut world = World::new(&["n1@princeton", "n2@princeton"]).await;
    let here = world.node("n1");
    here.dial();
    here.attached(1).await;
    let alice = world.person("alice").await;
    let id = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed")
        .order
        .expect("one")
        .id;
    until("the first node's result", || async {
        (alice.order(&id).await.order?.counts?.killed == 1).then_some(())
    })
    .await;
    let epoch = alice
        .order(&id)
        .await
        .order
        .expect("the order")
        .version
        .expect("a version")
        .epoch;
    world.stop().await;
    world.start().await;
    here.attached(2).await;
    assert_eq!(
        here.orders().len(),
        1,
        "told again though its result was recorded"
    );
    assert_eq!(here.syncs()[1].holds.len(), 1);
    let away = world.node("n2");
    away.dial();
    let alice = world.person("alice").await;
    let detail = alice.order_in(&id, v1::OrderState::Closed).await;
    assert_eq!(detail.order.expect("the order").counts.expect("counts").proven, 2);
    let now = away.told(1).await[0].now.expect("a version").epoch;
    assert!(now > epoch, "versions went down: {now} after {epoch}");
    let again = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("the same");
    assert!(!again.created);
    let audit = world.audit().await;
    assert_eq!(
        audit
            .iter()
            .filter(|entry| entry.order == id && entry.outcome == "allowed")
            .count(),
        1
    );
    assert_eq!(
        audit
            .iter()
            .filter(|entry| entry.order == id && entry.outcome == "done")
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_learns_what_was_released_and_keeps_what_nobody_knows() {
    let world = World::new(&["n1@princeton"]).await;
    let alice = world.person("alice").await;
    let hold = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed")
        .order
        .expect("one")
        .holds[0]
        .id
        .clone();
    alice
        .press("r", release(What::Hold(hold.clone())))
        .await
        .expect("released");
    let strange = HoldId::new().to_string();
    let holds = vec![hold.clone(), strange.clone()];
    let node = world
        .node("n1")
        .reporting(|report| report.holds.clone_from(&holds))
        .answering({
            let strange = strange.clone();
            move |command| {
                let mut answers = obedient(command);
                if command.order.is_empty() {
                    answers[0].holds = vec![strange.clone()];
                }
                answers
            }
        });
    node.dial();
    node.attached(1).await;
    assert_eq!(node.syncs()[0].released, [hold]);
    let trouble = until("the strange hold to be shown", || async {
        let node = node_of(&alice, "n1").await.node?;
        node.trouble.contains(&strange).then_some(node.trouble)
    })
    .await;
    assert!(trouble.contains("does not know"), "{trouble}");
    until("the audit to have it", || async {
        world
            .audit()
            .await
            .iter()
            .any(|entry| entry.detail.contains(&strange))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_never_enrolled_is_not_attached() {
    let world = World::new(&["n1@princeton"]).await;
    let authority =
        controller::pki::Authority::open(&world.state(), OffsetDateTime::now_utc()).expect("opens");
    let ca = authority.ca();
    let id = NodeId::random();
    let issued = ca
        .node(
            id,
            &name("ghost"),
            controller::pki::NODE_LIFE,
            OffsetDateTime::now_utc(),
        )
        .expect("issued");
    let ghost = Bundle {
        format: Bundle::FORMAT,
        identity: issued.identity.to_string(),
        name: "ghost".into(),
        controllers: vec![format!("localhost:{}", world.daemons.port())],
        ca: ca.pem().to_owned(),
        certificate: issued.certificate,
        key: issued.key,
    };
    std::fs::write(world.dir.path().join("ghost.bundle"), ghost.to_text()).expect("written");
    let ghost = world.node("ghost");
    let honest = world.node("n1");
    let dialling = ghost.dial();
    honest.dial();
    honest.attached(1).await;
    assert!(ghost.syncs().is_empty() && !dialling.is_finished());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_and_journal_come_from_the_node_or_say_since_when_it_is_away() {
    let world = World::new(&["n1@princeton", "n2@princeton"]).await;
    let node = world.node("n1");
    node.dial();
    node.attached(1).await;
    let (ada, dan) = (world.person("ada").await, world.person("dan").await);
    let ask = |node: &str, slice: &str| v1::NodeProcessesRequest {
        node: node.into(),
        slice: slice.into(),
        limit: 0,
    };
    let all = ada
        .nodes()
        .processes(ask("n1", ""))
        .await
        .expect("processes")
        .into_inner();
    assert_eq!(all.processes.len(), 2);
    let own = dan
        .nodes()
        .processes(ask("n1", "princeton_codeen"))
        .await
        .expect("processes")
        .into_inner();
    assert_eq!(own.processes.len(), 1, "the node said more than was asked");
    for refused in [ask("n1", ""), ask("n1", "mit_chord"), ask("n9", "")] {
        let status = dan.nodes().processes(refused).await.expect_err("refused");
        assert_eq!(code(&status), "refused");
    }
    let away = ada.nodes().processes(ask("n2", "")).await.expect_err("away");
    assert_eq!(code(&away), "unreachable");
    assert!(away.message().contains("never seen"), "{}", away.message());
    let journal = |node: &str| v1::NodeJournalRequest {
        node: node.into(),
        ..Default::default()
    };
    let mut lines = ada
        .nodes()
        .journal(journal("n1"))
        .await
        .expect("a journal")
        .into_inner();
    assert_eq!(
        lines.message().await.expect("lines").expect("some").lines,
        ["a line"]
    );
    assert_eq!(
        code(&dan.nodes().journal(journal("n1")).await.expect_err("refused")),
        "refused"
    );
}
