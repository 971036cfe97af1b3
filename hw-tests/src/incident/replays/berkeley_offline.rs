//! 15: the kernel panics and stops there; the node is gone until somebody goes to it.
//!
//! The console is recorded from outside by the lab, and the firmware keeps the panic's text over the reset; neither is
//! Redbutton's doing yet. A hand resets the node, as the ladder will. What Redbutton shows is that the node which comes
//! back obeys what was ordered before.

use anyhow::{Result, ensure};

use super::machines::{GUILTY, NEEDS, NODE, obeys, press, with_node};
use crate::incident::{Ask, Incident, Story};
use crate::lab::fault::Fault;
use crate::lab::{CAP, Lab};

const KEPT: &str = "console kept";
const OBEYED: &str = "the node that is back obeys its holds";
const PANIC: &str = "Kernel panic - not syncing: sysrq triggered crash";
const REASON: &str = "floods a bank";

pub(super) const INCIDENT: Incident = Incident {
    number: 15,
    name: "berkeley_offline",
    title: "Berkeley offline",
    date: "27 Feb 2003",
    needs: NEEDS,
    asks: &[
        Ask::shown(KEPT),
        Ask::missing(
            "console kept by Redbutton itself",
            "the lab's recorder keeps it: there is no console service yet",
        ),
        Ask::shown(OBEYED),
        Ask::missing("ladder brings the node back, no human", "there is no ladder yet"),
    ],
    unprotected,
    protected,
};

/// Panics, and checks that the node is gone for everybody.
fn panics(story: &mut Story, lab: &Lab) -> Result<()> {
    let node = lab.at(0);
    // As kernels do that nobody told otherwise: it stops.
    node.must("echo 0 > /proc/sys/kernel/panic")?;
    Fault::Panic.commit(lab, 0, GUILTY)?;
    story.tell("the fault", &format!("the kernel of {NODE} panics, and stops"));
    ensure!(!lab.pings(0, 2)?, "it still pings");
    lab.fleet.away(NODE)?;
    story.tell(NODE, "does not ping, and is away for the controller");
    Ok(())
}

fn unprotected(story: &mut Story) -> Result<()> {
    with_node(story, |story, lab| {
        panics(story, lab)?;
        // It does not come back by itself: that it stays for ever cannot be waited for.
        ensure!(
            lab.at(0).guest().is_on()? && !lab.pings(0, 2)?,
            "it went on by itself"
        );
        story.tell(NODE, "has power, and stays where it stopped");
        Ok(())
    })
}

fn protected(story: &mut Story) -> Result<()> {
    with_node(story, |story, lab| {
        let node = lab.at(0);
        node.exec(GUILTY, "sleep 1000")?;
        press(story, lab, REASON)?;
        let since = node.console().mark();
        panics(story, lab)?;
        let recorded = node.console().wait_for(since, PANIC, CAP)?;
        story.tell("the console's record", &format!("has: {}", recorded.text));
        let since = node.console().mark();
        node.guest().reset()?;
        story.tell("a hand", "resets the node, in the ladder's place");
        node.ready_since(since)?;
        lab.fleet.attached(NODE)?;
        let kept = node.must("cat /sys/fs/pstore/*")?;
        ensure!(kept.contains(PANIC), "pstore has {kept:?}");
        story.tell(NODE, "has it in pstore");
        story.shows(KEPT);
        obeys(story, lab, 0, REASON)?;
        story.shows(OBEYED);
        Ok(())
    })
}
