//! Keys that an ssh-agent holds: the two messages of its protocol that we need (draft-miller-ssh-agent §3.5, §3.6).
//! For `ssh-ed25519` the agent signs the bytes as they are, which is what nodes verify.

use std::env;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ed25519_dalek::VerifyingKey;

use crate::key::{Sign, SignError};

/// Largest message of an agent that is read, bytes.
const MAX: usize = 256 << 10;
/// A person may have to touch a token.
const PATIENCE: Duration = Duration::from_secs(30);
const ED25519: &[u8] = b"ssh-ed25519";

/// Why an agent did not help.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// There is none.
    #[error("SSH_AUTH_SOCK is not set: no ssh-agent to ask")]
    None,
    /// It cannot be spoken to.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It said something that is not of its protocol.
    #[error("the agent's answer is malformed")]
    Malformed,
    /// It has no such key.
    #[error("the agent holds no ssh-ed25519 key called {wanted:?}; it has {there}; ssh-add it")]
    NoKey {
        /// A comment, or the hexadecimal digits of the public key.
        wanted: String,
        /// The comments of those that it has.
        there: String,
    },
    /// It said no.
    #[error("the agent refused to sign: it is locked, or the key was not confirmed")]
    Refused,
}

/// One Ed25519 key in an agent.
#[derive(Debug, Clone)]
pub struct Agent {
    socket: PathBuf,
    key: VerifyingKey,
}

impl Agent {
    /// Finds a key in the agent of `SSH_AUTH_SOCK` by its comment, or by its public key in hexadecimal digits.
    ///
    /// # Errors
    /// When there is no agent or no such key.
    pub fn find(wanted: &str) -> Result<Self, AgentError> {
        let socket = env::var_os("SSH_AUTH_SOCK")
            .filter(|path| !path.is_empty())
            .ok_or(AgentError::None)?;
        Self::find_in(Path::new(&socket), wanted)
    }

    /// The same in the agent behind this socket.
    ///
    /// # Errors
    /// As [`Agent::find`].
    pub fn find_in(socket: &Path, wanted: &str) -> Result<Self, AgentError> {
        let keys = identities(&ask(socket, &[11])?).ok_or(AgentError::Malformed)?;
        let fits =
            |key: &VerifyingKey, comment: &str| comment == wanted || hex(key) == wanted.to_ascii_lowercase();
        match keys.iter().find(|(key, comment)| fits(key, comment)) {
            Some((key, _)) => Ok(Self {
                socket: socket.to_owned(),
                key: *key,
            }),
            None => Err(AgentError::NoKey {
                wanted: wanted.chars().take(80).collect(),
                there: match keys.len() {
                    0 => "none of that kind".to_owned(),
                    _ => keys
                        .iter()
                        .map(|(_, comment)| format!("{comment:?}"))
                        .collect::<Vec<_>>()
                        .join(", "),
                },
            }),
        }
    }
}

impl Sign for Agent {
    fn public(&self) -> VerifyingKey {
        self.key
    }

    fn sign(&self, bytes: &[u8]) -> Result<[u8; 64], SignError> {
        let mut message = vec![13];
        put(&mut message, &blob(&self.key));
        put(&mut message, bytes);
        message.extend_from_slice(&[0; 4]);
        let answer = ask(&self.socket, &message)?;
        let signature = signature(&answer)?;
        // What we do not believe ourselves no node will.
        let right = self
            .key
            .verify_strict(bytes, &ed25519_dalek::Signature::from_bytes(&signature));
        right.map_err(|_| AgentError::Malformed)?;
        Ok(signature)
    }
}

