//! Where the sealing key comes from.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroize;

use super::{ID, SealError, Secret, hex};
use crate::admin::files;
use crate::pki::{FileError, create_private};

/// The systemd credential's name.
pub const CREDENTIAL: &str = "redbutton-seal";
/// Bytes of a key that we make.
const MADE: usize = 32;
/// Fewer bytes than this could be guessed; more than that are no key.
const RANGE: std::ops::RangeInclusive<usize> = 32..=4_096;

/// Where a sealing key was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A systemd credential.
    Credential(PathBuf),
    /// A file of mode 0600 beside what it seals.
    File(PathBuf),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::Credential(path) => {
                write!(f, "the systemd credential {CREDENTIAL} ({})", path.display())
            }
            KeySource::File(path) => write!(
                f,
                "the file {}, mode 0600: whoever copies the whole directory has it as well",
                path.display()
            ),
        }
    }
}

/// A key that seals. Prints nothing of itself.
pub struct SealingKey {
    bytes: Secret,
    source: KeySource,
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes: _, source } = self;
        f.debug_struct("SealingKey")
            .field("source", source)
            .finish_non_exhaustive()
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl SealingKey {
    /// The keys that there are for a state directory, the credential first. `credentials` is
    /// `$CREDENTIALS_DIRECTORY`.
    ///
    /// # Errors
    /// When one is there and cannot be used.
    pub fn find(dir: &Path, credentials: Option<&OsStr>) -> Result<Vec<Self>, SealError> {
        let mut found = Vec::new();
        if let Some(credentials) = credentials {
            let path = Path::new(credentials).join(CREDENTIAL);
            if let Some(bytes) = read(&path, false)? {
                found.push(Self::of_bytes(bytes.expose(), KeySource::Credential(path))?);
            }
        }
        let path = dir.join(files::SEAL_KEY);
        if let Some(text) = read(&path, true)? {
            let bytes = unhex(text.expose()).ok_or_else(|| SealError::Key {
                path: path.clone(),
                message: "not 64 hexadecimal digits".to_owned(),
            })?;
            found.push(Self::of_bytes(bytes.expose(), KeySource::File(path))?);
        }
        Ok(found)
    }

    /// The key to seal a state directory with: the credential, or else its file, made if need be.
    ///
    /// # Errors
    /// When one is there and cannot be used, or none can be made.
    pub fn find_or_make(dir: &Path, credentials: Option<&OsStr>) -> Result<Self, SealError> {
        if let Some(found) = Self::find(dir, credentials)?.into_iter().next() {
            return Ok(found);
        }
        let mut bytes = [0_u8; MADE];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SealError::Crypto)?;
        let path = dir.join(files::SEAL_KEY);
        let mut text = hex(&bytes);
        text.push('\n');
        let made = create_private(&path, &text);
        text.zeroize();
        made?;
        let key = Self::of_bytes(&bytes, KeySource::File(path));
        bytes.zeroize();
        key
    }

    /// Takes a key.
    ///
    /// # Errors
    /// When it is too short to be one.
    pub fn of_bytes(bytes: &[u8], source: KeySource) -> Result<Self, SealError> {
        if !RANGE.contains(&bytes.len()) {
            let (KeySource::Credential(path) | KeySource::File(path)) = source;
            return Err(SealError::Key {
                path,
                message: format!(
                    "{} bytes, a key has {} to {}",
                    bytes.len(),
                    RANGE.start(),
                    RANGE.end()
                ),
            });
        }
        Ok(Self {
            bytes: Secret::new(bytes.to_vec()),
            source,
        })
    }

    /// Where it was found.
    #[must_use]
    pub const fn source(&self) -> &KeySource {
        &self.source
    }

    /// What it is known by.
    #[must_use]
    pub fn id(&self) -> [u8; ID] {
        let mut id = [0; ID];
        id.copy_from_slice(self.derive("redbutton seal v1: key id", ID).expose());
        id
    }

    pub(super) fn cipher_key(&self) -> Secret {
        self.derive("redbutton seal v1: aes-256-gcm", 32)
    }

    fn derive(&self, label: &str, length: usize) -> Secret {
        let mut out = vec![0; length];
        let pseudo = Salt::new(HKDF_SHA256, b"redbutton seal v1").extract(self.bytes.expose());
        let label = [label.as_bytes()];
        pseudo
            .expand(&label, Length(length))
            .and_then(|key| key.fill(&mut out))
            .expect("HKDF gives up to 8,160 bytes");
        Secret::new(out)
    }
}

/// `None`: not there. Ours must be ours alone; systemd sees to its own.
fn read(path: &Path, private: bool) -> Result<Option<Secret>, SealError> {
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(FileError::io(path, "read"))?,
    };
    let mode = meta.mode() & 0o777;
    if private && mode & 0o077 != 0 {
        return Err(SealError::Key {
            path: path.to_owned(),
            message: format!("mode is {mode:o}, expected 600: it opens every secret of the controller"),
        });
    }
    let bytes = fs::read(path).map_err(FileError::io(path, "read"))?;
    Ok(Some(Secret::new(bytes)))
}

fn unhex(text: &[u8]) -> Option<Secret> {
    let text = text.trim_ascii();
    if text.len() != 2 * MADE {
        return None;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut bytes = Vec::with_capacity(MADE);
    for pair in text.chunks(2) {
        let [high, low] = pair else { return None };
        bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
    }
    Some(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_private_and_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(SealingKey::find(dir.path(), None).expect("none").is_empty());
        let made = SealingKey::find_or_make(dir.path(), None).expect("made");
        let again = SealingKey::find_or_make(dir.path(), None).expect("found");
        assert_eq!(made.id(), again.id());
        let path = dir.path().join(files::SEAL_KEY);
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o600
        );
        assert!(made.source().to_string().contains("mode 0600"));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("ours");
        let error = SealingKey::find(dir.path(), None)
            .expect_err("readable")
            .to_string();
        assert!(error.contains("mode is 640, expected 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        fs::write(&path, "deadbeef, very secret").expect("ours");
        let error = SealingKey::find(dir.path(), None).expect_err("no key");
        assert!(!format!("{error} {error:?}").contains("dead"), "{error:?}");
    }

    #[test]
    fn a_credential_goes_before_the_file_and_says_so() {
        let (dir, credentials) = (
            tempfile::tempdir().expect("a directory"),
            tempfile::tempdir().expect("a directory"),
        );
        SealingKey::find_or_make(dir.path(), None).expect("made");
        let from = Some(credentials.path().as_os_str());
        assert!(matches!(
            SealingKey::find_or_make(dir.path(), from)
                .expect("found")
                .source(),
            KeySource::File(_)
        ));
        fs::write(credentials.path().join(CREDENTIAL), [7; 32]).expect("written");
        let found = SealingKey::find(dir.path(), from).expect("both");
        assert_eq!(found.len(), 2);
        assert!(found[0].source().to_string().contains("systemd credential"));
        assert!(!dir.path().join("x").exists());
        fs::write(credentials.path().join(CREDENTIAL), "short").expect("written");
        let error = SealingKey::find(dir.path(), from)
            .expect_err("too short")
            .to_string();
        assert!(error.contains("5 bytes, a key has 32 to 4096"), "{error}");
    }
}
