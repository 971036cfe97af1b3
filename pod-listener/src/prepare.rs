//! The way of the packet, and the process at its end, made ready for a node that has run dry (LAB.md, “Reaction under
//! stress”). Probe → decide → apply → read back; what was changed on the host is written down and can be undone.
//!
//! | step | what | why |
//! |---|---|---|
//! | pod.oom | oom_score_adj −1000 | the OOM killer never takes us |
//! | pod.memory | everything locked and touched | no page is ever waited for |
//! | pod.priority | SCHED_FIFO 50 | before every ordinary process |
//! | pod.softirq | ksoftirqd/* SCHED_FIFO 60 | a fork bomb else delays the packet itself by up to 25 s |
//! | pod.napi | threaded NAPI, its threads FIFO 60 | the same, for drivers that poll |
//! | pod.console | console level ≤ 4 | messages on a slow serial line hold the machine |
//! | pod.oom-dump | vm.oom_dump_tasks 0 | so do the OOM killer's lists; panics are printed all the same |

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::mman::{MlockAllFlags, mlockall};

use crate::sys;

/// Ours.
const PRIORITY: i32 = 50;
/// Of those that bring us packets.
const ABOVE: i32 = 60;

/// How far something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assurance {
    /// As wanted.
    Exact,
    /// Partly.
    Bounded,
    /// Not at all.
    NotEnforced,
}

impl Assurance {
    /// For people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Assurance::Exact => "exact",
            Assurance::Bounded => "bounded",
            Assurance::NotEnforced => "not enforced",
        }
    }
}

/// One preparation, and what was got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Stable name.
    pub name: &'static str,
    /// How far it holds.
    pub assurance: Assurance,
    /// What was got, or why not.
    pub reason: String,
}

fn step(name: &'static str, result: io::Result<String>) -> Step {
    match result {
        Ok(reason) => Step {
            name,
            assurance: Assurance::Exact,
            reason,
        },
        Err(error) => Step {
            name,
            assurance: Assurance::NotEnforced,
            reason: error.to_string(),
        },
    }
}

/// Where the host's settings are.
#[derive(Debug, Clone)]
pub struct Host {
    /// `/proc`
    pub proc_root: PathBuf,
    /// `/sys`
    pub sys_root: PathBuf,
    /// Keeps what was there before, to undo it.
    pub was: PathBuf,
}

/// Prepares the process itself; called before its helpers are forked, so that they inherit the first.
#[must_use]
pub(crate) fn spare(proc_root: &Path) -> Vec<Step> {
    let path = proc_root.join("self/oom_score_adj");
    let done = write(&path, "-1000").and_then(|()| match read(&path)?.as_str() {
        "-1000" => Ok("the OOM killer passes us over".to_owned()),
        other => Err(io::Error::other(format!("oom_score_adj stayed at {other}"))),
    });
    vec![step("pod.oom", done)]
}

/// Locks everything and puts us before everybody.
#[must_use]
pub(crate) fn harden(cgroup_root: &Path) -> Vec<Step> {
    let locked = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
        .map(|()| "all memory is locked".to_owned())
        .map_err(io::Error::from);
    let priority = sys::fifo(0, PRIORITY).or_else(|error| {
        // With CONFIG_RT_GROUP_SCHED only the root cgroup has real-time to give.
        write(&cgroup_root.join("cgroup.procs"), &std::process::id().to_string()).map_err(|_| error)?;
        sys::fifo(0, PRIORITY)
    });
    let priority = priority.and_then(|()| match sys::schedule(0)? {
        (libc::SCHED_FIFO, PRIORITY) => Ok(format!("SCHED_FIFO {PRIORITY}")),
        (policy, got) => Err(io::Error::other(format!(
            "policy is {policy} with priority {got}"
        ))),
    });
    vec![step("pod.memory", locked), step("pod.priority", priority)]
}

