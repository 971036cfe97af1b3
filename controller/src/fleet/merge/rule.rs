//! What a node's word is worth. Pure.
//!
//! ```text
//! hold,  validly signed by us ──▶ ours: as it is, scope, holder and all
//!        otherwise ─────────────▶ told: for that node alone, under an id that follows from the node's
//! release, validly signed by us ▶ ours: released everywhere
//!        made at the node ──────▶ an exemption of that node
//!        otherwise ─────────────▶ forged: nothing comes of it
//! ```
//! So a node can bring back what we said and can speak for itself; it can cause nothing elsewhere. It cannot choose
//! an id either: under one that is known it could have somebody release another's hold.

use proto::canonical::{self, Signature};
use proto::{Hold, HoldId, Lifted, NodeId, NodeName, Scope, Tombstone, Version, WireError, v1};
use trust::{Keyring, Kind};

use crate::store::{Exemption, SignedRelease};

/// What becomes of a hold that a node told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TakenHold {
    /// We said it.
    Ours(Hold, Signature),
    /// Only the node says it: narrowed to it, and under another id than the node's.
    Told {
        /// As it is kept here.
        hold: Hold,
        /// As the node calls it.
        as_told: HoldId,
    },
}

/// What becomes of a release that a node told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TakenStone {
    /// We released it.
    Ours(SignedRelease),
    /// Somebody released it there.
    Here(Exemption),
    /// We did not say so.
    Forged(HoldId),
}

/// Judges a hold told by a node.
///
/// # Errors
/// When it is no hold.
pub(crate) fn hold(
    told: v1::Hold,
    by: NodeId,
    name: &NodeName,
    now: Version,
    keys: &Keyring,
) -> Result<TakenHold, WireError> {
    let signature = canonical::signature(&told.signature);
    let hold = Hold::try_from(told)?;
    if let Some(signature) = signature
        && keys.verify_short(Kind::Hold, &canonical::hold(&hold), &signature)
    {
        return Ok(TakenHold::Ours(hold, signature));
    }
    let as_told = hold.id;
    let mark = format!("told by node {name} as hold {as_told}");
    let evidence = match hold.evidence.as_str() {
        "" => mark,
        evidence => format!("{mark}: {evidence}")
            .chars()
            .take(Hold::MAX_TEXT)
            .collect(),
    };
    let hold = Hold {
        id: canonical::told_id(as_told, by),
        scope: Scope::Node(by),
        evidence,
        // A node's version could be anything.
        version: now,
        ..hold
    };
    Ok(TakenHold::Told { hold, as_told })
}

/// Judges a release told by a node.
///
/// # Errors
/// When it is none.
pub(crate) fn stone(told: v1::Tombstone, by: NodeId, keys: &Keyring) -> Result<TakenStone, WireError> {
    let Tombstone { hold, lifted } = told.try_into()?;
    Ok(match lifted {
        Lifted::Signed { version, signature }
            if keys.verify_short(Kind::Release, &canonical::release(hold, version), &signature) =>
        {
            TakenStone::Ours(SignedRelease {
                hold,
                version,
                signature,
            })
        }
        Lifted::Signed { .. } => TakenStone::Forged(hold),
        Lifted::Here { person, role, at_ms } => TakenStone::Here(Exemption {
            hold,
            node: by,
            person,
            role,
            at_ms,
        }),
    })
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
