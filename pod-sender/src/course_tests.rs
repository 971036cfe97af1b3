use ed25519_dalek::{Signer, SigningKey};
use pod_listener::{Gate, Now, Seen, Trusted, Verdict};
use proptest::prelude::*;

use super::*;
use crate::key::key_id;

const NODE: [u8; 16] = [1; 16];

fn key() -> SigningKey {
    SigningKey::from_bytes(&[4; 32])
}

fn secret() -> TagSecret {
    TagSecret::new([2; 16])
}

/// A node with the real gate behind a network of our making.
struct Node {
    gate: Gate,
    seen: Box<Seen>,
    boot: [u8; 16],
    booted_ms: u64,
    listens: bool,
    reboots: u32,
}

const EPOCH_MS: u64 = 1_790_000_000_000;
/// Of a reboot in the simulation.
const DOWN_MS: u64 = 4_000;

impl Node {
    fn new(boot: u8) -> Self {
        Self {
            gate: Self::gate([boot; 16]),
            seen: Box::new(Seen::new()),
            boot: [boot; 16],
            booted_ms: 0,
            listens: true,
            reboots: 0,
        }
    }

    fn gate(boot: [u8; 16]) -> Gate {
        let trusted = Trusted {
            id: key_id(&key().verifying_key()),
            key: key().verifying_key(),
            scope: Trusted::scope_of(&Action::ALL),
        };
        Gate::new(NODE, boot, vec![secret()], vec![trusted], &Action::ALL)
    }

    /// What comes back from a packet.
    fn take(&mut self, packet: &[u8], now_ms: u64) -> Vec<Vec<u8>> {
        if now_ms < self.booted_ms {
            return Vec::new();
        }
        let mut back = vec![packet.to_vec()];
        if !self.listens {
            return back;
        }
        let now = Now {
            // Long up at the begin.
            uptime_ms: now_ms - self.booted_ms + if self.reboots == 0 { 600_000 } else { 0 },
            clock_ms: EPOCH_MS + now_ms,
        };
        let (verdict, secret) = self.gate.judge(packet, now, &mut self.seen);
        let answer = match verdict {
            Verdict::Ignore(_) => return back,
            Verdict::Answer(answer) | Verdict::Act(_, answer) => answer,
        };
        back.push(answer.seal(self.gate.secret(secret).expect("its own")).to_vec());
        if let Verdict::Act(Action::Reboot, _) = verdict {
            self.reboots += 1;
            self.boot[0] += 1;
            self.gate = Self::gate(self.boot);
            *self.seen = Seen::new();
            self.booted_ms = now_ms + DOWN_MS;
        }
        back
    }
}

/// What the network does to each packet, in turn.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Passes,
    Lost,
    Twice,
    Late(u64),
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        4 => Just(Fate::Passes),
        2 => Just(Fate::Lost),
        1 => Just(Fate::Twice),
        1 => (1_u64..3_000).prop_map(Fate::Late),
    ];
    proptest::collection::vec(fate, 1..60)
}

/// Runs a course against a node; the fates go round. Ends within ten minutes of simulated time.
fn run(course: &mut Course, node: &mut Node, fates: &[Fate]) -> Outcome {
    let mut fate = fates.iter().cycle().copied();
    let mut on_the_way: Vec<(u64, bool, Vec<u8>)> = Vec::new();
    let mut nonce = 0_u64;
    for now_ms in (0..600_000).step_by(50) {
        if let Some(outcome) = course.outcome() {
            return outcome;
        }
        nonce += 1;
        let mut fresh = [0; 16];
        fresh[..8].copy_from_slice(&nonce.to_be_bytes());
        let sent = course.next(now_ms, EPOCH_MS + now_ms, fresh, &mut |bytes| {
            Ok(key().sign(bytes).to_bytes())
        });
        let mut launch = |list: &mut Vec<(u64, bool, Vec<u8>)>, to_node: bool, bytes: Vec<u8>| match fate
            .next()
            .unwrap_or(Fate::Passes)
        {
            Fate::Passes => list.push((now_ms + 10, to_node, bytes)),
            Fate::Lost => {}
            Fate::Twice => {
                list.push((now_ms + 10, to_node, bytes.clone()));
                list.push((now_ms + 20, to_node, bytes));
            }
            Fate::Late(by) => list.push((now_ms + by, to_node, bytes)),
        };
        if let Some(packet) = sent {
            launch(&mut on_the_way, true, packet.to_vec());
        }
        let due: Vec<_> = on_the_way.extract_if(.., |(at, ..)| *at <= now_ms).collect();
        for (_, to_node, bytes) in due {
            if to_node {
                for back in node.take(&bytes, now_ms) {
                    launch(&mut on_the_way, false, back);
                }
            } else if let Some(heard) = course.read(&bytes) {
                course.hear(heard, now_ms);
            }
        }
    }
    panic!("no end: {course:?}");
}

