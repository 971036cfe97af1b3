//! `issue`: a bundle for a person or a node, also while the controller serves.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::{DaemonRole, Identity, NodeId, NodeName, PersonName, SiteName, Version};
use time::{Duration, OffsetDateTime};

use super::init::bundle;
use super::{Addresses, AdminError, files, millis, whose_shell};
use crate::pki::{Authority, Ca, FileError, Issued, NODE_LIFE, PERSON_LIFE, create_private};
use crate::store::{About, Holder, KeyStore, NewKey, NewNode, Note, SqliteStore, Store, StoreError};

/// A bundle for a person.
#[derive(Debug, Clone)]
pub struct IssuePerson {
    /// The state directory.
    pub dir: PathBuf,
    /// Who; support has created them.
    pub name: PersonName,
    /// Where the bundle goes; nothing may stand there.
    pub out: PathBuf,
    /// Where to dial instead of what `init` recorded; empty: as recorded.
    pub addresses: Vec<String>,
    /// How long it is good; `None`: [`PERSON_LIFE`].
    pub life: Option<Duration>,
}

/// A bundle for a node.
#[derive(Debug, Clone)]
pub struct IssueNode {
    /// The state directory.
    pub dir: PathBuf,
    /// Which; enrolled now if it is new.
    pub name: NodeName,
    /// Where it stands; required for a new one.
    pub site: Option<SiteName>,
    /// Where the bundle goes; nothing may stand there.
    pub out: PathBuf,
    /// Where to dial instead of what `init` recorded; empty: as recorded.
    pub addresses: Vec<String>,
    /// How long it is good; `None`: [`NODE_LIFE`].
    pub life: Option<Duration>,
}

/// What `issue` made.
#[derive(Debug, Clone)]
pub struct IssuedBundle {
    /// Whom it speaks for.
    pub identity: Identity,
    /// Where it is.
    pub path: PathBuf,
    /// Until when it is good.
    pub expires: OffsetDateTime,
    /// The node was enrolled by this.
    pub enrolled: bool,
}

impl fmt::Display for IssuedBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            identity,
            path,
            expires,
            enrolled,
        } = self;
        if *enrolled {
            writeln!(f, "node enrolled")?;
        }
        write!(
            f,
            "{}: bundle of {identity}, good until {}; it holds a private key",
            path.display(),
            expires.date()
        )
    }
}

/// Makes a bundle for a person. Earlier bundles stay good until they end.
///
/// # Errors
/// See [`AdminError`].
pub async fn issue_person(wish: &IssuePerson, now: OffsetDateTime) -> Result<IssuedBundle, AdminError> {
    let desk = Desk::open(&wish.dir, &wish.out).await?;
    let controllers = desk.controllers(&wish.addresses, |recorded| recorded.people)?;
    match desk.store.person(&wish.name).await {
        Err(StoreError::NotFound { .. }) => {
            return Err(AdminError::UnknownPerson {
                name: wish.name.clone(),
            });
        }
        other => other?,
    };
    let issued = desk
        .ca
        .person(&wish.name, wish.life.unwrap_or(PERSON_LIFE), now)?;
    let note = desk
        .note(
            "issue-person",
            wish.name.to_string(),
            until(&issued),
            About::default(),
            now,
        )
        .await?;
    // Enrolled before it is handed out: a key that nobody knows opens nothing.
    let key = NewKey {
        spki: issued.spki()?,
        holder: Holder::Person(wish.name.clone()),
        enrolled_by: None,
        certificate_expires_at_ms: millis(issued.expires),
    };
    desk.store.enrol_key(&key, note).await?;
    desk.hand_out(issued, wish.name.as_str(), controllers, &wish.out, false)
        .await
}

