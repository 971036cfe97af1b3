//! What the controller knows while it runs, behind one short lock: the roster, who is attached, what holds, which
//! orders are not done. All of it can be rebuilt from the store and from what nodes report.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use link::Link;
use proto::canonical::Signature;
use proto::v1::{self, Outcome};
use proto::{BootId, Hold, HoldId, InviteId, NodeId, OrderId, Scope, Version};
use tokio::sync::{broadcast, mpsc};
use trust::Spki;

use super::facts::Facts;
use super::frames::{self, Batch, Catchup};
use super::keys::Credential;
use super::roster::{Member, Roster};
use crate::orders::{Cell, Delivery, NodeIndex, Tracker};
use crate::store::{Exemption, OrderKind, OrderRecord, OrderState, ResultRecord, SignedRelease, Wish};

/// Results that were recorded together, of one or more orders.
pub(crate) type News = Arc<[ResultRecord]>;

/// Batches of results that a watcher may be behind before it reads everything again.
const NEWS: usize = 64;

/// The current connection of a node.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) generation: u64,
    pub(crate) commands: mpsc::Sender<Batch>,
    pub(crate) link: Link,
    pub(crate) credential: Credential,
}

/// A connection that is to become the current one.
pub(crate) struct NewLink {
    pub(crate) commands: mpsc::Sender<Batch>,
    pub(crate) link: Link,
    pub(crate) credential: Credential,
}

/// A node as it is now.
#[derive(Debug, Default)]
pub(crate) struct NodeNow {
    pub(crate) slot: Option<Slot>,
    pub(crate) facts: Facts,
    /// Shut out until a rekey.
    pub(crate) revoked: bool,
    /// Its answers count for nothing until a rekey.
    pub(crate) quarantined: bool,
    /// The policy that was last written to its link, and when.
    pub(crate) policy_sent: Option<(Version, i64)>,
}

/// An order that is not done.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) record: Arc<OrderRecord>,
    pub(crate) tracker: Tracker,
    /// The order is on the disk.
    pub(crate) stored: bool,
    /// Every node that the store counted is in the tracker; another process may have enrolled one a moment ago.
    pub(crate) whole: bool,
    /// Results that are not on the disk.
    pub(crate) kept: HashMap<NodeId, ResultRecord>,
    pub(crate) news: Option<broadcast::Sender<News>>,
}

impl Open {
    /// Nothing more is to come and all of it is on the disk.
    pub(crate) fn is_done(&self) -> bool {
        self.tracker.state() == OrderState::Closed && self.stored && self.whole && self.kept.is_empty()
    }

    /// News from now on.
    pub(crate) fn subscribe(&mut self) -> broadcast::Receiver<News> {
        self.news
            .get_or_insert_with(|| broadcast::channel(NEWS).0)
            .subscribe()
    }
}

/// One node in one order, for people.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The node.
    pub node: Arc<Member>,
    /// What became of it.
    pub outcome: Outcome,
    /// The final proof is in.
    pub proven: bool,
}

/// An order as it stands.
#[derive(Debug, Clone)]
pub struct LiveOrder {
    /// The order; its state and counts are as of the press.
    pub record: Arc<OrderRecord>,
    /// How far it has come.
    pub state: OrderState,
    /// Its nodes by outcome.
    pub counts: v1::OutcomeCounts,
    /// Every attached node has answered.
    pub settled: bool,
}

