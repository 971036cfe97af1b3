//! Files that are not what they should be: a clear error that names the path, and the file untouched.

use std::fs;

use controller::store::{SqliteStore, Store, StoreError};
use proto::Scope;

use crate::common::*;

/// A store with a few hundred pages.
async fn filled() -> Place {
    let place = Place::new();
    let store = place.create().await;
    add_site(&store, "princeton").await;
    for n in 1..=40 {
        let mut order = kill(&format!("k{n}"), "princeton_codeen", Scope::Fleet, n);
        order.reason = "x".repeat(1_000);
        order.target = "y".repeat(8_000);
        press(&store, &order).await;
    }
    store.close().await.expect("closed");
    place
}

async fn refused(place: &Place) -> String {
    let before = fs::read(place.path()).expect("readable");
    let error = SqliteStore::open(&place.path()).await.err().expect("corrupt");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert_eq!(
        fs::read(place.path()).expect("readable"),
        before,
        "the file was touched"
    );
    let text = error.to_string();
    assert!(
        text.contains(&place.path().display().to_string()),
        "{text} does not name the file"
    );
    text
}

#[tokio::test]
async fn an_empty_file_is_refused() {
    let place = Place::new();
    fs::write(place.path(), "").expect("written");
    assert!(refused(&place).await.ends_with("is corrupt: it is empty"));
}

#[tokio::test]
async fn something_else_is_refused() {
    let place = Place::new();
    fs::write(place.path(), "-----BEGIN CERTIFICATE-----\n".repeat(200)).expect("written");
    assert!(refused(&place).await.contains("file is not a database"));
}

#[tokio::test]
async fn a_truncated_file_is_refused() {
    let place = filled().await;
    let len = fs::metadata(place.path()).expect("there").len();
    for keep in [len / 2, 4_096, 100, 10] {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(place.path())
            .expect("open");
        file.set_len(keep).expect("cut");
        drop(file);
        refused(&place).await;
    }
}

#[tokio::test]
async fn a_page_of_garbage_is_refused() {
    let place = filled().await;
    let mut bytes = fs::read(place.path()).expect("readable");
    let middle = bytes.len() / 2 / 4_096 * 4_096;
    bytes[middle..middle + 4_096].fill(0xa5);
    fs::write(place.path(), bytes).expect("written");
    refused(&place).await;
}

#[tokio::test]
async fn a_row_that_cannot_be_is_corrupt_not_a_panic() {
    let place = Place::new();
    let store = place.create().await;
    add_site(&store, "princeton").await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(place.path());
    let mut raw = sqlx::ConnectOptions::connect(&options).await.expect("open");
    sqlx::query("INSERT INTO people VALUES ('Not A Name', '', '', 0)")
        .execute(&mut raw)
        .await
        .expect("inserted");
    let error = store
        .people(None, &Default::default())
        .await
        .expect_err("no such name");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("name"), "{error}");
}

/// A write-ahead log that was cut short in a crash is the ordinary case: what was not committed is not there.
#[tokio::test]
async fn a_torn_write_ahead_log_is_not_fatal() {
    let place = Place::new();
    let store = place.create().await;
    add_site(&store, "princeton").await;
    let copy = Place::new();
    fs::copy(place.path(), copy.path()).expect("copied");
    let wal = |place: &Place| place.dir.path().join("redbutton.db-wal");
    let log = fs::read(wal(&place)).expect("a log");
    fs::write(wal(&copy), &log[..log.len() - 100]).expect("written");
    let torn = copy.open().await;
    let error = torn
        .site(&name("princeton"))
        .await
        .expect_err("its commit was torn");
    assert_eq!(error.to_string(), "site \"princeton\" does not exist");
    verified_audit(&torn).await;
    add_site(&torn, "princeton").await;
}
