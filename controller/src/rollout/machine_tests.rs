//! A fleet on paper: thousands of nodes that take the new version well, badly, late or not at all, links that break,
//! and a controller that dies between any two steps. After each step the promises are checked.

use std::cell::RefCell;

use proptest::prelude::*;
use proto::{HoldId, SliceName};
use uuid::Uuid;

use super::super::plan::{PlanError, assign};
use super::*;

const NEW: &str = "new";
const ARCH: &str = "x86_64";

/// What the new version does on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Good,
    /// Dies at once: the node's launcher goes back.
    Dies,
    /// Does not attach: the node's guard goes back after the deadline.
    Silent,
    /// Attaches and says that nothing may start.
    Locks,
    Forgets,
    KillsSliver,
    /// The node refuses the program.
    Refuses,
    /// Goes away with it and never comes back: what no guard can mend.
    Bricked,
}

#[derive(Debug, Clone)]
struct Node {
    nature: Nature,
    attached: bool,
    running_new: bool,
    attempt: u64,
    left: Option<String>,
    /// It attaches again then.
    returns_ms: Option<i64>,
    /// And then with the old version.
    falls_back: bool,
}

#[derive(Default)]
struct World {
    nodes: RefCell<BTreeMap<NodeId, Node>>,
}

fn hold() -> HoldId {
    HoldId::from_uuid(Uuid::from_u128(7))
}

fn slice() -> SliceName {
    "princeton_codeen".parse().expect("a name")
}

impl Look for World {
    fn attached(&self, node: NodeId) -> bool {
        self.nodes.borrow()[&node].attached
    }

    fn seen(&self, node: NodeId) -> Option<Seen> {
        let nodes = self.nodes.borrow();
        let node = &nodes[&node];
        let spoiled = |nature| node.running_new && node.nature == nature;
        node.attached.then(|| Seen {
            able: true,
            sha256: if node.running_new {
                NEW.into()
            } else {
                String::new()
            },
            architecture: ARCH.into(),
            attempt: node.attempt,
            left: node
                .left
                .clone()
                .map_or_else(Default::default, |why| (NEW.into(), why)),
            refused: String::new(),
            locked: if spoiled(Nature::Locks) {
                "torn".into()
            } else {
                String::new()
            },
            holds: (!spoiled(Nature::Forgets)).then(hold).into_iter().collect(),
            running: (!spoiled(Nature::KillsSliver)).then(slice).into_iter().collect(),
            standing: BTreeSet::from([hold()]),
            held: Some(BTreeSet::new()),
        })
    }
}

impl World {
    /// `site` of each node is its number modulo `sites`.
    fn new(natures: &[Nature], away: &[bool]) -> Self {
        let nodes = natures.iter().enumerate().map(|(n, nature)| {
            let node = Node {
                nature: *nature,
                attached: !away.get(n).copied().unwrap_or(false),
                running_new: false,
                attempt: 0,
                left: None,
                returns_ms: None,
                falls_back: false,
            };
            (id(n), node)
        });
        Self {
            nodes: RefCell::new(nodes.collect()),
        }
    }

    fn pass_time(&self, now: i64) {
        for node in self.nodes.borrow_mut().values_mut() {
            if node.returns_ms.is_some_and(|at| at <= now) {
                node.returns_ms = None;
                node.attached = true;
                if std::mem::take(&mut node.falls_back) {
                    node.running_new = false;
                    node.attempt += 1;
                    node.left = Some("it did not stay".into());
                }
            }
        }
    }

