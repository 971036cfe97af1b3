//! `redbutton-nodemgr check`: what this configuration means on this machine. Changes nothing.

use std::io::Write;
use std::path::{Path, PathBuf};

use proto::v1::Assurance;

use crate::Config;
use crate::adopt;
use crate::cgroup::{self, Mount};
use crate::engine::StartError;
use crate::guard::Guard;

/// Prints what is in effect, what the kernel gives, what would be adopted and what refused.
///
/// # Errors
/// When the daemon could not start here either.
pub fn check(config: &Config) -> Result<(), StartError> {
    let mount = match &config.cgroup_mount {
        Some(root) => Mount::at(root),
        None => Mount::discover(Path::new("/proc/self/mountinfo")),
    }?;
    let protect: Vec<PathBuf> = config.protect.iter().map(PathBuf::from).collect();
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let guard = Guard::record(&mount, Path::new("/proc"), own, &protect)?;
    let mut lines = Vec::new();
    lines.push(format!("configuration  valid, hash {}", config.hash()));
    lines.push(format!(
        "cgroup2        {}{}",
        mount.root().display(),
        if mount.facts().hybrid {
            " (hybrid: v1 beside it)"
        } else {
            ""
        }
    ));
    lines.push(format!(
        "slivers        {}/{}",
        mount.root().display(),
        config.slivers_root
    ));
    for capability in crate::report::kernel_capabilities(mount.facts()) {
        let word = match capability.assurance() {
            Assurance::Exact => "exact",
            Assurance::Bounded => "bounded",
            Assurance::NotEnforced => "not enforced",
            Assurance::Unknown | Assurance::Unspecified => "unknown",
        };
        lines.push(format!("{:<14} {word}: {}", capability.name, capability.reason));
    }
    for home in guard.homes() {
        lines.push(format!("spared         /{}: {}", home.path.display(), home.who));
    }
    let found = adopt::scan(&config.adopt, |pattern| cgroup::find(&mount, pattern));
    for (path, slice) in &found.matches {
        match (guard.check_adoption(&mount, path), slice) {
            (Ok(_), Ok(slice)) => lines.push(format!("adopts         {} as {slice}", path.display())),
            (Ok(_), Err(why)) => lines.push(format!(
                "refuses        {}: its name gives no slice: {why}",
                path.display()
            )),
            (Err(refusal), _) => lines.push(format!("refuses        {}: {refusal}", path.display())),
        }
    }
    for path in &found.only_v1 {
        if let Err(refusal) = guard.check_adoption(&mount, path) {
            lines.push(format!("refuses        {}: {refusal}", path.display()));
        }
    }
    lines.push(String::new());
    // Whoever closed the pipe has read enough.
    let _ = std::io::stdout().write_all(lines.join("\n").as_bytes());
    Ok(())
}
