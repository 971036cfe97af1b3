//! `cargo xtask lab …`: nodes to play with and to break, on this machine and out of its reach.
//!
//! ```text
//!   lab up N ── starts ──▶ lab-keeper (own session) ── isolate ──▶ process 1 ── redbutton-lab serve N
//!   lab shell ── nsenter ─────────────────────────────────────────────▲            │ control socket
//!   lab break NODE FAULT ──────────────────────────────────────────────────────────┘
//!   lab down ── SIGTERM ──▶ keeper: the namespaces die, and every guest, daemon and cgroup with them
//! ```
//! What is up is written in one folder, [`FOLDER`]; its files carry the keeper's process id and start time, so that
//! a stale folder of a machine that rebooted is no lab. `redbutton-lab` (of `hw-tests`) does everything else.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::isolate::{self, Job, NeedsRoot};
use crate::workspace::{Workspace, build_programs};
use crate::{run, tools};

/// Where a lab that is up keeps its log, its sockets and who it is. Short: a unix socket's path has 107 bytes.
const FOLDER: &str = "/run/redbutton-lab";

/// The line that ends the instructions of a lab that is up.
const UP: &str = "lab: up";

/// How long a lab may take to come up: images are there already, and ten guests need half a minute.
const START: Duration = Duration::from_secs(600);

/// How long it may live; somebody forgot it.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// What lab guests, their network and their power need of Debian; the images' own packages are fetched, not installed.
pub(crate) const PACKAGES: &[&str] = &[
    "qemu-system-x86",
    "qemu-utils",
    "binutils",
    "busybox-static",
    "curl",
    "debootstrap",
    "e2fsprogs",
    "iproute2",
    "ipmitool",
    "kmod",
    "openipmi",
    "openssh-client",
    "perl-base",
    "powerman",
    "snmp",
    "snmpd",
];

/// What a lab starts, besides the guests.
pub(crate) const PROGRAMS: &[&str] = &[
    "redbutton",
    "redbutton-controller",
    "redbutton-nodemgr",
    "redbutton-lab",
    "lab-hog",
];

/// A lab of this machine.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Start N nodes at two sites with a controller, consoles and PCUs, and say how to use them
    Up {
        /// How many nodes, 1 to 20
        #[arg(value_parser = clap::value_parser!(u8).range(1..=20))]
        nodes: u8,
    },
    /// Take it down; nothing is left behind
    Down,
    /// Say again how to use it, and what its nodes do
    Status,
    /// A shell inside, or one command: `lab shell -- redbutton node ls`
    Shell {
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Do one of the paper's faults to a node: fds, forkbomb, memory, cpu, disk, panic, hang, network, raid, fsck
    Break { node: String, fault: String },
    /// Make a node whole again: heals its network, gives it fresh disks, and power-cycles it
    Mend { node: String },
    /// Build or find the guests' images; done by `test` and `up` as well
    Images {
        /// Also the full shape: Debian with systemd, OpenSSH and Podman
        #[arg(long)]
        full: bool,
    },
}

/// The keeper's own arguments.
#[derive(clap::Args)]
pub(crate) struct KeeperArguments {
    #[arg(long)]
    nodes: u8,
}

/// The subcommand.
pub(crate) fn main(arguments: &Arguments) -> Result<u8> {
    if !isolate::is_root() {
        return Err(
            NeedsRoot("a lab makes namespaces and guests; run: sudo -E cargo xtask lab …".into()).into(),
        );
    }
    match &arguments.command {
        Action::Up { nodes } => up(*nodes),
        Action::Down => down(),
        Action::Status => ask(&["status"]),
        Action::Shell { command } => shell(command),
        Action::Break { node, fault } => ask(&["break", node, fault]),
        Action::Mend { node } => ask(&["mend", node]),
        Action::Images { full } => {
            let workspace = Workspace::read()?;
            images(&workspace, *full)?;
            Ok(0)
        }
    }
}

/// Installs what guests need and makes their images, while there is a network.
pub(crate) fn images(workspace: &Workspace, full: bool) -> Result<()> {
    tools::debian(PACKAGES)?;
    tools::python_with_redfish(workspace)?;
    build_programs(&["lab-image"])?;
    let program = workspace.target.join("debug/lab-image");
    run::loudly(Command::new(&program).arg("small"))?;
    if full {
        run::loudly(Command::new(&program).arg("full"))?;
    }
    Ok(())
}

/// What programs that make a lab find in their environment: the Python that speaks Redfish.
pub(crate) fn environment(workspace: &Workspace) -> Vec<(String, OsString)> {
    let python = tools::python_with_redfish_path(workspace);
    vec![("REDBUTTON_LAB_PYTHON".into(), python.into())]
}

/// A file of the lab that is up.
fn file(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// The process that is the lab: its id and when it started, so that a recycled id is not taken for it.
fn keeper() -> Option<Pid> {
    let text = fs::read_to_string(file("keeper")).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    let pid = pid.parse().ok()?;
    (start_time(pid)? == started).then(|| Pid::from_raw(pid))
}

/// Field 22 of proc_pid_stat(5), start time in clock ticks. The name before it may hold anything, so count from its
/// closing bracket.
fn start_time(pid: i32) -> Option<String> {
    stat(pid, 22)
}

fn stat(pid: i32, field: usize) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(field - 3).map(str::to_owned)
}

fn running() -> Result<Pid> {
    keeper().context("no lab is up; start one: cargo xtask lab up 3")
}

