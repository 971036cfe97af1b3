//! `cargo xtask bench NAME`: runs `bench-NAME` of `redbutton-hw-tests` in release mode, isolated, and insists on
//! its last line: `NAME: key=number …` (PERFORMANCE.md).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::isolate::{self, Ended, Job, NeedsRoot};
use crate::workspace::Workspace;
use crate::{replay, run, tools};

/// A benchmark ends within five minutes (PERFORMANCE.md); this much more is for a loaded machine.
const CAP: Duration = Duration::from_secs(10 * 60);

/// A benchmark and the Debian packages of the peer that it measures against.
const BENCHMARKS: &[(&str, &[&str])] = &[
    ("attach", &[]),
    ("kill-local", &[]),
    ("kill-fleet", &["openssh-server", "openssh-client"]),
    ("pod", &["openssh-server", "openssh-client"]),
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// attach, kill-local, kill-fleet or pod
    name: String,
    /// Add a row with machine, commit and date to docs/benchmarks.md
    #[arg(long)]
    record: bool,
    /// Handed to the benchmark as it is
    #[arg(last = true)]
    options: Vec<String>,
}

/// The subcommand.
pub(crate) fn main(arguments: &Arguments) -> Result<u8> {
    let workspace = Workspace::read()?;
    let name = arguments.name.as_str();
    let Some((_, packages)) = BENCHMARKS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = BENCHMARKS.iter().map(|(known, _)| *known).collect();
        bail!("no benchmark is called {name:?}; there are {}", known.join(", "));
    };
    if !isolate::is_root() {
        return Err(NeedsRoot(format!(
            "it kills in cgroups; run: sudo -E cargo xtask bench {name}"
        ))
        .into());
    }
    tools::debian(packages)?;
    replay::build(true)?;

    let mut command = vec![workspace.target.join(format!("release/bench-{name}")).into()];
    command.extend(arguments.options.iter().map(Into::into));
    let job = Job {
        command,
        folder: workspace.root.clone(),
        environment: vec![],
        cap: CAP,
    };
    let mut last = String::new();
    let finished = isolate::run(&job, &mut |line| {
        println!("{line}");
        if !line.trim().is_empty() {
            last = line.to_owned();
        }
    })?;
    if let Ended::Interrupted(signal) = finished.ended {
        bail!("interrupted by signal {signal}; everything was killed and removed");
    }
    if !finished.is_clean() {
        bail!("bench-{name}: {}", finished.complaint());
    }
    let values = values(name, &last)?;
    if arguments.record {
        record(&workspace.root, name, &values)?;
    }
    Ok(0)
}

/// The keys and values of a last line.
///
/// # Errors
/// When it is not `NAME: key=number key=number …`.
fn values<'a>(name: &str, line: &'a str) -> Result<Vec<(&'a str, &'a str)>> {
    let rest = line
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix(": "))
        .with_context(|| format!("the last line must start with \"{name}: \", it is {line:?}"))?;
    let values = rest
        .split_whitespace()
        .map(|word| {
            let (key, value) = word
                .split_once('=')
                .with_context(|| format!("{word:?} is not key=value"))?;
            match value.parse::<f64>() {
                Ok(number) if number.is_finite() && !key.is_empty() => Ok((key, value)),
                _ => bail!("{word:?} is not a number: what could not be measured makes the benchmark fail"),
            }
        })
        .collect::<Result<Vec<_>>>()?;
    if values.is_empty() {
        bail!("the last line of {name} carries no values");
    }
    Ok(values)
}

/// Adds a row below the table under `## NAME`; makes the section when it is not there.
fn record(root: &Path, name: &str, values: &[(&str, &str)]) -> Result<()> {
    let path = root.join("docs/benchmarks.md");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "# Benchmarks\n".to_owned(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let row = format!(
        "| {} | {} | {} | {} |",
        today(),
        commit(root),
        machine(),
        joined(values)
    );
    fs::write(&path, with_row(&text, name, &row)).with_context(|| format!("cannot write {}", path.display()))
}

fn joined(values: &[(&str, &str)]) -> String {
    values
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The date, UTC.
pub(crate) fn today() -> String {
    ask(Command::new("date").args(["--utc", "+%F"]))
}

/// What is checked out, and whether it was changed.
pub(crate) fn commit(root: &Path) -> String {
    let git = |words: &[&str]| ask(Command::new("git").args(words).current_dir(root));
    let mut commit = git(&["rev-parse", "--short", "HEAD"]);
    if !git(&["status", "--porcelain"]).is_empty() {
        commit.push_str(" + changes");
    }
    commit
}

fn ask(command: &mut Command) -> String {
    run::quietly(command).map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Cores, model and kernel of this machine.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?
                .split_once(": ")
                .map(|(_, model)| model.trim())
        })
        .unwrap_or("unknown processor");
    format!("{cores} × {model}, Linux {}", kernel.trim())
}

fn with_row(text: &str, name: &str, row: &str) -> String {
    let heading = format!("## {name}");
    let mut lines: Vec<&str> = text.lines().collect();
    let Some(start) = lines.iter().position(|line| *line == heading) else {
        return format!(
            "{}\n\n{heading}\n\n| date | commit | machine | result |\n|---|---|---|---|\n{row}\n",
            text.trim_end()
        );
    };
    let end = lines[start + 1..]
        .iter()
        .position(|line| line.starts_with("## "))
        .map_or(lines.len(), |at| start + 1 + at);
    // The table of runs is the one with our header; a section may explain itself with others.
    let header = lines[start..end]
        .iter()
        .position(|line| line.starts_with("| date | commit |"));
    match header {
        Some(at) => {
            let first = start + at;
            let length = lines[first..end]
                .iter()
                .take_while(|line| line.starts_with('|'))
                .count();
            lines.insert(first + length, row);
        }
        None => {
            for (offset, line) in [
                "| date | commit | machine | result |",
                "|---|---|---|---|",
                row,
                "",
            ]
            .iter()
            .enumerate()
            {
                lines.insert(end + offset, line);
            }
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_line_is_numbers_under_its_own_name() {
        let good = values("kill-local", "kill-local: ratio=1.1 p50_ms=40").expect("a good line");
        assert_eq!(good, [("ratio", "1.1"), ("p50_ms", "40")]);
        for bad in [
            "",
            "kill-local:",
            "kill-local: ",
            "kill-fleet: a=1",
            "kill-local: a=NaN",
            "kill-local: a=",
            "kill-local: a",
        ] {
            assert!(values("kill-local", bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_row_lands_in_its_own_table() {
        let text = "# Benchmarks\n\n## kill-local\n\nWords.\n\n| date | commit | machine | result |\n|---|---|---|---|\n| old |\n\n## kill-fleet\n\nx\n";
        let with = with_row(text, "kill-local", "| new |");
        assert!(with.contains("| old |\n| new |\n\n## kill-fleet"), "{with}");
        let fresh = with_row("# Benchmarks\n", "kill-local", "| new |");
        assert_eq!(
            fresh,
            "# Benchmarks\n\n## kill-local\n\n| date | commit | machine | result |\n|---|---|---|---|\n| new |\n"
        );
        let twice = with_row(&fresh, "kill-local", "| newer |");
        assert!(twice.ends_with("| new |\n| newer |\n"), "{twice}");
        let headless = with_row(
            "## kill-local\nWords.\n\n## kill-fleet\n",
            "kill-local",
            "| new |",
        );
        assert!(
            headless.contains("|---|---|---|---|\n| new |\n\n## kill-fleet"),
            "{headless}"
        );
    }
}
