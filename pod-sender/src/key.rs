//! Keys that sign packets.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use pod_wire::KeyId;
use sha2::{Digest, Sha256};

use crate::AgentError;

/// How packets name a key.
#[must_use]
pub fn key_id(key: &VerifyingKey) -> KeyId {
    let mut id = [0; 8];
    id.copy_from_slice(&Sha256::digest(key.as_bytes())[..8]);
    id
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The agent that holds the key.
    #[error("ssh-agent")]
    Agent(#[from] AgentError),
}

/// Something that signs: Ed25519, over the bytes as they are.
pub trait Sign {
    /// The key that nodes know.
    fn public(&self) -> VerifyingKey;

    /// A signature.
    ///
    /// # Errors
    /// When the key is held elsewhere and cannot be used now.
    fn sign(&self, bytes: &[u8]) -> Result<[u8; 64], SignError>;
}

/// Why a key file cannot be used. Never shows what it holds.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("POD key {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read it.
    #[error("POD key {path} has mode {mode:o}, expected 600: chmod 600 it", path = path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not PKCS#8 PEM, or not Ed25519.
    #[error("POD key {path} is not an Ed25519 private key in PKCS#8 PEM (openssl genpkey -algorithm ed25519)", path = path.display())]
    Form {
        /// Which.
        path: PathBuf,
    },
}

/// A key in memory. Prints nothing of itself.
pub struct FileKey(SigningKey);

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(key) = self;
        write!(f, "FileKey({:02x?})", key_id(&key.verifying_key()))
    }
}

impl FileKey {
    /// Takes a key that is in memory already.
    #[must_use]
    pub const fn new(key: SigningKey) -> Self {
        Self(key)
    }

    /// Reads a file of mode 0600.
    ///
    /// # Errors
    /// When it is open to others, or holds something else.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let file = |source| KeyError::File {
            path: path.to_owned(),
            source,
        };
        let mode = fs::metadata(path).map_err(file)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Open {
                path: path.to_owned(),
                mode,
            });
        }
        let text = fs::read_to_string(path).map_err(file)?;
        // The parser's words are dropped: they may speak of the key.
        SigningKey::from_pkcs8_pem(&text)
            .map(Self)
            .map_err(|_| KeyError::Form {
                path: path.to_owned(),
            })
    }
}

impl Sign for FileKey {
    fn public(&self) -> VerifyingKey {
        self.0.verifying_key()
    }

    fn sign(&self, bytes: &[u8]) -> Result<[u8; 64], SignError> {
        Ok(self.0.sign(bytes).to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_file_must_be_private_and_a_key() {
        // RFC 8410 §10.3, the example without attributes.
        const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pod.key");
        fs::write(&path, PEM).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        let error = FileKey::load(&path).expect_err("open").to_string();
        assert!(error.contains("mode 644, expected 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        let key = FileKey::load(&path).expect("a key");
        let printed = format!("{key:?}");
        assert!(!printed.contains("d4ee72db"), "{printed}");
        let signed = key.sign(b"x").expect("signed");
        assert!(
            key.public()
                .verify_strict(b"x", &ed25519_dalek::Signature::from_bytes(&signed))
                .is_ok()
        );
        fs::write(&path, "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp").expect("written");
        let error = format!("{:?}", FileKey::load(&path).expect_err("no PEM"));
        assert!(!error.contains("MC4C"), "{error}");
        FileKey::load(&dir.path().join("none")).expect_err("not there");
    }
}
