//! What nodes answer, on its way to the disk: in batches, first into memory, then the store, then to whoever
//! watches. One task for all links, so that a fleet that answers at once costs a few statements.

use std::sync::Arc;
use std::time::Duration;

use proto::OrderId;
use proto::v1::{Answer, Outcome};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::state::News;
use super::{Fleet, now_ms};
use crate::orders::{Heard, NodeIndex, Said};
use crate::store::{NodeSeen, Note, OrderRecord, ResultRecord};

/// Answers that wait; when it is full, links are read later.
pub(crate) const QUEUE: usize = 4_096;
/// Largest batch.
const BATCH: usize = 1_000;
/// How long a batch may wait for more.
const GATHER: Duration = Duration::from_millis(10);
/// Between two tries to write what the disk refused.
const RETRY: Duration = Duration::from_secs(1);

/// Of answers that count for nothing.
const QUARANTINED: &str =
    "quarantined: two machines share the node's key, so this proves nothing (redbutton node rekey)";

/// Something to record.
#[derive(Debug)]
pub(crate) enum Item {
    /// A node answered an order.
    Heard {
        node: NodeIndex,
        order: OrderId,
        answer: Box<Answer>,
        at_ms: i64,
    },
    /// The controller decided for a node.
    Verdict(Box<ResultRecord>),
}

/// Nodes that were seen, written together. Few, because a press waits for at most one such batch.
const SIGHTINGS: usize = 64;

