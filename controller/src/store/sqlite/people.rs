//! People and their grants.

use std::collections::HashMap;

use authz::Grant;
use proto::{PersonName, SiteName};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::fault::Fail;
use super::{audit, invites, row};
use crate::store::{
    InviteSelection, NewPerson, Note, Page, PageRequest, PersonRecord, StoreError, Tie, TieKind,
};

pub(super) async fn create(
    conn: &mut SqliteConnection,
    person: &NewPerson,
    note: Note,
) -> Result<PersonRecord, Fail> {
    let (by, at_ms) = (note.draft.person.clone(), note.draft.at_ms);
    insert(conn, person, by.as_ref(), at_ms).await?;
    if let Some(by) = &by {
        tie(conn, &person.name, by, TieKind::Invited, at_ms).await?;
    }
    audit::append(conn, note).await?;
    get(conn, &person.name).await
}

/// The person and their grants.
pub(super) async fn insert(
    conn: &mut SqliteConnection,
    person: &NewPerson,
    by: Option<&PersonName>,
    at_ms: i64,
) -> Result<(), Fail> {
    if exists(conn, &person.name).await? {
        return Err(StoreError::exists("person", &person.name).into());
    }
    sqlx::query("INSERT INTO people (name, full_name, email, created_at_ms) VALUES (?, ?, ?, ?)")
        .bind(person.name.to_string())
        .bind(person.full_name.clone())
        .bind(person.email.clone())
        .bind(at_ms)
        .execute(&mut *conn)
        .await?;
    for grant in &person.grants {
        give(conn, &person.name, grant, by, at_ms).await?;
    }
    Ok(())
}

/// Notes who did what for whom. Nobody is tied to themselves.
pub(super) async fn tie(
    conn: &mut SqliteConnection,
    person: &PersonName,
    by: &PersonName,
    kind: TieKind,
    at_ms: i64,
) -> Result<(), Fail> {
    if person == by {
        return Ok(());
    }
    sqlx::query("INSERT INTO ties (person, by, kind, at_ms) VALUES (?, ?, ?, ?)")
        .bind(person.to_string())
        .bind(by.to_string())
        .bind(kind.as_str())
        .bind(at_ms)
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn ties(
    conn: &mut SqliteConnection,
    a: &PersonName,
    b: &PersonName,
    since_ms: i64,
) -> Result<Vec<Tie>, Fail> {
    let found = sqlx::query(
        "SELECT person, by, kind, at_ms FROM ties \
         WHERE ((person = ?1 AND by = ?2) OR (person = ?2 AND by = ?1)) AND at_ms >= ?3 \
         ORDER BY at_ms DESC, rowid DESC LIMIT ?4",
    )
    .bind(a.to_string())
    .bind(b.to_string())
    .bind(since_ms)
    .bind(i64::from(PageRequest::MAX))
    .fetch_all(conn)
    .await?;
    let read = |found: &SqliteRow| {
        let word: &str = found.try_get("kind")?;
        let kind = [TieKind::Invited, TieKind::Promoted, TieKind::Rekeyed]
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| sqlx::Error::ColumnDecode {
                index: "kind".to_owned(),
                source: format!("tie {word:?} is unknown").into(),
            })?;
        Ok(Tie {
            person: row::parse(found, "person")?,
            by: row::parse(found, "by")?,
            kind,
            at_ms: found.try_get("at_ms")?,
        })
    };
    Ok(found.iter().map(read).collect::<sqlx::Result<_>>()?)
}

pub(super) async fn get(conn: &mut SqliteConnection, name: &PersonName) -> Result<PersonRecord, Fail> {
    let found = sqlx::query("SELECT name, full_name, email, created_at_ms FROM people WHERE name = ?")
        .bind(name.to_string())
        .fetch_all(&mut *conn)
        .await?;
    with_grants(conn, &found)
        .await?
        .pop()
        .ok_or_else(|| StoreError::not_found("person", name).into())
}

pub(super) async fn list(
    conn: &mut SqliteConnection,
    site: Option<&SiteName>,
    page: &PageRequest,
) -> Result<Page<PersonRecord>, Fail> {
    let found = sqlx::query(
        "SELECT name, full_name, email, created_at_ms FROM people WHERE name > ?1 AND (?2 IS NULL OR EXISTS \
           (SELECT 1 FROM grants g LEFT JOIN slices s ON s.name = g.slice \
            WHERE g.person = people.name AND (g.site = ?2 OR s.site = ?2))) \
         ORDER BY name LIMIT ?3",
    )
    .bind(row::after_name::<PersonName>(page)?.to_owned())
    .bind(site.map(ToString::to_string))
    .bind(i64::from(page.rows()) + 1)
    .fetch_all(&mut *conn)
    .await?;
    let people = with_grants(conn, &found).await?;
    Ok(row::cut(people, page.rows(), |person| person.name.to_string()))
}

