//! The file with the node's POD keys: TOML, mode 0600, written by nodemgr at enrolment and at each rotation.
//!
//! ```toml
//! format = 1
//! node = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
//! secrets = ["00112233445566778899aabbccddeeff"]   # the tag secret; several while one takes over from another
//! [[keys]]
//! public = "03a1…"                                 # Ed25519, 64 hexadecimal digits
//! actions = ["dry-run", "reboot", "kill-slivers"]
//! ```

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use pod_wire::{Action, TagSecret};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::gate::{MAX_KEYS, MAX_SECRETS, Trusted};

/// Where the keys are when nothing else is said.
pub const DEFAULT_KEYS: &str = "/var/lib/redbutton/pod/keys.toml";
/// Largest file that is read.
const MAX_BYTES: u64 = 64 << 10;
const FORMAT: u32 = 1;

/// Why the listener does not start. Never shows what a file holds.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not there, not readable, not a plain file.
    #[error("keys {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others could read it or write it.
    #[error("keys {path}: mode {mode:o}, owner {owner}: it holds a secret, expected mode 600 and owner {expected}", path = path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner.
        owner: u32,
        /// Who we are.
        expected: u32,
    },
    /// Not what nodemgr writes.
    #[error("keys {path}, line {line}: {message}", path = path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// 1-based; 0 when unknown.
        line: usize,
        /// What is wrong, without the text around it.
        message: String,
    },
    /// A value that cannot be.
    #[error("keys {path}: {message}", path = path.display())]
    Value {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    node: String,
    secrets: Vec<String>,
    #[serde(default)]
    keys: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    public: String,
    actions: Vec<String>,
}

/// Who may ask this node for what.
#[derive(Debug)]
pub struct Keys {
    /// This node, UUID.
    pub node: [u8; 16],
    /// Secrets that tag packets.
    pub secrets: Vec<TagSecret>,
    /// Keys that sign them.
    pub keys: Vec<Trusted>,
}

impl Keys {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is not there, open to others, or says something that cannot be.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::File {
            path: path.to_owned(),
            source,
        };
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
            .map_err(failed)?;
        // Of what was opened, not of the name: nobody swaps it in between.
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() {
            return Err(failed(std::io::Error::other("not a plain file")));
        }
        let ours = nix::unistd::geteuid().as_raw();
        let mode = meta.mode() & 0o777;
        if mode & 0o077 != 0 || (meta.uid() != ours && meta.uid() != 0) {
            return Err(ConfigError::Open {
                path: path.to_owned(),
                mode,
                owner: meta.uid(),
                expected: ours,
            });
        }
        let mut text = String::new();
        file.take(MAX_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(failed(std::io::Error::other("longer than 64 KiB")));
        }
        Self::parse(path, &text)
    }

    /// Reads the text; `path` is for errors.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(0, |before| before.matches('\n').count() + 1),
            message: error.message().to_owned(),
        })?;
        let wrong = |message: String| ConfigError::Value {
            path: path.to_owned(),
            message,
        };
        if file.format != FORMAT {
            return Err(wrong(format!(
                "format is {}, this program reads {FORMAT}",
                file.format
            )));
        }
        let node = uuid(&file.node).ok_or_else(|| wrong("node is not a UUID of 36 characters".into()))?;
        if file.secrets.is_empty() || file.secrets.len() > MAX_SECRETS {
            return Err(wrong(format!(
                "{} secrets, between 1 and {MAX_SECRETS} are needed",
                file.secrets.len()
            )));
        }
        let secrets = file.secrets.iter().enumerate().map(|(n, secret)| {
            hex::<16>(secret)
                .map(TagSecret::new)
                .ok_or_else(|| wrong(format!("secret {} is not 32 hexadecimal digits", n + 1)))
        });
        let secrets = secrets.collect::<Result<_, _>>()?;
        if file.keys.len() > MAX_KEYS {
            return Err(wrong(format!(
                "{} keys, at most {MAX_KEYS} are taken",
                file.keys.len()
            )));
        }
        let mut keys: Vec<Trusted> = Vec::with_capacity(file.keys.len());
        for (n, key) in file.keys.iter().enumerate() {
            let key = key
                .checked()
                .map_err(|what| wrong(format!("key {}: {what}", n + 1)))?;
            if keys.iter().any(|known| known.id == key.id) {
                return Err(wrong(format!("key {} is there twice", n + 1)));
            }
            keys.push(key);
        }
        Ok(Self { node, secrets, keys })
    }
}

