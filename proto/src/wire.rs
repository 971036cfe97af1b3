//! From the wire to the domain and back. Everything from the wire is hostile: empty means refuse, and each
//! error names the field.

use crate::{Hold, HoldKind, IdError, Role, Scope, Version, v1};

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A required field is not there.
    #[error("{field} is missing")]
    Missing {
        /// Its name in the .proto file.
        field: &'static str,
    },
    /// An identifier in it is malformed.
    #[error("{field}: {source}")]
    Id {
        /// Its name in the .proto file.
        field: &'static str,
        /// What is wrong with it.
        source: IdError,
    },
    /// An enum value that this program does not know.
    #[error("{field} has the unknown value {got}")]
    Unknown {
        /// Its name in the .proto file.
        field: &'static str,
        /// The number.
        got: i32,
    },
    /// A text that is too long.
    #[error("{field} is {len} characters long, at most {max} are allowed")]
    TooLong {
        /// Its name in the .proto file.
        field: &'static str,
        /// Characters given.
        len: usize,
        /// Characters allowed.
        max: usize,
    },
}

impl WireError {
    /// Wraps an identifier's error with the field's name: `parse().map_err(WireError::id("slice"))`.
    pub fn id(field: &'static str) -> impl FnOnce(IdError) -> WireError {
        move |source| WireError::Id { field, source }
    }
}

fn short(field: &'static str, text: String) -> Result<String, WireError> {
    let len = text.chars().count();
    if len > Hold::MAX_TEXT {
        return Err(WireError::TooLong {
            field,
            len,
            max: Hold::MAX_TEXT,
        });
    }
    Ok(text)
}

impl From<Version> for v1::Version {
    fn from(v: Version) -> Self {
        let Version { incarnation, epoch } = v;
        v1::Version { incarnation, epoch }
    }
}

impl From<v1::Version> for Version {
    fn from(v: v1::Version) -> Self {
        let v1::Version { incarnation, epoch } = v;
        Version { incarnation, epoch }
    }
}

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Developer => v1::Role::Developer,
            Role::Pi => v1::Role::Pi,
            Role::SiteAdmin => v1::Role::SiteAdmin,
            Role::Support => v1::Role::Support,
        }
    }
}

impl v1::Role {
    /// The checked role.
    ///
    /// # Errors
    /// When it is unspecified.
    pub fn checked(self) -> Result<Role, WireError> {
        match self {
            v1::Role::Unspecified => Err(WireError::Missing { field: "role" }),
            v1::Role::Developer => Ok(Role::Developer),
            v1::Role::Pi => Ok(Role::Pi),
            v1::Role::SiteAdmin => Ok(Role::SiteAdmin),
            v1::Role::Support => Ok(Role::Support),
        }
    }
}

impl From<HoldKind> for v1::HoldKind {
    fn from(kind: HoldKind) -> Self {
        match kind {
            HoldKind::Freeze => v1::HoldKind::Freeze,
            HoldKind::Suspend => v1::HoldKind::Suspend,
        }
    }
}

impl v1::HoldKind {
    /// The checked kind.
    ///
    /// # Errors
    /// When it is unspecified.
    pub fn checked(self) -> Result<HoldKind, WireError> {
        match self {
            v1::HoldKind::Unspecified => Err(WireError::Missing { field: "kind" }),
            v1::HoldKind::Freeze => Ok(HoldKind::Freeze),
            v1::HoldKind::Suspend => Ok(HoldKind::Suspend),
        }
    }
}

impl From<Scope> for v1::Scope {
    fn from(scope: Scope) -> Self {
        use v1::scope::Reach;
        let reach = match scope {
            Scope::Fleet => Reach::Fleet(true),
            Scope::Site(site) => Reach::Site(site.into()),
            Scope::Node(node) => Reach::Node(node.into()),
        };
        v1::Scope { reach: Some(reach) }
    }
}

impl TryFrom<v1::Scope> for Scope {
    type Error = WireError;

