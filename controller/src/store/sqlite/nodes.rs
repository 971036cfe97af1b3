//! Nodes, and the clock of decisions that says which orders reach them.

use std::ops::Range;

use proto::{BootId, NodeId, NodeName, Version};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::fault::Fail;
use super::{audit, places, row};
use crate::store::{
    NewNode, NodeRecord, NodeSeen, NodeSelection, Note, Page, PageRequest, Quarantine, ReportRecord,
    StoreError,
};

const NODE: &str = "SELECT id, name, site, enrolled_incarnation, enrolled_epoch, enrolled_at_ms, boot_id, \
                    last_seen_ms, revoked_at_ms, quarantined_at_ms, quarantined_why FROM nodes";

pub(super) async fn incarnation(conn: &mut SqliteConnection) -> Result<u64, Fail> {
    let found = sqlx::query("SELECT incarnation FROM meta")
        .fetch_one(conn)
        .await?;
    Ok(row::unsigned(&found, "incarnation")?)
}

/// The life of this database, and the highest epoch that it has handed out.
pub(super) async fn handed_out(conn: &mut SqliteConnection) -> Result<Version, Fail> {
    let found = sqlx::query("SELECT incarnation, reserved_epoch FROM meta")
        .fetch_one(conn)
        .await?;
    Ok(Version {
        incarnation: row::unsigned(&found, "incarnation")?,
        epoch: row::unsigned(&found, "reserved_epoch")?,
    })
}

/// Begins another life of the database, higher than `above` and than the one that it is in.
pub(super) async fn begin_incarnation(
    conn: &mut SqliteConnection,
    above: u64,
    note: impl FnOnce(Version) -> Note,
) -> Result<u64, Fail> {
    let now = handed_out(conn).await?;
    let next = now.incarnation.max(above).saturating_add(1);
    sqlx::query("UPDATE meta SET incarnation = ?")
        .bind(row::signed(next))
        .execute(&mut *conn)
        .await?;
    let version = Version {
        incarnation: next,
        epoch: now.epoch,
    };
    audit::append(conn, note(version)).await?;
    Ok(next)
}

pub(super) async fn reserve_epochs(conn: &mut SqliteConnection, count: u64) -> Result<Range<u64>, Fail> {
    let found = sqlx::query("SELECT reserved_epoch FROM meta")
        .fetch_one(&mut *conn)
        .await?;
    let first = row::unsigned(&found, "reserved_epoch")? + 1;
    let end = first
        .checked_add(count)
        .filter(|end| i64::try_from(*end).is_ok())
        .ok_or_else(|| StoreError::invalid("epochs", &count.to_string(), "fewer than are left"))?;
    sqlx::query("UPDATE meta SET reserved_epoch = ?")
        .bind(row::signed(end - 1))
        .execute(conn)
        .await?;
    Ok(first..end)
}

pub(super) async fn create(
    conn: &mut SqliteConnection,
    node: &NewNode,
    note: Note,
) -> Result<NodeRecord, Fail> {
    insert(conn, node, note.draft.at_ms).await?;
    audit::append(conn, note).await?;
    get(conn, node.id).await
}

/// Neither its id nor its name is taken.
pub(super) async fn check_new(conn: &mut SqliteConnection, id: NodeId, name: &NodeName) -> Result<(), Fail> {
    let there = sqlx::query("SELECT name FROM nodes WHERE id = ? OR name = ?")
        .bind(row::blob(id.uuid()))
        .bind(name.to_string())
        .fetch_optional(&mut *conn)
        .await?;
    let Some(there) = there else { return Ok(()) };
    let taken: String = there.try_get("name")?;
    let clash = if taken == name.as_str() {
        taken
    } else {
        id.to_string()
    };
    Err(StoreError::exists("node", &clash).into())
}

pub(super) async fn insert(conn: &mut SqliteConnection, node: &NewNode, at_ms: i64) -> Result<(), Fail> {
    check_new(conn, node.id, &node.name).await?;
    if !places::site_exists(conn, &node.site).await? {
        return Err(StoreError::not_found("site", &node.site).into());
    }
    // One above the last order in this file: that one does not reach the node, the next one will. The holds that
    // stand reach it all the same, when it attaches.
    sqlx::query(
        "INSERT INTO nodes (id, name, site, enrolled_incarnation, enrolled_epoch, enrolled_at_ms) \
         SELECT ?, ?, ?, m.incarnation, \
                1 + ifnull((SELECT max(o.epoch) FROM orders o WHERE o.incarnation = m.incarnation), 0), ? FROM meta m",
    )
    .bind(row::blob(node.id.uuid()))
    .bind(node.name.to_string())
    .bind(node.site.to_string())
    .bind(at_ms)
    .execute(&mut *conn)
    .await?;
    Ok(())
}

pub(super) async fn get(conn: &mut SqliteConnection, id: NodeId) -> Result<NodeRecord, Fail> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!("{NODE} WHERE id = ?")))
        .bind(row::blob(id.uuid()))
        .fetch_optional(conn)
        .await?
        .ok_or_else(|| StoreError::not_found("node", &id))?;
    Ok(record(&found)?)
}

