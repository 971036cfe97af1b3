//! The router of all segments. Pure: a frame in, frames out.
//!
//! ```text
//! frame for the router's MAC or a group ─┬─ ARP, neighbour discovery ─▸ learn, answer, send what waited
//!                                        ├─ echo for the router itself ─▸ answer
//!                                        └─ IPv4, IPv6 for a segment ─▸ one hop less ─▸ neighbour known? send : ask, hold
//! ```
//!
//! It tells the sender when hops run out or no segment has the address, as a router does; a neighbour that does not
//! answer is met with silence. It does not fragment (all links carry the same), forward groups, send router
//! advertisements (addresses are static) or keep time (what it has learnt stays until it is told otherwise).
//! Everything that a guest can make it remember is bounded.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};

use super::frame::{self, ARP, Arp, Ethernet, ICMP, IPV4, IPV6, Neighbour, V4, V6};
use super::plan::{self, Mac};

const MAX_NEIGHBOURS: usize = 4096;
/// For how many neighbours that did not answer yet frames are held, and how many frames for each.
const MAX_ASKED: usize = 256;
const MAX_HELD: usize = 4;
/// How much of an IPv6 packet an error quotes, so that the error fits into the smallest link (RFC 4443, 2.4).
const QUOTE_V6: usize = 1232;

/// Frames to send, each with its segment.
pub(super) type Out = Vec<(u8, Vec<u8>)>;

pub(super) struct Router {
    segments: u8,
    neighbours: HashMap<(u8, IpAddr), Mac>,
    held: HashMap<(u8, IpAddr), Vec<Vec<u8>>>,
    /// Pairs of segments that do not reach each other, the smaller first.
    partitions: HashSet<(u8, u8)>,
    pub(super) partitioned: u64,
}

/// What is wrong with a packet that is not forwarded, as its sender is told.
#[derive(Clone, Copy)]
enum Trouble {
    NoHopsLeft,
    NoRoute,
}

impl Router {
    pub(super) fn new(segments: u8) -> Self {
        Self {
            segments,
            neighbours: HashMap::new(),
            held: HashMap::new(),
            partitions: HashSet::new(),
            partitioned: 0,
        }
    }

    /// A neighbour that needs no asking.
    pub(super) fn introduce(&mut self, segment: u8, address: IpAddr, mac: Mac) {
        self.neighbours.insert((segment, address), mac);
    }

    pub(super) fn partition(&mut self, a: u8, b: u8) {
        self.partitions.insert((a.min(b), a.max(b)));
    }

    pub(super) fn join(&mut self, a: u8, b: u8) {
        self.partitions.remove(&(a.min(b), a.max(b)));
    }

    pub(super) fn join_all(&mut self) {
        self.partitions.clear();
    }

    pub(super) fn receive(&mut self, segment: u8, frame: Vec<u8>, out: &mut Out) {
        let Some(ethernet) = Ethernet::parse(&frame) else {
            return;
        };
        if ethernet.to != plan::router_mac(segment) && !ethernet.to.is_group() {
            return;
        }
        match ethernet.kind {
            ARP => {
                if let Some(arp) = Arp::parse(ethernet.payload) {
                    self.arp(segment, &arp, out);
                }
            }
            IPV4 => self.v4(segment, frame, out),
            IPV6 => self.v6(segment, frame, out),
            _ => {}
        }
    }

    fn arp(&mut self, segment: u8, arp: &Arp, out: &mut Out) {
        self.learn(segment, arp.sender.1.into(), arp.sender.0, out);
        let (ours, mac) = (plan::router_ip(segment), plan::router_mac(segment));
        if arp.request && arp.target.1 == ours {
            let answer = Arp {
                request: false,
                sender: (mac, ours),
                target: arp.sender,
            }
            .build();
            out.push((
                segment,
                Ethernet {
                    to: arp.sender.0,
                    from: mac,
                    kind: ARP,
                    payload: &answer,
                }
                .build(),
            ));
        }
    }

