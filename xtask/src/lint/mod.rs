//! `cargo xtask lint`: runs every check, also after a failure, and lists the failures at the end.

mod depends;
mod length;
mod threats;
mod units;

use std::process::Command;

use anyhow::{Result, bail};

use crate::workspace::{Workspace, cargo};
use crate::{run, tools};

/// What became of one check.
enum Verdict {
    Fine,
    Failed(String),
    /// Could not be run here, with the reason.
    Skipped(String),
}

impl From<Result<()>> for Verdict {
    fn from(result: Result<()>) -> Self {
        result.map_or_else(|error| Verdict::Failed(format!("{error:#}")), |()| Verdict::Fine)
    }
}

/// The checks that failed, with what they said.
pub(crate) fn run(workspace: &Workspace) -> Vec<String> {
    let checks: [(&str, &dyn Fn() -> Verdict); 9] = [
        ("formatting", &|| {
            run::loudly(cargo().args(["fmt", "--all", "--check"])).into()
        }),
        ("clippy", &|| {
            run::loudly(cargo().args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--keep-going",
                "--quiet",
                "--",
                "-D",
                "warnings",
            ]))
            .into()
        }),
        ("documentation", &|| {
            let mut doc = cargo();
            doc.args(["doc", "--workspace", "--no-deps", "--keep-going", "--quiet"])
                // A module's map may name what is private in it; rustdoc then prints the name without a link.
                .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
            run::loudly(&mut doc).into()
        }),
        ("licences, bans, sources", &|| deny(workspace).into()),
        ("advisories", &|| {
            Verdict::Skipped(
                "the RustSec database is a git repository, which this machine's registries do not carry"
                    .into(),
            )
        }),
        ("who depends on whom", &|| {
            complain(&depends::check(&workspace.packages)).into()
        }),
        (
            "systemd units",
            &|| match run::quietly(Command::new("systemd-analyze").arg("--version")) {
                Some(_) => units::check(&workspace.root).into(),
                None => Verdict::Skipped("there is no systemd-analyze here (Debian package systemd)".into()),
            },
        ),
        ("file length", &|| {
            length::check(&workspace.root)
                .and_then(|long| complain(&long))
                .into()
        }),
        ("threat model", &|| {
            threats::check(&workspace.root)
                .and_then(|missing| complain(&missing))
                .into()
        }),
    ];
    let mut failures = Vec::new();
    let mut lines = Vec::new();
    for (name, check) in checks {
        println!("── lint: {name}");
        match check() {
            Verdict::Fine => lines.push(format!("  ok       {name}")),
            Verdict::Skipped(reason) => lines.push(format!("  skipped  {name}: {reason}")),
            Verdict::Failed(why) => {
                println!("{why}");
                lines.push(format!("  FAILED   {name}"));
                failures.push(format!("{name}: {why}"));
            }
        }
    }
    println!("── lint: summary\n{}", lines.join("\n"));
    failures
}

/// The subcommand.
pub(crate) fn main() -> Result<u8> {
    let failures = run(&Workspace::read()?);
    for failure in &failures {
        println!("lint failed: {failure}");
    }
    Ok(u8::from(!failures.is_empty()))
}

fn complain(complaints: &[String]) -> Result<()> {
    if complaints.is_empty() {
        Ok(())
    } else {
        bail!("{}", complaints.join("\n"))
    }
}

fn deny(workspace: &Workspace) -> Result<()> {
    let program = tools::cargo_deny(workspace)?;
    run::loudly(
        Command::new(program)
            .current_dir(&workspace.root)
            // The run's own summary is enough; `warn` findings stay visible.
            .args([
                "--workspace",
                "check",
                "--hide-inclusion-graph",
                "licenses",
                "bans",
                "sources",
            ]),
    )
}
