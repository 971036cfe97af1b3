//! From the command line to a listener that obeys, and the report about it.
//!
//! Order matters: the OOM score before anybody is forked, helpers before memory is locked and before real-time (both
//! would be theirs), privileges dropped last.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use pod_wire::{Action, Counter};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::args::Arguments;
use crate::config::{ConfigError, Keys, uuid};
use crate::gate::Gate;
use crate::listener::Listener;
use crate::prepare::{self, Assurance, Host, Step};
use crate::restart::Means;
use crate::state::{State, StateError};
use crate::{log, sys};

/// Between two looks after the host's settings.
const AGAIN: Duration = Duration::from_secs(60);
const CAP_SYS_BOOT: u32 = 22;
/// The file in the state directory that `check` and nodemgr read: a step a line, `name TAB assurance TAB reason`.
pub const PREPARED: &str = "prepared";

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The keys.
    #[error(transparent)]
    Keys(#[from] ConfigError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// Without it no packet could be meant for this boot.
    #[error("boot id cannot be read from {0}")]
    BootId(String),
    /// What the system said.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl RunError {
    /// As `--help` promises.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            RunError::Keys(_) => 64,
            RunError::State(_) | RunError::BootId(_) | RunError::Io { .. } => 1,
        }
    }
}

fn io(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Io { what, source }
}

fn boot_id() -> Result<[u8; 16], RunError> {
    // Not below --proc: there is one boot.
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    fs::read_to_string(PATH)
        .ok()
        .and_then(|text| uuid(text.trim()))
        .ok_or_else(|| RunError::BootId(PATH.to_owned()))
}

fn host(arguments: &Arguments) -> Host {
    Host {
        proc_root: arguments.places.proc_root.clone(),
        sys_root: "/sys".into(),
        was: arguments.state.join("was"),
    }
}

/// Listens. Returns only when it cannot begin, or when waiting for packets fails.
///
/// # Errors
/// See [`RunError`].
pub fn run(arguments: &Arguments) -> Result<(), RunError> {
    let keys = Keys::load(&arguments.keys)?;
    sys::keep_to_ourselves().map_err(io("keep core dumps off"))?;
    let boot = boot_id()?;
    let mut steps = prepare::spare(&arguments.places.proc_root);
    let means = Means::prepare(arguments.places.clone()).map_err(io("make the helpers"))?;
    let host = (!arguments.leave_host).then(|| host(arguments));
    if let Some(host) = &host {
        keep_up(host, arguments)?;
    }
    // After the forks: a child would hold the lock on the state for a moment longer than we live.
    let state = State::open(&arguments.state, boot)?;
    let able = means.able();
    let lacks = means.lacks.clone();
    let gate = Gate::new(keys.node, boot, keys.secrets, keys.keys, &able);
    let mut listener = Listener::new(&keys.node, gate, state, means).map_err(io("open the sockets"))?;
    let of_the_host = host.as_ref().map(Host::prepare).unwrap_or_default();
    steps.extend(lacks.into_iter().map(|reason| Step {
        name: "pod.means",
        assurance: Assurance::NotEnforced,
        reason,
    }));
    steps.extend(prepare::harden(Path::new("/sys/fs/cgroup")));
    steps.extend(drop_privileges());
    steps.extend(of_the_host);
    write_report(&arguments.state, &steps).map_err(io("write the report"))?;
    for step in steps.iter().filter(|step| step.assurance != Assurance::Exact) {
        log::line(format_args!(
            "{} {}: {}",
            step.name,
            step.assurance.as_str(),
            step.reason
        ));
    }
    let words: Vec<_> = able.iter().map(|action| action.as_str()).collect();
    log::line(format_args!("armed: {}", words.join(", ")));
    notify_ready();
    log::never_wait();
    drop((steps, words, able));
    loop {
        listener.turn(AGAIN).map_err(io("wait for packets"))?;
    }
}

/// A process that looks after the host's settings for as long as we live.
fn keep_up(host: &Host, arguments: &Arguments) -> Result<(), RunError> {
    if sys::fork().map_err(io("make the keeper"))?.is_some() {
        return Ok(());
    }
    let _ = sys::die_with_parent();
    let mut before = None;
    loop {
        std::thread::sleep(AGAIN);
        let steps = host.prepare();
        // The first round finds what `run` has just told.
        if before.as_ref().is_some_and(|before| *before != steps) {
            for step in &steps {
                log::line(format_args!(
                    "{} {}: {}",
                    step.name,
                    step.assurance.as_str(),
                    step.reason
                ));
            }
            let kept = read_report(&arguments.state)
                .into_iter()
                .filter(|step| !steps.iter().any(|new| new.name == step.0));
            let mut text: String = kept
                .map(|(name, how, why)| format!("{name}\t{how}\t{why}\n"))
                .collect();
            text.push_str(&lines(&steps));
            let _ = put(&arguments.state, &text);
        }
        before = Some(steps);
    }
}

fn drop_privileges() -> Vec<Step> {
    let told = |name, result: io::Result<()>, reason: &str| match result {
        Ok(()) => Step {
            name,
            assurance: Assurance::Exact,
            reason: reason.to_owned(),
        },
        Err(error) => Step {
            name,
            assurance: Assurance::NotEnforced,
            reason: error.to_string(),
        },
    };
    vec![
        told(
            "pod.capabilities",
            sys::keep_capabilities(&[CAP_SYS_BOOT]),
            "CAP_SYS_BOOT alone",
        ),
        told("pod.seccomp", confine(), "only the system calls that it uses"),
    ]
}

