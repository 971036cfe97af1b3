//! What the router reads from frames and writes into them: Ethernet (RFC 894), ARP (RFC 826), IPv4 (RFC 791), ICMP (RFC
//! 792), IPv6 (RFC 8200), ICMPv6 and neighbour discovery (RFC 4443, 4861). Everything read is checked for its length
//! and checksum, and `None` where it is not what it says; nothing here panics on any bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::plan::Mac;

pub(super) const ETHERNET: usize = 14;
pub(super) const ARP: u16 = 0x0806;
pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Ethernet<'a> {
    pub(super) to: Mac,
    pub(super) from: Mac,
    pub(super) kind: u16,
    pub(super) payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    pub(super) fn parse(frame: &'a [u8]) -> Option<Self> {
        Some(Self {
            to: Mac(array(frame, 0)?),
            from: Mac(array(frame, 6)?),
            kind: u16_at(frame, 12)?,
            payload: frame.get(ETHERNET..)?,
        })
    }

    pub(super) fn build(&self) -> Vec<u8> {
        [
            &self.to.0[..],
            &self.from.0,
            &self.kind.to_be_bytes(),
            self.payload,
        ]
        .concat()
    }
}

/// Writes the addresses of a frame that is at least a header long.
pub(super) fn address(frame: &mut [u8], to: Mac, from: Mac) {
    if let Some(header) = frame.first_chunk_mut::<12>() {
        header[..6].copy_from_slice(&to.0);
        header[6..].copy_from_slice(&from.0);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arp {
    pub(super) request: bool,
    pub(super) sender: (Mac, Ipv4Addr),
    pub(super) target: (Mac, Ipv4Addr),
}

impl Arp {
    /// Ethernet and IPv4, six and four bytes long.
    const KINDS: [u8; 6] = [0, 1, 8, 0, 6, 4];

    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let operation = u16_at(packet, 6)?;
        (array(packet, 0)? == Self::KINDS && matches!(operation, 1 | 2)).then_some(())?;
        Some(Self {
            request: operation == 1,
            sender: (Mac(array(packet, 8)?), array::<4>(packet, 14)?.into()),
            target: (Mac(array(packet, 18)?), array::<4>(packet, 24)?.into()),
        })
    }

    pub(super) fn build(&self) -> Vec<u8> {
        let operation = [0, if self.request { 1 } else { 2 }];
        let (sender, target) = (self.sender, self.target);
        [
            &Self::KINDS[..],
            &operation,
            &sender.0.0,
            &sender.1.octets(),
            &target.0.0,
            &target.1.octets(),
        ]
        .concat()
    }
}

/// An IPv4 packet with a right header checksum.
#[derive(Debug, Clone, Copy)]
pub(super) struct V4<'a> {
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    pub(super) ttl: u8,
    pub(super) protocol: u8,
    /// Not the first fragment, or not the only one.
    pub(super) fragment: bool,
    /// Header and body, without the padding that follows in short frames.
    pub(super) whole: &'a [u8],
    pub(super) body: &'a [u8],
}

impl<'a> V4<'a> {
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        let first = *packet.first()?;
        let header = usize::from(first & 15) * 4;
        let whole = packet.get(..usize::from(u16_at(packet, 2)?))?;
        (first >> 4 == 4 && header >= V4_HEADER && checksum(&[whole.get(..header)?]) == 0).then_some(())?;
        Some(Self {
            from: array::<4>(whole, 12)?.into(),
            to: array::<4>(whole, 16)?.into(),
            ttl: whole[8],
            protocol: whole[9],
            // More fragments, or an offset.
            fragment: u16_at(whole, 6)? & 0x3fff != 0,
            whole,
            body: whole.get(header..)?,
        })
    }
}

