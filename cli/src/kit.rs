//! What one takes along for the day on which the controller is gone: where the nodes are, and who they are.
//!
//! ```text
//! Kits.Export ─▶ Kit (JSON) ─▶ sealed: Argon2id(passphrase) ─▶ AES-256-GCM ─▶ ~/.config/redbutton/kit, 0600
//! --direct NODE ◀── address, id, roots ◀── opened ◀──────────────────────────────┘
//! ```
//! It holds what its holder may see, no key and, for now, no secret: the place of the POD's secrets is there and
//! empty. It is encrypted all the same, so that it may hold them, and because it lists a fleet's addresses.

mod passphrase;
mod sealed;

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use proto::v1;
use serde::{Deserialize, Serialize};

use crate::args::{Address, Global, NodeRef, with_port};
use crate::bundle;
use crate::failure::Failure;
use crate::out::Out;

pub(crate) use passphrase::Passphrase;
pub(crate) use sealed::SealedError;

/// Version of the plaintext. Raise it when an old reader would misunderstand.
const FORMAT: u32 = 1;
/// Ten thousand nodes take three megabytes.
const MOST: u64 = 32 << 20;

/// A kit, opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kit {
    format: u32,
    /// Whose it is.
    pub(crate) person: String,
    pub(crate) exported_at_ms: i64,
    pub(crate) policy_issued_at_ms: i64,
    /// Roots to trust, PEM.
    roots: String,
    pub(crate) nodes: Vec<KitNode>,
}

/// A node on which the holder may act.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KitNode {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) boot_id: String,
    /// HOST:PORT; empty: not known.
    pub(crate) direct_address: String,
    pub(crate) last_seen_ms: i64,
    /// The secrets of the POD, with a version of their own; nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<serde_json::Value>,
}

/// Why there is no kit to work with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KitError {
    #[error("kit {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("kit {} is open to others (mode {mode:04o})", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("kit {}", path.display())]
    Sealed { path: PathBuf, source: SealedError },
    #[error("kit {} has format {got}, this program reads {FORMAT}", path.display())]
    Format { path: PathBuf, got: u32 },
    #[error("no kit: HOME is not set and --kit is not given")]
    NoPlace,
    #[error("{0}")]
    Passphrase(String),
}

impl KitError {
    /// What to do about it.
    pub(crate) fn next(&self) -> String {
        match self {
            KitError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "redbutton kit export makes one while the controller is there".to_owned()
            }
            KitError::Open { path, .. } => format!("chmod 600 {}", path.display()),
            KitError::Sealed {
                source: SealedError::Wrong,
                ..
            } => "try the passphrase again; --direct NODE@HOST needs no kit".to_owned(),
            KitError::Passphrase(_) => {
                "pass --passphrase-file FILE, or run it on a terminal; --direct NODE@HOST needs no kit"
                    .to_owned()
            }
            KitError::Read { .. } | KitError::Sealed { .. } | KitError::Format { .. } | KitError::NoPlace => {
                "--direct NODE@HOST needs no kit; redbutton kit export makes a new one".to_owned()
            }
        }
    }
}

impl Kit {
    /// Nothing in it yet.
    pub(crate) fn of(person: String) -> Self {
        Self {
            format: FORMAT,
            person,
            ..Self::default()
        }
    }

    /// Adds a part as it came.
    pub(crate) fn add(&mut self, part: v1::KitPart) {
        let v1::KitPart {
            roots,
            policy_issued_at_ms,
            exported_at_ms,
            nodes,
        } = part;
        if !roots.is_empty() {
            self.roots = roots;
        }
        self.policy_issued_at_ms = self.policy_issued_at_ms.max(policy_issued_at_ms);
        self.exported_at_ms = self.exported_at_ms.max(exported_at_ms);
        self.nodes.extend(nodes.into_iter().map(|node| KitNode {
            id: node.id,
            name: node.name,
            site: node.site,
            boot_id: node.boot_id,
            direct_address: node.direct_address,
            last_seen_ms: node.last_seen_ms,
            pod: None,
        }));
    }

    /// The node that people mean.
    pub(crate) fn find(&self, node: &NodeRef) -> Option<&KitNode> {
        let text = node.to_string();
        self.nodes.iter().find(|known| match node {
            NodeRef::Id(_) => known.id == text,
            NodeRef::Name(_) => known.name == text,
        })
    }

    /// Roots to trust, PEM.
    pub(crate) fn roots(&self) -> &str {
        &self.roots
    }
}

impl KitNode {
    /// Where to dial.
    pub(crate) fn address(&self) -> Option<Address> {
        with_port(&self.direct_address).ok()
    }
}

/// Where the kit lies.
pub(crate) fn path(global: &Global) -> Result<PathBuf, KitError> {
    if let Some(path) = &global.kit {
        return Ok(path.clone());
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let bundle = bundle::default_path(home.as_deref()).map_err(|_| KitError::NoPlace)?;
    Ok(bundle.with_file_name("kit"))
}

/// The kit, if there is one and its passphrase can be had.
///
/// # Errors
/// When it is there and cannot be used, or was named and is not there.
pub(crate) fn open_if_there(global: &Global) -> Result<Option<Kit>, Failure> {
    let path = match path(global) {
        Ok(path) => path,
        Err(_) if global.kit.is_none() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if global.kit.is_none() && path.symlink_metadata().is_err() {
        return Ok(None);
    }
    match Passphrase::of(global, "passphrase of the kit: ") {
        Ok(passphrase) => Ok(Some(open(&path, &passphrase)?)),
        // Nobody can be asked: the node's name may do.
        Err(_) if global.kit.is_none() && global.passphrase_file.is_none() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a kit.
pub(crate) fn open(path: &Path, passphrase: &Passphrase) -> Result<Kit, KitError> {
    let failed = |source| KitError::Read {
        path: path.to_owned(),
        source,
    };
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() || facts.len() > MOST {
        return Err(failed(io::Error::other("no regular file of a kit's size")));
    }
    let mode = facts.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KitError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).map_err(failed)?;
    let sealed = |source| KitError::Sealed {
        path: path.to_owned(),
        source,
    };
    let text = sealed::open(&bytes, passphrase).map_err(sealed)?;
    let kit: Kit = serde_json::from_slice(&text).map_err(|_| sealed(SealedError::Malformed))?;
    if kit.format != FORMAT {
        return Err(KitError::Format {
            path: path.to_owned(),
            got: kit.format,
        });
    }
    Ok(kit)
}

/// Puts a kit at `path`, whatever kit stands there.
pub(crate) fn write(path: &Path, kit: &Kit, passphrase: &Passphrase, out: Out) -> Result<(), Failure> {
    let text = serde_json::to_vec(kit).map_err(|e| Failure::Output(e.into()))?;
    let bytes = sealed::seal(&text, passphrase).map_err(|source| KitError::Sealed {
        path: path.to_owned(),
        source,
    })?;
    bundle::write_private_bytes(path, &bytes)?;
    out.note(&format!("the kit is {}", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests;
