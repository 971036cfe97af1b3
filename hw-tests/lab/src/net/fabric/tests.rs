//! The switches, the router and the links together, with frames made by hand: what the real kernels of `net::tests` do
//! not send.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::net::frame::{self, ARP, Arp, ICMP, IPV4, IPV6, Neighbour, V4, V6};

const NOW: Moment = Moment::from_secs(1);
const UDP: u8 = 17;

/// Ports 0 (the host), 1 and 2 at site a, 3 at site b.
fn fabric() -> Fabric {
    let mut fabric = Fabric::new(["centre", "a", "b"].map(str::to_owned).to_vec(), 1);
    fabric.add_port("host", 0, plan::HOST);
    fabric.add_port("a1", 1, 11);
    fabric.add_port("a2", 1, 12);
    fabric.add_port("b1", 2, 11);
    fabric
}

fn input(fabric: &mut Fabric, port: PortId, frame: &[u8]) -> Vec<(PortId, Vec<u8>)> {
    let mut out = vec![];
    fabric.input(port, frame.to_vec(), NOW, &mut out);
    out
}

fn to_router(segment: u8, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    Ethernet {
        to: plan::router_mac(segment),
        from,
        kind,
        payload,
    }
    .build()
}

/// A datagram from a1 (port 1) to this address, by the router.
fn datagram(to: Ipv4Addr, body: &[u8]) -> Vec<u8> {
    to_router(
        1,
        plan::mac(1, 11),
        IPV4,
        &frame::v4(plan::ip(1, 11), to, UDP, body),
    )
}

fn arp_question(segment: u8, number: u8, target: Ipv4Addr) -> Vec<u8> {
    let from = plan::mac(segment, number);
    let sender = (from, plan::ip(segment, number));
    let payload = Arp {
        request: true,
        sender,
        target: (Mac([0; 6]), target),
    }
    .build();
    Ethernet {
        to: Mac::BROADCAST,
        from,
        kind: ARP,
        payload: &payload,
    }
    .build()
}

fn neighbour_question(segment: u8, number: u8, target: Ipv6Addr) -> Vec<u8> {
    let from = plan::mac(segment, number);
    let (group, to) = frame::solicited(target);
    let message = Neighbour {
        question: true,
        target,
        mac: Some(from),
    }
    .build();
    let payload = frame::v6_icmp(plan::ip6(segment, number), group, &message);
    Ethernet {
        to,
        from,
        kind: IPV6,
        payload: &payload,
    }
    .build()
}

#[test]
fn a_routed_packet_changes_in_its_addresses_and_hops_only() {
    let mut fabric = fabric();
    let sent = datagram(plan::ip(2, 11), b"12345678 hello");
    let out = input(&mut fabric, 1, &sent);
    let [(3, got)] = &out[..] else {
        panic!("{out:02x?}")
    };
    let ethernet = Ethernet::parse(got).unwrap();
    assert_eq!(
        (ethernet.to, ethernet.from),
        (plan::mac(2, 11), plan::router_mac(2))
    );
    let (was, is) = (
        V4::parse(&sent[ETHERNET..]).unwrap(),
        V4::parse(ethernet.payload).expect("a right checksum"),
    );
    assert_eq!(
        (is.ttl, is.from, is.to, is.body),
        (was.ttl - 1, was.from, was.to, was.body)
    );
}

#[test]
fn the_switch_floods_what_it_does_not_know_and_learns() {
    let mut fabric = fabric();
    let to_a2 = Ethernet {
        to: plan::mac(1, 12),
        from: plan::mac(1, 11),
        kind: 0x9999,
        payload: b"x",
    }
    .build();
    let out = input(&mut fabric, 1, &to_a2);
    assert_eq!(
        out,
        [(2, to_a2.clone())],
        "every other port of the site, and no other site"
    );
    let _third = fabric.add_port("a3", 1, 13);
    assert_eq!(input(&mut fabric, 1, &to_a2).len(), 2, "not known yet");
    input(
        &mut fabric,
        2,
        &Ethernet {
            to: plan::mac(1, 11),
            from: plan::mac(1, 12),
            kind: 0x9999,
            payload: b"",
        }
        .build(),
    );
    assert_eq!(input(&mut fabric, 1, &to_a2), [(2, to_a2)], "known by now");
}