fn hex(key: &VerifyingKey) -> String {
    key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn blob(key: &VerifyingKey) -> Vec<u8> {
    let mut blob = Vec::new();
    put(&mut blob, ED25519);
    put(&mut blob, key.as_bytes());
    blob
}

fn put(message: &mut Vec<u8>, string: &[u8]) {
    message.extend_from_slice(&u32::try_from(string.len()).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(string);
}

/// An SSH `string` (RFC 4251 §5), taken from the front.
fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (string, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *rest = after;
    Some(string)
}

/// The Ed25519 keys of an answer to "which keys?", with their comments. Others are passed over.
fn identities(answer: &[u8]) -> Option<Vec<(VerifyingKey, String)>> {
    let mut rest = answer.strip_prefix(&[12])?;
    let (count, after) = rest.split_first_chunk::<4>()?;
    rest = after;
    let mut keys = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let mut blob = take(&mut rest)?;
        let comment = String::from_utf8_lossy(take(&mut rest)?).into_owned();
        if take(&mut blob) != Some(ED25519) {
            continue;
        }
        let public = take(&mut blob).and_then(|public| <&[u8; 32]>::try_from(public).ok());
        if let Some(key) = public.and_then(|public| VerifyingKey::from_bytes(public).ok()) {
            keys.push((key, comment));
        }
    }
    Some(keys)
}

fn signature(answer: &[u8]) -> Result<[u8; 64], AgentError> {
    let Some(mut rest) = answer.strip_prefix(&[14]) else {
        return Err(match answer.first() {
            Some(5) => AgentError::Refused,
            _ => AgentError::Malformed,
        });
    };
    let mut blob = take(&mut rest).ok_or(AgentError::Malformed)?;
    if take(&mut blob) != Some(ED25519) {
        return Err(AgentError::Malformed);
    }
    take(&mut blob)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(AgentError::Malformed)
}

fn ask(socket: &Path, message: &[u8]) -> Result<Vec<u8>, AgentError> {
    let failed = |source| AgentError::Io {
        path: socket.to_owned(),
        source,
    };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut framed = Vec::new();
    put(&mut framed, message);
    stream.write_all(&framed).map_err(failed)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(failed)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX {
        return Err(AgentError::Malformed);
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).map_err(failed)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A real ssh-agent with one key; `None` where OpenSSH is not installed.
    fn agent(dir: &Path) -> Option<(Running, PathBuf)> {
        let socket = dir.join("agent");
        let spawned = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = spawned else {
            println!("skipped: ssh-agent is not installed");
            return None;
        };
        let running = Running(child);
        let end = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < end, "ssh-agent does not listen");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "pod of alice", "-f"])
            .arg(dir.join("key"))
            .status()
            .expect("ssh-keygen");
        assert!(made.success());
        let added = Command::new("ssh-add")
            .arg("-q")
            .arg(dir.join("key"))
            .env("SSH_AUTH_SOCK", &socket)
            .status()
            .expect("ssh-add");
        assert!(added.success());
        Some((running, socket))
    }

    #[test]
    fn a_real_agent_signs_what_nodes_verify() {
        let dir = tempfile::tempdir().expect("a directory");
        let Some((_running, socket)) = agent(dir.path()) else {
            return;
        };
        let agent = Agent::find_in(&socket, "pod of alice").expect("found");
        let signed = agent.sign(b"bytes").expect("signed");
        assert!(
            agent
                .public()
                .verify_strict(b"bytes", &ed25519_dalek::Signature::from_bytes(&signed))
                .is_ok()
        );
        Agent::find_in(&socket, &hex(&agent.public())).expect("found by its digits");
        let error = Agent::find_in(&socket, "bob")
            .expect_err("no such key")
            .to_string();
        assert!(
            error.contains("\"bob\"") && error.contains("\"pod of alice\""),
            "{error}"
        );
        let gone = Command::new("ssh-add")
            .arg("-q")
            .arg("-D")
            .env("SSH_AUTH_SOCK", &socket)
            .status();
        assert!(gone.expect("ssh-add").success());
        let error = agent.sign(b"bytes").expect_err("removed");
        assert!(
            matches!(error, SignError::Agent(AgentError::Refused)),
            "{error:?}"
        );
    }

    proptest::proptest! {
        #[test]
        fn reading_answers_never_panics(answer in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120)) {
            let _ = identities(&answer);
            let _ = signature(&answer);
        }

        #[test]
        fn reading_keys_never_panics(rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120)) {
            let mut answer = vec![12, 0, 0, 0, 2];
            answer.extend(rest);
            let _ = identities(&answer);
        }
    }
}
