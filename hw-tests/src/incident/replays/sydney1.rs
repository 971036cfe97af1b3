//! 19: a slice forks without end; its node answers pings and nothing else.
//!
//! The bomb fills the kernel's table of processes, whose bound holds for root too: no login, no page of a neighbour. It
//! does not end by itself, so the button is pressed while nothing else can fork. What was killed is counted besides:
//! with all that lives afterwards it fills the table.

use anyhow::{Context, Result, ensure};

use super::machines::{GUILTY, NEEDS, Neighbour, lets_in, press, shuts_out, with_node};
use crate::fleet::wait_for;
use crate::incident::{Ask, Incident, Story};
use crate::lab::Lab;
use crate::lab::fault::Fault;

const KILLED: &str = "killed from the controller while nothing else can fork";

pub(super) const INCIDENT: Incident = Incident {
    number: 19,
    name: "sydney1",
    title: "sydney1",
    date: "7 Apr 2003",
    needs: NEEDS,
    asks: &[
        Ask::shown(KILLED),
        Ask::missing("protected: contained", "there are no limits of slivers yet"),
        Ask::missing(
            "unprotected: 13 of 13 restored by the ladder",
            "there is no ladder yet",
        ),
    ],
    unprotected,
    protected,
};

fn explode(story: &mut Story, lab: &Lab, neighbour: &Neighbour<'_>) -> Result<()> {
    story.tell("the fault", &Fault::Forkbomb.commit(lab, 0, GUILTY)?);
    shuts_out(story, lab, 0, 10)?;
    neighbour.starves(story)
}

fn unprotected(story: &mut Story) -> Result<()> {
    with_node(story, |story, lab| {
        let neighbour = Neighbour::start(story, lab, 0)?;
        explode(story, lab, &neighbour)?;
        // Nobody presses, and it does not end by itself.
        shuts_out(story, lab, 0, 40)
    })
}

fn protected(story: &mut Story) -> Result<()> {
    with_node(story, |story, lab| {
        let neighbour = Neighbour::start(story, lab, 0)?;
        explode(story, lab, &neighbour)?;
        let order = press(story, lab, "forks without end")?;
        let killed = order["nodes"][0]["killed"]
            .as_u64()
            .context("a count of processes")?;
        wait_for("a node that lets people in", || {
            lets_in(lab, 0).ok()?.then_some(())
        })?;
        story.tell("people", "can log in again");
        let node = lab.at(0);
        ensure!(node.processes(GUILTY)? == 0, "{GUILTY} has processes");
        let number = |text: String| text.trim().parse::<u64>().context("a number");
        let most = number(node.must("cat /proc/sys/kernel/threads-max")?)?;
        let left = number(node.must("ls -d /proc/[0-9]*/task/* | wc -l")?)?;
        story.fact("processes that the kernel may have", most);
        story.fact("processes killed", killed);
        story.fact("threads of everybody else", left);
        ensure!(killed + left >= most, "the table was not full when it was killed");
        // Root's own: what lets people in could not fork.
        let said = node.must("cat /var/log/sshd")?;
        ensure!(
            said.contains("Error forking: Resource temporarily unavailable"),
            "the ssh daemon could fork: {said}"
        );
        neighbour.goes_on(story)?;
        story.shows(KILLED);
        Ok(())
    })
}