impl Host {
    /// Prepares the way of the packet. Again and again: interfaces and processors come and go, and others change
    /// settings back.
    #[must_use]
    pub fn prepare(&self) -> Vec<Step> {
        vec![
            self.threads("pod.softirq", "ksoftirqd/"),
            self.napi(),
            step("pod.console", self.console()),
            step(
                "pod.oom-dump",
                self.set("sys/vm/oom_dump_tasks", |now| now != "0", "0"),
            ),
        ]
    }

    /// Puts back what was there before.
    ///
    /// # Errors
    /// The first thing that could not be put back; the others are.
    pub fn undo(&self) -> io::Result<()> {
        let text = match fs::read_to_string(&self.was) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            text => text?,
        };
        let mut result = Ok(());
        for line in text.lines() {
            let Some((path, value)) = line.split_once('\t') else {
                continue;
            };
            if let Err(error) = write(Path::new(path), value) {
                result = Err(io::Error::other(format!("{path}: {error}")));
            }
        }
        for prefix in ["ksoftirqd/", "napi/"] {
            for (tid, _) in self.kernel_threads(prefix)? {
                if sys::schedule(tid).is_ok_and(|now| now == (libc::SCHED_FIFO, ABOVE)) {
                    let _ = sys::ordinary(tid);
                }
            }
        }
        fs::remove_file(&self.was)?;
        result
    }

    /// Remembers the first value that was there, then sets another; reads it back.
    fn change(&self, path: &Path, now: &str, wanted: &str) -> io::Result<()> {
        let before = fs::read_to_string(&self.was).unwrap_or_default();
        let name = path.to_string_lossy();
        if !before.lines().any(|line| line.split('\t').next() == Some(&*name)) {
            let new = self.was.with_extension("new");
            fs::write(&new, format!("{before}{name}\t{now}\n"))?;
            fs::rename(&new, &self.was)?;
        }
        write(path, wanted)
    }

    fn set(&self, below: &str, is_wrong: impl Fn(&str) -> bool, wanted: &str) -> io::Result<String> {
        let path = self.proc_root.join(below);
        let now = read(&path)?;
        if is_wrong(&now) {
            self.change(&path, &now, wanted)?;
        }
        match read(&path)? {
            after if is_wrong(&after) => Err(io::Error::other(format!("{below} stayed at {after}"))),
            after => Ok(format!("{below} is {after}")),
        }
    }

    fn console(&self) -> io::Result<String> {
        // Four numbers; only the first, the console's, is meant.
        let loud = |printk: &str| {
            printk
                .split_whitespace()
                .next()
                .and_then(|level| level.parse::<u32>().ok())
                .is_none_or(|level| level > 4)
        };
        self.set("sys/kernel/printk", loud, "4")
    }

    fn kernel_threads(&self, prefix: &str) -> io::Result<Vec<(i32, String)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.proc_root)? {
            let entry = entry?;
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok())
            else {
                continue;
            };
            // A process may call itself so; only kernel threads have kthreadd (2) as their parent.
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            let Some((name, rest)) = stat.split_once('(').and_then(|(_, after)| after.rsplit_once(')'))
            else {
                continue;
            };
            if rest.split_whitespace().nth(1) == Some("2") && name.starts_with(prefix) {
                found.push((pid, name.to_owned()));
            }
        }
        Ok(found)
    }

    fn threads(&self, name: &'static str, prefix: &str) -> Step {
        let threads = match self.kernel_threads(prefix) {
            Ok(threads) => threads,
            Err(error) => return step(name, Err(error)),
        };
        let all = threads.len();
        let raised = threads
            .iter()
            .filter(|(tid, _)| {
                let _ = sys::fifo(*tid, ABOVE);
                sys::schedule(*tid).is_ok_and(|now| now == (libc::SCHED_FIFO, ABOVE))
            })
            .count();
        let reason = format!("{raised} of {all} {prefix}* at SCHED_FIFO {ABOVE}");
        let assurance = match raised {
            0 => Assurance::NotEnforced,
            raised if raised == all => Assurance::Exact,
            _ => Assurance::Bounded,
        };
        Step {
            name,
            assurance,
            reason,
        }
    }

    fn napi(&self) -> Step {
        const NAME: &str = "pod.napi";
        let mut told = Vec::new();
        let (mut threaded, mut all) = (0, 0);
        let interfaces = match fs::read_dir(self.sys_root.join("class/net")) {
            Ok(interfaces) => interfaces,
            Err(error) => return step(NAME, Err(error)),
        };
        for entry in interfaces.flatten() {
            let path = entry.path().join("threaded");
            let interface = entry.file_name().to_string_lossy().into_owned();
            // Loopback and tunnels have no driver that polls.
            if !entry.path().join("device").exists() {
                continue;
            }
            all += 1;
            let set = read(&path).and_then(|now| {
                if now != "1" {
                    self.change(&path, &now, "1")?;
                }
                match read(&path)?.as_str() {
                    "1" => Ok(()),
                    other => Err(io::Error::other(format!("stayed at {other}"))),
                }
            });
            match set {
                Ok(()) => threaded += 1,
                Err(error) => told.push(format!("{interface}: {error}")),
            }
        }
        let threads = self.threads(NAME, "napi/");
        told.push(format!(
            "{threaded} of {all} interfaces threaded, {}",
            threads.reason
        ));
        let assurance = match threads.assurance {
            _ if all == 0 => Assurance::NotEnforced,
            Assurance::Exact if threaded == all => Assurance::Exact,
            Assurance::NotEnforced => Assurance::NotEnforced,
            _ => Assurance::Bounded,
        };
        Step {
            name: NAME,
            assurance,
            reason: told.join("; "),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

/// Into what is there already.
fn write(path: &Path, text: &str) -> io::Result<()> {
    use io::Write;
    fs::OpenOptions::new()
        .write(true)
        .create(false)
        .open(path)?
        .write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(dir: &Path) -> Host {
        for (path, text) in [
            ("proc/sys/kernel/printk", "7\t4\t1\t7\n"),
            ("proc/sys/vm/oom_dump_tasks", "1\n"),
            ("sys/class/net/eth0/threaded", "0\n"),
            ("sys/class/net/eth0/device/x", ""),
            ("sys/class/net/lo/threaded", "0\n"),
        ] {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().expect("below")).expect("made");
            fs::write(path, text).expect("written");
        }
        Host {
            proc_root: dir.join("proc"),
            sys_root: dir.join("sys"),
            was: dir.join("was"),
        }
    }

    #[test]
    fn what_is_changed_is_written_down_once_and_put_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = host(dir.path());
        let text = |path: &str| read(&dir.path().join(path)).expect("there");
        for _ in 0..2 {
            let steps = host.prepare();
            let console = steps
                .iter()
                .find(|step| step.name == "pod.console")
                .expect("told");
            assert_eq!(console.assurance, Assurance::Exact, "{console:?}");
            assert!(text("proc/sys/kernel/printk").starts_with('4'));
            assert_eq!(text("proc/sys/vm/oom_dump_tasks"), "0");
            assert!(text("sys/class/net/eth0/threaded").starts_with('1'));
            assert_eq!(text("sys/class/net/lo/threaded"), "0", "loopback is left alone");
        }
        host.undo().expect("undone");
        assert_eq!(text("proc/sys/kernel/printk"), "7\t4\t1\t7");
        assert_eq!(text("proc/sys/vm/oom_dump_tasks"), "1");
        assert!(!host.was.exists());
        host.undo().expect("nothing to undo");
    }

    #[test]
    fn a_setting_that_is_not_there_is_not_enforced_and_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = host(dir.path());
        fs::remove_file(dir.path().join("proc/sys/vm/oom_dump_tasks")).expect("removed");
        let steps = host.prepare();
        let dump = steps
            .iter()
            .find(|step| step.name == "pod.oom-dump")
            .expect("told");
        assert_eq!(dump.assurance, Assurance::NotEnforced);
        assert!(
            !dir.path().join("proc/sys/vm/oom_dump_tasks").exists(),
            "a file was made"
        );
        let softirq = steps
            .iter()
            .find(|step| step.name == "pod.softirq")
            .expect("told");
        assert_eq!(
            softirq.assurance,
            Assurance::NotEnforced,
            "no such threads: {softirq:?}"
        );
    }
}