#[test]
fn the_router_answers_for_itself() {
    let mut fabric = fabric();
    let out = input(&mut fabric, 1, &arp_question(1, 11, plan::router_ip(1)));
    let answers: Vec<_> = out.iter().filter(|(port, _)| *port == 1).collect();
    let [(_, answer)] = &answers[..] else {
        panic!("{out:02x?}")
    };
    let arp = Arp::parse(&answer[ETHERNET..]).unwrap();
    assert_eq!(
        (arp.request, arp.sender),
        (false, (plan::router_mac(1), plan::router_ip(1)))
    );

    for target in [plan::router_ip6(1), plan::ROUTER_LINK_LOCAL] {
        let out = input(&mut fabric, 1, &neighbour_question(1, 11, target));
        let (_, answer) = out.iter().find(|(port, _)| *port == 1).unwrap();
        let neighbour = Neighbour::parse(&V6::parse(&answer[ETHERNET..]).unwrap()).unwrap();
        assert_eq!(
            neighbour,
            Neighbour {
                question: false,
                target,
                mac: Some(plan::router_mac(1))
            }
        );
    }
    for other in [plan::ip(1, 12), plan::router_ip(2)] {
        let out = input(&mut fabric, 1, &arp_question(1, 11, other));
        assert!(
            out.iter().all(|(port, _)| *port == 2),
            "not the router's to answer, only flooded: {out:02x?}"
        );
    }
    let echo = frame::v6_icmp(plan::ip6(1, 11), plan::router_ip6(2), &[128, 0, 0, 0, 1, 2, 3]);
    let out = input(&mut fabric, 1, &to_router(1, plan::mac(1, 11), IPV6, &echo));
    let packet = V6::parse(&out[0].1[ETHERNET..]).unwrap();
    assert_eq!(
        (out[0].0, packet.from, &packet.icmp().unwrap()[4..]),
        (1, plan::router_ip6(2), &[1, 2, 3][..])
    );
}

