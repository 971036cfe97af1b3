//! The prepared threads that freeze, kill and thaw. A handful of them, so that a sliver stuck in D state for seconds
//! does not hold up the next press; when all are busy the freeze at least begins at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::v1;
use tokio::sync::oneshot;

use super::Node;
use super::core::{Batch, ByVerdict, Subtree};
use crate::cgroup::{Mount, PidsMax};
use crate::crash;
use crate::holds::Verdict;
use crate::kill::{self, Engine, Report};
use crate::prepare::{self, Step};

/// Kill threads.
const THREADS: usize = 4;
/// Jobs that may wait.
const WAITING: usize = 1_024;

type Job = Box<dyn FnOnce(&mut Engine) + Send>;

/// What became of one job.
#[derive(Debug)]
pub(super) struct Done {
    /// One for each subtree.
    pub(super) proofs: Vec<v1::SliverProof>,
    /// When the last process died, or the waiting ended.
    pub(super) at: Instant,
}

/// The threads.
#[derive(Debug)]
pub(super) struct Kills {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    idle: AtomicUsize,
    /// Milliseconds after `began` at which each thread took its job; 0: none.
    since: [AtomicU64; THREADS],
}

impl Kills {
    /// Makes the threads and everything they will need. Gives what preparing them brought.
    pub(super) fn start(mount: &Mount, proc_root: &Path) -> std::io::Result<(Self, Vec<Step>)> {
        let (jobs, queue) = sync_channel::<Job>(WAITING);
        let queue = Arc::new(Mutex::new(queue));
        let shared = Arc::new(Shared {
            began: Instant::now(),
            idle: AtomicUsize::new(THREADS),
            since: Default::default(),
        });
        let (tell, told) = std::sync::mpsc::channel();
        for number in 0..THREADS {
            let mut engine = Engine::new(proc_root)?;
            let (queue, shared, tell) = (queue.clone(), shared.clone(), tell.clone());
            let (mount, proc_root) = (mount.clone(), proc_root.to_owned());
            std::thread::Builder::new()
                .name(format!("kill-{number}"))
                .stack_size(crate::worker::STACK)
                .spawn(move || {
                    let _ = tell.send(prepare::kill_thread(&mount, &proc_root));
                    drop(tell);
                    while let Some(job) = next(&queue) {
                        shared.take(number);
                        // A bug in one job must not cost the node its kill thread.
                        if catch_unwind(AssertUnwindSafe(|| job(&mut engine))).is_err() {
                            tracing::error!("a kill job panicked");
                        }
                        shared.give_back(number);
                    }
                })?;
        }
        drop(tell);
        let steps = told.recv().unwrap_or_default();
        Ok((Self { jobs, shared }, steps))
    }

    /// Hands a job over; false when too many wait.
    fn submit(&self, job: Job) -> bool {
        self.jobs.try_send(job).is_ok()
    }

    /// For how long the oldest running job has been running.
    pub(super) fn longest_job(&self) -> Duration {
        let now = self.shared.now();
        let oldest = self
            .shared
            .since
            .iter()
            .map(|s| s.load(Ordering::Relaxed))
            .filter(|s| *s > 0)
            .min();
        Duration::from_millis(oldest.map_or(0, |since| now.saturating_sub(since)))
    }
}

fn next(queue: &Mutex<Receiver<Job>>) -> Option<Job> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    fn take(&self, number: usize) {
        self.idle.fetch_sub(1, Ordering::SeqCst);
        self.since[number].store(self.now(), Ordering::Relaxed);
    }

    fn give_back(&self, number: usize) {
        self.since[number].store(0, Ordering::Relaxed);
        self.idle.fetch_add(1, Ordering::SeqCst);
    }
}

impl Node {
    /// Kills; call it under the core's lock. `None`: too many jobs wait.
    pub(super) fn submit_kill(
        self: &Arc<Self>,
        subtrees: Vec<Arc<Subtree>>,
    ) -> Option<oneshot::Receiver<Done>> {
        self.freeze_early(&subtrees);
        let node = self.clone();
        self.submit(subtrees, move |engine, batch| {
            let handles: Vec<_> = batch.iter().map(|s| s.handle.clone()).collect();
            let mut press = engine.begin(&handles, &node.guard);
            crash::point("nodemgr.after-freeze");
            press.strike(&node.plan());
            press.wait();
            let at = Instant::now();
            crash::point("nodemgr.after-kill");
            let reports = press.finish();
            // A release may have come while this ran.
            for subtree in batch {
                let _ = node.settle(subtree);
            }
            Done {
                proofs: proofs(batch, reports),
                at,
            }
        })
    }

    /// Freezes; call it under the core's lock.
    pub(super) fn submit_freeze(
        self: &Arc<Self>,
        subtrees: Vec<Arc<Subtree>>,
    ) -> Option<oneshot::Receiver<Done>> {
        self.freeze_early(&subtrees);
        let node = self.clone();
        self.submit(subtrees, move |engine, batch| {
            let handles: Vec<_> = batch.iter().map(|s| s.handle.clone()).collect();
            let reports = engine.freeze(&handles, &node.guard, node.config.kill.freeze);
            crash::point("nodemgr.after-freeze");
            for subtree in batch {
                let _ = node.settle(subtree);
            }
            Done {
                proofs: proofs(batch, reports),
                at: Instant::now(),
            }
        })
    }

