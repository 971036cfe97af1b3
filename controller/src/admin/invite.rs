//! `invite`: one more key for a person who exists, without asking the controller; how support comes back when all
//! its keys are lost.

use std::fmt;
use std::path::{Path, PathBuf};

use proto::bundle::Bundle;
use proto::{InviteId, PersonName};
use time::{Duration, OffsetDateTime};

use super::issue::Desk;
use super::{AdminError, millis, whose_shell};
use crate::pki::{Ca, create_private};
use crate::store::{About, Invitee, KeyStore, NewInvite, Note, PersonRecord, SqliteStore, Store, StoreError};

/// How long an invite lasts unless said.
pub const INVITE_LIFE: Duration = Duration::days(7);

/// An invite for a person.
#[derive(Debug, Clone)]
pub struct InvitePerson {
    /// The state directory.
    pub dir: PathBuf,
    /// Who; support has created them.
    pub name: PersonName,
    /// Where the invite goes; nothing may stand there.
    pub out: PathBuf,
    /// Where to dial instead of what `init` recorded; empty: as recorded.
    pub addresses: Vec<String>,
    /// How long it lasts; `None`: [`INVITE_LIFE`].
    pub life: Option<Duration>,
    /// Its use revokes their older keys.
    pub rekey: bool,
}

/// What `invite` made.
#[derive(Debug, Clone)]
pub struct InvitedPerson {
    /// For whom.
    pub name: PersonName,
    /// Where it is.
    pub path: PathBuf,
    /// Until when it can be used.
    pub expires: OffsetDateTime,
}

impl fmt::Display for InvitedPerson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, path, expires } = self;
        let path = path.display();
        write!(
            f,
            "{path}: invite of {name}, to be used once until {}: redbutton login {path}",
            expires.date()
        )
    }
}

/// Makes an invite for a person who is there.
///
/// # Errors
/// See [`AdminError`].
pub async fn invite_person(wish: &InvitePerson, now: OffsetDateTime) -> Result<InvitedPerson, AdminError> {
    let desk = Desk::open(&wish.dir, &wish.out).await?;
    let controllers = desk.controllers(&wish.addresses, |recorded| recorded.people)?;
    let person = match desk.store.person(&wish.name).await {
        Err(StoreError::NotFound { .. }) => {
            return Err(AdminError::UnknownPerson {
                name: wish.name.clone(),
            });
        }
        other => other?,
    };
    let about = About::default();
    let note = desk
        .note("invite-person", wish.name.to_string(), String::new(), about, now)
        .await?;
    let life = wish.life.unwrap_or(INVITE_LIFE);
    let made = make(
        &desk.ca,
        &desk.store,
        person,
        wish.rekey,
        controllers,
        life,
        note,
        now,
    )
    .await;
    desk.store.close().await?;
    let (bundle, expires) = made?;
    create_private(&wish.out, &bundle.to_text())?;
    Ok(InvitedPerson {
        name: wish.name.clone(),
        path: wish.out.clone(),
        expires,
    })
}

/// The invite, kept in the store, and the bundle that is it.
#[expect(
    clippy::too_many_arguments,
    reason = "each is one fact of the invite; two callers"
)]
pub(super) async fn make(
    ca: &Ca,
    store: &SqliteStore,
    person: PersonRecord,
    rekey: bool,
    controllers: Vec<String>,
    life: Duration,
    mut note: Note,
    now: OffsetDateTime,
) -> Result<(Bundle, OffsetDateTime), AdminError> {
    let id = InviteId::random();
    let issued = ca.invite(id, life, now)?;
    let expires = issued.expires;
    note.draft.detail = format!("invite {id}, good until {}, by {}", expires.date(), whose_shell());
    let invite = NewInvite {
        id,
        spki: issued.spki()?,
        invitee: Invitee::Person {
            name: person.name.clone(),
            at_most: person.grants,
            rekey,
        },
        created_by: None,
        expires_at_ms: millis(expires),
    };
    store.create_invite(&invite, note).await?;
    let bundle = super::init::bundle(ca, issued, person.name.as_str(), controllers);
    Ok((bundle, expires))
}

/// The invite of a support person that `init` leaves.
pub(super) fn path(dir: &Path, name: &PersonName) -> PathBuf {
    dir.join(super::files::INVITES).join(format!("{name}.invite"))
}
