//! Heads of the audit: signed, sent to the nodes to keep, and compared with what the nodes have kept.
//!
//! ```text
//! store's head ── looked at each second ──▶ signed ──▶ every attached node, at most every 10 s; each that attaches
//! NodeReport.witnessed ─▶ signature ─▶ in our chain? ── no ──▶ alarm: audit, log, whoami, node show, health
//! ```
//! Costs: a frame of about a kilobyte for each node in a burst of changes, encoded once; for 10,000 nodes a megabyte
//! in ten seconds at most. A statement that many nodes report is checked and looked up once.
//!
//! A node is not believed: what counts is the signature, which only this controller's signer can have made. Who
//! holds the signer's key can lie; who holds the database alone cannot.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit::{Head, Judged, Stated, judge};
use proto::v1::{SignedStatement, Witnessed};
use proto::{NodeId, NodeName};
use tokio::sync::watch;
use tokio::time::Instant;
use trust::{Kind, Roots};

use super::frames::{self, Batch};
use super::{Fleet, now_ms};
use crate::orders::NodeIndex;
use crate::store::{About, Note, StoreError};

/// Between two looks at the head of the chain.
const LOOK: Duration = Duration::from_secs(1);
/// Between two frames to a node that stays attached.
const EVERY: Duration = Duration::from_secs(10);
/// Distinct statements whose verdict is remembered; the nodes of a fleet report a handful.
const REMEMBERED: usize = 256;
/// Alarms that are kept, and audited, in one life of the process.
const MOST_ALARMS: usize = 16;
/// Contradictions that a node may report at once.
const MOST_PAIRS: usize = 8;

/// What became of a reported head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is in our chain.
    Ours,
    /// We signed it, and it is not in our chain.
    Missing(String),
    /// We did not sign it, or it is no head.
    Strange(String),
}

/// A statement that some node reported, once for all of them.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) statement: SignedStatement,
    pub(crate) verdict: Verdict,
}

/// What a node has kept, as it last reported it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    pub(crate) head: Option<Arc<Known>>,
    /// Empty for nearly every node.
    pub(crate) pairs: Arc<[proto::v1::Contradiction]>,
    pub(crate) reported_at_ms: i64,
}

/// A signed head that proves that this database lost entries: it was rolled back, or rewritten.
#[derive(Debug, Clone)]
pub struct RolledBack {
    /// Who kept it.
    pub node: NodeId,
    /// What it says.
    pub stated: Stated,
    /// The proof.
    pub statement: SignedStatement,
}

#[derive(Debug)]
pub(super) struct Witnessing {
    inner: Mutex<Inner>,
    rolled_back: watch::Sender<Option<Arc<RolledBack>>>,
    alarms: watch::Sender<Vec<String>>,
}

#[derive(Debug, Default)]
struct Inner {
    roots: Option<Roots>,
    /// The last that was signed, and its frame.
    signed: Option<(Stated, SignedStatement)>,
    sent_at: Option<Instant>,
    /// What was signed has not been sent to those who are attached.
    due: bool,
    remembered: VecDeque<Arc<Known>>,
    /// By roster index.
    kept: Vec<Kept>,
    told: BTreeSet<String>,
}

impl Default for Witnessing {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            rolled_back: watch::Sender::new(None),
            alarms: watch::Sender::new(Vec::new()),
        }
    }
}

impl Witnessing {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the chain each second, until the fleet ends.
pub(super) async fn run(fleet: Arc<Fleet>) {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while fleet.shutdown.run_until_cancelled(every.tick()).await.is_some() {
        if let Err(error) = fleet.sign_head().await {
            tracing::debug!(%error, "cannot look at the audit's head");
        }
        fleet.spread_head();
    }
}

impl Fleet {
    /// Whose signatures count in what nodes report: roots that signed our signer, old ones too.
    pub fn trust_roots(&self, roots: Roots) {
        self.witnessing.lock().roots = Some(roots);
    }

    /// Signs where the chain stands, if it has moved.
    pub(super) async fn sign_head(&self) -> Result<(), StoreError> {
        let head = self.store.audit_head().await?;
        let last = self.witnessing.lock().signed.as_ref().map(|(last, _)| *last);
        if last.is_some_and(|last| last.head == head) || head == Head::GENESIS {
            return Ok(());
        }
        if let Some(last) = last {
            self.check_own(last.head, head).await?;
        }
        let stated = Stated {
            head,
            version: self.now(),
            // Strictly later than the one before, whatever happens to the clock: `audit::judge` relies on it.
            at_ms: last.map_or(now_ms(), |last| now_ms().max(last.at_ms + 1)),
        };
        let statement = self.signer().sign(Kind::AuditHead, stated.encode());
        let mut inner = self.witnessing.lock();
        inner.signed = Some((stated, statement));
        inner.due = true;
        Ok(())
    }

