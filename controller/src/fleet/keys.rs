//! Nodes' keys: who may attach, certificates over the link, revocation, quarantine.
//!
//! ```text
//! connection ─▶ token ─────────────────▶ Keys.Request ─▶ used, once ─▶ Keys.Install ─▶ cut; the node dials again
//!            ├▶ certificate ended ─────▶ Keys.Request ─▶ renewed ────▶ Keys.Install ─▶ cut; the node dials again
//!            ├▶ key good ──────────────▶ attach … from half of its life on: Request, renew, Install on the same link
//!            └▶ key unknown, revoked, another's: Keys.Refuse, cut
//! ```
//! Invariants: no certificate leaves before the store knows of it; a revoked key is checked once more under the lock
//! under which a link is entered, so that a revocation either keeps it out or finds it to cut; expiry is judged by
//! our clock alone.
//!
//! A key that the store does not know attaches in two cases, each audited, and is enrolled then: its certificate
//! hangs directly below a root (made before keys were kept here), or the database was restored and may have
//! forgotten it. In both our own signature says that we let it in.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use link::{Accepted, Link, Peer};
use proto::v1::keys_client::KeysClient;
use proto::v1::{KeyInstall, KeyRefusal, KeyRequest};
use proto::{DaemonRole, Identity, InviteId, NodeId, NodeName, SiteName};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use trust::Spki;

use super::attach::AttachError;
use super::{Fleet, now_ms};
use crate::orders::{NodeIndex, NodeRef};
use crate::pki::{Authority, Certified, Requested, View};
use crate::store::{About, Holder, InviteUse, Invitee, NewKey, Note, RevokedNode, StoreError, Trusted};

/// Renewals at one time, and begun at one look.
const AT_ONCE: usize = 16;
const AT_ONE_LOOK: usize = 256;
/// Between two looks at what is due, at most.
const LOOK: Duration = Duration::from_secs(5);
/// For telling somebody why they are not let in.
const LAST_WORD: Duration = Duration::from_secs(2);
/// Bytes of what a node says instead of an answer.
const MAX_SAID: usize = 300;

/// What nodes' certificates are made with.
#[derive(Debug, Clone)]
pub struct Issuing {
    /// Roots, issuing CA, signer.
    pub authority: Arc<Authority>,
    /// Where daemons dial, for their bundles.
    pub controllers: Vec<String>,
    /// How long nodes' certificates are good.
    pub life: Duration,
}

/// The certificate of a link, and when it is renewed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Credential {
    pub(crate) key: Spki,
    pub(crate) expires_ms: i64,
    /// Not before this.
    renew_ms: i64,
    failures: u32,
    /// The last try failed for a reason of ours: then the link lives on.
    ours: bool,
    /// The root and roots that were handed over, in short; `None`: not known.
    roots: Option<u64>,
}

/// Why a node gets no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    /// The node does not do its part.
    #[error("{step}: {said}")]
    Node { step: &'static str, said: String },
    /// It may not have one.
    #[error("{0}")]
    Refused(String),
    /// We cannot.
    #[error(transparent)]
    Store(StoreError),
    /// We cannot.
    #[error(transparent)]
    Pki(#[from] crate::pki::PkiError),
}

impl From<StoreError> for KeysError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unusable { .. } | StoreError::Exists { .. } | StoreError::NotFound { .. } => {
                KeysError::Refused(error.to_string())
            }
            error => KeysError::Store(error),
        }
    }
}

