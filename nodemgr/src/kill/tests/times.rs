//! Numbers, not verdicts: `cargo test --lib kill::tests::times -- --ignored --nocapture`. The bar is judged by
//! `cargo xtask bench kill-local`.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Engine, Outcome, Plan};
use super::reap;
use crate::cgroup::Sliver;
use crate::cgroup::testing::{Ground, until};
use crate::guard::Guard;
use crate::prepare;

/// Forks fast, without exec: each child waits for input that never comes.
fn crowd(ground: &Ground, sliver: &Sliver, count: usize) -> Child {
    let procs = ground.mount.root().join(sliver.path()).join("cgroup.procs");
    let script =
        "exec 3<&0; echo 0 > \"$1\"; i=0; while [ $i -lt $2 ]; do (read x <&3) & i=$((i+1)); done; wait";
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script, "sh"])
        .arg(procs)
        .arg(count.to_string())
        .stdin(Stdio::piped());
    let child = shell.spawn().expect("a shell");
    let mut last = 0;
    while last < count + 1 {
        let before = last;
        until("the crowd grows", || {
            last = sliver.pids().expect("a list").len();
            last > before
        });
    }
    child
}

/// What the bar compares with: a write to cgroup.kill, and the wait.
fn bare(ground: &Ground, sliver: &Sliver) -> Duration {
    let file = ground.mount.root().join(sliver.path()).join("cgroup.kill");
    let began = Instant::now();
    fs::write(file, "1").expect("killed");
    while sliver.events().expect("events").populated {
        std::thread::sleep(Duration::from_micros(500));
    }
    began.elapsed()
}

#[test]
#[ignore = "a measurement"]
fn ours_and_the_bare_write_in_turn() {
    let Some(ground) = Ground::new() else { return };
    let guard = ground.guard(&[]);
    let mut engine = Engine::new("/proc".as_ref()).expect("an engine");
    let bare_kill = Plan {
        evidence: false,
        census: false,
        ..Plan::default()
    };
    let with_evidence = Plan {
        evidence: true,
        ..bare_kill.clone()
    };
    for count in [1_000, 10_000] {
        let mut took = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..7 {
            for (kind, times) in took.iter_mut().enumerate() {
                let sliver = Arc::new(ground.sliver(&format!("c{count}-{round}-{kind}")));
                let child = crowd(&ground, &sliver, count);
                times.push(match kind {
                    0 => bare(&ground, &sliver),
                    1 => press(&ground, &guard, &mut engine, sliver, &bare_kill),
                    _ => press(&ground, &guard, &mut engine, sliver, &with_evidence),
                });
                reap(child);
            }
        }
        for (name, mut times) in ["bare", "ours", "ours, with evidence"].into_iter().zip(took) {
            times.sort_unstable();
            println!(
                "{count} {name}: least {:?}, median {:?}",
                times[0],
                times[times.len() / 2]
            );
        }
    }
}

/// As the daemon does it: on a prepared thread.
fn press(ground: &Ground, guard: &Guard, engine: &mut Engine, sliver: Arc<Sliver>, plan: &Plan) -> Duration {
    let on_thread = || {
        let _ = prepare::kill_thread(&ground.mount, "/proc".as_ref());
        let began = Instant::now();
        let mut press = engine.begin(&[sliver], guard);
        press.strike(plan);
        assert!(press.wait());
        let took = began.elapsed();
        let report = press.finish().pop().expect("a report");
        assert_eq!(report.outcome, Outcome::Killed, "{report:?}");
        println!(
            "  of {took:?}: freeze {} us ({}), evidence {} us, kill {} us",
            report.freeze_us, report.frozen, report.evidence_us, report.kill_us
        );
        took
    };
    std::thread::scope(|scope| scope.spawn(on_thread).join().expect("no panic"))
}
