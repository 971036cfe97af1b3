//! Against this machine's real cgroup2. Every bomb is bounded by its own count.

mod evidence;
mod fallback;
pub(crate) mod helper;
mod sealed;
mod slivers;
mod stuck;
mod times;

use std::path::Path;
use std::process::Child;
use std::sync::Arc;

use super::{Engine, Plan, Report};
use crate::cgroup::Sliver;
use crate::cgroup::testing::{CAP, Ground, until};

fn engine() -> Engine {
    Engine::new(Path::new("/proc")).expect("an engine")
}

fn quick() -> Plan {
    Plan {
        evidence: false,
        ..Plan::default()
    }
}

/// With evidence, also on a machine that is busy with other things.
fn patient() -> Plan {
    Plan {
        evidence_for: CAP,
        freeze: CAP,
        ..Plan::default()
    }
}

/// Kills one sliver with nothing but the standard guard.
fn kill_one(ground: &Ground, sliver: Sliver, plan: &Plan) -> Report {
    let guard = ground.guard(&[]);
    engine()
        .kill(&[Arc::new(sliver)], &guard, plan)
        .pop()
        .expect("a report")
}

/// The shell that was started in a sliver is our child: it stays a zombie until this.
fn reap(mut child: Child) {
    until("our child ends", || child.try_wait().expect("a status").is_some());
}

/// Each of 8 workers forks short-lived children without pause, 500 at most, then sleeps.
const BOMB: &str = "w=0; while [ $w -lt 8 ]; do \
    (i=0; while [ $i -lt 500 ]; do (exec /bin/true) & i=$((i+1)); done; sleep 1000) & w=$((w+1)); done; wait";

/// Starts the bomb and waits until it is at full blast.
fn bomb(ground: &Ground, sliver: &Sliver) -> Child {
    let child = ground.shell(sliver.path(), BOMB);
    until("the bomb forks", || sliver.pids().expect("a list").len() > 8);
    child
}

fn is_empty(sliver: &Sliver) -> bool {
    !sliver.events().expect("events").populated && sliver.pids().expect("a list").is_empty()
}
