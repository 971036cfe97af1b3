//! The gRPC service `Slivers`, over whatever connection it is given: the link that we dialled, or a test's.
//!
//! Commands take effect in the order in which they arrive; their answers come when they are ready, so a slow kill holds
//! up nobody. What an order has begun goes on when the link dies. Everything else is bounded in size and time.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::Stream;
use prost::Message;
use proto::v1::command::Action;
use proto::v1::slivers_server::{Slivers, SliversServer};
use proto::v1::{self, Answer, Command, JournalLines, NodeReport};
use proto::{MAX_MESSAGE_BYTES, SliceName};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::diary::Diary;
use crate::engine::Node;
use crate::guided::{Guided, Listening};
use crate::journal::{self, JournalError, Query, Sources};
use crate::keys::NodeKeys;
use crate::merge;
use crate::policy::Policy;
use crate::procfs::Proc;
use crate::software::Updates;
use crate::worker::{Busy, Worker};

/// Commands whose answer is outstanding, on one stream.
const IN_FLIGHT: usize = 1_024;
/// Answers that wait for the link.
const ANSWERS: usize = 1_024;
/// Between reports when the request does not say, and the bounds of what it may say.
const REPORT_EVERY: Duration = Duration::from_secs(10);
const REPORT_RANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3_600));
/// Changes within this time make one report.
const SETTLE: Duration = Duration::from_millis(50);
/// Processes of a list when the request does not say, and at most.
const PROCESSES: u32 = 1_000;
const MAX_PROCESSES: u32 = 10_000;
/// How long a process list may take.
const LIST_FOR: Duration = Duration::from_secs(5);
/// Between saying that a reboot begins and beginning it: the answer leaves first.
const LEAVE: Duration = Duration::from_millis(250);

