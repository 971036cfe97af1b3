//! Results: many at once, merged, counted.

use controller::store::{NewNode, OrderState, Store, StoreError};
use proto::v1::{Answer, Evidence, Outcome, Process, SliverProof};
use proto::{NodeId, OrderId, Scope};

use crate::common::*;

#[tokio::test]
async fn states_and_counts_follow_the_answers() {
    let place = Place::new();
    let store = place.create().await;
    add_site(&store, "princeton").await;
    let a = add_node(&store, "a", "princeton").await;
    let b = add_node(&store, "b", "princeton").await;
    let order = press(&store, &kill("k", "princeton_codeen", Scope::Fleet, 1))
        .await
        .id;

    let done = store
        .record_results(&[result(order, a, Outcome::Killed, false)])
        .await
        .expect("stored");
    assert_eq!(
        (done.orders[0].state, done.orders[0].counts.killed),
        (OrderState::Open, 1)
    );
    // One says partial, then killed, then proves it, all in one batch; the other finds nothing on a second look.
    let batch = [
        result(order, b, Outcome::Partial, false),
        result(order, b, Outcome::Killed, false),
        result(order, a, Outcome::AlreadyDead, false),
        result(order, b, Outcome::AlreadyDead, true),
    ];
    let done = store.record_results(&batch).await.expect("stored");
    let counts = done.orders[0].counts;
    assert_eq!(
        (
            done.orders[0].state,
            counts.killed,
            counts.already_dead,
            counts.partial
        ),
        (OrderState::Answered, 2, 0, 0)
    );
    assert_eq!(counts.proven, 1);
    let rows = store.results(order).await.expect("rows");
    let row = rows.iter().find(|row| row.node == b).expect("b's");
    assert_eq!((row.outcome, row.proven), (Outcome::Killed, true));
    assert_eq!(
        row.answer.as_ref().expect("kept").outcome,
        i32::from(Outcome::Killed),
        "the kill's own answer"
    );

    let done = store
        .record_results(&[result(order, a, Outcome::AlreadyDead, true)])
        .await
        .expect("stored");
    assert_eq!(
        (done.orders[0].state, done.orders[0].counts.proven),
        (OrderState::Closed, 2)
    );
    // Nothing takes a proof back.
    for late in [Outcome::Failed, Outcome::Partial, Outcome::Killed] {
        let done = store
            .record_results(&[result(order, a, late, false)])
            .await
            .expect("passed over");
        assert!(done.orders.is_empty() && done.unknown.is_empty());
    }
    let order = store.order(order).await.expect("there");
    assert_eq!(
        (order.state, order.counts.killed, order.counts.failed),
        (OrderState::Closed, 2, 0)
    );
    assert!(store.open_orders().await.expect("open").is_empty());
}

