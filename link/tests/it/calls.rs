//! Calls over a link, in both directions, and what is left of them when it is cut.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use link::{Acceptor, DialConfig, Dialer, Ended, Link, LinkConfig, ListenConfig, ServeConfig, ServeError};
use link::{attach, serve, serve_accepted};
use proto::v1;
use proto::v1::slivers_client::SliversClient;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;

use crate::common::*;

/// Keepalives that play no part.
fn quiet() -> (DialConfig, LinkConfig) {
    let serve = ServeConfig {
        keepalive_interval: NEVER,
        ..ServeConfig::default()
    };
    (
        DialConfig {
            serve,
            ..DialConfig::default()
        },
        LinkConfig {
            keepalive_interval: NEVER,
            ..LinkConfig::default()
        },
    )
}

/// A node that dials, and the controller's link to it.
async fn linked(pki: &Pki, node: &Node, config: LinkConfig) -> (Acceptor, Link, DropGuard) {
    let mut door = pki.controller(ListenConfig::default());
    let dialer = Dialer::new(&pki.node_bundle(door.local_addr()), quiet().0).expect("bundle");
    let (stop, routes) = (CancellationToken::new(), node.routes());
    let guard = stop.clone().drop_guard();
    tokio::spawn(async move { dialer.run(routes, stop, |_| {}).await });
    let accepted = within("accept", door.accept()).await.expect("acceptor");
    let link = attach(accepted, config).await.expect("attach");
    (door, link, guard)
}