#[derive(Debug)]
pub(crate) struct State {
    /// The highest version that any node was ever sent.
    pub(crate) now: Version,
    pub(crate) roster: Roster,
    pub(crate) nodes: Vec<NodeNow>,
    pub(crate) holds: BTreeMap<HoldId, Hold>,
    /// The controller's word for those.
    words: HashMap<HoldId, Signature>,
    /// Nodes where one of them was released by somebody there.
    pub(crate) exempt: BTreeMap<(HoldId, NodeId), Exemption>,
    /// How far each node's own audit has been taken over.
    pub(crate) diaries: HashMap<NodeId, audit::Head>,
    /// By epoch, so that nodes get what they are owed in the order of the decisions.
    pub(crate) book: BTreeMap<Version, Open>,
    pub(crate) places: HashMap<OrderId, Version>,
    /// Good keys of nodes. One that is not here may still be in the store; one that was revoked is not here.
    pub(crate) keys: HashMap<Spki, NodeId>,
    /// Tokens whose refusal was audited.
    pub(crate) told: HashSet<InviteId>,
    /// Results that stand in the trackers, are being written, and have not been told to watchers.
    pub(crate) writing: News,
    next_generation: u64,
}

/// What a node that attaches is owed.
pub(crate) struct Owed {
    pub(crate) batch: Batch,
    pub(crate) verdicts: Vec<ResultRecord>,
    pub(crate) generation: u64,
    pub(crate) replaced: Option<Slot>,
}

impl State {
    /// Nothing yet, at this version.
    pub(crate) fn new(now: Version) -> Self {
        Self {
            now,
            roster: Roster::default(),
            nodes: Vec::new(),
            holds: BTreeMap::new(),
            words: HashMap::new(),
            exempt: BTreeMap::new(),
            diaries: HashMap::new(),
            book: BTreeMap::new(),
            places: HashMap::new(),
            keys: HashMap::new(),
            told: HashSet::new(),
            writing: News::from([]),
            next_generation: 0,
        }
    }

    /// A hold stands from now on.
    pub(crate) fn hold(&mut self, hold: Hold, word: Option<Signature>) {
        self.words.extend(word.map(|word| (hold.id, word)));
        self.holds.insert(hold.id, hold);
    }

    /// It stands no more.
    pub(crate) fn lift(&mut self, hold: HoldId) -> Option<Hold> {
        self.words.remove(&hold);
        let nodes =
            (hold, NodeId::from_uuid(uuid::Uuid::nil()))..=(hold, NodeId::from_uuid(uuid::Uuid::max()));
        let gone: Vec<_> = self.exempt.range(nodes).map(|(place, _)| *place).collect();
        for place in gone {
            self.exempt.remove(&place);
        }
        self.holds.remove(&hold)
    }

    /// The holds that a node is to obey, with the controller's word for them.
    fn reaching(&self, member: &Member) -> impl Iterator<Item = (&Hold, Option<&Signature>)> {
        self.holds
            .values()
            .filter(|hold| hold.reaches(member.id, &member.site))
            .filter(|hold| !self.exempt.contains_key(&(hold.id, member.id)))
            .map(|hold| (hold, self.words.get(&hold.id)))
    }

    /// Tells every attached node that they reach, but one, of these holds: that they stand, or that they were released
    /// by these decisions. Links that take nothing are returned.
    pub(crate) fn spread(&self, holds: &[Hold], releases: &[SignedRelease], but: NodeIndex) -> Vec<Link> {
        if holds.is_empty() {
            return Vec::new();
        }
        let mut scopes: Vec<&Scope> = Vec::new();
        for hold in holds {
            if !scopes.contains(&&hold.scope) {
                scopes.push(&hold.scope);
            }
        }
        // One batch for each scope, however many nodes.
        let batch = |wanted: &dyn Fn(&&Hold) -> bool| -> Batch {
            let about = holds.iter().filter(wanted);
            let (standing, gone): (Vec<_>, Vec<_>) =
                about.partition(|hold| self.holds.contains_key(&hold.id));
            let news = Catchup {
                released: gone.iter().map(|hold| hold.id).collect(),
                tombstones: releases
                    .iter()
                    .filter(|release| gone.iter().any(|hold| hold.id == release.hold))
                    .cloned()
                    .collect(),
                ..Catchup::default()
            };
            let standing = standing.into_iter().map(|hold| (hold, self.words.get(&hold.id)));
            frames::sync(self.now, standing, news).into()
        };
        let mut stuck = Vec::new();
        for scope in scopes {
            let shared = batch(&|hold| hold.scope == *scope);
            for (index, member) in self.roster.iter() {
                let Some(slot) = self.node(index).and_then(|node| node.slot.as_ref()) else {
                    continue;
                };
                let reached = holds
                    .iter()
                    .find(|hold| hold.scope == *scope)
                    .is_some_and(|hold| hold.reaches(member.id, &member.site));
                if index == but || !reached {
                    continue;
                }
                let exempt = |hold: &Hold| self.exempt.contains_key(&(hold.id, member.id));
                let told = if holds.iter().any(exempt) {
                    batch(&|hold| hold.scope == *scope && !exempt(hold))
                } else {
                    shared.clone()
                };
                if let Err(mpsc::error::TrySendError::Full(_)) = slot.commands.try_send(told) {
                    stuck.push(slot.link.clone());
                }
            }
        }
        stuck
    }

