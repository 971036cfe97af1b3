//! Everything that must survive a crash, and its bytes: one protobuf message of our own, so that a reader one
//! version older or newer skips the fields it does not know.

use std::collections::BTreeMap;

use prost::Message;
use proto::{Hold, SliceName, Tombstone, Version, canonical, v1};

use super::{HoldError, HoldSet, Kept, Signed};

/// The first uid that a slice may get. Each slice keeps its own for ever.
pub const FIRST_UID: u32 = 2_000_000;
/// After a corrupt file the old table is unknown; a new block of uids keeps one tenant's files from another.
const UID_BLOCK: u32 = 1 << 16;

/// What the node remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Highest version seen from the controller.
    pub seen: Version,
    /// What may not run.
    pub holds: HoldSet,
    /// The user of each slice that was ever started here.
    pub uids: BTreeMap<SliceName, u32>,
    /// The uid that the next new slice gets.
    pub next_uid: u32,
    /// The cgroups (paths below the mount) that a hold of ours froze or killed, for the way back.
    pub touched: BTreeMap<String, Touched>,
    /// Not empty: nothing may start, and why. A full sync clears it.
    pub locked: String,
}

/// Why bytes with a correct checksum are no state that we can obey.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Not the message.
    #[error("state is not readable: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A hold that this version does not understand: it cannot be obeyed, so nothing may start.
    #[error("a hold or a release in the state is not understood: {0}")]
    Hold(#[from] proto::WireError),
    /// More than [`HoldSet::MAX`], or one id twice.
    #[error("the holds in the state contradict each other: {0}")]
    Set(#[from] HoldError),
    /// A slice name that does not follow the grammar.
    #[error("state names a slice badly: {0}")]
    Slice(#[from] proto::IdError),
    /// A uid below the first, or given twice.
    #[error("state gives slice {slice} the uid {uid}, which it must not have")]
    Uid {
        /// The slice.
        slice: SliceName,
        /// The uid.
        uid: u32,
    },
}

/// What a hold of ours did to a cgroup, and what stood there before. Part of the file: add fields, never change or
/// reuse a tag.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Touched {
    /// The kernel's id of the cgroup. Another one at the same path was not touched.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Its `pids.max` before; empty where there is no such limit.
    #[prost(string, tag = "2")]
    pub pids_max: String,
}

/// The bytes' shape. Add fields, never change or reuse a tag.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(message, optional, tag = "1")]
    seen: Option<v1::Version>,
    #[prost(message, repeated, tag = "2")]
    holds: Vec<v1::Hold>,
    #[prost(btree_map = "string, uint32", tag = "3")]
    uids: BTreeMap<String, u32>,
    #[prost(uint32, tag = "4")]
    next_uid: u32,
    #[prost(btree_map = "string, message", tag = "5")]
    touched: BTreeMap<String, Touched>,
    #[prost(string, tag = "6")]
    locked: String,
    /// The oldest first.
    #[prost(message, repeated, tag = "7")]
    tombstones: Vec<StoredTombstone>,
}

/// A tombstone. Add fields, never change or reuse a tag.
#[derive(Clone, PartialEq, Message)]
struct StoredTombstone {
    #[prost(message, optional, tag = "1")]
    stone: Option<v1::Tombstone>,
    #[prost(uint64, tag = "2")]
    known_in: u64,
    #[prost(string, tag = "3")]
    also: String,
}

impl From<Kept> for StoredTombstone {
    fn from(
        Kept {
            stone,
            known_in,
            also,
        }: Kept,
    ) -> Self {
        Self {
            stone: Some(stone.into()),
            known_in,
            also: also.map(String::from).unwrap_or_default(),
        }
    }
}

impl TryFrom<StoredTombstone> for Kept {
    type Error = StateError;

    fn try_from(stored: StoredTombstone) -> Result<Self, StateError> {
        let StoredTombstone {
            stone,
            known_in,
            also,
        } = stored;
        Ok(Kept {
            stone: Tombstone::try_from(stone.unwrap_or_default())?,
            known_in,
            also: match also.as_str() {
                "" => None,
                also => Some(also.parse().map_err(proto::WireError::id("also"))?),
            },
        })
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            seen: Version::default(),
            holds: HoldSet::default(),
            uids: BTreeMap::new(),
            next_uid: FIRST_UID,
            touched: BTreeMap::new(),
            locked: String::new(),
        }
    }
}

impl State {
    /// The state of a node whose file was corrupt: locked, with uids from a block that the lost table is not
    /// likely to have used. `salt` is anything that differs from loss to loss.
    #[must_use]
    pub fn lost(why: String, salt: u64) -> Self {
        // 2^15 - 1 blocks fit below the 32-bit end; block 0 is the ordinary one.
        let block = u32::try_from(salt % 32_000).unwrap_or(0) + 1;
        Self {
            next_uid: FIRST_UID + block * UID_BLOCK,
            locked: why,
            ..Self::default()
        }
    }

    /// Accepts a command's version, or refuses one from before what was seen.
    ///
    /// # Errors
    /// When it is lower than the highest seen.
    pub fn witness(&mut self, now: Version) -> Result<(), HoldError> {
        if now < self.seen {
            return Err(HoldError::Stale {
                got: now,
                seen: self.seen,
            });
        }
        self.seen = now;
        Ok(())
    }

    /// The user of a slice, a new one if it never had one. The flag says whether it is new. `None`: uids are
    /// used up.
    pub fn uid(&mut self, slice: &SliceName) -> Option<(u32, bool)> {
        if let Some(uid) = self.uids.get(slice) {
            return Some((*uid, false));
        }
        // u32::MAX means "nobody in particular" to setuid.
        let uid = self.next_uid;
        self.next_uid = uid.checked_add(1).filter(|next| *next < u32::MAX)?;
        self.uids.insert(slice.clone(), uid);
        Some((uid, true))
    }

