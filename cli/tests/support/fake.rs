//! The controller of these tests: a real tonic server with a script, behind a wire that can be cut.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use proto::v1;
use proto::v1::audit_server::{Audit, AuditServer};
use proto::v1::orders_server::{Orders, OrdersServer};
use proto::v1::slices_server::{Slices, SlicesServer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use super::pki::Authority;

pub(crate) const ORDER: &str = "0193a1b2-0000-7000-8000-000000000001";

/// What to do with the next press.
pub(crate) enum Press {
    Take,
    TakeNotDurable,
    /// Takes it, and cuts the wire instead of answering.
    Cut,
    Refuse(Status),
}

/// One answer to `Watch`.
pub(crate) struct Watched {
    pub(crate) events: Vec<v1::OrderEvent>,
    /// Say nothing more and keep the stream open, instead of ending it.
    pub(crate) hang: bool,
}

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) presses: VecDeque<Press>,
    pub(crate) watches: VecDeque<Watched>,
    pub(crate) slices: Vec<v1::Slice>,
    pub(crate) audit: Vec<v1::AuditEntry>,
}

/// A running controller.
pub(crate) struct Fake {
    state: Arc<State>,
    pub(crate) ca: Authority,
    pub(crate) port: u16,
}

#[derive(Default)]
struct State {
    script: Mutex<Script>,
    seen: Mutex<Vec<v1::PressRequest>>,
    cut: Notify,
}

impl Fake {
    pub(crate) async fn start(script: Script) -> Self {
        Self::with_names(script, &["localhost", "127.0.0.1"]).await
    }

    pub(crate) async fn with_names(script: Script, names: &[&str]) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ca = Authority::new();
        let server = ca.server(names);
        let state = Arc::new(State {
            script: Mutex::new(script),
            ..State::default()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let inner = listener.local_addr().expect("an address");
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&server.certificate, &server.key))
            .client_ca_root(Certificate::from_pem(&ca.certificate));
        let service = Service(state.clone());
        let serving = Server::builder()
            .tls_config(tls)
            .expect("TLS")
            .add_service(OrdersServer::new(service.clone()))
            .add_service(SlicesServer::new(service.clone()))
            .add_service(AuditServer::new(service))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        let front = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = front.local_addr().expect("an address").port();
        let wires = state.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = front.accept().await {
                let wires = wires.clone();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(inner).await.expect("the server listens");
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        () = wires.cut.notified() => {}
                    }
                });
            }
        });
        Self { state, ca, port }
    }

    /// Alice's home, dialling us.
    pub(crate) fn home(&self) -> super::Home {
        super::Home::new(&self.ca.certificate, &self.ca.person(false), &[self.address()])
    }

    pub(crate) fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    pub(crate) fn presses(&self) -> Vec<v1::PressRequest> {
        self.state.seen.lock().expect("no panic").clone()
    }
}

#[derive(Clone)]
struct Service(Arc<State>);

