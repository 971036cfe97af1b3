//! The button without the controller: real programs, real certificates, real cgroups, and a controller that is dead.

use std::process::Output;

use anyhow::Result;
use hw_tests::fleet::{Fleet, unable, wait_for};
use serde_json::Value;

const DOOR: &str = "[direct]\nlisten = \"127.0.0.1:0\"\n";

/// princeton and mit, a slice each, one node at princeton on which both run; dave works on codeen, paula is
/// princeton's PI, sam its site admin, mona mit's PI.
struct Scene {
    fleet: Fleet,
    node: usize,
    /// planet1@127.0.0.1:PORT
    at: String,
}

fn words(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

impl Scene {
    fn set() -> Result<Option<Self>> {
        if let Some(reason) = unable() {
            println!("skipped: {reason}");
            return Ok(None);
        }
        let mut fleet = Fleet::start()?;
        for site in ["princeton", "mit"] {
            fleet.site(site)?;
        }
        for slice in ["princeton_codeen", "mit_chord"] {
            fleet.slice(slice)?;
        }
        fleet.person("dave", &["--role", "developer", "--slice", "princeton_codeen"])?;
        fleet.person("paula", &["--role", "pi", "--site", "princeton"])?;
        fleet.person("mona", &["--role", "pi", "--site", "mit"])?;
        fleet.person("sam", &["--role", "site-admin", "--site", "princeton"])?;
        let node = fleet.node("planet1", "princeton", DOOR)?;
        for slice in ["princeton_codeen", "mit_chord"] {
            fleet.at(node).exec(slice, &["/bin/sleep", "600"])?;
        }
        let at = wait_for("address of the node's own door", || {
            let (_, shown) = fleet.json("alice", &["node", "show", "planet1"]).ok()?;
            let address = shown.pointer("/node/direct_address")?.as_str()?;
            Some(format!("planet1@{address}"))
        })?;
        let scene = Self { fleet, node, at };
        for person in ["dave", "paula", "mona", "sam"] {
            scene.until_in_policy(person, true)?;
        }
        Ok(Some(scene))
    }

    fn direct(&self, person: &str, arguments: &[&str]) -> Result<Output> {
        self.fleet
            .redbutton(person, &[&["--direct", self.at.as_str()], arguments].concat())
    }

    fn json(&self, person: &str, arguments: &[&str]) -> Result<(i32, Value)> {
        self.fleet
            .json(person, &[&["--direct", self.at.as_str()], arguments].concat())
    }

    fn until_in_policy(&self, person: &str, wanted: bool) -> Result<()> {
        wait_for(&format!("{person} in the policy: {wanted}"), || {
            let output = self.direct(person, &["whoami"]).ok()?;
            (output.status.success() == wanted).then_some(())
        })
    }

    fn alive(&mut self, slice: &str) -> usize {
        self.fleet.at(self.node).processes(slice).len()
    }

    /// The node's own audit, as `person: action target outcome`.
    fn diary(&self) -> Result<Vec<String>> {
        let output = self.direct("alice", &["--json", "audit", "log"])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = |line: &str| -> Option<String> {
            let entry: Value = serde_json::from_str(line).ok()?;
            let text = |key: &str| entry[key].as_str().unwrap_or("-").to_owned();
            Some(format!(
                "{}: {} {} {}",
                text("person"),
                text("action"),
                text("target"),
                text("outcome")
            ))
        };
        Ok(text.lines().filter_map(line).collect())
    }
}

#[test]
fn with_the_controller_dead_everybody_does_at_a_node_what_the_table_says() -> Result<()> {
    let Some(mut scene) = Scene::set()? else {
        return Ok(());
    };
    scene.fleet.kill_controller();

    // Another's slice: refused, nothing dies.
    let refused = scene.direct("dave", &["slice", "kill", "mit_chord", "--reason", "envy"])?;
    assert_eq!(refused.status.code(), Some(5), "{}", words(&refused));
    assert!(
        words(&refused).contains("developer of it, PI of mit"),
        "{}",
        words(&refused)
    );
    assert_eq!(scene.alive("mit_chord"), 1);

    // One's own: dead, proven, and it stays dead.
    let killed = scene.direct(
        "dave",
        &["slice", "kill", "princeton_codeen", "--reason", "floods a bank"],
    )?;
    assert_eq!(killed.status.code(), Some(0), "{}", words(&killed));
    let said = words(&killed);
    assert!(
        said.contains("directly at node planet1, without the controller"),
        "{said}"
    );
    assert!(said.contains("policy was issued"), "{said}");
    assert!(!said.contains("NOT DURABLE"), "{said}");
    assert_eq!(scene.alive("princeton_codeen"), 0);
    let (code, why) = scene
        .fleet
        .at(scene.node)
        .try_exec("princeton_codeen", &["/bin/true"])?;
    assert_eq!(code, 5, "{why}");
    assert!(why.contains("floods a bank") && why.contains("dave"), "{why}");

    // A PI of another site, a PI of this one, the site's admin, support.
    let cell = |scene: &Scene, person: &str, arguments: &[&str], code: i32| -> Result<()> {
        let done = scene.direct(person, arguments)?;
        assert_eq!(
            done.status.code(),
            Some(code),
            "{person} {arguments:?}: {}",
            words(&done)
        );
        Ok(())
    };
    cell(
        &scene,
        "paula",
        &["slice", "freeze", "mit_chord", "--reason", "x"],
        5,
    )?;
    cell(
        &scene,
        "mona",
        &["slice", "freeze", "mit_chord", "--reason", "x"],
        0,
    )?;
    cell(
        &scene,
        "mona",
        &["slice", "release", "mit_chord", "--reason", "x"],
        0,
    )?;
    cell(&scene, "mona", &["node", "kill", "planet1", "--reason", "x"], 5)?;
    cell(&scene, "sam", &["slice", "kill", "mit_chord", "--reason", "x"], 0)?;
    assert_eq!(scene.alive("mit_chord"), 0);
    cell(&scene, "dave", &["node", "show", "planet1"], 5)?;
    cell(&scene, "sam", &["node", "show", "planet1"], 0)?;
    cell(&scene, "sam", &["node", "ps", "planet1"], 0)?;
    cell(
        &scene,
        "dave",
        &["node", "ps", "planet1", "--slice", "princeton_codeen"],
        0,
    )?;
    cell(&scene, "dave", &["node", "reboot", "planet1", "--reason", "x"], 5)?;
    cell(
        &scene,
        "sam",
        &["node", "freeze", "planet1", "--reason", "safe boot"],
        0,
    )?;
    cell(&scene, "sam", &["node", "release", "planet1", "--reason", "x"], 0)?;
    cell(&scene, "alice", &["node", "kill", "planet2", "--reason", "x"], 4)?;
    cell(
        &scene,
        "dave",
        &["slice", "release", "mit_chord", "--reason", "x"],
        5,
    )?;
    cell(
        &scene,
        "dave",
        &["slice", "release", "princeton_codeen", "--reason", "done"],
        0,
    )?;
    let people = scene.direct("alice", &["people", "ls"])?;
    assert!(
        words(&people).contains("only the controller can"),
        "{}",
        words(&people)
    );

    // The same key is the same order.
    let once = &[
        "slice",
        "kill",
        "princeton_codeen",
        "--reason",
        "twice",
        "--key",
        "k1",
    ];
    let (_, first) = scene.json("alice", once)?;
    let (_, second) = scene.json("alice", once)?;
    assert_eq!(first["order"]["id"], second["order"]["id"], "{first} {second}");
    assert_eq!(second["created"], false, "{second}");

    // All of it is in the node's own audit, which verifies offline.
    let diary = scene.diary()?;
    for entry in [
        "dave: kill-sliver mit_chord on planet1 refused",
        "dave: kill-sliver princeton_codeen on planet1 allowed",
        "dave: kill-sliver princeton_codeen on planet1 done",
        "paula: freeze-sliver mit_chord on planet1 refused",
        "mona: freeze-sliver mit_chord on planet1 allowed",
        "sam: kill-sliver mit_chord on planet1 allowed",
        "dave: see-node node planet1 refused",
        "dave: reboot-node node planet1 refused",
        "sam: freeze-node node planet1 allowed",
    ] {
        assert!(diary.iter().any(|line| line == entry), "{entry} in {diary:#?}");
    }
    let file = scene.fleet.path("diary.export").display().to_string();
    cell(&scene, "dave", &["audit", "export"], 5)?;
    cell(&scene, "alice", &["audit", "export", "--output", &file], 0)?;
    scene.fleet.ask("alice", &["audit", "verify", &file])?;
    let own = scene
        .fleet
        .at(scene.node)
        .state()
        .join("diary")
        .display()
        .to_string();
    scene.fleet.ask("alice", &["audit", "verify", &own])?;

    // Whoever returns does not undo it.
    scene.fleet.start_controller()?;
    scene.fleet.attached("planet1")?;
    assert_eq!(scene.alive("princeton_codeen"), 0);
    let (code, _) = scene
        .fleet
        .at(scene.node)
        .try_exec("princeton_codeen", &["/bin/true"])?;
    assert_eq!(code, 5, "the hold of the direct kill stands");
    Ok(())
}

#[test]
fn a_revocation_reaches_the_door_and_a_restart_keeps_the_policy() -> Result<()> {
    let Some(mut scene) = Scene::set()? else {
        return Ok(());
    };
    scene
        .fleet
        .ask("alice", &["people", "remove", "dave", "--reason", "left"])?;
    scene.until_in_policy("dave", false)?;
    let refused = scene.direct(
        "dave",
        &["slice", "kill", "princeton_codeen", "--reason", "revenge"],
    )?;
    assert_eq!(refused.status.code(), Some(5), "{}", words(&refused));
    assert!(words(&refused).contains("was revoked"), "{}", words(&refused));
    assert_eq!(scene.alive("princeton_codeen"), 1);

    // The node starts again without any controller and decides by what is on its disk.
    scene.fleet.kill_controller();
    scene.fleet.at(scene.node).kill();
    scene.fleet.at(scene.node).start()?;
    let log = scene.fleet.at(scene.node).log().to_owned();
    let at = wait_for("door of the restarted node", || {
        let text = std::fs::read_to_string(&log).ok()?;
        let line = text
            .lines()
            .rfind(|line| line.contains("people are served directly"))?;
        let (_, address) = line.split_once("address=")?;
        let at = format!("planet1@{}", address.split_whitespace().next()?);
        (at != scene.at).then_some(at)
    })?;
    scene.at = at;
    let refused = scene.direct("dave", &["whoami"])?;
    assert!(words(&refused).contains("was revoked"), "{}", words(&refused));
    let killed = scene.direct("paula", &["slice", "kill", "princeton_codeen", "--reason", "x"])?;
    assert_eq!(killed.status.code(), Some(0), "{}", words(&killed));

    // Its policy lost, nobody may do anything, and it says why.
    scene.fleet.at(scene.node).kill();
    let policy = scene.fleet.at(scene.node).state().join("policy");
    let mut bytes = std::fs::read(&policy)?;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&policy, bytes)?;
    let before = scene.at.clone();
    scene.fleet.at(scene.node).start()?;
    scene.at = wait_for("door of the node without a policy", || {
        let text = std::fs::read_to_string(&log).ok()?;
        let line = text
            .lines()
            .rfind(|line| line.contains("people are served directly"))?;
        let (_, address) = line.split_once("address=")?;
        let at = format!("planet1@{}", address.split_whitespace().next()?);
        (at != before).then_some(at)
    })?;
    for person in ["alice", "paula", "sam"] {
        let refused = scene.direct(person, &["slice", "kill", "mit_chord", "--reason", "x"])?;
        assert_eq!(refused.status.code(), Some(5), "{person}: {}", words(&refused));
        assert!(
            words(&refused).contains("nobody may act here: policy is corrupt"),
            "{}",
            words(&refused)
        );
    }
    // The controller sends it again.
    scene.fleet.start_controller()?;
    scene.fleet.attached("planet1")?;
    scene.until_in_policy("paula", true)
}

