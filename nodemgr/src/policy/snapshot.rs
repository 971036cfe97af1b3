//! A snapshot, checked: who may do what on this node. Pure.

use std::collections::{BTreeMap, BTreeSet};

use authz::Grant;
use prost::Message;
use proto::v1::{self, PolicySnapshot, SignedStatement};
use proto::{PersonName, SiteName, SliceName, Version, WireError};
use trust::{Kind, Roots, Spki, StatementError};

/// Why a snapshot does not count. What was there before stays.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not signed by somebody who may.
    #[error("policy: {0}")]
    Statement(#[from] StatementError),
    /// Signed, and no snapshot.
    #[error("policy is not readable: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A field without which it says nothing.
    #[error("policy: {0}")]
    Field(#[from] WireError),
    /// Older than what this node has had.
    #[error("policy {got} is older than {seen}, which this node has had")]
    Older {
        /// Its version.
        got: Version,
        /// The highest so far.
        seen: Version,
    },
    /// For the nodes of another site.
    #[error("policy is for nodes of {got}, this is a node of {own}")]
    OtherSite {
        /// Its site.
        got: SiteName,
        /// Ours.
        own: SiteName,
    },
    /// The disk.
    #[error("policy cannot be kept: {0}")]
    File(String),
}

/// Who may do what on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Of the snapshot.
    pub version: Version,
    /// By the controller's clock, milliseconds since 1970.
    pub issued_at_ms: i64,
    /// The node's site.
    pub site: SiteName,
    /// Everybody who may do something here.
    pub people: BTreeMap<PersonName, Vec<Grant>>,
    /// Slices that exist.
    pub slices: BTreeSet<SliceName>,
    /// Keys that are good no more.
    pub revoked: BTreeSet<Spki>,
    /// Roots besides the node's own, PEM; may be empty.
    pub roots: String,
    /// Not everybody found room.
    pub incomplete: bool,
}

/// The lowest that is taken: what this node has had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    /// Its version.
    pub version: Version,
    /// The node's site.
    pub site: SiteName,
}

impl Snapshot {
    /// Checks a statement against the roots and against what this node has had.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn accept(
        statement: &SignedStatement,
        roots: &Roots,
        floor: Option<&Floor>,
    ) -> Result<Self, PolicyError> {
        let body = trust::verify(statement, roots, Kind::Policy)?;
        let snapshot = Self::try_from(PolicySnapshot::decode(body)?)?;
        match floor {
            Some(Floor { site, .. }) if *site != snapshot.site => Err(PolicyError::OtherSite {
                got: snapshot.site,
                own: site.clone(),
            }),
            Some(Floor { version, .. }) if snapshot.version < *version => Err(PolicyError::Older {
                got: snapshot.version,
                seen: *version,
            }),
            _ => Ok(snapshot),
        }
    }

    /// What the next one must not fall below.
    #[must_use]
    pub fn floor(&self) -> Floor {
        Floor {
            version: self.version,
            site: self.site.clone(),
        }
    }

    /// Why somebody with this key may do nothing here; `Ok`: what they were granted.
    ///
    /// # Errors
    /// The rule that refuses them.
    pub fn grants_of(&self, name: &PersonName, key: &Spki) -> Result<&[Grant], String> {
        if self.revoked.contains(key) {
            return Err(format!("this key of {name} was revoked"));
        }
        match self.people.get(name) {
            Some(grants) => Ok(grants),
            None if self.incomplete => Err(format!(
                "{name} is not in this node's policy, which had no room for everybody"
            )),
            None => Err(format!(
                "{name} is not in this node's policy: nothing here is theirs to do"
            )),
        }
    }
}

/// What a newer controller says beyond what we know is passed over: it grants nothing.
impl TryFrom<PolicySnapshot> for Snapshot {
    type Error = WireError;

    fn try_from(wire: PolicySnapshot) -> Result<Self, WireError> {
        let PolicySnapshot {
            version,
            issued_at_ms,
            site,
            people,
            slices,
            revoked_keys,
            roots,
            incomplete,
        } = wire;
        let person = |person: v1::PolicyPerson| {
            let grants = person.grants.iter().filter_map(grant).collect();
            Some((person.name.parse().ok()?, grants))
        };
        let key = |key: Vec<u8>| Some(Spki::new(key.try_into().ok()?));
        Ok(Self {
            version: version.ok_or(WireError::Missing { field: "version" })?.into(),
            issued_at_ms,
            site: site.parse().map_err(WireError::id("site"))?,
            people: people.into_iter().filter_map(person).collect(),
            slices: slices.iter().filter_map(|name| name.parse().ok()).collect(),
            revoked: revoked_keys.into_iter().filter_map(key).collect(),
            roots,
            incomplete,
        })
    }
}

fn grant(wire: &v1::Grant) -> Option<Grant> {
    let role = v1::Role::try_from(wire.role).ok()?.checked().ok()?;
    let slice = match wire.slice.as_str() {
        "" => None,
        name => Some(name.parse().ok()?),
    };
    let site = match wire.site.as_str() {
        "" => None,
        name => Some(name.parse().ok()?),
    };
    Grant::from_parts(role, slice, site).ok()
}