    /// Our own memory is a witness, too: the entry that was last is still there.
    async fn check_own(&self, before: Head, head: Head) -> Result<(), StoreError> {
        if let Some(lost) = self.missing(before, head).await? {
            self.witnessing.lock().remembered.clear();
            let text = format!("the audit was changed while the controller ran: {lost}");
            self.alarm(before.to_string(), text).await;
        }
        Ok(())
    }

    /// What is wrong with `witnessed` in a chain that ends at `head`.
    async fn missing(&self, witnessed: Head, head: Head) -> Result<Option<String>, StoreError> {
        if witnessed == Head::GENESIS {
            return Ok(None);
        }
        let there = self.store.audit_from(witnessed.sequence, 1).await?;
        Ok(
            match there.first().filter(|entry| entry.sequence == witnessed.sequence) {
                Some(entry) if entry.hash == witnessed.hash => None,
                Some(entry) => Some(format!(
                    "entry {} was {}, the chain has {} there",
                    witnessed.sequence, witnessed.hash, entry.hash
                )),
                None => Some(format!(
                    "entry {} was {}, the chain ends at {}",
                    witnessed.sequence, witnessed.hash, head.sequence
                )),
            },
        )
    }

    /// Sends what was signed to every attached node, at most every 10 seconds.
    fn spread_head(&self) {
        let statement = {
            let mut inner = self.witnessing.lock();
            let early = inner.sent_at.is_some_and(|at| at.elapsed() < EVERY);
            if !inner.due || early {
                return;
            }
            let Some((_, statement)) = inner.signed.clone() else {
                return;
            };
            inner.due = false;
            inner.sent_at = Some(Instant::now());
            statement
        };
        let state = self.lock();
        let batch: Batch = Arc::new([frames::witness(state.now, statement)]);
        for slot in state.nodes.iter().filter_map(|node| node.slot.as_ref()) {
            // A link that is full has more urgent things; it gets the next one.
            let _ = slot.commands.try_send(batch.clone());
        }
    }

    /// The frame for a node that attaches, with the version that was sent last.
    pub(super) fn head_frame(&self, now: proto::Version) -> Option<Batch> {
        let statement = self.witnessing.lock().signed.as_ref()?.1.clone();
        Some(Arc::new([frames::witness(now, statement)]))
    }

    /// Whether a node reports anything else than before; what is the same costs no more than this.
    pub(super) fn is_news(&self, index: NodeIndex, witnessed: &Witnessed) -> bool {
        let mut inner = self.witnessing.lock();
        let Some(kept) = inner.kept.get_mut(index as usize) else {
            return witnessed.head.is_some();
        };
        let same = kept.head.as_ref().map(|known| &known.statement) == witnessed.head.as_ref()
            && kept.pairs.len() == witnessed.contradictions.len().min(MOST_PAIRS);
        if same {
            kept.reported_at_ms = now_ms();
        }
        !same
    }

    /// Compares what a node has kept with our chain.
    pub(super) async fn heed(&self, index: NodeIndex, node: NodeId, name: &NodeName, witnessed: Witnessed) {
        let Witnessed {
            head,
            mut contradictions,
        } = witnessed;
        contradictions.truncate(MOST_PAIRS);
        let head = match head {
            None => None,
            Some(statement) => match self.known(node, name, statement).await {
                Ok(known) => Some(known),
                Err(error) => return tracing::warn!(%node, %error, "cannot compare what the node witnessed"),
            },
        };
        for pair in &contradictions {
            self.heed_pair(name, pair).await;
        }
        let mut inner = self.witnessing.lock();
        let at = index as usize;
        if inner.kept.len() <= at {
            inner.kept.resize_with(at + 1, Kept::default);
        }
        inner.kept[at] = Kept {
            head,
            pairs: contradictions.into(),
            reported_at_ms: now_ms(),
        };
    }

    /// The verdict on a statement: from memory, or by its signature and our chain.
    async fn known(
        &self,
        node: NodeId,
        name: &NodeName,
        statement: SignedStatement,
    ) -> Result<Arc<Known>, StoreError> {
        let (before, roots) = {
            let inner = self.witnessing.lock();
            let same = |known: &&Arc<Known>| known.statement == statement;
            (inner.remembered.iter().find(same).cloned(), inner.roots.clone())
        };
        if let Some(known) = before {
            return Ok(known);
        }
        let (verdict, stated) = match read(&statement, roots.as_ref()) {
            Err(why) => {
                tracing::warn!(%node, %why, "the node reports an audit head that this controller never signed");
                (Verdict::Strange(why), None)
            }
            Ok(stated) => {
                let head = self.store.audit_head().await?;
                match self.missing(stated.head, head).await? {
                    None => (Verdict::Ours, None),
                    Some(lost) => (Verdict::Missing(lost), Some(stated)),
                }
            }
        };
        let known = Arc::new(Known { statement, verdict });
        {
            let mut inner = self.witnessing.lock();
            if inner.remembered.len() >= REMEMBERED {
                inner.remembered.pop_front();
            }
            inner.remembered.push_back(known.clone());
        }
        if let (Verdict::Missing(lost), Some(stated)) = (&known.verdict, stated) {
            self.rolled_back_by(node, name, stated, lost, &known.statement)
                .await;
        }
        Ok(known)
    }

