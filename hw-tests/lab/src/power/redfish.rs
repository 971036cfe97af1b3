//! A BMC that speaks Redfish: OpenStack's sushy-tools emulator, one for each machine.
//!
//! ```text
//!  curl ─► TCP wire (mute, slow, garbage, drops) ─► emulator (Python) ─► ask.pl ─► desk ─► room
//! ```
//!
//! - The system is `/redfish/v1/Systems/NAME`, with On, ForceOn, ForceOff, GracefulShutdown, GracefulRestart (a
//!   reset: nobody here can ask a guest), ForceRestart, Nmi, PowerCycle, PushPowerButton.
//! - `PowerState` is PoweringOn or PoweringOff while a slow BMC has not done yet what it agreed to.
//! - Plain HTTP with basic authentication: TLS is not what power control is tried for.

mod wire;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::Login;
use super::desk::{Conversation, Desk, write_private};
use super::model::{Deed, Device, MachineId};
use super::process::{Process, Spawner};
use super::room::Room;
use super::server::{Listener, Server, lock};

const SERVICE: &str = include_str!("../../python/redfish.py");

/// How long Python may take to start: on a busy machine that is seconds.
const START: Duration = Duration::from_secs(60);

/// A machine's Redfish service. Ends when it is dropped.
pub struct RedfishBmc {
    address: SocketAddr,
    // In this order: nobody asks any more, then the program goes, then what it asked, then its files.
    _wire: Server,
    _program: Process,
    _desk: Desk,
    _folder: TempDir,
}

