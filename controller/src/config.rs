//! `/etc/redbutton/controller.toml`. Everything has a default; what is not known is refused by file, line and key.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use link::ListenConfig;
use proto::{DAEMON_PORT, PEOPLE_PORT};
use serde::{Deserialize, Deserializer};

use crate::fleet::FleetConfig;
use crate::rollout::Bounds;
use crate::services::door::DoorConfig;

/// Where the controller finds its things and what it listens on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What `init` made: CA, certificate, key, database.
    pub state: PathBuf,
    /// The port for people.
    #[serde(deserialize_with = "people")]
    pub people: Listener,
    /// The port for daemons.
    #[serde(deserialize_with = "daemons")]
    pub daemons: Listener,
    /// Links to nodes.
    pub nodes: Nodes,
    /// People's certificates.
    pub keys: Keys,
    /// Bringing our own programs to nodes.
    pub rollouts: RolloutBounds,
    /// What is logged.
    pub log: Log,
}

/// Bringing our own programs to nodes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutBounds {
    /// For all nodes together.
    pub bytes_per_second: u64,
}

impl Default for RolloutBounds {
    fn default() -> Self {
        Self {
            bytes_per_second: 10_000_000,
        }
    }
}

impl RolloutBounds {
    pub(crate) const fn bounds(&self) -> Bounds {
        Bounds {
            bytes_per_second: self.bytes_per_second,
        }
    }
}

/// A port.
#[derive(Debug, Clone)]
pub struct Listener {
    /// `[::]:7443` takes IPv4 peers as well; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Handshakes in progress: everybody who is connected and has not proven who they are.
    pub max_handshakes: usize,
    /// From the connection to the end of the handshake, milliseconds.
    pub handshake_deadline_ms: u64,
    /// Connections of one identity; one more cuts the oldest.
    pub max_per_identity: usize,
}

/// A listener's section as written. What it leaves out depends on which of the two it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    listen: Option<SocketAddr>,
    max_handshakes: Option<usize>,
    handshake_deadline_ms: Option<u64>,
    max_per_identity: Option<usize>,
}

fn people<'de, D: Deserializer<'de>>(section: D) -> Result<Listener, D::Error> {
    Ok(Listener::people().with(&Section::deserialize(section)?))
}

fn daemons<'de, D: Deserializer<'de>>(section: D) -> Result<Listener, D::Error> {
    Ok(Listener::daemons().with(&Section::deserialize(section)?))
}

/// Links to nodes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nodes {
    /// Between two reports of a node, milliseconds.
    pub report_interval_ms: u64,
    /// For the first report of a node that attaches, milliseconds.
    pub attach_deadline_ms: u64,
    /// Idle time before a ping, milliseconds.
    pub keepalive_interval_ms: u64,
    /// For its answer, milliseconds; then the link is dead.
    pub keepalive_timeout_ms: u64,
}

/// People's certificates.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// How long they are good, minutes. The command line renews them from half time on.
    pub person_certificate_minutes: u64,
    /// How long after its end a certificate of an enrolled key may still be renewed, days.
    pub renew_grace_days: u64,
    /// How long nodes' certificates are good, seconds. Renewed over the link from half time on.
    pub node_certificate_s: u64,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            person_certificate_minutes: 24 * 60,
            renew_grace_days: 30,
            node_certificate_s: 86_400,
        }
    }
}

impl Keys {
    /// How long after its end a person's certificate may still be renewed.
    #[must_use]
    pub const fn renew_grace(&self) -> Duration {
        Duration::from_secs(self.renew_grace_days * 86_400)
    }

    pub(crate) const fn node_life(&self) -> Duration {
        Duration::from_secs(self.node_certificate_s)
    }

    pub(crate) const fn door(&self, controllers: Vec<String>) -> DoorConfig {
        DoorConfig {
            controllers,
            life: Duration::from_secs(self.person_certificate_minutes * 60),
            grace: Duration::from_secs(self.renew_grace_days * 86_400),
        }
    }
}

