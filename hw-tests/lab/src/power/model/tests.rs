//! The model against a naive oracle that recomputes everything from the list of commands.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const OUTLETS: u16 = 6;

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// a: outlet 1. b: outlet 2. c: outlets 3 and 4. d: in the wall. Outlets 5 and 6 are empty.
fn room() -> (Wiring, StripId, [MachineId; 4]) {
    let mut wiring = Wiring::with_reboot(secs(5));
    let strip = wiring.strip("pdu", OUTLETS);
    let at = |n| strip.outlet(n);
    let a = wiring.machine("a", &[at(1)], Restore::LastState).unwrap();
    let b = wiring.machine("b", &[at(2)], Restore::StayOff).unwrap();
    let c = wiring.machine("c", &[at(3), at(4)], Restore::AlwaysOn).unwrap();
    let d = wiring.machine("d", &[], Restore::AlwaysOn).unwrap();
    (wiring, strip, [a, b, c, d])
}

#[test]
fn a_swapped_outlet_switches_the_neighbour() {
    let (wiring, strip, [a, b, ..]) = room();
    let mut faults = Faults::default();
    faults.swap(strip.outlet(1), strip.outlet(2));
    let off = Input::Switch(strip.outlet(1), Switch::Off);
    let (state, changes) = advance(&wiring, &faults, &State::new(&wiring), off, secs(0));
    assert_eq!(changes, [Change::Cut(b)]);
    assert!(state.mains(a) && !state.mains(b));
    assert!(
        !state.shown(&faults, strip.outlet(1)),
        "the device shows its own relay"
    );
    // Putting the plugs back moves the cut to the other machine.
    faults.swap(strip.outlet(2), strip.outlet(1));
    assert_eq!(faults, Faults::default());
    let (_, changes) = advance(&wiring, &faults, &state, Input::Time, secs(0));
    assert_eq!(changes, [Change::Cut(a), Change::Back(b)]);
}

#[test]
fn two_outlets_feed_until_both_are_off() {
    let (wiring, strip, [_, _, c, _]) = room();
    let faults = Faults::default();
    let off = |n| Input::Switch(strip.outlet(n), Switch::Off);
    let (state, changes) = advance(&wiring, &faults, &State::new(&wiring), off(3), secs(0));
    assert_eq!(changes, []);
    let (state, changes) = advance(&wiring, &faults, &state, off(4), secs(0));
    assert_eq!(changes, [Change::Cut(c)]);
    assert!(!state.mains(c));
}

#[test]
fn a_stuck_relay_is_shown_as_moved() {
    let (wiring, strip, [a, ..]) = room();
    let mut faults = Faults::default();
    faults.at(Point::Outlet(strip.outlet(1))).stuck = true;
    let off = Input::Switch(strip.outlet(1), Switch::Off);
    let (state, changes) = advance(&wiring, &faults, &State::new(&wiring), off, secs(0));
    assert_eq!(changes, []);
    assert!(state.mains(a) && state.relay(strip.outlet(1)));
    assert!(!state.shown(&faults, strip.outlet(1)));
    faults.at(Point::Outlet(strip.outlet(1))).says = Some(true);
    assert!(state.shown(&faults, strip.outlet(1)));
}

#[test]
fn a_reboot_that_is_looked_at_late_is_still_a_cut_and_a_return() {
    let (wiring, strip, [a, ..]) = room();
    let mut faults = Faults::default();
    faults.at(Point::Outlet(strip.outlet(1))).slow = secs(2);
    let reboot = Input::Switch(strip.outlet(1), Switch::Reboot);
    let (state, changes) = advance(&wiring, &faults, &State::new(&wiring), reboot, secs(10));
    assert_eq!(changes, []);
    assert_eq!(next_due(&state), Some(secs(12)));
    let (state, changes) = advance(&wiring, &faults, &state, Input::Time, secs(60));
    assert_eq!(changes, [Change::Cut(a), Change::Back(a)]);
    assert_eq!(next_due(&state), None);
}

