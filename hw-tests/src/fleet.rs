//! A fleet as a person would set it up: `redbutton-controller init` and `serve`, `redbutton` to register sites and
//! slices, `redbutton-controller issue` for bundles, and a `redbutton-nodemgr` for each node, all with their real
//! binaries, in one temporary folder, on this machine's real cgroups below a root of their own.
//!
//! Everything is waited for by condition, with a cap. Dropping a [`Fleet`] ends what it started, by id, and removes
//! its cgroups, also after a panic; a panic shows the tail of every daemon's log.

mod node;
mod place;
mod process;
mod supervisor;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub use node::Node;
pub use place::Place;
pub use process::Daemon;
pub use supervisor::Supervisor;

/// How long any single wait may take.
pub const CAP: Duration = Duration::from_secs(30);

/// A controller, its people, and its nodes.
pub struct Fleet {
    folder: tempfile::TempDir,
    place: Place,
    controller: Option<Daemon>,
    /// Environment of the next controller: crash points.
    crash_at: Option<String>,
    nodes: Vec<Node>,
    programs: std::collections::BTreeMap<&'static str, PathBuf>,
}

/// Why the tests of this machine cannot make a fleet; `None` when they can. Print it after `skipped: `.
#[must_use]
pub fn unable() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("slivers need root".into());
    }
    mount().err().map(|error| format!("{error:#}"))
}

fn mount() -> Result<PathBuf> {
    let mount = nodemgr::cgroup::Mount::discover(Path::new("/proc/self/mountinfo"))?;
    Ok(mount.root().to_owned())
}

/// A program of the workspace's own build, beside the running one.
///
/// # Errors
/// When it has not been built.
pub fn program(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe().context("own path")?;
    let found = me
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: run `cargo build --workspace --bins`"))
}

/// Waits until `ready` gives something, at most [`CAP`].
///
/// # Errors
/// When it never does; the text names `what`.
pub fn wait_for<T>(what: &str, ready: impl FnMut() -> Option<T>) -> Result<T> {
    wait_for_at_most(CAP, what, ready)
}

