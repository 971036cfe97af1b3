//! What is renewed, and what has passed, in the state directory. No file here holds a key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use proto::bundle::Bundle;
use serde::{Deserialize, Serialize};

use super::pair::Pair;

/// The renewed certificate and what came with it.
const RENEWED: &str = "credentials.toml";
/// Seconds since 1970 that have passed.
const FLOOR: &str = "clock-floor";
/// Longest file that is read.
const MAX: u64 = 1 << 20;
const FORMAT: u32 = 1;

/// Why a file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system said no.
    #[error("{path}: cannot {what}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Not what we write.
    #[error("{path}: {message}", path = path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

pub(super) fn io_error(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io {
        path: path.to_owned(),
        what,
        source,
    }
}

/// Everything of a bundle but the key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Renewed {
    format: u32,
    identity: String,
    name: String,
    site: String,
    controllers: Vec<String>,
    ca: String,
    certificate: String,
}

impl Renewed {
    /// Over the bundle that it was renewed for. Says why not.
    pub(super) fn over(self, bundle: &Bundle, pair: &Pair) -> Result<Bundle, &'static str> {
        let Self {
            format: _,
            identity,
            name,
            site: _,
            controllers,
            ca,
            certificate,
        } = self;
        if identity != bundle.identity {
            return Err("it speaks for somebody else");
        }
        if controllers.is_empty() {
            return Err("it lists no controller");
        }
        let renewed = Bundle {
            format: Bundle::FORMAT,
            identity,
            name,
            controllers,
            ca,
            certificate,
            key: pair.pem().clone(),
        };
        // TLS checks that certificate and key belong together.
        match link::client_config(&renewed) {
            Ok(_) => Ok(renewed),
            Err(_) => Err("it is for another key"),
        }
    }
}

fn read(path: &Path) -> Result<Option<String>, FileError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, "read")(error)),
        Ok(meta) if meta.len() > MAX => {
            return Err(FileError::Content {
                path: path.to_owned(),
                message: format!("{} bytes, at most {MAX} are read", meta.len()),
            });
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(io_error(path, "read"))
}

pub(super) fn renewed(dir: &Path) -> Result<Option<Renewed>, FileError> {
    let path = dir.join(RENEWED);
    let Some(text) = read(&path)? else {
        return Ok(None);
    };
    let content = |message| FileError::Content {
        path: path.clone(),
        message,
    };
    let renewed: Renewed = toml::from_str(&text).map_err(|error| content(error.message().to_owned()))?;
    if renewed.format != FORMAT {
        let message = format!("format is {}, this program reads {FORMAT}", renewed.format);
        return Err(content(message));
    }
    Ok(Some(renewed))
}

pub(super) fn write_renewed(dir: &Path, bundle: &Bundle, site: &str) -> Result<(), FileError> {
    let renewed = Renewed {
        format: FORMAT,
        identity: bundle.identity.clone(),
        name: bundle.name.clone(),
        site: site.chars().take(64).collect(),
        controllers: bundle.controllers.clone(),
        ca: bundle.ca.clone(),
        certificate: bundle.certificate.clone(),
    };
    let text = toml::to_string(&renewed).expect("texts and a number");
    replace(&dir.join(RENEWED), text.as_bytes())
}

/// 0 when there is none that can be read: then nothing is known to have passed.
pub(super) fn floor(dir: &Path) -> u64 {
    let text = read(&dir.join(FLOOR)).ok().flatten();
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

pub(super) fn write_floor(dir: &Path, seconds: u64) -> Result<(), FileError> {
    replace(&dir.join(FLOOR), format!("{seconds}\n").as_bytes())
}

/// Whole, private and durable, in the place of whatever stands there.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".{name}.new"));
    // Left by a crash; nobody else writes such names.
    let _ = fs::remove_file(&temporary);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = written {
        let _ = fs::remove_file(&temporary);
        return Err(io_error(path, "write")(source));
    }
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error(parent, "sync"))
}

/// A file that is ours alone: `None` when it is not there.
pub(super) fn private(path: &Path) -> Result<Option<String>, FileError> {
    use std::os::unix::fs::MetadataExt;
    let mode = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        meta => meta.map_err(io_error(path, "read"))?.mode() & 0o777,
    };
    if mode & 0o077 != 0 {
        return Err(FileError::Content {
            path: path.to_owned(),
            message: format!("mode is {mode:o}, expected 600: it holds a private key"),
        });
    }
    read(path)
}

pub(super) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path, "remove")(error)),
        _ => Ok(()),
    }
}