impl RedfishBmc {
    /// A Python that has [`PYTHON`](super::PYTHON): `$REDBUTTON_LAB_PYTHON`, else the system's.
    #[must_use]
    pub fn python() -> Option<PathBuf> {
        let made = std::env::var_os("REDBUTTON_LAB_PYTHON").map(PathBuf::from);
        made.into_iter().chain([PathBuf::from("python3")]).find(|python| {
            Command::new(python)
                .args(["-c", "import sushy_tools.emulator, bcrypt"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        })
    }

    /// A service for a machine of the room on a socket that already listens, run by this Python. Returns when it
    /// answers.
    ///
    /// # Errors
    /// When Python does not start or the service does not answer.
    pub fn start(
        room: &Arc<Room>,
        machine: MachineId,
        login: &Login,
        front: TcpListener,
        python: &Path,
        spawner: Spawner,
    ) -> Result<Self> {
        let address = front.local_addr().context("a listener that does not listen")?;
        let name = room.wiring().machine_name(machine).to_owned();
        let folder = TempDir::with_prefix("redfish").context("cannot make a folder")?;
        let bmc = Arc::new(Bmc {
            room: Arc::clone(room),
            machine,
            boot: Mutex::new("Hdd".to_owned()),
        });
        let desk = Desk::start(folder.path(), move || {
            let bmc = Arc::clone(&bmc);
            Box::new(move |line: &str| Some(bmc.answer(line))) as Conversation
        })?;
        let (program, device) = start_program(folder.path(), &name, &desk, login, python, spawner)
            .with_context(|| format!("Redfish service of {name}"))?;
        let faults = Arc::clone(room);
        let faults = move || faults.device_faults(Device::Bmc(machine));
        let wire = Server::start(
            "redfish wire",
            Listener::Tcp(front),
            Arc::new(move |stream, ending: &_| wire::carry(stream, device, &faults, ending)),
        )?;
        Ok(Self {
            address,
            _wire: wire,
            _program: program,
            _desk: desk,
            _folder: folder,
        })
    }

    /// Where it listens (TCP).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What the service's questions mean.
struct Bmc {
    room: Arc<Room>,
    machine: MachineId,
    boot: Mutex<String>,
}

impl Bmc {
    fn answer(&self, line: &str) -> String {
        match self.act(line) {
            Ok(text) => format!("ok\n{text}\n"),
            Err(error) => format!("{error:#}\n").replace('\r', " "),
        }
    }

    fn act(&self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split(' ').take(4).collect();
        match words.as_slice() {
            ["state"] => self.state().map(str::to_owned),
            ["door"] => {
                let shut = self.room.device_faults(Device::Bmc(self.machine)).refuses_login;
                Ok(if shut { "shut" } else { "open" }.to_owned())
            }
            ["boot"] => Ok(lock(&self.boot).clone()),
            ["boot", device] => {
                lock(&self.boot).clone_from(&(*device).to_owned());
                Ok(String::new())
            }
            ["reset", kind] => {
                let deeds = deeds(kind, || self.room.bmc_says(self.machine))?;
                for deed in deeds {
                    self.room.bmc(self.machine, deed)?;
                }
                Ok(String::new())
            }
            _ => bail!("a Redfish service cannot {line:?}"),
        }
    }

    fn state(&self) -> Result<&'static str> {
        Ok(match self.room.bmc_coming(self.machine) {
            Some(Deed::On) => "PoweringOn",
            Some(Deed::Off | Deed::SoftOff) => "PoweringOff",
            _ if self.room.bmc_says(self.machine)? => "On",
            _ => "Off",
        })
    }
}

/// What a Redfish ResetType means.
fn deeds(kind: &str, is_on: impl FnOnce() -> Result<bool>) -> Result<Vec<Deed>> {
    Ok(match kind {
        "On" | "ForceOn" => vec![Deed::On],
        "ForceOff" => vec![Deed::Off],
        "GracefulShutdown" => vec![Deed::SoftOff],
        "GracefulRestart" | "ForceRestart" => vec![Deed::Reset],
        "Nmi" => vec![Deed::Nmi],
        "PowerCycle" => vec![Deed::Off, Deed::On],
        "PushPowerButton" => vec![if is_on()? { Deed::SoftOff } else { Deed::On }],
        _ => bail!("no ResetType {kind:?}"),
    })
}

fn start_program(
    folder: &Path,
    name: &str,
    desk: &Desk,
    login: &Login,
    python: &Path,
    spawner: Spawner,
) -> Result<(Process, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on 127.0.0.1")?;
    let address = listener.local_addr().context("a listener that does not listen")?;
    let ask: Vec<String> = desk.command().split(' ').map(str::to_owned).collect();
    let config = serde_json::json!({
        "name": name, "user": login.user(), "password": login.password(), "ask": ask,
    });
    if login.user().contains(':') || login.password().len() > 72 {
        bail!("a user's name without a colon and a password of at most 72 bytes, as bcrypt has it");
    }
    write_private(&folder.join("config.json"), &config.to_string(), 0o600)?;
    write_private(&folder.join("redfish.py"), SERVICE, 0o600)?;
    let log = folder.join("log");
    write_private(&log, "", 0o600)?;
    let log_file = std::fs::OpenOptions::new()
        .append(true)
        .open(&log)
        .with_context(|| format!("cannot open {}", log.display()))?;
    let mut command = Command::new(python);
    command
        // The lab's machine may have a Python path of its own, and its caches are not ours to fill.
        .args(["-I", "-B"])
        .arg(folder.join("redfish.py"))
        .arg(folder)
        // The socket comes as standard input, so that no port has to be guessed.
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(log_file);
    let mut program = Process::new(spawner(&mut command)?);
    drop(command);
    greet(&mut program, address).map_err(|error| {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let last: Vec<&str> = said.trim().lines().rev().take(3).collect();
        error.context(format!("{} said, last line first: {last:?}", python.display()))
    })?;
    Ok((program, address))
}

/// Waits until it serves its root, which needs no login.
fn greet(program: &mut Process, address: SocketAddr) -> Result<()> {
    let until = Instant::now() + START;
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        stream.write_all(b"GET /redfish/v1 HTTP/1.0\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200"))
    };
    loop {
        match ask() {
            Ok(true) => return Ok(()),
            _ if !program.is_running() => bail!("ended at once"),
            _ if Instant::now() > until => bail!("no answer at {address} within {START:?}"),
            _ => std::thread::park_timeout(Duration::from_millis(10)),
        }
    }
}

#[cfg(test)]
mod tests;
