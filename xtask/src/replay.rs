//! `cargo xtask incidents [NUMBER…]` and `cargo xtask soak NAME`: programs of `redbutton-hw-tests` that replay what went
//! wrong on PlanetLab, and that break things for hours. Both run isolated from this machine.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::isolate::{self, Ended, Finished, Job, NeedsRoot};
use crate::workspace::{Workspace, cargo};
use crate::{bench, run};

/// What there is to soak: `soak-NAME` of `redbutton-hw-tests`.
const SOAKS: &[&str] = &["kill"];

/// How the closing line of `incidents` begins.
const CLOSING: &str = "incidents: ";

#[derive(clap::Args)]
pub(crate) struct IncidentsArguments {
    /// Numbers of incidents as the list gives them; all that can be replayed when there is none
    numbers: Vec<u8>,
    /// Say what there is, what it asks for and what it needs, and run nothing
    #[arg(long)]
    list: bool,
    /// Minutes after which everything is killed
    #[arg(long, default_value_t = 60)]
    cap_minutes: u64,
}

#[derive(clap::Args)]
pub(crate) struct SoakArguments {
    /// kill
    name: String,
    /// Hours after which everything is killed
    #[arg(long, default_value_t = 24)]
    hours: u64,
    /// Handed to the program as it is, as `--minutes 10`
    #[arg(last = true)]
    options: Vec<String>,
}

/// Builds the programs of `redbutton-hw-tests` and those that they start, from the folder that they are in themselves.
pub(crate) fn build(release: bool) -> Result<()> {
    let packages = [
        "redbutton-hw-tests",
        "redbutton-cli",
        "redbutton-controller",
        "redbutton-nodemgr",
    ];
    let mut build = cargo();
    build.args(["build", "--bins"]);
    if release {
        build.arg("--release");
    }
    run::loudly(build.args(packages.iter().flat_map(|package| ["--package", package])))
}

/// The subcommand `incidents`. Debug builds: crash points exist in those alone.
pub(crate) fn incidents(arguments: &IncidentsArguments) -> Result<u8> {
    let workspace = Workspace::read()?;
    build(false)?;
    let mut command = vec![workspace.target.join("debug/incidents").into()];
    command.extend(arguments.numbers.iter().map(|number| number.to_string().into()));
    if arguments.list {
        command.push("--list".into());
    }
    let mut last = String::new();
    let job = Job {
        command,
        folder: workspace.root,
        environment: vec![],
        cap: Duration::from_secs(60 * arguments.cap_minutes),
    };
    let finished = isolate::run(&job, &mut |line| {
        println!("{line}");
        line.clone_into(&mut last);
    })?;
    uninterrupted(&finished)?;
    match finished.ended {
        // It has said itself which failed, or what is wrong with its arguments.
        Ended::Exited(code @ (1 | 64)) if finished.left_behind.is_empty() => {
            return Ok(u8::try_from(code).unwrap_or(1));
        }
        _ if !finished.is_clean() => bail!("incidents: {}", finished.complaint()),
        _ => {}
    }
    if !arguments.list && !last.starts_with(CLOSING) {
        bail!("the last line must start with {CLOSING:?}, it is {last:?}");
    }
    Ok(0)
}

/// The subcommand `soak`. Debug builds here, too: assertions are in those alone.
pub(crate) fn soak(arguments: &SoakArguments) -> Result<u8> {
    let name = arguments.name.as_str();
    if !SOAKS.contains(&name) {
        bail!("no soak is called {name:?}; there are {}", SOAKS.join(", "));
    }
    if !isolate::is_root() {
        return Err(NeedsRoot(format!(
            "it kills in cgroups; run: sudo -E cargo xtask soak {name}"
        ))
        .into());
    }
    let workspace = Workspace::read()?;
    build(false)?;
    let path = workspace
        .root
        .join(format!("docs/soak/{name}-{}.log", bench::today()));
    let mut log = begin(&path, &workspace.root, arguments)?;
    let mut command = vec![workspace.target.join(format!("debug/soak-{name}")).into()];
    command.extend(arguments.options.iter().map(Into::into));
    let job = Job {
        command,
        folder: workspace.root,
        environment: vec![],
        cap: Duration::from_secs(60 * 60 * arguments.hours),
    };
    let mut lost = None;
    let mut say = |line: &str| {
        println!("{line}");
        if let Err(error) = writeln!(log, "{line}") {
            lost.get_or_insert(error);
        }
    };
    let finished = isolate::run(&job, &mut say)?;
    say(&match finished.complaint() {
        complaint if complaint.is_empty() => "soak: ended well, nothing left behind".to_owned(),
        complaint => format!("soak: {complaint}"),
    });
    if let Some(error) = lost {
        bail!("{} is incomplete: {error}", path.display());
    }
    println!("log: {}", path.display());
    uninterrupted(&finished)?;
    Ok(u8::from(!finished.is_clean()))
}

/// A new log that says where it comes from. That of an earlier run of the same day is replaced.
fn begin(path: &Path, root: &Path, arguments: &SoakArguments) -> Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let commit = bench::commit(root);
    let mut log = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    writeln!(
        log,
        "# soak {} {}\n# commit {commit}, {}",
        arguments.name,
        arguments.options.join(" "),
        bench::machine()
    )?;
    Ok(log)
}

fn uninterrupted(finished: &Finished) -> Result<()> {
    match finished.ended {
        Ended::Interrupted(signal) => {
            bail!("interrupted by signal {signal}; everything was killed and removed")
        }
        _ => Ok(()),
    }
}
