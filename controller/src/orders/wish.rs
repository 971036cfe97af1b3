//! A press as it came over the wire, checked. Nothing is looked up here: whether the slice exists and who may
//! do it comes later.

use std::fmt;

use proto::{HoldId, HoldKind, NodeId, NodeName, SiteName, SliceName, WireError, v1};

/// A node as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeRef {
    /// By its id.
    Id(NodeId),
    /// By its name.
    Name(NodeName),
}

impl NodeRef {
    /// Reads a UUID or a name; no name looks like a UUID.
    ///
    /// # Errors
    /// When it is neither; the error names `field`.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, WireError> {
        if let Ok(id) = text.parse() {
            return Ok(NodeRef::Id(id));
        }
        text.parse().map(NodeRef::Name).map_err(WireError::id(field))
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeRef::Id(id) => id.fmt(f),
            NodeRef::Name(name) => name.fmt(f),
        }
    }
}

/// How far a hold is to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Every node.
    Fleet,
    /// The nodes of a site.
    Site(SiteName),
    /// One node.
    Node(NodeRef),
}

/// Which holds are to be lifted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseOf {
    /// This one.
    Hold(HoldId),
    /// Those on a slice.
    Slice(SliceName),
    /// Those on a node itself.
    Node(NodeRef),
}

/// What a person wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Set a hold.
    Hold {
        /// The slice; `None`: every sliver in reach.
        slice: Option<SliceName>,
        /// Where.
        reach: Reach,
        /// How hard.
        kind: HoldKind,
    },
    /// Lift holds.
    Release(ReleaseOf),
    /// Restart a node.
    Reboot {
        /// Which.
        node: NodeRef,
    },
    /// Power a node off.
    Stop {
        /// Which.
        node: NodeRef,
        /// Nothing can power it on again from afar, and the person knows.
        no_way_back: bool,
    },
    /// Power every node off.
    StopEveryNode {
        /// Nothing can power some of them on again from afar, and the person knows.
        no_way_back: bool,
    },
}

/// A checked press.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Press {
    /// The client's key: the same from the same person is the same order.
    pub key: String,
    /// Why.
    pub reason: String,
    /// A reference to what was seen; may be empty.
    pub evidence: String,
    /// What.
    pub wish: Wish,
}

/// What is wrong with a press.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// A field is missing, malformed or unknown.
    #[error(transparent)]
    Field(#[from] WireError),
    /// The key is not 1 to 128 visible ASCII characters.
    #[error("idempotency_key must be 1 to {max} visible ASCII characters, got {len} bytes")]
    Key {
        /// Bytes given.
        len: usize,
        /// Characters allowed.
        max: usize,
    },
    /// One node, or all of them.
    #[error("stop.node names {got:?} and stop.fleet asks for every node: give one of the two")]
    NodeAndFleet {
        /// The node, cut to 80 characters.
        got: String,
    },
    /// A text holds characters that could steer a terminal.
    #[error("{field} holds the control character {character:?}")]
    Control {
        /// Its name in the .proto file.
        field: &'static str,
        /// The first such character.
        character: char,
    },
}

impl Press {
    /// Longest idempotency key.
    pub const MAX_KEY: usize = 128;
}

impl TryFrom<v1::PressRequest> for Press {
    type Error = WishError;

    fn try_from(request: v1::PressRequest) -> Result<Self, WishError> {
        let v1::PressRequest {
            idempotency_key,
            reason,
            evidence,
            wish,
        } = request;
        let key = checked_key(idempotency_key)?;
        let reason = checked_reason(&reason)?;
        let evidence = checked_text("evidence", evidence.trim())?;
        let wish = wish.ok_or(WireError::Missing { field: "wish" })?.try_into()?;
        Ok(Press {
            key,
            reason,
            evidence,
            wish,
        })
    }
}

/// A key that a client may choose.
pub(crate) fn checked_key(key: String) -> Result<String, WishError> {
    let (len, max) = (key.len(), Press::MAX_KEY);
    if (1..=max).contains(&len) && key.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(key)
    } else {
        Err(WishError::Key { len, max })
    }
}

