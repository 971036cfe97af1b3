//! The node's own door for people, for when the controller is gone.
//!
//! ```text
//! person ── mTLS ─▶ Acceptor (bounded) ─▶ caller: in the policy? key not revoked? ─▶ decide (authz, pure)
//!                                               │ no                                   │ yes
//!                                               ▼                                      ▼
//!                                             diary ◀──── written beside ──── engine: hold, freeze, kill
//! ```
//! It serves the controller's services as far as they make sense on one node, under the same table; the rest says
//! clearly that only the controller can. Everything that is done here is done to this node: a hold has its scope.
//!
//! Invariants: without a policy nobody may do anything; the kill begins before anything is written, and the answer
//! says when something is not durable; a revocation that arrives cuts the connections of whom it names.
//!
//! All threads, and the listener's descriptor, exist from the start. An address that cannot be had is tried again;
//! the daemon goes on without.

mod audit;
mod book;
mod caller;
mod decide;
mod no;
mod orders;
mod sight;
mod wish;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use link::{Accepted, Acceptor, Door, ListenConfig, Peer, ServeConfig};
use prost::Message;
use proto::v1::Answer;
use proto::v1::audit_server::AuditServer;
use proto::v1::direct_server::DirectServer;
use proto::v1::nodes_server::NodesServer;
use proto::v1::orders_server::OrdersServer;
use proto::v1::people_server::PeopleServer;
use proto::v1::sites_server::SitesServer;
use proto::v1::slices_server::SlicesServer;
use proto::{MAX_MESSAGE_BYTES, OrderId};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use self::book::Book;
use crate::Agent;
use crate::diary::Diary;
use crate::engine::Node;
use crate::policy::Policy;

/// Bytes of rows in one message.
const MAX_ROWS: usize = MAX_MESSAGE_BYTES - (128 << 10);
/// Between saying that a reboot begins and beginning it: the answer leaves first.
const LEAVE: Duration = Duration::from_millis(250);
/// Connections in all; one more cuts the oldest.
const MOST_CONNECTIONS: usize = 256;
/// Before an address that could not be had is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// People are few here, and memory is locked.
const LISTEN: ListenConfig = ListenConfig {
    backlog: 128,
    max_handshakes: 64,
    max_turns: 32,
    handshake_deadline: Duration::from_secs(5),
    max_per_identity: 16,
};

/// As many as fit into `budget` bytes.
fn fitting<M: Message>(rows: impl Iterator<Item = M>, budget: usize) -> Vec<M> {
    let mut left = budget;
    rows.take_while(|row| {
        let bytes = row.encoded_len() + 8;
        let fits = bytes <= left;
        left = left.saturating_sub(bytes);
        fits
    })
    .collect()
}

/// What the door needs.
pub struct Parts {
    /// The node that is acted on.
    pub node: Arc<Node>,
    /// Its reports, processes and journal.
    pub agent: Arc<Agent>,
    /// Who may do what.
    pub policy: Arc<Policy>,
    /// Where it is written down.
    pub diary: Diary,
    /// The node's name.
    pub name: String,
}

/// Everything that a call needs. Clones are the same desk.
#[derive(Clone)]
pub(crate) struct Desk(Arc<Inner>);

pub(crate) struct Inner {
    node: Arc<Node>,
    agent: Arc<Agent>,
    policy: Arc<Policy>,
    diary: Diary,
    name: String,
    book: Mutex<Book>,
    /// Presses are taken one at a time.
    turn: tokio::sync::Mutex<()>,
    changed: watch::Sender<u64>,
}

