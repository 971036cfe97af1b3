//! Links that die, and what comes after them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use link::{
    Backoff, DialConfig, Dialer, Ended, Generation, Link, LinkConfig, LinkState, ListenConfig, Registry,
    ServeConfig, attach,
};
use proto::Identity;
use proto::v1;
use proto::v1::slivers_client::SliversClient;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;

use crate::common::*;

const SHORT: Duration = Duration::from_millis(200);

fn impatient() -> DialConfig {
    DialConfig {
        serve: ServeConfig {
            keepalive_interval: SHORT,
            keepalive_timeout: SHORT,
            ..ServeConfig::default()
        },
        backoff: Backoff {
            base: Duration::from_millis(20),
            cap: Duration::from_millis(100),
        },
        ..DialConfig::default()
    }
}

/// What a dialler reported.
#[derive(Clone, Default)]
struct States(Arc<Mutex<Vec<LinkState>>>);

impl States {
    fn all(&self) -> Vec<LinkState> {
        self.0.lock().expect("states").clone()
    }

    fn attached(&self) -> usize {
        self.all()
            .iter()
            .filter(|s| matches!(s, LinkState::Attached { .. }))
            .count()
    }

    fn failures(&self) -> Vec<(u32, String)> {
        self.all()
            .into_iter()
            .filter_map(|s| match s {
                LinkState::BackingOff { failures, error, .. } => Some((failures, error)),
                _ => None,
            })
            .collect()
    }
}

fn dial(bundle: &proto::bundle::Bundle, node: &Node, config: DialConfig) -> (States, DropGuard) {
    let dialer = Dialer::new(bundle, config).expect("bundle");
    let (states, stop, routes) = (States::default(), CancellationToken::new(), node.routes());
    let (seen, guard) = (states.clone(), stop.clone().drop_guard());
    tokio::spawn(async move {
        dialer
            .run(routes, stop, |state| seen.0.lock().expect("states").push(state))
            .await;
    });
    (states, guard)
}

type Links = Arc<Registry<Identity, Link>>;

/// A controller as small as can be: attaches, asks for the report, registers, and takes out what ended.
async fn control(mut door: link::Acceptor, links: Links, config: LinkConfig) {
    while let Some(accepted) = door.accept().await {
        let links = links.clone();
        tokio::spawn(async move {
            let link = attach(accepted, config).await.expect("attach");
            let mut client = SliversClient::with_origin(link.clone(), Link::origin());
            if client.report(v1::ReportRequest {}).await.is_ok() {
                let identity = link.peer().identity.clone();
                let (generation, _old): (Generation, _) = links.insert(identity.clone(), link.clone());
                link.closed().await;
                links.remove(&identity, generation);
            }
        });
    }
}

fn node_identity() -> Identity {
    NODE.parse().expect("identity")
}

/// The path swallows everything; the controller's own keepalive would notice in an hour. The node notices, dials
/// again, and its new link frees whoever waits on the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_link_replaces_the_frozen_one_and_frees_its_callers() {
    let (pki, node, links) = (Pki::new("ca"), Node::new("n"), Links::default());
    let door = pki.controller(ListenConfig::default());
    let relay = Relay::to(door.local_addr()).await;
    let patient = LinkConfig {
        keepalive_interval: NEVER,
        ..LinkConfig::default()
    };
    let controller = tokio::spawn(control(door, links.clone(), patient));
    let (states, _stop) = dial(&pki.node_bundle(relay.address), &node, impatient());

    until("the first link", || links.get(&node_identity()).is_some()).await;
    let old = links.get(&node_identity()).expect("registered");
    let mut stuck = SliversClient::with_origin(old.clone(), Link::origin());
    let stuck = tokio::spawn(async move { stuck.processes(v1::ProcessesRequest::default()).await });
    until("a call is under way", || node.running() == 1).await;

    relay.freeze();
    until("the second link", || states.attached() == 2).await;
    let status = within("the stuck call", stuck)
        .await
        .expect("task")
        .expect_err("its link was cut");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(within("the old link", old.closed()).await, Ended::Cut);
    until("the new link", || {
        links.get(&node_identity()).is_some_and(|link| !link.is_closed())
    })
    .await;
    let new = links.get(&node_identity()).expect("registered");
    let mut client = SliversClient::with_origin(new, Link::origin());
    within("a call", client.report(v1::ReportRequest {}))
        .await
        .expect("the new link carries calls");
    assert_eq!(links.len(), 1);
    let failures = states.failures();
    assert!(failures[0].1.contains("silent"), "{failures:?}");
    controller.abort();
}

