//! A BMC that speaks IPMI 2.0 over LAN: OpenIPMI's `ipmi_sim`, one for each machine.
//!
//! ```text
//!  ipmitool ─► UDP relay (mute, slow, garbage) ─► ipmi_sim ─► ask.pl ─► desk ─► room
//!                                                    └─ SOL ─► TCP ─► (bridge ─► unix socket) ─► serial
//! ```
//!
//! - Use `-C 3`: Debian's ipmi_sim knows SHA-1 only and refuses `-C 17` (at once, as old BMCs do).
//! - It refuses `chassis power diag`: an NMI can be had by Redfish.
//! - `cycle` is off, and on again at the BMC's own pace a moment later.
//! - The simulator listens on loopback at the same port as the relay, since it tells its port to whoever activates
//!   SOL and ipmitool takes no other: the socket in front must be bound to one address, not to all of them.
//! - ipmi_sim holds the serial line from its start and reads it always.
//! - A BMC whose machine has no mains is mute; it is not restarted, so that sessions outlive it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::Login;
use super::desk::{Conversation, Desk, write_private};
use super::model::{Deed, Device, DeviceFaults, MachineId};
use super::process::{Process, Spawner};
use super::relay::{UdpRelay, free_loopback, greet};
use super::room::Room;
use super::server::{Ending, Listener, Server, Stream, lock};

const PROGRAM: &str = "/usr/bin/ipmi_sim";

/// Get Channel Authentication Capabilities outside any session: what every client asks first.
const HELLO: [u8; 23] = [
    0x06, 0x00, 0xff, 0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x09, 0x20, 0x18, 0xc8,
    0x81, 0x00, 0x38, 0x8e, 0x04, 0xb5,
];

/// Where a machine's serial line is.
#[derive(Debug, Clone)]
pub enum Serial {
    /// A TCP server, in the network namespace of the BMC.
    Tcp(SocketAddr),
    /// A unix socket that listens.
    Unix(PathBuf),
    /// A terminal device.
    Device(PathBuf),
}

/// A machine's BMC. Ends when it is dropped.
pub struct IpmiBmc {
    address: SocketAddr,
    // In this order: nobody asks any more, then the program goes, then what it asked, then its files.
    _relay: UdpRelay,
    _program: Process,
    _serial: Option<Server>,
    _desk: Desk,
    _folder: TempDir,
}

impl IpmiBmc {
    /// Whether the program is here, and if not, what to install.
    #[must_use]
    pub fn missing() -> Option<String> {
        (!Path::new(PROGRAM).exists()).then(|| format!("{PROGRAM} is missing (apt-get install openipmi)"))
    }

