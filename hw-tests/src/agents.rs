//! Simulated node managers: the real link, the real contract, no machine behind it.
//!
//! An agent answers every command at once with a proof of ordinary size (about 110 bytes), and comes back from a
//! reboot with another boot id and its holds. One process holds thousands of them. What real node managers do is
//! tested with real ones ([`crate::fleet`]).

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use controller::admin::files;
use controller::pki::{Authority, NODE_LIFE};
use controller::store::{About, Holder, KeyStore, NewKey, NewNode, Note, SqliteStore, Store};
use futures_util::{Stream, StreamExt, stream};
use link::{DialConfig, Dialer, LinkState};
use proto::bundle::Bundle;
use proto::v1::{self, command::Action, slivers_server::Slivers, slivers_server::SliversServer};
use proto::{DaemonRole, NodeId, Version};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// Dials in progress at once: the storm of all at the same second is a benchmark of its own (`attach`).
const DIALS: usize = 64;

type Reply<T> = Pin<Box<dyn Stream<Item = std::result::Result<T, Status>> + Send>>;

/// One simulated node.
#[derive(Clone)]
pub struct Agent(Arc<State>);

struct State {
    node: NodeId,
    name: String,
    boot_id: Mutex<String>,
    /// Hold and slice; an empty slice is all of the node. They outlive a reboot, as on a disk.
    holds: Mutex<BTreeMap<String, String>>,
    seen: Mutex<Version>,
    commands: AtomicU64,
    attached: AtomicBool,
    failures: AtomicU64,
    last_failure: Mutex<String>,
    reboot: Notify,
}

impl Agent {
    /// An agent that has never heard of any hold.
    #[must_use]
    pub fn new(node: NodeId, name: &str) -> Self {
        Self(Arc::new(State {
            node,
            name: name.to_owned(),
            boot_id: Mutex::new(uuid::Uuid::new_v4().to_string()),
            holds: Mutex::default(),
            seen: Mutex::default(),
            commands: AtomicU64::new(0),
            attached: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            last_failure: Mutex::default(),
            reboot: Notify::new(),
        }))
    }

    /// Its node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Of the boot that runs now.
    #[must_use]
    pub fn boot_id(&self) -> String {
        held(&self.0.boot_id).clone()
    }

