//! Without faults: who reaches whom, and what is counted and captured.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::guest::{Guest, wait};
use super::net;
use crate::net::stream::MAX_QUEUE;
use crate::net::{HOST, HOST6, Net, read_capture};

const CAP: Duration = Duration::from_secs(60);

/// What one side sends is what the other side gets, and its answer comes back.
fn transfer(listener: &TcpListener, client: impl FnOnce() -> TcpStream + Send, bytes: usize) {
    let sent: Vec<u8> = (0..bytes).map(|i| (i / 7 % 256) as u8).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(CAP)).unwrap();
            let mut got = vec![0; bytes];
            stream.read_exact(&mut got).unwrap();
            assert!(got == sent, "other bytes arrived than were sent");
            stream.write_all(b"thanks").unwrap();
        });
        let mut stream = client();
        stream.set_read_timeout(Some(CAP)).unwrap();
        stream.write_all(&sent).unwrap();
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"thanks");
    });
}

fn connect(to: SocketAddr) -> TcpStream {
    TcpStream::connect_timeout(&to, CAP).unwrap()
}

#[test]
fn tcp_goes_between_host_and_guest_both_ways_and_versions() {
    let Some((net, _folder)) = net(&["a"]) else { return };
    let port = net.port("a", "n1").unwrap();
    let guest = Guest::plug(&net, &port);
    let pairs: [(IpAddr, IpAddr); 2] = [(HOST.into(), port.ip.into()), (HOST6.into(), port.ip6.into())];
    for (host, guest_ip) in pairs {
        let listener = net.enter(|| TcpListener::bind((host, 0)).unwrap()).unwrap();
        let to = listener.local_addr().unwrap();
        transfer(&listener, || guest.enter(|| connect(to)), 1 << 20);
        let listener = guest.enter(|| TcpListener::bind((guest_ip, 0)).unwrap());
        let to = listener.local_addr().unwrap();
        transfer(&listener, || net.enter(|| connect(to)).unwrap(), 1 << 20);
    }
}

#[test]
fn sites_reach_each_other_and_neighbours_too() {
    let Some((net, _folder)) = net(&["a", "b"]) else {
        return;
    };
    let ports = [("a", "a1"), ("a", "a2"), ("b", "b1")].map(|(site, name)| net.port(site, name).unwrap());
    let guests = ports.each_ref().map(|port| Guest::plug(&net, port));
    for (from, to) in [(0, 1), (0, 2), (2, 1)] {
        for ip in [IpAddr::from(ports[to].ip), ports[to].ip6.into()] {
            let listener = guests[to].enter(|| TcpListener::bind((ip, 0)).unwrap());
            let to = listener.local_addr().unwrap();
            transfer(&listener, || guests[from].enter(|| connect(to)), 100_000);
        }
    }
    let stats = net.stats().unwrap();
    assert!(
        stats.sites["b"].to.frames > 0 && stats.sites["centre"].to.frames < 20,
        "{stats:#?}"
    );
}

#[test]
fn the_router_tells_of_hops_that_run_out_and_of_no_such_network() {
    let Some((net, _folder)) = net(&["a"]) else { return };
    let port = net.port("a", "n1").unwrap();
    let guest = Guest::plug(&net, &port);
    let error = |to: &str, ttl: u32| {
        let socket = guest.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        // Without this the kernel keeps such errors to itself.
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true).unwrap();
        socket.set_ttl(ttl).unwrap();
        socket.connect((to, 9)).unwrap();
        let mut error = None;
        let told = || {
            error = socket.send(b"x").err();
            error.is_some()
        };
        wait(told, "an error from the router");
        error.unwrap().kind()
    };
    assert_eq!(error("10.99.0.1", 9), ErrorKind::NetworkUnreachable);
    assert_eq!(error("10.77.0.1", 1), ErrorKind::HostUnreachable);
}

/// Sends until something comes.
fn exchange(net: &Net, guest: &Guest, port: &crate::net::Port) {
    let there = guest.enter(|| UdpSocket::bind((port.ip, 0)).unwrap());
    there.set_nonblocking(true).unwrap();
    let to = there.local_addr().unwrap();
    let here = net.enter(|| UdpSocket::bind((HOST, 0)).unwrap()).unwrap();
    let arrived = || {
        here.send_to(b"are you there", to).unwrap();
        there.recv(&mut [0; 100]).is_ok_and(|n| n == 13)
    };
    wait(arrived, "a datagram");
}

