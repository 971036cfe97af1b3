//! The red button, pressed as people press it: real programs, real certificates, real cgroups.

use anyhow::Result;
use hw_tests::fleet::{Fleet, unable, wait_for};
use serde_json::Value;

/// A shell that forks a bounded number of busy children and waits for them.
const RUNAWAY: &[&str] = &[
    "/bin/sh",
    "-c",
    "for i in 1 2 3 4 5 6 7; do (while :; do sleep 0.01; done) & done; wait",
];

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

fn outcome<'a>(document: &'a Value, node: &str) -> &'a str {
    let nodes = document["nodes"].as_array().expect("nodes of an order");
    let found = nodes
        .iter()
        .find(|result| result["name"] == node)
        .unwrap_or_else(|| panic!("{node} in {document}"));
    found["outcome"].as_str().expect("an outcome")
}

#[test]
fn support_kills_a_slice_everywhere_and_it_stays_dead_until_released() -> Result<()> {
    let mut fleet = fleet_or_skip!();
    fleet.site("princeton")?;
    fleet.slice("princeton_codeen")?;
    fleet.slice("princeton_quiet")?;
    let nodes = [
        fleet.node("planet1", "princeton", "")?,
        fleet.node("planet2", "princeton", "")?,
    ];
    for index in nodes {
        fleet.at(index).exec("princeton_codeen", RUNAWAY)?;
        fleet.at(index).exec("princeton_quiet", &["/bin/sleep", "600"])?;
        let node = fleet.at(index);
        wait_for("runaway", || {
            (node.processes("princeton_codeen").len() >= 8).then_some(())
        })?;
    }

    let (code, order) = fleet.json(
        "alice",
        &["kill-slice", "princeton_codeen", "--reason", "floods a bank"],
    )?;
    assert_eq!(code, 0, "{order}");
    for name in ["planet1", "planet2"] {
        assert_eq!(outcome(&order, name), "killed", "{order}");
    }
    let first = &order["nodes"][0];
    assert_eq!(first["durable"], true);
    assert_eq!(first["proven"], true);
    assert!(first["killed"].as_u64().expect("a count") >= 8, "{first}");
    assert_eq!(first["stuck"], 0);
    for index in nodes {
        assert!(fleet.at(index).processes("princeton_codeen").is_empty());
        assert_eq!(
            fleet.at(index).processes("princeton_quiet").len(),
            1,
            "another slice was hit"
        );
        let (code, said) = fleet.at(index).try_exec("princeton_codeen", &["/bin/true"])?;
        assert_eq!(code, 5, "{said}");
        assert!(said.contains("floods a bank") && said.contains("alice"), "{said}");
    }

    // Pressed again it is another order by the same wish; everything is dead already.
    let (code, again) = fleet.json("bob", &["slice", "kill", "princeton_codeen", "--reason", "still"])?;
    assert_eq!(code, 0);
    assert_eq!(outcome(&again, "planet1"), "already_dead");
    let (_, held) = fleet.json("alice", &["slice", "holds", "princeton_codeen"])?;
    assert_eq!(held["holds"].as_array().map(Vec::len), Some(2), "{held}");

    let (code, _) = fleet.json(
        "alice",
        &["slice", "release", "princeton_codeen", "--reason", "fixed"],
    )?;
    assert_eq!(code, 0);
    for index in nodes {
        fleet.at(index).exec("princeton_codeen", &["/bin/sleep", "600"])?;
    }
    Ok(())
}

