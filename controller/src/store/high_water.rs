//! The mark beside the database: the highest (incarnation, epoch) that it was ever allowed to hand out. A database
//! below its mark was put back by somebody without `restore`: it would give out versions a second time, and forget
//! kills.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use proto::Version;

use super::StoreError;

/// Its name, in the database's directory.
pub(crate) const NAME: &str = "high-water";
const FORMAT: &str = "redbutton high-water 1";

/// Where the mark of a database is.
pub(crate) fn beside(database: &Path) -> PathBuf {
    database.with_file_name(NAME)
}

fn failed(path: &Path, error: &io::Error) -> StoreError {
    let (path, message) = (path.to_owned(), error.to_string());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::Full { path, message }
        }
        _ => StoreError::Other { path, message },
    }
}

/// The mark; `None`: none was ever set.
pub(crate) fn read(path: &Path) -> Result<Option<Version>, StoreError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, &error)),
    };
    parse(&text).map(Some).ok_or_else(|| StoreError::Corrupt {
        path: path.to_owned(),
        message: "it is not a high-water mark; compare the audit with its witnesses, then remove it"
            .to_owned(),
    })
}

fn parse(text: &str) -> Option<Version> {
    let mut words = text.trim_end().strip_prefix(FORMAT)?.split(' ').skip(1);
    let version = Version {
        incarnation: words.next()?.parse().ok()?,
        epoch: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(version)
}

/// Raises the mark, durably. It never falls.
pub(crate) fn raise(path: &Path, to: Version) -> Result<(), StoreError> {
    if read(path)?.is_some_and(|now| now >= to) {
        return Ok(());
    }
    let new = path.with_extension("new");
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(format!("{FORMAT} {} {}\n", to.incarnation, to.epoch).as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| failed(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(incarnation: u64, epoch: u64) -> Version {
        Version { incarnation, epoch }
    }

    #[test]
    fn a_mark_rises_and_never_falls() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = beside(&dir.path().join("redbutton.db"));
        assert_eq!(read(&path).expect("none"), None);
        raise(&path, version(1, 1_000)).expect("set");
        raise(&path, version(1, 900)).expect("lower");
        assert_eq!(read(&path).expect("there"), Some(version(1, 1_000)));
        raise(&path, version(2, 1)).expect("another incarnation");
        assert_eq!(read(&path).expect("there"), Some(version(2, 1)));
        fs::write(&path, "redbutton high-water 1 2").expect("cut");
        assert!(matches!(read(&path), Err(StoreError::Corrupt { .. })));
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in "(redbutton high-water 1)?\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