    /// A BMC for a machine of the room on a bound socket. Returns when it answers.
    ///
    /// # Errors
    /// When the program is missing, does not start or does not answer; when the login cannot be written into its
    /// configuration.
    pub fn start(
        room: &Arc<Room>,
        machine: MachineId,
        login: &Login,
        serial: Option<Serial>,
        front: UdpSocket,
        spawner: Spawner,
    ) -> Result<Self> {
        if let Some(reason) = Self::missing() {
            bail!(reason);
        }
        let address = front.local_addr().context("a socket that is not bound")?;
        let folder = TempDir::with_prefix("bmc").context("cannot make a folder")?;
        let bmc = Arc::new(Bmc {
            room: Arc::clone(room),
            machine,
            boot: Mutex::new("none".to_owned()),
        });
        let desk = Desk::start(folder.path(), move || {
            let bmc = Arc::clone(&bmc);
            Box::new(move |line: &str| Some(bmc.answer(line))) as Conversation
        })?;
        let (sol, serial) = bridge(serial)?;
        if address.ip().is_unspecified() {
            bail!("a BMC needs an address of its own, got {address}");
        }
        let (program, device) =
            start_program(folder.path(), &desk, login, sol.as_ref(), address.port(), spawner)
                .with_context(|| format!("BMC of {}", room.wiring().machine_name(machine)))?;
        let faults = Arc::clone(room);
        let relay = UdpRelay::start(
            "ipmi wire",
            front,
            device,
            Arc::new(move || faults.device_faults(Device::Bmc(machine))),
            edit,
        )?;
        Ok(Self {
            address,
            _relay: relay,
            _program: program,
            _serial: serial,
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

/// Spoils the user's name of a RAKP message 1 when nobody is to be let in: the BMC itself then says so.
fn edit(packet: &mut [u8], faults: &DeviceFaults) -> bool {
    // RMCP, then RMCP+ with the payload type at 5, then the payload with the name's length and the name.
    const NAME: usize = 16 + 28;
    if faults.refuses_login && packet.len() > NAME && packet[4] == 0x06 && packet[5] == 0x12 {
        packet[NAME] ^= 0x01;
    }
    true
}

/// What the chassis control script's questions mean.
struct Bmc {
    room: Arc<Room>,
    machine: MachineId,
    boot: Mutex<String>,
}

impl Bmc {
    fn answer(&self, line: &str) -> String {
        match self.act(line) {
            Ok(text) => format!("ok\n{text}"),
            Err(error) => format!("{error:#}\n").replace('\r', " "),
        }
    }

    fn act(&self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().take(16).collect();
        match words.as_slice() {
            ["get", names @ ..] => names.iter().map(|name| self.get(name)).collect(),
            ["set", "power", "1"] => self.deed(Deed::On),
            ["set", "power", "0"] => self.deed(Deed::Off),
            ["set", "reset", ..] => self.deed(Deed::Reset),
            ["set", "shutdown", ..] => self.deed(Deed::SoftOff),
            ["set", "boot", device] => {
                lock(&self.boot).clone_from(&(*device).to_owned());
                Ok(String::new())
            }
            ["set", "identify", ..] | ["check", ..] => Ok(String::new()),
            _ => bail!("a BMC cannot {line:?}"),
        }
    }

    fn get(&self, name: &str) -> Result<String> {
        match name {
            "power" => Ok(format!("power:{}\n", u8::from(self.room.bmc_says(self.machine)?))),
            "boot" => Ok(format!("boot:{}\n", lock(&self.boot))),
            _ => bail!("a BMC knows nothing of {name:?}"),
        }
    }

    fn deed(&self, deed: Deed) -> Result<String> {
        self.room.bmc(self.machine, deed)?;
        Ok(String::new())
    }
}

/// The `sol` word for ipmi_sim, and what has to run for it: it cannot open unix sockets.
fn bridge(serial: Option<Serial>) -> Result<(Option<String>, Option<Server>)> {
    let path = match serial {
        None => return Ok((None, None)),
        Some(Serial::Tcp(address)) => return Ok((Some(tcp(address)), None)),
        Some(Serial::Device(path)) => return Ok((Some(path.display().to_string()), None)),
        Some(Serial::Unix(path)) => path,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on 127.0.0.1")?;
    let address = listener.local_addr().context("a listener that does not listen")?;
    let serve = move |stream: Stream, _: &Ending| {
        // ipmi_sim comes again when the machine is not there yet.
        if let Ok(serial) = UnixStream::connect(&path) {
            couple(stream, serial);
        }
    };
    let server = Server::start("sol", Listener::Tcp(listener), Arc::new(serve))?;
    Ok((Some(tcp(address)), Some(server)))
}

fn tcp(address: SocketAddr) -> String {
    format!("tcp:{}:{}", address.ip(), address.port())
}

/// Passes bytes both ways until one side ends. The serial side is read without pause: a guest stands still when
/// nobody takes what it prints.
fn couple(stream: Stream, serial: UnixStream) {
    let (Ok(mut out), Ok(mut input)) = (stream.try_clone(), serial.try_clone()) else {
        return;
    };
    let reader = std::thread::Builder::new()
        .name("sol out".to_owned())
        .spawn(move || {
            pump(&mut input, &mut out);
            out.hang_up();
        });
    if let Ok(reader) = reader {
        // Typing has no time limit: a quiet console is no dead one.
        stream.wait_for_ever();
        let (mut stream, mut serial) = (stream, serial);
        pump(&mut stream, &mut serial);
        // It may be gone already.
        let _ = serial.shutdown(std::net::Shutdown::Both);
        let _ = reader.join();
    }
}

fn pump(from: &mut impl Read, to: &mut impl Write) {
    let mut buffer = [0; 4096];
    while let Ok(got) = from.read(&mut buffer) {
        if got == 0 || to.write_all(&buffer[..got]).is_err() {
            return;
        }
    }
}

fn start_program(
    folder: &Path,
    desk: &Desk,
    login: &Login,
    sol: Option<&String>,
    port: u16,
    spawner: Spawner,
) -> Result<(Process, SocketAddr)> {
    let mut last = None;
    // Another program may take what was free a moment ago.
    for number in 0..3 {
        let address = free_loopback(port)?;
        let folder = folder.join(number.to_string());
        std::fs::create_dir_all(folder.join("state"))
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let config = folder.join("lan.conf");
        write_private(&config, &lan_conf(desk, login, sol, address)?, 0o600)?;
        let commands = folder.join("emu");
        write_private(&commands, EMU, 0o600)?;
        let log = folder.join("log");
        write_private(&log, "", 0o600)?;
        let log_file = || {
            let opened = std::fs::OpenOptions::new().append(true).open(&log);
            opened.with_context(|| format!("cannot open {}", log.display()))
        };
        let mut command = Command::new(PROGRAM);
        command
            .arg("-n")
            .arg("-c")
            .arg(&config)
            .arg("-f")
            .arg(&commands)
            .arg("-s")
            .arg(folder.join("state"))
            .stdin(Stdio::null())
            .stdout(log_file()?)
            .stderr(log_file()?);
        let mut program = Process::new(spawner(&mut command)?);
        match greet(&mut program, address, &HELLO) {
            Ok(()) => return Ok((program, address)),
            Err(error) => {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                last = Some(error.context(format!("{PROGRAM} said {:?}", said.trim())));
            }
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("never tried")))
}

const EMU: &str = "mc_setbmc 0x20\n\
    mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\n\
    sel_enable 0x20 1000 0x0a\n\
    mc_enable 0x20\n";

fn lan_conf(desk: &Desk, login: &Login, sol: Option<&String>, address: SocketAddr) -> Result<String> {
    let plain = |text: &str, most: usize| {
        (1..=most).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    };
    if !plain(login.user(), 16) || !plain(login.password(), 20) {
        bail!("a BMC's user and password are 1 to 16 and 1 to 20 plain ASCII characters");
    }
    let sol = sol.map_or(String::new(), |device| {
        format!("  sol \"{device}\" 115200 history=16384\n")
    });
    Ok(format!(
        "name \"bmc\"\n\
         set_working_mc 0x20\n\
         \x20 startlan 1\n\
         \x20   addr {ip} {port}\n\
         \x20   priv_limit admin\n\
         \x20   allowed_auths_admin md5\n\
         \x20   guid a123456789abcdefa123456789abcdef\n\
         \x20 endlan\n\
         \x20 chassis_control \"{ask}\"\n\
         \x20 user 1 false \"\" \"\" user 1 md5\n\
         \x20 user 2 true \"{user}\" \"{password}\" admin 10 md5\n\
         {sol}",
        ip = address.ip(),
        port = address.port(),
        ask = desk.command(),
        user = login.user(),
        password = login.password(),
    ))
}

#[cfg(test)]
mod tests;
