//! The story, act by act. What it says was checked before it says so.

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::cast::{Daemon, Node};
use super::stage::{Stage, wait_for};
use crate::cgroup;

/// The slice that runs away, and how many processes it has on a node: four generations.
const RUNAWAY: &str = "princeton_runaway";
const PER_NODE: usize = 1 + 2 + 4 + 8;

/// A bounded fork bomb: every process starts two more until the depth is used up, then two of them spin.
/// Root ignores RLIMIT_NPROC and a hybrid host has no v2 pids controller, so the bound is its own count.
const BOMB: &str = r#"#!/bin/sh
# runaway DEPTH: doubles itself DEPTH times; two of the last spin, the others wait.
if [ "$1" -gt 0 ]; then
    "$0" $(($1 - 1)) "$2L" & "$0" $(($1 - 1)) "$2R" &
    wait
fi
case "$2" in LLL | RRR) while :; do :; done ;; esac
exec sleep 1000
"#;

/// Plays the whole story.
pub(super) fn play(mut stage: Stage) -> Result<()> {
    let mount = cgroup::mount()?.context("no cgroup v2 is mounted")?;
    stage.tell(
        "Redbutton, told in ten short acts. Real programs, real certificates, real cgroups of this kernel, in a\n\
         corner of this machine that goes away afterwards. Lines with a $ are what a person types; what follows\n\
         is what the programs answer.",
    );
    let controller = open(&mut stage)?;
    let mut nodes = enrol(&mut stage, &mount)?;
    run_away(&mut stage, &mut nodes)?;
    one_leaves(&mut stage, &mut nodes)?;
    let order = press(&mut stage, &nodes)?;
    comes_back(&mut stage, &mut nodes, &order)?;
    the_pi(&mut stage, &mut nodes)?;
    audit(&mut stage)?;
    release(&mut stage, &nodes)?;
    curtain(&mut stage, controller, nodes)
}

fn open(stage: &mut Stage) -> Result<Daemon> {
    stage.act("A controller, and two people of support");
    stage.tell(
        "The controller is the centre. `init` makes its certificate authority and, for each person of support,\n\
         a bundle: one file with a key, which is who you are.",
    );
    let state = stage.folder().join("centre");
    stage.write("controller.toml", &format!("state = {state:?}\n"), 0o644)?;
    let init = "redbutton-controller init --config controller.toml --name localhost --support alice --support bob --bundles";
    stage.run("root", init, 0)?;
    let mut controller = Daemon::start(
        stage,
        "controller",
        "redbutton-controller serve --config controller.toml",
    )?;
    wait_for("the controller's ports", || {
        controller.must_live()?;
        let open = [7443, 7444]
            .iter()
            .all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok());
        Ok(open.then_some(()))
    })?;
    for person in ["alice", "bob"] {
        let from = state.join(format!("bundles/{person}.bundle"));
        fs::rename(&from, stage.folder().join(format!("{person}.bundle")))
            .with_context(|| format!("cannot hand over {}", from.display()))?;
    }
    stage.run_short("alice", "redbutton whoami", 0, 3)?;
    Ok(controller)
}

fn enrol(stage: &mut Stage, mount: &Path) -> Result<Vec<Node>> {
    stage.act("Two sites, their slices, a PI, and three nodes");
    stage.tell(
        "A slice is one experiment across nodes; its part on one node is a sliver: a cgroup with a user of its own.\n\
         A PI answers for the slices of a site.",
    );
    for line in [
        "redbutton site add princeton --full-name 'Princeton University'",
        "redbutton site add berkeley --full-name 'UC Berkeley'",
        "redbutton slice add princeton_runaway --contact student@princeton.example",
        "redbutton slice add princeton_codeen --contact codeen@princeton.example",
        "redbutton slice add berkeley_p2p --contact p2p@berkeley.example",
        "redbutton people add pat --role pi --site princeton",
    ] {
        stage.run_short("alice", line, 0, 0)?;
    }
    stage.run(
        "root",
        "redbutton-controller issue person pat --config controller.toml --out pat.bundle",
        0,
    )?;
    let mut nodes = Vec::new();
    for (name, site) in [
        ("node-a", "princeton"),
        ("node-b", "princeton"),
        ("node-c", "berkeley"),
    ] {
        let mut node = Node::prepare(stage, mount, name)?;
        let issue = "redbutton-controller issue node";
        let line = format!("{issue} {name} --site {site} --config controller.toml --out {name}/bundle");
        stage.run_short("root", &line, 0, 0)?;
        node.start(stage)?;
        nodes.push(node);
    }
    stage.tell(
        "Each node dials out to the controller, as from behind a firewall, and obeys over that connection.",
    );
    attached(stage, &mut nodes, 3)?;
    stage.run("alice", "redbutton node ls", 0)?;
    Ok(nodes)
}