/// Writes where nodes were seen, beside the answers: when thousands attach at once, no proof stands behind that.
pub(crate) async fn note_sightings(fleet: Arc<Fleet>, mut queue: mpsc::Receiver<NodeSeen>) {
    let mut seen = Vec::with_capacity(SIGHTINGS);
    loop {
        seen.clear();
        tokio::select! {
            biased;
            received = queue.recv_many(&mut seen, SIGHTINGS) => if received == 0 { return },
            // What is left is observations; the nodes will say more.
            () = fleet.shutdown.cancelled() => queue.close(),
        }
        if !seen.is_empty()
            && let Err(error) = fleet.store.record_seen(&seen).await
        {
            // An observation; the next one says more.
            tracing::debug!(%error, "cannot note where nodes were seen");
        }
        if !fleet.shutdown.is_cancelled() {
            // Gathers, so that a fleet that comes up costs tens of transactions and not thousands.
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// Records until the fleet ends, and then what is left.
pub(crate) async fn run(fleet: Arc<Fleet>, mut queue: mpsc::Receiver<Item>) {
    let mut items = Vec::with_capacity(BATCH);
    loop {
        items.clear();
        tokio::select! {
            biased;
            received = queue.recv_many(&mut items, BATCH) => if received == 0 { return },
            () = fleet.shutdown.cancelled() => {
                queue.close();
                while queue.recv_many(&mut items, BATCH).await > 0 {
                    fleet.record(&mut items).await;
                }
                return;
            }
        }
        let full = Instant::now() + GATHER;
        while items.len() < BATCH {
            let room = BATCH - items.len();
            match tokio::time::timeout_at(full, queue.recv_many(&mut items, room)).await {
                Ok(received) if received > 0 => {}
                _ => break,
            }
        }
        fleet.record(&mut items).await;
    }
}

/// Writes what the disk refused, again and again.
pub(crate) async fn retry(fleet: Arc<Fleet>) {
    while fleet
        .shutdown
        .run_until_cancelled(tokio::time::sleep(RETRY))
        .await
        .is_some()
    {
        fleet.write_kept().await;
        fleet.retry_approved().await;
    }
    fleet.write_kept().await;
}

impl Fleet {
    async fn record(&self, items: &mut Vec<Item>) {
        let results = self.enter_results(items);
        if !results.is_empty() {
            crate::crash::point("controller.before-record");
            self.write(&results).await;
            crate::crash::point("controller.after-record");
            self.tell(&results);
        }
    }

    /// Applies what was heard to the open orders. What it changed is to be written, and stands in
    /// `State::writing` until it is told.
    fn enter_results(&self, items: &mut Vec<Item>) -> News {
        let mut results = Vec::with_capacity(items.len());
        let (mut late, mut foreign) = (0_u32, 0_u32);
        let mut state = self.lock();
        for item in items.drain(..) {
            match item {
                Item::Verdict(verdict) => results.push(*verdict),
                Item::Heard {
                    node,
                    order,
                    mut answer,
                    at_ms,
                } => {
                    let Some(member) = state.roster.get(node).map(|member| member.id) else {
                        continue;
                    };
                    let doubtful = state.node(node).is_some_and(|node| node.quarantined);
                    let Some(open) = state.open_mut(order) else {
                        late += 1;
                        continue;
                    };
                    if doubtful {
                        answer.detail = format!("{QUARANTINED}: {}", answer.detail);
                        answer.outcome = Outcome::Failed.into();
                        answer.proven = false;
                    }
                    let said = match Said::check(open.record.kind, answer.outcome, answer.proven) {
                        Ok(said) => said,
                        Err(why) => {
                            answer.detail = format!("{why}: {}", answer.detail);
                            answer.outcome = Outcome::Failed.into();
                            Said {
                                outcome: Outcome::Failed,
                                proven: false,
                            }
                        }
                    };
                    let cell = match open.tracker.heard(node, said) {
                        Heard::Changed(cell) => cell,
                        Heard::Unchanged => continue,
                        Heard::Foreign => {
                            foreign += 1;
                            continue;
                        }
                    };
                    let proven = cell.is_proven();
                    let outcome = cell.outcome().unwrap_or(said.outcome);
                    let answer = Some(*answer);
                    results.push(ResultRecord {
                        order,
                        node: member,
                        outcome,
                        proven,
                        answered_at_ms: at_ms,
                        answer,
                    });
                }
            }
        }
        if late + foreign > 0 {
            tracing::debug!(
                late,
                foreign,
                "answers to orders that are done, unknown, or not for the node"
            );
        }
        let results: News = results.into();
        state.writing = results.clone();
        results
    }

    /// Writes results. What cannot be written is kept with its order.
    async fn write(&self, results: &News) {
        let volatile = {
            let state = self.lock();
            let is_volatile =
                |result: &&ResultRecord| state.open(result.order).is_some_and(|open| !open.stored);
            results.iter().filter(is_volatile).cloned().collect::<Vec<_>>()
        };
        // The usual case writes the batch as it is.
        let split: Vec<ResultRecord>;
        let ready: &[ResultRecord] = if volatile.is_empty() {
            results
        } else {
            split = results
                .iter()
                .filter(|result| !volatile.contains(result))
                .cloned()
                .collect();
            &split
        };
        let mut kept = volatile;
        if !ready.is_empty() {
            match self.store.record_results(ready).await {
                Ok(recorded) if recorded.unknown.is_empty() => {}
                Ok(recorded) => tracing::error!(rows = ?recorded.unknown, "the store does not know these"),
                Err(error) => {
                    tracing::warn!(%error, results = ready.len(), "results kept in memory");
                    kept.extend_from_slice(ready);
                }
            }
        }
        let mut state = self.lock();
        for result in kept {
            if let Some(open) = state.open_mut(result.order) {
                open.kept.insert(result.node, result);
            }
        }
    }

    /// Hands news to watchers and takes out what is done, in one step: a watcher that finds the order gone has
    /// all the news.
    fn tell(&self, results: &News) {
        let mut orders: Vec<OrderId> = results.iter().map(|result| result.order).collect();
        orders.dedup();
        orders.sort_unstable();
        orders.dedup();
        let mut done = Vec::new();
        {
            let mut state = self.lock();
            state.writing = News::from([]);
            for order in orders {
                if let Some(sender) = state.open(order).and_then(|open| open.news.as_ref()) {
                    // Fails when the last watcher has left.
                    let _ = sender.send(results.clone());
                }
                done.extend(state.close_if_done(order));
            }
        }
        for open in done {
            self.note_end(&open);
        }
    }

    /// Takes out an order if it is done.
    pub(crate) fn close(&self, id: OrderId) {
        let done = self.lock().close_if_done(id);
        if let Some(open) = done {
            self.note_end(&open);
        }
    }

    /// Audits what an order came to.
    fn note_end(&self, open: &super::state::Open) {
        let counts = open.tracker.counts(|_| true).into();
        let site = match &open.record.scope {
            proto::Scope::Node(node) => {
                let state = self.lock();
                let member = state
                    .roster
                    .index(*node)
                    .and_then(|index| state.roster.get(index));
                member.map(|member| member.site.clone())
            }
            proto::Scope::Site(site) => Some(site.clone()),
            proto::Scope::Fleet => None,
        };
        let note = what_it_came_to(&open.record, site, &counts, self.now());
        let unwritten = self.unwritten.clone();
        drop(tokio::spawn(async move { unwritten.note(note).await }));
    }

    async fn write_kept(&self) {
        let stored = self.unwritten.retry().await;
        let (kept, touched) = {
            let mut state = self.lock();
            for id in &stored {
                if let Some(open) = state.open_mut(*id) {
                    open.stored = true;
                    tracing::info!(order = %id, "order is durable now");
                }
            }
            let of = |open: &super::state::Open| open.kept.values().cloned().collect::<Vec<_>>();
            let waiting = state
                .book
                .values()
                .filter(|open| open.stored && !open.kept.is_empty());
            let kept: Vec<ResultRecord> = waiting.flat_map(of).collect();
            let parts = state.book.values().filter(|open| open.stored && !open.whole);
            let mut touched = stored;
            touched.extend(parts.map(|open| open.record.id));
            touched.extend(kept.iter().map(|result| result.order));
            (kept, touched)
        };
        if !touched.is_empty()
            && let Err(error) = self.refresh().await
        {
            tracing::debug!(%error, "still cannot look for new nodes");
        }
        if !kept.is_empty() {
            match self.store.record_results(&kept).await {
                Err(error) => tracing::debug!(%error, "results still not durable"),
                Ok(_) => {
                    let mut state = self.lock();
                    for result in &kept {
                        if let Some(open) = state.open_mut(result.order)
                            && open.kept.get(&result.node) == Some(result)
                        {
                            open.kept.remove(&result.node);
                        }
                    }
                }
            }
        }
        for order in touched {
            self.close(order);
        }
    }
}

/// `site`: whose people may read it, that of the node where it is about one.
fn what_it_came_to(
    record: &OrderRecord,
    site: Option<proto::SiteName>,
    counts: &proto::v1::OutcomeCounts,
    version: proto::Version,
) -> Note {
    let mut parts = Vec::new();
    for (count, word) in [
        (counts.killed, "killed"),
        (counts.already_dead, "already dead"),
        (counts.frozen, "frozen"),
        (counts.released, "released"),
        (counts.superseded, "superseded"),
        (counts.accepted, "accepted"),
        (counts.rebooted, "rebooted"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    let detail = if parts.is_empty() {
        "no node".to_owned()
    } else {
        parts.join(", ")
    };
    let node = match &record.scope {
        proto::Scope::Node(node) => Some(*node),
        proto::Scope::Site(_) | proto::Scope::Fleet => None,
    };
    Note {
        draft: audit::Draft {
            at_ms: now_ms(),
            version,
            person: None,
            role: None,
            action: record.kind.as_str().to_owned(),
            target: record.target.clone(),
            reason: String::new(),
            evidence: String::new(),
            outcome: audit::Outcome::Done,
            detail: format!("proven on every node: {detail}"),
            order: Some(record.id),
        },
        about: crate::store::About {
            slice: record.slice.clone(),
            site,
            node,
        },
    }
}
