//! Sites and slices, with the people that the grants name.

use std::collections::HashMap;

use proto::{PersonName, Role, SiteName, SliceName};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::fault::Fail;
use super::{audit, row};
use crate::store::{NewSite, NewSlice, Note, Page, PageRequest, SiteRecord, SliceRecord, StoreError};

const SITE: &str = "SELECT name, full_name, abuse_contact, created_at_ms, \
                    (SELECT count(*) FROM nodes WHERE nodes.site = sites.name) AS nodes, \
                    (SELECT count(*) FROM slices WHERE slices.site = sites.name) AS slices FROM sites";
const SLICE: &str = "SELECT name, description, contacts, created_at_ms FROM slices";

pub(super) async fn create_site(
    conn: &mut SqliteConnection,
    site: &NewSite,
    note: Note,
) -> Result<SiteRecord, Fail> {
    if site_exists(conn, &site.name).await? {
        return Err(StoreError::exists("site", &site.name).into());
    }
    sqlx::query("INSERT INTO sites (name, full_name, abuse_contact, created_at_ms) VALUES (?, ?, ?, ?)")
        .bind(site.name.to_string())
        .bind(site.full_name.clone())
        .bind(site.abuse_contact.clone())
        .bind(note.draft.at_ms)
        .execute(&mut *conn)
        .await?;
    audit::append(conn, note).await?;
    self::site(conn, &site.name).await
}

pub(super) async fn site_exists(conn: &mut SqliteConnection, name: &SiteName) -> Result<bool, Fail> {
    let found = sqlx::query("SELECT 1 FROM sites WHERE name = ?")
        .bind(name.to_string())
        .fetch_optional(conn)
        .await?;
    Ok(found.is_some())
}

pub(super) async fn site(conn: &mut SqliteConnection, name: &SiteName) -> Result<SiteRecord, Fail> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!("{SITE} WHERE name = ?")))
        .bind(name.to_string())
        .fetch_all(&mut *conn)
        .await?;
    site_records(conn, &found)
        .await?
        .pop()
        .ok_or_else(|| StoreError::not_found("site", name).into())
}

pub(super) async fn sites(conn: &mut SqliteConnection, page: &PageRequest) -> Result<Page<SiteRecord>, Fail> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{SITE} WHERE name > ? ORDER BY name LIMIT ?"
    )))
    .bind(row::after_name::<SiteName>(page)?.to_owned())
    .bind(i64::from(page.rows()) + 1)
    .fetch_all(&mut *conn)
    .await?;
    let sites = site_records(conn, &found).await?;
    Ok(row::cut(sites, page.rows(), |site| site.name.to_string()))
}

async fn site_records(conn: &mut SqliteConnection, found: &[SqliteRow]) -> Result<Vec<SiteRecord>, Fail> {
    let mut sites = found
        .iter()
        .map(|found| {
            Ok(SiteRecord {
                name: row::parse(found, "name")?,
                full_name: found.try_get("full_name")?,
                abuse_contact: found.try_get("abuse_contact")?,
                nodes: row::count(found, "nodes")?,
                slices: row::count(found, "slices")?,
                pis: Vec::new(),
                admins: Vec::new(),
                created_at_ms: found.try_get("created_at_ms")?,
            })
        })
        .collect::<sqlx::Result<Vec<_>>>()?;
    let mut at = people_at(conn, sites.iter().map(|site| &site.name)).await?;
    for site in &mut sites {
        site.pis = at.remove(&(site.name.clone(), Role::Pi)).unwrap_or_default();
        site.admins = at
            .remove(&(site.name.clone(), Role::SiteAdmin))
            .unwrap_or_default();
    }
    Ok(sites)
}

