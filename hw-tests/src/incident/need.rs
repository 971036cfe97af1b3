//! What a replay needs of the machine it runs on. Probed when it is its turn; unmet means skipped, with the reason.

use std::path::Path;
use std::process::{Command, Stdio};

/// Something the machine may lack.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// In words.
    pub name: &'static str,
    /// `Err` says why it cannot be had here.
    pub probe: fn() -> Result<(), String>,
}

impl Need {
    /// To be root.
    pub const ROOT: Need = Need {
        name: "root",
        probe: || {
            if nix::unistd::geteuid().is_root() {
                Ok(())
            } else {
                Err("we are not".into())
            }
        },
    };
    /// A cgroup2 mount, alone or beside v1.
    pub const CGROUP2: Need = Need {
        name: "cgroup2",
        probe: || {
            nodemgr::cgroup::Mount::discover(Path::new("/proc/self/mountinfo"))
                .map(drop)
                .map_err(|error| error.to_string())
        },
    };
    /// A lab with small nodes: root, a tap, QEMU and the guests' image.
    pub const LAB: Need = Need {
        name: "lab",
        probe: || match crate::lab::unable() {
            None => Ok(()),
            Some(why) => Err(why),
        },
    };
    /// Slivers of replays are bash scripts: it alone speaks TCP without another program.
    pub const BASH: Need = Need {
        name: "bash",
        probe: || runs("/bin/bash", "bash"),
    };

    /// Why it is not met; `None` when it is.
    #[must_use]
    pub fn unmet(&self) -> Option<String> {
        (self.probe)().err().map(|why| format!("{}: {why}", self.name))
    }
}

fn runs(program: &str, package: &str) -> Result<(), String> {
    let status = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} --version: {status}")),
        Err(error) => Err(format!("{program}: {error} (Debian package {package})")),
    }
}