    async fn rolled_back_by(
        &self,
        node: NodeId,
        name: &NodeName,
        stated: Stated,
        lost: &str,
        statement: &SignedStatement,
    ) {
        let ours = self.now().incarnation;
        let text = if stated.version.incarnation < ours {
            format!(
                "the audit lost entries when the database was restored (incarnation {} is now {ours}); node {name} \
                 witnessed: {lost}. If nobody restored it, somebody rewrote it",
                stated.version.incarnation
            )
        } else {
            let proof = RolledBack {
                node,
                stated,
                statement: statement.clone(),
            };
            self.witnessing.rolled_back.send_if_modified(|known| {
                let first = known.is_none();
                known.get_or_insert(Arc::new(proof));
                first
            });
            format!("THE AUDIT WAS REWRITTEN OR ROLLED BACK: node {name} witnessed: {lost}")
        };
        self.alarm(stated.head.to_string(), text).await;
    }

    async fn heed_pair(&self, name: &NodeName, pair: &proto::v1::Contradiction) {
        let roots = self.witnessing.lock().roots.clone();
        let (Some(earlier), Some(later)) = (&pair.earlier, &pair.later) else {
            return;
        };
        let (Ok(earlier), Ok(later)) = (read(earlier, roots.as_ref()), read(later, roots.as_ref())) else {
            return tracing::warn!(node = %name, "reports a contradiction that this controller never signed");
        };
        // A restore explains itself; the head that it lost is compared on its own.
        if judge(&earlier, &later) == Judged::Rewritten {
            let text = format!(
                "THE AUDIT WAS REWRITTEN: node {name} holds two signed heads that cannot both be true, {} and {}",
                earlier.head, later.head
            );
            self.alarm(format!("{} {}", earlier.head, later.head), text).await;
        }
    }

    /// Says it once, everywhere.
    async fn alarm(&self, about: String, text: String) {
        {
            let mut inner = self.witnessing.lock();
            if inner.told.len() >= MOST_ALARMS || !inner.told.insert(about.clone()) {
                return;
            }
        }
        tracing::error!(%text, "AUDIT ALARM");
        self.witnessing
            .alarms
            .send_modify(|alarms| alarms.push(text.clone()));
        let draft = audit::Draft {
            at_ms: now_ms(),
            version: self.now(),
            person: None,
            role: None,
            action: "audit-witness".to_owned(),
            target: about,
            reason: String::new(),
            evidence: String::new(),
            outcome: audit::Outcome::Failed,
            detail: text,
            order: None,
        };
        let about = About::default();
        self.note(Note { draft, about }).await;
    }

    /// What is wrong with the audit; grows.
    pub(crate) fn alarms(&self) -> watch::Receiver<Vec<String>> {
        self.witnessing.alarms.subscribe()
    }

    /// A signed head of this life of the database (or a later one) that is not in our chain, once some node has
    /// shown it: this database was rolled back, and whoever restores must begin a new incarnation.
    pub fn rolled_back(&self) -> watch::Receiver<Option<Arc<RolledBack>>> {
        self.witnessing.rolled_back.subscribe()
    }

    /// What a node has kept.
    pub(crate) fn kept_by(&self, index: NodeIndex) -> Kept {
        let inner = self.witnessing.lock();
        inner.kept.get(index as usize).cloned().unwrap_or_default()
    }
}

impl Kept {
    /// What is wrong with it, for people; empty: nothing.
    pub(crate) fn trouble(&self) -> String {
        let mut trouble = match self.head.as_ref().map(|known| &known.verdict) {
            None | Some(Verdict::Ours) => Vec::new(),
            Some(Verdict::Missing(lost)) => {
                vec![format!(
                    "witnessed an audit that is not this controller's: {lost}"
                )]
            }
            Some(Verdict::Strange(why)) => {
                vec![format!(
                    "reports an audit head that this controller never signed: {why}"
                )]
            }
        };
        match self.pairs.len() {
            0 => {}
            count => trouble.push(format!(
                "holds {count} audit heads that contradict others: redbutton audit witness"
            )),
        }
        trouble.join("; ")
    }
}

/// What a statement says, if it is ours.
fn read(statement: &SignedStatement, roots: Option<&Roots>) -> Result<Stated, String> {
    let roots = roots.ok_or("no root is trusted")?;
    let body = trust::verify(statement, roots, Kind::AuditHead).map_err(|e| e.to_string())?;
    Stated::decode(body).map_err(|e| e.to_string())
}
