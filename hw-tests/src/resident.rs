//! The lab that a person plays with: `cargo xtask lab up N`.
//!
//! ```text
//!   control socket ◀── lab status | break NODE FAULT | mend NODE     one line of JSON words in, text lines out,
//!                                                                    the last of them `exit CODE`
//!   enter          ◀── lab shell: a script that goes into the lab's network, with PATH, bundle and ssh set
//! ```
//! It runs as root inside the isolation of `cargo xtask`. SIGTERM ends it and all it started. Requests are served one
//! after the other: it is one person's toy.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::console::{self, Front};
use lab::power::model::Restore;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::fleet::program;
use crate::lab::fault::Fault;
use crate::lab::power::{self, PASSWORD, Power, REDFISH};
use crate::lab::{Lab, Spec};

/// The sites, and how their nodes' names go on.
const SITES: [&str; 2] = ["princeton", "berkeley"];
/// The slice that faults are done by.
const RUNAWAY: &str = "princeton_runaway";
/// A slice that minds its own business.
const QUIET: &str = "berkeley_quiet";
/// The first console's port; node N has this + N.
const CONSOLES: u16 = 2000;
/// How long a client may take to say what it wants.
const ASK: Duration = Duration::from_secs(10);

/// A lab and what stands around it.
struct Resident {
    _consoles: Vec<Front>,
    /// Before the lab: its devices ask the guests.
    _power: Option<Power>,
    lab: Lab,
}

/// Makes a lab of this many nodes and serves its control socket until the process is ended.
///
/// # Errors
/// When it cannot be made.
pub fn serve(folder: &Path, nodes: u8) -> Result<u8> {
    if let Some(reason) = crate::lab::unable() {
        bail!("no lab can run here: {reason}");
    }
    let started = Instant::now();
    own_mounts()?;
    let signals = Signals::catch()?;
    println!("lab: a controller, two sites, {nodes} nodes");
    let resident = Resident::start(folder, nodes, started)?;
    let control = UnixListener::bind(folder.join("control")).context("cannot make the control socket")?;
    resident.write_enter(folder)?;
    println!("lab: ready after {:.1} s\n", started.elapsed().as_secs_f64());
    println!("{}", resident.instructions()?);
    println!("lab: up");
    while signals.wait_for(&control)? {
        let served = control
            .accept()
            .map_err(Into::into)
            .and_then(|(client, _)| resident.answer(client));
        if let Err(error) = served {
            println!("lab: a request went wrong: {error:#}");
        }
    }
    println!("lab: going down");
    Ok(0)
}

/// What ends us, read instead of obeyed, so that everything is dropped in order. Children start with a clean mask: the
/// standard library sees to that.
struct Signals(SignalFd);

impl Signals {
    /// Before the first thread: each inherits the mask.
    fn catch() -> Result<Self> {
        let mask: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
            .into_iter()
            .collect();
        mask.thread_block().context("cannot block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(
            SignalFd::with_flags(&mask, flags).context("cannot read signals")?,
        ))
    }

    /// Waits; whether somebody asks, and not a signal came.
    fn wait_for(&self, control: &UnixListener) -> Result<bool> {
        loop {
            let mut both = [
                PollFd::new(self.0.as_fd(), PollFlags::POLLIN),
                PollFd::new(control.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut both, PollTimeout::NONE) {
                Ok(_) if both[0].any() == Some(true) => return Ok(false),
                Ok(_) if both[1].any() == Some(true) => return Ok(true),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot wait for requests"),
            }
        }
    }
}

/// Asks the lab in `folder`; prints what it says and returns its exit code.
///
/// # Errors
/// When it does not answer.
pub fn ask(folder: &Path, words: &[&str]) -> Result<u8> {
    let path = folder.join("control");
    let mut stream = UnixStream::connect(&path)
        .with_context(|| format!("the lab does not answer at {}", path.display()))?;
    writeln!(stream, "{}", serde_json::to_string(words)?)?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if let Some(code) = line.strip_prefix("exit ") {
            return code.parse().with_context(|| format!("exit code {code:?}"));
        }
        // Whoever reads may have seen enough.
        writeln!(std::io::stdout(), "{line}")?;
    }
    bail!("the lab went away in the middle of its answer")
}

