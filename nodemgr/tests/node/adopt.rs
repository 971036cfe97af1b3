//! Cgroups that others made: adopted by pattern, killed as they come back, refused where they must be.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nodemgr::adopt::Rule;
use nodemgr::{Agent, Config, Node};
use proto::HoldKind;
use proto::v1::{Assurance, Outcome};

use crate::grpc::Link;
use crate::support::{CAP, Lab, eventually, obey, populated, program};

fn config(lab: &Lab, pattern: &str, slice: &str) -> Config {
    let rule = Rule::new(&format!("{}/{pattern}", lab.name()), slice).expect("valid");
    Config {
        adopt: vec![rule],
        ..lab.config()
    }
}

/// A manager that starts its sleeper again whenever it dies, each time in a new cgroup. Bounded, and told to stop.
struct Manager {
    shell: Child,
    stop: PathBuf,
}

impl Manager {
    fn start(lab: &Lab, name: &str) -> Self {
        let stop = lab.dir.path().join("stop");
        let script = r#"n=0
            while [ $n -lt 3000 ] && [ ! -e "$2" ]; do
                mkdir -p "$1$n.scope"
                sh -c 'echo $$ > "$0/cgroup.procs" && exec sleep 100' "$1$n.scope"
                n=$((n+1))
            done"#;
        let shell = Command::new("sh")
            .args(["-c", script, "manager"])
            .arg(lab.root().join(name))
            .arg(&stop)
            .stderr(Stdio::null())
            .spawn()
            .expect("spawns");
        Self { shell, stop }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::write(&self.stop, "");
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[test]
fn a_respawning_manager_is_killed_as_it_comes_back_and_counted_and_then_proven() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start_with(config(&lab, "vm-*.scope", "princeton_vm"));
    let manager = Manager::start(&lab, "vm-");
    let first = lab.root().join("vm-0.scope");
    assert!(eventually(CAP, || populated(&first) && !node.report().slivers.is_empty()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let mut link = Link::open(Agent::new(node.clone()).expect("threads")).await;
        let mut obeying = link.obey().await;
        let hold = lab.hold("princeton_vm", HoldKind::Suspend);
        obeying.send(lab.impose(&hold)).await;

        let first = obeying.next().await;
        assert_eq!(
            (first.outcome(), first.proven),
            (Outcome::Killed, false),
            "{first:?}"
        );
        assert_eq!(
            first.slivers[0].manager, "systemd",
            "named by its path: {first:?}"
        );

        let second = obeying.next().await;
        assert_eq!(
            (second.outcome(), second.proven),
            (Outcome::Respawning, false),
            "{second:?}"
        );
        assert!(
            second.detail.contains("has started it again") && second.detail.contains("systemd"),
            "{}",
            second.detail
        );
        assert!(second.slivers.iter().any(|p| p.respawns > 0), "{second:?}");

        fs::write(&manager.stop, "").expect("writable");
        let last = obeying.next().await;
        assert_eq!(
            (last.outcome(), last.proven, &last.order),
            (Outcome::Killed, true, &first.order),
            "{last:?}"
        );
        assert!(last.slivers.iter().map(|p| p.respawns).sum::<u32>() > 0);
        assert!(
            node.report().slivers.iter().all(|s| s.processes == Some(0)),
            "{:?}",
            node.report().slivers
        );

        // A new link is told the proof again: the old one may have lost it.
        drop(obeying);
        let mut again = link.obey().await;
        assert_eq!(again.next().await.order, last.order);
    });
}

#[test]
fn an_adopted_sliver_that_stays_dead_is_proven_after_five_seconds() {
    let Some(lab) = Lab::new() else { return };
    let cgroup = lab.root().join("payload");
    fs::create_dir(&cgroup).expect("made");
    let node = lab.start_with(config(&lab, "pay*", "princeton_{1}"));
    let mut child = Command::new("sleep").arg("1000").spawn().expect("spawns");
    fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).expect("moved");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let mut link = Link::open(Agent::new(node.clone()).expect("threads")).await;
        let mut obeying = link.obey().await;
        let hold = lab.hold("princeton_load", HoldKind::Suspend);
        obeying.send(lab.impose(&hold)).await;
        let first = obeying.next().await;
        assert_eq!(
            (first.outcome(), first.proven),
            (Outcome::Killed, false),
            "{first:?}"
        );
        assert!(child.wait().expect("waits").code().is_none());
        let second = obeying.next().await;
        assert_eq!(
            (second.outcome(), second.proven),
            (Outcome::Killed, true),
            "{second:?}"
        );
        assert_eq!(second.slivers[0].respawns, 0);
        assert!(
            second.slivers[0].evidence.is_none(),
            "the first answer carried it"
        );

        obeying.send(lab.release(&hold)).await;
        assert_eq!(obeying.next().await.outcome(), Outcome::Released);
    });
    assert_eq!(
        fs::read_to_string(cgroup.join("cgroup.freeze")).expect("there"),
        "0\n",
        "given back to its manager"
    );
}

#[test]
fn what_appears_under_a_freeze_is_frozen() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start_with(config(&lab, "late-*", "princeton_vm"));
    obey(&node, lab.impose(&lab.hold("princeton_vm", HoldKind::Freeze)));
    let cgroup = lab.root().join("late-1");
    fs::create_dir(&cgroup).expect("made");
    let mut child = Command::new("sleep").arg("1000").spawn().expect("spawns");
    fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).expect("moved");
    assert!(eventually(CAP, || crate::support::frozen(&cgroup)));
    assert!(child.try_wait().expect("waits").is_none());
    child.kill().expect("ours");
    child.wait().expect("waits");
}