    fn carry_out(&self, act: &Act, deadline_ms: u64, now: i64) -> (NodeId, Told) {
        let deadline = i64::try_from(deadline_ms).expect("small");
        match act {
            Act::Push { node, sha256 } => {
                assert_eq!(sha256, NEW);
                let mut nodes = self.nodes.borrow_mut();
                let there = nodes.get_mut(node).expect("a node");
                if !there.attached {
                    return (*node, Told::Broken("away".into()));
                }
                if there.nature == Nature::Refuses {
                    return (*node, Told::Refused("no room".into()));
                }
                if there.running_new {
                    return (*node, Told::Switches(there.attempt));
                }
                there.attempt += 1;
                there.left = None;
                there.running_new = true;
                there.attached = false;
                there.returns_ms = match there.nature {
                    Nature::Bricked => None,
                    Nature::Silent => Some(now + deadline + 2_000),
                    _ => Some(now + 1_500),
                };
                there.falls_back = matches!(there.nature, Nature::Dies | Nature::Silent);
                (*node, Told::Switches(there.attempt))
            }
            Act::Return { node, .. } => {
                let mut nodes = self.nodes.borrow_mut();
                let there = nodes.get_mut(node).expect("a node");
                if there.running_new && there.attached {
                    there.attempt += 1;
                    there.left = Some("sent back".into());
                    there.running_new = false;
                    there.attached = false;
                    there.returns_ms = Some(now + 1_000);
                }
                (*node, Told::GoesBack)
            }
        }
    }
}

fn id(n: usize) -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(n as u128 + 1))
}

fn site(n: usize, sites: usize) -> SiteName {
    format!("site{}", n % sites).parse().expect("a name")
}

fn plan(waves: &[u32]) -> Plan {
    Plan {
        waves: waves.to_vec(),
        spread_ms: 20_000,
        soak_ms: 5_000,
        deadline_ms: 10_000,
        tolerate: 0,
    }
}

fn machine(nodes: usize, sites: usize, plan: &Plan, seed: u64) -> Machine {
    plan.check().expect("a plan");
    let members: Vec<_> = (0..nodes).map(|n| (id(n), site(n, sites))).collect();
    let items = assign(&members, plan, seed);
    let programs = BTreeMap::from([(ARCH.to_owned(), NEW.to_owned())]);
    Machine::new(plan.clone(), programs, items, 0)
}

/// The rows, as a crash would leave them, through their text.
#[derive(Default)]
struct Rows {
    head: String,
    items: BTreeMap<NodeId, String>,
}

impl Rows {
    fn write(&mut self, machine: &mut Machine) {
        let (head, items) = machine.take_changes();
        if head {
            self.head = serde_json::to_string(&machine.head()).expect("JSON");
        }
        for item in items {
            self.items
                .insert(item.node, serde_json::to_string(&item).expect("JSON"));
        }
    }

    fn load(&self) -> Machine {
        let items = self
            .items
            .values()
            .map(|text| serde_json::from_str(text).expect("own text"));
        Machine::load(
            serde_json::from_str(&self.head).expect("own text"),
            items.collect(),
        )
    }
}

/// One run: the promises are checked at every step.
struct Run {
    machine: Machine,
    rows: Rows,
    world: World,
    now: i64,
    sizes: HashMap<SiteName, usize>,
    bad_seen: usize,
}

impl Run {
    fn new(machine: Machine, world: World) -> Self {
        let sizes = machine.sites.clone();
        let mut run = Self {
            machine,
            rows: Rows::default(),
            world,
            now: 0,
            sizes,
            bad_seen: 0,
        };
        run.rows.write(&mut run.machine);
        run
    }

    /// `lot` decides what goes wrong in this step.
    fn step(&mut self, lot: u64) {
        self.now += 500;
        self.world.pass_time(self.now);
        let was = self.machine.phase();
        let acts = self.machine.decide(&self.world, self.now);
        self.rows.write(&mut self.machine);
        self.check(&acts, was);
        for (n, act) in acts.iter().enumerate() {
            match (lot >> (4 * (n % 12))) % 32 {
                // The controller dies before it begins, or after it is done and before it is told.
                0 => return self.crash(),
                1 => {
                    self.world.carry_out(act, self.machine.plan.deadline_ms, self.now);
                    return self.crash();
                }
                // The link breaks before, or in the midst of it.
                2 => {
                    let (Act::Push { node, .. } | Act::Return { node, .. }) = act;
                    self.machine.told(*node, Told::Broken("cut".into()), self.now);
                }
                3 => {
                    let (node, _) = self.world.carry_out(act, self.machine.plan.deadline_ms, self.now);
                    self.machine.told(node, Told::Unsure, self.now);
                }
                _ => {
                    let (node, told) = self.world.carry_out(act, self.machine.plan.deadline_ms, self.now);
                    self.machine.told(node, told, self.now);
                }
            }
        }
        self.rows.write(&mut self.machine);
    }

