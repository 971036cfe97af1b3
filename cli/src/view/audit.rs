//! Entries of the audit trail.

use proto::v1;
use serde::Serialize;

use super::{Role, Version, hex, some};
use crate::when::Time;

/// One decision.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    pub(crate) at: Time,
    pub(crate) person: String,
    pub(crate) role: Role,
    pub(crate) action: String,
    pub(crate) target: String,
    pub(crate) reason: Option<String>,
    pub(crate) evidence: Option<String>,
    pub(crate) outcome: String,
    pub(crate) detail: Option<String>,
    pub(crate) order: Option<String>,
    pub(crate) version: Option<Version>,
    pub(crate) previous: String,
    pub(crate) hash: String,
}

impl From<v1::AuditEntry> for Entry {
    fn from(wire: v1::AuditEntry) -> Self {
        let v1::AuditEntry {
            sequence,
            at_ms,
            person,
            role,
            action,
            target,
            reason,
            evidence,
            outcome,
            detail,
            order,
            previous,
            hash,
            version,
        } = wire;
        Self {
            sequence,
            at: Time(at_ms),
            person,
            role: Role::from_wire(role),
            action,
            target,
            reason: some(reason),
            evidence: some(evidence),
            outcome,
            detail: some(detail),
            order: some(order),
            version: version.map(Version::from),
            previous: hex(&previous),
            hash: hex(&hash),
        }
    }
}
