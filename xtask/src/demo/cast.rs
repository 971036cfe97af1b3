//! Who plays: daemons that are started, watched and stopped, and the slivers that run away.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::stage::{Stage, wait_for};

/// A daemon of ours; killed when dropped, so that a failing story hangs on nothing.
pub(super) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Shows the line and starts it, with its output in `NAME.log`.
    pub(super) fn start(stage: &Stage, name: &str, line: &str) -> Result<Self> {
        stage.typed("root", line);
        let log = stage.folder().join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let child = stage
            .command("root", line)?
            .stdout(file.try_clone().context("cannot share the log")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Fails with the end of its log when it has ended already.
    pub(super) fn must_live(&mut self) -> Result<()> {
        match self
            .child
            .try_wait()
            .with_context(|| format!("cannot look at {}", self.name))?
        {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}\n{}", self.name, self.last_words()),
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// SIGTERM, and its end within 10 s.
    pub(super) fn stop(mut self) -> Result<()> {
        self.must_live()?;
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("a process id beyond i32")?);
        kill(pid, Signal::SIGTERM).with_context(|| format!("cannot stop {}", self.name))?;
        self.ended()
    }

    /// Its end within 10 s of a SIGTERM.
    fn ended(mut self) -> Result<()> {
        let cap = Instant::now() + Duration::from_secs(10);
        while Instant::now() < cap {
            if let Some(status) = self.child.try_wait().context("cannot wait")? {
                if !status.success() {
                    bail!("{} did not end well: {status}\n{}", self.name, self.last_words());
                }
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!(
            "{} did not end within 10 s of SIGTERM\n{}",
            self.name,
            self.last_words()
        )
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // The isolation's end kills it too; this only comes first.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// One node of the story: a manager with a slivers' root of its own.
pub(super) struct Node {
    pub(super) name: &'static str,
    root: PathBuf,
    manager: Option<Daemon>,
    /// The `exec` processes that became slivers.
    slivers: Vec<Daemon>,
}

impl Node {
    /// Writes its configuration; everything of the node is in `NAME/`.
    pub(super) fn prepare(stage: &Stage, mount: &Path, name: &'static str) -> Result<Self> {
        let home = stage.folder().join(name);
        fs::create_dir(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let slivers_root = format!("redbutton-{name}.slice");
        let (bundle, state, socket) = (home.join("bundle"), home.join("state"), home.join("nodemgr.sock"));
        let text = format!(
            "bundle = {bundle:?}\nstate_dir = {state:?}\nsocket = {socket:?}\nslivers_root = {slivers_root:?}\n"
        );
        fs::write(home.join("nodemgr.toml"), text).context("cannot write nodemgr.toml")?;
        Ok(Self {
            name,
            root: mount.join(slivers_root),
            manager: None,
            slivers: Vec::new(),
        })
    }

    /// Starts its manager.
    pub(super) fn start(&mut self, stage: &Stage) -> Result<()> {
        let line = format!("redbutton-nodemgr run --config {}/nodemgr.toml", self.name);
        self.manager = Some(Daemon::start(stage, self.name, &line)?);
        Ok(())
    }

    /// Stops its manager; slivers run on.
    fn stop(&mut self) -> Result<()> {
        self.manager.take().map_or(Ok(()), Daemon::stop)
    }

    /// The process that a person would send SIGTERM to.
    pub(super) fn manager_pid(&self) -> Option<u32> {
        self.manager.as_ref().map(|manager| manager.child.id())
    }

    /// Somebody sent it SIGTERM: waits for its end.
    pub(super) fn ended(&mut self) -> Result<()> {
        self.manager.take().map_or(Ok(()), Daemon::ended)
    }

    /// Fails when its manager has ended.
    pub(super) fn must_live(&mut self) -> Result<()> {
        self.manager.as_mut().map_or(Ok(()), Daemon::must_live)
    }

    /// Starts a sliver, as the slice's unit would.
    pub(super) fn exec(&mut self, stage: &Stage, slice: &str, command: &str) -> Result<()> {
        let line = format!(
            "redbutton-nodemgr exec --config {}/nodemgr.toml {slice} -- {command}",
            self.name
        );
        self.slivers
            .push(Daemon::start(stage, &format!("{}-{slice}", self.name), &line)?);
        Ok(())
    }

    /// How many processes this slice has here, as the kernel says.
    pub(super) fn processes(&self, slice: &str) -> Result<usize> {
        let mut count = 0;
        let mut folders = vec![self.root.join(slice)];
        while let Some(folder) = folders.pop() {
            match fs::read_to_string(folder.join("cgroup.procs")) {
                Ok(text) => count += text.lines().count(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(|| format!("cannot read {}", folder.display())),
            }
            for entry in fs::read_dir(&folder)
                .with_context(|| format!("cannot list {}", folder.display()))?
                .flatten()
            {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                }
            }
        }
        Ok(count)
    }

    /// Waits until the slice has this many processes here.
    pub(super) fn wait_for_processes(&self, slice: &str, wanted: usize) -> Result<()> {
        let mut seen = 0;
        wait_for(&format!("{wanted} processes of {slice} on {}", self.name), || {
            seen = self.processes(slice)?;
            Ok((seen == wanted).then_some(()))
        })
        .with_context(|| format!("{seen} processes"))
    }

    /// Waits for the dead slivers, stops the manager and removes the node's empty cgroups.
    pub(super) fn leave(mut self) -> Result<()> {
        self.stop()?;
        for sliver in &mut self.slivers {
            let name = sliver.name.clone();
            wait_for(&format!("the end of {name}"), || {
                sliver
                    .child
                    .try_wait()
                    .with_context(|| format!("cannot look at {name}"))
            })?;
        }
        remove(&self.root)
    }
}

fn remove(cgroup: &Path) -> Result<()> {
    let entries = match fs::read_dir(cgroup) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", cgroup.display())),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
        .with_context(|| format!("cannot remove {}: something lives in it", cgroup.display()))
}
