//! The only unsafe code of the listener: system calls that neither std nor nix wraps, or wraps with an allocation.
//! Each is one call, checked.

#![expect(
    unsafe_code,
    reason = "raw packets, mapped memory, scheduling: no safe wrapper that allocates nothing"
)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_void, pid_t, socklen_t};

fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// `sched_setscheduler(2)`: SCHED_FIFO for a thread, 0 for the calling one.
pub(crate) fn fifo(tid: pid_t, priority: c_int) -> io::Result<()> {
    let parameter = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the pointer is to a live local of the right type.
    checked(unsafe { libc::sched_setscheduler(tid, libc::SCHED_FIFO, &raw const parameter) }).map(drop)
}

/// `sched_setscheduler(2)`: SCHED_OTHER for a thread.
pub(crate) fn ordinary(tid: pid_t) -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live local of the right type.
    checked(unsafe { libc::sched_setscheduler(tid, libc::SCHED_OTHER, &raw const parameter) }).map(drop)
}

/// Policy and real-time priority of a thread.
pub(crate) fn schedule(tid: pid_t) -> io::Result<(c_int, c_int)> {
    // SAFETY: takes an integer.
    let policy = checked(unsafe { libc::sched_getscheduler(tid) })?;
    let mut parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live local of the right type.
    checked(unsafe { libc::sched_getparam(tid, &raw mut parameter) })?;
    Ok((policy & !libc::SCHED_RESET_ON_FORK, parameter.sched_priority))
}

/// `setsockopt(SO_ATTACH_FILTER)` with a classic BPF program.
pub(crate) fn attach_filter(socket: BorrowedFd<'_>, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

/// `setsockopt(2)` with a flag.
pub(crate) fn set_flag(socket: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<()> {
    set(socket, level, name, &1_i32)
}

/// `setsockopt(ICMP6_FILTER)`: let one type pass (RFC 3542 §3.2: a set bit blocks).
pub(crate) fn pass_only_icmp6(socket: BorrowedFd<'_>, kind: u8) -> io::Result<()> {
    const ICMP6_FILTER: c_int = 1;
    let mut blocked = [u32::MAX; 8];
    blocked[usize::from(kind >> 5)] &= !(1 << (kind & 31));
    set(socket, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &blocked)
}

fn set<T>(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "sizes of a few bytes")]
    let length = size_of::<T>() as socklen_t;
    // SAFETY: pointer and length are those of a live value of plain data.
    checked(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            length,
        )
    })
    .map(drop)
}

/// Bytes for control messages: a packet info, a fragment size and some headers' marks.
const CONTROL: usize = 256;

/// What came besides the bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Came {
    /// Bytes of the packet.
    pub(crate) length: usize,
    /// From where, as the kernel gave it.
    from: libc::sockaddr_storage,
    from_length: socklen_t,
    /// Our address that it was sent to, if it is one.
    to: Option<To>,
    /// In fragments, or with extension headers.
    pub(crate) odd: bool,
}

#[derive(Debug, Clone, Copy)]
enum To {
    V4(Ipv4Addr),
    V6(Ipv6Addr, u32),
}

#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// `recvmsg(2)` without waiting; allocates nothing. `None`: nothing there.
pub(crate) fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<Option<Came>> {
    let mut control = Control([0; CONTROL]);
    // SAFETY: all zeros is a valid value of both structures.
    let (mut from, mut header): (libc::sockaddr_storage, libc::msghdr) = unsafe {
        (
            MaybeUninit::zeroed().assume_init(),
            MaybeUninit::zeroed().assume_init(),
        )
    };
    let mut part = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    header.msg_name = (&raw mut from).cast();
    #[expect(clippy::cast_possible_truncation, reason = "128 bytes")]
    {
        header.msg_namelen = size_of::<libc::sockaddr_storage>() as socklen_t;
    }
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL as _;
    // SAFETY: every pointer in the header is to a live local, with its length.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    if length < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        };
    }
    let mut came = Came {
        length: usize::try_from(length).unwrap_or(0),
        from,
        from_length: header.msg_namelen,
        to: None,
        // More than fits is never one of ours.
        odd: header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
    };
    // SAFETY: the kernel has filled the header, which is alive with its buffers; the macros stay inside them.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: not null, so it points to a whole control message inside the buffer.
        let (level, kind, data) = unsafe {
            (
                (*message).cmsg_level,
                (*message).cmsg_type,
                libc::CMSG_DATA(message),
            )
        };
        came.learn(level, kind, data);
        // SAFETY: as above.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    Ok(Some(came))
}

