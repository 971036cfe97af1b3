//! One node of a fleet: a node manager of its own on a slivers' root of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use super::process::Daemon;
use super::supervisor::Supervisor;
use super::{program, wait_for};

/// A node on this machine.
pub struct Node {
    name: String,
    mount: PathBuf,
    root: String,
    config: PathBuf,
    socket: PathBuf,
    state: PathBuf,
    log: PathBuf,
    crash_at: Option<String>,
    daemon: Option<Daemon>,
    supervisor: Option<Supervisor>,
    program: Option<PathBuf>,
    started: Vec<Child>,
}

impl Node {
    pub(super) fn new(name: &str, mount: &Path, folder: &Path, bundle: &Path, more: &str) -> Result<Self> {
        // Several fleets may run in one process, each with a node of this name.
        static ROOTS: AtomicU32 = AtomicU32::new(0);
        let root = format!(
            "redbutton-test-{}-{}-{name}",
            std::process::id(),
            ROOTS.fetch_add(1, Ordering::Relaxed)
        );
        let state = folder.join(format!("{name}-state"));
        let node = Self {
            name: name.to_owned(),
            mount: mount.to_owned(),
            config: folder.join(format!("{name}.toml")),
            socket: folder.join(format!("{name}.sock")),
            log: folder.join(format!("{name}.log")),
            crash_at: None,
            daemon: None,
            supervisor: None,
            program: None,
            started: Vec::new(),
            root,
            state,
        };
        let text = format!(
            "bundle = {bundle:?}\nstate_dir = {:?}\nsocket = {:?}\nslivers_root = {:?}\n{more}",
            node.state, node.socket, node.root
        );
        std::fs::write(&node.config, text)?;
        Ok(node)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it keeps its holds.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Where its node manager logs.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Starts its node manager and waits until it takes starts.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(&mut self) -> Result<()> {
        let mut command = Command::new(self.program()?);
        command.arg("run").arg("--config").arg(&self.config);
        if let Some(point) = &self.crash_at {
            command.env("REDBUTTON_CRASH_AT", point);
        }
        let mut daemon = Daemon::start(&self.name, &mut command, &self.log)?;
        let socket = self.socket.clone();
        daemon.wait_for("socket of the node manager", || {
            std::os::unix::net::UnixStream::connect(&socket).ok().map(drop)
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Its node manager is of this build from the next start on.
    pub fn use_program(&mut self, path: PathBuf) {
        self.program = Some(path);
    }

    fn program(&self) -> Result<PathBuf> {
        match &self.program {
            Some(path) => Ok(path.clone()),
            None => program("redbutton-nodemgr"),
        }
    }

    /// Starts its node manager under a supervisor, and waits until it takes starts.
    ///
    /// # Errors
    /// When it does not.
    pub fn supervise(&mut self) -> Result<()> {
        let (path, config, log) = (self.program()?, self.config.clone(), self.log.clone());
        self.supervisor = Some(Supervisor::start(move || {
            let file = std::fs::File::options().create(true).append(true).open(&log)?;
            let mut command = Command::new(&path);
            command
                .arg("run")
                .arg("--config")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(file.try_clone()?)
                .stderr(file);
            Ok(command)
        })?);
        let socket = self.socket.clone();
        wait_for("socket of the node manager", || {
            std::os::unix::net::UnixStream::connect(&socket).ok().map(drop)
        })
    }

    /// Ends the node manager and lets it lie.
    pub fn stop_supervising(&mut self) {
        self.supervisor = None;
    }

    /// How often the supervisor started it.
    #[must_use]
    pub fn starts(&self) -> u32 {
        self.supervisor.as_ref().map_or(0, Supervisor::starts)
    }

    /// The node manager's process.
    ///
    /// # Panics
    /// When it is not running.
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("the node manager was started")
    }

    /// Ends the node manager by SIGKILL; its slivers go on.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// The next node manager aborts at this point (debug builds only); `None` takes it back.
    pub fn crash_at(&mut self, point: Option<&str>) {
        self.crash_at = point.map(str::to_owned);
    }

    /// Starts a command as a sliver, as a unit file would, and waits until it is in its cgroup.
    ///
    /// # Errors
    /// When it is refused or never appears.
    pub fn exec(&mut self, slice: &str, command: &[&str]) -> Result<u32> {
        let child = self
            .command(slice, command)?
            .stdin(Stdio::null())
            .spawn()
            .context("redbutton-nodemgr exec")?;
        let pid = child.id();
        self.started.push(child);
        wait_for(&format!("process {pid} in {slice}"), || {
            self.processes(slice).contains(&pid).then_some(())
        })?;
        Ok(pid)
    }

    /// Tries to start a command as a sliver; returns its exit code and what it said.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn try_exec(&self, slice: &str, command: &[&str]) -> Result<(i32, String)> {
        let output = self.command(slice, command)?.stdin(Stdio::null()).output()?;
        Ok((
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }

    fn command(&self, slice: &str, command: &[&str]) -> Result<Command> {
        let mut exec = Command::new(self.program()?);
        exec.args(["exec", "--socket"])
            .arg(&self.socket)
            .arg(slice)
            .arg("--")
            .args(command);
        Ok(exec)
    }

    /// The cgroup of a slice on this node.
    #[must_use]
    pub fn cgroup(&self, slice: &str) -> PathBuf {
        self.mount.join(&self.root).join(slice)
    }

    /// Processes of a slice on this node, as the kernel lists them.
    #[must_use]
    pub fn processes(&self, slice: &str) -> Vec<u32> {
        let text = std::fs::read_to_string(self.cgroup(slice).join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    pub(super) fn show_tail(&self) {
        if let Some(daemon) = &self.daemon {
            daemon.show_tail();
        }
        if self.supervisor.is_some() {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("--- {}\n{tail}", self.log.display());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.daemon = None;
        self.supervisor = None;
        let root = self.mount.join(&self.root);
        let _ = std::fs::write(root.join("cgroup.kill"), "1");
        for child in &mut self.started {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = wait_for("empty slivers' root", || {
            let events = std::fs::read_to_string(root.join("cgroup.events")).unwrap_or_default();
            (!events.contains("populated 1")).then_some(())
        });
        remove(&root);
    }
}

/// Removes a cgroup and all below it.
fn remove(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(folder);
}