fn course(action: Action, boot: Option<u8>, patience: Patience) -> Course {
    let target = Target {
        node: NODE,
        boot: boot.map(|boot| [boot; 16]),
        secret: secret(),
    };
    Course::new(target, action, key_id(&key().verifying_key()), patience)
}

const WATCHING: Patience = Patience {
    every_ms: 1_000,
    tries: 5,
    last_tries: 5,
    watch_ms: 60_000,
};

#[test]
fn the_usual_reboot_takes_one_packet_and_is_proven_by_another_boot() {
    let mut node = Node::new(10);
    let outcome = run(
        &mut course(Action::Reboot, Some(10), WATCHING),
        &mut node,
        &[Fate::Passes],
    );
    assert!(
        matches!(outcome, Outcome::Rebooted(answer) if answer.boot == node.boot),
        "{outcome:?}"
    );
    assert_eq!(node.reboots, 1);
}

#[test]
fn a_node_in_another_boot_than_was_known_is_found() {
    for known in [Some(99), None] {
        let mut node = Node::new(10);
        let outcome = run(
            &mut course(Action::Reboot, known, WATCHING),
            &mut node,
            &[Fate::Passes],
        );
        assert!(matches!(outcome, Outcome::Rebooted(_)), "{known:?}: {outcome:?}");
        assert_eq!(node.reboots, 1);
    }
}

#[test]
fn silence_an_echo_and_an_answer_are_told_apart() {
    let mut node = Node::new(10);
    let outcome = run(
        &mut course(Action::Reboot, Some(10), WATCHING),
        &mut node,
        &[Fate::Lost],
    );
    assert_eq!(outcome, Outcome::Silent);
    node.listens = false;
    for action in [Action::Reboot, Action::Probe] {
        let outcome = run(
            &mut course(action, Some(10), WATCHING),
            &mut node,
            &[Fate::Passes],
        );
        assert_eq!(outcome, Outcome::KernelAlive);
    }
    node.listens = true;
    let outcome = run(
        &mut course(Action::Probe, None, WATCHING),
        &mut node,
        &[Fate::Passes],
    );
    assert!(matches!(outcome, Outcome::Here(answer) if answer.boot == [10; 16]));
    let outcome = run(
        &mut course(Action::DryRun, Some(10), WATCHING),
        &mut node,
        &[Fate::Passes],
    );
    assert!(matches!(outcome, Outcome::Armed(_)));
    assert_eq!(node.reboots, 0);
    let mut stranger = course(Action::Reboot, Some(10), WATCHING);
    stranger.key = [0; 8];
    let outcome = run(&mut stranger, &mut node, &[Fate::Passes]);
    assert!(
        matches!(outcome, Outcome::Refused(Refusal::Key, _)),
        "{outcome:?}"
    );
}

#[test]
fn a_node_that_does_not_come_back_is_not_called_rebooted() {
    let mut node = Node::new(10);
    let patience = Patience {
        watch_ms: 2_000,
        ..WATCHING
    };
    let outcome = run(
        &mut course(Action::Reboot, Some(10), patience),
        &mut node,
        &[Fate::Passes],
    );
    assert!(matches!(outcome, Outcome::NotBack(_)), "{outcome:?}");
    assert_eq!(node.reboots, 1);
}

#[test]
fn what_is_forged_is_not_heard() {
    let course = course(Action::Reboot, Some(10), WATCHING);
    let answer = Answer {
        action: Action::Reboot,
        status: Status::Accepted,
        uptime_ms: 0,
        node: NODE,
        boot: [10; 16],
        clock_ms: 0,
        nonce: [0; 16],
    };
    assert_eq!(course.read(&answer.seal(&TagSecret::new([9; 16]))), None);
    let other = Answer {
        node: [7; 16],
        ..answer
    };
    assert_eq!(course.read(&other.seal(&secret())), None);
}

#[test]
fn a_key_that_cannot_be_used_ends_it() {
    let mut course = course(Action::Reboot, Some(10), WATCHING);
    let none = course.next(0, 0, [0; 16], &mut |_| {
        Err(SignError::Agent(crate::AgentError::Refused))
    });
    assert_eq!((none, course.outcome()), (None, Some(Outcome::Unsigned)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// Loss, copies and disorder: the course ends, never reboots a node twice, and never says that it has rebooted
    /// when it has not.
    #[test]
    fn a_reboot_survives_loss_copies_and_disorder(fates in fates(), known in prop::option::of(prop::sample::select(vec![10_u8, 99]))) {
        let mut node = Node::new(10);
        let outcome = run(&mut course(Action::Reboot, known, WATCHING), &mut node, &fates);
        prop_assert!(node.reboots <= 1, "rebooted {} times: {:?}", node.reboots, outcome);
        match outcome {
            Outcome::Rebooted(answer) => prop_assert!(node.reboots == 1 && answer.boot == node.boot),
            Outcome::NotBack(_) | Outcome::Accepted(_) => prop_assert_eq!(node.reboots, 1),
            _ => {}
        }
    }
}