/// The other way round: the controller notices by its own pings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_controller_notices_a_frozen_path_by_itself() {
    let (pki, node) = (Pki::new("ca"), Node::new("n"));
    let mut door = pki.controller(ListenConfig::default());
    let relay = Relay::to(door.local_addr()).await;
    let patient = ServeConfig {
        keepalive_interval: NEVER,
        ..ServeConfig::default()
    };
    let (_states, _stop) = dial(
        &pki.node_bundle(relay.address),
        &node,
        DialConfig {
            serve: patient,
            ..impatient()
        },
    );
    let accepted = within("accept", door.accept()).await.expect("acceptor");
    let config = LinkConfig {
        keepalive_interval: SHORT,
        keepalive_timeout: SHORT,
        ..LinkConfig::default()
    };
    let link = attach(accepted, config).await.expect("attach");
    let mut client = SliversClient::with_origin(link.clone(), Link::origin());
    within("Report", client.report(v1::ReportRequest {}))
        .await
        .expect("Report");
    // Idle over several pings: an idle link is not a dead one.
    let idle = tokio::time::timeout(SHORT * 6, link.closed()).await;
    assert!(idle.is_err(), "an idle link ended: {idle:?}");
    let call = tokio::spawn(async move { client.processes(v1::ProcessesRequest::default()).await });
    until("the call runs", || node.running() == 1).await;
    relay.freeze();
    assert_eq!(within("the end", link.closed()).await, Ended::Silent);
    let status = within("the call", call)
        .await
        .expect("task")
        .expect_err("the link is dead");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[tokio::test]
async fn a_controller_that_drops_us_at_once_is_not_hammered() {
    let (pki, node) = (Pki::new("ca"), Node::new("n"));
    let mut door = pki.controller(ListenConfig::default());
    let (states, _stop) = dial(&pki.node_bundle(door.local_addr()), &node, impatient());
    for _ in 0..4 {
        drop(within("accept", door.accept()).await);
    }
    until("four failures", || states.failures().len() >= 4).await;
    let failures = states.failures();
    for (n, (count, error)) in failures.iter().enumerate() {
        assert_eq!(*count as usize, n + 1, "{failures:?}");
        assert!(error.contains("before its first call"), "{failures:?}");
    }
    assert_eq!(states.attached(), 0);

    // Attached, but not for long enough: the wait goes on growing.
    let before = states.failures().len();
    let accepted = within("accept", door.accept()).await.expect("acceptor");
    let link = attach(accepted, LinkConfig::default()).await.expect("attach");
    let mut client = SliversClient::with_origin(link.clone(), Link::origin());
    within("Report", client.report(v1::ReportRequest {}))
        .await
        .expect("Report");
    until("attached", || states.attached() == 1).await;
    link.cut();
    until("the next failure", || states.failures().len() > before).await;
    assert_eq!(states.failures()[before].0 as usize, before + 1);
}

