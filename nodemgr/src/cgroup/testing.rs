//! Ground for tests: a subtree of this machine's real cgroup2, removed with everything in it; and a directory of
//! plain files that looks like a cgroup, for what this machine has not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{Facts, Mount, Sliver};
use crate::guard::Guard;

/// Longest that a test waits for anything.
pub(crate) const CAP: Duration = Duration::from_secs(20);

/// Waits for a condition, with a cap.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < CAP, "waited {CAP:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A subtree of the real cgroup2 that is a test's own.
pub(crate) struct Ground {
    pub(crate) mount: Mount,
    name: PathBuf,
}

impl Ground {
    /// None, and said on the output, where there is no cgroup2 that we may write.
    pub(crate) fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mount = match Mount::discover(Path::new("/proc/self/mountinfo")) {
            Ok(mount) => mount,
            Err(error) => {
                println!("skipped: {error}");
                return None;
            }
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = PathBuf::from(format!("redbutton-test-{}-{number}", std::process::id()));
        if let Err(error) = fs::create_dir(mount.root().join(&name)) {
            println!(
                "skipped: cannot make a cgroup under {}: {error}",
                mount.root().display()
            );
            return None;
        }
        Some(Self { mount, name })
    }

    /// Path below the mount.
    pub(crate) fn path(&self) -> &Path {
        &self.name
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.mount.root().join(&self.name)
    }

    /// Makes a cgroup in it; gives its path below the mount.
    pub(crate) fn make(&self, name: &str) -> PathBuf {
        let path = self.name.join(name);
        fs::create_dir_all(self.mount.root().join(&path)).expect("a cgroup");
        path
    }

    /// Makes a cgroup in it, and opens it.
    pub(crate) fn sliver(&self, name: &str) -> Sliver {
        Sliver::open(&self.mount, &self.make(name)).expect("a sliver")
    }

    /// The same on a pretended kernel.
    pub(crate) fn sliver_on(&self, facts: Facts, name: &str) -> Sliver {
        Sliver::open(&self.mount.clone().with_facts(facts), &self.make(name)).expect("a sliver")
    }

    pub(crate) fn guard(&self, extra: &[PathBuf]) -> Guard {
        let own = i32::try_from(std::process::id()).expect("a pid");
        Guard::record(&self.mount, Path::new("/proc"), own, extra).expect("a guard")
    }

    /// Runs a shell script in the cgroup at `path` below the mount.
    pub(crate) fn shell(&self, path: &Path, script: &str) -> Child {
        let procs = self.mount.root().join(path).join("cgroup.procs");
        Command::new("sh")
            .args(["-c", "echo 0 > \"$1\" && exec sh -c \"$2\"", "sh"])
            .arg(procs)
            .arg(script)
            .stdin(Stdio::null())
            .spawn()
            .expect("a shell")
    }

    /// Starts that many sleepers in the cgroup, and the shell that is their parent; waits for them.
    pub(crate) fn sleepers(&self, sliver: &Sliver, count: usize) -> Child {
        self.sleepers_beside(sliver, count, 0)
    }

    /// The same where `others` live already.
    pub(crate) fn sleepers_beside(&self, sliver: &Sliver, count: usize, others: usize) -> Child {
        let script = format!("i=0; while [ $i -lt {count} ]; do sleep 1000 & i=$((i+1)); done; wait");
        let child = self.shell(sliver.path(), &script);
        until("sleepers started", || {
            sliver.pids().expect("a list").len() == others + count + 1
        });
        child
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let directory = self.directory();
        let _ = fs::write(directory.join("cgroup.kill"), "1");
        let began = Instant::now();
        while fs::read_to_string(directory.join("cgroup.events"))
            .is_ok_and(|text| text.contains("populated 1"))
            && began.elapsed() < CAP
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        remove(&directory);
    }
}

fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

/// A cgroup hierarchy of plain files: what they hold is up to the test.
pub(crate) struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let fixture = Self {
            directory: tempfile::tempdir().expect("a directory"),
        };
        fixture.write("cgroup.procs", "");
        fixture
    }

    pub(crate) fn mount(&self) -> Mount {
        Mount::at(self.directory.path()).expect("a mount")
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("written");
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.directory.path().join(path)).expect("read")
    }

    /// A cgroup whose files say that it is empty and frozen.
    pub(crate) fn empty(&self, path: &str) {
        self.write(&format!("{path}/cgroup.events"), "populated 0\nfrozen 1\n");
        self.write(&format!("{path}/cgroup.stat"), "nr_descendants 0\n");
        self.write(&format!("{path}/cgroup.type"), "domain\n");
        for name in ["cgroup.procs", "cgroup.freeze", "cgroup.kill"] {
            self.write(&format!("{path}/{name}"), "");
        }
    }
}
