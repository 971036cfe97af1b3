use std::fs;

use proptest::prelude::*;
use prost::Message;
use proto::v1::{PolicySnapshot, SignedStatement};
use trust::{Kind, Spki, StatementError};

use super::testing::{Centre, policy};
use super::*;

fn name(text: &str) -> proto::PersonName {
    text.parse().expect("valid")
}

const KEY: Spki = Spki::new([7; 32]);

fn may(policy: &Policy, person: &str) -> bool {
    policy
        .current()
        .is_some_and(|snapshot| snapshot.grants_of(&name(person), &KEY).is_ok())
}

#[test]
fn a_snapshot_survives_a_restart_and_nobody_may_without_one() {
    let dir = tempfile::tempdir().expect("temp dir");
    let centre = Centre::new();
    let node = Policy::load(dir.path(), &centre.root).expect("roots");
    assert!(!may(&node, "alice") && node.trouble().is_empty());
    node.take(&centre.sign(&policy(3))).expect("good");
    assert!(may(&node, "alice") && may(&node, "dave") && !may(&node, "mallory"));
    let again = Policy::load(dir.path(), &centre.root).expect("roots");
    assert_eq!(again.current(), node.current());
    assert_eq!(again.current().expect("there").issued_at_ms, 1_003);
}

#[test]
fn forged_foreign_older_and_other_sites_snapshots_are_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (centre, other) = (Centre::new(), Centre::new());
    let node = Policy::load(dir.path(), &centre.root).expect("roots");
    let before = node.take(&centre.sign(&policy(3))).expect("good");

    let foreign = node.take(&other.sign(&policy(9))).expect_err("another CA");
    assert!(
        matches!(foreign, PolicyError::Statement(StatementError::Chain)),
        "{foreign}"
    );
    let mut forged = centre.sign(&policy(9));
    forged.body = policy(10).encode_to_vec();
    let forged = node.take(&forged).expect_err("another body");
    assert!(
        matches!(forged, PolicyError::Statement(StatementError::Signature)),
        "{forged}"
    );
    let swapped = centre.signer.sign(Kind::Hold, policy(9).encode_to_vec());
    assert!(node.take(&swapped).is_err(), "a hold is no policy");
    let older = node.take(&centre.sign(&policy(2))).expect_err("older");
    assert_eq!(
        older.to_string(),
        "policy 1.2 is older than 1.3, which this node has had"
    );
    let elsewhere = PolicySnapshot {
        site: "mit".into(),
        ..policy(9)
    };
    let elsewhere = node.take(&centre.sign(&elsewhere)).expect_err("another site");
    assert!(
        elsewhere.to_string().contains("is for nodes of mit"),
        "{elsewhere}"
    );
    assert_eq!(node.current(), Some(before), "none of them changed anything");
}

#[test]
fn an_older_file_put_back_leaves_nobody() {
    let dir = tempfile::tempdir().expect("temp dir");
    let centre = Centre::new();
    let node = Policy::load(dir.path(), &centre.root).expect("roots");
    node.take(&centre.sign(&policy(3))).expect("good");
    let old = fs::read(dir.path().join("policy")).expect("there");
    node.take(&centre.sign(&policy(4))).expect("good");
    fs::write(dir.path().join("policy"), old).expect("writable");
    let back = Policy::load(dir.path(), &centre.root).expect("roots");
    assert!(!may(&back, "alice"));
    assert!(back.trouble().contains("older than 1.4"), "{}", back.trouble());
    back.take(&centre.sign(&policy(4)))
        .expect("the controller sends it again");
    assert!(may(&back, "alice") && back.trouble().is_empty());
}

