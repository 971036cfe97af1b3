//! What nodes are given to decide by when we are gone.

use prost::Message;
use proto::Version;
use proto::v1::command::Action;
use proto::v1::{self, Capability, PolicySnapshot};

use crate::world::*;

impl Sim {
    /// A node that keeps a policy, and answers nothing to it.
    fn guided(self) -> Self {
        let guided = self.reporting(|report| {
            report.capabilities.push(Capability {
                name: proto::POLICY_CAPABILITY.into(),
                ..Capability::default()
            });
        });
        guided.answering(|command| match command.action {
            Some(Action::Policy(_)) => Vec::new(),
            _ => obedient(command),
        })
    }

    /// Every policy that it was sent, as the node reads them.
    fn policies(&self, world: &World) -> Vec<PolicySnapshot> {
        let roots = std::fs::read_to_string(world.state().join("ca.pem")).expect("the CA");
        let roots = trust::Roots::from_pem(&roots).expect("roots");
        let commands = self.commands();
        let policy = |command: &v1::Command| match &command.action {
            Some(Action::Policy(statement)) => {
                let body = trust::verify(statement, &roots, trust::Kind::Policy).expect("signed by us");
                Some(PolicySnapshot::decode(body).expect("a snapshot"))
            }
            _ => None,
        };
        commands.iter().filter_map(policy).collect()
    }

    async fn policy(
        &self,
        world: &World,
        what: &str,
        good: impl Fn(&PolicySnapshot) -> bool,
    ) -> PolicySnapshot {
        until(what, || async { self.policies(world).pop().filter(&good) }).await
    }
}

fn names(policy: &PolicySnapshot) -> Vec<&str> {
    policy.people.iter().map(|person| person.name.as_str()).collect()
}

