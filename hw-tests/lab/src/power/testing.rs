//! What the tests of this module share: a machine that remembers what was done to it, and a room of them.

pub(super) mod powerman;
pub(super) mod qemu;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::model::{Device, DeviceFaults, MachineId, Restore, StripId, Wiring};
use super::{Machine, Room};

/// A machine without a body, for tests of what reaches it and in which order.
pub(super) struct Recorder {
    name: String,
    state: Mutex<(bool, Vec<&'static str>)>,
}

impl Recorder {
    pub(super) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            state: Mutex::new((true, Vec::new())),
        })
    }

    /// What was done since the last time.
    pub(super) fn took(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.state.lock().unwrap().1)
    }

    fn note(&self, deed: &'static str, on: Option<bool>) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        state.0 = on.unwrap_or(state.0);
        state.1.push(deed);
        Ok(())
    }
}

impl Machine for Recorder {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_on(&self) -> Result<bool> {
        Ok(self.state.lock().unwrap().0)
    }

    fn power_on(&self) -> Result<()> {
        self.note("on", Some(true))
    }

    fn power_off(&self) -> Result<()> {
        self.note("off", Some(false))
    }

    fn reset(&self) -> Result<()> {
        self.note("reset", None)
    }

    fn nmi(&self) -> Result<()> {
        self.note("nmi", None)
    }

    fn soft_off(&self) -> Result<()> {
        self.note("soft off", Some(false))
    }
}

/// Eight outlets, n1 in the first and n2 in the second.
pub(super) struct Fixture {
    pub(super) room: Arc<Room>,
    pub(super) strip: StripId,
    pub(super) ids: [MachineId; 2],
    pub(super) machines: [Arc<Recorder>; 2],
}

impl Fixture {
    /// The BMC of n1 has these faults and no others.
    pub(super) fn bmc(&self, change: impl FnOnce(&mut DeviceFaults)) {
        self.set(Device::Bmc(self.ids[0]), change);
    }

    /// The strip has these faults and no others.
    pub(super) fn device(&self, change: impl FnOnce(&mut DeviceFaults)) {
        self.set(Device::Strip(self.strip), change);
    }

    fn set(&self, device: Device, change: impl FnOnce(&mut DeviceFaults)) {
        let mut faults = DeviceFaults::default();
        change(&mut faults);
        self.room.faults(|all| *all.of(device) = faults).unwrap();
    }
}

pub(super) fn fixture() -> Fixture {
    let mut wiring = Wiring::with_reboot(Duration::from_millis(50));
    let strip = wiring.strip("pdu1", 8);
    let one = wiring
        .machine("n1", &[strip.outlet(1)], Restore::AlwaysOn)
        .unwrap();
    let two = wiring
        .machine("n2", &[strip.outlet(2)], Restore::StayOff)
        .unwrap();
    let machines = [Recorder::new("n1"), Recorder::new("n2")];
    let room = Room::new(wiring, vec![machines[0].clone(), machines[1].clone()]).unwrap();
    Fixture {
        room,
        strip,
        ids: [one, two],
        machines,
    }
}

/// Waits for a condition, with a cap.
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < until, "not within 30 s: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
