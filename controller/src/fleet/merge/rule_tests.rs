//! Whatever a node tells: what it did not get from us reaches no further than itself.

use proptest::prelude::*;
use proto::{HoldKind, Role, SliceName};
use time::OffsetDateTime;
use trust::Signer;

use super::*;
use crate::pki::Ca;

fn signer() -> Signer {
    let ca = Ca::generate(OffsetDateTime::now_utc()).expect("a CA").0;
    let issued = ca.signer(OffsetDateTime::now_utc()).expect("a signer");
    Signer::load(&issued.certificate, &issued.key).expect("loads")
}

fn keys(signer: &Signer) -> Keyring {
    let mut keys = Keyring::new();
    keys.add(&signer.chain()[0]).expect("a signer");
    keys
}

fn sample(n: u8) -> Hold {
    let slice: SliceName = "princeton_codeen".parse().expect("valid");
    Hold {
        id: HoldId::from_uuid(uuid::Uuid::from_u128(u128::from(n))),
        slice: (!n.is_multiple_of(3)).then_some(slice),
        scope: match n % 4 {
            0 => Scope::Fleet,
            1 => Scope::Site("mit".parse().expect("valid")),
            2 => Scope::Node(NodeId::from_uuid(uuid::Uuid::from_u128(9))),
            _ => Scope::Node(NodeId::from_uuid(uuid::Uuid::from_u128(10))),
        },
        kind: HoldKind::Suspend,
        holder: "alice".parse().expect("valid"),
        role: Role::Support,
        reason: format!("reason {n}"),
        evidence: "e".repeat(usize::from(n) * 4),
        set_at_ms: 5,
        version: Version {
            incarnation: 7,
            epoch: u64::MAX,
        },
    }
}

#[derive(Debug, Clone, Copy)]
enum Forgery {
    Honest,
    Unsigned,
    Flip(u8, u8),
    Cut(u8),
    OtherKind,
    OtherKey,
    OtherHold,
}

fn forgery() -> impl Strategy<Value = Forgery> {
    prop_oneof![
        Just(Forgery::Honest),
        Just(Forgery::Unsigned),
        (0..72u8, 0..8u8).prop_map(|(at, bit)| Forgery::Flip(at, bit)),
        (0..72u8).prop_map(Forgery::Cut),
        Just(Forgery::OtherKind),
        Just(Forgery::OtherKey),
        Just(Forgery::OtherHold),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn only_what_we_signed_keeps_its_scope(n in 0..200u8, forgeries in prop::collection::vec(forgery(), 1..8), by in 9..12u128) {
        let (ours, other) = (signer(), signer());
        let keys = keys(&ours);
        let node = NodeId::from_uuid(uuid::Uuid::from_u128(by));
        let name: NodeName = "n1".parse().expect("valid");
        let now = Version { incarnation: 8, epoch: 3 };
        let original = sample(n);
        let good = ours.sign_short(Kind::Hold, &canonical::hold(&original)).to_vec();
        let release = canonical::release(original.id, now);
        let good_release = ours.sign_short(Kind::Release, &release).to_vec();
        for forgery in forgeries {
            let forge = |good: &[u8], kind: Kind, wrong: Kind, body: &[u8]| {
                let mut bytes = good.to_vec();
                match forgery {
                    Forgery::Honest | Forgery::OtherHold => {}
                    Forgery::Unsigned => bytes.clear(),
                    Forgery::Flip(at, bit) => bytes[usize::from(at)] ^= 1 << bit,
                    Forgery::Cut(at) => bytes.truncate(usize::from(at)),
                    Forgery::OtherKind => bytes = ours.sign_short(wrong, body).to_vec(),
                    Forgery::OtherKey => bytes = other.sign_short(kind, body).to_vec(),
                }
                bytes
            };
            let mut told = v1::Hold {
                signature: forge(&good, Kind::Hold, Kind::Release, &canonical::hold(&original)),
                ..original.clone().into()
            };
            if matches!(forgery, Forgery::OtherHold) {
                told.reason.push('!');
            }
            let honest = matches!(forgery, Forgery::Honest);
            match hold(told, node, &name, now, &keys).expect("a hold") {
                TakenHold::Ours(hold, signature) => {
                    prop_assert!(honest, "{:?}", forgery);
                    prop_assert_eq!(&hold, &original);
                    prop_assert_eq!(signature.to_vec(), good.clone());
                }
                TakenHold::Told { hold, as_told } => {
                    prop_assert!(!honest);
                    prop_assert_eq!(&hold.scope, &Scope::Node(node));
                    prop_assert_eq!((hold.id, as_told), (canonical::told_id(original.id, node), original.id));
                    prop_assert_eq!((hold.slice, hold.kind, hold.version), (original.slice.clone(), original.kind, now));
                    prop_assert!(hold.evidence.starts_with("told by node n1 as hold "));
                    prop_assert!(hold.evidence.chars().count() <= Hold::MAX_TEXT);
                }
            }
            let mut told = v1::Tombstone {
                hold: original.id.to_string(),
                version: Some(now.into()),
                signature: forge(&good_release, Kind::Release, Kind::Hold, &release),
                ..v1::Tombstone::default()
            };
            if matches!(forgery, Forgery::OtherHold) {
                told.hold = HoldId::new().to_string();
            }
            match stone(told, node, &keys) {
                Ok(TakenStone::Ours(release)) => prop_assert!(honest && release.hold == original.id),
                Ok(TakenStone::Forged(_)) | Err(_) => prop_assert!(!honest),
                Ok(TakenStone::Here(_)) => prop_assert!(false, "nobody there said so"),
            }
        }
    }

    #[test]
    fn judging_never_panics(
        texts in prop::collection::vec(".{0,40}", 6),
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        numbers in any::<(i32, i32, i64, u64, bool)>(),
    ) {
        let keys = Keyring::new();
        let node = NodeId::from_uuid(uuid::Uuid::from_u128(1));
        let (kind, role, at_ms, epoch, with) = numbers;
        let version = with.then_some(v1::Version { incarnation: epoch, epoch });
        let scope = Some(v1::Scope { reach: Some(v1::scope::Reach::Site(texts[0].clone())) });
        let told = v1::Hold {
            id: if with { HoldId::new().to_string() } else { texts[1].clone() },
            slice: texts[2].clone(),
            scope,
            kind,
            holder: texts[3].clone(),
            role,
            reason: texts[4].clone(),
            evidence: texts[5].clone(),
            set_at_ms: at_ms,
            version,
            signature: bytes.clone(),
        };
        let _ = hold(told, node, &"n1".parse().expect("valid"), Version::default(), &keys);
        let told = v1::Tombstone {
            hold: texts[1].clone(),
            version,
            signature: bytes,
            person: texts[3].clone(),
            role,
            at_ms,
        };
        let _ = stone(told, node, &keys);
    }
}

#[test]
fn a_release_made_there_is_that_nodes_alone() {
    let node = NodeId::from_uuid(uuid::Uuid::from_u128(1));
    let told = v1::Tombstone {
        hold: sample(1).id.to_string(),
        person: "dan".into(),
        role: v1::Role::Developer.into(),
        at_ms: 7,
        ..v1::Tombstone::default()
    };
    assert_eq!(
        stone(told, node, &Keyring::new()),
        Ok(TakenStone::Here(Exemption {
            hold: sample(1).id,
            node,
            person: "dan".parse().expect("valid"),
            role: Role::Developer,
            at_ms: 7,
        }))
    );
}
