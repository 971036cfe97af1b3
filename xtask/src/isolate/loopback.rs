//! Brings `lo` up in a new network namespace: one rtnetlink message, because `ip` may not be installed.

use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

const RTM_NEWLINK: u16 = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
const IFF_UP: u32 = 1;
/// The loopback device is always the first of its namespace.
const LOOPBACK_INDEX: i32 = 1;

/// `struct nlmsghdr` and `struct ifinfomsg` (netlink(7), rtnetlink(7)), host byte order.
fn request() -> [u8; 32] {
    let mut message = [0; 32];
    message[0..4].copy_from_slice(&32_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());
    message[20..24].copy_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    message[24..28].copy_from_slice(&IFF_UP.to_ne_bytes());
    message[28..32].copy_from_slice(&IFF_UP.to_ne_bytes());
    message
}

/// Brings `lo` up.
pub(super) fn up() -> Result<()> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
    .context("cannot open a netlink socket")?;
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &request(), &kernel, MsgFlags::empty())
        .context("cannot ask the kernel for lo")?;
    let mut reply = [0; 1024];
    let length =
        recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty()).context("cannot read the kernel's answer")?;
    let code = match reply[..length] {
        [
            _,
            _,
            _,
            _,
            kind_low,
            kind_high,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            a,
            b,
            c,
            d,
            ..,
        ] if u16::from_ne_bytes([kind_low, kind_high]) == NLMSG_ERROR => i32::from_ne_bytes([a, b, c, d]),
        _ => bail!("the kernel answered {length} bytes that are no acknowledgement"),
    };
    if code != 0 {
        bail!("cannot bring lo up: {}", std::io::Error::from_raw_os_error(-code));
    }
    Ok(())
}
