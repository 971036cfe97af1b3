//! A process without a free descriptor. Alone in its program: the limit is the process's.

mod common;

use std::fs::File;

use link::ListenConfig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use common::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_the_listener_sheds_and_lives() {
    let pki = Pki::new("ca");
    let mut door = pki.controller(ListenConfig::default());
    let (to, gauge) = (door.local_addr(), door.gauge());

    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    setrlimit(Resource::RLIMIT_NOFILE, 200, hard).expect("lower the soft limit");
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    // One descriptor for the client; the listener finds none.
    taken.pop();
    // The reset may come before or after the client's `connect` has returned.
    let unlucky = within("connect", TcpStream::connect(to)).await.ok();
    if let Some(mut stream) = unlucky {
        let ended = within("shed", stream.read(&mut [0; 1])).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    until("counted", || gauge.read().shed == 1).await;
    assert!(gauge.read().accept_errors >= 1);

    // With descriptors it goes on as if nothing had been.
    drop(taken);
    let own = pki.issue(ALICE);
    let (stream, accepted) = within("an honest handshake", async {
        tokio::join!(tls_connect(pki.raw_client(Some(&own)), to), door.accept())
    })
    .await;
    stream.expect("handshake");
    assert_eq!(accepted.expect("acceptor").peer().identity.to_string(), ALICE);
}