#[test]
fn a_plan_with_a_wrong_outlet_is_refused() {
    let (mut wiring, strip, _) = room();
    for (outlet, why) in [
        (strip.outlet(0), "no outlet"),
        (strip.outlet(7), "no outlet"),
        (strip.outlet(1), "taken"),
    ] {
        let error = wiring
            .machine("x", &[outlet], Restore::StayOff)
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(
        wiring
            .machine("x", &[strip.outlet(5), strip.outlet(5)], Restore::StayOff)
            .is_err()
    );
}

#[derive(Debug, Clone)]
enum Step {
    Switch(u16, Switch),
    Wait(u64),
    Swap(u16, u16),
    Stuck(u16, bool),
    Dead(u16, bool),
    Says(u16, Option<bool>),
    Slow(u16, u64),
    DoesNothing(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let outlet = || 1..=OUTLETS;
    let switch = prop_oneof![Just(Switch::On), Just(Switch::Off), Just(Switch::Reboot)];
    prop_oneof![
        4 => (outlet(), switch).prop_map(|(o, s)| Step::Switch(o, s)),
        2 => (0..8u64).prop_map(Step::Wait),
        1 => (outlet(), outlet()).prop_map(|(a, b)| Step::Swap(a, b)),
        1 => (outlet(), any::<bool>()).prop_map(|(o, v)| Step::Stuck(o, v)),
        1 => (outlet(), any::<bool>()).prop_map(|(o, v)| Step::Dead(o, v)),
        1 => (outlet(), any::<Option<bool>>()).prop_map(|(o, v)| Step::Says(o, v)),
        1 => (outlet(), 0..4u64).prop_map(|(o, s)| Step::Slow(o, s)),
        1 => any::<bool>().prop_map(Step::DoesNothing),
    ]
}

/// Second by second, with arrays: what a person with a pencil would do.
struct Oracle {
    relay: [bool; 7],
    shown: [bool; 7],
    todo: Vec<(u64, usize, bool)>,
    wired: [usize; 7],
    stuck: BTreeSet<usize>,
    dead: BTreeSet<usize>,
    says: [Option<bool>; 7],
    slow: [u64; 7],
    does_nothing: bool,
}

impl Oracle {
    fn second(&mut self, now: u64) {
        self.todo.sort_by_key(|(at, ..)| *at);
        let (due, rest) = self.todo.iter().partition(|(at, ..)| *at <= now);
        self.todo = rest;
        let due: Vec<(u64, usize, bool)> = due;
        for (_, outlet, on) in due {
            self.shown[outlet] = on;
            if !self.stuck.contains(&outlet) {
                self.relay[outlet] = on;
            }
        }
    }

    fn live(&self, plugs: &[usize]) -> bool {
        let live = |&plug: &usize| {
            let outlet = self.wired[plug];
            self.relay[outlet] && !self.dead.contains(&outlet)
        };
        plugs.is_empty() || plugs.iter().any(live)
    }

    fn unplug(&mut self, plug: usize) {
        let partner = self.wired[plug];
        self.wired[partner] = partner;
        self.wired[plug] = plug;
    }
}

proptest! {
    #[test]
    fn the_model_agrees_with_the_oracle(steps in proptest::collection::vec(step(), 0..40)) {
        let (wiring, strip, machines) = room();
        let plugs: [&[usize]; 4] = [&[1], &[2], &[3, 4], &[]];
        let mut faults = Faults::default();
        let mut state = State::new(&wiring);
        let mut oracle = Oracle {
            relay: [true; 7], shown: [true; 7], todo: Vec::new(), wired: [0, 1, 2, 3, 4, 5, 6],
            stuck: BTreeSet::new(), dead: BTreeSet::new(), says: [None; 7], slow: [0; 7], does_nothing: false,
        };
        let mut now = 0;
        let mut mains = [true; 4];
        for step in steps {
            let mut input = Input::Time;
            let point = |o| Point::Outlet(strip.outlet(o));
            match step {
                Step::Switch(o, switch) => {
                    input = Input::Switch(strip.outlet(o), switch);
                    let o = usize::from(o);
                    if !oracle.does_nothing {
                        oracle.todo.retain(|(_, outlet, _)| *outlet != o);
                        let at = now + oracle.slow[o];
                        oracle.todo.push((at, o, switch == Switch::On));
                        if switch == Switch::Reboot {
                            oracle.todo.push((at + 5, o, true));
                        }
                    }
                }
                Step::Wait(seconds) => {
                    for _ in 0..seconds {
                        now += 1;
                        oracle.second(now);
                    }
                }
                Step::Swap(a, b) => {
                    faults.swap(strip.outlet(a), strip.outlet(b));
                    let (a, b) = (usize::from(a), usize::from(b));
                    let again = a != b && oracle.wired[a] == b;
                    oracle.unplug(a);
                    oracle.unplug(b);
                    if !again {
                        oracle.wired.swap(a, b);
                    }
                }
                Step::Stuck(o, v) => {
                    faults.at(point(o)).stuck = v;
                    if v { oracle.stuck.insert(o.into()); } else { oracle.stuck.remove(&o.into()); }
                }
                Step::Dead(o, v) => {
                    faults.at(point(o)).dead = v;
                    if v { oracle.dead.insert(o.into()); } else { oracle.dead.remove(&o.into()); }
                }
                Step::Says(o, v) => {
                    faults.at(point(o)).says = v;
                    oracle.says[usize::from(o)] = v;
                }
                Step::Slow(o, s) => {
                    faults.at(point(o)).slow = secs(s);
                    oracle.slow[usize::from(o)] = s;
                }
                Step::DoesNothing(v) => {
                    faults.of(Device::Strip(strip)).does_nothing = v;
                    oracle.does_nothing = v;
                }
            }
            oracle.second(now);
            let (next, changes) = advance(&wiring, &faults, &state, input, secs(now));
            state = next;
            for change in changes {
                let (machine, live) = match change {
                    Change::Cut(machine) => (machine, false),
                    Change::Back(machine) => (machine, true),
                };
                prop_assert_ne!(mains[machine.index()], live, "told twice");
                mains[machine.index()] = live;
            }
            for outlet in wiring.outlets(strip) {
                let o = usize::from(outlet.number);
                prop_assert_eq!(state.relay(outlet), oracle.relay[o], "relay {}", o);
                prop_assert_eq!(state.shown(&faults, outlet), oracle.says[o].unwrap_or(oracle.shown[o]));
                prop_assert_eq!(state.is_moving(outlet), oracle.todo.iter().any(|(_, n, _)| *n == o));
            }
            for (i, machine) in machines.into_iter().enumerate() {
                prop_assert_eq!(state.mains(machine), oracle.live(plugs[i]), "mains of {}", i);
                prop_assert_eq!(mains[i], state.mains(machine), "the changes do not add up");
            }
        }
    }

    /// A machine that is only ever moved by `obey` is on when a person would expect it.
    #[test]
    fn a_machine_obeys_as_its_restore_policy_says(
        policy in prop_oneof![Just(Restore::StayOff), Just(Restore::LastState), Just(Restore::AlwaysOn)],
        jobs in proptest::collection::vec(0..7u8, 0..40),
    ) {
        let (mut memory, mut on) = (Memory::default(), true);
        let (mut mains, mut expected, mut before) = (true, true, true);
        for job in jobs {
            let job = match job {
                0 => { if mains { before = expected; } (mains, expected) = (false, false); Job::Cut }
                1 => {
                    expected |= !mains && match policy {
                        Restore::StayOff => false,
                        Restore::LastState => before,
                        Restore::AlwaysOn => true,
                    };
                    mains = true;
                    Job::Back
                }
                2 => { expected = mains; Job::Bmc(Deed::On) }
                3 => { expected = false; Job::Bmc(Deed::Off) }
                4 => { expected = false; Job::Bmc(Deed::SoftOff) }
                5 => Job::Bmc(Deed::Reset),
                _ => Job::Bmc(Deed::Nmi),
            };
            let (next, deed) = obey(policy, memory, job, on);
            memory = next;
            match deed {
                Some(Deed::On) => { prop_assert!(mains); on = true; }
                Some(Deed::Off | Deed::SoftOff) => on = false,
                Some(Deed::Reset | Deed::Nmi) => prop_assert!(on && mains, "nothing to reset"),
                None => {}
            }
            prop_assert_eq!(on, expected);
        }
    }
}
