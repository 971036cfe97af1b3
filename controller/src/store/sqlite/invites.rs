//! Invites and join tokens.

use authz::Grant;
use proto::{DaemonRole, InviteId, NodeId, NodeName, PersonName, Role, SiteName, SliceName};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use trust::Spki;

use super::fault::Fail;
use super::{audit, keys, node_keys, nodes, people, places, row};
use crate::store::{
    Holder, InviteRecord, InviteSelection, InviteUse, InviteUsed, Invitee, KeySelection, NewInvite, NewKey,
    NewNode, NewPerson, Note, StoreError, TieKind,
};

const INVITE: &str = "SELECT id, spki, person, full_name, email, grants, node, node_name, site, is_new, rekey, \
                      created_by, created_at_ms, expires_at_ms, incarnation, used_at_ms, used_spki, voided_at_ms, \
                      voided_why FROM invites";
/// Neither used nor void.
const OPEN: &str = "used_at_ms IS NULL AND voided_at_ms IS NULL";
/// Invites in one list.
const MOST: i64 = 1_000;

pub(super) async fn create(
    conn: &mut SqliteConnection,
    invite: &NewInvite,
    note: Note,
) -> Result<InviteRecord, Fail> {
    let there = sqlx::query(
        "SELECT 1 FROM invites WHERE id = ?1 OR spki = ?2 UNION SELECT 1 FROM keys WHERE spki = ?2",
    )
    .bind(row::blob(invite.id.uuid()))
    .bind(keys::blob(invite.spki))
    .fetch_optional(&mut *conn)
    .await?;
    if there.is_some() {
        return Err(StoreError::exists("invite", &invite.id).into());
    }
    check_there(conn, &invite.invitee).await?;
    let columns = Columns::of(&invite.invitee);
    sqlx::query(
        "INSERT INTO invites (id, spki, person, full_name, email, grants, node, node_name, site, is_new, rekey, \
         created_by, created_at_ms, expires_at_ms, incarnation) \
         SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, incarnation FROM meta",
    )
    .bind(row::blob(invite.id.uuid()))
    .bind(keys::blob(invite.spki))
    .bind(columns.person)
    .bind(columns.full_name)
    .bind(columns.email)
    .bind(columns.grants)
    .bind(columns.node)
    .bind(columns.node_name)
    .bind(columns.site)
    .bind(columns.is_new)
    .bind(columns.rekey)
    .bind(invite.created_by.as_ref().map(ToString::to_string))
    .bind(note.draft.at_ms)
    .bind(invite.expires_at_ms)
    .execute(&mut *conn)
    .await?;
    audit::append(conn, note).await?;
    get(conn, invite.id).await
}

/// What the invite speaks of is there, and what it is to make is not: told now, when somebody can do something
/// about it. Its use checks again.
async fn check_there(conn: &mut SqliteConnection, invitee: &Invitee) -> Result<(), Fail> {
    match invitee {
        Invitee::NewPerson { name, grants, .. } => {
            if people::exists(conn, name).await? {
                return Err(StoreError::exists("person", name).into());
            }
            for grant in grants {
                if let Some(slice) = grant.slice() {
                    places::slice(conn, slice).await?;
                }
                if let Some(site) = grant.site() {
                    places::site(conn, site).await?;
                }
            }
        }
        Invitee::Person { name, .. } => {
            people::get(conn, name).await?;
        }
        Invitee::NewNode { id, name, site } => {
            nodes::check_new(conn, *id, name).await?;
            places::site(conn, site).await?;
        }
        Invitee::Node { id, .. } => {
            nodes::get(conn, *id).await?;
        }
    }
    Ok(())
}

pub(super) async fn get(conn: &mut SqliteConnection, id: InviteId) -> Result<InviteRecord, Fail> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!("{INVITE} WHERE id = ?")))
        .bind(row::blob(id.uuid()))
        .fetch_optional(conn)
        .await?
        .ok_or_else(|| StoreError::not_found("invite", &id))?;
    Ok(record(&found)?)
}

