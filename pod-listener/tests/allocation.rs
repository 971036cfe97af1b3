//! After its start the listener allocates nothing: a node without memory is when it is needed.
//!
//! Left out is a wrong signature under a right tag: built together with the rest of the workspace, the crate `signature`
//! has its feature `alloc` and boxes that error (32 bytes, at most 20 a second, only for who knows the tag secret).
//! Built alone it does not. docs/progress/5.md.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use pod_listener::{Gate, Listener, Means, Places, State, Trusted};
use pod_wire::{Action, Counter, Request, TagSecret};
use socket2::{Domain, Protocol, Socket, Type};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "a global allocator is an unsafe trait")]
// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) };
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const NODE: [u8; 16] = [5; 16];
const BOOT: [u8; 16] = [6; 16];

fn ping(payload: &[u8]) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0, 1, 0, 1];
    message.extend_from_slice(payload);
    message
}

fn main() {
    // Alone in its process and without a test harness: a thread of one would allocate beside us.
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: raw ICMP sockets need root");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    for name in [
        "sysrq-trigger",
        "self/mounts",
        "self/cgroup",
        "slivers/cgroup.kill",
    ] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("below")).expect("made");
        fs::write(path, "").expect("written");
    }
    let places = Places {
        proc_root: dir.path().to_owned(),
        watchdog: dir.path().join("none"),
        slivers: dir.path().join("slivers"),
    };
    let key = SigningKey::from_bytes(&[1; 32]);
    let secret = TagSecret::new([2; 16]);
    let trusted = Trusted {
        id: [3; 8],
        key: key.verifying_key(),
        scope: Trusted::scope_of(&[Action::DryRun, Action::KillSlivers]),
    };
    let means = Means::prepare(places).expect("helpers");
    let state = State::open(&dir.path().join("state"), BOOT).expect("a state");
    let able = means.able();
    let gate = Gate::new(NODE, BOOT, vec![secret.clone()], vec![trusted], &able);
    let mut listener = Listener::new(&NODE, gate, state, means).expect("sockets");

    let request = |action, nonce| Request {
        action,
        key: [3; 8],
        node: NODE,
        boot: BOOT,
        issued_at_ms: 0,
        nonce: [nonce; 16],
    };
    let packets = [
        ping(&Request::probe(NODE, 0, [0; 16], &secret)),
        ping(&request(Action::DryRun, 1).sign(&key, &secret)),
        ping(&request(Action::Reboot, 2).sign(&key, &secret)),
        ping(&request(Action::KillSlivers, 3).sign(&key, &secret)),
        ping(&request(Action::KillSlivers, 3).sign(&key, &secret)),
        ping(&request(Action::DryRun, 5).sign(&key, &TagSecret::new([8; 16]))),
        ping(b"an ordinary ping"),
    ];
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).expect("a raw socket");
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0).into();
    // Once idle and once not: what std makes at first use is made.
    listener.turn(Duration::from_millis(1)).expect("idle");
    socket.send_to(&packets[6], &to).expect("sent");
    listener.turn(Duration::from_millis(20)).expect("handled");
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    for _ in 0..50 {
        for packet in &packets {
            socket.send_to(packet, &to).expect("sent");
        }
        listener.turn(Duration::from_millis(20)).expect("handled");
    }
    let made = ALLOCATIONS.load(Ordering::SeqCst) - before;
    assert!(
        listener.counted(Counter::Received) >= 50 * 6,
        "packets did not arrive"
    );
    assert_eq!(listener.counted(Counter::KillSlivers), 1);
    assert!(listener.counted(Counter::OutOfScope) > 0);
    assert!(listener.counted(Counter::BadTag) >= 50);
    assert_eq!(made, 0, "the listener allocated {made} times");
    println!("no allocation in {} packets", listener.counted(Counter::Received));
}
