//! What nodes bring back: holds and releases that the store does not know, what was done at their own doors, and
//! nodes that make it up.

use proto::canonical::{self, told_id};
use proto::v1::release_wish::What;
use proto::v1::{self, MergeReply, Outcome, command::Action};
use proto::{Hold, HoldId, HoldKind, Role, Scope, Version};
use trust::{Keyring, Kind, Signer};

use crate::world::*;

impl World {
    fn signer(&self) -> std::sync::Arc<Signer> {
        controller::pki::Authority::open(&self.state(), time::OffsetDateTime::now_utc())
            .expect("the controller's")
            .signer()
    }
}

/// A kill of a slice everywhere, from a life of the database that is lost.
fn lost_hold() -> Hold {
    Hold {
        id: HoldId::new(),
        slice: Some(name("princeton_codeen")),
        scope: Scope::Fleet,
        kind: HoldKind::Suspend,
        holder: name("otto"),
        role: Role::Support,
        reason: "floods a bank".into(),
        evidence: "T-1".into(),
        set_at_ms: 1_000,
        version: Version {
            incarnation: 1,
            epoch: 900_000,
        },
    }
}

fn signed(hold: &Hold, signer: &Signer) -> v1::Hold {
    v1::Hold {
        signature: signer.sign_short(Kind::Hold, &canonical::hold(hold)).to_vec(),
        ..hold.clone().into()
    }
}

fn released(hold: HoldId, signer: &Signer) -> v1::Tombstone {
    let version = Version {
        incarnation: 1,
        epoch: 900_001,
    };
    v1::Tombstone {
        hold: hold.to_string(),
        version: Some(version.into()),
        signature: signer
            .sign_short(Kind::Release, &canonical::release(hold, version))
            .to_vec(),
        ..v1::Tombstone::default()
    }
}

fn released_there(hold: &str) -> v1::Tombstone {
    v1::Tombstone {
        hold: hold.to_owned(),
        person: "dan".into(),
        role: v1::Role::Developer.into(),
        at_ms: 5_000,
        ..v1::Tombstone::default()
    }
}

impl Sim {
    fn holds_told(&self) -> Vec<v1::Hold> {
        self.syncs().into_iter().flat_map(|sync| sync.holds).collect()
    }

    fn releases_told(&self) -> Vec<String> {
        self.syncs().into_iter().flat_map(|sync| sync.released).collect()
    }
}

async fn holds_of(person: &Person) -> v1::ListHoldsReply {
    let request = v1::ListHoldsRequest::default();
    person.orders().holds(request).await.expect("a list").into_inner()
}

async fn trouble_of(person: &Person, node: &str) -> String {
    let request = v1::GetNodeRequest { node: node.into() };
    let detail = person.nodes().get(request).await.expect("a node").into_inner();
    detail.node.expect("one").trouble
}

