//! Programs on the shelf, and rollouts. Apart from the trait `Store`: only the runner of rollouts asks.

use proto::{NodeId, PersonName, Version};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::fault::Fail;
use super::{SqliteStore, audit, row};
use crate::rollout::{Artifact, Head, Item};
use crate::store::{Note, Result};

/// A rollout as its row has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutRecord {
    /// Who it is.
    pub id: Uuid,
    /// The client's key: the same key from the same person is the same rollout.
    pub key: String,
    /// Who started it.
    pub person: PersonName,
    /// Why.
    pub reason: String,
    /// Of the programs.
    pub version: String,
    /// When.
    pub started_at_ms: i64,
    /// The decision; stands in the manifests.
    pub decided: Version,
    /// One for each architecture.
    pub artifacts: Vec<Artifact>,
    /// Where it stands.
    pub head: Head,
}

/// Most rollouts that a list shows.
const LISTED: i64 = 100;

impl SqliteStore {
    /// Notes a program; the same bytes again change nothing.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn add_software(&self, artifact: &Artifact, note: Note) -> Result<()> {
        let mut tx = self.write().await?;
        let done = add_software(tx.conn(), artifact, note).await;
        done.map_err(|e| self.fault(e))?;
        self.commit(tx, ()).await
    }

    /// Every program, newest first.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn software(&self) -> Result<Vec<Artifact>> {
        let mut conn = self.read().await?;
        software(&mut conn).await.map_err(|e| self.fault(e))
    }

    /// Starts a rollout, with all its nodes.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn start_rollout(&self, record: &RolloutRecord, items: &[Item], note: Note) -> Result<()> {
        let mut tx = self.write().await?;
        let done = start(tx.conn(), record, items, note).await;
        done.map_err(|e| self.fault(e))?;
        self.commit(tx, ()).await
    }

    /// Writes what has changed of a rollout.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn save_rollout(
        &self,
        id: Uuid,
        head: Option<(&Head, Version)>,
        items: &[Item],
        note: Option<Note>,
    ) -> Result<()> {
        if head.is_none() && items.is_empty() && note.is_none() {
            return Ok(());
        }
        let mut tx = self.write().await?;
        let done = save(tx.conn(), id, head, items, note).await;
        done.map_err(|e| self.fault(e))?;
        self.commit(tx, ()).await
    }

    /// Rollouts, newest first.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn rollouts(&self) -> Result<Vec<RolloutRecord>> {
        let mut conn = self.read().await?;
        rollouts(&mut conn).await.map_err(|e| self.fault(e))
    }

    /// The nodes of a rollout.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn rollout_items(&self, id: Uuid) -> Result<Vec<Item>> {
        let mut conn = self.read().await?;
        items(&mut conn, id).await.map_err(|e| self.fault(e))
    }
}

async fn add_software(
    conn: &mut SqliteConnection,
    artifact: &Artifact,
    note: Note,
) -> std::result::Result<(), Fail> {
    let Artifact {
        sha256,
        name,
        version,
        architecture,
        size,
        added_by,
        added_at_ms,
    } = artifact;
    let done = sqlx::query(
        "INSERT INTO software (sha256, name, version, architecture, size, added_by, added_at_ms) \
         VALUES (unhex(?), ?, ?, ?, ?, ?, ?) ON CONFLICT (sha256) DO NOTHING",
    )
    .bind(sha256.clone())
    .bind(name.clone())
    .bind(version.clone())
    .bind(architecture.clone())
    .bind(row::signed(*size))
    .bind(added_by.clone())
    .bind(*added_at_ms)
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() > 0 {
        audit::append(conn, note).await?;
    }
    Ok(())
}

async fn software(conn: &mut SqliteConnection) -> std::result::Result<Vec<Artifact>, Fail> {
    let rows = sqlx::query(
        "SELECT lower(hex(sha256)) AS sha256, name, version, architecture, size, added_by, added_at_ms \
         FROM software ORDER BY added_at_ms DESC, sha256 LIMIT 1000",
    )
    .fetch_all(conn)
    .await?;
    let artifact = |found: &SqliteRow| {
        Ok(Artifact {
            sha256: found.try_get("sha256")?,
            name: found.try_get("name")?,
            version: found.try_get("version")?,
            architecture: found.try_get("architecture")?,
            size: row::unsigned(found, "size")?,
            added_by: found.try_get("added_by")?,
            added_at_ms: found.try_get("added_at_ms")?,
        })
    };
    Ok(rows.iter().map(artifact).collect::<sqlx::Result<_>>()?)
}

