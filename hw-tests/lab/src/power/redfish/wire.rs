//! The wire in front of a TCP service: one connection carried through, or not, as the faults say.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::super::model::DeviceFaults;
use super::super::relay::garble;
use super::super::server::{Ending, Stream};

/// How long a service may say nothing within an answer.
const QUIET: Duration = Duration::from_secs(60);

/// Carries a connection until one side ends it. The connection to the service is opened here, in a thread that was
/// started in the caller's network namespace and so is in it.
pub(super) fn carry(
    client: Stream,
    service: SocketAddr,
    faults: &(dyn Fn() -> DeviceFaults + Sync),
    ending: &Ending,
) {
    let Ok(service) = TcpStream::connect_timeout(&service, Duration::from_secs(5)) else {
        return;
    };
    if service.set_read_timeout(Some(QUIET)).is_err() || service.set_write_timeout(Some(QUIET)).is_err() {
        return;
    }
    let (Ok(client_out), Ok(service_out)) = (client.try_clone(), service.try_clone()) else {
        return;
    };
    std::thread::scope(|scope| {
        scope.spawn(|| answers(&service, client_out, faults, ending));
        requests(client, &service_out, faults);
    });
}

fn requests(mut client: Stream, mut service: &TcpStream, faults: &dyn Fn() -> DeviceFaults) {
    let mut buffer = [0; 4096];
    while let Ok(got @ 1..) = client.read(&mut buffer) {
        // Whoever is mute takes everything and does nothing with it.
        if !faults().mute && service.write_all(&buffer[..got]).is_err() {
            break;
        }
    }
    // It may be gone already.
    let _ = service.shutdown(Shutdown::Both);
}

fn answers(
    mut service: &TcpStream,
    mut client: Stream,
    faults: &(dyn Fn() -> DeviceFaults + Sync),
    ending: &Ending,
) {
    let mut buffer = [0; 4096];
    let mut said = 0;
    while let Ok(got @ 1..) = service.read(&mut buffer) {
        let now = faults();
        if now.mute {
            continue;
        }
        if said == 0 && !now.slow.is_zero() && !ending.pause(now.slow) {
            break;
        }
        let bytes = &mut buffer[..got];
        if now.garbage {
            garble(bytes);
        }
        let left = now
            .drops_after
            .map_or(usize::MAX, |limit| limit.saturating_sub(said));
        let bytes = &bytes[..got.min(left)];
        said += bytes.len();
        if client.write_all(bytes).is_err() || bytes.len() < got {
            break;
        }
    }
    // A mute one does not even hang up.
    if !faults().mute {
        client.hang_up();
    }
}
