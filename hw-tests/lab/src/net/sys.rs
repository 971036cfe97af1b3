//! The one system call of the network that nix does not wrap: naming a tap.

#![expect(unsafe_code, reason = "TUNSETIFF has no safe wrapper in nix")]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, ensure};

/// Where taps come from.
pub(super) const TUN: &str = "/dev/net/tun";

nix::ioctl_write_ptr_bad!(
    /// `TUNSETIFF`: declared with an `int` in its number, takes an `ifreq` all the same.
    tun_set_iff,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    libc::ifreq
);

/// Makes the tap `name` in the network namespace of the calling thread. It lives as long as the file; a read or a write
/// is one whole Ethernet frame (no packet information, no virtio header) and never blocks.
pub(super) fn open_tap(name: &str) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(TUN)
        .with_context(|| format!("cannot open {TUN}"))?;
    // SAFETY: ifreq is plain data, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(
        name.len() < request.ifr_name.len(),
        "an interface cannot be called {name}: too long"
    );
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).context("flags of a tap")?;
    // SAFETY: the descriptor is open and `request` is an initialised ifreq that lives across the call.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }
        .with_context(|| format!("cannot make the tap {name}"))?;
    Ok(file)
}