async fn start(
    conn: &mut SqliteConnection,
    record: &RolloutRecord,
    items: &[Item],
    note: Note,
) -> std::result::Result<(), Fail> {
    let RolloutRecord {
        id,
        key,
        person,
        reason,
        version,
        started_at_ms,
        decided,
        artifacts,
        head,
    } = record;
    sqlx::query(
        "INSERT INTO rollouts (id, key, person, reason, version, started_at_ms, incarnation, epoch, artifacts, head) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(row::blob(*id))
    .bind(key.clone())
    .bind(person.to_string())
    .bind(reason.clone())
    .bind(version.clone())
    .bind(*started_at_ms)
    .bind(row::signed(decided.incarnation))
    .bind(row::signed(decided.epoch))
    .bind(row::to_json(artifacts))
    .bind(row::to_json(head))
    .execute(&mut *conn)
    .await?;
    save(conn, *id, None, items, Some(note)).await
}

async fn save(
    conn: &mut SqliteConnection,
    id: Uuid,
    head: Option<(&Head, Version)>,
    items: &[Item],
    note: Option<Note>,
) -> std::result::Result<(), Fail> {
    if let Some((head, decided)) = head {
        sqlx::query("UPDATE rollouts SET head = ?, incarnation = ?, epoch = ? WHERE id = ?")
            .bind(row::to_json(head))
            .bind(row::signed(decided.incarnation))
            .bind(row::signed(decided.epoch))
            .bind(row::blob(id))
            .execute(&mut *conn)
            .await?;
    }
    for item in items {
        sqlx::query(
            "INSERT INTO rollout_nodes (rollout, node, item) VALUES (?, ?, ?) \
             ON CONFLICT (rollout, node) DO UPDATE SET item = excluded.item",
        )
        .bind(row::blob(id))
        .bind(row::blob(item.node.uuid()))
        .bind(row::to_json(item))
        .execute(&mut *conn)
        .await?;
    }
    if let Some(note) = note {
        audit::append(conn, note).await?;
    }
    Ok(())
}

async fn rollouts(conn: &mut SqliteConnection) -> std::result::Result<Vec<RolloutRecord>, Fail> {
    let rows = sqlx::query(
        "SELECT id, key, person, reason, version, started_at_ms, incarnation, epoch, artifacts, head \
         FROM rollouts ORDER BY number DESC LIMIT ?",
    )
    .bind(LISTED)
    .fetch_all(conn)
    .await?;
    let record = |found: &SqliteRow| {
        Ok(RolloutRecord {
            id: row::uuid(found, "id")?,
            key: found.try_get("key")?,
            person: row::parse(found, "person")?,
            reason: found.try_get("reason")?,
            version: found.try_get("version")?,
            started_at_ms: found.try_get("started_at_ms")?,
            decided: Version {
                incarnation: row::unsigned(found, "incarnation")?,
                epoch: row::unsigned(found, "epoch")?,
            },
            artifacts: row::json(found, "artifacts")?,
            head: row::json(found, "head")?,
        })
    };
    Ok(rows.iter().map(record).collect::<sqlx::Result<_>>()?)
}

async fn items(conn: &mut SqliteConnection, id: Uuid) -> std::result::Result<Vec<Item>, Fail> {
    let rows = sqlx::query("SELECT node, item FROM rollout_nodes WHERE rollout = ?")
        .bind(row::blob(id))
        .fetch_all(conn)
        .await?;
    let item = |found: &SqliteRow| {
        let item: Item = row::json(found, "item")?;
        let node = NodeId::from_uuid(row::uuid(found, "node")?);
        Ok(Item { node, ..item })
    };
    Ok(rows.iter().map(item).collect::<sqlx::Result<_>>()?)
}
