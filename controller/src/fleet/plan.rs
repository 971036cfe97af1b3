//! A release: which holds it lifts, and where that reaches.

use authz::{Action, Actor, Target, decide, may_see_hold, may_see_slice};
use proto::{Hold, Role, Scope, SiteName};

use super::aim::{self, NotAimed, allowed};
use super::press::Decided;
use super::{Aim, Fleet};
use crate::error::Error;
use crate::orders::{Plan, ReleaseOf, plan_release};
use crate::store::{self, About, OrderKind};

impl Fleet {
    /// Which holds a release lifts, and where that reaches.
    pub(super) async fn plan(&self, actor: &Actor, of: &ReleaseOf) -> Result<Decided, Box<NotAimed>> {
        let action = Action::Release;
        let mut about = About::default();
        let hidden = |rule: String| Error::Refused { rule };
        // What was asked for, in words, and whether its absence may be told.
        let (text, asked, may_know) = match of {
            ReleaseOf::Hold(id) => {
                let asked = self.holds(|hold, _| hold.id == *id);
                (format!("hold {id}"), asked, aim::knows_all_nodes(actor))
            }
            ReleaseOf::Slice(slice) => {
                about.slice = Some(slice.clone());
                let asked = self.holds(|hold, _| hold.slice.as_ref() == Some(slice));
                (
                    format!("holds on {slice}"),
                    asked,
                    may_see_slice(actor, slice, []),
                )
            }
            ReleaseOf::Node(node) => match self.find_fresh(node).await {
                Some((_, member)) if aim::knows_node(actor, &member, None) => {
                    about.node = Some(member.id);
                    about.site = Some(member.site.clone());
                    let scope = Scope::Node(member.id);
                    let asked = self.holds(|hold, _| hold.slice.is_none() && hold.scope == scope);
                    (format!("holds on node {}", member.name), asked, true)
                }
                found => {
                    let error = if found.is_none() && aim::knows_all_nodes(actor) {
                        Error::NotFound(format!("node {node} does not exist"))
                    } else {
                        aim::hidden_node(action, node)
                    };
                    return Err(Box::new(NotAimed {
                        action,
                        text: format!("holds on node {node}"),
                        about,
                        error,
                    }));
                }
            },
        };
        let site_of = |hold: &Hold| match hold.scope {
            Scope::Node(node) => self.site_of(node),
            _ => None,
        };
        let visible = |hold: &Hold| may_see_hold(actor, hold, site_of(hold).as_ref(), []);
        let asked: Vec<Hold> = asked.into_iter().filter(visible).collect();
        if asked.is_empty() {
            let error = if may_know {
                Error::NotFound(format!("{text}: none stands"))
            } else {
                hidden(format!(
                    "release of {text} needs: to see it and to be entitled to release it, or support"
                ))
            };
            return Err(Box::new(NotAimed {
                action,
                text,
                about,
                error,
            }));
        }
        let mut role = Role::Support;
        let mut rule = String::new();
        let mut first_refusal = None;
        let Plan { lifted, standing } = plan_release(asked, |hold| {
            match allowed(decide(actor, action, &Target::hold(hold, site_of(hold).as_ref()))) {
                Ok((entitled, why)) => {
                    if rule.is_empty() || entitled < role {
                        (role, rule) = (entitled, why);
                    }
                    Ok(())
                }
                Err(error) => {
                    let why = error.to_string();
                    first_refusal.get_or_insert(error);
                    Err(why)
                }
            }
        });
        if lifted.is_empty() {
            let error = first_refusal.unwrap_or_else(|| hidden(format!("{text}: nothing may be released")));
            return Err(Box::new(NotAimed {
                action,
                text,
                about,
                error,
            }));
        }
        let scope = self.common_scope(&lifted);
        let slice = lifted[0].slice.clone();
        let slice = slice.filter(|slice| lifted.iter().all(|hold| hold.slice.as_ref() == Some(slice)));
        about.slice = about.slice.or_else(|| slice.clone());
        if about.site.is_none() {
            match &scope {
                Scope::Site(site) => about.site = Some(site.clone()),
                Scope::Node(node) => (about.node, about.site) = (Some(*node), self.site_of(*node)),
                Scope::Fleet => {}
            }
        }
        let standing = Plan {
            lifted: Vec::new(),
            standing,
        }
        .standing_text();
        let text = if standing.is_empty() {
            text
        } else {
            format!("{text}; {standing}")
        };
        let wish = store::Wish::Release {
            holds: lifted.iter().map(|hold| hold.id).collect(),
        };
        let detail = if standing.is_empty() {
            rule.clone()
        } else {
            format!("{rule}; {standing}")
        };
        let aim = Aim {
            kind: OrderKind::Release,
            slice,
            scope,
            text,
            about,
            node: None,
            role,
            rule,
        };
        Ok(Decided {
            aim,
            wish,
            sets: Vec::new(),
            lifts: lifted,
            detail,
        })
    }

    /// The smallest scope that covers what all of these reach.
    fn common_scope(&self, holds: &[Hold]) -> Scope {
        let first = &holds[0].scope;
        if holds.iter().all(|hold| hold.scope == *first) {
            return first.clone();
        }
        let site = |hold: &Hold| -> Option<SiteName> {
            match &hold.scope {
                Scope::Fleet => None,
                Scope::Site(site) => Some(site.clone()),
                Scope::Node(node) => self.site_of(*node),
            }
        };
        match site(&holds[0]) {
            Some(home) if holds.iter().all(|hold| site(hold).as_ref() == Some(&home)) => Scope::Site(home),
            _ => Scope::Fleet,
        }
    }
}