pub(super) async fn create_slice(
    conn: &mut SqliteConnection,
    slice: &NewSlice,
    note: Note,
) -> Result<SliceRecord, Fail> {
    let there = sqlx::query("SELECT 1 FROM slices WHERE name = ?")
        .bind(slice.name.to_string())
        .fetch_optional(&mut *conn)
        .await?;
    if there.is_some() {
        return Err(StoreError::exists("slice", &slice.name).into());
    }
    let site = slice.name.site();
    if !site_exists(conn, &site).await? {
        return Err(StoreError::not_found("site", &site).into());
    }
    sqlx::query(
        "INSERT INTO slices (name, site, description, contacts, created_at_ms) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(slice.name.to_string())
    .bind(site.to_string())
    .bind(slice.description.clone())
    .bind(row::to_json(&slice.contacts))
    .bind(note.draft.at_ms)
    .execute(&mut *conn)
    .await?;
    audit::append(conn, note).await?;
    self::slice(conn, &slice.name).await
}

pub(super) async fn slice(conn: &mut SqliteConnection, name: &SliceName) -> Result<SliceRecord, Fail> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!("{SLICE} WHERE name = ?")))
        .bind(name.to_string())
        .fetch_all(&mut *conn)
        .await?;
    slice_records(conn, &found)
        .await?
        .pop()
        .ok_or_else(|| StoreError::not_found("slice", name).into())
}

pub(super) async fn slices(
    conn: &mut SqliteConnection,
    site: Option<&SiteName>,
    page: &PageRequest,
) -> Result<Page<SliceRecord>, Fail> {
    let sql = format!("{SLICE} WHERE name > ?1 AND (?2 IS NULL OR site = ?2) ORDER BY name LIMIT ?3");
    let found = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(row::after_name::<SliceName>(page)?.to_owned())
        .bind(site.map(ToString::to_string))
        .bind(i64::from(page.rows()) + 1)
        .fetch_all(&mut *conn)
        .await?;
    let slices = slice_records(conn, &found).await?;
    Ok(row::cut(slices, page.rows(), |slice| slice.name.to_string()))
}

async fn slice_records(conn: &mut SqliteConnection, found: &[SqliteRow]) -> Result<Vec<SliceRecord>, Fail> {
    let mut slices = found
        .iter()
        .map(|found| {
            Ok(SliceRecord {
                name: row::parse(found, "name")?,
                description: found.try_get("description")?,
                contacts: row::json(found, "contacts")?,
                developers: Vec::new(),
                pis: Vec::new(),
                created_at_ms: found.try_get("created_at_ms")?,
            })
        })
        .collect::<sqlx::Result<Vec<_>>>()?;
    let at = people_at(&mut *conn, slices.iter().map(|slice| slice.name.site())).await?;
    let mut developers: HashMap<SliceName, Vec<PersonName>> = HashMap::new();
    let rows = sqlx::query(
        "SELECT person, slice FROM grants WHERE slice IN (SELECT value FROM json_each(?)) ORDER BY person",
    )
    .bind(row::text_list(slices.iter().map(|slice| &slice.name)))
    .fetch_all(conn)
    .await?;
    for found in &rows {
        developers
            .entry(row::parse(found, "slice")?)
            .or_default()
            .push(row::parse(found, "person")?);
    }
    for slice in &mut slices {
        slice.developers = developers.remove(&slice.name).unwrap_or_default();
        slice.pis = at
            .get(&(slice.name.site(), Role::Pi))
            .cloned()
            .unwrap_or_default();
    }
    Ok(slices)
}

/// Who holds which role at these sites, by name.
async fn people_at<T: ToString>(
    conn: &mut SqliteConnection,
    sites: impl IntoIterator<Item = T>,
) -> Result<HashMap<(SiteName, Role), Vec<PersonName>>, Fail> {
    let mut at: HashMap<_, Vec<PersonName>> = HashMap::new();
    let sites = row::text_list(sites);
    let rows = sqlx::query(
        "SELECT person, role, site FROM grants WHERE site IN (SELECT value FROM json_each(?)) ORDER BY person",
    )
    .bind(sites)
    .fetch_all(conn)
    .await?;
    for found in &rows {
        let key = (row::parse(found, "site")?, row::role(found, "role")?);
        at.entry(key).or_default().push(row::parse(found, "person")?);
    }
    Ok(at)
}
