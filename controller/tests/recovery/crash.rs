//! kill -9 at each step of a restore: the old controller or the restored one, never half of either.

use std::process::Command;

use controller::recovery::{Lock, backup, finish_restore};
use controller::store::{SqliteStore, StoreError};

use crate::support::{World, now};

#[tokio::test]
async fn a_restore_that_dies_at_any_step_leaves_one_or_the_other() {
    for (point, restored) in [
        ("controller.restore.copied", false),
        ("controller.restore.before-ready", false),
        ("controller.restore.after-ready", true),
        ("controller.restore.aside", true),
        ("controller.restore.in-place", true),
    ] {
        let world = World::new().await;
        backup(&world.backup(None), now()).await.expect("a copy");
        world.note("after the backup").await;
        let died = Command::new(env!("CARGO_BIN_EXE_redbutton-controller"))
            .args(["restore", "--alone", "--reason", "a crash test", "--from"])
            .arg(world.path("copy"))
            .arg("--state")
            .arg(&world.dir)
            .env("REDBUTTON_CRASH_AT", point)
            .output()
            .expect("run");
        assert!(!died.status.success(), "{point} was not reached");
        // As the next start does it.
        let lock = Lock::take(&world.dir).expect("a crash lets go");
        finish_restore(&world.dir, &lock).expect(point);
        assert!(!world.dir.join("restoring").exists(), "{point}");
        let kept = world.notes().await.contains(&"after the backup".to_owned());
        assert_eq!(kept, !restored, "{point}");
        assert_eq!(world.incarnation().await > 1, restored, "{point}");
        let aside = std::fs::read_dir(&world.dir)
            .expect("there")
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                name.strip_prefix("redbutton.db.before-")
                    .is_some_and(|rest| !rest.contains('-'))
            });
        assert_eq!(aside.is_some(), restored, "{point}");
        if let Some(aside) = aside {
            let opened = SqliteStore::open(&aside).await.map(drop);
            assert!(
                matches!(opened, Ok(()) | Err(StoreError::RolledBack { .. })),
                "{point}: {opened:?}"
            );
        }
    }
}
