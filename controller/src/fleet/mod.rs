//! The nodes, and the orders on their way to them.
//!
//! ```text
//! Orders.Press ─▶ press: decide ─▶ commit (or keep, Unwritten) ─▶ send: one frame into each attached link
//!                                                                    │
//! Acceptor ─▶ attach: Report ─▶ what is owed + Sync ─▶ Obey ◀────────┘
//!                 │ answers                │ reports (Watch)
//!                 ▼                        ▼
//!             recorder ── batches ──▶ Store ──▶ news for watchers
//! ```
//!
//! Invariants:
//! - Commit, then send. What the disk refuses is kept, sent all the same, and written as soon as the disk takes it.
//! - Versions that nodes are sent never go down: presses are decided one at a time (`gate`), and sending happens
//!   under the lock of [`State`] with the highest version so far.
//! - A node that attaches enters the registry and gets what it is owed in one step under that lock: a press
//!   concerns either what is owed or the new link, never both, never neither.
//! - Nothing is done for each node at a press but one `try_send`; no task, no statement, no log line.
//!
//! Concurrency: `State` behind a plain mutex that is never held across an await; one task for each link, one
//! recorder, one that writes what was kept. Lock order: gate, then state.
//!
//! It does not decide who may do what (`authz`), and trusts nothing that a node says (`facts`, `orders::Said`).

mod aim;
mod approve;
mod attach;
mod carry_out;
mod clones;
mod direct;
mod epochs;
mod facts;
mod frames;
mod keys;
mod look;
mod merge;
mod order_view;
mod plan;
mod policies;
mod press;
mod programs;
mod recorder;
mod roster;
mod state;
mod unwritten;
mod witness;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::{DaemonRole, Hold, NodeId, OrderId, Version};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::orders::{NodeIndex, NodeRef};
use crate::pki::Authority;
use crate::store::{EPOCH_BLOCK, HoldRecord, Holder, NodeSeen, Note, Store, StoreError};

pub(crate) use aim::Aim;
pub use approve::Agreed;
pub(crate) use approve::act_of;
pub use keys::Issuing;
pub use press::Pressed;
pub use roster::Member;
pub use state::{LiveOrder, Standing};
pub use witness::RolledBack;

use recorder::Item;
use state::State;
use unwritten::Unwritten;

/// What can be set about links.
#[derive(Debug, Clone, Copy)]
pub struct FleetConfig {
    /// For a node's first report, and for opening its streams.
    pub attach_deadline: Duration,
    /// Between two reports of a node.
    pub report_interval: Duration,
    /// Keepalive and the like.
    pub link: link::LinkConfig,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            attach_deadline: Duration::from_secs(5),
            report_interval: Duration::from_secs(30),
            link: link::LinkConfig::default(),
        }
    }
}

