//! 10: a slice has more busy loops than its node has processors.
//!
//! Work is counted, not timed: processor time that each of two slices had, out of so much that both had together. One
//! has a loop, the other eight. In slivers each is worth the same; outside each loop is.

use anyhow::{Context, Result, ensure};

use super::machines::{GUILTY, NEEDS, NODE, QUIET, press, with_node};
use crate::fleet::wait_for;
use crate::incident::{Ask, Incident, Story};
use crate::lab::{Lab, Node};

const SHARE: &str = "other slivers keep their CPU share";
const ANSWERS: &str = "agent answers";
const LOOPS: u32 = 8;
/// Microseconds of both together that are judged.
const ENOUGH: u64 = 4_000_000;

pub(super) const INCIDENT: Incident = Incident {
    number: 10,
    name: "eating_cycles",
    title: "eating cycles",
    date: "6 Jan 2003",
    needs: NEEDS,
    asks: &[Ask::shown(SHARE), Ask::shown(ANSWERS)],
    unprotected,
    protected,
};

fn hog(loops: u32) -> String {
    format!("lab-hog cpu {loops} 3600")
}

/// Microseconds of processor time that the neighbour and the greedy one have had.
type Used = (u64, u64);

/// The neighbour's part of what both get from now on, in percent.
fn share(story: &mut Story, used: impl Fn() -> Result<Used>) -> Result<u64> {
    let (quiet, greedy) = used()?;
    let (quiet, greedy) = wait_for("work of both", || {
        let (now_quiet, now_greedy) = used().ok()?;
        let spent = (now_quiet - quiet, now_greedy - greedy);
        (spent.0 + spent.1 >= ENOUGH).then_some(spent)
    })?;
    let percent = quiet * 100 / (quiet + greedy);
    story.fact("ms of work done by the neighbour", quiet / 1000);
    story.fact("ms of work done by the greedy one", greedy / 1000);
    story.fact("percent that the neighbour got, of 50 that are fair", percent);
    Ok(percent)
}

/// From `cpu.stat` of their slivers.
fn of_slices(node: &Node) -> Result<Used> {
    let text = node.must(&format!(
        "cd /sys/fs/cgroup/redbutton.slice; cat {QUIET}/cpu.stat {GUILTY}/cpu.stat"
    ))?;
    let mut used = text.lines().filter_map(|line| line.strip_prefix("usage_usec "));
    let mut next = || {
        used.next()
            .context("no usage_usec")?
            .parse()
            .context("usage_usec")
    };
    Ok((next()?, next()?))
}

/// From `/proc` of their processes: clock ticks, 100 of them in a second.
fn of_processes(node: &Node, ids: &[String; 2]) -> Result<Used> {
    let [quiet, greedy] = ids;
    let text = node.must(&format!(
        "for id in {quiet} {greedy}; do cut -d ' ' -f 14,15 /proc/$id/stat; done"
    ))?;
    let ticks = |line: Option<&str>| -> Result<u64> {
        let words = line.context("no such process")?.split_whitespace();
        words
            .map(|word| word.parse::<u64>().context("ticks"))
            .sum::<Result<u64>>()
            .map(|ticks| ticks * 10_000)
    };
    let mut lines = text.lines();
    Ok((ticks(lines.next())?, ticks(lines.next())?))
}

fn unprotected(story: &mut Story) -> Result<()> {
    with_node(story, |story, lab| {
        let node = lab.at(0);
        let begun = |loops| -> Result<String> {
            let text = node.must(&format!("{} >/dev/null 2>&1 & echo $!", hog(loops)))?;
            Ok(text.trim().to_owned())
        };
        let ids = [begun(1)?, begun(LOOPS)?];
        story.tell(
            "two programs",
            &format!("with 1 and {LOOPS} loops run outside of slivers"),
        );
        let percent = share(story, || of_processes(node, &ids))?;
        ensure!(percent <= 20, "the neighbour got {percent} %: no harm was done");
        Ok(())
    })
}

fn protected(story: &mut Story) -> Result<()> {
    with_node(story, |story, lab| {
        let node = lab.at(0);
        node.exec(QUIET, &hog(1))?;
        node.exec(GUILTY, &hog(LOOPS))?;
        story.tell(
            "the same programs",
            &format!("run as {QUIET} and {GUILTY} on {NODE}"),
        );
        let percent = share(story, || of_slices(node))?;
        ensure!(percent >= 40, "the neighbour got {percent} %");
        story.shows(SHARE);
        answers(story, lab)?;
        story.shows(ANSWERS);
        Ok(())
    })
}

/// While both are busy, the agent says what runs, and kills the one and not the other.
fn answers(story: &mut Story, lab: &Lab) -> Result<()> {
    for slice in [QUIET, GUILTY] {
        let words = ["node", "ps", NODE, "--slice", slice];
        let (code, listed) = story.types(&lab.fleet, "alice", &words)?;
        let processes = listed["processes"].as_array().map_or(0, Vec::len);
        ensure!((code, processes) == (0, 1), "exit code {code}: {listed}");
    }
    press(story, lab, "eats cycles")?;
    let node = lab.at(0);
    let alive = (node.processes(QUIET)?, node.processes(GUILTY)?);
    ensure!(alive == (1, 0), "processes of {QUIET} and {GUILTY}: {alive:?}");
    story.tell("the agent", "lists both, and kills the greedy one alone");
    Ok(())
}