    /// Adds a node that was enrolled; also to the open orders that concern it.
    pub(crate) fn enrol(&mut self, record: &crate::store::NodeRecord) {
        let Some(index) = self.roster.add(record) else {
            return;
        };
        let Some(member) = self.roster.get(index).cloned() else {
            return;
        };
        self.nodes.push(NodeNow {
            slot: None,
            facts: Facts::known(record.boot_id, record.last_seen_ms),
            revoked: record.revoked_at_ms.is_some(),
            quarantined: record.quarantined.is_some(),
            policy_sent: None,
        });
        for open in self.book.values_mut() {
            if member.concerns(&open.record.scope, open.record.version) {
                open.tracker.include(index);
            }
        }
    }

    pub(crate) fn node(&self, index: NodeIndex) -> Option<&NodeNow> {
        self.nodes.get(index as usize)
    }

    pub(crate) fn node_mut(&mut self, index: NodeIndex) -> Option<&mut NodeNow> {
        self.nodes.get_mut(index as usize)
    }

    pub(crate) fn is_attached(&self, index: NodeIndex) -> bool {
        self.node(index).is_some_and(|node| node.slot.is_some())
    }

    pub(crate) fn open(&self, id: OrderId) -> Option<&Open> {
        self.places.get(&id).and_then(|place| self.book.get(place))
    }

    pub(crate) fn open_mut(&mut self, id: OrderId) -> Option<&mut Open> {
        self.places.get(&id).and_then(|place| self.book.get_mut(place))
    }

    /// Enters an order with the nodes that it concerns and the results that it has.
    pub(crate) fn enter(&mut self, record: &Arc<OrderRecord>, stored: bool, results: &[ResultRecord]) {
        let boot = match record.wish {
            Wish::Reboot { boot_id, .. } | Wish::Stop { boot_id, .. } => boot_id,
            Wish::Hold { .. } | Wish::Release { .. } | Wish::StopEveryNode { .. } => None,
        };
        let holds = record.holds.iter().map(|hold| hold.id).collect();
        let dense = matches!(record.scope, proto::Scope::Fleet);
        let mut tracker = Tracker::new(record.kind, holds, boot, dense);
        match &record.scope {
            proto::Scope::Node(node) => {
                if let Some(index) = self.roster.index(*node) {
                    tracker.include(index);
                }
            }
            scope => {
                for (index, member) in self.roster.iter() {
                    if member.concerns(scope, record.version) {
                        tracker.include(index);
                    }
                }
            }
        }
        for result in results {
            if let Some(index) = self.roster.index(result.node) {
                tracker.restore(index, Cell::stored(result.outcome, result.proven));
            }
        }
        // A halt or reboot that began tells which boot it was for.
        for result in results {
            if let Some(index) = self.roster.index(result.node)
                && let Some(boot) = result
                    .answer
                    .as_ref()
                    .and_then(|answer| answer.boot_id.parse().ok())
            {
                tracker.learn_boot(index, boot);
            }
        }
        if record.kind == OrderKind::StopEveryNode {
            let concerned: Vec<NodeIndex> = tracker.iter().map(|(index, _)| index).collect();
            for index in concerned {
                if let Some(boot) = self.node(index).and_then(|node| node.facts.boot) {
                    tracker.learn_boot(index, boot);
                }
            }
        }
        self.places.insert(record.id, record.version);
        let whole = stored && tracker.len() >= record.counts.nodes;
        let open = Open {
            tracker,
            stored,
            whole,
            kept: HashMap::new(),
            news: None,
            record: record.clone(),
        };
        self.book.insert(record.version, open);
    }

