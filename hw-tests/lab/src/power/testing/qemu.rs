//! A real machine without a disk: QEMU in software emulation, switched by QMP.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::Machine;
use super::super::process::Process;
use super::eventually;

const PROGRAM: &str = "/usr/bin/qemu-system-x86_64";

struct Qmp {
    stream: BufReader<UnixStream>,
    resets: usize,
}

impl Qmp {
    fn call(&mut self, command: &str) -> Result<Value> {
        let request = format!("{}\n", json!({ "execute": command }));
        self.stream.get_mut().write_all(request.as_bytes())?;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                bail!("QEMU has gone");
            }
            let value: Value = serde_json::from_str(&line).with_context(|| format!("QMP said {line:?}"))?;
            if value["event"] == "RESET" {
                self.resets += 1;
            } else if let Some(answer) = value.get("return") {
                return Ok(answer.clone());
            } else if let Some(error) = value.get("error") {
                bail!("{command}: {error}");
            }
        }
    }
}

/// A machine named n1, powered off at first.
pub(in super::super) struct Qemu {
    qmp: Mutex<Qmp>,
    _process: Process,
    folder: TempDir,
}

impl Qemu {
    /// `None`, and a line that says why, when QEMU is not installed.
    pub(in super::super) fn start() -> Option<Arc<Self>> {
        if !Path::new(PROGRAM).exists() {
            println!("skipped: {PROGRAM} is missing (apt-get install qemu-system-x86)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut command = Command::new(PROGRAM);
        command.args(
            "-machine pc,graphics=off -accel tcg -m 64 -display none -nodefaults -S -no-shutdown".split(' '),
        );
        command
            .arg("-qmp")
            .arg(format!("unix:{},server,nowait", at("qmp").display()));
        command.arg("-chardev").arg(format!(
            "socket,id=s0,path={},server=on,wait=off",
            at("serial").display()
        ));
        command.args(["-serial", "chardev:s0"]).stdin(Stdio::null());
        let process = Process::new(command.spawn().unwrap());
        eventually("QEMU opens its sockets", || at("qmp").exists());
        let stream = UnixStream::connect(at("qmp")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut qmp = Qmp {
            stream: BufReader::new(stream),
            resets: 0,
        };
        let mut greeting = String::new();
        qmp.stream.read_line(&mut greeting).unwrap();
        qmp.call("qmp_capabilities").unwrap();
        Some(Arc::new(Self {
            qmp: Mutex::new(qmp),
            _process: process,
            folder,
        }))
    }

    pub(in super::super) fn serial(&self) -> PathBuf {
        self.folder.path().join("serial")
    }

    /// How often QEMU said RESET.
    pub(in super::super) fn resets(&self) -> usize {
        let mut qmp = self.qmp.lock().unwrap();
        qmp.call("query-status").unwrap();
        qmp.resets
    }

    fn call(&self, commands: &[&str]) -> Result<()> {
        let mut qmp = self.qmp.lock().unwrap();
        commands
            .iter()
            .try_for_each(|command| qmp.call(command).map(drop))
    }
}

impl Machine for Qemu {
    fn name(&self) -> &str {
        "n1"
    }

    fn is_on(&self) -> Result<bool> {
        Ok(self.qmp.lock().unwrap().call("query-status")?["running"] == true)
    }

    fn power_on(&self) -> Result<()> {
        self.call(&["cont"])
    }

    fn power_off(&self) -> Result<()> {
        self.call(&["stop", "system_reset"])
    }

    fn reset(&self) -> Result<()> {
        self.call(&["system_reset"])
    }

    fn nmi(&self) -> Result<()> {
        self.call(&["inject-nmi"])
    }

    fn soft_off(&self) -> Result<()> {
        self.call(&["system_powerdown"])
    }
}
