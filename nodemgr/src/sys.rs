//! The only unsafe code of nodemgr: system calls that neither std nor nix wraps. Each is one call, checked.

#![expect(
    unsafe_code,
    reason = "system calls and allocator settings without a safe wrapper in nix"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_long, pid_t};

fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// `mallopt(3)`: the allocator keeps what it has, in one arena, and never maps large blocks apart.
///
/// Returns false when the allocator refused one of the settings, or is not glibc's.
#[cfg(target_env = "gnu")]
pub(crate) fn keep_the_heap() -> bool {
    // SAFETY: mallopt takes two integers and touches only the allocator's own settings.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, c_int::MAX) == 1
            && libc::mallopt(libc::M_MMAP_MAX, 0) == 1
            && libc::mallopt(libc::M_ARENA_MAX, 1) == 1
    }
}

/// Another C library: its allocator has no such settings.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep_the_heap() -> bool {
    false
}

/// `sched_setscheduler(2)` for the calling thread: SCHED_FIFO at its lowest priority, not inherited by children.
pub(crate) fn schedule_fifo() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 1 };
    // SAFETY: the pointer is to a live local of the right type; 0 names the calling thread.
    let result = unsafe {
        libc::sched_setscheduler(
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const parameter,
        )
    };
    checked(c_long::from(result)).map(drop)
}

/// The calling thread's scheduling policy, without the reset-on-fork bit.
pub(crate) fn schedule() -> io::Result<c_int> {
    // SAFETY: takes an integer; 0 names the calling thread.
    let result = unsafe { libc::sched_getscheduler(0) };
    #[expect(clippy::cast_possible_truncation, reason = "it came from a c_int")]
    checked(c_long::from(result)).map(|policy| policy as c_int & !libc::SCHED_RESET_ON_FORK)
}

/// `setpriority(2)` for the calling thread alone (on Linux a nice value belongs to a thread).
pub(crate) fn nice(value: c_int) -> io::Result<()> {
    // SAFETY: takes integers only; 0 names the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) };
    checked(c_long::from(result)).map(drop)
}

/// `pidfd_open(2)`.
pub(crate) fn pidfd_open(pid: pid_t) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = checked(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    #[expect(clippy::cast_possible_truncation, reason = "a descriptor is a c_int")]
    // SAFETY: the kernel just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// `pidfd_send_signal(2)` with SIGKILL.
pub(crate) fn pidfd_kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let nothing: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is borrowed and alive; a null siginfo means what kill(2) would fill in.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            nothing,
            0,
        )
    };
    checked(result).map(drop)
}

/// Kills the whole process when this thread makes a system call that is not in `allowed`.
/// How a test proves what a path does *not* do; irrevocable, so only in a process made for it.
#[cfg(test)]
pub(crate) fn allow_only(allowed: &[c_long]) -> io::Result<()> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = vec![line(LOAD, 0, 0, 0)];
    for call in allowed {
        let number = u32::try_from(*call).map_err(io::Error::other)?;
        program.push(line(JUMP_IF_EQUAL, 0, 1, number));
        program.push(line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    }
    program.push(line(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS));
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: integers only.
    checked(c_long::from(unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    }))?;
    // SAFETY: `filter` and the program it points to live until the call returns; the kernel copies them.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    checked(c_long::from(result)).map(drop)
}
