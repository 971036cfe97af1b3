use ed25519_dalek::SigningKey;
use pod_wire::{REQUEST_BYTES, Request};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

const NODE: [u8; 16] = [1; 16];
const BOOT: [u8; 16] = [2; 16];
/// A minute after the boot, in 2026.
const NOW: Now = Now {
    uptime_ms: 60_000,
    clock_ms: 1_790_000_000_000,
};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn trusted(seed: u8, actions: &[Action]) -> Trusted {
    let key = key(seed).verifying_key();
    let mut id = [0; 8];
    id.copy_from_slice(&Sha256::digest(key.as_bytes())[..8]);
    Trusted {
        id,
        key,
        scope: Trusted::scope_of(actions),
    }
}

fn secret(seed: u8) -> TagSecret {
    TagSecret::new([seed; 16])
}

fn gate() -> Gate {
    let keys = vec![
        trusted(1, &Action::ALL),
        trusted(2, &[Action::DryRun, Action::KillSlivers]),
    ];
    Gate::new(NODE, BOOT, vec![secret(1), secret(2)], keys, &Action::ALL)
}

fn request(action: Action) -> Request {
    Request {
        action,
        key: trusted(1, &[]).id,
        node: NODE,
        boot: BOOT,
        issued_at_ms: NOW.clock_ms,
        nonce: [3; 16],
    }
}

fn seen() -> Box<Seen> {
    Box::new(Seen::new())
}

fn status(verdict: Verdict) -> Status {
    match verdict {
        Verdict::Answer(answer) | Verdict::Act(_, answer) => answer.status,
        Verdict::Ignore(why) => panic!("ignored: {why:?}"),
    }
}

/// What a fresh gate says to a packet of the first key.
fn says(request: Request, now: Now) -> Verdict {
    gate()
        .judge(&request.sign(&key(1), &secret(1)), now, &mut seen())
        .0
}

#[test]
fn a_right_packet_acts_once_and_its_copies_hear_the_same() {
    let (mut gate, mut seen) = (gate(), seen());
    let bytes = request(Action::Reboot).sign(&key(1), &secret(1));
    let (first, _) = gate.judge(&bytes, NOW, &mut seen);
    assert!(matches!(first, Verdict::Act(Action::Reboot, _)), "{first:?}");
    for _ in 0..3 {
        let (copy, _) = gate.judge(&bytes, NOW, &mut seen);
        assert!(matches!(copy, Verdict::Answer(_)), "{copy:?}");
        assert_eq!(status(copy), Status::Accepted);
    }
    // The daemon was restarted: what it had seen stands in memory that outlasts it.
    let (after, _) = super::tests::gate().judge(&bytes, NOW, &mut seen);
    assert!(matches!(after, Verdict::Answer(_)), "{after:?}");
}

#[test]
fn a_dry_run_is_armed_and_does_nothing() {
    let verdict = says(request(Action::DryRun), NOW);
    assert!(matches!(verdict, Verdict::Answer(_)));
    assert_eq!(status(verdict), Status::Armed);
    let mut lame = Gate::new(
        NODE,
        BOOT,
        vec![secret(1)],
        vec![trusted(1, &Action::ALL)],
        &[Action::KillSlivers],
    );
    let bytes = request(Action::DryRun).sign(&key(1), &secret(1));
    let verdict = lame.judge(&bytes, NOW, &mut seen()).0;
    assert_eq!(
        status(verdict),
        Status::Refused(Refusal::Unable),
        "it could not reboot"
    );
}

#[test]
fn a_probe_tells_boot_and_clock_to_whom_knows_the_secret() {
    let bytes = Request::probe(NODE, 5, [7; 16], &secret(2));
    let (verdict, by) = gate().judge(&bytes, NOW, &mut seen());
    assert_eq!(by, 1, "answered with the secret that it was asked with");
    let Verdict::Answer(answer) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(
        (
            answer.status,
            answer.boot,
            answer.uptime_ms,
            answer.clock_ms,
            answer.nonce
        ),
        (Status::Here, BOOT, NOW.uptime_ms, NOW.clock_ms, [7; 16])
    );
}

#[test]
fn strangers_get_nothing() {
    let ignored = |bytes: &[u8]| match gate().judge(bytes, NOW, &mut seen()).0 {
        Verdict::Ignore(why) => why,
        other => panic!("{other:?}"),
    };
    let good = request(Action::Reboot);
    assert_eq!(ignored(&good.sign(&key(1), &secret(9))), Ignored::Tag);
    let other = Request {
        node: [9; 16],
        ..good
    };
    assert_eq!(ignored(&other.sign(&key(1), &secret(1))), Ignored::Node);
    assert!(matches!(
        ignored(b"ping"),
        Ignored::Form(WireError::Length { .. })
    ));
}

#[test]
fn each_refusal_has_its_reason() {
    let good = request(Action::Reboot);
    let refused = |request: Request, by: u8, now: Now| {
        let verdict = gate()
            .judge(&request.sign(&key(by), &secret(1)), now, &mut seen())
            .0;
        match status(verdict) {
            Status::Refused(why) => why,
            other => panic!("{other:?}"),
        }
    };
    let boot = Request {
        boot: [9; 16],
        ..good
    };
    assert_eq!(refused(boot, 1, NOW), Refusal::Boot);
    let stranger = Request { key: [9; 8], ..good };
    assert_eq!(refused(stranger, 1, NOW), Refusal::Key);
    let narrow = Request {
        key: trusted(2, &[]).id,
        ..good
    };
    assert_eq!(refused(narrow, 2, NOW), Refusal::Scope);
    assert_eq!(refused(good, 2, NOW), Refusal::Signature);
}

