//! The audit chain: sealed in the transaction of what it speaks of.

use audit::{Draft, Entry, Hash, Head, seal};
use proto::OrderId;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::fault::Fail;
use super::row;
use crate::store::{AuditFilter, AuditPage, Note, PageRequest, Visible};

const COLUMNS: &str = "sequence, at_ms, person, role, action, target, reason, evidence, outcome, detail, order_id, \
                       incarnation, epoch, previous, hash";

pub(super) async fn head(conn: &mut SqliteConnection) -> Result<Head, Fail> {
    let last = sqlx::query("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1")
        .fetch_optional(conn)
        .await?;
    Ok(match last {
        Some(last) => Head {
            sequence: row::unsigned(&last, "sequence")?,
            hash: hash(&last, "hash")?,
        },
        None => Head::GENESIS,
    })
}

/// Only inside a write transaction: nobody else may take the same place.
pub(super) async fn append(conn: &mut SqliteConnection, note: Note) -> Result<Entry, Fail> {
    let Note { draft, about } = note;
    let entry = seal(&head(conn).await?, draft);
    let said = &entry.said;
    sqlx::query(
        "INSERT INTO audit (sequence, at_ms, person, role, action, target, reason, evidence, outcome, detail, \
         order_id, incarnation, epoch, previous, hash, about_slice, about_slice_site, about_site, about_node) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(row::signed(entry.sequence))
    .bind(said.at_ms)
    .bind(said.person.as_ref().map(ToString::to_string))
    .bind(said.role.map(proto::Role::as_str))
    .bind(said.action.clone())
    .bind(said.target.clone())
    .bind(said.reason.clone())
    .bind(said.evidence.clone())
    .bind(said.outcome.as_str())
    .bind(said.detail.clone())
    .bind(said.order.map(|order| row::blob(order.uuid())))
    .bind(row::signed(said.version.incarnation))
    .bind(row::signed(said.version.epoch))
    .bind(entry.previous.as_bytes().to_vec())
    .bind(entry.hash.as_bytes().to_vec())
    .bind(about.slice.as_ref().map(ToString::to_string))
    .bind(about.slice.as_ref().map(|slice| slice.site().to_string()))
    .bind(about.site.map(String::from))
    .bind(about.node.map(|node| row::blob(node.uuid())))
    .execute(conn)
    .await?;
    Ok(entry)
}

pub(super) async fn page(
    conn: &mut SqliteConnection,
    filter: &AuditFilter,
    before: Option<u64>,
    size: u32,
) -> Result<AuditPage, Fail> {
    let rows = PageRequest {
        size,
        token: String::new(),
    }
    .rows();
    let seen = Seen::new(&filter.visible);
    // Spelt out only where asked for, so that the indexes can serve it.
    let person = if filter.person.is_some() {
        "person = ?2"
    } else {
        "?2 IS NULL"
    };
    let order = if filter.order.is_some() {
        "order_id = ?4"
    } else {
        "?4 IS NULL"
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM audit WHERE sequence < ?1 AND {person} AND (?3 IS NULL OR target = ?3) AND {order} \
         AND (?5 OR person = ?6 OR about_slice IN (SELECT value FROM json_each(?7)) \
              OR about_slice_site IN (SELECT value FROM json_each(?8)) \
              OR about_site IN (SELECT value FROM json_each(?9))) \
         ORDER BY sequence DESC LIMIT ?10"
    );
    let found = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(
            before
                .and_then(|before| i64::try_from(before).ok())
                .unwrap_or(i64::MAX),
        )
        .bind(filter.person.as_ref().map(ToString::to_string))
        .bind(filter.target.clone())
        .bind(filter.order.map(|order| row::blob(order.uuid())))
        .bind(seen.all)
        .bind(seen.person)
        .bind(seen.slices)
        .bind(seen.slices_of)
        .bind(seen.nodes_of)
        .bind(i64::from(rows) + 1)
        .fetch_all(conn)
        .await?;
    let mut entries = found.iter().map(entry).collect::<sqlx::Result<Vec<_>>>()?;
    let more = entries.len() > rows as usize;
    entries.truncate(rows as usize);
    let next_before = if more {
        entries.last().map(|entry| entry.sequence)
    } else {
        None
    };
    entries.reverse();
    Ok(AuditPage { entries, next_before })
}

pub(super) async fn from(conn: &mut SqliteConnection, from: u64, limit: u32) -> Result<Vec<Entry>, Fail> {
    let sql = format!("SELECT {COLUMNS} FROM audit WHERE sequence >= ? ORDER BY sequence LIMIT ?");
    let found = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(i64::try_from(from).unwrap_or(i64::MAX))
        .bind(i64::from(limit.clamp(1, PageRequest::MAX)))
        .fetch_all(conn)
        .await?;
    Ok(found.iter().map(entry).collect::<sqlx::Result<_>>()?)
}

fn entry(row: &SqliteRow) -> sqlx::Result<Entry> {
    let said = Draft {
        at_ms: row.try_get("at_ms")?,
        version: row::version(row, "incarnation", "epoch")?,
        person: row::parse_opt(row, "person")?,
        role: row::role_opt(row, "role")?,
        action: row.try_get("action")?,
        target: row.try_get("target")?,
        reason: row.try_get("reason")?,
        evidence: row.try_get("evidence")?,
        outcome: row::parse(row, "outcome")?,
        detail: row.try_get("detail")?,
        order: row::uuid_opt(row, "order_id")?.map(OrderId::from_uuid),
    };
    Ok(Entry {
        sequence: row::unsigned(row, "sequence")?,
        said,
        previous: hash(row, "previous")?,
        hash: hash(row, "hash")?,
    })
}

fn hash(row: &SqliteRow, column: &str) -> sqlx::Result<Hash> {
    let bytes: &[u8] = row.try_get(column)?;
    Hash::try_from(bytes).map_err(|error| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: error.into(),
    })
}

/// [`Visible`] as statements take it: five parameters.
pub(super) struct Seen {
    pub(super) all: bool,
    pub(super) person: Option<String>,
    pub(super) slices: String,
    pub(super) slices_of: String,
    pub(super) nodes_of: String,
}

impl Seen {
    pub(super) fn new(visible: &Visible) -> Self {
        let nothing = || row::text_list::<String>([]);
        match visible {
            Visible::Nothing | Visible::All => Seen {
                all: *visible == Visible::All,
                person: None,
                slices: nothing(),
                slices_of: nothing(),
                nodes_of: nothing(),
            },
            Visible::Any {
                person,
                slices,
                slices_of,
                nodes_of,
            } => Seen {
                all: false,
                person: person.as_ref().map(ToString::to_string),
                slices: row::text_list(slices),
                slices_of: row::text_list(slices_of),
                nodes_of: row::text_list(nodes_of),
            },
        }
    }
}
