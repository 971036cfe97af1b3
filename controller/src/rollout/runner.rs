//! The task that carries a rollout out, and the door to it.
//!
//! One lock orders everything about the newest rollout; it is held across writes to the database and never across a
//! call to a node. What a machine decided is done only after its rows are written. When they cannot be written, what
//! the disk has is read again, and nothing was done.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use proto::v1::{Manifest, SignedStatement};
use proto::{NodeId, PersonName};
use tokio::sync::{Mutex, MutexGuard, Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trust::Kind;
use uuid::Uuid;

use super::model::{Act, Item, Look, Phase, Steer, Told};
use super::plan::{Plan, assign};
use super::push::{self, Parcel, Throttle};
use super::shelf::Shelf;
use super::{Artifact, Machine};
use crate::error::Error;
use crate::fleet::{Fleet, now_ms};
use crate::store::{About, Note, RolloutRecord, SqliteStore, StoreError};

/// Between two looks at the fleet while a rollout stands.
const LOOK: Duration = Duration::from_millis(500);

/// What a rollout may take of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// For all nodes together.
    pub bytes_per_second: u64,
}

/// The newest rollout, in memory.
struct Standing {
    record: RolloutRecord,
    machine: Machine,
}

/// What a new rollout is made from.
pub(crate) struct Start {
    pub(crate) person: PersonName,
    pub(crate) key: String,
    pub(crate) reason: String,
    pub(crate) plan: Plan,
    pub(crate) sha256: Vec<String>,
}

/// Programs and rollouts.
pub(crate) struct Rollouts {
    fleet: Arc<Fleet>,
    store: Arc<SqliteStore>,
    pub(crate) shelf: Shelf,
    throttle: Throttle,
    newest: Mutex<Option<Standing>>,
    wake: Notify,
    changed: watch::Sender<u64>,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .filter_map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok())
        .collect()
}

impl Rollouts {
    /// Takes up what stands, until `shutdown`.
    pub(crate) async fn start(
        fleet: Arc<Fleet>,
        store: Arc<SqliteStore>,
        state: &Path,
        bounds: Bounds,
        shutdown: CancellationToken,
    ) -> Result<(Arc<Self>, JoinHandle<()>), StoreError> {
        let mut newest = match store.rollouts().await?.into_iter().next() {
            Some(record) => Some(read(&store, record).await?),
            None => None,
        };
        if let Some(standing) = &mut newest {
            after_restore(standing, fleet.now());
        }
        if let Some(Standing { record, machine }) = &newest
            && !machine.is_over()
        {
            tracing::info!(rollout = %record.id, version = record.version, phase = ?machine.phase(), "a rollout stands");
        }
        let rollouts = Arc::new(Self {
            fleet,
            store,
            shelf: Shelf::below(state),
            throttle: Throttle::new(bounds.bytes_per_second),
            newest: Mutex::new(newest),
            wake: Notify::new(),
            changed: watch::Sender::new(0),
        });
        let runner = rollouts.clone();
        let task = tokio::spawn(async move {
            let run = async {
                loop {
                    let idle = runner.look().await;
                    tokio::select! {
                        () = runner.wake.notified() => {}
                        () = tokio::time::sleep(LOOK), if !idle => {}
                    }
                }
            };
            shutdown.run_until_cancelled(run).await;
        });
        Ok((rollouts, task))
    }

