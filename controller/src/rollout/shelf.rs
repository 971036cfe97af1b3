//! Programs on the controller's disk: `STATE/software/SHA256`, and `incoming-…` while they come.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::inspect::{InspectError, Inspected, inspect};

/// Largest program.
pub(crate) const MAX_SIZE: u64 = 256 << 20;

/// Why a program is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The disk.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What it is.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// Its size.
    #[error("the program has {got} bytes, expected 1 to {MAX_SIZE}")]
    Size {
        /// Announced, or so far.
        got: u64,
    },
    /// It ended early.
    #[error("{got} bytes of the program came, {expected} were announced")]
    Short {
        /// Came.
        got: u64,
        /// Announced.
        expected: u64,
    },
}

/// The folder.
#[derive(Debug, Clone)]
pub struct Shelf {
    dir: PathBuf,
}

/// A program that comes in. Dropped, it never came.
#[derive(Debug)]
pub(crate) struct Incoming {
    path: PathBuf,
    file: File,
    size: u64,
    have: u64,
}

/// A program that has come in.
#[derive(Debug)]
pub(crate) struct Shelved {
    pub(crate) sha256: String,
    pub(crate) size: u64,
    pub(crate) inspected: Inspected,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ShelfError + '_ {
    move |source| ShelfError::Io {
        path: path.to_owned(),
        source,
    }
}

impl Shelf {
    /// Below a controller's state directory.
    #[must_use]
    pub fn below(state: &Path) -> Self {
        Self {
            dir: state.join("software"),
        }
    }

    /// Where a program is.
    pub(crate) fn path(&self, sha256: &str) -> PathBuf {
        self.dir.join(sha256)
    }

    /// Begins to take a program of this size. Blocking.
    pub(crate) fn begin(&self, size: u64) -> Result<Incoming, ShelfError> {
        if !(1..=MAX_SIZE).contains(&size) {
            return Err(ShelfError::Size { got: size });
        }
        match fs::DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(&self.dir)(error)),
            _ => {}
        }
        let path = self.dir.join(format!("incoming-{}", uuid::Uuid::new_v4()));
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(at(&path))?;
        Ok(Incoming {
            path,
            file,
            size,
            have: 0,
        })
    }

    /// The program is whole: looks at it and puts it into its place. Blocking.
    pub(crate) fn finish(&self, mut incoming: Incoming) -> Result<Shelved, ShelfError> {
        let (got, expected) = (incoming.have, incoming.size);
        if got != expected {
            return Err(ShelfError::Short { got, expected });
        }
        let failed = at(&incoming.path);
        let read = (|| {
            incoming.file.sync_all()?;
            incoming.file.seek(SeekFrom::Start(0))?;
            let sha256 = digest(&mut incoming.file)?;
            incoming.file.seek(SeekFrom::Start(0)).map(|_| sha256)
        })();
        let sha256 = read.map_err(failed)?;
        let inspected = inspect(&incoming.file)?;
        let path = self.path(&sha256);
        fs::rename(&incoming.path, &path).map_err(at(&path))?;
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(at(&self.dir))?;
        Ok(Shelved {
            sha256,
            size: expected,
            inspected,
        })
    }

    /// Takes a file. Blocking.
    pub(crate) fn add_file(&self, path: &Path) -> Result<Shelved, ShelfError> {
        let mut file = File::open(path).map_err(at(path))?;
        let size = file.metadata().map_err(at(path))?.len();
        let mut incoming = self.begin(size)?;
        let mut piece = vec![0; 256 << 10];
        loop {
            match file.read(&mut piece).map_err(at(path))? {
                0 => return self.finish(incoming),
                n => incoming.write(&piece[..n])?,
            }
        }
    }
}

fn digest(file: &mut File) -> io::Result<String> {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    let mut piece = vec![0; 256 << 10];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect()),
            n => hash.update(&piece[..n]),
        }
    }
}

impl Incoming {
    /// The next bytes. Blocking.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ShelfError> {
        self.have += bytes.len() as u64;
        if self.have > self.size {
            return Err(ShelfError::Size { got: self.have });
        }
        self.file.write_all(bytes).map_err(at(&self.path))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // After a rename there is nothing of that name.
        let _ = fs::remove_file(&self.path);
    }
}
