//! What to do next: pure. `now` and what is known of nodes are arguments; the same inputs give the same acts.
//!
//! ```text
//!           its turn, attached           Activate answered       attached with it, well     well for `soak`
//!  Waiting ───────────────────▶ Sending ──────────────▶ Restarting ─────────────▶ Settling ─────────▶ Done
//!     ▲  │ nothing to do          │ │ refused              │ late, went back        │ not well, went back
//!     │  └─▶ Skipped    link broke│ └──────────▶ Bad ◀─────┴────────────────────────┘
//!     └───────────────────────────┘               └─▶ sent back if it still runs it
//!
//!  back: Restarting, Settling, Done, Bad ─▶ Returning ─▶ Returned
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proto::{NodeId, SiteName};

use super::model::{Act, Before, Head, Item, Look, Phase, Seen, Steer, SteerError, Step, Told};
use super::plan::Plan;

/// After the node's own deadline, so that it can come back and say why.
const GRACE_MS: i64 = 30_000;
/// Broken links and short visits of one node that are put up with.
const TRIES: u8 = 3;
/// Programs that are on their way at once.
const SENDING: usize = 8;

/// A rollout.
#[derive(Debug, Clone)]
pub struct Machine {
    plan: Plan,
    phase: Phase,
    why: String,
    wave: usize,
    wave_since_ms: i64,
    /// By architecture; an empty one is for any.
    programs: BTreeMap<String, String>,
    items: BTreeMap<NodeId, Item>,
    sites: HashMap<SiteName, usize>,
    /// Acts whose end has not been told, of this process.
    acting: BTreeSet<NodeId>,
    /// Rows that have changed since they were taken.
    dirty: BTreeSet<NodeId>,
    head_dirty: bool,
}

impl Machine {
    /// A new one.
    #[must_use]
    pub fn new(plan: Plan, programs: BTreeMap<String, String>, items: Vec<Item>, now: i64) -> Self {
        let head = Head {
            plan,
            phase: Phase::Running,
            why: String::new(),
            wave: 0,
            wave_since_ms: now,
            programs,
        };
        let mut machine = Self::load(head, items);
        machine.head_dirty = true;
        machine.dirty = machine.items.keys().copied().collect();
        machine
    }

    /// As the rows have it: what was under way when the controller died is taken up again.
    #[must_use]
    pub fn load(head: Head, items: Vec<Item>) -> Self {
        let Head {
            plan,
            phase,
            why,
            wave,
            wave_since_ms,
            programs,
        } = head;
        let mut sites = HashMap::new();
        for item in &items {
            *sites.entry(item.site.clone()).or_default() += 1;
        }
        let resumed = |mut item: Item| {
            match item.step {
                Step::Sending if phase == Phase::Returning => item.step = Step::Returning(false),
                Step::Sending => item.step = Step::Unsure,
                Step::Returning(true) => item.step = Step::Returning(false),
                _ => {}
            }
            (item.node, item)
        };
        Self {
            plan,
            phase,
            why,
            wave,
            wave_since_ms,
            programs,
            items: items.into_iter().map(resumed).collect(),
            sites,
            acting: BTreeSet::new(),
            dirty: BTreeSet::new(),
            head_dirty: false,
        }
    }

    /// The row of the whole.
    #[must_use]
    pub fn head(&self) -> Head {
        Head {
            plan: self.plan.clone(),
            phase: self.phase,
            why: self.why.clone(),
            wave: self.wave,
            wave_since_ms: self.wave_since_ms,
            programs: self.programs.clone(),
        }
    }