#[test]
fn everybody_stops_what_is_theirs_and_nothing_else() -> Result<()> {
    let mut fleet = fleet_or_skip!();
    for site in ["princeton", "berkeley"] {
        fleet.site(site)?;
    }
    for slice in ["princeton_codeen", "berkeley_oasis"] {
        fleet.slice(slice)?;
    }
    fleet.person("pat", &["--role", "pi", "--site", "princeton"])?;
    fleet.person("dev", &["--role", "developer", "--slice", "berkeley_oasis"])?;
    fleet.person("adam", &["--role", "site-admin", "--site", "princeton"])?;
    let here = fleet.node("planet1", "princeton", "")?;
    let there = fleet.node("planet2", "berkeley", "")?;
    for index in [here, there] {
        for slice in ["princeton_codeen", "berkeley_oasis"] {
            fleet.at(index).exec(slice, &["/bin/sleep", "600"])?;
        }
    }
    let press = |person: &str, words: &[&str]| fleet.json(person, &[words, &["--reason", "test"]].concat());

    let (code, refused) = press("pat", &["slice", "kill", "berkeley_oasis"])?;
    assert_eq!(code, 5, "a PI killed the slice of another site: {refused}");
    assert!(
        refused["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("berkeley")),
        "{refused}"
    );
    assert_eq!(press("dev", &["slice", "kill", "princeton_codeen"])?.0, 5);
    assert_eq!(
        press("adam", &["slice", "kill", "berkeley_oasis"])?.0,
        5,
        "a site admin has no fleet-wide kill"
    );
    assert_eq!(
        press("adam", &["slice", "kill", "berkeley_oasis", "--node", "planet2"])?.0,
        5
    );
    assert_eq!(press("pat", &["node", "reboot", "planet1"])?.0, 5);
    assert_eq!(press("dev", &["node", "kill", "planet1"])?.0, 5);

    assert_eq!(press("pat", &["slice", "kill", "princeton_codeen"])?.0, 0);
    let (code, one) = press("adam", &["slice", "kill", "berkeley_oasis", "--node", "planet1"])?;
    assert_eq!((code, outcome(&one, "planet1")), (0, "killed"));
    // The PI may not lift what a site admin has set; support may.
    assert_eq!(press("dev", &["slice", "release", "berkeley_oasis"])?.0, 5);
    assert!(fleet.at(here).processes("berkeley_oasis").is_empty());
    assert_eq!(
        fleet.at(there).processes("berkeley_oasis").len(),
        1,
        "the sliver of another node was hit"
    );
    assert!(fleet.at(there).processes("princeton_codeen").is_empty());
    assert_eq!(
        fleet
            .json("dev", &["slice", "freeze", "berkeley_oasis", "--reason", "look"])?
            .0,
        0
    );
    assert_eq!(
        fleet.at(there).processes("berkeley_oasis").len(),
        1,
        "a freeze kills nothing"
    );

    let log = fleet.ask("alice", &["audit", "log", "--json", "--limit", "1000"])?;
    let refusals = log.lines().filter(|line| line.contains("\"refused\"")).count();
    assert!(refusals >= 7, "{refusals} refusals in\n{log}");
    let file = fleet.path("audit.jsonl");
    let file = file.to_str().expect("UTF-8");
    fleet.ask("alice", &["audit", "export", "--output", file])?;
    fleet.ask("alice", &["audit", "verify", file])?;
    let text = std::fs::read_to_string(file)?;
    std::fs::write(fleet.path("forged.jsonl"), text.replacen("\"pat\"", "\"tap\"", 1))?;
    let forged = fleet.path("forged.jsonl");
    let verdict = fleet.redbutton("alice", &["audit", "verify", forged.to_str().expect("UTF-8")])?;
    assert_eq!(
        verdict.status.code(),
        Some(4),
        "{}",
        String::from_utf8_lossy(&verdict.stderr)
    );
    Ok(())
}

#[test]
fn a_node_that_was_away_obeys_when_it_returns() -> Result<()> {
    let mut fleet = fleet_or_skip!();
    fleet.site("princeton")?;
    fleet.slice("princeton_codeen")?;
    let here = fleet.node("planet1", "princeton", "")?;
    let away = fleet.node("planet2", "princeton", "")?;
    for index in [here, away] {
        fleet.at(index).exec("princeton_codeen", RUNAWAY)?;
    }
    fleet.at(away).kill();
    fleet.away("planet2")?;

    let (code, order) = fleet.json("alice", &["kill-slice", "princeton_codeen", "--reason", "floods"])?;
    assert_eq!(code, 2, "{order}");
    assert_eq!(outcome(&order, "planet1"), "killed");
    assert_eq!(outcome(&order, "planet2"), "offline");
    assert!(!fleet.at(away).processes("princeton_codeen").is_empty());

    // The controller may forget nothing either.
    fleet.kill_controller();
    fleet.start_controller()?;
    fleet.at(away).start()?;
    let id = order["order"]["id"].as_str().expect("an id").to_owned();
    let (code, order) = wait_for("the order's end", || {
        let (code, order) = fleet.json("alice", &["order", "show", &id]).ok()?;
        (order["order"]["state"] == "closed").then_some((code, order))
    })?;
    assert_eq!((code, outcome(&order, "planet2")), (0, "killed"), "{order}");
    assert!(fleet.at(away).processes("princeton_codeen").is_empty());
    Ok(())
}

#[test]
fn support_sees_a_node_and_holds_all_of_it() -> Result<()> {
    let mut fleet = fleet_or_skip!();
    fleet.site("princeton")?;
    fleet.slice("princeton_codeen")?;
    let index = fleet.node("planet1", "princeton", "")?;
    let pid = fleet.at(index).exec("princeton_codeen", &["/bin/sleep", "600"])?;

    let (code, shown) = fleet.json("alice", &["node", "show", "planet1"])?;
    assert_eq!(code, 0, "{shown}");
    let (code, listed) = fleet.json("alice", &["node", "ps", "planet1", "--slice", "princeton_codeen"])?;
    assert_eq!(code, 0, "{listed}");
    let processes = listed["processes"].as_array().expect("processes");
    assert!(
        processes
            .iter()
            .any(|process| process["pid"] == pid && process["comm"] == "sleep"),
        "{listed}"
    );
    assert!(
        processes
            .iter()
            .all(|process| process["uid"].as_u64() >= Some(2_000_000)),
        "{listed}"
    );

    let (code, order) = fleet.json("alice", &["node", "kill", "planet1", "--reason", "safe boot"])?;
    assert_eq!((code, outcome(&order, "planet1")), (0, "killed"), "{order}");
    assert!(fleet.at(index).processes("princeton_codeen").is_empty());
    assert_eq!(fleet.at(index).try_exec("princeton_codeen", &["/bin/true"])?.0, 5);
    let (code, stop) = fleet.json("alice", &["node", "stop", "planet1", "--reason", "x"])?;
    assert_eq!(code, 5, "stopped without a way back: {stop}");
    Ok(())
}
