//! What nodes answered: many rows at once, each merged with what stands, the orders' counts moved with them.
//!
//! A press of 10,000 nodes comes back as a few batches, so the cost of a row counts: statements of a fixed size
//! that stay prepared, one look-up that returns only rows that stand already, no read of an answer that is to be
//! replaced.

use std::collections::{BTreeMap, HashMap};

use futures_util::TryStreamExt;
use prost::Message;
use proto::v1::{Answer, Outcome};
use proto::{NodeId, OrderId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::fault::Fail;
use super::{orders, row};
use crate::store::merge::{self, Change, Standing};
use crate::store::{OrderProgress, Recorded, ResultRecord, StoreError};

type Key = (OrderId, NodeId);

const fn key(result: &ResultRecord) -> Key {
    (result.order, result.node)
}

pub(super) async fn of(conn: &mut SqliteConnection, order: OrderId) -> Result<Vec<ResultRecord>, Fail> {
    load(conn, order, |_| ()).await
}

pub(super) async fn without_evidence(
    conn: &mut SqliteConnection,
    order: OrderId,
) -> Result<Vec<ResultRecord>, Fail> {
    load(conn, order, |answer| {
        answer
            .slivers
            .iter_mut()
            .for_each(|sliver| sliver.evidence = None)
    })
    .await
}

/// Row by row, so that what `trim` takes off is never in memory for all nodes at once.
async fn load(
    conn: &mut SqliteConnection,
    order: OrderId,
    trim: impl Fn(&mut Answer),
) -> Result<Vec<ResultRecord>, Fail> {
    let mut rows = sqlx::query(
        "SELECT order_id, node, outcome, proven, answered_at_ms, answer FROM results WHERE order_id = ? ORDER BY node",
    )
    .bind(row::blob(order.uuid()))
    .fetch(conn);
    let mut results = Vec::new();
    while let Some(found) = rows.try_next().await? {
        let mut result = read(&found)?;
        result.answer.as_mut().map(&trim);
        results.push(result);
    }
    Ok(results)
}

pub(super) async fn record(conn: &mut SqliteConnection, batch: &[ResultRecord]) -> Result<Recorded, Fail> {
    if let Some(bad) = batch.iter().find(|result| !merge::is_answer(result.outcome)) {
        return Err(StoreError::invalid("outcome", bad.outcome.as_str_name(), "what a node answers").into());
    }
    // In the order of the index, which makes its pages cheap to find and to fill. Stable: what a node said first
    // stays first.
    let mut sorted: Vec<_> = batch.iter().collect();
    sorted.sort_by_key(|result| key(result));
    let Found { standing, unknown } = look_up(conn, &sorted).await?;
    let plan = plan(&sorted, &standing, &unknown);
    replace(conn, &plan.replace).await?;
    prove(conn, &plan.prove).await?;
    let mut orders = Vec::new();
    for (order, moves) in plan.moves {
        orders.push(progress(conn, order, &moves).await?);
    }
    Ok(Recorded { orders, unknown })
}

struct Found {
    standing: HashMap<Key, Standing>,
    unknown: Vec<Key>,
}

/// What stands already for these rows, and which rows name an order or a node that is not there.
async fn look_up(conn: &mut SqliteConnection, batch: &[&ResultRecord]) -> Result<Found, Fail> {
    let mut found = Found {
        standing: HashMap::new(),
        unknown: Vec::new(),
    };
    // A batch has few orders and many nodes.
    let orders = known_orders(conn, batch).await?;
    let (batch, strangers): (Vec<&ResultRecord>, Vec<_>) = batch
        .iter()
        .partition(|result| orders.binary_search(&result.order).is_ok());
    found.unknown.extend(strangers.into_iter().map(key));
    for chunk in row::chunks(&batch) {
        let sql = format!(
            "SELECT v.column1 AS order_id, v.column2 AS node, n.id IS NULL AS unknown, r.outcome, r.proven \
             FROM (VALUES {}) v LEFT JOIN nodes n ON n.id = v.column2 \
             LEFT JOIN results r ON r.order_id = v.column1 AND r.node = v.column2 \
             WHERE n.id IS NULL OR r.outcome IS NOT NULL",
            row::places(chunk.len(), 2)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for result in chunk {
            query = query
                .bind(row::blob(result.order.uuid()))
                .bind(row::blob(result.node.uuid()));
        }
        for there in query.fetch_all(&mut *conn).await? {
            let key = (
                row::uuid(&there, "order_id").map(OrderId::from_uuid)?,
                row::uuid(&there, "node").map(NodeId::from_uuid)?,
            );
            if there.try_get("unknown")? {
                found.unknown.push(key);
            } else {
                let standing = Standing {
                    outcome: outcome(&there)?,
                    proven: there.try_get("proven")?,
                };
                found.standing.insert(key, standing);
            }
        }
    }
    found.unknown.sort_unstable();
    found.unknown.dedup();
    Ok(found)
}

/// Those of the batch's orders that are in the store, sorted.
async fn known_orders(conn: &mut SqliteConnection, batch: &[&ResultRecord]) -> Result<Vec<OrderId>, Fail> {
    let mut orders: Vec<_> = batch.iter().map(|result| result.order.uuid()).collect();
    orders.dedup();
    let found =
        sqlx::query("SELECT id FROM orders WHERE id IN (SELECT unhex(value) FROM json_each(?)) ORDER BY id")
            .bind(row::hex_list(orders))
            .fetch_all(conn)
            .await?;
    Ok(found
        .iter()
        .map(|found| row::uuid(found, "id").map(OrderId::from_uuid))
        .collect::<sqlx::Result<_>>()?)
}

#[derive(Default)]
struct Plan<'a> {
    /// Rows to store whole, each key once, with the proof that a later row of the batch may have brought.
    replace: Vec<(&'a ResultRecord, Standing)>,
    /// Rows that stand and are proven now.
    prove: Vec<(Key, Standing)>,
    /// From what to what, for each order.
    moves: BTreeMap<OrderId, Vec<(Option<Standing>, Standing)>>,
}

/// Decides row by row: an answer and its proof may come in the same batch.
fn plan<'a>(sorted: &[&'a ResultRecord], standing: &HashMap<Key, Standing>, unknown: &[Key]) -> Plan<'a> {
    let mut plan = Plan::default();
    for same in sorted.chunk_by(|a, b| key(a) == key(b)) {
        let key = key(same[0]);
        if unknown.binary_search(&key).is_ok() {
            continue;
        }
        let old = standing.get(&key).copied();
        let (mut now, mut stored) = (old, None);
        for result in same {
            let new = Standing::from(*result);
            if merge::merge(now, new) == Change::Replace {
                stored = Some(*result);
            }
            now = Some(merge::after(now, new));
        }
        let Some(now) = now.filter(|now| stored.is_some() || old != Some(*now)) else {
            continue;
        };
        match stored {
            Some(result) => plan.replace.push((result, now)),
            None => plan.prove.push((key, now)),
        }
        plan.moves.entry(key.0).or_default().push((old, now));
    }
    plan
}

