//! Taking over what a node knows and the store does not: holds from a time that a restored database has lost, releases
//! of that time, what people did at the node's own door, and the node's audit of it.
//!
//! ```text
//! Report ─▶ is there something? ─▶ Merge (bounded, one deadline) ─▶ [`rule`] ─▶ store ─▶ State ─▶ the other nodes
//!                 │ no                                                                       └─▶ the node's own sync
//!                 └─▶ nothing is asked
//! ```
//! Never keeps a node from attaching: what cannot be asked or stored now stays on the node and is asked for again on
//! its next link. One node at a time (`merging`), so that a hold and its release, told by two nodes at once, come to
//! the same whichever is first.

mod diary;
mod rule;

use link::Link;
use proto::canonical::Signature;
use proto::v1::slivers_client::SliversClient;
use proto::v1::{MergeReply, MergeRequest};
use proto::{Hold, HoldId, NodeId, Scope, canonical};
use tokio::time::Instant;
use tonic::Code;
use trust::Kind;

use self::rule::{TakenHold, TakenStone};
use super::facts::Checked;
use super::frames::Catchup;
use super::{Fleet, Member, now_ms};
use crate::orders::NodeIndex;
use crate::store::{About, Exemption, ImportedHold, Note, SignedRelease, StoreError, ToldRelease};

/// Holds in one request; the node answers no more.
const HOLDS_AT_ONCE: usize = 64;
/// Holds that are asked for on one link.
const HOLDS: usize = 4_096;
/// Tombstones that a node may keep; what comes beyond is not looked at.
const STONES: usize = 1_024;
/// Entries of a diary that are taken over on one link.
const ENTRIES: usize = 2_048;
/// Holds that stand by the word of one node alone.
const MAX_TOLD: usize = 1_024;

/// What a node gave reason to ask for.
struct Wanted {
    holds: Vec<HoldId>,
    tombstones: bool,
    /// How far it is known, and how far it goes.
    diary: Option<(audit::Head, u64)>,
}

/// A hold that is taken over.
struct Taken {
    hold: Hold,
    word: Signature,
    /// As the node calls it; `None`: as we do.
    as_told: Option<HoldId>,
}

impl Taken {
    fn detail(&self, member: &Member) -> String {
        let Hold { id, holder, role, .. } = &self.hold;
        match self.as_told {
            None => format!(
                "hold {id} by {holder} ({role}), which the controller signed and did not know, was told by node {}; it \
                 stands as it was set",
                member.name
            ),
            Some(as_told) => format!(
                "node {} tells of hold {as_told} by {holder} ({role}), for which it has no word of the controller; it \
                 stands for that node alone, as {id}",
                member.name
            ),
        }
    }
}

/// What came of asking.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// For the node's sync.
    pub(super) news: Catchup,
    /// Holds that were not taken over.
    pub(super) strange: Vec<HoldId>,
}

impl Fleet {
    /// Asks the node for what it knows and nobody here does, and takes it over.
    pub(super) async fn merge(
        &self,
        index: NodeIndex,
        member: &Member,
        link: &Link,
        checked: &Checked,
        strange: Vec<HoldId>,
    ) -> Merged {
        let mut merged = Merged {
            strange,
            ..Merged::default()
        };
        let wanted = self.wanted(member.id, checked, &merged.strange);
        if wanted.holds.is_empty() && !wanted.tombstones && wanted.diary.is_none() {
            return merged;
        }
        match Box::pin(self.ask(index, member, link, wanted, &mut merged)).await {
            Ok(()) => {}
            // From before there was such a call: its holds are shown and stay.
            Err(status) if status.code() == Code::Unimplemented => {}
            Err(status) => {
                tracing::warn!(node = %member.name, %status, "what the node knows could not be asked for");
            }
        }
        merged
    }

    fn wanted(&self, node: NodeId, checked: &Checked, strange: &[HoldId]) -> Wanted {
        let report = &checked.report;
        let state = self.lock();
        // A node that has not seen this incarnation counts as news only what the one before did not confirm.
        let seen = report.seen.as_ref().map_or(0, |seen| seen.incarnation);
        let behind = seen > 0 && seen < state.now.incarnation;
        let head = state.diaries.get(&node).copied().unwrap_or_default();
        Wanted {
            holds: strange.iter().take(HOLDS).copied().collect(),
            tombstones: report.tombstones > 0 || behind,
            // 0: a program that keeps none, or none that it has read yet.
            diary: (report.local_entries > 0 && report.local_entries != head.sequence)
                .then_some((head, report.local_entries)),
        }
    }