    /// Takes an order out once nothing more is to come.
    pub(crate) fn close_if_done(&mut self, id: OrderId) -> Option<Open> {
        if !self.open(id).is_some_and(Open::is_done) {
            return None;
        }
        self.places.remove(&id).and_then(|place| self.book.remove(&place))
    }

    /// The node is attached from now on: everything that it is owed, in the order of the decisions, then what
    /// holds. Presses after this go through `commands`.
    pub(crate) fn attach(
        &mut self,
        index: NodeIndex,
        boot: BootId,
        news: Catchup,
        new: NewLink,
        at_ms: i64,
    ) -> Option<Owed> {
        let member = self.roster.get(index)?.clone();
        let NewLink {
            commands,
            link,
            credential,
        } = new;
        // It may have been revoked while it introduced itself.
        if self.keys.get(&credential.key) != Some(&member.id) {
            return None;
        }
        let doubtful = self.node(index)?.quarantined;
        let (now, holds, exempt) = (self.now, &self.holds, &self.exempt);
        let mut frames = Vec::new();
        let mut verdicts = Vec::new();
        for open in self.book.values_mut() {
            if open.tracker.cell(index) == Cell::ABSENT {
                continue;
            }
            // The other boot id may be the other machine's.
            if doubtful && open.record.kind == OrderKind::RebootNode && open.tracker.cell(index).is_answered()
            {
                continue;
            }
            match open.tracker.attached(index, boot, |hold| {
                holds.contains_key(&hold) && !exempt.contains_key(&(hold, member.id))
            }) {
                Delivery::Nothing => {}
                Delivery::Send => {
                    open.tracker.learn_boot(index, boot);
                    let batch = frames::commands(&open.record, now, open.tracker.boot(index));
                    open.tracker
                        .sent(index, u16::try_from(batch.len()).unwrap_or(u16::MAX));
                    frames.extend(batch.iter().cloned());
                }
                Delivery::Verdict(cell) => verdicts.extend(cell.outcome().map(|outcome| ResultRecord {
                    order: open.record.id,
                    node: member.id,
                    outcome,
                    proven: cell.is_proven(),
                    answered_at_ms: at_ms,
                    answer: None,
                })),
            }
        }
        frames.extend(frames::sync(now, self.reaching(&member), news));
        let generation = self.next_generation;
        self.next_generation += 1;
        let slot = Slot {
            generation,
            commands,
            link,
            credential,
        };
        let node = self.node_mut(index)?;
        node.policy_sent = None;
        let replaced = node.slot.replace(slot);
        Some(Owed {
            batch: frames.into(),
            verdicts,
            generation,
            replaced,
        })
    }

    /// The node has a new key, and perhaps lost older ones: it is one machine again, and may attach. Returns links to
    /// cut.
    pub(crate) fn welcome(
        &mut self,
        record: &crate::store::NodeRecord,
        key: Spki,
        revoked: &[Spki],
    ) -> Option<Link> {
        self.keys.insert(key, record.id);
        let index = self.roster.index(record.id)?;
        for key in revoked {
            self.keys.remove(key);
        }
        let node = self.node_mut(index)?;
        node.revoked = record.revoked_at_ms.is_some();
        if node.quarantined && record.quarantined.is_none() {
            node.facts.absolve();
        }
        node.quarantined = record.quarantined.is_some();
        let slot = node.slot.as_ref()?;
        revoked.contains(&slot.credential.key).then(|| slot.link.clone())
    }

