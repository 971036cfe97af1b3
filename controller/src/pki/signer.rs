//! The key that makes the controller's statements, on disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use proto::bundle::SecretPem;
use time::OffsetDateTime;
use trust::Signer;

use super::{Ca, FileError, Issued, PkiError, create_private};
use crate::admin::files;

/// Why there is no signer.
#[derive(Debug, thiserror::Error)]
pub enum SignerFileError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// No certificate for it.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// What the files hold.
    #[error("{path}", path = path.display())]
    Signer {
        /// The certificate's.
        path: PathBuf,
        /// What is wrong with it or its key.
        #[source]
        source: trust::SignerError,
    },
}

/// Writes a new signer's files; none may be there.
///
/// # Errors
/// What the system said.
pub fn create_signer(dir: &Path, issued: &Issued) -> Result<(), FileError> {
    // The certificate last: it says that the key is there.
    create_private(&dir.join(files::SIGNER_KEY), issued.key.expose())?;
    create_private(&dir.join(files::SIGNER), &issued.certificate)
}

/// The signer of a state directory. One from before there were statements gets it now.
///
/// # Errors
/// When a file cannot be read or written, or is not what [`create_signer`] writes.
pub fn load_signer(dir: &Path, now: OffsetDateTime) -> Result<Signer, SignerFileError> {
    let path = dir.join(files::SIGNER);
    if matches!(fs::symlink_metadata(&path), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        // A key without a certificate was never used: a crash left it.
        let key = dir.join(files::SIGNER_KEY);
        match fs::remove_file(&key) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FileError::io(&key, "remove")(error).into());
            }
            _ => {}
        }
        let ca = Ca::load(read(dir, files::CA)?, &SecretPem::new(read(dir, files::CA_KEY)?))?;
        create_signer(dir, &ca.signer(now)?)?;
    }
    let key = SecretPem::new(read(dir, files::SIGNER_KEY)?);
    Signer::load(&read(dir, files::SIGNER)?, &key).map_err(|source| SignerFileError::Signer { path, source })
}

fn read(dir: &Path, name: &str) -> Result<String, FileError> {
    let path = dir.join(name);
    fs::read_to_string(&path).map_err(FileError::io(&path, "read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trust::{Kind, Roots, verify};

    #[test]
    fn an_old_state_directory_gets_a_signer_and_keeps_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let now = OffsetDateTime::now_utc();
        let (ca, key) = Ca::generate(now).expect("randomness");
        create_private(&dir.path().join(files::CA), ca.pem()).expect("new");
        create_private(&dir.path().join(files::CA_KEY), key.expose()).expect("new");
        // Left by a crash between the two files.
        create_private(&dir.path().join(files::SIGNER_KEY), "half").expect("new");
        let said = load_signer(dir.path(), now)
            .expect("made")
            .sign(Kind::Policy, b"x".to_vec());
        let again = load_signer(dir.path(), now).expect("read");
        assert_eq!(again.sign(Kind::Policy, b"x".to_vec()), said, "another signer");
        let roots = Roots::from_pem(ca.pem()).expect("the CA");
        assert_eq!(verify(&said, &roots, Kind::Policy), Ok(&b"x"[..]));
        assert!(!format!("{again:?}").contains("PRIVATE"));
    }
}
