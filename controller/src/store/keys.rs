//! Keys and invites: who is known by which key, and how keys come and go.
//!
//! ```text
//!   create_invite ──▶ open ──use_invite──▶ used: the key is enrolled, the person or node made if new
//!                      ├── expires, another incarnation, the person got more roles meanwhile: refused
//!                      └── void_invites, or their creator or person lost a role: void
//!   key: enrolled ──renew_key──▶ … ──revoke_keys──▶ revoked for ever
//! ```
//!
//! Invariants: a key speaks for one holder for ever; a revoked key never comes back; an invite certifies one key;
//! whoever uses it gets what it says and nothing more. Rows are never deleted.

use async_trait::async_trait;
use authz::Grant;
use proto::{DaemonRole, InviteId, NodeId, NodeName, PersonName, SiteName};
use trust::Spki;

use super::{NewPerson, Note, PersonRecord, Result};

/// Whom a key speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A person.
    Person(PersonName),
    /// A daemon of a node.
    Node(NodeId, DaemonRole),
}

/// A key to enrol.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The key.
    pub spki: Spki,
    /// Whom it speaks for.
    pub holder: Holder,
    /// Who let it in; `None`: root on the controller's machine.
    pub enrolled_by: Option<PersonName>,
    /// When its certificate ends, milliseconds since 1970.
    pub certificate_expires_at_ms: i64,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// The key.
    pub spki: Spki,
    /// Whom it speaks for.
    pub holder: Holder,
    /// Milliseconds since 1970.
    pub enrolled_at_ms: i64,
    /// Who let it in; `None`: root on the controller's machine.
    pub enrolled_by: Option<PersonName>,
    /// When its latest certificate ends, milliseconds since 1970.
    pub certificate_expires_at_ms: i64,
    /// Milliseconds since 1970; `None`: never.
    pub last_used_ms: Option<i64>,
    /// `None`: it is good.
    pub revoked: Option<Revoked>,
}

/// That a key is good no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// Who did it; `None`: root on the controller's machine, or the system.
    pub by: Option<PersonName>,
    /// In a few words.
    pub why: String,
}

/// Which keys.
#[derive(Debug, Clone)]
pub enum KeySelection {
    /// One.
    Key(Spki),
    /// All of a person, but for one if so said.
    Person {
        /// Who.
        name: PersonName,
        /// This one stays: the key in the hand of whoever revokes the others.
        except: Option<Spki>,
    },
    /// All of a node, of every daemon.
    Node(NodeId),
}

/// What the use of an invite comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invitee {
    /// A person who is not there yet, with their first roles.
    NewPerson {
        /// Unique for ever.
        name: PersonName,
        /// As people write it.
        full_name: String,
        /// Where to write to.
        email: String,
        /// What they will have.
        grants: Vec<Grant>,
    },
    /// One more key for a person who is there. Gives no role.
    Person {
        /// Who.
        name: PersonName,
        /// The roles that the inviter was entitled to hand out: whoever has more when it is used is not served, or
        /// the invite would hand out those as well.
        at_most: Vec<Grant>,
        /// Revokes the older keys.
        rekey: bool,
    },
    /// A node that is not there yet.
    NewNode {
        /// Unique for ever.
        id: NodeId,
        /// Unique.
        name: NodeName,
        /// Where it stands.
        site: SiteName,
    },
    /// One more key for a node that is there.
    Node {
        /// Which.
        id: NodeId,
        /// Its name, for people.
        name: NodeName,
        /// Its site, for lists.
        site: SiteName,
        /// Revokes the older keys.
        rekey: bool,
    },
}

/// An invite to keep. Its time of creation is its note's.
#[derive(Debug, Clone)]
pub struct NewInvite {
    /// As in its certificate.
    pub id: InviteId,
    /// The invite's own key.
    pub spki: Spki,
    /// For whom.
    pub invitee: Invitee,
    /// Who made it; `None`: root on the controller's machine.
    pub created_by: Option<PersonName>,
    /// Milliseconds since 1970.
    pub expires_at_ms: i64,
}

/// An invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteRecord {
    /// As in its certificate.
    pub id: InviteId,
    /// The invite's own key.
    pub spki: Spki,
    /// For whom.
    pub invitee: Invitee,
    /// Who made it; `None`: root on the controller's machine.
    pub created_by: Option<PersonName>,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// Milliseconds since 1970.
    pub expires_at_ms: i64,
    /// It is void in any other.
    pub incarnation: u64,
    /// When, and by which key.
    pub used: Option<(i64, Spki)>,
    /// When, and why.
    pub voided: Option<(i64, String)>,
}

