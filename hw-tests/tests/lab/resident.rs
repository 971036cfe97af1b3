//! The lab that a person plays with, as `cargo xtask lab` drives it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use hw_tests::fleet::{Daemon, program};
use hw_tests::lab;

fn run(command: &mut Command) -> Result<(bool, String)> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    Ok((status.success(), text))
}

#[test]
fn a_stranger_looks_breaks_presses_and_mends() -> Result<()> {
    if let Some(reason) = lab::unable() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let mut serve = Command::new(program("redbutton-lab")?);
    serve.arg("serve").arg("--folder").arg(folder.path()).arg("2");
    let mut resident = Daemon::start("redbutton-lab", &mut serve, &log)?;
    resident.wait_for_at_most(lab::CAP, "the lab", || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.lines().any(|line| line == "lab: up").then_some(())
    })?;
    let result = play(folder.path());
    if result.is_err() {
        resident.show_tail();
    }
    // Everything that it started goes with it: the isolation fails the run otherwise.
    resident.stop()?;
    result
}

fn play(folder: &Path) -> Result<()> {
    let ask = |words: &[&str]| -> Result<(bool, String)> {
        let mut ask = Command::new(program("redbutton-lab")?);
        run(ask.arg("ask").arg("--folder").arg(folder).args(words))
    };
    let inside = |words: &[&str]| run(Command::new(folder.join("enter")).args(words));

    let (good, said) = ask(&["status"])?;
    ensure!(
        good && said.contains("planet2") && said.contains("lab break planet1 forkbomb"),
        "{said}"
    );
    let (good, said) = inside(&["redbutton", "node", "ls"])?;
    ensure!(good && said.matches("attached").count() == 2, "{said}");
    let (good, said) = inside(&["ssh", "planet1", "hostname"])?;
    ensure!(good && said.trim() == "planet1", "{said}");

    let (good, said) = ask(&["break", "planet1", "cpu"])?;
    ensure!(good && said.contains("princeton_runaway"), "{said}");
    let press = [
        "redbutton",
        "kill-slice",
        "princeton_runaway",
        "--reason",
        "spins",
    ];
    let (good, said) = inside(&press)?;
    ensure!(good && said.contains("killed"), "{said}");

    let (good, said) = ask(&["break", "planet1", "network"])?;
    ensure!(good, "{said}");
    let (good, said) = ask(&["mend", "planet1"])?;
    ensure!(good && said.contains("attached"), "{said}");

    for (words, expected) in [
        (
            ["break", "planet9", "cpu"].as_slice(),
            "no node is called \"planet9\"; there are planet1, planet2",
        ),
        (
            &["break", "planet1", "rust"],
            "no fault is called \"rust\"; there are fds,",
        ),
        (&["dance"], "the lab knows status"),
    ] {
        let (good, said) = ask(words)?;
        ensure!(!good && said.contains(expected), "{words:?}: {said}");
    }
    // The machine's own names are as they were: the lab has a view of its own.
    let hosts = std::fs::read_to_string("/etc/hosts").context("/etc/hosts")?;
    ensure!(!hosts.contains("planet1"), "{hosts}");
    Ok(())
}
