//! What a wish comes to on this one node, and whether the table allows it. Pure: facts in, a verdict out.
//!
//! "Everywhere" and "at this site" are taken as "here": the node can do no more, and asks for no more right than
//! that. What is done is one sliver's or one node's, so the rows are those of one sliver and one node.

use authz::{Action, Actor, Target, Verdict, decide, may_see_hold, may_see_node, may_see_slice};
use proto::{Hold, HoldId, HoldKind, NodeId, Role, Scope, SiteName, SliceName};

use super::no::No;
use super::wish::{NodeRef, Reach, Wish};
use crate::restart::Wish as Restart;

/// Most holds that one order lifts.
const MAX_RELEASED: usize = 1_000;

/// Who we are.
#[derive(Debug, Clone)]
pub(crate) struct Here {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) site: SiteName,
}

impl Here {
    /// Whether people mean this node.
    pub(crate) fn is(&self, node: &NodeRef) -> bool {
        match node {
            NodeRef::Id(id) => *id == self.id,
            NodeRef::Name(name) => name.as_str() == self.name,
        }
    }

    /// What can be said of another node.
    pub(crate) fn elsewhere(&self, node: &NodeRef) -> No {
        No::NotFound(format!(
            "this is node {}, not {node}: what is done directly is done to one node",
            self.name
        ))
    }

    pub(crate) fn sliver(&self, slice: &SliceName) -> Target {
        Target::Sliver {
            slice: slice.clone(),
            site: self.site.clone(),
        }
    }

    pub(crate) fn node(&self) -> Target {
        Target::Node {
            site: self.site.clone(),
        }
    }

    /// The site that a hold is judged by.
    fn site_of(&self, hold: &Hold) -> Option<&SiteName> {
        matches!(hold.scope, Scope::Node(_)).then_some(&self.site)
    }

    /// Whether somebody may see a hold that stands here.
    pub(crate) fn may_see(&self, actor: &Actor, hold: &Hold) -> bool {
        may_see_hold(actor, hold, self.site_of(hold), [&self.site])
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    Impose {
        slice: Option<SliceName>,
        kind: HoldKind,
    },
    Release(Vec<Hold>),
    Restart(Restart),
}

/// An allowed wish.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Aim {
    pub(crate) act: Act,
    /// Of the order: `kill-sliver`.
    pub(crate) kind: &'static str,
    pub(crate) slice: Option<SliceName>,
    /// For people: "princeton_codeen on node7".
    pub(crate) target: String,
    pub(crate) role: Role,
    pub(crate) rule: String,
}

/// A wish that was refused, for the diary and for the caller.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) action: &'static str,
    pub(crate) target: String,
    pub(crate) no: No,
}

/// The verdict as a result.
fn allowed(verdict: Verdict) -> Result<(Role, String), No> {
    match verdict {
        Verdict::Allow { role, rule } => Ok((role, rule)),
        Verdict::Deny { rule } | Verdict::Anyone { rule } => Err(No::Refused(rule)),
        Verdict::NeedsSecondPerson { rule, .. } => Err(No::Refused(format!(
            "{rule}: a second person can agree only where the controller is"
        ))),
    }
}

/// Decides. `holds`: those that stand here. `known`: whether the slice is in the policy or runs here.
pub(crate) fn aim(
    actor: &Actor,
    wish: &Wish,
    here: &Here,
    holds: &[Hold],
    known: impl Fn(&SliceName) -> bool,
) -> Result<Aim, Refusal> {
    match wish {
        Wish::Hold { slice, reach, kind } => hold(actor, slice.as_ref(), reach, *kind, here, known),
        Wish::ReleaseHold(_) | Wish::ReleaseSlice(_) | Wish::ReleaseNode(_) => {
            release(actor, wish, here, holds)
        }
        Wish::Reboot(node) => restart(actor, node, Restart::Reboot, here),
        Wish::Stop { node, no_way_back } => {
            let aim = restart(actor, node, Restart::Halt, here)?;
            if *no_way_back {
                return Ok(aim);
            }
            let why = "the node has no commissioned outlet to power it on again from afar: \
                       `--no-way-back` stops it all the same";
            Err(Refusal {
                action: Action::StopNode.as_str(),
                target: aim.target,
                no: No::Precondition(why.into()),
            })
        }
    }
}

fn hold(
    actor: &Actor,
    slice: Option<&SliceName>,
    reach: &Reach,
    kind: HoldKind,
    here: &Here,
    known: impl Fn(&SliceName) -> bool,
) -> Result<Aim, Refusal> {
    let (action, asked) = match (slice, kind) {
        (Some(slice), HoldKind::Suspend) => (Action::KillSliver, here.sliver(slice)),
        (Some(slice), HoldKind::Freeze) => (Action::FreezeSliver, here.sliver(slice)),
        (None, HoldKind::Suspend) => (Action::KillNode, here.node()),
        (None, HoldKind::Freeze) => (Action::FreezeNode, here.node()),
    };
    let target = match slice {
        Some(slice) => format!("{slice} on {}", here.name),
        None => format!("node {}", here.name),
    };
    let refused = |no| Refusal {
        action: action.as_str(),
        target: target.clone(),
        no,
    };
    match reach {
        Reach::Node(node) if !here.is(node) => return Err(refused(here.elsewhere(node))),
        Reach::Site(site) if *site != here.site => {
            return Err(refused(No::NotFound(format!(
                "this is a node of {}, not of {site}",
                here.site
            ))));
        }
        Reach::Fleet | Reach::Site(_) if slice.is_none() => {
            // Every slice in the fleet or at a site takes two people, and this is neither.
            let why = format!(
                "every slice can be stopped only where the controller is; `node kill {}` stops those of this node",
                here.name
            );
            return Err(refused(No::Refused(why)));
        }
        Reach::Fleet | Reach::Site(_) | Reach::Node(_) => {}
    }
    let (role, rule) = allowed(decide(actor, action, &asked)).map_err(refused)?;
    if let Some(slice) = slice.filter(|slice| !known(slice)) {
        let no = No::NotFound(format!(
            "slice {slice} is neither in this node's policy nor on it"
        ));
        return Err(refused(no));
    }
    Ok(Aim {
        act: Act::Impose {
            slice: slice.cloned(),
            kind,
        },
        kind: action.as_str(),
        slice: slice.cloned(),
        target,
        role,
        rule,
    })
}