const IP_RECVFRAGSIZE: c_int = 25;
const IPV6_RECVFRAGSIZE: c_int = 77;

impl Came {
    fn learn(&mut self, level: c_int, kind: c_int, data: *const u8) {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: the kernel puts a whole in_pktinfo here; it need not be aligned.
                let info: libc::in_pktinfo = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                self.to = Some(To::V4(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr))));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: the kernel puts a whole in6_pktinfo here; it need not be aligned.
                let info: libc::in6_pktinfo = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                let to = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                if !to.is_multicast() {
                    self.to = Some(To::V6(to, info.ipi6_ifindex));
                }
            }
            (libc::IPPROTO_IP, IP_RECVFRAGSIZE)
            | (libc::IPPROTO_IPV6, IPV6_RECVFRAGSIZE)
            | (
                libc::IPPROTO_IPV6,
                libc::IPV6_HOPOPTS | libc::IPV6_DSTOPTS | libc::IPV6_RTHDR | libc::IPV6_RTHDRDSTOPTS,
            ) => self.odd = true,
            _ => {}
        }
    }
}

/// The options that make [`receive`] see where a packet was sent to and whether it is odd. What an older kernel does
/// not know is passed over; the marks only ever take packets away.
pub(crate) fn tell_more(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    if v6 {
        set_flag(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
        for option in [
            IPV6_RECVFRAGSIZE,
            libc::IPV6_RECVHOPOPTS,
            libc::IPV6_RECVDSTOPTS,
            libc::IPV6_RECVRTHDR,
        ] {
            let _ = set_flag(socket, libc::IPPROTO_IPV6, option);
        }
    } else {
        set_flag(socket, libc::IPPROTO_IP, libc::IP_PKTINFO)?;
        let _ = set_flag(socket, libc::IPPROTO_IP, IP_RECVFRAGSIZE);
    }
    Ok(())
}

/// `sendmsg(2)` back to where something came from, from the address that it was sent to; never waits.
pub(crate) fn answer(socket: BorrowedFd<'_>, bytes: &[u8], came: &Came) -> io::Result<()> {
    let mut control = Control([0; CONTROL]);
    let mut from = came.from;
    // A raw IPv6 socket refuses a port.
    if c_int::from(from.ss_family) == libc::AF_INET6 {
        // SAFETY: the family says that a sockaddr_in6 is what the storage holds; it is large and aligned enough.
        unsafe { (*(&raw mut from).cast::<libc::sockaddr_in6>()).sin6_port = 0 };
    }
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all zeros is a valid value.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_name = (&raw mut from).cast();
    header.msg_namelen = came.from_length;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    if let Some(to) = came.to {
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL as _;
        header.msg_controllen = match to {
            To::V4(address) => control_message(
                &header,
                libc::IPPROTO_IP,
                libc::IP_PKTINFO,
                libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from(address).to_be(),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                },
            ),
            To::V6(address, interface) => control_message(
                &header,
                libc::IPPROTO_IPV6,
                libc::IPV6_PKTINFO,
                libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: address.octets(),
                    },
                    ipi6_ifindex: interface,
                },
            ),
        } as _;
    }
    // SAFETY: every pointer in the header is to a live local, with its length.
    let sent = unsafe {
        libc::sendmsg(
            socket.as_raw_fd(),
            &raw const header,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Writes one control message at the begin of the header's buffer; returns its length.
fn control_message<T: Copy>(header: &libc::msghdr, level: c_int, kind: c_int, value: T) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "sizes of a few bytes")]
    let length = size_of::<T>() as u32;
    // SAFETY: the buffer behind the header has CONTROL bytes, aligned, which is more than one such message takes.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(std::ptr::from_ref(header));
        if message.is_null() {
            return 0;
        }
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = libc::CMSG_LEN(length) as _;
        libc::CMSG_DATA(message).cast::<T>().write_unaligned(value);
        libc::CMSG_SPACE(length) as usize
    }
}

