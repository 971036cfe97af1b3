//! The audit is rewritten by somebody who owns the database, and found by what a node has kept.

use audit::{Draft, Entry, Hash, Head, Stated, seal};
use proto::v1::{self, SignedStatement, Witnessed};

use crate::approvals_by_hand::by_hand;
use crate::world::*;

fn entry(wire: v1::AuditEntry) -> Entry {
    let hash = |bytes: &[u8]| Hash::try_from(bytes).expect("a hash");
    let none = |text: String| if text.is_empty() { None } else { Some(text) };
    Entry {
        sequence: wire.sequence,
        previous: hash(&wire.previous),
        hash: hash(&wire.hash),
        said: Draft {
            at_ms: wire.at_ms,
            version: wire.version.expect("a version").into(),
            person: none(wire.person).map(|person| name(&person)),
            role: v1::Role::try_from(wire.role)
                .ok()
                .and_then(|role| role.checked().ok()),
            action: wire.action,
            target: wire.target,
            reason: wire.reason,
            evidence: wire.evidence,
            outcome: name(&wire.outcome),
            detail: wire.detail,
            order: none(wire.order).map(|order| name(&order)),
        },
    }
}

/// The last head that a node was sent.
async fn sent(node: &Sim) -> SignedStatement {
    until("an audit head", || async { node.heads().pop() }).await
}

fn place(statement: &SignedStatement) -> Head {
    Stated::decode(&statement.body).expect("a head").head
}

async fn alarms(world: &World, person: &str) -> Vec<String> {
    let person = world.person(person).await;
    let reply = person
        .people()
        .who_am_i(v1::WhoAmIRequest {})
        .await
        .expect("who")
        .into_inner();
    reply.alarms
}

async fn trouble(world: &World, node: &str) -> String {
    let alice = world.person("alice").await;
    let request = v1::GetNodeRequest { node: node.into() };
    let detail = alice.nodes().get(request).await.expect("a node").into_inner();
    detail.node.expect("a node").trouble
}

