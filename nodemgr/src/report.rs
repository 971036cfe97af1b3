//! What the node says of itself. Everything comes from a `/proc` given as a path, so that any machine is a directory
//! of fixtures in a test; what cannot be read is absent, never zero.
//!
//! Opens files and may take a while with thousands of processes: runs on a thread of its own, never on a kill's.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use proto::v1::{self, Assurance, Capability, NodeReport, SliverActivity, SliverState};
use proto::{HoldId, PROTOCOL};

use crate::cgroup::Facts;
use crate::engine::{Node, Subtree};

const PROC: &str = "/proc";

/// What this kernel gives.
pub(crate) fn kernel_capabilities(facts: &Facts) -> Vec<Capability> {
    let capability = |name: &str, assurance: Assurance, reason: &str| Capability {
        name: name.into(),
        assurance: assurance.into(),
        reason: reason.into(),
    };
    let file = |name, has, what: &str, without: &str| match has {
        Some(true) => capability(name, Assurance::Exact, what),
        Some(false) => capability(name, Assurance::Bounded, without),
        None => capability(
            name,
            Assurance::Unknown,
            "this kernel does not tell before a cgroup exists",
        ),
    };
    let has = |name: &str| facts.controllers.contains(name);
    let hybrid = if facts.hybrid {
        "hybrid host: the controller is bound to cgroup v1"
    } else {
        "the kernel has no such controller"
    };
    let pids = match has("pids") {
        true => capability(
            "cgroup.pids",
            Assurance::Exact,
            "pids.max is 0 while a sliver is held",
        ),
        false => capability("cgroup.pids", Assurance::NotEnforced, hybrid),
    };
    let memory = match has("memory") {
        true => capability(
            "cgroup.memory",
            Assurance::Exact,
            "memory is counted for each sliver",
        ),
        false => capability("cgroup.memory", Assurance::NotEnforced, hybrid),
    };
    let psi = match facts.psi {
        true => capability(
            "cgroup.psi",
            Assurance::Exact,
            "pressure is known for each sliver",
        ),
        false => capability(
            "cgroup.psi",
            Assurance::Unknown,
            "no pressure files in the cgroups",
        ),
    };
    vec![
        file(
            "cgroup.kill",
            facts.kill,
            "one write kills a subtree at once",
            "killed by a loop of kill(2), frozen first",
        ),
        file(
            "cgroup.freeze",
            facts.freeze,
            "a subtree stands still before it dies",
            "a subtree cannot be frozen",
        ),
        pids,
        memory,
        psi,
        match facts.hybrid {
            false => capability(
                "adopt",
                Assurance::Exact,
                "every cgroup of this host can be adopted",
            ),
            true => capability(
                "adopt",
                Assurance::Bounded,
                "processes that live only in v1 cgroups cannot be adopted",
            ),
        },
    ]
}

/// What `/proc` says of the machine; the rest of the report is the node's.
#[must_use]
pub fn machine(proc_root: &Path) -> NodeReport {
    let text = |name: &str| fs::read_to_string(proc_root.join(name)).ok();
    let trimmed = |name: &str| text(name).map(|t| t.trim().to_owned()).unwrap_or_default();
    let loadavg = text("loadavg").unwrap_or_default();
    let mut loads = loadavg
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0.0));
    let mut next_load = || loads.next().unwrap_or(0.0);
    let pressure = |name: &str, line: &str| avg10(&text(&format!("pressure/{name}"))?, line);
    let load = v1::Load {
        one: next_load(),
        five: next_load(),
        fifteen: next_load(),
        cpu_some: pressure("cpu", "some"),
        memory_some: pressure("memory", "some"),
        memory_full: pressure("memory", "full"),
        io_some: pressure("io", "some"),
        io_full: pressure("io", "full"),
    };
    let meminfo = text("meminfo").unwrap_or_default();
    let kib = |key: &str| field(&meminfo, key).unwrap_or(0);
    let file_nr = text("sys/fs/file-nr").unwrap_or_default();
    let mut files = file_nr.split_whitespace().map(|n| n.parse().unwrap_or(0));
    let uptime = text("uptime")
        .and_then(|t| t.split_whitespace().next()?.parse::<f64>().ok())
        .unwrap_or(0.0);
    NodeReport {
        boot_id: trimmed("sys/kernel/random/boot_id"),
        kernel: trimmed("sys/kernel/osrelease"),
        hostname: trimmed("sys/kernel/hostname"),
        uptime_ms: milliseconds(uptime),
        load: Some(load),
        memory: Some(v1::Memory {
            total_kib: kib("MemTotal:"),
            available_kib: kib("MemAvailable:"),
        }),
        files: Some(v1::Files {
            allocated: files.next().unwrap_or(0),
            maximum: files.nth(1).unwrap_or(0),
        }),
        processes: count_processes(proc_root),
        ..NodeReport::default()
    }
}

