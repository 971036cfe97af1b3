//! `cargo xtask demo`: the story of a runaway slice, told with the real programs on this machine's real cgroups.
//!
//! It plays inside the isolation of [`crate::isolate`], where the default ports are free and nothing can stay
//! behind, Ctrl-C or not. [`stage`] shows what a person types and what the programs answer, and insists on the exit
//! code; [`cast`] has the daemons and the slivers; [`script`] is the story. Every claim it tells is checked: a demo
//! that went otherwise fails, and `cargo xtask test` plays it too.

mod cast;
mod script;
mod stage;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::isolate::{self, Ended, Job, NeedsRoot};
use crate::run;
use crate::workspace::{Workspace, cargo};

/// Far more than it takes; a hung story must end.
const CAP: Duration = Duration::from_secs(180);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Without colours, for logs
    #[arg(long)]
    ci: bool,
}

#[derive(clap::Args)]
pub(crate) struct StoryArguments {
    /// Where the programs are
    #[arg(long)]
    programs: PathBuf,
    #[arg(long)]
    colour: bool,
}

/// The subcommand.
pub(crate) fn main(arguments: &Arguments) -> Result<u8> {
    let colour = !arguments.ci && std::env::var_os("NO_COLOR").is_none() && std::io::stdout().is_terminal();
    must_be_root()?;
    play(&Workspace::read()?, colour, &mut |line| println!("{line}"))?;
    Ok(0)
}

/// The demo as a test: plain.
pub(crate) fn check(workspace: &Workspace, on_line: &mut dyn FnMut(&str)) -> Result<()> {
    must_be_root()?;
    play(workspace, false, on_line)
}

fn must_be_root() -> Result<()> {
    if !isolate::is_root() {
        return Err(NeedsRoot("the demo kills in real cgroups; run: sudo -E cargo xtask demo".into()).into());
    }
    Ok(())
}

fn play(workspace: &Workspace, colour: bool, on_line: &mut dyn FnMut(&str)) -> Result<()> {
    if crate::cgroup::mount()?.is_none() {
        bail!("no cgroup v2 is mounted here; as root: mount -t cgroup2 none /sys/fs/cgroup/unified");
    }
    // With one test among the targets cargo counts dev-dependencies in when it unifies features: so these are the very
    // programs that `cargo xtask test` builds, and nothing is compiled twice.
    let mut build = cargo();
    build.args(["build", "--workspace", "--quiet", "--test", "isolation"]);
    for program in ["redbutton", "redbutton-controller", "redbutton-nodemgr"] {
        build.args(["--bin", program]);
    }
    run::loudly(&mut build)?;
    let mut command = vec![
        isolate::OURSELVES.into(),
        "demo-story".into(),
        "--programs".into(),
        workspace.target.join("debug").into(),
    ];
    if colour {
        command.push("--colour".into());
    }
    let job = Job {
        command,
        folder: workspace.root.clone(),
        environment: vec![],
        cap: CAP,
    };
    let finished = isolate::run(&job, on_line)?;
    if let Ended::Interrupted(signal) = finished.ended {
        bail!("interrupted by signal {signal}; every process, cgroup and file of the demo is gone");
    }
    if !finished.is_clean() {
        bail!("the demo did not go as told: {}", finished.complaint());
    }
    Ok(())
}

/// The story itself, inside.
pub(crate) fn story(arguments: &StoryArguments) -> Result<u8> {
    script::play(stage::Stage::new(&arguments.programs, arguments.colour))?;
    Ok(0)
}