    async fn ask(
        &self,
        index: NodeIndex,
        member: &Member,
        link: &Link,
        wanted: Wanted,
        merged: &mut Merged,
    ) -> Result<(), tonic::Status> {
        let client = SliversClient::with_origin(link.clone(), Link::origin())
            .max_decoding_message_size(proto::MAX_MESSAGE_BYTES);
        // Only the asking has a deadline: what was told is taken over to its end, or memory and disk would differ.
        let until = Instant::now() + self.config.attach_deadline;
        let call = |request: MergeRequest| {
            let mut client = client.clone();
            async move {
                match tokio::time::timeout_at(until, client.merge(request)).await {
                    Ok(reply) => reply.map(tonic::Response::into_inner),
                    Err(_) => Err(tonic::Status::deadline_exceeded("the node is too slow to tell")),
                }
            }
        };
        let Wanted {
            holds,
            tombstones,
            diary,
        } = wanted;
        // Releases first: a hold that was released must not be spread before.
        if tombstones {
            let request = MergeRequest {
                tombstones: true,
                entries_after: u64::MAX,
                ..MergeRequest::default()
            };
            let MergeReply { tombstones, .. } = call(request).await?;
            self.take_stones(index, member, tombstones, merged).await;
        }
        for asked in holds.chunks(HOLDS_AT_ONCE) {
            // Another node may have told of them since.
            let asked: Vec<HoldId> = {
                let state = self.lock();
                merged.strange.retain(|id| !state.holds.contains_key(id));
                let unknown = |id: &&HoldId| !state.holds.contains_key(id);
                asked.iter().filter(unknown).copied().collect()
            };
            if asked.is_empty() {
                continue;
            }
            let request = MergeRequest {
                holds: asked.iter().map(HoldId::to_string).collect(),
                entries_after: u64::MAX,
                tombstones: false,
            };
            let MergeReply { holds, .. } = call(request).await?;
            self.take_holds(index, member, &asked, holds, merged).await;
        }
        if let Some((mut head, last)) = diary {
            if last < head.sequence {
                head = self.lost_diary(member, head, last).await;
            }
            let mut told = 0;
            while told < ENTRIES && head.sequence < last {
                let request = MergeRequest {
                    entries_after: head.sequence,
                    ..MergeRequest::default()
                };
                let MergeReply { entries, .. } = call(request).await?;
                told += entries.len().max(1);
                match self.take_diary(member, head, entries).await {
                    Some(next) => head = next,
                    None => break,
                }
            }
        }
        Ok(())
    }

    async fn take_stones(
        &self,
        index: NodeIndex,
        member: &Member,
        told: Vec<proto::v1::Tombstone>,
        merged: &mut Merged,
    ) {
        let _turn = self.merging.lock().await;
        let (mut releases, mut forged) = (Vec::new(), Vec::new());
        for stone in told.into_iter().take(STONES) {
            match rule::stone(stone, member.id, &self.signers()) {
                Ok(TakenStone::Ours(release)) => releases.push(release),
                Ok(TakenStone::Here(exemption)) => {
                    let hold = exemption.hold;
                    match self.exempt_told(member, exemption).await {
                        Ok(()) => merged.news.recorded.push(hold),
                        Err(error) => {
                            tracing::warn!(node = %member.name, %hold, %error, "exemption not taken over");
                        }
                    }
                }
                Ok(TakenStone::Forged(hold)) => forged.push(hold),
                Err(error) => tracing::warn!(node = %member.name, %error, "no tombstone"),
            }
        }
        let ids: Vec<HoldId> = releases.iter().map(|release| release.hold).collect();
        match self.releases_told(index, member, releases).await {
            Ok(()) => merged.news.recorded.extend(ids),
            Err(error) => tracing::warn!(node = %member.name, %error, "releases not taken over"),
        }
        if let [first, rest @ ..] = &*forged {
            let detail = format!(
                "the node tells of {} releases that the controller did not sign; nothing comes of it: {first} and {} more",
                forged.len(),
                rest.len()
            );
            let note = self.told_note(member, "import-release", audit::Outcome::Refused, detail, None);
            self.note(note).await;
        }
    }

    /// Everywhere, where they still stand here.
    async fn releases_told(
        &self,
        index: NodeIndex,
        member: &Member,
        mut releases: Vec<SignedRelease>,
    ) -> Result<(), StoreError> {
        let ids: Vec<HoldId> = releases.iter().map(|release| release.hold).collect();
        let known = self.store.released_among(&ids).await?;
        releases.retain(|release| !known.contains(&release.hold));
        if releases.is_empty() {
            return Ok(());
        }
        let at_ms = now_ms();
        let tell = |release: &SignedRelease| {
            let stood = self.lock().holds.get(&release.hold).cloned();
            let end = match &stood {
                Some(_) => "it stood here and is released everywhere",
                None => "it did not stand here",
            };
            let detail = format!(
                "hold {} was released by decision {}, which the controller signed; told by node {}; {end}",
                release.hold, release.version, member.name
            );
            let slice = stood.and_then(|hold| hold.slice);
            let told = ToldRelease {
                release: release.clone(),
                node: member.id,
                at_ms,
            };
            (
                told,
                self.told_note(member, "import-release", audit::Outcome::Done, detail, slice),
            )
        };
        let told: Vec<(ToldRelease, Note)> = releases.iter().map(tell).collect();
        self.store.tell_releases(&told).await?;
        let stuck = {
            let mut state = self.lock();
            let lifted: Vec<Hold> = releases
                .iter()
                .filter_map(|release| state.lift(release.hold))
                .collect();
            state.spread(&lifted, &releases, index)
        };
        stuck.iter().for_each(Link::cut);
        Ok(())
    }