#[test]
fn errors_quote_what_they_are_about_and_are_never_about_errors() {
    let mut fabric = fabric();
    let nowhere = Ipv4Addr::new(10, 99, 0, 1);
    let sent = datagram(nowhere, b"12345678 more");
    let out = input(&mut fabric, 1, &sent);
    let [(1, got)] = &out[..] else {
        panic!("{out:02x?}")
    };
    let error = V4::parse(&got[ETHERNET..]).unwrap();
    assert_eq!(
        (
            error.protocol,
            error.body[0],
            error.body[1],
            frame::checksum(&[error.body])
        ),
        (ICMP, 3, 0, 0)
    );
    assert_eq!(&error.body[8..], &sent[ETHERNET..ETHERNET + 28]);

    let about = |payload: &[u8]| to_router(1, plan::mac(1, 11), IPV4, payload);
    let answer_to_error = about(&frame::v4(plan::ip(1, 11), nowhere, ICMP, error.body));
    assert_eq!(input(&mut fabric, 1, &answer_to_error), []);
    let nowhere6: Ipv6Addr = "fd99::1".parse().unwrap();
    let lost6 = |kind| {
        let packet = frame::v6_icmp(plan::ip6(1, 11), nowhere6, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        to_router(1, plan::mac(1, 11), IPV6, &packet)
    };
    let out = input(&mut fabric, 1, &lost6(128));
    assert_eq!(
        V6::parse(&out[0].1[ETHERNET..]).unwrap().icmp().unwrap()[..2],
        [1, 0]
    );
    assert_eq!(input(&mut fabric, 1, &lost6(1)), []);

    let mut last_hop = lost6(128);
    last_hop[ETHERNET + 7] = 1;
    last_hop[ETHERNET + 24..ETHERNET + 40].copy_from_slice(&plan::ip6(2, 11).octets());
    let out = input(&mut fabric, 1, &last_hop);
    assert_eq!(
        V6::parse(&out[0].1[ETHERNET..]).unwrap().icmp().unwrap()[..2],
        [3, 0]
    );
}

#[test]
fn an_unknown_neighbour_is_asked_for_and_gets_what_was_held() {
    let mut fabric = fabric();
    // Somebody at site b whom no port was made for, behind port 3.
    let stranger = Mac([2, 0, 0, 0, 0, 9]);
    for number in 0..6 {
        let out = input(&mut fabric, 1, &datagram(plan::ip(2, 99), &[number]));
        let [(3, question)] = &out[..] else {
            panic!("{out:02x?}")
        };
        assert_eq!(
            Arp::parse(&question[ETHERNET..]).unwrap().target.1,
            plan::ip(2, 99)
        );
    }
    let sender = (stranger, plan::ip(2, 99));
    let answer = Arp {
        request: false,
        sender,
        target: (plan::router_mac(2), plan::router_ip(2)),
    }
    .build();
    let out = input(&mut fabric, 3, &to_router(2, stranger, ARP, &answer));
    let held: Vec<_> = out
        .iter()
        .map(|(port, frame)| (*port, V4::parse(&frame[ETHERNET..]).unwrap().body))
        .collect();
    assert_eq!(
        held,
        [(3, &[0][..]), (3, &[1]), (3, &[2]), (3, &[3])],
        "the first ones, in their order"
    );
    assert_eq!(
        input(&mut fabric, 1, &datagram(plan::ip(2, 99), b"x")).len(),
        1,
        "known by now"
    );

    // The same in IPv6, asked about at the group that only it listens to.
    let to = plan::ip6(2, 99);
    let echo = frame::v6_icmp(plan::ip6(1, 11), to, &[128, 0, 0, 0, 0, 0, 0, 0]);
    let out = input(&mut fabric, 1, &to_router(1, plan::mac(1, 11), IPV6, &echo));
    let question = V6::parse(&out[0].1[ETHERNET..]).unwrap();
    assert_eq!(
        (question.to, Ethernet::parse(&out[0].1).unwrap().to),
        frame::solicited(to)
    );
    let message = Neighbour {
        question: false,
        target: to,
        mac: Some(stranger),
    }
    .build();
    let answer = frame::v6_icmp(to, plan::ROUTER_LINK_LOCAL, &message);
    let out = input(&mut fabric, 3, &to_router(2, stranger, IPV6, &answer));
    assert_eq!(Ethernet::parse(&out[0].1).unwrap().to, stranger);
}

#[test]
fn the_same_seed_gives_the_same_faults_on_each_link_whatever_the_others_carry() {
    let mut fabric = fabric();
    fabric
        .impair(&Where::port("b1").only_to(), &Impairment::loss(0.3))
        .unwrap();
    fabric
        .impair(&Where::port("a2").only_to(), &Impairment::loss(0.3))
        .unwrap();
    let mut run = |seed, others| {
        fabric.reseed(seed);
        let arrives = |number| {
            (0..others).for_each(|_| drop(input(&mut fabric, 1, &datagram(plan::ip(1, 12), b"other"))));
            !input(&mut fabric, 1, &datagram(plan::ip(2, 11), &[number])).is_empty()
        };
        (0..200).map(arrives).collect::<Vec<_>>()
    };
    let first = run(7, 0);
    assert!((110..170).contains(&first.iter().filter(|arrived| **arrived).count()));
    assert_eq!(first, run(7, 3));
    assert_ne!(first, run(8, 0));
}

#[test]
fn what_it_remembers_is_bounded() {
    let mut fabric = fabric();
    for i in 0..20_000_u32 {
        let [_, a, b, c] = i.to_be_bytes();
        let from = Mac([2, 0, 0, a, b, c]);
        input(
            &mut fabric,
            1,
            &Ethernet {
                to: Mac::BROADCAST,
                from,
                kind: 0x9999,
                payload: b"",
            }
            .build(),
        );
        let mut address = plan::ip6(1, 11).octets();
        address[12..].copy_from_slice(&i.to_be_bytes());
        let message = Neighbour {
            question: true,
            target: plan::router_ip6(1),
            mac: Some(from),
        }
        .build();
        let packet = frame::v6_icmp(address.into(), plan::router_ip6(1), &message);
        input(&mut fabric, 1, &to_router(1, from, IPV6, &packet));
        let echo = frame::v6_icmp(
            plan::ip6(2, 11),
            Ipv6Addr::from(address),
            &[128, 0, 0, 0, 0, 0, 0, 1],
        );
        input(&mut fabric, 3, &to_router(2, plan::mac(2, 11), IPV6, &echo));
    }
    assert!(fabric.macs[1].len() <= MAX_MACS);
    fabric
        .impair(&Where::everything(), &Impairment::delay(Duration::from_secs(9)))
        .unwrap();
    for _ in 0..2000 {
        input(&mut fabric, 1, &datagram(plan::ip(2, 11), &[0; 60_000]));
    }
    assert!(fabric.late_bytes <= MAX_WAITING);
    assert!(fabric.middle_stats().full > 0);
}

/// Frames that something could make of, and any change to them.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let echo = |to| {
        to_router(
            1,
            plan::mac(1, 11),
            IPV6,
            &frame::v6_icmp(plan::ip6(1, 11), to, &[128, 0, 0, 0, 0, 0, 0, 0]),
        )
    };
    let seeds = vec![
        arp_question(1, 11, plan::router_ip(1)),
        neighbour_question(1, 11, plan::router_ip6(1)),
        datagram(plan::ip(2, 11), b"12345678"),
        datagram(Ipv4Addr::new(10, 99, 0, 1), b"12345678"),
        to_router(
            1,
            plan::mac(1, 11),
            IPV4,
            &frame::v4(plan::ip(1, 11), plan::router_ip(1), ICMP, &[8, 0, 0xf7, 0xff]),
        ),
        echo(plan::ip6(2, 99)),
        echo(plan::router_ip6(2)),
        echo("fd99::1".parse().unwrap()),
        vec![],
    ];
    let noise = proptest::collection::vec(any::<u8>(), 0..100);
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4);
    (proptest::sample::select(seeds), changes, 0..200_usize, noise).prop_map(
        |(mut frame, changes, cut, noise)| {
            frame.truncate(cut.max(10));
            for (at, value) in changes
                .into_iter()
                .filter(|_| !frame.is_empty())
                .collect::<Vec<_>>()
            {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            if cut > 100 {
                frame.extend(noise);
            }
            frame
        },
    )
}

