//! The agent's protocol: draft-ietf-sshm-ssh-agent, two requests of it.
//!
//! What the agent says is bounded and read with checks: the socket is whatever the environment names.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{Key, Kind};

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const FAILURE: u8 = 5;

const ED25519: &[u8] = b"ssh-ed25519";
const P256: &[u8] = b"ecdsa-sha2-nistp256";

/// Longest message, bytes: OpenSSH's own bound.
const MAX: usize = 256 << 10;
/// A person may have to touch a key or answer a question.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// The environment names none.
    #[error("the key is in an ssh-agent and SSH_AUTH_SOCK is not set")]
    NoAgent,
    /// It does not answer.
    #[error("ssh-agent at {}", path.display())]
    Io {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It says what is not in its protocol.
    #[error("ssh-agent answered with {0}")]
    Answer(&'static str),
    /// It does not sign: locked, refused by its human, or without the key.
    #[error("ssh-agent refused to sign")]
    Refused,
    /// Not with this name.
    #[error(
        "ssh-agent has no Ed25519 or P-256 key with the comment or fingerprint {wanted:?}; it has: {there}"
    )]
    NoSuchKey {
        /// What was looked for.
        wanted: String,
        /// The comments of those that would do.
        there: String,
    },
    /// More than one.
    #[error("ssh-agent has several keys with the comment {wanted:?}: name one by its fingerprint")]
    Several {
        /// What was looked for.
        wanted: String,
    },
    /// The bundle's certificate is for another one.
    #[error("ssh-agent does not hold the key of the bundle's certificate")]
    NotThere,
}

/// A connection to the agent.
pub(super) struct Agent {
    path: PathBuf,
    stream: UnixStream,
}

/// A signature as ssh has it.
#[derive(Debug)]
pub(super) struct Signature {
    kind: Vec<u8>,
    blob: Vec<u8>,
}

impl Agent {
    pub(super) fn connect() -> Result<Self, AgentError> {
        let path = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty());
        let path = PathBuf::from(path.ok_or(AgentError::NoAgent)?);
        let connected = UnixStream::connect(&path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => Ok(Self { path, stream }),
            Err(source) => Err(AgentError::Io { path, source }),
        }
    }

    /// Keys of the kinds that we can use.
    pub(super) fn keys(&mut self) -> Result<Vec<Key>, AgentError> {
        let answer = self.ask(&[REQUEST_IDENTITIES])?;
        match answer.split_first() {
            Some((&IDENTITIES_ANSWER, rest)) => {
                identities(rest).ok_or(AgentError::Answer("a broken list of keys"))
            }
            _ => Err(AgentError::Answer("no list of keys")),
        }
    }

    pub(super) fn sign(&mut self, blob: &[u8], message: &[u8]) -> Result<Signature, AgentError> {
        let mut request = vec![SIGN_REQUEST];
        put(&mut request, blob);
        put(&mut request, message);
        request.extend([0; 4]); // No flags: they are RSA's.
        let answer = self.ask(&request)?;
        match answer.split_first() {
            Some((&SIGN_RESPONSE, rest)) => signature(rest).ok_or(AgentError::Answer("a broken signature")),
            Some((&FAILURE, _)) => Err(AgentError::Refused),
            _ => Err(AgentError::Answer("no signature")),
        }
    }

    fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>, AgentError> {
        self.exchange(request).map_err(|source| AgentError::Io {
            path: self.path.clone(),
            source,
        })
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut framed = Vec::with_capacity(request.len() + 4);
        put(&mut framed, request);
        self.stream.write_all(&framed)?;
        let mut len = [0; 4];
        self.stream.read_exact(&mut len)?;
        let len = u32::from_be_bytes(len) as usize;
        if len > MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a message of {len} bytes, at most {MAX} are read"),
            ));
        }
        let mut answer = vec![0; len];
        self.stream.read_exact(&mut answer)?;
        Ok(answer)
    }
}

impl Signature {
    pub(super) fn ed25519(self) -> Result<Vec<u8>, AgentError> {
        if self.kind == ED25519 && self.blob.len() == 64 {
            Ok(self.blob)
        } else {
            Err(AgentError::Answer("a signature of another kind"))
        }
    }

