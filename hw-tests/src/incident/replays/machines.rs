//! What replays on lab nodes have in common: a lab whose consoles, packets and journals are kept when a replay fails,
//! what people see of a node from outside, and a neighbour: a slice with a web server that does nobody any harm.
//!
//! The web server must fork for each page and open a file for it, as ordinary work does: its pages say whether a
//! neighbour can work, and are asked for over the network, so that they need nothing of a node that has run dry.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::console::{Offset, Output};
use serde_json::Value;

use super::all_came_to;
use crate::fleet::wait_for;
use crate::incident::{Need, Story};
use crate::lab::fault::Fault;
use crate::lab::{CAP, Lab, Spec};

/// A lab with small nodes.
pub(super) const NEEDS: &[Need] = &[Need::LAB];
/// The slice that is to blame.
pub(super) const GUILTY: &str = "princeton_runaway";
/// Its neighbour.
pub(super) const QUIET: &str = "princeton_quiet";
/// The node, where there is one.
pub(super) const NODE: &str = "planet1";
/// What the shell at its console says when it listens.
pub(super) const PROMPT: &str = "planet1:";
/// How long anybody tries to log in before they call a node dead.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for a page; a good one takes a hundredth of it.
const PAGE_PATIENCE: Duration = Duration::from_secs(2);
/// Where the neighbour's pages are.
const PORT: u16 = 8080;

/// A lab for one run. When the run fails, everything that there is to see is kept and shown.
pub(super) fn in_lab(
    story: &mut Story,
    sites: &[&str],
    body: impl FnOnce(&mut Story, &mut Lab) -> Result<()>,
) -> Result<()> {
    let mut lab = Lab::start(sites)?;
    for slice in [GUILTY, QUIET] {
        lab.fleet.slice(slice)?;
    }
    let ended = catch_unwind(AssertUnwindSafe(|| body(story, &mut lab)));
    if !matches!(ended, Ok(Ok(()))) {
        keep(story, &lab);
    }
    ended.unwrap_or_else(|panic| {
        drop(lab);
        resume_unwind(panic)
    })
}

/// Whatever can still be had: what fails is less than what failed before.
fn keep(story: &mut Story, lab: &Lab) {
    match lab.artefacts() {
        Ok(artefacts) => artefacts.into_iter().for_each(|(_, path)| story.keep(path)),
        Err(error) => story.tell("the lab", &format!("cannot keep all of it: {error:#}")),
    }
    for node in lab.nodes() {
        println!("--- console of {}\n{}", node.name(), node.console().tail(50));
        let name = format!("{}.nodemgr.log", node.name());
        match node.run("cat /var/log/nodemgr") {
            Ok(said) => story.keep_made(&name, move || Ok(said.text.clone().into_bytes())),
            Err(_) => story.tell(node.name(), "does not give its journal any more"),
        }
    }
}

/// A lab with one small node, ready.
pub(super) fn with_node(story: &mut Story, body: impl FnOnce(&mut Story, &Lab) -> Result<()>) -> Result<()> {
    with_this_node(story, &Spec::small(NODE, "princeton"), body)
}

/// A lab with one node, ready.
pub(super) fn with_this_node(
    story: &mut Story,
    spec: &Spec,
    body: impl FnOnce(&mut Story, &Lab) -> Result<()>,
) -> Result<()> {
    in_lab(story, &["princeton"], |story, lab| {
        let index = lab.add(spec)?;
        lab.ready(index)?;
        ensure!(
            lab.can_log_in(0, crate::lab::CAP)?,
            "nobody could log in before the fault"
        );
        story.tell(NODE, "is up, and people can log in");
        body(story, lab)
    })
}

/// Whether people can log in to a node, as they would find out.
pub(super) fn lets_in(lab: &Lab, index: usize) -> Result<bool> {
    lab.can_log_in(index, PATIENCE)
}

/// Checks that the kernel of a node answers.
pub(super) fn pings(lab: &Lab, index: usize) -> Result<()> {
    wait_for("the answer to a ping", || lab.pings(index, 1).ok()?.then_some(()))
}

/// Waits until nobody can log in any more while the kernel still answers: the paper's “pingable but not sshable”.
/// That must stay so for as many attempts.
pub(super) fn shuts_out(story: &mut Story, lab: &Lab, index: usize, attempts: u32) -> Result<()> {
    wait_for("a node that lets nobody in", || {
        lets_in(lab, index).is_ok_and(|inside| !inside).then_some(())
    })?;
    for attempt in 1..=attempts {
        pings(lab, index)?;
        ensure!(
            !lets_in(lab, index)?,
            "it recovered by itself, at attempt {attempt}"
        );
    }
    story.tell(
        lab.at(index).name(),
        &format!("pings, and lets nobody in, {attempts} times"),
    );
    Ok(())
}

/// Breaks node 0, and checks that its next boot stops at a line of its console. Returns where that line ends.
pub(super) fn stops_at(story: &mut Story, lab: &Lab, fault: Fault, line: &str) -> Result<Offset> {
    let node = lab.at(0);
    let since = node.console().mark();
    story.tell("the fault", &fault.commit(lab, 0, GUILTY)?);
    let line = node.console().wait_for(since, line, CAP)?;
    story.tell("the console", &format!("says: {}", line.text));
    lab.fleet.away(NODE)?;
    ensure!(!lets_in(lab, 0)?, "it went on booting");
    story.tell(NODE, "lets nobody in, is away for the controller");
    Ok(line.end)
}

