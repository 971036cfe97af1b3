//! The policies of the sites: gathered, signed, sent to the nodes that do not have them.
//!
//! Every change of what a policy follows from is audited, also one that another process makes; so the end of the
//! audit tells whether there is anything to gather. What has not changed keeps its version across restarts.
//!
//! A policy goes into a node's link behind whatever is in it, after the orders that a new link is owed; a link that
//! takes nothing now is tried again. A node says in its reports which policy it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use proto::v1::{self, command::Action};
use proto::{SiteName, Version};
use tokio::sync::Notify;
use tokio::time::Instant;
use trust::Kind;

use super::frames::Batch;
use super::{Fleet, now_ms};
use crate::error::Error;
use crate::policy::{self, Facts};
use crate::store::{PageRequest, PolicyRecord};

/// How often it is looked whether something has changed, or somebody has come.
const LOOK: Duration = Duration::from_millis(250);
/// Between two gatherings at least: a burst of changes makes few policies.
const APART: Duration = Duration::from_millis(500);
/// A policy that has not changed is issued anew after this, so that its age says when we were last there.
const REFRESH_MS: i64 = 6 * 3_600 * 1_000;
/// A node that does not report what it was sent is sent it again after this.
const AGAIN_MS: i64 = 60_000;
/// Nodes that are written to under one lock.
const AT_ONCE: usize = 256;

#[derive(Debug, Clone)]
struct Issued {
    record: PolicyRecord,
    frame: Batch,
}

/// What was issued.
#[derive(Default)]
pub(crate) struct Policies {
    roots: Mutex<String>,
    issued: Mutex<BTreeMap<SiteName, Issued>>,
    wake: Notify,
}

impl Policies {
    /// Roots that nodes are to trust from now on, PEM.
    pub(crate) fn trust(&self, roots: String) {
        *self.roots.lock().unwrap_or_else(PoisonError::into_inner) = roots;
        self.wake.notify_one();
    }

    /// As trusted last.
    pub(crate) fn roots(&self) -> String {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn issued(&self) -> std::sync::MutexGuard<'_, BTreeMap<SiteName, Issued>> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the policy of a site was issued.
    pub(crate) fn issued_at_ms(&self, site: &SiteName) -> Option<i64> {
        Some(self.issued().get(site)?.record.issued_at_ms)
    }
}

/// Issues and sends until the shutdown.
pub(super) async fn run(fleet: Arc<Fleet>) {
    let shutdown = fleet.shutdown.clone();
    let work = async {
        let mut known = match fleet.store.policies().await {
            Ok(records) => records,
            Err(error) => {
                tracing::warn!(%error, "which policies nodes have is not known: they get new ones");
                Vec::new()
            }
        };
        let mut gathered: Option<Gathered> = None;
        loop {
            match fleet.issue(&mut known, gathered.as_ref()).await {
                Ok(fresh) => gathered = fresh.or(gathered),
                Err(error) => tracing::error!(%error, "policies cannot be issued; trying again"),
            }
            fleet.give_out().await;
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = fleet.policies.wake.notified() => {}
            }
        }
    };
    shutdown.run_until_cancelled(Box::pin(work)).await;
}

/// As of when everything was looked at.
struct Gathered {
    at: Instant,
    head: u64,
    sites: BTreeSet<SiteName>,
    roots: String,
    incarnation: u64,
    oldest_ms: i64,
}