/// What is logged, to standard error.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// As in `RUST_LOG`, which wins: `info`, `controller=debug,warn`.
    pub filter: String,
    /// One JSON object a line.
    pub json: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: PathBuf::from("/var/lib/redbutton/controller"),
            people: Listener::people(),
            daemons: Listener::daemons(),
            nodes: Nodes::default(),
            keys: Keys::default(),
            rollouts: RolloutBounds::default(),
            log: Log::default(),
        }
    }
}

impl Listener {
    fn people() -> Self {
        Self {
            max_handshakes: 4_096,
            ..Self::at(PEOPLE_PORT)
        }
    }

    fn daemons() -> Self {
        Self {
            max_per_identity: 4,
            ..Self::at(DAEMON_PORT)
        }
    }

    fn with(self, section: &Section) -> Self {
        let Section {
            listen,
            max_handshakes,
            handshake_deadline_ms,
            max_per_identity,
        } = *section;
        Self {
            listen: listen.unwrap_or(self.listen),
            max_handshakes: max_handshakes.unwrap_or(self.max_handshakes),
            handshake_deadline_ms: handshake_deadline_ms.unwrap_or(self.handshake_deadline_ms),
            max_per_identity: max_per_identity.unwrap_or(self.max_per_identity),
        }
    }

    fn at(port: u16) -> Self {
        let ListenConfig {
            backlog: _,
            max_handshakes,
            max_turns: _,
            handshake_deadline,
            max_per_identity,
        } = ListenConfig::default();
        Self {
            listen: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
            max_handshakes,
            handshake_deadline_ms: u64::try_from(handshake_deadline.as_millis()).unwrap_or(u64::MAX),
            max_per_identity,
        }
    }

    pub(crate) fn bounds(&self) -> ListenConfig {
        ListenConfig {
            max_handshakes: self.max_handshakes,
            handshake_deadline: Duration::from_millis(self.handshake_deadline_ms),
            max_per_identity: self.max_per_identity,
            ..ListenConfig::default()
        }
    }
}

impl Default for Nodes {
    fn default() -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let FleetConfig {
            attach_deadline,
            report_interval,
            link,
        } = FleetConfig::default();
        Self {
            report_interval_ms: ms(report_interval),
            attach_deadline_ms: ms(attach_deadline),
            keepalive_interval_ms: ms(link.keepalive_interval),
            keepalive_timeout_ms: ms(link.keepalive_timeout),
        }
    }
}