    fn crash(&mut self) {
        self.machine = self.rows.load();
    }

    fn moving(&self) -> usize {
        self.machine.items().filter(|item| item.moves()).count()
    }

    fn check(&mut self, acts: &[Act], was: Phase) {
        let plan = &self.machine.plan;
        let touched = self.machine.items().filter(|item| item.before.is_some()).count();
        let share = plan.share(self.machine.wave, self.machine.items.len());
        assert!(
            touched <= share,
            "{touched} touched, wave {} has {share}",
            self.machine.wave
        );
        let mut busy: HashMap<&SiteName, usize> = HashMap::new();
        for item in self.machine.items().filter(|item| item.moves()) {
            *busy.entry(&item.site).or_default() += 1;
        }
        for (site, busy) in busy {
            let size = self.sizes[site];
            assert!(
                size == 1 || busy < size,
                "all {size} nodes of {site} are in motion"
            );
        }
        let pushes = acts.iter().filter(|act| matches!(act, Act::Push { .. })).count();
        if was != Phase::Running
            || self.machine.phase() != Phase::Running && self.machine.phase() != Phase::Done
        {
            assert_eq!(pushes, 0, "{was:?} and yet something begins");
        }
        let bad = self
            .machine
            .items()
            .filter(|item| matches!(item.step, Step::Bad(_)) && !item.noted)
            .count();
        if bad > plan.tolerate as usize && was == Phase::Running {
            assert_eq!(
                self.machine.phase(),
                Phase::Halted,
                "{bad} bad nodes and it goes on"
            );
        }
        // No more can become bad than were in motion when the first did.
        if bad > 0 && self.bad_seen == 0 {
            self.bad_seen = bad + self.moving();
        }
        if plan.tolerate == 0 && self.bad_seen > 0 && self.machine.phase() == Phase::Halted {
            assert!(
                bad <= self.bad_seen,
                "{bad} bad, {} were in motion",
                self.bad_seen
            );
        }
    }

    /// Steps until it is over, halted, or nothing but away nodes are left.
    fn rest(&mut self, lots: &mut impl FnMut() -> u64) {
        for _ in 0..200_000 {
            let halted = self.machine.phase() == Phase::Halted && self.moving() == 0;
            if self.machine.is_over()
                || halted
                || self.machine.only_waits(&self.world) && self.last_wave_begun()
            {
                return;
            }
            self.step(lots());
        }
        let left: BTreeMap<String, usize> = self.machine.items().fold(BTreeMap::new(), |mut left, item| {
            *left.entry(format!("{:?}", item.step)).or_default() += 1;
            left
        });
        panic!(
            "it never comes to an end: {:?} wave {} {left:?}",
            self.machine.phase(),
            self.machine.wave
        );
    }

    fn last_wave_begun(&self) -> bool {
        let waited = u64::try_from(self.now - self.machine.wave_since_ms).expect("forward");
        self.machine.wave + 1 == self.machine.plan.waves.len() && waited > self.machine.plan.spread_ms
    }

    fn steps(&self, wanted: &Step) -> usize {
        self.machine.items().filter(|item| item.step == *wanted).count()
    }
}

fn lots(mut seed: u64, trouble: bool) -> impl FnMut() -> u64 {
    move || {
        seed = seed
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        // Without trouble every four bits are 15.
        if trouble { seed ^ (seed >> 33) } else { u64::MAX }
    }
}

#[test]
fn a_good_version_reaches_four_thousand_nodes_in_waves() {
    let plan = plan(&[1, 10, 50, 100]);
    let mut run = Run::new(
        machine(4_000, 300, &plan, 1),
        World::new(&[Nature::Good; 4_000], &[]),
    );
    run.rest(&mut lots(1, false));
    assert_eq!(run.machine.phase(), Phase::Done);
    assert_eq!(run.steps(&Step::Done), 4_000);
    assert!(
        run.world
            .nodes
            .borrow()
            .values()
            .all(|node| node.running_new && node.attempt == 1)
    );
}

