//! A rack PDU with a menu, reached by telnet, as APC's MasterSwitch and its descendants have been since 1999.
//!
//! ```text
//!  bytes ─► keys (telnet options out, lines and ESC in) ─► menu ─► text, switching, hanging up
//! ```
//!
//! The dialogue is the one that powerman's `apc7900` script drives. Several people may be logged in; they see the
//! same relays. Delays are configured as none, so that the delayed commands are the immediate ones.

mod keys;
mod menu;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, Result};

use self::keys::{Key, Keys};
use self::menu::Menu;
use super::Login;
use super::model::{Device, DeviceFaults, StripId};
use super::panel::StripOf;
use super::relay::garble;
use super::room::Room;
use super::server::{Ending, Listener, Server, Stream};

/// More bytes than any dialogue needs; a client that sends more is hung up on.
const DIALOGUE: usize = 1 << 20;

/// A strip that is reached by telnet. Ends when it is dropped.
pub struct TelnetPdu {
    address: SocketAddr,
    _server: Server,
}

impl TelnetPdu {
    /// Serves a strip of the room on a socket that already listens.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(room: &Arc<Room>, strip: StripId, login: Login, listener: TcpListener) -> Result<Self> {
        let address = listener.local_addr().context("a listener that does not listen")?;
        let room = Arc::clone(room);
        let serve = move |stream: Stream, ending: &Ending| talk(&room, strip, &login, stream, ending);
        let server = Server::start("telnet pdu", Listener::Tcp(listener), Arc::new(serve))?;
        Ok(Self {
            address,
            _server: server,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn talk(room: &Room, strip: StripId, login: &Login, mut stream: Stream, ending: &Ending) {
    let panel = StripOf { room, strip };
    let faults = || room.device_faults(Device::Strip(strip));
    let mut menu = Menu::new(&faults());
    let mut keys = Keys::default();
    let mut said = 0;
    if !say(&mut stream, ending, &faults(), &mut said, &menu.greeting()) {
        return;
    }
    let mut buffer = [0; 1024];
    let mut heard = 0;
    loop {
        let got = match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(got) => got,
        };
        heard += got;
        if heard > DIALOGUE {
            return;
        }
        for key in keys.feed(&buffer[..got]) {
            let now = faults();
            if now.mute {
                // It does not act either: nobody is at home.
                continue;
            }
            let echo = match &key {
                Key::Line(text) if !menu.is_secret() => format!("{text}\r\n"),
                Key::Line(text) => format!("{}\r\n", "*".repeat(text.len())),
                Key::Escape => String::new(),
            };
            let (text, goes_on) = menu.press(&key, &panel, login, &now);
            if !say(&mut stream, ending, &now, &mut said, &(echo + &text)) || !goes_on {
                return;
            }
        }
    }
}

/// Says it, or what the faults make of it; false when the connection is over.
fn say(stream: &mut Stream, ending: &Ending, faults: &DeviceFaults, said: &mut usize, text: &str) -> bool {
    if faults.mute {
        return true;
    }
    if !faults.slow.is_zero() && !ending.pause(faults.slow) {
        return false;
    }
    let mut bytes = text.as_bytes().to_vec();
    if faults.garbage {
        garble(&mut bytes);
    }
    let left = faults
        .drops_after
        .map_or(usize::MAX, |limit| limit.saturating_sub(*said));
    let whole = bytes.len() <= left;
    bytes.truncate(left);
    *said += bytes.len();
    stream.write_all(&bytes).is_ok() && whole
}

#[cfg(test)]
mod tests;
