//! cgroups-rs with a root of our choosing. Its own v2 hierarchy has a constant root, and its `auto()` picks v1 on
//! hybrid hosts; the trait is public, so this is ours.

use std::fs;
use std::path::{Path, PathBuf};

use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::freezer::FreezerController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup, Hierarchy, Subsystem};

/// cgroup2 below any directory.
#[derive(Debug, Clone)]
pub(super) struct Rooted {
    root: PathBuf,
}

impl Rooted {
    pub(super) fn new(root: &Path) -> Box<Self> {
        Box::new(Self {
            root: root.to_owned(),
        })
    }
}

impl Hierarchy for Rooted {
    /// The freezer comes first and always: in v2 it is no controller but part of every cgroup, and cgroups-rs
    /// does its own reads and writes of `cgroup.procs` and `cgroup.type` through the first of these.
    fn subsystems(&self) -> Vec<Subsystem> {
        let point = || self.root.clone();
        let mut all = vec![Subsystem::Freezer(FreezerController::new(
            point(),
            PathBuf::new(),
            true,
        ))];
        let given = fs::read_to_string(self.root.join("cgroup.controllers")).unwrap_or_default();
        all.extend(given.split_whitespace().filter_map(|name| match name {
            "pids" => Some(Subsystem::Pid(PidController::new(point(), PathBuf::new(), true))),
            "memory" => Some(Subsystem::Mem(MemController::new(point(), PathBuf::new(), true))),
            "cpu" => Some(Subsystem::Cpu(CpuController::new(point(), PathBuf::new(), true))),
            _ => None,
        }));
        all
    }

    fn root_control_group(&self) -> Cgroup {
        Cgroup::load(Self::new(&self.root), "")
    }

    fn parent_control_group(&self, path: &str) -> Cgroup {
        Cgroup::load(
            Self::new(&self.root),
            Path::new(path).parent().unwrap_or(Path::new("")),
        )
    }

    fn root(&self) -> PathBuf {
        self.root.clone()
    }

    fn v2(&self) -> bool {
        true
    }
}
