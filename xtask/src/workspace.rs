//! Where things lie: the workspace's root, its target folder, its packages, from `cargo metadata`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// What `cargo metadata --no-deps` says, as far as we need it.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// One of our packages.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    /// As cargo's build messages name it.
    #[serde(default)]
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency as its package declares it.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Absent: a normal one; else `dev` or `build`.
    pub(crate) kind: Option<String>,
    /// Set for our own packages.
    pub(crate) path: Option<PathBuf>,
    pub(crate) features: Vec<String>,
    pub(crate) uses_default_features: bool,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn read() -> Result<Self> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version=1"])
            .output()
            .context("cannot start cargo metadata")?;
        if !output.status.success() {
            bail!(
                "cargo metadata failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        serde_json::from_slice(&output.stdout).context("cargo metadata printed something unexpected")
    }

    /// Where tools that we install for ourselves live.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// Where the full output of test runs goes.
    pub(crate) fn logs(&self) -> PathBuf {
        self.target.join("test-logs")
    }
}

/// Builds these programs of the workspace into `target/debug`, the very ones that `cargo xtask test` builds: with one
/// test among the targets cargo counts dev-dependencies in when it unifies features, and nothing is compiled twice.
pub(crate) fn build_programs(names: &[&str]) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--workspace", "--quiet", "--test", "isolation"]);
    build.args(names.iter().flat_map(|name| ["--bin", name]));
    crate::run::loudly(&mut build)
}

/// The cargo that started us.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
