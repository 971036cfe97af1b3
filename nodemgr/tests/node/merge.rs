//! What a node remembers of releases, and what it tells a controller that does not know.

use nodemgr::Agent;
use nodemgr::diary::Diary;
use nodemgr::holds::{Releaser, Verdict, file};
use proto::canonical::told_id;
use proto::v1::command::Action;
use proto::v1::{self, Outcome};
use proto::{Hold, HoldId, HoldKind, Role, Version};
use tonic::Code;

use crate::grpc::{Link, runtime};
use crate::support::{Door, Lab, Started, exec_command, obey, populated};

fn word(n: u8) -> Vec<u8> {
    vec![n; proto::canonical::SIGNATURE_BYTES]
}

fn signed(hold: &Hold, n: u8) -> v1::Hold {
    v1::Hold {
        signature: word(n),
        ..hold.clone().into()
    }
}

/// The same command, sent once more by a controller that has gone on since.
fn again(lab: &Lab, command: &v1::Command) -> v1::Command {
    v1::Command {
        now: Some(lab.next().into()),
        ..command.clone()
    }
}

#[test]
fn an_order_stream_that_comes_again_sets_nothing_that_was_released() {
    let Some(lab) = Lab::new() else { return };
    let hold = lab.hold("a_b", HoldKind::Suspend);
    let slice = "a_b".parse().expect("valid");
    let impose = lab.command(Action::Impose(signed(&hold, 1)));
    let release = v1::Command {
        release_signature: word(2),
        ..lab.release(&hold)
    };
    {
        let node = lab.start();
        assert_eq!(obey(&node, impose.clone()).outcome(), Outcome::AlreadyDead);
        assert_eq!(node.verdict(&slice), Verdict::Dead);
        assert_eq!(obey(&node, release.clone()).outcome(), Outcome::Released);
        // As it was: it is older than what the node has seen.
        let answer = obey(&node, impose.clone());
        assert!(answer.detail.starts_with("stale version"), "{}", answer.detail);
        let answer = obey(&node, again(&lab, &impose));
        assert_eq!(answer.outcome(), Outcome::Failed);
        assert!(
            answer.detail.contains("was released by decision"),
            "{}",
            answer.detail
        );
        assert_eq!(obey(&node, again(&lab, &release)).outcome(), Outcome::Released);
        let answer = obey(&node, lab.sync(std::slice::from_ref(&hold), &[]));
        assert!(answer.holds.is_empty(), "{answer:?}");
        assert!(
            answer.detail.contains("released before, and not set again"),
            "{answer:?}"
        );
        assert_ne!(answer.outcome(), Outcome::Failed);
    }
    let node = lab.start();
    let _door = Door::open(&node, &lab.config().socket);
    obey(&node, lab.sync(&[hold], &[]));
    assert_eq!(node.verdict(&slice), Verdict::Run, "after a restart, too");
    let _started = Started::sleeper(&lab, "a_b");
    assert!(populated(&lab.sliver("a_b")));
}

#[test]
fn a_restored_controller_hears_of_every_release_and_undoes_none() {
    let Some(lab) = Lab::new() else { return };
    let hold = lab.hold("a_b", HoldKind::Suspend);
    let node = lab.start();
    obey(&node, lab.command(Action::Impose(signed(&hold, 1))));
    let release = v1::Command {
        release_signature: word(2),
        ..lab.release(&hold)
    };
    obey(&node, release);
    assert_eq!(node.report().tombstones, 0, "it is the controller's own");
    let later = |epoch| Version {
        incarnation: 5,
        epoch,
    };
    let sync = |epoch, recorded: Vec<String>| v1::Command {
        now: Some(later(epoch).into()),
        action: Some(Action::Sync(v1::Sync {
            holds: vec![signed(&hold, 1)],
            recorded,
            ..v1::Sync::default()
        })),
        ..v1::Command::default()
    };
    // From a backup of the time when it stood, and without having asked.
    assert!(obey(&node, sync(1, Vec::new())).holds.is_empty());
    assert_eq!(node.report().tombstones, 1, "it has not confirmed to know");
    assert!(obey(&node, sync(2, vec![hold.id.to_string()])).holds.is_empty());
    assert_eq!(node.report().tombstones, 0);
}

