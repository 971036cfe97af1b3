//! The verdict.

use proto::Role;

use crate::table::{Need, Want, row};
use crate::{Action, Actor, Target};

/// What the table says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a verdict that nobody reads protects nothing"]
pub enum Verdict {
    /// Yes.
    Allow {
        /// The weakest role that entitles; goes into the hold and the audit.
        role: Role,
        /// The row and the grant that entitled, for the audit.
        rule: String,
    },
    /// Yes, to anyone: no role is needed and none was used.
    Anyone {
        /// The rule, for the audit.
        rule: String,
    },
    /// Only once a second person agrees.
    NeedsSecondPerson {
        /// The weakest role that entitles.
        role: Role,
        /// The row and the grant that entitled, for the audit.
        rule: String,
    },
    /// No.
    Deny {
        /// What would be needed, for people and for the audit.
        rule: String,
    },
}

impl Verdict {
    /// Whether to go ahead now.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Verdict::Allow { .. } | Verdict::Anyone { .. })
    }

    /// The role that entitles, where one was needed and found.
    #[must_use]
    pub const fn role(&self) -> Option<Role> {
        match self {
            Verdict::Allow { role, .. } | Verdict::NeedsSecondPerson { role, .. } => Some(*role),
            Verdict::Anyone { .. } | Verdict::Deny { .. } => None,
        }
    }

    /// The rule that decided.
    #[must_use]
    pub fn rule(&self) -> &str {
        match self {
            Verdict::Allow { rule, .. }
            | Verdict::Anyone { rule }
            | Verdict::NeedsSecondPerson { rule, .. }
            | Verdict::Deny { rule } => rule,
        }
    }
}

/// Whether `actor` may do `action` to `target`.
pub fn decide(actor: &Actor, action: Action, target: &Target) -> Verdict {
    let Some(row) = row(action, target.kind()) else {
        return Verdict::Anyone {
            rule: format!("{action}: anyone"),
        };
    };
    if !row.takes.contains(&target.kind()) {
        let takes = listed(
            row.takes.iter().map(|kind| kind.as_str().to_owned()).collect(),
            "or",
        );
        return Verdict::Deny {
            rule: format!("{action} cannot be aimed at {target}: it takes {takes}"),
        };
    }
    let mut missing = Vec::new();
    for role in Role::ALL {
        for need in row.cell(role).needs(role, target) {
            if meets(actor, &need) {
                let rule = format!("{}: {}", row.text, words(&need, target));
                return if need.second {
                    Verdict::NeedsSecondPerson { role, rule }
                } else {
                    Verdict::Allow { role, rule }
                };
            }
            missing.push(words(&need, target));
        }
    }
    missing.dedup();
    Verdict::Deny {
        rule: format!("{action} on {target} needs: {}", listed(missing, "or")),
    }
}

fn meets(actor: &Actor, need: &Need) -> bool {
    need.only.as_ref().is_none_or(|(person, _)| *person == actor.name)
        && actor.grants.iter().any(|grant| need.want.is_met_by(grant))
}

fn words(need: &Need, target: &Target) -> String {
    let mut words = match &need.want {
        Want::DeveloperOf(slice) if target.slice() == Some(slice) => "developer of it".to_owned(),
        Want::DeveloperOf(slice) => format!("developer of {slice}"),
        Want::DeveloperAt(site) => format!("developer of a slice of {site}"),
        Want::Developer => "developer".to_owned(),
        Want::PiOf(site) => format!("PI of {site}"),
        Want::SiteAdminOf(site) => format!("site admin of {site}"),
        Want::Support => "support".to_owned(),
    };
    if let Some((_, why)) = &need.only {
        words.push(' ');
        words.push_str(why);
    }
    if need.second {
        words.push_str(" and a second person");
    }
    words
}

/// `a`, `a or b`, `a, b, or c`.
pub(crate) fn listed(mut words: Vec<String>, last: &str) -> String {
    match (words.pop(), words.len()) {
        (None, _) => String::new(),
        (Some(only), 0) => only,
        (Some(end), 1) => format!("{} {last} {end}", words[0]),
        (Some(end), _) => format!("{}, {last} {end}", words.join(", ")),
    }
}
