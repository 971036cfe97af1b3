//! Rotation without a gap: a new issuing CA at any time, a new root in steps that cut nobody off.
//!
//! ```text
//!   ca rotate-issuing                     same root: whoever trusts it trusts the new issuing CA
//!   ca root add ─▶ handed out with every renewal (nodes: within half a day) ─▶ ca root switch ─▶ ca root retire
//!                  refused at the switch: who does not trust the new root    refused: who has no certificate below it
//! ```
//! [`step`] is the one way, for root's command line and for an act of two people alike: it looks who would be cut
//! off, refuses and says who, or does it and makes the audit entry.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use time::OffsetDateTime;
use trust::Spki;

use super::{AdminError, files, millis, whose_shell};
use crate::pki::{Authority, AuthorityError, RootView, Stage, View};
use crate::store::{About, Holder, KeyTrust, Note, SqliteStore, Store, StoreError};

/// Names that an answer carries; the rest is counted.
const NAMED: usize = 20;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A new issuing CA below the same root.
    RotateIssuing,
    /// A new root that everybody learns to trust.
    AddRoot,
    /// Issue below the new root.
    SwitchRoot,
    /// Trust the old root no more.
    RetireRoot,
}

impl Step {
    /// Stable: stands in the audit.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Step::RotateIssuing => "ca-rotate-issuing",
            Step::AddRoot => "ca-root-add",
            Step::SwitchRoot => "ca-root-switch",
            Step::RetireRoot => "ca-root-retire",
        }
    }
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// Somebody would be cut off.
    #[error(
        "{step} would cut off {count}: {names}. Each gets the new root with its next renewal (a node: within half a day of attaching); who does not come back is revoked first (redbutton node revoke, redbutton person remove)"
    )]
    CutsOff {
        /// Which step.
        step: &'static str,
        /// How many.
        count: usize,
        /// Who, the first of them.
        names: String,
    },
    /// The certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How many have what a change of roots needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Good keys, and holders without any.
    pub all: usize,
    /// Who does not trust the newest root, or is not known to.
    pub distrusting: Vec<String>,
    /// Who has no certificate below the root that issues, or is not known to.
    pub elsewhere: Vec<String>,
}

/// Pure: who would be cut off. `keyless` have no key here; nothing is known of what they trust.
#[must_use]
pub fn coverage(roots: &[RootView], keys: &[KeyTrust], names: &[String], keyless: &[String]) -> Coverage {
    let issuing = roots.iter().find(|root| root.stage == Stage::Issuing);
    let newest = roots.iter().find(|root| root.stage == Stage::Staged).or(issuing);
    let (Some(issuing), Some(newest)) = (issuing, newest) else {
        return Coverage::default();
    };
    // The first root of all is trusted by whoever was ever let in.
    let alone = roots.len() == 1;
    let mut coverage = Coverage {
        all: keys.len() + keyless.len(),
        ..Coverage::default()
    };
    if alone {
        return coverage;
    }
    for (key, name) in keys.iter().zip(names) {
        let trusts = |root: Spki| key.trusted.as_ref().is_some_and(|t| t.roots.contains(&root));
        let below = |root: Spki| key.trusted.as_ref().is_some_and(|t| t.root == root);
        if !trusts(newest.id) {
            coverage.distrusting.push(name.clone());
        }
        if !below(issuing.id) || !trusts(issuing.id) {
            coverage.elsewhere.push(name.clone());
        }
    }
    coverage.distrusting.extend_from_slice(keyless);
    coverage.elsewhere.extend_from_slice(keyless);
    coverage
}

/// Pure: whether a key can still be used. A person's that ended longer than `grace` ago cannot be renewed: its holder
/// needs an invite, which brings the new root. A node's may be renewed for ever.
fn is_alive(key: &KeyTrust, grace: Duration, now_ms: i64) -> bool {
    let grace = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    match key.holder {
        Holder::Person(_) => key.certificate_expires_at_ms.saturating_add(grace) > now_ms,
        Holder::Node(..) => true,
    }
}

/// Looks at the store. `grace`: how long after its end a person's certificate may be renewed.
///
/// # Errors
/// When it cannot be read.
pub async fn look(
    view: &View,
    store: &dyn Store,
    grace: Duration,
    now: OffsetDateTime,
) -> Result<Coverage, StoreError> {
    let mut keys = store.key_trust().await?;
    keys.retain(|key| is_alive(key, grace, millis(now)));
    let nodes = store.all_nodes().await?;
    let name = |key: &KeyTrust| match &key.holder {
        Holder::Person(name) => format!("person {name}"),
        Holder::Node(id, _) => match nodes.iter().find(|node| node.id == *id) {
            Some(node) => format!("node {}", node.name),
            None => format!("node {id}"),
        },
    };
    let names: Vec<String> = keys.iter().map(name).collect();
    let keyless = if view.is_migrated() {
        store.keyless().await?
    } else {
        Vec::new()
    };
    Ok(coverage(view.roots(), &keys, &names, &keyless))
}