impl Nodes {
    pub(crate) fn bounds(&self) -> FleetConfig {
        FleetConfig {
            attach_deadline: Duration::from_millis(self.attach_deadline_ms),
            report_interval: Duration::from_millis(self.report_interval_ms),
            link: link::LinkConfig {
                keepalive_interval: Duration::from_millis(self.keepalive_interval_ms),
                keepalive_timeout: Duration::from_millis(self.keepalive_timeout_ms),
                ..link::LinkConfig::default()
            },
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "info".into(),
            json: false,
        }
    }
}

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot be read", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, a value that cannot be.
    #[error("{path}, line {line}: {message}", path = path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// 1-based; 0: unknown.
        line: usize,
        /// Names the key.
        message: String,
    },
    /// A number that makes no sense.
    #[error("{path}: {key} must be {expected}, got {got}", path = path.display())]
    Value {
        /// Which.
        path: PathBuf,
        /// As in the file.
        key: &'static str,
        /// What would do.
        expected: &'static str,
        /// What is there.
        got: u64,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// Names file, line and key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Reads a text; `path` is for errors.
    ///
    /// # Errors
    /// Names file, line and key.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Config = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error
                .span()
                .map_or(0, |span| text[..span.start].matches('\n').count() + 1),
            message: error.message().to_owned(),
        })?;
        let Nodes {
            report_interval_ms,
            attach_deadline_ms,
            keepalive_interval_ms,
            keepalive_timeout_ms,
        } = config.nodes;
        let handshakes = |listener: &Listener| listener.max_handshakes as u64;
        let connections = |listener: &Listener| listener.max_per_identity as u64;
        for (key, got, range, expected) in [
            (
                "nodes.report_interval_ms",
                report_interval_ms,
                100..=86_400_000,
                "100 to 86,400,000",
            ),
            (
                "nodes.attach_deadline_ms",
                attach_deadline_ms,
                100..=600_000,
                "100 to 600,000",
            ),
            (
                "nodes.keepalive_interval_ms",
                keepalive_interval_ms,
                100..=600_000,
                "100 to 600,000",
            ),
            (
                "nodes.keepalive_timeout_ms",
                keepalive_timeout_ms,
                100..=600_000,
                "100 to 600,000",
            ),
            (
                "keys.person_certificate_minutes",
                config.keys.person_certificate_minutes,
                1..=527_040,
                "1 to 527,040 (a year)",
            ),
            (
                "keys.renew_grace_days",
                config.keys.renew_grace_days,
                0..=3_650,
                "0 to 3,650",
            ),
            (
                "keys.node_certificate_s",
                config.keys.node_certificate_s,
                2..=31_536_000,
                "2 to 31,536,000",
            ),
            (
                "people.max_handshakes",
                handshakes(&config.people),
                1..=1_000_000,
                "1 to 1,000,000",
            ),
            (
                "people.max_per_identity",
                connections(&config.people),
                1..=100_000,
                "1 to 100,000",
            ),
            (
                "people.handshake_deadline_ms",
                config.people.handshake_deadline_ms,
                100..=600_000,
                "100 to 600,000",
            ),
            (
                "daemons.max_handshakes",
                handshakes(&config.daemons),
                1..=1_000_000,
                "1 to 1,000,000",
            ),
            (
                "daemons.max_per_identity",
                connections(&config.daemons),
                1..=100_000,
                "1 to 100,000",
            ),
            (
                "daemons.handshake_deadline_ms",
                config.daemons.handshake_deadline_ms,
                100..=600_000,
                "100 to 600,000",
            ),
        ] {
            if !range.contains(&got) {
                return Err(ConfigError::Value {
                    path: path.to_owned(),
                    key,
                    expected,
                    got,
                });
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/etc/redbutton/controller.toml"))
    }

    #[test]
    fn the_example_in_deploy_is_a_configuration() {
        let config = parse(include_str!("../../deploy/controller.toml"));
        assert!(config.is_ok(), "{config:?}");
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let config = parse("").expect("defaults");
        assert_eq!(config.people.listen.port(), 7443);
        assert_eq!(config.daemons.listen.port(), 7444);
        assert_eq!(config.daemons.max_per_identity, 4);
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let error = parse("state = \"/x\"\n\n[people]\nlisten = \"[::]:1\"\ncolour = 3\n")
            .expect_err("unknown")
            .to_string();
        assert!(
            error.starts_with("/etc/redbutton/controller.toml, line 5: ") && error.contains("colour"),
            "{error}"
        );
        let error = parse("[daemons]\nlisten = \"here\"\n")
            .expect_err("no address")
            .to_string();
        assert!(error.contains("line 2"), "{error}");
        let error = parse("[nodes]\nreport_interval_ms = 0\n")
            .expect_err("too small")
            .to_string();
        assert!(
            error.contains("nodes.report_interval_ms must be 100 to"),
            "{error}"
        );
    }

    #[test]
    fn a_port_given_alone_keeps_the_other_bounds_and_a_listener_given_in_part_its_port() {
        let config = parse("[people]\nlisten = \"127.0.0.1:0\"\n").expect("good");
        assert_eq!(config.people.max_handshakes, Listener::people().max_handshakes);
        assert_eq!(config.daemons.listen.port(), 7444);
        let config = parse("[people]\nmax_handshakes = 9\n[daemons]\nmax_handshakes = 9\n").expect("good");
        assert_eq!(config.people.listen.port(), 7443);
        assert_eq!(config.daemons.listen.port(), 7444);
        assert_eq!(config.daemons.max_per_identity, 4);
    }
}
