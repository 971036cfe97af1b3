//! N and N−1 together: the programs of the previous release with those of this tree, as a fleet has them while it is
//! being updated. `REDBUTTON_PREVIOUS=FOLDER` names other ones.

use anyhow::Result;
use hw_tests::fleet::{Fleet, Place, program, unable, wait_for};
use hw_tests::previous::{Programs, release};

const QUICK: &str = "[nodes]\nkeepalive_interval_ms = 1000\nkeepalive_timeout_ms = 1000\n";

/// The previous release, or `None` with the reason printed.
fn previous() -> Result<Option<Programs>> {
    if let Some(reason) = unable() {
        println!("skipped: {reason}");
        return Ok(None);
    }
    match release()? {
        Ok((name, programs)) => {
            println!("against {name}");
            Ok(Some(programs))
        }
        Err(reason) => {
            println!("skipped: {reason}");
            Ok(None)
        }
    }
}

fn only(programs: &Programs, names: &[&str]) -> Programs {
    programs
        .iter()
        .filter(|(name, _)| names.contains(name))
        .map(|(name, path)| (*name, path.clone()))
        .collect()
}

/// What every pair must be able to do: attach, report, run, kill, stay dead, release, run again.
fn story(fleet: &mut Fleet, node: usize, name: &str) -> Result<()> {
    fleet.at(node).exec("princeton_codeen", &["/bin/sleep", "600"])?;
    let (code, shown) = wait_for("the sliver in the report", || {
        let (code, shown) = fleet.json("alice", &["node", "show", name]).ok()?;
        let slivers = shown["report"]["slivers"].as_array()?.len();
        (slivers > 0).then_some((code, shown))
    })?;
    assert_eq!(code, 0, "{shown:#}");
    let (code, order) = fleet.json("alice", &["kill-slice", "princeton_codeen", "--reason", "floods"])?;
    assert_eq!(code, 0, "{order:#}");
    let result = &order["nodes"][0];
    assert_eq!(
        (&result["outcome"], &result["durable"], &result["proven"]),
        (&"killed".into(), &true.into(), &true.into()),
        "{order:#}"
    );
    assert!(fleet.at(node).processes("princeton_codeen").is_empty());
    let (code, said) = fleet.at(node).try_exec("princeton_codeen", &["/bin/true"])?;
    assert_eq!(code, 5, "{said}");
    let (code, released) = fleet.json(
        "alice",
        &["slice", "release", "princeton_codeen", "--reason", "fixed"],
    )?;
    assert_eq!(code, 0, "{released:#}");
    fleet.at(node).exec("princeton_codeen", &["/bin/sleep", "600"])?;
    let (_, shown) = fleet.json("alice", &["node", "show", name])?;
    assert!(
        shown["node"]["trouble"].is_null(),
        "something is misunderstood: {shown:#}"
    );
    assert_eq!(shown["node"]["attached"], true);
    Ok(())
}

fn furnished(fleet: &Fleet) -> Result<()> {
    fleet.site("princeton")?;
    fleet.slice("princeton_codeen")
}

#[test]
fn an_old_node_works_with_a_new_controller() -> Result<()> {
    let Some(old) = previous()? else { return Ok(()) };
    let mut fleet = Fleet::start_of(Place::here()?, QUICK, only(&old, &["redbutton-nodemgr"]))?;
    furnished(&fleet)?;
    let node = fleet.node("planet1", "princeton", "")?;
    story(&mut fleet, node, "planet1")
}

#[test]
fn a_new_node_works_with_an_old_controller() -> Result<()> {
    let Some(old) = previous()? else { return Ok(()) };
    let mut fleet = Fleet::start_of(Place::here()?, QUICK, only(&old, &["redbutton-controller"]))?;
    furnished(&fleet)?;
    let node = fleet.node("planet1", "princeton", "")?;
    story(&mut fleet, node, "planet1")
}

#[test]
fn old_commands_work_with_a_new_controller_and_the_other_way_round() -> Result<()> {
    let Some(old) = previous()? else { return Ok(()) };
    for which in [
        vec!["redbutton"],
        vec!["redbutton-controller", "redbutton-nodemgr"],
    ] {
        let mut fleet = Fleet::start_of(Place::here()?, QUICK, only(&old, &which))?;
        furnished(&fleet)?;
        let node = fleet.node("planet1", "princeton", "")?;
        story(&mut fleet, node, "planet1")?;
        let file = fleet.path("audit.jsonl");
        let file = file.to_str().expect("UTF-8");
        fleet.ask("alice", &["audit", "export", "--output", file])?;
        fleet.ask("alice", &["audit", "verify", file])?;
    }
    Ok(())
}

