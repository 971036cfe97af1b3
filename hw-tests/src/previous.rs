//! The programs of the release before this tree: N−1, against which N is tested.
//!
//! They are taken from `REDBUTTON_PREVIOUS` (a folder with the three programs) if it is set, or else from the newest tag
//! `vX.Y.Z` that this commit descends from and is not: found in `target/releases/TAG`, or built there once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Programs by name, as [`crate::fleet::Fleet::start_of`] takes them.
pub type Programs = BTreeMap<&'static str, PathBuf>;

const NAMES: [&str; 3] = ["redbutton", "redbutton-controller", "redbutton-nodemgr"];

/// What the folder is called.
pub const FOLDER: &str = "REDBUTTON_PREVIOUS";

/// The previous release, with its name; `Err`'s text follows `skipped: `.
///
/// # Errors
/// When a release is there and cannot be had: that is a failure, no reason to skip.
pub fn release() -> Result<Result<(String, Programs), String>> {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let folder = PathBuf::from(folder);
        return Ok(Ok((folder.display().to_string(), programs(&folder)?)));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let Some(tag) = newest_tag(&root) else {
        return Ok(Err("no release is tagged yet".into()));
    };
    let folder = root.join("target/releases").join(&tag);
    if programs(&folder).is_err() {
        build(&root, &tag, &folder)?;
    }
    Ok(Ok((tag, programs(&folder)?)))
}

fn programs(folder: &Path) -> Result<Programs> {
    let one = |name: &'static str| {
        let path = folder.join(name);
        ensure!(path.is_file(), "{} is not there", path.display());
        Ok((name, path.canonicalize()?))
    };
    NAMES.into_iter().map(one).collect()
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(root).args(arguments);
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// The newest `vX.Y.Z` before this commit. Without git, or in a tree without history, there is none.
fn newest_tag(root: &Path) -> Option<String> {
    let here = git(root, &["tag", "-l", "v*", "--points-at", "HEAD"])?;
    let all = git(root, &["tag", "-l", "v*", "--merged", "HEAD"])?;
    newest(all.lines().filter(|tag| !here.lines().any(|one| one == *tag))).map(str::to_owned)
}

/// By number, not by letter; what is no release (`v0.2.0-rc.1`, `vim`) does not count.
fn newest<'a>(tags: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let numbers = |tag: &str| -> Option<Vec<u64>> {
        let parts: Vec<u64> = tag
            .strip_prefix('v')?
            .split('.')
            .map(|part| part.parse().ok())
            .collect::<Option<_>>()?;
        (parts.len() == 3).then_some(parts)
    };
    tags.filter_map(|tag| Some((numbers(tag)?, tag)))
        .max()
        .map(|(_, tag)| tag)
}

/// Builds a release from its tag, in a tree of its own, with the dependencies that are here.
fn build(root: &Path, tag: &str, folder: &Path) -> Result<()> {
    let tree = tempfile::Builder::new().prefix("redbutton-release-").tempdir()?;
    let archive = tree.path().join("tree.tar");
    let made = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["archive", "--output"])
        .arg(&archive)
        .arg(tag)
        .status()
        .context("git archive")?;
    ensure!(made.success(), "git archive {tag}: {made}");
    let unpacked = Command::new("tar")
        .arg("-xf")
        .arg(&archive)
        .arg("-C")
        .arg(tree.path())
        .status()?;
    ensure!(unpacked.success(), "tar: {unpacked}");
    let target = folder.with_extension("build");
    let built = Command::new("cargo")
        .current_dir(tree.path())
        .args(["build", "--offline", "--locked"])
        .args(NAMES.map(|name| ["--bin", name]).concat())
        .arg("--target-dir")
        .arg(&target)
        .status()
        .context("cargo build of the previous release")?;
    ensure!(built.success(), "building {tag}: {built}");
    std::fs::create_dir_all(folder)?;
    for name in NAMES {
        std::fs::copy(target.join("debug").join(name), folder.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::newest;

    #[test]
    fn the_newest_release_is_the_highest_number() {
        let tags = [
            "v0.9.0",
            "v0.10.1",
            "v0.10.0",
            "v1.0.0-rc.1",
            "vim",
            "v2",
            "v0.10.1.1",
        ];
        assert_eq!(newest(tags.into_iter()), Some("v0.10.1"));
        assert_eq!(newest([].into_iter()), None);
    }
}
