//! What the disk has not taken yet. The chain of decisions has an order, so while one write waits, all later ones
//! wait behind it; a task tries again until the disk takes them.

use std::collections::VecDeque;
use std::sync::Arc;

use proto::OrderId;
use tokio::sync::Mutex;

use crate::store::{Committed, NewOrder, Note, Store, StoreError};

/// Most audit entries without an order that are kept; orders are always kept.
const MAX_NOTES: usize = 10_000;

/// What became of an order's write.
#[derive(Debug)]
pub(crate) enum Written {
    /// It is on the disk, now or before.
    Stored(Box<Committed>),
    /// It is kept in memory; why.
    Kept(String),
}

#[derive(Debug)]
enum Write {
    Order(Box<NewOrder>, Note),
    Note(Note),
}

/// Writes in order, and keeps what cannot be written.
pub(crate) struct Unwritten {
    store: Arc<dyn Store>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    writes: VecDeque<Write>,
    notes: usize,
    /// Orders that were kept and are on the disk now; nobody has been told.
    stored: Vec<OrderId>,
}

/// Whether the disk is to blame, so that memory has to stand in for it.
fn is_disk(error: &StoreError) -> bool {
    !matches!(
        error,
        StoreError::NotFound { .. }
            | StoreError::Exists { .. }
            | StoreError::Unusable { .. }
            | StoreError::Invalid { .. }
    )
}

impl Unwritten {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            queue: Mutex::default(),
        }
    }

    /// Writes an order, or keeps it.
    ///
    /// # Errors
    /// When the store refuses the order itself: it names something that is not there.
    pub(crate) async fn order(&self, order: NewOrder, note: Note) -> Result<Written, StoreError> {
        let mut queue = self.queue.lock().await;
        let failed = match self.drain(&mut queue).await {
            Err(error) => error,
            Ok(()) => match self.store.commit_order(&order, note.clone()).await {
                Ok(committed) => return Ok(Written::Stored(Box::new(committed))),
                Err(error) if is_disk(&error) => error,
                Err(error) => return Err(error),
            },
        };
        queue.writes.push_back(Write::Order(Box::new(order), note));
        Ok(Written::Kept(failed.to_string()))
    }

    /// Writes an audit entry, or keeps it.
    pub(crate) async fn note(&self, note: Note) {
        let mut queue = self.queue.lock().await;
        let failed = match self.drain(&mut queue).await {
            Err(error) => error,
            Ok(()) => match self.store.append_audit(note.clone()).await {
                Ok(_) => return,
                Err(error) => error,
            },
        };
        if queue.notes >= MAX_NOTES {
            tracing::error!(%failed, action = %note.draft.action, "audit entry lost: the disk takes nothing and memory is full");
            return;
        }
        tracing::warn!(%failed, "audit entry kept in memory");
        queue.notes += 1;
        queue.writes.push_back(Write::Note(note));
    }

    /// Tries again; the orders that were kept and are on the disk now.
    pub(crate) async fn retry(&self) -> Vec<OrderId> {
        let mut queue = self.queue.lock().await;
        if let Err(error) = self.drain(&mut queue).await {
            tracing::debug!(%error, waiting = queue.writes.len(), "still not durable");
        }
        std::mem::take(&mut queue.stored)
    }

    async fn drain(&self, queue: &mut Queue) -> Result<(), StoreError> {
        while let Some(write) = queue.writes.front() {
            let done = match write {
                Write::Order(order, note) => self
                    .store
                    .commit_order(order, note.clone())
                    .await
                    .map(|_| Some(order.id)),
                Write::Note(note) => self.store.append_audit(note.clone()).await.map(|_| None),
            };
            match done {
                Ok(order) => queue.stored.extend(order),
                Err(error) if is_disk(&error) => return Err(error),
                // It was checked against the store when it was pressed, and nothing is ever taken out of it.
                Err(error) => tracing::error!(%error, "the store refuses what was kept for it"),
            }
            if matches!(queue.writes.pop_front(), Some(Write::Note(_))) {
                queue.notes -= 1;
            }
        }
        Ok(())
    }
}
