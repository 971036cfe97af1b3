//! `backup`: a copy of the database while the controller serves; the secrets apart from it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use proto::Version;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{RecoveryError, io};
use crate::admin::files;
use crate::pki::{create_private, sync_directory};
use crate::recovery::restore::system_note;
use crate::store::{SqliteStore, Store};

/// What to copy where.
#[derive(Debug, Clone)]
pub struct Backup {
    /// The state directory.
    pub dir: PathBuf,
    /// The copy of the database; nothing may stand there.
    pub out: PathBuf,
    /// The copy of keys and certificates; nothing may stand there. `None`: they are not copied.
    pub secrets: Option<PathBuf>,
}

/// What was copied.
#[derive(Debug, Clone)]
pub struct BackedUp {
    /// The copy.
    pub out: PathBuf,
    /// As of this version.
    pub version: Version,
    /// The end of its audit. Keep it: it is a witness.
    pub head: audit::Head,
    /// Names of the files in the secrets' copy.
    pub secrets: Vec<String>,
}

impl fmt::Display for BackedUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: the database as of {}", self.out.display(), self.version)?;
        writeln!(f, "its audit ends at {} (keep it, it is a witness)", self.head)?;
        if self.secrets.is_empty() {
            write!(
                f,
                "without keys and certificates: --secrets FILE copies those, to another place"
            )
        } else {
            write!(f, "secrets: {}", self.secrets.join(", "))
        }
    }
}

/// Keys and certificates of a state directory, in one file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secrets {
    pub(super) format: u32,
    pub(super) files: BTreeMap<String, String>,
}

impl Secrets {
    pub(super) const FORMAT: u32 = 1;

    /// What a secrets file may bring: plain names of the kinds that `init` makes.
    pub(super) fn is_one(name: &str) -> bool {
        let plain = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
        let kind = [".pem", ".key", ".toml", ".sealed"];
        plain && !name.starts_with('.') && kind.iter().any(|end| name.ends_with(end))
    }
}

/// Copies a controller.
///
/// # Errors
/// See [`RecoveryError`]; then nothing stands at `out`.
pub async fn backup(wish: &Backup, now: OffsetDateTime) -> Result<BackedUp, RecoveryError> {
    for path in [Some(&wish.out), wish.secrets.as_ref()].into_iter().flatten() {
        if path.symlink_metadata().is_ok() {
            return Err(crate::pki::FileError::Exists { path: path.clone() }.into());
        }
    }
    let store = SqliteStore::open(&wish.dir.join(files::DATABASE)).await?;
    let made = copy(&store, wish, now).await;
    store.close().await?;
    made
}

async fn copy(store: &SqliteStore, wish: &Backup, now: OffsetDateTime) -> Result<BackedUp, RecoveryError> {
    let parent = match wish.out.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // A folder of our own: SQLite makes the file with the mode of the umask, and perhaps a journal beside it.
    let folder = tempfile_in(parent)?;
    let part = folder.path.join(files::DATABASE);
    store
        .append_audit(system_note(
            store.handed_out().await?,
            now,
            "backup",
            "controller",
            format!("to {}", wish.out.display()),
        ))
        .await?;
    store.copy_into(&part).await?;
    private(&part)?;
    // What cannot be restored is no backup.
    let copied = SqliteStore::open(&part).await?;
    let checked =
        async { Ok::<_, RecoveryError>((copied.check_whole().await?, copied.handed_out().await?)) }.await;
    copied.close().await?;
    let (head, version) = checked?;
    File::open(&part)
        .and_then(|file| file.sync_all())
        .map_err(io(&part, "sync"))?;
    let secrets = match &wish.secrets {
        None => Vec::new(),
        Some(path) => copy_secrets(&wish.dir, path)?,
    };
    // A link, not a rename: nothing that came meanwhile is overwritten.
    fs::hard_link(&part, &wish.out).map_err(io(&wish.out, "write"))?;
    sync_directory(parent)?;
    Ok(BackedUp {
        out: wish.out.clone(),
        version,
        head,
        secrets,
    })
}

fn copy_secrets(dir: &Path, out: &Path) -> Result<Vec<String>, RecoveryError> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(io(dir, "read"))? {
        let entry = entry.map_err(io(dir, "read"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && Secrets::is_one(&name) {
            let text = fs::read_to_string(entry.path()).map_err(io(&entry.path(), "read"))?;
            found.insert(name, text);
        }
    }
    let names = found.keys().cloned().collect();
    let secrets = Secrets {
        format: Secrets::FORMAT,
        files: found,
    };
    let text = toml::to_string(&secrets).map_err(|_| RecoveryError::Secrets {
        path: out.to_owned(),
        why: "cannot be written as TOML".to_owned(),
    })?;
    create_private(out, &text)?;
    Ok(names)
}

pub(super) fn private(path: &Path) -> Result<(), RecoveryError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(io(path, "make private"))
}

/// A private folder that goes away.
pub(super) struct Folder {
    pub(super) path: PathBuf,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Best effort: what is left is private and under a hidden name.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn tempfile_in(parent: &Path) -> Result<Folder, RecoveryError> {
    use std::os::unix::fs::DirBuilderExt;
    let path = parent.join(format!(".redbutton-backup.{}", std::process::id()));
    // Left by an earlier process with our id that crashed.
    let _ = fs::remove_dir_all(&path);
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .map_err(io(&path, "create"))?;
    Ok(Folder { path })
}