    /// Gives back what no hold covers any more; call it under the core's lock.
    pub(super) fn submit_thaw(
        self: &Arc<Self>,
        subtrees: Vec<Arc<Subtree>>,
    ) -> Option<oneshot::Receiver<Done>> {
        let node = self.clone();
        self.submit(subtrees, move |_, batch| {
            let proofs = batch.iter().map(|subtree| node.thaw_proof(subtree)).collect();
            Done {
                proofs,
                at: Instant::now(),
            }
        })
    }

    /// Makes each group so. Call it without the core's lock, or under it.
    pub(super) fn converge(self: &Arc<Self>, work: ByVerdict) -> Vec<oneshot::Receiver<Done>> {
        let ByVerdict { kill, freeze, thaw } = work;
        let mut jobs = Vec::new();
        if !kill.is_empty() {
            jobs.extend(self.submit_kill(kill));
        }
        if !freeze.is_empty() {
            jobs.extend(self.submit_freeze(freeze));
        }
        if !thaw.is_empty() {
            jobs.extend(self.submit_thaw(thaw));
        }
        jobs
    }

    fn submit(
        self: &Arc<Self>,
        subtrees: Vec<Arc<Subtree>>,
        work: impl FnOnce(&mut Engine, &[Arc<Subtree>]) -> Done + Send + 'static,
    ) -> Option<oneshot::Receiver<Done>> {
        let batch = Batch::new(subtrees);
        let (reply, done) = oneshot::channel();
        let node = Arc::downgrade(self);
        let job: Job = Box::new(move |engine| {
            let result = {
                let _turns: Vec<_> = batch.iter().map(|subtree| subtree.turn()).collect();
                work(engine, &batch)
            };
            drop(batch);
            // Nobody waiting is fine: the link may be gone, the work is done all the same.
            let _ = reply.send(result);
            if let Some(node) = node.upgrade() {
                node.touch();
            }
        });
        self.kills.submit(job).then_some(done)
    }

    /// With every thread busy the job waits; the slivers stand still meanwhile.
    fn freeze_early(&self, subtrees: &[Arc<Subtree>]) {
        if self.kills.shared.idle.load(Ordering::SeqCst) > 0 {
            return;
        }
        for subtree in subtrees {
            if self.guard.check_now(&subtree.handle).is_ok() {
                let _ = subtree.handle.set_frozen(true);
            }
        }
    }

    /// Makes one subtree as gentle as the holds now allow. Does nothing when they still want it dead. The caller has
    /// its turn.
    pub(super) fn settle(&self, subtree: &Subtree) -> Result<(), String> {
        let (verdict, before) = {
            let core = self.core();
            (core.state.holds.verdict(&subtree.slice), core.remembered(subtree))
        };
        let before = match before {
            Some(before) => before,
            None if subtree.own => subtree.handle.pids_max().ok().flatten(),
            None => return Ok(()),
        };
        // Where the limit before is not known (it was 0 already when we came), none is the only way to let it run.
        let limit = match before {
            Some(PidsMax::At(0)) => Some(PidsMax::Max),
            other => other,
        };
        let words = |error: crate::cgroup::SliverError| match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        match verdict {
            Verdict::Dead => Ok(()),
            Verdict::Frozen => match limit.map_or(Ok(()), |limit| subtree.handle.set_pids_max(limit)) {
                Err(error) if !error.is_gone() => Err(words(error)),
                _ => Ok(()),
            },
            Verdict::Run => {
                kill::thaw(&subtree.handle, limit).map_err(words)?;
                let mut core = self.core();
                // Another hold may have come between; its job waits for this turn and touches it again.
                if core.state.holds.verdict(&subtree.slice) == Verdict::Run {
                    core.forget(subtree);
                }
                Ok(())
            }
        }
    }

    fn thaw_proof(&self, subtree: &Subtree) -> v1::SliverProof {
        let (outcome, detail) = match self.settle(subtree) {
            Ok(()) => (v1::Outcome::Released, String::new()),
            Err(why) => (v1::Outcome::Failed, why),
        };
        v1::SliverProof {
            outcome: outcome.into(),
            detail,
            ..named(subtree)
        }
    }
}

fn named(subtree: &Subtree) -> v1::SliverProof {
    v1::SliverProof {
        slice: subtree.slice.to_string(),
        cgroup: subtree.handle.path().to_string_lossy().into_owned(),
        cgroup_id: subtree.handle.id(),
        manager: subtree.manager.to_owned(),
        respawns: subtree.respawns.load(Ordering::Relaxed),
        ..v1::SliverProof::default()
    }
}

fn proofs(batch: &[Arc<Subtree>], reports: Vec<Report>) -> Vec<v1::SliverProof> {
    batch
        .iter()
        .zip(reports)
        .map(|(subtree, report)| proof(subtree, report))
        .collect()
}

/// A report as the wire has it.
pub(super) fn proof(subtree: &Subtree, report: Report) -> v1::SliverProof {
    let Report {
        path: _,
        id: _,
        outcome,
        detail,
        killed,
        zombies,
        stuck,
        frozen,
        freeze_us,
        evidence_us,
        kill_us,
        evidence,
        pids_max_before: _,
    } = report;
    let slice = subtree.slice.to_string();
    let evidence = evidence.map(|taken| v1::Evidence {
        processes: taken
            .processes
            .into_iter()
            .map(|process| v1::Process {
                slice: slice.clone(),
                ..process.into()
            })
            .collect(),
        incomplete: taken.incomplete,
    });
    let outcome = v1::Outcome::from(outcome);
    v1::SliverProof {
        outcome: outcome.into(),
        detail,
        killed,
        zombies,
        stuck,
        freeze_us,
        frozen,
        evidence_us,
        kill_us,
        evidence,
        ..named(subtree)
    }
}