#[tokio::test]
async fn strangers_are_returned_and_the_rest_is_stored() {
    let place = Place::new();
    let store = place.create().await;
    add_site(&store, "princeton").await;
    let a = add_node(&store, "a", "princeton").await;
    let order = press(&store, &kill("k", "princeton_codeen", Scope::Fleet, 1))
        .await
        .id;
    let (stranger, unheard) = (NodeId::random(), OrderId::new());
    let batch = [
        result(order, stranger, Outcome::Killed, true),
        result(order, a, Outcome::Killed, true),
        result(unheard, a, Outcome::Killed, true),
        result(unheard, a, Outcome::Killed, true),
    ];
    let mut done = store.record_results(&batch).await.expect("stored");
    done.unknown.sort();
    let mut expected = vec![(order, stranger), (unheard, a)];
    expected.sort();
    assert_eq!(done.unknown, expected);
    assert_eq!(done.orders[0].counts.killed, 1);
    assert!(store.results(unheard).await.expect("none").is_empty());
    for odd in [
        Outcome::Unspecified,
        Outcome::Pending,
        Outcome::Offline,
        Outcome::Sent,
    ] {
        let error = store
            .record_results(&[result(order, a, odd, false)])
            .await
            .expect_err("no answer");
        assert!(
            matches!(error, StoreError::Invalid { what: "outcome", .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_is_rebuilt_at_start_carries_no_evidence() {
    let place = Place::new();
    let store = place.create().await;
    add_site(&store, "princeton").await;
    let a = add_node(&store, "a", "princeton").await;
    let order = press(&store, &kill("k", "princeton_codeen", Scope::Fleet, 1))
        .await
        .id;
    let mut row = result(order, a, Outcome::Killed, false);
    row.answer = Some(proof(order));
    store
        .record_results(std::slice::from_ref(&row))
        .await
        .expect("stored");
    assert_eq!(store.results(order).await.expect("rows"), [row]);
    let (_, rows) = store.open_orders().await.expect("open").remove(0);
    let answer = rows[0].answer.as_ref().expect("an answer");
    assert_eq!(
        (answer.slivers[0].killed, answer.slivers[0].evidence.as_ref()),
        (Some(3), None)
    );
}

/// An answer of the size that a kill of a few processes gives.
fn proof(order: OrderId) -> Answer {
    let process = Process {
        pid: 4_711,
        comm: "stress".into(),
        command_line: "stress --cpu 1".into(),
        ..Process::default()
    };
    let sliver = SliverProof {
        slice: "princeton_codeen".into(),
        cgroup: "redbutton.slice/princeton_codeen".into(),
        outcome: Outcome::Killed.into(),
        killed: Some(3),
        evidence: Some(Evidence {
            processes: vec![process; 3],
            incomplete: String::new(),
        }),
        ..SliverProof::default()
    };
    Answer {
        order: order.to_string(),
        outcome: Outcome::Killed.into(),
        slivers: vec![sliver],
        ..Answer::default()
    }
}

#[tokio::test]
async fn ten_thousand_results_are_one_batch() {
    const NODES: usize = 10_000;
    let place = Place::new();
    let store = place.create().await;
    add_site(&store, "princeton").await;
    let mut nodes = Vec::new();
    // Straight into the table: enrolling is not what is tested, and each would be an fsync.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(place.path());
    let mut raw = sqlx::ConnectOptions::connect(&options).await.expect("open");
    sqlx::query("BEGIN").execute(&mut raw).await.expect("begun");
    for n in 0..NODES {
        let node = NewNode {
            id: NodeId::random(),
            name: name(&format!("node-{n}")),
            site: name("princeton"),
        };
        sqlx::query("INSERT INTO nodes (id, name, site, enrolled_incarnation, enrolled_epoch, enrolled_at_ms) VALUES (?, ?, ?, 1, 1, 0)")
            .bind(node.id.uuid().as_bytes().to_vec())
            .bind(node.name.to_string())
            .bind(node.site.to_string())
            .execute(&mut raw)
            .await
            .expect("inserted");
        nodes.push(node.id);
    }
    sqlx::query("COMMIT").execute(&mut raw).await.expect("committed");

    for (round, epoch) in (1..=3).enumerate() {
        let order = press(
            &store,
            &kill(&format!("{round}"), "princeton_codeen", Scope::Fleet, epoch),
        )
        .await;
        assert_eq!(order.counts.nodes as usize, NODES);
        let answer = proof(order.id);
        let rows: Vec<_> = nodes
            .iter()
            .map(|node| {
                let mut row = result(order.id, *node, Outcome::Killed, true);
                row.answer = Some(answer.clone());
                row
            })
            .collect();
        let done = store.record_results(&rows).await.expect("stored");
        assert_eq!(
            (done.orders[0].state, done.orders[0].counts.killed as usize),
            (OrderState::Closed, NODES)
        );
        assert_eq!(done.orders[0].counts.proven as usize, NODES);
        assert_eq!(
            store.results(order.id).await.expect("rows")[NODES - 1]
                .answer
                .as_ref(),
            Some(&answer)
        );
    }
}
