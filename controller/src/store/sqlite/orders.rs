//! Orders: committed once, found again by id, by key, by what is still open.

use std::collections::HashMap;

use proto::{OrderId, PersonName, Scope, SiteName, Version};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::audit::Seen;
use super::fault::Fail;
use super::{audit, holds, nodes, places, results, row};
use crate::store::{
    Committed, NewOrder, Note, OrderFilter, OrderRecord, OrderState, Page, PageRequest, ResultRecord,
    Signatures, StoreError, merge,
};

const ORDER: &str = "SELECT id, key, person, role, kind, slice, scope, target, reason, evidence, pressed_at_ms, \
                     incarnation, epoch, wish, state, nodes, proven, counts FROM orders";

pub(super) async fn commit(
    conn: &mut SqliteConnection,
    order: &NewOrder,
    note: Note,
) -> Result<Committed, Fail> {
    if let Some(existing) = by_key(conn, &order.person, &order.key).await? {
        return Ok(Committed::Existing(existing));
    }
    let clash =
        sqlx::query("SELECT id = ?1 AS same FROM orders WHERE id = ?1 OR (incarnation = ?2 AND epoch = ?3)")
            .bind(row::blob(order.id.uuid()))
            .bind(row::signed(order.version.incarnation))
            .bind(row::signed(order.version.epoch))
            .fetch_optional(&mut *conn)
            .await?;
    if let Some(clash) = clash {
        let same: bool = clash.try_get("same")?;
        let (what, name) = if same {
            ("order", order.id.to_string())
        } else {
            ("order of version", order.version.to_string())
        };
        return Err(StoreError::exists(what, &name).into());
    }
    let (at_site, nodes) = reach(conn, &order.scope, order.version).await?;
    insert(conn, order, at_site, nodes).await?;
    for hold in &order.sets {
        holds::set(conn, hold, order.signatures.get(&hold.id), order.id).await?;
    }
    holds::lift(conn, order).await?;
    audit::append(conn, note).await?;
    Ok(Committed::Created(get(conn, order.id).await?))
}

/// The site that the scope lies at, and how many nodes it holds for an order of this version.
async fn reach(
    conn: &mut SqliteConnection,
    scope: &Scope,
    version: Version,
) -> Result<(Option<SiteName>, i64), Fail> {
    const ENROLLED: &str = "(enrolled_incarnation, enrolled_epoch) <= (?1, ?2)";
    let at_site = match scope {
        Scope::Fleet => None,
        Scope::Site(site) if places::site_exists(conn, site).await? => Some(site.clone()),
        Scope::Site(site) => return Err(StoreError::not_found("site", site).into()),
        // Aimed at by name just now: it is reached whenever it was enrolled.
        Scope::Node(node) => return Ok((Some(nodes::get(conn, *node).await?.site), 1)),
    };
    let sql = match at_site {
        None => format!("SELECT count(*) AS n FROM nodes WHERE {ENROLLED} AND ?3 IS NULL"),
        Some(_) => format!("SELECT count(*) AS n FROM nodes WHERE {ENROLLED} AND site = ?3"),
    };
    let found = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(row::signed(version.incarnation))
        .bind(row::signed(version.epoch))
        .bind(at_site.as_ref().map(ToString::to_string))
        .fetch_one(conn)
        .await?;
    Ok((at_site, found.try_get("n")?))
}

async fn insert(
    conn: &mut SqliteConnection,
    order: &NewOrder,
    at_site: Option<SiteName>,
    nodes: i64,
) -> Result<(), Fail> {
    let NewOrder {
        id,
        key,
        person,
        role,
        kind,
        slice,
        scope,
        target,
        reason,
        evidence,
        pressed_at_ms,
        version,
        wish,
        sets: _,
        lifts: _,
        signatures: _,
    } = order;
    let state = if nodes == 0 {
        OrderState::Closed
    } else {
        OrderState::Open
    };
    sqlx::query(
        "INSERT INTO orders (id, key, person, role, kind, slice, slice_site, scope, at_site, target, reason, evidence, \
         pressed_at_ms, incarnation, epoch, wish, state, nodes, proven, counts) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '[]')",
    )
    .bind(row::blob(id.uuid()))
    .bind(key.clone())
    .bind(person.to_string())
    .bind(role.as_str())
    .bind(kind.as_str())
    .bind(slice.as_ref().map(ToString::to_string))
    .bind(slice.as_ref().map(|slice| slice.site().to_string()))
    .bind(row::to_json(scope))
    .bind(at_site.map(String::from))
    .bind(target.clone())
    .bind(reason.clone())
    .bind(evidence.clone())
    .bind(*pressed_at_ms)
    .bind(row::signed(version.incarnation))
    .bind(row::signed(version.epoch))
    .bind(row::to_json(wish))
    .bind(state_number(state))
    .bind(nodes)
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn by_key(
    conn: &mut SqliteConnection,
    person: &PersonName,
    key: &str,
) -> Result<Option<OrderRecord>, Fail> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{ORDER} WHERE person = ? AND key = ?"
    )))
    .bind(person.to_string())
    .bind(key.to_owned())
    .fetch_all(&mut *conn)
    .await?;
    Ok(with_holds(conn, &found).await?.pop())
}

