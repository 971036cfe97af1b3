//! What a wish is aimed at, looked up: the question for `authz`, and the words for people.
//!
//! Who may not see a node does not learn whether it exists: the refusal is the same text either way.

use std::sync::Arc;

use authz::{Action, Actor, Target, Verdict, decide, may_see_node, may_see_slice};
use proto::{Role, Scope, SliceName};

use super::{Fleet, Member};
use crate::error::Error;
use crate::orders::{NodeRef, Reach, Wish};
use crate::store::{About, OrderKind};

/// A wish with its target, allowed.
#[derive(Debug, Clone)]
pub(crate) struct Aim {
    pub(crate) kind: OrderKind,
    pub(crate) slice: Option<SliceName>,
    pub(crate) scope: Scope,
    /// For people: "princeton_codeen everywhere".
    pub(crate) text: String,
    pub(crate) about: About,
    pub(crate) node: Option<Arc<Member>>,
    pub(crate) role: Role,
    pub(crate) rule: String,
}

/// A wish that was refused, for the audit and for the caller.
#[derive(Debug)]
pub(crate) struct NotAimed {
    pub(crate) action: Action,
    pub(crate) text: String,
    pub(crate) about: About,
    pub(crate) error: Error,
}

/// Whether somebody may see that a node is there: it is of their site, or a slice of theirs is named with it.
pub(crate) fn knows_node(actor: &Actor, member: &Member, slice: Option<&SliceName>) -> bool {
    may_see_node(actor, &member.site)
        || slice.is_some_and(|slice| may_see_slice(actor, slice, [&member.site]))
}

/// The refusal for a node that is not there or not for this person to see.
pub(crate) fn hidden_node(action: Action, node: &NodeRef) -> Error {
    Error::Refused {
        rule: format!("{action} on node {node} needs: site admin of its site, or support"),
    }
}

/// Whether somebody may learn that a node does not exist.
pub(crate) fn knows_all_nodes(actor: &Actor) -> bool {
    decide(actor, Action::SeeUsage, &Target::Fleet).is_allowed()
}

fn actions(kind: OrderKind) -> Action {
    match kind {
        OrderKind::KillSlice => Action::KillSlice,
        OrderKind::FreezeSlice => Action::FreezeSlice,
        OrderKind::KillSliver => Action::KillSliver,
        OrderKind::FreezeSliver => Action::FreezeSliver,
        OrderKind::KillNode => Action::KillNode,
        OrderKind::FreezeNode => Action::FreezeNode,
        OrderKind::Release => Action::Release,
        OrderKind::RebootNode => Action::RebootNode,
        OrderKind::StopNode => Action::StopNode,
        OrderKind::StopEverySlice => Action::StopEverySlice,
        OrderKind::StopEveryNode => Action::StopEveryNode,
    }
}

/// The verdict as a result.
pub(crate) fn allowed(verdict: Verdict) -> Result<(Role, String), Error> {
    match verdict {
        Verdict::Allow { role, rule } => Ok((role, rule)),
        Verdict::Deny { rule } => Err(Error::Refused { rule }),
        // What needs two people is proposed, not pressed; whatever comes here all the same has one person only.
        Verdict::NeedsSecondPerson { rule, .. } => Err(Error::Refused { rule }),
        // No order is open to anyone; an action that became so must not slip through.
        Verdict::Anyone { rule } => Err(Error::Refused { rule }),
    }
}

