//! Creating and opening the file.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use tokio::sync::Mutex;

use super::SqliteStore;
use super::fault::{Fail, fault};
use crate::store::{Result, StoreError, high_water};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// How long a writer waits for another process. `issue` holds the lock for one fsync.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The write-ahead log is cut back to this after a burst.
const LOG_BYTES: u64 = 64 << 20;
/// Pages that a connection keeps, KiB: the results of a press of 10,000 nodes fit, so that none is written twice.
const CACHE_KIB: u32 = 8 << 10;
/// Readers at once; more wait their turn.
const READERS: u32 = 4;
/// Up to this size the whole file is checked when it is opened: well under a second. A larger one is checked
/// page by page, as SQLite comes across them.
const CHECK_AT_OPEN_BYTES: u64 = 64 << 20;

impl SqliteStore {
    /// Makes a new database, mode 0600. [`StoreError::Exists`] when there is something at `path`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn create(path: &Path) -> Result<Self> {
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        if let Err(error) = file {
            return Err(match error.kind() {
                std::io::ErrorKind::AlreadyExists => StoreError::exists("database", &path.display()),
                _ => other(path, format!("cannot be created: {error}")),
            });
        }
        Self::connect(path).await
    }

    /// Opens the database and brings its schema up to ours.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Corrupt`], [`StoreError::Newer`] and what the disk says.
    pub async fn open(path: &Path) -> Result<Self> {
        // By its name, never through a descriptor of our own: closing that would drop the POSIX locks that
        // another connection of this process may hold on the same file.
        let meta = fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => StoreError::Missing {
                path: path.to_owned(),
            },
            _ => other(path, format!("cannot be looked at: {error}")),
        })?;
        if !meta.is_file() {
            return Err(other(path, "is not a file".to_owned()));
        }
        if meta.len() == 0 {
            return Err(StoreError::Corrupt {
                path: path.to_owned(),
                message: "it is empty".to_owned(),
            });
        }
        if meta.permissions().mode() & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "database was open to others, its mode is 0600 now");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))
                .map_err(|error| other(path, format!("mode cannot be set to 0600: {error}")))?;
        }
        let store = Self::connect(path).await?;
        if let Some(known) = high_water::read(&high_water::beside(path))? {
            let found = store.handed_out().await?;
            if found < known {
                return Err(StoreError::RolledBack {
                    path: path.to_owned(),
                    found,
                    known,
                });
            }
        }
        Ok(store)
    }

    async fn connect(path: &Path) -> Result<Self> {
        let failed = |error: sqlx::Error| fault(path, Fail::Sql(error));
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .foreign_keys(true)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("journal_size_limit", LOG_BYTES.to_string())
            .pragma("cache_size", format!("-{CACHE_KIB}"))
            .disable_statement_logging();
        let writer = options
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .connect()
            .await;
        let mut writer = writer.map_err(|error| match failed(error) {
            // While serving this means a disk that takes nothing; here it is the file itself.
            StoreError::Full { path, message } => {
                other(&path, format!("cannot be opened for writing: {message}"))
            }
            error => error,
        })?;
        check(path, &mut writer).await?;
        migrate(path, &mut writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .acquire_timeout(2 * BUSY_TIMEOUT)
            .connect_with(options.read_only(true))
            .await
            .map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            writer: Arc::new(Mutex::new(writer)),
            readers,
        })
    }

    /// Closes every connection; the write-ahead log is folded into the file if nobody else has it open.
    ///
    /// # Errors
    /// What the disk says. Nothing that was committed is lost.
    pub async fn close(self) -> Result<()> {
        self.readers.close().await;
        let path = self.path;
        match Arc::try_unwrap(self.writer) {
            Ok(writer) => writer
                .into_inner()
                .close()
                .await
                .map_err(|e| fault(&path, Fail::Sql(e))),
            // A rollback still runs and closes the connection at its end.
            Err(_) => Ok(()),
        }
    }
}

fn other(path: &Path, message: String) -> StoreError {
    StoreError::Other {
        path: path.to_owned(),
        message,
    }
}

async fn check(path: &Path, conn: &mut SqliteConnection) -> Result<()> {
    let failed = |error: sqlx::Error| fault(path, Fail::Sql(error));
    // Reads the first page: refuses what is no database and what is shorter than its header says.
    sqlx::query("SELECT count(*) FROM sqlite_schema")
        .fetch_one(&mut *conn)
        .await
        .map_err(failed)?;
    if fs::metadata(path).is_ok_and(|meta| meta.len() <= CHECK_AT_OPEN_BYTES) {
        let row = sqlx::query("PRAGMA quick_check(1)")
            .fetch_one(&mut *conn)
            .await
            .map_err(failed)?;
        let message: String = row.try_get(0).map_err(failed)?;
        if message != "ok" {
            return Err(StoreError::Corrupt {
                path: path.to_owned(),
                message,
            });
        }
    }
    Ok(())
}

async fn migrate(path: &Path, conn: &mut SqliteConnection) -> Result<()> {
    let known = MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0);
    let found = schema(conn)
        .await
        .map_err(|error| fault(path, Fail::Sql(error)))?;
    if found == Some(known) {
        return Ok(());
    }
    if let Some(found) = found.filter(|found| *found > known) {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    let Err(error) = MIGRATIONS.run(&mut *conn).await else {
        return Ok(());
    };
    // Another process may have been faster: sqlx takes no lock on SQLite.
    if schema(conn).await.is_ok_and(|found| found == Some(known)) {
        return Ok(());
    }
    Err(match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            fault(path, Fail::Sql(error))
        }
        error => other(path, format!("schema: {error}")),
    })
}

/// The highest migration that was applied; `None`: none ever.
async fn schema(conn: &mut SqliteConnection) -> sqlx::Result<Option<i64>> {
    let there = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations'")
        .fetch_optional(&mut *conn)
        .await?;
    if there.is_none() {
        return Ok(None);
    }
    sqlx::query("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(&mut *conn)
        .await?
        .try_get(0)
}