    /// `r` and `s`.
    pub(super) fn p256(&self) -> Result<(Vec<u8>, Vec<u8>), AgentError> {
        let mut rest = self.blob.as_slice();
        let number = |rest: &mut &[u8]| take(rest).filter(|n| n.len() <= 33).map(<[u8]>::to_vec);
        let parts = number(&mut rest).zip(number(&mut rest));
        match parts {
            Some(parts) if self.kind == P256 && rest.is_empty() => Ok(parts),
            _ => Err(AgentError::Answer("a signature of another kind")),
        }
    }
}

/// `SHA256:…` without padding, as OpenSSH prints it.
pub(super) fn fingerprint(blob: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digest = Sha256::digest(blob);
    let mut text = "SHA256:".to_owned();
    for chunk in digest.chunks(3) {
        let mut bits = [0_u8; 4];
        for (to, from) in bits.iter_mut().skip(1).zip(chunk) {
            *to = *from;
        }
        let bits = u32::from_be_bytes(bits);
        for digit in 0..=chunk.len() {
            let at = (bits >> (18 - 6 * digit)) & 0x3f;
            text.push(char::from(DIGITS[at as usize]));
        }
    }
    text
}

fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    to.extend(len.to_be_bytes());
    to.extend_from_slice(bytes);
}

/// A string: its length, then so many bytes.
fn take<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = from.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    let (bytes, rest) = rest.split_at_checked(len)?;
    *from = rest;
    Some(bytes)
}

fn identities(mut from: &[u8]) -> Option<Vec<Key>> {
    let (count, rest) = from.split_first_chunk::<4>()?;
    from = rest;
    let mut keys = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let blob = take(&mut from)?;
        let comment = String::from_utf8_lossy(take(&mut from)?).into_owned();
        if let Some((kind, raw)) = public_key(blob) {
            keys.push(Key {
                kind,
                blob: blob.to_vec(),
                raw,
                comment,
            });
        }
    }
    Some(keys)
}

/// `None`: of another kind, or broken; both are not ours to use.
fn public_key(mut blob: &[u8]) -> Option<(Kind, Vec<u8>)> {
    let kind = take(&mut blob)?;
    if kind == ED25519 {
        let raw = take(&mut blob)?;
        return (blob.is_empty() && raw.len() == 32).then(|| (Kind::Ed25519, raw.to_vec()));
    }
    if kind == P256 {
        let curve = take(&mut blob)?;
        let point = take(&mut blob)?;
        let fits = curve == b"nistp256" && blob.is_empty() && point.len() == 65 && point.first() == Some(&4);
        return fits.then(|| (Kind::P256, point.to_vec()));
    }
    None
}

fn signature(mut from: &[u8]) -> Option<Signature> {
    let mut inner = take(&mut from)?;
    let kind = take(&mut inner)?.to_vec();
    let blob = take(&mut inner)?.to_vec();
    (from.is_empty() && inner.is_empty()).then_some(Signature { kind, blob })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_of_our_kinds_are_found_among_others() {
        let mut ed = Vec::new();
        put(&mut ed, ED25519);
        put(&mut ed, &[7; 32]);
        let mut rsa = Vec::new();
        put(&mut rsa, b"ssh-rsa");
        put(&mut rsa, &[1]);
        let mut list = 2_u32.to_be_bytes().to_vec();
        for (blob, comment) in [(&rsa, "old"), (&ed, "laptop")] {
            put(&mut list, blob);
            put(&mut list, comment.as_bytes());
        }
        let keys = identities(&list).expect("a list");
        assert_eq!(keys.len(), 1);
        assert_eq!(
            (keys[0].comment.as_str(), keys[0].raw.as_slice()),
            ("laptop", &[7; 32][..])
        );
        assert!(identities(&list[..list.len() - 1]).is_none(), "cut off");
    }

    proptest! {
        #[test]
        fn what_an_agent_says_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = identities(&bytes);
            let _ = public_key(&bytes);
            if let Some(signature) = signature(&bytes) {
                let _ = signature.p256();
                let _ = signature.ed25519();
            }
        }
    }
}