/// The nodes, and the orders on their way to them.
pub struct Fleet {
    store: Arc<dyn Store>,
    issuing: Issuing,
    /// Whose short signatures are ours.
    keys: trust::Keyring,
    config: FleetConfig,
    /// What nodes tell is taken over one after the other.
    merging: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    gate: tokio::sync::Mutex<epochs::Epochs>,
    unwritten: Arc<Unwritten>,
    policies: policies::Policies,
    items: mpsc::Sender<Item>,
    /// Connections of daemons so far.
    accepted: AtomicU64,
    agreeing: approve::Agreeing,
    witnessing: witness::Witnessing,
    sightings: mpsc::Sender<NodeSeen>,
    shutdown: CancellationToken,
    rollouts: std::sync::OnceLock<std::sync::Weak<crate::rollout::Rollouts>>,
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Fleet {
    /// Rebuilds everything from the store, and starts the tasks that record and retry. They end soon after
    /// `shutdown`, when everything that was heard is written.
    ///
    /// # Errors
    /// When the store cannot be read, or takes no reservation of epochs: without one a crash could use a version
    /// twice.
    pub async fn load(
        store: Arc<dyn Store>,
        issuing: Issuing,
        config: FleetConfig,
        shutdown: CancellationToken,
    ) -> Result<(Arc<Self>, Vec<JoinHandle<()>>), StoreError> {
        let incarnation = store.incarnation().await?;
        let block = store.reserve_epochs(EPOCH_BLOCK).await?;
        // Every version that a node can have seen is below the new block.
        let now = Version {
            incarnation,
            epoch: block.start.saturating_sub(1),
        };
        let mut state = State::new(now);
        for node in store.all_nodes().await? {
            state.enrol(&node);
        }
        for key in store.key_trust().await? {
            if let Holder::Node(id, DaemonRole::NodeManager) = key.holder {
                state.keys.insert(key.spki, id);
            }
        }
        let signer = issuing.authority.signer();
        for record in store.holds().await? {
            let HoldRecord {
                hold,
                signature,
                imported_from,
                ..
            } = record;
            // One of ours from before there were signatures gets its own now.
            let ours = || signer.sign_short(trust::Kind::Hold, &proto::canonical::hold(&hold));
            let word = signature.or_else(|| imported_from.is_none().then(ours));
            state.hold(hold, word);
        }
        for exemption in store.exemptions().await? {
            state.exempt.insert((exemption.hold, exemption.node), exemption);
        }
        state.diaries.extend(store.diaries().await?);
        let mut keys = trust::Keyring::new();
        if let Some(certificate) = signer.chain().first()
            && let Err(error) = keys.add(certificate)
        {
            tracing::error!(%error, "what nodes bring back cannot be checked");
        }
        for (order, results) in store.open_orders().await? {
            state.enter(&Arc::new(order), true, &results);
        }
        tracing::info!(
            nodes = state.roster.len(),
            holds = state.holds.len(),
            orders = state.book.len(),
            version = %state.now,
            "loaded"
        );
        let (items, queue) = mpsc::channel(recorder::QUEUE);
        let (sightings, seen) = mpsc::channel(recorder::QUEUE);
        let fleet = Arc::new(Self {
            unwritten: Arc::new(Unwritten::new(store.clone())),
            store,
            issuing,
            keys,
            merging: tokio::sync::Mutex::new(()),
            config,
            state: Mutex::new(state),
            gate: tokio::sync::Mutex::new(epochs::Epochs::new(block)),
            policies: policies::Policies::default(),
            items,
            accepted: AtomicU64::new(0),
            agreeing: approve::Agreeing::default(),
            witnessing: witness::Witnessing::default(),
            sightings,
            shutdown,
            rollouts: std::sync::OnceLock::new(),
        });
        // Before any node can attach: each gets the head then.
        fleet.sign_head().await?;
        let tasks = vec![
            tokio::spawn(recorder::run(fleet.clone(), queue)),
            tokio::spawn(recorder::note_sightings(fleet.clone(), seen)),
            tokio::spawn(recorder::retry(fleet.clone())),
            tokio::spawn(keys::keep(fleet.clone())),
            tokio::spawn(policies::run(fleet.clone())),
            tokio::spawn(witness::run(fleet.clone())),
        ];
        Ok((fleet, tasks))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug, but the button has to go on working.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store, for what is only read.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Says what must outlive the database and the connections.
    pub fn signer(&self) -> Arc<trust::Signer> {
        self.issuing.authority.signer()
    }

    /// The controller's certificates and keys.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.issuing.authority
    }

    /// Whose short signatures are ours: the signer that we began with, and the one of now, should it have been rotated.
    fn signers(&self) -> trust::Keyring {
        let mut ring = self.keys.clone();
        if let Some(certificate) = self.signer().chain().first()
            && let Err(error) = ring.add(certificate)
        {
            tracing::error!(%error, "what nodes bring back cannot be checked");
        }
        ring
    }

    /// The highest version so far.
    pub fn now(&self) -> Version {
        self.lock().now
    }

    /// Writes an audit entry, or keeps it until the disk takes it.
    pub async fn note(&self, note: Note) {
        self.unwritten.note(note).await;
    }

    /// The node of this id or name.
    pub fn find(&self, node: &NodeRef) -> Option<(NodeIndex, Arc<Member>)> {
        let state = self.lock();
        let index = state.roster.find(node)?;
        Some((index, state.roster.get(index)?.clone()))
    }

    /// The node of this id or name, also when it was enrolled a moment ago by another process.
    pub(crate) async fn find_fresh(&self, node: &NodeRef) -> Option<(NodeIndex, Arc<Member>)> {
        if let Some(found) = self.find(node) {
            return Some(found);
        }
        let record = match node {
            NodeRef::Id(id) => self.store.node(*id).await,
            NodeRef::Name(name) => self.store.node_by_name(name).await,
        };
        self.lock().enrol(&record.ok()?);
        self.find(node)
    }

    /// Looks for nodes that another process has enrolled; then all orders on the disk are whole.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        let stored: Vec<OrderId> = {
            let state = self.lock();
            state
                .book
                .values()
                .filter(|open| open.stored && !open.whole)
                .map(|open| open.record.id)
                .collect()
        };
        let nodes = self.store.all_nodes().await?;
        let mut state = self.lock();
        for node in &nodes {
            state.enrol(node);
        }
        for id in stored {
            if let Some(open) = state.open_mut(id) {
                open.whole = true;
            }
        }
        Ok(())
    }

    /// Every hold that stands and passes `wanted`, with the node in its scope if it is for one.
    pub fn holds(&self, mut wanted: impl FnMut(&Hold, Option<&Member>) -> bool) -> Vec<Hold> {
        let state = self.lock();
        let member = |hold: &Hold| match hold.scope {
            proto::Scope::Node(id) => state.roster.index(id).and_then(|index| state.roster.get(index)),
            _ => None,
        };
        state
            .holds
            .values()
            .filter(|hold| wanted(hold, member(hold).map(|member| &**member)))
            .cloned()
            .collect()
    }

    /// Every node, in the order of the roster.
    pub(crate) fn members(&self) -> Vec<(NodeIndex, Arc<Member>)> {
        let state = self.lock();
        state
            .roster
            .iter()
            .map(|(index, member)| (index, member.clone()))
            .collect()
    }

    /// The site of a node.
    pub fn site_of(&self, node: NodeId) -> Option<proto::SiteName> {
        let state = self.lock();
        let index = state.roster.index(node)?;
        state.roster.get(index).map(|member| member.site.clone())
    }

    /// How many nodes are attached, of a site or of all.
    pub fn attached(&self, site: Option<&proto::SiteName>) -> usize {
        let state = self.lock();
        let here = |(index, member): &(NodeIndex, &Arc<Member>)| {
            site.is_none_or(|site| *site == member.site) && state.is_attached(*index)
        };
        state.roster.iter().filter(here).count()
    }
}
