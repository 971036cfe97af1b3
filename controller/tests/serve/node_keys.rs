//! Nodes' keys: join tokens, renewal over the link, long absence, revocation, clones.

use std::path::PathBuf;

use controller::admin::{self, IssueNode};
use nodemgr::keys::{JoinError, join};
use proto::bundle::Bundle;
use proto::v1::{self, Outcome};
use proto::{Identity, NodeId};
use time::OffsetDateTime;
use tonic::Status;

use crate::world::*;

impl Person {
    async fn enroll(&self, name: &str, site: &str) -> Result<v1::NodeToken, Status> {
        let request = v1::EnrollNodeRequest {
            name: name.into(),
            site: site.into(),
            life_s: 0,
        };
        Ok(self.nodes().enroll(request).await?.into_inner())
    }

    async fn rekey(&self, node: &str) -> Result<v1::NodeToken, Status> {
        let request = v1::RekeyNodeRequest {
            node: node.into(),
            life_s: 600,
        };
        Ok(self.nodes().rekey(request).await?.into_inner())
    }

    async fn revoke(&self, node: &str) -> Result<v1::RevokeNodeReply, Status> {
        let request = v1::RevokeNodeRequest {
            node: node.into(),
            reason: "stolen".into(),
        };
        Ok(self.nodes().revoke(request).await?.into_inner())
    }

    async fn show(&self, node: &str) -> v1::Node {
        let request = v1::GetNodeRequest { node: node.into() };
        let detail = self.nodes().get(request).await.expect("a node").into_inner();
        detail.node.expect("the node")
    }
}

impl World {
    /// The token with the controller's real port.
    fn token(&self, token: &v1::NodeToken) -> String {
        let mut bundle = Bundle::parse(&token.bundle).expect("a bundle");
        assert!(matches!(bundle.identity(), Ok(Identity::Invite(_))));
        bundle.controllers = vec![format!("localhost:{}", self.daemons.port())];
        bundle.to_text()
    }