    /// The bytes for the state file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self {
            seen,
            holds,
            uids,
            next_uid,
            touched,
            locked,
        } = self;
        Stored {
            seen: Some((*seen).into()),
            holds: holds.signed().cloned().map(v1::Hold::from).collect(),
            uids: uids
                .iter()
                .map(|(slice, uid)| (slice.as_str().to_owned(), *uid))
                .collect(),
            next_uid: *next_uid,
            touched: touched.clone(),
            locked: locked.clone(),
            tombstones: holds.tombstones.iter().cloned().map(Into::into).collect(),
        }
        .encode_to_vec()
    }

    /// Reads the bytes back.
    ///
    /// # Errors
    /// When anything in them is not understood: a hold that cannot be read cannot be obeyed.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let Stored {
            seen,
            holds,
            uids,
            next_uid,
            touched,
            locked,
            tombstones,
        } = Stored::decode(bytes)?;
        let mut set = HoldSet::default();
        for hold in holds {
            let signature = canonical::signature(&hold.signature);
            let hold = Hold::try_from(hold)?;
            set.impose(Signed { hold, signature })?;
        }
        // After the holds: what stands was written as standing.
        for stored in tombstones {
            // More than fit were never written.
            set.tombstones.add(stored.try_into()?);
        }
        let mut next = next_uid.max(FIRST_UID);
        let mut users = BTreeMap::new();
        let mut taken = std::collections::BTreeSet::new();
        for (name, uid) in uids {
            let slice: SliceName = name.parse()?;
            if uid < FIRST_UID || uid == u32::MAX || !taken.insert(uid) {
                return Err(StateError::Uid { slice, uid });
            }
            // A block opened after a loss lies apart, so only uids at or above the counter push it.
            next = if uid >= next { uid.saturating_add(1) } else { next };
            users.insert(slice, uid);
        }
        let seen = seen.map(Version::from).unwrap_or_default();
        Ok(Self {
            seen,
            holds: set,
            uids: users,
            next_uid: next,
            touched,
            locked,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{HoldId, HoldKind, Role, Scope};

    fn state() -> State {
        let mut state = State::default();
        state
            .witness(Version {
                incarnation: 2,
                epoch: 9,
            })
            .expect("newer");
        for (n, slice) in ["a_b", "a_c"].iter().enumerate() {
            let slice: SliceName = slice.parse().expect("valid");
            let hold = Hold {
                id: HoldId::new(),
                slice: (n == 0).then(|| slice.clone()),
                scope: Scope::Fleet,
                kind: HoldKind::Suspend,
                holder: "alice".parse().expect("valid"),
                role: Role::Support,
                reason: "floods".into(),
                evidence: "T-1".into(),
                set_at_ms: 5,
                version: Version {
                    incarnation: 2,
                    epoch: 3,
                },
            };
            state.holds.impose(hold).expect("fits");
            state.uid(&slice).expect("plenty");
        }
        state.touched.insert(
            "redbutton.slice/a_b".into(),
            Touched {
                id: 7,
                pids_max: "512".into(),
            },
        );
        state
    }

    #[test]
    fn a_state_survives_its_bytes() {
        let one = state();
        assert_eq!(State::decode(&one.encode()), Ok(one));
    }

    #[test]
    fn fields_of_a_newer_version_are_skipped() {
        let mut bytes = state().encode();
        // Tag 100, a string: what a later version may add.
        prost::encoding::string::encode(100, &"future".to_owned(), &mut bytes);
        assert!(State::decode(&bytes).is_ok());
    }

    #[test]
    fn a_hold_that_is_not_understood_is_an_error() {
        let mut stored = Stored::decode(state().encode().as_slice()).expect("own bytes");
        stored.holds[0].kind = 77;
        assert!(matches!(
            State::decode(&stored.encode_to_vec()),
            Err(StateError::Hold(_))
        ));
    }

    #[test]
    fn uids_are_kept_and_never_shared() {
        let mut state = state();
        let first: SliceName = "a_b".parse().expect("valid");
        assert_eq!(state.uid(&first), Some((FIRST_UID, false)));
        assert_eq!(
            state.uid(&"z_z".parse().expect("valid")),
            Some((FIRST_UID + 2, true))
        );
        let lost = State::lost("bit rot".into(), 12_345);
        assert!(
            lost.next_uid >= FIRST_UID + UID_BLOCK,
            "a lost table's uids are not given again"
        );
        let mut stored = Stored::decode(state.encode().as_slice()).expect("own bytes");
        stored.uids.insert("q_q".into(), FIRST_UID);
        assert!(matches!(
            State::decode(&stored.encode_to_vec()),
            Err(StateError::Uid { .. })
        ));
        let mut spent = State {
            next_uid: u32::MAX - 1,
            ..State::default()
        };
        assert_eq!(spent.uid(&first), None);
    }

    #[test]
    fn versions_never_fall() {
        let mut state = state();
        let error = state
            .witness(Version {
                incarnation: 1,
                epoch: 500,
            })
            .expect_err("older incarnation");
        assert_eq!(error.to_string(), "stale version: 1.500, this node has seen 2.9");
        assert_eq!(
            state.witness(Version {
                incarnation: 2,
                epoch: 9
            }),
            Ok(())
        );
        assert_eq!(
            state.witness(Version {
                incarnation: 3,
                epoch: 1
            }),
            Ok(())
        );
        assert_eq!(
            state.seen,
            Version {
                incarnation: 3,
                epoch: 1
            }
        );
    }
}
