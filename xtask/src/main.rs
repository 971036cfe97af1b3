//! `cargo xtask …`: what a developer of Redbutton types. `test` runs everything, `lint` what needs no
//! privilege, `bench` measures, `demo` tells the story on this machine's real kernel.
//!
//! Map: one module for each subcommand ([`mod@test`], [`lint`], [`mod@bench`], [`demo`]; incidents and soaks are both
//! [`replay`]); [`isolate`] runs one command where it cannot reach the machine; [`tools`] installs what is missing;
//! [`workspace`] knows where things lie.
//! It depends on none of our crates and on no runtime: it must build in seconds, before anything else does.

mod bench;
mod cgroup;
mod demo;
mod isolate;
mod lab;
mod lint;
mod package;
mod replay;
mod run;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Exit code when something needs root and we are not: what automake and meson call "skipped".
pub(crate) const NEEDS_ROOT: u8 = 77;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Build, test, measure and show Redbutton",
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run lint, every test, a bounded fuzz run and the demo; privileged parts run isolated from this machine
    Test(test::Arguments),
    /// Check formatting, clippy, documentation, licences, who depends on whom; list every failure at the end
    Lint,
    /// Measure one thing against its peer and print one last line `NAME: key=value …`
    Bench(bench::Arguments),
    /// Replay incidents of PlanetLab's first months: what each fault does, and what Redbutton does about it
    Incidents(replay::IncidentsArguments),
    /// Break things for hours and check that nothing was forgotten; the log goes to docs/soak
    Soak(replay::SoakArguments),
    /// Watch a runaway slice being killed: a controller and three nodes on this machine's own cgroups
    Demo(demo::Arguments),
    /// Nodes to play with and to break: real kernels in guests, out of this machine's reach
    Lab(lab::Arguments),
    /// Make Debian packages of what runs in a fleet, in target/debian
    Package(package::Arguments),
    /// Run any command isolated from this machine, as `test` runs the tests; fails when it leaves something behind
    Isolate(isolate::Arguments),
    /// First half of the isolation: leaves the namespaces of this machine (see `isolate`)
    #[command(hide = true)]
    IsolateOuter(isolate::OuterArguments),
    /// Second half of the isolation: process 1 of the new namespaces
    #[command(hide = true)]
    IsolateInit(isolate::InitArguments),
    /// Runs a command as it is, for who may not isolate
    #[command(hide = true)]
    IsolatePlain(isolate::PlainArguments),
    /// Runs the lab until it is told to end
    #[command(hide = true)]
    LabKeeper(lab::KeeperArguments),
    /// The story itself, inside the isolation
    #[command(hide = true)]
    DemoStory(demo::StoryArguments),
}

fn dispatch(command: &Command) -> Result<u8> {
    match command {
        Command::Test(arguments) => test::main(arguments),
        Command::Lint => lint::main(),
        Command::Bench(arguments) => bench::main(arguments),
        Command::Incidents(arguments) => replay::incidents(arguments),
        Command::Soak(arguments) => replay::soak(arguments),
        Command::Demo(arguments) => demo::main(arguments),
        Command::Package(arguments) => package::main(arguments),
        Command::Lab(arguments) => lab::main(arguments),
        Command::LabKeeper(arguments) => lab::keep(arguments),
        Command::Isolate(arguments) => isolate::main(arguments),
        Command::IsolateOuter(arguments) => isolate::outer(arguments),
        Command::IsolateInit(arguments) => isolate::init(arguments),
        Command::IsolatePlain(arguments) => isolate::plain(arguments),
        Command::DemoStory(arguments) => demo::story(arguments),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(&arguments.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let needs_root = error.downcast_ref::<isolate::NeedsRoot>().is_some();
            eprintln!("cargo xtask: {error:#}");
            ExitCode::from(if needs_root { NEEDS_ROOT } else { 1 })
        }
    }
}
