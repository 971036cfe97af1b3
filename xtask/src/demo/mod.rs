//! `cargo xtask demo`: the story of a runaway slice, told with the real programs on this machine's real cgroups.
//!
//! It plays inside the isolation of [`crate::isolate`], where the default ports are free and nothing can stay
//! behind, Ctrl-C or not. [`stage`] shows what a person types and what the programs answer, and insists on the exit
//! code; [`cast`] has the daemons and the slivers; [`script`] is the story. Every claim it tells is checked: a demo
//! that went otherwise fails, and `cargo xtask test` plays it too.

mod cast;
mod script;
mod stage;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::isolate::{self, Ended, Job, NeedsRoot};
use crate::lab;
use crate::workspace::{Workspace, build_programs};

/// Far more than it takes; a hung story must end.
const CAP: Duration = Duration::from_secs(180);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Without colours, for logs
    #[arg(long)]
    ci: bool,
    /// The same on three machines with kernels of their own: fork bombs, a node too starved to answer, a power cycle
    #[arg(long)]
    lab: bool,
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
    let workspace = Workspace::read()?;
    let mut show = |line: &str| println!("{line}");
    if arguments.lab {
        lab::images(&workspace, false)?;
        play_in_lab(&workspace, &mut show)?;
    } else {
        play(&workspace, colour, &mut show)?;
    }
    Ok(0)
}

/// The story on machines with kernels of their own, as a test.
pub(crate) fn check_in_lab(workspace: &Workspace, on_line: &mut dyn FnMut(&str)) -> Result<()> {
    must_be_root()?;
    play_in_lab(workspace, on_line)
}

fn play_in_lab(workspace: &Workspace, on_line: &mut dyn FnMut(&str)) -> Result<()> {
    build_programs(lab::PROGRAMS)?;
    let command = vec![workspace.target.join("debug/redbutton-lab").into(), "demo".into()];
    run_isolated(workspace, command, on_line)
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
    build_programs(&["redbutton", "redbutton-controller", "redbutton-nodemgr"])?;
    let mut command = vec![
        isolate::OURSELVES.into(),
        "demo-story".into(),
        "--programs".into(),
        workspace.target.join("debug").into(),
    ];
    if colour {
        command.push("--colour".into());
    }
    run_isolated(workspace, command, on_line)
}

fn run_isolated(workspace: &Workspace, command: Vec<OsString>, on_line: &mut dyn FnMut(&str)) -> Result<()> {
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
    if finished.ended == Ended::Exited(i32::from(crate::NEEDS_ROOT)) {
        return Err(NeedsRoot("this machine cannot play it; the line above says why".into()).into());
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
