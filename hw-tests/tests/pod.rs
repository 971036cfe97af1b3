//! The listener, asked by two senders that share no code: ours, and one in Python that was written from
//! `docs/protocol-pod.md` alone.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use ed25519_dalek::SigningKey;
use hw_tests::fleet::{program, wait_for};
use pod_sender::{Campaign, FileKey, Outcome, Patience, Target};
use pod_wire::{Action, TagSecret};
use uuid::Uuid;

const SEED: [u8; 32] = [3; 32];
const SECRET: [u8; 16] = [4; 16];

struct Listener {
    child: Child,
    _folder: tempfile::TempDir,
    node: Uuid,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A listener that may do a dry-run and nothing else. `None`, and says so, without root.
fn listener() -> Result<Option<Listener>> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: raw ICMP sockets need root");
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let node = Uuid::new_v4();
    let keys = folder.path().join("keys.toml");
    fs::write(
        &keys,
        format!(
            "format = 1\nnode = \"{node}\"\nsecrets = [\"{}\"]\n[[keys]]\npublic = \"{}\"\nactions = [\"dry-run\"]\n",
            hex(&SECRET),
            hex(SigningKey::from_bytes(&SEED).verifying_key().as_bytes())
        ),
    )?;
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600))?;
    let log = folder.path().join("log");
    let child = Command::new(program("redbutton-pod-listener")?)
        .args(["run", "--leave-host", "--keys"])
        .arg(&keys)
        .arg("--state")
        .arg(folder.path().join("state"))
        .arg("--slivers")
        .arg(folder.path().join("none"))
        .stderr(Stdio::from(fs::File::create(&log)?))
        .spawn()
        .context("redbutton-pod-listener")?;
    let listener = Listener {
        child,
        _folder: folder,
        node,
    };
    wait_for("an armed listener", || {
        fs::read_to_string(&log)
            .is_ok_and(|text| text.contains("armed: "))
            .then_some(())
    })?;
    Ok(Some(listener))
}

/// What the sender in Python says.
fn python(order: &serde_json::Value) -> Result<serde_json::Value> {
    let mut sender = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/pod_send.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("python3")?;
    let mut orders = sender.stdin.take().context("stdin")?;
    orders.write_all(order.to_string().as_bytes())?;
    drop(orders);
    let output = sender.wait_with_output()?;
    ensure!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{:?}", String::from_utf8_lossy(&output.stdout)))
}

#[test]
fn a_sender_written_from_the_document_is_understood() -> Result<()> {
    let Some(listener) = listener()? else {
        return Ok(());
    };
    for to in ["127.0.0.1", "::1"] {
        let order = |action: &str, boot: &str, seed: &[u8], secret: &[u8]| {
            serde_json::json!({
                "to": to, "node": listener.node.to_string(), "boot": boot, "action": action,
                "secret": hex(secret), "seed": hex(seed),
            })
        };
        let here = python(&order("probe", "", &SEED, &SECRET))?;
        ensure!(here["status"] == "here", "{here}");
        let boot = here["boot"].as_str().context("a boot id")?;
        let running = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        ensure!(boot == running.trim(), "{boot}");
        let armed = python(&order("dry-run", boot, &SEED, &SECRET))?;
        ensure!(armed["status"] == "armed", "{armed}");
        let refused = python(&order("reboot", boot, &SEED, &SECRET))?;
        ensure!(
            refused["status"] == "refused" && refused["why"] == "out of scope",
            "{refused}"
        );
        let other = python(&order("dry-run", &Uuid::new_v4().to_string(), &SEED, &SECRET))?;
        ensure!(other["why"] == "other boot" && other["boot"] == boot, "{other}");
        let stranger = python(&order("dry-run", boot, &[9; 32], &SECRET))?;
        ensure!(stranger["why"] == "unknown key", "{stranger}");
    }
    Ok(())
}

#[test]
fn our_sender_finds_the_boot_and_tells_a_dead_listener_from_a_refusal() -> Result<()> {
    let Some(listener) = listener()? else {
        return Ok(());
    };
    let to = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let quick = Patience {
        every_ms: 50,
        tries: 3,
        last_tries: 3,
        watch_ms: 0,
    };
    let ask = |secret: [u8; 16], boot: Option<[u8; 16]>, action| -> Result<Outcome> {
        let mut campaign = Campaign::open(to)?;
        let target = Target {
            node: *listener.node.as_bytes(),
            boot,
            secret: TagSecret::new(secret),
        };
        let key = FileKey::new(SigningKey::from_bytes(&SEED));
        let mut outcome = None;
        campaign.run(vec![(target, to.to_vec())], action, &key, quick, &mut |told| {
            outcome = Some(told.outcome);
        })?;
        outcome.context("no end")
    };
    let armed = ask(SECRET, Some([1; 16]), Action::DryRun)?;
    ensure!(matches!(armed, Outcome::Armed(_)), "{armed:?}");
    let refused = ask(SECRET, None, Action::Crash)?;
    ensure!(
        matches!(refused, Outcome::Refused(pod_wire::Refusal::Scope, _)),
        "{refused:?}"
    );
    // Another secret: to us the listener is silent, and the kernel is not.
    let silent = ask([9; 16], None, Action::DryRun)?;
    ensure!(silent == Outcome::KernelAlive, "{silent:?}");
    Ok(())
}

#[test]
fn thousands_of_nodes_in_one_campaign_each_get_their_own_packet() -> Result<()> {
    let Some(listener) = listener()? else {
        return Ok(());
    };
    // All at one address: one of them is there, the others are unknown to it, and only the kernel answers for them.
    let to = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let target = |node: [u8; 16]| {
        let target = Target {
            node,
            boot: None,
            secret: TagSecret::new(SECRET),
        };
        (target, vec![to])
    };
    let mut targets: Vec<_> = (0..1_999).map(|_| target(*Uuid::new_v4().as_bytes())).collect();
    targets.push(target(*listener.node.as_bytes()));
    let quick = Patience {
        every_ms: 2_000,
        tries: 2,
        last_tries: 1,
        watch_ms: 0,
    };
    let key = FileKey::new(SigningKey::from_bytes(&SEED));
    let (mut here, mut alive, mut other) = (0, 0, 0);
    Campaign::open([to])?.run(
        targets,
        Action::Probe,
        &key,
        quick,
        &mut |told| match told.outcome {
            Outcome::Here(_) => here += 1,
            Outcome::KernelAlive => alive += 1,
            _ => other += 1,
        },
    )?;
    ensure!((here, alive + other) == (1, 1_999), "{here} {alive} {other}");
    Ok(())
}