/// Makes a bundle for a node, and enrols it if there is none of this name. Earlier bundles stay good until they
/// end.
///
/// # Errors
/// See [`AdminError`].
pub async fn issue_node(wish: &IssueNode, now: OffsetDateTime) -> Result<IssuedBundle, AdminError> {
    let desk = Desk::open(&wish.dir, &wish.out).await?;
    let controllers = desk.controllers(&wish.addresses, |recorded| recorded.daemons)?;
    let existing = match desk.store.node_by_name(&wish.name).await {
        Err(StoreError::NotFound { .. }) => None,
        other => Some(other?),
    };
    let (id, site) = match (&existing, &wish.site) {
        (Some(node), Some(site)) if node.site != *site => {
            return Err(AdminError::OtherSite {
                name: wish.name.to_string(),
                site: node.site.to_string(),
                got: site.to_string(),
            });
        }
        (Some(node), _) => (node.id, node.site.clone()),
        (None, Some(site)) => (NodeId::random(), site.clone()),
        (None, None) => {
            return Err(AdminError::NoSite {
                name: wish.name.to_string(),
            });
        }
    };
    let issued = desk
        .ca
        .node(id, &wish.name, wish.life.unwrap_or(NODE_LIFE), now)?;
    let about = About {
        slice: None,
        site: Some(site.clone()),
        node: Some(id),
    };
    let note = desk
        .note("issue-node", wish.name.to_string(), until(&issued), about, now)
        .await?;
    let key = NewKey {
        spki: issued.spki()?,
        holder: Holder::Node(id, DaemonRole::NodeManager),
        enrolled_by: None,
        certificate_expires_at_ms: millis(issued.expires),
    };
    let mut key_note = note.clone();
    if existing.is_none() {
        "enrol-key".clone_into(&mut key_note.draft.action);
        desk.store
            .create_node(
                &NewNode {
                    id,
                    name: wish.name.clone(),
                    site,
                },
                note,
            )
            .await?;
    }
    // Enrolled before it is handed out: a key that nobody knows opens nothing.
    desk.store.enrol_key(&key, key_note).await?;
    desk.hand_out(
        issued,
        wish.name.as_str(),
        controllers,
        &wish.out,
        existing.is_none(),
    )
    .await
}

fn until(issued: &Issued) -> String {
    format!(
        "certificate good until {}, by {}",
        issued.expires.date(),
        whose_shell()
    )
}

/// The state directory, opened for issuing.
pub(super) struct Desk {
    dir: PathBuf,
    pub(super) ca: Arc<Ca>,
    pub(super) store: SqliteStore,
}

impl Desk {
    pub(super) async fn open(dir: &Path, out: &Path) -> Result<Self, AdminError> {
        // Looked at first, so that no certificate is made and audited that has nowhere to go.
        if out.symlink_metadata().is_ok() {
            return Err(FileError::Exists { path: out.to_owned() }.into());
        }
        let ca = Authority::open(dir, OffsetDateTime::now_utc())?.ca();
        let store = SqliteStore::open(&dir.join(files::DATABASE)).await?;
        Ok(Self {
            dir: dir.to_owned(),
            ca,
            store,
        })
    }

    pub(super) fn controllers(
        &self,
        given: &[String],
        recorded: impl Fn(Addresses) -> Vec<String>,
    ) -> Result<Vec<String>, AdminError> {
        if given.is_empty() {
            return Ok(recorded(Addresses::load(&self.dir)?));
        }
        Addresses {
            people: given.to_vec(),
            daemons: given.to_vec(),
        }
        .check()?;
        Ok(given.to_vec())
    }

    pub(super) async fn note(
        &self,
        action: &str,
        target: String,
        detail: String,
        about: About,
        now: OffsetDateTime,
    ) -> Result<Note, AdminError> {
        let incarnation = self.store.incarnation().await?;
        let draft = audit::Draft {
            at_ms: millis(now),
            // The serving controller alone knows the epoch.
            version: Version {
                incarnation,
                epoch: 0,
            },
            person: None,
            role: None,
            action: action.to_owned(),
            target,
            reason: String::new(),
            evidence: String::new(),
            outcome: audit::Outcome::Done,
            detail,
            order: None,
        };
        Ok(Note { draft, about })
    }

    async fn hand_out(
        self,
        issued: Issued,
        name: &str,
        controllers: Vec<String>,
        out: &Path,
        enrolled: bool,
    ) -> Result<IssuedBundle, AdminError> {
        let done = IssuedBundle {
            identity: issued.identity.clone(),
            path: out.to_owned(),
            expires: issued.expires,
            enrolled,
        };
        let bundle = bundle(&self.ca, issued, name, controllers);
        self.store.close().await?;
        create_private(out, &bundle.to_text())?;
        Ok(done)
    }
}