/// The service.
#[derive(Debug)]
pub struct Agent {
    node: Arc<Node>,
    reports: Worker,
    lists: Worker,
    journals: Worker,
    heads: Worker,
    sources: Sources,
    guided: Option<Guided>,
    keys: Option<NodeKeys>,
    updates: Option<Updates>,
    diary: Option<Diary>,
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Agent {
    /// Speaks for a node.
    ///
    /// # Errors
    /// When its threads cannot be made.
    pub fn new(node: Arc<Node>) -> std::io::Result<Self> {
        let sources = Sources::of_this_machine(node.config.log_files.clone());
        Ok(Self {
            node,
            reports: Worker::start("reports")?,
            lists: Worker::start("processes")?,
            journals: Worker::start("journal")?,
            heads: Worker::start("audit-heads")?,
            sources,
            guided: None,
            keys: None,
            updates: None,
            diary: None,
        })
    }

    /// Has its key certified over the link, and reports which it is.
    #[must_use]
    pub fn certified_by(mut self, keys: NodeKeys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Keeps what the controller says of who may do what here, and reports it.
    ///
    /// # Errors
    /// When its thread cannot be made.
    pub fn guided_by(mut self, policy: Arc<Policy>, listening: Listening) -> std::io::Result<Self> {
        self.guided = Some(Guided::new(policy, listening)?);
        Ok(self)
    }

    /// Lets the controller change the program.
    #[must_use]
    pub fn with_updates(self, updates: Updates) -> Self {
        Self {
            updates: Some(updates),
            ..self
        }
    }

    /// Tells the controller what was done here without it.
    #[must_use]
    pub fn with_diary(mut self, diary: Diary) -> Self {
        self.diary = Some(diary);
        self
    }

    /// What a link serves.
    #[must_use]
    pub fn routes(self) -> Routes {
        Self::shared_routes(Arc::new(self))
    }

    /// The same, of an agent that others use as well.
    #[must_use]
    pub fn shared_routes(this: Arc<Self>) -> Routes {
        let keys = this.keys.clone();
        let updates = this.updates.as_ref().map(Updates::server);
        let server = SliversServer::from_arc(this)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let mut routes = Routes::new(server);
        if let Some(keys) = keys {
            routes = routes.add_service(keys.service());
        }
        match updates {
            Some(updates) => routes.add_service(updates),
            None => routes,
        }
    }
}

fn busy(busy: Busy) -> Status {
    Status::resource_exhausted(busy.to_string())
}

async fn report(
    node: &Arc<Node>,
    worker: &Worker,
    guided: Option<&Guided>,
    keys: Option<&NodeKeys>,
    updates: Option<&Updates>,
    diary: Option<&Diary>,
) -> Result<NodeReport, Status> {
    let node = node.clone();
    let software = updates.map(Updates::state);
    let report = move || {
        fit(NodeReport {
            software,
            ..node.report()
        })
    };
    let mut report = worker.run(report).await.map_err(busy)?;
    report.local_entries = diary.map_or(0, |diary| diary.head().sequence);
    let report = match guided {
        Some(guided) => guided.tell(report),
        None => report,
    };
    Ok(match keys {
        Some(keys) => keys.tell(report),
        None => report,
    })
}

/// Cuts a report to what a message takes: thousands of slivers do not fit, and those without holds give way.
fn fit(mut report: NodeReport) -> NodeReport {
    const MOST: usize = MAX_MESSAGE_BYTES - (16 << 10);
    while report.encoded_len() > MOST && !report.slivers.is_empty() {
        report.slivers.sort_by_key(|sliver| sliver.holds.is_empty());
        let all = report.slivers.len();
        report.slivers.truncate(all / 2);
        report.refused.insert(
            0,
            v1::RefusedCgroup {
                cgroup: "*".into(),
                reason: format!("{all} slivers do not fit into a report, {} are shown", all / 2),
            },
        );
    }
    report
}

#[tonic::async_trait]
impl Slivers for Agent {
    async fn report(&self, _: Request<v1::ReportRequest>) -> Result<Response<NodeReport>, Status> {
        report(
            &self.node,
            &self.reports,
            self.guided.as_ref(),
            self.keys.as_ref(),
            self.updates.as_ref(),
            self.diary.as_ref(),
        )
        .await
        .map(Response::new)
    }

    async fn merge(&self, request: Request<v1::MergeRequest>) -> Result<Response<v1::MergeReply>, Status> {
        merge::reply(&self.node, self.diary.as_ref(), request.into_inner())
            .await
            .map(Response::new)
    }

    type ObeyStream = ReceiverStream<Result<Answer, Status>>;

    async fn obey(&self, request: Request<Streaming<Command>>) -> Result<Response<Self::ObeyStream>, Status> {
        let (out, answers) = mpsc::channel(ANSWERS);
        let (second, mut seconds) = mpsc::channel::<Answer>(ANSWERS);
        self.node.attach(&second);
        if let Some(updates) = &self.updates {
            updates.attached();
        }
        let first = out.clone();
        tokio::spawn(async move {
            while let Some(answer) = seconds.recv().await {
                if first.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        let guided = self.guided.clone();
        tokio::spawn(obey(
            self.node.clone(),
            guided,
            self.heads.clone(),
            request.into_inner(),
            out,
            second,
        ));
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    type WatchStream = ReceiverStream<Result<NodeReport, Status>>;

    async fn watch(
        &self,
        request: Request<v1::WatchNodeRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let every = match request.get_ref().interval_ms {
            0 => REPORT_EVERY,
            ms => Duration::from_millis(ms.into()).clamp(REPORT_RANGE.0, REPORT_RANGE.1),
        };
        let (out, reports) = mpsc::channel(1);
        let (node, worker) = (self.node.clone(), self.reports.clone());
        let (guided, keys) = (self.guided.clone(), self.keys.clone());
        let (updates, diary) = (self.updates.clone(), self.diary.clone());
        tokio::spawn(async move {
            let mut changes = node.changes();
            loop {
                changes.mark_unchanged();
                let report = report(
                    &node,
                    &worker,
                    guided.as_ref(),
                    keys.as_ref(),
                    updates.as_ref(),
                    diary.as_ref(),
                )
                .await;
                if out.send(report).await.is_err() {
                    return;
                }
                tokio::select! {
                    () = out.closed() => return,
                    () = tokio::time::sleep(every) => {}
                    changed = changes.changed() => match changed {
                        Ok(()) => tokio::time::sleep(SETTLE).await,
                        Err(_) => return,
                    },
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(reports)))
    }

    async fn processes(
        &self,
        request: Request<v1::ProcessesRequest>,
    ) -> Result<Response<v1::ProcessesReply>, Status> {
        let v1::ProcessesRequest { slice, limit } = request.into_inner();
        let slice = match slice.as_str() {
            "" => None,
            name => Some(
                name.parse::<SliceName>()
                    .map_err(|e| Status::invalid_argument(e.to_string()))?,
            ),
        };
        let limit = match limit {
            0 => PROCESSES,
            n if n <= MAX_PROCESSES => n,
            n => {
                return Err(Status::invalid_argument(format!(
                    "limit is {n}, at most {MAX_PROCESSES} are given"
                )));
            }
        };
        let node = self.node.clone();
        let listed = self
            .lists
            .run(move || processes(&node, slice.as_ref(), limit as usize))
            .await
            .map_err(busy)?;
        listed
            .map(Response::new)
            .map_err(|e| Status::unavailable(format!("cannot list processes: {e}")))
    }

    type JournalStream = Boxed<JournalLines>;

    async fn journal(
        &self,
        request: Request<v1::JournalRequest>,
    ) -> Result<Response<Self::JournalStream>, Status> {
        let v1::JournalRequest { lines, unit } = request.into_inner();
        let query = Query::new(lines, &unit).map_err(|e| status(&e))?;
        let (out, messages) = mpsc::channel(4);
        let sources = self.sources.clone();
        let show = move || {
            let mut sent = false;
            let mut source = String::new();
            let told = journal::tail(&sources, &query, &mut |message| {
                // Without lines it only asks whether anybody still listens.
                if message.lines.is_empty() {
                    source = message.source;
                    return !out.is_closed();
                }
                sent = true;
                out.blocking_send(Ok(message)).is_ok()
            });
            let last = match told {
                Err(error) => Err(status(&error)),
                Ok(()) if sent => return,
                Ok(()) => Ok(JournalLines {
                    lines: Vec::new(),
                    source,
                }),
            };
            let _ = out.blocking_send(last);
        };
        self.journals.begin(show).map_err(busy)?;
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

fn status(error: &JournalError) -> Status {
    let words = error.to_string();
    match error {
        JournalError::TooMany(_) | JournalError::Unit(_) => Status::invalid_argument(words),
        JournalError::NoUnits => Status::failed_precondition(words),
        JournalError::Child(_) => Status::unavailable(words),
    }
}

/// Takes the commands of one stream until it ends. `second` keeps the way of second answers open as long.
async fn obey(
    node: Arc<Node>,
    guided: Option<Guided>,
    heads: Worker,
    mut commands: Streaming<Command>,
    out: mpsc::Sender<Result<Answer, Status>>,
    second: mpsc::Sender<Answer>,
) {
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let command = match commands.message().await {
            Ok(Some(command)) => command,
            Ok(None) => break,
            Err(status) => {
                tracing::info!(%status, "the stream of orders ended");
                break;
            }
        };
        let command = match (command, &guided) {
            (
                Command {
                    action: Some(Action::Policy(statement)),
                    ..
                },
                Some(guided),
            ) => {
                guided.keep(&node, statement);
                continue;
            }
            (command, _) => command,
        };
        if let Some(v1::command::Action::Witness(statement)) = command.action {
            keep(&node, &heads, statement);
            continue;
        }
        // The change of state happens here, in the order of arrival; the rest of it beside the others.
        let reply = node.take(command);
        let (node, out) = (node.clone(), out.clone());
        tokio::spawn(async move {
            let reply = reply.await;
            // A dead link loses the answer; the order is given again on the next.
            let _ = out.send(Ok(reply.answer)).await;
            drop(permit);
            if let Some(wish) = reply.after {
                tokio::time::sleep(LEAVE).await;
                tracing::warn!(?wish, "obeying");
                if let Err(error) = node.restarter.begin(wish) {
                    tracing::error!(%error, ?wish, "could not begin");
                }
            }
        });
    }
    drop(second);
}

/// Keeps a head of the audit, beside everything else: the disk may be slow, and nobody waits for it.
fn keep(node: &Arc<Node>, worker: &Worker, statement: v1::SignedStatement) {
    let heads = node.clone();
    if let Err(error) = worker.begin(move || heads.witness(statement)) {
        // The next one comes with the next change, or the next link.
        tracing::debug!(%error, "an audit head is not looked at");
    }
}

/// Processes of a slice, or of everything. Blocking.
fn processes(node: &Node, slice: Option<&SliceName>, limit: usize) -> std::io::Result<v1::ProcessesReply> {
    let proc = Proc::at(std::path::Path::new("/proc"));
    let subtrees = node.subtrees_of(slice);
    let pids = match slice {
        None => proc.pids()?,
        Some(_) => {
            let mut pids: Vec<i32> = subtrees
                .iter()
                .filter_map(|s| s.handle.pids().ok())
                .flatten()
                .collect();
            pids.sort_unstable();
            pids.dedup();
            pids
        }
    };
    let listing = proc.list(&pids, limit, Some(Instant::now() + LIST_FOR));
    let mut reply = v1::ProcessesReply {
        processes: Vec::new(),
        truncated: !listing.incomplete.is_empty(),
    };
    let mut size = 0;
    for process in listing.processes {
        let owner = subtrees
            .iter()
            .find(|subtree| process.cgroup.starts_with(subtree.handle.path()));
        let slice = owner.map(|subtree| subtree.slice.to_string()).unwrap_or_default();
        let process = v1::Process {
            slice,
            ..process.into()
        };
        size += process.encoded_len() + 8;
        if size > MAX_MESSAGE_BYTES - (16 << 10) {
            reply.truncated = true;
            break;
        }
        reply.processes.push(process);
    }
    Ok(reply)
}