fn up(nodes: u8) -> Result<u8> {
    if keeper().is_some() {
        bail!(
            "a lab is up already; see it with `cargo xtask lab status`, end it with `cargo xtask lab down`"
        );
    }
    let workspace = Workspace::read()?;
    images(&workspace, false)?;
    build_programs(PROGRAMS)?;
    match fs::remove_dir_all(FOLDER) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove the old {FOLDER}"));
        }
        _ => {}
    }
    fs::create_dir_all(FOLDER).with_context(|| format!("cannot make {FOLDER}"))?;
    let log = fs::File::create(file("log")).context("cannot make the lab's log")?;
    let mut child = Command::new(isolate::OURSELVES)
        .arg("lab-keeper")
        .arg("--nodes")
        .arg(nodes.to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share the lab's log")?)
        .stderr(log)
        .spawn()
        .context("cannot start the lab's keeper")?;
    let pid = i32::try_from(child.id()).context("a process id beyond i32")?;
    let started = start_time(pid).context("the lab's keeper is gone")?;
    fs::write(file("keeper"), format!("{pid} {started}\n")).context("cannot note the lab's keeper")?;

    let deadline = Instant::now() + START;
    let mut follow = Follow::open(&file("log"))?;
    loop {
        for line in follow.lines()? {
            if line == UP {
                return Ok(0);
            }
            println!("{line}");
        }
        if let Some(status) = child.try_wait().context("cannot look at the lab's keeper")? {
            follow.lines()?.iter().for_each(|line| println!("{line}"));
            bail!("the lab did not come up ({status}); everything it had started is gone");
        }
        if Instant::now() > deadline {
            down()?;
            bail!(
                "the lab was not up within {} and was taken down",
                run::duration(START)
            );
        }
        // A file that grows.
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// The keeper: runs the lab isolated until it is told to end.
pub(crate) fn keep(arguments: &KeeperArguments) -> Result<u8> {
    nix::unistd::setsid()
        .context("cannot leave the terminal, which must not take the lab along when it closes")?;
    let workspace = Workspace::read()?;
    let job = Job {
        command: vec![
            workspace.target.join("debug/redbutton-lab").into(),
            "serve".into(),
            "--folder".into(),
            FOLDER.into(),
            arguments.nodes.to_string().into(),
        ],
        environment: environment(&workspace),
        folder: workspace.root,
        cap: LIFE,
    };
    let finished = isolate::run(&job, &mut |line| println!("{line}"))?;
    println!("{}", finished.complaint());
    Ok(u8::from(!matches!(
        finished.ended,
        isolate::Ended::Interrupted(_)
    )))
}

fn down() -> Result<u8> {
    let pid = running()?;
    kill(pid, Signal::SIGTERM).context("cannot end the lab")?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while keeper().is_some_and(|_| stat(pid.as_raw(), 3).is_some_and(|state| state != "Z")) {
        if Instant::now() > deadline {
            bail!("the lab's keeper, process {pid}, did not end within 30 s of SIGTERM");
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    fs::remove_dir_all(FOLDER).with_context(|| format!("cannot remove {FOLDER}"))?;
    println!("the lab is down: its guests, daemons, namespaces and files are gone");
    Ok(0)
}

/// Asks the lab through its control socket.
fn ask(words: &[&str]) -> Result<u8> {
    running()?;
    let workspace = Workspace::read()?;
    let status = Command::new(workspace.target.join("debug/redbutton-lab"))
        .args(["ask", "--folder", FOLDER])
        .args(words)
        .status()
        .context("cannot start redbutton-lab")?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1))
}

/// The one process that this one started: keeper → the half that left the namespaces → process 1.
fn child_of(parent: i32) -> Result<i32> {
    let children: Vec<i32> = fs::read_dir("/proc")
        .context("cannot list /proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid, 4).is_some_and(|of| of == parent.to_string()))
        .collect();
    match children.as_slice() {
        [one] => Ok(*one),
        others => bail!(
            "the lab's process {parent} has {} children, expected one",
            others.len()
        ),
    }
}

fn shell(command: &[String]) -> Result<u8> {
    let init = child_of(child_of(running()?.as_raw())?)?;
    let enter = file("enter");
    ensure!(enter.exists(), "the lab is not up yet; see {FOLDER}/log");
    // `enter` was written by the lab: it goes on into its network and sets PATH and the bundle.
    let status = Command::new("nsenter")
        .arg(format!("--target={init}"))
        .args([
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
            "--wdns=/root",
            "--",
        ])
        .arg(&enter)
        .args(command)
        .status()
        .context("cannot start nsenter (Debian package util-linux)")?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1))
}

/// A log that somebody else writes, read as it grows.
struct Follow {
    file: fs::File,
    at: u64,
    pending: String,
}

impl Follow {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            file: fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?,
            at: 0,
            pending: String::new(),
        })
    }

    /// The whole lines that came since the last call.
    fn lines(&mut self) -> Result<Vec<String>> {
        let mut bytes = Vec::new();
        self.file
            .seek(SeekFrom::Start(self.at))
            .context("cannot read the log")?;
        self.file.read_to_end(&mut bytes).context("cannot read the log")?;
        self.at += bytes.len() as u64;
        self.pending.push_str(&String::from_utf8_lossy(&bytes));
        let mut lines: Vec<String> = self.pending.split('\n').map(str::to_owned).collect();
        self.pending = lines.pop().unwrap_or_default();
        Ok(lines)
    }
}
