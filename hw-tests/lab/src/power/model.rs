//! What is plugged into what, and what a command at an outlet does to it. Pure: no clock, no sockets, no machines.
//!
//! ```text
//!  command ─► advance(wiring, faults, state, input, now) ─► new state + changes (mains cut / mains back)
//!                                                                          │ one by one, in order
//!  job ─────► obey(restore, memory, job, is it on?) ─► deed on the machine ◄┘
//! ```
//!
//! - `relay` is the truth, `shown` is what the device believes; faults are where they differ.
//! - A machine has mains while at least one of its supplies has; one with no supply is in the wall for good.
//! - Faults may change at any time: [`Input::Time`] with the new faults gives what follows.
//! - What a machine is doing is no state of this module: it changes by itself (guests switch themselves off), so
//!   [`obey`] is told.

mod decide;
mod wiring;

use std::collections::BTreeMap;
use std::time::Duration;

pub use decide::{Change, Deed, Input, Job, Memory, State, Switch, advance, next_due, obey};
pub use wiring::{MachineId, Outlet, Restore, StripId, Wiring};

/// A thing that is switched: an outlet of a strip, or a machine through its BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// An outlet.
    Outlet(Outlet),
    /// A machine's BMC.
    Bmc(MachineId),
}

/// A thing that is talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// A strip of outlets.
    Strip(StripId),
    /// A machine's BMC.
    Bmc(MachineId),
}

/// What is wrong with one outlet, or with what one BMC switches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PointFaults {
    /// The relay does not move. The device says that it did.
    pub stuck: bool,
    /// There is no machine at this outlet, whatever the wiring says.
    pub dead: bool,
    /// The device says this, whatever is true.
    pub says: Option<bool>,
    /// How long the relay takes to move.
    pub slow: Duration,
}

/// What is wrong with the way a device talks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceFaults {
    /// Takes everything and answers nothing.
    pub mute: bool,
    /// Lets nobody in, also with the right password.
    pub refuses_login: bool,
    /// Says that it did what it was told, and did nothing.
    pub does_nothing: bool,
    /// Waits so long before it answers.
    pub slow: Duration,
    /// Answers with bytes that mean nothing.
    pub garbage: bool,
    /// Menus and prompts are not those that the manual shows (where the protocol has any).
    pub wrong_prompt: bool,
    /// Hangs up after this many bytes of answer (where the protocol has connections).
    pub drops_after: Option<usize>,
}

/// Everything that is wrong. [`Faults::default`] is a room in which all is well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    swapped: BTreeMap<Outlet, Outlet>,
    points: BTreeMap<Point, PointFaults>,
    devices: BTreeMap<Device, DeviceFaults>,
}

impl Faults {
    /// The plugs of two outlets are exchanged: the relay of one switches what the wiring says is at the other.
    /// Swapping once more puts them back. An outlet that was swapped with a third is put back first.
    pub fn swap(&mut self, one: Outlet, other: Outlet) {
        let again = self.swapped.get(&one) == Some(&other);
        for outlet in [one, other] {
            if let Some(partner) = self.swapped.remove(&outlet) {
                self.swapped.remove(&partner);
            }
        }
        if !again && one != other {
            self.swapped.insert(one, other);
            self.swapped.insert(other, one);
        }
    }

    /// What is wrong at a point, to be changed.
    pub fn at(&mut self, point: Point) -> &mut PointFaults {
        self.points.entry(point).or_default()
    }

    /// What is wrong with a device, to be changed.
    pub fn of(&mut self, device: Device) -> &mut DeviceFaults {
        self.devices.entry(device).or_default()
    }

    /// What is wrong at a point.
    #[must_use]
    pub fn point(&self, point: Point) -> PointFaults {
        self.points.get(&point).cloned().unwrap_or_default()
    }

    /// What is wrong with a device.
    #[must_use]
    pub fn device(&self, device: Device) -> DeviceFaults {
        self.devices.get(&device).cloned().unwrap_or_default()
    }

    /// The outlet whose relay feeds the plug that the wiring puts at `outlet`.
    fn relay_of(&self, outlet: Outlet) -> Outlet {
        self.swapped.get(&outlet).copied().unwrap_or(outlet)
    }
}

#[cfg(test)]
mod tests;
