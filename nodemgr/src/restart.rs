//! The seam behind reboot and halt orders. Only a node that is configured for it restarts anything; tests and
//! developers' machines never do.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::config::Restart;

/// What an order wants of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Start again.
    Reboot,
    /// Stop, with no way back but the outlet.
    Halt,
}

impl Wish {
    /// What systemd and every init call it.
    fn verb(self) -> &'static str {
        match self {
            Wish::Reboot => "reboot",
            Wish::Halt => "poweroff",
        }
    }
}

/// Carries out reboot and halt orders.
pub trait Restarter: Send + Sync {
    /// How, for people; `Err` says why not.
    ///
    /// # Errors
    /// When such orders cannot be carried out here.
    fn means(&self) -> Result<String, String>;

    /// Begins. Returns at once.
    ///
    /// # Errors
    /// When it could not even begin.
    fn begin(&self, wish: Wish) -> Result<(), String>;
}

/// Refuses.
#[derive(Debug, Clone)]
pub struct Unavailable {
    /// Why.
    pub why: String,
}

impl Restarter for Unavailable {
    fn means(&self) -> Result<String, String> {
        Err(self.why.clone())
    }

    fn begin(&self, _: Wish) -> Result<(), String> {
        Err(self.why.clone())
    }
}

/// Asks systemd, which stops the services in order. When the node is too sick for that, the POD is the next step of
/// the ladder.
#[derive(Debug, Clone, Copy)]
struct Systemd;

impl Restarter for Systemd {
    fn means(&self) -> Result<String, String> {
        match std::path::Path::new("/run/systemd/system").is_dir() {
            true => Ok("systemctl".into()),
            false => Err("restart = \"systemd\" is configured, but systemd does not run here".into()),
        }
    }

    fn begin(&self, wish: Wish) -> Result<(), String> {
        self.means()?;
        start(Command::new("systemctl").args(["--no-block", wish.verb()]))
    }
}

/// Runs `reboot` or `poweroff` of the node's own init: sysvinit, OpenRC, busybox, runit.
#[derive(Debug, Clone)]
struct Init {
    /// Where the programs are looked for, in order. Not `PATH`: a unit may have set that for its slivers.
    folders: Vec<PathBuf>,
}

impl Init {
    fn program(&self, verb: &str) -> Result<PathBuf, String> {
        let found = self
            .folders
            .iter()
            .map(|folder| folder.join(verb))
            .find(|path| path.is_file());
        found.ok_or_else(|| {
            let folders: Vec<_> = self
                .folders
                .iter()
                .map(|folder| folder.display().to_string())
                .collect();
            format!(
                "restart = \"init\" is configured, but there is no {verb} in {}",
                folders.join(", ")
            )
        })
    }
}

impl Restarter for Init {
    fn means(&self) -> Result<String, String> {
        self.program("poweroff")?;
        Ok(self.program("reboot")?.display().to_string())
    }

    fn begin(&self, wish: Wish) -> Result<(), String> {
        start(&mut Command::new(self.program(wish.verb())?))
    }
}

/// Starts what begins the restart. Its end is of no interest: it takes us along.
fn start(command: &mut Command) -> Result<(), String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map(drop)
        .map_err(|e| format!("{}: {e}", command.get_program().display()))
}

/// The one that the configuration names.
#[must_use]
pub fn restarter(configured: Restart) -> Box<dyn Restarter> {
    match configured {
        Restart::None => Box::new(Unavailable {
            why: "not configured: restart = \"none\"".into(),
        }),
        Restart::Systemd => Box::new(Systemd),
        Restart::Init => Box::new(Init {
            folders: ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
                .map(PathBuf::from)
                .to_vec(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_restarts_unless_configured() {
        let none = restarter(Restart::None);
        assert_eq!(none.means(), Err("not configured: restart = \"none\"".into()));
        assert!(none.begin(Wish::Reboot).is_err() && none.begin(Wish::Halt).is_err());
    }

    #[test]
    fn the_program_of_the_init_is_started_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let init = Init {
            folders: vec![folder.path().join("absent"), folder.path().to_owned()],
        };
        assert!(init.means().is_err_and(|why| why.contains("no poweroff in")));
        let said = folder.path().join("said");
        for verb in ["poweroff", "reboot"] {
            let program = folder.path().join(verb);
            std::fs::write(
                &program,
                format!("#!/bin/sh\necho {verb} >> {}\n", said.display()),
            )
            .expect("a program");
            std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .expect("its mode");
        }
        assert_eq!(
            init.means(),
            Ok(folder.path().join("reboot").display().to_string())
        );
        init.begin(Wish::Reboot).expect("it begins");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while std::fs::read_to_string(&said).unwrap_or_default() != "reboot\n" {
            assert!(std::time::Instant::now() < deadline, "nothing was started");
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    }
}
