//! 17: a sliver takes every file descriptor of its node.
//!
//! Root is exempt from the bound on open files, so here the harm is a neighbour's: it can open nothing, start nothing,
//! accept nothing.

use anyhow::{Result, ensure};

use super::machines::{GUILTY, NEEDS, NODE, Neighbour, QUIET, lets_in, pings, press, with_node};
use crate::fleet::wait_for;
use crate::incident::{Ask, Incident, Story};
use crate::lab::Lab;
use crate::lab::fault::Fault;

const GIVEN_BACK: &str = "the kill gives the descriptors back to the other slivers";
const FULL: &str = "Too many open files in system";

pub(super) const INCIDENT: Incident = Incident {
    number: 17,
    name: "uiuc3",
    title: "uiuc3, Nodes hanging",
    date: "21 Mar 2003",
    needs: NEEDS,
    asks: &[
        Ask::shown(GIVEN_BACK),
        Ask::missing(
            "protected: the sliver alone gets ENFILE",
            "there are no limits of slivers yet",
        ),
        Ask::missing(
            "unprotected: POD restores the node",
            "there is no ping of death yet",
        ),
    ],
    unprotected,
    protected,
};

/// What somebody of the neighbour's gets who opens a file.
fn opened(lab: &Lab) -> Result<lab::console::Output> {
    lab.at(0)
        .run(&format!("redbutton-nodemgr exec {QUIET} -- cat /etc/hosts"))
}

fn take_all(story: &mut Story, lab: &Lab, neighbour: &Neighbour<'_>) -> Result<()> {
    story.tell("the fault", &Fault::Fds.commit(lab, 0, GUILTY)?);
    wait_for("a neighbour that can open nothing", || {
        opened(lab).ok()?.text.contains(FULL).then_some(())
    })?;
    story.tell(QUIET, &format!("opens a file and is told: {FULL}"));
    neighbour.starves(story)?;
    pings(lab, 0)?;
    story.tell(NODE, "pings");
    story.fact("root, whom no file-max binds, can log in", lets_in(lab, 0)?);
    Ok(())
}

fn unprotected(story: &mut Story) -> Result<()> {
    with_node(story, |story, lab| {
        let neighbour = Neighbour::start(story, lab, 0)?;
        take_all(story, lab, &neighbour)?;
        // Nobody presses.
        let said = opened(lab)?;
        ensure!(said.text.contains(FULL), "it went by itself: {}", said.text);
        story.tell(QUIET, "is told the same again");
        Ok(())
    })
}

fn protected(story: &mut Story) -> Result<()> {
    with_node(story, |story, lab| {
        let neighbour = Neighbour::start(story, lab, 0)?;
        take_all(story, lab, &neighbour)?;
        press(story, lab, "takes all files")?;
        let said = opened(lab)?;
        ensure!(
            said.status == 0 && said.text.contains("localhost"),
            "after the kill: {}",
            said.text
        );
        story.tell(QUIET, "opens a file and reads it");
        neighbour.goes_on(story)?;
        story.shows(GIVEN_BACK);
        Ok(())
    })
}
