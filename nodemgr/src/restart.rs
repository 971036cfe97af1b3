//! The seam behind reboot and halt orders. Only a node that is configured for it restarts anything; tests and
//! developers' machines never do.

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
        let verb = match wish {
            Wish::Reboot => "reboot",
            Wish::Halt => "poweroff",
        };
        Command::new("systemctl")
            .args(["--no-block", verb])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map(drop)
            .map_err(|e| format!("systemctl {verb}: {e}"))
    }
}

/// The one that the configuration names.
#[must_use]
pub fn restarter(configured: Restart) -> Box<dyn Restarter> {
    match configured {
        Restart::None => Box::new(Unavailable {
            why: "not configured: restart = \"none\"".into(),
        }),
        Restart::Systemd => Box::new(Systemd),
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
}
