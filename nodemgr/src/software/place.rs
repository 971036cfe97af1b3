//! Programs and the ledger on disk: `STATE/software/`.
//!
//! ```text
//!   ledger.json            replaced whole; written under `lock`
//!   incoming/DIGEST.part   what has come in so far
//!   DIGEST/program         whole: its digest was right when it was moved here
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::ledger::{Ledger, LedgerError, Program, is_digest};

/// A ledger is a few hundred bytes.
const MAX_LEDGER: u64 = 64 << 10;

/// Why something about a program cannot be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// The disk.
    #[error("{path}: {source}", path = path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The ledger says nothing.
    #[error("{path}: {source}", path = path.display())]
    Ledger {
        path: PathBuf,
        #[source]
        source: LedgerError,
    },
    /// Not a name of a program.
    #[error("{0:?} is no SHA-256")]
    Digest(String),
    /// A hole, or bytes again.
    #[error("bytes come from {got} on, expected {expected}")]
    Offset { got: u64, expected: u64 },
    /// More than was announced.
    #[error("{got} bytes came, {expected} were announced")]
    TooLong { got: u64, expected: u64 },
    /// Other bytes than those that were signed.
    #[error("the program's SHA-256 is {got}, expected {expected}: it was thrown away")]
    Wrong { got: String, expected: String },
}

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    dir: PathBuf,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> PlaceError + '_ {
    move |source| PlaceError::Io {
        path: path.to_owned(),
        source,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn folder(path: &Path) -> Result<(), PlaceError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn sync(path: &Path) -> Result<(), PlaceError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(at(path))
}

/// SHA-256 of a file, hex, read in pieces.
pub(crate) fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 128 << 10];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&piece[..n]),
        }
    }
}

impl Place {
    /// Below a node manager's state directory.
    pub(crate) fn below(state_dir: &Path) -> Self {
        Self {
            dir: state_dir.join("software"),
        }
    }

    pub(crate) fn exists(&self) -> bool {
        self.dir.is_dir()
    }

    fn ledger_path(&self) -> PathBuf {
        self.dir.join("ledger.json")
    }

    /// Where a program is once it is whole.
    pub(crate) fn program(&self, sha256: &str) -> PathBuf {
        self.dir.join(sha256).join("program")
    }

    fn part(&self, sha256: &str) -> PathBuf {
        self.dir.join("incoming").join(format!("{sha256}.part"))
    }

