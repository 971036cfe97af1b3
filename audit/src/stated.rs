//! Where the chain stood at some moment, as the controller signs it and nodes keep it; and what two of these say
//! about each other. `trust` signs and checks (kind `AuditHead`); here are the bytes, and the judging.
//!
//! The bytes under the signature, integers big-endian, 65 of them:
//!
//! | field | bytes |
//! |---|---|
//! | encoding version | one byte: 1 |
//! | sequence | u64 |
//! | hash | 32 |
//! | incarnation, epoch | u64, u64: the controller's version then |
//! | at_ms | i64, milliseconds since 1970 |
//!
//! Versioning: what was once signed stays readable; a new field makes version 2.

use proto::Version;

use crate::hash::{Hash, Head};

const VERSION: u8 = 1;
/// Bytes of a stated head.
const BYTES: usize = 65;

/// A head, and when the controller said that the chain stood there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stated {
    /// Where the chain stood.
    pub head: Head,
    /// The controller's version then.
    pub version: Version,
    /// Milliseconds since 1970, by the controller's clock.
    pub at_ms: i64,
}

/// Why bytes are no stated head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatedError {
    /// Too short or too long.
    #[error("stated audit head is {0} bytes long, expected {BYTES}")]
    Length(usize),
    /// Made by a newer Redbutton.
    #[error("stated audit head has version {0}, this program reads {VERSION}")]
    Version(u8),
}

/// What a head that is heard says about the highest that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// The chain went on: keep the new one.
    Higher,
    /// The same place.
    Same,
    /// Said before the one that is kept, and late: nothing follows.
    Stale,
    /// Another life of the database, which does not have what the kept one has: it was restored. Keep the new
    /// one, and the pair: entries were lost.
    Restored,
    /// Both cannot be true of one life of the database: its audit was rewritten. Keep the old one, and the pair.
    Rewritten,
}

impl Stated {
    /// The bytes that are signed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Stated {
            head: Head { sequence, hash },
            version: proto::Version { incarnation, epoch },
            at_ms,
        } = self;
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&sequence.to_be_bytes());
        bytes.extend_from_slice(hash.as_bytes());
        bytes.extend_from_slice(&incarnation.to_be_bytes());
        bytes.extend_from_slice(&epoch.to_be_bytes());
        bytes.extend_from_slice(&at_ms.to_be_bytes());
        bytes
    }

    /// Reads what was signed. Whether it was is not looked at.
    ///
    /// # Errors
    /// When the bytes are not exactly that.
    pub fn decode(bytes: &[u8]) -> Result<Self, StatedError> {
        let all: &[u8; BYTES] = bytes.try_into().map_err(|_| StatedError::Length(bytes.len()))?;
        if all[0] != VERSION {
            return Err(StatedError::Version(all[0]));
        }
        let eight = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&all[at..at + 8]);
            bytes
        };
        let mut hash = [0; 32];
        hash.copy_from_slice(&all[9..41]);
        Ok(Self {
            head: Head {
                sequence: u64::from_be_bytes(eight(1)),
                hash: Hash::new(hash),
            },
            version: Version {
                incarnation: u64::from_be_bytes(eight(41)),
                epoch: u64::from_be_bytes(eight(49)),
            },
            at_ms: i64::from_be_bytes(eight(57)),
        })
    }
}