impl Resident {
    fn start(folder: &Path, nodes: u8, started: Instant) -> Result<Self> {
        let mut lab = Lab::start(&SITES)?;
        for slice in [RUNAWAY, QUIET] {
            lab.fleet.slice(slice)?;
        }
        lab.fleet.person("pat", &["--role", "pi", "--site", SITES[0]])?;
        lab.fleet
            .person("adam", &["--role", "site-admin", "--site", SITES[1]])?;
        for number in 0..usize::from(nodes) {
            let spec = Spec {
                mirror: true,
                ..Spec::small(&format!("planet{}", number + 1), SITES[number % SITES.len()])
            };
            lab.add(&spec)?;
            println!(
                "lab: {} starts, {:.1} s",
                spec.name,
                started.elapsed().as_secs_f64()
            );
        }
        let since = || started.elapsed().as_secs_f64();
        for node in lab.nodes() {
            node.ready()?;
            println!("lab: {} has booted, {:.1} s", node.name(), since());
        }
        for index in 0..lab.nodes().len() {
            lab.ready(index)?;
        }
        println!("lab: all are attached, {:.1} s", since());
        let mut consoles = Vec::new();
        for node in lab.nodes() {
            node.exec(QUIET, "sleep 1000000")?;
        }
        for index in 0..lab.nodes().len() {
            let listener = lab
                .net()
                .enter(|| TcpListener::bind((lab::net::HOST, port(index))))??;
            consoles.push(console::telnet(lab.at(index).console(), listener)?);
        }
        let power = match power::unable() {
            Some(reason) => {
                println!("lab: no BMCs and no power strips: {reason}");
                None
            }
            None => Some(Power::start(&lab, &SITES, Restore::LastState)?),
        };
        println!("lab: consoles, BMCs and power strips answer, {:.1} s", since());
        write_hosts(&lab, folder)?;
        Ok(Self {
            _consoles: consoles,
            _power: power,
            lab,
        })
    }

    fn answer(&self, client: UnixStream) -> Result<()> {
        client.set_read_timeout(Some(ASK))?;
        let mut line = String::new();
        BufReader::new(client.try_clone()?).read_line(&mut line)?;
        let words: Vec<String> = serde_json::from_str(&line).context("a request is a JSON list of words")?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut client = client;
        match self.obey(&words) {
            Ok(text) => write!(client, "{}\nexit 0\n", text.trim_end())?,
            Err(error) => write!(client, "{error:#}\nexit 1\n")?,
        }
        Ok(())
    }

