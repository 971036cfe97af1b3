//! Holds: set by an order or brought by a node, lifted once, kept for ever.

use proto::canonical::Signature;
use proto::{Hold, HoldId, HoldKind, NodeId, OrderId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::fault::Fail;
use super::{audit, row, told};
use crate::store::{HoldRecord, ImportedHold, NewOrder, Note, Release, StoreError};

const HOLD: &str = "SELECT id, slice, scope, kind, holder, role, reason, evidence, set_at_ms, incarnation, epoch, \
                    imported_from, released_by, released_person, released_at_ms, released_incarnation, \
                    released_epoch, signature FROM holds";

pub(super) async fn standing(conn: &mut SqliteConnection) -> Result<Vec<HoldRecord>, Fail> {
    let sql = format!(
        "{HOLD} WHERE released_by IS NULL AND id NOT IN (SELECT hold FROM told_releases) ORDER BY incarnation, epoch, id"
    );
    let found = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(conn).await?;
    Ok(found.iter().map(record).collect::<sqlx::Result<_>>()?)
}

pub(super) async fn get(conn: &mut SqliteConnection, id: HoldId) -> Result<HoldRecord, Fail> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!("{HOLD} WHERE id = ?")))
        .bind(row::blob(id.uuid()))
        .fetch_optional(conn)
        .await?
        .ok_or_else(|| StoreError::not_found("hold", &id))?;
    Ok(record(&found)?)
}

pub(super) async fn released_among(conn: &mut SqliteConnection, ids: &[HoldId]) -> Result<Vec<HoldId>, Fail> {
    among(conn, ids, true).await
}

pub(super) async fn known_among(conn: &mut SqliteConnection, ids: &[HoldId]) -> Result<Vec<HoldId>, Fail> {
    among(conn, ids, false).await
}

async fn among(conn: &mut SqliteConnection, ids: &[HoldId], released: bool) -> Result<Vec<HoldId>, Fail> {
    let found = sqlx::query(
        "SELECT id FROM holds WHERE id IN (SELECT unhex(value) FROM json_each(?1)) \
         AND (NOT ?2 OR released_by IS NOT NULL) \
         UNION SELECT hold FROM told_releases WHERE hold IN (SELECT unhex(value) FROM json_each(?1)) ORDER BY id",
    )
    .bind(row::hex_list(ids.iter().map(HoldId::uuid)))
    .bind(released)
    .fetch_all(conn)
    .await?;
    Ok(found
        .iter()
        .map(|found| row::uuid(found, "id").map(HoldId::from_uuid))
        .collect::<sqlx::Result<_>>()?)
}

/// The holds of these orders, set or lifted by them, with the controller's word for that.
pub(super) async fn of_orders(
    conn: &mut SqliteConnection,
    orders: &[OrderId],
) -> Result<Vec<(OrderId, Hold, Option<Signature>)>, Fail> {
    let sql = "SELECT o.id AS of_order, h.*, \
               CASE WHEN h.set_by = o.id THEN h.signature ELSE h.release_signature END AS word FROM \
               (SELECT unhex(value) AS id FROM json_each(?)) o CROSS JOIN holds h \
               ON h.set_by = o.id OR h.released_by = o.id ORDER BY h.incarnation, h.epoch, h.id";
    let found = sqlx::query(sql)
        .bind(row::hex_list(orders.iter().map(OrderId::uuid)))
        .fetch_all(conn)
        .await?;
    let pair = |found: &SqliteRow| {
        Ok((
            row::uuid(found, "of_order").map(OrderId::from_uuid)?,
            hold(found)?,
            told::signature(found, "word")?,
        ))
    };
    Ok(found.iter().map(pair).collect::<sqlx::Result<_>>()?)
}

pub(super) async fn set(
    conn: &mut SqliteConnection,
    hold: &Hold,
    signature: Option<&Signature>,
    by: OrderId,
) -> Result<(), Fail> {
    // A node may have brought it first: the order waited for space on the disk while the node obeyed it.
    insert(
        conn,
        hold,
        signature,
        Some(by),
        None,
        "ON CONFLICT (id) DO UPDATE SET set_by = excluded.set_by WHERE set_by IS NULL",
    )
    .await?;
    Ok(())
}

