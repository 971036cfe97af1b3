//! Simulated node managers: the real link, the real contract, no machine behind it.
//!
//! An agent answers every command at once with a proof of ordinary size (about 110 bytes). One process holds
//! thousands of them. What real node managers do is tested with real ones ([`crate::fleet`]).

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use controller::admin::files;
use controller::pki::{Ca, NODE_LIFE};
use controller::store::{About, NewNode, Note, SqliteStore, Store};
use futures_util::{Stream, StreamExt, stream};
use link::{DialConfig, Dialer, LinkState};
use proto::bundle::{Bundle, SecretPem};
use proto::v1::{self, command::Action, slivers_server::Slivers, slivers_server::SliversServer};
use proto::{NodeId, Version};
use tokio::sync::Semaphore;
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
    boot_id: String,
    holds: Mutex<BTreeSet<String>>,
    seen: Mutex<Version>,
    commands: AtomicU64,
}

impl Agent {
    /// An agent that has never heard of any hold.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self(Arc::new(State {
            node,
            boot_id: uuid::Uuid::new_v4().to_string(),
            holds: Mutex::default(),
            seen: Mutex::default(),
            commands: AtomicU64::new(0),
        }))
    }

    /// Commands obeyed so far.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.0.commands.load(Ordering::Relaxed)
    }

    /// Ids of the holds that stand on this node.
    #[must_use]
    pub fn holds(&self) -> Vec<String> {
        self.0
            .holds
            .lock()
            .map(|holds| holds.iter().cloned().collect())
            .unwrap_or_default()
    }

    fn obey(&self, command: v1::Command) -> v1::Answer {
        self.0.commands.fetch_add(1, Ordering::Relaxed);
        let mut answer = v1::Answer {
            order: command.order,
            version: command.given.or(command.now),
            durable: true,
            proven: true,
            boot_id: self.0.boot_id.clone(),
            dead_us: 900,
            durable_us: 1_100,
            ..v1::Answer::default()
        };
        if let (Some(now), Ok(mut seen)) = (command.now, self.0.seen.lock()) {
            *seen = (*seen).max(now.into());
        }
        let Ok(mut holds) = self.0.holds.lock() else {
            return answer;
        };
        let outcome = match command.action {
            Some(Action::Impose(hold)) => {
                answer.slivers.push(v1::SliverProof {
                    cgroup: format!("redbutton.slice/{}", hold.slice),
                    slice: hold.slice,
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
                holds.insert(hold.id);
                v1::Outcome::Killed
            }
            Some(Action::Release(id)) => {
                holds.remove(&id);
                v1::Outcome::Released
            }
            Some(Action::Sync(sync)) => {
                holds.extend(sync.holds.into_iter().map(|hold| hold.id));
                for id in &sync.released {
                    holds.remove(id);
                }
                answer.holds = holds.iter().cloned().collect();
                v1::Outcome::AlreadyDead
            }
            Some(Action::Reboot(_) | Action::Halt(_)) => v1::Outcome::Accepted,
            None => v1::Outcome::Failed,
        };
        answer.outcome = outcome.into();
        answer
    }

    fn state(&self) -> v1::NodeReport {
        v1::NodeReport {
            node: self.0.node.to_string(),
            protocol: proto::PROTOCOL,
            agent_version: "simulated".into(),
            boot_id: self.0.boot_id.clone(),
            kernel: "simulated".into(),
            seen: self.0.seen.lock().ok().map(|seen| (*seen).into()),
            holds: self.holds(),
            ..v1::NodeReport::default()
        }
    }
}

#[tonic::async_trait]
impl Slivers for Agent {
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
        let answers = commands.into_inner().map(move |command| Ok(agent.obey(command?)));
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
    let read = |name: &str| std::fs::read_to_string(state.join(name)).with_context(|| name.to_owned());
    let ca = Ca::load(read(files::CA)?, &SecretPem::new(read(files::CA_KEY)?))?;
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
        store
            .create_node(
                &node,
                Note {
                    draft,
                    about: About::default(),
                },
            )
            .await?;
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

/// Attaches an agent for each bundle and returns when all are; they live until `end` is cancelled.
///
/// # Errors
/// When a bundle is unusable.
pub async fn attach(bundles: &[Bundle], end: &CancellationToken) -> Result<Vec<Agent>> {
    let dials = Arc::new(Semaphore::new(DIALS));
    let attached = Arc::new(Semaphore::new(0));
    let mut agents = Vec::new();
    for bundle in bundles {
        let proto::Identity::Daemon(node, _) = bundle.identity()? else {
            anyhow::bail!("not a daemon's bundle")
        };
        let agent = Agent::new(node);
        agents.push(agent.clone());
        let dialer = Dialer::new(bundle, DialConfig::default())?;
        let (dials, attached, end) = (dials.clone(), attached.clone(), end.clone());
        drop(tokio::spawn(async move {
            let mut permit = dials.acquire_owned().await.ok();
            let waiting = Mutex::new(permit.take());
            let routes = Routes::new(SliversServer::new(agent));
            let told = |state: LinkState| {
                if let (LinkState::Attached { .. }, Ok(mut permit)) = (state, waiting.lock())
                    && permit.take().is_some()
                {
                    attached.add_permits(1);
                }
            };
            dialer.run(routes, end, told).await;
        }));
    }
    let all = u32::try_from(bundles.len())?;
    let _all = attached.acquire_many(all).await.context("no agent attaches")?;
    Ok(agents)
}