fn restart(actor: &Actor, node: &NodeRef, wish: Restart, here: &Here) -> Result<Aim, Refusal> {
    let action = match wish {
        Restart::Reboot => Action::RebootNode,
        Restart::Halt => Action::StopNode,
    };
    let target = format!("node {}", here.name);
    let refused = |no| Refusal {
        action: action.as_str(),
        target: target.clone(),
        no,
    };
    if !here.is(node) {
        return Err(refused(here.elsewhere(node)));
    }
    let (role, rule) = allowed(decide(actor, action, &here.node())).map_err(refused)?;
    Ok(Aim {
        act: Act::Restart(wish),
        kind: action.as_str(),
        slice: None,
        target,
        role,
        rule,
    })
}

/// The holds that a release asks for.
type Which<'a> = Box<dyn Fn(&Hold) -> bool + 'a>;

fn release(actor: &Actor, wish: &Wish, here: &Here, holds: &[Hold]) -> Result<Aim, Refusal> {
    let (target, may_know, asked): (String, bool, Which<'_>) = match wish {
        Wish::ReleaseHold(id) => {
            let id: HoldId = *id;
            let everything = decide(actor, Action::SeeUsage, &Target::Fleet).is_allowed();
            (
                format!("hold {id}"),
                everything,
                Box::new(move |hold| hold.id == id),
            )
        }
        Wish::ReleaseSlice(slice) => (
            format!("{slice} on {}: its holds", here.name),
            may_see_slice(actor, slice, []),
            Box::new(move |hold| hold.slice.as_ref() == Some(slice)),
        ),
        Wish::ReleaseNode(node) => {
            if !here.is(node) {
                return Err(Refusal {
                    action: Action::Release.as_str(),
                    target: format!("holds on node {node}"),
                    no: here.elsewhere(node),
                });
            }
            let scope = Scope::Node(here.id);
            (
                format!("holds on node {}", here.name),
                may_see_node(actor, &here.site),
                Box::new(move |hold| hold.slice.is_none() && hold.scope == scope),
            )
        }
        Wish::Hold { .. } | Wish::Reboot(_) | Wish::Stop { .. } => {
            (String::new(), false, Box::new(|_| false))
        }
    };
    let refused = |no| Refusal {
        action: Action::Release.as_str(),
        target: target.clone(),
        no,
    };
    let mut asked: Vec<&Hold> = holds
        .iter()
        .filter(|hold| asked(hold) && here.may_see(actor, hold))
        .collect();
    if asked.is_empty() {
        return Err(refused(if may_know {
            No::NotFound(format!("{target}: none stands"))
        } else {
            No::Refused(format!(
                "release of {target} needs: to see it and to be entitled to release it, or support"
            ))
        }));
    }
    asked.sort_by_key(|hold| (hold.version, hold.id));
    let (mut lifted, mut standing) = (Vec::new(), Vec::new());
    let mut entitled: Option<(Role, String)> = None;
    for hold in asked {
        let verdict = decide(actor, Action::Release, &Target::hold(hold, here.site_of(hold)));
        match allowed(verdict) {
            Ok((role, rule)) if lifted.len() < MAX_RELEASED => {
                lifted.push(hold.clone());
                if entitled.as_ref().is_none_or(|(weakest, _)| role < *weakest) {
                    entitled = Some((role, rule));
                }
            }
            Ok(_) => standing.push((hold.id, format!("one release lifts at most {MAX_RELEASED} holds"))),
            Err(no) => standing.push((hold.id, no.to_string())),
        }
    }
    let Some((role, mut rule)) = entitled else {
        let why = standing
            .into_iter()
            .next()
            .map(|(_, why)| why)
            .unwrap_or_default();
        return Err(refused(No::Refused(why)));
    };
    let mut text = target.clone();
    if !standing.is_empty() {
        let ids: Vec<String> = standing
            .iter()
            .take(5)
            .map(|(id, why)| format!("{id} ({why})"))
            .collect();
        let still = format!("; {} still standing: {}", standing.len(), ids.join(", "));
        text.push_str(&still);
        rule.push_str(&still);
    }
    let slice = lifted.first().and_then(|hold| hold.slice.clone());
    let slice = slice.filter(|slice| lifted.iter().all(|hold| hold.slice.as_ref() == Some(slice)));
    Ok(Aim {
        act: Act::Release(lifted),
        kind: Action::Release.as_str(),
        slice,
        target: text,
        role,
        rule,
    })
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