#[test]
fn a_version_that_is_bad_everywhere_stops_in_the_first_wave_and_nobody_keeps_it() {
    for nature in [
        Nature::Dies,
        Nature::Silent,
        Nature::Locks,
        Nature::Forgets,
        Nature::KillsSliver,
        Nature::Refuses,
    ] {
        let plan = plan(&[1, 10, 50, 100]);
        let mut run = Run::new(machine(1_000, 80, &plan, 2), World::new(&[nature; 1_000], &[]));
        run.rest(&mut lots(2, false));
        assert_eq!(
            (run.machine.phase(), run.machine.wave),
            (Phase::Halted, 0),
            "{nature:?}"
        );
        for _ in 0..200 {
            run.step(u64::MAX);
        }
        let nodes = run.world.nodes.borrow();
        assert!(
            nodes.values().all(|node| !node.running_new && node.attached),
            "{nature:?}: somebody still runs it"
        );
        let why = run.machine.head().why;
        let says = match nature {
            Nature::Dies | Nature::Silent => "went back by itself: it did not stay",
            Nature::Locks => "nothing may start there any more: torn",
            Nature::Forgets => "has forgotten hold",
            Nature::KillsSliver => "princeton_codeen ran there before",
            _ => "no room",
        };
        assert!(why.contains(says), "{nature:?}: {why}");
    }
}

#[test]
fn a_person_goes_on_after_a_halt_and_takes_everything_back() {
    let mut natures = vec![Nature::Good; 200];
    for bad in [3, 50, 120] {
        natures[bad] = Nature::Dies;
    }
    let plan = plan(&[10, 100]);
    let mut run = Run::new(machine(200, 40, &plan, 3), World::new(&natures, &[]));
    let mut halts = 0;
    loop {
        run.rest(&mut lots(3, false));
        run.bad_seen = 0;
        if run.machine.phase() == Phase::Done {
            break;
        }
        halts += 1;
        run.machine.steer(Steer::Resume, "seen", run.now).expect("halted");
    }
    assert!((1..=3).contains(&halts), "{halts}");
    assert_eq!(run.steps(&Step::Done), 197);
    run.machine.steer(Steer::Back, "it leaks", run.now).expect("done");
    run.rest(&mut lots(3, false));
    assert_eq!(run.machine.phase(), Phase::Returned);
    assert!(run.world.nodes.borrow().values().all(|node| !node.running_new));
    assert!(run.machine.steer(Steer::Resume, "", run.now).is_err());
}

#[test]
fn a_node_that_is_away_gets_it_when_it_returns() {
    let plan = plan(&[10, 100]);
    let away: Vec<bool> = (0..50).map(|n| n % 5 == 0).collect();
    let mut run = Run::new(machine(50, 10, &plan, 4), World::new(&[Nature::Good; 50], &away));
    run.rest(&mut lots(4, false));
    assert_eq!(
        (run.machine.phase(), run.steps(&Step::Waiting)),
        (Phase::Running, 10)
    );
    for node in run.world.nodes.borrow_mut().values_mut() {
        node.attached = true;
    }
    run.rest(&mut lots(4, false));
    assert_eq!((run.machine.phase(), run.steps(&Step::Done)), (Phase::Done, 50));
}

#[test]
fn pause_begins_nothing_and_abort_ends_it() {
    let plan = plan(&[50, 100]);
    let mut run = Run::new(machine(20, 10, &plan, 5), World::new(&[Nature::Good; 20], &[]));
    while run.moving() == 0 {
        run.step(u64::MAX);
    }
    run.machine
        .steer(Steer::Pause, "lunch", run.now)
        .expect("running");
    for _ in 0..200 {
        run.step(u64::MAX);
    }
    let done = run.steps(&Step::Done);
    assert!(run.moving() == 0 && done > 0 && done < 10, "{done}");
    run.machine
        .steer(Steer::Abort, "enough", run.now)
        .expect("paused");
    assert!(run.machine.is_over());
    assert!(run.machine.steer(Steer::Pause, "", run.now).is_err());
    run.machine
        .steer(Steer::Back, "after all", run.now)
        .expect("aborted ones can be taken back");
    run.rest(&mut lots(5, false));
    assert!(run.world.nodes.borrow().values().all(|node| !node.running_new));
}

