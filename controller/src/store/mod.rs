//! What the controller never forgets: people, sites, slices, nodes, orders and their results, holds, the audit
//! chain. One narrow door, [`Store`]; behind it SQLite ([`SqliteStore`]), later PostgreSQL.
//!
//! ```text
//!   services/, orders/ ──> Store ──> SqliteStore: one writer connection, a few readers, WAL, synchronous=FULL
//!                            ^
//!   admin (`issue`) ─────────┘ a second process on the same file, at the same time
//! ```
//!
//! Invariants:
//! - What a method acknowledges survives a power cut; what it refuses left no trace.
//! - Every change by a person carries its audit entry ([`Note`]) in the same transaction: both or neither.
//! - Audit entries are only ever added.
//! - An epoch is handed out once ([`Store::reserve_epochs`]), a result never falls back from its proof
//!   ([`merge`]), a hold that was released stays released.
//! - Results may be stored in any order and any number of times.
//!
//! Concurrency: every method may be called from anywhere at any time. Writers wait for each other, readers wait
//! for nobody. A full disk is [`StoreError::Full`]: the caller goes on without durability and tries again.
//!
//! It does not decide who may do what (`authz`), nor whom an order reaches now (`fleet`).

mod error;
pub(crate) mod high_water;
mod keys;
pub mod merge;
mod node_keys;
mod order_records;
mod policies;
mod proposals;
mod records;
mod sqlite;
pub mod told;

use async_trait::async_trait;
use proto::{HoldId, NodeId, NodeName, OrderId, PersonName, SiteName, SliceName};

pub use error::StoreError;
pub use keys::{
    Holder, InviteRecord, InviteSelection, InviteUse, InviteUsed, Invitee, KeyRecord, KeySelection, KeyStore,
    NewInvite, NewKey, Removed, Revoked, Tie, TieKind,
};
pub use node_keys::{KeyTrust, NodeKeyStore, Quarantine, RevokedNode, Trusted};
pub use order_records::{
    Committed, HoldRecord, ImportedHold, NewOrder, OrderFilter, OrderKind, OrderProgress, OrderRecord,
    OrderState, Recorded, Release, ResultRecord, Wish,
};
pub use policies::{PolicyRecord, PolicyStore};
pub use proposals::{Approval, ProposalRecord, ProposalStore, Proposed};
pub use records::{
    About, AuditFilter, AuditPage, NewNode, NewPerson, NewSite, NewSlice, NodeRecord, NodeSeen,
    NodeSelection, Note, Page, PageRequest, PersonRecord, ReportRecord, SiteRecord, SliceRecord, Visible,
};
pub use sqlite::{RolloutRecord, SqliteStore};
pub use told::{Exemption, Signatures, SignedRelease, Told, ToldRelease};

/// How many epochs to reserve at once: one fsync for so many orders, and a crash skips at most so many numbers.
pub const EPOCH_BLOCK: u64 = 1_000;

