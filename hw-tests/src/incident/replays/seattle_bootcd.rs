//! 30: a file system is corrupt after a power cycle, and every boot stops at its check.
//!
//! Another cycle does not help. An operator repairs it, and what the node knew of its holds may be lost with it: the
//! controller knows them.

use anyhow::{Result, ensure};
use lab::console::Offset;

use super::machines::{GUILTY, NEEDS, NODE, PROMPT, learns, lets_in, obeys, press, with_node};
use crate::incident::{Ask, Incident, Story};
use crate::lab::fault::Fault;
use crate::lab::{CAP, Lab};

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

/// Damages the file system, and checks that the boot stops there.
fn stops(story: &mut Story, lab: &Lab) -> Result<Offset> {
    let node = lab.at(0);
    let since = node.console().mark();
    story.tell("the fault", &Fault::Fsck.commit(lab, 0, GUILTY)?);
    let line = node.console().wait_for(since, STOPPED, CAP)?;
    story.tell("the console", &format!("says: {}", line.text));
    lab.fleet.away(NODE)?;
    ensure!(!lets_in(lab, 0)?, "it went on booting");
    story.tell(NODE, "lets nobody in, is away for the controller");
    Ok(line.end)
}

fn unprotected(story: &mut Story) -> Result<()> {
    with_node(story, |story, lab| {
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
    with_node(story, |story, lab| {
        let node = lab.at(0);
        node.exec(GUILTY, "sleep 1000")?;
        press(story, lab, REASON)?;
        let stopped = stops(story, lab)?;
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