/// A shared mapping of a file, for the life of the process.
///
/// # Errors
/// When it cannot be mapped, or is not as long as the type.
pub(crate) fn map<T: Plain>(file: &std::fs::File) -> io::Result<&'static mut T> {
    if file.metadata()?.len() != size_of::<T>() as u64 {
        return Err(io::Error::other("state file has another length"));
    }
    // SAFETY: a new mapping at a place that the kernel chooses; it is never unmapped.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size_of::<T>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            file.as_raw_fd(),
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: page-aligned, as long as T, any bytes are a T (Plain), and the caller holds the lock that keeps every
    // other listener off the file; readers of the counters tolerate torn numbers.
    Ok(unsafe { &mut *at.cast::<T>() })
}

/// Types for which any bytes are a value, without padding that matters.
///
/// # Safety
/// `repr(C)`, of integers and arrays of them alone.
pub(crate) unsafe trait Plain {}

// SAFETY: repr(C), of integers and arrays of bytes.
unsafe impl Plain for crate::state::Shared {}

/// `fork(2)` in a process with one thread. `Ok(None)` in the child.
pub(crate) fn fork() -> io::Result<Option<pid_t>> {
    // SAFETY: the process has one thread (callers fork before anything else), so the child may do what it likes.
    match checked(unsafe { libc::fork() })? {
        0 => Ok(None),
        child => Ok(Some(child)),
    }
}

/// `prctl(PR_SET_PDEATHSIG)`: the kernel kills us when our parent ends.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: integers only.
    checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).map(drop)
}

/// `prctl(PR_SET_DUMPABLE, 0)`: no core dump and no ptrace: there are secrets inside.
pub(crate) fn keep_to_ourselves() -> io::Result<()> {
    // SAFETY: integers only.
    checked(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) }).map(drop)
}

/// `capset(2)`: what is in `keep` and nothing else; the bounding set too.
pub(crate) fn keep_capabilities(keep: &[u32]) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Set {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    for capability in 0..64 {
        // SAFETY: integers only. Numbers that this kernel does not know are refused, which is as good.
        let there = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) };
        if there == 1 && !keep.contains(&capability) {
            // SAFETY: integers only.
            checked(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })?;
        }
    }
    let mut sets = [Set {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    for capability in keep {
        let set = &mut sets[(capability / 32) as usize % 2];
        set.effective |= 1 << (capability % 32);
        set.permitted |= 1 << (capability % 32);
    }
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    // SAFETY: both pointers are to live locals laid out as capset(2) says.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// `mount(2)`: makes a file system read-only. The target must end with a zero byte.
pub(crate) fn remount_read_only(target: &[u8]) -> io::Result<()> {
    if target.last() != Some(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let nothing: *const libc::c_char = std::ptr::null();
    // SAFETY: the target ends with a zero byte and lives until the call returns; the other pointers may be null.
    let result = unsafe {
        libc::mount(
            nothing,
            target.as_ptr().cast(),
            nothing,
            libc::MS_REMOUNT | libc::MS_RDONLY,
            std::ptr::null::<c_void>(),
        )
    };
    checked(result).map(drop)
}

/// `ioctl(WDIOC_SETTIMEOUT)`: the watchdog resets the machine unless it is fed within so many seconds.
pub(crate) fn set_watchdog(watchdog: BorrowedFd<'_>, seconds: c_int) -> io::Result<()> {
    const WDIOC_SETTIMEOUT: u32 = 0xc004_5706;
    let mut seconds = seconds;
    // SAFETY: the pointer is to a live integer, which is what this request takes.
    checked(unsafe { libc::ioctl(watchdog.as_raw_fd(), WDIOC_SETTIMEOUT as _, &raw mut seconds) }).map(drop)
}

/// `reboot(2)`: at once, nothing is synced. Returns only if the kernel refuses.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the seam: `restart.rs` calls it, armed by configuration alone"
)]
pub(crate) fn restart_now() -> io::Error {
    // SAFETY: an integer only.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    io::Error::last_os_error()
}