/// Takes a step, or refuses and says who would be cut off. `note` is its audit entry; its detail is completed.
/// `grace`: how long after its end a person's certificate may be renewed ([`crate::config::Keys::renew_grace`]).
///
/// # Errors
/// See [`RotationError`]; then nothing was changed.
pub async fn step(
    authority: &Authority,
    store: &dyn Store,
    step: Step,
    mut note: Note,
    grace: Duration,
    now: OffsetDateTime,
) -> Result<String, RotationError> {
    // Another process may have changed it a moment ago.
    authority.upkeep(now)?;
    let coverage = look(&authority.view(), store, grace, now).await?;
    let cut_off = match step {
        Step::RotateIssuing | Step::AddRoot => &[][..],
        Step::SwitchRoot => &coverage.distrusting,
        Step::RetireRoot => {
            // A staged root that is taken back was never needed by anybody.
            let staged = authority
                .view()
                .roots()
                .iter()
                .any(|root| root.stage == Stage::Staged);
            if staged { &[][..] } else { &coverage.elsewhere }
        }
    };
    if !cut_off.is_empty() {
        return Err(RotationError::CutsOff {
            step: step.as_str(),
            count: cut_off.len(),
            names: shown(cut_off),
        });
    }
    match step {
        Step::RotateIssuing => authority.rotate_issuing(now)?,
        Step::AddRoot => drop(authority.add_root(now)?),
        Step::SwitchRoot => authority.switch_root(now)?,
        Step::RetireRoot => authority.retire_root()?,
    }
    let done = describe(&authority.view());
    if !note.draft.detail.is_empty() {
        note.draft.detail.push_str("; ");
    }
    note.draft.detail.push_str(&done.replace('\n', "; "));
    store.append_audit(note).await?;
    Ok(done)
}

fn shown(names: &[String]) -> String {
    let first = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>();
    match names.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

fn describe(view: &View) -> String {
    let roots = view.roots().iter().map(|root| {
        let id = root.id.to_string();
        format!(
            "root {} {}, good until {}",
            &id[..16],
            root.stage,
            root.expires.date()
        )
    });
    let issuing = format!("issuing CA good until {}", view.ca().expires().date());
    roots.chain([issuing]).collect::<Vec<_>>().join("\n")
}

/// What `ca status` shows.
#[derive(Debug, Clone)]
pub struct Status {
    described: String,
    sealed_by: String,
    coverage: Coverage,
    changing: bool,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            described,
            sealed_by,
            coverage,
            changing,
        } = self;
        writeln!(f, "{described}")?;
        write!(f, "sealed with {sealed_by}")?;
        if *changing {
            for (what, lacking) in [
                ("trust the newest root", &coverage.distrusting),
                (
                    "have a certificate below the root that issues",
                    &coverage.elsewhere,
                ),
            ] {
                let have = coverage.all.saturating_sub(lacking.len());
                write!(f, "\n{have} of {} {what}", coverage.all)?;
                if !lacking.is_empty() {
                    write!(f, "; not: {}", shown(lacking))?;
                }
            }
        }
        Ok(())
    }
}

/// How it stands, for root on the controller's machine.
///
/// # Errors
/// See [`AdminError`].
pub async fn status(dir: &Path, grace: Duration, now: OffsetDateTime) -> Result<Status, AdminError> {
    let view = Authority::open(dir, now)?.view();
    let store = SqliteStore::open(&dir.join(files::DATABASE)).await?;
    let coverage = look(&view, &store, grace, now).await;
    store.close().await?;
    Ok(Status {
        described: describe(&view),
        sealed_by: view.sealed_by().to_string(),
        coverage: coverage?,
        changing: view.roots().len() > 1,
    })
}

