//! `/etc/redbutton/nodemgr.toml`. Every error names the file, the line and the key; the program exits 64.
//!
//! Parsing is pure: text in, [`Config`] or an error out. Nothing secret is in it: the bundle is a file of its own.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::adopt::Rule;
use crate::holds::file::{DEFAULT_SLOT, SLOT_RANGE};

/// Where the configuration is looked for.
pub const DEFAULT_PATH: &str = "/etc/redbutton/nodemgr.toml";

/// What is wrong with a configuration, and where.
#[derive(Debug, thiserror::Error)]
#[error("{path}:{line}: {key}: {message}", path = path.display())]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// 1-based; 0 when it is about the file as a whole.
    pub line: usize,
    /// The key, as written; `-` when there is none.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

/// How to carry out a reboot or halt order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Not at all: such orders are refused by name.
    #[default]
    None,
    /// `systemctl reboot` and `systemctl poweroff`.
    Systemd,
    /// `reboot` and `poweroff` of another init: sysvinit, OpenRC, busybox.
    Init,
}

/// The node's own door for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DirectDoor {
    /// Where it listens; `None`: nowhere. Port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// `HOST:PORT` by which people reach it, where that is another.
    pub address: Option<String>,
}

impl Default for DirectDoor {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::new(
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                proto::DIRECT_PORT,
            )),
            address: None,
        }
    }
}

/// Whether the controller may put another version of this daemon into its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Updates {
    /// Where systemd started it, which starts it again.
    #[default]
    Auto,
    /// Yes: something starts this daemon again whenever it ends.
    On,
    /// No.
    Off,
}

/// Bounds of a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KillTimes {
    /// How long to wait for `frozen 1` before the kill goes on without it.
    pub freeze: Duration,
    /// How long the evidence may take; zero: none is taken.
    pub evidence: Duration,
    /// How long to wait for `populated 0` before the answer is "partial".
    pub populated: Duration,
}

impl Default for KillTimes {
    fn default() -> Self {
        Self {
            freeze: Duration::from_millis(100),
            evidence: Duration::from_millis(200),
            populated: Duration::from_secs(5),
        }
    }
}

