//! `cargo xtask test`: install, build, lint, then every test isolated from this machine, a bounded fuzz run and
//! the demo. Runs on after a failure and lists what failed at the end.
//!
//! It is plain `cargo test` inside: on every machine with Rust, doc tests included (docs/adr/0005).

mod tally;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::isolate::{self, Ended, Job};
use crate::workspace::{Workspace, cargo};
use crate::{demo, lab, lint, package, run, tools};
use tally::Tally;

/// Tests that hammer a parser with made-up input carry this in their name; the fuzz run repeats them with more cases.
const FUZZED: &str = "never_panics";

/// The package whose tests start the programs of others.
const LAB: &str = "redbutton-hw-tests";

/// The packages whose tests start guests.
const LABS: &[&str] = &[LAB, "redbutton-lab"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only tests whose name contains one of these; lint, fuzz run and demo are left out
    filters: Vec<String>,
    /// Only these packages; lint, fuzz run and demo are left out
    #[arg(short, long = "package")]
    packages: Vec<String>,
    /// Cases for each property test of the fuzz run
    #[arg(long, default_value_t = 2000, env = "REDBUTTON_FUZZ_CASES")]
    fuzz_cases: u32,
    /// Minutes after which a test run is killed
    #[arg(long, default_value_t = 40)]
    cap_minutes: u64,
}

impl Arguments {
    fn is_everything(&self) -> bool {
        self.filters.is_empty() && self.packages.is_empty()
    }

    /// Whether guests may be started.
    fn needs_lab(&self) -> bool {
        self.packages.is_empty()
            || self
                .packages
                .iter()
                .any(|package| LABS.contains(&package.as_str()))
    }

    fn selection(&self) -> Vec<String> {
        match self.packages.as_slice() {
            [] => vec!["--workspace".into()],
            packages => packages
                .iter()
                .flat_map(|package| ["--package".into(), package.clone()])
                .collect(),
        }
    }
}

/// The subcommand.
pub(crate) fn main(arguments: &Arguments) -> Result<u8> {
    let workspace = Workspace::read()?;
    let mut failures = Vec::new();
    let mut times = Vec::new();
    let mut timed = |what: &str, started: Instant| times.push((what.to_owned(), started.elapsed()));

    let started = Instant::now();
    let python = tools::python_with_grpc(&workspace)?;
    timed("install", started);

    let started = Instant::now();
    let owners = build(&workspace, arguments)?;
    timed("build", started);

    // Elsewhere the tests of the lab say themselves what they miss.
    if isolate::is_root() && arguments.needs_lab() && tools::has_apt() {
        let started = Instant::now();
        let made = lab::images(&workspace, true).and_then(|()| package::build(&workspace, true).map(drop));
        if let Err(error) = made {
            failures.push(format!("the lab's guests: {error:#}"));
        }
        timed("lab images", started);
    }

    if arguments.is_everything() {
        let started = Instant::now();
        failures.extend(
            lint::run(&workspace)
                .into_iter()
                .map(|failure| format!("lint: {failure}")),
        );
        timed("lint", started);
    }
    if !isolate::is_root() {
        println!(
            "not root: nothing is isolated, tests that need root are skipped. All of it: sudo -E cargo xtask test"
        );
    }

    let mut tally = Tally::new(owners);
    let session = Session {
        workspace: &workspace,
        python: &python,
        cap: Duration::from_secs(60 * arguments.cap_minutes),
    };
    let mut command = cargo_test(arguments);
    command.extend(["--".into(), "--show-output".into()]);
    command.extend(arguments.filters.iter().map(OsString::from));
    let started = Instant::now();
    failures.extend(session.run("tests", command, vec![], &mut tally)?);
    timed("tests", started);

    if arguments.is_everything() {
        let started = Instant::now();
        let mut command = cargo_test(arguments);
        command.extend(["--lib", "--bins", "--tests", "--", "--show-output", FUZZED].map(OsString::from));
        let cases = ("PROPTEST_CASES".into(), arguments.fuzz_cases.to_string().into());
        failures.extend(session.run("fuzz", command, vec![cases], &mut tally)?);
        timed("fuzz run", started);

        type Demo = fn(&Workspace, &mut dyn FnMut(&str)) -> Result<()>;
        let demos: [(&str, Demo); 2] = [("demo", demo::check), ("demo --lab", demo::check_in_lab)];
        for (name, check) in demos {
            let started = Instant::now();
            match check(&workspace, &mut |line| println!("{line}")) {
                Ok(()) => tally.passed += 1,
                Err(error) if error.downcast_ref::<isolate::NeedsRoot>().is_some() => {
                    tally.skip(name, &format!("{error:#}"));
                }
                Err(error) => {
                    tally.failed += 1;
                    failures.push(format!("{name}: {error:#}"));
                }
            }
            timed(name, started);
        }
    }
    Ok(summary(&tally, &times, &failures))
}