    fn obey(&self, words: &[&str]) -> Result<String> {
        let index = |name: &str| {
            let names = || {
                self.lab
                    .nodes()
                    .iter()
                    .map(|node| node.name())
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            self.lab
                .find(name)
                .with_context(|| format!("no node is called {name:?}; there are {}", names()))
        };
        match words {
            ["status"] => Ok(format!("{}\n{}", self.table()?, self.instructions()?)),
            ["break", node, fault] => {
                let done = fault.parse::<Fault>()?.commit(&self.lab, index(node)?, RUNAWAY)?;
                Ok(format!("{done}\nnext: {}", next(fault.parse()?, node)))
            }
            ["mend", node] => {
                self.lab.mend(index(node)?)?;
                Ok(format!(
                    "{node} has fresh disks, its cable and its power again, and is attached"
                ))
            }
            ["power", node, verb] => self.power(index(node)?, verb),
            _ => bail!("the lab knows status, break NODE FAULT, mend NODE, power NODE on|off|reset"),
        }
    }

    fn power(&self, index: usize, verb: &str) -> Result<String> {
        let node = self.lab.at(index);
        match verb {
            "on" => node.guest().power_on()?,
            "off" => node.guest().power_off()?,
            "reset" => node.guest().reset()?,
            _ => bail!("power on, off or reset, not {verb:?}"),
        }
        let state = if node.guest().is_on()? { "on" } else { "off" };
        Ok(format!("{} is {state}", node.name()))
    }

    fn table(&self) -> Result<String> {
        let mut text = format!(
            "{:<10} {:<10} {:<14} {:<6} {:<6} last words of its console\n",
            "node", "site", "address", "power", "pings"
        );
        for (index, node) in self.lab.nodes().iter().enumerate() {
            let tail = node.console().tail(1);
            writeln!(
                text,
                "{:<10} {:<10} {:<14} {:<6} {:<6} {:.40}",
                node.name(),
                node.site(),
                node.ip().to_string(),
                if node.guest().is_on()? { "on" } else { "off" },
                if self.lab.pings(index, 1)? { "yes" } else { "no" },
                tail.replace("\\u{1b}[6n", "").trim(),
            )?;
        }
        Ok(text)
    }

    fn instructions(&self) -> Result<String> {
        let node = self.lab.nodes().first().context("a lab without nodes")?;
        let (name, host) = (node.name(), lab::net::HOST);
        Ok(format!(
            "Go in:            cargo xtask lab shell          (then the lines below without `cargo …`; exit leaves)\n\
             See the fleet:    redbutton node ls\n\
             Log in:           ssh {name}                    (root; the same for every node)\n\
             Its console:      busybox telnet {host} {console}     (leave with Ctrl-] and e)\n\
             Its power:        ipmitool -I lanplus -C 3 -H {name}-bmc -U operator -E chassis power status   (cycle, sol activate)\n\
             \x20                 curl -su operator:$IPMI_PASSWORD http://{name}-bmc:{REDFISH}/redfish/v1/Systems\n\
             \x20                 busybox telnet pdu-princeton        (operator, the same password; outlet 1 is {name})\n\
             \x20                 snmpwalk -v1 -c operator -On pdu-berkeley .1.3.6.1.4.1.318.1.1.12.3.5.1.1.4\n\
             Break it:         cargo xtask lab break {name} forkbomb\n\
             \x20                 (also fds, memory, cpu, disk, panic, hang, network, raid, fsck)\n\
             Press the button: redbutton kill-slice {RUNAWAY} --reason 'runs away'\n\
             \x20                 redbutton slice release {RUNAWAY} --reason 'fixed' lets it run again\n\
             Others:           REDBUTTON_BUNDLE=$LAB/pat.bundle (PI of princeton), $LAB/adam.bundle (site admin of berkeley)\n\
             What happens:     cargo xtask lab status\n\
             Make it whole:    cargo xtask lab mend {name}\n\
             The end:          cargo xtask lab down\n",
            console = port(0),
        ))
    }

    /// The script that `lab shell` runs: it goes on into the lab's network.
    fn write_enter(&self, folder: &Path) -> Result<()> {
        let programs = program("redbutton")?;
        let programs = programs.parent().context("a program without a folder")?;
        let bin = folder.join("bin");
        fs::create_dir_all(&bin)?;
        let ssh = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -i {key} {options} -l root \"$@\"\n",
            key = self.lab.key().display(),
            options = crate::lab::SSH_OPTIONS
                .iter()
                .map(|option| format!("-o {option}"))
                .collect::<Vec<_>>()
                .join(" "),
        );
        script(&bin.join("ssh"), &ssh)?;
        let enter = format!(
            "#!/bin/sh\n\
             # Goes into the lab's network; with words it runs them, without it is a shell.\n\
             export PATH={bin}:{programs}:$PATH LAB={lab}\n\
             export REDBUTTON_BUNDLE={bundle} IPMI_PASSWORD={PASSWORD} PS1='lab# '\n\
             [ $# -gt 0 ] || set -- bash --norc -i\n\
             exec nsenter --mount=/proc/{us}/ns/mnt --net={network} --wdns=/ -- \"$@\"\n",
            bin = bin.display(),
            us = std::process::id(),
            // A name in /run/netns would stay behind when the namespaces die.
            network = self.lab.net().netns_path().display(),
            programs = programs.display(),
            lab = self.lab.fleet.path("").display(),
            bundle = self.lab.fleet.bundle("alice").display(),
        );
        script(&folder.join("enter"), &enter)
    }
}

/// Names for addresses, in the mounts of this process alone.
fn write_hosts(lab: &Lab, folder: &Path) -> Result<()> {
    let mut text = format!("127.0.0.1 localhost\n{} centre\n", lab::net::HOST);
    for (index, node) in lab.nodes().iter().enumerate() {
        writeln!(text, "{} {}", node.ip(), node.name())?;
        writeln!(text, "{} {}-bmc", power::bmc(index), node.name())?;
    }
    for (number, site) in SITES.iter().enumerate() {
        writeln!(text, "{} pdu-{site}", power::strip(number))?;
    }
    let hosts = folder.join("hosts");
    fs::write(&hosts, text)?;
    mount(
        Some(&hosts),
        "/etc/hosts",
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .context("cannot name the nodes")
}

/// Leaves the mounts that others see, so that `/etc/hosts` can be ours.
fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot have mounts of our own")?;
    let nothing: Option<&str> = None;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )
    .context("cannot keep mounts apart")
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn port(index: usize) -> u16 {
    CONSOLES + 1 + u16::try_from(index).unwrap_or(u16::MAX - CONSOLES - 1)
}

/// What to try next, a line.
fn next(fault: Fault, node: &str) -> String {
    let press = format!("redbutton kill-slice {RUNAWAY} --reason 'runs away'");
    match fault {
        Fault::Fds | Fault::Forkbomb | Fault::Memory | Fault::Cpu => {
            format!("`ssh {node}`, then press the button: {press}")
        }
        Fault::Disk => format!("`redbutton node show {node}`, then `cargo xtask lab mend {node}`"),
        Fault::Panic | Fault::Raid | Fault::Fsck => {
            format!("look at its console, then `cargo xtask lab mend {node}`")
        }
        Fault::Hang | Fault::Network => {
            format!("`redbutton node ls` shows it away in a few seconds; then `cargo xtask lab mend {node}`")
        }
    }
}
