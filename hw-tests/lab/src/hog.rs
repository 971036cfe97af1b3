//! What runs away inside a guest: each takes one thing of the machine until there is no more, says so on its first
//! line, and holds it. Every one is bounded by its own count, since root is bound by no limit.
//!
//! To be run in lab guests alone; the program is `lab-hog`.

use std::fs::{File, OpenOptions};
use std::io::{PipeWriter, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, pause, setgroups, setresgid, setresuid};

/// `nobody`: root is exempt from `fs.file-max` and from project quotas, so a fault by root would prove nothing.
const NOBODY: u32 = 65_534;

/// Becomes an ordinary user for good, unless that is what we are.
///
/// # Errors
/// When that is not allowed.
pub fn become_nobody() -> Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[group]).context("cannot leave root's groups")?;
    setresgid(group, group, group).context("cannot leave root's group")?;
    setresuid(user, user, user).context("cannot leave root")
}

fn hold(said: &str) -> Result<()> {
    println!("{said}");
    std::io::stdout().flush().context("nobody listens")?;
    loop {
        pause();
    }
}

/// Opens `/dev/null` until the machine's file table is full or `at_most` are open, and keeps them. An ordinary user
/// may not raise the limit of one process, so there are as many processes as it takes.
///
/// # Errors
/// When it cannot fork.
pub fn descriptors(at_most: u64) -> Result<()> {
    let (_, each) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read RLIMIT_NOFILE")?;
    setrlimit(Resource::RLIMIT_NOFILE, each, each).context("cannot raise RLIMIT_NOFILE")?;
    become_nobody()?;
    let mut total = 0;
    while total < at_most {
        let (mut reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        if sys::fork().context("cannot fork")? {
            drop(reader);
            return open_and_hold(writer, at_most - total);
        }
        drop(writer);
        let mut said = String::new();
        reader.read_to_string(&mut said).context("a child does not say")?;
        let (count, why) = said.split_once(' ').context("a child said nothing")?;
        total += count.parse::<u64>().context("a child said no number")?;
        // Its own limit: the next child goes on. The machine's: there is no more.
        if why != Errno::EMFILE.desc() {
            return hold(&format!("descriptors: {total} open, then: {why}"));
        }
    }
    hold(&format!("descriptors: {total} open, its own bound"))
}

/// How long a hungry process waits before it tries again.
const HUNGRY: Duration = Duration::from_millis(5);

/// One process' share: as many as its limit lets it, told through the pipe, and kept. Once the machine has no more it
/// takes every one that somebody else gives back.
fn open_and_hold(mut writer: PipeWriter, at_most: u64) -> Result<()> {
    let mut open = Vec::new();
    let why = loop {
        if open.len() as u64 >= at_most {
            break Errno::EMFILE;
        }
        match File::open("/dev/null") {
            Ok(file) => open.push(file),
            Err(error) => break error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw),
        }
    };
    write!(writer, "{} {}", open.len(), why.desc()).context("nobody listens")?;
    drop(writer);
    loop {
        if why == Errno::EMFILE {
            pause();
        }
        open.extend(File::open("/dev/null"));
        std::thread::park_timeout(HUNGRY);
    }
}

/// A fork bomb: every process forks as fast as it can, until `count` were made or `life` is over.
///
/// The bound is a pipe with that many bytes: a process takes one before each fork.
///
/// # Errors
/// When the pipe cannot be made.
pub fn forks(count: u32, life: Duration) -> Result<()> {
    const PIPE: u32 = 65_536;
    if count > PIPE {
        bail!("at most {PIPE} processes, asked for {count}");
    }
    let (mut tokens, mut writer) = std::io::pipe().context("cannot make a pipe")?;
    let filled = vec![0_u8; count as usize];
    writer.write_all(&filled).context("cannot fill the pipe")?;
    drop(writer);
    println!("forks: at most {count} processes for {} s", life.as_secs());
    std::io::stdout().flush().context("nobody listens")?;
    let end = Instant::now() + life;
    let mut token = [0];
    while Instant::now() < end {
        // Its end: all are used up. The bomb then only burns what it has.
        if tokens.read(&mut token).unwrap_or(0) == 0 {
            spin_until(end);
            return Ok(());
        }
        // Fork fails once the machine is full: try again at once, that is what a bomb does.
        while Instant::now() < end {
            match sys::fork() {
                Ok(_) => break,
                Err(Errno::EAGAIN | Errno::ENOMEM) => {}
                Err(error) => return Err(error).context("cannot fork"),
            }
        }
    }
    Ok(())
}

