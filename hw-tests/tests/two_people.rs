//! Two people and real programs: every slice is killed once a second person agrees, and what a node has kept of the
//! audit gives away who rewrote it.

use anyhow::Result;
use hw_tests::fleet::{Fleet, unable, wait_for};

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

#[test]
fn every_slice_on_real_nodes_dies_once_a_second_person_agrees() -> Result<()> {
    let mut fleet = fleet_or_skip!();
    fleet.site("princeton")?;
    for slice in ["princeton_codeen", "princeton_quiet"] {
        fleet.slice(slice)?;
    }
    let here = fleet.node("planet1", "princeton", "")?;
    let away = fleet.node("planet2", "princeton", "")?;
    for index in [here, away] {
        for slice in ["princeton_codeen", "princeton_quiet"] {
            fleet.at(index).exec(slice, &["/bin/sleep", "600"])?;
        }
    }
    fleet.at(away).kill();
    fleet.away("planet2")?;
    let (code, proposal) = fleet.json("alice", &["kill-all", "--reason", "a worm", "--no-wait"])?;
    assert_eq!(
        (code, proposal["state"].as_str()),
        (2, Some("open")),
        "{proposal}"
    );
    assert_eq!(proposal["reach"]["nodes"], 2, "{proposal}");
    let (id, digest) = (
        proposal["id"].as_str().expect("an id").to_owned(),
        proposal["digest"].as_str().expect("a digest").to_owned(),
    );
    // Neither the proposer, nor another digest, nor without a word.
    let approve = |person: &str, more: &[&str]| fleet.json(person, &[&["approve", &id], more].concat());
    assert_eq!(approve("alice", &["--yes", "--digest", &digest])?.0, 5);
    assert_eq!(approve("bob", &["--yes", "--digest", &"0".repeat(64)])?.0, 5);
    assert_eq!(
        approve("bob", &["--digest", &digest])?.0,
        64,
        "nobody could be asked"
    );
    let (code, order) = approve("bob", &["--yes", "--digest", &digest])?;
    assert_eq!(code, 2, "planet2 is away: {order}");
    assert_eq!(order["order"]["kind"], "stop-every-slice");
    for slice in ["princeton_codeen", "princeton_quiet"] {
        assert!(fleet.at(here).processes(slice).is_empty(), "{slice} lives");
        let (code, said) = fleet.at(here).try_exec(slice, &["/bin/true"])?;
        assert_eq!(code, 5, "{said}");
        assert!(
            said.contains("every slice everywhere is held") && said.contains("a worm"),
            "{said}"
        );
        assert!(!fleet.at(away).processes(slice).is_empty());
    }
    // The one that was away obeys when it returns, and so does one that is enrolled now.
    fleet.at(away).start()?;
    wait_for("planet2 to obey", || {
        fleet
            .at(away)
            .processes("princeton_quiet")
            .is_empty()
            .then_some(())
    })?;
    let late = fleet.node("planet3", "princeton", "")?;
    wait_for("planet3 to hold", || {
        let (code, _) = fleet.at(late).try_exec("princeton_quiet", &["/bin/true"]).ok()?;
        (code == 5).then_some(())
    })?;
    let hold = order["order"]["holds"][0]["id"]
        .as_str()
        .expect("a hold")
        .to_owned();
    let (code, _) = fleet.json("bob", &["slice", "release", "--hold", &hold, "--reason", "clean"])?;
    assert_eq!(code, 0);
    for index in [here, away, late] {
        fleet.at(index).exec("princeton_quiet", &["/bin/sleep", "600"])?;
    }

    // What the nodes have kept of the audit is in it.
    let (export, heads) = (fleet.path("audit.jsonl"), fleet.path("heads.jsonl"));
    let (export, heads) = (export.to_str().expect("UTF-8"), heads.to_str().expect("UTF-8"));
    wait_for("heads of the nodes", || {
        let _ = std::fs::remove_file(heads);
        fleet.ask("alice", &["audit", "witness", "--out", heads]).ok()?;
        (std::fs::read_to_string(heads).ok()?.lines().count() >= 1).then_some(())
    })?;
    fleet.ask("alice", &["audit", "export", "--output", export])?;
    let ca = fleet.state().join("ca.pem");
    let ca = ca.to_str().expect("UTF-8");
    let verified = fleet.ask(
        "alice",
        &["audit", "verify", export, "--witness", heads, "--ca", ca],
    )?;
    assert!(verified.contains("signed by the controller"), "{verified}");
    // A chain without its end is a chain; not for who has the heads.
    let text = std::fs::read_to_string(export)?;
    let cut: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
    let forged = fleet.path("cut.jsonl");
    std::fs::write(&forged, cut)?;
    let forged = forged.to_str().expect("UTF-8");
    fleet.ask("alice", &["audit", "verify", forged])?;
    let verdict = fleet.redbutton(
        "alice",
        &["audit", "verify", forged, "--witness", heads, "--ca", ca],
    )?;
    assert_eq!(
        verdict.status.code(),
        Some(4),
        "{}",
        String::from_utf8_lossy(&verdict.stderr)
    );
    Ok(())
}