pub(super) async fn lift(conn: &mut SqliteConnection, order: &NewOrder) -> Result<(), Fail> {
    if order.lifts.is_empty() {
        return Ok(());
    }
    let known = known_among(&mut *conn, &order.lifts).await?;
    if let Some(missing) = order.lifts.iter().find(|id| !known.contains(id)) {
        return Err(StoreError::not_found("hold", missing).into());
    }
    sqlx::query(
        "UPDATE holds SET released_by = ?1, released_person = ?2, released_at_ms = ?3, released_incarnation = ?4, \
         released_epoch = ?5 WHERE id IN (SELECT unhex(value) FROM json_each(?6)) AND released_by IS NULL",
    )
    .bind(row::blob(order.id.uuid()))
    .bind(order.person.to_string())
    .bind(order.pressed_at_ms)
    .bind(row::signed(order.version.incarnation))
    .bind(row::signed(order.version.epoch))
    .bind(row::hex_list(order.lifts.iter().map(HoldId::uuid)))
    .execute(&mut *conn)
    .await?;
    for (hold, signature) in &order.signatures {
        sqlx::query("UPDATE holds SET release_signature = ? WHERE id = ? AND released_by = ?")
            .bind(signature.to_vec())
            .bind(row::blob(hold.uuid()))
            .bind(row::blob(order.id.uuid()))
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

pub(super) async fn import(
    conn: &mut SqliteConnection,
    import: &ImportedHold,
    note: Note,
) -> Result<bool, Fail> {
    let there = sqlx::query("SELECT 1 FROM nodes WHERE id = ?")
        .bind(row::blob(import.node.uuid()))
        .fetch_optional(&mut *conn)
        .await?;
    if there.is_none() {
        return Err(StoreError::not_found("node", &import.node).into());
    }
    let new = insert(
        conn,
        &import.hold,
        import.signature.as_ref(),
        None,
        Some(import.node),
        "ON CONFLICT (id) DO NOTHING",
    )
    .await?;
    if new {
        audit::append(conn, note).await?;
    }
    Ok(new)
}

async fn insert(
    conn: &mut SqliteConnection,
    hold: &Hold,
    signature: Option<&Signature>,
    set_by: Option<OrderId>,
    imported_from: Option<NodeId>,
    conflict: &'static str,
) -> Result<bool, Fail> {
    let Hold {
        id,
        slice,
        scope,
        kind,
        holder,
        role,
        reason,
        evidence,
        set_at_ms,
        version,
    } = hold;
    let sql = format!(
        "INSERT INTO holds (id, slice, scope, kind, holder, role, reason, evidence, set_at_ms, incarnation, epoch, \
         set_by, imported_from, signature) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) {conflict}"
    );
    let done = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(row::blob(id.uuid()))
        .bind(slice.as_ref().map(ToString::to_string))
        .bind(row::to_json(scope))
        .bind(kind.as_str())
        .bind(holder.to_string())
        .bind(role.as_str())
        .bind(reason.clone())
        .bind(evidence.clone())
        .bind(*set_at_ms)
        .bind(row::signed(version.incarnation))
        .bind(row::signed(version.epoch))
        .bind(set_by.map(|order| row::blob(order.uuid())))
        .bind(imported_from.map(|node| row::blob(node.uuid())))
        .bind(signature.map(|signature| signature.to_vec()))
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

fn hold(found: &SqliteRow) -> sqlx::Result<Hold> {
    let kind: &str = found.try_get("kind")?;
    Ok(Hold {
        id: row::uuid(found, "id").map(HoldId::from_uuid)?,
        slice: row::parse_opt(found, "slice")?,
        scope: row::json(found, "scope")?,
        // The schema allows two words.
        kind: if kind == HoldKind::Freeze.as_str() {
            HoldKind::Freeze
        } else {
            HoldKind::Suspend
        },
        holder: row::parse(found, "holder")?,
        role: row::role(found, "role")?,
        reason: found.try_get("reason")?,
        evidence: found.try_get("evidence")?,
        set_at_ms: found.try_get("set_at_ms")?,
        version: row::version(found, "incarnation", "epoch")?,
    })
}

fn record(found: &SqliteRow) -> sqlx::Result<HoldRecord> {
    let released = match row::uuid_opt(found, "released_by")? {
        None => None,
        Some(order) => Some(Release {
            person: row::parse(found, "released_person")?,
            version: row::version(found, "released_incarnation", "released_epoch")?,
            at_ms: found.try_get("released_at_ms")?,
            order: OrderId::from_uuid(order),
        }),
    };
    Ok(HoldRecord {
        hold: hold(found)?,
        released,
        imported_from: row::uuid_opt(found, "imported_from")?.map(NodeId::from_uuid),
        signature: told::signature(found, "signature")?,
    })
}
