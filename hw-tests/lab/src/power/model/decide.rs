//! The two decisions: what a command does to relays and mains, and what a machine then does.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Device, Faults, MachineId, Outlet, Point, Restore, Wiring};

/// What a device is told to do with an outlet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
    /// Off, and on again after the wiring's reboot time; an outlet that was off is on afterwards.
    Reboot,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A command to an outlet. It replaces what the outlet was still to do.
    Switch(Outlet, Switch),
    /// Nothing, but time went by or the faults changed.
    Time,
}

/// What happened to a machine's mains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Its last supply went.
    Cut(MachineId),
    /// A supply is back.
    Back(MachineId),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct OutletState {
    relay: bool,
    shown: bool,
    /// Moves to come, earliest first.
    coming: Vec<(Duration, bool)>,
}

/// Where every relay is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    outlets: BTreeMap<Outlet, OutletState>,
    mains: Vec<bool>,
}

impl State {
    /// Everything is on.
    #[must_use]
    pub fn new(wiring: &Wiring) -> Self {
        let on = OutletState {
            relay: true,
            shown: true,
            coming: Vec::new(),
        };
        Self {
            outlets: wiring.all_outlets().map(|outlet| (outlet, on.clone())).collect(),
            mains: vec![true; wiring.machines.len()],
        }
    }

    /// Whether the relay lets current through.
    #[must_use]
    pub fn relay(&self, outlet: Outlet) -> bool {
        self.outlets.get(&outlet).is_some_and(|o| o.relay)
    }

    /// What the device says of an outlet.
    #[must_use]
    pub fn shown(&self, faults: &Faults, outlet: Outlet) -> bool {
        let believed = self.outlets.get(&outlet).is_some_and(|o| o.shown);
        faults.point(Point::Outlet(outlet)).says.unwrap_or(believed)
    }

    /// Whether the outlet has something left to do.
    #[must_use]
    pub fn is_moving(&self, outlet: Outlet) -> bool {
        self.outlets.get(&outlet).is_some_and(|o| !o.coming.is_empty())
    }

    /// Whether a machine has mains.
    #[must_use]
    pub fn mains(&self, machine: MachineId) -> bool {
        self.mains.get(machine.0).copied().unwrap_or(false)
    }
}

/// When something is next to move by itself.
#[must_use]
pub fn next_due(state: &State) -> Option<Duration> {
    state
        .outlets
        .values()
        .filter_map(|o| o.coming.first())
        .map(|(at, _)| *at)
        .min()
}

/// What follows from `input` at `now` (time since any fixed moment; it does not go back).
///
/// Moves that are due are made one by one in their order, so that a reboot which is looked at late is still a cut
/// and a return.
#[must_use]
pub fn advance(
    wiring: &Wiring,
    faults: &Faults,
    state: &State,
    input: Input,
    now: Duration,
) -> (State, Vec<Change>) {
    let mut state = state.clone();
    let mut changes = Vec::new();
    // First what was due before the command came, or the command would undo it.
    settle(wiring, faults, &mut state, now, &mut changes);
    if let Input::Switch(outlet, switch) = input {
        command(wiring, faults, &mut state, outlet, switch, now);
        settle(wiring, faults, &mut state, now, &mut changes);
    }
    (state, changes)
}

fn command(
    wiring: &Wiring,
    faults: &Faults,
    state: &mut State,
    outlet: Outlet,
    switch: Switch,
    now: Duration,
) {
    if faults.device(Device::Strip(outlet.strip)).does_nothing {
        return;
    }
    let Some(outlet_state) = state.outlets.get_mut(&outlet) else {
        return;
    };
    let at = now.saturating_add(faults.point(Point::Outlet(outlet)).slow);
    outlet_state.coming = match switch {
        Switch::On => vec![(at, true)],
        Switch::Off => vec![(at, false)],
        Switch::Reboot => vec![(at, false), (at.saturating_add(wiring.reboot), true)],
    };
}

fn settle(wiring: &Wiring, faults: &Faults, state: &mut State, now: Duration, changes: &mut Vec<Change>) {
    // The faults may have changed since the last time.
    feed(wiring, faults, state, changes);
    while next_due(state).is_some_and(|at| at <= now) {
        let due = state
            .outlets
            .iter_mut()
            .filter_map(|(outlet, o)| Some((o.coming.first()?.0, *outlet, o)))
            .min_by_key(|(at, outlet, _)| (*at, *outlet));
        let Some((_, outlet, outlet_state)) = due else {
            break;
        };
        let (_, on) = outlet_state.coming.remove(0);
        outlet_state.shown = on;
        if !faults.point(Point::Outlet(outlet)).stuck {
            outlet_state.relay = on;
        }
        feed(wiring, faults, state, changes);
    }
}

/// Compares the mains of every machine with what the relays now give it.
fn feed(wiring: &Wiring, faults: &Faults, state: &mut State, changes: &mut Vec<Change>) {
    for (index, machine) in wiring.machines.iter().enumerate() {
        let live = machine.supplies.is_empty()
            || machine.supplies.iter().any(|&plug| {
                let outlet = faults.relay_of(plug);
                state.relay(outlet) && !faults.point(Point::Outlet(outlet)).dead
            });
        if state.mains[index] != live {
            state.mains[index] = live;
            changes.push(if live {
                Change::Back(MachineId(index))
            } else {
                Change::Cut(MachineId(index))
            });
        }
    }
}

/// What is to be done with a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Its mains is cut.
    Cut,
    /// Its mains is back.
    Back,
    /// Its BMC was told to do this.
    Bmc(Deed),
}

/// What a machine can be made to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Switch on.
    On,
    /// Switch off at once.
    Off,
    /// Press its power button, so that the system shuts down if it listens.
    SoftOff,
    /// Reset. Nothing to a machine that is off.
    Reset,
    /// A non-maskable interrupt. Nothing to a machine that is off.
    Nmi,
}

/// What a machine's board remembers while it has no mains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// It has mains.
    pub mains: bool,
    /// It was on when mains was cut.
    pub was_on: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            mains: true,
            was_on: false,
        }
    }
}

/// What a machine does about a job, and what its board remembers after it. `on` is whether it runs now.
///
/// A BMC without mains does nothing: it is dead itself.
#[must_use]
pub fn obey(restore: Restore, memory: Memory, job: Job, on: bool) -> (Memory, Option<Deed>) {
    match job {
        Job::Cut => (
            Memory {
                mains: false,
                was_on: if memory.mains { on } else { memory.was_on },
            },
            // Asked for even if it seems to be off: a machine that hangs between two states has to lose power too.
            Some(Deed::Off),
        ),
        Job::Back if memory.mains => (memory, None),
        Job::Back => {
            let starts = match restore {
                Restore::StayOff => false,
                Restore::LastState => memory.was_on,
                Restore::AlwaysOn => true,
            };
            let memory = Memory {
                mains: true,
                ..memory
            };
            (memory, starts.then_some(Deed::On))
        }
        Job::Bmc(_) if !memory.mains => (memory, None),
        Job::Bmc(deed) => {
            let does = match deed {
                Deed::On => !on,
                Deed::Off => true,
                Deed::SoftOff | Deed::Reset | Deed::Nmi => on,
            };
            (memory, does.then_some(deed))
        }
    }
}
