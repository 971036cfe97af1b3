//! The store in one SQLite file.
//!
//! ```text
//!   open.rs    create, open, migrate; refuses what is corrupt or newer
//!   tx.rs      the one writer: BEGIN IMMEDIATE … COMMIT, rolled back when dropped
//!   fault.rs   SQLite's errors by what the caller does about them
//!   row.rs     between rows and checked types
//!   people.rs places.rs nodes.rs keys.rs invites.rs orders.rs results.rs holds.rs audit.rs: the statements
//!   policies.rs: what policy each site was given
//!   key_store.rs node_keys.rs: the parts of the store about keys
//!   crash.rs   dies on purpose, in debug builds, so that a test can look at what is left
//! ```
//!
//! WAL: readers never wait for the writer. synchronous=FULL: a commit that returned has been fsynced.
//! `issue` writes to the same file while the controller serves: each transaction reads what it needs (the end of
//! the audit chain, the highest epoch) inside itself, and nothing is cached between transactions.

mod audit;
mod fault;
mod holds;
mod invites;
mod keys;
mod node_keys;
mod nodes;
mod open;
mod orders;
mod people;
mod places;
mod policies;
mod proposals;
mod recovery;
mod results;
mod rollouts;
mod row;
mod told;
mod tx;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use proto::{HoldId, NodeId, NodeName, OrderId, PersonName, SiteName, SliceName, Version};
use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};
use tokio::sync::Mutex;

pub use self::rollouts::RolloutRecord;

use self::fault::{Fail, fault};
use self::tx::Tx;
use super::{
    AuditFilter, AuditPage, Committed, HoldRecord, ImportedHold, NewNode, NewOrder, NewPerson, NewSite,
    NewSlice, NodeRecord, NodeSeen, NodeSelection, Note, OrderFilter, OrderRecord, Page, PageRequest,
    PersonRecord, Recorded, ReportRecord, Result, ResultRecord, SiteRecord, SliceRecord, Store, high_water,
};

/// The store in one SQLite file. Cheap to share behind an `Arc`.
pub struct SqliteStore {
    path: PathBuf,
    writer: Arc<Mutex<SqliteConnection>>,
    readers: SqlitePool,
}

impl SqliteStore {
    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn read(&self) -> Result<PoolConnection<Sqlite>> {
        self.readers.acquire().await.map_err(|e| self.fault(e.into()))
    }

    async fn write(&self) -> Result<Tx> {
        Tx::begin(Arc::clone(&self.writer))
            .await
            .map_err(|e| self.fault(e.into()))
    }

    async fn commit<T>(&self, tx: Tx, done: T) -> Result<T> {
        tx.commit().await.map_err(|e| self.fault(e.into()))?;
        Ok(done)
    }

    fn fault(&self, fail: Fail) -> super::StoreError {
        fault(&self.path, fail)
    }
}

/// A method that reads: one connection, one function of a submodule.
macro_rules! read {
    ($store:ident, $module:ident :: $function:ident ( $($argument:expr),* )) => {{
        let mut conn = $store.read().await?;
        $module::$function(&mut conn, $($argument),*).await.map_err(|e| $store.fault(e))
    }};
}

/// A method that writes: one transaction around one function of a submodule.
macro_rules! write {
    ($store:ident, $module:ident :: $function:ident ( $($argument:expr),* )) => {{
        let mut tx = $store.write().await?;
        let done = $module::$function(tx.conn(), $($argument),*).await.map_err(|e| $store.fault(e))?;
        $store.commit(tx, done).await
    }};
}

// Here, below the macros that it uses.
mod key_store;
mod told_store;

#[async_trait]
impl Store for SqliteStore {
    async fn incarnation(&self) -> Result<u64> {
        read!(self, nodes::incarnation())
    }
    async fn reserve_epochs(&self, count: u64) -> Result<Range<u64>> {
        let reserved = write!(self, nodes::reserve_epochs(count))?;
        let mark = Version {
            incarnation: self.incarnation().await?,
            epoch: reserved.end.saturating_sub(1),
        };
        // Before anybody uses one: the database may be put back, the mark is not in it. Two short fsyncs for a
        // thousand presses.
        high_water::raise(&high_water::beside(&self.path), mark)?;
        Ok(reserved)
    }

    async fn create_person(&self, person: &NewPerson, note: Note) -> Result<PersonRecord> {
        write!(self, people::create(person, note))
    }
    async fn person(&self, name: &PersonName) -> Result<PersonRecord> {
        read!(self, people::get(name))
    }
    async fn people(&self, site: Option<&SiteName>, page: &PageRequest) -> Result<Page<PersonRecord>> {
        read!(self, people::list(site, page))
    }
    async fn grant(&self, person: &PersonName, grant: &authz::Grant, note: Note) -> Result<PersonRecord> {
        write!(self, people::grant(person, grant, note))
    }
    async fn revoke(&self, person: &PersonName, grant: &authz::Grant, note: Note) -> Result<PersonRecord> {
        write!(self, people::revoke(person, grant, note))
    }

