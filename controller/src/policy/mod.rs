//! What nodes decide by when we are gone: people, grants, revocations, put together for the nodes of one site.
//! Pure; `fleet/policies.rs` gathers, signs and sends.
//!
//! A node of a site needs everybody who may do something on it: support, the site's admins, and the PIs and
//! developers of every slice, because any slice may come to run there. Grants that say nothing about such a node
//! are left out, and so is everything about a person but their name. One snapshot serves all nodes of a site: ten
//! thousand nodes cost as many signatures as there are sites.
//!
//! ```text
//! Facts ─▶ snapshot(facts, site) ─▶ content hash ── as before ─▶ nothing
//!                                        └── changed ─▶ version, time, signature, one frame for all nodes
//! ```

use std::collections::BTreeSet;

use authz::Grant;
use prost::Message;
use proto::v1::{self, PolicyPerson, PolicySnapshot};
use proto::{PersonName, SiteName, SliceName};
use sha2::{Digest, Sha256};
use trust::Spki;

/// Largest snapshot, bytes: it travels in one message, with its signature.
pub const MOST: usize = proto::MAX_MESSAGE_BYTES - (256 << 10);

/// What a policy follows from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Everybody, with what they were granted.
    pub people: Vec<(PersonName, Vec<Grant>)>,
    /// Every slice.
    pub slices: BTreeSet<SliceName>,
    /// Keys that are good no more though a certificate of theirs is.
    pub revoked: BTreeSet<Spki>,
    /// Roots to trust, PEM.
    pub roots: String,
}

/// Whether a grant says anything about a node of `site`.
fn matters(grant: &Grant, site: &SiteName) -> bool {
    match grant {
        Grant::Support | Grant::Pi(_) | Grant::Developer(_) => true,
        Grant::SiteAdmin(at) => at == site,
    }
}

fn wire(grant: &Grant) -> v1::Grant {
    v1::Grant {
        role: v1::Role::from(grant.role()).into(),
        slice: grant.slice().map(ToString::to_string).unwrap_or_default(),
        site: grant.site().map(ToString::to_string).unwrap_or_default(),
    }
}

/// The snapshot for nodes of `site`, without version and time. The same facts give the same bytes. When not
/// everything fits, the list of slices goes first, which only helps people to see; then people, those with the
/// strongest roles staying, and it says so. Revocations always stay.
#[must_use]
pub fn snapshot(facts: &Facts, site: &SiteName) -> PolicySnapshot {
    let mut people: Vec<(bool, PolicyPerson)> = Vec::new();
    for (name, grants) in &facts.people {
        let kept: BTreeSet<&Grant> = grants.iter().filter(|grant| matters(grant, site)).collect();
        if kept.is_empty() {
            continue;
        }
        let looks_after = kept
            .iter()
            .any(|grant| matches!(grant, Grant::Support | Grant::SiteAdmin(_)));
        people.push((
            looks_after,
            PolicyPerson {
                name: name.to_string(),
                grants: kept.into_iter().map(wire).collect(),
            },
        ));
    }
    people.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
    let mut snapshot = PolicySnapshot {
        version: None,
        issued_at_ms: 0,
        site: site.to_string(),
        people: Vec::new(),
        slices: facts.slices.iter().map(ToString::to_string).collect(),
        revoked_keys: facts.revoked.iter().map(|key| key.as_bytes().to_vec()).collect(),
        roots: facts.roots.clone(),
        incomplete: false,
    };
    let mut people: Vec<PolicyPerson> = people.into_iter().map(|(_, person)| person).collect();
    let bytes =
        |people: &[PolicyPerson]| -> usize { people.iter().map(|person| person.encoded_len() + 8).sum() };
    if snapshot.encoded_len() + bytes(&people) > MOST {
        snapshot.slices.clear();
    }
    let room = MOST.saturating_sub(snapshot.encoded_len());
    let mut used = 0;
    let fit = people
        .iter()
        .take_while(|person| {
            used += person.encoded_len() + 8;
            used <= room
        })
        .count();
    if fit < people.len() {
        people.truncate(fit);
        snapshot.incomplete = true;
    }
    people.sort_by(|a, b| a.name.cmp(&b.name));
    snapshot.people = people;
    snapshot
}

/// By which one snapshot is told from another, version and time apart.
#[must_use]
pub fn content(snapshot: &PolicySnapshot) -> [u8; 32] {
    Sha256::digest(snapshot.encode_to_vec()).into()
}

#[cfg(test)]
mod tests;