impl Key {
    fn checked(&self) -> Result<Trusted, String> {
        let public = hex::<32>(&self.public).ok_or("public is not 64 hexadecimal digits")?;
        let key = VerifyingKey::from_bytes(&public).map_err(|_| "public is not an Ed25519 key")?;
        if key.is_weak() {
            return Err("public is a weak Ed25519 key".into());
        }
        let mut actions = Vec::new();
        for word in &self.actions {
            let action = Action::ALL.into_iter().find(|action| action.as_str() == word);
            match action {
                Some(action) if action.is_signed() => actions.push(action),
                _ => {
                    let shown: String = word.chars().take(40).collect();
                    return Err(format!(
                        "{shown:?} is no action: expected dry-run, reboot, crash or kill-slivers"
                    ));
                }
            }
        }
        let mut id = [0; 8];
        id.copy_from_slice(&Sha256::digest(public)[..8]);
        Ok(Trusted {
            id,
            key,
            scope: Trusted::scope_of(&actions),
        })
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// A UUID with its four hyphens.
pub(crate) fn uuid(text: &str) -> Option<[u8; 16]> {
    let hyphens = [8, 13, 18, 23];
    let right = text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| (byte == b'-') == hyphens.contains(&at));
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if right { hex(&digits) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const GOOD: &str = r#"format = 1
node = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
secrets = ["00112233445566778899aabbccddeeff"]
[[keys]]
public = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
actions = ["dry-run", "reboot"]
"#;

    fn parse(text: &str) -> Result<Keys, ConfigError> {
        Keys::parse(Path::new("k"), text)
    }

    #[test]
    fn a_good_file_is_read_and_its_key_named_as_packets_name_it() {
        let keys = parse(GOOD).expect("good");
        assert_eq!(keys.node[..4], [0x6b, 0xa7, 0xb8, 0x10]);
        assert_eq!(keys.keys[0].id, [0x56, 0x47, 0x5a, 0xa7, 0x54, 0x63, 0x47, 0x4c]);
        assert_eq!(
            keys.keys[0].scope,
            Trusted::scope_of(&[Action::DryRun, Action::Reboot])
        );
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_shown() {
        for (from, to, words) in [
            ("format = 1", "format = 2", "format is 2, this program reads 1"),
            ("6ba7b810-", "6ba7b810", "node is not a UUID"),
            ("00112233", "0011223", "secret 1 is not 32 hexadecimal digits"),
            (
                "[\"00112233445566778899aabbccddeeff\"]",
                "[]",
                "0 secrets, between 1 and 4",
            ),
            ("03a107bf", "03a107b", "key 1: public is not 64"),
            ("\"reboot\"", "\"probe\"", "\"probe\" is no action"),
            ("public", "privat", "line 5"),
            ("secrets", "secret", "line 3"),
        ] {
            let error = parse(&GOOD.replace(from, to)).expect_err(to).to_string();
            assert!(error.contains(words), "{to}: {error}");
            assert!(!error.contains("112233445566"), "{error}");
        }
        // The neutral element: any signature would be right.
        let weak = GOOD.replace(
            "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8",
            "0100000000000000000000000000000000000000000000000000000000000000",
        );
        assert!(parse(&weak).expect_err("weak").to_string().contains("weak"));
    }

    #[test]
    fn a_file_that_others_can_read_or_that_is_none_stops_the_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys.toml");
        let error = Keys::load(&path).expect_err("nothing there").to_string();
        assert!(error.contains("keys.toml"), "{error}");
        fs::write(&path, GOOD).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        let error = Keys::load(&path).expect_err("readable").to_string();
        assert!(
            error.contains("mode 640") && error.contains("expected mode 600"),
            "{error}"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        Keys::load(&path).expect("private");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        Keys::load(&link).expect_err("a symlink");
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
        Keys::load(&dir.path().join("fifo")).expect_err("a fifo that nobody writes");
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,200}") {
            let _ = parse(&text);
            let _ = uuid(&text);
        }
    }
}
