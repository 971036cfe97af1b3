//! Version 1, byte by byte. DO NOT CHANGE THIS TEST: nodes in the field speak these bytes. They were made by another
//! program, in Python, from `docs/protocol-pod.md` alone.

use ed25519_dalek::SigningKey;
use pod_wire::{Action, Answer, Received, Refusal, Request, Status, TagSecret};

const KEY_ID: [u8; 8] = [0x56, 0x47, 0x5a, 0xa7, 0x54, 0x63, 0x47, 0x4c];
const PROBE: &str = concat!(
    "72625051010100000000000000000000101112131415161718191a1b1c1d1e1f00000000000000000000000000000000",
    "0000018bcfe5687b303132333435363738393a3b3c3d3e3f000000000000000000000000000000000000000000000000",
    "00000000000000000000000000000000000000000000000000000000000000000000000000000000d506b9b81e2d60d2",
    "999baa4b14843477",
);
const REBOOT: &str = concat!(
    "726250510103000056475aa75463474c101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f",
    "0000018bcfe5687b303132333435363738393a3b3c3d3e3f907b7a88dbb8ad35b4d09be7552d61172e0e8065e0c10afd",
    "d860d270f0f948cd0a81035c71f2e1473661adaa8bca1f6f03810e630f296241e7fbc4bc190ff50e0438a5d893119530",
    "b36cfe1cb9f89900",
);
const ANSWER: &str = concat!(
    "726250410103040300000000000181cd101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f",
    "0000018bcfe56880303132333435363738393a3b3c3d3e3f000000000000000000000000000000004fbee5849f76378b",
    "e74cc6dc9b7686da",
);

fn key() -> SigningKey {
    SigningKey::from_bytes(&counting(0))
}

fn secret() -> TagSecret {
    TagSecret::new(counting(100))
}

fn counting<const N: usize>(from: u8) -> [u8; N] {
    let mut byte = from;
    [(); N].map(|()| {
        byte += 1;
        byte - 1
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
        .collect()
}

fn reboot() -> Request {
    Request {
        action: Action::Reboot,
        key: KEY_ID,
        node: counting(0x10),
        boot: counting(0x20),
        issued_at_ms: 1_700_000_000_123,
        nonce: counting(0x30),
    }
}

fn refused() -> Answer {
    Answer {
        action: Action::Reboot,
        status: Status::Refused(Refusal::Replay),
        uptime_ms: 98_765,
        node: counting(0x10),
        boot: counting(0x20),
        clock_ms: 1_700_000_000_128,
        nonce: counting(0x30),
    }
}

#[test]
fn a_reboot_of_version_1_is_these_bytes() {
    assert_eq!(hex(&reboot().sign(&key(), &secret())), REBOOT);
    let received = Received::parse(&bytes(REBOOT)).expect("version 1");
    assert_eq!(received.request(), &reboot());
    assert!(received.is_tagged(&secret()) && received.is_signed(&key().verifying_key()));
}

#[test]
fn a_probe_of_version_1_is_these_bytes() {
    let made = Request::probe(counting(0x10), 1_700_000_000_123, counting(0x30), &secret());
    assert_eq!(hex(&made), PROBE);
    assert!(
        Received::parse(&bytes(PROBE))
            .expect("version 1")
            .is_tagged(&secret())
    );
}

#[test]
fn an_answer_of_version_1_is_these_bytes() {
    assert_eq!(hex(&refused().seal(&secret())), ANSWER);
    assert_eq!(Answer::open(&bytes(ANSWER), &secret()), Ok(refused()));
}