#[test]
fn a_site_keeps_a_node_of_the_old_kind_as_long_as_it_can() {
    let plan = plan(&[50, 100]);
    let members: Vec<_> = (0..100).map(|n| (id(n), site(n, 50))).collect();
    let items = assign(&members, &plan, 9);
    let mut first: HashMap<SiteName, usize> = HashMap::new();
    for item in items.iter().filter(|item| item.wave == 0) {
        *first.entry(item.site.clone()).or_default() += 1;
    }
    assert!(first.len() == 50 && first.values().all(|count| *count == 1));
    assert_eq!(items, assign(&members, &plan, 9), "the same seed, the same lots");
    assert_ne!(items, assign(&members, &plan, 10));
    assert!(items.iter().all(|item| item.offset_ms < plan.spread_ms));
}

#[test]
fn plans_that_are_none_are_refused() {
    for waves in [
        &[][..],
        &[0, 100],
        &[50],
        &[50, 50, 100],
        &[50, 10, 100],
        &[1, 101],
    ] {
        let wrong = Plan {
            waves: waves.to_vec(),
            ..Plan::default()
        };
        assert!(matches!(wrong.check(), Err(PlanError::Waves(_))), "{waves:?}");
    }
    let wrong = Plan {
        deadline_ms: 0,
        ..Plan::default()
    };
    assert!(wrong.check().is_err() && Plan::default().check().is_ok());
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        20 => Just(Nature::Good),
        1 => Just(Nature::Dies),
        1 => Just(Nature::Silent),
        1 => Just(Nature::Locks),
        1 => Just(Nature::Forgets),
        1 => Just(Nature::KillsSliver),
        1 => Just(Nature::Refuses),
        1 => Just(Nature::Bricked),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever nodes do, whenever links break and the controller dies: the promises hold, it comes to rest, it can be
    /// gone on with, and taken back.
    #[test]
    fn the_promises_hold(
        natures in proptest::collection::vec(nature(), 2..160),
        away in proptest::collection::vec(any::<bool>(), 0..40),
        sites in 1usize..30,
        seed in any::<u64>(),
        tolerate in 0u32..3,
        trouble in any::<bool>(),
    ) {
        let mut plan = plan(&[5, 30, 100]);
        plan.tolerate = tolerate;
        let mut run = Run::new(machine(natures.len(), sites, &plan, seed), World::new(&natures, &away));
        let mut lots = lots(seed, trouble);
        for _ in 0..natures.len() + 1 {
            run.rest(&mut lots);
            run.bad_seen = 0;
            if run.machine.phase() != Phase::Halted {
                break;
            }
            run.machine.steer(Steer::Resume, "seen", run.now).expect("halted");
        }
        prop_assert!(matches!(run.machine.phase(), Phase::Done | Phase::Running), "{:?}", run.machine.phase());
        for item in run.machine.items() {
            let node = &run.world.nodes.borrow()[&item.node];
            match &item.step {
                Step::Done => prop_assert!(node.running_new && node.nature == Nature::Good),
                Step::Waiting => prop_assert!(!node.attached),
                Step::Bad(why) => prop_assert!(
                    node.nature != Nature::Good || trouble, "{why}"
                ),
                other => prop_assert!(false, "{other:?} at rest"),
            }
        }
        run.machine.steer(Steer::Back, "test", run.now).expect("at rest");
        for _ in 0..4_000 {
            run.step(lots());
        }
        for node in run.world.nodes.borrow().values() {
            prop_assert!(!node.running_new || node.nature == Nature::Bricked, "{node:?} still runs it");
        }
    }
}
