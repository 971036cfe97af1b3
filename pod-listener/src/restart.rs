//! Doing what a packet asked for, with nothing but what was made before.
//!
//! ```text
//! reboot: watchdog (30 s) ─▶ helper: sync, remount read-only ─▶ at most the deadline ─▶ reboot(2) ─▶ sysrq b
//!                         └▶ hammer: 10 s after the deadline sysrq b, also when reboot(2) hangs
//! crash:  kernel.panic = 10 where it was 0 ─▶ sysrq c
//! kill:   1 into cgroup.kill of the slivers' root
//! ```
//! Syncing may hang in an uninterruptible sleep, so it is done by a process of its own, forked at start. The watchdog
//! is opened at that moment only: opened early, every upgrade of the listener would be a reboot; one that systemd
//! holds is left alone, it does the same.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pod_wire::Action;

use crate::sys;

/// For sync and read-only remounts.
pub const SYNC_DEADLINE: Duration = Duration::from_secs(3);
/// After that, for `reboot(2)` to take effect.
const HAMMER_AFTER: Duration = Duration::from_secs(10);
/// The hardware's own patience, from the begin of it all, seconds.
const WATCHDOG_SECONDS: i32 = 30;
/// Of the mount table; what lies beyond is not remounted.
const MOUNTS: usize = 256 << 10;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Places {
    /// `/proc`
    pub proc_root: PathBuf,
    /// `/dev/watchdog`
    pub watchdog: PathBuf,
    /// The cgroup that all slivers are in.
    pub slivers: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            proc_root: "/proc".into(),
            watchdog: "/dev/watchdog".into(),
            slivers: "/sys/fs/cgroup/redbutton.slice".into(),
        }
    }
}

/// A process that waits for a word.
#[derive(Debug)]
struct Helper {
    tell: OwnedFd,
    done: OwnedFd,
}

/// Everything that it takes, opened and forked.
#[derive(Debug)]
pub struct Means {
    places: Places,
    sync: Helper,
    hammer: Helper,
    sysrq: Option<File>,
    panic: Option<File>,
    slivers: Option<File>,
    /// Why an action cannot be done here, for `check`.
    pub lacks: Vec<String>,
}

/// Opens for writing what is there already; never makes a file.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
        .open(path)
}

impl Means {
    /// Makes everything ready. Forks: the process must have one thread.
    ///
    /// # Errors
    /// When a helper cannot be made. What else is missing stands in [`Means::lacks`].
    pub fn prepare(places: Places) -> io::Result<Self> {
        let mut lacks = Vec::new();
        let mut opened = |what: &str, path: PathBuf| match open(&path) {
            Ok(file) => Some(file),
            Err(error) => {
                lacks.push(format!("{what}: {}: {error}", path.display()));
                None
            }
        };
        let sysrq = opened(
            "crash, and the last resort of a reboot",
            places.proc_root.join("sysrq-trigger"),
        );
        let panic = opened(
            "coming back after a crash",
            places.proc_root.join("sys/kernel/panic"),
        );
        let slivers = match inside(&places) {
            // The node manager makes it; until then there is nothing to kill. It is opened when it is needed.
            Ok(()) if !places.slivers.exists() => None,
            Ok(()) => opened("kill-slivers", places.slivers.join("cgroup.kill")),
            Err(why) => {
                lacks.push(format!("kill-slivers: {why}"));
                None
            }
        };
        let mounts = File::open(places.proc_root.join("self/mounts"))?;
        let sync = Helper::fork(|| make_quiet(&mounts))?;
        let last = sysrq.as_ref().map(File::try_clone).transpose()?;
        let hammer = Helper::fork(move || strike(last.as_ref()))?;
        Ok(Self {
            places,
            sync,
            hammer,
            sysrq,
            panic,
            slivers,
            lacks,
        })
    }

    /// What can be done here.
    #[must_use]
    pub fn able(&self) -> Vec<Action> {
        let mut able = vec![Action::DryRun, Action::Reboot];
        if self.sysrq.is_some() {
            able.push(Action::Crash);
        }
        if self.slivers.is_some() || !self.places.slivers.exists() {
            able.push(Action::KillSlivers);
        }
        able
    }

    /// Does it. Returns only from kill-slivers, or when nothing of it worked.
    pub fn act(&mut self, action: Action) -> io::Result<()> {
        match action {
            Action::Probe | Action::DryRun => Ok(()),
            Action::KillSlivers => self.kill_slivers(),
            Action::Crash => {
                if let Some(panic) = &self.panic {
                    let mut now = [0; 16];
                    let stays = File::open(self.places.proc_root.join("sys/kernel/panic"))
                        .and_then(|mut file| file.read(&mut now))
                        .map_or(true, |read| now[..read].trim_ascii() == b"0");
                    if stays {
                        let _ = panic.write_all_at(b"10", 0);
                    }
                }
                let _watchdog = self.watchdog();
                self.trigger(b"c")
            }
            Action::Reboot => {
                let _watchdog = self.watchdog();
                // Whether they hear it or not, we go on.
                let _ = self.hammer.begin();
                if self.sync.begin().is_ok() {
                    self.sync.wait(SYNC_DEADLINE);
                }
                let refused = sys::restart_now();
                self.trigger(b"b").map_err(|_| refused)
            }
        }
    }

