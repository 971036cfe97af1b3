//! The bytes under the controller's signatures for holds and releases, and the name under which a hold goes that
//! only a node speaks of. One after the other, integers big-endian:
//!
//! | hold | bytes |
//! |---|---|
//! | domain | the 14 ASCII bytes `redbutton hold`, then one byte 0 |
//! | encoding version | one byte: 1 |
//! | id | the 16 bytes of the UUID |
//! | slice | text; empty: every slice |
//! | scope | one byte: 1 fleet, 2 site (then its name, text), 3 node (then the 16 bytes of its UUID) |
//! | kind | one byte: 1 freeze, 2 suspend |
//! | holder | text |
//! | role | one byte: 1 developer, 2 pi, 3 site admin, 4 support |
//! | reason, evidence | text, text |
//! | set_at_ms | i64, two's complement |
//! | incarnation, epoch | u64, u64 |
//!
//! | release | bytes |
//! |---|---|
//! | domain | the 17 ASCII bytes `redbutton release`, then one byte 0 |
//! | encoding version | one byte: 1 |
//! | hold | the 16 bytes of the UUID |
//! | incarnation, epoch | u64, u64: the decision that released it |
//!
//! Text is a u32 length in bytes, then that many bytes of UTF-8.
//!
//! Versioning: signatures outlive programs, so an encoding is never changed. A new field makes version 2, and a
//! reader tries version 1 where 2 does not fit.

use sha2::{Digest, Sha256};

use crate::{Hold, HoldId, HoldKind, NodeId, Role, Scope, Version};

const HOLD: &[u8] = b"redbutton hold\0";
const RELEASE: &[u8] = b"redbutton release\0";
const TOLD: &[u8] = b"redbutton told hold\0";
const VERSION: u8 = 1;

/// Bytes of a short signature: 8 of the key's id, 64 of Ed25519.
pub const SIGNATURE_BYTES: usize = 72;
/// A short signature, as the crate `trust` makes and checks it.
pub type Signature = [u8; SIGNATURE_BYTES];

/// A signature from bytes; `None` when there is none, or nothing that could be one.
#[must_use]
pub fn signature(bytes: &[u8]) -> Option<Signature> {
    bytes.try_into().ok()
}

/// What is signed for a hold.
#[must_use]
pub fn hold(hold: &Hold) -> Vec<u8> {
    // Exhaustive: a new field cannot be forgotten here.
    let Hold {
        id,
        slice,
        scope,
        kind,
        holder,
        role,
        reason,
        evidence,
        set_at_ms,
        version,
    } = hold;
    let mut bytes = Vec::with_capacity(160 + reason.len() + evidence.len());
    bytes.extend_from_slice(HOLD);
    bytes.push(VERSION);
    bytes.extend_from_slice(id.uuid().as_bytes());
    text(&mut bytes, slice.as_ref().map_or("", |slice| slice.as_str()));
    match scope {
        Scope::Fleet => bytes.push(1),
        Scope::Site(site) => {
            bytes.push(2);
            text(&mut bytes, site.as_str());
        }
        Scope::Node(node) => {
            bytes.push(3);
            bytes.extend_from_slice(node.uuid().as_bytes());
        }
    }
    bytes.push(match kind {
        HoldKind::Freeze => 1,
        HoldKind::Suspend => 2,
    });
    text(&mut bytes, holder.as_str());
    bytes.push(match role {
        Role::Developer => 1,
        Role::Pi => 2,
        Role::SiteAdmin => 3,
        Role::Support => 4,
    });
    text(&mut bytes, reason);
    text(&mut bytes, evidence);
    bytes.extend_from_slice(&set_at_ms.to_be_bytes());
    put_version(&mut bytes, *version);
    bytes
}

/// What is signed for the release of a hold, by the decision of this version.
#[must_use]
pub fn release(hold: HoldId, by: Version) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(RELEASE);
    bytes.push(VERSION);
    bytes.extend_from_slice(hold.uuid().as_bytes());
    put_version(&mut bytes, by);
    bytes
}