/// A reason: it must be given.
pub(crate) fn checked_reason(reason: &str) -> Result<String, WishError> {
    let reason = checked_text("reason", reason.trim())?;
    if reason.is_empty() {
        return Err(WireError::Missing { field: "reason" }.into());
    }
    Ok(reason)
}

/// A text of a person: bounded, and nothing that a terminal would obey.
pub(crate) fn checked_text(field: &'static str, text: &str) -> Result<String, WishError> {
    let max = proto::Hold::MAX_TEXT;
    let len = text.chars().count();
    if len > max {
        return Err(WireError::TooLong { field, len, max }.into());
    }
    match text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
        Some(character) => Err(WishError::Control { field, character }),
        None => Ok(text.to_owned()),
    }
}

impl TryFrom<v1::press_request::Wish> for Wish {
    type Error = WishError;

    fn try_from(wish: v1::press_request::Wish) -> Result<Self, WishError> {
        use v1::press_request::Wish as Wire;
        Ok(match wish {
            Wire::Hold(hold) => hold_wish(hold)?,
            Wire::Release(v1::ReleaseWish { what }) => {
                use v1::release_wish::What;
                Wish::Release(
                    match what.ok_or(WireError::Missing {
                        field: "release.what",
                    })? {
                        What::Hold(id) => ReleaseOf::Hold(id.parse().map_err(WireError::id("release.hold"))?),
                        What::Slice(name) => {
                            ReleaseOf::Slice(name.parse().map_err(WireError::id("release.slice"))?)
                        }
                        What::Node(node) => ReleaseOf::Node(NodeRef::parse("release.node", &node)?),
                    },
                )
            }
            Wire::Reboot(v1::RebootWish { node }) => Wish::Reboot {
                node: NodeRef::parse("reboot.node", &node)?,
            },
            Wire::Stop(v1::StopWish {
                node,
                no_way_back,
                fleet: true,
            }) => match node.as_str() {
                "" => Wish::StopEveryNode { no_way_back },
                node => {
                    return Err(WishError::NodeAndFleet {
                        got: node.chars().take(80).collect(),
                    });
                }
            },
            Wire::Stop(v1::StopWish {
                node,
                no_way_back,
                fleet: false,
            }) => Wish::Stop {
                node: NodeRef::parse("stop.node", &node)?,
                no_way_back,
            },
        })
    }
}