    /// Through the file that was opened at start; that one is dead when the cgroup was made anew since.
    fn kill_slivers(&self) -> io::Result<()> {
        if let Some(file) = &self.slivers
            && file.write_all_at(b"1", 0).is_ok()
        {
            return Ok(());
        }
        match open(&self.places.slivers.join("cgroup.kill")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            opened => opened?.write_all_at(b"1", 0),
        }
    }

    fn watchdog(&self) -> Option<File> {
        let watchdog = open(&self.places.watchdog).ok()?;
        // A driver that cannot is left at its own time, which is about a minute.
        let _ = sys::set_watchdog(watchdog.as_fd(), WATCHDOG_SECONDS);
        Some(watchdog)
    }

    fn trigger(&self, letter: &[u8]) -> io::Result<()> {
        match &self.sysrq {
            Some(file) => file.write_all_at(letter, 0),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// We must not stand where the slivers do, or we would go with them.
fn inside(places: &Places) -> Result<(), String> {
    let text =
        std::fs::read_to_string(places.proc_root.join("self/cgroup")).map_err(|error| error.to_string())?;
    let ours = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let name = places.slivers.file_name().unwrap_or_default().to_string_lossy();
    match ours {
        Some(path) if path.split('/').any(|part| part == name) => {
            Err(format!("the listener itself runs in {name}, start it elsewhere"))
        }
        _ => Ok(()),
    }
}

impl Helper {
    fn fork(then: impl FnOnce() -> io::Result<()>) -> io::Result<Self> {
        let (told, tell) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let (done, say) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        if sys::fork()?.is_some() {
            return Ok(Self { tell, done });
        }
        drop((tell, done));
        // A parent that has ended closes the pipe; then there is nothing to do.
        let _ = sys::die_with_parent();
        let _ = nix::sys::mman::mlockall(nix::sys::mman::MlockAllFlags::all());
        let mut word = [0; 1];
        let mut told = File::from(told);
        if told.read_exact(&mut word).is_ok() {
            let _ = then();
            let _ = File::from(say).write_all(&word);
        }
        // Without destructors: they belong to the parent.
        #[expect(
            clippy::disallowed_methods,
            reason = "a forked child must not run the parent's destructors"
        )]
        std::process::exit(0)
    }

    fn begin(&self) -> io::Result<()> {
        nix::unistd::write(&self.tell, b"!").map(drop).map_err(Into::into)
    }

    fn wait(&self, at_most: Duration) {
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(self.done.as_fd(), PollFlags::POLLIN)], timeout);
    }

    /// Readable once the process has ended.
    pub(crate) fn ended(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }
}

impl Means {
    /// Whether both helpers still wait.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        [&self.sync, &self.hammer].into_iter().all(|helper| {
            let mut fds = [PollFd::new(helper.ended(), PollFlags::POLLIN)];
            matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
        })
    }
}

/// The hammer: falls when the reboot has not come.
fn strike(sysrq: Option<&File>) -> io::Result<()> {
    let mut left = SYNC_DEADLINE + HAMMER_AFTER;
    // A signal must not shorten it.
    while !left.is_zero() {
        let before = std::time::Instant::now();
        std::thread::sleep(left);
        left = left.saturating_sub(before.elapsed());
    }
    sysrq.map_or(Ok(()), |file| file.write_all_at(b"b", 0))
}

/// Everything on the disks, and no more writes.
fn make_quiet(mounts: &File) -> io::Result<()> {
    let mut table = vec![0; MOUNTS];
    // First, while it is certain that it can be read.
    let read = mounts.read_at(&mut table, 0)?;
    nix::unistd::sync();
    for target in targets(table.get(..read).unwrap_or_default()) {
        let _ = sys::remount_read_only(&target);
    }
    nix::unistd::sync();
    Ok(())
}

/// Where writable disks are mounted, the deepest first, each with a zero byte at its end.
fn targets(table: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let (Some(device), Some(target), Some(_), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let writable = options.split(|byte| *byte == b',').any(|option| option == b"rw");
        if device.starts_with(b"/dev/") && writable {
            let mut target = unescape(target);
            target.push(0);
            found.push(target);
        }
    }
    found.reverse();
    found
}

/// `\040` and the like, as proc(5) writes them.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| {
            digits.iter().try_fold(0_u16, |sum, digit| match digit {
                b'0'..=b'7' => Some(sum * 8 + u16::from(digit - b'0')),
                _ => None,
            })
        });
        match (first, octal.map(u8::try_from)) {
            (b'\\', Some(Ok(byte))) => {
                plain.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writable_disks_are_remounted_the_deepest_first() {
        let table =
            b"/dev/vda1 / ext4 rw,relatime 0 0\nproc /proc proc rw 0 0\n/dev/vdb /a\\040b ext4 rw 0 0\n\
            /dev/vdc /ro ext4 ro,rw_is_no_option 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vd";
        assert_eq!(targets(table), [b"/a b\0".to_vec(), b"/\0".to_vec()]);
    }

    proptest::proptest! {
        #[test]
        fn reading_the_mount_table_never_panics(table in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            for target in targets(&table) {
                proptest::prop_assert_eq!(target.last(), Some(&0));
            }
        }
    }
}
