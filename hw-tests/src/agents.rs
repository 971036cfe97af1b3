//! Simulated node managers: the real link, the real contract, no machine behind it.
//!
//! An agent answers every command at once with a proof of ordinary size (about 110 bytes). One process holds
//! thousands of them. What real node managers do is tested with real ones ([`crate::fleet`]).

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{Stream, StreamExt, stream};
use proto::v1::{self, command::Action, slivers_server::Slivers};
use proto::{NodeId, Version};
use tonic::{Request, Response, Status, Streaming};

type Reply<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

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
        self.0.holds.lock().map(|holds| holds.iter().cloned().collect()).unwrap_or_default()
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
        let Ok(mut holds) = self.0.holds.lock() else { return answer };
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

    async fn report(&self, _: Request<v1::ReportRequest>) -> Result<Response<v1::NodeReport>, Status> {
        Ok(Response::new(self.state()))
    }

    async fn obey(
        &self,
        commands: Request<Streaming<v1::Command>>,
    ) -> Result<Response<Self::ObeyStream>, Status> {
        let agent = self.clone();
        let answers = commands.into_inner().map(move |command| Ok(agent.obey(command?)));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn watch(&self, _: Request<v1::WatchNodeRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let now = stream::iter([Ok(self.state())]);
        Ok(Response::new(Box::pin(now.chain(stream::pending()))))
    }

    async fn processes(
        &self,
        _: Request<v1::ProcessesRequest>,
    ) -> Result<Response<v1::ProcessesReply>, Status> {
        Ok(Response::new(v1::ProcessesReply::default()))
    }

    async fn journal(&self, _: Request<v1::JournalRequest>) -> Result<Response<Self::JournalStream>, Status> {
        Ok(Response::new(Box::pin(stream::empty())))
    }
}