/// Waits until this many nodes are attached.
fn attached(stage: &Stage, nodes: &mut [Node], wanted: u64) -> Result<()> {
    wait_for(&format!("{wanted} attached nodes"), || {
        for node in nodes.iter_mut() {
            node.must_live()?;
        }
        let sites = json(&stage.quietly("alice", "redbutton site ls --json")?)?;
        Ok((sum(&sites, "attached") == wanted).then_some(()))
    })
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("this is no JSON: {text}"))
}

/// The sum of every number under this key, wherever it stands.
fn sum(value: &Value, key: &str) -> u64 {
    match value {
        Value::Array(values) => values.iter().map(|value| sum(value, key)).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| {
                if name == key {
                    value.as_u64().unwrap_or(0)
                } else {
                    sum(value, key)
                }
            })
            .sum(),
        _ => 0,
    }
}

fn run_away(stage: &mut Stage, nodes: &mut [Node]) -> Result<()> {
    stage.act("A slice runs away");
    stage.tell(
        "On each node a unit file starts the slice's program. This one doubles itself again and again, and some of\n\
         it spins (bounded: 15 processes a node, two of them busy loops).",
    );
    stage.write("runaway", BOMB, 0o755)?;
    for node in nodes.iter_mut() {
        node.exec(stage, RUNAWAY, &format!("{}/runaway 3", stage.folder().display()))?;
    }
    for node in nodes.iter() {
        node.wait_for_processes(RUNAWAY, PER_NODE)?;
    }
    let all = 3 * PER_NODE;
    stage.proof(&format!(
        "{all} processes of {RUNAWAY} on 3 nodes, counted in the kernel's own lists"
    ));
    stage.run(
        "alice",
        "redbutton node ps node-a --slice princeton_runaway --limit 4",
        0,
    )?;
    Ok(())
}

fn one_leaves(stage: &mut Stage, nodes: &mut [Node]) -> Result<()> {
    stage.act("One node is out of reach");
    stage.tell("node-c loses its manager; its sliver runs on. In 2003 this is how a slice got away.");
    let pid = nodes[2].manager_pid().context("node-c has no manager")?;
    stage.run("root", &format!("kill {pid}"), 0)?;
    nodes[2].ended()?;
    attached(stage, nodes, 2)?;
    stage.insist(
        nodes[2].processes(RUNAWAY)? == PER_NODE,
        "the sliver on node-c runs on, unwatched",
    )
}

fn press(stage: &mut Stage, nodes: &[Node]) -> Result<String> {
    stage.act("Support presses the button");
    stage.tell(
        "The order is on the controller's disk before Alice hears of it; then it goes to every node at once.",
    );
    let why = "--reason 'fork bomb, mail from node owners' --evidence 'ticket 4711'";
    stage.run(
        "alice",
        &format!("redbutton kill-slice {RUNAWAY} {why} --all --wait 3"),
        2,
    )?;
    stage.tell("Exit code 2: somebody is offline, so it is not over. The order stays open until the last node has obeyed.");
    for node in &nodes[..2] {
        let claim = format!("no process of {RUNAWAY} is left on {}", node.name);
        stage.insist(node.processes(RUNAWAY)? == 0, &claim)?;
    }
    stage.insist(
        nodes[2].processes(RUNAWAY)? == PER_NODE,
        "on node-c all 15 still run",
    )?;
    stage.tell("And it cannot come back: a start is refused while the hold stands.");
    stage.run(
        "root",
        "redbutton-nodemgr exec --config node-a/nodemgr.toml princeton_runaway -- /bin/true",
        5,
    )?;
    find_id(&json(
        &stage.quietly("alice", "redbutton order ls --open --json")?,
    )?)
    .context("there is no open order")
}

