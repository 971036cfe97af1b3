//! Proposals as text.

use super::{cell, fields, list, name};
use crate::text;
use crate::view::approvals::{Proposal, Reach, State};

fn reach(reach: &Reach) -> String {
    let Reach {
        nodes,
        attached,
        slices,
        no_way_back: _,
        no_way_back_names: _,
    } = reach;
    format!(
        "{}, {attached} of them attached; {} now",
        text::count(u64::from(*nodes), "node", "nodes"),
        text::count(u64::from(*slices), "slice runs", "slices run")
    )
}

fn no_way_back(reach: &Reach) -> String {
    if reach.no_way_back == 0 {
        return String::new();
    }
    let names = list(&reach.no_way_back_names);
    let named = u32::try_from(reach.no_way_back_names.len()).unwrap_or(u32::MAX);
    let more = match reach.no_way_back.saturating_sub(named) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("NOTHING CAN POWER THESE ON AGAIN FROM AFAR: {names}{more}")
}

/// `approvals show`, and what is shown before anybody agrees.
pub(crate) fn proposal(proposal: &Proposal) -> String {
    let now = proposal.now;
    let waits = proposal.state == State::Open;
    let who = match (waits, proposal.may_approve.is_empty()) {
        (false, _) => String::new(),
        (true, true) => "nobody: it takes another person of support, whom the proposer neither invited nor \
                         promoted in the last 7 days"
            .to_owned(),
        (true, false) => list(&proposal.may_approve),
    };
    let approved = proposal
        .approver
        .as_ref()
        .map(|approver| format!("by {approver}, {}", proposal.approved_at.age(now)));
    fields(&[
        ("proposal", cell(&proposal.id)),
        ("will", proposal.what.clone()),
        ("reaches", proposal.reach.as_ref().map(reach).unwrap_or_default()),
        (
            "no way back",
            proposal.reach.as_ref().map(no_way_back).unwrap_or_default(),
        ),
        (
            "proposed",
            format!("by {}, {}", proposal.person, proposal.proposed_at.age(now)),
        ),
        ("reason", proposal.reason.clone()),
        ("evidence", proposal.evidence.clone().unwrap_or_default()),
        ("digest", cell(&proposal.digest)),
        ("state", proposal.state.text().to_owned()),
        (
            "expires",
            if waits {
                proposal.expires_at.age(now)
            } else {
                String::new()
            },
        ),
        ("approved", approved.unwrap_or_default()),
        ("order", proposal.order.clone().unwrap_or_default()),
        ("outcome", proposal.outcome.clone().unwrap_or_default()),
        ("who can", who),
    ])
}

/// `approvals ls`: two lines each, as orders.
pub(crate) fn proposals(proposals: &[Proposal]) -> String {
    if proposals.is_empty() {
        return "nothing waits for a second person\n".to_owned();
    }
    let mut page = String::new();
    for proposal in proposals {
        let left = if proposal.state == State::Open {
            format!(", expires {}", proposal.expires_at.age(proposal.now))
        } else {
            String::new()
        };
        page.push_str(&format!(
            "{}  {}\n    by {} {}: {}{left}\n",
            text::line(&proposal.id, 36),
            text::line(&proposal.action, 30),
            name(&proposal.person),
            proposal.proposed_at.age(proposal.now),
            proposal.state.text(),
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1;

    fn waiting() -> Proposal {
        v1::Proposal {
            id: "0193e0a0-0000-7000-8000-000000000001".into(),
            digest: vec![0xab; 32],
            person: "alice".into(),
            action: "stop-every-node".into(),
            what: "power off every node, with no way back".into(),
            reason: "a worm\u{1b}[2J".into(),
            proposed_at_ms: 1_000_000,
            expires_at_ms: 1_300_000,
            state: v1::ProposalState::Open.into(),
            may_approve: vec!["otto".into()],
            reach: Some(v1::proposal::Reach {
                nodes: 30,
                attached: 29,
                slices: 1,
                no_way_back: 30,
                no_way_back_names: vec!["n1".into(), "n2".into()],
            }),
            now_ms: 1_060_000,
            ..v1::Proposal::default()
        }
        .into()
    }

    #[test]
    fn what_will_happen_is_said_plainly() {
        let page = proposal(&waiting());
        for words in [
            "power off every node",
            "30 nodes, 29 of them attached; 1 slice runs now",
            "FROM AFAR: n1, n2 and 28 more",
            "by alice, 1 min ago",
            "expires      in 4 min",
            "who can      otto",
        ] {
            assert!(page.contains(words), "{words:?} is not in\n{page}");
        }
        assert!(!page.contains('\u{1b}'), "{page}");
        let command = waiting().command();
        assert_eq!(
            command,
            format!(
                "redbutton approve 0193e0a0-0000-7000-8000-000000000001 --digest {}",
                "ab".repeat(32)
            )
        );
        let alone = Proposal {
            may_approve: Vec::new(),
            ..waiting()
        };
        assert!(proposal(&alone).contains("who can      nobody: it takes another person"));
    }
}