/// Seconds as the kernel prints them, in milliseconds.
fn milliseconds(seconds: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to what fits; years in ms are exact"
    )]
    let ms = (seconds * 1000.0).clamp(0.0, 9e15) as u64;
    ms
}

fn field(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// `some avg10=1.23 avg60=…`
fn avg10(text: &str, line: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(line)?.strip_prefix(' '))?;
    line.split_whitespace()
        .find_map(|part| part.strip_prefix("avg10="))?
        .parse()
        .ok()
        .filter(|v: &f64| v.is_finite())
}

fn count_processes(proc_root: &Path) -> u32 {
    let entries = fs::read_dir(proc_root).into_iter().flatten().flatten();
    let pids = entries
        .filter(|e| e.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .count();
    u32::try_from(pids).unwrap_or(u32::MAX)
}

impl Node {
    /// The node's report. Blocking.
    #[must_use]
    pub fn report(&self) -> NodeReport {
        let machine = machine(Path::new(PROC));
        let (subtrees, snapshot) = self.snapshot();
        let Snapshot {
            seen,
            holds,
            tombstones,
            locked,
            refused,
        } = snapshot;
        let mut capabilities = self.capabilities.clone();
        let (assurance, reason) = match self.writer.trouble() {
            None => (
                Assurance::Exact,
                "holds are on disk before an order is answered".to_owned(),
            ),
            Some(why) => (Assurance::NotEnforced, why),
        };
        capabilities.push(Capability {
            name: "holds.durable".into(),
            assurance: assurance.into(),
            reason,
        });
        let restart_means = match self.restarter.means() {
            Ok(means) => means,
            Err(why) => format!("none: {why}"),
        };
        let clock = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        NodeReport {
            witnessed: Some(self.witnessed()),
            node: self.id.to_string(),
            protocol: PROTOCOL,
            agent_version: crate::software::version().into(),
            clock_ms: i64::try_from(clock).unwrap_or(i64::MAX),
            slivers: subtrees
                .into_iter()
                .map(|(subtree, holds, uid)| sliver_state(&subtree, &holds, uid))
                .collect(),
            seen: Some(seen.into()),
            holds: holds.iter().map(ToString::to_string).collect(),
            configuration_hash: self.config.hash(),
            capabilities,
            locked,
            refused,
            restart_means,
            tombstones: u32::try_from(tombstones).unwrap_or(u32::MAX),
            ..machine
        }
    }
}

/// What a report needs of the state, copied out of the lock.
pub(crate) struct Snapshot {
    pub(crate) seen: proto::Version,
    pub(crate) holds: Vec<HoldId>,
    /// Releases that the controller is not known to know.
    pub(crate) tombstones: usize,
    pub(crate) locked: String,
    pub(crate) refused: Vec<v1::RefusedCgroup>,
}

fn sliver_state(subtree: &Arc<Subtree>, holds: &[HoldId], uid: Option<u32>) -> SliverState {
    let activity = match subtree.handle.events() {
        Ok(events) if !events.populated => SliverActivity::Empty,
        Ok(events) if events.frozen => SliverActivity::Frozen,
        Ok(_) => SliverActivity::Running,
        Err(error) if error.is_gone() => SliverActivity::Empty,
        Err(_) => SliverActivity::Unspecified,
    };
    let processes = match activity {
        SliverActivity::Empty => Some(0),
        _ => count(subtree),
    };
    SliverState {
        slice: subtree.slice.to_string(),
        cgroup: subtree.handle.path().to_string_lossy().into_owned(),
        activity: activity.into(),
        processes,
        holds: holds.iter().map(ToString::to_string).collect(),
        manager: subtree.manager.to_owned(),
        respawns: subtree.respawns.load(std::sync::atomic::Ordering::Relaxed),
        uid,
    }
}

fn count(subtree: &Subtree) -> Option<u32> {
    let mut processes = 0_u32;
    subtree
        .handle
        .for_each_pid(|_| processes = processes.saturating_add(1))
        .ok()?;
    Some(processes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temp dir");
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("below the directory")).expect("writable");
            fs::write(path, text).expect("writable");
        }
        dir
    }

    #[test]
    fn a_machine_is_read_from_its_proc() {
        let dir = fixture(&[
            ("loadavg", "0.50 1.25 2.00 3/456 789\n"),
            (
                "pressure/cpu",
                "some avg10=12.34 avg60=1.00 avg300=0.10 total=5\nfull avg10=0.00 avg60=0 avg300=0 total=0\n",
            ),
            (
                "pressure/memory",
                "some avg10=1.50 avg60=0 avg300=0 total=0\nfull avg10=0.75 avg60=0 avg300=0 total=0\n",
            ),
            (
                "meminfo",
                "MemTotal:       2048 kB\nMemFree:  1 kB\nMemAvailable:   1024 kB\n",
            ),
            ("sys/fs/file-nr", "1024\t0\t9223372036854775807\n"),
            (
                "sys/kernel/random/boot_id",
                "6ba7b810-9dad-11d1-80b4-00c04fd430c8\n",
            ),
            ("sys/kernel/osrelease", "6.1.0-lab\n"),
            ("sys/kernel/hostname", "planetlab-1\n"),
            ("uptime", "12.50 99.00\n"),
            ("1/stat", ""),
            ("77/stat", ""),
        ]);
        let report = machine(dir.path());
        let load = report.load.expect("read");
        assert_eq!((load.one, load.five, load.fifteen), (0.5, 1.25, 2.0));
        assert_eq!(
            (load.cpu_some, load.memory_some, load.memory_full),
            (Some(12.34), Some(1.5), Some(0.75))
        );
        assert_eq!(
            (load.io_some, load.io_full),
            (None, None),
            "no such file: unknown, not zero"
        );
        assert_eq!(
            report.memory,
            Some(v1::Memory {
                total_kib: 2048,
                available_kib: 1024
            })
        );
        assert_eq!(
            report.files,
            Some(v1::Files {
                allocated: 1024,
                maximum: i64::MAX as u64
            })
        );
        assert_eq!(
            (report.kernel.as_str(), report.hostname.as_str()),
            ("6.1.0-lab", "planetlab-1")
        );
        assert_eq!((report.uptime_ms, report.processes), (12_500, 2));
    }

    #[test]
    fn a_proc_full_of_rubbish_is_no_trouble() {
        let dir = fixture(&[
            ("loadavg", "x y"),
            ("pressure/cpu", "some avg10=NaN\n"),
            ("meminfo", "MemTotal:"),
            ("sys/fs/file-nr", ""),
            ("uptime", "-5"),
        ]);
        let report = machine(dir.path());
        assert_eq!(report.load.expect("always there").cpu_some, None);
        assert_eq!(report.uptime_ms, 0);
        assert_eq!(machine(Path::new("/nonexistent")).processes, 0);
    }

    #[test]
    fn any_kernel_is_a_struct_literal() {
        let old = Facts {
            hybrid: true,
            kill: Some(false),
            freeze: None,
            controllers: [].into(),
            psi: false,
        };
        let told = kernel_capabilities(&old);
        let of = |name: &str| told.iter().find(|c| c.name == name).expect(name);
        assert_eq!(of("cgroup.kill").assurance(), Assurance::Bounded);
        assert_eq!(of("cgroup.freeze").assurance(), Assurance::Unknown);
        assert_eq!(of("cgroup.pids").assurance(), Assurance::NotEnforced);
        assert!(of("cgroup.pids").reason.contains("hybrid"));
        assert_eq!(of("adopt").assurance(), Assurance::Bounded);
        let new = Facts {
            hybrid: false,
            kill: Some(true),
            freeze: Some(true),
            controllers: ["pids".into()].into(),
            psi: true,
        };
        assert_eq!(kernel_capabilities(&new)[0].assurance(), Assurance::Exact);
    }
}