/// The first `id` in a document.
fn find_id(value: &Value) -> Option<String> {
    match value {
        Value::Array(values) => values.iter().find_map(find_id),
        Value::Object(fields) => match fields.get("id") {
            Some(Value::String(id)) => Some(id.clone()),
            _ => fields.values().find_map(find_id),
        },
        _ => None,
    }
}

fn comes_back(stage: &mut Stage, nodes: &mut [Node], order: &str) -> Result<()> {
    stage.act("The lost node returns, and obeys");
    nodes[2].start(stage)?;
    stage.run(
        "alice",
        &format!("redbutton order watch {order} --wait 15 --all"),
        0,
    )?;
    stage.insist(
        nodes[2].processes(RUNAWAY)? == 0,
        "no process of princeton_runaway is left on node-c",
    )?;
    let open = json(&stage.quietly("alice", "redbutton order ls --open --json")?)?;
    stage.insist(
        find_id(&open).is_none(),
        "the order is closed: dead on every node, each with its proof",
    )
}

fn the_pi(stage: &mut Stage, nodes: &mut [Node]) -> Result<()> {
    stage.act("A PI stops a slice of her site, and nothing else");
    for slice in ["princeton_codeen", "berkeley_p2p"] {
        nodes[0].exec(stage, slice, "/bin/sleep 1000")?;
        nodes[0].wait_for_processes(slice, 1)?;
    }
    stage.run(
        "pat",
        "redbutton slice kill princeton_codeen --reason 'stop before the deadline'",
        0,
    )?;
    stage.insist(
        nodes[0].processes("princeton_codeen")? == 0,
        "Pat's own slice is dead",
    )?;
    stage.run(
        "pat",
        "redbutton slice kill berkeley_p2p --reason 'it eats our bandwidth'",
        5,
    )?;
    let claim = "berkeley's slice runs on: Pat was refused, and that is on record";
    stage.insist(nodes[0].processes("berkeley_p2p")? == 1, claim)
}

fn audit(stage: &mut Stage) -> Result<()> {
    stage.act("Who did what: a chain that cannot be rewritten");
    let log = stage.run("bob", "redbutton audit log --limit 5", 0)?;
    for word in ["alice", "pat", "refused"] {
        if !log.contains(word) {
            bail!("the audit log does not say {word:?}");
        }
    }
    stage.run("bob", "redbutton audit export --output chain.txt", 0)?;
    stage.run("bob", "redbutton audit verify chain.txt", 0)?;
    stage.tell("Somebody with access to the file makes Pat's refusal vanish:");
    stage.run("mallory", "cp chain.txt forged.txt", 0)?;
    stage.run("mallory", "sed --in-place 0,/refused/s//allowed/ forged.txt", 0)?;
    stage.run("bob", "redbutton audit verify forged.txt", 4)?;
    Ok(())
}

fn release(stage: &mut Stage, nodes: &[Node]) -> Result<()> {
    stage.act("Forgiven: the hold is lifted");
    stage.tell("A release starts nothing by itself; it lets the slice be started again.");
    stage.run(
        "alice",
        "redbutton slice release princeton_runaway --reason 'the student has fixed it'",
        0,
    )?;
    let again = "redbutton-nodemgr exec --config node-a/nodemgr.toml princeton_runaway -- /bin/echo";
    stage.run("root", &format!("{again} 'the slice runs again'"), 0)?;
    stage.run_short(
        "alice",
        "redbutton slice kill berkeley_p2p --reason 'end of the demo'",
        0,
        1,
    )?;
    for node in nodes {
        node.wait_for_processes("berkeley_p2p", 0)?;
    }
    Ok(())
}

fn curtain(stage: &mut Stage, controller: Daemon, nodes: Vec<Node>) -> Result<()> {
    stage.act("Curtain");
    for node in nodes {
        node.leave()?;
    }
    controller.stop()?;
    stage.proof("every daemon ended at SIGTERM, every cgroup could be removed: nothing is left");
    let seconds = stage.elapsed().as_secs_f64();
    stage.tell(&format!(
        "The whole story took {seconds:.1} s. README.md says how to do it on a fleet."
    ));
    Ok(())
}
