//! Backup and restore: what is copied, who may put it back, and what a crash leaves.

mod crash;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use controller::recovery::{Lock, RecoveryError, Source, backup, restore};
use controller::store::{SqliteStore, Store, StoreError};
use time::{Duration, OffsetDateTime};

use support::{World, approval, now};

#[tokio::test]
async fn a_backup_is_whole_private_and_never_overwrites() {
    let world = World::new().await;
    world.note("before").await;
    let made = backup(&world.backup(Some("secrets")), now())
        .await
        .expect("a copy");
    assert_eq!(
        fs::metadata(&made.out).expect("there").permissions().mode() & 0o777,
        0o600
    );
    let copy = SqliteStore::open(&made.out).await.expect("a database");
    assert_eq!(copy.check_whole().await.expect("whole"), made.head);
    copy.close().await.expect("closed");
    let secrets = fs::read_to_string(world.path("secrets")).expect("there");
    assert!(made.secrets.contains(&"pki.sealed".to_owned()) && secrets.contains("seal.key"));
    let bytes = fs::read(&made.out).expect("there");
    assert!(
        !bytes.windows(11).any(|window| window == b"PRIVATE KEY"),
        "a key in the copy of the database"
    );
    let error = backup(&world.backup(None), now())
        .await
        .expect_err("there already");
    assert!(error.to_string().contains("exists already"), "{error}");
}

#[tokio::test]
async fn two_support_people_restore_and_a_new_incarnation_begins() {
    let world = World::new().await;
    backup(&world.backup(None), now()).await.expect("a copy");
    world.note("after the backup").await;
    let wish = world.restore(&["alice", "bob"]);
    let restored = restore(&wish, now()).await.expect("restored");
    let seconds = u64::try_from(now().unix_timestamp()).expect("after 1970");
    assert!(
        restored.incarnation > 1 && restored.incarnation.abs_diff(seconds) < 100,
        "{restored}"
    );
    assert!(!world.notes().await.contains(&"after the backup".to_owned()));
    let entries = world.entries().await;
    let last = entries.last().expect("an entry");
    assert_eq!(last.said.action, "restore");
    assert_eq!(last.said.version.incarnation, restored.incarnation);
    assert!(
        last.said.detail.contains("approved by alice and bob"),
        "{}",
        last.said.detail
    );
    let aside = restored.aside.expect("the old one");
    let old = SqliteStore::open(&aside).await.map(drop);
    // It lies beside a mark that is not its own; what counts is that it is there, whole.
    assert!(
        matches!(old, Ok(()) | Err(StoreError::RolledBack { .. })),
        "{old:?}"
    );
    // The same backup again, in the same second: yet another life.
    let again = restore(&wish, now()).await.expect("restored again");
    assert!(again.incarnation > restored.incarnation, "{again}");
}

#[tokio::test]
async fn who_may_not_restore_is_told_why_and_nothing_changes() {
    let world = World::new().await;
    backup(&world.backup(None), now()).await.expect("a copy");
    world.note("after the backup").await;
    let refused = |wish| async move { restore(&wish, now()).await.expect_err("refused").to_string() };
    let words = refused(world.restore(&[])).await;
    assert!(
        words.contains("0 of 2 approvals") && words.contains("sign-restore"),
        "{words}"
    );
    let words = refused(world.restore(&["alice"])).await;
    assert!(words.contains("1 of 2 approvals"), "{words}");
    let words = refused(world.restore(&["alice", "alice"])).await;
    assert!(words.contains("alice has approved already"), "{words}");
    world.person("carol").await;
    let words = refused(world.restore(&["alice", "carol"])).await;
    assert!(words.contains("carol is not in the backup"), "{words}");
    // Signed for another file.
    let mut other = world.restore(&["alice", "bob"]);
    let text = approval(&world, "alice", b"another backup", now());
    fs::write(&other.approvals[0], text).expect("written");
    let words = refused(other.clone()).await;
    assert!(words.contains("for another backup"), "{words}");
    // With a certificate that has ended.
    other = world.restore(&["alice", "bob"]);
    let bytes = fs::read(world.path("copy")).expect("there");
    let text = approval(&world, "alice", &bytes, now() - Duration::days(200));
    fs::write(&other.approvals[0], text).expect("written");
    let words = refused(other).await;
    assert!(words.contains("certificate of alice has ended"), "{words}");
    // Changed after it was signed.
    let honest = world.restore(&["alice", "bob"]);
    let file = fs::OpenOptions::new()
        .append(true)
        .open(world.path("copy"))
        .expect("there");
    std::io::Write::write_all(&mut &file, b"x").expect("written");
    assert!(refused(honest).await.contains("for another backup"));
    assert!(world.notes().await.contains(&"after the backup".to_owned()));
    assert_eq!(world.incarnation().await, 1);
}

