//! The controller killed at each step of an order: after the restart nothing is lost and nothing is doubled.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use proto::v1;

use crate::world::*;

/// The real program, killed when dropped.
pub(crate) struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself, which is what most of these tests want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) async fn start(world: &World, crash_at: Option<&str>) -> Program {
    let ready = world.dir.path().join("ready");
    let _ = std::fs::remove_file(&ready);
    let mut command = Command::new(env!("CARGO_BIN_EXE_redbutton-controller"));
    command
        .arg("serve")
        .arg("--state")
        .arg(world.state())
        .arg("--ready-file")
        .arg(&ready);
    command
        .arg("--people")
        .arg(world.people.to_string())
        .arg("--daemons")
        .arg(world.daemons.to_string());
    command
        .env("RUST_LOG", "warn")
        .env_remove("REDBUTTON_CRASH_AT")
        .stdout(Stdio::null());
    if let Some(point) = crash_at {
        command.env("REDBUTTON_CRASH_AT", point);
    }
    let program = Program(command.spawn().expect("starts"));
    let line = until("the controller to be ready", || async {
        std::fs::read_to_string(&ready).ok()
    })
    .await;
    assert_eq!(
        line,
        format!("ready people={} daemons={}\n", world.people, world.daemons)
    );
    program
}

pub(crate) async fn is_over(program: &mut Program) {
    until("the controller to crash", || {
        let over = program.0.try_wait().expect("a child");
        async move { over }
    })
    .await;
}

async fn crashed_at(point: &str) {
    let mut world = World::new(&["n1@princeton"]).await;
    world.stop().await;
    let mut program = start(&world, Some(point)).await;
    let node = world.node("n1");
    node.dial();
    node.attached(1).await;
    let alice = world.person("alice").await;
    let first = alice.press("k", kill("princeton_codeen", fleet())).await;
    is_over(&mut program).await;
    drop(program);
    let before = node.orders();

    let _program = start(&world, None).await;
    node.attached(2).await;
    let alice = world.person("alice").await;
    let again = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed again");
    assert_eq!(again.created, point == "controller.before-commit", "{point}");
    let order = again.order.expect("the order");
    if let Ok(first) = first {
        assert_eq!(first.order.expect("the order").id, order.id);
    }
    let detail = alice.order_in(&order.id, v1::OrderState::Closed).await;
    assert_eq!(detail.nodes[0].outcome(), v1::Outcome::Killed);
    assert!(detail.nodes[0].proven);
    let holds = alice
        .orders()
        .holds(v1::ListHoldsRequest::default())
        .await
        .expect("holds")
        .into_inner()
        .holds;
    assert_eq!(holds.len(), 1, "{point}");
    let told = node.orders();
    assert!(
        told.iter().all(|command| command.order == order.id),
        "{point}: {told:?}"
    );
    let expected = match point {
        "controller.before-commit" | "controller.after-commit" | "controller.after-record" => 1,
        // Its answer was lost: it is told again.
        _ => before.len() + 1,
    };
    assert_eq!(told.len(), expected, "{point}");
    let nows: Vec<_> = told
        .iter()
        .map(|command| command.now.expect("a version").epoch)
        .collect();
    assert!(nows.is_sorted(), "{point}: {nows:?}");
    let audit = world.audit().await;
    let allowed = audit
        .iter()
        .filter(|entry| entry.action == "kill-slice" && entry.outcome == "allowed")
        .count();
    assert_eq!(allowed, 1, "{point}");
    verify(&audit);
}

fn verify(entries: &[v1::AuditEntry]) {
    for (at, entry) in entries.iter().enumerate() {
        assert_eq!(entry.sequence, at as u64 + 1);
        if let Some(before) = at.checked_sub(1) {
            assert_eq!(entry.previous, entries[before].hash);
        }
    }
}

macro_rules! crashes {
    ($($test:ident = $point:literal,)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            crashed_at($point).await;
        }
    )* };
}

crashes! {
    before_the_commit = "controller.before-commit",
    after_the_commit = "controller.after-commit",
    after_sending = "controller.after-send",
    before_the_result_is_recorded = "controller.before-record",
    after_the_result_is_recorded = "controller.after-record",
}

#[test]
fn bad_configuration_exits_64_and_names_file_line_and_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("controller.toml");
    std::fs::write(&file, "[people]\n\ncolour = 3\n").expect("written");
    let run = |args: &[&Path]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_redbutton-controller"));
        let output = command
            .arg("serve")
            .arg("--config")
            .args(args)
            .output()
            .expect("runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, said) = run(&[&file]);
    assert_eq!(code, Some(64));
    assert!(
        said.contains("controller.toml, line 3") && said.contains("colour"),
        "{said}"
    );
    let (code, said) = run(&[&dir.path().join("absent.toml")]);
    assert_eq!(code, Some(64));
    assert!(said.contains("absent.toml"), "{said}");
    let (code, _) = run(&[&file, Path::new("--nonsense")]);
    assert_eq!(code, Some(64));
}