impl Fleet {
    /// Looks up what a wish other than a release is aimed at and asks `authz`.
    pub(crate) async fn aim(&self, actor: &Actor, wish: &Wish) -> Result<Aim, Box<NotAimed>> {
        let kind = match OrderKind::of(wish) {
            None | Some(OrderKind::StopEverySlice | OrderKind::StopEveryNode) => {
                return Err(self.stop_everything(actor, wish));
            }
            Some(kind) => kind,
        };
        let action = actions(kind);
        let (slice, reach) = match wish {
            Wish::Hold { slice, reach, .. } => (slice.clone(), reach.clone()),
            Wish::Reboot { node } | Wish::Stop { node, .. } => (None, Reach::Node(node.clone())),
            Wish::Release(_) | Wish::StopEveryNode { .. } => {
                let error = Error::Internal("this is planned or proposed, not aimed".into());
                return Err(Box::new(NotAimed {
                    action,
                    text: String::new(),
                    about: About::default(),
                    error,
                }));
            }
        };
        let mut about = About {
            slice: slice.clone(),
            ..About::default()
        };
        let named = |text: &str| {
            slice
                .as_ref()
                .map_or_else(|| text.to_owned(), |slice| format!("{slice} {text}"))
        };
        let (text, scope, target, node) = match (&slice, reach) {
            (Some(name), Reach::Fleet) => (
                named("everywhere"),
                Scope::Fleet,
                Target::Slice(name.clone()),
                None,
            ),
            (Some(name), Reach::Site(site)) => {
                about.site = Some(site.clone());
                let target = Target::SliceAtSite {
                    slice: name.clone(),
                    site: site.clone(),
                };
                (named(&format!("at {site}")), Scope::Site(site), target, None)
            }
            (_, Reach::Node(node)) => match self.find_fresh(&node).await {
                Some((_, member)) if knows_node(actor, &member, slice.as_ref()) => {
                    about.site = Some(member.site.clone());
                    about.node = Some(member.id);
                    let site = member.site.clone();
                    let target = match &slice {
                        Some(slice) => Target::Sliver {
                            slice: slice.clone(),
                            site,
                        },
                        None => Target::Node { site },
                    };
                    let text = match &slice {
                        Some(slice) => format!("{slice} on {}", member.name),
                        None => format!("node {}", member.name),
                    };
                    (text, Scope::Node(member.id), target, Some(member))
                }
                found => {
                    let text = match &slice {
                        Some(slice) => format!("{slice} on {node}"),
                        None => format!("node {node}"),
                    };
                    let own_slice = slice
                        .as_ref()
                        .is_some_and(|slice| may_see_slice(actor, slice, []));
                    let error = if found.is_none() && (own_slice || knows_all_nodes(actor)) {
                        Error::NotFound(format!("node {node} does not exist"))
                    } else {
                        hidden_node(action, &node)
                    };
                    return Err(Box::new(NotAimed {
                        action,
                        text,
                        about,
                        error,
                    }));
                }
            },
            (None, Reach::Fleet | Reach::Site(_)) => return Err(self.stop_everything(actor, wish)),
        };
        let refused = |error| {
            Box::new(NotAimed {
                action,
                text: text.clone(),
                about: about.clone(),
                error,
            })
        };
        let (role, rule) = allowed(decide(actor, action, &target)).map_err(refused)?;
        // Only who may do it learns whether it is there.
        if let Some(slice) = &slice {
            self.exists(self.store.slice(slice).await.map(drop))
                .map_err(refused)?;
        }
        if let Scope::Site(site) = &scope {
            self.exists(self.store.site(site).await.map(drop))
                .map_err(refused)?;
        }
        if let Wish::Stop {
            no_way_back: false, ..
        } = wish
        {
            let why = "the node has no commissioned outlet to power it on again from afar: \
                       `--no-way-back` stops it all the same";
            return Err(refused(Error::Precondition(why.into())));
        }
        Ok(Aim {
            kind,
            slice,
            scope,
            text,
            about,
            node,
            role,
            rule,
        })
    }

    /// A store that cannot be read must not stop the button; one that knows the thing is not there does.
    fn exists(&self, found: Result<(), crate::store::StoreError>) -> Result<(), Error> {
        match found {
            Err(error @ crate::store::StoreError::NotFound { .. }) => Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "pressed without looking up the target");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn stop_everything(&self, actor: &Actor, wish: &Wish) -> Box<NotAimed> {
        let (action, site, text) = match wish {
            Wish::Hold {
                reach: Reach::Site(site),
                ..
            } => (
                Action::StopEverySlice,
                Some(site.clone()),
                format!("every slice at {site}"),
            ),
            Wish::StopEveryNode { .. } => (Action::StopEveryNode, None, "every node".to_owned()),
            _ => (Action::StopEverySlice, None, "every slice everywhere".to_owned()),
        };
        let error = match decide(actor, action, &Target::Fleet) {
            Verdict::NeedsSecondPerson { .. } => Error::Unimplemented(format!(
                "{text}: stopping every slice is all or nothing: kill-all everywhere, or node kill, node freeze"
            )),
            verdict => match allowed(verdict) {
                Err(error) => error,
                Ok(_) => Error::Internal("an order for everything by one person".into()),
            },
        };
        Box::new(NotAimed {
            action,
            text,
            about: About {
                site,
                ..About::default()
            },
            error,
        })
    }
}
