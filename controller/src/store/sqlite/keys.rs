//! Keys: enrolled, renewed, revoked. `invites.rs` lets them in.

use proto::{DaemonRole, NodeId, PersonName};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use trust::Spki;

use super::fault::Fail;
use super::{audit, invites, people, row};
use crate::store::{
    Holder, InviteSelection, KeyRecord, KeySelection, NewKey, NewPerson, Note, PersonRecord, Removed,
    Revoked, StoreError,
};

const KEY: &str = "SELECT spki, person, node, role, enrolled_at_ms, enrolled_by, certificate_expires_at_ms, \
                   last_used_ms, revoked_at_ms, revoked_by, revoked_why FROM keys";

pub(super) fn blob(spki: Spki) -> Vec<u8> {
    spki.as_bytes().to_vec()
}

pub(super) fn spki(found: &SqliteRow, column: &str) -> sqlx::Result<Spki> {
    spki_opt(found, column)?.ok_or_else(|| misfit(column, "no key".to_owned()))
}

pub(super) fn spki_opt(found: &SqliteRow, column: &str) -> sqlx::Result<Option<Spki>> {
    let bytes: Option<&[u8]> = found.try_get(column)?;
    bytes
        .map(|bytes| {
            <[u8; 32]>::try_from(bytes)
                .map(Spki::new)
                .map_err(|_| misfit(column, format!("{} bytes, not 32", bytes.len())))
        })
        .transpose()
}

fn misfit(column: &str, why: String) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: why.into(),
    }
}

async fn find(conn: &mut SqliteConnection, spki: Spki) -> Result<Option<KeyRecord>, Fail> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!("{KEY} WHERE spki = ?")))
        .bind(blob(spki))
        .fetch_optional(conn)
        .await?;
    Ok(found.as_ref().map(record).transpose()?)
}

pub(super) async fn get(conn: &mut SqliteConnection, spki: Spki) -> Result<KeyRecord, Fail> {
    let found = find(conn, spki).await?;
    found.ok_or_else(|| StoreError::not_found("key", &spki).into())
}

pub(super) async fn of(conn: &mut SqliteConnection, holder: &Holder) -> Result<Vec<KeyRecord>, Fail> {
    let (condition, text, id) = match holder {
        Holder::Person(name) => ("person = ?1 AND ?2 IS NULL", name.to_string(), None),
        Holder::Node(id, role) => (
            "node = ?2 AND role = ?1",
            role.as_str().to_owned(),
            Some(row::blob(id.uuid())),
        ),
    };
    let sql = format!("{KEY} WHERE {condition} ORDER BY enrolled_at_ms, spki");
    let found = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(text)
        .bind(id)
        .fetch_all(conn)
        .await?;
    Ok(found.iter().map(record).collect::<sqlx::Result<_>>()?)
}

pub(super) async fn revoked(conn: &mut SqliteConnection, now_ms: i64) -> Result<Vec<KeyRecord>, Fail> {
    let sql = format!(
        "{KEY} WHERE revoked_at_ms IS NOT NULL AND certificate_expires_at_ms > ? ORDER BY revoked_at_ms, spki"
    );
    let found = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(now_ms)
        .fetch_all(conn)
        .await?;
    Ok(found.iter().map(record).collect::<sqlx::Result<_>>()?)
}

pub(super) async fn enrol(conn: &mut SqliteConnection, key: &NewKey, note: Note) -> Result<KeyRecord, Fail> {
    if find(conn, key.spki)
        .await?
        .is_some_and(|there| there.holder == key.holder)
    {
        return renew(conn, key.spki, key.certificate_expires_at_ms, note).await;
    }
    let record = insert(conn, key, note.draft.at_ms).await?;
    audit::append(conn, note).await?;
    Ok(record)
}

