//! Where bundles tell people and daemons to dial.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use proto::{DAEMON_PORT, PEOPLE_PORT};
use serde::{Deserialize, Serialize};

use super::files;
use crate::pki::{ServerName, create_private};

/// Longest list of addresses.
const MAX: usize = 16;

/// Where the controller listens, `host:port`, tried in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    /// For people.
    pub people: Vec<String>,
    /// For daemons.
    pub daemons: Vec<String>,
}

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub enum AddressesError {
    /// Not `host:port`.
    #[error(
        "address {got:?} is not HOST:PORT, with a DNS name in lower case, an IPv4 address or [an IPv6 address]"
    )]
    Form {
        /// What was given, cut to 80 characters.
        got: String,
    },
    /// None, or too many.
    #[error("{got} addresses for {whom}, between 1 and {MAX} are needed")]
    Number {
        /// How many.
        got: usize,
        /// `people` or `daemons`.
        whom: &'static str,
    },
    /// The file is not what `init` wrote.
    #[error("{path}: {message}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

impl Addresses {
    /// Each name with the usual ports.
    #[must_use]
    pub fn of_names(names: &[ServerName]) -> Self {
        let all = |port| names.iter().map(|name| with_port(name, port)).collect();
        Self {
            people: all(PEOPLE_PORT),
            daemons: all(DAEMON_PORT),
        }
    }

    /// Checks every address.
    ///
    /// # Errors
    /// Names the first that is none.
    pub fn check(&self) -> Result<(), AddressesError> {
        for (whom, list) in [("people", &self.people), ("daemons", &self.daemons)] {
            if list.is_empty() || list.len() > MAX {
                return Err(AddressesError::Number {
                    got: list.len(),
                    whom,
                });
            }
        }
        self.people
            .iter()
            .chain(&self.daemons)
            .try_for_each(|address| check(address))
    }

    /// Writes them into a new state directory.
    pub(super) fn create(&self, dir: &Path) -> Result<(), super::AdminError> {
        let text = toml::to_string(self).expect("two lists of texts");
        let text = format!("# Where bundles tell people and daemons to dial. `issue` reads it.\n{text}");
        Ok(create_private(&dir.join(files::ADDRESSES), &text)?)
    }

    /// Reads them from a state directory.
    ///
    /// # Errors
    /// When the file is not there or is not what `init` writes.
    pub fn load(dir: &Path) -> Result<Self, AddressesError> {
        let path = dir.join(files::ADDRESSES);
        let failed = |message: String| AddressesError::File {
            path: path.clone(),
            message,
        };
        let text =
            std::fs::read_to_string(&path).map_err(|error| failed(format!("cannot be read: {error}")))?;
        let addresses: Self = toml::from_str(&text).map_err(|error| failed(error.to_string()))?;
        addresses.check()?;
        Ok(addresses)
    }
}

fn with_port(name: &ServerName, port: u16) -> String {
    match name {
        ServerName::Ip(ip) if ip.is_ipv6() => format!("[{ip}]:{port}"),
        name => format!("{name}:{port}"),
    }
}

fn check(address: &str) -> Result<(), AddressesError> {
    let form = || AddressesError::Form {
        got: address.chars().take(80).collect(),
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
    let port_fits =
        port.parse::<u16>().is_ok_and(|port| port != 0) && port.bytes().all(|b| b.is_ascii_digit());
    let host_fits = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<ServerName>().is_ok() && !host.contains(':'),
    };
    if host_fits && port_fits {
        Ok(())
    } else {
        Err(form())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for good in [
            "localhost:7443",
            "127.0.0.1:1",
            "[::1]:65535",
            "controller.example:7444",
        ] {
            check(good).expect(good);
        }
        for bad in [
            "",
            ":",
            "localhost",
            "localhost:",
            "localhost:0",
            "localhost:+1",
            "localhost:65536",
            "::1:7443",
            "[::1]",
            "[localhost]:1",
            "a b:1",
            ":7443",
            "http://a:1",
        ] {
            assert!(check(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn names_get_the_usual_ports() {
        let names: Vec<ServerName> = ["localhost", "::1"]
            .iter()
            .map(|name| name.parse().expect(name))
            .collect();
        let addresses = Addresses::of_names(&names);
        assert_eq!(addresses.people, ["localhost:7443", "[::1]:7443"]);
        assert_eq!(addresses.daemons, ["localhost:7444", "[::1]:7444"]);
        addresses.check().expect("well formed");
    }

    #[test]
    fn what_init_wrote_is_read_and_anything_else_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = Addresses::load(dir.path())
            .expect_err("nothing there")
            .to_string();
        assert!(error.contains("addresses.toml: cannot be read"), "{error}");
        let addresses = Addresses {
            people: vec!["a:1".to_owned()],
            daemons: vec!["b:2".to_owned()],
        };
        addresses.create(dir.path()).expect("new");
        assert_eq!(Addresses::load(dir.path()).expect("own file"), addresses);
        std::fs::write(dir.path().join(files::ADDRESSES), "people = []\nother = 1\n").expect("written");
        let error = Addresses::load(dir.path()).expect_err("unknown key").to_string();
        assert!(
            error.contains("addresses.toml") && error.contains("other"),
            "{error}"
        );
    }
}
