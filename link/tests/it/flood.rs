//! Half-open and unauthenticated peers, and how little they can do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use link::{ListenConfig, ServeConfig, ServeError, serve_accepted};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::common::*;

const SILENT: usize = 2_000;

async fn connect_from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("socket");
    socket
        .bind(SocketAddr::from((source, 0)))
        .expect("loopback has all of 127/8");
    within("connect", socket.connect(to)).await.expect("connect")
}

/// Raises the soft limit; says why when the hard one does not allow it.
fn allow_descriptors(wanted: u64) -> Result<(), String> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    if soft >= wanted {
        return Ok(());
    }
    if hard < wanted {
        return Err(format!(
            "{wanted} descriptors are needed, the hard limit is {hard}"
        ));
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map_err(|e| format!("setrlimit: {e}"))
}

/// Deadlines play no part: only eviction can make room here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_silent_peers_do_not_keep_an_honest_one_out() {
    if let Err(reason) = allow_descriptors(3 * SILENT as u64) {
        println!("skipped: {reason}");
        return;
    }
    let pki = Pki::new("ca");
    let config = ListenConfig {
        max_handshakes: 512,
        handshake_deadline: NEVER,
        ..ListenConfig::default()
    };
    let mut door = pki.controller(config);
    let (to, gauge) = (door.local_addr(), door.gauge());

    let mut silent = Vec::with_capacity(SILENT);
    for _ in 0..SILENT {
        silent.push(connect_from([127, 0, 0, 66], to).await);
    }
    until("the flood is in", || gauge.read().accepted == SILENT as u64).await;
    assert_eq!(gauge.read().in_progress, config.max_handshakes);

    // And it goes on while the honest ones come.
    let stop = Arc::new(AtomicBool::new(false));
    let more = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut ring = std::collections::VecDeque::new();
            while !stop.load(Ordering::SeqCst) {
                ring.push_back(connect_from([127, 0, 0, 66], to).await);
                if ring.len() > 200 {
                    ring.pop_front();
                }
            }
        }
    });
    let alice = pki.issue(ALICE);
    for _ in 0..20 {
        let honest = tls_connect(pki.raw_client(Some(&alice)), to);
        let (stream, accepted) = within("an honest handshake", async {
            tokio::join!(honest, door.accept())
        })
        .await;
        stream.expect("handshake");
        assert_eq!(accepted.expect("acceptor").peer().identity.to_string(), ALICE);
    }
    stop.store(true, Ordering::SeqCst);
    more.await.expect("flood");
    let counts = gauge.read();
    assert_eq!(counts.completed, 20, "{counts:?}");
    assert!(
        counts.evicted >= (SILENT - config.max_handshakes) as u64,
        "{counts:?}"
    );
    assert!(counts.in_progress <= config.max_handshakes, "{counts:?}");

    // The evicted were told.
    let mut first = silent.swap_remove(0);
    assert!(matches!(
        within("the oldest", first.read(&mut [0; 1])).await,
        Ok(0) | Err(_)
    ));
}

#[tokio::test]
async fn a_slow_drip_is_cut_at_the_deadline() {
    let pki = Pki::new("ca");
    let deadline = Duration::from_millis(300);
    let door = pki.controller(ListenConfig {
        handshake_deadline: deadline,
        ..ListenConfig::default()
    });
    let gauge = door.gauge();
    let stream = TcpStream::connect(door.local_addr()).await.expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    let (mut read, mut write) = stream.into_split();
    // A handshake record of 512 bytes, one byte at a time.
    let drip = tokio::spawn(async move {
        let mut record = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc];
        record.resize(517, 0);
        for byte in record {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let started = std::time::Instant::now();
    assert!(matches!(
        within("the end", read.read(&mut [0; 1])).await,
        Ok(0) | Err(_)
    ));
    assert!(started.elapsed() >= deadline / 2, "cut before its deadline");
    until("counted", || gauge.read().timed_out == 1).await;
    assert_eq!(gauge.read().in_progress, 0);
    drip.abort();
}

#[tokio::test]
async fn one_identity_cannot_take_all_connections() {
    let pki = Pki::new("ca");
    let mut door = pki.controller(ListenConfig {
        max_per_identity: 2,
        ..ListenConfig::default()
    });
    let (alice, bob) = (pki.issue(ALICE), pki.issue("redbutton://person/bob"));
    let mut clients = Vec::new();
    let mut served = Vec::new();
    for own in [&bob, &alice, &alice, &alice] {
        clients.push(
            tls_connect(pki.raw_client(Some(own)), door.local_addr())
                .await
                .expect("handshake"),
        );
        let accepted = within("accept", door.accept()).await.expect("acceptor");
        let config = ServeConfig {
            keepalive_interval: NEVER,
            ..ServeConfig::default()
        };
        served.push(tokio::spawn(serve_accepted(
            accepted,
            Node::new("n").routes(),
            config,
            CancellationToken::new(),
        )));
    }
    let oldest_of_alice = served.remove(1);
    let ended = within("the oldest is cut", oldest_of_alice).await.expect("task");
    assert!(matches!(ended, Err(ServeError::Cut)), "{ended:?}");
    assert_eq!(door.gauge().read().established, 3);
    assert!(served.iter().all(|task| !task.is_finished()));
    drop(clients);
    for task in served {
        // Without a word from the client: an end of file.
        let _ = within("closed by the client", task).await.expect("task");
    }
    assert_eq!(door.gauge().read().established, 0);
}