#[test]
fn a_node_tells_its_holds_its_releases_and_its_diary() {
    let Some(lab) = Lab::new() else { return };
    let (held, local) = (
        lab.hold("a_b", HoldKind::Suspend),
        lab.hold("a_c", HoldKind::Freeze),
    );
    let started = lab.start();
    let own = started.report().node.parse().expect("an id");
    drop(started);
    let loaded = file::load(&lab.config().state_dir, 64 << 10, 1);
    let mut state = loaded.state;
    state.holds.impose(local.clone()).expect("fits");
    let by = Releaser {
        person: "dan".parse().expect("valid"),
        role: Role::Developer,
        at_ms: 9,
    };
    state.holds.release_local(local.id, by, own).expect("room");
    loaded
        .file
        .expect("writable")
        .write(&state.encode())
        .expect("writable");

    let node = lab.start();
    let runtime = runtime();
    runtime.block_on(tells(&lab, &node, &held, &local));

    // The controller's other name for the hold that was released here does not bring it back either.
    let renamed = Hold {
        id: told_id(local.id, own),
        scope: proto::Scope::Node(own),
        ..local
    };
    let answer = obey(&node, lab.sync(&[renamed], &[]));
    assert_eq!(answer.holds, [held.id.to_string()]);
    let _door = Door::open(&node, &lab.config().socket);
    let ran = exec_command(&lab, "a_c", "true").output().expect("runs");
    assert!(ran.status.success(), "{ran:?}");
}

async fn tells(lab: &Lab, node: &std::sync::Arc<nodemgr::Node>, held: &Hold, local: &Hold) {
    let diary = Diary::open(&lab.config().state_dir).expect("a thread");
    for n in 0..300 {
        let draft = audit::Draft {
            at_ms: n,
            version: Version::default(),
            person: None,
            role: None,
            action: "kill-sliver".into(),
            target: "a_c on here".into(),
            reason: String::new(),
            evidence: String::new(),
            outcome: audit::Outcome::Allowed,
            detail: String::new(),
            order: None,
        };
        assert!(diary.write(draft).await.expect("written").head.is_some());
    }
    let agent = Agent::new(node.clone()).expect("threads").with_diary(diary);
    let mut link = Link::open(agent).await;
    let kill = lab.command(Action::Impose(signed(held, 7)));
    let taken = node.take(kill);
    assert!(taken.await.answer.durable);

    let report = link
        .client
        .report(v1::ReportRequest {})
        .await
        .expect("told")
        .into_inner();
    assert_eq!((report.tombstones, report.local_entries), (1, 300));
    let request = v1::MergeRequest {
        holds: vec![
            held.id.to_string(),
            local.id.to_string(),
            HoldId::new().to_string(),
        ],
        entries_after: 0,
        tombstones: true,
    };
    let told = link.client.merge(request).await.expect("told").into_inner();
    assert_eq!(told.holds, [signed(held, 7)], "with the controller's word for it");
    let [stone] = &*told.tombstones else {
        panic!("{told:?}")
    };
    assert_eq!((&*stone.hold, &*stone.person), (&*local.id.to_string(), "dan"));
    assert_eq!(told.entries.len(), 256, "as many as one reply takes");
    let rest = v1::MergeRequest {
        entries_after: 256,
        ..v1::MergeRequest::default()
    };
    let rest = link.client.merge(rest).await.expect("told").into_inner();
    let sequences: Vec<u64> = rest.entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(sequences, (257..=300).collect::<Vec<_>>());
    assert!(rest.holds.is_empty() && rest.tombstones.is_empty());

    for (holds, why) in [
        (vec![HoldId::new().to_string(); 65], "at most 64"),
        (vec!["../x".to_owned()], "holds: "),
    ] {
        let request = v1::MergeRequest {
            holds,
            ..v1::MergeRequest::default()
        };
        let status = link.client.merge(request).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(why), "{status}");
    }
}