    /// Rises with every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) const fn store(&self) -> &Arc<SqliteStore> {
        &self.store
    }

    pub(crate) const fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// One look: decides, writes, begins. True when nothing stands.
    async fn look(self: &Arc<Self>) -> bool {
        let mut newest = self.newest.lock().await;
        let Some(standing) = newest.as_mut().filter(|standing| !standing.machine.is_over()) else {
            return true;
        };
        let was = standing.record.head.phase;
        let acts = standing.machine.decide(&*self.fleet, now_ms());
        let phase = standing.machine.phase();
        let note = (phase != was).then(|| {
            let head = standing.machine.head();
            tracing::warn!(rollout = %standing.record.id, ?phase, why = head.why, "rollout");
            let outcome = match phase {
                Phase::Halted => audit::Outcome::Failed,
                _ => audit::Outcome::Allowed,
            };
            self.system_note(&standing.record, phase, outcome, &head.why)
        });
        if !self.write(standing, note).await {
            return false;
        }
        let id = standing.record.id;
        let parcels: Vec<(Act, Option<(SignedStatement, Artifact)>)> = acts
            .into_iter()
            .map(|act| {
                let parcel = match &act {
                    Act::Push { sha256, .. } => self.parcel(&standing.record, sha256),
                    Act::Return { .. } => None,
                };
                (act, parcel)
            })
            .collect();
        let deadline_ms = standing.machine.head().plan.deadline_ms;
        drop(newest);
        for (act, parcel) in parcels {
            let rollouts = self.clone();
            drop(tokio::spawn(async move {
                let (node, told) = rollouts.carry_out(act, parcel, deadline_ms).await;
                rollouts.told(id, node, told).await;
            }));
        }
        false
    }

    /// Writes what has changed. When the disk takes nothing, what it has is what stands.
    async fn write(&self, standing: &mut Standing, note: Option<Note>) -> bool {
        let (head, items) = standing.machine.take_changes();
        if !head && items.is_empty() {
            return true;
        }
        standing.record.head = standing.machine.head();
        let head = head.then_some((&standing.record.head, standing.record.decided));
        match self
            .store
            .save_rollout(standing.record.id, head, &items, note)
            .await
        {
            Ok(()) => {
                self.changed.send_modify(|n| *n = n.wrapping_add(1));
                true
            }
            Err(error) => {
                tracing::error!(%error, "what the rollout decided cannot be written, and is not done");
                let reread = async {
                    let records = self.store.rollouts().await?;
                    match records.into_iter().find(|record| record.id == standing.record.id) {
                        Some(record) => read(&self.store, record).await.map(Some),
                        None => Ok(None),
                    }
                };
                match reread.await {
                    Ok(Some(there)) => *standing = there,
                    Ok(None) | Err::<_, StoreError>(_) => standing.machine.put_back(true, &items),
                }
                false
            }
        }
    }

    fn parcel(&self, record: &RolloutRecord, sha256: &str) -> Option<(SignedStatement, Artifact)> {
        let artifact = record
            .artifacts
            .iter()
            .find(|artifact| artifact.sha256 == sha256)?
            .clone();
        let manifest = Manifest {
            name: artifact.name.clone(),
            version: artifact.version.clone(),
            sha256: unhex(&artifact.sha256),
            size: artifact.size,
            architecture: artifact.architecture.clone(),
            decided: Some(record.decided.into()),
        };
        let statement = self.fleet.signer().sign(Kind::Software, manifest.encode_to_vec());
        Some((statement, artifact))
    }

    async fn carry_out(
        &self,
        act: Act,
        parcel: Option<(SignedStatement, Artifact)>,
        deadline_ms: u64,
    ) -> (NodeId, Told) {
        let away = || Told::Broken("it is away".into());
        match (act, parcel) {
            (Act::Push { node, .. }, Some((manifest, artifact))) => {
                let Some(link) = self.fleet.link_of(node) else {
                    return (node, away());
                };
                let path = self.shelf.path(&artifact.sha256);
                let parcel = Parcel {
                    manifest,
                    sha256: unhex(&artifact.sha256),
                    size: artifact.size,
                    path: &path,
                    deadline_ms,
                };
                let told = Box::pin(push::push(link, parcel, &self.throttle)).await;
                tracing::info!(%node, version = artifact.version, ?told, "pushed");
                (node, told)
            }
            (Act::Push { node, .. }, None) => (node, Told::Refused("the program is not on the shelf".into())),
            (Act::Return { node, sha256, why }, _) => {
                let Some(link) = self.fleet.link_of(node) else {
                    return (node, away());
                };
                let told = push::send_back(link, unhex(&sha256), why).await;
                tracing::info!(%node, ?told, "sent back");
                (node, told)
            }
        }
    }

    async fn told(&self, id: Uuid, node: NodeId, told: Told) {
        let mut newest = self.newest.lock().await;
        if let Some(standing) = newest.as_mut().filter(|standing| standing.record.id == id) {
            standing.machine.told(node, told, now_ms());
            // What the disk does not take now is judged anew from what the node says.
            self.write(standing, None).await;
        }
        drop(newest);
        self.wake.notify_one();
    }

    /// Starts a rollout. The same key again is the same rollout.
    pub(crate) async fn begin(&self, start: Start, note: Note) -> Result<Uuid, Error> {
        let Start {
            person,
            key,
            reason,
            plan,
            sha256,
        } = start;
        plan.check()
            .map_err(|error| Error::Malformed(error.to_string()))?;
        self.fleet.refresh().await?;
        let mut newest = self.newest.lock().await;
        let known = self.store.rollouts().await?;
        if let Some(known) = known
            .iter()
            .find(|known| known.person == person && known.key == key)
        {
            return Ok(known.id);
        }
        self.may_begin(&newest)?;
        let artifacts = self.artifacts(&sha256).await?;
        let programs: BTreeMap<String, String> = artifacts
            .iter()
            .map(|artifact| (artifact.architecture.clone(), artifact.sha256.clone()))
            .collect();
        let version = artifacts[0].version.clone();
        let id = Uuid::new_v4();
        let now = now_ms();
        let items = assign(&self.fleet.everybody(), &plan, id.as_u64_pair().0);
        if items.is_empty() {
            return Err(Error::Precondition("no node is enrolled".into()));
        }
        let mut machine = Machine::new(plan, programs, items, now);
        let record = RolloutRecord {
            id,
            key,
            person,
            reason,
            version,
            started_at_ms: now,
            decided: self.fleet.now(),
            artifacts,
            head: machine.head(),
        };
        let (_, items) = machine.take_changes();
        self.store.start_rollout(&record, &items, note).await?;
        *newest = Some(Standing { record, machine });
        drop(newest);
        self.stir();
        Ok(id)
    }

    /// Whether such a rollout could begin: the plan, and the programs; gives their version.
    pub(crate) async fn check(&self, sha256: &[String], plan: &Plan) -> Result<String, Error> {
        plan.check()
            .map_err(|error| Error::Malformed(error.to_string()))?;
        let artifacts = self.artifacts(sha256).await?;
        self.may_begin(&*self.newest.lock().await)?;
        Ok(artifacts[0].version.clone())
    }

    /// One rollout stands at a time; one that only waits for nodes that are away gives way.
    fn may_begin(&self, newest: &Option<Standing>) -> Result<(), Error> {
        match newest {
            Some(Standing { record, machine }) if !machine.is_over() && !machine.only_waits(&*self.fleet) => {
                Err(Error::Precondition(format!(
                    "rollout {} of version {} stands: abort it first",
                    record.id, record.version
                )))
            }
            _ => Ok(()),
        }
    }

    fn stir(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
        self.wake.notify_one();
    }

    async fn artifacts(&self, sha256: &[String]) -> Result<Vec<Artifact>, Error> {
        let shelf = self.store.software().await?;
        let find = |wanted: &String| {
            let found = shelf.iter().find(|artifact| artifact.sha256 == *wanted);
            found.cloned().ok_or_else(|| {
                Error::NotFound(format!(
                    "no program with SHA-256 {wanted:.64} is on the shelf: upload it first"
                ))
            })
        };
        let artifacts: Vec<Artifact> = sha256.iter().map(find).collect::<Result<_, _>>()?;
        let Some(first) = artifacts.first() else {
            return Err(Error::Malformed("a rollout needs a program".into()));
        };
        if artifacts
            .iter()
            .any(|other| (&other.name, &other.version) != (&first.name, &first.version))
        {
            return Err(Error::Malformed(
                "the programs are not all of one name and version".into(),
            ));
        }
        let machines: std::collections::BTreeSet<&str> =
            artifacts.iter().map(|artifact| &*artifact.architecture).collect();
        if machines.len() != artifacts.len() {
            return Err(Error::Malformed(
                "two programs are for the same architecture".into(),
            ));
        }
        Ok(artifacts)
    }

    /// Steers the newest rollout.
    pub(crate) async fn steer(&self, id: Uuid, wanted: Steer, reason: &str, note: Note) -> Result<(), Error> {
        let mut newest = self.newest.lock().await;
        let standing = self.only_newest(&mut newest, id)?;
        if matches!(wanted, Steer::Resume | Steer::Back) {
            // A decision anew: nodes refuse manifests that are older than one they have obeyed.
            standing.record.decided = self.fleet.now();
        }
        standing
            .machine
            .steer(wanted, reason, now_ms())
            .map_err(|error| Error::Precondition(error.to_string()))?;
        if !self.write(standing, Some(note)).await {
            return Err(Error::NotDurable(
                "the controller's disk takes nothing; try again".into(),
            ));
        }
        drop(newest);
        self.wake.notify_one();
        Ok(())
    }

    fn only_newest<'a>(
        &self,
        newest: &'a mut MutexGuard<'_, Option<Standing>>,
        id: Uuid,
    ) -> Result<&'a mut Standing, Error> {
        newest
            .as_mut()
            .filter(|standing| standing.record.id == id)
            .ok_or_else(|| {
                Error::Precondition(format!(
                    "rollout {id} is not the newest: only that one can be steered"
                ))
            })
    }

    /// A rollout as it stands, with its nodes; `None`: the newest.
    pub(crate) async fn get(&self, id: Option<Uuid>) -> Result<(RolloutRecord, Vec<Item>, bool), Error> {
        let newest = self.newest.lock().await;
        if let Some(Standing { record, machine }) = &*newest
            && id.is_none_or(|id| id == record.id)
        {
            let record = RolloutRecord {
                head: machine.head(),
                ..record.clone()
            };
            return Ok((record, machine.items().cloned().collect(), machine.is_over()));
        }
        drop(newest);
        let Some(id) = id else {
            return Err(Error::NotFound("there was no rollout yet".into()));
        };
        let records = self.store.rollouts().await?;
        let Some(record) = records.into_iter().find(|record| record.id == id) else {
            return Err(Error::NotFound(format!("rollout {id} does not exist")));
        };
        let items = self.store.rollout_items(id).await?;
        // One that is not the newest: whatever it waited for, another took its place.
        Ok((record, items, true))
    }

    /// Whether a node is attached, for tables.
    pub(crate) fn attached(&self, node: NodeId) -> bool {
        Look::attached(&*self.fleet, node)
    }

    fn system_note(&self, record: &RolloutRecord, phase: Phase, outcome: audit::Outcome, why: &str) -> Note {
        Note {
            draft: audit::Draft {
                at_ms: now_ms(),
                version: self.fleet.now(),
                person: None,
                role: None,
                action: authz::Action::RollOut.as_str().into(),
                target: format!("rollout {}", record.id),
                reason: String::new(),
                evidence: String::new(),
                outcome,
                detail: format!("version {}: {phase:?} {why}", record.version)
                    .trim()
                    .to_owned(),
                order: None,
            },
            about: About::default(),
        }
    }
}