async fn audited(world: &World, action: &str) -> Vec<v1::AuditEntry> {
    let mut entries = world.audit().await;
    entries.retain(|entry| entry.action == action);
    entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_carries_our_word_for_it() {
    let world = World::new(&["n1@princeton"]).await;
    let mut keys = Keyring::new();
    keys.add(&world.signer().chain()[0]).expect("a signer");
    let mut node = world.node("n1").knowing(MergeReply::default());
    node.dial();
    node.attached(1).await;
    let alice = world.person("alice").await;
    alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed");
    let told = node.told(1).await;
    let Some(Action::Impose(hold)) = told[0].action.clone() else {
        panic!("{told:?}")
    };
    let checks = |hold: &v1::Hold| {
        let body = canonical::hold(&Hold::try_from(hold.clone()).expect("a hold"));
        keys.verify_short(Kind::Hold, &body, &hold.signature)
    };
    assert!(checks(&hold));
    node.hang_up();
    node.dial();
    node.attached(2).await;
    assert_eq!(
        node.syncs()[1].holds,
        std::slice::from_ref(&hold),
        "the same word again"
    );
    alice
        .press("r", release(What::Hold(hold.id.clone())))
        .await
        .expect("released");
    let told = node.told(2).await;
    let last = told.last().expect("one");
    let given = last.given.expect("a version").into();
    let body = canonical::release(name(&hold.id), given);
    assert!(keys.verify_short(Kind::Release, &body, &last.release_signature));
    assert!(!checks(&v1::Hold {
        reason: "another".into(),
        ..hold.clone()
    }));
    // One that was away hears of the release by the same word.
    let late = world
        .node("n1")
        .reporting(|report| report.holds = vec![hold.id.clone()]);
    node.hang_up();
    late.dial();
    late.attached(1).await;
    let sync = late.syncs().remove(0);
    assert_eq!(sync.released, std::slice::from_ref(&hold.id));
    assert_eq!(sync.tombstones[0].signature, last.release_signature);
    assert_eq!(node.asked(), [], "nothing gave reason to ask");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_that_we_signed_comes_back_with_its_full_scope() {
    let mut world = World::new(&["n1@princeton", "n2@mit"]).await;
    let hold = lost_hold();
    let told = signed(&hold, &world.signer());
    let other = world.node("n2");
    other.dial();
    other.attached(1).await;
    let node = world.node("n1").knowing(MergeReply {
        holds: vec![told.clone()],
        ..MergeReply::default()
    });
    node.dial();
    node.attached(1).await;
    assert_eq!(node.syncs()[0].holds, std::slice::from_ref(&told));
    until("the other node to hear of it", || async {
        other.holds_told().contains(&told).then_some(())
    })
    .await;
    let alice = world.person("alice").await;
    let unsigned = v1::Hold {
        signature: Vec::new(),
        ..told.clone()
    };
    assert_eq!(holds_of(&alice).await.holds, [unsigned]);
    let entries = audited(&world, "import-hold").await;
    assert_eq!(entries.len(), 1);
    assert!(
        entries[0].detail.contains("told by node n1"),
        "{}",
        entries[0].detail
    );

    // It is ours again: also after a restart, and for one who comes for the first time.
    world.stop().await;
    world.start().await;
    world.enrol("n3@mit").await;
    let third = world.node("n3");
    third.dial();
    third.attached(1).await;
    assert_eq!(third.syncs()[0].holds, std::slice::from_ref(&told));
    let alice = world.person("alice").await;
    alice
        .press("r", release(What::Slice("princeton_codeen".into())))
        .await
        .expect("released");
    assert!(holds_of(&alice).await.holds.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_that_only_a_node_says_stands_for_that_node() {
    let world = World::new(&["n1@princeton", "n2@mit"]).await;
    let other = world.node("n2");
    other.dial();
    other.attached(1).await;
    let good = lost_hold();
    let signer = world.signer();
    // Wider than what was signed, signed as a release, and with no word at all.
    let narrow = Hold {
        id: HoldId::new(),
        scope: Scope::Site(name("princeton")),
        ..good.clone()
    };
    let widened = v1::Hold {
        scope: Some(fleet()),
        ..signed(&narrow, &signer)
    };
    let swapped_hold = Hold {
        id: HoldId::new(),
        ..good.clone()
    };
    let swapped = v1::Hold {
        signature: signer
            .sign_short(Kind::Release, &canonical::hold(&swapped_hold))
            .to_vec(),
        ..swapped_hold.into()
    };
    let bare = v1::Hold {
        holder: "dan".into(),
        slice: "mit_chord".into(),
        ..good.clone().into()
    };
    let node = world.node("n1").knowing(MergeReply {
        holds: vec![widened.clone(), swapped.clone(), bare.clone()],
        ..MergeReply::default()
    });
    node.dial();
    node.attached(1).await;
    let alice = world.person("alice").await;
    let kept = holds_of(&alice).await.holds;
    let id_here = |told: &v1::Hold| told_id(name(&told.id), node.id).to_string();
    let mut expected = [&widened, &swapped, &bare].map(id_here);
    expected.sort_unstable();
    let mut ids: Vec<_> = kept.iter().map(|hold| hold.id.clone()).collect();
    ids.sort_unstable();
    assert_eq!(ids, expected);
    for hold in &kept {
        assert_eq!(hold.scope, Some(on_node(&node.id.to_string())), "{hold:?}");
        assert!(hold.evidence.starts_with("told by node n1 as hold "), "{hold:?}");
    }
    // The node has them under the new names, and lets the old ones go no earlier.
    let sync = node.syncs().remove(0);
    assert_eq!(sync.holds.len(), 3);
    assert!(sync.holds.iter().all(|hold| hold.signature.len() == 72));
    assert_eq!(sync.released, [widened.id, swapped.id, bare.id.clone()]);
    assert!(trouble_of(&alice, "n1").await.is_empty());

    // The one whose name it took comes back in full all the same, and what the liar said lifts nothing of it.
    let told = signed(&good, &signer);
    assert_eq!(told.id, bare.id);
    world.enrol("n3@mit").await;
    let honest = world.node("n3").knowing(MergeReply {
        holds: vec![told.clone()],
        ..MergeReply::default()
    });
    honest.dial();
    honest.attached(1).await;
    until("the other node to hear of it", || async {
        other.holds_told().contains(&told).then_some(())
    })
    .await;
    alice
        .press("r", release(What::Hold(id_here(&bare))))
        .await
        .expect("released");
    let left = holds_of(&alice).await.holds;
    assert!(
        left.iter()
            .any(|hold| hold.id == told.id && hold.scope == Some(fleet()))
    );
    let heard: Vec<_> = other.holds_told();
    assert!(
        heard.iter().all(|hold| *hold == told),
        "a node caused something elsewhere: {heard:?}"
    );
    assert!(other.orders().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_we_signed_releases_everywhere() {
    let world = World::new(&["n1@princeton", "n2@mit", "n3@mit"]).await;
    let signer = world.signer();
    let alice = world.person("alice").await;
    let other = world.node("n2");
    other.dial();
    other.attached(1).await;
    let pressed = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed");
    let stands: HoldId = name(&pressed.order.expect("one").holds[0].id);
    let unknown = lost_hold();
    let forged = v1::Tombstone {
        signature: vec![9; 72],
        ..released(HoldId::new(), &signer)
    };
    let stones = [released(stands, &signer), released(unknown.id, &signer), forged];
    let node = world.node("n1").knowing(MergeReply {
        tombstones: stones.to_vec(),
        ..MergeReply::default()
    });
    node.dial();
    node.attached(1).await;
    let recorded = [stands.to_string(), unknown.id.to_string()];
    assert_eq!(node.syncs()[0].recorded, recorded, "the forged one is not");
    assert!(node.syncs()[0].holds.is_empty());
    assert!(holds_of(&alice).await.holds.is_empty());
    until("the other node to hear of it", || async {
        other.releases_told().contains(&stands.to_string()).then_some(())
    })
    .await;
    let entries = audited(&world, "import-release").await;
    let outcomes: Vec<_> = entries.iter().map(|entry| entry.outcome.as_str()).collect();
    assert_eq!(outcomes, ["done", "done", "refused"]);

    // One that comes later with the hold itself does not bring it back.
    let late = world.node("n3").knowing(MergeReply {
        holds: vec![signed(&unknown, &signer)],
        ..MergeReply::default()
    });
    late.dial();
    late.attached(1).await;
    let sync = late.syncs().remove(0);
    assert!(sync.holds.is_empty());
    assert_eq!(sync.released, [unknown.id.to_string()]);
    assert_eq!(sync.tombstones, [released(unknown.id, &signer)]);
    assert!(holds_of(&alice).await.holds.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_made_on_a_node_is_an_exemption_that_no_sync_undoes() {
    let mut world = World::new(&["n1@princeton", "n2@mit"]).await;
    let alice = world.person("alice").await;
    let pressed = alice
        .press("k", kill("princeton_codeen", fleet()))
        .await
        .expect("pressed");
    let order = pressed.order.expect("one");
    let hold = order.holds[0].id.clone();
    // And one of its own, under the name that it goes by here, for which it has nobody's word.
    let own = v1::Hold {
        id: HoldId::new().to_string(),
        ..lost_hold().into()
    };
    let mut node = world.node("n1").knowing(MergeReply {
        tombstones: vec![released_there(&hold)],
        holds: vec![own.clone()],
        ..MergeReply::default()
    });
    node.dial();
    node.attached(1).await;
    let sync = node.syncs().remove(0);
    assert_eq!(sync.recorded, std::slice::from_ref(&hold));
    let renamed = told_id(name(&own.id), node.id).to_string();
    let ids: Vec<_> = sync.holds.iter().map(|hold| hold.id.clone()).collect();
    assert_eq!(
        ids,
        std::slice::from_ref(&renamed),
        "released there, and not set again"
    );
    let detail = alice.order(&order.id).await;
    let of_n1 = detail.nodes.iter().find(|result| result.node_name == "n1");
    assert_eq!(of_n1.map(v1::NodeResult::outcome), Some(Outcome::Superseded));
    let other = world.node("n2");
    other.dial();
    other.attached(1).await;
    assert!(other.holds_told().iter().any(|told| told.id == hold));
    let list = holds_of(&alice).await;
    assert!(list.holds.iter().any(|listed| listed.id == hold));
    let [exemption] = &*list.exemptions else {
        panic!("{:?}", list.exemptions)
    };
    assert_eq!(
        (&*exemption.hold, &*exemption.node_name, &*exemption.person),
        (&*hold, "n1", "dan")
    );
    let trouble = trouble_of(&alice, "n1").await;
    assert!(
        trouble.contains(&format!("released here alone: hold {hold} by dan (developer)")),
        "{trouble}"
    );

    // The one of its own is released there as well, by the name that the node knows.
    node.hang_up();
    let node = node.knowing(MergeReply {
        tombstones: vec![released_there(&own.id)],
        ..MergeReply::default()
    });
    node.dial();
    node.attached(2).await;
    assert!(node.syncs()[1].holds.is_empty());
    assert_eq!(node.syncs()[1].recorded, [own.id]);

    // After a restart, too; and once it is released everywhere nobody speaks of it.
    world.stop().await;
    world.start().await;
    node.attached(3).await;
    assert!(node.syncs()[2].holds.is_empty());
    let alice = world.person("alice").await;
    assert_eq!(holds_of(&alice).await.exemptions.len(), 2);
    for hold in [hold, renamed] {
        let what = release(What::Hold(hold.clone()));
        alice.press(&hold, what).await.expect("released");
    }
    let list = holds_of(&alice).await;
    assert!(list.holds.is_empty() && list.exemptions.is_empty());
    assert!(trouble_of(&alice, "n1").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diary_is_taken_over_once_and_a_changed_one_is_said() {
    let world = World::new(&["n1@princeton"]).await;
    let mut head = audit::Head::default();
    let mut entries = Vec::new();
    for n in 0..3 {
        let draft = audit::Draft {
            at_ms: 5_000 + n,
            version: Version::default(),
            person: Some(name("dan")),
            role: Some(Role::Developer),
            action: "kill-sliver".into(),
            target: "princeton_codeen on n1".into(),
            reason: format!("reason {n}"),
            evidence: String::new(),
            outcome: audit::Outcome::Allowed,
            detail: "own".into(),
            order: None,
        };
        let entry = audit::seal(&head, draft);
        head = entry.head();
        entries.push(v1::AuditEntry {
            sequence: entry.sequence,
            at_ms: entry.said.at_ms,
            person: "dan".into(),
            role: v1::Role::Developer.into(),
            action: entry.said.action.clone(),
            target: entry.said.target.clone(),
            reason: entry.said.reason.clone(),
            evidence: String::new(),
            outcome: "allowed".into(),
            detail: "own".into(),
            order: String::new(),
            previous: entry.previous.as_bytes().to_vec(),
            hash: entry.hash.as_bytes().to_vec(),
            version: Some(entry.said.version.into()),
        });
    }
    let telling = |entries: &[v1::AuditEntry]| MergeReply {
        entries: entries.to_vec(),
        ..MergeReply::default()
    };
    let mut node = world.node("n1").knowing(telling(&entries[..2]));
    node.dial();
    node.attached(1).await;
    assert_eq!(audited(&world, "direct-kill-sliver").await.len(), 2);
    node.hang_up();
    let mut node = node.knowing(telling(&entries));
    node.dial();
    node.attached(2).await;
    let taken = audited(&world, "direct-kill-sliver").await;
    let reasons: Vec<_> = taken.iter().map(|entry| entry.reason.as_str()).collect();
    assert_eq!(reasons, ["reason 0", "reason 1", "reason 2"]);
    assert!(
        taken.iter().all(|entry| entry.person.is_empty()),
        "by the node's word only"
    );
    assert!(
        taken[2].detail.contains("entry 3 by dan (developer)"),
        "{}",
        taken[2].detail
    );
    assert!(audited(&world, "import-diary").await.is_empty());
    // A rolled back one.
    node.hang_up();
    let node = node.knowing(telling(&entries[..1]));
    node.dial();
    node.attached(3).await;
    let said = audited(&world, "import-diary").await;
    assert!(
        said[0].detail.contains("it ends at entry 1, entry 3 was told"),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_floods_with_what_it_makes_up_is_bounded_and_attached() {
    let world = World::new(&["n1@princeton"]).await;
    let made_up = |n: usize| v1::Hold {
        id: HoldId::new().to_string(),
        reason: format!("{n}"),
        ..lost_hold().into()
    };
    let mut holds: Vec<v1::Hold> = (0..200).map(made_up).collect();
    holds[7].slice = "../etc".into();
    holds[8].scope = None;
    let nonsense = v1::Tombstone {
        hold: "x".repeat(100),
        ..v1::Tombstone::default()
    };
    let node = world.node("n1").knowing(MergeReply {
        tombstones: vec![nonsense; 3_000],
        holds,
        ..MergeReply::default()
    });
    node.dial();
    node.attached(1).await;
    assert!(node.asked().iter().all(|request| request.holds.len() <= 64));
    let alice = world.person("alice").await;
    let kept = holds_of(&alice).await.holds;
    assert_eq!(kept.len(), 198);
    assert!(
        kept.iter()
            .all(|hold| hold.scope == Some(on_node(&node.id.to_string())))
    );
}