/// Somebody comes with an invite.
#[derive(Debug, Clone, Copy)]
pub struct InviteUse {
    /// Which, by the certificate of the connection.
    pub id: InviteId,
    /// The key of the connection: the invite's own.
    pub shown: Spki,
    /// The key that they made themselves and want enrolled.
    pub key: Spki,
    /// When the certificate ends that they will get, milliseconds since 1970.
    pub certificate_expires_at_ms: i64,
    /// Milliseconds since 1970.
    pub now_ms: i64,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct InviteUsed {
    /// The invite, used now.
    pub invite: InviteRecord,
    /// The key, enrolled now.
    pub key: KeyRecord,
    /// Keys that it replaced.
    pub revoked: Vec<Spki>,
    /// It was used by this same key before: a certificate that was lost on its way is made again.
    pub again: bool,
}

/// Which open invites.
#[derive(Debug, Clone)]
pub enum InviteSelection {
    /// One.
    Invite(InviteId),
    /// Those that this person made.
    By(PersonName),
    /// Those for this person.
    For(PersonName),
    /// Join tokens of this node.
    ForNode(NodeId),
}

/// What binds two people: they cannot approve for each other while it is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TieKind {
    /// The one let the other in.
    Invited,
    /// The one gave the other a role.
    Promoted,
    /// The one let another key of the other in.
    Rekeyed,
}

impl TieKind {
    /// The word in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            TieKind::Invited => "invited",
            TieKind::Promoted => "promoted",
            TieKind::Rekeyed => "rekeyed",
        }
    }
}

/// Who did what for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tie {
    /// For whom.
    pub person: PersonName,
    /// Who.
    pub by: PersonName,
    /// What.
    pub kind: TieKind,
    /// Milliseconds since 1970.
    pub at_ms: i64,
}

/// What became of somebody who was removed.
#[derive(Debug, Clone)]
pub struct Removed {
    /// The person, without any role.
    pub person: PersonRecord,
    /// Keys that were good until now.
    pub keys: Vec<Spki>,
    /// Open invites by and for them, void now.
    pub invites: Vec<InviteId>,
}

/// The part of the [`Store`](super::Store) about keys. Besides the errors of the store:
/// [`StoreError::Unusable`](super::StoreError::Unusable) says why an invite or key does not do.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    // --- invites ---

    /// Keeps an invite. `NotFound` (slice, site, person, node), `Exists` (new, but there already; the id or key).
    async fn create_invite(&self, invite: &NewInvite, note: Note) -> Result<InviteRecord>;
    /// One invite. `NotFound`.
    async fn invite(&self, id: InviteId) -> Result<InviteRecord>;
    /// Open invites that have not expired at `now_ms`, of this incarnation, oldest first, at most 1,000.
    async fn open_invites(&self, now_ms: i64) -> Result<Vec<InviteRecord>>;
    /// Uses an invite, in one transaction: checks that it is open, unexpired and of this incarnation and that the
    /// key shown is its own; makes the person with their roles, or the node; enrols the key, revokes older ones on
    /// a rekey, records the tie. `Unusable`; `Exists` (the person or node is there meanwhile); `NotFound` (a slice
    /// or site is not). A second use by the same key changes nothing and is answered [`InviteUsed::again`].
    async fn use_invite(&self, wish: &InviteUse, note: Note) -> Result<InviteUsed>;
    /// Makes open invites void; returns which.
    async fn void_invites(&self, which: &InviteSelection, why: &str, note: Note) -> Result<Vec<InviteId>>;

    // --- keys ---

    /// Enrols a key without an invite: `issue`, `init`, and nodes from before there were keys here. Idempotent for
    /// the same holder. `Unusable`: it is another's, or revoked.
    async fn enrol_key(&self, key: &NewKey, note: Note) -> Result<KeyRecord>;
    /// One key. `NotFound`.
    async fn key(&self, spki: Spki) -> Result<KeyRecord>;
    /// Keys of somebody, also revoked ones, oldest first.
    async fn keys_of(&self, holder: &Holder) -> Result<Vec<KeyRecord>>;
    /// Every revoked key whose last certificate is good at `now_ms`: what must be refused without asking us.
    async fn revoked_keys(&self, now_ms: i64) -> Result<Vec<KeyRecord>>;
    /// Notes a new certificate of an enrolled, good key. `NotFound`, `Unusable` (revoked).
    async fn renew_key(&self, spki: Spki, certificate_expires_at_ms: i64, note: Note) -> Result<KeyRecord>;
    /// Revokes keys and returns those that were good until now. The entry is made also when there were none.
    async fn revoke_keys(&self, which: &KeySelection, why: &str, note: Note) -> Result<Vec<KeyRecord>>;
    /// Notes when keys were last used. Unknown keys are passed over. Not audited: an observation.
    async fn touch_keys(&self, used: &[(Spki, i64)]) -> Result<()>;

    // --- people ---

    /// Takes everything from a person at once: roles, keys, open invites by and for them. The name stays theirs.
    /// `NotFound`.
    async fn remove_person(&self, name: &PersonName, why: &str, note: Note) -> Result<Removed>;
    /// Adds a person who holds an enrolled key from the first moment, in one transaction. As
    /// [`Store::create_person`](super::Store::create_person), and ties nobody: `init` and root.
    async fn create_person_with_key(
        &self,
        person: &NewPerson,
        key: &NewKey,
        note: Note,
    ) -> Result<PersonRecord>;
    /// What ties two people, either way round, since then. Newest first.
    async fn ties(&self, a: &PersonName, b: &PersonName, since_ms: i64) -> Result<Vec<Tie>>;
}