pub(super) async fn by_name(conn: &mut SqliteConnection, name: &NodeName) -> Result<NodeRecord, Fail> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!("{NODE} WHERE name = ?")))
        .bind(name.to_string())
        .fetch_optional(conn)
        .await?
        .ok_or_else(|| StoreError::not_found("node", name))?;
    Ok(record(&found)?)
}

pub(super) async fn all(conn: &mut SqliteConnection) -> Result<Vec<NodeRecord>, Fail> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!("{NODE} ORDER BY name")))
        .fetch_all(conn)
        .await?;
    Ok(found.iter().map(record).collect::<sqlx::Result<_>>()?)
}

pub(super) async fn list(
    conn: &mut SqliteConnection,
    select: &NodeSelection,
    page: &PageRequest,
) -> Result<Page<NodeRecord>, Fail> {
    let sql = format!(
        "{NODE} WHERE name > ?1 AND (?2 IS NULL OR site IN (SELECT value FROM json_each(?2))) \
         AND (?3 IS NULL OR id IN (SELECT unhex(value) FROM json_each(?3))) ORDER BY name LIMIT ?4"
    );
    let found = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(row::after_name::<NodeName>(page)?.to_owned())
        .bind(select.sites.as_ref().map(row::text_list))
        .bind(
            select
                .ids
                .as_ref()
                .map(|ids| row::hex_list(ids.iter().map(NodeId::uuid))),
        )
        .bind(i64::from(page.rows()) + 1)
        .fetch_all(conn)
        .await?;
    let nodes = found.iter().map(record).collect::<sqlx::Result<Vec<_>>>()?;
    Ok(row::cut(nodes, page.rows(), |node| node.name.to_string()))
}

pub(super) async fn record_seen(conn: &mut SqliteConnection, batch: &[NodeSeen]) -> Result<(), Fail> {
    for chunk in row::chunks(batch) {
        // An observation that is older than what stands changes nothing.
        let sql = format!(
            "UPDATE nodes SET boot_id = ifnull(v.column2, boot_id), last_seen_ms = v.column3 FROM (VALUES {}) v \
             WHERE nodes.id = v.column1 AND (last_seen_ms IS NULL OR last_seen_ms <= v.column3)",
            row::places(chunk.len(), 3)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for seen in chunk {
            query = query
                .bind(row::blob(seen.node.uuid()))
                .bind(seen.boot_id.map(|boot| row::blob(boot.uuid())))
                .bind(seen.at_ms);
        }
        query.execute(&mut *conn).await?;
    }
    let reports: Vec<_> = batch
        .iter()
        .filter_map(|seen| Some((seen, seen.report.as_ref()?)))
        .collect();
    for chunk in row::chunks(&reports) {
        // CROSS JOIN: the batch is the outer loop.
        let sql = format!(
            "INSERT INTO node_reports (node, at_ms, report) SELECT n.id, v.column2, v.column3 \
             FROM (VALUES {}) v CROSS JOIN nodes n ON n.id = v.column1 WHERE TRUE \
             ON CONFLICT (node) DO UPDATE SET at_ms = excluded.at_ms, report = excluded.report \
             WHERE node_reports.at_ms <= excluded.at_ms",
            row::places(chunk.len(), 3)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (seen, report) in chunk {
            query = query
                .bind(row::blob(seen.node.uuid()))
                .bind(seen.at_ms)
                .bind((*report).clone());
        }
        query.execute(&mut *conn).await?;
    }
    Ok(())
}

pub(super) async fn last_report(
    conn: &mut SqliteConnection,
    id: NodeId,
) -> Result<Option<ReportRecord>, Fail> {
    let found = sqlx::query("SELECT at_ms, report FROM node_reports WHERE node = ?")
        .bind(row::blob(id.uuid()))
        .fetch_optional(conn)
        .await?;
    let Some(found) = found else { return Ok(None) };
    Ok(Some(ReportRecord {
        at_ms: found.try_get("at_ms")?,
        report: found.try_get("report")?,
    }))
}

fn quarantined(found: &SqliteRow) -> sqlx::Result<Option<Quarantine>> {
    let at_ms: Option<i64> = found.try_get("quarantined_at_ms")?;
    let why: Option<String> = found.try_get("quarantined_why")?;
    Ok(at_ms.zip(why).map(|(at_ms, why)| Quarantine { at_ms, why }))
}

fn record(found: &SqliteRow) -> sqlx::Result<NodeRecord> {
    Ok(NodeRecord {
        id: row::uuid(found, "id").map(NodeId::from_uuid)?,
        name: row::parse(found, "name")?,
        site: row::parse(found, "site")?,
        enrolled: row::version(found, "enrolled_incarnation", "enrolled_epoch")?,
        enrolled_at_ms: found.try_get("enrolled_at_ms")?,
        boot_id: row::uuid_opt(found, "boot_id")?.map(BootId::from_uuid),
        last_seen_ms: found.try_get("last_seen_ms")?,
        revoked_at_ms: found.try_get("revoked_at_ms")?,
        quarantined: quarantined(found)?,
    })
}
