//! Keys and invites.

use proto::v1;
use serde::Serialize;

use super::people::Grant;
use super::some;
use crate::when::Time;

/// `login`
#[derive(Debug, Serialize)]
pub(crate) struct LoggedIn {
    pub(crate) person: String,
    pub(crate) certificate_expires_at: Time,
    pub(crate) bundle: String,
}

/// One invite.
#[derive(Debug, Serialize)]
pub(crate) struct Invite {
    pub(crate) id: String,
    pub(crate) person: String,
    pub(crate) newcomer: bool,
    pub(crate) grants: Vec<Grant>,
    pub(crate) rekey: bool,
    pub(crate) created_by: Option<String>,
    pub(crate) created_at: Time,
    pub(crate) expires_at: Time,
}

impl From<v1::Invite> for Invite {
    fn from(wire: v1::Invite) -> Self {
        let v1::Invite {
            id,
            person,
            newcomer,
            grants,
            rekey,
            created_by,
            created_at_ms,
            expires_at_ms,
        } = wire;
        Self {
            id,
            person,
            newcomer,
            grants: grants.into_iter().map(Grant::from).collect(),
            rekey,
            created_by: some(created_by),
            created_at: Time(created_at_ms),
            expires_at: Time(expires_at_ms),
        }
    }
}

/// `invite`
#[derive(Debug, Serialize)]
pub(crate) struct Invited {
    pub(crate) invite: Invite,
    pub(crate) file: String,
}

/// `people invites`
#[derive(Debug, Serialize)]
pub(crate) struct Invites {
    pub(crate) invites: Vec<Invite>,
}

/// `people void-invite`
#[derive(Debug, Serialize)]
pub(crate) struct Voided {
    pub(crate) invite: String,
    pub(crate) voided: bool,
}

/// One key.
#[derive(Debug, Serialize)]
pub(crate) struct Key {
    pub(crate) fingerprint: String,
    pub(crate) yours: bool,
    pub(crate) enrolled_at: Time,
    pub(crate) enrolled_by: Option<String>,
    pub(crate) certificate_expires_at: Time,
    pub(crate) last_used_at: Time,
    pub(crate) revoked_at: Time,
    pub(crate) revoked_by: Option<String>,
    pub(crate) revoked_why: Option<String>,
}

impl From<v1::Key> for Key {
    fn from(wire: v1::Key) -> Self {
        let v1::Key {
            fingerprint,
            enrolled_at_ms,
            enrolled_by,
            certificate_expires_at_ms,
            last_used_ms,
            revoked_at_ms,
            revoked_by,
            revoked_why,
            yours,
        } = wire;
        Self {
            fingerprint,
            yours,
            enrolled_at: Time(enrolled_at_ms),
            enrolled_by: some(enrolled_by),
            certificate_expires_at: Time(certificate_expires_at_ms),
            last_used_at: Time(last_used_ms),
            revoked_at: Time(revoked_at_ms),
            revoked_by: some(revoked_by),
            revoked_why: some(revoked_why),
        }
    }
}

/// `people keys`, and what `people revoke-keys` revoked.
#[derive(Debug, Serialize)]
pub(crate) struct Keys {
    pub(crate) keys: Vec<Key>,
}

/// `people remove`
#[derive(Debug, Serialize)]
pub(crate) struct Removed {
    pub(crate) person: String,
    pub(crate) revoked: Vec<String>,
    pub(crate) voided: Vec<String>,
}