    /// The node's keys are good no more. Returns the link to cut.
    pub(crate) fn shut_out(&mut self, id: NodeId, keys: &[Spki]) -> Option<Link> {
        for key in keys {
            self.keys.remove(key);
        }
        self.keys.retain(|_, node| *node != id);
        let index = self.roster.index(id)?;
        let node = self.node_mut(index)?;
        node.revoked = true;
        node.slot.as_ref().map(|slot| slot.link.clone())
    }

    /// The link of this generation has ended. False when another one has taken its place.
    pub(crate) fn detach(&mut self, index: NodeIndex, generation: u64) -> bool {
        match self.node_mut(index) {
            Some(node)
                if node
                    .slot
                    .as_ref()
                    .is_some_and(|slot| slot.generation == generation) =>
            {
                node.slot = None;
                true
            }
            _ => false,
        }
    }

    /// Writes an order into the links of all its attached nodes. Links that take nothing are returned: they are
    /// stuck, and their nodes get the order when they come back.
    pub(crate) fn send(&mut self, id: OrderId) -> Vec<Link> {
        let Some(open) = self.places.get(&id).and_then(|place| self.book.get_mut(place)) else {
            return Vec::new();
        };
        let boots = |index: NodeIndex| self.nodes.get(index as usize).and_then(|node| node.facts.boot);
        // One batch for all, but for the boot that each machine is in.
        let each = open.record.kind == OrderKind::StopEveryNode;
        let first = open.tracker.iter().next().map_or(0, |(index, _)| index);
        let mut batch = frames::commands(&open.record, self.now, open.tracker.boot(first));
        let commands = u16::try_from(batch.len()).unwrap_or(u16::MAX);
        let mut stuck = Vec::new();
        let mut sent = Vec::with_capacity(open.tracker.len() as usize);
        for (index, _) in open.tracker.iter() {
            let Some(slot) = self.nodes.get(index as usize).and_then(|node| node.slot.as_ref()) else {
                continue;
            };
            if each {
                let boot = open.tracker.boot(index).or_else(|| boots(index));
                batch = frames::commands(&open.record, self.now, boot);
            }
            match slot.commands.try_send(batch.clone()) {
                Ok(()) => sent.push(index),
                Err(mpsc::error::TrySendError::Full(_)) => stuck.push(slot.link.clone()),
                // The link is ending; its task has not come round to say so.
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
        for index in sent {
            open.tracker.sent(index, commands);
            if let Some(boot) = boots(index) {
                open.tracker.learn_boot(index, boot);
            }
        }
        stuck
    }

    /// An open order as it stands.
    pub(crate) fn live(&self, id: OrderId) -> Option<LiveOrder> {
        let open = self.open(id)?;
        let attached = |index| self.is_attached(index);
        Some(LiveOrder {
            record: open.record.clone(),
            state: open.tracker.state(),
            counts: open.tracker.counts(attached).into(),
            settled: open.tracker.is_settled(attached),
        })
    }

    /// Results of an order that the store may not have yet.
    pub(crate) fn unread(&self, id: OrderId) -> impl Iterator<Item = &ResultRecord> {
        let kept = self.open(id).into_iter().flat_map(|open| open.kept.values());
        kept.chain(self.writing.iter().filter(move |result| result.order == id))
    }

    /// Every node of an open order.
    pub(crate) fn standings(&self, id: OrderId) -> Option<Vec<Standing>> {
        let open = self.open(id)?;
        let standing = |(index, cell): (NodeIndex, Cell)| {
            let node = self.roster.get(index)?.clone();
            Some(Standing {
                node,
                outcome: cell.shown(self.is_attached(index)),
                proven: cell.is_proven(),
            })
        };
        Some(open.tracker.iter().filter_map(standing).collect())
    }
}
