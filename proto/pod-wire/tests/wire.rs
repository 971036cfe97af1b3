//! What was sealed is read, and nothing else is.

use ed25519_dalek::SigningKey;
use pod_wire::{
    ANSWER_BYTES, Action, Answer, REQUEST_BYTES, Received, Refusal, Request, Status, TagSecret, WireError,
};
use proptest::prelude::*;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn secret() -> TagSecret {
    TagSecret::new([9; 16])
}

fn requests() -> impl Strategy<Value = Request> {
    (
        prop::sample::select(Action::ALL.to_vec()),
        any::<[u8; 8]>(),
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
        any::<u64>(),
        any::<[u8; 16]>(),
    )
        .prop_map(|(action, key, node, boot, issued_at_ms, nonce)| Request {
            action,
            key,
            node,
            boot,
            issued_at_ms,
            nonce,
        })
}

fn answers() -> impl Strategy<Value = Answer> {
    let statuses: Vec<Status> = [Status::Here, Status::Armed, Status::Accepted]
        .into_iter()
        .chain(Refusal::ALL.map(Status::Refused))
        .collect();
    (
        prop::sample::select(Action::ALL.to_vec()),
        prop::sample::select(statuses),
        any::<u64>(),
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
        any::<u64>(),
        any::<[u8; 16]>(),
    )
        .prop_map(
            |(action, status, uptime_ms, node, boot, clock_ms, nonce)| Answer {
                action,
                status,
                uptime_ms,
                node,
                boot,
                clock_ms,
                nonce,
            },
        )
}

proptest! {
    #[test]
    fn a_request_says_what_was_put_into_it(request in requests()) {
        let received = Received::parse(&request.sign(&key(), &secret())).expect("own bytes");
        prop_assert_eq!(received.request(), &request);
        prop_assert!(received.is_tagged(&secret()));
        prop_assert_eq!(received.is_signed(&key().verifying_key()), request.action.is_signed());
        prop_assert!(!received.is_tagged(&TagSecret::new([8; 16])));
        prop_assert!(!received.is_signed(&SigningKey::from_bytes(&[6; 32]).verifying_key()));
    }

    #[test]
    fn an_answer_says_what_was_put_into_it(answer in answers()) {
        let bytes = answer.seal(&secret());
        prop_assert_eq!(Answer::open(&bytes, &secret()), Ok(answer));
        prop_assert_eq!(Answer::open(&bytes, &TagSecret::new([8; 16])), Err(WireError::Tag));
    }

    #[test]
    fn a_changed_bit_costs_no_verification(request in requests(), bit in 0..REQUEST_BYTES * 8) {
        let mut bytes = request.sign(&key(), &secret());
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(received) = Received::parse(&bytes) {
            prop_assert!(!received.is_tagged(&secret()));
        }
    }

    #[test]
    fn a_changed_bit_makes_no_answer(answer in answers(), bit in 0..ANSWER_BYTES * 8) {
        let mut bytes = answer.seal(&secret());
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Answer::open(&bytes, &secret()).is_err());
    }

    #[test]
    fn a_right_tag_over_a_changed_signature_is_not_signed(request in requests(), bit in 0..64 * 8_usize) {
        let mut signature: [u8; 64] = request.sign(&key(), &secret())[72..136].try_into().expect("64 bytes");
        signature[bit / 8] ^= 1 << (bit % 8);
        let received = Received::parse(&request.seal(&signature, &secret())).expect("the form is right");
        prop_assert!(received.is_tagged(&secret()));
        prop_assert!(!received.is_signed(&key().verifying_key()));
    }

    #[test]
    fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2 * REQUEST_BYTES)) {
        let _ = Received::parse(&bytes);
        prop_assert!(Answer::open(&bytes, &secret()).is_err());
    }

    #[test]
    fn parsing_never_panics_on_what_begins_right(
        head in proptest::collection::vec(any::<u8>(), REQUEST_BYTES - 5),
    ) {
        let mut bytes = b"rbPQ\x01".to_vec();
        bytes.extend(head);
        if let Ok(received) = Received::parse(&bytes) {
            prop_assert!(!received.is_signed(&key().verifying_key()));
        }
    }
}

#[test]
fn each_thing_that_does_not_fit_has_its_name() {
    let request = Request {
        action: Action::Reboot,
        key: [1; 8],
        node: [2; 16],
        boot: [3; 16],
        issued_at_ms: 4,
        nonce: [5; 16],
    };
    let good = request.sign(&key(), &secret());
    let with = |at: usize, byte: u8| {
        let mut bytes = good;
        bytes[at] = byte;
        Received::parse(&bytes)
    };
    assert!(Received::parse(&good).is_ok());
    assert_eq!(
        Received::parse(&good[1..]),
        Err(WireError::Length {
            got: REQUEST_BYTES - 1,
            expected: REQUEST_BYTES
        })
    );
    assert_eq!(with(0, b'R'), Err(WireError::Magic));
    assert_eq!(with(4, 2), Err(WireError::Version(2)));
    assert_eq!(with(5, 0), Err(WireError::Action(0)));
    assert_eq!(with(5, 6), Err(WireError::Action(6)));
    assert_eq!(with(7, 1), Err(WireError::Flags(1)));
    // A request that comes back, as the kernel echoes it, is no answer.
    assert_eq!(
        Answer::open(&good, &secret()),
        Err(WireError::Length {
            got: REQUEST_BYTES,
            expected: ANSWER_BYTES
        })
    );
}

#[test]
fn a_small_order_key_has_signed_nothing() {
    // The neutral element as public key: with it some libraries take the all-zero signature for any message.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let key = ed25519_dalek::VerifyingKey::from_bytes(&neutral).expect("a point");
    let request = Request {
        action: Action::Reboot,
        key: [0; 8],
        node: [0; 16],
        boot: [0; 16],
        issued_at_ms: 0,
        nonce: [0; 16],
    };
    let mut signature = [0; 64];
    signature[0] = 1;
    for signature in [[0; 64], signature] {
        let received = Received::parse(&request.seal(&signature, &secret())).expect("the form is right");
        assert!(!received.is_signed(&key));
    }
}

#[test]
fn a_secret_prints_nothing() {
    assert_eq!(format!("{:?}", TagSecret::new([0x41; 16])), "(secret)");
}
