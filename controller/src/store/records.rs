//! People, sites, slices, nodes, audit notes and pages, as checked types. Orders and holds: `order_records.rs`.

use proto::{BootId, NodeId, NodeName, OrderId, PersonName, SiteName, SliceName, Version};

use super::Quarantine;

// --- audit ---

/// An audit entry to seal, and what it speaks of, so that lists can be narrowed to it.
#[derive(Debug, Clone)]
pub struct Note {
    /// The entry without its place in the chain.
    pub draft: audit::Draft,
    /// What it speaks of. Kept beside the chain, not in it.
    pub about: About,
}

/// What an audit entry speaks of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The slice.
    pub slice: Option<SliceName>,
    /// The site of the nodes, or the site itself. A slice's own site follows from its name.
    pub site: Option<SiteName>,
    /// The node.
    pub node: Option<NodeId>,
}

/// Which audit entries are wanted.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only by this person.
    pub person: Option<PersonName>,
    /// Only with this target, letter by letter.
    pub target: Option<String>,
    /// Only of this order.
    pub order: Option<OrderId>,
    /// Only what the caller may see.
    pub visible: Visible,
}

/// Part of the audit chain.
#[derive(Debug, Clone)]
pub struct AuditPage {
    /// Oldest first.
    pub entries: Vec<audit::Entry>,
    /// Ask for entries before this one next; `None`: no more.
    pub next_before: Option<u64>,
}

/// What somebody may see of orders, holds and audit entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Visible {
    /// Nothing: default deny.
    #[default]
    Nothing,
    /// Everything.
    All,
    /// Whatever meets any of these.
    Any {
        /// Done by this person.
        person: Option<PersonName>,
        /// About one of these slices.
        slices: Vec<SliceName>,
        /// About any slice of one of these sites.
        slices_of: Vec<SiteName>,
        /// About one of these sites or a node of one of them.
        nodes_of: Vec<SiteName>,
    },
}

// --- pages ---

/// Which part of a list.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// Rows; 0 means [`PageRequest::DEFAULT`], more than [`PageRequest::MAX`] means that.
    pub size: u32,
    /// [`Page::next`] of the page before; empty: the first page.
    pub token: String,
}

impl PageRequest {
    /// Rows of a page when none were asked for.
    pub const DEFAULT: u32 = 50;
    /// Rows of a page at most.
    pub const MAX: u32 = 1_000;

    /// Rows that this page may have.
    #[must_use]
    pub const fn rows(&self) -> u32 {
        match self.size {
            0 => Self::DEFAULT,
            size if size > Self::MAX => Self::MAX,
            size => size,
        }
    }
}

/// Part of a list. What is added or removed meanwhile neither repeats nor hides other rows.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Token of the next page; empty: no more.
    pub next: String,
}

// --- people ---

/// A person to add.
#[derive(Debug, Clone)]
pub struct NewPerson {
    /// Unique for ever.
    pub name: PersonName,
    /// As people write it.
    pub full_name: String,
    /// Where to write to.
    pub email: String,
    /// First roles.
    pub grants: Vec<authz::Grant>,
}

/// A person.
#[derive(Debug, Clone)]
pub struct PersonRecord {
    /// Unique.
    pub name: PersonName,
    /// As people write it.
    pub full_name: String,
    /// Where to write to.
    pub email: String,
    /// Roles, in a stable order.
    pub grants: Vec<authz::Grant>,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
}

// --- sites and slices ---

/// A site to add.
#[derive(Debug, Clone)]
pub struct NewSite {
    /// Login base.
    pub name: SiteName,
    /// As people write it.
    pub full_name: String,
    /// Where the world complains.
    pub abuse_contact: String,
}

/// A site.
#[derive(Debug, Clone)]
pub struct SiteRecord {
    /// Login base.
    pub name: SiteName,
    /// As people write it.
    pub full_name: String,
    /// Where the world complains.
    pub abuse_contact: String,
    /// Nodes enrolled.
    pub nodes: u32,
    /// Slices.
    pub slices: u32,
    /// Who holds the role here, by name.
    pub pis: Vec<PersonName>,
    /// Who holds the role here, by name.
    pub admins: Vec<PersonName>,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
}

/// A slice to add; its site follows from its name.
#[derive(Debug, Clone)]
pub struct NewSlice {
    /// `site_name`.
    pub name: SliceName,
    /// What it does.
    pub description: String,
    /// E-mail addresses.
    pub contacts: Vec<String>,
}

/// A slice.
#[derive(Debug, Clone)]
pub struct SliceRecord {
    /// `site_name`.
    pub name: SliceName,
    /// What it does.
    pub description: String,
    /// E-mail addresses.
    pub contacts: Vec<String>,
    /// Who holds the role on it, by name.
    pub developers: Vec<PersonName>,
    /// Who holds the role at its site, by name.
    pub pis: Vec<PersonName>,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
}

// --- nodes ---

/// A node to enrol.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// Unique for ever.
    pub id: NodeId,
    /// Unique.
    pub name: NodeName,
    /// Where it stands.
    pub site: SiteName,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Unique for ever.
    pub id: NodeId,
    /// Unique.
    pub name: NodeName,
    /// Where it stands.
    pub site: SiteName,
    /// Orders of this version and later ones reach it.
    pub enrolled: Version,
    /// Milliseconds since 1970.
    pub enrolled_at_ms: i64,
    /// As it was last seen.
    pub boot_id: Option<BootId>,
    /// Milliseconds since 1970; `None`: never.
    pub last_seen_ms: Option<i64>,
    /// Shut out since then, milliseconds since 1970; `None`: it may attach.
    pub revoked_at_ms: Option<i64>,
    /// Its answers count for nothing; `None`: they do.
    pub quarantined: Option<Quarantine>,
}

/// Which nodes are wanted.
#[derive(Debug, Clone, Default)]
pub struct NodeSelection {
    /// Only of these sites; `None`: of all.
    pub sites: Option<Vec<SiteName>>,
    /// Only these; `None`: all.
    pub ids: Option<Vec<NodeId>>,
}

/// A sign of life.
#[derive(Debug, Clone)]
pub struct NodeSeen {
    /// Who.
    pub node: NodeId,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Its boot, where it said so.
    pub boot_id: Option<BootId>,
    /// The `NodeReport`, encoded, where it sent one; the one before stays otherwise.
    pub report: Option<Vec<u8>>,
}

/// A node's last report.
#[derive(Debug, Clone)]
pub struct ReportRecord {
    /// When it came, milliseconds since 1970.
    pub at_ms: i64,
    /// The `NodeReport`, encoded.
    pub report: Vec<u8>,
}