#[tokio::test]
async fn one_person_alone_stands_so_in_the_audit() {
    let world = World::new().await;
    backup(&world.backup(None), now()).await.expect("a copy");
    let mut wish = world.restore(&[]);
    wish.alone = Some("bob has left".to_owned());
    let restored = restore(&wish, now()).await.expect("restored");
    assert!(restored.people.is_empty());
    let entries = world.entries().await;
    let detail = &entries.last().expect("an entry").said.detail;
    assert!(
        detail.contains("ALONE, without a second person: bob has left"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_controller_that_serves_is_not_restored_under_its_feet() {
    let world = World::new().await;
    backup(&world.backup(None), now()).await.expect("a copy");
    let _serving = Lock::take(&world.dir).expect("free");
    let error = restore(&world.restore(&["alice", "bob"]), now())
        .await
        .expect_err("in use");
    assert!(matches!(error, RecoveryError::InUse { .. }), "{error}");
}

#[tokio::test]
async fn a_database_that_was_put_back_by_hand_is_noticed() {
    let world = World::new().await;
    let database = world.dir.join("redbutton.db");
    fs::copy(&database, world.path("by-hand")).expect("copied");
    world.reserve().await;
    fs::copy(world.path("by-hand"), &database).expect("put back");
    for end in ["-wal", "-shm"] {
        let _ = fs::remove_file(world.dir.join(format!("redbutton.db{end}")));
    }
    let error = SqliteStore::open(&database).await.err().expect("rolled back");
    assert!(matches!(error, StoreError::RolledBack { .. }), "{error}");
    assert!(error.to_string().contains("restore --in-place"), "{error}");
    let mut wish = world.restore(&[]);
    wish.source = Source::InPlace;
    wish.alone = Some("an old disk was mounted".to_owned());
    let restored = restore(&wish, now()).await.expect("restored");
    let store = SqliteStore::open(&database)
        .await
        .expect("a new life is above the mark");
    assert_eq!(store.incarnation().await.expect("read"), restored.incarnation);
    store.reserve_epochs(10).await.expect("goes on");
}

#[tokio::test]
async fn what_is_no_backup_is_refused_and_named() {
    let world = World::new().await;
    backup(&world.backup(None), now()).await.expect("a copy");
    let whole = fs::read(world.path("copy")).expect("there");
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("text", b"not a database at all, and longer than a header of one hundred bytes: no, no, no, no, no, no, no.".to_vec()),
        ("cut", whole[..whole.len() / 2].to_vec()),
    ] {
        fs::write(world.path("copy"), bytes).expect("written");
        let mut wish = world.restore(&[]);
        wish.alone = Some("test".to_owned());
        let error = restore(&wish, now()).await.expect_err(what);
        assert!(matches!(error, RecoveryError::Store(_)), "{what}: {error}");
        assert_eq!(world.incarnation().await, 1, "{what}");
    }
}

#[tokio::test]
async fn an_edited_audit_in_a_backup_is_found_before_it_takes_over() {
    let world = World::new().await;
    world.note("what really happened").await;
    backup(&world.backup(None), now()).await.expect("a copy");
    let copy = world.path("copy");
    let mut bytes = fs::read(&copy).expect("there");
    let words = b"what really happened";
    let at = bytes
        .windows(words.len())
        .position(|window| window == words)
        .expect("in the file");
    bytes[at..at + words.len()].copy_from_slice(b"what never  happened");
    fs::write(&copy, bytes).expect("written");
    let mut wish = world.restore(&[]);
    wish.alone = Some("test".to_owned());
    let error = restore(&wish, now()).await.expect_err("edited").to_string();
    assert!(
        error.contains("corrupt") && error.contains("audit entry"),
        "{error}"
    );
}

#[tokio::test]
async fn lost_keys_come_back_from_the_secrets_and_others_are_not_overwritten() {
    let world = World::new().await;
    backup(&world.backup(Some("secrets")), now())
        .await
        .expect("a copy");
    let key = fs::read_to_string(world.dir.join("seal.key")).expect("there");
    let mut wish = world.restore(&["alice", "bob"]);
    fs::remove_file(world.dir.join("seal.key")).expect("lost");
    wish.secrets = Some(world.path("secrets"));
    restore(&wish, now()).await.expect("restored");
    assert_eq!(fs::read_to_string(world.dir.join("seal.key")).expect("back"), key);
    fs::write(world.dir.join("seal.key"), "another").expect("written");
    let error = restore(&wish, now()).await.expect_err("another key").to_string();
    assert!(
        error.contains("seal.key is there already") && !error.contains("PRIVATE"),
        "{error}"
    );
    fs::write(
        world.path("secrets"),
        "format = 1\n[files]\n\"../evil.key\" = \"x\"\n",
    )
    .expect("written");
    let error = restore(&wish, now()).await.expect_err("a path").to_string();
    assert!(error.contains("no file of a state directory"), "{error}");
}

#[tokio::test]
async fn clocks_that_go_back_do_not_bring_an_incarnation_back() {
    let world = World::new().await;
    backup(&world.backup(None), now()).await.expect("a copy");
    let wish = world.restore(&["alice", "bob"]);
    let first = restore(&wish, now()).await.expect("restored");
    world.reserve().await;
    let mut wish = wish;
    wish.alone = Some("the clock is wrong".to_owned());
    let second = restore(&wish, OffsetDateTime::UNIX_EPOCH + Duration::days(1))
        .await
        .expect("restored");
    assert!(second.incarnation > first.incarnation, "{second}");
}
