//! The bundle file on this machine: where it lies, and that nobody else can read it.

use std::io;
use std::path::{Path, PathBuf};

use proto::bundle::{Bundle, BundleError};
use trust::PlaceError;

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
    #[error("bundle {} is longer than {} bytes", path.display(), Bundle::MAX_BYTES)]
    TooLarge { path: PathBuf },
    /// Whoever put it there can change whom we speak to.
    #[error("bundle {} belongs to uid {uid}, not to you", path.display())]
    Theirs { path: PathBuf, uid: u32 },
    /// Not a bundle.
    #[error("bundle {}", path.display())]
    Malformed { path: PathBuf, source: BundleError },
}

impl From<PlaceError> for BundleFileError {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Io { path, source } => Self::Read { path, source },
            PlaceError::Kind { path, .. } => Self::NotAFile { path },
            PlaceError::Owner { path, uid, .. } => Self::Theirs { path, uid },
            PlaceError::Writable { path, mode } | PlaceError::Open { path, mode } => {
                Self::Open { path, mode }
            }
            PlaceError::Large { path, .. } => Self::TooLarge { path },
        }
    }
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
            Self::Theirs { .. } => "pass --bundle PATH with one of your own".to_owned(),
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
    let text = trust::read_private(path, Bundle::MAX_BYTES)?;
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
        assert!(matches!(read(&path), Err(BundleFileError::TooLarge { .. })));
    }

    #[test]
    fn its_place_follows_home() {
        let place = default_path(Some(Path::new("/home/alice"))).expect("a place");
        assert_eq!(place, Path::new("/home/alice/.config/redbutton/bundle"));
        assert!(default_path(None).is_err());
        assert!(default_path(Some(Path::new(""))).is_err());
    }
}