/// A controller with a node that has kept a head, stopped.
async fn witnessed() -> (World, Sim, SignedStatement) {
    let mut world = World::new(&["n1@princeton"]).await;
    let mut node = world.node("n1");
    // All of what furnishing did is in the head that a node gets when it attaches after the restart.
    world.stop().await;
    world.start().await;
    node.dial();
    let head = sent(&node).await;
    assert!(place(&head).sequence > 5, "{}", place(&head));
    node.hang_up();
    let node = node.reporting(|report| {
        report.witnessed = Some(Witnessed {
            head: Some(head.clone()),
            contradictions: Vec::new(),
        });
    });
    world.stop().await;
    (world, node, head)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_chain_raises_no_alarm_and_its_heads_can_be_collected() {
    let (mut world, node, head) = witnessed().await;
    world.start().await;
    world.enrol("n2@mit").await;
    node.dial();
    node.attached(2).await;
    let collected = |person: &'static str| {
        let world = &world;
        async move {
            let person = world.person(person).await;
            let mut stream = person
                .audit()
                .witnesses(v1::WitnessesRequest {})
                .await
                .expect("heads")
                .into_inner();
            let mut heads = Vec::new();
            while let Some(head) = stream.message().await.expect("a head") {
                heads.push(head);
            }
            heads
        }
    };
    let heads = until("the node's head", || async {
        let heads = collected("ada").await;
        (!heads.is_empty()).then_some(heads)
    })
    .await;
    assert_eq!(heads[0].node_name, "n1");
    assert_eq!(heads[0].trouble, "");
    assert_eq!(
        heads[0].witnessed.as_ref().and_then(|seen| seen.head.as_ref()),
        Some(&head)
    );
    assert!(collected("peter").await.is_empty(), "another site's");
    assert_eq!(alarms(&world, "alice").await, [""; 0]);
    let chain: Vec<Entry> = world.audit().await.into_iter().map(entry).collect();
    let found = audit::verify(&chain, None, &[place(&head)]).expect("whole");
    assert_eq!(found.witnesses, 1);
    // The head is worth something without any controller: with its root alone.
    let root = std::fs::read_to_string(world.state().join("ca.pem")).expect("the root");
    let roots = trust::Roots::from_pem(&root).expect("a root");
    trust::verify(&head, &roots, trust::Kind::AuditHead).expect("signed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_rewritten_to_its_end_is_found_by_a_nodes_head() {
    let (mut world, node, head) = witnessed().await;
    world.start().await;
    let chain: Vec<Entry> = world.audit().await.into_iter().map(entry).collect();
    world.stop().await;
    // Support with root on the machine: the second entry never said that, and every hash after it is made anew.
    let mut end = Head::GENESIS;
    let mut edits = Vec::new();
    for old in &chain {
        let mut said = old.said.clone();
        if old.sequence == 2 {
            said.target = "person mallory".into();
        }
        let new = seal(&end, said);
        end = new.head();
        edits.push(format!(
            "UPDATE audit SET target = '{}', previous = x'{}', hash = x'{}' WHERE sequence = {}",
            new.said.target.replace('\'', "''"),
            new.previous,
            new.hash,
            new.sequence
        ));
    }
    by_hand(&world, &edits.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.start().await;
    // The chain is right in itself, and the controller does not know better.
    let forged: Vec<Entry> = world.audit().await.into_iter().map(entry).collect();
    audit::verify(&forged, None, &[]).expect("right in itself");
    assert_eq!(alarms(&world, "alice").await, [""; 0]);
    // Until a node comes by.
    node.dial();
    let heard = until("the alarm", || async {
        let alarms = alarms(&world, "alice").await;
        (!alarms.is_empty()).then_some(alarms)
    })
    .await;
    assert!(
        heard[0].contains("REWRITTEN") && heard[0].contains("n1"),
        "{heard:?}"
    );
    assert!(
        alarms(&world, "ada").await.is_empty(),
        "only who looks after everything"
    );
    until("node show to say it", || async {
        trouble(&world, "n1")
            .await
            .contains("not this controller's")
            .then_some(())
    })
    .await;
    let audit = world.audit().await;
    let entry_of_it = audit
        .iter()
        .find(|entry| entry.action == "audit-witness")
        .expect("audited");
    assert_eq!(entry_of_it.outcome, "failed");
    let chain: Vec<Entry> = audit.into_iter().map(entry).collect();
    audit::verify(&chain, None, &[place(&head)]).expect_err("anybody with the node's head finds it");
    // Said again after a restart, as long as the node says it.
    world.stop().await;
    world.start().await;
    node.attached(3).await;
    until("the alarm again", || async {
        alarms(&world, "alice").await.pop()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_was_cut_off_is_found_by_a_nodes_head() {
    let (mut world, node, head) = witnessed().await;
    let cut = format!(
        "DELETE FROM audit WHERE sequence >= {}",
        place(&head).sequence - 2
    );
    by_hand(&world, &[&cut]).await;
    world.start().await;
    node.dial();
    let heard = until("the alarm", || async { alarms(&world, "alice").await.pop() }).await;
    assert!(heard.contains("the chain ends at"), "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_changed_under_a_running_controller_is_found_by_itself() {
    let world = World::new(&["n1@princeton"]).await;
    let node = world.node("n1");
    node.dial();
    let head = sent(&node).await;
    let last = place(&head).sequence;
    by_hand(
        &world,
        &[&format!(
            "UPDATE audit SET hash = zeroblob(32) WHERE sequence >= {last}"
        )],
    )
    .await;
    let heard = until("the alarm", || async { alarms(&world, "alice").await.pop() }).await;
    assert!(heard.contains("changed while the controller ran"), "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lies_about_what_it_saw_raises_no_alarm() {
    let (mut world, node, head) = witnessed().await;
    world.start().await;
    let mut forged = head;
    forged.body[8] ^= 1;
    let node = node.reporting(|report| {
        report.witnessed = Some(Witnessed {
            head: Some(forged.clone()),
            contradictions: vec![v1::Contradiction {
                earlier: Some(forged.clone()),
                later: None,
            }],
        });
    });
    node.dial();
    until("node show to say it", || async {
        trouble(&world, "n1").await.contains("never signed").then_some(())
    })
    .await;
    assert_eq!(alarms(&world, "alice").await, [""; 0]);
    assert!(node.heads().iter().all(|head| *head != forged));
}
