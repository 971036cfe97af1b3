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
    for count in [1_000, 10_000] {
        let mut took = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..5 {
            for (kind, times) in took.iter_mut().enumerate() {
                let sliver = Arc::new(ground.sliver(&format!("c{count}-{round}-{kind}")));
                let child = crowd(&ground, &sliver, count);
                let plan = match kind {
                    0 => {
                        times.push(bare(&ground, &sliver));
                        reap(child);
                        continue;
                    }
                    1 => Plan {
                        evidence: false,
                        ..Plan::default()
                    },
                    _ => Plan {
                        evidence: false,
                        freeze: Duration::ZERO,
                        ..Plan::default()
                    },
                };
                let began = Instant::now();
                let mut press = engine.begin(&[sliver], &guard);
                press.strike(&plan);
                assert!(press.wait());
                times.push(began.elapsed());
                let report = press.finish().pop().expect("a report");
                assert_eq!(report.outcome, Outcome::Killed);
                println!(
                    "  {count} kind {kind}: {:?} freeze {} us kill {} us, all {:?}, killed {:?} zombies {:?} {}",
                    times[times.len() - 1],
                    report.freeze_us,
                    report.kill_us,
                    began.elapsed(),
                    report.killed,
                    report.zombies,
                    report.detail
                );
                reap(child);
            }
        }
        let medians = took.map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2]
        });
        println!(
            "{count}: bare {:?}, ours {:?}, ours without waiting for the freeze {:?}",
            medians[0], medians[1], medians[2]
        );
    }
}
