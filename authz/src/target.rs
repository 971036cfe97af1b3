//! What an action is aimed at, with the facts that the table needs. The caller looks them up in its own records
//! (the site of a node, the holder of a hold), never in the request.

use std::fmt;

use proto::{Hold, PersonName, Role, Scope, SiteName, SliceName};

use crate::Grant;

/// What an action is aimed at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A slice everywhere.
    Slice(SliceName),
    /// A slice on every node of one site.
    SliceAtSite {
        /// The slice.
        slice: SliceName,
        /// The site of the nodes.
        site: SiteName,
    },
    /// One slice on one node.
    Sliver {
        /// The slice.
        slice: SliceName,
        /// The site of the node.
        site: SiteName,
    },
    /// One node.
    Node {
        /// Its site.
        site: SiteName,
    },
    /// A site: its nodes, its PCUs, its gateway.
    Site(SiteName),
    /// A hold that stands.
    Hold {
        /// What is held; `None`: the node itself.
        slice: Option<SliceName>,
        /// Where: the site of its node, or its site. `None`: everywhere, or on a node that is not known.
        site: Option<SiteName>,
        /// Who set it.
        holder: PersonName,
        /// The role that entitled the holder.
        role: Role,
    },
    /// A person. To see them: with what they were granted. To invite them or to set their role: with what is to
    /// be granted or taken; ask grant by grant when it spans sites.
    Person {
        /// Who.
        name: PersonName,
        /// Theirs, or to become theirs.
        grants: Vec<Grant>,
    },
    /// A share lent from one slice to another.
    Loan {
        /// The slice that gives.
        from: SliceName,
        /// The slice that takes.
        to: SliceName,
    },
    /// An entry of the audit.
    AuditEntry {
        /// Who acted; `None`: the system.
        person: Option<PersonName>,
        /// The slice that it was about, if any.
        slice: Option<SliceName>,
        /// The site of the node that it was about, if any.
        site: Option<SiteName>,
    },
    /// Everything.
    Fleet,
}

impl Target {
    /// A hold as a target. `node_site`: the site of the node in its scope; `None` if the node is not known, and
    /// then no site admin counts.
    #[must_use]
    pub fn hold(hold: &Hold, node_site: Option<&SiteName>) -> Target {
        Target::Hold {
            slice: hold.slice.clone(),
            site: match &hold.scope {
                Scope::Fleet => None,
                Scope::Site(site) => Some(site.clone()),
                Scope::Node(_) => node_site.cloned(),
            },
            holder: hold.holder.clone(),
            role: hold.role,
        }
    }

    /// The one slice that it is about.
    pub(crate) fn slice(&self) -> Option<&SliceName> {
        match self {
            Target::Slice(slice) | Target::SliceAtSite { slice, .. } | Target::Sliver { slice, .. } => {
                Some(slice)
            }
            Target::Hold { slice, .. } | Target::AuditEntry { slice, .. } => slice.as_ref(),
            Target::Node { .. }
            | Target::Site(_)
            | Target::Person { .. }
            | Target::Loan { .. }
            | Target::Fleet => None,
        }
    }

    /// The one site whose nodes it is about.
    pub(crate) fn nodes_of(&self) -> Option<&SiteName> {
        match self {
            Target::SliceAtSite { site, .. } | Target::Sliver { site, .. } => Some(site),
            Target::Node { site } | Target::Site(site) => Some(site),
            Target::Hold { site, .. } | Target::AuditEntry { site, .. } => site.as_ref(),
            Target::Slice(_) | Target::Person { .. } | Target::Loan { .. } | Target::Fleet => None,
        }
    }

    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Target::Slice(_) => Kind::Slice,
            Target::SliceAtSite { .. } => Kind::SliceAtSite,
            Target::Sliver { .. } => Kind::Sliver,
            Target::Node { .. } => Kind::Node,
            Target::Site(_) => Kind::Site,
            Target::Hold { .. } => Kind::Hold,
            Target::Person { .. } => Kind::Person,
            Target::Loan { .. } => Kind::Loan,
            Target::AuditEntry { .. } => Kind::AuditEntry,
            Target::Fleet => Kind::Fleet,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Slice(slice) => write!(f, "{slice}"),
            Target::SliceAtSite { slice, site } => write!(f, "{slice} at {site}"),
            Target::Sliver { slice, site } => write!(f, "{slice} on a node of {site}"),
            Target::Node { site } => write!(f, "a node of {site}"),
            Target::Site(site) => write!(f, "site {site}"),
            // Who set it is not said: the text also goes to people who may not see the hold.
            Target::Hold {
                slice: Some(slice), ..
            } => write!(f, "a hold on {slice}"),
            Target::Hold {
                slice: None,
                site: Some(site),
                ..
            } => write!(f, "a hold on a node of {site}"),
            Target::Hold {
                slice: None,
                site: None,
                ..
            } => f.write_str("a hold on every slice"),
            Target::Person { name, .. } => write!(f, "person {name}"),
            Target::Loan { from, to } => write!(f, "a loan from {from} to {to}"),
            Target::AuditEntry { .. } => f.write_str("this audit entry"),
            Target::Fleet => f.write_str("the fleet"),
        }
    }
}

/// The kinds of targets; the table says which kinds an action takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Slice,
    SliceAtSite,
    Sliver,
    Node,
    Site,
    Hold,
    Person,
    Loan,
    AuditEntry,
    Fleet,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Kind::Slice => "a slice",
            Kind::SliceAtSite => "a slice at a site",
            Kind::Sliver => "a sliver",
            Kind::Node => "a node",
            Kind::Site => "a site",
            Kind::Hold => "a hold",
            Kind::Person => "a person",
            Kind::Loan => "a loan",
            Kind::AuditEntry => "an audit entry",
            Kind::Fleet => "the fleet",
        }
    }
}