impl Fleet {
    /// The policies of the sites.
    pub(crate) fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Issues what has changed since. `None`: nothing can have.
    async fn issue(
        &self,
        known: &mut Vec<PolicyRecord>,
        since: Option<&Gathered>,
    ) -> Result<Option<Gathered>, Error> {
        let (sites, incarnation) = {
            let state = self.lock();
            let sites: BTreeSet<SiteName> = state
                .roster
                .iter()
                .map(|(_, member)| member.site.clone())
                .collect();
            (sites, state.now.incarnation)
        };
        let head = self.store.audit_head().await?.sequence;
        let roots = self
            .policies
            .roots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let now = now_ms();
        if let Some(since) = since {
            let same = since.head == head
                && since.sites == sites
                && since.roots == roots
                && since.incarnation == incarnation;
            let fresh = now - since.oldest_ms < REFRESH_MS;
            if same && fresh || since.at.elapsed() < APART {
                return Ok(None);
            }
        }
        let at = Instant::now();
        let facts = self.gather(roots.clone()).await?;
        let mut changed = Vec::new();
        let mut unissued = Vec::new();
        for site in &sites {
            let snapshot = policy::snapshot(&facts, site);
            let content = policy::content(&snapshot);
            let before = known.iter().find(|record| record.site == *site);
            let stands = before.filter(|record| {
                record.content == content
                    && record.version.incarnation == incarnation
                    && now - record.issued_at_ms < REFRESH_MS
            });
            match stands {
                Some(_) if self.policies.issued().contains_key(site) => {}
                Some(record) => unissued.push((record.clone(), snapshot)),
                None => changed.push((content, site.clone(), snapshot)),
            }
        }
        if !changed.is_empty() {
            let epoch = self.gate.lock().await.next(&*self.store).await?;
            let version = Version { incarnation, epoch };
            let mut records = Vec::new();
            for (content, site, snapshot) in changed {
                if snapshot.incomplete {
                    tracing::error!(%site, people = snapshot.people.len(), "policy has no room for everybody");
                }
                let record = PolicyRecord {
                    site,
                    content,
                    version,
                    issued_at_ms: now,
                };
                records.push(record.clone());
                unissued.push((record, snapshot));
            }
            // A disk that refuses costs nodes a policy they have, at our next start, and nothing else.
            if let Err(error) = self.store.save_policies(&records).await {
                tracing::warn!(%error, "which policies were issued is not on the disk");
            }
            known.retain(|old| records.iter().all(|new| new.site != old.site));
            known.extend(records);
            tracing::info!(%version, sites = unissued.len(), people = facts.people.len(), "policies issued");
        }
        for (record, mut snapshot) in unissued {
            snapshot.version = Some(record.version.into());
            snapshot.issued_at_ms = record.issued_at_ms;
            let statement = self.signer().sign(Kind::Policy, snapshot.encode_to_vec());
            let command = v1::Command {
                now: Some(self.now().into()),
                action: Some(Action::Policy(statement)),
                ..v1::Command::default()
            };
            let frame: Batch = Arc::new([Bytes::from(command.encode_to_vec())]);
            self.policies
                .issued()
                .insert(record.site.clone(), Issued { record, frame });
        }
        let oldest_ms = known
            .iter()
            .map(|record| record.issued_at_ms)
            .min()
            .unwrap_or(now);
        Ok(Some(Gathered {
            at,
            head,
            sites,
            roots,
            incarnation,
            oldest_ms,
        }))
    }

    /// What policies follow from.
    async fn gather(&self, roots: String) -> Result<Facts, Error> {
        let mut facts = Facts {
            roots,
            ..Facts::default()
        };
        let mut page = PageRequest {
            size: PageRequest::MAX,
            token: String::new(),
        };
        loop {
            let people = self.store.people(None, &page).await?;
            facts.people.extend(
                people
                    .items
                    .into_iter()
                    .map(|person| (person.name, person.grants)),
            );
            if people.next.is_empty() {
                break;
            }
            page.token = people.next;
        }
        page.token.clear();
        loop {
            let slices = self.store.slices(None, &page).await?;
            facts
                .slices
                .extend(slices.items.into_iter().map(|slice| slice.name));
            if slices.next.is_empty() {
                break;
            }
            page.token = slices.next;
        }
        let revoked = self.store.revoked_keys(now_ms()).await?;
        facts.revoked.extend(revoked.into_iter().map(|key| key.spki));
        Ok(facts)
    }

    /// Writes policies into the links of nodes that do not have them.
    async fn give_out(&self) {
        let now = now_ms();
        let mut from = 0;
        loop {
            {
                let mut state = self.lock();
                let issued = self.policies.issued();
                let until = (from + AT_ONCE).min(state.roster.len());
                for index in from..until {
                    let Ok(index) = crate::orders::NodeIndex::try_from(index) else {
                        return;
                    };
                    let Some(site) = state.roster.get(index).map(|member| member.site.clone()) else {
                        continue;
                    };
                    let (Some(policy), Some(node)) = (issued.get(&site), state.node_mut(index)) else {
                        continue;
                    };
                    let version = policy.record.version;
                    let sent = node
                        .policy_sent
                        .is_some_and(|(sent, at)| sent == version && now - at < AGAIN_MS);
                    let Some(slot) = &node.slot else { continue };
                    if sent || !node.facts.keeps_policy || node.facts.policy == Some(version) {
                        continue;
                    }
                    // A full link is tried again; one that ends is none.
                    if slot.commands.try_send(policy.frame.clone()).is_ok() {
                        node.policy_sent = Some((version, now));
                    }
                }
                from = until;
                if from >= state.roster.len() {
                    return;
                }
            }
            // Presses wait for this lock.
            tokio::task::yield_now().await;
        }
    }
}
