//! What a guest is made of, and the command line that QEMU gets for it. Pure.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// How QEMU runs a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// In software; works everywhere.
    Tcg,
    /// By the processor; only where a probe boot succeeded (LAB.md: the device may exist and hang).
    Kvm,
}

/// A raw disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The image.
    pub path: PathBuf,
    /// `raw` or `qcow2`.
    pub format: &'static str,
    /// Serial number that the guest sees.
    pub serial: String,
}

/// A network card, connected to a listening unix socket that speaks length-prefixed frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The socket.
    pub socket: PathBuf,
    /// Hardware address, `52:54:00:…`.
    pub mac: String,
}

/// What it boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Linux image.
    pub kernel: PathBuf,
    /// Initial file system.
    pub initrd: PathBuf,
    /// Kernel command line.
    pub append: String,
}

/// A guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its name, also that of its files.
    pub name: String,
    /// Where its sockets and logs go; short, a unix socket's path has 107 bytes.
    pub folder: PathBuf,
    /// `None`: its firmware finds nothing to boot, and waits.
    pub boot: Option<Boot>,
    /// Memory, MiB.
    pub memory: u32,
    /// Processors.
    pub cpus: u32,
    /// `vda`, `vdb`, …
    pub disks: Vec<Disk>,
    /// `eth0`, `eth1`, …
    pub nics: Vec<Nic>,
    /// How many serial ports it has, at most 4.
    pub serials: u32,
    /// A hardware watchdog (i6300ESB) that resets it.
    pub watchdog: bool,
    /// ACPI ERST: a panic's text outlives the reset, in this file.
    pub erst: Option<PathBuf>,
    /// Whether it is off at first.
    pub off: bool,
    /// How it runs.
    pub accel: Accel,
}

impl Config {
    /// A guest with a serial port and nothing else, running in software.
    #[must_use]
    pub fn bare(name: &str, folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            boot: None,
            memory: 32,
            cpus: 1,
            disks: vec![],
            nics: vec![],
            serials: 1,
            watchdog: false,
            erst: None,
            off: false,
            accel: Accel::Tcg,
        }
    }

    /// The socket of serial port `index`.
    #[must_use]
    pub fn serial(&self, index: u32) -> PathBuf {
        self.file(&format!("s{index}"))
    }

    /// The socket of the machine protocol.
    #[must_use]
    pub fn qmp(&self) -> PathBuf {
        self.file("qmp")
    }

    /// What serial port `index` said, recorded by QEMU itself.
    #[must_use]
    pub fn recording(&self, index: u32) -> PathBuf {
        self.file(&format!("s{index}.log"))
    }

    fn file(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{}.{what}", self.name))
    }

    /// QEMU's arguments. `stop` + `system_reset` is its power-off and `cont` its power-on, so a guest that powers
    /// itself off must not end QEMU.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut put = |option: &str, value: OsString| {
            words.push(option.into());
            words.push(value);
        };
        put("-name", format!("{},process={}", self.name, self.name).into());
        put("-machine", "pc".into());
        let (accel, cpu) = match self.accel {
            Accel::Tcg => ("tcg", "max"),
            Accel::Kvm => ("kvm", "host"),
        };
        put("-accel", accel.into());
        put("-cpu", cpu.into());
        put("-m", self.memory.to_string().into());
        put("-smp", self.cpus.to_string().into());
        put("-display", "none".into());
        if let Some(boot) = &self.boot {
            put("-kernel", boot.kernel.clone().into());
            put("-initrd", boot.initrd.clone().into());
            put("-append", boot.append.clone().into());
        }
        put("-qmp", with_path("unix:", &self.qmp(), ",server=on,wait=off"));
        for index in 0..self.serials {
            let log = with_path("", &self.recording(index), "");
            let mut value = with_path(
                &format!("socket,id=s{index},path="),
                &self.serial(index),
                ",server=on,wait=off,logappend=on,logfile=",
            );
            value.push(log);
            put("-chardev", value);
            put("-serial", format!("chardev:s{index}").into());
        }
        for (index, nic) in self.nics.iter().enumerate() {
            let backend = format!("stream,id=n{index},server=off,addr.type=unix,addr.path=");
            put("-netdev", with_path(&backend, &nic.socket, ""));
            let card = format!("virtio-net-pci,netdev=n{index},romfile=,mac={}", nic.mac);
            put("-device", card.into());
        }
        for (index, disk) in self.disks.iter().enumerate() {
            let drive = with_path(
                "file=",
                &disk.path,
                &format!(",format={},if=none,id=d{index},cache=unsafe", disk.format),
            );
            put("-drive", drive);
            put(
                "-device",
                format!(
                    "virtio-blk-pci,drive=d{index},serial={},id=disk{index}",
                    disk.serial
                )
                .into(),
            );
        }
        put("-device", "virtio-rng-pci,max-bytes=1024,period=1000".into());
        if self.watchdog {
            put("-device", "i6300esb".into());
            put("-watchdog-action", "reset".into());
        }
        if let Some(file) = &self.erst {
            let memory = with_path(
                "memory-backend-file,id=erst,size=65536,share=on,mem-path=",
                file,
                "",
            );
            put("-object", memory);
            put("-device", "acpi-erst,memdev=erst".into());
        }
        words.push("-nodefaults".into());
        words.push("-no-shutdown".into());
        words.push("-no-user-config".into());
        if self.off {
            words.push("-S".into());
        }
        words
    }
}

/// QEMU's option lists split at commas; a doubled one is a comma.
fn with_path(before: &str, path: &Path, after: &str) -> OsString {
    let mut word = OsString::from(before);
    word.push(path.to_string_lossy().replace(',', ",,"));
    word.push(after);
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            serials: 2,
            ..Config::bare("planet1", Path::new("/tmp/a,b"))
        }
    }

    #[test]
    fn a_comma_in_a_path_is_doubled() {
        let words = config().arguments();
        let qmp = words
            .iter()
            .find(|word| word.to_string_lossy().starts_with("unix:"));
        assert_eq!(
            qmp.map(|word| word.to_string_lossy().into_owned()),
            Some("unix:/tmp/a,,b/planet1.qmp,server=on,wait=off".into())
        );
    }

    #[test]
    fn only_a_guest_that_is_off_waits() {
        let has = |config: &Config, word: &str| config.arguments().iter().any(|each| each == word);
        assert!(!has(&config(), "-S"));
        assert!(has(
            &Config {
                off: true,
                ..config()
            },
            "-S"
        ));
        assert!(
            has(&config(), "-no-shutdown"),
            "a guest's poweroff must not end QEMU"
        );
    }
}
