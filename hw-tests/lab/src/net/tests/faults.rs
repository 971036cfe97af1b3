//! Every fault, seen from its two ends.

use std::cell::Cell;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::guest::{Guest, wait};
use super::net;
use crate::net::{HOST, Impairment, Net, Port, Where, read_capture};

/// A host, a guest and numbered datagrams from the one to the other.
struct Course<'a> {
    net: &'a Net,
    from: UdpSocket,
    at: UdpSocket,
    to: (Ipv4Addr, u16),
    /// The last number that was used: none twice, so that nothing late is mistaken for something new.
    number: Cell<u32>,
}

impl<'a> Course<'a> {
    fn new(net: &'a Net, guest: &Guest, port: &Port) -> Self {
        let from = net.enter(|| UdpSocket::bind((HOST, 0)).unwrap()).unwrap();
        Self::between(net, from, guest, port)
    }

    fn between(net: &'a Net, from: UdpSocket, guest: &Guest, port: &Port) -> Self {
        let at = guest.enter(|| UdpSocket::bind((port.ip, 0)).unwrap());
        at.set_nonblocking(true).unwrap();
        // Room for all of a run: only the network loses something.
        setsockopt(&at, sockopt::RcvBufForce, &(8 << 20)).unwrap();
        let to = (port.ip, at.local_addr().unwrap().port());
        Self {
            net,
            from,
            at,
            to,
            number: Cell::new(1 << 20),
        }
    }

    fn send(&self, number: u32) {
        self.from.send_to(&number.to_be_bytes(), self.to).unwrap();
    }

    fn next(&self) -> Option<u32> {
        let mut number = [0; 4];
        self.at.recv(&mut number).ok().map(|_| u32::from_be_bytes(number))
    }

    /// Sends one after the other, and gives what comes until the last, which goes over a healed network.
    fn run(&self, frames: u32, place: &Where) -> Vec<u32> {
        let host = || self.net.stats().unwrap().ports["host"].from.frames;
        let before = host();
        for number in 0..frames {
            self.send(number);
            // Not faster than the forwarder: the tap holds a few hundred.
            if number % 64 == 63 {
                wait(|| host() > before + u64::from(number), "the forwarder");
            }
        }
        wait(
            || host() >= before + u64::from(frames),
            "the forwarder to have seen everything",
        );
        self.net.heal(place).unwrap();
        let mut got = vec![];
        let last = self.fresh();
        let end = || {
            self.send(last);
            let new = self.take();
            let over = new.contains(&last);
            got.extend(new);
            over
        };
        wait(end, "the last datagram");
        got.retain(|number| *number < frames);
        got
    }

    fn take(&self) -> Vec<u32> {
        std::iter::from_fn(|| self.next()).collect()
    }

    fn fresh(&self) -> u32 {
        self.number.set(self.number.get() + 1);
        self.number.get()
    }

    fn passes(&self) {
        let first = self.fresh();
        let arrived = || {
            self.send(self.fresh());
            self.take().into_iter().any(|number| number > first)
        };
        wait(arrived, "a datagram");
    }

    /// Nothing of `count` arrives: they were all seen to end at the fault that `counted` counts.
    fn stopped(&self, count: u64, counted: impl Fn() -> u64) {
        let (before, first) = (counted(), self.fresh());
        (0..count).for_each(|_| self.send(self.fresh()));
        wait(|| counted() >= before + count, "datagrams that end at the fault");
        assert!(self.take().iter().all(|number| *number <= first));
    }
}

macro_rules! course {
    ($net:ident, $course:ident) => {
        let Some(($net, _folder)) = net(&["a"]) else {
            return;
        };
        let port = $net.port("a", "n1").unwrap();
        let guest = Guest::plug(&$net, &port);
        let $course = Course::new(&$net, &guest, &port);
        $course.passes();
    };
}

#[test]
fn a_cut_lets_nothing_pass_until_healed_in_its_direction_only() {
    course!(net, course);
    for place in [
        Where::port("n1"),
        Where::uplink("a"),
        Where::uplink("centre").only_from(),
        Where::everything(),
    ] {
        net.cut(&place).unwrap();
        let cut = || {
            let stats = net.stats().unwrap();
            stats.ports["n1"].to.cut
                + stats.sites["a"].to.cut
                + stats.sites["centre"].from.cut
                + stats.everything.cut
        };
        course.stopped(5, cut);
        net.heal(&place).unwrap();
        course.passes();
    }
    net.cut(&Where::port("n1").only_from()).unwrap();
    course.passes();
    net.cut(&Where::uplink("a").only_to()).unwrap();
    course.stopped(1, || net.stats().unwrap().sites["a"].to.cut);
    net.heal_all().unwrap();
    course.passes();
    for nowhere in [Where::port("n2"), Where::uplink("b")] {
        assert!(net.cut(&nowhere).is_err() && net.heal(&nowhere).is_err());
    }
}