#[test]
fn a_corrupt_file_leaves_nobody_and_says_so() {
    let dir = tempfile::tempdir().expect("temp dir");
    let centre = Centre::new();
    Policy::load(dir.path(), &centre.root)
        .expect("roots")
        .take(&centre.sign(&policy(3)))
        .expect("good");
    for file in ["policy", "policy-seen"] {
        let path = dir.path().join(file);
        let good = fs::read(&path).expect("there");
        for at in [0, 9, 14, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).expect("writable");
            let node = Policy::load(dir.path(), &centre.root).expect("roots");
            assert!(!may(&node, "alice"), "{file} at {at}");
            assert_eq!(node.trouble(), format!("{file} is corrupt"));
        }
        fs::write(&path, &good[..good.len() / 2]).expect("writable");
        assert!(!may(
            &Policy::load(dir.path(), &centre.root).expect("roots"),
            "alice"
        ));
        fs::write(&path, good).expect("writable");
    }
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("x")).expect("made");
    fs::rename(dir.path().join("x"), dir.path().join("policy")).expect("moved");
    let node = Policy::load(dir.path(), &centre.root).expect("roots");
    assert!(
        !may(&node, "alice") && node.trouble().contains("cannot be opened"),
        "{}",
        node.trouble()
    );
}

#[test]
fn a_disk_that_takes_nothing_does_not_hold_up_a_revocation() {
    let dir = tempfile::tempdir().expect("temp dir");
    let centre = Centre::new();
    let node = Policy::load(&dir.path().join("gone"), &centre.root).expect("roots");
    let revoked = PolicySnapshot {
        revoked_keys: vec![KEY.as_bytes().to_vec()],
        ..policy(5)
    };
    let error = node.take(&centre.sign(&revoked)).expect_err("no directory");
    assert!(matches!(error, PolicyError::File(_)), "{error}");
    let snapshot = node.current().expect("in force all the same");
    let why = snapshot.grants_of(&name("alice"), &KEY).expect_err("revoked");
    assert_eq!(why, "this key of alice was revoked");
    assert!(snapshot.grants_of(&name("alice"), &Spki::new([8; 32])).is_ok());
    assert!(
        node.trouble().starts_with("the policy is not on the disk"),
        "{}",
        node.trouble()
    );
}

#[test]
fn roots_that_the_policy_brings_count_for_the_next_one() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (centre, next) = (Centre::new(), Centre::new());
    let node = Policy::load(dir.path(), &centre.root).expect("roots");
    assert!(node.take(&next.sign(&policy(2))).is_err());
    let rotating = PolicySnapshot {
        roots: next.root.clone(),
        ..policy(1)
    };
    node.take(&centre.sign(&rotating)).expect("good");
    assert!(node.roots().contains(next.root.trim()) && node.roots().contains(centre.root.trim()));
    node.take(&next.sign(&policy(2))).expect("the new root counts");
}

#[test]
fn what_is_not_understood_grants_nothing() {
    let mut wire = policy(1);
    wire.people[0].grants[0].role = 99;
    wire.people[1].grants[0].slice = "Not a slice".into();
    wire.people.push(proto::v1::PolicyPerson {
        name: "Not a name".into(),
        grants: vec![],
    });
    wire.revoked_keys.push(vec![1; 31]);
    let snapshot = Snapshot::try_from(wire).expect("the rest is good");
    assert_eq!(snapshot.grants_of(&name("alice"), &KEY), Ok(&[][..]));
    assert_eq!(snapshot.grants_of(&name("dave"), &KEY), Ok(&[][..]));
    assert_eq!((snapshot.people.len(), snapshot.revoked.len()), (2, 0));
    assert!(
        Snapshot::try_from(PolicySnapshot {
            site: "P!".into(),
            ..policy(1)
        })
        .is_err()
    );
    assert!(
        Snapshot::try_from(PolicySnapshot {
            version: None,
            ..policy(1)
        })
        .is_err()
    );
}

proptest! {
    #[test]
    fn reading_a_snapshot_never_panics(body in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(wire) = PolicySnapshot::decode(&*body) {
            let _ = Snapshot::try_from(wire).map_err(|error| error.to_string());
        }
    }

    #[test]
    fn reading_a_policy_file_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join("policy"), &bytes).expect("writable");
        fs::write(dir.path().join("policy-seen"), &bytes).expect("writable");
        let found = super::file::load(dir.path());
        prop_assert!(found.floor.is_none() && found.statement.is_none());
    }
}

#[test]
fn a_signed_body_that_is_no_snapshot_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let centre = Centre::new();
    let node = Policy::load(dir.path(), &centre.root).expect("roots");
    let garbage = centre.signer.sign(Kind::Policy, vec![0xff; 40]);
    assert!(matches!(node.take(&garbage), Err(PolicyError::Malformed(_))));
    assert!(node.take(&SignedStatement::default()).is_err());
}