pub(super) async fn open(conn: &mut SqliteConnection, now_ms: i64) -> Result<Vec<InviteRecord>, Fail> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{INVITE} WHERE {OPEN} AND expires_at_ms > ? AND incarnation = (SELECT incarnation FROM meta) \
         ORDER BY created_at_ms, id LIMIT ?"
    )))
    .bind(now_ms)
    .bind(MOST)
    .fetch_all(conn)
    .await?;
    Ok(found.iter().map(record).collect::<sqlx::Result<_>>()?)
}

pub(super) async fn accept(
    conn: &mut SqliteConnection,
    wish: &InviteUse,
    note: Note,
) -> Result<InviteUsed, Fail> {
    let invite = get(conn, wish.id).await?;
    let now = nodes::incarnation(conn).await?;
    let again = judge(&invite, wish, now).map_err(|why| StoreError::unusable("invite", &wish.id, why))?;
    if again {
        // The answer to the first use was lost on its way.
        let key = keys::renew(conn, wish.key, wish.certificate_expires_at_ms, note).await?;
        return Ok(InviteUsed {
            invite,
            key,
            revoked: Vec::new(),
            again,
        });
    }
    let ours = sqlx::query("SELECT 1 FROM invites WHERE spki = ?")
        .bind(keys::blob(wish.key))
        .fetch_optional(&mut *conn)
        .await?;
    if ours.is_some() {
        let why = "it is an invite's own key, which travelled: a key is made where it is used";
        return Err(StoreError::unusable("key", &wish.key, why).into());
    }
    let at_ms = note.draft.at_ms;
    let by = invite.created_by.clone();
    let (holder, tie) = take_in(conn, &invite, at_ms).await?;
    let revoked = match &invite.invitee {
        Invitee::Person {
            name, rekey: true, ..
        } => {
            let which = KeySelection::Person {
                name: name.clone(),
                except: None,
            };
            keys::revoke_rows(conn, &which, "re-keyed", by.as_ref(), at_ms).await?
        }
        Invitee::Node { id, rekey: true, .. } => {
            node_keys::absolve(conn, *id).await?;
            keys::revoke_rows(conn, &KeySelection::Node(*id), "re-keyed", by.as_ref(), at_ms).await?
        }
        _ => Vec::new(),
    };
    let key = NewKey {
        spki: wish.key,
        holder,
        enrolled_by: by.clone(),
        certificate_expires_at_ms: wish.certificate_expires_at_ms,
    };
    let key = keys::insert(conn, &key, at_ms).await?;
    if let (Some((person, kind)), Some(by)) = (tie, &by) {
        people::tie(conn, &person, by, kind, at_ms).await?;
    }
    sqlx::query("UPDATE invites SET used_at_ms = ?, used_spki = ? WHERE id = ?")
        .bind(at_ms)
        .bind(keys::blob(wish.key))
        .bind(row::blob(wish.id.uuid()))
        .execute(&mut *conn)
        .await?;
    audit::append(conn, note).await?;
    Ok(InviteUsed {
        invite: get(conn, wish.id).await?,
        key,
        revoked: revoked.into_iter().map(|key| key.spki).collect(),
        again,
    })
}

/// Whether it may be used: `Ok(true)` when the same key used it before.
fn judge(invite: &InviteRecord, wish: &InviteUse, incarnation: u64) -> Result<bool, &'static str> {
    if invite.spki != wish.shown {
        return Err("it was shown with another key than its own");
    }
    if invite.incarnation != incarnation {
        return Err("it was made before the controller's database was restored: ask for another");
    }
    if invite.voided.is_some() {
        return Err("it was made void: ask for another");
    }
    match &invite.used {
        Some((_, key)) if *key != wish.key => {
            return Err("it was used already, by another key: if that was not you, tell support at once");
        }
        _ => {}
    }
    if invite.expires_at_ms <= wish.now_ms {
        return Err("it has expired: ask for another");
    }
    Ok(invite.used.is_some())
}