type Reply<T> = Result<Response<T>, Status>;
type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(crate) fn order(counts: v1::OutcomeCounts) -> v1::Order {
    v1::Order {
        id: ORDER.into(),
        version: Some(v1::Version {
            incarnation: 1,
            epoch: 7,
        }),
        person: "alice".into(),
        role: v1::Role::Support.into(),
        kind: "kill-slice".into(),
        target: "princeton_codeen everywhere".into(),
        reason: "floods a bank".into(),
        pressed_at_ms: 1_795_316_645_123,
        state: v1::OrderState::Open.into(),
        counts: Some(counts),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl Orders for Service {
    type WatchStream = Events<v1::OrderEvent>;

    async fn press(&self, request: Request<v1::PressRequest>) -> Reply<v1::PressReply> {
        let press = request.into_inner();
        let again = {
            let mut seen = self.0.seen.lock().expect("no panic");
            let again = seen
                .iter()
                .any(|old| old.idempotency_key == press.idempotency_key);
            seen.push(press);
            again
        };
        let next = self
            .0
            .script
            .lock()
            .expect("no panic")
            .presses
            .pop_front()
            .unwrap_or(Press::Take);
        let reply = |durable: bool| v1::PressReply {
            order: Some(order(v1::OutcomeCounts {
                nodes: 2,
                pending: 2,
                ..Default::default()
            })),
            created: !again,
            durable,
            not_durable_reason: if durable {
                String::new()
            } else {
                "disk is full".into()
            },
            proposal: None,
        };
        match next {
            Press::Take => Ok(Response::new(reply(true))),
            Press::TakeNotDurable => Ok(Response::new(reply(false))),
            Press::Refuse(status) => Err(status),
            Press::Cut => {
                self.0.cut.notify_waiters();
                std::future::pending().await
            }
        }
    }

    async fn watch(&self, request: Request<v1::WatchOrderRequest>) -> Reply<Self::WatchStream> {
        assert_eq!(request.into_inner().id, ORDER);
        let next = self.0.script.lock().expect("no panic").watches.pop_front();
        let Some(Watched { events, hang }) = next else {
            return Err(Status::unavailable("no more watches"));
        };
        let events = tokio_stream::iter(events.into_iter().map(Ok));
        Ok(Response::new(if hang {
            Box::pin(events.chain(tokio_stream::pending()))
        } else {
            Box::pin(events)
        }))
    }

    async fn get(&self, request: Request<v1::GetOrderRequest>) -> Reply<v1::OrderDetail> {
        match request.into_inner().id.as_str() {
            ORDER => Ok(Response::new(v1::OrderDetail {
                order: Some(order(v1::OutcomeCounts {
                    nodes: 2,
                    offline: 1,
                    killed: 1,
                    proven: 1,
                    ..Default::default()
                })),
                nodes: vec![
                    result(1, v1::Outcome::Killed, true),
                    result(2, v1::Outcome::Offline, false),
                ],
            })),
            other => Err(Status::not_found(format!("no order {other}"))),
        }
    }

    async fn list(&self, _: Request<v1::ListOrdersRequest>) -> Reply<v1::ListOrdersReply> {
        Err(Status::unimplemented("list"))
    }

    async fn holds(&self, _: Request<v1::ListHoldsRequest>) -> Reply<v1::ListHoldsReply> {
        Ok(Response::new(v1::ListHoldsReply::default()))
    }
}

#[tonic::async_trait]
impl Slices for Service {
    /// Two slices a page, so that paging is exercised.
    async fn list(&self, request: Request<v1::ListSlicesRequest>) -> Reply<v1::ListSlicesReply> {
        let from: usize = request.into_inner().page_token.parse().unwrap_or(0);
        let slices = self.0.script.lock().expect("no panic").slices.clone();
        let to = slices.len().min(from + 2);
        let next_page_token = if to < slices.len() {
            to.to_string()
        } else {
            String::new()
        };
        Ok(Response::new(v1::ListSlicesReply {
            slices: slices[from..to].to_vec(),
            next_page_token,
        }))
    }

    async fn get(&self, request: Request<v1::GetSliceRequest>) -> Reply<v1::SliceDetail> {
        Err(Status::not_found(format!(
            "no slice {}",
            request.into_inner().name
        )))
    }

    async fn create(&self, _: Request<v1::CreateSliceRequest>) -> Reply<v1::Slice> {
        let mut status = Status::already_exists("slice princeton_codeen exists");
        status
            .metadata_mut()
            .insert("redbutton-code", "slice.exists".parse().expect("ASCII"));
        Err(status)
    }
}

#[tonic::async_trait]
impl Audit for Service {
    type WitnessesStream = tokio_stream::Empty<Result<v1::NodeWitness, Status>>;
    async fn witnesses(
        &self,
        _: Request<v1::WitnessesRequest>,
    ) -> Result<Response<Self::WitnessesStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    type ExportStream = Events<v1::AuditEntry>;

    async fn list(&self, request: Request<v1::ListAuditRequest>) -> Reply<v1::ListAuditReply> {
        let v1::ListAuditRequest {
            page_size, before, ..
        } = request.into_inner();
        let entries = self.0.script.lock().expect("no panic").audit.clone();
        let older: Vec<_> = entries
            .into_iter()
            .filter(|e| before == 0 || e.sequence < before)
            .collect();
        let page = older[older.len().saturating_sub(page_size.min(2) as usize)..].to_vec();
        let next_before = page
            .first()
            .map_or(0, |e| if e.sequence > 1 { e.sequence } else { 0 });
        Ok(Response::new(v1::ListAuditReply {
            entries: page,
            next_before,
        }))
    }

    async fn export(&self, request: Request<v1::ExportAuditRequest>) -> Reply<Self::ExportStream> {
        let from = request.into_inner().from;
        let entries = self.0.script.lock().expect("no panic").audit.clone();
        let entries = entries.into_iter().filter(move |e| e.sequence >= from).map(Ok);
        Ok(Response::new(Box::pin(tokio_stream::iter(entries))))
    }

    async fn head(&self, _: Request<v1::AuditHeadRequest>) -> Reply<v1::AuditHead> {
        Err(Status::unimplemented("head"))
    }
}

/// What became of the order on node `number`.
pub(crate) fn result(number: u32, outcome: v1::Outcome, proven: bool) -> v1::NodeResult {
    let answered = !matches!(
        outcome,
        v1::Outcome::Pending | v1::Outcome::Sent | v1::Outcome::Offline
    );
    v1::NodeResult {
        node: format!("00000000-0000-4000-8000-{number:012}"),
        node_name: format!("n{number}.example.org"),
        site: "princeton".into(),
        outcome: outcome.into(),
        answer: answered.then(|| v1::Answer {
            order: ORDER.into(),
            durable: true,
            dead_us: 9_000 * u64::from(number),
            slivers: vec![v1::SliverProof {
                slice: "princeton_codeen".into(),
                outcome: outcome.into(),
                killed: Some(5),
                zombies: Some(0),
                stuck: Some(0),
                ..Default::default()
            }],
            ..Default::default()
        }),
        answered_at_ms: 1_795_316_645_223,
        proven,
    }
}

/// An event about two nodes.
pub(crate) fn event(one: (v1::Outcome, bool), two: (v1::Outcome, bool), last: bool) -> v1::OrderEvent {
    let mut counts = v1::OutcomeCounts {
        nodes: 2,
        ..Default::default()
    };
    for (outcome, proven) in [one, two] {
        counts.proven += u32::from(proven);
        match outcome {
            v1::Outcome::Sent => counts.sent += 1,
            v1::Outcome::Offline => counts.offline += 1,
            v1::Outcome::Killed => counts.killed += 1,
            v1::Outcome::AlreadyDead => counts.already_dead += 1,
            v1::Outcome::Partial => counts.partial += 1,
            v1::Outcome::Failed => counts.failed += 1,
            other => panic!("{other:?} is not counted here"),
        }
    }
    v1::OrderEvent {
        order: Some(order(counts)),
        changed: vec![result(1, one.0, one.1), result(2, two.0, two.1)],
        last,
    }
}
