//! The two halves of the isolation: [`outer`] leaves the machine's namespaces, [`init`] is process 1 of the new ones.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid, sethostname};

use super::{LEFT_BEHIND, NeedsRoot, OURSELVES, loopback};
use crate::cgroup;

/// What a test must never reach. Absent ones are absent inside, too.
const MASKED_FILES: &[&str] = &["/proc/sysrq-trigger", "/proc/kcore", "/dev/mem"];
const MASKED_PREFIX: (&str, &str) = ("/dev", "watchdog");

/// How long processes may take to go once the command has ended.
const GRACE: Duration = Duration::from_secs(3);

/// Arguments of the first half.
#[derive(clap::Args)]
pub(crate) struct OuterArguments {
    /// The xtask that started us; when it is gone already, we go too.
    #[arg(long)]
    parent: i32,
    /// The subtree to live in.
    #[arg(long)]
    cgroup: Option<PathBuf>,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Arguments of the second half.
#[derive(clap::Args)]
pub(crate) struct InitArguments {
    /// Show our subtree as the whole of cgroup v2.
    #[arg(long)]
    own_cgroups: bool,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Arguments of a run without isolation.
#[derive(clap::Args)]
pub(crate) struct PlainArguments {
    /// The xtask that started us; when it is gone already, we go too.
    #[arg(long)]
    parent: i32,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Ties us to xtask's life and lets go of its signal mask, which a child inherits: xtask reads its signals from a
/// descriptor and has them blocked, the command must get them.
fn come_of_age(parent: i32) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("cannot tie our life to xtask's")?;
    if getppid() != Pid::from_raw(parent) {
        bail!("xtask is gone");
    }
    SigSet::empty()
        .thread_set_mask()
        .context("cannot unblock signals")
}

/// Becomes the command.
pub(crate) fn plain(arguments: &PlainArguments) -> Result<u8> {
    come_of_age(arguments.parent)?;
    let (program, rest) = arguments.command.split_first().context("no command")?;
    Err(Command::new(program).args(rest).exec())
        .with_context(|| format!("cannot start {}", program.display()))
}

/// Joins the subtree, leaves the namespaces, starts process 1 and passes on how it ended.
pub(crate) fn outer(arguments: &OuterArguments) -> Result<u8> {
    come_of_age(arguments.parent)?;
    let join = |cgroup: &Path| {
        fs::write(cgroup.join("cgroup.procs"), "0")
            .with_context(|| format!("cannot enter cgroup {}", cgroup.display()))
    };
    let mut flags = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    if let Some(cgroup) = &arguments.cgroup {
        // The cgroup namespace's root is where we stand at this moment.
        join(cgroup)?;
        flags |= CloneFlags::CLONE_NEWCGROUP;
    }
    unshare(flags).map_err(|errno| {
        NeedsRoot(format!(
            "cannot make namespaces ({errno}): run cargo xtask as root, outside of any container"
        ))
    })?;
    if let Some(cgroup) = &arguments.cgroup {
        join(&cgroup.join(cgroup::LEAF))?;
    }

    let mut command = Command::new(OURSELVES);
    command.arg("isolate-init");
    if arguments.cgroup.is_some() {
        command.arg("--own-cgroups");
    }
    let mut child = command
        .arg("--")
        .args(&arguments.command)
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start process 1 of the new namespaces")?;
    // It waits for this byte, sent while we certainly live, before it does anything: no orphan can slip through.
    if let Some(mut line) = child.stdin.take() {
        line.write_all(b"!")
            .context("process 1 of the new namespaces is gone")?;
    }
    Ok(code(child.wait().context("cannot wait for process 1")?))
}

/// Makes the new namespaces habitable, runs the command, reaps, and names what the command left running.
pub(crate) fn init(arguments: &InitArguments) -> Result<u8> {
    set_pdeathsig(Signal::SIGKILL).context("cannot tie our life to our parent's")?;
    std::io::stdin()
        .read_exact(&mut [0])
        .context("our parent is gone")?;
    if std::process::id() != 1 {
        bail!("isolate-init is only for process 1 of a new PID namespace");
    }
    furnish(arguments.own_cgroups)?;

    let (program, rest) = arguments.command.split_first().context("no command")?;
    let child = Command::new(program)
        .args(rest)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let child = Pid::from_raw(i32::try_from(child.id()).context("a process id beyond i32")?);
    let ended = loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => break u8::try_from(code).unwrap_or(1),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                println!("{}: killed by {signal}", program.display());
                break 128 + u8::try_from(signal as i32).unwrap_or(0);
            }
            // An orphan that came to us, as they all do.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for the command"),
        }
    };
    for process in survivors()? {
        println!("{LEFT_BEHIND}{process}");
    }
    Ok(ended)
}

fn code(status: ExitStatus) -> u8 {
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1)
}

fn furnish(own_cgroups: bool) -> Result<()> {
    let nothing: Option<&str> = None;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )
    .context("cannot make the mounts private")?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), safe, nothing).context("cannot mount /proc")?;
    if own_cgroups {
        let place = cgroup::mount()?.context("cgroup v2 is mounted no more")?;
        // Taken away first: two mounts on one path would both be listed, and readers pick the first.
        umount2(&place, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", place.display()))?;
        mount(Some("cgroup2"), &place, Some("cgroup2"), safe, nothing)
            .with_context(|| format!("cannot mount our cgroups on {}", place.display()))?;
        enable_controllers(&place)?;
    }
    mask()?;
    sethostname("redbutton-xtask").context("cannot set the host name")?;
    loopback::up()
}

/// Hands on the controllers that this machine gives us. A hybrid host gives none.
fn enable_controllers(root: &Path) -> Result<()> {
    let read = |name: &str| {
        fs::read_to_string(root.join(name)).with_context(|| format!("cannot read {}/{name}", root.display()))
    };
    for controller in read("cgroup.controllers")?.split_whitespace() {
        if let Err(error) = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}")) {
            println!("controller {controller} cannot be used by tests here: {error}");
        }
    }
    Ok(())
}

/// Puts `/dev/null` over what could reset the machine.
fn mask() -> Result<()> {
    let mut files: Vec<PathBuf> = MASKED_FILES
        .iter()
        .map(PathBuf::from)
        .filter(|path| path.exists())
        .collect();
    let (folder, prefix) = MASKED_PREFIX;
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {folder}"))? {
        let entry = entry.with_context(|| format!("cannot list {folder}"))?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            files.push(entry.path());
        }
    }
    for file in files {
        let nothing: Option<&str> = None;
        mount(Some("/dev/null"), &file, nothing, MsFlags::MS_BIND, nothing)
            .with_context(|| format!("cannot mask {}", file.display()))?;
    }
    Ok(())
}

/// Processes that are still here after the grace, each with its command line.
fn survivors() -> Result<Vec<String>> {
    let cap = Instant::now() + GRACE;
    loop {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
        let others = others()?;
        if others.is_empty() || Instant::now() >= cap {
            return Ok(others);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn others() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot list /proc")? {
        let entry = entry.context("cannot list /proc")?;
        let name = entry.file_name();
        let Some(pid) = name
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
            .filter(|pid| *pid != 1)
        else {
            continue;
        };
        match fs::read(entry.path().join("cmdline")) {
            Ok(line) => {
                let words = String::from_utf8_lossy(&line).replace('\0', " ");
                found.push(format!("process {pid} ({})", words.trim_end()));
            }
            // It went while we looked.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound) || error.raw_os_error() == Some(3) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read /proc/{pid}/cmdline")),
        }
    }
    Ok(found)
}
