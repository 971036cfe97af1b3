//! Ten thousand who knock and never come in.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::wire::*;

const KNOCKS: u32 = 10_000;
/// How long a support person waits for the door at most: the test fails far above what is seen.
const DOOR: Duration = Duration::from_secs(30);

async fn knock(number: u32, to: SocketAddr, says: &[u8]) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // A source of its own for each: nobody can be told from an honest one by address.
    let source = Ipv4Addr::from_bits(Ipv4Addr::new(127, 9, 0, 1).to_bits() + number);
    socket.bind((source, 0).into())?;
    let mut stream = within("a knock", socket.connect(to)).await??;
    stream.write_all(says).await?;
    Ok(stream)
}

/// A real ClientHello, taken from a real client, that is never followed by anything.
fn client_hello(fleet: &hw_tests::fleet::Fleet) -> Result<Vec<u8>> {
    let config = honest(&bundle(fleet, "alice")?)?;
    let name = rustls_pki_types::ServerName::try_from("localhost")?;
    let mut session = rustls::ClientConnection::new(std::sync::Arc::new(config), name)?;
    let mut hello = Vec::new();
    session.write_tls(&mut hello)?;
    Ok(hello)
}

#[test]
fn ten_thousand_half_open_handshakes_keep_nobody_out() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = u64::from(KNOCKS) + 2_000;
    if hard < wanted {
        println!("skipped: {wanted} descriptors are needed, the hard limit is {hard}");
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(wanted), hard)?;
    let mut fleet = controller()?;
    let memory = Memory::of(&mut fleet)?;
    let hello = client_hello(&fleet)?;
    let runtime = runtime();
    let (people, daemons) = (fleet.people().parse()?, fleet.daemons().parse()?);
    let knocking = async move {
        let mut streams = Vec::new();
        for number in 0..KNOCKS {
            let to = if number.is_multiple_of(2) { people } else { daemons };
            // Silent ones, the beginning of a hello, and a whole one.
            let says = match number % 3 {
                0 => &[][..],
                1 => &hello[..hello.len().min(100)],
                _ => &hello[..],
            };
            streams.push(knock(number, to, says).await?);
        }
        anyhow::Ok(streams)
    };
    let knocking = runtime.spawn(knocking);
    let mut presses = 0;
    let mut longest = Duration::ZERO;
    let mut press = || -> Result<()> {
        // A new connection each time: the door itself is what is asked.
        let begun = std::time::Instant::now();
        support_presses(&fleet)?;
        longest = longest.max(begun.elapsed());
        presses += 1;
        Ok(())
    };
    while !knocking.is_finished() {
        press()?;
    }
    let streams = runtime.block_on(knocking)??;
    for _ in 0..5 {
        press()?;
    }
    println!(
        "{presses} presses by new connections while {} knocked; the longest took {longest:?}",
        streams.len()
    );
    ensure!(longest < DOOR, "support stood before the door for {longest:?}");
    memory.grew_less_than(256)
}
