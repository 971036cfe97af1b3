//! `software add`: a program comes onto the shelf, also while the controller serves. Starting a rollout of it stays
//! with people.

use std::fmt;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::{AdminError, files, millis, whose_shell};
use crate::pki::AuthorityError;
use crate::rollout::{Artifact, Shelf};
use crate::store::{About, Note, SqliteStore, Store};

/// What `software add` did.
#[derive(Debug, Clone)]
pub struct Added(Artifact);

impl fmt::Display for Added {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Artifact {
            sha256,
            name,
            version,
            architecture,
            size,
            ..
        } = &self.0;
        let machine = match architecture.as_str() {
            "" => "any machine",
            machine => machine,
        };
        write!(
            f,
            "{name} {version} for {machine}, {size} bytes, is on the shelf: {sha256}\n\
             next: redbutton rollout start --software {sha256} --reason TEXT"
        )
    }
}

/// Takes a program. The same bytes again change nothing.
///
/// # Errors
/// See [`AdminError`].
pub async fn add_software(dir: &Path, file: PathBuf, now: OffsetDateTime) -> Result<Added, AdminError> {
    let database = dir.join(files::DATABASE);
    if !database.exists() {
        return Err(AuthorityError::NoController {
            dir: dir.to_owned(),
            missing: files::DATABASE,
        }
        .into());
    }
    let store = SqliteStore::open(&database).await?;
    let shelf = Shelf::below(dir);
    let shelved = shelf.add_file(&file)?;
    let artifact = Artifact {
        sha256: shelved.sha256,
        name: shelved.inspected.name,
        version: shelved.inspected.version,
        architecture: shelved.inspected.architecture,
        size: shelved.size,
        added_by: whose_shell(),
        added_at_ms: millis(now),
    };
    let incarnation = store.incarnation().await?;
    let epoch = store.reserve_epochs(1).await?.start;
    let note = Note {
        draft: audit::Draft {
            at_ms: millis(now),
            version: proto::Version { incarnation, epoch },
            person: None,
            role: None,
            action: authz::Action::RollOut.as_str().into(),
            target: format!(
                "software {} {} {}",
                artifact.name, artifact.version, artifact.sha256
            ),
            reason: String::new(),
            evidence: String::new(),
            outcome: audit::Outcome::Allowed,
            detail: format!("added by {}", artifact.added_by),
            order: None,
        },
        about: About::default(),
    };
    store.add_software(&artifact, note).await?;
    store.close().await?;
    Ok(Added(artifact))
}
