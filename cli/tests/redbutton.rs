//! The real `redbutton` against a real tonic server over mutual TLS: press, watch, report, exit code; and what
//! it says when something is wrong on the way.

mod support;

use proto::v1;
use proto::v1::Outcome::{AlreadyDead, Failed, Killed, Offline, Partial, Sent};
use support::fake::{Fake, ORDER, Press, Script, Watched, event};
use support::{Home, pki::Authority};
use tokio::net::TcpListener;
use tonic::Status;

const KILL: [&str; 4] = ["kill-slice", "princeton_codeen", "--reason", "floods a bank"];

fn watched(events: Vec<v1::OrderEvent>) -> Script {
    Script {
        watches: [Watched { events, hang: true }].into(),
        ..Script::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_press_is_watched_to_its_proof() {
    let fake = Fake::start(watched(vec![
        event((Sent, false), (Sent, false), false),
        event((Killed, false), (Sent, false), false),
        event((Killed, true), (AlreadyDead, true), false),
    ]))
    .await;
    let ran = fake.home().run(&KILL).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let table = "\
NODE            OUTCOME       KILLED ZOMBIE STUCK RESPAWN DEAD IN
n1.example.org  killed             5      0     0       0    9 ms
n2.example.org  already dead       5      0     0       0   18 ms

proof: 2 of 2 nodes proven; slowest after 18 ms; hold on disk on 2 nodes
";
    assert!(ran.stdout.ends_with(table), "{}", ran.stdout);
    assert!(
        ran.stdout
            .starts_with("kill-slice princeton_codeen everywhere: 1 killed, 1 already dead\n")
    );
    assert!(
        ran.stderr
            .starts_with("killing slice princeton_codeen everywhere\norder 0193a1b2-"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("killed 0/2\n"), "{}", ran.stderr);
    let presses = fake.presses();
    assert_eq!(presses.len(), 1);
    assert_eq!(presses[0].reason, "floods a bank");
    let scope = v1::Scope {
        reach: Some(v1::scope::Reach::Fleet(true)),
    };
    let wish = v1::HoldWish {
        slice: "princeton_codeen".into(),
        scope: Some(scope),
        kind: v1::HoldKind::Suspend.into(),
    };
    assert_eq!(presses[0].wish, Some(v1::press_request::Wish::Hold(wish)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_press_that_lost_its_answer_is_pressed_again_with_the_same_key() {
    let mut script = watched(vec![event((Killed, true), (Killed, true), true)]);
    script.presses = [Press::Cut, Press::Cut, Press::Take].into();
    let fake = Fake::start(script).await;
    let ran = fake.home().run(&KILL).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stderr.contains("pressing again with the same key"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stdout.contains("pressed before with this key"),
        "{}",
        ran.stdout
    );
    let keys: Vec<String> = fake
        .presses()
        .into_iter()
        .map(|press| press.idempotency_key)
        .collect();
    assert_eq!(keys.len(), 3);
    assert!(
        keys.iter().all(|key| *key == keys[0] && key.len() == 36),
        "{keys:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_presses_are_two_keys_unless_one_is_given() {
    let fake = Fake::start(Script::default()).await;
    let home = fake.home();
    for key in [&[][..], &[], &["--key", "mine"], &["--key", "mine"]] {
        let ran = home.run(&[&KILL[..], &["--no-wait"], key].concat()).await;
        assert_eq!(ran.code, Some(2), "nodes are pending: {ran:?}");
    }
    let keys: Vec<String> = fake
        .presses()
        .into_iter()
        .map(|press| press.idempotency_key)
        .collect();
    assert_ne!(keys[0], keys[1]);
    assert_eq!(keys[2..], ["mine", "mine"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_knows_whether_a_press_arrived_the_key_is_told() {
    let presses = std::iter::repeat_with(|| Press::Cut).take(20).collect();
    let fake = Fake::start(Script {
        presses,
        ..Script::default()
    })
    .await;
    let ran = fake
        .home()
        .run(&[&KILL[..], &["--timeout", "6", "--json"]].concat())
        .await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    let presses = fake.presses();
    assert!((2..=5).contains(&presses.len()), "{} presses", presses.len());
    let error = &ran.json()["error"];
    assert_eq!(error["code"], "fate-unknown");
    let key = &presses[0].idempotency_key;
    assert_eq!(
        error["next"],
        format!("press again with --key {key}: the same key is the same order")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_watch_is_taken_up_again() {
    let first = Watched {
        events: vec![event((Killed, true), (Sent, false), false)],
        hang: false,
    };
    let second = Watched {
        events: vec![event((Killed, true), (Killed, true), true)],
        hang: true,
    };
    let fake = Fake::start(Script {
        watches: [first, second].into(),
        ..Script::default()
    })
    .await;
    let ran = fake.home().run(&KILL).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stderr.contains("the order goes on, looking again"),
        "{}",
        ran.stderr
    );
    assert_eq!(fake.presses().len(), 1, "a broken watch presses nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_lost_while_watching_leaves_the_order() {
    let fake = Fake::start(Script::default()).await;
    let ran = fake.home().run(&[&KILL[..], &["--wait", "0.5"]].concat()).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.stdout
            .contains("lost the controller (no more watches); the order goes on"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout
            .contains(&format!("next: redbutton order watch {ORDER}\n")),
        "{}",
        ran.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worst_node_is_the_exit_code() {
    for (two, proven, code) in [(Offline, false, 2), (Partial, false, 3), (Failed, false, 4)] {
        let fake = Fake::start(watched(vec![event((Killed, true), (two, proven), false)])).await;
        let ran = fake.home().run(&[&KILL[..], &["--json"]].concat()).await;
        assert_eq!(ran.code, Some(code), "{ran:?}");
        let report = ran.json();
        assert_eq!(report["exit_code"], code);
        assert_eq!(
            report["ended"]["by"], "settled",
            "nothing more is worth waiting for"
        );
        assert_eq!(report["order"]["counts"]["killed"], 1);
        assert_eq!(report["nodes"][1]["outcome"], "killed");
        assert!(report["next"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outstanding_proof_is_waited_for_and_then_pending() {
    let fake = Fake::start(watched(vec![event((Killed, true), (Killed, false), false)])).await;
    let ran = fake.home().run(&[&KILL[..], &["--wait", "0.3"]].concat()).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stdout.contains("killed, unproven"), "{}", ran.stdout);
    assert!(
        ran.stdout
            .contains("the time to wait has passed; the order goes on"),
        "{}",
        ran.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_not_durable_is_told_loudly() {
    let mut script = watched(vec![event((Killed, true), (Killed, true), true)]);
    script.presses = [Press::TakeNotDurable].into();
    let fake = Fake::start(script).await;
    let ran = fake.home().run(&[&KILL[..], &["--quiet"]].concat()).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stderr.starts_with("NOT DURABLE: "),
        "not even --quiet silences it: {}",
        ran.stderr
    );
    assert!(
        ran.stdout
            .contains("NOT DURABLE: the controller's disk did not take this order (disk is full)")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_the_order_running_and_says_so() {
    let fake = Fake::start(watched(vec![event((Killed, true), (Sent, false), false)])).await;
    let ran = fake.home().run_until(&KILL, "killed 1/2").await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.stdout.contains("interrupted; the order goes on\n"),
        "{}",
        ran.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_terminal_the_reason_is_asked_for_and_a_bar_moves() {
    let fake = Fake::start(watched(vec![
        event((Sent, false), (Sent, false), false),
        event((Killed, true), (Killed, true), true),
    ]))
    .await;
    let args = ["kill-slice", "princeton_codeen"];
    let ran = fake
        .home()
        .run_at_terminal(&args, "reason: ", "floods a bank\n")
        .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(fake.presses()[0].reason, "floods a bank");
    let asked = ran.stderr.find("reason: ").expect("asked");
    let target = ran
        .stderr
        .find("killing slice princeton_codeen everywhere")
        .expect("told");
    assert!(
        target < asked,
        "what will be hit is told before the question: {ran:?}"
    );
    assert!(ran.stderr.contains("killed 0/2"), "{ran:?}");
    assert!(
        !ran.stdout.contains('\u{1b}'),
        "the result is plain text: {ran:?}"
    );
    let empty = fake.home().run_at_terminal(&args, "reason: ", "\n").await;
    assert_eq!(empty.code, Some(64), "{empty:?}");
    assert_eq!(fake.presses().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_watched_or_shown_has_the_same_codes() {
    let fake = Fake::start(watched(vec![
        event((Sent, false), (Sent, false), false),
        event((Killed, true), (Partial, false), true),
    ]))
    .await;
    let home = fake.home();
    let ran = home.run(&["order", "watch", ORDER, "--json"]).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let lines: Vec<serde_json::Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON lines"))
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["last"], &lines[1]["last"]),
        (&false.into(), &true.into())
    );
    let ran = home.run(&["order", "show", ORDER]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.stdout
            .contains("next: nodes that are away obey when they return"),
        "{}",
        ran.stdout
    );
    let ran = home
        .run(&["order", "show", "0193a1b2-0000-7000-8000-00000000ffff"])
        .await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(
        ran.stderr
            .contains("no order 0193a1b2-0000-7000-8000-00000000ffff"),
        "{}",
        ran.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_tells_the_rule_and_exits_5() {
    let mut status = Status::permission_denied("a PI kills slices of the own site");
    status
        .metadata_mut()
        .insert("redbutton-code", "denied".parse().expect("ASCII"));
    let guard = Status::failed_precondition("node n1 has no commissioned outlet");
    let fake = Fake::start(Script {
        presses: [Press::Refuse(status), Press::Refuse(guard)].into(),
        ..Script::default()
    })
    .await;
    let home = fake.home();
    let ran = home.run(&[&KILL[..], &["--json"]].concat()).await;
    assert_eq!(ran.code, Some(5), "{ran:?}");
    let error = &ran.json()["error"];
    assert_eq!(
        (error["code"].as_str(), error["exit_code"].as_u64()),
        (Some("denied"), Some(5))
    );
    let ran = home.run(&["node", "stop", "n1", "--reason", "x"]).await;
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(
        ran.stderr
            .ends_with("redbutton: refused: node n1 has no commissioned outlet\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(fake.presses().len(), 2, "a refusal is not pressed again");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_page_by_page_and_errors_keep_the_controllers_code() {
    let slice = |n: u32| v1::Slice {
        name: format!("princeton_s{n}"),
        ..Default::default()
    };
    let fake = Fake::start(Script {
        slices: (1..=5).map(slice).collect(),
        ..Script::default()
    })
    .await;
    let home = fake.home();
    let ran = home.run(&["slice", "ls", "--json"]).await;
    assert_eq!(ran.json()["slices"].as_array().map(Vec::len), Some(5), "{ran:?}");
    let ran = home.run(&["slice", "add", "princeton_codeen", "--json"]).await;
    assert_eq!(
        (ran.code, ran.json()["error"]["code"].as_str()),
        (Some(4), Some("slice.exists"))
    );
    let ran = home.run(&["slice", "holds", "princeton_codeen"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "no holds\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_trust_nothing_is_pressed_and_the_reason_is_told() {
    let fake = Fake::start(Script::default()).await;
    let other = Authority::new();
    let alice = fake.ca.person(false);
    let here = [fake.address()];
    let told = async |home: Home, more: &[&str]| {
        let ran = home.run(&[&KILL[..], &["--json"], more].concat()).await;
        assert_eq!(ran.code, Some(4), "{ran:?}");
        assert!(
            !ran.stderr.contains("pressing again"),
            "trying again cannot mend it: {ran:?}"
        );
        ran.json()["error"]["code"].as_str().map(str::to_owned)
    };
    let stale = Home::new(&other.certificate, &alice, &here);
    assert_eq!(told(stale, &[]).await.as_deref(), Some("wrong-ca"));
    let expired = Home::new(&fake.ca.certificate, &fake.ca.person(true), &here);
    assert_eq!(told(expired, &[]).await.as_deref(), Some("certificate-expired"));
    let stranger = Home::new(&fake.ca.certificate, &other.person(false), &here);
    assert_eq!(
        told(stranger, &[]).await.as_deref(),
        Some("certificate-not-accepted")
    );
    assert_eq!(
        told(fake.home(), &["--server-name", "elsewhere"])
            .await
            .as_deref(),
        Some("wrong-name")
    );
    assert_eq!(fake.presses().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_name_can_be_told_apart_from_the_address() {
    let fake = Fake::with_names(Script::default(), &["controller.example.org"]).await;
    let home = fake.home();
    let ran = home.run(&["slice", "ls", "--json"]).await;
    assert_eq!(
        (ran.code, ran.json()["error"]["code"].as_str()),
        (Some(4), Some("wrong-name"))
    );
    let address = format!("127.0.0.1:{}", fake.port);
    let there = [
        "slice",
        "ls",
        "--controller",
        &address,
        "--server-name",
        "controller.example.org",
    ];
    let ran = home.run(&there).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "no slices\n"),
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_controller_is_dialled_when_the_first_is_away() {
    let fake = Fake::start(Script::default()).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let away = format!("localhost:{}", gone.local_addr().expect("an address").port());
    drop(gone);
    let both = Home::new(
        &fake.ca.certificate,
        &fake.ca.person(false),
        &[away.clone(), fake.address()],
    );
    assert_eq!(both.run(&["slice", "ls"]).await.code, Some(0));
    let one = Home::new(
        &fake.ca.certificate,
        &fake.ca.person(false),
        std::slice::from_ref(&away),
    );
    let ran = one.run(&["slice", "ls"]).await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(
        ran.stderr.starts_with(&format!(
            "redbutton: cannot reach the controller {away}: connection refused\nnext: "
        )),
        "{}",
        ran.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_accepts_and_stays_silent_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            kept.push(connection);
        }
    });
    let ca = Authority::new();
    let home = Home::new(&ca.certificate, &ca.person(false), &[address]);
    let ran = home
        .run(&[&KILL[..], &["--timeout", "1.5", "--json"]].concat())
        .await;
    assert_eq!(
        (ran.code, ran.json()["error"]["code"].as_str()),
        (Some(4), Some("timeout")),
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_on_this_side_is_usage() {
    let ca = Authority::new();
    let home = Home::new(&ca.certificate, &ca.person(false), &["localhost:1".into()]);
    let ran = home.run(&["kill-slice", "princeton_codeen"]).await;
    assert_eq!(ran.code, Some(64), "no terminal to ask for the reason: {ran:?}");
    assert!(
        ran.stderr.contains("a reason is required: --reason TEXT"),
        "{}",
        ran.stderr
    );
    let ran = home.run(&["kill-slice", "Codeen", "--json"]).await;
    assert_eq!(
        (ran.code, ran.json()["error"]["code"].as_str()),
        (Some(64), Some("usage")),
        "{ran:?}"
    );
    let ran = home.run(&["people", "grant", "bob", "--role", "pi"]).await;
    assert_eq!(ran.code, Some(64), "{ran:?}");
    home.chmod(0o644);
    let ran = home.run(&["whoami"]).await;
    assert_eq!(ran.code, Some(64), "{ran:?}");
    assert!(
        ran.stderr
            .contains(&format!("next: chmod 600 {}", home.bundle().display())),
        "{}",
        ran.stderr
    );
    let ran = home.run(&["whoami", "--bundle", "absent"]).await;
    assert_eq!(ran.code, Some(64), "{ran:?}");
}

fn chain() -> Vec<audit::Entry> {
    let mut head = audit::Head::GENESIS;
    (1..=5)
        .map(|n| {
            let draft = audit::Draft {
                at_ms: 1_795_316_645_000 + n,
                version: proto::Version {
                    incarnation: 1,
                    epoch: 7,
                },
                person: Some("alice".parse().expect("valid")),
                role: Some(proto::Role::Support),
                action: "kill-slice".into(),
                target: format!("princeton_s{n} everywhere"),
                reason: "floods a bank".into(),
                evidence: String::new(),
                outcome: audit::Outcome::Allowed,
                detail: "support: any slice".into(),
                order: Some(ORDER.parse().expect("valid")),
            };
            let entry = audit::seal(&head, draft);
            head = entry.head();
            entry
        })
        .collect()
}

fn wire(entry: &audit::Entry) -> v1::AuditEntry {
    let audit::Entry {
        sequence,
        said,
        previous,
        hash,
    } = entry.clone();
    v1::AuditEntry {
        sequence,
        at_ms: said.at_ms,
        person: said.person.map(String::from).unwrap_or_default(),
        role: said.role.map_or(0, |role| v1::Role::from(role).into()),
        action: said.action,
        target: said.target,
        reason: said.reason,
        evidence: said.evidence,
        outcome: said.outcome.to_string(),
        detail: said.detail,
        order: said.order.map(String::from).unwrap_or_default(),
        previous: previous.as_bytes().to_vec(),
        hash: hash.as_bytes().to_vec(),
        version: Some(said.version.into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_read_exported_and_verified_offline() {
    let chain = chain();
    let fake = Fake::start(Script {
        audit: chain.iter().map(wire).collect(),
        ..Script::default()
    })
    .await;
    let home = fake.home();
    let ran = home.run(&["audit", "log", "-n", "3", "--json"]).await;
    let sequences: Vec<u64> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON lines")["sequence"].as_u64())
        .map(|sequence| sequence.expect("a number"))
        .collect();
    assert_eq!(sequences, [5, 4, 3], "newest first, page by page");
    let ran = home.run(&["audit", "export", "-o", "file"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let again = home.run(&["audit", "export", "-o", "file"]).await;
    assert_eq!(again.code, Some(4), "an existing file is not overwritten");

    // From here on no bundle and no controller.
    std::fs::remove_file(home.bundle()).expect("removed");
    let head = chain[4].head().to_string();
    let ran = home.run(&["audit", "verify", "file", "--witness", &head]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(
        ran.stdout,
        format!("5 entries form one chain\nhead: {head}\n1 witness is in it\n")
    );

    let file = home.dir.path().join("file");
    let text = std::fs::read_to_string(&file).expect("readable");
    std::fs::write(&file, text.replace("princeton_s3", "princeton_s4")).expect("written");
    let ran = home.run(&["audit", "verify", "file", "--json"]).await;
    assert_eq!(
        (ran.code, ran.json()["error"]["code"].as_str()),
        (Some(4), Some("audit-broken")),
        "{ran:?}"
    );
    let cut: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
    std::fs::write(&file, cut).expect("written");
    assert_eq!(home.run(&["audit", "verify", "file"]).await.code, Some(0));
    let ran = home.run(&["audit", "verify", "file", "--witness", &head]).await;
    assert_eq!(
        ran.code,
        Some(4),
        "a witness shows that the tail was cut: {ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_manual_pages_need_no_bundle() {
    let dir = tempfile::tempdir().expect("a directory");
    let home = Home { dir };
    for shell in ["bash", "zsh", "fish"] {
        let ran = home.run(&["completions", shell]).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stdout.contains("kill-slice"), "{shell}");
    }
    let ran = home.run(&["man", "pages"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for page in [
        "redbutton.1",
        "redbutton-kill-slice.1",
        "redbutton-slice-kill.1",
        "redbutton-audit-verify.1",
    ] {
        let text = std::fs::read_to_string(home.dir.path().join("pages").join(page)).expect(page);
        assert!(text.contains(".SH"), "{page}");
    }
    let ran = home.run(&["--version"]).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), concat!("redbutton ", env!("CARGO_PKG_VERSION"), "\n"))
    );
}

/// Half of this certificate's life is over, and this controller renews none.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_does_not_fail_because_renewing_does() {
    let fake = Fake::start(Script::default()).await;
    let aging = fake.ca.person_until(Some(2040));
    let home = Home::new(&fake.ca.certificate, &aging, &[fake.address()]);
    let before = std::fs::read(home.bundle()).expect("a bundle");
    let ran = home.run(&["slice", "ls"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.stderr, "", "it is quiet about it");
    assert_eq!(std::fs::read(home.bundle()).expect("a bundle"), before);
    let ran = home.run(&["login"]).await;
    assert_eq!(ran.code, Some(4), "asked for, it is told: {ran:?}");
}