/// A database that was restored may speak of a rollout that went on, or was ended, after the backup: nothing of it
/// begins before a person has looked.
fn after_restore(standing: &mut Standing, now: proto::Version) {
    let Standing { record, machine } = standing;
    if record.decided.incarnation >= now.incarnation {
        return;
    }
    let wanted = match machine.phase() {
        Phase::Running => Steer::Pause,
        Phase::Returning => Steer::Abort,
        _ => return,
    };
    let why = "the controller's database was restored: compare with `node ls`, then resume or take it back";
    if let Err(error) = machine.steer(wanted, why, now_ms()) {
        tracing::error!(%error, "a rollout of a restored database goes on");
    }
}

async fn read(store: &SqliteStore, record: RolloutRecord) -> Result<Standing, StoreError> {
    let items = store.rollout_items(record.id).await?;
    let machine = Machine::load(record.head.clone(), items);
    Ok(Standing { record, machine })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::Version;

    #[test]
    fn after_a_restore_nothing_begins_by_itself() {
        let site: proto::SiteName = "princeton".parse().expect("a name");
        let items = assign(&[(NodeId::random(), site)], &Plan::default(), 1);
        let programs = BTreeMap::from([(String::new(), "ab".repeat(32))]);
        let machine = Machine::new(Plan::default(), programs, items, 0);
        let at = |incarnation| Version {
            incarnation,
            epoch: 5,
        };
        let record = RolloutRecord {
            id: Uuid::new_v4(),
            key: "k".into(),
            person: "alice".parse().expect("a name"),
            reason: "r".into(),
            version: "0.2.0".into(),
            started_at_ms: 0,
            decided: at(1),
            artifacts: Vec::new(),
            head: machine.head(),
        };
        let mut standing = Standing { record, machine };
        after_restore(&mut standing, at(1));
        assert_eq!(standing.machine.phase(), Phase::Running, "the same life");
        after_restore(&mut standing, at(1_795_320_000));
        assert_eq!(standing.machine.phase(), Phase::Paused);
        assert!(standing.machine.head().why.contains("restored"));
        standing.machine.steer(Steer::Resume, "", 0).expect("paused");
        standing.machine.steer(Steer::Back, "", 0).expect("running");
        after_restore(&mut standing, at(1_795_320_000));
        assert_eq!(standing.machine.phase(), Phase::Aborted);
    }
}