#[test]
fn a_packet_for_any_boot_counts_only_in_its_window_and_after_the_boot() {
    let any = |issued_at_ms| Request {
        boot: [0; 16],
        issued_at_ms,
        ..request(Action::Reboot)
    };
    let clock = NOW.clock_ms;
    let acts = |issued_at_ms, now| matches!(says(any(issued_at_ms), now), Verdict::Act(..));
    assert!(acts(clock, NOW) && acts(clock - WINDOW_MS, NOW) && acts(clock + WINDOW_MS, NOW));
    assert!(!acts(clock - WINDOW_MS - 1, NOW) && !acts(clock + WINDOW_MS + 1, NOW));
    for day in [clock - 86_400_000, clock + 86_400_000] {
        assert!(!acts(day, NOW), "a clock that is a day off");
    }
    // Just booted: the packet that caused it is still inside the window.
    let booted = Now {
        uptime_ms: WINDOW_MS,
        ..NOW
    };
    assert!(!acts(clock, booted));
    let early = Now {
        uptime_ms: WINDOW_MS + 1,
        ..NOW
    };
    assert!(acts(clock, early));
    assert!(!acts(clock - WINDOW_MS - 1, early), "made before the boot");
    // A clock that stands in 1970 after a crash.
    let lost = Now {
        clock_ms: 3_000,
        ..NOW
    };
    assert!(!acts(clock, lost));
    // For this very boot no clock is asked.
    assert!(matches!(says(request(Action::Reboot), lost), Verdict::Act(..)));
}

#[test]
fn nobody_burns_a_nonce_without_a_right_signature() {
    let (mut gate, mut seen) = (gate(), seen());
    let good = request(Action::Reboot);
    let forged = good.sign(&key(5), &secret(1));
    assert_eq!(
        status(gate.judge(&forged, NOW, &mut seen).0),
        Status::Refused(Refusal::Signature)
    );
    let verdict = gate.judge(&good.sign(&key(1), &secret(1)), NOW, &mut seen).0;
    assert!(matches!(verdict, Verdict::Act(..)), "{verdict:?}");
}

#[test]
fn a_nonce_means_one_action() {
    let (mut gate, mut seen) = (gate(), seen());
    let first = request(Action::KillSlivers).sign(&key(1), &secret(1));
    assert!(matches!(gate.judge(&first, NOW, &mut seen).0, Verdict::Act(..)));
    let other = request(Action::Reboot).sign(&key(1), &secret(1));
    assert_eq!(
        status(gate.judge(&other, NOW, &mut seen).0),
        Status::Refused(Refusal::Replay)
    );
}

#[test]
fn signatures_and_answers_are_bounded_and_come_back_with_time() {
    let (mut gate, mut seen) = (gate(), seen());
    let forged = request(Action::Reboot).sign(&key(5), &secret(1));
    let mut looked_at = 0;
    for _ in 0..1_000 {
        if let Verdict::Answer(answer) = gate.judge(&forged, NOW, &mut seen).0 {
            looked_at += u64::from(answer.status == Status::Refused(Refusal::Signature));
        }
    }
    assert_eq!(looked_at, SIGNATURES);
    let probe = Request::probe(NODE, 0, [0; 16], &secret(1));
    let quiet = gate.judge(&probe, NOW, &mut seen).0;
    assert_eq!(quiet, Verdict::Ignore(Ignored::Quiet));
    let later = Now {
        uptime_ms: NOW.uptime_ms + 1_000,
        ..NOW
    };
    let good = request(Action::Reboot).sign(&key(1), &secret(1));
    assert!(matches!(gate.judge(&good, later, &mut seen).0, Verdict::Act(..)));
}

#[test]
fn more_nonces_than_are_kept_are_refused_and_none_forgotten() {
    let mut seen = seen();
    for n in 0..NONCES as u64 + 1 {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&n.to_be_bytes());
        let packet = Request {
            nonce,
            ..request(Action::KillSlivers)
        };
        let verdict = gate().judge(&packet.sign(&key(1), &secret(1)), NOW, &mut seen).0;
        if n < NONCES as u64 {
            assert!(matches!(verdict, Verdict::Act(..)), "{n}: {verdict:?}");
        } else {
            assert_eq!(status(verdict), Status::Refused(Refusal::Busy));
        }
    }
    let first = Request {
        nonce: [0; 16],
        ..request(Action::KillSlivers)
    };
    let verdict = gate().judge(&first.sign(&key(1), &secret(1)), NOW, &mut seen).0;
    assert!(matches!(verdict, Verdict::Answer(_)), "forgotten: {verdict:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn judging_never_panics_and_nothing_mutated_acts(
        flips in proptest::collection::vec((0..REQUEST_BYTES, 1_u8..=255), 1..4),
        action in prop::sample::select(Action::ALL.to_vec()),
    ) {
        let good = request(action).sign(&key(1), &secret(1));
        let mut bytes = good;
        for (at, flip) in flips {
            bytes[at] ^= flip;
        }
        prop_assume!(bytes != good);
        let verdict = gate().judge(&bytes, NOW, &mut seen()).0;
        prop_assert!(matches!(verdict, Verdict::Ignore(_)), "{:?}", verdict);
    }
}
