//! The system calls of `exec` that neither std nor nix wraps. Each is one call, checked.

#![expect(unsafe_code, reason = "system calls without a safe wrapper in nix")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_long, c_ulong};

/// `SO_PEERPIDFD`, Linux 6.5.
const SO_PEERPIDFD: c_int = 77;
/// `KEYCTL_JOIN_SESSION_KEYRING`.
const KEYCTL_JOIN_SESSION_KEYRING: c_long = 1;

fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn prctl(option: c_int, a: c_ulong, b: c_ulong) -> io::Result<c_int> {
    let none: c_ulong = 0;
    // SAFETY: the options that this file passes take integers only.
    let result = unsafe { libc::prctl(option, a, b, none, none) };
    checked(c_long::from(result)).map(|_| result)
}

/// A descriptor of the very process that connected: it cannot be confused by a reused pid.
pub(super) fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut fd: c_int = -1;
    let mut len = libc::socklen_t::try_from(size_of::<c_int>()).map_err(io::Error::other)?;
    // SAFETY: `fd` and `len` live across the call and `len` is the size of `fd`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut len,
        )
    };
    checked(c_long::from(result))?;
    // SAFETY: the kernel just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes every descriptor above the standard three.
pub(super) fn close_above_standard() -> io::Result<()> {
    // SAFETY: takes integers; nothing of ours uses a descriptor above 2 after this (the process execs or exits).
    checked(unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) }).map(drop)
}

/// Gives up the controlling terminal, so that nothing can be typed into root's shell through it (TIOCSTI). It may still
/// be read and written as the standard streams. A session's leader keeps it: the terminal was made for it.
pub(super) fn leave_terminal() -> io::Result<()> {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else {
        return Ok(());
    };
    if nix::unistd::getsid(None)? == nix::unistd::getpid() {
        return Ok(());
    }
    // SAFETY: the descriptor is open, and TIOCNOTTY takes no argument.
    checked(c_long::from(unsafe {
        libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY)
    }))
    .map(drop)
}

/// A session keyring of its own: root's is not handed down.
pub(super) fn new_session_keyring() -> io::Result<()> {
    let anonymous: *const libc::c_char = std::ptr::null();
    // SAFETY: a null name asks for an anonymous keyring.
    checked(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, anonymous) }).map(drop)
}

/// Takes a capability out of the bounding set. `Ok(false)`: this kernel has no such capability.
pub(super) fn drop_bounding(capability: u32) -> io::Result<bool> {
    match prctl(libc::PR_CAPBSET_DROP, capability.into(), 0) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Empties the ambient set.
pub(super) fn clear_ambient() -> io::Result<()> {
    let all = libc::PR_CAP_AMBIENT_CLEAR_ALL
        .try_into()
        .map_err(io::Error::other)?;
    prctl(libc::PR_CAP_AMBIENT, all, 0).map(drop)
}

/// Being uid 0 gives no capability any more, and none of this can be undone.
pub(super) fn lock_securebits() -> io::Result<()> {
    let bits = libc::SECBIT_NOROOT
        | libc::SECBIT_NOROOT_LOCKED
        | libc::SECBIT_NO_SETUID_FIXUP_LOCKED
        | libc::SECBIT_KEEP_CAPS_LOCKED
        | libc::SECBIT_NO_CAP_AMBIENT_RAISE
        | libc::SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    prctl(
        libc::PR_SET_SECUREBITS,
        bits.try_into().map_err(io::Error::other)?,
        0,
    )
    .map(drop)
}

/// Empties the permitted, effective and inheritable sets.
pub(super) fn clear_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    // _LINUX_CAPABILITY_VERSION_3 takes two data blocks of 32 capabilities each.
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let data = [Data {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: both pointers are to live locals of the layout that capset(2) documents.
    checked(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Signals that were ignored or blocked for us are not for what we become.
pub(super) fn default_signals() -> io::Result<()> {
    // SAFETY: installs the default action; no handler of ours is involved.
    let result = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    if result == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    nix::sys::signal::SigSet::empty()
        .thread_set_mask()
        .map_err(Into::into)
}
