//! 29: one half of a mirror is gone, and the next boot stops and waits for an operator.
//!
//! What may be ordered of a node that stands there is shown; that it is left alone, and that people are told why, waits
//! for the ladder.

use anyhow::Result;

use super::machines::{
    GUILTY, NEEDS, NODE, PROMPT, learns, obeys, power_does_not_help, press_in_vain, stops_at, with_this_node,
};
use crate::incident::{Ask, Incident, Story};
use crate::lab::fault::Fault;
use crate::lab::{CAP, Spec};

const OBEYED: &str = "what was ordered meanwhile is obeyed when an operator lets it boot";
const STOPPED: &str = "LAB: RAID degraded: waiting for an operator";
const REASON: &str = "floods a bank";

pub(super) const INCIDENT: Incident = Incident {
    number: 29,
    name: "princeton_oops",
    title: "Princeton oops",
    date: "10 Jun 2003",
    needs: NEEDS,
    asks: &[
        Ask::missing(
            "ladder gives up after its budget, mails the console lines",
            "there is no ladder yet",
        ),
        Ask::shown(OBEYED),
    ],
    unprotected,
    protected,
};

fn mirrored() -> Spec {
    Spec {
        mirror: true,
        ..Spec::small(NODE, "princeton")
    }
}

fn unprotected(story: &mut Story) -> Result<()> {
    with_this_node(story, &mirrored(), |story, lab| {
        stops_at(story, lab, Fault::Raid, STOPPED)?;
        power_does_not_help(story, lab, STOPPED)
    })
}

fn protected(story: &mut Story) -> Result<()> {
    with_this_node(story, &mirrored(), |story, lab| {
        lab.at(0).exec(GUILTY, "sleep 1000")?;
        let stopped = stops_at(story, lab, Fault::Raid, STOPPED)?;
        press_in_vain(story, lab, REASON)?;
        let node = lab.at(0);
        let since = node.console().mark();
        story.tell("an operator", "lets it boot on one half");
        node.console().wait_for(stopped, PROMPT, CAP)?;
        node.console().write(b"exit\n")?;
        node.ready_since(since)?;
        lab.fleet.attached(NODE)?;
        learns(story, lab, 0)?;
        obeys(story, lab, 0, REASON)?;
        story.shows(OBEYED);
        Ok(())
    })
}
