//! Crashes, floods and liars: nothing is lost, no order forgotten, no sliver resurrected.

use std::net::TcpStream;

use anyhow::{Context, Result};
use hw_tests::fleet::{Fleet, unable, wait_for};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

macro_rules! fleet_or_skip {
    () => {
        match unable() {
            Some(reason) => {
                println!("skipped: {reason}");
                return Ok(());
            }
            None => Fleet::start()?,
        }
    };
}

/// Signal that `abort` ends a process with, as [`hw_tests::fleet::Daemon::ended`] gives it.
const ABORTED: i32 = -6;

const PRESS: &[&str] = &[
    "kill-slice",
    "princeton_codeen",
    "--reason",
    "floods",
    "--key",
    "one-press",
];

/// One press with one key, cut down at every step of the order, comes out as exactly one order and one hold, and
/// the slice is dead.
#[test]
fn kill_9_of_the_controller_at_every_step_of_an_order() -> Result<()> {
    if !cfg!(debug_assertions) {
        println!("skipped: crash points exist in debug builds only");
        return Ok(());
    }
    for point in [
        "before-commit",
        "after-commit",
        "after-send",
        "before-record",
        "after-record",
    ] {
        let mut fleet = fleet_or_skip!();
        fleet.site("princeton")?;
        fleet.slice("princeton_codeen")?;
        let index = fleet.node("planet1", "princeton", "")?;
        fleet.at(index).exec("princeton_codeen", &["/bin/sleep", "600"])?;
        fleet.kill_controller();
        fleet.crash_controller_at(Some(&format!("controller.{point}")));
        fleet.start_controller()?;
        fleet.attached("planet1")?;

        let pressed = fleet.redbutton("alice", &[PRESS, &["--timeout", "3"]].concat())?;
        assert_eq!(
            fleet.controller().ended()?,
            ABORTED,
            "{point}: {}",
            String::from_utf8_lossy(&pressed.stderr)
        );
        fleet.crash_controller_at(None);
        fleet.start_controller()?;
        // The person presses again, with the same key, not knowing what became of it.
        let (_, order) = fleet.json("alice", PRESS)?;
        let id = order["order"]["id"]
            .as_str()
            .with_context(|| format!("{point}: {order}"))?
            .to_owned();
        wait_for(&format!("{point}: a closed order"), || {
            let (code, order) = fleet.json("alice", &["order", "show", &id]).ok()?;
            (code == 0 && order["order"]["state"] == "closed").then_some(())
        })?;
        assert!(
            fleet.at(index).processes("princeton_codeen").is_empty(),
            "{point}: not dead"
        );
        let (_, orders) = fleet.json("alice", &["order", "ls"])?;
        assert_eq!(
            orders["orders"].as_array().map(Vec::len),
            Some(1),
            "{point}: {orders}"
        );
        let (_, holds) = fleet.json("alice", &["slice", "holds", "princeton_codeen"])?;
        assert_eq!(
            holds["holds"].as_array().map(Vec::len),
            Some(1),
            "{point}: {holds}"
        );
        let file = fleet.path("audit.jsonl").display().to_string();
        fleet.ask("alice", &["audit", "export", "--output", &file])?;
        fleet.ask("alice", &["audit", "verify", &file])?;
    }
    Ok(())
}

