//! Holds × (incarnation, epoch) × partitions × restores × direct acts, explored to the end.
//!
//! A small model of what DESIGN.md and ADRs 0010, 0014 and 0018 promise, with every interleaving of its steps: a
//! controller with a database, one backup of it, two nodes that come and go, people at the centre and people at a
//! node. After every step everything that can be asked at once is checked; and from every state the network heals and
//! whoever remembers something says so, after which the two promises of the issue must hold:
//!
//! - a killed sliver never runs while a hold by someone entitled stands;
//! - a release by someone entitled eventually frees it.
//!
//! “Stands” and “eventually” are meant as far as anybody who is still there remembers: a hold that only a database
//! knew which has been overwritten by its backup is gone, and nothing could bring it back.
//!
//! Each rule that the promises rest on can be broken ([`Broken`]), and then the model must find the harm: a check
//! that cannot fail would be worth nothing.

use std::collections::{HashSet, VecDeque};

const NODES: usize = 2;
/// Holds that the centre may set, on every node.
const HOLDS: usize = 2;
/// Then one that a person at node 0 may set, there alone.
const LOCAL: usize = HOLDS;
const ALL: usize = HOLDS + 1;
const MAX_RESTORES: u8 = 2;

/// What is done wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// A sync drops what the controller does not name, and what the node brought was lost on the way. (Import alone
    /// covers up for it: the two protect each other.)
    SyncDropsUnknown,
    /// A restore keeps the incarnation.
    SameIncarnation,
    /// A node forgets what it saw released.
    NoTombstones,
    /// A returning controller imposes again what was released at the node, and the node lets it.
    SyncUndoesLocal,
    /// What nodes bring is not taken over.
    NoImport,
    /// What one node says counts everywhere, signed or not.
    TrustsNodes,
}