pub(super) async fn get(conn: &mut SqliteConnection, id: OrderId) -> Result<OrderRecord, Fail> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!("{ORDER} WHERE id = ?")))
        .bind(row::blob(id.uuid()))
        .fetch_all(&mut *conn)
        .await?;
    with_holds(conn, &found)
        .await?
        .pop()
        .ok_or_else(|| StoreError::not_found("order", &id).into())
}

pub(super) async fn list(
    conn: &mut SqliteConnection,
    filter: &OrderFilter,
    page: &PageRequest,
) -> Result<Page<OrderRecord>, Fail> {
    let before = before(page)?;
    let seen = Seen::new(&filter.visible);
    // Spelt out only where asked for, so that the indexes can serve it.
    let slice = if filter.slice.is_some() {
        "slice = ?3"
    } else {
        "?3 IS NULL"
    };
    let state = if filter.open_only { "state < 3" } else { "TRUE" };
    let sql = format!(
        "{ORDER} WHERE (incarnation, epoch) < (?1, ?2) AND {slice} AND {state} \
         AND (?4 OR person = ?5 OR slice IN (SELECT value FROM json_each(?6)) \
              OR slice_site IN (SELECT value FROM json_each(?7)) OR at_site IN (SELECT value FROM json_each(?8))) \
         ORDER BY incarnation DESC, epoch DESC LIMIT ?9"
    );
    let found = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(before.map_or(i64::MAX, |version| row::signed(version.incarnation)))
        .bind(before.map_or(i64::MAX, |version| row::signed(version.epoch)))
        .bind(filter.slice.as_ref().map(ToString::to_string))
        .bind(seen.all)
        .bind(seen.person)
        .bind(seen.slices)
        .bind(seen.slices_of)
        .bind(seen.nodes_of)
        .bind(i64::from(page.rows()) + 1)
        .fetch_all(&mut *conn)
        .await?;
    let orders = with_holds(conn, &found).await?;
    Ok(row::cut(orders, page.rows(), |order| order.version.to_string()))
}

/// A page of orders begins below the version of its token.
fn before(page: &PageRequest) -> Result<Option<Version>, StoreError> {
    if page.token.is_empty() {
        return Ok(None);
    }
    let version = page.token.split_once('.').and_then(|(incarnation, epoch)| {
        Some(Version {
            incarnation: incarnation.parse().ok()?,
            epoch: epoch.parse().ok()?,
        })
    });
    version
        .map(Some)
        .ok_or_else(|| StoreError::invalid("page token", &page.token, "the token that the page before gave"))
}

pub(super) async fn open(conn: &mut SqliteConnection) -> Result<Vec<(OrderRecord, Vec<ResultRecord>)>, Fail> {
    let sql = format!("{ORDER} WHERE state < 3 ORDER BY incarnation, epoch");
    let found = sqlx::query(sqlx::AssertSqlSafe(sql))
        .fetch_all(&mut *conn)
        .await?;
    let mut open = Vec::with_capacity(found.len());
    for order in with_holds(conn, &found).await? {
        let results = results::without_evidence(conn, order.id).await?;
        open.push((order, results));
    }
    Ok(open)
}

/// One more query for the holds of all of them, not one for each.
async fn with_holds(conn: &mut SqliteConnection, found: &[SqliteRow]) -> Result<Vec<OrderRecord>, Fail> {
    let mut orders = found.iter().map(record).collect::<sqlx::Result<Vec<_>>>()?;
    if orders.is_empty() {
        return Ok(orders);
    }
    let ids: Vec<_> = orders.iter().map(|order| order.id).collect();
    let mut held: HashMap<OrderId, Vec<_>> = HashMap::new();
    for (order, hold, word) in holds::of_orders(conn, &ids).await? {
        held.entry(order).or_default().push((hold, word));
    }
    for order in &mut orders {
        for (hold, word) in held.remove(&order.id).unwrap_or_default() {
            order.signatures.extend(word.map(|word| (hold.id, word)));
            order.holds.push(hold);
        }
    }
    Ok(orders)
}

pub(super) const fn state_number(state: OrderState) -> i64 {
    match state {
        OrderState::Open => 1,
        OrderState::Answered => 2,
        OrderState::Closed => 3,
    }
}

fn record(found: &SqliteRow) -> sqlx::Result<OrderRecord> {
    let list: Vec<u32> = row::json(found, "counts")?;
    Ok(OrderRecord {
        id: row::uuid(found, "id").map(OrderId::from_uuid)?,
        key: found.try_get("key")?,
        person: row::parse(found, "person")?,
        role: row::role(found, "role")?,
        kind: row::parse(found, "kind")?,
        slice: row::parse_opt(found, "slice")?,
        scope: row::json(found, "scope")?,
        target: found.try_get("target")?,
        reason: found.try_get("reason")?,
        evidence: found.try_get("evidence")?,
        pressed_at_ms: found.try_get("pressed_at_ms")?,
        version: row::version(found, "incarnation", "epoch")?,
        wish: row::json(found, "wish")?,
        // The schema allows three numbers.
        state: match found.try_get::<i64, _>("state")? {
            1 => OrderState::Open,
            2 => OrderState::Answered,
            _ => OrderState::Closed,
        },
        counts: merge::from_list(&list, row::count(found, "nodes")?, row::count(found, "proven")?),
        holds: Vec::new(),
        signatures: Signatures::new(),
    })
}
