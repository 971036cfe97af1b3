//! Sockets that ping: an unprivileged one where the system allows it (`net.ipv4.ping_group_range`), a raw one else.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

const HEADER: usize = 8;
/// Bytes that the kernel keeps until we read: answers of thousands of nodes.
const QUEUE: usize = 8 << 20;

/// One family's socket.
#[derive(Debug)]
pub(crate) struct Ping {
    socket: Socket,
    v6: bool,
    raw: bool,
    identifier: u16,
    sequence: u16,
}

impl Ping {
    /// Opens it without privileges if that may be, raw otherwise.
    pub(crate) fn open(v6: bool, identifier: u16) -> io::Result<Self> {
        let (domain, protocol) = if v6 {
            (Domain::IPV6, Protocol::ICMPV6)
        } else {
            (Domain::IPV4, Protocol::ICMPV4)
        };
        let (socket, raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
            Ok(socket) => (socket, false),
            Err(_) => (Socket::new(domain, Type::RAW, Some(protocol))?, true),
        };
        socket.set_nonblocking(true)?;
        // More than the limit is not given, and what is given suffices for fewer nodes.
        let _ = socket.set_recv_buffer_size(QUEUE);
        let _ = socket.set_send_buffer_size(QUEUE);
        Ok(Self {
            socket,
            v6,
            raw,
            identifier,
            sequence: 0,
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a payload as an echo request.
    pub(crate) fn send(&mut self, to: IpAddr, payload: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = vec![0; HEADER];
        message[0] = if self.v6 { 128 } else { 8 };
        // An unprivileged socket puts its own identifier here, and both put the checksum where it is the kernel's.
        message[4..6].copy_from_slice(&self.identifier.to_be_bytes());
        message[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        message.extend_from_slice(payload);
        if self.raw && !self.v6 {
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        self.socket
            .send_to(&message, &SocketAddr::new(to, 0).into())
            .map(drop)
    }

    /// The payload of the next echo reply to us; `None`: nothing more is there.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        loop {
            let length = match (&self.socket).read(buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // An ICMP error about one of the nodes; the others' answers are still there.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::HostUnreachable
                            | io::ErrorKind::NetworkUnreachable
                            | io::ErrorKind::ConnectionRefused
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some((begin, end)) = self.payload(&buffer[..length]) {
                return Ok(Some(&buffer[begin..end]));
            }
        }
    }

    /// Where the payload is, if this is an echo reply for us.
    fn payload(&self, packet: &[u8]) -> Option<(usize, usize)> {
        let begin = match packet.first()? {
            first if self.raw && !self.v6 => usize::from(first & 0xf) * 4,
            _ => 0,
        };
        let message = packet.get(begin..)?;
        let (header, _) = message.split_at_checked(HEADER)?;
        let reply = if self.v6 { 129 } else { 0 };
        let ours = !self.raw || header[4..6] == self.identifier.to_be_bytes();
        (header[0] == reply && ours).then_some((begin + HEADER, packet.len()))
    }
}

/// RFC 1071.
fn checksum(message: &[u8]) -> u16 {
    let mut sum: u32 = message
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
    let folded = sum as u16;
    !folded
}
