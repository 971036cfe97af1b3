//! The one writer and its transaction.
//!
//! sqlx has transactions too. They count their depth, and SQLite rolls back by itself when the disk is full; the
//! count is wrong from then on and the connection useless. So: our own three statements, and a rollback that
//! may find nothing left to roll back.

use std::sync::Arc;

use sqlx::SqliteConnection;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// A write transaction. Dropped without [`Tx::commit`] it never happened.
pub(super) struct Tx {
    /// `None` once it is over.
    writer: Option<OwnedMutexGuard<SqliteConnection>>,
}

impl Tx {
    pub(super) async fn begin(writer: Arc<Mutex<SqliteConnection>>) -> sqlx::Result<Self> {
        // IMMEDIATE: take the write lock first, or a reader that turns writer fails with BUSY at once.
        let mut tx = Tx {
            writer: Some(writer.lock_owned().await),
        };
        sqlx::query("BEGIN IMMEDIATE").execute(tx.conn()).await?;
        Ok(tx)
    }

    pub(super) fn conn(&mut self) -> &mut SqliteConnection {
        self.writer
            .as_mut()
            .expect("only commit takes the writer, and commit consumes the transaction")
    }

    pub(super) async fn commit(mut self) -> sqlx::Result<()> {
        sqlx::query("COMMIT").execute(self.conn()).await?;
        self.writer = None;
        Ok(())
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        let Some(mut writer) = self.writer.take() else {
            return;
        };
        // The caller failed, or nobody waits for it any more. The next writer waits for the mutex until this is
        // done. Without a runtime the process is ending, and SQLite rolls back when the file is next opened.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // An error means that SQLite has rolled back already.
                let _ = sqlx::query("ROLLBACK").execute(&mut *writer).await;
            });
        }
    }
}
