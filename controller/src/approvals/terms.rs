//! What a proposal says, exactly, and the digest that people agree to.
//!
//! The digest is SHA-256 over these bytes, integers big-endian; the controller's signer signs the same bytes
//! (`trust::Kind::Approval`), so that a row that somebody edited is found even by who never saw the digest:
//!
//! | field | bytes |
//! |---|---|
//! | domain | the 18 ASCII bytes `redbutton proposal`, then one byte 0 |
//! | encoding version | one byte: 1 |
//! | id | 16 |
//! | incarnation | u64 |
//! | proposed_at_ms, expires_at_ms | i64, i64 |
//! | person, role, action, what the action needs to know, reason, evidence | each: u32 length in bytes, then the bytes |
//!
//! What the action needs to know: nothing for stop-every-slice and rotate-ca; for stop-every-node one byte, 1 when
//! there need be no way back; for roll-out the programs, their version and the plan (`rollout` below).
//!
//! Versioning: an encoding is never changed; a new field makes version 2. A proposal lives five minutes, so no
//! reader ever needs an old one.

use std::fmt;
use std::str::FromStr;

use crate::rollout::Plan;
use authz::{Action, Target};
use proto::{PersonName, ProposalId, Role};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const DOMAIN: &[u8] = b"redbutton proposal\0";
const VERSION: u8 = 1;

/// How long a second person has: 5 minutes, DESIGN.md, “Two people”.
pub const OPEN_FOR_MS: i64 = 5 * 60 * 1_000;

/// What is to be done. The words stand in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Act {
    /// A suspend hold on every slice of the fleet.
    StopEverySlice,
    /// Halt every node.
    StopEveryNode {
        /// The proposer accepts that nothing can power some of them on again from afar.
        no_way_back: bool,
    },
    /// A new root of the CA.
    RotateCa,
    /// Programs of one version, brought to every node.
    RollOut {
        /// Their version, for people.
        version: String,
        /// Which: SHA-256, hex, one for each architecture.
        sha256: Vec<String>,
        /// How.
        plan: Plan,
    },
}

impl Act {
    /// The action of the table.
    #[must_use]
    pub const fn action(&self) -> Action {
        match self {
            Act::StopEverySlice => Action::StopEverySlice,
            Act::StopEveryNode { .. } => Action::StopEveryNode,
            Act::RotateCa => Action::RotateCa,
            Act::RollOut { .. } => Action::RollOut,
        }
    }

    /// What the table is asked about.
    #[must_use]
    pub const fn target(&self) -> Target {
        match self {
            Act::StopEverySlice | Act::StopEveryNode { .. } | Act::RotateCa | Act::RollOut { .. } => {
                Target::Fleet
            }
        }
    }

    fn details(&self) -> Vec<u8> {
        match self {
            Act::StopEverySlice | Act::RotateCa => Vec::new(),
            Act::StopEveryNode { no_way_back } => vec![u8::from(*no_way_back)],
            Act::RollOut {
                version,
                sha256,
                plan,
            } => rollout(version, sha256, plan),
        }
    }
}

/// Each text with its length before it, each number as it is: two different rollouts never have the same bytes.
fn rollout(version: &str, sha256: &[String], plan: &Plan) -> Vec<u8> {
    let Plan {
        waves,
        spread_ms,
        soak_ms,
        deadline_ms,
        tolerate,
    } = plan;
    let mut bytes = Vec::new();
    let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    bytes.extend_from_slice(&count(sha256.len()));
    for text in sha256.iter().map(String::as_str).chain([version]) {
        bytes.extend_from_slice(&count(text.len()));
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes.extend_from_slice(&count(waves.len()));
    for wave in waves {
        bytes.extend_from_slice(&wave.to_be_bytes());
    }
    for ms in [spread_ms, soak_ms, deadline_ms] {
        bytes.extend_from_slice(&ms.to_be_bytes());
    }
    bytes.extend_from_slice(&tolerate.to_be_bytes());
    bytes
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Act::RollOut {
            version,
            sha256,
            plan,
        } = self
        {
            let waves: Vec<String> = plan.waves.iter().map(|wave| format!("{wave}%")).collect();
            return write!(
                f,
                "run version {version} of the node manager ({}) as root on every node, in waves of {}",
                sha256.join(", "),
                waves.join(", ")
            );
        }
        f.write_str(match self {
            Act::RollOut { .. } => "",
            Act::StopEverySlice => {
                "kill every slice on every node, also on nodes that are away or enrolled later, until released"
            }
            Act::StopEveryNode { no_way_back: true } => "power off every node, with no way back",
            Act::StopEveryNode { no_way_back: false } => "power off every node",
            Act::RotateCa => "make a new root of the CA, which takes over without a gap",
        })
    }
}

/// Everything that is agreed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Unique for ever.
    pub id: ProposalId,
    /// The life of the database in which it counts.
    pub incarnation: u64,
    /// Who proposes.
    pub person: PersonName,
    /// The role that entitles them.
    pub role: Role,
    /// What is to be done.
    pub act: Act,
    /// Why.
    pub reason: String,
    /// A reference; may be empty.
    pub evidence: String,
    /// Milliseconds since 1970.
    pub proposed_at_ms: i64,
    /// From then on nobody can agree any more.
    pub expires_at_ms: i64,
}

