//! Opening: fresh, ours, newer, not there.

use controller::store::{SqliteStore, Store, StoreError};

use crate::common::*;

async fn raw(place: &Place) -> sqlx::SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(place.path());
    sqlx::ConnectOptions::connect(&options).await.expect("open")
}

#[tokio::test]
async fn a_fresh_file_gets_the_whole_schema_and_keeps_it() {
    let place = Place::new();
    place.create().await.close().await.expect("closed");
    let store = place.open().await;
    add_site(&store, "princeton").await;
    let error = SqliteStore::create(&place.path())
        .await
        .err()
        .expect("there already");
    assert_eq!(
        error.to_string(),
        format!("database {:?} exists already", place.path().display().to_string())
    );
    store.close().await.expect("closed");
    let mut raw = raw(&place).await;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&mut raw)
        .await
        .expect("a word");
    assert_eq!(mode, "wal");
    let violations = sqlx::query("PRAGMA foreign_key_check")
        .fetch_all(&mut raw)
        .await
        .expect("checked");
    assert!(violations.is_empty());
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let place = Place::new();
    place.create().await.close().await.expect("closed");
    let mut conn = raw(&place).await;
    sqlx::query("INSERT INTO _sqlx_migrations VALUES (9999, 'later', 0, TRUE, x'00', 0)")
        .execute(&mut conn)
        .await
        .expect("inserted");
    sqlx::Connection::close(conn).await.expect("closed");
    let error = SqliteStore::open(&place.path()).await.err().expect("newer");
    assert!(matches!(error, StoreError::Newer { found: 9999, .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("has schema 9999, this program knows up to "),
        "{error}"
    );
}

#[tokio::test]
async fn a_store_that_is_not_there_is_not_made_by_opening() {
    let place = Place::new();
    let error = SqliteStore::open(&place.path())
        .await
        .err()
        .expect("nothing there");
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert!(error.to_string().contains("redbutton.db is not there"), "{error}");
    assert!(!place.path().exists());
    let error = SqliteStore::open(place.dir.path())
        .await
        .err()
        .expect("a directory");
    assert!(error.to_string().ends_with("is not a file"), "{error}");
}

#[tokio::test]
async fn a_store_that_was_open_to_others_is_closed_to_them() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.create().await.close().await.expect("closed");
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o644)).expect("set");
    let store = place.open().await;
    assert_eq!(
        std::fs::metadata(place.path())
            .expect("there")
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    assert_eq!(store.incarnation().await.expect("readable"), 1);
}
