//! Watching an order.

use proto::v1::command::Action;
use proto::v1::{self, OrderEvent, Outcome};

use crate::world::*;

async fn next(stream: &mut tonic::Streaming<OrderEvent>) -> Option<OrderEvent> {
    tokio::time::timeout(CAP, stream.message())
        .await
        .expect("in time")
        .expect("an event")
}

fn watching(id: &str, until_settled: bool) -> v1::WatchOrderRequest {
    v1::WatchOrderRequest {
        id: id.into(),
        until_settled,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_all_of_it_then_what_changes_then_the_last() {
    let world = World::new(&["n1@princeton", "n2@princeton", "n3@princeton"]).await;
    let quick = world.node("n1");
    let slow = world.node("n2").answering(|command| match &command.action {
        Some(Action::Impose(_)) => vec![answer(command, Outcome::Killed, false)],
        _ => obedient(command),
    });
    quick.dial();
    slow.dial();
    quick.attached(1).await;
    slow.attached(1).await;
    let alice = world.person("alice").await;
    let id = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed")
        .order
        .expect("one")
        .id;

    let mut stream = alice
        .orders()
        .watch(watching(&id, false))
        .await
        .expect("watches")
        .into_inner();
    let first = next(&mut stream).await.expect("the whole");
    assert_eq!(first.changed.len(), 3);
    assert!(!first.last);
    let mut nodes: std::collections::BTreeMap<String, v1::NodeResult> = Default::default();
    let mut take = |event: OrderEvent| {
        for result in event.changed {
            nodes.insert(result.node_name.clone(), result);
        }
        nodes.clone()
    };
    let mut now = take(first);
    while now["n1"].outcome() != Outcome::Killed || now["n2"].outcome() != Outcome::Killed {
        now = take(next(&mut stream).await.expect("more"));
    }
    assert!(now["n1"].proven && !now["n2"].proven);
    assert!(now["n1"].answer.is_some() && now["n2"].answer.is_some());
    assert_eq!(now["n3"].outcome(), Outcome::Offline);

    // Settled: everybody who is there has answered.
    let mut settled = alice
        .orders()
        .watch(watching(&id, true))
        .await
        .expect("watches")
        .into_inner();
    let event = next(&mut settled).await.expect("the whole");
    assert!(event.last);
    assert!(next(&mut settled).await.is_none());

    // The one that was away comes, and goes through its states to the end.
    let late = world.node("n3");
    late.dial();
    while now["n3"].outcome() != Outcome::Killed {
        now = take(next(&mut stream).await.expect("more"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_with_the_order() {
    let world = World::new(&["n1@princeton"]).await;
    let alice = world.person("alice").await;
    let id = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed")
        .order
        .expect("one")
        .id;
    let mut stream = alice
        .orders()
        .watch(watching(&id, false))
        .await
        .expect("watches")
        .into_inner();
    assert_eq!(
        next(&mut stream).await.expect("the whole").changed[0].outcome(),
        Outcome::Offline
    );
    let node = world.node("n1");
    node.dial();
    let mut last = None;
    while let Some(event) = next(&mut stream).await {
        assert!(last.is_none(), "something after the last event");
        if event.last {
            last = Some(event);
        }
    }
    let last = last.expect("a last event");
    assert_eq!(last.order.expect("the order").state(), v1::OrderState::Closed);
    assert_eq!(last.changed[0].outcome(), Outcome::Killed);
    assert!(last.changed[0].proven && last.changed[0].answer.is_some());
    // Watching what is done already.
    let mut again = alice
        .orders()
        .watch(watching(&id, false))
        .await
        .expect("watches")
        .into_inner();
    let event = next(&mut again).await.expect("the whole");
    assert!(event.last && event.changed.len() == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_and_does_not_read_holds_up_nobody() {
    let world = World::new(&["n1@princeton"]).await;
    let node = world.node("n1");
    node.dial();
    node.attached(1).await;
    let alice = world.person("alice").await;
    let first = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed")
        .order
        .expect("one")
        .id;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(
            alice
                .orders()
                .watch(watching(&first, false))
                .await
                .expect("watches"),
        );
    }
    for n in 0..20 {
        let id = alice
            .press(&format!("k{n}"), kill("mit_chord", fleet()))
            .await
            .expect("pressed")
            .order
            .expect("one")
            .id;
        idle.push(alice.orders().watch(watching(&id, false)).await.expect("watches"));
    }
    node.told(21).await;
    let request = v1::ListOrdersRequest {
        open_only: true,
        ..Default::default()
    };
    alice.orders().list(request).await.expect("orders");
}