#[test]
fn a_restarted_guest_is_there_again() {
    let Some((net, _folder)) = net(&["a"]) else { return };
    let port = net.port("a", "n1").unwrap();
    for _ in 0..3 {
        let guest = Guest::plug(&net, &port);
        exchange(&net, &guest, &port);
        drop(guest);
        wait(
            || !net.stats().unwrap().ports["n1"].connected,
            "the end of the connection",
        );
    }
    // Who comes while the old one is still connected has the cable.
    let _old = Guest::plug(&net, &port);
    let new = Guest::plug(&net, &port);
    exchange(&net, &new, &port);
}

#[test]
fn a_guest_that_does_not_read_or_sends_nonsense_holds_up_nobody() {
    let Some((net, _folder)) = net(&["a"]) else { return };
    let (good, mute) = (net.port("a", "good").unwrap(), net.port("a", "mute").unwrap());
    let guest = Guest::plug(&net, &good);
    let _mute = UnixStream::connect(&mute.socket).unwrap();
    let here = net.enter(|| UdpSocket::bind((HOST, 0)).unwrap()).unwrap();
    let flood = || {
        for _ in 0..MAX_QUEUE / 1000 {
            // The tap may have no room for a moment.
            let _ = here.send_to(&[0; 1400], (mute.ip, 9));
        }
        net.stats().unwrap().ports["mute"].full > 0
    };
    wait(flood, "frames dropped for a guest that does not read");
    exchange(&net, &guest, &good);

    let bad = net.port("a", "bad").unwrap();
    let mut stream = UnixStream::connect(&bad.socket).unwrap();
    stream.write_all(&[0xff; 100]).unwrap();
    stream.set_read_timeout(Some(CAP)).unwrap();
    // What was flooded to it before, then the end.
    let end = stream.read_to_end(&mut vec![]).map_err(|error| error.kind());
    assert!(matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)), "{end:?}");
    assert!(!net.stats().unwrap().ports["bad"].connected);
    exchange(&net, &guest, &good);
}

#[test]
fn the_capture_has_what_was_sent_and_received() {
    let Some((net, _folder)) = net(&["a"]) else { return };
    let port = net.port("a", "n1").unwrap();
    let guest = Guest::plug(&net, &port);
    exchange(&net, &guest, &port);
    let read = read_capture(&std::fs::read(net.capture().unwrap()).unwrap()).unwrap();
    let with = |name: &str, sent: bool| {
        read.iter()
            .find(|c| c.port == name && c.sent == sent && c.frame.ends_with(b"are you there"))
    };
    let (out, back) = (with("host", true).unwrap(), with("n1", false).unwrap());
    assert!(out.at <= back.at);
    assert_eq!(
        out.frame[22],
        back.frame[22] + 1,
        "one hop less behind the router"
    );
    assert!(with("n1", true).is_none() && with("host", false).is_none());
    let stats = net.stats().unwrap();
    assert_eq!(stats.capture.stopped, None);
    assert!(stats.capture.frames >= read.len() as u64);
    assert!(stats.ports["n1"].received > 0 && stats.ports["host"].sent > 0);
}

#[test]
#[ignore = "a measurement, by hand: cargo test --release -p redbutton-lab throughput -- --ignored --nocapture"]
fn throughput() {
    let Some((net, _folder)) = net(&["a"]) else { return };
    let port = net.port("a", "n1").unwrap();
    let guest = Guest::plug(&net, &port);
    let bytes = 200_000_000;
    let listener = guest.enter(|| TcpListener::bind((port.ip, 0)).unwrap());
    let to = listener.local_addr().unwrap();
    let began = Instant::now();
    transfer(&listener, || net.enter(|| connect(to)).unwrap(), bytes);
    println!(
        "host to guest: {:.1} MB/s",
        bytes as f64 / 1e6 / began.elapsed().as_secs_f64()
    );
    let listener = net.enter(|| TcpListener::bind((HOST, 0)).unwrap()).unwrap();
    let to = listener.local_addr().unwrap();
    let began = Instant::now();
    transfer(&listener, || guest.enter(|| connect(to)), bytes);
    println!(
        "guest to host: {:.1} MB/s",
        bytes as f64 / 1e6 / began.elapsed().as_secs_f64()
    );
    println!("{:#?}", net.stats().unwrap().ports);
}