/// The centre is updated first: the new controller goes on with the old one's state and the old nodes.
#[test]
fn a_new_controller_goes_on_with_what_the_old_one_left() -> Result<()> {
    let Some(old) = previous()? else { return Ok(()) };
    let mut fleet = Fleet::start_of(Place::here()?, QUICK, old)?;
    furnished(&fleet)?;
    let node = fleet.node("planet1", "princeton", "")?;
    fleet.at(node).exec("princeton_codeen", &["/bin/sleep", "600"])?;
    let (code, _) = fleet.json("alice", &["kill-slice", "princeton_codeen", "--reason", "floods"])?;
    assert_eq!(code, 0);
    fleet.kill_controller();
    for name in ["redbutton-controller", "redbutton"] {
        fleet.use_program(name, program(name)?);
    }
    fleet.start_controller()?;
    fleet.attached("planet1")?;
    let (_, held) = fleet.json("alice", &["slice", "holds", "princeton_codeen"])?;
    assert_eq!(held["holds"].as_array().map(Vec::len), Some(1), "{held:#}");
    assert_eq!(fleet.at(node).try_exec("princeton_codeen", &["/bin/true"])?.0, 5);
    let (code, _) = fleet.json(
        "alice",
        &["slice", "release", "princeton_codeen", "--reason", "fixed"],
    )?;
    assert_eq!(code, 0);
    story(&mut fleet, node, "planet1")?;
    let file = fleet.path("audit.jsonl");
    let file = file.to_str().expect("UTF-8");
    fleet.ask("alice", &["audit", "export", "--output", file])?;
    fleet.ask("alice", &["audit", "verify", file])?;
    Ok(())
}

/// A hold that one version wrote binds the other, without a controller: forwards, and back again.
#[test]
fn holds_on_a_nodes_disk_bind_both_versions() -> Result<()> {
    let Some(old) = previous()? else { return Ok(()) };
    let nodemgr = old["redbutton-nodemgr"].clone();
    let mut fleet = Fleet::start()?;
    furnished(&fleet)?;
    fleet.slice("princeton_other")?;
    let node = fleet.node("planet1", "princeton", "")?;
    fleet.at(node).kill();
    fleet.away("planet1")?;
    fleet.at(node).use_program(nodemgr.clone());
    fleet.at(node).start()?;
    fleet.attached("planet1")?;
    let (code, _) = fleet.json(
        "alice",
        &["kill-slice", "princeton_codeen", "--reason", "by the old"],
    )?;
    assert_eq!(code, 0);
    // From here on nobody but the disk can say it.
    fleet.kill_controller();
    fleet.at(node).kill();
    fleet.at(node).use_program(program("redbutton-nodemgr")?);
    fleet.at(node).start()?;
    let (code, said) = fleet.at(node).try_exec("princeton_codeen", &["/bin/true"])?;
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("by the old"), "{said}");

    fleet.start_controller()?;
    fleet.attached("planet1")?;
    let (code, _) = fleet.json(
        "alice",
        &["kill-slice", "princeton_other", "--reason", "by the new"],
    )?;
    assert_eq!(code, 0);
    fleet.kill_controller();
    fleet.at(node).kill();
    fleet.at(node).use_program(nodemgr);
    fleet.at(node).start()?;
    for (slice, why) in [
        ("princeton_codeen", "by the old"),
        ("princeton_other", "by the new"),
    ] {
        let (code, said) = fleet.at(node).try_exec(slice, &["/bin/true"])?;
        assert_eq!(code, 5, "{slice}: {said}");
        assert!(said.contains(why), "{said}");
    }
    Ok(())
}

/// An old node cannot be changed over the link: a rollout says so and passes it over.
#[test]
fn a_rollout_passes_over_a_node_that_is_too_old_for_it() -> Result<()> {
    let Some(old) = previous()? else { return Ok(()) };
    let mut fleet = Fleet::start_of(Place::here()?, QUICK, only(&old, &["redbutton-nodemgr"]))?;
    furnished(&fleet)?;
    fleet.node("planet1", "princeton", "")?;
    let (_, shown) = fleet.json("alice", &["node", "show", "planet1"])?;
    if !shown["report"]["software"].is_null() {
        println!("skipped: the previous release can be changed over the link");
        return Ok(());
    }
    let script = fleet.path("new");
    std::fs::write(
        &script,
        "#!/bin/sh\n# redbutton-software=redbutton-nodemgr 9.0.0\n",
    )?;
    let words = ["rollout", "start", "--software", script.to_str().expect("UTF-8")];
    let more = [
        "--waves",
        "100%",
        "--spread",
        "0s",
        "--reason",
        "new",
        "--no-wait",
    ];
    let (code, proposed) = fleet.json("alice", &[&words[..], &more[..]].concat())?;
    assert_eq!(code, 2, "{proposed:#}");
    let id = proposed["id"].as_str().expect("a proposal").to_owned();
    let (code, approved) = fleet.json("bob", &["approve", &id, "--yes"])?;
    assert_eq!(code, 0, "{approved:#}");
    let done = wait_for("its end", || {
        let (_, shown) = fleet.json("alice", &["rollout", "show", "--all"]).ok()?;
        (shown["rollout"]["phase"] == "done").then_some(shown)
    })?;
    assert_eq!(done["nodes"][0]["step"], "skipped", "{done:#}");
    assert!(
        done["nodes"][0]["detail"]
            .as_str()
            .is_some_and(|why| why.contains("install a package"))
    );
    Ok(())
}