/// An IPv4 packet of ours.
pub(super) fn v4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(V4_HEADER + body.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let mut packet = [
        &[0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 64, protocol, 0, 0][..],
        &from.octets(),
        &to.octets(),
        body,
    ]
    .concat();
    let sum = checksum(&[&packet[..V4_HEADER]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// One hop less, with the checksum that fits. For a frame whose packet was parsed.
pub(super) fn v4_hop(frame: &mut [u8]) {
    let Some(packet) = frame.get_mut(ETHERNET..) else {
        return;
    };
    let header = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    let Some(header) = packet
        .get_mut(..header)
        .filter(|header| header.len() >= V4_HEADER)
    else {
        return;
    };
    header[8] = header[8].saturating_sub(1);
    header[10..12].fill(0);
    let sum = checksum(&[header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// An IPv6 packet. Extension headers are not looked into: `next` is what follows the header itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct V6<'a> {
    pub(super) from: Ipv6Addr,
    pub(super) to: Ipv6Addr,
    pub(super) hops: u8,
    pub(super) next: u8,
    pub(super) whole: &'a [u8],
    pub(super) body: &'a [u8],
}

impl<'a> V6<'a> {
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        (packet.first()? >> 4 == 6).then_some(())?;
        let whole = packet.get(..V6_HEADER + usize::from(u16_at(packet, 4)?))?;
        Some(Self {
            from: array::<16>(whole, 8)?.into(),
            to: array::<16>(whole, 24)?.into(),
            hops: whole[7],
            next: whole[6],
            whole,
            body: whole.get(V6_HEADER..)?,
        })
    }

    /// Its ICMPv6 message, if it is one with a right checksum.
    pub(super) fn icmp(&self) -> Option<&'a [u8]> {
        (self.next == ICMPV6 && checksum(&[&pseudo(self.from, self.to, self.body.len()), self.body]) == 0)
            .then_some(self.body)
    }
}

/// One hop less. For a frame whose packet was parsed.
pub(super) fn v6_hop(frame: &mut [u8]) {
    if let Some(hops) = frame.get_mut(ETHERNET + 7) {
        *hops = hops.saturating_sub(1);
    }
}

/// An IPv6 packet of ours with an ICMPv6 message, whose checksum is filled in. Neighbour discovery wants 255 hops, and
/// the rest does not mind.
pub(super) fn v6_icmp(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    let sum = checksum(&[&pseudo(from, to, message.len()), message]);
    let mut packet = [
        &[0x60, 0, 0, 0, len[0], len[1], ICMPV6, 255][..],
        &from.octets(),
        &to.octets(),
        message,
    ]
    .concat();
    if let Some(place) = packet.get_mut(V6_HEADER + 2..V6_HEADER + 4) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

fn pseudo(from: Ipv6Addr, to: Ipv6Addr, len: usize) -> [u8; 40] {
    let mut header = [0; 40];
    header[..16].copy_from_slice(&from.octets());
    header[16..32].copy_from_slice(&to.octets());
    header[32..36].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    header[39] = ICMPV6;
    header
}

/// A neighbour solicitation or advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// A question; else an answer.
    pub(super) question: bool,
    pub(super) target: Ipv6Addr,
    /// The link-layer address option: the asker's or the answerer's.
    pub(super) mac: Option<Mac>,
}

impl Neighbour {
    const QUESTION: u8 = 135;
    const ANSWER: u8 = 136;

    pub(super) fn parse(packet: &V6<'_>) -> Option<Self> {
        let message = packet.icmp().filter(|_| packet.hops == 255)?;
        let question = match array(message, 0)? {
            [Self::QUESTION, 0] => true,
            [Self::ANSWER, 0] => false,
            _ => return None,
        };
        let target = array::<16>(message, 8)?.into();
        let wanted = if question { 1 } else { 2 };
        let mut options = message.get(24..)?;
        let mut mac = None;
        while let [kind, eighths, ..] = *options {
            // A length of nothing would never end, and makes the message invalid (RFC 4861, 4.6).
            let option = options
                .get(..usize::from(eighths) * 8)
                .filter(|option| !option.is_empty())?;
            if kind == wanted && eighths == 1 {
                mac = array(option, 2).map(Mac);
            }
            options = &options[option.len()..];
        }
        Some(Self {
            question,
            target,
            mac,
        })
    }

    /// The message, still without its checksum. An answer of ours is a router's, solicited and overriding.
    pub(super) fn build(&self) -> Vec<u8> {
        let (kind, flags, option) = if self.question {
            (Self::QUESTION, 0, 1)
        } else {
            (Self::ANSWER, 0xe0, 2)
        };
        let mut message = [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &self.target.octets()].concat();
        if let Some(mac) = self.mac {
            message.extend([option, 1]);
            message.extend(mac.0);
        }
        message
    }
}

/// Where a question for `target` is sent to (RFC 4291, 2.7.1), and the Ethernet address of that group (RFC 2464, 7).
pub(super) fn solicited(target: Ipv6Addr) -> (Ipv6Addr, Mac) {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        u16::from_be_bytes([b, c]),
    );
    (group, Mac([0x33, 0x33, 0xff, a, b, c]))
}

/// The Internet checksum (RFC 1071) over parts of which all but the last are of even length. Over bytes that hold
/// their own right checksum it is 0.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        let (pairs, rest) = part.as_chunks::<2>();
        sum += pairs
            .iter()
            .map(|pair| u64::from(u16::from_be_bytes(*pair)))
            .sum::<u64>();
        sum += rest.first().map_or(0, |byte| u64::from(*byte) << 8);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}