    /// Every node.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values()
    }

    /// Where it stands.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// What must be on the disk before anything is done: whether the whole's row, and which nodes'.
    #[must_use]
    pub fn take_changes(&mut self) -> (bool, Vec<Item>) {
        let rows = std::mem::take(&mut self.dirty);
        let rows = rows
            .iter()
            .filter_map(|node| self.items.get(node).cloned())
            .collect();
        (std::mem::take(&mut self.head_dirty), rows)
    }

    /// Those changes did not reach the disk.
    pub fn put_back(&mut self, head: bool, rows: &[Item]) {
        self.head_dirty |= head;
        self.dirty.extend(rows.iter().map(|item| item.node));
    }

    /// Nothing more comes of it unless a person acts.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self.phase {
            Phase::Done | Phase::Returned => true,
            Phase::Aborted => !self.items.values().any(Item::moves) && self.acting.is_empty(),
            Phase::Running | Phase::Paused | Phase::Halted | Phase::Returning => false,
        }
    }

    /// All that it waits for are nodes that are away: another rollout may take its place.
    #[must_use]
    pub fn only_waits(&self, look: &dyn Look) -> bool {
        self.phase == Phase::Running
            && self
                .items
                .values()
                .all(|item| item.is_over() || (item.step == Step::Waiting && !look.attached(item.node)))
    }

    fn set(&mut self, node: NodeId, step: Step, now: i64) {
        if let Some(item) = self.items.get_mut(&node) {
            item.step = step;
            item.at_ms = now;
            self.dirty.insert(node);
        }
    }

    fn change_phase(&mut self, phase: Phase, why: String) {
        self.phase = phase;
        self.why = why;
        self.head_dirty = true;
    }

    /// A person steers.
    ///
    /// # Errors
    /// When it is past that.
    pub fn steer(&mut self, wanted: Steer, why: &str, now: i64) -> Result<(), SteerError> {
        use Phase::{Aborted, Done, Halted, Paused, Returned, Returning, Running};
        match (wanted, self.phase) {
            (Steer::Pause, Running) => self.change_phase(Paused, why.to_owned()),
            (Steer::Resume, Paused | Halted) => {
                for item in self.items.values_mut() {
                    if matches!(item.step, Step::Bad(_)) && !item.noted {
                        item.noted = true;
                        self.dirty.insert(item.node);
                    }
                }
                self.change_phase(Running, String::new());
            }
            (Steer::Abort, Running | Paused | Halted | Returning) => {
                self.change_phase(Aborted, why.to_owned())
            }
            (Steer::Back, Running | Paused | Halted | Aborted | Done) => {
                let touched: Vec<NodeId> = self
                    .items
                    .values()
                    .filter(|item| match item.step {
                        Step::Unsure | Step::Restarting | Step::Settling | Step::Done | Step::Bad(_) => true,
                        // Its link broke once: perhaps later than it seemed.
                        Step::Waiting => item.before.is_some(),
                        _ => false,
                    })
                    .map(|item| item.node)
                    .collect();
                for node in touched {
                    self.set(node, Step::Returning(false), now);
                }
                self.change_phase(Returning, why.to_owned());
            }
            (_, phase) => return Err(SteerError { phase, wanted }),
        }
        debug_assert!(self.phase != Returned);
        Ok(())
    }

    /// Everything that is to be done now. The changes that it makes must be on the disk before the acts are begun.
    pub fn decide(&mut self, look: &dyn Look, now: i64) -> Vec<Act> {
        let mut acts = Vec::new();
        match self.phase {
            Phase::Done | Phase::Returned => return acts,
            Phase::Returning => {
                self.bring_back(look, now, &mut acts);
                return acts;
            }
            Phase::Running | Phase::Paused | Phase::Halted | Phase::Aborted => {}
        }
        self.judge_all(look, now);
        if self.phase != Phase::Aborted {
            self.send_bad_ones_back(look, &mut acts);
        }
        self.halt_if_bad();
        if self.phase == Phase::Running {
            self.begin(look, now, &mut acts);
            self.next_wave(look, now);
        }
        acts
    }

    fn judge_all(&mut self, look: &dyn Look, now: i64) {
        let moving: Vec<NodeId> = self
            .items
            .values()
            .filter(|item| matches!(item.step, Step::Unsure | Step::Restarting | Step::Settling))
            .map(|item| item.node)
            .collect();
        for node in moving {
            let Some(item) = self.items.get(&node) else {
                continue;
            };
            let step = self.judged(item, look.seen(node), now);
            if let Some(step) = step {
                let short_visit = item.step == Step::Settling && step == Step::Restarting;
                if let Some(item) = self.items.get_mut(&node) {
                    item.tries += u8::from(short_visit);
                }
                self.set(node, step, now);
            }
        }
    }

    /// Where a node goes from Restarting or Settling; `None`: it stays.
    fn judged(&self, item: &Item, seen: Option<Seen>, now: i64) -> Option<Step> {
        let before = item.before.clone().unwrap_or_default();
        let since = now.saturating_sub(item.at_ms);
        let settling = item.step == Step::Settling;
        let Some(seen) = seen else {
            if settling {
                return Some(match item.tries {
                    TRIES.. => Step::Bad("it comes and goes since it has the new version".into()),
                    _ => Step::Restarting,
                });
            }
            return self.late(since).then(|| {
                let deadline = self.plan.deadline_ms / 1_000;
                Step::Bad(format!(
                    "it did not attach again within {deadline} s of the switch"
                ))
            });
        };
        if self.targets(&seen.sha256) {
            return match (health(&before, &seen), settling) {
                (Err(why), _) => Some(Step::Bad(why)),
                (Ok(()), false) => Some(Step::Settling),
                (Ok(()), true) => {
                    let soaked = u64::try_from(since).is_ok_and(|since| since >= self.plan.soak_ms);
                    soaked.then_some(Step::Done)
                }
            };
        }
        let (left, why) = &seen.left;
        let unsure = item.step == Step::Unsure;
        let known = if unsure { before.attempt } else { item.attempt };
        if self.targets(left) && seen.attempt > known {
            return Some(Step::Bad(format!("it went back by itself: {why}")));
        }
        if unsure {
            return Some(Step::Waiting);
        }
        if settling {
            return Some(Step::Bad("it runs another version again".into()));
        }
        self.late(since)
            .then(|| Step::Bad("it is attached and did not switch".into()))
    }

    fn late(&self, since: i64) -> bool {
        since > i64::try_from(self.plan.deadline_ms).unwrap_or(i64::MAX - GRACE_MS) + GRACE_MS
    }

    fn targets(&self, sha256: &str) -> bool {
        !sha256.is_empty() && self.programs.values().any(|program| program == sha256)
    }

    fn send_bad_ones_back(&mut self, look: &dyn Look, acts: &mut Vec<Act>) {
        let bad = self.items.values().filter_map(|item| match &item.step {
            Step::Bad(why) if !item.sent_back && !item.noted && item.before.is_some() => {
                Some((item.node, why.clone()))
            }
            _ => None,
        });
        let bad: Vec<(NodeId, String)> = bad.collect();
        for (node, why) in bad {
            if self.acting.contains(&node) {
                continue;
            }
            let Some(seen) = look.seen(node).filter(|seen| self.targets(&seen.sha256)) else {
                continue;
            };
            self.acting.insert(node);
            acts.push(Act::Return {
                node,
                sha256: seen.sha256,
                why,
            });
        }
    }

    fn halt_if_bad(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        let bad = self.items.values().filter_map(|item| match &item.step {
            Step::Bad(why) if !item.noted => Some((item, why)),
            _ => None,
        });
        let bad: Vec<_> = bad.collect();
        if bad.len() <= self.plan.tolerate as usize {
            return;
        }
        let Some((item, why)) = bad.iter().max_by_key(|(item, _)| item.at_ms) else {
            return;
        };
        let why = format!("node {}: {why}", item.node);
        self.change_phase(Phase::Halted, why);
    }

    /// How many nodes of each site are in motion, or bad and away.
    fn busy(&self, look: &dyn Look) -> HashMap<SiteName, usize> {
        let mut busy = HashMap::new();
        for item in self.items.values() {
            let lost = || matches!(item.step, Step::Bad(_)) && !item.noted && !look.attached(item.node);
            if item.moves() || item.step == Step::Returning(true) || lost() {
                *busy.entry(item.site.clone()).or_default() += 1;
            }
        }
        busy
    }

    /// Takes a place of its site, if there is one: half of a site may be in motion, and one node at least.
    fn take_room(&self, item: &Item, busy: &mut HashMap<SiteName, usize>) -> bool {
        let size = self.sites.get(&item.site).copied().unwrap_or(1);
        let taken = busy.entry(item.site.clone()).or_default();
        let free = *taken < (size / 2).max(1);
        *taken += usize::from(free);
        free
    }

    fn begin(&mut self, look: &dyn Look, now: i64, acts: &mut Vec<Act>) {
        let mut sending = self
            .items
            .values()
            .filter(|item| item.step == Step::Sending)
            .count();
        let waited = u64::try_from(now.saturating_sub(self.wave_since_ms)).unwrap_or(0);
        let due: Vec<NodeId> = self
            .items
            .values()
            .filter(|item| {
                item.step == Step::Waiting && self.is_due(item, waited) && look.attached(item.node)
            })
            .map(|item| item.node)
            .collect();
        let mut busy = self.busy(look);
        for node in due {
            let Some(item) = self.items.get(&node) else {
                continue;
            };
            if sending >= SENDING {
                return;
            }
            if self.acting.contains(&node) {
                continue;
            }
            let Some(seen) = look.seen(node) else { continue };
            match self.first_step(item, &seen) {
                Ok(sha256) => {
                    if !self.take_room(item, &mut busy) {
                        continue;
                    }
                    if let Some(item) = self.items.get_mut(&node)
                        && item.before.is_none()
                    {
                        item.before = Some(Before {
                            sha256: seen.sha256,
                            attempt: seen.attempt,
                            locked: !seen.locked.is_empty(),
                            holds: seen.holds,
                            running: seen.running,
                        });
                    }
                    self.set(node, Step::Sending, now);
                    self.acting.insert(node);
                    sending += 1;
                    acts.push(Act::Push { node, sha256 });
                }
                Err(step) => self.set(node, step, now),
            }
        }
    }

    fn is_due(&self, item: &Item, waited: u64) -> bool {
        item.wave < self.wave || (item.wave == self.wave && waited >= item.offset_ms)
    }

    /// The program for a node whose turn has come, or where it goes without one.
    fn first_step(&self, item: &Item, seen: &Seen) -> Result<String, Step> {
        let skip = |why: &str| Err(Step::Skipped(why.to_owned()));
        if !seen.able {
            return skip("its version cannot be changed over the link: install a package there");
        }
        if self.targets(&seen.sha256) {
            // It has switched while the controller was dead, or had it all the time.
            return match &item.before {
                Some(_) => Err(Step::Settling),
                None => skip("it runs this version already"),
            };
        }
        if !seen.refused.is_empty() {
            return skip(&seen.refused);
        }
        let (left, why) = &seen.left;
        if item
            .before
            .as_ref()
            .is_some_and(|before| seen.attempt > before.attempt)
            && self.targets(left)
        {
            return Err(Step::Bad(format!("it went back by itself: {why}")));
        }
        let program = self
            .programs
            .get(&seen.architecture)
            .or_else(|| self.programs.get(""));
        match program {
            Some(program) => Ok(program.clone()),
            None => skip(&format!("no program for {} was given", seen.architecture)),
        }
    }

    /// The wave is through when each of its nodes is, or is away.
    fn next_wave(&mut self, look: &dyn Look, now: i64) {
        let waited = u64::try_from(now.saturating_sub(self.wave_since_ms)).unwrap_or(0);
        let through = self
            .items
            .values()
            .filter(|item| item.wave <= self.wave)
            .all(|item| {
                let away =
                    || item.step == Step::Waiting && self.is_due(item, waited) && !look.attached(item.node);
                item.is_over() || away()
            });
        if !through {
            return;
        }
        if self.wave + 1 < self.plan.waves.len() {
            self.wave += 1;
            self.wave_since_ms = now;
            self.head_dirty = true;
        } else if self.items.values().all(Item::is_over) {
            self.change_phase(Phase::Done, String::new());
        }
    }

    fn bring_back(&mut self, look: &dyn Look, now: i64, acts: &mut Vec<Act>) {
        let going: Vec<NodeId> = self
            .items
            .values()
            .filter(|item| matches!(item.step, Step::Returning(_)))
            .map(|item| item.node)
            .collect();
        let mut busy = self.busy(look);
        for node in going {
            let Some(item) = self.items.get(&node) else {
                continue;
            };
            let told = item.step == Step::Returning(true);
            match look.seen(node) {
                Some(seen) if !self.targets(&seen.sha256) => self.set(node, Step::Returned, now),
                Some(seen) if !self.acting.contains(&node) => {
                    // Told, and still here with it after a while: it is told again.
                    let again = self.late(now.saturating_sub(item.at_ms));
                    if (told && again) || (!told && self.take_room(item, &mut busy)) {
                        self.set(node, Step::Returning(true), now);
                        self.acting.insert(node);
                        acts.push(Act::Return {
                            node,
                            sha256: seen.sha256,
                            why: format!("the rollout is taken back: {}", self.why),
                        });
                    }
                }
                Some(_) => {}
                None if told && self.late(now.saturating_sub(item.at_ms)) => {
                    self.set(
                        node,
                        Step::Bad("it did not attach again after it was sent back".into()),
                        now,
                    );
                }
                None => {}
            }
        }
        let busy = |item: &Item| item.moves() || matches!(item.step, Step::Returning(_));
        if !self.items.values().any(busy) {
            let why = std::mem::take(&mut self.why);
            self.change_phase(Phase::Returned, why);
        }
    }

    /// What came of an act.
    pub fn told(&mut self, node: NodeId, told: Told, now: i64) {
        self.acting.remove(&node);
        let back = self.phase == Phase::Returning;
        let Some(item) = self.items.get_mut(&node) else {
            return;
        };
        self.dirty.insert(node);
        let sending = item.step == Step::Sending;
        let step = match told {
            Told::GoesBack => {
                item.sent_back = true;
                return;
            }
            Told::Switches(attempt) if sending => {
                item.attempt = attempt;
                if back {
                    Step::Returning(false)
                } else {
                    Step::Restarting
                }
            }
            Told::Unsure if sending && back => Step::Returning(false),
            Told::Unsure if sending => Step::Unsure,
            Told::Broken(_) if sending && item.tries < TRIES => {
                item.tries += 1;
                Step::Waiting
            }
            Told::Broken(why) if sending => Step::Bad(format!("it could not be brought there: {why}")),
            Told::Refused(why) if sending => Step::Bad(why),
            // A return that failed: tried again at the next look.
            Told::Broken(_) | Told::Unsure | Told::Refused(_) | Told::Switches(_) => {
                if item.step == Step::Returning(true) {
                    item.step = Step::Returning(false);
                }
                return;
            }
        };
        self.set(node, step, now);
    }
}

/// A rollout kills nobody and forgets nothing.
fn health(before: &Before, seen: &Seen) -> Result<(), String> {
    if !seen.locked.is_empty() && !before.locked {
        return Err(format!("nothing may start there any more: {}", seen.locked));
    }
    let forgotten = before
        .holds
        .iter()
        .find(|hold| seen.standing.contains(hold) && !seen.holds.contains(hold));
    if let Some(hold) = forgotten {
        return Err(format!("it has forgotten hold {hold}"));
    }
    let Some(held) = &seen.held else {
        return Ok(());
    };
    match before
        .running
        .iter()
        .find(|slice| !seen.running.contains(*slice) && !held.contains(*slice))
    {
        Some(slice) => Err(format!("slice {slice} ran there before and does not any more")),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