proptest! {
    #[test]
    fn a_frame_never_panics_the_fabric_and_yields_few(frames in proptest::collection::vec((0_usize..4, hostile()), 1..40)) {
        let mut fabric = fabric();
        for (port, frame) in frames {
            let out = input(&mut fabric, port, &frame);
            // Flooded to each other port, answered, and what was held is sent.
            prop_assert!(out.len() <= 3 + 1 + 4, "{} frames", out.len());
        }
    }

    #[test]
    fn without_faults_each_arrives_once_and_with_delays_in_order(
        delays in proptest::collection::vec(0_u64..30, 5), gaps in proptest::collection::vec(0_u64..10, 1..100),
        copies in 1_usize..=2,
    ) {
        let mut fabric = fabric();
        let places = [
            Where::port("a1").only_from(), Where::everything(), Where::uplink("a").only_from(),
            Where::uplink("b").only_to(), Where::port("b1").only_to(),
        ];
        for (place, delay) in places.iter().zip(&delays) {
            fabric.impair(place, &Impairment::delay(Duration::from_millis(*delay))).unwrap();
        }
        let duplicate = if copies == 2 { 1.0 } else { 0.0 };
        let delay = Duration::from_millis(delays[0]);
        fabric.impair(&places[0], &Impairment { duplicate, ..Impairment::delay(delay) }).unwrap();
        let (mut now, mut out) = (Moment::ZERO, vec![]);
        for (gap, number) in gaps.iter().zip(0_u8..) {
            now += Duration::from_millis(*gap);
            fabric.input(1, datagram(plan::ip(2, 11), &[number]), now, &mut out);
        }
        let sum = Duration::from_millis(delays.iter().sum());
        while let Some(due) = fabric.next_due() {
            prop_assert!(due <= now + sum);
            fabric.run(due, &mut out);
        }
        let got: Vec<_> = out.iter().map(|(port, frame)| (*port, frame[ETHERNET + 20])).collect();
        let sent: Vec<_> = (0_u8..).take(gaps.len()).flat_map(|number| vec![(3, number); copies]).collect();
        prop_assert_eq!(got, sent);
        prop_assert_eq!(fabric.late_bytes, 0);
    }
}