    /// Commands obeyed so far.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.0.commands.load(Ordering::Relaxed)
    }

    /// Dials that failed and links that ended so far.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    /// What the last of them said; empty when there was none.
    #[must_use]
    pub fn last_failure(&self) -> String {
        held(&self.0.last_failure).clone()
    }

    /// Whether its link is up, as it sees it.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.0.attached.load(Ordering::Relaxed)
    }

    /// Ids of the holds that stand on this node.
    #[must_use]
    pub fn holds(&self) -> Vec<String> {
        held(&self.0.holds).keys().cloned().collect()
    }

    /// Whether processes of this slice may run: no hold stands on it or on the node.
    #[must_use]
    pub fn may_run(&self, slice: &str) -> bool {
        !held(&self.0.holds)
            .values()
            .any(|held| held.is_empty() || held == slice)
    }

    /// Somebody cycles its power: the link is lost, another boot id comes back. Its holds are on its disk.
    pub fn power_cycle(&self) {
        self.0.reboot.notify_one();
    }

    fn obey(&self, command: v1::Command) -> v1::Answer {
        self.0.commands.fetch_add(1, Ordering::Relaxed);
        let boot_id = self.boot_id();
        let mut answer = v1::Answer {
            order: command.order,
            version: command.given.or(command.now),
            durable: true,
            proven: true,
            boot_id: boot_id.clone(),
            dead_us: 900,
            durable_us: 1_100,
            ..v1::Answer::default()
        };
        if let Some(now) = command.now {
            let mut seen = held(&self.0.seen);
            *seen = (*seen).max(now.into());
        }
        let mut holds = held(&self.0.holds);
        let outcome = match command.action {
            Some(Action::Impose(hold)) => {
                answer.slivers.push(v1::SliverProof {
                    cgroup: format!("redbutton.slice/{}", hold.slice),
                    slice: hold.slice.clone(),
                    cgroup_id: 4_711,
                    outcome: v1::Outcome::Killed.into(),
                    killed: Some(3),
                    zombies: Some(0),
                    stuck: Some(0),
                    frozen: true,
                    freeze_us: 300,
                    kill_us: 500,
                    ..v1::SliverProof::default()
                });
                holds.insert(hold.id, hold.slice);
                v1::Outcome::Killed
            }
            Some(Action::Release(id)) => {
                holds.remove(&id);
                v1::Outcome::Released
            }
            Some(Action::Sync(sync)) => {
                holds.extend(sync.holds.into_iter().map(|hold| (hold.id, hold.slice)));
                for id in &sync.released {
                    holds.remove(id);
                }
                answer.holds = holds.keys().cloned().collect();
                v1::Outcome::AlreadyDead
            }
            Some(Action::Reboot(reboot)) => {
                // An order for an earlier boot has been obeyed already.
                if reboot.boot_id == boot_id {
                    self.power_cycle();
                }
                v1::Outcome::Accepted
            }
            Some(Action::Halt(_)) => v1::Outcome::Accepted,
            Some(Action::Policy(_)) => v1::Outcome::AlreadyDead,
            Some(Action::Witness(_)) | None => v1::Outcome::Failed,
        };
        answer.outcome = outcome.into();
        answer
    }

    fn state(&self) -> v1::NodeReport {
        v1::NodeReport {
            node: self.0.node.to_string(),
            protocol: proto::PROTOCOL,
            agent_version: "simulated".into(),
            boot_id: self.boot_id(),
            kernel: "simulated".into(),
            seen: Some((*held(&self.0.seen)).into()),
            holds: self.holds(),
            ..v1::NodeReport::default()
        }
    }

    /// Dials and serves, boot after boot, until the end.
    async fn live(self, dialer: Dialer, end: CancellationToken, on_attached: impl Fn() + Send + Sync) {
        while !end.is_cancelled() {
            let boot = end.child_token();
            let told = |state: LinkState| {
                let attached = matches!(state, LinkState::Attached { .. });
                self.0.attached.store(attached, Ordering::Relaxed);
                match state {
                    LinkState::Attached { .. } => on_attached(),
                    LinkState::BackingOff { error, .. } => {
                        self.0.failures.fetch_add(1, Ordering::Relaxed);
                        *held(&self.0.last_failure) = error;
                    }
                    LinkState::Connecting { .. } => {}
                }
            };
            let routes = Routes::new(SliversServer::new(self.clone()));
            tokio::select! {
                () = dialer.run(routes, boot.clone(), told) => {}
                () = self.0.reboot.notified() => {
                    boot.cancel();
                    *held(&self.0.boot_id) = uuid::Uuid::new_v4().to_string();
                }
            }
            self.0.attached.store(false, Ordering::Relaxed);
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tonic::async_trait]
impl Slivers for Agent {
    async fn merge(&self, _: Request<v1::MergeRequest>) -> Result<Response<v1::MergeReply>, Status> {
        Err(Status::unimplemented(
            "an agent that keeps nothing has nothing to tell",
        ))
    }

    type ObeyStream = Reply<v1::Answer>;
    type WatchStream = Reply<v1::NodeReport>;
    type JournalStream = Reply<v1::JournalLines>;

    async fn report(
        &self,
        _: Request<v1::ReportRequest>,
    ) -> std::result::Result<Response<v1::NodeReport>, Status> {
        Ok(Response::new(self.state()))
    }

    async fn obey(
        &self,
        commands: Request<Streaming<v1::Command>>,
    ) -> std::result::Result<Response<Self::ObeyStream>, Status> {
        let agent = self.clone();
        let answers = commands.into_inner().filter_map(move |command| {
            let answer = match command {
                // Kept by real nodes; nobody answers it.
                Ok(v1::Command {
                    action: Some(Action::Witness(_)),
                    ..
                }) => None,
                command => Some(command.map(|command| agent.obey(command))),
            };
            std::future::ready(answer)
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn watch(
        &self,
        _: Request<v1::WatchNodeRequest>,
    ) -> std::result::Result<Response<Self::WatchStream>, Status> {
        let now = stream::iter([Ok(self.state())]);
        Ok(Response::new(Box::pin(now.chain(stream::pending()))))
    }

    async fn processes(
        &self,
        _: Request<v1::ProcessesRequest>,
    ) -> std::result::Result<Response<v1::ProcessesReply>, Status> {
        Ok(Response::new(v1::ProcessesReply::default()))
    }

    async fn journal(
        &self,
        _: Request<v1::JournalRequest>,
    ) -> std::result::Result<Response<Self::JournalStream>, Status> {
        Ok(Response::new(Box::pin(stream::empty())))
    }
}

/// Enrols `count` nodes named `PREFIX-0` and on, straight into the controller's database with its own CA: what
/// `redbutton-controller issue node` does, without a process for each.
///
/// # Errors
/// When the state directory is not a controller's, or a name is taken.
pub async fn enrol(
    state: &Path,
    prefix: &str,
    site: &str,
    count: u32,
    controller: &str,
) -> Result<Vec<Bundle>> {
    let ca = Authority::open(state, time::OffsetDateTime::now_utc())?.ca();
    let store = SqliteStore::open(&state.join(files::DATABASE)).await?;
    let mut bundles = Vec::new();
    for number in 0..count {
        let node = NewNode {
            id: NodeId::random(),
            name: format!("{prefix}-{number}").parse()?,
            site: site.parse()?,
        };
        let issued = ca.node(node.id, &node.name, NODE_LIFE, time::OffsetDateTime::now_utc())?;
        let draft = audit::Draft {
            at_ms: 0,
            version: Version {
                incarnation: store.incarnation().await?,
                epoch: 0,
            },
            person: None,
            role: None,
            action: "issue-node".into(),
            target: node.name.to_string(),
            reason: "simulated".into(),
            evidence: String::new(),
            outcome: audit::Outcome::Allowed,
            detail: String::new(),
            order: None,
        };
        let note = Note {
            draft,
            about: About::default(),
        };
        let key = NewKey {
            spki: issued.spki()?,
            holder: Holder::Node(node.id, DaemonRole::NodeManager),
            enrolled_by: None,
            certificate_expires_at_ms: issued.expires.unix_timestamp() * 1_000,
        };
        store.create_node(&node, note.clone()).await?;
        store.enrol_key(&key, note).await?;
        bundles.push(Bundle {
            format: Bundle::FORMAT,
            identity: issued.identity.to_string(),
            name: node.name.to_string(),
            controllers: vec![controller.to_owned()],
            ca: ca.pem().to_owned(),
            certificate: issued.certificate,
            key: issued.key,
        });
    }
    store.close().await?;
    Ok(bundles)
}

/// An agent for each bundle, in order, with all that can be done before it dials. `config` is asked by its place.
///
/// # Errors
/// When a bundle is unusable.
pub fn prepare(bundles: &[Bundle], config: impl Fn(usize) -> DialConfig) -> Result<Vec<(Agent, Dialer)>> {
    let one = |(place, bundle): (usize, &Bundle)| {
        let proto::Identity::Daemon(node, _) = bundle.identity()? else {
            anyhow::bail!("not a daemon's bundle")
        };
        Ok((
            Agent::new(node, &bundle.name),
            Dialer::new(bundle, config(place))?,
        ))
    };
    bundles.iter().enumerate().map(one).collect()
}

/// Agents that live until their end is cancelled.
pub struct Crowd {
    /// One for each bundle, in order.
    pub agents: Vec<Agent>,
    attached: Arc<Semaphore>,
}

impl Crowd {
    /// Starts an agent for each bundle; at most `dials` of them dial for the first time at once.
    ///
    /// # Errors
    /// When a bundle is unusable.
    pub fn start(
        bundles: &[Bundle],
        dials: usize,
        config: DialConfig,
        end: &CancellationToken,
    ) -> Result<Self> {
        let ready = prepare(bundles, |_| config)?;
        Ok(Self::launch(ready, dials, end))
    }

    /// Starts agents that [`prepare`] made; at most `dials` of them dial for the first time at once.
    #[must_use]
    pub fn launch(ready: Vec<(Agent, Dialer)>, dials: usize, end: &CancellationToken) -> Self {
        let dials = Arc::new(Semaphore::new(dials));
        let attached = Arc::new(Semaphore::new(0));
        let mut agents = Vec::with_capacity(ready.len());
        for (agent, dialer) in ready {
            agents.push(agent.clone());
            let (dials, attached, end) = (dials.clone(), attached.clone(), end.clone());
            drop(tokio::spawn(async move {
                let waiting = Mutex::new(dials.acquire_owned().await.ok());
                let on_attached = move || {
                    if held(&waiting).take().is_some() {
                        attached.add_permits(1);
                    }
                };
                agent.live(dialer, end, on_attached).await;
            }));
        }
        Self { agents, attached }
    }

    /// Waits until each has been attached once.
    ///
    /// # Errors
    /// When that can never be.
    pub async fn all_attached(&self) -> Result<()> {
        let all = u32::try_from(self.agents.len())?;
        let permits = self.attached.acquire_many(all).await;
        permits.map(drop).context("no agent attaches")
    }
}

/// Attaches an agent for each bundle and returns when all are; they live until `end` is cancelled.
///
/// # Errors
/// When a bundle is unusable.
pub async fn attach(bundles: &[Bundle], end: &CancellationToken) -> Result<Vec<Agent>> {
    let crowd = Crowd::start(bundles, DIALS, DialConfig::default(), end)?;
    crowd.all_attached().await?;
    Ok(crowd.agents)
}
