//! A guest: one QEMU process with its power by QMP.
//!
//! ```text
//!            power_on (cont)                     the guest's own poweroff
//!   off ────────────────────────▶ running ─────────────────────────────▶ shut down
//!    ▲                             │   │ ▲ reset, watchdog, panic=-1          │
//!    └── power_off (stop + reset) ─┘   └─┘                                   │
//!    └───────────────────── power_on from here resets first ◀────────────────┘
//! ```
//! QEMU stays for all of it, so sockets of the console and the network card stay too, as those of a real machine's
//! BMC do. Dropping a [`Guest`] ends QEMU by its id. What the guest itself says is read through its serial ports.

mod accel;
mod config;
mod qmp;

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

pub use config::{Accel, Boot, Config, Disk, Nic};
pub use qmp::{Event, Mark, Qmp};

/// The program.
const QEMU: &str = "qemu-system-x86_64";

/// How long QEMU may take to listen.
const START: Duration = Duration::from_secs(30);

/// Debian packages that a guest needs.
pub const PACKAGES: &[&str] = &["qemu-system-x86"];

/// Why no guest can run here; `None` when one can.
#[must_use]
pub fn unable() -> Option<String> {
    let found = Command::new(QEMU)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match found {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("{QEMU} --version: {status}")),
        Err(error) => Some(format!(
            "{QEMU} cannot be started ({error}): apt-get install qemu-system-x86"
        )),
    }
}

/// A guest. Dropping it ends QEMU.
pub struct Guest {
    config: Config,
    child: Child,
    qmp: Qmp,
}

impl Guest {
    /// Starts QEMU; the guest runs when this returns, unless it is to be off at first.
    ///
    /// # Errors
    /// When QEMU does not start (its own words).
    pub fn start(config: Config) -> Result<Self> {
        let socket = config.qmp();
        // A path left by an earlier QEMU would be connected to before this one listens.
        let _ = std::fs::remove_file(&socket);
        let log = config.folder.join(format!("{}.qemu.log", config.name));
        let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut child = Command::new(QEMU)
            .args(config.arguments())
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("cannot share the log")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {QEMU}"))?;
        match connect(&mut child, &socket, &log) {
            Ok(qmp) => Ok(Self { config, child, qmp }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// What it is made of.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its machine protocol, for events and for what has no method here.
    #[must_use]
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// Id of the QEMU process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether its processor runs (a guest that hangs or panicked without a reset runs).
    ///
    /// # Errors
    /// When QEMU does not say.
    pub fn is_on(&self) -> Result<bool> {
        Ok(self.qmp.status()? == "running")
    }

    /// Switches it on; nothing when it is on.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn power_on(&self) -> Result<()> {
        match self.qmp.status()?.as_str() {
            "running" => return Ok(()),
            "shutdown" | "guest-panicked" | "internal-error" => self.reset()?,
            _ => {}
        }
        self.qmp.execute("cont", &json!({})).map(drop)
    }

    /// Takes its power away at once; nothing when it is off. Memory is gone, the disk keeps what was written.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn power_off(&self) -> Result<()> {
        self.qmp.execute("stop", &json!({}))?;
        self.reset()
    }

    /// Presses its reset button.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn reset(&self) -> Result<()> {
        self.qmp.execute("system_reset", &json!({})).map(drop)
    }

    /// Presses its power button: ACPI asks the guest to shut down.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn press_power(&self) -> Result<()> {
        self.qmp.execute("system_powerdown", &json!({})).map(drop)
    }

    /// A non-maskable interrupt: with `kernel.unknown_nmi_panic` the guest panics, and dumps.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn nmi(&self) -> Result<()> {
        self.qmp.execute("inject-nmi", &json!({})).map(drop)
    }

    /// Takes disk `index` away while the guest runs, as a controller that drops it would.
    ///
    /// # Errors
    /// When QEMU refuses or the guest does not let go within 30 s.
    pub fn pull_disk(&self, index: usize) -> Result<()> {
        let since = self.qmp.mark();
        self.qmp
            .execute("device_del", &json!({"id": format!("disk{index}")}))?;
        self.qmp.wait_event(since, "DEVICE_DELETED", START).map(drop)
    }

    /// Puts a disk that was pulled back in; nothing when it is there.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn put_disk(&self, index: usize) -> Result<()> {
        let id = format!("disk{index}");
        let devices = self
            .qmp
            .execute("qom-list", &json!({"path": "/machine/peripheral"}))?;
        let there = devices
            .as_array()
            .is_some_and(|all| all.iter().any(|each| each["name"] == id.as_str()));
        if there {
            return Ok(());
        }
        let disk = self
            .config
            .disks
            .get(index)
            .with_context(|| format!("{} has no disk {index}", self.config.name))?;
        // A drive goes with the device that was pulled: its name is free again, but a new one is simpler to tell apart.
        let node = format!("again{index}");
        let file = json!({"driver": "file", "filename": disk.path});
        self.qmp.execute(
            "blockdev-add",
            &json!({"node-name": node, "driver": disk.format, "file": file}),
        )?;
        self.qmp
            .execute(
                "device_add",
                &json!({"driver": "virtio-blk-pci", "drive": node, "serial": disk.serial, "id": id}),
            )
            .map(drop)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Ours, not reaped yet, so the id is still its own.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(child: &mut Child, socket: &Path, log: &Path) -> Result<Qmp> {
    let deadline = Instant::now() + START;
    loop {
        // The file appears before QEMU listens, and QEMU listens before it has read all of its arguments: only an
        // answer counts. The connection is kept, since QEMU serves one client.
        let answered = UnixStream::connect(socket)
            .map_err(Into::into)
            .and_then(Qmp::over);
        if let Ok(qmp) = answered {
            return Ok(qmp);
        }
        if let Some(status) = child.try_wait().context("cannot look at QEMU")? {
            let words = std::fs::read_to_string(log).unwrap_or_default();
            bail!("{QEMU} ended at once ({status}): {}", words.trim());
        }
        if Instant::now() > deadline {
            bail!("{QEMU} does not listen on {} within {START:?}", socket.display());
        }
        // A file that appears: nothing to block on.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