async fn replace(conn: &mut SqliteConnection, rows: &[(&ResultRecord, Standing)]) -> Result<(), Fail> {
    for chunk in row::chunks(rows) {
        let sql = format!(
            "INSERT INTO results (order_id, node, outcome, proven, answered_at_ms, answer) VALUES {} \
             ON CONFLICT (order_id, node) DO UPDATE SET outcome = excluded.outcome, proven = excluded.proven, \
             answered_at_ms = excluded.answered_at_ms, answer = excluded.answer",
            row::places(chunk.len(), 6)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (result, now) in chunk {
            query = query
                .bind(row::blob(result.order.uuid()))
                .bind(row::blob(result.node.uuid()))
                .bind(i32::from(now.outcome))
                .bind(now.proven)
                .bind(result.answered_at_ms)
                .bind(result.answer.as_ref().map(Message::encode_to_vec));
        }
        query.execute(&mut *conn).await?;
    }
    Ok(())
}

/// An upsert whose row always stands: found by the unique index, where UPDATE … FROM might scan the table.
async fn prove(conn: &mut SqliteConnection, rows: &[(Key, Standing)]) -> Result<(), Fail> {
    for chunk in row::chunks(rows) {
        let sql = format!(
            "INSERT INTO results (order_id, node, outcome, proven, answered_at_ms) VALUES {} \
             ON CONFLICT (order_id, node) DO UPDATE SET proven = excluded.proven",
            row::places(chunk.len(), 5)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for ((order, node), now) in chunk {
            query = query
                .bind(row::blob(order.uuid()))
                .bind(row::blob(node.uuid()))
                .bind(i32::from(now.outcome))
                .bind(now.proven)
                .bind(0_i64);
        }
        query.execute(&mut *conn).await?;
    }
    Ok(())
}

async fn progress(
    conn: &mut SqliteConnection,
    order: OrderId,
    moves: &[(Option<Standing>, Standing)],
) -> Result<OrderProgress, Fail> {
    let found = sqlx::query("SELECT nodes, proven, counts FROM orders WHERE id = ?")
        .bind(row::blob(order.uuid()))
        .fetch_one(&mut *conn)
        .await?;
    let list: Vec<u32> = row::json(&found, "counts")?;
    let mut counts = merge::from_list(&list, row::count(&found, "nodes")?, row::count(&found, "proven")?);
    for (old, new) in moves {
        merge::count(&mut counts, *old, *new);
    }
    let state = merge::state(&counts);
    sqlx::query("UPDATE orders SET state = ?, proven = ?, counts = ? WHERE id = ?")
        .bind(orders::state_number(state))
        .bind(counts.proven)
        .bind(row::to_json(&merge::to_list(&counts)))
        .bind(row::blob(order.uuid()))
        .execute(conn)
        .await?;
    Ok(OrderProgress { order, state, counts })
}

fn outcome(found: &SqliteRow) -> sqlx::Result<Outcome> {
    let number: i32 = found.try_get("outcome")?;
    Outcome::try_from(number).map_err(|error| sqlx::Error::ColumnDecode {
        index: "outcome".to_owned(),
        source: error.into(),
    })
}

fn read(found: &SqliteRow) -> sqlx::Result<ResultRecord> {
    let answer: Option<&[u8]> = found.try_get("answer")?;
    let answer = answer
        .map(Answer::decode)
        .transpose()
        .map_err(|error| sqlx::Error::ColumnDecode {
            index: "answer".to_owned(),
            source: error.into(),
        })?;
    Ok(ResultRecord {
        order: row::uuid(found, "order_id").map(OrderId::from_uuid)?,
        node: row::uuid(found, "node").map(NodeId::from_uuid)?,
        outcome: outcome(found)?,
        proven: found.try_get("proven")?,
        answered_at_ms: found.try_get("answered_at_ms")?,
        answer,
    })
}