/// A call that is not in the list fails with EPERM. Not a kill: a call that somebody forgot must not cost the node
/// its last way back.
fn confine() -> io::Result<()> {
    let allowed = [
        libc::SYS_recvmsg,
        libc::SYS_sendmsg,
        libc::SYS_sendto,
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_clock_gettime,
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_pwrite64,
        libc::SYS_openat,
        libc::SYS_close,
        libc::SYS_fcntl,
        libc::SYS_ioctl,
        libc::SYS_reboot,
        libc::SYS_rt_sigreturn,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_rename,
        libc::SYS_unlink,
        libc::SYS_fsync,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_brk,
        libc::SYS_socket,
        libc::SYS_futex,
    ];
    let rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>> =
        allowed.into_iter().map(|call| (call, Vec::new())).collect();
    let eperm = u32::try_from(libc::EPERM).map_err(io::Error::other)?;
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Errno(eperm), SeccompAction::Allow, arch)
        .map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}

fn lines(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        let reason = step.reason.replace(['\n', '\t'], " ");
        let _ = writeln!(text, "{}\t{}\t{reason}", step.name, step.assurance.as_str());
    }
    text
}

fn write_report(state: &Path, steps: &[Step]) -> io::Result<()> {
    put(state, &lines(steps))
}

fn put(state: &Path, text: &str) -> io::Result<()> {
    let new = state.join(format!("{PREPARED}.new"));
    let mut file = fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(new, state.join(PREPARED))
}

/// Name, assurance and reason of each step that the running listener reported.
fn read_report(state: &Path) -> Vec<(String, String, String)> {
    let text = fs::read_to_string(state.join(PREPARED)).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, '\t').map(str::to_owned);
            Some((parts.next()?, parts.next()?, parts.next()?))
        })
        .collect()
}

/// `READY=1` to a service manager that waits for it (sd_notify(3)).
fn notify_ready() {
    use std::os::linux::net::SocketAddrExt;
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let name = name.to_string_lossy().into_owned();
    let address = match name.strip_prefix('@') {
        Some(name) => std::os::unix::net::SocketAddr::from_abstract_name(name),
        None => std::os::unix::net::SocketAddr::from_pathname(&name),
    };
    if let (Ok(socket), Ok(address)) = (UnixDatagram::unbound(), address) {
        let _ = socket.send_to_addr(b"READY=1", &address);
    }
}

/// What is armed here, for people. The flag: whether everything is.
///
/// # Errors
/// When the keys cannot be used.
pub fn check(arguments: &Arguments) -> Result<(String, bool), RunError> {
    let keys = Keys::load(&arguments.keys)?;
    let boot = boot_id()?;
    let mut text = String::new();
    let mut fine = true;
    let _ = writeln!(
        text,
        "keys      {} trusted, {} tag secrets",
        keys.keys.len(),
        keys.secrets.len()
    );
    for key in &keys.keys {
        let may: Vec<_> = Action::ALL
            .into_iter()
            .filter(|action| key.scope & 1 << action.number() != 0)
            .map(Action::as_str)
            .collect();
        let id: String = key.id.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "  {id}  {}", may.join(", "));
    }
    if keys.keys.is_empty() {
        fine = false;
        let _ = writeln!(text, "  none: nobody can reboot this node by a packet");
    }
    let head = fs::read(arguments.state.join("seen")).unwrap_or_default();
    let running = matches!(State::open(&arguments.state, boot), Err(StateError::InUse { .. }));
    if running {
        let _ = writeln!(text, "listener  runs");
        for (name, assurance, reason) in read_report(&arguments.state) {
            fine &= assurance == Assurance::Exact.as_str();
            let _ = writeln!(text, "  {name:<18} {assurance:<13} {reason}");
        }
    } else {
        fine = false;
        let _ = writeln!(
            text,
            "listener  does not run: systemctl start redbutton-pod-listener"
        );
    }
    if let Some((of, counts)) = pod_wire::read_state_head(&head).filter(|(of, _)| *of == boot) {
        let _ = of;
        let _ = writeln!(text, "counters of this boot");
        for (counter, count) in Counter::ALL.iter().zip(counts) {
            if count > 0 {
                let _ = writeln!(text, "  {:<28} {count}", counter.as_str());
            }
        }
    }
    let echo = fs::read_to_string("/proc/sys/net/ipv4/icmp_echo_ignore_all").unwrap_or_default();
    if echo.trim() == "1" {
        let _ = writeln!(
            text,
            "kernel    answers no echo request (icmp_echo_ignore_all): packets are obeyed, but a dead listener cannot be told from a dead node"
        );
    }
    text.push_str(
        "firewall  not looked at: a netfilter INPUT drop comes before raw sockets; a dry-run from outside proves it\n",
    );
    Ok((text, fine))
}

/// Puts the host's settings back.
///
/// # Errors
/// What could not be put back.
pub fn undo(arguments: &Arguments) -> Result<(), RunError> {
    host(arguments).undo().map_err(io("put the host's settings back"))
}
