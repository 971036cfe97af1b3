//! Who agreed to a restore: files that people make with their own keys (`redbutton sign-restore`).

use std::fs;
use std::path::{Path, PathBuf};

use proto::{PersonName, Role};
use time::OffsetDateTime;
use trust::{RestoreApproval, Roots};

use super::RecoveryError;
use crate::store::Store;

/// The two support people of `store` who agreed to `digest`.
pub(super) async fn two_people(
    files: &[PathBuf],
    digest: &[u8; 32],
    roots: &Roots,
    store: &dyn Store,
    now: OffsetDateTime,
) -> Result<Vec<PersonName>, RecoveryError> {
    let mut people: Vec<PersonName> = Vec::new();
    for path in files {
        let person = check(path, digest, roots, store, now).await?;
        if people.contains(&person) {
            return Err(RecoveryError::Approval {
                path: path.clone(),
                why: format!("{person} has approved already: the second must be another person"),
            });
        }
        people.push(person);
    }
    if people.len() < 2 {
        return Err(RecoveryError::NotTwo {
            why: format!(
                "{} of 2 approvals given: each runs `redbutton sign-restore BACKUP --out FILE`, then --approval FILE here; \
                 where only one is left, --alone with --reason",
                people.len()
            ),
        });
    }
    Ok(people)
}

async fn check(
    path: &Path,
    digest: &[u8; 32],
    roots: &Roots,
    store: &dyn Store,
    now: OffsetDateTime,
) -> Result<PersonName, RecoveryError> {
    let wrong = |why: String| RecoveryError::Approval {
        path: path.to_owned(),
        why,
    };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let approval = RestoreApproval::parse(&text).map_err(|error| wrong(error.to_string()))?;
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    let at = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let person = approval
        .verify(digest, roots, at)
        .map_err(|error| wrong(error.to_string()))?;
    let record = store
        .person(&person)
        .await
        .map_err(|_| wrong(format!("{person} is not in the backup")))?;
    if !record.grants.iter().any(|grant| grant.role() == Role::Support) {
        return Err(wrong(format!("{person} is not support in the backup")));
    }
    Ok(person)
}
