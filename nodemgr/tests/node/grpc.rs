//! The service as a controller sees it, over a real HTTP/2 connection.

use std::time::Duration;

use nodemgr::Agent;
use proto::HoldKind;
use proto::v1::slivers_client::SliversClient;
use proto::v1::{self, Answer, Command, Outcome};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Streaming};

use crate::support::{CAP, Door, Lab, Started};

/// A client, and the server behind it.
pub struct Link {
    pub client: SliversClient<Channel>,
    server: tokio::task::JoinHandle<()>,
}

impl Link {
    pub async fn open(agent: Agent) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let server = Server::builder()
            .add_routes(agent.routes())
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { server.await.expect("serves") });
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .expect("valid")
            .connect()
            .await
            .expect("connects");
        Self {
            client: SliversClient::new(channel),
            server,
        }
    }

    pub async fn obey(&mut self) -> Obeying {
        let (commands, stream) = mpsc::channel(16);
        let answers = self
            .client
            .obey(ReceiverStream::new(stream))
            .await
            .expect("accepted")
            .into_inner();
        Obeying { commands, answers }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// One stream of orders.
pub struct Obeying {
    commands: mpsc::Sender<Command>,
    answers: Streaming<Answer>,
}

impl Obeying {
    pub async fn send(&self, command: Command) {
        self.commands.send(command).await.expect("open");
    }

    pub async fn next(&mut self) -> Answer {
        let answer = tokio::time::timeout(CAP, self.answers.message())
            .await
            .expect("in time");
        answer.expect("no error").expect("not ended")
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime")
}

#[test]
fn a_controller_sees_reports_orders_and_processes() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let _door = Door::open(&node, &lab.config().socket);
    let mut started = Started::sleeper(&lab, "a_b");
    runtime().block_on(async {
        let mut link = Link::open(Agent::new(node.clone()).expect("threads")).await;
        let report = link
            .client
            .report(v1::ReportRequest {})
            .await
            .expect("reports")
            .into_inner();
        assert_eq!(report.slivers.len(), 1);
        assert_eq!(report.slivers[0].processes, Some(1));

        let mut watch = link
            .client
            .clone()
            .watch(v1::WatchNodeRequest { interval_ms: 600_000 })
            .await
            .expect("watches")
            .into_inner();
        assert_eq!(
            watch
                .message()
                .await
                .expect("no error")
                .expect("one now")
                .slivers
                .len(),
            1
        );

        let request = |slice: &str, limit| v1::ProcessesRequest {
            slice: slice.into(),
            limit,
        };
        let listed = link
            .client
            .processes(request("a_b", 0))
            .await
            .expect("lists")
            .into_inner();
        assert_eq!(listed.processes.len(), 1);
        assert_eq!(
            (
                listed.processes[0].slice.as_str(),
                listed.processes[0].command_line.as_str()
            ),
            ("a_b", "sleep 1000")
        );
        let all = link
            .client
            .processes(request("", 10_000))
            .await
            .expect("lists")
            .into_inner();
        // On a machine with many thousands of processes the list is cut, and says so.
        assert!(all.truncated || all.processes.iter().any(|p| p.slice == "a_b"));
        assert!(all.processes.len() > 1);
        assert!(
            link.client
                .processes(request("", 1))
                .await
                .expect("lists")
                .into_inner()
                .truncated
        );
        let bad = link
            .client
            .processes(request("../x", 0))
            .await
            .expect_err("malformed");
        assert_eq!(bad.code(), Code::InvalidArgument);
        let bad = link
            .client
            .processes(request("", 10_001))
            .await
            .expect_err("too many");
        assert_eq!(bad.code(), Code::InvalidArgument);

        let mut obeying = link.obey().await;
        let hold = lab.hold("a_b", HoldKind::Suspend);
        obeying.send(lab.impose(&hold)).await;
        let answer = obeying.next().await;
        assert_eq!(
            (answer.outcome(), answer.proven, answer.durable),
            (Outcome::Killed, true, true),
            "{answer:?}"
        );
        assert_eq!(started.signal(), Some(9));
        // Soon after the change, not at the next interval.
        let seen = tokio::time::timeout(CAP, async {
            loop {
                let report = watch.message().await.expect("no error").expect("not ended");
                if report.holds == [hold.id.to_string()] && report.slivers[0].processes == Some(0) {
                    return;
                }
            }
        });
        seen.await.expect("in time");
    });
}

#[test]
fn answers_wait_for_nobody_and_orders_outlive_the_link() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let _door = Door::open(&node, &lab.config().socket);
    let mut all: Vec<_> = (0..8)
        .map(|n| (format!("a_s{n}"), Started::sleeper(&lab, &format!("a_s{n}"))))
        .collect();
    runtime().block_on(async {
        let mut link = Link::open(Agent::new(node.clone()).expect("threads")).await;
        let mut obeying = link.obey().await;
        let mut sent = Vec::new();
        for (slice, _) in &all[..7] {
            let command = lab.impose(&lab.hold(slice, HoldKind::Suspend));
            sent.push(command.order.clone());
            obeying.send(command).await;
        }
        let mut answered = Vec::new();
        for _ in 0..7 {
            let answer = obeying.next().await;
            assert_eq!(answer.outcome(), Outcome::Killed, "{answer:?}");
            answered.push(answer.order);
        }
        sent.sort();
        answered.sort();
        assert_eq!(sent, answered);
        // Half closed: what was ordered is still answered, then the stream ends.
        obeying
            .send(lab.impose(&lab.hold("a_s7", HoldKind::Suspend)))
            .await;
        let Obeying {
            commands,
            mut answers,
        } = obeying;
        drop(commands);
        let last = tokio::time::timeout(CAP, answers.message())
            .await
            .expect("in time")
            .expect("no error");
        assert_eq!(last.expect("answered").outcome(), Outcome::Killed);
        let end = tokio::time::timeout(CAP, answers.message())
            .await
            .expect("in time")
            .expect("no error");
        assert!(end.is_none(), "{end:?}");
    });
    assert!(all.iter_mut().all(|(_, started)| started.signal() == Some(9)));
}

#[test]
fn a_journal_is_shown_or_refused_by_name() {
    let Some(lab) = Lab::new() else { return };
    let log = lab.dir.path().join("log");
    std::fs::write(&log, "one\ntwo\nthree \u{1b}[31mred\n").expect("writable");
    let node = lab.start_with(nodemgr::Config {
        log_files: vec![log],
        ..lab.config()
    });
    runtime().block_on(async {
        let mut link = Link::open(Agent::new(node).expect("threads")).await;
        let bad = link
            .client
            .journal(v1::JournalRequest {
                lines: 1,
                unit: "--flush".into(),
            })
            .await
            .expect_err("no unit");
        assert_eq!(bad.code(), Code::InvalidArgument);
        let bad = link
            .client
            .journal(v1::JournalRequest {
                lines: 99_999,
                unit: String::new(),
            })
            .await
            .expect_err("too many");
        assert_eq!(bad.code(), Code::InvalidArgument);
        let mut tail = link
            .client
            .journal(v1::JournalRequest {
                lines: 2,
                unit: String::new(),
            })
            .await
            .expect("opens")
            .into_inner();
        let first = tokio::time::timeout(Duration::from_secs(20), tail.message())
            .await
            .expect("in time")
            .expect("no error")
            .expect("some");
        assert!(!first.source.is_empty());
        assert!(
            first.lines.len() <= 2 && first.lines.iter().all(|l| !l.contains('\u{1b}')),
            "{first:?}"
        );
    });
}
