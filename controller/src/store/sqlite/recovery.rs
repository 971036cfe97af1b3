//! What backup and restore ask of the file.

use std::path::Path;

use proto::Version;
use sqlx::Row;

use super::{SqliteStore, nodes};
use crate::store::{Note, PageRequest, Result, StoreError};

impl SqliteStore {
    /// The life of this database, and the highest epoch that it has handed out.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn handed_out(&self) -> Result<Version> {
        let mut conn = self.read().await?;
        nodes::handed_out(&mut conn).await.map_err(|e| self.fault(e))
    }

    /// Begins another life of the database, higher than the present one and than `above`. `note` makes the audit entry
    /// of it. Whoever serves from this database must start anew.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn begin_incarnation(
        &self,
        above: u64,
        note: impl FnOnce(Version) -> Note + Send,
    ) -> Result<u64> {
        let mut tx = self.write().await?;
        let next = nodes::begin_incarnation(tx.conn(), above, note)
            .await
            .map_err(|e| self.fault(e))?;
        self.commit(tx, next).await
    }

    /// Writes a whole, compact copy as of now to `path`, where nothing may be. Readers and the writer go on.
    ///
    /// # Errors
    /// See [`StoreError`]. Then `path` may hold a part of it.
    pub async fn copy_into(&self, path: &Path) -> Result<()> {
        let mut conn = self.read().await?;
        let to = path.to_string_lossy().into_owned();
        sqlx::query("VACUUM INTO ?")
            .bind(to)
            .execute(&mut *conn)
            .await
            .map(drop)
            .map_err(|e| self.fault(e.into()))
    }

    /// Looks at every page, and at every entry of the audit chain.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the first thing that is wrong.
    pub async fn check_whole(&self) -> Result<::audit::Head> {
        let corrupt = |message: String| StoreError::Corrupt {
            path: self.path.clone(),
            message,
        };
        let mut conn = self.read().await?;
        let row = sqlx::query("PRAGMA integrity_check(1)")
            .fetch_one(&mut *conn)
            .await
            .map_err(|e| self.fault(e.into()))?;
        let message: String = row.try_get(0).map_err(|e| self.fault(e.into()))?;
        if message != "ok" {
            return Err(corrupt(message));
        }
        drop(conn);
        let mut verifier = ::audit::Verifier::new(None, &[]);
        let mut from = 1;
        loop {
            let entries = crate::store::Store::audit_from(self, from, PageRequest::MAX).await?;
            let Some(last) = entries.last() else {
                break;
            };
            from = last.sequence.saturating_add(1);
            for entry in &entries {
                verifier.push(entry);
            }
        }
        let verified = verifier.finish().map_err(|fault| corrupt(fault.to_string()))?;
        Ok(verified.head)
    }
}