/// Clock of decisions: incarnation, epoch.
type Version = (u8, u8);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Known {
    Never,
    Stands,
    Released,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Database {
    now: Version,
    holds: [Known; ALL],
    /// Released at a node by somebody there, for that node alone.
    exempt: [[bool; NODES]; ALL],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Node {
    attached: bool,
    seen: Version,
    holds: [bool; ALL],
    /// Signed releases of the centre.
    signed: [bool; ALL],
    /// Releases by somebody here.
    local: [bool; ALL],
}

/// What people have done: the truth that nobody in the model may look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Truth {
    pressed: [bool; ALL],
    released: [bool; ALL],
    /// At that node, by somebody entitled there.
    released_at: [[bool; NODES]; ALL],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    database: Database,
    backup: Option<Database>,
    restores: u8,
    nodes: [Node; NODES],
    truth: Truth,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Press(usize),
    Release(usize),
    Detach(usize),
    Attach(usize),
    Backup,
    Restore,
    KillAt(usize),
    ReleaseAt(usize, usize),
}

fn reaches(hold: usize, node: usize) -> bool {
    hold != LOCAL || node == 0
}

impl World {
    fn new() -> Self {
        let node = Node {
            attached: true,
            seen: (1, 0),
            holds: [false; ALL],
            signed: [false; ALL],
            local: [false; ALL],
        };
        Self {
            database: Database {
                now: (1, 0),
                holds: [Known::Never; ALL],
                exempt: [[false; NODES]; ALL],
            },
            backup: None,
            restores: 0,
            nodes: [node.clone(), node],
            truth: Truth {
                pressed: [false; ALL],
                released: [false; ALL],
                released_at: [[false; NODES]; ALL],
            },
        }
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for hold in 0..HOLDS {
            match self.database.holds[hold] {
                // The same id is never used again, also not by a database that has forgotten it.
                Known::Never if !self.truth.pressed[hold] => steps.push(Step::Press(hold)),
                Known::Stands => steps.push(Step::Release(hold)),
                _ => {}
            }
        }
        if self.database.holds[LOCAL] == Known::Stands {
            steps.push(Step::Release(LOCAL));
        }
        for (at, node) in self.nodes.iter().enumerate() {
            steps.push(if node.attached {
                Step::Detach(at)
            } else {
                Step::Attach(at)
            });
            for hold in (0..ALL).filter(|hold| node.holds[*hold]) {
                steps.push(Step::ReleaseAt(at, hold));
            }
        }
        if !self.truth.pressed[LOCAL] {
            steps.push(Step::KillAt(0));
        }
        if self.backup.is_none() {
            steps.push(Step::Backup);
        } else if self.restores < MAX_RESTORES {
            steps.push(Step::Restore);
        }
        steps
    }

    fn take(&mut self, step: Step, broken: Broken) {
        match step {
            Step::Press(hold) => {
                self.tick();
                self.database.holds[hold] = Known::Stands;
                self.truth.pressed[hold] = true;
                let now = self.database.now;
                for node in self.nodes.iter_mut().filter(|node| node.attached) {
                    node.impose(hold, now);
                }
            }
            Step::Release(hold) => {
                self.tick();
                self.database.holds[hold] = Known::Released;
                self.truth.released[hold] = true;
                let now = self.database.now;
                for node in self.nodes.iter_mut().filter(|node| node.attached) {
                    node.release(hold, now, broken);
                }
            }
            Step::Detach(at) => self.nodes[at].attached = false,
            Step::Attach(at) => self.attach(at, broken),
            Step::Backup => self.backup = Some(self.database.clone()),
            Step::Restore => {
                let now = self.database.now;
                if let Some(backup) = &self.backup {
                    self.database = backup.clone();
                }
                if broken != Broken::SameIncarnation {
                    // As the clock and the mark give it: above everything that ever was.
                    self.database.now.0 = now.0 + 1;
                }
                self.restores += 1;
                for node in &mut self.nodes {
                    node.attached = false;
                }
            }
            Step::KillAt(at) => {
                self.nodes[at].holds[LOCAL] = true;
                self.truth.pressed[LOCAL] = true;
            }
            Step::ReleaseAt(at, hold) => {
                let node = &mut self.nodes[at];
                node.holds[hold] = false;
                node.local[hold] = broken != Broken::NoTombstones;
                self.truth.released_at[hold][at] = true;
            }
        }
    }

    fn tick(&mut self) {
        self.database.now.1 += 1;
    }

    /// Report, merge, sync: what the controller does with a node that dials in.
    fn attach(&mut self, at: usize, broken: Broken) {
        let node = self.nodes[at].clone();
        self.nodes[at].attached = true;
        if !matches!(broken, Broken::NoImport | Broken::SyncDropsUnknown) {
            for hold in (0..ALL).filter(|hold| node.holds[*hold]) {
                if self.database.holds[hold] != Known::Never {
                    continue;
                }
                // Signed by us: whole, wherever it came from. Not signed: for that node alone, which LOCAL is.
                self.database.holds[hold] = Known::Stands;
                if broken == Broken::TrustsNodes && hold == LOCAL {
                    for other in &mut self.nodes {
                        other.holds[LOCAL] = true;
                    }
                }
                self.spread(hold, at);
            }
            for hold in 0..ALL {
                if node.signed[hold] && self.database.holds[hold] != Known::Released {
                    self.database.holds[hold] = Known::Released;
                    let now = self.database.now;
                    for other in self.nodes.iter_mut().filter(|other| other.attached) {
                        other.release(hold, now, broken);
                    }
                }
                if node.local[hold] {
                    self.database.exempt[hold][at] = true;
                }
            }
        }
        let database = self.database.clone();
        self.nodes[at].sync(&database, at, broken);
    }

    /// An imported hold goes to everybody else whom it reaches.
    fn spread(&mut self, hold: usize, from: usize) {
        let now = self.database.now;
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if at != from && node.attached && reaches(hold, at) {
                node.impose(hold, now);
            }
        }
    }

    /// The network heals, and everybody says what they know: twice, since the first may learn from the second.
    fn healed(&self, broken: Broken) -> Self {
        let mut world = self.clone();
        for _ in 0..2 {
            for at in 0..NODES {
                world.attach(at, broken);
            }
        }
        world
    }

    /// What holds at every moment.
    fn check_now(&self) -> Result<(), String> {
        for (at, node) in self.nodes.iter().enumerate() {
            for hold in (0..ALL).filter(|hold| node.holds[*hold]) {
                if !self.truth.pressed[hold] {
                    return Err(format!("node {at} holds {hold}, which nobody has set"));
                }
                if !reaches(hold, at) {
                    return Err(format!(
                        "node {at} holds {hold}, which was set for another node alone"
                    ));
                }
            }
        }
        Ok(())
    }

    /// What holds once it has healed. `before`: the same world before it.
    fn check_healed(&self, before: &Self) -> Result<(), String> {
        for hold in 0..ALL {
            let entitled_release = self.truth.released[hold];
            let remembered = before.database.holds[hold] == Known::Stands
                || before.nodes.iter().any(|node| node.holds[hold]);
            let release_remembered = before.database.holds[hold] == Known::Released
                || before.nodes.iter().any(|node| node.signed[hold]);
            for at in (0..NODES).filter(|at| reaches(hold, *at)) {
                let here = self.truth.released_at[hold][at];
                let holds = self.nodes[at].holds[hold];
                if remembered && !entitled_release && !here && !holds {
                    return Err(format!("hold {hold} stands, and node {at} runs the sliver"));
                }
                if (release_remembered || here) && holds {
                    return Err(format!(
                        "hold {hold} was released, and node {at} keeps the sliver dead"
                    ));
                }
            }
        }
        Ok(())
    }

    /// A press after it all still reaches everybody.
    fn check_button(&self, broken: Broken) -> Result<(), String> {
        let Some(hold) = (0..HOLDS).find(|hold| !self.truth.pressed[*hold]) else {
            return Ok(());
        };
        let mut world = self.clone();
        world.take(Step::Press(hold), broken);
        match world.nodes.iter().position(|node| !node.holds[hold]) {
            Some(at) => Err(format!("the button does not work on node {at}")),
            None => Ok(()),
        }
    }
}

