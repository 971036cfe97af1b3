//! A disk that takes no more: the button works all the same, says so, and writes when it can.

use std::fs;
use std::io::Write;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use proto::v1;

use crate::world::*;

/// Runs the test where it alone sees a small disk: a tmpfs in a mount namespace of its own thread. Threads that it
/// starts inherit the namespace, which goes with the last of them.
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
            Some("size=8m"),
        )
        .expect("a tmpfs");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
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
fn on_a_full_disk_the_button_kills_says_so_and_writes_later() {
    with_small_disk(async |disk| {
        let mut world = World::empty_in(disk).await;
        world.start().await;
        world.furnish(&["n1@princeton"]).await;
        let node = world.node("n1");
        node.dial();
        node.attached(1).await;
        let (alice, dan) = (world.person("alice").await, world.person("dan").await);
        let ballast = disk.join("ballast");
        fill(&ballast);

        // What is left in the last page of the log may still do for a small write or two.
        let mut volatile = None;
        let mut pressed = 0;
        while volatile.is_none() && pressed < 20 {
            let reply = alice
                .press(&format!("k{pressed}"), kill("princeton_codeen", fleet()))
                .await
                .expect("pressed");
            pressed += 1;
            if !reply.durable {
                assert!(
                    reply.not_durable_reason.contains("disk"),
                    "{}",
                    reply.not_durable_reason
                );
                volatile = reply.order;
            }
        }
        let order = volatile.expect("the disk was full");
        let told = node.told(pressed).await;
        assert_eq!(
            told.last().expect("a command").order,
            order.id,
            "sent all the same"
        );
        let detail = alice.order_in(&order.id, v1::OrderState::Closed).await;
        assert!(
            detail.nodes[0].answer.is_some() && detail.nodes[0].proven,
            "the proof is kept in memory"
        );
        let listed = alice
            .orders()
            .list(v1::ListOrdersRequest::default())
            .await
            .expect("orders")
            .into_inner()
            .orders;
        assert!(listed.iter().any(|listed| listed.id == order.id));
        // The same press is the same order, and still not durable; a refusal waits for its audit entry.
        let key = format!("k{}", pressed - 1);
        let again = alice
            .press(&key, kill("princeton_codeen", fleet()))
            .await
            .expect("the same");
        assert!(!again.created && !again.durable);
        dan.press("no", kill("mit_chord", fleet()))
            .await
            .expect_err("refused");

        fs::remove_file(&ballast).expect("removed");
        until("the order to be durable", || async {
            let reply = alice
                .press(&key, kill("princeton_codeen", fleet()))
                .await
                .expect("the same");
            (reply.durable && !reply.created).then_some(())
        })
        .await;
        until("the proof to be durable", || async {
            let audit = world.audit().await;
            audit
                .iter()
                .any(|entry| entry.order == order.id && entry.outcome == "done")
                .then_some(())
        })
        .await;
        world.stop().await;
        world.start().await;
        let alice = world.person("alice").await;
        let detail = alice.order(&order.id).await;
        assert_eq!(
            detail.order.as_ref().expect("the order").state(),
            v1::OrderState::Closed
        );
        assert!(detail.nodes[0].proven && detail.nodes[0].answer.is_some());
        let audit = world.audit().await;
        let of_order = |outcome: &str| {
            audit
                .iter()
                .filter(|entry| entry.order == order.id && entry.outcome == outcome)
                .count()
        };
        assert_eq!((of_order("allowed"), of_order("done")), (1, 1));
        assert_eq!(
            audit
                .iter()
                .filter(|entry| entry.person == "dan" && entry.outcome == "refused")
                .count(),
            1
        );
        assert_eq!(node.orders().len(), pressed, "told again");
        world.stop().await;
    });
}
