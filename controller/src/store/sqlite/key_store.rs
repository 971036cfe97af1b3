//! [`KeyStore`] and [`NodeKeyStore`] in SQLite.

use async_trait::async_trait;
use proto::{InviteId, NodeId, PersonName};
use trust::Spki;

use super::{SqliteStore, invites, keys, node_keys, people};
use crate::store::{
    Holder, InviteRecord, InviteSelection, InviteUse, InviteUsed, KeyRecord, KeySelection, KeyStore,
    KeyTrust, NewInvite, NewKey, NewPerson, NodeKeyStore, NodeRecord, Note, PersonRecord, Removed, Result,
    RevokedNode, Tie, Trusted,
};

#[async_trait]
impl KeyStore for SqliteStore {
    async fn create_invite(&self, invite: &NewInvite, note: Note) -> Result<InviteRecord> {
        write!(self, invites::create(invite, note))
    }
    async fn invite(&self, id: InviteId) -> Result<InviteRecord> {
        read!(self, invites::get(id))
    }
    async fn open_invites(&self, now_ms: i64) -> Result<Vec<InviteRecord>> {
        read!(self, invites::open(now_ms))
    }
    async fn use_invite(&self, wish: &InviteUse, note: Note) -> Result<InviteUsed> {
        let mut tx = self.write().await?;
        let used = invites::accept(tx.conn(), wish, note)
            .await
            .map_err(|e| self.fault(e))?;
        crate::crash::point("controller.before-invite");
        let used = self.commit(tx, used).await?;
        crate::crash::point("controller.after-invite");
        Ok(used)
    }
    async fn void_invites(&self, which: &InviteSelection, why: &str, note: Note) -> Result<Vec<InviteId>> {
        write!(self, invites::make_void(which, why, note))
    }

    async fn enrol_key(&self, key: &NewKey, note: Note) -> Result<KeyRecord> {
        write!(self, keys::enrol(key, note))
    }
    async fn key(&self, spki: Spki) -> Result<KeyRecord> {
        read!(self, keys::get(spki))
    }
    async fn keys_of(&self, holder: &Holder) -> Result<Vec<KeyRecord>> {
        read!(self, keys::of(holder))
    }
    async fn revoked_keys(&self, now_ms: i64) -> Result<Vec<KeyRecord>> {
        read!(self, keys::revoked(now_ms))
    }
    async fn renew_key(&self, spki: Spki, certificate_expires_at_ms: i64, note: Note) -> Result<KeyRecord> {
        write!(self, keys::renew(spki, certificate_expires_at_ms, note))
    }
    async fn revoke_keys(&self, which: &KeySelection, why: &str, note: Note) -> Result<Vec<KeyRecord>> {
        write!(self, keys::revoke(which, why, note))
    }
    async fn touch_keys(&self, used: &[(Spki, i64)]) -> Result<()> {
        if used.is_empty() {
            return Ok(());
        }
        write!(self, keys::touch(used))
    }

    async fn remove_person(&self, name: &PersonName, why: &str, note: Note) -> Result<Removed> {
        write!(self, keys::remove_person(name, why, note))
    }
    async fn create_person_with_key(
        &self,
        person: &NewPerson,
        key: &NewKey,
        note: Note,
    ) -> Result<PersonRecord> {
        write!(self, keys::create_person(person, key, note))
    }
    async fn ties(&self, a: &PersonName, b: &PersonName, since_ms: i64) -> Result<Vec<Tie>> {
        read!(self, people::ties(a, b, since_ms))
    }
}

#[async_trait]
impl NodeKeyStore for SqliteStore {
    async fn revoke_node(&self, node: NodeId, why: &str, note: Note) -> Result<RevokedNode> {
        write!(self, node_keys::revoke(node, why, note))
    }
    async fn quarantine_node(&self, node: NodeId, why: &str, note: Note) -> Result<NodeRecord> {
        write!(self, node_keys::quarantine(node, why, note))
    }
    async fn note_trust(&self, spki: Spki, trusted: &Trusted) -> Result<()> {
        write!(self, node_keys::note_trust(spki, trusted))
    }
    async fn key_trust(&self) -> Result<Vec<KeyTrust>> {
        read!(self, node_keys::key_trust())
    }
    async fn keyless(&self) -> Result<Vec<String>> {
        read!(self, node_keys::keyless())
    }
}