    fn v4(&mut self, segment: u8, frame: Vec<u8>, out: &mut Out) {
        let Some(packet) = Ethernet::parse(&frame).and_then(|ethernet| V4::parse(ethernet.payload)) else {
            return;
        };
        let to = packet.to;
        if to.is_multicast() || to.octets()[3] == 255 {
            return;
        }
        if self.is_ours(to.into()) {
            // The echo that is answered fits into one packet.
            if let ([8, 0, ..], ICMP, false) = (packet.body, packet.protocol, packet.fragment)
                && frame::checksum(&[packet.body]) == 0
            {
                let body = icmp(0, 0, &packet.body[4..]);
                self.send(
                    segment,
                    packet.from.into(),
                    &frame::v4(to, packet.from, ICMP, &body),
                    out,
                );
            }
            return;
        }
        match self.route(segment, to.into(), packet.ttl) {
            Ok(Some(next)) => {
                let mut frame = frame;
                frame::v4_hop(&mut frame);
                self.deliver(next, to.into(), frame, out);
            }
            Ok(None) => self.partitioned += 1,
            Err(trouble) => self.refuse_v4(segment, &packet, trouble, out),
        }
    }

    fn v6(&mut self, segment: u8, frame: Vec<u8>, out: &mut Out) {
        let Some(packet) = Ethernet::parse(&frame).and_then(|ethernet| V6::parse(ethernet.payload)) else {
            return;
        };
        let to = packet.to;
        if let Some(neighbour) = Neighbour::parse(&packet) {
            self.neighbour(segment, &packet, &neighbour, out);
        } else if self.is_ours(to.into()) {
            if let Some([128, 0, _, _, rest @ ..]) = packet.icmp() {
                let answer = frame::v6_icmp(to, packet.from, &[&[129, 0, 0, 0], rest].concat());
                self.send(segment, packet.from.into(), &answer, out);
            }
        } else if !to.is_multicast() && !to.is_unicast_link_local() && !packet.from.is_unicast_link_local() {
            match self.route(segment, to.into(), packet.hops) {
                Ok(Some(next)) => {
                    let mut frame = frame;
                    frame::v6_hop(&mut frame);
                    self.deliver(next, to.into(), frame, out);
                }
                Ok(None) => self.partitioned += 1,
                Err(trouble) => self.refuse_v6(segment, &packet, trouble, out),
            }
        }
    }

    fn neighbour(&mut self, segment: u8, packet: &V6<'_>, neighbour: &Neighbour, out: &mut Out) {
        let Neighbour {
            question,
            target,
            mac,
        } = *neighbour;
        if let Some(mac) = mac {
            self.learn(
                segment,
                if question { packet.from } else { target }.into(),
                mac,
                out,
            );
        }
        if !question || !(target == plan::router_ip6(segment) || target == plan::ROUTER_LINK_LOCAL) {
            return;
        }
        let ours = plan::router_mac(segment);
        let answer = Neighbour {
            question: false,
            target,
            mac: Some(ours),
        }
        .build();
        if packet.from.is_unspecified() {
            // Somebody checks whether the address is taken. It is.
            let (group, to) = (
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
                Mac([0x33, 0x33, 0, 0, 0, 1]),
            );
            let answer = frame::v6_icmp(target, group, &answer);
            out.push((
                segment,
                Ethernet {
                    to,
                    from: ours,
                    kind: IPV6,
                    payload: &answer,
                }
                .build(),
            ));
        } else {
            self.send(
                segment,
                packet.from.into(),
                &frame::v6_icmp(target, packet.from, &answer),
                out,
            );
        }
    }