#[tokio::test]
async fn a_link_that_settled_starts_the_wait_over() {
    let (pki, node) = (Pki::new("ca"), Node::new("n"));
    let mut door = pki.controller(ListenConfig::default());
    let config = DialConfig {
        settled_after: Duration::ZERO,
        ..impatient()
    };
    let (states, _stop) = dial(&pki.node_bundle(door.local_addr()), &node, config);
    for _ in 0..3 {
        drop(within("accept", door.accept()).await);
    }
    let accepted = within("accept", door.accept()).await.expect("acceptor");
    let link = attach(accepted, LinkConfig::default()).await.expect("attach");
    let mut client = SliversClient::with_origin(link.clone(), Link::origin());
    within("Report", client.report(v1::ReportRequest {}))
        .await
        .expect("Report");
    until("attached", || states.attached() == 1).await;
    link.cut();
    until("four failures", || states.failures().len() >= 4).await;
    let counts: Vec<u32> = states
        .failures()
        .iter()
        .map(|(count, _)| *count)
        .take(4)
        .collect();
    assert_eq!(counts, [1, 2, 3, 1]);
}

#[tokio::test]
async fn a_controller_that_never_calls_is_left() {
    let (pki, node) = (Pki::new("ca"), Node::new("n"));
    let mut door = pki.controller(ListenConfig::default());
    let config = DialConfig {
        attach_deadline: SHORT,
        ..impatient()
    };
    let (states, _stop) = dial(&pki.node_bundle(door.local_addr()), &node, config);
    // Speaks HTTP/2 and calls nothing.
    let accepted = within("accept", door.accept()).await.expect("acceptor");
    let mute = attach(accepted, LinkConfig::default()).await.expect("attach");
    until("given up", || !states.failures().is_empty()).await;
    assert!(
        states.failures()[0].1.contains("first call took longer"),
        "{:?}",
        states.failures()
    );
    within("closed", mute.closed()).await;
    // Not even that.
    let silent = within("accept", door.accept()).await.expect("acceptor");
    until("given up", || states.failures().len() >= 2).await;
    assert!(
        states.failures()[1].1.contains("first word took longer"),
        "{:?}",
        states.failures()
    );
    drop(silent);
}

#[tokio::test]
async fn the_next_controller_is_tried_at_once() {
    let (pki, node) = (Pki::new("ca"), Node::new("n"));
    let mut door = pki.controller(ListenConfig::default());
    let nobody = std::net::TcpListener::bind(local()).expect("port");
    let dead = nobody.local_addr().expect("address").to_string();
    drop(nobody);
    let alive = door.local_addr().to_string();
    let bundle = pki.bundle(&pki.issue(NODE), NODE, &[&dead, &alive]);
    let config = DialConfig {
        backoff: Backoff {
            base: NEVER,
            cap: NEVER,
        },
        ..impatient()
    };
    let (states, stop) = dial(&bundle, &node, config);
    let accepted = within("accept", door.accept()).await.expect("acceptor");
    let link = attach(accepted, LinkConfig::default()).await.expect("attach");
    let mut client = SliversClient::with_origin(link.clone(), Link::origin());
    within("Report", client.report(v1::ReportRequest {}))
        .await
        .expect("Report");
    let connecting = |controller: &String| LinkState::Connecting {
        controller: controller.clone(),
    };
    until("attached", || states.attached() == 1).await;
    let expected = [
        connecting(&dead),
        connecting(&alive),
        LinkState::Attached {
            controller: alive.clone(),
        },
    ];
    assert_eq!(states.all(), expected);
    // Shutting down closes the link.
    drop(stop);
    within("closed", link.closed()).await;
}

#[tokio::test]
async fn unusable_bundles_are_refused_before_dialling() {
    let pki = Pki::new("ca");
    let issued = pki.issue(NODE);
    for (controllers, expected) in [
        (&["nowhere"][..], "controller \"nowhere\" is not host:port"),
        (&[], "no controller"),
    ] {
        let error = Dialer::new(&pki.bundle(&issued, NODE, controllers), DialConfig::default())
            .expect_err("unusable");
        assert!(error.to_string().contains(expected), "{error}");
    }
}
