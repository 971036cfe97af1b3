//! A rack PDU that speaks SNMP: Net-SNMP's `snmpd` with APC's outlet tables.
//!
//! ```text
//!  snmpset ─► UDP relay (mute, slow, garbage) ─► snmpd ─ pass_persist ─► ask.pl ─► desk ─► table ─► room
//! ```
//!
//! SNMP v1 and v2c. A PDU that refuses a login does not answer: SNMP knows no other way to say it.

mod table;

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use self::table::{Pass, ROOT};
use super::Login;
use super::desk::{Conversation, Desk, write_private};
use super::model::{Device, DeviceFaults, StripId};
use super::panel::StripOf;
use super::process::{Process, Spawner};
use super::relay::{UdpRelay, free_loopback, greet};
use super::room::Room;

const PROGRAM: &str = "/usr/sbin/snmpd";

/// APC's masterSwitchrPDU, by which drivers tell what they talk to.
const SYS_OBJECT_ID: &str = ".1.3.6.1.4.1.318.1.3.4.5";

/// A strip that speaks SNMP. Ends when it is dropped.
pub struct SnmpPdu {
    address: SocketAddr,
    // In this order: nobody asks any more, then the program goes, then what it asked, then its files.
    _relay: UdpRelay,
    _program: Process,
    _desk: Desk,
    _folder: TempDir,
}

impl SnmpPdu {
    /// Whether the program is here, and if not, what to install.
    #[must_use]
    pub fn missing() -> Option<String> {
        (!Path::new(PROGRAM).exists()).then(|| format!("{PROGRAM} is missing (apt-get install snmpd)"))
    }

    /// Serves a strip of the room on a bound socket. The login's user is the community that may read, its password
    /// the one that may write too. Returns when it answers.
    ///
    /// # Errors
    /// When the program is missing, does not start or does not answer; when a community cannot be written into its
    /// configuration.
    pub fn start(
        room: &Arc<Room>,
        strip: StripId,
        login: &Login,
        front: UdpSocket,
        spawner: Spawner,
    ) -> Result<Self> {
        if let Some(reason) = Self::missing() {
            bail!(reason);
        }
        let address = front.local_addr().context("a socket that is not bound")?;
        let folder = TempDir::with_prefix("pdu").context("cannot make a folder")?;
        let asked = Arc::clone(room);
        let desk = Desk::start(folder.path(), move || {
            let (room, mut pass) = (Arc::clone(&asked), Pass::default());
            Box::new(move |line: &str| Some(pass.line(line, &StripOf { room: &room, strip }))) as Conversation
        })?;
        let name = room.wiring().strip_name(strip);
        let (program, device) = start_program(folder.path(), &desk, login, name, spawner)
            .with_context(|| format!("SNMP agent of {name}"))?;
        let faults = Arc::clone(room);
        let relay = UdpRelay::start(
            "snmp wire",
            front,
            device,
            Arc::new(move || faults.device_faults(Device::Strip(strip))),
            admit,
        )?;
        Ok(Self {
            address,
            _relay: relay,
            _program: program,
            _desk: desk,
            _folder: folder,
        })
    }

    /// Where it listens (UDP).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn admit(_: &mut [u8], faults: &DeviceFaults) -> bool {
    !faults.refuses_login
}

fn start_program(
    folder: &Path,
    desk: &Desk,
    login: &Login,
    name: &str,
    spawner: Spawner,
) -> Result<(Process, SocketAddr)> {
    let mut last = None;
    // Another program may take what was free a moment ago.
    for number in 0..3 {
        let address = free_loopback(1610)?;
        let folder = folder.join(number.to_string());
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let config = folder.join("agent.conf");
        write_private(&config, &agent_conf(desk, login, name, address)?, 0o600)?;
        let log = folder.join("log");
        let mut command = Command::new(PROGRAM);
        command
            .args(["-f", "-C", "-c"])
            .arg(&config)
            .arg("-Lf")
            .arg(&log)
            // It would write into /var/lib/snmp, and read every MIB of the machine.
            .env("SNMP_PERSISTENT_DIR", &folder)
            .env("SNMPCONFPATH", &folder)
            .env("MIBS", "")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut program = Process::new(spawner(&mut command)?);
        match greet(&mut program, address, &hello(login.user())) {
            Ok(()) => return Ok((program, address)),
            Err(error) => {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                last = Some(error.context(format!("{PROGRAM} said {:?}", said.trim())));
            }
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("never tried")))
}

fn agent_conf(desk: &Desk, login: &Login, name: &str, address: SocketAddr) -> Result<String> {
    let plain = |text: &str| {
        (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"\"'\\#".contains(&b))
    };
    if !plain(login.user()) || !plain(login.password()) {
        bail!("a community is 1 to 32 plain ASCII characters");
    }
    if !plain(name) {
        bail!("a strip's name is 1 to 32 plain ASCII characters, got {name:?}");
    }
    Ok(format!(
        "agentaddress udp:{address}\n\
         rocommunity {read}\n\
         rwcommunity {write}\n\
         sysobjectid {SYS_OBJECT_ID}\n\
         sysname {name}\n\
         sysdescr APC Switched Rack PDU\n\
         pass_persist {ROOT} {ask} -\n",
        read = login.user(),
        write = login.password(),
        ask = desk.command(),
    ))
}

/// A get-request for sysObjectID.0, version 2c.
fn hello(community: &str) -> Vec<u8> {
    const REQUEST: [u8; 27] = [
        0xa0, 25, 2, 1, 1, 2, 1, 0, 2, 1, 0, 0x30, 14, 0x30, 12, 6, 8, 43, 6, 1, 2, 1, 1, 2, 0, 5, 0,
    ];
    // Not more than 32 bytes, see `agent_conf`: every length is one byte.
    let length = u8::try_from(community.len()).unwrap_or(0);
    let mut packet = vec![0x30, 3 + 2 + length + 27, 2, 1, 1, 4, length];
    packet.extend_from_slice(community.as_bytes());
    packet.extend_from_slice(&REQUEST);
    packet
}

#[cfg(test)]
mod tests;