impl Node {
    /// Refuses what is older than it has seen.
    fn witness(&mut self, now: Version) -> bool {
        let fresh = now >= self.seen;
        self.seen = self.seen.max(now);
        fresh
    }

    fn impose(&mut self, hold: usize, now: Version) {
        if self.witness(now) && !self.signed[hold] && !self.local[hold] {
            self.holds[hold] = true;
        }
    }

    fn release(&mut self, hold: usize, now: Version, broken: Broken) {
        if self.witness(now) {
            self.holds[hold] = false;
            self.signed[hold] = broken != Broken::NoTombstones;
        }
    }

    fn sync(&mut self, database: &Database, at: usize, broken: Broken) {
        if !self.witness(database.now) {
            return;
        }
        for hold in 0..ALL {
            match database.holds[hold] {
                Known::Stands if !reaches(hold, at) => {}
                Known::Stands if database.exempt[hold][at] && broken != Broken::SyncUndoesLocal => {}
                Known::Stands => {
                    let undone = self.local[hold] && broken != Broken::SyncUndoesLocal;
                    if !self.signed[hold] && !undone {
                        self.holds[hold] = true;
                    }
                }
                Known::Released if self.holds[hold] => {
                    self.holds[hold] = false;
                    self.signed[hold] = broken != Broken::NoTombstones;
                }
                Known::Released => {}
                Known::Never if broken == Broken::SyncDropsUnknown => self.holds[hold] = false,
                Known::Never => {}
            }
        }
    }
}

/// Explores every state that `depth` steps lead to; returns how many there are, or the shortest way to harm.
fn explore(broken: Broken, depth: usize) -> Result<usize, String> {
    let mut known = HashSet::new();
    let mut queue = VecDeque::from([(World::new(), Vec::<Step>::new())]);
    known.insert(World::new());
    while let Some((world, way)) = queue.pop_front() {
        let healed = world.healed(broken);
        let told = world
            .check_now()
            .and_then(|()| healed.check_now())
            .and_then(|()| healed.check_healed(&world))
            .and_then(|()| healed.check_button(broken));
        told.map_err(|harm| format!("{harm}: after {way:?}"))?;
        if way.len() == depth {
            continue;
        }
        for step in world.steps() {
            let mut next = world.clone();
            next.take(step, broken);
            if known.insert(next.clone()) {
                let mut way = way.clone();
                way.push(step);
                queue.push_back((next, way));
            }
        }
    }
    Ok(known.len())
}

#[test]
fn nothing_is_forgotten_and_everything_can_be_freed() {
    let states = explore(Broken::Nothing, 9).expect("the design holds");
    println!("{states} states");
    assert!(states > 10_000, "only {states} states: the model does not move");
}

#[test]
fn each_rule_is_needed() {
    for broken in [
        Broken::SyncDropsUnknown,
        Broken::SameIncarnation,
        Broken::NoTombstones,
        Broken::SyncUndoesLocal,
        Broken::NoImport,
        Broken::TrustsNodes,
    ] {
        let harm = explore(broken, 7).expect_err("the model found no harm in it");
        println!("{broken:?}: {harm}");
    }
}