/// A node manager that dies in the middle of a kill leaves nothing alive once it is back, and its order is answered.
#[test]
fn kill_9_of_nodemgr_at_every_step_of_a_kill() -> Result<()> {
    if !cfg!(debug_assertions) {
        println!("skipped: crash points exist in debug builds only");
        return Ok(());
    }
    let mut fleet = fleet_or_skip!();
    fleet.site("princeton")?;
    for (number, point) in ["after-freeze", "after-kill", "after-write", "before-answer"]
        .into_iter()
        .enumerate()
    {
        let (slice, name) = (format!("princeton_s{number}"), format!("planet{number}"));
        fleet.slice(&slice)?;
        let index = fleet.node(&name, "princeton", "")?;
        fleet.at(index).exec(&slice, &["/bin/sleep", "600"])?;
        fleet.at(index).kill();
        fleet.away(&name)?;
        // The press finds the node away, so that the order meets it on its return, the crash point set.
        let (code, order) = fleet.json(
            "alice",
            &["slice", "kill", &slice, "--node", &name, "--reason", "x"],
        )?;
        assert_eq!(code, 2, "{point}: {order}");
        let id = order["order"]["id"].as_str().context("an order")?.to_owned();
        fleet.at(index).crash_at(Some(&format!("nodemgr.{point}")));
        fleet.at(index).start()?;
        assert_eq!(
            fleet.at(index).daemon().ended()?,
            ABORTED,
            "{point}: did not crash there"
        );
        fleet.at(index).crash_at(None);
        fleet.at(index).start()?;
        wait_for(&format!("{point}: a closed order"), || {
            let (code, order) = fleet.json("alice", &["order", "show", &id]).ok()?;
            (code == 0 && order["order"]["state"] == "closed").then_some(())
        })?;
        assert!(fleet.at(index).processes(&slice).is_empty(), "{point}: not dead");
        assert_eq!(
            fleet.at(index).try_exec(&slice, &["/bin/true"])?.0,
            5,
            "{point}: resurrected"
        );
    }
    Ok(())
}

/// Holds are obeyed by a node manager that comes back without any controller.
#[test]
fn holds_outlive_kill_9_without_a_controller() -> Result<()> {
    let mut fleet = fleet_or_skip!();
    fleet.site("princeton")?;
    fleet.slice("princeton_codeen")?;
    let index = fleet.node("planet1", "princeton", "")?;
    fleet.at(index).exec("princeton_codeen", &["/bin/sleep", "600"])?;
    assert_eq!(
        fleet
            .json("alice", &["kill-slice", "princeton_codeen", "--reason", "floods"])?
            .0,
        0
    );
    fleet.kill_controller();
    fleet.at(index).kill();
    fleet.at(index).start()?;
    let (code, said) = fleet.at(index).try_exec("princeton_codeen", &["/bin/true"])?;
    assert_eq!(code, 5, "{said}");
    Ok(())
}

/// Thousands of connections that say nothing, on both ports, and a press in the midst of them.
#[test]
fn half_open_connections_do_not_delay_a_press() -> Result<()> {
    const EACH: usize = 2_000;
    let mut fleet = fleet_or_skip!();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < 3 * EACH as u64 {
        println!("skipped: only {hard} descriptors are allowed");
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    fleet.site("princeton")?;
    fleet.slice("princeton_codeen")?;
    let index = fleet.node("planet1", "princeton", "")?;
    fleet.at(index).exec("princeton_codeen", &["/bin/sleep", "600"])?;
    let mut silent = Vec::new();
    for address in [fleet.people(), fleet.daemons()] {
        for _ in 0..EACH {
            silent.push(TcpStream::connect(&address)?);
        }
    }
    let (code, order) = fleet.json("alice", PRESS)?;
    assert_eq!(code, 0, "{order}");
    assert!(fleet.at(index).processes("princeton_codeen").is_empty());
    // A node that comes while they are still there attaches as well.
    fleet.node("planet2", "princeton", "")?;
    drop(silent);
    Ok(())
}

/// Certificates of one kind at the port of the other, and of another CA.
#[test]
fn nobody_enters_by_the_wrong_door() -> Result<()> {
    let fleet = fleet_or_skip!();
    fleet.site("princeton")?;
    let node = fleet.enrol("planet1", "princeton")?;
    let try_as = |bundle: &std::path::Path| -> Result<i32> {
        let status = std::process::Command::new(hw_tests::fleet::program("redbutton")?)
            .args(["--bundle"])
            .arg(bundle)
            .args(["--controller", &fleet.people(), "--timeout", "2", "whoami"])
            .output()?;
        Ok(status.status.code().unwrap_or(-1))
    };
    assert_eq!(try_as(&fleet.bundle("alice"))?, 0);
    assert_ne!(try_as(&node)?, 0, "a node's certificate was taken for a person's");
    let other = Fleet::start()?;
    assert_ne!(
        try_as(&other.bundle("alice"))?,
        0,
        "the certificate of another CA was taken"
    );
    Ok(())
}
