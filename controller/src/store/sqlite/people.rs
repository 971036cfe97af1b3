//! People and their grants.

use std::collections::HashMap;

use authz::Grant;
use proto::{PersonName, SiteName};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::fault::Fail;
use super::{audit, row};
use crate::store::{NewPerson, Note, Page, PageRequest, PersonRecord, StoreError};

pub(super) async fn create(
    conn: &mut SqliteConnection,
    person: &NewPerson,
    note: Note,
) -> Result<PersonRecord, Fail> {
    if exists(conn, &person.name).await? {
        return Err(StoreError::exists("person", &person.name).into());
    }
    sqlx::query("INSERT INTO people (name, full_name, email, created_at_ms) VALUES (?, ?, ?, ?)")
        .bind(person.name.to_string())
        .bind(person.full_name.clone())
        .bind(person.email.clone())
        .bind(note.draft.at_ms)
        .execute(&mut *conn)
        .await?;
    for grant in &person.grants {
        give(conn, &person.name, grant, &note).await?;
    }
    audit::append(conn, note).await?;
    get(conn, &person.name).await
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
    give(conn, person, grant, &note).await?;
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
    audit::append(conn, note).await?;
    get(conn, person).await
}

async fn exists(conn: &mut SqliteConnection, name: &PersonName) -> Result<bool, Fail> {
    let found = sqlx::query("SELECT 1 FROM people WHERE name = ?")
        .bind(name.to_string())
        .fetch_optional(conn)
        .await?;
    Ok(found.is_some())
}

/// `note` tells who gave it and when.
async fn give(
    conn: &mut SqliteConnection,
    person: &PersonName,
    grant: &Grant,
    note: &Note,
) -> Result<(), Fail> {
    let done = sqlx::query(
        "INSERT INTO grants (person, role, slice, site, granted_by, granted_at_ms) VALUES (?, ?, ?, ?, ?, ?) \
         ON CONFLICT DO NOTHING",
    )
    .bind(person.to_string())
    .bind(grant.role().as_str())
    .bind(grant.slice().map(ToString::to_string))
    .bind(grant.site().map(ToString::to_string))
    .bind(
        note.draft
            .person
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    )
    .bind(note.draft.at_ms)
    .execute(conn)
    .await;
    match (done, grant.slice(), grant.site()) {
        (Ok(_), ..) => Ok(()),
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
