//! Whether a place in the file system can be trusted: the one rim of this crate that looks at files.
//!
//! Symlinks, hard links, pipes in the place of files and every race between looking and opening need somebody who can
//! put something there. So instead of guarding each `open`, a daemon asks once whether anybody can: a directory is our
//! own when it and each one on the way to it, symlinks included, belongs to root or to us, and is writable by nobody
//! else. A sticky directory on the way (`/tmp`) is as good: there nobody moves what is not theirs.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Why a place is not used. Shows nothing of a file's content.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The system said no.
    #[error("{path}: cannot be looked at", path = path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something else stands there.
    #[error("{path} is no {expected}", path = path.display())]
    Kind {
        /// Where.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
    /// Somebody else's.
    #[error("{path} belongs to uid {uid}, expected root or uid {us}: run chown {us} {path}", path = path.display())]
    Owner {
        /// Where.
        path: PathBuf,
        /// Whose.
        uid: u32,
        /// Who we are.
        us: u32,
    },
    /// Others can put and move things there.
    #[error("{path} can be changed by others (mode {mode:04o}): run chmod go-w {path}", path = path.display())]
    Writable {
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Others can read a secret.
    #[error("{path} is open to others (mode {mode:04o}) and holds a private key: run chmod 600 {path}", path = path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Larger than it can be.
    #[error("{path} is larger than {max} bytes", path = path.display())]
    Large {
        /// Where.
        path: PathBuf,
        /// What would do.
        max: u64,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> PlaceError {
    move |source| PlaceError::Io {
        path: path.to_owned(),
        source,
    }
}

fn us() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Whether nobody but root and us can put, move or replace anything in this directory.
///
/// # Errors
/// Names the first place on the way that somebody else could change, and what to do about it.
pub fn own_directory(path: &Path) -> Result<(), PlaceError> {
    let path = std::path::absolute(path).map_err(io_error(path))?;
    // In a user namespace root's things belong to "nobody"; whoever owns the root directory could do anything.
    let root = fs::symlink_metadata("/").map_err(io_error(Path::new("/")))?.uid();
    let mut ahead: VecDeque<OsString> = path
        .components()
        .map(|part| part.as_os_str().to_owned())
        .collect();
    let mut here = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::Normal(_)) => here.push(&part),
            Some(Component::ParentDir) => {
                here.pop();
            }
            Some(Component::RootDir) => here = PathBuf::from("/"),
            _ => continue,
        }
        let found = fs::symlink_metadata(&here).map_err(io_error(&here))?;
        if ![0, root, us()].contains(&found.uid()) {
            return Err(PlaceError::Owner {
                path: here,
                uid: found.uid(),
                us: us(),
            });
        }
        if found.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                let source = io::Error::from_raw_os_error(libc::ELOOP);
                return Err(io_error(&here)(source));
            }
            let target = fs::read_link(&here).map_err(io_error(&here))?;
            for part in target.components().rev() {
                ahead.push_front(part.as_os_str().to_owned());
            }
            here.pop();
            continue;
        }
        if !found.is_dir() {
            return Err(PlaceError::Kind {
                path: here,
                expected: "directory",
            });
        }
        let (mode, last) = (found.mode() & 0o7777, ahead.is_empty());
        if mode & 0o022 != 0 && (last || mode & 0o1000 == 0) {
            return Err(PlaceError::Writable { path: here, mode });
        }
    }
    Ok(())
}