/// The same with another cap.
///
/// # Errors
/// When it never does; the text names `what`.
pub fn wait_for_at_most<T>(cap: Duration, what: &str, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + cap;
    loop {
        if let Some(value) = ready() {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {cap:?}");
        }
        // Conditions are read from files and programs: nothing to block on.
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

impl Fleet {
    /// A controller with the support people `alice` and `bob`, and no node yet. Silent links die within 2 s.
    ///
    /// # Errors
    /// When a step fails; the text has the program's own words.
    pub fn start() -> Result<Self> {
        Self::start_with("[nodes]\nkeepalive_interval_ms = 1000\nkeepalive_timeout_ms = 1000\n")
    }

    /// The same with `more` at the end of the controller's configuration.
    ///
    /// # Errors
    /// When a step fails; the text has the program's own words.
    pub fn start_with(more: &str) -> Result<Self> {
        Self::start_at(Place::here()?, more)
    }

    /// The same with the controller and its people somewhere else.
    ///
    /// # Errors
    /// When a step fails; the text has the program's own words.
    pub fn start_at(place: Place, more: &str) -> Result<Self> {
        Self::start_of(place, more, std::collections::BTreeMap::new())
    }

    /// The same with programs of another build where they are named.
    ///
    /// # Errors
    /// When a step fails; the text has the program's own words.
    pub fn start_of(
        place: Place,
        more: &str,
        programs: std::collections::BTreeMap<&'static str, PathBuf>,
    ) -> Result<Self> {
        let mut fleet = Self {
            folder: tempfile::Builder::new().prefix("redbutton-fleet-").tempdir()?,
            place,
            controller: None,
            crash_at: None,
            nodes: Vec::new(),
            programs,
        };
        let (people, daemons) = (fleet.people(), fleet.daemons());
        fleet.admin(&[
            "init",
            "--bundles",
            "--state",
            &fleet.state().display().to_string(),
            "--name",
            fleet.place.host(),
            "--name",
            "localhost",
            "--support",
            "alice",
            "--support",
            "bob",
            "--people",
            &people,
            "--daemons",
            &daemons,
        ])?;
        let config = format!(
            "state = {:?}\n[people]\nlisten = {people:?}\n[daemons]\nlisten = {daemons:?}\n{more}",
            fleet.state()
        );
        std::fs::write(fleet.path("controller.toml"), config)?;
        fleet.start_controller()?;
        Ok(fleet)
    }

    /// The fleet's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The controller's state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("controller")
    }

    /// Where people dial.
    #[must_use]
    pub fn people(&self) -> String {
        self.place.people()
    }

    /// Where daemons dial.
    #[must_use]
    pub fn daemons(&self) -> String {
        self.place.daemons()
    }

    /// The controller's process.
    ///
    /// # Panics
    /// When it is not running.
    pub fn controller(&mut self) -> &mut Daemon {
        self.controller.as_mut().expect("the controller was started")
    }

    /// Starts the controller (again) and waits until it takes connections.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_controller(&mut self) -> Result<()> {
        let mut command = Command::new(self.program("redbutton-controller")?);
        command
            .arg("serve")
            .arg("--config")
            .arg(self.path("controller.toml"));
        if let Some(point) = &self.crash_at {
            command.env("REDBUTTON_CRASH_AT", point);
        }
        let log = self.path("controller.log");
        let mut daemon = self
            .place
            .inside(|| Daemon::start("controller", &mut command, &log))??;
        for address in [self.people(), self.daemons()] {
            daemon.wait_for(&format!("controller at {address}"), || {
                let stream = self
                    .place
                    .inside(|| std::net::TcpStream::connect(&address))
                    .ok()?;
                stream.ok().map(drop)
            })?;
        }
        self.controller = Some(daemon);
        Ok(())
    }

    /// The last lines that the controller said.
    #[must_use]
    pub fn last_words(&self) -> String {
        self.controller.as_ref().map(Daemon::tail).unwrap_or_default()
    }

    /// Ends the controller as its service manager would.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop_controller(&mut self) -> Result<()> {
        self.controller.take().map_or(Ok(()), Daemon::stop)
    }

    /// Ends the controller by SIGKILL.
    pub fn kill_controller(&mut self) {
        self.controller = None;
    }

    /// The next controller aborts at this point (debug builds only); `None` takes it back.
    pub fn crash_controller_at(&mut self, point: Option<&str>) {
        self.crash_at = point.map(str::to_owned);
    }

    /// `redbutton-controller …` as root on its machine.
    ///
    /// # Errors
    /// When it fails; the text has its own words.
    pub fn admin(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.program("redbutton-controller")?);
        let output = self.place.inside(|| command.args(arguments).output())??;
        succeeded("redbutton-controller", arguments, &output)
    }

    /// `redbutton …` as this person, whatever comes of it.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn redbutton(&self, person: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.program("redbutton")?);
        command
            .env("REDBUTTON_BUNDLE", self.bundle(person))
            .args(arguments)
            .stdin(std::process::Stdio::null());
        self.place
            .inside(|| command.output())?
            .context("running redbutton")
    }

    /// `redbutton …` as this person, which must succeed; returns stdout.
    ///
    /// # Errors
    /// When it exits other than 0; the text has its own words.
    pub fn ask(&self, person: &str, arguments: &[&str]) -> Result<String> {
        succeeded("redbutton", arguments, &self.redbutton(person, arguments)?)
    }

    /// `redbutton --json …` as this person: its exit code and its document.
    ///
    /// # Errors
    /// When it says no JSON.
    pub fn json(&self, person: &str, arguments: &[&str]) -> Result<(i32, serde_json::Value)> {
        let output = self.redbutton(person, &[&["--json"], arguments].concat())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        let value = serde_json::from_str(&text)
            .or_else(|_| serde_json::from_str(error.lines().last().unwrap_or_default()))
            .with_context(|| format!("redbutton {arguments:?} said {text:?}, {error:?}"))?;
        Ok((output.status.code().unwrap_or(-1), value))
    }

    /// Where this person's bundle is.
    #[must_use]
    pub fn bundle(&self, person: &str) -> PathBuf {
        match person {
            "alice" | "bob" => self.state().join(format!("bundles/{person}.bundle")),
            _ => self.path(&format!("{person}.bundle")),
        }
    }

    /// Registers a site.
    ///
    /// # Errors
    /// When the controller refuses.
    pub fn site(&self, name: &str) -> Result<()> {
        self.ask(
            "alice",
            &[
                "site",
                "add",
                name,
                "--abuse-contact",
                &format!("abuse@{name}.example"),
            ],
        )
        .map(drop)
    }

    /// Registers a slice.
    ///
    /// # Errors
    /// When the controller refuses.
    pub fn slice(&self, name: &str) -> Result<()> {
        self.ask("alice", &["slice", "add", name, "--contact", "pi@example.org"])
            .map(drop)
    }

    /// Registers a person with a role (`--role pi --site princeton`) and makes their bundle.
    ///
    /// # Errors
    /// When the controller refuses.
    pub fn person(&self, name: &str, role: &[&str]) -> Result<()> {
        self.ask("alice", &[&["people", "add", name], role].concat())?;
        let (dir, out) = (
            self.state().display().to_string(),
            self.bundle(name).display().to_string(),
        );
        self.admin(&["issue", "person", name, "--state", &dir, "--out", &out])
            .map(drop)
    }

    /// Enrols a node, without starting anything on it; returns the path of its bundle.
    ///
    /// # Errors
    /// When `issue` fails.
    pub fn enrol(&self, name: &str, site: &str) -> Result<PathBuf> {
        let bundle = self.path(&format!("{name}.bundle"));
        let (dir, out) = (self.state().display().to_string(), bundle.display().to_string());
        self.admin(&[
            "issue", "node", name, "--site", site, "--state", &dir, "--out", &out,
        ])?;
        Ok(bundle)
    }

    /// Enrols a node and starts its node manager, on a slivers' root of its own; waits until it is attached.
    /// `more` is appended to its configuration. Returns its index.
    ///
    /// # Errors
    /// When a step fails.
    pub fn node(&mut self, name: &str, site: &str, more: &str) -> Result<usize> {
        let bundle = self.enrol(name, site)?;
        let mut node = Node::new(name, &mount()?, self.folder.path(), &bundle, more)?;
        if let Some(path) = self.programs.get("redbutton-nodemgr") {
            node.use_program(path.clone());
        }
        self.nodes.push(node);
        let index = self.nodes.len() - 1;
        self.nodes[index].start()?;
        self.attached(name)?;
        Ok(index)
    }

    /// The same under a supervisor that starts its node manager again whenever it ends, so that a rollout may change it.
    ///
    /// # Errors
    /// When a step fails.
    pub fn supervised_node(&mut self, name: &str, site: &str) -> Result<usize> {
        let bundle = self.enrol(name, site)?;
        let more = "updates = \"on\"\n";
        let node = Node::new(name, &mount()?, self.folder.path(), &bundle, more)?;
        self.nodes.push(node);
        let index = self.nodes.len() - 1;
        self.nodes[index].supervise()?;
        self.attached(name)?;
        Ok(index)
    }

    /// Programs of another build instead of the workspace's own: the controller's, the nodes' or the people's.
    pub fn use_program(&mut self, name: &'static str, path: PathBuf) {
        self.programs.insert(name, path);
    }

    fn program(&self, name: &'static str) -> Result<PathBuf> {
        match self.programs.get(name) {
            Some(path) => Ok(path.clone()),
            None => program(name),
        }
    }

    /// Where its daemons log.
    #[must_use]
    pub fn logs(&self) -> Vec<PathBuf> {
        let nodes = self.nodes.iter().map(|node| node.log().to_owned());
        std::iter::once(self.path("controller.log"))
            .chain(nodes)
            .collect()
    }

    /// A node by its index.
    pub fn at(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }

    /// Waits until the controller says that the node is attached.
    ///
    /// # Errors
    /// When it never is.
    pub fn attached(&self, name: &str) -> Result<()> {
        self.attachment(name, true)
    }

    /// Waits until the controller says that the node is away.
    ///
    /// # Errors
    /// When it stays.
    pub fn away(&self, name: &str) -> Result<()> {
        self.attachment(name, false)
    }

    fn attachment(&self, name: &str, wanted: bool) -> Result<()> {
        wait_for(&format!("node {name} attached = {wanted}"), || {
            let (code, value) = self.json("alice", &["node", "show", name]).ok()?;
            let attached = value
                .pointer("/node/attached")
                .or_else(|| value.get("attached"))?
                .as_bool()?;
            (code == 0 && attached == wanted).then_some(())
        })
    }
}

fn succeeded(program: &str, arguments: &[&str], output: &Output) -> Result<String> {
    ensure!(
        output.status.success(),
        "{program} {} exited with {:?}: {}{}",
        arguments.join(" "),
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(controller) = &self.controller {
                controller.show_tail();
            }
            self.nodes.iter().for_each(Node::show_tail);
        }
    }
}
