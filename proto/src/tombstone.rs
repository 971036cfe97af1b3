//! That a hold was released, in a form that outlives the hold.

use crate::canonical::Signature;
use crate::{HoldId, PersonName, Role, Version};

/// A release that is remembered: a hold of this id does not come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The hold.
    pub hold: HoldId,
    /// Who released it.
    pub lifted: Lifted,
}

/// Who released a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lifted {
    /// The controller, everywhere. Whether the signature is good is for its reader to check.
    Signed {
        /// The decision.
        version: Version,
        /// Its word for it, over [`crate::canonical::release`].
        signature: Signature,
    },
    /// Somebody at the node's own door, for that node alone.
    Here {
        /// Who.
        person: PersonName,
        /// The role that entitled them.
        role: Role,
        /// By the node's clock, milliseconds since 1970.
        at_ms: i64,
    },
}

#[cfg(feature = "grpc")]
mod wire {
    use super::{Lifted, Tombstone};
    use crate::{WireError, canonical, v1};

    impl From<Tombstone> for v1::Tombstone {
        fn from(Tombstone { hold, lifted }: Tombstone) -> Self {
            let hold = hold.to_string();
            match lifted {
                Lifted::Signed { version, signature } => Self {
                    hold,
                    version: Some(version.into()),
                    signature: signature.to_vec(),
                    ..Self::default()
                },
                Lifted::Here { person, role, at_ms } => Self {
                    hold,
                    person: person.to_string(),
                    role: v1::Role::from(role).into(),
                    at_ms,
                    ..Self::default()
                },
            }
        }
    }

    impl TryFrom<v1::Tombstone> for Tombstone {
        type Error = WireError;

        fn try_from(told: v1::Tombstone) -> Result<Self, WireError> {
            let role = told.role().checked();
            let v1::Tombstone {
                hold,
                version,
                signature,
                person,
                role: _,
                at_ms,
            } = told;
            let hold = hold.parse().map_err(WireError::id("hold"))?;
            let lifted = match version {
                Some(version) => Lifted::Signed {
                    version: version.into(),
                    signature: canonical::signature(&signature)
                        .ok_or(WireError::Missing { field: "signature" })?,
                },
                None => Lifted::Here {
                    person: person.parse().map_err(WireError::id("person"))?,
                    role: role?,
                    at_ms,
                },
            };
            Ok(Self { hold, lifted })
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::{HoldId, Role, Version};

        #[test]
        fn tombstones_survive_the_wire() {
            let signed = Lifted::Signed {
                version: Version {
                    incarnation: 2,
                    epoch: 9,
                },
                signature: [7; canonical::SIGNATURE_BYTES],
            };
            let here = Lifted::Here {
                person: "dan".parse().expect("valid"),
                role: Role::Developer,
                at_ms: -5,
            };
            for lifted in [signed, here] {
                let one = Tombstone {
                    hold: HoldId::new(),
                    lifted,
                };
                assert_eq!(Tombstone::try_from(v1::Tombstone::from(one.clone())), Ok(one));
            }
            let neither = v1::Tombstone {
                hold: HoldId::new().to_string(),
                ..v1::Tombstone::default()
            };
            assert!(matches!(
                Tombstone::try_from(neither),
                Err(WireError::Id { field: "person", .. })
            ));
        }
    }
}