fn version(policy: &PolicySnapshot) -> Version {
    policy.version.expect("a version").into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_gets_its_policy_and_every_change_of_it() {
    let world = World::new(&["n1@princeton", "n2@mit", "n3@princeton"]).await;
    let (n1, n2, n3) = (
        world.node("n1").guided(),
        world.node("n2").guided(),
        world.node("n3").guided(),
    );
    n1.dial();
    n2.dial();
    n3.dial();
    let first = n1.policy(&world, "the first policy", |_| true).await;
    assert_eq!(names(&first), ["ada", "alice", "dan", "otto", "paula", "peter"]);
    assert_eq!(first.slices, ["mit_chord", "princeton_codeen"]);
    assert_eq!(first.site, "princeton");
    let mit = n2.policy(&world, "mit's policy", |_| true).await;
    assert_eq!(
        names(&mit),
        ["alice", "dan", "otto", "paula", "peter"],
        "ada looks after princeton"
    );
    let same = n3.policy(&world, "the policy of the same site", |_| true).await;
    assert_eq!(same, first, "built and signed once for a site");

    let alice = world.person("alice").await;
    let request = v1::RevokeRequest {
        person: "dan".into(),
        grant: Some(v1::Grant {
            role: v1::Role::Developer.into(),
            slice: "princeton_codeen".into(),
            site: String::new(),
        }),
    };
    alice.people().revoke(request).await.expect("revoked");
    let second = n1
        .policy(&world, "the policy without dan", |policy| {
            !names(policy).contains(&"dan")
        })
        .await;
    assert!(version(&second) > version(&first), "{second:?}");
    assert!(second.issued_at_ms >= first.issued_at_ms);
    // A press changes no policy, though it is audited.
    alice
        .press("1", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed");
    n1.told(1).await;
    assert_eq!(n1.policies(&world).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_starts_again_sends_nobody_what_they_have() {
    let mut world = World::new(&["n1@princeton"]).await;
    let mut n1 = world.node("n1").guided();
    n1.dial();
    let first = n1.policy(&world, "the first policy", |_| true).await;
    n1.hang_up();
    world.stop().await;
    world.start().await;
    let version_there = first.version;
    let again = world
        .node("n1")
        .guided()
        .reporting(|report| report.policy_version = version_there);
    again.dial();
    let stale = world.node("n1");
    again.attached(1).await;
    let alice = world.person("alice").await;
    let request = v1::CreateSliceRequest {
        name: "mit_new".into(),
        ..Default::default()
    };
    alice.slices().create(request).await.expect("a slice");
    let next = again
        .policy(&world, "the changed policy", |policy| {
            policy.slices.iter().any(|slice| slice == "mit_new")
        })
        .await;
    // What changes meanwhile (a key that is seen for the first time) may make one more; none is what they have.
    let sent = again.policies(&world);
    assert!(
        sent.iter().all(|policy| version(policy) > version(&first)),
        "only what changed was sent: {sent:?}"
    );
    assert!(version(&next) > version(&first));
    drop(stale);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_an_earlier_release_is_sent_none() {
    let world = World::new(&["n1@princeton", "n2@princeton"]).await;
    let (old, new) = (world.node("n1"), world.node("n2").guided());
    old.dial();
    old.attached(1).await;
    new.dial();
    new.policy(&world, "a policy", |_| true).await;
    assert!(old.policies(&world).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_show_tells_where_and_by_what_a_node_decides() {
    let world = World::new(&["n1@princeton"]).await;
    let n1 = world.node("n1").reporting(|report| {
        report.policy_issued_at_ms = 77;
        report.direct_address = ":7445".into();
    });
    n1.dial();
    n1.attached(1).await;
    let alice = world.person("alice").await;
    let detail = until("the report", || async {
        let request = v1::GetNodeRequest { node: "n1".into() };
        let detail = alice.nodes().get(request).await.ok()?.into_inner();
        detail.node.filter(|node| node.policy_issued_at_ms == 77)
    })
    .await;
    assert_eq!(detail.direct_address, "127.0.0.1:7445");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kit_holds_the_nodes_that_its_holder_may_act_on() {
    let world = World::new(&["n1@princeton", "n2@mit"]).await;
    let n2 = world.node("n2").reporting(|report| {
        report.direct_address = ":7445".into();
        report.slivers.push(v1::SliverState {
            slice: "princeton_codeen".into(),
            activity: v1::SliverActivity::Running.into(),
            ..Default::default()
        });
    });
    n2.dial();
    n2.attached(1).await;
    let kit = async |who: &str| {
        let person = world.person(who).await;
        let mut kits = v1::kits_client::KitsClient::new(person.channel.clone());
        let mut parts = kits.export(v1::KitRequest {}).await?.into_inner();
        let mut nodes = Vec::new();
        while let Some(part) = parts.message().await? {
            nodes.extend(
                part.nodes
                    .into_iter()
                    .map(|node| (node.name, node.direct_address)),
            );
        }
        Ok::<_, tonic::Status>(nodes)
    };
    let n1 = ("n1".to_owned(), String::new());
    let n2 = ("n2".to_owned(), "127.0.0.1:7445".to_owned());
    assert_eq!(kit("alice").await.expect("support"), [n1.clone(), n2.clone()]);
    assert_eq!(kit("ada").await.expect("site admin"), [n1]);
    assert_eq!(kit("dan").await.expect("developer"), std::slice::from_ref(&n2));
    assert_eq!(kit("paula").await.expect("PI"), [n2]);
    assert!(
        kit("peter").await.expect("PI of mit").is_empty(),
        "nothing of mit runs anywhere"
    );
    let refused = kit("nora").await.expect_err("without a role");
    assert_eq!(code(&refused), "refused");
    let taken: Vec<String> = world
        .audit()
        .await
        .into_iter()
        .filter(|entry| entry.action == "export-kit")
        .map(|entry| format!("{} {}", entry.person, entry.outcome))
        .collect();
    assert_eq!(taken.len(), 6);
    assert_eq!(taken[5], "nora refused");
}
