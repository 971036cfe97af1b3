//! Makes the golden files of a release: what its programs leave on disks, which every later release must read.
//! docs/versions.md says when. Nothing is made unless it is asked for:
//!
//! `REDBUTTON_GOLDEN=FOLDER REDBUTTON_PREVIOUS=PROGRAMS cargo xtask isolate -- cargo test -p redbutton-hw-tests
//! --test golden`

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use hw_tests::fleet::{Fleet, Place, unable};
use hw_tests::previous::release;

#[test]
fn golden_files_of_a_release() -> Result<()> {
    let Some(out) = std::env::var_os("REDBUTTON_GOLDEN").map(PathBuf::from) else {
        println!("skipped: REDBUTTON_GOLDEN names no folder");
        return Ok(());
    };
    if let Some(reason) = unable() {
        bail!("no fleet can be made here: {reason}");
    }
    let (_, programs) = release()?.map_err(anyhow::Error::msg)?;
    std::fs::create_dir_all(&out)?;
    let mut fleet = Fleet::start_of(Place::here()?, "", programs)?;
    fleet.site("princeton")?;
    fleet.site("berkeley")?;
    for slice in ["princeton_codeen", "princeton_quiet", "berkeley_oasis"] {
        fleet.slice(slice)?;
    }
    fleet.person("pat", &["--role", "pi", "--site", "princeton"])?;
    fleet.person("dev", &["--role", "developer", "--slice", "berkeley_oasis"])?;
    let node = fleet.node("planet1", "princeton", "state_bytes = 65536\n")?;
    // Enrolled and never there: an order on it stays open.
    fleet.enrol("planet2", "berkeley")?;
    for slice in ["princeton_codeen", "princeton_quiet", "berkeley_oasis"] {
        fleet.at(node).exec(slice, &["/bin/sleep", "600"])?;
    }
    let press = |person: &str, words: &[&str]| {
        fleet.json(person, &[words, &["--reason", "golden", "--no-wait"]].concat())
    };
    press("alice", &["slice", "kill", "princeton_codeen"])?;
    press(
        "pat",
        &["slice", "freeze", "princeton_quiet", "--node", "planet1"],
    )?;
    press("dev", &["slice", "kill", "berkeley_oasis", "--node", "planet1"])?;
    press("dev", &["slice", "release", "berkeley_oasis"])?;
    press("dev", &["slice", "kill", "princeton_codeen"])?;
    hw_tests::fleet::wait_for("the orders' answers", || {
        let (_, orders) = fleet.json("alice", &["order", "ls"]).ok()?;
        let orders = orders["orders"].as_array()?.clone();
        let open = orders.iter().filter(|order| order["state"] != "closed").count();
        (orders.len() == 4 && open == 1).then_some(())
    })?;
    fleet.attached("planet1")?;
    let audit = out.join("audit.jsonl");
    fleet.ask(
        "alice",
        &["audit", "export", "--output", audit.to_str().context("UTF-8")?],
    )?;
    for (name, words) in [
        ("node.json", &["node", "show", "planet1"][..]),
        ("holds.json", &["slice", "holds", "princeton_codeen"]),
        ("orders.json", &["order", "ls"]),
    ] {
        let (_, document) = fleet.json("alice", words)?;
        std::fs::write(out.join(name), format!("{document:#}\n"))?;
    }
    let state = fleet.at(node).state().to_owned();
    fleet.at(node).kill();
    fleet.away("planet1")?;
    fleet.stop_controller()?;
    std::fs::copy(state.join("holds"), out.join("holds"))?;
    for name in ["redbutton.db", "addresses.toml"] {
        std::fs::copy(fleet.state().join(name), out.join(name))?;
    }
    std::fs::copy(fleet.path("planet1.bundle"), out.join("planet1.bundle"))?;
    Ok(())
}