    fn is_ours(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => (0..self.segments).any(|segment| v4 == plan::router_ip(segment)),
            IpAddr::V6(v6) => {
                v6 == plan::ROUTER_LINK_LOCAL
                    || (0..self.segments).any(|segment| v6 == plan::router_ip6(segment))
            }
        }
    }

    /// The segment to send to; `None` if a partition is in between.
    fn route(&self, from: u8, to: IpAddr, hops: u8) -> Result<Option<u8>, Trouble> {
        let next = plan::segment_of(to, self.segments).ok_or(Trouble::NoRoute)?;
        if hops <= 1 {
            return Err(Trouble::NoHopsLeft);
        }
        Ok((!self.partitions.contains(&(from.min(next), from.max(next)))).then_some(next))
    }

    fn refuse_v4(&mut self, segment: u8, packet: &V4<'_>, trouble: Trouble, out: &mut Out) {
        // Never an error about an error: only echoes among ICMP are asked about (RFC 1122, 3.2.2).
        let is_error = packet.protocol == ICMP && !matches!(packet.body, [0 | 8, ..]);
        if is_error || packet.fragment || packet.from.is_unspecified() || packet.from.is_multicast() {
            return;
        }
        let (kind, code) = match trouble {
            Trouble::NoHopsLeft => (11, 0),
            Trouble::NoRoute => (3, 0),
        };
        let header = packet.whole.len() - packet.body.len();
        let quote = &packet.whole[..packet.whole.len().min(header + 8)];
        let body = icmp(kind, code, &[&[0; 4], quote].concat());
        let answer = frame::v4(plan::router_ip(segment), packet.from, ICMP, &body);
        self.send(segment, packet.from.into(), &answer, out);
    }

    fn refuse_v6(&mut self, segment: u8, packet: &V6<'_>, trouble: Trouble, out: &mut Out) {
        let is_error = packet.next == frame::ICMPV6 && !matches!(packet.body, [128..=255, ..]);
        if is_error || packet.from.is_unspecified() || packet.from.is_multicast() {
            return;
        }
        let (kind, code) = match trouble {
            Trouble::NoHopsLeft => (3, 0),
            Trouble::NoRoute => (1, 0),
        };
        let quote = &packet.whole[..packet.whole.len().min(QUOTE_V6)];
        let message = [&[kind, code, 0, 0, 0, 0, 0, 0], quote].concat();
        let answer = frame::v6_icmp(plan::router_ip6(segment), packet.from, &message);
        self.send(segment, packet.from.into(), &answer, out);
    }

    /// A packet of ours to whoever has sent something from `segment`: to the segment of its address, or back.
    fn send(&mut self, segment: u8, to: IpAddr, packet: &[u8], out: &mut Out) {
        let segment = match to {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => segment,
            _ => match plan::segment_of(to, self.segments) {
                Some(segment) => segment,
                None => return,
            },
        };
        let kind = if to.is_ipv4() { IPV4 } else { IPV6 };
        let nobody = Mac([0; 6]);
        self.deliver(
            segment,
            to,
            Ethernet {
                to: nobody,
                from: nobody,
                kind,
                payload: packet,
            }
            .build(),
            out,
        );
    }

    /// To the neighbour, if we know it; else asks for it and holds the frame.
    fn deliver(&mut self, segment: u8, to: IpAddr, mut frame: Vec<u8>, out: &mut Out) {
        if let Some(mac) = self.neighbours.get(&(segment, to)) {
            frame::address(&mut frame, *mac, plan::router_mac(segment));
            out.push((segment, frame));
            return;
        }
        out.push((segment, question(segment, to)));
        if self.held.len() >= MAX_ASKED && !self.held.contains_key(&(segment, to)) {
            self.held.clear();
        }
        let held = self.held.entry((segment, to)).or_default();
        if held.len() < MAX_HELD {
            held.push(frame);
        }
    }

    fn learn(&mut self, segment: u8, address: IpAddr, mac: Mac, out: &mut Out) {
        let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let belongs = link_local || plan::segment_of(address, self.segments) == Some(segment);
        if !belongs || self.is_ours(address) || mac.is_group() || mac == Mac([0; 6]) {
            return;
        }
        if self.neighbours.len() >= MAX_NEIGHBOURS && !self.neighbours.contains_key(&(segment, address)) {
            // Whoever is there answers when asked again.
            self.neighbours.clear();
        }
        self.neighbours.insert((segment, address), mac);
        for frame in self.held.remove(&(segment, address)).unwrap_or_default() {
            self.deliver(segment, address, frame, out);
        }
    }
}

/// An ICMP message with its checksum; `rest` is what follows that.
fn icmp(kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0], rest].concat();
    let sum = frame::checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn question(segment: u8, about: IpAddr) -> Vec<u8> {
    let from = plan::router_mac(segment);
    match about {
        IpAddr::V4(v4) => {
            let nobody = (Mac([0; 6]), v4);
            let arp = Arp {
                request: true,
                sender: (from, plan::router_ip(segment)),
                target: nobody,
            }
            .build();
            Ethernet {
                to: Mac::BROADCAST,
                from,
                kind: ARP,
                payload: &arp,
            }
            .build()
        }
        IpAddr::V6(v6) => {
            let (group, to) = frame::solicited(v6);
            let message = Neighbour {
                question: true,
                target: v6,
                mac: Some(from),
            }
            .build();
            let packet = frame::v6_icmp(plan::ROUTER_LINK_LOCAL, group, &message);
            Ethernet {
                to,
                from,
                kind: IPV6,
                payload: &packet,
            }
            .build()
        }
    }
}