/// Takes a step as root on the controller's machine, also while the controller serves.
///
/// # Errors
/// See [`AdminError`].
pub async fn step_offline(
    dir: &Path,
    wish: Step,
    grace: Duration,
    now: OffsetDateTime,
) -> Result<String, AdminError> {
    let authority = Authority::open(dir, now)?;
    let store = SqliteStore::open(&dir.join(files::DATABASE)).await?;
    let done = async {
        let note = Note {
            draft: audit::Draft {
                at_ms: millis(now),
                version: proto::Version {
                    incarnation: store.incarnation().await?,
                    // The serving controller alone knows the epoch.
                    epoch: 0,
                },
                person: None,
                role: None,
                action: wish.as_str().to_owned(),
                target: "controller".to_owned(),
                reason: String::new(),
                evidence: String::new(),
                outcome: audit::Outcome::Done,
                detail: format!("by {}", whose_shell()),
                order: None,
            },
            about: About::default(),
        };
        step(&authority, &store, wish, note, grace, now).await
    }
    .await;
    store.close().await?;
    Ok(done?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Trusted;
    use proptest::prelude::*;
    use proto::NodeId;

    fn root(byte: u8, stage: Stage) -> RootView {
        RootView {
            id: Spki::new([byte; 32]),
            stage,
            certificate: String::new(),
            expires: OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn key(below: u8, trusts: &[u8]) -> KeyTrust {
        KeyTrust {
            spki: Spki::new([9; 32]),
            certificate_expires_at_ms: 0,
            holder: Holder::Node(NodeId::random(), proto::DaemonRole::NodeManager),
            trusted: Some(Trusted {
                root: Spki::new([below; 32]),
                roots: trusts.iter().map(|byte| Spki::new([*byte; 32])).collect(),
            }),
        }
    }

    #[test]
    fn who_lacks_the_new_root_is_named() {
        let unknown = KeyTrust {
            trusted: None,
            ..key(1, &[1])
        };
        let keys = [key(1, &[1, 2]), key(1, &[1]), unknown];
        let names = ["has".to_owned(), "lacks".to_owned(), "unknown".to_owned()];
        let staged = [root(1, Stage::Issuing), root(2, Stage::Staged)];
        let seen = coverage(&staged, &keys, &names, &["person old".to_owned()]);
        assert_eq!(seen.distrusting, ["lacks", "unknown", "person old"]);
        assert_eq!(seen.all, 4);

        let switched = [root(2, Stage::Issuing), root(1, Stage::Retiring)];
        let keys = [key(2, &[1, 2]), key(1, &[1, 2]), key(2, &[2])];
        let names = ["new".to_owned(), "old".to_owned(), "retired".to_owned()];
        assert_eq!(coverage(&switched, &keys, &names, &[]).elsewhere, ["old"]);
        let alone = [root(2, Stage::Issuing)];
        assert_eq!(
            coverage(&alone, &keys, &names, &["person old".to_owned()]).distrusting,
            [""; 0]
        );
    }

    #[test]
    fn a_persons_key_that_can_no_longer_be_renewed_holds_up_nobody() {
        let of = |holder| KeyTrust {
            holder,
            certificate_expires_at_ms: 1_000,
            ..key(1, &[1])
        };
        let person = of(Holder::Person("alice".parse().expect("a name")));
        let grace = Duration::from_secs(1);
        assert!(is_alive(&person, grace, 1_999) && !is_alive(&person, grace, 2_000));
        let node = of(key(1, &[1]).holder);
        assert!(is_alive(&node, grace, i64::MAX));
    }

    proptest! {
        /// Against the plain meaning: after a step that was not refused, everybody can still verify the controller
        /// and be verified by it.
        #[test]
        fn a_step_that_is_not_refused_cuts_nobody_off(
            keys in prop::collection::vec((1_u8..3, prop::collection::vec(1_u8..3, 0..3)), 0..6),
            switched in any::<bool>(),
        ) {
            let keys: Vec<KeyTrust> = keys.iter().map(|(below, trusts)| key(*below, trusts)).collect();
            let names: Vec<String> = (0..keys.len()).map(|n| n.to_string()).collect();
            let roots = if switched {
                [root(2, Stage::Issuing), root(1, Stage::Retiring)]
            } else {
                [root(1, Stage::Issuing), root(2, Stage::Staged)]
            };
            let seen = coverage(&roots, &keys, &names, &[]);
            let new = Spki::new([2; 32]);
            let reaches = keys.iter().all(|key| key.trusted.as_ref().is_some_and(|t| t.roots.contains(&new)));
            let reached = keys.iter().all(|key| key.trusted.as_ref().is_some_and(|t| t.root == new));
            if switched {
                prop_assert_eq!(seen.elsewhere.is_empty(), reaches && reached);
            } else {
                prop_assert_eq!(seen.distrusting.is_empty(), reaches);
            }
        }
    }
}
