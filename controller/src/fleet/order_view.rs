//! An order as it stands, put together from memory and the store, and its changes as they come.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proto::v1::{NodeResult, OrderEvent, Outcome};
use proto::{NodeId, OrderId};
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

use super::state::News;
use super::{Fleet, LiveOrder, Standing};
use crate::error::Error;
use crate::services::wire;
use crate::store::{OrderRecord, OrderState, ResultRecord};

/// Between two events of one watcher.
const COALESCE: Duration = Duration::from_millis(100);
/// Between two looks at who has come and gone, which is no news of the order's.
const GLANCE: Duration = Duration::from_secs(1);

impl Fleet {
    /// The record of an order, from memory while it is open.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn order(&self, id: OrderId) -> Result<LiveOrder, Error> {
        if let Some(live) = self.lock().live(id) {
            return Ok(live);
        }
        let record = Arc::new(self.store.order(id).await?);
        Ok(self.view(record))
    }

    /// Orders that only memory has, newest first.
    pub fn unstored_orders(&self) -> Vec<Arc<OrderRecord>> {
        let state = self.lock();
        state
            .book
            .values()
            .rev()
            .filter(|open| !open.stored)
            .map(|open| open.record.clone())
            .collect()
    }

    /// Every node of an order with what it said.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn node_results(&self, order: &LiveOrder) -> Result<Vec<NodeResult>, Error> {
        let id = order.record.id;
        // First what memory has, then the store: what moves from one to the other meanwhile is in both.
        let (standings, unread) = {
            let state = self.lock();
            (state.standings(id), state.unread(id).cloned().collect::<Vec<_>>())
        };
        let stored = self.store.results(id).await?;
        let mut results: HashMap<NodeId, ResultRecord> =
            stored.into_iter().map(|result| (result.node, result)).collect();
        results.extend(unread.into_iter().map(|result| (result.node, result)));
        let standings = match standings {
            Some(standings) => standings,
            None => self.closed_standings(results.values()),
        };
        let with_result = |standing: Standing| {
            let result = results.remove(&standing.node.id);
            wire::node_result(&standing, result)
        };
        Ok(standings.into_iter().map(with_result).collect())
    }

    fn closed_standings<'a>(&self, results: impl Iterator<Item = &'a ResultRecord>) -> Vec<Standing> {
        let state = self.lock();
        let standing = |result: &ResultRecord| {
            let node = state.roster.get(state.roster.index(result.node)?)?.clone();
            Some(Standing {
                node,
                outcome: result.outcome,
                proven: result.proven,
            })
        };
        let mut all: Vec<Standing> = results.filter_map(standing).collect();
        all.sort_by(|a, b| a.node.name.cmp(&b.node.name));
        all
    }

    /// Sends an order as it stands, then its changes, to `events` until nothing more is to come or nobody reads.
    /// A reader who is slow gets fewer and larger events and holds up nobody.
    ///
    /// # Errors
    /// When the order is not there or the store fails.
    pub async fn watch(
        &self,
        id: OrderId,
        until_settled: bool,
        events: &mpsc::Sender<Result<OrderEvent, tonic::Status>>,
    ) -> Result<(), Error> {
        loop {
            let news = self.lock().open_mut(id).map(super::state::Open::subscribe);
            let order = self.order(id).await?;
            let results = self.node_results(&order).await?;
            let mut seen: HashMap<NodeId, (Outcome, bool)> = HashMap::with_capacity(results.len());
            for result in &results {
                if let Ok(node) = result.node.parse() {
                    seen.insert(node, (result.outcome(), result.proven));
                }
            }
            let last = is_last(&order, until_settled) || news.is_none();
            if !wire::send_event(events, &order, results, last).await || last {
                return Ok(());
            }
            let Some(news) = news else { return Ok(()) };
            if self.follow(id, until_settled, events, news, seen).await? {
                return Ok(());
            }
            // Fell too far behind: everything again.
        }
    }

    /// False when everything has to be sent again.
    async fn follow(
        &self,
        id: OrderId,
        until_settled: bool,
        events: &mpsc::Sender<Result<OrderEvent, tonic::Status>>,
        mut news: broadcast::Receiver<News>,
        mut seen: HashMap<NodeId, (Outcome, bool)>,
    ) -> Result<bool, Error> {
        let mut changed: HashMap<NodeId, ResultRecord> = HashMap::new();
        let mut sent = Instant::now();
        let take = |changed: &mut HashMap<NodeId, ResultRecord>, batch: &News| {
            let ours = batch.iter().filter(|result| result.order == id);
            changed.extend(ours.map(|result| (result.node, result.clone())));
        };
        loop {
            match tokio::time::timeout(GLANCE, news.recv()).await {
                Ok(Ok(batch)) => take(&mut changed, &batch),
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => return Ok(false),
                // The order is done.
                Ok(Err(broadcast::error::RecvError::Closed)) | Err(_) => {}
            }
            if events.is_closed() {
                return Ok(true);
            }
            let done = self
                .lock()
                .live(id)
                .is_none_or(|live| is_last(&live, until_settled));
            if !done {
                tokio::time::sleep_until(sent + COALESCE).await;
            }
            // The rest of the news and the order under one lock: an order that is gone has told everything.
            let open = {
                let state = self.lock();
                loop {
                    match news.try_recv() {
                        Ok(batch) => take(&mut changed, &batch),
                        Err(broadcast::error::TryRecvError::Lagged(_)) => return Ok(false),
                        Err(_) => break,
                    }
                }
                changed.extend(state.unread(id).map(|result| (result.node, result.clone())));
                state.live(id).zip(state.standings(id))
            };
            let (order, standings) = match open {
                Some(open) => open,
                None => (self.order(id).await?, self.closed_standings(changed.values())),
            };
            let results = differences(standings, &mut changed, &mut seen);
            let last = is_last(&order, until_settled);
            if last || !results.is_empty() {
                let read = wire::send_event(events, &order, results, last).await;
                if last || !read {
                    return Ok(true);
                }
            }
            sent = Instant::now();
        }
    }
}

/// What is not as the watcher saw it. What was answered and is not in `changed` was in the watcher's first event.
fn differences(
    standings: Vec<Standing>,
    changed: &mut HashMap<NodeId, ResultRecord>,
    seen: &mut HashMap<NodeId, (Outcome, bool)>,
) -> Vec<NodeResult> {
    let mut results = Vec::new();
    for standing in standings {
        let now = (standing.outcome, standing.proven);
        if seen.insert(standing.node.id, now) != Some(now) {
            let result = changed.remove(&standing.node.id);
            results.push(wire::node_result(&standing, result));
        }
    }
    changed.clear();
    results
}

fn is_last(order: &LiveOrder, until_settled: bool) -> bool {
    order.state == OrderState::Closed || (until_settled && order.settled)
}