    fn try_from(scope: v1::Scope) -> Result<Self, WireError> {
        use v1::scope::Reach;
        match scope.reach {
            None | Some(Reach::Fleet(false)) => Err(WireError::Missing { field: "scope" }),
            Some(Reach::Fleet(true)) => Ok(Scope::Fleet),
            Some(Reach::Site(site)) => Ok(Scope::Site(site.parse().map_err(WireError::id("scope.site"))?)),
            Some(Reach::Node(node)) => Ok(Scope::Node(node.parse().map_err(WireError::id("scope.node"))?)),
        }
    }
}

impl From<Hold> for v1::Hold {
    fn from(hold: Hold) -> Self {
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
        v1::Hold {
            id: id.into(),
            slice: slice.map(String::from).unwrap_or_default(),
            scope: Some(scope.into()),
            kind: v1::HoldKind::from(kind).into(),
            holder: holder.into(),
            role: v1::Role::from(role).into(),
            reason,
            evidence,
            set_at_ms,
            version: Some(version.into()),
            signature: Vec::new(),
        }
    }
}

impl TryFrom<v1::Hold> for Hold {
    type Error = WireError;

    fn try_from(hold: v1::Hold) -> Result<Self, WireError> {
        let kind = hold.kind().checked();
        let role = hold.role().checked();
        let v1::Hold {
            id,
            slice,
            scope,
            kind: kind_number,
            holder,
            role: role_number,
            reason,
            evidence,
            set_at_ms,
            version,
            signature: _,
        } = hold;
        Ok(Hold {
            id: id.parse().map_err(WireError::id("id"))?,
            slice: match slice.as_str() {
                "" => None,
                name => Some(name.parse().map_err(WireError::id("slice"))?),
            },
            scope: scope.ok_or(WireError::Missing { field: "scope" })?.try_into()?,
            kind: known(
                "kind",
                kind,
                kind_number,
                v1::HoldKind::try_from(kind_number).is_ok(),
            )?,
            holder: holder.parse().map_err(WireError::id("holder"))?,
            role: known("role", role, role_number, v1::Role::try_from(role_number).is_ok())?,
            reason: short("reason", reason)?,
            evidence: short("evidence", evidence)?,
            set_at_ms,
            version: version.ok_or(WireError::Missing { field: "version" })?.into(),
        })
    }
}

/// prost reads an unknown enum number as the unspecified value; this keeps the two apart.
fn known<T>(
    field: &'static str,
    value: Result<T, WireError>,
    got: i32,
    in_enum: bool,
) -> Result<T, WireError> {
    if in_enum {
        value
    } else {
        Err(WireError::Unknown { field, got })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HoldId, NodeId};

    fn hold() -> Hold {
        Hold {
            id: HoldId::new(),
            slice: Some("princeton_codeen".parse().expect("valid")),
            scope: Scope::Node(NodeId::random()),
            kind: HoldKind::Suspend,
            holder: "alice".parse().expect("valid"),
            role: Role::Support,
            reason: "floods a bank".into(),
            evidence: String::new(),
            set_at_ms: 1,
            version: Version {
                incarnation: 1,
                epoch: 7,
            },
        }
    }

    #[test]
    fn a_hold_survives_the_wire() {
        let one = hold();
        assert_eq!(Hold::try_from(v1::Hold::from(one.clone())), Ok(one));
    }

    #[test]
    fn what_is_unknown_is_refused_by_name() {
        let mut wire = v1::Hold::from(hold());
        wire.kind = 99;
        assert_eq!(
            Hold::try_from(wire),
            Err(WireError::Unknown {
                field: "kind",
                got: 99
            })
        );
        let mut wire = v1::Hold::from(hold());
        wire.role = 0;
        assert_eq!(Hold::try_from(wire), Err(WireError::Missing { field: "role" }));
        let mut wire = v1::Hold::from(hold());
        wire.scope = Some(v1::Scope {
            reach: Some(v1::scope::Reach::Fleet(false)),
        });
        assert_eq!(Hold::try_from(wire), Err(WireError::Missing { field: "scope" }));
        let mut wire = v1::Hold::from(hold());
        wire.slice = "../etc".into();
        assert!(matches!(
            Hold::try_from(wire),
            Err(WireError::Id { field: "slice", .. })
        ));
        let mut wire = v1::Hold::from(hold());
        wire.reason = "x".repeat(1_001);
        assert!(matches!(
            Hold::try_from(wire),
            Err(WireError::TooLong { field: "reason", .. })
        ));
    }
}