impl Terms {
    /// The bytes under the digest and the signature.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Exhaustive: a new field cannot be forgotten here.
        let Terms {
            id,
            incarnation,
            person,
            role,
            act,
            reason,
            evidence,
            proposed_at_ms,
            expires_at_ms,
        } = self;
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(DOMAIN);
        bytes.push(VERSION);
        bytes.extend_from_slice(id.uuid().as_bytes());
        bytes.extend_from_slice(&incarnation.to_be_bytes());
        bytes.extend_from_slice(&proposed_at_ms.to_be_bytes());
        bytes.extend_from_slice(&expires_at_ms.to_be_bytes());
        for part in [
            person.as_str().as_bytes(),
            role.as_str().as_bytes(),
            act.action().as_str().as_bytes(),
            &act.details(),
            reason.as_bytes(),
            evidence.as_bytes(),
        ] {
            // Texts are at most kilobytes.
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }

    /// What people agree to.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(Sha256::digest(self.encode()).into())
    }
}

/// The bytes that the signer signs when somebody agrees (`trust::Kind::Approval`): the 18 ASCII bytes
/// `redbutton approval`, a byte 0, a byte version (1), the 32 bytes of the digest, i64 when in milliseconds, and the
/// approver's name.
#[must_use]
pub fn approval_bytes(digest: &Digest, approver: &PersonName, at_ms: i64) -> Vec<u8> {
    let mut bytes = b"redbutton approval\0\x01".to_vec();
    bytes.extend_from_slice(digest.as_bytes());
    bytes.extend_from_slice(&at_ms.to_be_bytes());
    bytes.extend_from_slice(approver.as_str().as_bytes());
    bytes
}

/// SHA-256 of [`Terms`]; as text 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Not 32 bytes, or not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("digest is malformed: expected 32 bytes, 64 hexadecimal digits as text")]
pub struct DigestError;

impl TryFrom<&[u8]> for Digest {
    type Error = DigestError;

    fn try_from(bytes: &[u8]) -> Result<Self, DigestError> {
        bytes.try_into().map(Digest).map_err(|_| DigestError)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hash: audit::Hash = text.parse().map_err(|_| DigestError)?;
        Ok(Self(*hash.as_bytes()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(act: Act) -> Terms {
        Terms {
            id: "0193e0a0-0000-7000-8000-000000000001".parse().expect("valid"),
            incarnation: 3,
            person: "alice".parse().expect("valid"),
            role: Role::Support,
            act,
            reason: "wörm".into(),
            evidence: String::new(),
            proposed_at_ms: 1_795_320_000_000,
            expires_at_ms: 1_795_320_300_000,
        }
    }

    /// Do not change this test: these bytes are agreed to and signed. Written by hand from the table above.
    #[test]
    fn golden_bytes() {
        let expected = [
            "726564627574746f6e2070726f706f73616c00",
            "01",
            "0193e0a0000070008000000000000001",
            "0000000000000003",
            "000001a201692e00",
            "000001a2016dc1e0",
            "00000005616c696365",
            "00000007737570706f7274",
            "0000000f73746f702d65766572792d6e6f6465",
            "0000000101",
            "0000000577c3b6726d",
            "00000000",
        ]
        .concat();
        let bytes = terms(Act::StopEveryNode { no_way_back: true }).encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }

    /// Do not change this test either.
    #[test]
    fn golden_bytes_of_an_approval() {
        let digest = Digest::try_from(&[0xab; 32][..]).expect("32 bytes");
        let bytes = approval_bytes(&digest, &"otto".parse().expect("valid"), 1_795_320_000_000);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = format!(
            "726564627574746f6e20617070726f76616c0001{}000001a201692e006f74746f",
            "ab".repeat(32)
        );
        assert_eq!(hex, expected);
    }

    #[test]
    fn everything_counts() {
        let one = terms(Act::StopEverySlice);
        let changes: [fn(&mut Terms); 9] = [
            |t| t.id = ProposalId::new(),
            |t| t.incarnation += 1,
            |t| t.person = "otto".parse().expect("valid"),
            |t| t.role = Role::Pi,
            |t| t.act = Act::RotateCa,
            |t| t.reason.push('!'),
            |t| t.evidence.push('!'),
            |t| t.proposed_at_ms += 1,
            |t| t.expires_at_ms += 1,
        ];
        for change in changes {
            let mut other = one.clone();
            change(&mut other);
            assert_ne!(one.digest(), other.digest(), "{other:?}");
        }
        // Nothing moves from one text into the next.
        let (mut a, mut b) = (one.clone(), one);
        (a.reason, a.evidence) = ("ab".into(), "c".into());
        (b.reason, b.evidence) = ("a".into(), "bc".into());
        assert_ne!(a.digest(), b.digest());
        assert_ne!(
            terms(Act::StopEveryNode { no_way_back: true }).digest(),
            terms(Act::StopEveryNode { no_way_back: false }).digest()
        );
    }

    #[test]
    fn a_digest_reads_what_it_prints() {
        let digest = terms(Act::RotateCa).digest();
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(Digest::try_from(&digest.as_bytes()[..]), Ok(digest));
        for bad in ["", "00", &"0".repeat(65), &"G".repeat(64), &"A".repeat(64)] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }
}