fn cargo_test(arguments: &Arguments) -> Vec<OsString> {
    let mut command = vec![
        cargo().get_program().to_owned(),
        "test".into(),
        "--no-fail-fast".into(),
        "--offline".into(),
    ];
    command.extend(arguments.selection().into_iter().map(OsString::from));
    command
}

/// Builds every test and program while the network is there. Returns which package each test binary belongs to.
fn build(workspace: &Workspace, arguments: &Arguments) -> Result<HashMap<String, String>> {
    #[derive(Deserialize)]
    struct Message {
        reason: String,
        package_id: Option<String>,
        executable: Option<String>,
    }
    // Tests of a package find its own programs; those of the lab start everybody's.
    if arguments.packages.is_empty() || arguments.packages.iter().any(|package| package == LAB) {
        run::loudly(cargo().args(["build", "--workspace", "--all-targets", "--quiet"]))?;
    }
    let output = cargo()
        .args([
            "test",
            "--no-run",
            "--quiet",
            "--message-format=json-render-diagnostics",
        ])
        .args(arguments.selection())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo test --no-run")?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    let mut owners = HashMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Message =
            serde_json::from_str(line).with_context(|| format!("cargo printed {line:?}"))?;
        if message.reason != "compiler-artifact" {
            continue;
        }
        if let (Some(id), Some(executable)) = (message.package_id, message.executable)
            && let Some(package) = workspace.packages.iter().find(|package| package.id == id)
            && let Some(file) = Path::new(&executable).file_name()
        {
            owners.insert(file.to_string_lossy().into_owned(), package.name.clone());
        }
    }
    Ok(owners)
}

/// What all isolated runs of one `cargo xtask test` share.
struct Session<'a> {
    workspace: &'a Workspace,
    python: &'a Path,
    cap: Duration,
}

impl Session<'_> {
    /// One isolated run, shown and kept in `target/test-logs`; returns its complaint, if any.
    fn run(
        &self,
        name: &str,
        command: Vec<OsString>,
        mut environment: Vec<(String, OsString)>,
        tally: &mut Tally,
    ) -> Result<Option<String>> {
        let folder = self.workspace.logs();
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("{name}.log"));
        let mut log =
            BufWriter::new(File::create(&path).with_context(|| format!("cannot make {}", path.display()))?);
        environment.extend([
            ("CARGO_NET_OFFLINE".into(), "true".into()),
            ("RUST_BACKTRACE".into(), "1".into()),
            ("REDBUTTON_PYTHON".into(), self.python.into()),
            (
                "REDBUTTON_BIN_DIR".into(),
                self.workspace.target.join("debug").into(),
            ),
        ]);
        environment.extend(lab::environment(self.workspace));
        println!("── {name}: isolated, everything is kept in {}", path.display());
        let job = Job {
            command,
            folder: self.workspace.root.clone(),
            environment,
            cap: self.cap,
        };
        let failed_before = tally.failed;
        let mut log_error = None;
        let finished = isolate::run(&job, &mut |line| {
            if let Err(error) = writeln!(log, "{line}") {
                log_error.get_or_insert(error);
            }
            if tally.feed(line) {
                println!("{line}");
            }
        })?;
        tally.finish_binary();
        if let Some(error) = log_error.or_else(|| log.flush().err()) {
            println!("{} is incomplete: {error}", path.display());
        }
        if let Ended::Interrupted(signal) = finished.ended {
            bail!("interrupted by signal {signal}; everything was killed and removed");
        }
        if finished.is_clean() {
            return Ok(None);
        }
        // A binary that died, a leak, the cap: no test said that it failed, yet something did.
        if tally.failed == failed_before {
            tally.failed += 1;
        }
        let last = tally
            .running()
            .map_or(String::new(), |binary| format!(" (last seen in {binary})"));
        Ok(Some(format!("{name}: {}{last}", finished.complaint())))
    }
}

fn summary(tally: &Tally, times: &[(String, Duration)], failures: &[String]) -> u8 {
    println!("── time by step");
    for (what, time) in times {
        println!("  {:>12}  {what}", run::duration(*time));
    }
    println!("── test time by package");
    for (package, time) in tally.by_package() {
        println!("  {:>12}  {package}", run::duration(time));
    }
    for (what, tests) in [("partial", &tally.partial), ("skipped", &tally.skipped)] {
        if !tests.is_empty() {
            println!("── {what}");
        }
        for (test, reason) in tests {
            println!("  {test}: {reason}");
        }
    }
    let good = failures.is_empty() && tally.failed == 0;
    if !good {
        println!("── FAILED");
        for failure in failures {
            println!("  {failure}");
        }
        for test in &tally.failures {
            println!("  {test}");
        }
    }
    if let Some(line) = tally.incidents() {
        println!("{line}");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        tally.passed(),
        tally.failed,
        tally.skipped.len()
    );
    u8::from(!good)
}
