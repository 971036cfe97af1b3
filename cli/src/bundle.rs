//! The bundle file on this machine: where it lies, and that nobody else can read it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use proto::bundle::{Bundle, BundleError};

/// Larger is no bundle: a few certificates and a key.
const MAX_BYTES: u64 = 256 * 1024;

/// Why the bundle cannot be used. Nothing here quotes the file: it holds a key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleFileError {
    /// `HOME` is not set and no path was given.
    #[error("no bundle: HOME is not set and neither --bundle nor REDBUTTON_BUNDLE is given")]
    NoPlace,
    /// Not there, not readable.
    #[error("bundle {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Not an ordinary file.
    #[error("bundle {} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    /// Others can read the key in it.
    #[error("bundle {} is open to others (mode {mode:04o}): it holds your private key", path.display())]
    Open { path: PathBuf, mode: u32 },
    /// Not a bundle.
    #[error("bundle {} is {bytes} bytes long, at most {MAX_BYTES} are allowed", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    /// Not a bundle.
    #[error("bundle {}", path.display())]
    Malformed { path: PathBuf, source: BundleError },
}

impl BundleFileError {
    /// What to do about it.
    pub(crate) fn next(&self) -> String {
        match self {
            Self::NoPlace => "pass --bundle PATH".to_owned(),
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "ask support for a bundle (redbutton-controller issue person NAME), or pass --bundle PATH"
                    .to_owned()
            }
            Self::Read { .. } => "make it readable for you alone, or pass --bundle PATH".to_owned(),
            Self::NotAFile { .. } | Self::TooLarge { .. } => "pass --bundle PATH".to_owned(),
            Self::Open { path, .. } => format!("chmod 600 {}", path.display()),
            Self::Malformed { .. } => {
                "ask support for a new one (redbutton-controller issue person NAME)".to_owned()
            }
        }
    }
}

/// Where the bundle lies when nobody says: `~/.config/redbutton/bundle`.
pub(crate) fn default_path(home: Option<&Path>) -> Result<PathBuf, BundleFileError> {
    let home = home
        .filter(|home| home.is_absolute())
        .ok_or(BundleFileError::NoPlace)?;
    Ok(home.join(".config/redbutton/bundle"))
}

/// Reads a bundle that only its owner can read.
///
/// # Errors
/// When it is missing, open to others, or no bundle.
pub(crate) fn read(path: &Path) -> Result<Bundle, BundleFileError> {
    let failed = |source| BundleFileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    // The file that is open, not its path: nobody can change it between the look and the reading.
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() {
        return Err(BundleFileError::NotAFile {
            path: path.to_owned(),
        });
    }
    let mode = facts.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(BundleFileError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    if facts.len() > MAX_BYTES {
        return Err(BundleFileError::TooLarge {
            path: path.to_owned(),
            bytes: facts.len(),
        });
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    Bundle::parse(&text).map_err(|source| BundleFileError::Malformed {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use proto::bundle::SecretPem;

    use super::*;

    fn written(mode: u32, text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("bundle");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode set");
        (dir, path)
    }

    fn text() -> String {
        Bundle {
            format: Bundle::FORMAT,
            identity: "redbutton://person/alice".into(),
            name: "alice".into(),
            controllers: vec!["localhost:7443".into()],
            ca: "ca".into(),
            certificate: "certificate".into(),
            key: SecretPem::new("very secret".into()),
        }
        .to_text()
    }

    #[test]
    fn only_its_owner_may_read_it() {
        for mode in [0o600, 0o400, 0o700] {
            let (_dir, path) = written(mode, &text());
            assert_eq!(read(&path).expect("accepted").name, "alice", "{mode:o}");
        }
        for mode in [0o640, 0o604, 0o644, 0o660, 0o601, 0o620] {
            let (_dir, path) = written(mode, &text());
            let error = read(&path).expect_err("refused");
            assert!(
                matches!(error, BundleFileError::Open { mode: got, .. } if got == mode),
                "{error:?}"
            );
            assert_eq!(error.next(), format!("chmod 600 {}", path.display()));
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_the_key_is_not_shown() {
        let (_dir, path) = written(0o600, &text().replace("key = ", "kex = "));
        let error = read(&path).expect_err("unknown field");
        assert!(matches!(error, BundleFileError::Malformed { .. }));
        assert!(!format!("{error} {error:?}").contains("very secret"));
        let (dir, _path) = written(0o600, "");
        assert!(matches!(read(dir.path()), Err(BundleFileError::NotAFile { .. })));
        let missing = read(&dir.path().join("absent")).expect_err("missing");
        assert!(missing.next().contains("ask support"), "{missing:?}");
        let (_dir, path) = written(0o600, &"x".repeat(300_000));
        assert!(matches!(
            read(&path),
            Err(BundleFileError::TooLarge { bytes: 300_000, .. })
        ));
    }

    #[test]
    fn its_place_follows_home() {
        let place = default_path(Some(Path::new("/home/alice"))).expect("a place");
        assert_eq!(place, Path::new("/home/alice/.config/redbutton/bundle"));
        assert!(default_path(None).is_err());
        assert!(default_path(Some(Path::new(""))).is_err());
    }
}