/// Reads a file that holds a secret: an ordinary one, ours or root's, closed to everybody else, at most `max` bytes.
/// Nobody can make us wait (a pipe), nor show us another's file by a name in a directory of theirs.
///
/// # Errors
/// Says what is wrong with it and what to do; shows nothing of it.
pub fn read_private(path: &Path, max: u64) -> Result<String, PlaceError> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(io_error(path))?;
    // The file that is open, not its name: nobody can change it between the look and the reading.
    let found = file.metadata().map_err(io_error(path))?;
    if !found.is_file() {
        return Err(PlaceError::Kind {
            path: path.to_owned(),
            expected: "ordinary file",
        });
    }
    if ![0, us()].contains(&found.uid()) {
        return Err(PlaceError::Owner {
            path: path.to_owned(),
            uid: found.uid(),
            us: us(),
        });
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PlaceError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    let read = file.take(max + 1).read_to_string(&mut text);
    read.map_err(io_error(path))?;
    if text.len() as u64 > max {
        return Err(PlaceError::Large {
            path: path.to_owned(),
            max,
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let inner = dir.path().join("a/state");
        fs::create_dir_all(&inner).expect("made");
        chmod(&dir.path().join("a"), 0o755);
        chmod(&inner, 0o700);
        (dir, inner)
    }

    #[test]
    fn a_directory_that_others_can_change_is_not_ours_nor_one_below_it() {
        let (dir, inner) = place();
        own_directory(&inner).expect("ours alone");
        for mode in [0o770, 0o702, 0o1777] {
            chmod(&inner, mode);
            let error = own_directory(&inner).expect_err("writable by others");
            assert!(error.to_string().contains("chmod go-w"), "{mode:o}: {error}");
        }
        chmod(&inner, 0o700);
        chmod(&dir.path().join("a"), 0o775);
        let error = own_directory(&inner).expect_err("can be moved away by others");
        assert!(
            matches!(&error, PlaceError::Writable { path, .. } if path.ends_with("a")),
            "{error:?}"
        );
        // There nobody moves what is not theirs.
        chmod(&dir.path().join("a"), 0o1777);
        own_directory(&inner).expect("sticky");
    }

    #[test]
    fn symlinks_are_followed_and_looked_at() {
        let (dir, inner) = place();
        let link = dir.path().join("link");
        symlink("a/../a/./state", &link).expect("made");
        own_directory(&link).expect("a link of ours to ours");
        chmod(&inner, 0o777);
        own_directory(&link).expect_err("a link to what is not");
        let round = dir.path().join("round");
        symlink("round", &round).expect("made");
        own_directory(&round).expect_err("a link to itself");
    }

    #[test]
    fn what_belongs_to_others_is_refused_by_owner() {
        if us() != 0 {
            println!("skipped: only root can give something away");
            return;
        }
        let (dir, inner) = place();
        std::os::unix::fs::chown(&inner, Some(4_711), None).expect("root may");
        let error = own_directory(&inner).expect_err("theirs");
        assert!(
            matches!(
                error,
                PlaceError::Owner {
                    uid: 4_711,
                    us: 0,
                    ..
                }
            ),
            "{error:?}"
        );
        std::os::unix::fs::chown(&inner, Some(0), None).expect("root may");
        // Their link in a sticky directory: they can point it elsewhere at any time.
        let link = dir.path().join("link");
        symlink(&inner, &link).expect("made");
        std::os::unix::fs::lchown(&link, Some(4_711), None).expect("root may");
        own_directory(&link).expect_err("their link");
        let key = inner.join("key");
        fs::write(&key, "k").expect("written");
        chmod(&key, 0o600);
        std::os::unix::fs::chown(&key, Some(4_711), None).expect("root may");
        assert!(matches!(read_private(&key, 10), Err(PlaceError::Owner { .. })));
    }

    #[test]
    fn a_private_file_is_ordinary_closed_and_short_and_a_pipe_makes_nobody_wait() {
        let (_dir, inner) = place();
        let key = inner.join("key");
        fs::write(&key, "very secret").expect("written");
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            chmod(&key, mode);
            let read = read_private(&key, 100);
            assert_eq!(read.is_ok(), good, "{mode:o}: {read:?}");
        }
        chmod(&key, 0o600);
        let error = read_private(&key, 5).expect_err("too long");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        let pipe = inner.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("made");
        assert!(matches!(read_private(&pipe, 5), Err(PlaceError::Kind { .. })));
        assert!(matches!(read_private(&inner, 5), Err(PlaceError::Kind { .. })));
        let gone = read_private(&inner.join("gone"), 5).expect_err("not there");
        assert!(gone.to_string().contains("gone"), "{gone}");
    }
}