fn hold_wish(hold: v1::HoldWish) -> Result<Wish, WishError> {
    use v1::scope::Reach as Wire;
    let kind = match v1::HoldKind::try_from(hold.kind) {
        Ok(kind) => kind.checked()?,
        Err(_) => {
            return Err(WireError::Unknown {
                field: "hold.kind",
                got: hold.kind,
            }
            .into());
        }
    };
    let v1::HoldWish {
        slice,
        scope,
        kind: _,
    } = hold;
    let slice = match slice.as_str() {
        "" => None,
        name => Some(name.parse().map_err(WireError::id("hold.slice"))?),
    };
    let reach = match scope.and_then(|scope| scope.reach) {
        None | Some(Wire::Fleet(false)) => return Err(WireError::Missing { field: "hold.scope" }.into()),
        Some(Wire::Fleet(true)) => Reach::Fleet,
        Some(Wire::Site(site)) => Reach::Site(site.parse().map_err(WireError::id("hold.scope.site"))?),
        Some(Wire::Node(node)) => Reach::Node(NodeRef::parse("hold.scope.node", &node)?),
    };
    Ok(Wish::Hold { slice, reach, kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::OrderKind;
    use proptest::prelude::*;
    use v1::press_request::Wish as Wire;

    fn request() -> v1::PressRequest {
        v1::PressRequest {
            idempotency_key: "key-1".into(),
            reason: "  floods a bank \n".into(),
            evidence: String::new(),
            wish: Some(Wire::Hold(v1::HoldWish {
                slice: "princeton_codeen".into(),
                scope: Some(v1::Scope {
                    reach: Some(v1::scope::Reach::Fleet(true)),
                }),
                kind: v1::HoldKind::Suspend.into(),
            })),
        }
    }

    fn error(change: impl FnOnce(&mut v1::PressRequest)) -> String {
        let mut request = request();
        change(&mut request);
        Press::try_from(request).expect_err("refused").to_string()
    }

    #[test]
    fn a_good_press_passes() {
        let press = Press::try_from(request()).expect("good");
        assert_eq!(press.reason, "floods a bank");
        assert_eq!(OrderKind::of(&press.wish), Some(OrderKind::KillSlice));
    }

    #[test]
    fn bad_presses_are_refused_by_name() {
        assert!(error(|r| r.idempotency_key.clear()).contains("idempotency_key"));
        assert!(error(|r| r.idempotency_key = "x".repeat(129)).contains("129 bytes"));
        assert!(error(|r| r.idempotency_key = "a b".into()).contains("visible ASCII"));
        assert_eq!(error(|r| r.reason = " \n ".into()), "reason is missing");
        assert!(error(|r| r.reason = "x".repeat(1_001)).contains("1001 characters"));
        assert!(error(|r| r.reason = "a\u{1b}[2Jb".into()).contains("control character"));
        assert!(error(|r| r.evidence = "x".repeat(1_001)).contains("evidence"));
        assert_eq!(error(|r| r.wish = None), "wish is missing");
        assert_eq!(
            error(|r| r.wish = Some(Wire::Release(v1::ReleaseWish { what: None }))),
            "release.what is missing"
        );
        assert!(
            error(|r| r.wish = Some(Wire::Reboot(v1::RebootWish { node: "../x".into() })))
                .contains("reboot.node")
        );
        let hold = |change: fn(&mut v1::HoldWish)| {
            error(|r| {
                if let Some(Wire::Hold(hold)) = &mut r.wish {
                    change(hold);
                }
            })
        };
        assert!(hold(|h| h.slice = "Codeen".into()).contains("hold.slice"));
        assert_eq!(hold(|h| h.kind = 9), "hold.kind has the unknown value 9");
        assert_eq!(hold(|h| h.kind = 0), "kind is missing");
        assert_eq!(hold(|h| h.scope = None), "hold.scope is missing");
        assert_eq!(
            hold(|h| h.scope = Some(v1::Scope {
                reach: Some(v1::scope::Reach::Fleet(false))
            })),
            "hold.scope is missing"
        );
    }

    #[test]
    fn every_slice_is_killed_everywhere_or_not_at_all() {
        let site = Reach::Site("princeton".parse().expect("valid"));
        for (reach, kind, expected) in [
            (Reach::Fleet, HoldKind::Suspend, Some(OrderKind::StopEverySlice)),
            (Reach::Fleet, HoldKind::Freeze, None),
            (site, HoldKind::Suspend, None),
        ] {
            let slice = None;
            assert_eq!(OrderKind::of(&Wish::Hold { slice, reach, kind }), expected);
        }
    }

    #[test]
    fn one_node_or_all_of_them() {
        let stop = |node: &str, fleet| {
            Wish::try_from(Wire::Stop(v1::StopWish {
                node: node.into(),
                no_way_back: true,
                fleet,
            }))
        };
        assert_eq!(stop("", true), Ok(Wish::StopEveryNode { no_way_back: true }));
        assert!(matches!(stop("n1", true), Err(WishError::NodeAndFleet { .. })));
        assert!(matches!(stop("n1", false), Ok(Wish::Stop { .. })));
        assert!(stop("", false).is_err());
    }

    proptest! {
        #[test]
        fn what_passes_is_bounded(key in ".{0,140}", reason in ".{0,1100}", slice in "[a-z_A-Z]{0,10}", kind in -1..4i32) {
            let mut request = request();
            request.idempotency_key = key;
            request.reason = reason;
            request.wish = Some(Wire::Hold(v1::HoldWish {
                slice,
                scope: Some(v1::Scope { reach: Some(v1::scope::Reach::Fleet(true)) }),
                kind,
            }));
            if let Ok(press) = Press::try_from(request) {
                prop_assert!((1..=128).contains(&press.key.len()));
                prop_assert!((1..=1_000).contains(&press.reason.chars().count()));
                prop_assert!(matches!(kind, 1 | 2));
            }
        }
    }
}