/// Makes the person or the node, if that is what the invite is for.
async fn take_in(
    conn: &mut SqliteConnection,
    invite: &InviteRecord,
    at_ms: i64,
) -> Result<(Holder, Option<(PersonName, TieKind)>), Fail> {
    let nodemgr = |id| Holder::Node(id, DaemonRole::NodeManager);
    Ok(match &invite.invitee {
        Invitee::NewPerson {
            name,
            full_name,
            email,
            grants,
        } => {
            let person = NewPerson {
                name: name.clone(),
                full_name: full_name.clone(),
                email: email.clone(),
                grants: grants.clone(),
            };
            people::insert(conn, &person, invite.created_by.as_ref(), at_ms).await?;
            (
                Holder::Person(name.clone()),
                Some((name.clone(), TieKind::Invited)),
            )
        }
        Invitee::Person { name, at_most, .. } => {
            let person = people::get(conn, name).await?;
            if !person.grants.iter().all(|grant| at_most.contains(grant)) {
                let why =
                    "the person has more roles now than its maker could hand out: ask support for another";
                return Err(StoreError::unusable("invite", &invite.id, why).into());
            }
            (
                Holder::Person(name.clone()),
                Some((name.clone(), TieKind::Rekeyed)),
            )
        }
        Invitee::NewNode { id, name, site } => {
            let node = NewNode {
                id: *id,
                name: name.clone(),
                site: site.clone(),
            };
            nodes::insert(conn, &node, at_ms).await?;
            (nodemgr(*id), None)
        }
        Invitee::Node { id, .. } => {
            nodes::get(conn, *id).await?;
            (nodemgr(*id), None)
        }
    })
}

pub(super) async fn make_void(
    conn: &mut SqliteConnection,
    which: &InviteSelection,
    why: &str,
    note: Note,
) -> Result<Vec<InviteId>, Fail> {
    let voided = void_rows(conn, which, why, note.draft.at_ms).await?;
    audit::append(conn, note).await?;
    Ok(voided)
}