    async fn create_site(&self, site: &NewSite, note: Note) -> Result<SiteRecord> {
        write!(self, places::create_site(site, note))
    }
    async fn site(&self, name: &SiteName) -> Result<SiteRecord> {
        read!(self, places::site(name))
    }
    async fn sites(&self, page: &PageRequest) -> Result<Page<SiteRecord>> {
        read!(self, places::sites(page))
    }
    async fn create_slice(&self, slice: &NewSlice, note: Note) -> Result<SliceRecord> {
        write!(self, places::create_slice(slice, note))
    }
    async fn slice(&self, name: &SliceName) -> Result<SliceRecord> {
        read!(self, places::slice(name))
    }
    async fn slices(&self, site: Option<&SiteName>, page: &PageRequest) -> Result<Page<SliceRecord>> {
        read!(self, places::slices(site, page))
    }

    async fn create_node(&self, node: &NewNode, note: Note) -> Result<NodeRecord> {
        write!(self, nodes::create(node, note))
    }
    async fn node(&self, id: NodeId) -> Result<NodeRecord> {
        read!(self, nodes::get(id))
    }
    async fn node_by_name(&self, name: &NodeName) -> Result<NodeRecord> {
        read!(self, nodes::by_name(name))
    }
    async fn all_nodes(&self) -> Result<Vec<NodeRecord>> {
        read!(self, nodes::all())
    }
    async fn nodes(&self, select: &NodeSelection, page: &PageRequest) -> Result<Page<NodeRecord>> {
        read!(self, nodes::list(select, page))
    }
    async fn record_seen(&self, batch: &[NodeSeen]) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        write!(self, nodes::record_seen(batch))
    }
    async fn last_report(&self, id: NodeId) -> Result<Option<ReportRecord>> {
        read!(self, nodes::last_report(id))
    }

    async fn commit_order(&self, order: &NewOrder, note: Note) -> Result<Committed> {
        let mut tx = self.write().await?;
        let done = orders::commit(tx.conn(), order, note)
            .await
            .map_err(|e| self.fault(e))?;
        if let Committed::Existing(_) = done {
            return Ok(done); // Nothing was written; dropping the transaction spares an fsync.
        }
        crate::crash::point("controller.before-commit");
        let done = self.commit(tx, done).await?;
        crate::crash::point("controller.after-commit");
        Ok(done)
    }
    async fn order_by_key(&self, person: &PersonName, key: &str) -> Result<Option<OrderRecord>> {
        read!(self, orders::by_key(person, key))
    }
    async fn order(&self, id: OrderId) -> Result<OrderRecord> {
        read!(self, orders::get(id))
    }
    async fn orders(&self, filter: &OrderFilter, page: &PageRequest) -> Result<Page<OrderRecord>> {
        read!(self, orders::list(filter, page))
    }
    async fn open_orders(&self) -> Result<Vec<(OrderRecord, Vec<ResultRecord>)>> {
        read!(self, orders::open())
    }
    async fn results(&self, order: OrderId) -> Result<Vec<ResultRecord>> {
        read!(self, results::of(order))
    }
    async fn record_results(&self, batch: &[ResultRecord]) -> Result<Recorded> {
        if batch.is_empty() {
            return Ok(Recorded::default());
        }
        write!(self, results::record(batch))
    }

    async fn holds(&self) -> Result<Vec<HoldRecord>> {
        read!(self, holds::standing())
    }
    async fn hold(&self, id: HoldId) -> Result<HoldRecord> {
        read!(self, holds::get(id))
    }
    async fn released_among(&self, ids: &[HoldId]) -> Result<Vec<HoldId>> {
        read!(self, holds::released_among(ids))
    }
    async fn known_among(&self, ids: &[HoldId]) -> Result<Vec<HoldId>> {
        read!(self, holds::known_among(ids))
    }
    async fn import_hold(&self, hold: &ImportedHold, note: Note) -> Result<bool> {
        write!(self, holds::import(hold, note))
    }

    async fn append_audit(&self, note: Note) -> Result<::audit::Entry> {
        write!(self, audit::append(note))
    }
    async fn audit_page(&self, filter: &AuditFilter, before: Option<u64>, size: u32) -> Result<AuditPage> {
        read!(self, audit::page(filter, before, size))
    }
    async fn audit_from(&self, from: u64, limit: u32) -> Result<Vec<::audit::Entry>> {
        read!(self, audit::from(from, limit))
    }
    async fn audit_head(&self) -> Result<::audit::Head> {
        read!(self, audit::head())
    }
}
