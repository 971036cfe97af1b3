//! Our own programs changed under a fleet that works: real controller, real node managers, each under a supervisor that
//! starts it again as systemd would. The new versions are the same build with another version to its name (a debug
//! build can pretend one), or scripts that do what a bad build would.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::Result;
use hw_tests::fleet::{Fleet, program, unable, wait_for, wait_for_at_most};
use serde_json::Value;

const QUICK: [&str; 6] = ["--spread", "1s", "--soak", "1s", "--deadline", "8s"];

/// A program of this version; `run` is what it does before, or instead of, being a node manager.
fn version(fleet: &Fleet, version: &str, run: &str) -> Result<PathBuf> {
    let path = fleet.path(&format!("nodemgr-{version}"));
    let nodemgr = program("redbutton-nodemgr")?;
    let text = format!(
        "#!/bin/sh\n# redbutton-software=redbutton-nodemgr {version}\nexport REDBUTTON_PRETEND_VERSION={version}\n\
         case \" $* \" in *\" run \"*) {run} ;; esac\nexec {} \"$@\"\n",
        nodemgr.display()
    );
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn begin(fleet: &Fleet, software: &str, waves: &str) -> Result<Value> {
    let mut words = vec!["rollout", "start", "--software", software, "--waves", waves];
    words.extend(QUICK);
    words.extend(["--reason", "test", "--no-wait"]);
    let (code, proposed) = fleet.json("alice", &words)?;
    assert_eq!(code, 2, "{proposed}");
    // Root's code on every node: nobody starts that alone, not even by asking twice.
    let id = proposed["id"].as_str().expect("a proposal").to_owned();
    assert_eq!(fleet.json("alice", &["approve", &id, "--yes"])?.0, 5);
    let (code, approved) = fleet.json("bob", &["approve", &id, "--yes"])?;
    assert_eq!(code, 0, "{approved}");
    Ok(show(fleet)?["rollout"].clone())
}

fn show(fleet: &Fleet) -> Result<Value> {
    Ok(fleet.json("alice", &["rollout", "show", "--all"])?.1)
}

/// Waits for a phase in which nothing moves.
fn rest(fleet: &Fleet, phase: &str) -> Result<Value> {
    let mut last = Value::Null;
    let found = wait_for_at_most(std::time::Duration::from_secs(90), phase, || {
        last = show(fleet).ok()?;
        (last["rollout"]["phase"] == phase && last["rollout"]["moving"] == 0).then(|| last.clone())
    });
    assert!(found.is_ok(), "not {phase}: {last:#}");
    found
}

fn versions(fleet: &Fleet) -> Result<Vec<(String, String)>> {
    let (_, listed) = fleet.json("alice", &["node", "ls"])?;
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let nodes = listed["nodes"].as_array().cloned().unwrap_or_default();
    Ok(nodes
        .iter()
        .map(|node| (text(&node["name"]), text(&node["agent_version"])))
        .collect())
}

fn all_run(fleet: &Fleet, version: &str) -> Result<()> {
    wait_for(&format!("all nodes on {version}"), || {
        let versions = versions(fleet).ok()?;
        versions.iter().all(|(_, there)| there == version).then_some(())
    })
}

fn fleet_of(nodes: &[(&str, &str)]) -> Result<Option<Fleet>> {
    if let Some(reason) = unable() {
        println!("skipped: {reason}");
        return Ok(None);
    }
    let mut fleet = Fleet::start()?;
    for site in ["princeton", "berkeley"] {
        fleet.site(site)?;
    }
    for slice in ["princeton_codeen", "princeton_runaway"] {
        fleet.slice(slice)?;
    }
    for (name, site) in nodes {
        fleet.supervised_node(name, site)?;
    }
    Ok(Some(fleet))
}

fn alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_new_version_goes_through_and_comes_back_and_nobody_dies_of_it() -> Result<()> {
    let nodes = [
        ("planet1", "princeton"),
        ("planet2", "princeton"),
        ("planet3", "berkeley"),
        ("planet4", "berkeley"),
    ];
    let Some(mut fleet) = fleet_of(&nodes)? else {
        return Ok(());
    };
    let mut pids = Vec::new();
    for index in 0..nodes.len() {
        pids.push(fleet.at(index).exec("princeton_codeen", &["/bin/sleep", "600"])?);
        fleet
            .at(index)
            .exec("princeton_runaway", &["/bin/sleep", "600"])?;
    }
    let (code, _) = fleet.json(
        "alice",
        &["kill-slice", "princeton_runaway", "--reason", "floods"],
    )?;
    assert_eq!(code, 0);

    let new = version(&fleet, "0.2.0", "")?;
    let rollout = begin(&fleet, new.to_str().expect("UTF-8"), "25%,100%")?;
    assert_eq!(
        (&rollout["version"], &rollout["nodes"]),
        (&"0.2.0".into(), &4.into())
    );
    // Nobody else begins one meanwhile, and nobody without the right to see it does.
    let (code, refused) = fleet.json(
        "bob",
        &[
            "rollout",
            "start",
            "--software",
            new.to_str().expect("UTF-8"),
            "--reason",
            "too",
        ],
    )?;
    assert_ne!(code, 0, "{refused}");
    fleet.person("pat", &["--role", "pi", "--site", "princeton"])?;
    assert_eq!(fleet.json("pat", &["rollout", "show"])?.0, 5);

    // The controller dies in the middle of it, and goes on.
    wait_for("something in motion", || {
        (show(&fleet).ok()?["rollout"]["waiting"].as_u64()? < 4).then_some(())
    })?;
    fleet.kill_controller();
    fleet.start_controller()?;
    let done = rest(&fleet, "done")?;
    assert_eq!(
        (&done["rollout"]["done"], &done["rollout"]["bad"]),
        (&4.into(), &0.into()),
        "{done:#}"
    );
    all_run(&fleet, "0.2.0")?;
    for (index, pid) in pids.iter().enumerate() {
        let node = fleet.at(index);
        assert!(
            alive(*pid) && node.processes("princeton_codeen").contains(pid),
            "a sliver died"
        );
        assert!(
            node.processes("princeton_runaway").is_empty(),
            "a held sliver runs"
        );
        let (code, said) = node.try_exec("princeton_runaway", &["/bin/true"])?;
        assert_eq!(code, 5, "{said}");
    }
    let text = fleet.ask("alice", &["node", "show", "planet1"])?;
    assert!(text.contains("0.2.0") && text.contains("rolled out"), "{text}");

    // A press is obeyed by the new version as by the old one.
    let (code, order) = fleet.json(
        "alice",
        &["slice", "freeze", "princeton_codeen", "--reason", "look"],
    )?;
    assert_eq!(code, 0, "{order}");
    let (code, _) = fleet.json(
        "alice",
        &["slice", "release", "princeton_codeen", "--reason", "seen"],
    )?;
    assert_eq!(code, 0);

    let (code, back) = fleet.json("alice", &["rollout", "back", "--reason", "it leaks"])?;
    assert_eq!(code, 0, "{back}");
    rest(&fleet, "returned")?;
    all_run(&fleet, env!("CARGO_PKG_VERSION"))?;
    assert!(
        pids.iter().all(|pid| alive(*pid)),
        "a sliver died on the way back"
    );
    let log = fleet.ask("alice", &["audit", "log", "--json", "--limit", "1000"])?;
    let entries = log.lines().filter(|line| line.contains("roll-out")).count();
    assert!(
        entries >= 4,
        "upload, proposal, start, done, returned: {entries} in\n{log}"
    );
    Ok(())
}

#[test]
fn a_bad_version_halts_in_the_first_wave_and_the_node_returns_by_itself() -> Result<()> {
    let nodes = [
        ("planet1", "princeton"),
        ("planet2", "princeton"),
        ("planet3", "berkeley"),
        ("planet4", "berkeley"),
    ];
    let Some(mut fleet) = fleet_of(&nodes)? else {
        return Ok(());
    };
    for index in 0..nodes.len() {
        fleet.at(index).exec("princeton_codeen", &["/bin/sleep", "600"])?;
    }
    let roots: Vec<PathBuf> = (0..nodes.len())
        .map(|index| fleet.at(index).cgroup("princeton_codeen"))
        .collect();
    // Whichever node it is: it kills the slivers of all.
    let kills = roots
        .iter()
        .map(|root| {
            format!(
                "for p in $(cat {}/cgroup.procs); do kill -9 $p; done",
                root.display()
            )
        })
        .collect::<Vec<_>>()
        .join("; ");
    for (number, run, says) in [
        ("0.3.0", "exit 1".to_owned(), "was started 3 times"),
        (
            "0.4.0",
            "exec /bin/sleep 600".to_owned(),
            "was not attached within 8 s",
        ),
        ("0.5.0", kills, "ran there before and does not any more"),
    ] {
        let bad = version(&fleet, number, &run)?;
        begin(&fleet, bad.to_str().expect("UTF-8"), "25%,100%")?;
        let halted = rest(&fleet, "halted")?;
        let rollout = &halted["rollout"];
        assert_eq!(
            (
                &rollout["wave"],
                &rollout["bad"],
                &rollout["waiting"],
                &rollout["done"]
            ),
            (&1.into(), &1.into(), &3.into(), &0.into()),
            "{halted:#}"
        );
        assert!(
            rollout["why"].as_str().is_some_and(|why| why.contains(says)),
            "{number}: {halted:#}"
        );
        all_run(&fleet, env!("CARGO_PKG_VERSION"))?;
        // What it left, and why, stands in the node's report too.
        let bad_one = halted["nodes"]
            .as_array()
            .and_then(|nodes| nodes.iter().find(|node| node["step"] == "bad"))
            .and_then(|node| node["name"].as_str())
            .expect("the bad node");
        fleet.attached(bad_one)?;
        let (_, shown) = fleet.json("alice", &["node", "show", bad_one])?;
        assert!(
            shown["report"]["software"]["left_why"]
                .as_str()
                .is_some_and(|why| why.contains(says)),
            "{shown:#}"
        );
        assert!(shown["report"]["locked"].is_null(), "{shown:#}");
        let (code, aborted) = fleet.json("alice", &["rollout", "abort", "--reason", "bad"])?;
        assert_eq!(code, 0, "{aborted}");
    }
    Ok(())
}

#[test]
fn a_program_that_does_not_even_start_is_refused_by_the_node_and_one_of_others_by_the_controller()
-> Result<()> {
    let Some(mut fleet) = fleet_of(&[("planet1", "princeton")])? else {
        return Ok(());
    };
    let foreign = fleet.path("foreign");
    std::fs::write(&foreign, "#!/bin/sh\nexit 0\n")?;
    let (code, refused) = fleet.json(
        "alice",
        &[
            "rollout",
            "start",
            "--software",
            foreign.to_str().expect("UTF-8"),
            "--reason",
            "x",
        ],
    )?;
    assert_eq!(code, 64, "{refused}");
    assert!(
        refused.to_string().contains("no program of Redbutton"),
        "{refused}"
    );

    // It says one version in its mark and another when it is asked.
    let liar = version(&fleet, "0.6.0", "")?;
    let text = std::fs::read_to_string(&liar)?.replace("VERSION=0.6.0", "VERSION=0.7.0");
    std::fs::write(&liar, text)?;
    begin(&fleet, liar.to_str().expect("UTF-8"), "100%")?;
    let halted = rest(&fleet, "halted")?;
    assert!(halted.to_string().contains("it stays as it is"), "{halted:#}");
    assert_eq!(fleet.at(0).starts(), 1, "it was never restarted");
    Ok(())
}

#[test]
fn a_program_from_the_controllers_machine_reaches_a_node_that_was_away_while_presses_go_on() -> Result<()> {
    let Some(mut fleet) = fleet_of(&[("planet1", "princeton")])? else {
        return Ok(());
    };
    // The real program with a tail that nothing reads: another SHA-256, tens of megabytes over the link.
    let mut bytes = std::fs::read(program("redbutton-nodemgr")?)?;
    bytes.extend(b"another build");
    let new = fleet.path("another-build");
    std::fs::write(&new, bytes)?;
    let state = fleet.state().display().to_string();
    let said = fleet.admin(&["software", "add", "--state", &state, new.to_str().expect("UTF-8")])?;
    let digest = said
        .split_whitespace()
        .find(|word| word.len() == 64)
        .expect("its SHA-256")
        .to_owned();
    fleet.at(0).stop_supervising();
    fleet.away("planet1")?;
    begin(&fleet, &digest, "100%")?;
    fleet.at(0).supervise()?;
    let (mut presses, mut sending) = (0, 0);
    let done = wait_for_at_most(std::time::Duration::from_secs(120), "done", || {
        let (code, _) = fleet
            .json("alice", &["kill-slice", "princeton_runaway", "--reason", "again"])
            .ok()?;
        presses += u32::from(code == 0);
        let shown = show(&fleet).ok()?;
        sending += u32::from(shown["nodes"][0]["step"] == "sending");
        (shown["rollout"]["phase"] == "done").then_some(shown)
    })?;
    assert_eq!(done["rollout"]["done"], 1, "{done:#}");
    let (_, shown) = fleet.json("alice", &["node", "show", "planet1"])?;
    assert_eq!(
        shown["report"]["software"]["sha256"].as_str(),
        Some(&*digest),
        "{shown:#}"
    );
    println!("{presses} presses, {sending} of them while it was sent");
    assert!(presses > 0);
    Ok(())
}