#[test]
fn a_manager_s_own_freeze_is_left_alone() {
    let Some(lab) = Lab::new() else { return };
    let cgroup = lab.root().join("paused");
    fs::create_dir(&cgroup).expect("made");
    fs::write(cgroup.join("cgroup.freeze"), "1").expect("frozen by its manager");
    let node = lab.start_with(config(&lab, "pau*", "princeton_vm"));
    obey(&node, lab.sync(&[], &[]));
    let hold = lab.hold("princeton_other", HoldKind::Suspend);
    obey(&node, lab.impose(&hold));
    obey(&node, lab.release(&hold));
    assert_eq!(
        fs::read_to_string(cgroup.join("cgroup.freeze")).expect("there"),
        "1\n"
    );
}

fn refused(node: &Arc<Node>, cgroup: &str) -> Option<String> {
    node.report()
        .refused
        .into_iter()
        .find(|r| r.cgroup == cgroup)
        .map(|r| r.reason)
}

#[test]
fn protected_nested_own_and_unnameable_cgroups_are_refused_by_name() {
    let Some(lab) = Lab::new() else { return };
    for dir in [
        "system.slice/sshd.service",
        "system.slice/web.service/inner",
        "system.slice/Bad-Name.service",
        "slivers",
    ] {
        fs::create_dir_all(lab.root().join(dir)).expect("made");
    }
    let at = |below: &str| format!("{}/{below}", lab.name());
    let rules = [
        "system.slice/sshd.service=a_ssh",
        "system.slice/web.service=a_web",
        "system.slice/web.service/*=a_inner",
        "system.slice/*.service=a_{1}",
        "system.slice=a_all",
        "sliv*=a_own",
    ];
    let adopt = rules.map(|rule| {
        let (pattern, slice) = rule.split_once('=').expect("both");
        Rule::new(&at(pattern), slice).expect("valid")
    });
    let node = lab.start_with(Config {
        adopt: adopt.into(),
        protect: vec![at("system.slice/sshd.service")],
        ..lab.config()
    });
    let why = |cgroup: &str| refused(&node, &at(cgroup)).unwrap_or_else(|| panic!("{cgroup} is not refused"));
    assert!(why("system.slice/sshd.service").contains("is the home of the configured list"));
    assert!(
        why("system.slice").contains("contains"),
        "{}",
        why("system.slice")
    );
    assert!(why("system.slice/web.service/inner").contains("which is adopted already"));
    assert!(
        why("system.slice/Bad-Name.service")
            .contains("gives no slice: slice name \"a_Bad-Name\" is malformed")
    );
    assert!(why("slivers").contains("Redbutton's own tree"));
    let adopted: Vec<String> = node.report().slivers.into_iter().map(|s| s.cgroup).collect();
    assert_eq!(adopted, [at("system.slice/web.service")]);
    // A node hold kills what is adopted; nothing that was refused is touched.
    let mut child = Command::new("sleep").arg("1000").spawn().expect("spawns");
    fs::write(
        lab.root().join("system.slice/sshd.service/cgroup.procs"),
        child.id().to_string(),
    )
    .expect("moved");
    obey(&node, lab.impose(&lab.hold("", HoldKind::Suspend)));
    assert!(child.try_wait().expect("waits").is_none());
    child.kill().expect("ours");
    child.wait().expect("waits");
}

#[test]
fn we_never_adopt_ourselves() {
    let Some(lab) = Lab::new() else { return };
    fs::create_dir_all(lab.root().join("home/us")).expect("made");
    let file = lab.dir.path().join("nodemgr.toml");
    let text = format!(
        "[[adopt]]\ncgroup = \"{0}/home/*\"\nslice = \"a_b\"\n[[adopt]]\ncgroup = \"{0}/ho*\"\nslice = \"a_c\"\n",
        lab.name()
    );
    fs::write(&file, text).expect("writable");
    let script = "echo $$ > \"$0/cgroup.procs\" && exec \"$1\" check --config \"$2\"";
    let out = Command::new("sh")
        .args(["-c", script])
        .arg(lab.root().join("home/us"))
        .arg(program())
        .arg(&file)
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let home = format!("{}/home", lab.name());
    assert!(
        said.contains(&format!(
            "refuses        {home}/us: cgroup {home}/us is the home of this node manager"
        )),
        "{said}"
    );
    assert!(
        said.contains(&format!(
            "refuses        {home}: cgroup {home} contains {home}/us"
        )),
        "{said}"
    );
}

#[test]
fn what_this_kernel_gives_is_reported() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let report = node.report();
    let names: Vec<&str> = report.capabilities.iter().map(|c| c.name.as_str()).collect();
    for name in [
        "cgroup.kill",
        "cgroup.freeze",
        "cgroup.pids",
        "adopt",
        "kill.priority",
        "holds.durable",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert!(
        report
            .capabilities
            .iter()
            .all(|c| c.assurance() != Assurance::Unspecified && !c.reason.is_empty())
    );
    assert_eq!(
        (report.node, report.protocol),
        (lab.id.to_string(), proto::PROTOCOL)
    );
    assert_eq!(report.configuration_hash, lab.config().hash());
    assert!(report.uptime_ms > 0 && report.processes > 0 && report.load.is_some());
}