/// The effective configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Our credentials and the controller's addresses.
    pub bundle: PathBuf,
    /// Where the holds are kept.
    pub state_dir: PathBuf,
    /// Bytes of each of the two copies of the state.
    pub state_bytes: usize,
    /// Where `exec` asks.
    pub socket: PathBuf,
    /// Who may start slivers, besides nobody.
    pub exec_uids: Vec<u32>,
    /// Our slivers' root, below the cgroup2 mount.
    pub slivers_root: String,
    /// The cgroup2 mount; found by itself when not given.
    pub cgroup_mount: Option<PathBuf>,
    /// Cgroups (paths below the mount) that nobody may adopt or kill, besides those found at start.
    pub protect: Vec<String>,
    /// Foreign cgroups that are slivers.
    pub adopt: Vec<Rule>,
    /// Bounds of a kill.
    pub kill: KillTimes,
    /// Log files to show when there is no journal.
    pub log_files: Vec<PathBuf>,
    /// How reboot and halt orders are carried out.
    pub restart: Restart,
    /// The node's own door for people.
    pub direct: DirectDoor,
    /// Whether the controller may change the version.
    pub updates: Updates,
    /// The file that this was read from.
    #[serde(skip)]
    pub file: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bundle: "/etc/redbutton/nodemgr.bundle".into(),
            state_dir: "/var/lib/redbutton/nodemgr".into(),
            state_bytes: DEFAULT_SLOT,
            socket: "/run/redbutton/nodemgr.sock".into(),
            exec_uids: vec![0],
            slivers_root: "redbutton.slice".into(),
            cgroup_mount: None,
            protect: Vec::new(),
            adopt: Vec::new(),
            kill: KillTimes::default(),
            log_files: vec!["/var/log/syslog".into(), "/var/log/messages".into()],
            restart: Restart::None,
            direct: DirectDoor::default(),
            updates: Updates::Auto,
            file: DEFAULT_PATH.into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    bundle: Option<Spanned<PathBuf>>,
    state_dir: Option<Spanned<PathBuf>>,
    state_bytes: Option<Spanned<usize>>,
    socket: Option<Spanned<PathBuf>>,
    exec_uids: Option<Vec<u32>>,
    slivers_root: Option<Spanned<String>>,
    cgroup_mount: Option<Spanned<PathBuf>>,
    #[serde(default)]
    protect: Vec<Spanned<String>>,
    #[serde(default)]
    adopt: Vec<RawAdopt>,
    #[serde(default)]
    kill: RawKill,
    log_files: Option<Vec<Spanned<PathBuf>>>,
    restart: Option<Restart>,
    updates: Option<Updates>,
    #[serde(default)]
    direct: RawDirect,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDirect {
    listen: Option<Spanned<String>>,
    address: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdopt {
    cgroup: Spanned<String>,
    slice: Spanned<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKill {
    freeze_ms: Option<Spanned<u64>>,
    evidence_ms: Option<Spanned<u64>>,
    populated_ms: Option<Spanned<u64>>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or is no configuration.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError {
            path: path.to_owned(),
            line: 0,
            key: "-".into(),
            message: format!("cannot be read: {e}"),
        })?;
        Self::parse(&text, path)
    }

    /// Reads a file's text; `path` is for the errors.
    ///
    /// # Errors
    /// When it is no configuration.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let at = |offset: usize, message: String| place(text, path, offset, message);
        let raw: Raw = toml::from_str(text)
            .map_err(|e| at(e.span().map_or(0, |span| span.start), e.message().to_owned()))?;
        let Raw {
            bundle,
            state_dir,
            state_bytes,
            socket,
            exec_uids,
            slivers_root,
            cgroup_mount,
            protect,
            adopt,
            kill,
            log_files,
            restart,
            direct,
            updates,
        } = raw;
        let absolute = |given: Option<Spanned<PathBuf>>, default: PathBuf| match given {
            None => Ok(default),
            Some(path) if path.get_ref().is_absolute() => Ok(path.into_inner()),
            Some(path) => Err(at(
                path.span().start,
                format!("{} is not an absolute path", path.get_ref().display()),
            )),
        };
        let cgroup = |given: Spanned<String>| {
            let bad = |s: &str| s.is_empty() || s == "." || s == ".." || s.contains('\0');
            match given.get_ref().split('/').any(bad) {
                false => Ok(given.into_inner()),
                true => Err(at(
                    given.span().start,
                    format!(
                        "{:?} is not a path below the cgroup2 mount, like system.slice/x.service",
                        given.get_ref()
                    ),
                )),
            }
        };
        let within = |given: Option<Spanned<u64>>, default: Duration, least: u64, most: u64| match given {
            None => Ok(default),
            Some(ms) if (least..=most).contains(ms.get_ref()) => Ok(Duration::from_millis(ms.into_inner())),
            Some(ms) => Err(at(
                ms.span().start,
                format!("{} is not within {least} to {most}", ms.get_ref()),
            )),
        };
        let defaults = Self::default();
        let rule = |entry: RawAdopt| {
            Rule::new(entry.cgroup.get_ref(), entry.slice.get_ref()).map_err(|e| {
                use crate::adopt::PatternError::{NoSuchStar, Slice};
                let about_slice = matches!(e, NoSuchStar { .. } | Slice(_));
                at(
                    if about_slice {
                        entry.slice.span().start
                    } else {
                        entry.cgroup.span().start
                    },
                    e.to_string(),
                )
            })
        };
        Ok(Self {
            bundle: absolute(bundle, defaults.bundle)?,
            state_dir: absolute(state_dir, defaults.state_dir)?,
            state_bytes: match state_bytes {
                None => defaults.state_bytes,
                Some(bytes) if SLOT_RANGE.contains(bytes.get_ref()) => bytes.into_inner(),
                Some(bytes) => {
                    let (least, most) = (SLOT_RANGE.start(), SLOT_RANGE.end());
                    return Err(at(
                        bytes.span().start,
                        format!("{} is not within {least} to {most}", bytes.get_ref()),
                    ));
                }
            },
            socket: absolute(socket, defaults.socket)?,
            exec_uids: exec_uids.unwrap_or(defaults.exec_uids),
            slivers_root: match slivers_root {
                None => defaults.slivers_root,
                Some(root) => cgroup(root)?,
            },
            cgroup_mount: match cgroup_mount {
                None => None,
                given => Some(absolute(given, PathBuf::new())?),
            },
            protect: protect.into_iter().map(cgroup).collect::<Result<_, _>>()?,
            adopt: adopt.into_iter().map(rule).collect::<Result<_, _>>()?,
            kill: KillTimes {
                freeze: within(kill.freeze_ms, defaults.kill.freeze, 1, 5_000)?,
                evidence: within(kill.evidence_ms, defaults.kill.evidence, 0, 5_000)?,
                populated: within(kill.populated_ms, defaults.kill.populated, 1, 60_000)?,
            },
            log_files: match log_files {
                None => defaults.log_files,
                Some(files) => files
                    .into_iter()
                    .map(|f| absolute(Some(f), PathBuf::new()))
                    .collect::<Result<_, _>>()?,
            },
            restart: restart.unwrap_or_default(),
            direct: DirectDoor {
                listen: match direct.listen {
                    None => defaults.direct.listen,
                    Some(text) if text.get_ref() == "off" => None,
                    Some(text) => Some(text.get_ref().parse().map_err(|_| {
                        at(
                            text.span().start,
                            format!("{:?} is neither ADDRESS:PORT nor \"off\"", text.get_ref()),
                        )
                    })?),
                },
                address: match direct.address {
                    None => None,
                    Some(text) if is_host_and_port(text.get_ref()) => Some(text.into_inner()),
                    Some(text) => {
                        return Err(at(
                            text.span().start,
                            format!("{:?} is not HOST:PORT", text.get_ref()),
                        ));
                    }
                },
            },
            updates: updates.unwrap_or_default(),
            file: path.to_owned(),
        })
    }

    /// SHA-256 of what is in effect, hex: two nodes with the same hash are configured alike.
    #[must_use]
    pub fn hash(&self) -> String {
        use sha2::{Digest, Sha256};
        let text = serde_json::to_string(self).expect("a struct of texts and numbers has a JSON form");
        Sha256::digest(text.as_bytes())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    }
}

