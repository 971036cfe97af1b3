//! Private files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// Why a file was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Something stands there.
    #[error("{path} exists already and is not overwritten", path = path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// The system said no.
    #[error("{path}: cannot {what}", path = path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What was tried: `write`.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl FileError {
    pub(crate) fn io(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            what,
            source,
        }
    }
}

/// Writes a new file of mode 0600: under another name, fsynced, then linked to its own, then the directory
/// fsynced. A crash leaves the whole file or none, and what stands there already stays.
///
/// # Errors
/// [`FileError::Exists`], or what the system said.
pub fn create_private(path: &Path, text: &str) -> Result<(), FileError> {
    let (parent, temporary) = beside(path);
    let written = write_synced(&temporary, text.as_bytes())
        .map_err(FileError::io(path, "write"))
        .and_then(|()| {
            // A link, not a rename: a rename would put itself in the place of a file that came meanwhile.
            fs::hard_link(&temporary, path).map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => FileError::Exists {
                    path: path.to_owned(),
                },
                _ => FileError::Io {
                    path: path.to_owned(),
                    what: "write",
                    source,
                },
            })
        });
    // Best effort: left behind it is a private file under a hidden name, and the true error is the one above.
    let _ = fs::remove_file(&temporary);
    written?;
    sync_directory(&parent)
}

/// Puts a file of mode 0600 in the place of whatever stands there, as whole as [`create_private`] and as durable.
/// It belongs to whom the directory belongs to, so that root's commands lock no service out.
///
/// # Errors
/// What the system said; then what stood there stands.
pub fn replace_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let (parent, temporary) = beside(path);
    let written = write_synced(&temporary, bytes)
        .and_then(|()| give_to_owner(&parent, &File::open(&temporary)?))
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = written {
        // Best effort: left behind it is a private file under a hidden name, and the true error is this one.
        let _ = fs::remove_file(&temporary);
        return Err(FileError::io(path, "write")(source));
    }
    sync_directory(&parent)
}

/// Gives a file to whom its directory belongs to, where that is somebody else.
pub(crate) fn give_to_owner(dir: &Path, file: &File) -> io::Result<()> {
    let (owner, ours) = (fs::metadata(dir)?, file.metadata()?);
    if (owner.uid(), owner.gid()) == (ours.uid(), ours.gid()) || !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

fn beside(path: &Path) -> (PathBuf, PathBuf) {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".{name}.{}.new", std::process::id()));
    (parent, temporary)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Left by an earlier process with our id that crashed; nobody else writes such names.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the names in a directory durable.
///
/// # Errors
/// What the system said.
pub fn sync_directory(path: &Path) -> Result<(), FileError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(FileError::io(path, "sync"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_private_file_is_whole_private_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ca.key");
        create_private(&path, "one").expect("new");
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o600
        );
        let error = create_private(&path, "two").expect_err("there already");
        assert_eq!(
            error.to_string(),
            format!("{} exists already and is not overwritten", path.display())
        );
        assert_eq!(fs::read_to_string(&path).expect("there"), "one");
        assert_eq!(
            fs::read_dir(dir.path()).expect("there").count(),
            1,
            "nothing else is left behind"
        );
    }

    #[test]
    fn an_error_names_the_file() {
        let error =
            create_private(Path::new("/nonexistent/place/ca.key"), "x").expect_err("no such directory");
        assert_eq!(error.to_string(), "/nonexistent/place/ca.key: cannot write");
    }
}