    fn place(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    async fn join(&self, token: &v1::NodeToken, file: &str) -> Result<Bundle, JoinError> {
        let place = self.place(file);
        join(&self.token(token), &place, CAP).await?;
        let text = std::fs::read_to_string(place).expect("a bundle");
        Ok(Bundle::parse(&text).expect("a bundle"))
    }

    /// The node of a bundle, with a state directory of its own.
    fn sim(&self, bundle: Bundle, state: &str) -> Sim {
        let Ok(Identity::Daemon(id, _)) = bundle.identity() else {
            panic!("{} is no node", bundle.identity);
        };
        Sim::new(id, bundle).with_keys(&self.place(state))
    }

    async fn audited(&self, action: &str) -> Vec<v1::AuditEntry> {
        let mut entries = self.audit().await;
        entries.retain(|entry| entry.action == action);
        entries
    }

    async fn issue_for(&self, node: &str, now: OffsetDateTime, life: time::Duration) -> Sim {
        let out = self.place(&format!("{node}.issued"));
        let wish = IssueNode {
            dir: self.state(),
            name: name(node),
            site: None,
            out: out.clone(),
            addresses: vec![format!("localhost:{}", self.daemons.port())],
            life: Some(life),
        };
        admin::issue_node(&wish, now).await.expect("a bundle");
        let text = std::fs::read_to_string(out).expect("a file");
        let bundle = Bundle::parse(&text).expect("a bundle");
        let Ok(Identity::Daemon(id, _)) = bundle.identity() else {
            panic!("no node");
        };
        Sim::new(id, bundle)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_joins_with_a_key_of_its_own() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(&[]).await;
    let (ada, dan) = (world.person("ada").await, world.person("dan").await);
    assert_eq!(
        code(&dan.enroll("n1", "princeton").await.expect_err("refused")),
        "refused"
    );
    assert_eq!(
        code(&ada.enroll("n1", "mit").await.expect_err("another site")),
        "refused"
    );
    let token = ada.enroll("n1", "princeton").await.expect("a token");
    assert!(!format!("{token:?}").contains("PRIVATE"));

    let bundle = world.join(&token, "n1.joined").await.expect("joined");
    let mode = std::fs::metadata(world.place("n1.joined"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!world.place("n1.joined.joining").exists());
    assert_eq!(
        bundle.identity,
        format!("redbutton://node/{}/nodemgr", token.node)
    );
    let travelled = Bundle::parse(&token.bundle).expect("a bundle");
    assert_ne!(
        bundle.key.expose(),
        travelled.key.expose(),
        "a key that travelled"
    );

    let node = world.sim(bundle, "n1");
    node.dial();
    node.attached(1).await;
    let shown = ada.show("n1").await;
    assert!(shown.attached && shown.certificate_expires_at_ms > 0 && !shown.quarantined);
    let joined = world.audited("join-node").await;
    assert_eq!(joined.len(), 1);
    assert!(joined[0].detail.contains("by ada, key "), "{}", joined[0].detail);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_used_once_and_a_lost_answer_is_no_dead_end() {
    let world = World::new(&[]).await;
    let ada = world.person("ada").await;
    let token = ada.enroll("n1", "princeton").await.expect("a token");
    let bundle = world.join(&token, "n1.joined").await.expect("joined");
    // A crash between certificate and bundle leaves the key that was made; the same command goes on.
    std::fs::rename(world.place("n1.joined"), world.place("elsewhere")).expect("moved");
    std::fs::write(world.place("n1.joined.joining"), bundle.key.expose()).expect("written");
    std::os::unix::fs::chown(world.place("n1.joined.joining"), None, None).expect("ours");
    std::fs::set_permissions(
        world.place("n1.joined.joining"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .expect("ours");
    let again = world.join(&token, "n1.joined").await.expect("again");
    assert_eq!(again.key.expose(), bundle.key.expose());

    for _ in 0..2 {
        let error = world.join(&token, "thief").await.expect_err("replayed");
        let JoinError::Refused { reason } = &error else {
            panic!("{error:?}");
        };
        assert!(reason.contains("used already, by another key"), "{reason}");
        assert!(!world.place("thief").exists());
    }
    let refused = world.audited("join-node").await;
    let refused = refused.iter().filter(|entry| entry.outcome == "refused").count();
    assert_eq!(refused, 1, "told once, not at each knock");

    let invite = world.person("alice").await;
    let error = join(
        &std::fs::read_to_string(world.bundle_of("alice")).expect("a bundle"),
        &world.place("x"),
        CAP,
    )
    .await
    .expect_err("no token");
    assert!(error.to_string().contains("not a join token"), "{error}");
    drop(invite);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_on_the_link_and_the_node_does_not_notice() {
    let mut world = World::empty().await;
    world.node_life = 4;
    world.start().await;
    world.furnish(&["n1@princeton"]).await;
    let node = world
        .issue_for("n1", OffsetDateTime::now_utc(), time::Duration::seconds(4))
        .await
        .with_keys(&world.place("n1"));
    let first = node.keys().bundle().certificate.clone();
    node.dial();
    node.attached(1).await;
    // Two renewals: past the end of the first certificate.
    let mut changes = node.keys().changes();
    for _ in 0..2 {
        tokio::time::timeout(CAP, changes.changed())
            .await
            .expect("renewed")
            .expect("alive");
    }
    let now = node.keys().bundle();
    assert_ne!(now.certificate, first);
    assert_eq!(
        now.controllers[0],
        format!("localhost:{}", world.daemons.port()),
        "its own address first"
    );
    assert!(
        now.controllers.contains(&"localhost:7444".to_owned()),
        "and the recorded ones: {:?}",
        now.controllers
    );
    assert_eq!(node.syncs().len(), 1, "the link stood all the while");
    let kept = std::fs::read_to_string(world.place("n1/credentials.toml")).expect("kept");
    assert!(!kept.contains("PRIVATE") && kept.contains("princeton"));
    let floor: u64 = std::fs::read_to_string(world.place("n1/clock-floor"))
        .expect("kept")
        .trim()
        .parse()
        .expect("a number");
    assert!(floor > 1_700_000_000);
    assert!(!world.audited("renew-node").await.is_empty());
    // What was renewed is what the next start dials with.
    let again = world.sim(world.load("n1", world.daemons), "other");
    drop(again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_renew_is_cut_at_the_end() {
    let mut world = World::empty().await;
    world.node_life = 2;
    world.start().await;
    world.furnish(&["n1@princeton"]).await;
    let node = world
        .issue_for("n1", OffsetDateTime::now_utc(), time::Duration::seconds(3))
        .await;
    node.dial();
    node.attached(1).await;
    let alice = world.person("alice").await;
    until("the node to be cut", || async {
        let shown = alice.show("n1").await;
        (!shown.attached).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_for_five_months_renews_and_obeys() {
    let world = World::new(&["n1@princeton", "n2@princeton"]).await;
    let long_ago = OffsetDateTime::now_utc() - time::Duration::days(150);
    let node = world
        .issue_for("n1", long_ago, time::Duration::days(1))
        .await
        .with_keys(&world.place("n1"));
    let mute = world.issue_for("n2", long_ago, time::Duration::days(1)).await;
    let alice = world.person("alice").await;
    let pressed = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed");
    let order = pressed.order.expect("one").id;
    node.dial();
    let muted = mute.dial();
    node.attached(1).await;
    node.told(1).await;
    until("the kill to be proven", || async {
        let detail = alice.order(&order).await;
        let of = |id: NodeId| detail.nodes.iter().any(|r| r.node == id.to_string() && r.proven);
        of(node.id).then_some(())
    })
    .await;
    assert!(
        mute.syncs().is_empty() && !muted.is_finished(),
        "an ended certificate may only be renewed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_node_is_cut_and_shut_out_until_a_rekey() {
    let world = World::new(&["n1@princeton"]).await;
    let (ada, dan) = (world.person("ada").await, world.person("dan").await);
    let node = world.node("n1").with_keys(&world.place("n1"));
    node.dial();
    node.attached(1).await;
    assert_eq!(code(&dan.revoke("n1").await.expect_err("refused")), "refused");
    let stale = ada.rekey("n1").await.expect("a token");
    let revoked = ada.revoke("n1").await.expect("revoked");
    assert_eq!(revoked.revoked.len(), 1);
    let shown = until("the node to be cut", || async {
        let shown = ada.show("n1").await;
        (!shown.attached).then_some(shown)
    })
    .await;
    assert!(
        shown.revoked_at_ms > 0 && shown.trouble.contains("revoked"),
        "{shown:?}"
    );
    let error = world
        .join(&stale, "stale")
        .await
        .expect_err("void with the revocation");
    assert!(error.to_string().contains("void"), "{error}");

    // Its key is refused from then on, also with a certificate that has ended, also after a restart.
    let audited = world.audited("revoke-node").await;
    assert!(
        audited.iter().any(|entry| entry.reason == "stolen"),
        "{audited:?}"
    );
    let token = ada.rekey("n1").await.expect("a token");
    let bundle = world.join(&token, "n1.new").await.expect("joined");
    let new = world.sim(bundle, "n1.new.state");
    new.dial();
    new.attached(1).await;
    assert_eq!(node.syncs().len(), 1, "the revoked key got in again");
    let shown = ada.show("n1").await;
    assert!(shown.attached && shown.revoked_at_ms == 0, "{shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rekey_shuts_out_the_key_before_at_once() {
    let world = World::new(&["n1@princeton"]).await;
    let ada = world.person("ada").await;
    let mut old = world.node("n1");
    old.dial();
    old.attached(1).await;
    let token = ada.rekey("n1").await.expect("a token");
    let bundle = world.join(&token, "n1.new").await.expect("joined");
    until("the old key to be cut", || async {
        let shown = ada.show("n1").await;
        (!shown.attached).then_some(())
    })
    .await;
    let new = world.sim(bundle, "new");
    new.dial();
    new.attached(1).await;
    assert_eq!(old.syncs().len(), 1);
    old.hang_up();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_are_held_in_hand_and_not_believed_until_a_rekey() {
    let mut world = World::new(&["n1@princeton"]).await;
    let (one, two) = (world.node("n1"), world.node("n1"));
    let ada = world.person("ada").await;
    one.dial();
    one.attached(1).await;
    assert!(!ada.show("n1").await.quarantined);
    two.dial();
    let shown = until("the clone to be noticed", || async {
        let shown = ada.show("n1").await;
        shown.quarantined.then_some(shown)
    })
    .await;
    assert!(
        shown.trouble.contains("take turns under one key"),
        "{}",
        shown.trouble
    );
    let alarm = world.audited("quarantine-node").await;
    assert_eq!(alarm.len(), 1);
    assert_eq!(alarm[0].outcome, "failed");

    // It stands across a restart, and presses still reach whichever is attached.
    let (mut one, mut two) = (one, two);
    two.hang_up();
    world.stop().await;
    world.start().await;
    let ada = world.person("ada").await;
    assert!(ada.show("n1").await.quarantined);
    let before = one.syncs().len();
    one.attached(before + 1).await;
    let alice = world.person("alice").await;
    let pressed = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed");
    let order = pressed.order.expect("one").id;
    one.told(1).await;
    let result = until("the answer", || async {
        let detail = alice.order(&order).await;
        let result = detail
            .nodes
            .into_iter()
            .find(|r| r.outcome() == Outcome::Failed)?;
        Some(result)
    })
    .await;
    let said = result.answer.expect("an answer").detail;
    assert!(!result.proven && said.contains("quarantined"), "{said}");

    one.hang_up();
    let token = ada.rekey("n1").await.expect("a token");
    let bundle = world.join(&token, "n1.new").await.expect("joined");
    let new = world.sim(bundle, "new");
    new.dial();
    new.attached(1).await;
    until("the kill to be proven", || async {
        let detail = alice.order(&order).await;
        detail.nodes.iter().all(|r| r.proven).then_some(())
    })
    .await;
    let shown = ada.show("n1").await;
    assert!(!shown.quarantined && shown.trouble.is_empty(), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_clock_is_shown() {
    let world = World::new(&["n1@princeton"]).await;
    let node = world.node("n1").reporting(|report| report.clock_ms = 60_000);
    node.dial();
    node.attached(1).await;
    let shown = world.person("ada").await.show("n1").await;
    assert!(
        shown.clock_skew_ms.expect("said") < -1_000_000_000_000,
        "{shown:?}"
    );
    assert!(
        shown.trouble.contains("its clock is") && shown.trouble.contains("behind"),
        "{}",
        shown.trouble
    );
}
