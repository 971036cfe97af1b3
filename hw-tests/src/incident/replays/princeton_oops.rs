//! 29: one half of a mirror is gone, and the next boot stops and waits for an operator.
//!
//! What may be ordered of a node that stands there is shown; that it is left alone, and that people are told why, waits
//! for the ladder.

use anyhow::{Result, ensure};
use lab::console::Offset;

use super::machines::{GUILTY, NEEDS, NODE, PROMPT, learns, lets_in, obeys, press_in_vain, with_this_node};
use crate::incident::{Ask, Incident, Story};
use crate::lab::fault::Fault;
use crate::lab::{CAP, Lab, Spec};

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

/// Breaks the mirror, and checks that the boot stops there.
fn stops(story: &mut Story, lab: &Lab) -> Result<Offset> {
    let node = lab.at(0);
    let since = node.console().mark();
    story.tell("the fault", &Fault::Raid.commit(lab, 0, GUILTY)?);
    let line = node.console().wait_for(since, STOPPED, CAP)?;
    story.tell("the console", &format!("says: {}", line.text));
    lab.fleet.away(NODE)?;
    ensure!(!lets_in(lab, 0)?, "it went on booting");
    story.tell(NODE, "lets nobody in, is away for the controller");
    Ok(line.end)
}

fn unprotected(story: &mut Story) -> Result<()> {
    with_this_node(story, &mirrored(), |story, lab| {
        stops(story, lab)?;
        let node = lab.at(0);
        let since = node.console().mark();
        story.tell("somebody", "cycles its power");
        node.guest().power_off()?;
        node.guest().power_on()?;
        node.console().wait_for(since, STOPPED, CAP)?;
        ensure!(!lets_in(lab, 0)?, "power helped");
        story.tell(NODE, "stops at the same line");
        Ok(())
    })
}

fn protected(story: &mut Story) -> Result<()> {
    with_this_node(story, &mirrored(), |story, lab| {
        lab.at(0).exec(GUILTY, "sleep 1000")?;
        let stopped = stops(story, lab)?;
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