pub(super) async fn void_rows(
    conn: &mut SqliteConnection,
    which: &InviteSelection,
    why: &str,
    at_ms: i64,
) -> Result<Vec<InviteId>, Fail> {
    let (column, uuid, name) = match which {
        InviteSelection::Invite(id) => ("id", Some(id.uuid()), None),
        InviteSelection::ForNode(id) => ("node", Some(id.uuid()), None),
        InviteSelection::By(name) => ("created_by", None, Some(name)),
        InviteSelection::For(name) => ("person", None, Some(name)),
    };
    let sql = format!(
        "UPDATE invites SET voided_at_ms = ?1, voided_why = ?2 WHERE {column} = ifnull(?3, ?4) AND {OPEN} RETURNING id"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(at_ms)
        .bind(why.to_owned())
        .bind(uuid.map(row::blob))
        .bind(name.map(ToString::to_string))
        .fetch_all(conn)
        .await?;
    let ids = rows
        .iter()
        .map(|found| row::uuid(found, "id").map(InviteId::from_uuid));
    Ok(ids.collect::<sqlx::Result<_>>()?)
}

/// A grant in JSON: the role's word, slice, site.
type Parts = (String, Option<SliceName>, Option<SiteName>);

fn to_json(grants: &[Grant]) -> String {
    let parts: Vec<(&str, Option<&str>, Option<&str>)> = grants
        .iter()
        .map(|grant| {
            (
                grant.role().as_str(),
                grant.slice().map(SliceName::as_str),
                grant.site().map(SiteName::as_str),
            )
        })
        .collect();
    row::to_json(&parts)
}

fn grants(found: &SqliteRow) -> sqlx::Result<Vec<Grant>> {
    let misfit = |why: String| sqlx::Error::ColumnDecode {
        index: "grants".to_owned(),
        source: why.into(),
    };
    let parts: Vec<Parts> = row::json(found, "grants")?;
    parts
        .into_iter()
        .map(|(word, slice, site)| {
            let role = Role::ALL
                .into_iter()
                .find(|role| role.as_str() == word)
                .ok_or_else(|| misfit(format!("role {word:?} is unknown")))?;
            Grant::from_parts(role, slice, site).map_err(|error| misfit(error.to_string()))
        })
        .collect()
}

/// [`Invitee`] as columns.
#[derive(Default)]
struct Columns {
    person: Option<String>,
    full_name: Option<String>,
    email: Option<String>,
    grants: Option<String>,
    node: Option<Vec<u8>>,
    node_name: Option<String>,
    site: Option<String>,
    is_new: bool,
    rekey: bool,
}

impl Columns {
    fn of(invitee: &Invitee) -> Self {
        let node = |id: &NodeId, name: &NodeName, site: &SiteName| Columns {
            node: Some(row::blob(id.uuid())),
            node_name: Some(name.to_string()),
            site: Some(site.to_string()),
            ..Columns::default()
        };
        match invitee {
            Invitee::NewPerson {
                name,
                full_name,
                email,
                grants,
            } => Columns {
                person: Some(name.to_string()),
                full_name: Some(full_name.clone()),
                email: Some(email.clone()),
                grants: Some(to_json(grants)),
                is_new: true,
                ..Columns::default()
            },
            Invitee::Person { name, at_most, rekey } => Columns {
                person: Some(name.to_string()),
                grants: Some(to_json(at_most)),
                rekey: *rekey,
                ..Columns::default()
            },
            Invitee::NewNode { id, name, site } => Columns {
                is_new: true,
                ..node(id, name, site)
            },
            Invitee::Node {
                id,
                name,
                site,
                rekey,
            } => Columns {
                rekey: *rekey,
                ..node(id, name, site)
            },
        }
    }
}

fn record(found: &SqliteRow) -> sqlx::Result<InviteRecord> {
    let is_new: bool = found.try_get("is_new")?;
    let rekey: bool = found.try_get("rekey")?;
    let person: Option<PersonName> = row::parse_opt(found, "person")?;
    let invitee = match (person, is_new) {
        (Some(name), true) => Invitee::NewPerson {
            name,
            full_name: found.try_get("full_name")?,
            email: found.try_get("email")?,
            grants: grants(found)?,
        },
        (Some(name), false) => Invitee::Person {
            name,
            at_most: grants(found)?,
            rekey,
        },
        (None, is_new) => {
            let id = row::uuid(found, "node").map(NodeId::from_uuid)?;
            let name = row::parse(found, "node_name")?;
            let site = row::parse(found, "site")?;
            if is_new {
                Invitee::NewNode { id, name, site }
            } else {
                Invitee::Node {
                    id,
                    name,
                    site,
                    rekey,
                }
            }
        }
    };
    let used_at_ms: Option<i64> = found.try_get("used_at_ms")?;
    let used_spki: Option<Spki> = keys::spki_opt(found, "used_spki")?;
    let voided_at_ms: Option<i64> = found.try_get("voided_at_ms")?;
    let voided_why: Option<String> = found.try_get("voided_why")?;
    Ok(InviteRecord {
        id: row::uuid(found, "id").map(InviteId::from_uuid)?,
        spki: keys::spki(found, "spki")?,
        invitee,
        created_by: row::parse_opt(found, "created_by")?,
        created_at_ms: found.try_get("created_at_ms")?,
        expires_at_ms: found.try_get("expires_at_ms")?,
        incarnation: row::unsigned(found, "incarnation")?,
        used: used_at_ms.zip(used_spki),
        voided: voided_at_ms.zip(voided_why),
    })
}
