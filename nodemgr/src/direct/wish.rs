//! A press as it came over the wire, checked as the controller checks it. Nothing is looked up here.

use proto::{Hold, HoldId, HoldKind, NodeId, NodeName, SiteName, SliceName, WireError, v1};

use super::no::No;

/// Longest idempotency key.
const MAX_KEY: usize = 128;

/// A node as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeRef {
    Id(NodeId),
    Name(NodeName),
}

impl NodeRef {
    pub(crate) fn parse(field: &'static str, text: &str) -> Result<Self, No> {
        if let Ok(id) = text.parse() {
            return Ok(NodeRef::Id(id));
        }
        Ok(NodeRef::Name(text.parse().map_err(WireError::id(field))?))
    }
}

impl std::fmt::Display for NodeRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NodeRef::Id(id) => id.fmt(f),
            NodeRef::Name(name) => name.fmt(f),
        }
    }
}

/// How far a hold is to reach, as asked. It reaches this node in any case, and no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    Fleet,
    Site(SiteName),
    Node(NodeRef),
}

/// What a person wants of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    Hold {
        slice: Option<SliceName>,
        reach: Reach,
        kind: HoldKind,
    },
    ReleaseHold(HoldId),
    ReleaseSlice(SliceName),
    ReleaseNode(NodeRef),
    Reboot(NodeRef),
    Stop {
        node: NodeRef,
        no_way_back: bool,
    },
}

/// A checked press.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Press {
    pub(crate) key: String,
    pub(crate) reason: String,
    pub(crate) evidence: String,
    pub(crate) wish: Wish,
}

/// An optional slice in a request.
pub(crate) fn slice_field(field: &'static str, text: &str) -> Result<Option<SliceName>, No> {
    match text {
        "" => Ok(None),
        name => Ok(Some(name.parse().map_err(WireError::id(field))?)),
    }
}

impl TryFrom<v1::PressRequest> for Press {
    type Error = No;

    fn try_from(request: v1::PressRequest) -> Result<Self, No> {
        let v1::PressRequest {
            idempotency_key: key,
            reason,
            evidence,
            wish,
        } = request;
        if !(1..=MAX_KEY).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(No::Malformed(format!(
                "idempotency_key must be 1 to {MAX_KEY} visible ASCII characters, got {} bytes",
                key.len()
            )));
        }
        let reason = text("reason", &reason)?;
        if reason.is_empty() {
            return Err(WireError::Missing { field: "reason" }.into());
        }
        Ok(Press {
            key,
            reason,
            evidence: text("evidence", &evidence)?,
            wish: wish.ok_or(WireError::Missing { field: "wish" })?.try_into()?,
        })
    }
}

fn text(field: &'static str, text: &str) -> Result<String, No> {
    let (text, max) = (text.trim(), Hold::MAX_TEXT);
    let len = text.chars().count();
    if len > max {
        return Err(WireError::TooLong { field, len, max }.into());
    }
    match text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
        Some(character) => Err(No::Malformed(format!(
            "{field} holds the control character {character:?}"
        ))),
        None => Ok(text.to_owned()),
    }
}

impl TryFrom<v1::press_request::Wish> for Wish {
    type Error = No;

    fn try_from(wish: v1::press_request::Wish) -> Result<Self, No> {
        use v1::press_request::Wish as Wire;
        use v1::release_wish::What;
        Ok(match wish {
            Wire::Hold(hold) => {
                let in_enum = v1::HoldKind::try_from(hold.kind).is_ok();
                if !in_enum {
                    return Err(WireError::Unknown {
                        field: "hold.kind",
                        got: hold.kind,
                    }
                    .into());
                }
                Wish::Hold {
                    kind: hold.kind().checked()?,
                    slice: slice_field("hold.slice", &hold.slice)?,
                    reach: reach(hold.scope)?,
                }
            }
            Wire::Release(release) => match release.what {
                None => {
                    return Err(WireError::Missing {
                        field: "release.what",
                    }
                    .into());
                }
                Some(What::Hold(id)) => Wish::ReleaseHold(id.parse().map_err(WireError::id("release.hold"))?),
                Some(What::Slice(name)) => {
                    Wish::ReleaseSlice(name.parse().map_err(WireError::id("release.slice"))?)
                }
                Some(What::Node(node)) => Wish::ReleaseNode(NodeRef::parse("release.node", &node)?),
            },
            Wire::Reboot(reboot) => Wish::Reboot(NodeRef::parse("reboot.node", &reboot.node)?),
            Wire::Stop(stop) => Wish::Stop {
                node: NodeRef::parse("stop.node", &stop.node)?,
                no_way_back: stop.no_way_back,
            },
        })
    }
}

fn reach(scope: Option<v1::Scope>) -> Result<Reach, No> {
    use v1::scope::Reach as Wire;
    match scope.and_then(|scope| scope.reach) {
        None | Some(Wire::Fleet(false)) => Err(WireError::Missing { field: "hold.scope" }.into()),
        Some(Wire::Fleet(true)) => Ok(Reach::Fleet),
        Some(Wire::Site(site)) => Ok(Reach::Site(
            site.parse().map_err(WireError::id("hold.scope.site"))?,
        )),
        Some(Wire::Node(node)) => Ok(Reach::Node(NodeRef::parse("hold.scope.node", &node)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> v1::PressRequest {
        v1::PressRequest {
            idempotency_key: "key-1".into(),
            reason: "  floods a bank \n".into(),
            evidence: String::new(),
            wish: Some(v1::press_request::Wish::Hold(v1::HoldWish {
                slice: "princeton_codeen".into(),
                scope: Some(v1::Scope {
                    reach: Some(v1::scope::Reach::Fleet(true)),
                }),
                kind: v1::HoldKind::Suspend.into(),
            })),
        }
    }

    #[test]
    fn a_press_is_checked_as_at_the_centre() {
        let good = Press::try_from(request()).expect("good");
        assert_eq!(good.reason, "floods a bank");
        let bad = |change: fn(&mut v1::PressRequest)| {
            let mut request = request();
            change(&mut request);
            Press::try_from(request).expect_err("bad").to_string()
        };
        assert!(bad(|r| r.idempotency_key = "a b".into()).contains("idempotency_key"));
        assert_eq!(bad(|r| r.reason = " \n ".into()), "reason is missing");
        assert!(bad(|r| r.reason = "x".repeat(1_001)).contains("1001"));
        assert!(bad(|r| r.evidence = "\u{1b}[2J".into()).contains("control character"));
        assert_eq!(bad(|r| r.wish = None), "wish is missing");
    }

    proptest! {
        #[test]
        fn reading_a_press_never_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(wire) = <v1::PressRequest as prost::Message>::decode(&*body)
                && let Ok(press) = Press::try_from(wire)
            {
                prop_assert!((1..=MAX_KEY).contains(&press.key.len()) && !press.reason.is_empty());
            }
        }
    }
}
