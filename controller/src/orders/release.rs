//! Which holds a release lifts: all that were asked for and that the caller may release.

use proto::{Hold, HoldId};

/// Most holds that one order lifts; what is left takes another press.
pub const MAX_RELEASED: usize = 1_000;

/// What a release comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// To be lifted, oldest first.
    pub lifted: Vec<Hold>,
    /// Asked for, but they stand: each with the rule.
    pub standing: Vec<(HoldId, String)>,
}

impl Plan {
    /// One line for people about what stands; empty when nothing does.
    #[must_use]
    pub fn standing_text(&self) -> String {
        const SHOWN: usize = 5;
        if self.standing.is_empty() {
            return String::new();
        }
        let mut text = String::from("still standing:");
        for (id, rule) in self.standing.iter().take(SHOWN) {
            text.push_str(&format!(" {id} ({rule});"));
        }
        match self.standing.len() {
            more if more > SHOWN => text.push_str(&format!(" and {} more", more - SHOWN)),
            _ => drop(text.pop()),
        }
        text
    }
}

/// Sorts the holds that were asked for. `may` returns the rule that forbids, if one does.
pub fn plan_release(mut asked: Vec<Hold>, mut may: impl FnMut(&Hold) -> Result<(), String>) -> Plan {
    asked.sort_by_key(|hold| (hold.version, hold.id));
    let mut plan = Plan {
        lifted: Vec::new(),
        standing: Vec::new(),
    };
    for hold in asked {
        match may(&hold) {
            Err(rule) => plan.standing.push((hold.id, rule)),
            Ok(()) if plan.lifted.len() == MAX_RELEASED => {
                plan.standing
                    .push((hold.id, format!("one release lifts at most {MAX_RELEASED} holds")));
            }
            Ok(()) => plan.lifted.push(hold),
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{HoldKind, Role, Scope, Version};

    fn hold(epoch: u64, role: Role) -> Hold {
        Hold {
            id: HoldId::new(),
            slice: Some("princeton_codeen".parse().expect("valid")),
            scope: Scope::Fleet,
            kind: HoldKind::Suspend,
            holder: "alice".parse().expect("valid"),
            role,
            reason: "r".into(),
            evidence: String::new(),
            set_at_ms: 0,
            version: Version {
                incarnation: 1,
                epoch,
            },
        }
    }

    fn pi(hold: &Hold) -> Result<(), String> {
        if hold.role == Role::Support {
            Err("set by support".into())
        } else {
            Ok(())
        }
    }

    #[test]
    fn what_may_not_be_released_is_named() {
        let (own, foreign) = (hold(3, Role::Pi), hold(2, Role::Support));
        let plan = plan_release(vec![own.clone(), foreign.clone()], pi);
        assert_eq!(plan.lifted, vec![own]);
        assert_eq!(
            plan.standing_text(),
            format!("still standing: {} (set by support)", foreign.id)
        );
    }

    #[test]
    fn a_release_is_bounded_and_oldest_first() {
        let asked: Vec<Hold> = (0..1_007).rev().map(|epoch| hold(epoch, Role::Pi)).collect();
        let plan = plan_release(asked, pi);
        assert_eq!(plan.lifted.len(), MAX_RELEASED);
        assert!(plan.lifted.is_sorted_by_key(|hold| hold.version));
        assert!(
            plan.standing_text().ends_with("and 2 more"),
            "{}",
            plan.standing_text()
        );
    }
}