/// Checks that node 0, which stopped at this line, stops there again after its power was cycled.
pub(super) fn power_does_not_help(story: &mut Story, lab: &Lab, line: &str) -> Result<()> {
    let node = lab.at(0);
    let since = node.console().mark();
    story.tell("somebody", "cycles its power");
    node.guest().power_off()?;
    node.guest().power_on()?;
    node.console().wait_for(since, line, CAP)?;
    ensure!(!lets_in(lab, 0)?, "power helped");
    story.tell(NODE, "stops at the same line");
    Ok(())
}

/// Presses the button on [`GUILTY`] and checks that it was killed, proven, on the one node. Returns the order.
pub(super) fn press(story: &mut Story, lab: &Lab, reason: &str) -> Result<Value> {
    let (code, order) = story.types(&lab.fleet, "alice", &["kill-slice", GUILTY, "--reason", reason])?;
    ensure!(code == 0, "exit code {code}: {order}");
    all_came_to(&order, "killed", 1)?;
    Ok(order)
}

/// Presses the button while the node is away: the order says so and waits.
pub(super) fn press_in_vain(story: &mut Story, lab: &Lab, reason: &str) -> Result<()> {
    let words = ["kill-slice", GUILTY, "--reason", reason, "--wait", "1"];
    let (code, order) = story.types(&lab.fleet, "alice", &words)?;
    ensure!(
        code == 2 && order["nodes"][0]["outcome"] == "offline",
        "exit code {code}: {order}"
    );
    story.tell("the order", "says that the node is offline, and waits");
    Ok(())
}

/// Waits until a node whose disk does not know the hold knows it again. What it let start before is told.
pub(super) fn learns(story: &mut Story, lab: &Lab, index: usize) -> Result<()> {
    let mut accepted = 0;
    wait_for("the hold on the node", || {
        let said = tries(lab, index, GUILTY).ok()?;
        accepted += u32::from(said.status == 0);
        (said.status == 5).then_some(())
    })?;
    story.fact("starts that it took before the controller had told it", accepted);
    Ok(())
}

/// Somebody on the node starts a sliver.
fn tries(lab: &Lab, index: usize, slice: &str) -> Result<Output> {
    lab.at(index)
        .run(&format!("redbutton-nodemgr exec {slice} -- /bin/true"))
}

/// Checks that a node which is back refuses the killed slice, for that reason, and takes its neighbour.
pub(super) fn obeys(story: &mut Story, lab: &Lab, index: usize, reason: &str) -> Result<()> {
    let node = lab.at(index);
    let said = tries(lab, index, GUILTY)?;
    ensure!(
        said.status == 5 && said.text.contains(reason),
        "exit code {}: {}",
        said.status,
        said.text
    );
    let said = tries(lab, index, QUIET)?;
    ensure!(said.status == 0, "{QUIET} is refused too: {}", said.text);
    story.tell(
        node.name(),
        "is back, refuses the killed slice and starts its neighbour",
    );
    Ok(())
}

/// [`QUIET`] on a node: a web server.
pub(super) struct Neighbour<'a> {
    lab: &'a Lab,
    index: usize,
    process: String,
}

impl<'a> Neighbour<'a> {
    pub(super) fn start(story: &mut Story, lab: &'a Lab, index: usize) -> Result<Self> {
        let node = lab.at(index);
        node.exec(QUIET, &format!("httpd -f -p {PORT} -h /etc"))?;
        let mut neighbour = Self {
            lab,
            index,
            process: String::new(),
        };
        wait_for("the neighbour's first page", || neighbour.works().then_some(()))?;
        neighbour.process = wait_for("the neighbour alone", || neighbour.server().ok())?;
        story.tell(QUIET, "serves pages");
        Ok(neighbour)
    }

    /// The process, alone while no page is asked for.
    fn server(&self) -> Result<String> {
        let node = self.lab.at(self.index);
        let id = node.must("pidof httpd")?.trim().to_owned();
        // Its begin too: a number may be given again.
        let begin = node.must(&format!("cut -d ' ' -f 22 /proc/{id}/stat"))?;
        Ok(format!("{id} since {}", begin.trim()))
    }

    /// Whether somebody gets a page.
    pub(super) fn works(&self) -> bool {
        self.page().is_ok_and(|page| page.contains("localhost"))
    }

    fn page(&self) -> Result<String> {
        let address = SocketAddr::from((self.lab.at(self.index).ip(), PORT));
        self.lab.net().enter(|| {
            let mut stream = TcpStream::connect_timeout(&address, PAGE_PATIENCE)?;
            stream.set_read_timeout(Some(PAGE_PATIENCE))?;
            stream.write_all(b"GET /hosts HTTP/1.0\r\n\r\n")?;
            let mut page = String::new();
            stream.read_to_string(&mut page)?;
            Ok(page)
        })?
    }

    /// Waits until nobody gets a page, again and again.
    pub(super) fn starves(&self, story: &mut Story) -> Result<()> {
        wait_for("a neighbour that cannot work", || (!self.works()).then_some(()))?;
        ensure!(!self.works(), "the neighbour works again");
        story.tell(QUIET, "gives nobody a page any more, twice");
        Ok(())
    }

    /// Waits until pages come again, from the same process as ever.
    pub(super) fn goes_on(&self, story: &mut Story) -> Result<()> {
        wait_for("the neighbour's next page", || self.works().then_some(()))?;
        // The child that served it may take a moment to be gone.
        wait_for("the neighbour as it was", || {
            (self.server().ok()? == self.process).then_some(())
        })?;
        story.tell(QUIET, "serves pages again, the same process as before");
        Ok(())
    }
}