#[test]
fn the_wrong_node_and_the_wrong_address_are_told_apart() -> Result<()> {
    let Some(mut scene) = Scene::set()? else {
        return Ok(());
    };
    scene.fleet.kill_controller();
    let (_, address) = scene.at.split_once('@').expect("an address");
    let other = scene
        .fleet
        .redbutton("alice", &["--direct", &format!("planet2@{address}"), "whoami"])?;
    assert_eq!(other.status.code(), Some(4), "{}", words(&other));
    assert!(words(&other).contains("another node"), "{}", words(&other));
    let id = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    let other = scene
        .fleet
        .redbutton("alice", &["--direct", &format!("{id}@{address}"), "whoami"])?;
    assert!(
        words(&other).contains("not for the node that was asked for"),
        "{}",
        words(&other)
    );
    let nobody = scene
        .fleet
        .redbutton("alice", &["--direct", "planet1@127.0.0.1:1", "whoami"])?;
    assert!(
        words(&nobody).contains("cannot reach node planet1"),
        "{}",
        words(&nobody)
    );
    Ok(())
}

#[test]
fn a_kit_finds_the_node_without_an_address() -> Result<()> {
    let Some(mut scene) = Scene::set()? else {
        return Ok(());
    };
    let kit = scene.fleet.path("alice.kit").display().to_string();
    let secret = scene.fleet.path("passphrase").display().to_string();
    std::fs::write(&secret, "correct horse battery\n")?;
    let with = ["--kit", kit.as_str(), "--passphrase-file", secret.as_str()];
    scene.fleet.ask(
        "alice",
        &[&["kit", "export", "--out", kit.as_str()], &with[..]].concat(),
    )?;
    let sealed = std::fs::read(&kit)?;
    assert!(
        !sealed.windows(7).any(|window| window == b"planet1"),
        "the kit is readable"
    );
    scene.fleet.kill_controller();
    let shown = scene
        .fleet
        .ask("alice", &[&["kit", "show"], &with[..]].concat())?;
    assert!(
        shown.contains("planet1") && shown.contains("princeton"),
        "{shown}"
    );
    let killed = scene.fleet.redbutton(
        "alice",
        &[
            &[
                "--direct",
                "planet1",
                "slice",
                "kill",
                "mit_chord",
                "--reason",
                "x",
            ],
            &with[..],
        ]
        .concat(),
    )?;
    assert_eq!(killed.status.code(), Some(0), "{}", words(&killed));
    assert_eq!(scene.alive("mit_chord"), 0);
    std::fs::write(&secret, "wrong horse battery\n")?;
    let wrong = scene
        .fleet
        .redbutton("alice", &[&["kit", "show"], &with[..]].concat())?;
    assert_eq!(wrong.status.code(), Some(64), "{}", words(&wrong));
    assert!(words(&wrong).contains("passphrase is wrong"), "{}", words(&wrong));
    Ok(())
}

