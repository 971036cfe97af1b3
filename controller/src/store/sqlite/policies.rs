//! [`PolicyStore`] in SQLite.

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};

use super::SqliteStore;
use super::fault::Fail;
use super::row;
use crate::store::{PolicyRecord, PolicyStore, Result};

#[async_trait]
impl PolicyStore for SqliteStore {
    async fn policies(&self) -> Result<Vec<PolicyRecord>> {
        let mut conn = self.read().await?;
        all(&mut conn).await.map_err(|e| self.fault(e))
    }

    async fn save_policies(&self, records: &[PolicyRecord]) -> Result<()> {
        let mut tx = self.write().await?;
        save(tx.conn(), records).await.map_err(|e| self.fault(e))?;
        self.commit(tx, ()).await
    }
}

async fn all(conn: &mut SqliteConnection) -> std::result::Result<Vec<PolicyRecord>, Fail> {
    let rows = sqlx::query("SELECT site, content, incarnation, epoch, issued_at_ms FROM policies")
        .fetch_all(conn)
        .await?;
    let record = |found: &sqlx::sqlite::SqliteRow| -> sqlx::Result<PolicyRecord> {
        let content: Vec<u8> = found.try_get("content")?;
        Ok(PolicyRecord {
            site: row::parse(found, "site")?,
            content: content
                .try_into()
                .map_err(|_| sqlx::Error::Decode("content is not 32 bytes".into()))?,
            version: row::version(found, "incarnation", "epoch")?,
            issued_at_ms: found.try_get("issued_at_ms")?,
        })
    };
    Ok(rows.iter().map(record).collect::<sqlx::Result<_>>()?)
}

/// SQLite's integers have a sign; neither counter gets that far.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

async fn save(conn: &mut SqliteConnection, records: &[PolicyRecord]) -> std::result::Result<(), Fail> {
    for record in records {
        sqlx::query(
            "INSERT INTO policies (site, content, incarnation, epoch, issued_at_ms) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (site) DO UPDATE SET content = excluded.content, incarnation = excluded.incarnation, \
             epoch = excluded.epoch, issued_at_ms = excluded.issued_at_ms",
        )
        .bind(record.site.as_str())
        .bind(record.content.as_slice())
        .bind(signed(record.version.incarnation))
        .bind(signed(record.version.epoch))
        .bind(record.issued_at_ms)
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}
