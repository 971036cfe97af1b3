//! 30: a file system is corrupt after a power cycle, and every boot stops at its check.
//!
//! Another cycle does not help. An operator repairs it, and what the node knew of its holds may be lost with it: the
//! controller knows them.

use anyhow::Result;

use super::machines::{
    GUILTY, NEEDS, NODE, PROMPT, learns, obeys, power_does_not_help, press, stops_at, with_node,
};
use crate::incident::{Ask, Incident, Story};
use crate::lab::CAP;
use crate::lab::fault::Fault;

const OBEYED: &str = "the repaired node obeys its holds, which its disk has lost";
const STOPPED: &str = "LAB: fsck failed: manual repair needed";
/// Repairs, and says how many files there are (typed so that its echo does not).
const REPAIR: &[u8] = b"e2fsck -y /dev/vda; mount /dev/vda /mnt && find /mnt -type f | wc -l | xargs echo files left: && umount /mnt\n";
const REASON: &str = "floods a bank";

pub(super) const INCIDENT: Incident = Incident {
    number: 30,
    name: "seattle_bootcd",
    title: "Seattle bootCD",
    date: "22 May 2003",
    needs: NEEDS,
    asks: &[
        Ask::missing(
            "fsck failure recognised; no further cycling",
            "there is no ladder yet, and nobody reads consoles",
        ),
        Ask::shown(OBEYED),
    ],
    unprotected,
    protected,
};

fn unprotected(story: &mut Story) -> Result<()> {
    with_node(story, |story, lab| {
        stops_at(story, lab, Fault::Fsck, STOPPED)?;
        power_does_not_help(story, lab, STOPPED)
    })
}

fn protected(story: &mut Story) -> Result<()> {
    with_node(story, |story, lab| {
        let node = lab.at(0);
        node.exec(GUILTY, "sleep 1000")?;
        press(story, lab, REASON)?;
        let stopped = stops_at(story, lab, Fault::Fsck, STOPPED)?;
        let (console, since) = (node.console(), node.console().mark());
        story.tell("an operator", "repairs it at the console");
        console.wait_for(stopped, PROMPT, CAP)?;
        console.write(REPAIR)?;
        console.wait_for(since, "files left: 0", CAP)?;
        story.tell(NODE, "has lost what it knew of its holds");
        console.write(b"exit\n")?;
        node.ready_since(since)?;
        lab.fleet.attached(NODE)?;
        learns(story, lab, 0)?;
        obeys(story, lab, 0, REASON)?;
        story.shows(OBEYED);
        Ok(())
    })
}
