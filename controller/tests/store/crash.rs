//! A process that dies in the middle, and a second process beside a running one. Both are this test program,
//! started again for one of the tests that are otherwise ignored.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use controller::store::{KeyStore, SqliteStore, Store};
use proto::Scope;

use crate::common::*;
use crate::keys;

const DATABASE: &str = "REDBUTTON_TEST_DATABASE";

fn child(test: &str, database: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", test, "--ignored", "--test-threads=1"])
        .env(DATABASE, database);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

async fn database() -> SqliteStore {
    let path = std::env::var_os(DATABASE).expect("run by another test only");
    SqliteStore::open(Path::new(&path)).await.expect("the store")
}

#[tokio::test]
#[ignore = "the child process of other tests"]
async fn child_presses() {
    let store = database().await;
    let order = kill("crash", "princeton_codeen", Scope::Fleet, 2);
    press(&store, &order).await;
}

#[tokio::test]
async fn a_crash_leaves_nothing_or_everything() {
    for (point, whole) in [
        ("controller.before-commit", false),
        ("controller.after-commit", true),
    ] {
        let place = Place::new();
        let store = place.create().await;
        add_site(&store, "princeton").await;
        add_node(&store, "a", "princeton").await;
        let block = store.reserve_epochs(1_000).await.expect("a block");
        store.close().await.expect("closed");

        let status = child("crash::child_presses", &place.path())
            .env("REDBUTTON_CRASH_AT", point)
            .status()
            .expect("started");
        assert_eq!(status.signal(), Some(nix::libc::SIGABRT), "{point}: {status}");

        let store = place.open().await;
        let order = store.order_by_key(&name("alice"), "crash").await.expect("a look");
        assert_eq!(order.is_some(), whole, "{point}");
        assert_eq!(
            store.holds().await.expect("holds").len(),
            usize::from(whole),
            "{point}"
        );
        assert_eq!(
            store.open_orders().await.expect("open").len(),
            usize::from(whole),
            "{point}"
        );
        assert_eq!(
            verified_audit(&store).await.len(),
            2 + usize::from(whole),
            "{point}"
        );
        let next = store.reserve_epochs(1_000).await.expect("a block");
        assert_eq!(next.start, block.end, "{point}: an epoch was handed out twice");
        // The client tries again with the same key, and gets one order.
        let again = kill("crash", "princeton_codeen", Scope::Fleet, 3);
        let done = store
            .commit_order(&again, press_note(&again))
            .await
            .expect("durable");
        assert_eq!(done.order().version.epoch, if whole { 2 } else { 3 }, "{point}");
        assert_eq!(store.holds().await.expect("holds").len(), 1, "{point}");
    }
}

#[tokio::test]
#[ignore = "the child process of other tests"]
async fn child_accepts() {
    let store = database().await;
    let invite = keys::invite(1, Some("alice"), keys::newcomer("bob", &[authz::Grant::Support]));
    store
        .use_invite(&keys::using(&invite, 2), note("accept-invite", "bob"))
        .await
        .expect("used");
}

#[tokio::test]
async fn a_crash_while_an_invite_is_used_leaves_it_open_or_used() {
    for (point, whole) in [
        ("controller.before-invite", false),
        ("controller.after-invite", true),
    ] {
        let place = Place::new();
        let store = place.create().await;
        add_person(&store, "alice", vec![authz::Grant::Support]).await;
        let invite = keys::invite(1, Some("alice"), keys::newcomer("bob", &[authz::Grant::Support]));
        keys::create(&store, &invite).await;
        store.close().await.expect("closed");

        let status = child("crash::child_accepts", &place.path())
            .env("REDBUTTON_CRASH_AT", point)
            .status()
            .expect("started");
        assert_eq!(status.signal(), Some(nix::libc::SIGABRT), "{point}: {status}");

        let store = place.open().await;
        assert_eq!(store.person(&name("bob")).await.is_ok(), whole, "{point}");
        assert_eq!(store.key(keys::spki(2)).await.is_ok(), whole, "{point}");
        let ties = store.ties(&name("alice"), &name("bob"), 0).await.expect("read");
        assert_eq!(ties.len(), usize::from(whole), "{point}");
        assert_eq!(
            verified_audit(&store).await.len(),
            2 + usize::from(whole),
            "{point}"
        );
        // Whoever was cut off tries again with the same key and gets in; nobody else does once it was used.
        let other = store
            .use_invite(&keys::using(&invite, 3), note("accept-invite", "bob"))
            .await;
        if whole {
            assert!(other.is_err(), "{point}");
            let again = store
                .use_invite(&keys::using(&invite, 2), note("accept-invite", "bob"))
                .await
                .expect("again");
            assert!(again.again, "{point}");
        } else {
            assert!(!other.expect("still open").again, "{point}");
        }
    }
}

#[tokio::test]
#[ignore = "the child process of other tests"]
async fn child_enrols() {
    let store = database().await;
    for n in 0..20 {
        add_node(&store, &format!("child-{n}"), "princeton").await;
    }
    store.close().await.expect("closed");
}

#[tokio::test]
async fn a_second_process_writes_beside_the_first() {
    let place = Place::new();
    let store = place.create().await;
    add_site(&store, "princeton").await;
    let mut child = child("crash::child_enrols", &place.path())
        .spawn()
        .expect("started");
    let mut epoch = 0;
    let status = loop {
        epoch += 1;
        press(
            &store,
            &kill(&format!("k{epoch}"), "princeton_codeen", Scope::Fleet, epoch),
        )
        .await;
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
    };
    assert!(status.success(), "the second process: {status}");
    let nodes = store.all_nodes().await.expect("nodes");
    assert_eq!(nodes.len(), 20);
    let entries = verified_audit(&store).await;
    assert_eq!(entries.len() as u64, 1 + 20 + epoch, "both wrote into one chain");
    // Every order reaches exactly the nodes that were there when it was committed.
    for (order, _) in store.open_orders().await.expect("open") {
        let there = nodes.iter().filter(|node| node.enrolled <= order.version).count();
        assert_eq!(order.counts.nodes as usize, there, "order {}", order.version);
    }
}

#[tokio::test]
async fn a_process_that_holds_the_lock_makes_the_store_busy_and_then_it_works_again() {
    let place = Place::new();
    let store = place.create().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(place.path());
    let mut hog = sqlx::ConnectOptions::connect(&options).await.expect("open");
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut hog)
        .await
        .expect("begun");
    let error = store.append_audit(note("x", "x")).await.expect_err("busy");
    assert!(
        matches!(error, controller::store::StoreError::Busy { .. }),
        "{error}"
    );
    assert!(error.is_transient());
    assert_eq!(store.audit_head().await.expect("readers never wait").sequence, 0);
    sqlx::query("ROLLBACK").execute(&mut hog).await.expect("ended");
    store.append_audit(note("x", "x")).await.expect("free again");
}

/// A press whose caller has gone away is rolled back or done, and the next one is not held up.
#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_writer_usable() {
    use std::task::{Context, Waker};
    let place = Place::new();
    let store = place.create().await;
    add_site(&store, "princeton").await;
    for (n, polls) in (1..=12).zip((1..).step_by(3)) {
        let gone = kill(&format!("gone{n}"), "princeton_codeen", Scope::Fleet, 2 * n);
        {
            let mut press = store.commit_order(&gone, press_note(&gone));
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..polls {
                if press.as_mut().poll(&mut context).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        press(
            &store,
            &kill(&format!("next{n}"), "princeton_codeen", Scope::Fleet, 2 * n + 1),
        )
        .await;
    }
    let entries = verified_audit(&store).await.len() as u64;
    let holds = store.holds().await.expect("holds").len() as u64;
    assert_eq!(
        entries,
        holds + 1,
        "an order without its entry, or an entry without its order"
    );
}
