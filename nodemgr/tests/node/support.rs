//! One setup function gives one context: a cgroup, a state directory, a node.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nodemgr::cgroup::Mount;
use nodemgr::restart::Unavailable;
use nodemgr::{Config, Node, Setup, exec};
use proto::v1::{self, Answer, command::Action};
use proto::{Hold, HoldId, HoldKind, NodeId, OrderId, Role, Scope, SliceName, Version};
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must happen.
pub const CAP: Duration = Duration::from_secs(30);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A cgroup of the test's own, a state directory, and a node id.
pub struct Lab {
    pub dir: tempfile::TempDir,
    pub id: NodeId,
    root: PathBuf,
    name: String,
    epoch: AtomicU32,
}

impl Lab {
    /// `None`, with the reason printed, where there are no cgroups to work with.
    pub fn new() -> Option<Self> {
        let mount = match Mount::discover(Path::new("/proc/self/mountinfo")) {
            Ok(mount) => mount,
            Err(error) => return skip(&error),
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("redbutton-test-{}-{number}", std::process::id());
        let root = mount.root().join(&name);
        if let Err(error) = fs::create_dir(&root) {
            return skip(&format!("cannot make {}: {error}", root.display()));
        }
        let dir = tempfile::tempdir().expect("temp dir");
        Some(Self {
            dir,
            id: NodeId::random(),
            root,
            name,
            epoch: AtomicU32::new(0),
        })
    }

    pub fn config(&self) -> Config {
        Config {
            state_dir: self.dir.path().join("state"),
            state_bytes: 64 << 10,
            socket: self.dir.path().join("nodemgr.sock"),
            slivers_root: format!("{}/slivers", self.name),
            ..Config::default()
        }
    }

    pub fn start(&self) -> Arc<Node> {
        self.start_with(self.config())
    }

    pub fn start_with(&self, config: Config) -> Arc<Node> {
        let restarter = Box::new(Unavailable {
            why: "a test restarts nothing".into(),
        });
        Node::start(Setup {
            config,
            node: self.id,
            prepared: Vec::new(),
            restarter,
        })
        .expect("starts")
    }

    /// The test's cgroup, as a directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The test's cgroup, below the mount.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A slice's cgroup, as a directory.
    pub fn sliver(&self, slice: &str) -> PathBuf {
        self.root.join("slivers").join(slice)
    }

    pub fn next(&self) -> Version {
        Version {
            incarnation: 1,
            epoch: 1 + u64::from(self.epoch.fetch_add(1, Ordering::Relaxed)),
        }
    }

    pub fn hold(&self, slice: &str, kind: HoldKind) -> Hold {
        Hold {
            id: HoldId::new(),
            slice: (!slice.is_empty()).then(|| slice.parse().expect("valid")),
            scope: Scope::Fleet,
            kind,
            holder: "alice".parse().expect("valid"),
            role: Role::Support,
            reason: "floods a bank".into(),
            evidence: String::new(),
            set_at_ms: 1,
            version: self.next(),
        }
    }

    pub fn command(&self, action: Action) -> v1::Command {
        let now = self.next();
        let order = match action {
            Action::Sync(_) => String::new(),
            _ => OrderId::new().to_string(),
        };
        v1::Command {
            now: Some(now.into()),
            order,
            given: Some(now.into()),
            action: Some(action),
            ..v1::Command::default()
        }
    }

    pub fn impose(&self, hold: &Hold) -> v1::Command {
        self.command(Action::Impose(hold.clone().into()))
    }

    pub fn release(&self, hold: &Hold) -> v1::Command {
        self.command(Action::Release(hold.id.to_string()))
    }

    pub fn sync(&self, holds: &[Hold], released: &[HoldId]) -> v1::Command {
        self.command(Action::Sync(v1::Sync {
            holds: holds.iter().cloned().map(Into::into).collect(),
            released: released.iter().map(ToString::to_string).collect(),
            ..v1::Sync::default()
        }))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::write(self.root.join("cgroup.kill"), "1");
        let _ = eventually(CAP, || !populated(&self.root));
        remove(&self.root);
    }
}

fn remove(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

pub fn skip<T>(why: &dyn std::fmt::Display) -> Option<T> {
    println!("skipped: {why}");
    None
}

/// Whether something lives in a cgroup directory.
pub fn populated(dir: &Path) -> bool {
    fs::read_to_string(dir.join("cgroup.events")).is_ok_and(|text| text.contains("populated 1"))
}

pub fn frozen(dir: &Path) -> bool {
    fs::read_to_string(dir.join("cgroup.events")).is_ok_and(|text| text.contains("frozen 1"))
}

/// Waits for a condition, with a cap.
pub fn eventually(cap: Duration, mut so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + cap;
    while !so() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// The socket of `exec`, served on a runtime of its own; it ends with this.
pub struct Door {
    _runtime: tokio::runtime::Runtime,
}

impl Door {
    pub fn open(node: &Arc<Node>, socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let guard = runtime.enter();
        let serving = exec::serve(node.clone(), socket, CancellationToken::new()).expect("binds");
        runtime.spawn(serving);
        drop(guard);
        Self { _runtime: runtime }
    }
}

pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_redbutton-nodemgr")
}

/// `exec` in a shell. The child is killed when this goes out of scope.
pub struct Started {
    pub child: Child,
    pub lines: BufReader<std::process::ChildStdout>,
}

impl Started {
    /// Runs a script as a slice and waits for its first line.
    pub fn sh(lab: &Lab, slice: &str, script: &str) -> Self {
        let mut child = exec_command(lab, slice, script)
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawns");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        lines.read_line(&mut first).expect("readable");
        assert_eq!(first, "ready\n", "the sliver's first line");
        Self { child, lines }
    }

    /// Something that only waits.
    pub fn sleeper(lab: &Lab, slice: &str) -> Self {
        Self::sh(lab, slice, "echo ready; exec sleep 1000")
    }

    /// The signal that ended it.
    pub fn signal(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        self.child.wait().expect("waits").signal()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn exec_command(lab: &Lab, slice: &str, script: &str) -> Command {
    let mut command = Command::new(program());
    command
        .arg("exec")
        .arg("--socket")
        .arg(lab.config().socket)
        .args([slice, "--", "/bin/sh", "-c", script]);
    command.stdin(Stdio::null());
    command
}

/// Gives a command to a node and waits for its first answer.
pub fn obey(node: &Arc<Node>, command: v1::Command) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let taken = node.take(command);
    runtime
        .block_on(async { tokio::time::timeout(CAP, taken).await })
        .expect("answers in time")
        .answer
}

pub fn slice(name: &str) -> SliceName {
    name.parse().expect("valid")
}