fn spin_until(end: Instant) {
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

/// Takes memory in pieces of 4 MiB and writes to every page, again and again, until `mib` are taken.
///
/// # Errors
/// Never by itself; the kernel may end it.
pub fn memory(mib: usize) -> Result<()> {
    const PIECE: usize = 4 << 20;
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    println!("memory: taking {mib} MiB");
    std::io::stdout().flush().context("nobody listens")?;
    let mut round = 0_u8;
    loop {
        if pieces.len() * PIECE < mib << 20 {
            pieces.push(vec![1; PIECE]);
        }
        round = round.wrapping_add(1);
        for page in pieces.iter_mut().flat_map(|piece| piece.chunks_mut(4096)) {
            page[0] = round;
        }
        std::hint::black_box(&pieces);
    }
}

/// Keeps `threads` processors busy for `life`; in real time it goes before everything but the kernel's interrupts.
///
/// # Errors
/// When a thread cannot be started, or real time is not allowed.
pub fn cpu(threads: u32, life: Duration, real_time: bool) -> Result<()> {
    if real_time {
        // The kernel keeps 5 % for everybody else unless it is told not to.
        let runtime = "/proc/sys/kernel/sched_rt_runtime_us";
        std::fs::write(runtime, "-1").with_context(|| format!("cannot write {runtime}"))?;
        sys::first_in_first_out().context("cannot become a real-time process")?;
    }
    let end = Instant::now() + life;
    println!("cpu: {threads} threads for {} s", life.as_secs());
    let threads: Vec<_> = (0..threads)
        .map(|_| std::thread::Builder::new().spawn(move || spin_until(end)))
        .collect::<std::io::Result<_>>()
        .context("cannot start a thread")?;
    for thread in threads {
        if thread.join().is_err() {
            bail!("a thread fell over");
        }
    }
    Ok(())
}

/// Writes to `path` until the disk is full or `mib` are written, as an ordinary user or as root.
///
/// # Errors
/// When the file cannot be made.
pub fn disk(path: &Path, mib: u64, as_root: bool) -> Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if !as_root {
        become_nobody()?;
    }
    let piece = vec![0x5a_u8; 1 << 20];
    let mut written = 0_u64;
    let why = loop {
        if written >= mib << 20 {
            break "its own bound".to_owned();
        }
        match file.write(&piece) {
            Ok(count) => written += count as u64,
            Err(error) => break error.to_string(),
        }
    };
    hold(&format!("disk: {} MiB written, then {why}", written >> 20))
}

mod sys {
    //! The system calls that have no safe form.

    use nix::errno::Errno;
    use nix::libc;
    use nix::unistd::{ForkResult, fork as unsafe_fork};

    /// Forks; true in the child.
    #[expect(unsafe_code, reason = "fork has no safe form")]
    pub(super) fn fork() -> Result<bool, Errno> {
        // SAFETY: this program has one thread when it forks, and the child goes on with the same plain loop.
        match unsafe { unsafe_fork() }? {
            ForkResult::Child => Ok(true),
            ForkResult::Parent { .. } => Ok(false),
        }
    }

    /// The highest real-time priority for this process and the threads that it will start.
    #[expect(unsafe_code, reason = "nix has no sched_setscheduler")]
    pub(super) fn first_in_first_out() -> Result<(), Errno> {
        let parameter = libc::sched_param { sched_priority: 99 };
        // SAFETY: it reads a struct that lives until it returns; 0 is the calling process.
        Errno::result(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) })
            .map(drop)
    }
}