/// A key that nobody has had yet.
pub(super) async fn insert(conn: &mut SqliteConnection, key: &NewKey, at_ms: i64) -> Result<KeyRecord, Fail> {
    if let Some(there) = find(conn, key.spki).await? {
        let why = if there.revoked.is_some() {
            "it was revoked: make a new one"
        } else {
            "it is enrolled already: make a new one"
        };
        return Err(StoreError::unusable("key", &key.spki, why).into());
    }
    let (person, node, role) = match &key.holder {
        Holder::Person(name) => (Some(name.to_string()), None, None),
        Holder::Node(id, role) => (None, Some(row::blob(id.uuid())), Some(role.as_str())),
    };
    sqlx::query(
        "INSERT INTO keys (spki, person, node, role, enrolled_at_ms, enrolled_by, certificate_expires_at_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(blob(key.spki))
    .bind(person)
    .bind(node)
    .bind(role)
    .bind(at_ms)
    .bind(key.enrolled_by.as_ref().map(ToString::to_string))
    .bind(key.certificate_expires_at_ms)
    .execute(&mut *conn)
    .await?;
    get(conn, key.spki).await
}

pub(super) async fn renew(
    conn: &mut SqliteConnection,
    spki: Spki,
    certificate_expires_at_ms: i64,
    note: Note,
) -> Result<KeyRecord, Fail> {
    if get(conn, spki).await?.revoked.is_some() {
        return Err(StoreError::unusable("key", &spki, "it was revoked").into());
    }
    sqlx::query(
        "UPDATE keys SET certificate_expires_at_ms = max(certificate_expires_at_ms, ?) WHERE spki = ?",
    )
    .bind(certificate_expires_at_ms)
    .bind(blob(spki))
    .execute(&mut *conn)
    .await?;
    audit::append(conn, note).await?;
    get(conn, spki).await
}

pub(super) async fn revoke(
    conn: &mut SqliteConnection,
    which: &KeySelection,
    why: &str,
    note: Note,
) -> Result<Vec<KeyRecord>, Fail> {
    let by = note.draft.person.clone();
    let revoked = revoke_rows(conn, which, why, by.as_ref(), note.draft.at_ms).await?;
    audit::append(conn, note).await?;
    Ok(revoked)
}

pub(super) async fn revoke_rows(
    conn: &mut SqliteConnection,
    which: &KeySelection,
    why: &str,
    by: Option<&PersonName>,
    at_ms: i64,
) -> Result<Vec<KeyRecord>, Fail> {
    let (condition, bytes, name) = match which {
        KeySelection::Key(spki) => {
            get(conn, *spki).await?;
            ("spki = ?4 AND ?5 IS NULL", Some(blob(*spki)), None)
        }
        KeySelection::Node(id) => ("node = ?4 AND ?5 IS NULL", Some(row::blob(id.uuid())), None),
        KeySelection::Person { name, except } => (
            "person = ?5 AND spki IS NOT ?4",
            except.map(blob),
            Some(name.to_string()),
        ),
    };
    let sql = format!(
        "UPDATE keys SET revoked_at_ms = ?1, revoked_by = ?2, revoked_why = ?3 \
         WHERE {condition} AND revoked_at_ms IS NULL RETURNING spki, person, node, role, enrolled_at_ms, \
         enrolled_by, certificate_expires_at_ms, last_used_ms, revoked_at_ms, revoked_by, revoked_why"
    );
    let found = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(at_ms)
        .bind(by.map(ToString::to_string))
        .bind(why.to_owned())
        .bind(bytes)
        .bind(name)
        .fetch_all(conn)
        .await?;
    Ok(found.iter().map(record).collect::<sqlx::Result<_>>()?)
}

pub(super) async fn touch(conn: &mut SqliteConnection, used: &[(Spki, i64)]) -> Result<(), Fail> {
    for chunk in row::chunks(used) {
        let sql = format!(
            "UPDATE keys SET last_used_ms = v.column2 FROM (VALUES {}) v \
             WHERE keys.spki = v.column1 AND (last_used_ms IS NULL OR last_used_ms < v.column2)",
            row::places(chunk.len(), 2)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (spki, at_ms) in chunk {
            query = query.bind(blob(*spki)).bind(*at_ms);
        }
        query.execute(&mut *conn).await?;
    }
    Ok(())
}

pub(super) async fn remove_person(
    conn: &mut SqliteConnection,
    name: &PersonName,
    why: &str,
    note: Note,
) -> Result<Removed, Fail> {
    people::get(conn, name).await?;
    let (by, at_ms) = (note.draft.person.clone(), note.draft.at_ms);
    people::take_all(conn, name).await?;
    let which = KeySelection::Person {
        name: name.clone(),
        except: None,
    };
    let keys = revoke_rows(conn, &which, why, by.as_ref(), at_ms).await?;
    let mut voided = invites::void_rows(conn, &InviteSelection::By(name.clone()), why, at_ms).await?;
    voided.extend(invites::void_rows(conn, &InviteSelection::For(name.clone()), why, at_ms).await?);
    audit::append(conn, note).await?;
    Ok(Removed {
        person: people::get(conn, name).await?,
        keys: keys.into_iter().map(|key| key.spki).collect(),
        invites: voided,
    })
}

pub(super) async fn create_person(
    conn: &mut SqliteConnection,
    person: &NewPerson,
    key: &NewKey,
    note: Note,
) -> Result<PersonRecord, Fail> {
    people::insert(conn, person, None, note.draft.at_ms).await?;
    insert(conn, key, note.draft.at_ms).await?;
    audit::append(conn, note).await?;
    people::get(conn, &person.name).await
}

pub(super) fn holder(found: &SqliteRow) -> sqlx::Result<Holder> {
    Ok(match row::parse_opt(found, "person")? {
        Some(person) => Holder::Person(person),
        None => {
            let word: &str = found.try_get("role")?;
            let role = Some(DaemonRole::NodeManager)
                .filter(|role| role.as_str() == word)
                .ok_or_else(|| misfit("role", format!("daemon {word:?} is unknown")))?;
            Holder::Node(row::uuid(found, "node").map(NodeId::from_uuid)?, role)
        }
    })
}

fn record(found: &SqliteRow) -> sqlx::Result<KeyRecord> {
    let revoked_at_ms: Option<i64> = found.try_get("revoked_at_ms")?;
    let revoked = match revoked_at_ms {
        Some(at_ms) => Some(Revoked {
            at_ms,
            by: row::parse_opt(found, "revoked_by")?,
            why: found.try_get("revoked_why")?,
        }),
        None => None,
    };
    Ok(KeyRecord {
        spki: spki(found, "spki")?,
        holder: holder(found)?,
        enrolled_at_ms: found.try_get("enrolled_at_ms")?,
        enrolled_by: row::parse_opt(found, "enrolled_by")?,
        certificate_expires_at_ms: found.try_get("certificate_expires_at_ms")?,
        last_used_ms: found.try_get("last_used_ms")?,
        revoked,
    })
}