fn is_host_and_port(text: &str) -> bool {
    let host = |host: &str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic());
    text.rsplit_once(':')
        .is_some_and(|(name, port)| host(name) && port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn place(text: &str, path: &Path, offset: usize, message: String) -> ConfigError {
    let offset = text.floor_char_boundary(offset);
    let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    let key = line.split('=').next().unwrap_or_default().trim();
    ConfigError {
        path: path.to_owned(),
        line: text[..offset].matches('\n').count() + 1,
        key: if key.is_empty() {
            "-".into()
        } else {
            key.chars().take(80).collect()
        },
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/etc/redbutton/nodemgr.toml"))
    }

    #[test]
    fn the_example_in_deploy_is_a_configuration() {
        let config = parse(include_str!("../../deploy/nodemgr.toml"));
        assert!(config.is_ok(), "{config:?}");
    }

    #[test]
    fn nothing_configured_is_the_defaults() {
        assert_eq!(parse("").expect("empty"), Config::default());
    }

    #[test]
    fn everything_can_be_configured() {
        let config = parse(
            r#"
            bundle = "/b"
            state_dir = "/s"
            state_bytes = 131072
            socket = "/x"
            exec_uids = [0, 1000]
            slivers_root = "lab/redbutton"
            cgroup_mount = "/sys/fs/cgroup/unified"
            protect = ["system.slice/important.service"]
            log_files = ["/var/log/other"]
            restart = "systemd"
            [direct]
            listen = "off"
            address = "node7.example.org:7445"
            [kill]
            freeze_ms = 50
            evidence_ms = 20
            populated_ms = 1000
            [[adopt]]
            cgroup = "machine.slice/*"
            slice = "princeton_vm"
            "#,
        )
        .expect("valid");
        assert_eq!(config.exec_uids, [0, 1000]);
        assert_eq!(config.adopt[0].pattern(), "machine.slice/*");
        assert_eq!(config.kill.evidence, Duration::from_millis(20));
        assert_eq!(config.restart, Restart::Systemd);
        assert_eq!(config.direct.listen, None);
    }

    #[test]
    fn errors_name_file_line_and_key() {
        for (text, expected) in [
            (
                "\nstat_dir = \"/x\"",
                "/etc/redbutton/nodemgr.toml:2: stat_dir: unknown field `stat_dir`",
            ),
            ("state_dir = \"x\"", ":1: state_dir: x is not an absolute path"),
            (
                "\n\nstate_bytes = 12",
                ":3: state_bytes: 12 is not within 65536 to 67108864",
            ),
            (
                "slivers_root = \"/a\"",
                ":1: slivers_root: \"/a\" is not a path below",
            ),
            ("slivers_root = \"\"", ":1: slivers_root: \"\" is not a path"),
            ("protect = [\"../x\"]", ":1: protect: \"../x\" is not a path"),
            (
                "[kill]\nfreeze_ms = 0",
                ":2: freeze_ms: 0 is not within 1 to 5000",
            ),
            (
                "[[adopt]]\ncgroup = \"*\"\nslice = \"a_b\"",
                ":2: cgroup: pattern \"*\" would match everything",
            ),
            (
                "[[adopt]]\ncgroup = \"\"\nslice = \"a_b\"",
                ":2: cgroup: pattern \"\" would match everything",
            ),
            (
                "[[adopt]]\ncgroup = \"m/*\"\nslice = \"Codeen\"",
                ":3: slice: slice name \"Codeen\" is malformed",
            ),
            (
                "[[adopt]]\ncgroup = \"m/*\"",
                ":1: [[adopt]]: missing field `slice`",
            ),
            ("restart = \"now\"", ":1: restart: unknown variant `now`"),
            (
                "[direct]\nlisten = \"7445\"",
                ":2: listen: \"7445\" is neither ADDRESS:PORT nor \"off\"",
            ),
            (
                "[direct]\naddress = \"node7\"",
                ":2: address: \"node7\" is not HOST:PORT",
            ),
            ("a = = b", ":1: a:"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        let missing = Config::load(Path::new("/nonexistent/x.toml"))
            .expect_err("no file")
            .to_string();
        assert!(
            missing.starts_with("/nonexistent/x.toml:0: -: cannot be read"),
            "{missing}"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_configuration_or_an_error(text in "([a-z_]{0,9}( ?= ?|\\.|\n)|\\[{0,2}[a-z]{0,5}\\]{0,2}|[\"'{},#ä0-9\n]){0,20}") {
            let _ = parse(&text).map_err(|error| error.to_string());
        }
    }

    #[test]
    fn the_hash_tells_configurations_apart() {
        let one = parse("exec_uids = [0]").expect("valid");
        assert_eq!(
            one.hash(),
            Config::default().hash(),
            "what is in effect counts, not how it is written"
        );
        assert_ne!(parse("restart = \"systemd\"").expect("valid").hash(), one.hash());
        assert_eq!(one.hash().len(), 64);
    }
}
