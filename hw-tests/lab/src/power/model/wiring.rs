//! The plan on the wall: strips, outlets, and which machine's supplies are plugged where.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};

/// A strip (PDU) of a [`Wiring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StripId(pub(super) usize);

impl StripId {
    /// The outlet with this number, from 1 as it is printed on the device.
    #[must_use]
    pub fn outlet(self, number: u16) -> Outlet {
        Outlet { strip: self, number }
    }
}

/// A machine of a [`Wiring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MachineId(pub(super) usize);

impl MachineId {
    /// Its place in the order in which machines were added, from 0.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// One outlet of a strip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outlet {
    /// The strip.
    pub strip: StripId,
    /// From 1.
    pub number: u16,
}

/// What a machine's BIOS does when mains returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restore {
    /// Stays off until somebody switches it on.
    StayOff,
    /// On if it was on when mains was cut.
    LastState,
    /// On, whatever it was.
    AlwaysOn,
}

#[derive(Debug, Clone)]
pub(super) struct Strip {
    pub(super) name: String,
    pub(super) outlets: u16,
}

#[derive(Debug, Clone)]
pub(super) struct Plugged {
    pub(super) name: String,
    pub(super) supplies: Vec<Outlet>,
    pub(super) restore: Restore,
}

/// Which machine is plugged into which outlets.
#[derive(Debug, Clone)]
pub struct Wiring {
    pub(super) strips: Vec<Strip>,
    pub(super) machines: Vec<Plugged>,
    pub(super) reboot: Duration,
}

impl Default for Wiring {
    fn default() -> Self {
        Self {
            strips: Vec::new(),
            machines: Vec::new(),
            reboot: Duration::from_secs(1),
        }
    }
}

impl Wiring {
    /// An empty plan in which an outlet stays off so long in a reboot (usually a second).
    #[must_use]
    pub fn with_reboot(reboot: Duration) -> Self {
        Self {
            reboot,
            ..Self::default()
        }
    }

    /// Adds a strip with outlets 1 to `outlets`.
    pub fn strip(&mut self, name: &str, outlets: u16) -> StripId {
        self.strips.push(Strip {
            name: name.to_owned(),
            outlets,
        });
        StripId(self.strips.len() - 1)
    }

    /// Adds a machine whose supplies are in these outlets; with none of them it is in the wall and always has mains.
    ///
    /// # Errors
    /// When an outlet does not exist or is taken.
    pub fn machine(&mut self, name: &str, supplies: &[Outlet], restore: Restore) -> Result<MachineId> {
        let mut taken: BTreeSet<Outlet> = self
            .machines
            .iter()
            .flat_map(|m| m.supplies.iter().copied())
            .collect();
        for &outlet in supplies {
            if !self.has(outlet) {
                bail!(
                    "machine {name}: strip {} has no outlet {}",
                    outlet.strip.0,
                    outlet.number
                );
            }
            if !taken.insert(outlet) {
                bail!(
                    "machine {name}: outlet {} of strip {} is taken",
                    outlet.number,
                    outlet.strip.0
                );
            }
        }
        self.machines.push(Plugged {
            name: name.to_owned(),
            supplies: supplies.to_vec(),
            restore,
        });
        Ok(MachineId(self.machines.len() - 1))
    }

    /// Whether there is such an outlet.
    #[must_use]
    pub fn has(&self, outlet: Outlet) -> bool {
        self.strips
            .get(outlet.strip.0)
            .is_some_and(|strip| (1..=strip.outlets).contains(&outlet.number))
    }

    /// The outlets of a strip, in order; none when there is no such strip.
    pub fn outlets(&self, strip: StripId) -> impl Iterator<Item = Outlet> + use<> {
        let last = self.strips.get(strip.0).map_or(0, |strip| strip.outlets);
        (1..=last).map(move |number| Outlet { strip, number })
    }

    /// A strip's name.
    #[must_use]
    pub fn strip_name(&self, strip: StripId) -> &str {
        self.strips.get(strip.0).map_or("?", |strip| &strip.name)
    }

    /// A machine's name.
    #[must_use]
    pub fn machine_name(&self, machine: MachineId) -> &str {
        self.machines.get(machine.0).map_or("?", |machine| &machine.name)
    }

    /// What a machine does when mains returns.
    #[must_use]
    pub fn restore(&self, machine: MachineId) -> Restore {
        self.machines
            .get(machine.0)
            .map_or(Restore::StayOff, |m| m.restore)
    }

    /// All machines, in the order in which they were added.
    pub fn machines(&self) -> impl Iterator<Item = MachineId> + use<> {
        (0..self.machines.len()).map(MachineId)
    }

    /// What the plan says is in an outlet, for the labels that a device shows.
    #[must_use]
    pub fn label(&self, outlet: Outlet) -> Option<&str> {
        self.machines
            .iter()
            .find(|machine| machine.supplies.contains(&outlet))
            .map(|machine| machine.name.as_str())
    }

    pub(super) fn all_outlets(&self) -> impl Iterator<Item = Outlet> + '_ {
        (0..self.strips.len()).flat_map(|strip| self.outlets(StripId(strip)))
    }
}
