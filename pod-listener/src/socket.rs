//! The raw sockets: what the kernel lets through to them, and the ICMP around a payload (RFC 792, RFC 4443).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use pod_wire::{ANSWER_BYTES, NODE_OFFSET, REQUEST_BYTES, REQUEST_MAGIC};
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys::{self, Came};

const HEADER: usize = 8;
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST_6: u8 = 128;
const ECHO_REPLY_6: u8 = 129;
/// The largest packet that passes the filter: IPv4 options included.
pub(crate) const PACKET: usize = 60 + HEADER + REQUEST_BYTES;
/// Bytes that the kernel keeps for us while we are not scheduled.
const QUEUE: usize = 1 << 20;

/// One raw socket.
#[derive(Debug)]
pub(crate) struct Door {
    socket: Socket,
    v6: bool,
}

/// A payload with what its answer needs.
pub(crate) struct Knock<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) came: Came,
    /// Identifier and sequence number of the echo request.
    echo: [u8; 4],
}

impl Door {
    /// Opens the door for one family; only packets of our form for this node come through.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or without the family.
    pub(crate) fn open(v6: bool, node: &[u8; 16]) -> io::Result<Self> {
        let (domain, protocol) = if v6 {
            (Domain::IPV6, Protocol::ICMPV6)
        } else {
            (Domain::IPV4, Protocol::ICMPV4)
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        sys::attach_filter(socket.as_fd(), &mut filter(v6, node))?;
        if v6 {
            sys::pass_only_icmp6(socket.as_fd(), ECHO_REQUEST_6)?;
        }
        sys::tell_more(socket.as_fd(), v6)?;
        socket.set_recv_buffer_size(QUEUE)?;
        // What came in before the filter was there.
        let mut scrap = [0; PACKET];
        while sys::receive(socket.as_fd(), &mut scrap)?.is_some() {}
        Ok(Self { socket, v6 })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next packet, if there is one. Its payload may be empty: then it was none.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8; PACKET]) -> io::Result<Option<Knock<'a>>> {
        let Some(came) = sys::receive(self.socket.as_fd(), buffer)? else {
            return Ok(None);
        };
        let packet = buffer.get(..came.length).unwrap_or_default();
        let begin = match packet.first() {
            Some(first) if !self.v6 => usize::from(first & 0xf) * 4,
            _ => 0,
        };
        let message = packet.get(begin..).unwrap_or_default();
        let (payload, echo) = match message.split_at_checked(HEADER) {
            Some((header, payload)) => (payload, [header[4], header[5], header[6], header[7]]),
            None => (&[][..], [0; 4]),
        };
        Ok(Some(Knock { payload, came, echo }))
    }

    /// Sends an answer as the reply to that echo request.
    pub(crate) fn answer(
        &self,
        knock_echo: [u8; 4],
        came: &Came,
        payload: &[u8; ANSWER_BYTES],
    ) -> io::Result<()> {
        let mut message = [0; HEADER + ANSWER_BYTES];
        message[0] = if self.v6 { ECHO_REPLY_6 } else { ECHO_REPLY };
        message[4..8].copy_from_slice(&knock_echo);
        message[HEADER..].copy_from_slice(payload);
        // For ICMPv6 the kernel does it: the checksum covers addresses that only it knows (RFC 3542 §3.1).
        if !self.v6 {
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        sys::answer(self.socket.as_fd(), &message, came)
    }
}

impl Knock<'_> {
    pub(crate) const fn echo(&self) -> [u8; 4] {
        self.echo
    }
}

/// RFC 1071, over an even number of bytes.
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

/// Echo request, our length, our magic, this node: classic BPF, so that a ping flood never wakes us. An IPv4 raw
/// socket sees the IP header, an ICMPv6 one does not.
fn filter(v6: bool, node: &[u8; 16]) -> Vec<libc::sock_filter> {
    const LOAD_X_HEADER: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH: x = 4 * (byte & 15)
    const LOAD_X_ZERO: u16 = 0x01; // BPF_LDX | BPF_W | BPF_IMM
    const LOAD_HALF: u16 = 0x48; // BPF_LD | BPF_H | BPF_IND
    const LOAD_WORD: u16 = 0x40; // BPF_LD | BPF_W | BPF_IND
    const LOAD_LENGTH: u16 = 0x80; // BPF_LD | BPF_W | BPF_LEN
    const SUBTRACT_X: u16 = 0x1c; // BPF_ALU | BPF_SUB | BPF_X
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let line = |code, k| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let length = u32::try_from(HEADER + REQUEST_BYTES).unwrap_or(0);
    let place = |offset: usize| u32::try_from(HEADER + offset).unwrap_or(0);
    let prefix = u32::from_be_bytes([node[0], node[1], node[2], node[3]]);
    let kind = u32::from(if v6 { ECHO_REQUEST_6 } else { ECHO_REQUEST }) << 8;
    let mut program = vec![
        line(if v6 { LOAD_X_ZERO } else { LOAD_X_HEADER }, 0),
        line(LOAD_LENGTH, 0),
        line(SUBTRACT_X, 0),
        line(EQUAL, length),
        line(LOAD_HALF, 0),
        line(EQUAL, kind),
        line(LOAD_WORD, place(0)),
        line(EQUAL, u32::from_be_bytes(REQUEST_MAGIC)),
        line(LOAD_WORD, place(NODE_OFFSET)),
        line(EQUAL, prefix),
        line(RETURN, u32::MAX),
        line(RETURN, 0),
    ];
    let end = program.len() - 1;
    for (at, line) in program.iter_mut().enumerate() {
        if line.code == EQUAL {
            line.jf = u8::try_from(end - at - 1).unwrap_or(u8::MAX);
        }
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        // The RFC's own example, §3.
        let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&example), !0xddf2);
    }
}