/// What `heard` says about `kept`, both signed.
///
/// A lower place is no sign of anything when it was said earlier: the frames of two links overtake each other. Said
/// later, it is. Within one life of the database versions never go down, so they tell what is later; where they are
/// equal the controller's clock does.
#[must_use]
pub fn judge(kept: &Stated, heard: &Stated) -> Judged {
    let later = (heard.version, heard.at_ms) > (kept.version, kept.at_ms);
    if heard.version.incarnation < kept.version.incarnation {
        return Judged::Stale;
    }
    let other_life = heard.version.incarnation > kept.version.incarnation;
    match heard.head.sequence.cmp(&kept.head.sequence) {
        std::cmp::Ordering::Greater => Judged::Higher,
        std::cmp::Ordering::Equal if heard.head.hash == kept.head.hash => {
            if other_life {
                Judged::Higher
            } else {
                Judged::Same
            }
        }
        _ if other_life => Judged::Restored,
        std::cmp::Ordering::Equal => Judged::Rewritten,
        std::cmp::Ordering::Less if later => Judged::Rewritten,
        std::cmp::Ordering::Less => Judged::Stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stated(sequence: u64, hash: u8, incarnation: u64, epoch: u64, at_ms: i64) -> Stated {
        Stated {
            head: Head {
                sequence,
                hash: Hash::new([hash; 32]),
            },
            version: Version { incarnation, epoch },
            at_ms,
        }
    }

    /// Do not change this test: nodes keep these bytes for years. Written by hand from the table above.
    #[test]
    fn golden_bytes() {
        let one = stated(42, 0xab, 3, 1_000, 1_795_320_000_000);
        let expected = [
            "01",
            "000000000000002a",
            &"ab".repeat(32),
            "0000000000000003",
            "00000000000003e8",
            "000001a201692e00",
        ]
        .concat();
        let hex: String = one.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn each_case_by_its_name() {
        let kept = stated(10, 1, 2, 100, 1_000);
        for (heard, expected) in [
            (stated(11, 2, 2, 100, 1_000), Judged::Higher),
            (stated(11, 2, 2, 100, 1), Judged::Higher),
            (stated(10, 1, 2, 200, 9_000), Judged::Same),
            (stated(10, 2, 2, 200, 9_000), Judged::Rewritten),
            (stated(10, 2, 2, 1, 1), Judged::Rewritten),
            (stated(9, 3, 2, 99, 9_000), Judged::Stale),
            (stated(9, 3, 2, 100, 999), Judged::Stale),
            (stated(9, 3, 2, 100, 1_001), Judged::Rewritten),
            (stated(9, 3, 2, 101, 1), Judged::Rewritten),
            (stated(9, 3, 3, 1, 1), Judged::Restored),
            (stated(10, 2, 3, 1, 1), Judged::Restored),
            (stated(10, 1, 3, 1, 1), Judged::Higher),
            (stated(11, 2, 3, 1, 1), Judged::Higher),
            (stated(99, 2, 1, 999, 9_999), Judged::Stale),
        ] {
            assert_eq!(judge(&kept, &heard), expected, "{heard:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_signed_is_read(sequence: u64, hash: u8, incarnation: u64, epoch: u64, at_ms: i64) {
            let one = stated(sequence, hash, incarnation, epoch, at_ms);
            prop_assert_eq!(Stated::decode(&one.encode()), Ok(one));
        }

        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(one) = Stated::decode(&bytes) {
                prop_assert_eq!(one.encode(), bytes);
            }
        }

        /// An honest chain never gives anybody away, in whatever order its heads arrive.
        #[test]
        fn an_honest_chain_is_never_called_rewritten(
            steps in prop::collection::vec((0..3_u64, 0..3_u64, -5..10_i64), 1..20),
            order in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
        ) {
            let (mut sequence, mut epoch, mut at_ms) = (1, 1, 1_000);
            let heads: Vec<Stated> = steps.iter().map(|(entries, epochs, ms)| {
                // The clock may be set back, but not without anything else going on.
                sequence += entries;
                epoch += epochs + u64::from(*ms < 0);
                at_ms += ms;
                stated(sequence, u8::try_from(sequence).unwrap_or(0), 1, epoch, at_ms)
            }).collect();
            let mut kept = *order[0].get(&heads);
            for at in order {
                let heard = at.get(&heads);
                let judged = judge(&kept, heard);
                prop_assert!(!matches!(judged, Judged::Rewritten | Judged::Restored), "{kept:?} {heard:?}");
                if judged == Judged::Higher {
                    kept = *heard;
                }
            }
        }
    }
}
