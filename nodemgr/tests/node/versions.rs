//! What a node makes of a controller that is newer than itself: it answers, and does nothing that it does not know.

use prost::Message;
use proto::HoldKind;
use proto::v1::{self, Outcome, command::Action};

use crate::support::{Lab, obey};

/// A message with one more field, number 99, that nobody knows: length-delimited, as a sub-message would be.
fn with_unknown_field<M: Message + Default>(message: &M) -> M {
    let mut bytes = message.encode_to_vec();
    bytes.extend([0x9a, 0x06, 3, 1, 2, 3]);
    M::decode(&*bytes).expect("unknown fields are passed over")
}

#[test]
fn an_order_that_this_node_does_not_know_is_answered_and_changes_nothing() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let known = lab.command(Action::Release(proto::HoldId::new().to_string()));
    // What is left of an action of tomorrow: its field is unknown, so the oneof is empty.
    let newer = with_unknown_field(&v1::Command {
        action: None,
        ..known.clone()
    });
    let seen = node.report().seen;
    let answer = obey(&node, newer);
    assert_eq!(answer.outcome(), Outcome::Failed);
    assert_eq!((&answer.order, answer.version), (&known.order, known.given));
    assert!(
        answer.detail.contains("this node does not know this order"),
        "{}",
        answer.detail
    );
    assert!(!answer.proven && !answer.durable);
    assert_eq!(
        node.report().seen,
        seen,
        "what is not understood raises no version"
    );
}

#[test]
fn a_known_order_with_more_to_it_is_obeyed() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let hold = lab.hold("princeton_codeen", HoldKind::Suspend);
    let newer = v1::Hold::from(hold.clone());
    let newer = with_unknown_field(&newer);
    let command = with_unknown_field(&lab.command(Action::Impose(newer)));
    let answer = obey(&node, command);
    assert_eq!(answer.outcome(), Outcome::AlreadyDead, "{}", answer.detail);
    assert_eq!(node.report().holds, [hold.id.to_string()]);
}

#[test]
fn a_hold_of_an_unknown_kind_is_refused_and_the_others_of_its_sync_stand() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let good = lab.hold("princeton_codeen", HoldKind::Suspend);
    let strange = v1::Hold {
        kind: 77,
        ..lab.hold("princeton_other", HoldKind::Freeze).into()
    };
    let answer = obey(&node, lab.command(Action::Impose(strange.clone())));
    assert_eq!(answer.outcome(), Outcome::Failed, "{}", answer.detail);
    let sync = v1::Sync {
        holds: vec![strange, good.clone().into()],
        released: Vec::new(),
        ..v1::Sync::default()
    };
    let answer = obey(&node, lab.command(Action::Sync(sync)));
    assert_eq!(
        answer.outcome(),
        Outcome::Failed,
        "the controller must hear of it"
    );
    assert_eq!(answer.holds, [good.id.to_string()]);
}