/// Days ago, for a certificate that has ended.
fn ended_bundle(scene: &Scene, person: &str) -> Result<String> {
    use controller::admin::{IssuePerson, issue_person};
    use time::{Duration, OffsetDateTime};
    let out = scene.fleet.path(&format!("{person}.ended"));
    let wish = IssuePerson {
        dir: scene.fleet.state(),
        name: person.parse()?,
        out: out.clone(),
        addresses: Vec::new(),
        life: Some(Duration::days(1)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(issue_person(&wish, OffsetDateTime::now_utc() - Duration::days(3)))?;
    Ok(out.display().to_string())
}

#[test]
fn a_breakglass_certificate_works_at_nodes_and_nowhere_else_and_is_revoked_like_any_other() -> Result<()> {
    let Some(mut scene) = Scene::set()? else {
        return Ok(());
    };
    let bundle = scene.fleet.path("paula.breakglass").display().to_string();
    let certificate = scene.fleet.path("paula.certificate").display().to_string();
    let state = scene.fleet.state().display().to_string();
    scene
        .fleet
        .ask("paula", &["breakglass", "request", "--out", &bundle])?;
    let request = format!("{bundle}.request");
    scene.fleet.admin(&[
        "issue",
        "breakglass",
        "paula",
        "--days",
        "90",
        "--request",
        &request,
        "--state",
        &state,
        "--out",
        &certificate,
    ])?;
    assert!(
        !std::fs::read_to_string(&certificate)?.contains("PRIVATE"),
        "the key stayed with its holder"
    );
    scene
        .fleet
        .ask("paula", &["breakglass", "accept", &certificate, "--out", &bundle])?;
    let ended = ended_bundle(&scene, "paula")?;
    let with = |scene: &Scene, bundle: &str, arguments: &[&str]| -> Result<Output> {
        scene
            .fleet
            .redbutton("paula", &[&["--bundle", bundle], arguments].concat())
    };
    let at = scene.at.clone();
    let direct = ["--direct", at.as_str()];

    // The controller does not know such people, and the program says so before it dials.
    let refused = with(&scene, &bundle, &["whoami"])?;
    assert_eq!(refused.status.code(), Some(64), "{}", words(&refused));
    assert!(
        words(&refused).contains("the controller does not"),
        "{}",
        words(&refused)
    );
    let text = std::fs::read_to_string(&bundle)?;
    let liar = scene.fleet.path("paula.liar");
    std::fs::copy(&bundle, &liar)?;
    std::fs::write(
        &liar,
        text.replacen("redbutton://breakglass/paula", "redbutton://person/paula", 1),
    )?;
    let refused = with(&scene, &liar.display().to_string(), &["--timeout", "3", "whoami"])?;
    assert_ne!(
        refused.status.code(),
        Some(0),
        "the controller let it in: {}",
        words(&refused)
    );

    scene.fleet.kill_controller();
    // Her day-long certificate has ended, and nobody renews it: the words name the way out.
    let late = with(&scene, &ended, &[&direct[..], &["whoami"]].concat())?;
    assert_eq!(late.status.code(), Some(4), "{}", words(&late));
    let said = words(&late);
    assert!(
        said.contains("your certificate has expired") && said.contains("breakglass"),
        "{said}"
    );
    let kill = ["slice", "kill", "princeton_codeen", "--reason", "x"];
    let killed = with(&scene, &bundle, &[&direct[..], &kill].concat())?;
    assert_eq!(killed.status.code(), Some(0), "{}", words(&killed));
    assert_eq!(scene.alive("princeton_codeen"), 0);
    // It carries a name, no role: what it may do is what paula may.
    let kill = ["slice", "kill", "mit_chord", "--reason", "x"];
    let refused = with(&scene, &bundle, &[&direct[..], &kill].concat())?;
    assert_eq!(refused.status.code(), Some(5), "{}", words(&refused));
    let output = scene.direct("alice", &["--json", "audit", "log"])?;
    assert!(
        words(&output).contains("breakglass certificate"),
        "{}",
        words(&output)
    );

    // Back again: it is listed and revoked like any other key.
    scene.fleet.start_controller()?;
    scene.fleet.attached("planet1")?;
    scene.fleet.ask("alice", &["people", "revoke-keys", "paula"])?;
    wait_for("the door to refuse the revoked key", || {
        let output = with(&scene, &bundle, &[&direct[..], &["whoami"]].concat()).ok()?;
        words(&output).contains("was revoked").then_some(())
    })
}