    /// On the node alone, under whichever id the hold goes here.
    async fn exempt_told(&self, member: &Member, told: Exemption) -> Result<(), StoreError> {
        let renamed = canonical::told_id(told.hold, member.id);
        let hold = if self.lock().holds.contains_key(&renamed) {
            renamed
        } else {
            told.hold
        };
        let exemption = Exemption { hold, ..told };
        let detail = format!(
            "by the word of node {}, {} ({}) released hold {hold} there; it stands everywhere else",
            member.name, exemption.person, exemption.role
        );
        let slice = self.lock().holds.get(&hold).and_then(|hold| hold.slice.clone());
        let note = self.told_note(member, "import-exemption", audit::Outcome::Done, detail, slice);
        self.store.exempt(&exemption, note).await?;
        self.lock().exempt.insert((hold, member.id), exemption);
        Ok(())
    }

    async fn take_holds(
        &self,
        index: NodeIndex,
        member: &Member,
        asked: &[HoldId],
        told: Vec<proto::v1::Hold>,
        merged: &mut Merged,
    ) {
        let _turn = self.merging.lock().await;
        let told_by = |hold: &&Hold| hold.scope == Scope::Node(member.id);
        let mut room = MAX_TOLD.saturating_sub(self.lock().holds.values().filter(told_by).count());
        let mut taken = Vec::new();
        for told in told.into_iter().take(HOLDS_AT_ONCE) {
            match rule::hold(told, member.id, &member.name, self.now(), &self.signers()) {
                Ok(TakenHold::Ours(hold, word)) if asked.contains(&hold.id) => taken.push(Taken {
                    hold,
                    word,
                    as_told: None,
                }),
                Ok(TakenHold::Told { hold, as_told }) if asked.contains(&as_told) && room > 0 => {
                    room -= 1;
                    // From here on it is ours: the node can prove it to whatever comes after us.
                    let word = self.signer().sign_short(Kind::Hold, &canonical::hold(&hold));
                    taken.push(Taken {
                        hold,
                        word,
                        as_told: Some(as_told),
                    });
                }
                Ok(_) => {
                    tracing::warn!(node = %member.name, "a hold that was not asked for, or one too many")
                }
                Err(error) => tracing::warn!(node = %member.name, %error, "no hold"),
            }
        }
        if let Err(error) = self.keep_holds(index, member, &taken, merged).await {
            tracing::warn!(node = %member.name, %error, "holds not taken over");
        }
    }

    async fn keep_holds(
        &self,
        index: NodeIndex,
        member: &Member,
        taken: &[Taken],
        merged: &mut Merged,
    ) -> Result<(), StoreError> {
        if taken.is_empty() {
            return Ok(());
        }
        let import = |one: &Taken| {
            let import = ImportedHold {
                hold: one.hold.clone(),
                node: member.id,
                signature: Some(one.word),
            };
            let (detail, slice) = (one.detail(member), one.hold.slice.clone());
            (
                import,
                self.told_note(member, "import-hold", audit::Outcome::Done, detail, slice),
            )
        };
        let imports: Vec<(ImportedHold, Note)> = taken.iter().map(import).collect();
        self.store.import_holds(&imports).await?;
        let ids: Vec<HoldId> = taken.iter().map(|one| one.hold.id).collect();
        // Another node may have told that one was released, now or before.
        let released = self.store.released_among(&ids).await?;
        let stuck = {
            let mut state = self.lock();
            let mut new = Vec::new();
            for Taken { hold, word, as_told } in taken {
                merged.strange.retain(|id| *id != as_told.unwrap_or(hold.id));
                merged.news.renamed.extend(*as_told);
                if released.contains(&hold.id) {
                    merged.news.released.push(hold.id);
                    continue;
                }
                if !state.holds.contains_key(&hold.id) {
                    new.push(hold.clone());
                }
                state.hold(hold.clone(), Some(*word));
            }
            state.spread(&new, &[], index)
        };
        stuck.iter().for_each(Link::cut);
        Ok(())
    }

    fn told_note(
        &self,
        member: &Member,
        action: &str,
        outcome: audit::Outcome,
        detail: String,
        slice: Option<proto::SliceName>,
    ) -> Note {
        Note {
            draft: audit::Draft {
                at_ms: now_ms(),
                version: self.now(),
                person: None,
                role: None,
                action: action.into(),
                target: match &slice {
                    Some(slice) => format!("{slice} on node {}", member.name),
                    None => format!("node {}", member.name),
                },
                reason: String::new(),
                evidence: String::new(),
                outcome,
                detail,
                order: None,
            },
            about: About {
                slice,
                site: Some(member.site.clone()),
                node: Some(member.id),
            },
        }
    }
}