pub(super) async fn grant(
    conn: &mut SqliteConnection,
    person: &PersonName,
    grant: &Grant,
    note: Note,
) -> Result<PersonRecord, Fail> {
    if !exists(conn, person).await? {
        return Err(StoreError::not_found("person", person).into());
    }
    let (by, at_ms) = (note.draft.person.clone(), note.draft.at_ms);
    let given = give(conn, person, grant, by.as_ref(), at_ms).await?;
    if let (true, Some(by)) = (given, &by) {
        tie(conn, person, by, TieKind::Promoted, at_ms).await?;
    }
    audit::append(conn, note).await?;
    get(conn, person).await
}

pub(super) async fn revoke(
    conn: &mut SqliteConnection,
    person: &PersonName,
    grant: &Grant,
    note: Note,
) -> Result<PersonRecord, Fail> {
    if !exists(conn, person).await? {
        return Err(StoreError::not_found("person", person).into());
    }
    sqlx::query("DELETE FROM grants WHERE person = ? AND role = ? AND slice IS ? AND site IS ?")
        .bind(person.to_string())
        .bind(grant.role().as_str())
        .bind(grant.slice().map(ToString::to_string))
        .bind(grant.site().map(ToString::to_string))
        .execute(&mut *conn)
        .await?;
    // They may have invited as what they are no longer.
    let theirs = InviteSelection::By(person.clone());
    invites::void_rows(conn, &theirs, "its maker lost a role", note.draft.at_ms).await?;
    audit::append(conn, note).await?;
    get(conn, person).await
}

/// Takes every role away.
pub(super) async fn take_all(conn: &mut SqliteConnection, person: &PersonName) -> Result<(), Fail> {
    sqlx::query("DELETE FROM grants WHERE person = ?")
        .bind(person.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn exists(conn: &mut SqliteConnection, name: &PersonName) -> Result<bool, Fail> {
    let found = sqlx::query("SELECT 1 FROM people WHERE name = ?")
        .bind(name.to_string())
        .fetch_optional(conn)
        .await?;
    Ok(found.is_some())
}

/// False when they had it already.
async fn give(
    conn: &mut SqliteConnection,
    person: &PersonName,
    grant: &Grant,
    by: Option<&PersonName>,
    at_ms: i64,
) -> Result<bool, Fail> {
    let done = sqlx::query(
        "INSERT INTO grants (person, role, slice, site, granted_by, granted_at_ms) VALUES (?, ?, ?, ?, ?, ?) \
         ON CONFLICT DO NOTHING",
    )
    .bind(person.to_string())
    .bind(grant.role().as_str())
    .bind(grant.slice().map(ToString::to_string))
    .bind(grant.site().map(ToString::to_string))
    .bind(by.map(ToString::to_string).unwrap_or_default())
    .bind(at_ms)
    .execute(conn)
    .await;
    match (done, grant.slice(), grant.site()) {
        (Ok(done), ..) => Ok(done.rows_affected() > 0),
        (Err(error), Some(slice), _) if is_foreign_key(&error) => {
            Err(StoreError::not_found("slice", slice).into())
        }
        (Err(error), _, Some(site)) if is_foreign_key(&error) => {
            Err(StoreError::not_found("site", site).into())
        }
        (Err(error), ..) => Err(error.into()),
    }
}

fn is_foreign_key(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.is_foreign_key_violation())
}

/// One more query for the grants of all of them, not one for each.
async fn with_grants(conn: &mut SqliteConnection, people: &[SqliteRow]) -> Result<Vec<PersonRecord>, Fail> {
    let mut records = people
        .iter()
        .map(|found| {
            Ok(PersonRecord {
                name: row::parse(found, "name")?,
                full_name: found.try_get("full_name")?,
                email: found.try_get("email")?,
                grants: Vec::new(),
                created_at_ms: found.try_get("created_at_ms")?,
            })
        })
        .collect::<sqlx::Result<Vec<_>>>()?;
    let mut grants: HashMap<PersonName, Vec<Grant>> = HashMap::new();
    let rows = sqlx::query(
        "SELECT person, role, slice, site FROM grants WHERE person IN (SELECT value FROM json_each(?))",
    )
    .bind(row::text_list(records.iter().map(|person| &person.name)))
    .fetch_all(conn)
    .await?;
    for found in &rows {
        let grant = Grant::from_parts(
            row::role(found, "role")?,
            row::parse_opt(found, "slice")?,
            row::parse_opt(found, "site")?,
        )
        .map_err(|error| sqlx::Error::ColumnDecode {
            index: "role".to_owned(),
            source: error.into(),
        })?;
        grants
            .entry(row::parse(found, "person")?)
            .or_default()
            .push(grant);
    }
    for person in &mut records {
        person.grants = grants.remove(&person.name).unwrap_or_default();
        person.grants.sort();
    }
    Ok(records)
}
