//! A state directory of the version before, taken up by this one.

use std::path::Path;

use proto::bundle::Bundle;
use proto::v1;

use crate::world::*;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("the fixture") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("a file");
        }
    }
}

/// Do not change the fixture: it is what the version before left on people's disks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_bundles_work_on_and_their_keys_are_enrolled_at_first_sight() {
    let mut world = World::empty().await;
    std::fs::remove_dir_all(world.state()).expect("ours");
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/state-v1"),
        &world.state(),
    );
    world.start().await;
    for (file, to) in [("alice", "alice"), ("n1", "n1")] {
        std::fs::copy(
            world.state().join(format!("bundles/{file}.bundle")),
            world.bundle_of(to),
        )
        .expect("a bundle");
    }
    let before = Bundle::parse(&std::fs::read_to_string(world.bundle_of("n1")).expect("a file"));
    assert!(before.is_ok(), "format 1");
    let node = world.node("n1").with_keys(&world.dir.path().join("n1"));
    node.dial();
    node.attached(1).await;
    let alice = world.person("alice").await;
    let who = alice
        .people()
        .who_am_i(v1::WhoAmIRequest {})
        .await
        .expect("known")
        .into_inner();
    assert_eq!(who.person.expect("somebody").name, "alice");
    let adopted: Vec<String> = world
        .audit()
        .await
        .into_iter()
        .filter(|entry| entry.action == "adopt-key")
        .map(|entry| entry.target)
        .collect();
    assert_eq!(adopted.len(), 2, "{adopted:?}");
    for name in ["ca.key", "controller.key", "controller.pem"] {
        assert!(!world.state().join(name).exists(), "{name}");
    }

    // And so after a restart.
    world.stop().await;
    world.start().await;
    node.attached(2).await;
    world.person("alice").await;
}
