//! The bundle file on this machine: where it lies, that nobody else can read it, and how it is replaced: under another
//! name, fsynced, then renamed, so that a crash leaves the old one or the new one, whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
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
    /// Cannot be put there.
    #[error("bundle {}: cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// An invite where a bundle is needed.
    #[error("{} is an invite, which can only be used to log in", path.display())]
    Invite { path: PathBuf },
    /// An invite that came too late.
    #[error("the invite {} has expired", path.display())]
    InviteEnded { path: PathBuf },
    /// A bundle where an invite is needed.
    #[error("{} is no invite, it speaks for {identity}", path.display())]
    NoInvite { path: PathBuf, identity: String },
    /// Somebody else's, or unreadable, is in the way.
    #[error("{} is in the way: {what}", path.display())]
    InTheWay { path: PathBuf, what: String },
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
                "ask support for an invite (redbutton invite NAME), then redbutton login FILE; or pass --bundle PATH"
                    .to_owned()
            }
            Self::Read { .. } => "make it readable for you alone, or pass --bundle PATH".to_owned(),
            Self::NotAFile { .. } | Self::TooLarge { .. } => "pass --bundle PATH".to_owned(),
            Self::Open { path, .. } => format!("chmod 600 {}", path.display()),
            Self::Theirs { .. } => "pass --bundle PATH with one of your own".to_owned(),
            Self::Malformed { .. } => {
                "ask support for an invite (redbutton invite NAME), then redbutton login FILE".to_owned()
            }
            Self::Write { .. } => "make its directory writable for you, or pass --bundle PATH".to_owned(),
            Self::Invite { path } => format!("redbutton login {}", path.display()),
            Self::InviteEnded { .. } => "ask for another invite (redbutton invite NAME)".to_owned(),
            Self::NoInvite { .. } => "redbutton login without a file renews your certificate".to_owned(),
            Self::InTheWay { .. } => {
                "pass --bundle PATH to keep both, or --force to replace it: its key is gone then".to_owned()
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

/// Puts a bundle at `path`, whatever stands there.
///
/// # Errors
/// What the system said; then what stood there stays.
pub(crate) fn write(path: &Path, bundle: &Bundle) -> Result<(), BundleFileError> {
    write_private(path, &bundle.to_text())
}

/// Puts `new` in the place of `old`, if `old` still stands there: somebody else may have logged in meanwhile.
///
/// # Errors
/// What the system said.
pub(crate) fn replace(path: &Path, old: &Bundle, new: &Bundle) -> Result<(), BundleFileError> {
    let there = read(path)?;
    if there.identity != old.identity || there.key.expose() != old.key.expose() {
        return Ok(());
    }
    write(path, new)
}

/// Puts a private text at `path`: mode 0600 from the first byte on, whole or not at all.
///
/// # Errors
/// What the system said.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), BundleFileError> {
    put(path, text.as_bytes()).map_err(|source| BundleFileError::Write {
        path: path.to_owned(),
        source,
    })
}

/// As [`write_private`], of bytes.
///
/// # Errors
/// What the system said.
pub(crate) fn write_private_bytes(path: &Path, bytes: &[u8]) -> Result<(), BundleFileError> {
    put(path, bytes).map_err(|source| BundleFileError::Write {
        path: path.to_owned(),
        source,
    })
}

fn put(path: &Path, text: &[u8]) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".{name}.{}.new", std::process::id()));
    // Left by an earlier process with our id that crashed; nobody else writes such names.
    let _ = fs::remove_file(&temporary);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(parent)?.sync_all()
    })();
    if written.is_err() {
        // Best effort: the true error is the one above.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Reads a small text that only its owner may read, if it is there.
pub(crate) fn read_private(path: &Path) -> Option<String> {
    trust::read_private(path, Bundle::MAX_BYTES).ok()
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
    fn it_is_replaced_whole_and_private_and_only_by_whoever_knows_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("deep/er/bundle");
        let old = Bundle::parse(&text()).expect("a bundle");
        write(&path, &old).expect("written");
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o600
        );
        let parent = path.parent().expect("a parent");
        assert_eq!(
            fs::metadata(parent).expect("there").permissions().mode() & 0o777,
            0o700
        );
        let new = Bundle {
            certificate: "renewed".into(),
            ..old.clone()
        };
        replace(&path, &old, &new).expect("written");
        assert_eq!(read(&path).expect("a bundle").certificate, "renewed");
        // Somebody logged in anew meanwhile: that stays.
        let other = Bundle {
            key: SecretPem::new("another".into()),
            ..old.clone()
        };
        write(&path, &other).expect("written");
        replace(&path, &old, &new).expect("nothing to do");
        assert_eq!(read(&path).expect("a bundle").certificate, "certificate");
        assert_eq!(
            fs::read_dir(parent).expect("there").count(),
            1,
            "nothing is left beside it"
        );
        let error = write(&path.join("below"), &old).expect_err("below a file");
        assert!(error.to_string().contains("cannot be written"), "{error}");
    }

    #[test]
    fn its_place_follows_home() {
        let place = default_path(Some(Path::new("/home/alice"))).expect("a place");
        assert_eq!(place, Path::new("/home/alice/.config/redbutton/bundle"));
        assert!(default_path(None).is_err());
        assert!(default_path(Some(Path::new(""))).is_err());
    }
}