fn millis(time: std::time::SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn certificate_ends(certified: &Certified) -> i64 {
    i64::try_from(certified.expires.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// What a view hands over, and its short form.
fn handed(view: &View) -> (Trusted, u64) {
    let mut short = DefaultHasher::new();
    for root in view.roots() {
        root.id.hash(&mut short);
    }
    let roots = view.roots().iter().map(|root| root.id).collect();
    let root = view.root();
    (Trusted { root, roots }, short.finish())
}

impl Credential {
    /// Pure. Renewed when half of `life` is left, a little earlier for some than for others: a fleet that came in
    /// one second is not renewed in one second.
    pub(crate) fn new(peer: &Peer, node: NodeId, life: Duration) -> Self {
        let mut fresh = Self {
            key: peer.key,
            expires_ms: millis(peer.certificate_expires),
            renew_ms: 0,
            failures: 0,
            ours: false,
            roots: None,
        };
        fresh.plan(node, life);
        fresh
    }

    fn plan(&mut self, node: NodeId, life: Duration) {
        let life = i64::try_from(life.as_millis()).unwrap_or(i64::MAX);
        let mut hash = DefaultHasher::new();
        node.hash(&mut hash);
        let spread = i64::try_from(hash.finish() % 1_000).unwrap_or(0);
        self.renew_ms = self
            .expires_ms
            .saturating_sub(life / 2)
            .saturating_add(life / 8_000 * spread);
    }

    /// After a try that failed: again soon, then less and less soon, never less than eight times a life.
    fn again(&mut self, now_ms: i64, life: Duration, ours: bool) {
        let life = i64::try_from(life.as_millis()).unwrap_or(i64::MAX);
        let wait = (life / 1_000)
            .saturating_mul(1 << self.failures.min(7))
            .min(life / 8);
        self.renew_ms = now_ms.saturating_add(wait);
        self.failures = self.failures.saturating_add(1);
        self.ours = ours;
    }

    fn is_due(&self, now_ms: i64, change_of_roots: Option<u64>) -> bool {
        let behind = change_of_roots.is_some_and(|now| self.roots != Some(now)) && self.failures == 0;
        self.renew_ms <= now_ms || behind
    }

    const fn is_over(&self, now_ms: i64) -> bool {
        self.expires_ms <= now_ms && !self.ours
    }
}

impl Fleet {
    /// What nodes' certificates are made with.
    pub fn issuing(&self) -> &Issuing {
        &self.issuing
    }

    /// Whether a peer may attach as this node, by its key. Enrols what the rules of this module let in.
    pub(super) async fn admit_key(&self, peer: &Peer, id: NodeId) -> Result<(), AttachError> {
        {
            let state = self.lock();
            match state.keys.get(&peer.key) {
                Some(node) if *node == id => return Ok(()),
                Some(other) => return Err(AttachError::KeyOf(peer.key, *other)),
                None => {}
            }
        }
        match self.store.key(peer.key).await {
            Ok(record) if record.holder != Holder::Node(id, DaemonRole::NodeManager) => {
                return Err(AttachError::KeyUnknown(peer.key));
            }
            Ok(record) if record.revoked.is_some() => return Err(AttachError::KeyRevoked(peer.key)),
            // Enrolled by another process.
            Ok(_) => {}
            Err(StoreError::NotFound { .. }) => {
                if self.is_shut_out(id) {
                    return Err(AttachError::KeyRevoked(peer.key));
                }
                let holder = Holder::Node(id, DaemonRole::NodeManager);
                if !self.adopt_key(peer, holder, self.site_of(id), Some(id)).await? {
                    return Err(AttachError::KeyUnknown(peer.key));
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.lock().keys.insert(peer.key, id);
        Ok(())
    }

    fn is_shut_out(&self, id: NodeId) -> bool {
        let state = self.lock();
        let node = state.roster.index(id).and_then(|index| state.node(index));
        node.is_some_and(|node| node.revoked)
    }

    /// Enrols a key that the store does not know, if the rules of this module let it in. False: they do not.
    pub(crate) async fn adopt_key(
        &self,
        peer: &Peer,
        holder: Holder,
        site: Option<SiteName>,
        node: Option<NodeId>,
    ) -> Result<bool, StoreError> {
        let why = if peer.direct {
            "its certificate is from before keys were kept here"
        } else if self.now().incarnation > 1 {
            "our signature says that we let it in before the database was restored"
        } else {
            return Ok(false);
        };
        let key = NewKey {
            spki: peer.key,
            holder,
            enrolled_by: None,
            certificate_expires_at_ms: millis(peer.certificate_expires),
        };
        let target = peer.identity.to_string();
        let note = self.system_note(
            "adopt-key",
            target,
            format!("key {}: {why}", peer.key),
            site,
            node,
        );
        match self.store.enrol_key(&key, note).await {
            Ok(_) => Ok(true),
            Err(StoreError::Unusable { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Of the people's port: a person whose bundle is from before keys were kept here is enrolled at first sight.
    pub(crate) async fn adopt_person(&self, peer: &Peer) {
        let Identity::Person(name) = &peer.identity else {
            return;
        };
        if !peer.direct || !matches!(self.store.key(peer.key).await, Err(StoreError::NotFound { .. })) {
            return;
        }
        let holder = Holder::Person(name.clone());
        if let Err(error) = self.adopt_key(peer, holder, None, None).await {
            tracing::warn!(person = %name, %error, "cannot enrol the key of an old bundle");
        }
    }

    fn system_note(
        &self,
        action: &str,
        target: String,
        detail: String,
        site: Option<SiteName>,
        node: Option<NodeId>,
    ) -> Note {
        Note {
            draft: audit::Draft {
                at_ms: now_ms(),
                version: self.now(),
                person: None,
                role: None,
                action: action.to_owned(),
                target,
                reason: String::new(),
                evidence: String::new(),
                outcome: audit::Outcome::Done,
                detail,
                order: None,
            },
            about: About {
                slice: None,
                site,
                node,
            },
        }
    }

    /// For a token or a certificate that has ended: one new certificate, and no more.
    pub(crate) async fn hand_out(&self, accepted: Accepted) {
        let peer = accepted.peer().clone();
        let link = match link::attach(accepted, self.config.link).await {
            Ok(link) => link,
            Err(error) => return tracing::debug!(peer = %peer.identity, %error, "not attached"),
        };
        let done = match &peer.identity {
            Identity::Invite(id) => self.join(&link, &peer, *id).await,
            Identity::Daemon(id, DaemonRole::NodeManager) => self.renew_ended(&link, &peer, *id).await,
            other => Err(KeysError::Refused(format!("{other} is no node manager"))),
        };
        match done {
            Ok(name) => {
                tracing::info!(node = %name, peer = %peer.identity, address = %peer.address, "has a certificate, and is to dial again");
            }
            Err(error) => {
                tracing::warn!(peer = %peer.identity, address = %peer.address, %error, "gets no certificate");
                refuse(&link, &error.to_string()).await;
            }
        }
        link.cut();
    }

    /// A token's one act.
    async fn join(&self, link: &Link, peer: &Peer, id: InviteId) -> Result<NodeName, KeysError> {
        let invite = match self.store.invite(id).await {
            Err(StoreError::NotFound { .. }) => {
                let why = format!("token {id} is not known here: ask for another (redbutton node enroll)");
                return Err(KeysError::Refused(why));
            }
            invite => invite?,
        };
        let (node, name, site) = match &invite.invitee {
            Invitee::NewNode { id, name, site } | Invitee::Node { id, name, site, .. } => {
                (*id, name.clone(), site.clone())
            }
            Invitee::NewPerson { name, .. } | Invitee::Person { name, .. } => {
                let why = format!("this is an invite of {name}: it is used with `redbutton login`");
                return Err(KeysError::Refused(why));
            }
        };
        let requested = self.request(link).await?;
        // Made first: a token is not used up by a certificate that cannot be made.
        let view = self.issuing.authority.view();
        let certified = self.certify(&view, node, &name, &requested)?;
        let wish = InviteUse {
            id,
            shown: peer.key,
            key: requested.spki(),
            certificate_expires_at_ms: certificate_ends(&certified),
            now_ms: now_ms(),
        };
        let by = invite.created_by.as_ref().map_or("root", |name| name.as_str());
        let detail = format!(
            "token {id} by {by}, key {}, from {}",
            requested.spki(),
            peer.address
        );
        let note = self.system_note(
            "join-node",
            format!("node {name}"),
            detail,
            Some(site.clone()),
            Some(node),
        );
        let used = match self.store.use_invite(&wish, note).await {
            Ok(used) => used,
            Err(error @ StoreError::Unusable { .. }) => {
                // Once for each token: whoever has one can try it for ever.
                if self.lock().told.insert(id) {
                    let mut note = self.system_note(
                        "join-node",
                        format!("node {name}"),
                        error.to_string(),
                        Some(site),
                        Some(node),
                    );
                    note.draft.outcome = audit::Outcome::Refused;
                    self.note(note).await;
                }
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        crate::crash::point("controller.join-before-install");
        let record = self.store.node(node).await?;
        let cut = {
            let mut state = self.lock();
            state.enrol(&record);
            state.welcome(&record, requested.spki(), &used.revoked)
        };
        if let Some(link) = cut {
            link.cut();
        }
        self.install(link, &view, node, &name, &record.site, &certified)
            .await?;
        self.note_handed(requested.spki(), &view).await;
        Ok(name)
    }

    async fn renew_ended(&self, link: &Link, peer: &Peer, id: NodeId) -> Result<NodeName, KeysError> {
        let Some((_, member)) = self.find_fresh(&NodeRef::Id(id)).await else {
            return Err(KeysError::Refused(format!("node {id} is not enrolled")));
        };
        if let Err(error) = self.admit_key(peer, id).await {
            return Err(match error {
                AttachError::Store(error) => error.into(),
                error => KeysError::Refused(error.to_string()),
            });
        }
        self.renew(link, peer.key, id, &member.name, &member.site).await?;
        Ok(member.name.clone())
    }

    /// A new certificate for the key of this link. Returns when it ends.
    async fn renew(
        &self,
        link: &Link,
        key: Spki,
        id: NodeId,
        name: &NodeName,
        site: &SiteName,
    ) -> Result<i64, KeysError> {
        let requested = self.request(link).await?;
        if requested.spki() != key {
            // The link has proved that its key is held; of any other nobody knows.
            let said = "it asks for another key than the link's: a new key needs a token".to_owned();
            return Err(KeysError::Node {
                step: "Keys.Request",
                said,
            });
        }
        let view = self.issuing.authority.view();
        let certified = self.certify(&view, id, name, &requested)?;
        let ends = certificate_ends(&certified);
        let note = self.system_note(
            "renew-node",
            format!("node {name}"),
            format!("key {key}"),
            Some(site.clone()),
            Some(id),
        );
        match self.store.renew_key(key, ends, note.clone()).await {
            Ok(_) => {}
            // A node must stay in hand on the day that the disk is full.
            Err(error) if error.is_transient() => self.note(note).await,
            Err(error) => return Err(error.into()),
        }
        self.install(link, &view, id, name, site, &certified).await?;
        self.note_handed(key, &view).await;
        Ok(ends)
    }

    fn certify(
        &self,
        view: &View,
        id: NodeId,
        name: &NodeName,
        requested: &Requested,
    ) -> Result<Certified, KeysError> {
        let life = time::Duration::try_from(self.issuing.life).unwrap_or(crate::pki::NODE_LIFE);
        Ok(view
            .ca()
            .certify_node(id, name, requested, life, OffsetDateTime::now_utc())?)
    }

    async fn request(&self, link: &Link) -> Result<Requested, KeysError> {
        let step = "Keys.Request";
        let said = self.call(step, client(link).request(KeyRequest {})).await?;
        Requested::from_request(&said.request).map_err(|error| KeysError::Node {
            step,
            said: error.to_string(),
        })
    }

    async fn install(
        &self,
        link: &Link,
        view: &View,
        id: NodeId,
        name: &NodeName,
        site: &SiteName,
        certified: &Certified,
    ) -> Result<(), KeysError> {
        let install = KeyInstall {
            certificate: certified.chain.clone(),
            roots: view.roots_pem().to_owned(),
            controllers: self.issuing.controllers.clone(),
            node: id.to_string(),
            name: name.to_string(),
            site: site.to_string(),
            at_ms: now_ms(),
            expires_at_ms: certificate_ends(certified),
        };
        self.call("Keys.Install", client(link).install(install)).await?;
        Ok(())
    }

    async fn call<T>(
        &self,
        step: &'static str,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, KeysError> {
        let after = self.config.attach_deadline;
        let said = match tokio::time::timeout(after, call).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => {
                let mut said = status.message().to_owned();
                super::facts::cut(&mut said, MAX_SAID);
                format!("{:?}: {said}", status.code())
            }
            Err(_) => format!("took longer than {after:?}"),
        };
        Err(KeysError::Node { step, said })
    }

    /// Its holder has these roots now. An observation: what a full disk does not take, the next renewal says.
    pub(crate) async fn note_handed(&self, key: Spki, view: &View) {
        let (trusted, short) = handed(view);
        match self.store.note_trust(key, &trusted).await {
            Ok(()) => {
                let mut state = self.lock();
                let index = state.keys.get(&key).and_then(|id| state.roster.index(*id));
                if let Some(slot) = index
                    .and_then(|index| state.node_mut(index))
                    .and_then(|node| node.slot.as_mut())
                    && slot.credential.key == key
                {
                    slot.credential.roots = Some(short);
                }
            }
            Err(error) => tracing::debug!(%error, "cannot note which roots were handed over"),
        }
    }

    /// Revokes a node's keys, cuts its link, and shuts it out until a rekey.
    ///
    /// # Errors
    /// Of the store; then nothing was changed.
    pub(crate) async fn revoke_node(
        &self,
        id: NodeId,
        why: &str,
        note: Note,
    ) -> Result<RevokedNode, StoreError> {
        let revoked = self.store.revoke_node(id, why, note).await?;
        let keys: Vec<Spki> = revoked.keys.iter().map(|key| key.spki).collect();
        let cut = self.lock().shut_out(id, &keys);
        if let Some(link) = cut {
            link.cut();
        }
        Ok(revoked)
    }

    /// Two machines share the identity of this node: nothing that it says is proof, until a rekey.
    pub(crate) async fn quarantine(&self, index: NodeIndex, why: String) {
        let member = {
            let mut state = self.lock();
            let Some(member) = state.roster.get(index).cloned() else {
                return;
            };
            match state.node_mut(index) {
                Some(node) if !node.quarantined => node.quarantined = true,
                _ => return,
            }
            member
        };
        tracing::error!(node = %member.name, why, "quarantined: its answers count for nothing until redbutton node rekey");
        let mut note = self.system_note(
            "quarantine-node",
            format!("node {}", member.name),
            why.clone(),
            Some(member.site.clone()),
            Some(member.id),
        );
        note.draft.outcome = audit::Outcome::Failed;
        if let Err(error) = self.store.quarantine_node(member.id, &why, note.clone()).await {
            // In memory it stands; the alarm is written as soon as the disk takes it.
            tracing::error!(node = %member.name, %error, "the quarantine is not on the disk");
            self.note(note).await;
        }
    }
}

fn client(link: &Link) -> KeysClient<Link> {
    KeysClient::with_origin(link.clone(), Link::origin()).max_decoding_message_size(proto::MAX_MESSAGE_BYTES)
}

/// Best effort: whoever does not listen learns less.
pub(crate) async fn refuse(link: &Link, reason: &str) {
    let refusal = KeyRefusal {
        reason: reason.to_owned(),
    };
    let _ = tokio::time::timeout(LAST_WORD, client(link).refuse(refusal)).await;
}

/// One link whose certificate is due.
struct Due {
    index: NodeIndex,
    link: Link,
    key: Spki,
}

/// Renews what is due and cuts what is over, until the fleet ends.
pub(crate) async fn keep(fleet: Arc<Fleet>) {
    let life = fleet.issuing.life;
    let look = LOOK.min(life / 40).max(Duration::from_millis(50));
    while fleet
        .shutdown
        .run_until_cancelled(tokio::time::sleep(look))
        .await
        .is_some()
    {
        let mut renewing = JoinSet::new();
        for due in fleet.what_is_due(now_ms()) {
            if renewing.len() >= AT_ONCE {
                renewing.join_next().await;
            }
            renewing.spawn(fleet.clone().renew_due(due, life));
        }
        // Each call has a deadline.
        while renewing.join_next().await.is_some() {}
    }
}

impl Fleet {
    fn what_is_due(&self, now_ms: i64) -> Vec<Due> {
        let view = self.issuing.authority.view();
        let change = (view.roots().len() > 1).then(|| handed(&view).1);
        let mut due = Vec::new();
        let mut over = Vec::new();
        {
            let state = self.lock();
            for (index, node) in (0..).zip(&state.nodes) {
                let Some(slot) = &node.slot else { continue };
                if slot.credential.is_over(now_ms) {
                    over.push(slot.link.clone());
                } else if due.len() < AT_ONE_LOOK && slot.credential.is_due(now_ms, change) {
                    due.push(Due {
                        index,
                        link: slot.link.clone(),
                        key: slot.credential.key,
                    });
                }
            }
        }
        for link in over {
            tracing::warn!(node = %link.peer().identity, "cut: its certificate has ended and it did not renew it");
            link.cut();
        }
        due
    }

    async fn renew_due(self: Arc<Self>, due: Due, life: Duration) {
        let Due { index, link, key } = due;
        let member = self.lock().roster.get(index).cloned();
        let Some(member) = member else { return };
        let renewed = self
            .renew(&link, key, member.id, &member.name, &member.site)
            .await;
        let now = now_ms();
        let mut state = self.lock();
        let Some(slot) = state.node_mut(index).and_then(|node| node.slot.as_mut()) else {
            return;
        };
        if slot.credential.key != key {
            return;
        }
        match renewed {
            Ok(ends) => {
                (slot.credential.expires_ms, slot.credential.failures) = (ends, 0);
                slot.credential.ours = false;
                slot.credential.plan(member.id, life);
            }
            Err(error) => {
                let ours = matches!(error, KeysError::Store(_) | KeysError::Pki(_));
                slot.credential.again(now, life, ours);
                tracing::warn!(node = %member.name, %error, "certificate not renewed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIFE: Duration = Duration::from_secs(86_400);

    fn credential(expires_ms: i64) -> Credential {
        let peer = Peer {
            identity: Identity::Controller,
            address: "127.0.0.1:1".parse().expect("an address"),
            certificate_expires: UNIX_EPOCH + Duration::from_millis(expires_ms.unsigned_abs()),
            key: Spki::new([1; 32]),
            expired: false,
            direct: false,
        };
        Credential::new(&peer, NodeId::random(), LIFE)
    }

    proptest! {
        #[test]
        fn it_is_renewed_in_the_second_half_and_early_in_it(expires in 200_000_000_i64..4_000_000_000_000) {
            let credential = credential(expires);
            let half = expires - 43_200_000;
            prop_assert!(!credential.is_due(half - 1, None));
            prop_assert!(credential.is_due(half + 86_400_000 / 8, None));
            prop_assert!(!credential.is_over(expires - 1) && credential.is_over(expires));
        }

        #[test]
        fn failures_are_tried_again_before_the_end(failures in 1_usize..40) {
            let mut credential = credential(1_000_000_000_000);
            let mut now = 1_000_000_000_000 - 43_200_000;
            for _ in 0..failures {
                credential.again(now, LIFE, false);
                prop_assert!(credential.renew_ms > now && credential.renew_ms - now <= 86_400_000 / 8);
                now = credential.renew_ms;
            }
        }
    }

    #[test]
    fn a_change_of_roots_is_handed_out_at_once_and_our_own_trouble_cuts_nobody() {
        let mut credential = credential(1_000_000_000_000);
        let early = 1_000_000_000_000 - 80_000_000;
        assert!(credential.is_due(early, Some(7)) && !credential.is_due(early, None));
        credential.roots = Some(7);
        assert!(!credential.is_due(early, Some(7)) && credential.is_due(early, Some(8)));
        credential.again(early, LIFE, true);
        assert!(!credential.is_over(i64::MAX));
        credential.again(early, LIFE, false);
        assert!(credential.is_over(i64::MAX));
    }
}
