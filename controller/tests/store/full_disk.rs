//! A disk that takes no more: a tmpfs of a few MiB in a mount namespace of this test's own thread.

use std::fs;
use std::io::Write;
use std::path::Path;

use controller::store::{SqliteStore, Store, StoreError};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use proto::Scope;
use proto::v1::Outcome;

use crate::common::*;

/// Runs the test where it alone sees the small disk. Threads that it starts (SQLite's) inherit the namespace,
/// which goes with the last of them.
fn with_small_disk(test: impl AsyncFnOnce(&Path) + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: a mount namespace needs root");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_owned();
    let thread = std::thread::spawn(move || {
        let nothing = None::<&str>;
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
            println!("skipped: no mount namespace: {error}");
            return;
        }
        mount(
            nothing,
            "/",
            nothing,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            nothing,
        )
        .expect("private mounts");
        mount(
            Some("small"),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=6m"),
        )
        .expect("a tmpfs");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(test(&path));
    });
    thread.join().expect("the test on the small disk");
}

fn fill(path: &Path) {
    let mut ballast = fs::File::create(path).expect("a file");
    let piece = vec![0; 4_096];
    while ballast.write_all(&piece).is_ok() {}
}

#[test]
fn a_full_disk_is_said_and_gets_over() {
    with_small_disk(async |dir| {
        let ballast = dir.join("ballast");
        let store = SqliteStore::create(&dir.join("redbutton.db"))
            .await
            .expect("a new store");
        add_site(&store, "princeton").await;
        let node = add_node(&store, "a", "princeton").await;
        let before = press(&store, &kill("before", "princeton_codeen", Scope::Fleet, 1)).await;
        for round in 0..3 {
            fill(&ballast);
            let epoch = 10 * (round + 1);
            // What is left in the last page of the log may still do for one small write.
            let mut refused = None;
            for n in 0..8 {
                let order = kill(
                    &format!("full-{round}-{n}"),
                    "princeton_codeen",
                    Scope::Fleet,
                    epoch + n,
                );
                match store.commit_order(&order, press_note(&order)).await {
                    Ok(_) => {}
                    Err(error) => {
                        assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
                        assert!(
                            error.is_transient() && error.to_string().contains("redbutton.db"),
                            "{error}"
                        );
                        refused = Some(order);
                        break;
                    }
                }
            }
            let refused = refused.expect("the disk was full");
            let key = refused.key.clone();
            assert!(
                store
                    .order_by_key(&name("alice"), &key)
                    .await
                    .expect("readable")
                    .is_none(),
                "half an order"
            );
            let answer = [result(before.id, node, Outcome::Killed, true)];
            if round == 0 {
                let error = store.record_results(&answer).await.expect_err("full");
                assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
                let error = store.reserve_epochs(1_000).await.expect_err("full");
                assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
            }

            fs::remove_file(&ballast).expect("removed");
            // The very same order, kept in memory meanwhile, is written now.
            press(&store, &refused).await;
            store.record_results(&answer).await.expect("space again");
            verified_audit(&store).await;
        }
        assert_eq!(store.results(before.id).await.expect("rows").len(), 1);
        store.close().await.expect("closed");
        let store = SqliteStore::open(&dir.join("redbutton.db")).await.expect("whole");
        verified_audit(&store).await;
    });
}