fn client(link: &Link) -> SliversClient<Link> {
    SliversClient::with_origin(link.clone(), Link::origin())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_calls_beside_an_open_stream() {
    let (pki, node) = (Pki::new("ca"), Node::new("n"));
    let (_door, link, _stop) = linked(&pki, &node, quiet().1).await;
    assert_eq!(link.peer().identity.to_string(), NODE);

    let (orders, stream) = tokio::sync::mpsc::channel(4);
    let mut answers = within("Obey", client(&link).obey(ReceiverStream::new(stream)))
        .await
        .expect("Obey")
        .into_inner();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..2_000 {
        let mut client = client(&link);
        calls.spawn(async move {
            client
                .report(v1::ReportRequest {})
                .await
                .map(|r| r.into_inner().hostname)
        });
    }
    for n in 0..500 {
        let command = v1::Command {
            order: n.to_string(),
            ..Default::default()
        };
        orders.send(command).await.expect("stream is open");
        let answer = within("an answer", answers.message())
            .await
            .expect("no error")
            .expect("no end");
        assert_eq!(answer.order, n.to_string());
    }
    let mut done = 0;
    while let Some(call) = within("a call", calls.join_next()).await {
        assert_eq!(
            call.expect("task").expect("call"),
            CONTROLLER,
            "the node knows who asks"
        );
        done += 1;
    }
    assert_eq!(done, 2_000);
    drop(orders);
    assert!(
        within("the end of the stream", answers.message())
            .await
            .expect("a clean end")
            .is_none()
    );
    assert!(!link.is_closed());
}

#[tokio::test]
async fn a_person_is_served_and_named() {
    let pki = Pki::new("ca");
    let mut door = pki.controller(ListenConfig::default());
    let own = pki.issue(ALICE);
    let stream = tls_connect(pki.raw_client(Some(&own)), door.local_addr())
        .await
        .expect("handshake");
    let address = stream.get_ref().0.local_addr().expect("address");
    let accepted = within("accept", door.accept()).await.expect("acceptor");
    let serving = tokio::spawn(serve_accepted(
        accepted,
        Node::new("n").routes(),
        ServeConfig::default(),
        CancellationToken::new(),
    ));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("h2");
    let connection = tokio::spawn(connection);
    let service = tower::service_fn(move |request| sender.clone().send_request(request));
    let mut client = SliversClient::with_origin(service, Link::origin());
    let report = within("Report", client.report(v1::ReportRequest {}))
        .await
        .expect("Report")
        .into_inner();
    assert_eq!(
        (report.hostname.as_str(), report.restart_means),
        (ALICE, address.to_string())
    );
    let unknown = within("Watch", client.watch(v1::WatchNodeRequest::default()))
        .await
        .expect_err("a refusal");
    assert_eq!(unknown.code(), Code::Unimplemented);
    connection.abort();
    drop(client);
    within("the end", serving).await.expect("task").ok();
    assert_eq!(door.gauge().read().established, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cutting_a_link_ends_everything_of_it_at_once() {
    let (pki, node) = (Pki::new("ca"), Node::new("n"));
    let (door, link, _stop) = linked(&pki, &node, quiet().1).await;
    let (_orders, stream) = tokio::sync::mpsc::channel(4);
    let mut answers = within("Obey", client(&link).obey(ReceiverStream::new(stream)))
        .await
        .expect("Obey")
        .into_inner();
    let mut hanging = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let mut client = client(&link);
        hanging.spawn(async move { client.processes(v1::ProcessesRequest::default()).await });
    }
    until("ten calls run", || node.running() == 10).await;

    let closed = link.closed();
    let before = Instant::now();
    link.cut();
    while let Some(call) = within("a cut call", hanging.join_next()).await {
        let status = call.expect("task").expect_err("it cannot have ended well");
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains(NODE), "{status:?}");
    }
    let status = within("the stream", answers.message())
        .await
        .expect_err("it cannot have ended well");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(within("closed", closed).await, Ended::Cut);
    assert!(
        before.elapsed() < Duration::from_secs(5),
        "{:?}; there is no keepalive here",
        before.elapsed()
    );
    assert!(link.is_closed());

    let next = client(&link)
        .report(v1::ReportRequest {})
        .await
        .expect_err("a dead link stays dead");
    assert_eq!(next.code(), Code::Unavailable);
    assert!(next.message().ends_with("is gone: cut"), "{next:?}");

    // The other end notices, and drops what ran for us there.
    until("nothing runs on the node", || {
        node.running() == 0 && node.obeying() == 0
    })
    .await;
    until("the connection is given back", || {
        door.gauge().read().established == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_goes_fails_its_calls_at_once() {
    let (pki, node) = (Pki::new("ca"), Node::new("n"));
    let (_door, link, stop) = linked(&pki, &node, quiet().1).await;
    let mut hanging = client(&link);
    let hanging = tokio::spawn(async move { hanging.processes(v1::ProcessesRequest::default()).await });
    until("the call runs", || node.running() == 1).await;
    drop(stop);
    let status = within("the call", hanging)
        .await
        .expect("task")
        .expect_err("the node is gone");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let ended = within("the link", link.closed()).await;
    assert!(matches!(ended, Ended::Closed | Ended::Broken(_)), "{ended:?}");
    until("the handler was dropped", || node.running() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_queue_behind_the_cap_and_streams_do_not_count() {
    let (pki, node) = (Pki::new("ca"), Node::new("n"));
    let config = LinkConfig {
        max_in_flight: 3,
        ..quiet().1
    };
    let (_door, link, _stop) = linked(&pki, &node, config).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let (orders, stream) = tokio::sync::mpsc::channel::<v1::Command>(1);
        let answers = within("Obey", client(&link).obey(ReceiverStream::new(stream)))
            .await
            .expect("Obey");
        streams.push((orders, answers));
    }
    node.0.most.store(0, Ordering::SeqCst);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let mut client = client(&link);
        calls.spawn(async move { client.processes(v1::ProcessesRequest::default()).await });
    }
    until("three run", || node.running() == 3).await;
    node.0.release.add_permits(30);
    while let Some(call) = within("a call", calls.join_next()).await {
        call.expect("task").expect("call");
    }
    assert_eq!(node.0.begun.load(Ordering::SeqCst), 30);
    assert_eq!(
        node.0.most.load(Ordering::SeqCst),
        3,
        "more than the cap ran at one time"
    );
}

#[tokio::test]
async fn an_abandoned_call_frees_its_place() {
    let (pki, node) = (Pki::new("ca"), Node::new("n"));
    let (_door, link, _stop) = linked(
        &pki,
        &node,
        LinkConfig {
            max_in_flight: 1,
            ..quiet().1
        },
    )
    .await;
    let mut client = client(&link);
    let late = tokio::time::timeout(
        Duration::from_millis(50),
        client.processes(v1::ProcessesRequest::default()),
    );
    late.await.expect_err("hangs");
    within("the next call", client.report(v1::ReportRequest {}))
        .await
        .expect("there is room");
    until("the handler was dropped", || node.running() == 0).await;
}

/// The peer neither reads nor answers, so that not even a GOAWAY can be written.
#[tokio::test]
async fn a_peer_that_says_nothing_is_given_up() {
    let (io, _peer_keeps_it_open) = tokio::io::duplex(16);
    let peer = link::Peer {
        identity: proto::Identity::Controller,
        address: local(),
        certificate_expires: std::time::SystemTime::now(),
        key: trust::Spki::new([0; 32]),
        direct: false,
        expired: false,
    };
    let short = Duration::from_millis(50);
    let config = ServeConfig {
        keepalive_interval: short,
        keepalive_timeout: short,
        ..ServeConfig::default()
    };
    let serving = serve(
        io,
        peer,
        Node::new("n").routes(),
        config,
        CancellationToken::new(),
    );
    let ended = within("the end", serving).await;
    assert!(matches!(ended, Err(ServeError::Silent(_))), "{ended:?}");
}