/// What every method returns.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The controller's memory; people's and nodes' keys are [`KeyStore`]'s. Errors that any method may return besides its own: [`StoreError::Full`],
/// [`StoreError::Busy`], [`StoreError::Corrupt`], [`StoreError::Other`].
#[async_trait]
pub trait Store:
    KeyStore + NodeKeyStore + PolicyStore + ProposalStore + Told + Send + Sync + 'static
{
    // --- the clock of decisions ---

    /// The life of this database; the first is 1.
    async fn incarnation(&self) -> Result<u64>;

    /// Takes `count` epochs for ever and returns the range; whoever crashes loses the rest of it. The first epoch
    /// is 1. Callers take [`EPOCH_BLOCK`] at a time.
    async fn reserve_epochs(&self, count: u64) -> Result<std::ops::Range<u64>>;

    // --- people ---

    /// Adds a person with their first grants. [`StoreError::Exists`], [`StoreError::NotFound`] (a grant names a
    /// slice or site that is not there).
    async fn create_person(&self, person: &NewPerson, note: Note) -> Result<PersonRecord>;
    /// One person. [`StoreError::NotFound`].
    async fn person(&self, name: &PersonName) -> Result<PersonRecord>;
    /// People by name; `site`: only those with a grant at it or at one of its slices.
    async fn people(&self, site: Option<&SiteName>, page: &PageRequest) -> Result<Page<PersonRecord>>;
    /// Gives a role. Idempotent. [`StoreError::NotFound`] (person, slice or site).
    async fn grant(&self, person: &PersonName, grant: &authz::Grant, note: Note) -> Result<PersonRecord>;
    /// Takes a role away. Idempotent. [`StoreError::NotFound`] (person).
    async fn revoke(&self, person: &PersonName, grant: &authz::Grant, note: Note) -> Result<PersonRecord>;

    // --- sites and slices ---

    /// Adds a site. [`StoreError::Exists`].
    async fn create_site(&self, site: &NewSite, note: Note) -> Result<SiteRecord>;
    /// One site. [`StoreError::NotFound`].
    async fn site(&self, name: &SiteName) -> Result<SiteRecord>;
    /// Sites by name.
    async fn sites(&self, page: &PageRequest) -> Result<Page<SiteRecord>>;
    /// Adds a slice to its site. [`StoreError::Exists`], [`StoreError::NotFound`] (the site).
    async fn create_slice(&self, slice: &NewSlice, note: Note) -> Result<SliceRecord>;
    /// One slice. [`StoreError::NotFound`].
    async fn slice(&self, name: &SliceName) -> Result<SliceRecord>;
    /// Slices by name; `site`: only that site's.
    async fn slices(&self, site: Option<&SiteName>, page: &PageRequest) -> Result<Page<SliceRecord>>;

    // --- nodes ---

    /// Enrols a node. It belongs to every order that is committed from now on, and to none before.
    /// [`StoreError::Exists`] (name or id), [`StoreError::NotFound`] (the site).
    async fn create_node(&self, node: &NewNode, note: Note) -> Result<NodeRecord>;
    /// One node. [`StoreError::NotFound`].
    async fn node(&self, id: NodeId) -> Result<NodeRecord>;
    /// One node. [`StoreError::NotFound`].
    async fn node_by_name(&self, name: &NodeName) -> Result<NodeRecord>;
    /// Every node: what the fleet is rebuilt from.
    async fn all_nodes(&self) -> Result<Vec<NodeRecord>>;
    /// Nodes by name.
    async fn nodes(&self, select: &NodeSelection, page: &PageRequest) -> Result<Page<NodeRecord>>;
    /// Notes where nodes were last seen. Nodes that do not exist are passed over. Not audited: an observation.
    async fn record_seen(&self, batch: &[NodeSeen]) -> Result<()>;
    /// The last report of a node, if it ever sent one.
    async fn last_report(&self, id: NodeId) -> Result<Option<ReportRecord>>;

    // --- orders ---

    /// Makes an order durable: the order, the holds that it sets, the releases of others and its audit entry, in
    /// one transaction. The same key from the same person is the same order: nothing is written then. Holds that
    /// were released already stay as they are. [`StoreError::NotFound`] (a hold to lift, the scope's site or node;
    /// the slice may be one that only nodes know), [`StoreError::Exists`] (the id or the version).
    async fn commit_order(&self, order: &NewOrder, note: Note) -> Result<Committed>;
    /// What this key of this person came to, if it was pressed before.
    async fn order_by_key(&self, person: &PersonName, key: &str) -> Result<Option<OrderRecord>>;
    /// One order. [`StoreError::NotFound`].
    async fn order(&self, id: OrderId) -> Result<OrderRecord>;
    /// Orders, newest first.
    async fn orders(&self, filter: &OrderFilter, page: &PageRequest) -> Result<Page<OrderRecord>>;
    /// Every order that is not closed, oldest first, with its results so far: what the fleet is rebuilt from.
    /// Without their evidence, which may be large and is [`Store::results`]'s to show.
    async fn open_orders(&self) -> Result<Vec<(OrderRecord, Vec<ResultRecord>)>>;
    /// The results of one order so far, by node. Empty for an order that is not there.
    async fn results(&self, order: OrderId) -> Result<Vec<ResultRecord>>;
    /// Stores what nodes answered and moves the orders' states and counts with it, in one transaction. Rows of
    /// orders or nodes that are not there are returned, not stored. Not audited: what an order came to is.
    async fn record_results(&self, batch: &[ResultRecord]) -> Result<Recorded>;

    // --- holds ---

    /// Every hold that stands, oldest first.
    async fn holds(&self) -> Result<Vec<HoldRecord>>;
    /// One hold, standing or released. [`StoreError::NotFound`].
    async fn hold(&self, id: HoldId) -> Result<HoldRecord>;
    /// Those of `ids` that were released.
    async fn released_among(&self, ids: &[HoldId]) -> Result<Vec<HoldId>>;
    /// Those of `ids` that are in the store at all, standing or released.
    async fn known_among(&self, ids: &[HoldId]) -> Result<Vec<HoldId>>;
    /// Takes over a hold that only a node knew. False (and no audit entry) when it is known already.
    async fn import_hold(&self, hold: &ImportedHold, note: Note) -> Result<bool>;

    // --- audit ---

    /// Adds an entry alone: refusals, failures, what an order came to.
    async fn append_audit(&self, note: Note) -> Result<audit::Entry>;
    /// Entries before `before` (`None`: the newest), oldest first within the page.
    async fn audit_page(&self, filter: &AuditFilter, before: Option<u64>, size: u32) -> Result<AuditPage>;
    /// At most `limit` entries (and at most [`PageRequest::MAX`]) from `from` on, in order: call again from the last one's successor to stream.
    async fn audit_from(&self, from: u64, limit: u32) -> Result<Vec<audit::Entry>>;
    /// The end of the chain.
    async fn audit_head(&self) -> Result<audit::Head>;
}
