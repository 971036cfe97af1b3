//! `deploy/`'s systemd units, judged by systemd: in a made-up root where our programs exist and its own units lie.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Where units of ours are.
const FOLDERS: &[&str] = &["deploy/systemd", "deploy/examples"];

/// Programs that the units start.
const PROGRAMS: &[&str] = &[
    "bin/sh",
    "usr/bin/redbutton-nodemgr",
    "usr/bin/redbutton-controller",
    "opt/princeton_codeen/bin/codeen",
];

/// Units of Debian's systemd that ours name. Those of packages that are not there may be missing: systemd ignores
/// an order before a unit that does not exist.
const TARGETS: &[&str] = &[
    "basic.target",
    "local-fs.target",
    "machines.target",
    "multi-user.target",
    "network-online.target",
    "network.target",
    "shutdown.target",
    "slices.target",
    "sysinit.target",
];

/// Fails with everything that systemd says against our units.
pub(super) fn check(workspace: &Path) -> Result<()> {
    let root = tempfile::tempdir().context("cannot make a temporary folder")?;
    let units = root.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&units).with_context(|| format!("cannot make {}", units.display()))?;
    for target in TARGETS {
        put(&units.join(target), "[Unit]\nDescription=of systemd\n", 0o644)?;
    }
    for name in PROGRAMS {
        put(&root.path().join(name), "#!/bin/sh\n", 0o755)?;
    }
    let mut names = Vec::new();
    for folder in FOLDERS {
        let folder = workspace.join(folder);
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
            let unit = entry
                .path()
                .extension()
                .is_some_and(|kind| kind == "service" || kind == "slice");
            if unit {
                let name = entry.file_name();
                fs::copy(entry.path(), units.join(&name))
                    .with_context(|| format!("cannot copy {}", entry.path().display()))?;
                names.push(name);
            }
        }
    }
    if names.is_empty() {
        bail!("there are no units in {}", FOLDERS.join(" and "));
    }
    let mut command = Command::new("systemd-analyze");
    command
        .arg(format!("--root={}", root.path().display()))
        .args(["--man=no", "verify"])
        .args(&names);
    println!(
        "$ systemd-analyze verify {}",
        names
            .iter()
            .map(|name| name.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    );
    let output = command.output().context("cannot start systemd-analyze")?;
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    // An unknown key is only a warning to systemd; to us it is a mistake.
    if !output.status.success() || !said.trim().is_empty() {
        bail!("systemd-analyze verify: {}\n{}", output.status, said.trim());
    }
    Ok(())
}

fn put(path: &Path, text: &str, mode: u32) -> Result<()> {
    let folder = path.parent().context("a path without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}
