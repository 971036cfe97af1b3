//! The only unsafe code of the link: what a thread may ask of the scheduler, and a limit. Each is one call, checked.

#![expect(
    unsafe_code,
    reason = "setpriority and sched_setscheduler have no safe wrapper in nix"
)]

use std::io;

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The calling thread alone (on Linux both belong to a thread) yields to others: `more` added to its nice value
/// (`setpriority(2)`), and SCHED_BATCH.
pub(crate) fn step_back(more: i32) -> io::Result<()> {
    let nice = niceness()?.saturating_add(more).min(19);
    // SAFETY: takes integers only; 0 names the calling thread.
    checked(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })?;
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live local of the right type; 0 names the calling thread.
    checked(unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameter) })
}

/// Nice value of the calling thread: `getpriority(2)`.
pub(crate) fn niceness() -> io::Result<i32> {
    // -1 is a value like any other: only errno tells it from an error.
    // SAFETY: errno of this thread is always there.
    unsafe { *libc::__errno_location() = 0 };
    // SAFETY: takes integers only; 0 names the calling thread.
    let value = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(0) => Ok(value),
        error => Err(error),
    }
}

/// Descriptors that this process may have now: `getrlimit(2)`. Unlimited is the largest number.
pub(crate) fn descriptors() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live local of the right type.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } < 0 {
        return usize::MAX;
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// Whether the calling thread is scheduled as SCHED_BATCH.
#[cfg(test)]
pub(crate) fn is_batch() -> bool {
    // SAFETY: takes an integer only; 0 names the calling thread.
    unsafe { libc::sched_getscheduler(0) == libc::SCHED_BATCH }
}