impl std::ops::Deref for Desk {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Desk {
    fn new(parts: Parts) -> Self {
        let Parts {
            node,
            agent,
            policy,
            diary,
            name,
        } = parts;
        Self(Arc::new(Inner {
            node,
            agent,
            policy,
            diary,
            name,
            book: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            changed: watch::Sender::new(0),
        }))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, id: OrderId, answer: Answer) {
        if self.book().hear(id, answer, caller::now_ms()) {
            self.changed.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// Second answers of orders that were pressed here.
    async fn listen(self) {
        let mut answers = self.node.second_answers();
        loop {
            match answers.recv().await {
                Ok(answer) => {
                    if let Ok(id) = answer.order.parse() {
                        self.hear(id, answer);
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn routes(&self) -> Routes {
        macro_rules! limited {
            ($server:ident) => {
                $server::new(self.clone())
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES)
            };
        }
        Routes::new(limited!(OrdersServer))
            .add_service(limited!(NodesServer))
            .add_service(limited!(SlicesServer))
            .add_service(limited!(SitesServer))
            .add_service(limited!(PeopleServer))
            .add_service(limited!(AuditServer))
            .add_service(limited!(DirectServer))
    }
}

/// Connections that stand, oldest first.
#[derive(Default)]
struct Standing(Mutex<VecDeque<(Peer, CancellationToken)>>);

impl Standing {
    fn admit(&self, peer: Peer, token: CancellationToken) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, token)| !token.is_cancelled());
        if all.len() >= MOST_CONNECTIONS
            && let Some((_, oldest)) = all.pop_front()
        {
            oldest.cancel();
        }
        all.push_back((peer, token));
    }

    /// Cuts those who may do nothing here any more.
    fn judge(&self, policy: &Policy) {
        let Some(snapshot) = policy.current() else { return };
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (peer, token) in &*all {
            let may = caller::person(&peer.identity)
                .is_some_and(|(name, _)| snapshot.grants_of(name, &peer.key).is_ok());
            if !may && !token.is_cancelled() {
                tracing::warn!(peer = %peer.identity, "cut: no longer in this node's policy");
                token.cancel();
            }
        }
    }
}

/// Serves people at `address` until `shutdown`. `told` gets the address whenever it is had; port 0 takes a free one.
pub async fn serve(
    parts: Parts,
    door: Arc<Door>,
    address: SocketAddr,
    told: watch::Sender<Option<SocketAddr>>,
    shutdown: CancellationToken,
) {
    let policy = parts.policy.clone();
    let desk = Desk::new(parts);
    let listening = tokio::spawn(shutdown.clone().run_until_cancelled_owned(desk.clone().listen()));
    let routes = desk.routes();
    let standing = Arc::new(Standing::default());
    let mut changes = policy.changes();
    changes.mark_changed();
    let mut acceptor = None;
    loop {
        if acceptor.is_none() {
            acceptor = bind(&door, address);
            told.send_replace(acceptor.as_ref().map(Acceptor::local_addr));
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = changes.changed() => {
                if changed.is_ok() {
                    heed(&door, &policy);
                    standing.judge(&policy);
                }
            }
            accepted = accept(acceptor.as_mut()) => match accepted {
                Some(accepted) => attend(accepted, &routes, &standing, &shutdown),
                None => acceptor = None,
            },
        }
    }
    let _ = listening.await;
}

/// The policy's roots and time count at the door.
fn heed(door: &Door, policy: &Policy) {
    if let Err(error) = door.trust(&policy.roots()) {
        tracing::error!(%error, "the policy's roots cannot be used at the door");
    }
    if let Some(snapshot) = policy.current() {
        door.it_is_past(u64::try_from(snapshot.issued_at_ms / 1_000).unwrap_or(0));
    }
}

fn bind(door: &Arc<Door>, address: SocketAddr) -> Option<Acceptor> {
    let bound = door
        .config()
        .map_err(|e| e.to_string())
        .and_then(|tls| Acceptor::bind(address, tls, LISTEN).map_err(|e| crate::engine::in_one_line(&e)));
    match bound {
        Ok(acceptor) => {
            tracing::info!(address = %acceptor.local_addr(), "people are served directly");
            Some(acceptor)
        }
        Err(error) => {
            tracing::error!(error, "people cannot be served directly; trying again");
            None
        }
    }
}

/// The next connection; without a listener the time to try again.
async fn accept(acceptor: Option<&mut Acceptor>) -> Option<Accepted> {
    match acceptor {
        Some(acceptor) => acceptor.accept().await,
        None => {
            tokio::time::sleep(AGAIN).await;
            None
        }
    }
}

fn attend(accepted: Accepted, routes: &Routes, standing: &Arc<Standing>, shutdown: &CancellationToken) {
    let peer = accepted.peer().clone();
    if caller::person(&peer.identity).is_none() {
        tracing::warn!(peer = %peer.identity, address = %peer.address, "not a person");
        return;
    }
    let cut = shutdown.child_token();
    standing.admit(peer.clone(), cut.clone());
    let routes = routes.clone();
    drop(tokio::spawn(async move {
        // The entry among those that stand goes with the token.
        let _gone = cut.clone().drop_guard();
        let config = ServeConfig {
            max_concurrent_streams: 32,
            ..ServeConfig::default()
        };
        if let Err(error) = link::serve_accepted(accepted, routes, config, cut).await {
            tracing::debug!(peer = %peer.identity, address = %peer.address, %error, "connection ended");
        }
    }));
}