/// The id under which the controller keeps a hold for which it has only a node's word: it follows from both, so
/// that no node can choose an id that means something elsewhere. A node that has lifted its own hold knows it
/// again under this id.
#[must_use]
pub fn told_id(hold: HoldId, by: NodeId) -> HoldId {
    let mut sha = Sha256::new();
    sha.update(TOLD);
    sha.update([VERSION]);
    sha.update(by.uuid().as_bytes());
    sha.update(hold.uuid().as_bytes());
    let digest = sha.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    HoldId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    // Names have a grammar and texts at most a thousand characters.
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn put_version(bytes: &mut Vec<u8>, version: Version) {
    bytes.extend_from_slice(&version.incarnation.to_be_bytes());
    bytes.extend_from_slice(&version.epoch.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u128) -> uuid::Uuid {
        uuid::Uuid::from_u128(n)
    }

    fn sample(scope: Scope) -> Hold {
        Hold {
            id: HoldId::from_uuid(id(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10)),
            slice: Some("princeton_codeen".parse().expect("valid")),
            scope,
            kind: HoldKind::Suspend,
            holder: "alice".parse().expect("valid"),
            role: Role::Support,
            reason: "floods a bänk".into(),
            evidence: "T-1".into(),
            set_at_ms: -2,
            version: Version {
                incarnation: 3,
                epoch: 258,
            },
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Do not change this test: signatures that nodes keep are over these bytes.
    #[test]
    fn golden_bytes_of_version_1() {
        assert_eq!(
            hex(&hold(&sample(Scope::Fleet))),
            "726564627574746f6e20686f6c640001\
             0102030405060708090a0b0c0d0e0f10\
             000000107072696e6365746f6e5f636f6465656e\
             01\
             02\
             00000005616c696365\
             04\
             0000000e666c6f6f647320612062c3a46e6b\
             00000003542d31\
             fffffffffffffffe\
             00000000000000030000000000000102"
        );
        let site = hex(&hold(&sample(Scope::Site("mit".parse().expect("valid")))));
        assert!(site.contains("636f6465656e02000000036d697402"), "{site}");
        let node = hex(&hold(&sample(Scope::Node(NodeId::from_uuid(id(7))))));
        assert!(
            node.contains("636f6465656e030000000000000000000000000000000702"),
            "{node}"
        );
        let by = Version {
            incarnation: 3,
            epoch: 259,
        };
        assert_eq!(
            hex(&release(HoldId::from_uuid(id(1)), by)),
            "726564627574746f6e2072656c656173650001\
             00000000000000000000000000000001\
             00000000000000030000000000000103"
        );
        assert_eq!(
            told_id(HoldId::from_uuid(id(1)), NodeId::from_uuid(id(2))).to_string(),
            "d6697b90-c661-8643-8157-caef07720e22"
        );
    }

    fn any_hold() -> impl Strategy<Value = Hold> {
        let scope = prop_oneof![
            Just(Scope::Fleet),
            Just(Scope::Site("mit".parse().expect("valid"))),
            any::<u128>().prop_map(|n| Scope::Node(NodeId::from_uuid(id(n)))),
        ];
        (
            any::<u128>(),
            any::<bool>(),
            scope,
            any::<bool>(),
            ".{0,8}",
            ".{0,8}",
            any::<i64>(),
            any::<(u64, u64)>(),
            0..4_usize,
        )
            .prop_map(
                |(n, whole, scope, freeze, reason, evidence, set_at_ms, (incarnation, epoch), role)| Hold {
                    id: HoldId::from_uuid(id(n)),
                    slice: (!whole).then(|| "mit_chord".parse().expect("valid")),
                    scope,
                    kind: if freeze {
                        HoldKind::Freeze
                    } else {
                        HoldKind::Suspend
                    },
                    holder: "bob".parse().expect("valid"),
                    role: Role::ALL[role],
                    reason,
                    evidence,
                    set_at_ms,
                    version: Version { incarnation, epoch },
                },
            )
    }

    proptest! {
        #[test]
        fn two_holds_share_their_bytes_only_when_they_are_the_same(a in any_hold(), b in any_hold(), moved in 0..5usize) {
            prop_assert_eq!(hold(&a) == hold(&b), a == b);
            // Bytes that move from one text to the next, and fields one at a time.
            let mut c = a.clone();
            match moved {
                0 => c.reason = format!("{}{}", a.reason, a.evidence.chars().next().unwrap_or('x')),
                1 => c.set_at_ms = a.set_at_ms.wrapping_add(1),
                2 => c.version.epoch = a.version.epoch.wrapping_add(1),
                3 => { c.evidence = format!("{}{}", a.reason, a.evidence); c.reason = String::new(); }
                _ => c.scope = Scope::Node(NodeId::from_uuid(id(5))),
            }
            prop_assert_eq!(hold(&a) == hold(&c), a == c);
        }

        #[test]
        fn a_told_id_follows_from_both(a in any::<u128>(), b in any::<u128>()) {
            let (hold_a, node) = (HoldId::from_uuid(id(a)), NodeId::from_uuid(id(b)));
            prop_assert_eq!(told_id(hold_a, node), told_id(hold_a, node));
            prop_assert_ne!(told_id(hold_a, node), hold_a);
            prop_assert_ne!(told_id(hold_a, node), told_id(hold_a, NodeId::from_uuid(id(b ^ 1))));
            prop_assert_ne!(told_id(hold_a, node), told_id(HoldId::from_uuid(id(a ^ 1)), node));
        }
    }
}