#[test]
fn loss_loses_about_as_many_as_asked() {
    // That it is the same ones for the same seed is for `fabric` to show: kernels say things of their own in between.
    course!(net, course);
    let place = Where::port("n1").only_to();
    net.reseed(7).unwrap();
    net.impair(&place, &Impairment::loss(0.3)).unwrap();
    let got = course.run(1000, &place);
    assert!((600..800).contains(&got.len()), "{} of 1000", got.len());
    assert!(got.is_sorted());
}

#[test]
fn duplicates_arrive_twice_and_nothing_is_lost() {
    course!(net, course);
    let place = Where::uplink("a").only_to();
    net.impair(
        &place,
        &Impairment {
            duplicate: 0.25,
            ..Impairment::default()
        },
    )
    .unwrap();
    let got = course.run(400, &place);
    let twice = net.stats().unwrap().sites["a"].to.duplicated;
    assert!((50..150).contains(&twice), "{twice}");
    assert_eq!(got.len() as u64, 400 + twice);
    assert!(got.is_sorted(), "without reordering");
}

#[test]
fn reordered_frames_arrive_late_but_all() {
    course!(net, course);
    let place = Where::port("n1").only_to();
    net.impair(
        &place,
        &Impairment {
            reorder: 0.2,
            ..Impairment::default()
        },
    )
    .unwrap();
    let mut got = course.run(400, &place);
    wait(
        || {
            got.extend(course.take().into_iter().filter(|number| *number < 400));
            got.len() == 400
        },
        "the ones held back",
    );
    assert!(!got.is_sorted());
    got.sort_unstable();
    assert!(got.iter().copied().eq(0..400));
}

#[test]
fn corrupt_frames_are_delivered_and_the_kernel_drops_them() {
    course!(net, course);
    let place = Where::port("n1").only_to();
    net.impair(
        &place,
        &Impairment {
            corrupt: 1.0,
            ..Impairment::default()
        },
    )
    .unwrap();
    let got = course.run(100, &place);
    assert!(net.stats().unwrap().ports["n1"].to.corrupted >= 100);
    // A flipped bit in a field that no checksum covers (Ethernet's padding, a UDP checksum that became none) may pass.
    assert!(got.len() < 20, "{got:?}");
}

#[test]
fn delay_and_rate_hold_frames_back() {
    course!(net, course);
    let place = Where::everything();
    let delay = Duration::from_millis(50);
    net.impair(
        &place,
        &Impairment {
            rate_bits: Some(1_000_000),
            ..Impairment::delay(delay)
        },
    )
    .unwrap();
    course.send(99);
    wait(|| course.next() == Some(99), "the delayed datagram");
    let read = read_capture(&std::fs::read(net.capture().unwrap()).unwrap()).unwrap();
    let at = |name: &str, sent: bool| {
        read.iter()
            .find(|c| c.port == name && c.sent == sent && c.frame.ends_with(&99_u32.to_be_bytes()))
            .unwrap()
            .at
    };
    // 46 bytes at a megabit take 368 µs.
    assert!(at("n1", false) - at("host", true) >= delay + Duration::from_micros(360));
}

#[test]
fn a_partition_stops_only_its_two_sites() {
    let Some((net, _folder)) = net(&["a", "b", "c"]) else {
        return;
    };
    let ports = ["a", "b", "c"].map(|site| net.port(site, &format!("{site}1")).unwrap());
    let guests = ports.each_ref().map(|port| Guest::plug(&net, port));
    let course = |from: usize, to: usize| {
        let socket = guests[from].enter(|| UdpSocket::bind((ports[from].ip, 0)).unwrap());
        Course::between(&net, socket, &guests[to], &ports[to])
    };
    let (ab, ba, ac, cb) = (course(0, 1), course(1, 0), course(0, 2), course(2, 1));
    let from_host = Course::new(&net, &guests[1], &ports[1]);
    let all = [&ab, &ba, &ac, &cb, &from_host];
    all.iter().for_each(|course| course.passes());
    net.partition("a", "b").unwrap();
    for stopped in [&ab, &ba] {
        stopped.stopped(5, || net.stats().unwrap().partitioned);
    }
    for passes in [&ac, &cb, &from_host] {
        passes.passes();
    }
    net.join("b", "a").unwrap();
    all.iter().for_each(|course| course.passes());
    net.partition("centre", "b").unwrap();
    from_host.stopped(5, || net.stats().unwrap().partitioned);
    ab.passes();
    net.heal_all().unwrap();
    from_host.passes();
}
