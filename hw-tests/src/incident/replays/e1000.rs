//! 5: nodes panic, one at each of three sites, while one slice is active on them.
//!
//! The consoles are recorded by the lab. That somebody puts the three together and names the slice waits for crash
//! reports.

use anyhow::{Result, ensure};

use super::machines::{GUILTY, NEEDS, in_lab};
use crate::incident::{Ask, Incident, Story};
use crate::lab::fault::Fault;
use crate::lab::{CAP, Lab, Spec};

const CAPTURED: &str = "panic text captured on every console";
const SITES: [&str; 3] = ["princeton", "berkeley", "mit"];
const PANIC: &str = "Kernel panic - not syncing";

pub(super) const INCIDENT: Incident = Incident {
    number: 5,
    name: "e1000",
    title: "E1000",
    date: "19 Dec 2002",
    needs: NEEDS,
    asks: &[
        Ask::shown(CAPTURED),
        Ask::missing(
            "panic text captured by Redbutton itself",
            "the lab's recorder has it: there is no console service yet",
        ),
        Ask::missing(
            "the crash report ranks that slice first",
            "there are no crash reports yet",
        ),
    ],
    unprotected,
    protected,
};

/// A node at each site, all with the slice, all panicked.
fn panic_everywhere(story: &mut Story, lab: &mut Lab) -> Result<()> {
    for site in SITES {
        lab.add(&Spec::small(&format!("planet-{site}"), site))?;
    }
    for index in 0..SITES.len() {
        lab.ready(index)?;
        let node = lab.at(index);
        node.exec(GUILTY, "sleep 1000")?;
        // As kernels do that nobody told otherwise: it stops.
        node.must("echo 0 > /proc/sys/kernel/panic")?;
    }
    story.tell("the fleet", &format!("is up at {} sites", SITES.len()));
    for index in 0..SITES.len() {
        Fault::Panic.commit(lab, index, GUILTY)?;
        story.tell(lab.at(index).name(), "panics, and stops");
    }
    for (index, site) in SITES.iter().enumerate() {
        lab.fleet.away(&format!("planet-{site}"))?;
        ensure!(!lab.pings(index, 1)?, "the node at {site} still pings");
    }
    story.tell("the fleet", "is away, and answers no ping");
    Ok(())
}

fn unprotected(story: &mut Story) -> Result<()> {
    in_lab(story, &SITES, panic_everywhere)
}

fn protected(story: &mut Story) -> Result<()> {
    in_lab(story, &SITES, |story, lab| {
        panic_everywhere(story, lab)?;
        for node in lab.nodes() {
            let line = node.console().wait_for(crate::lab::START, PANIC, CAP)?;
            story.tell(
                "the console's record",
                &format!("of {} has: {}", node.name(), line.text),
            );
        }
        story.shows(CAPTURED);
        Ok(())
    })
}