    /// The ledger; the empty one when there is none.
    pub(crate) fn read(&self) -> Result<Ledger, PlaceError> {
        let path = self.ledger_path();
        let mut text = String::new();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ledger::default()),
            Err(error) => return Err(at(&path)(error)),
        };
        file.take(MAX_LEDGER)
            .read_to_string(&mut text)
            .map_err(at(&path))?;
        Ledger::parse(&text).map_err(|source| PlaceError::Ledger { path, source })
    }

    /// Changes the ledger; it is on the disk when this returns. Launcher, guard and daemon are three processes: a lock
    /// orders them. A ledger that cannot be read is begun anew.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> Result<(T, Ledger), PlaceError> {
        folder(&self.dir)?;
        let path = self.dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(at(&path))?;
        let _lock =
            Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| at(&path)(errno.into()))?;
        let before = self.read();
        let mut ledger = before.as_ref().map(Ledger::clone).unwrap_or_default();
        let done = change(&mut ledger);
        if before.is_ok_and(|before| before == ledger) {
            return Ok((done, ledger));
        }
        let (path, new) = (self.ledger_path(), self.dir.join("ledger.json.new"));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)
            .map_err(at(&new))?;
        file.write_all(ledger.to_text().as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&new, &path))
            .map_err(at(&new))?;
        sync(&self.dir)?;
        Ok((done, ledger))
    }

    /// What is wrong with a program's file.
    pub(crate) fn whole(&self, program: &Program) -> Result<(), String> {
        let path = self.program(&program.sha256);
        match digest(&path) {
            Ok(got) if got == program.sha256 => Ok(()),
            Ok(got) => Err(format!(
                "{} has SHA-256 {got}, expected {}",
                path.display(),
                program.sha256
            )),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// How much of a program is here. What is of no more use gives way.
    pub(crate) fn expect(&self, sha256: &str, size: u64) -> Result<u64, PlaceError> {
        if !is_digest(sha256) {
            return Err(PlaceError::Digest(sha256.chars().take(80).collect()));
        }
        folder(&self.dir)?;
        folder(&self.dir.join("incoming"))?;
        let keep = self.read().unwrap_or_default();
        self.sweep(|name| {
            let of = |program: &Option<Program>| program.as_ref().is_some_and(|p| p.sha256 == name);
            name == sha256 || of(&keep.current) || of(&keep.previous)
        });
        match fs::metadata(self.program(sha256)) {
            Ok(there) if there.len() == size => return Ok(size),
            Ok(_) => drop(fs::remove_dir_all(self.dir.join(sha256))),
            Err(_) => {}
        }
        let part = self.part(sha256);
        match fs::metadata(&part) {
            Ok(there) if there.len() < size => Ok(there.len()),
            Ok(_) => {
                // Whole or too long, and not moved: what came in was wrong, or we died just before.
                fs::remove_file(&part).map_err(at(&part))?;
                Ok(0)
            }
            Err(_) => Ok(0),
        }
    }

    /// Removes programs and parts of programs whose digests are not wanted.
    fn sweep(&self, wanted: impl Fn(&str) -> bool) {
        for dir in [self.dir.clone(), self.dir.join("incoming")] {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let Some(name) = name.to_str().map(|name| name.trim_end_matches(".part")) else {
                    continue;
                };
                if !is_digest(name) || wanted(name) {
                    continue;
                }
                let path = entry.path();
                let removed = match entry.file_type() {
                    Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
                    _ => fs::remove_file(&path),
                };
                if let Err(error) = removed {
                    tracing::warn!(path = %path.display(), %error, "an old program stays");
                }
            }
        }
    }

    /// Takes the next bytes; with the last of them the digest is checked and the program is put into its place.
    pub(crate) fn take(&self, sha256: &str, size: u64, offset: u64, bytes: &[u8]) -> Result<u64, PlaceError> {
        let path = self.part(sha256);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(at(&path))?;
        let here = file.seek(SeekFrom::End(0)).map_err(at(&path))?;
        if here != offset {
            return Err(PlaceError::Offset {
                got: offset,
                expected: here,
            });
        }
        let have = here + bytes.len() as u64;
        if have > size {
            return Err(PlaceError::TooLong {
                got: have,
                expected: size,
            });
        }
        file.write_all(bytes).map_err(at(&path))?;
        if have < size {
            return Ok(have);
        }
        file.sync_all().map_err(at(&path))?;
        let got = digest(&path).map_err(at(&path))?;
        if got != sha256 {
            fs::remove_file(&path).map_err(at(&path))?;
            return Err(PlaceError::Wrong {
                got,
                expected: sha256.into(),
            });
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(at(&path))?;
        let home = self.dir.join(sha256);
        folder(&home)?;
        let program = self.program(sha256);
        fs::rename(&path, &program).map_err(at(&program))?;
        sync(&home)?;
        sync(&self.dir)?;
        Ok(have)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().expect("a folder");
        let place = Place::below(dir.path());
        (dir, place)
    }

    fn sha(bytes: &[u8]) -> String {
        hex(&Sha256::digest(bytes))
    }

    #[test]
    fn a_program_comes_in_pieces_and_goes_on_where_it_stopped() {
        let (_dir, place) = place();
        let name = sha(b"#!/bin/sh\n");
        assert_eq!(place.expect(&name, 10).expect("room"), 0);
        assert_eq!(place.take(&name, 10, 0, b"#!/bi").expect("half"), 5);
        assert_eq!(place.expect(&name, 10).expect("the half"), 5);
        assert!(matches!(
            place.take(&name, 10, 0, b"again"),
            Err(PlaceError::Offset { got: 0, expected: 5 })
        ));
        assert_eq!(place.take(&name, 10, 5, b"n/sh\n").expect("whole"), 10);
        assert_eq!(place.expect(&name, 10).expect("whole"), 10);
        let program = Program {
            sha256: name.clone(),
            version: "1".into(),
        };
        assert_eq!(place.whole(&program), Ok(()));
        let mode = fs::metadata(place.program(&name))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::write(place.program(&name), b"#!/bin/sx\n").expect("damage");
        assert!(place.whole(&program).is_err_and(|why| why.contains("expected")));
    }

    #[test]
    fn other_bytes_than_were_signed_are_thrown_away() {
        let (_dir, place) = place();
        let name = sha(b"right");
        place.expect(&name, 5).expect("room");
        assert!(matches!(
            place.take(&name, 5, 0, b"wrong"),
            Err(PlaceError::Wrong { .. })
        ));
        assert_eq!(place.expect(&name, 5).expect("nothing"), 0);
        assert!(!place.program(&name).exists());
        assert!(matches!(
            place.take(&name, 5, 0, b"too long"),
            Err(PlaceError::TooLong { got: 8, expected: 5 })
        ));
        assert!(matches!(
            place.expect("../../etc/passwd", 5),
            Err(PlaceError::Digest(_))
        ));
    }

    #[test]
    fn what_is_of_no_use_gives_way_and_what_runs_stays() {
        let (_dir, place) = place();
        let (old, new, third) = (sha(b"old"), sha(b"new"), sha(b"thr"));
        for (name, bytes) in [(&old, b"old"), (&new, b"new")] {
            place.expect(name, 3).expect("room");
            place.take(name, 3, 0, bytes).expect("whole");
            let program = Program {
                sha256: name.clone(),
                version: "1".into(),
            };
            let decided = proto::Version::default();
            place
                .change(|ledger| ledger.activate(program, "0", decided, 1))
                .expect("on disk");
        }
        place.expect(&third, 3).expect("room");
        place.take(&third, 3, 0, b"th").expect("half");
        place.expect(&sha(b"4"), 1).expect("room");
        assert!(place.program(&old).exists() && place.program(&new).exists());
        assert!(!place.part(&third).exists(), "another program is expected");
    }

    #[test]
    fn a_ledger_that_cannot_be_read_is_begun_anew() {
        let (_dir, place) = place();
        place.change(|ledger| ledger.attempt = 4).expect("on disk");
        assert_eq!(place.read().expect("own").attempt, 4);
        fs::write(place.ledger_path(), "{").expect("damage");
        assert!(place.read().is_err());
        place.change(|_| ()).expect("anew");
        assert_eq!(place.read().expect("anew"), Ledger::default());
    }
}
