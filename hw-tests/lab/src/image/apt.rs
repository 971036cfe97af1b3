//! Debian packages as material: apt says which version is current and fetches it (checking its signature chain and
//! digests), `dpkg-deb` unpacks it. Nothing is installed on this machine, no maintainer script runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A package as apt would fetch it now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    /// Its name.
    pub(super) name: String,
    /// Its version with epoch.
    pub(super) version: String,
    /// SHA-256 of its file, in hexadecimal.
    pub(super) digest: String,
    /// The name of its file when fetched.
    file: String,
}

/// Runs a command to its end; its output on success, its words on failure.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .env("LC_ALL", "C")
        .output()
        .with_context(|| format!("start {name}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let (args, status) = (command.get_args().collect::<Vec<_>>(), output.status);
        bail!("{name} {args:?}: {status}: {}", words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As root apt gives itself to `_apt`, who may not write where we build.
fn apt_get(folder: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(["-q", "-o", "APT::Sandbox::User=root"])
        .current_dir(folder);
    command
}

/// Fetches apt's package lists anew.
///
/// # Errors
/// When apt fails.
pub(super) fn update() -> Result<()> {
    run(apt_get(Path::new("/")).arg("update")).map(drop)
}

/// The current version of each of these packages. Asks no network, only apt's lists.
///
/// # Errors
/// When apt knows one of them not; an `update` may help.
pub(super) fn resolve(names: &[String]) -> Result<Vec<Package>> {
    let text = run(apt_get(Path::new("/"))
        .args(["download", "--print-uris"])
        .args(names))?;
    let mut found = text.lines().map(parse_uri).collect::<Result<Vec<_>>>()?;
    found.sort();
    for name in names {
        if !found.iter().any(|package| package.name == *name) {
            bail!("apt has no candidate for package {name}");
        }
    }
    Ok(found)
}

/// `'URI' NAME_VERSION_ARCH.deb SIZE SHA256:DIGEST`; in the version `:` is written `%3a`.
fn parse_uri(line: &str) -> Result<Package> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let parsed = (|| {
        let [_, file, _, digest] = words.as_slice() else {
            return None;
        };
        let mut parts = file.splitn(3, '_');
        let (name, version) = (parts.next()?, parts.next()?);
        let digest = digest.strip_prefix("SHA256:")?;
        let version = version.replace("%3a", ":");
        Some(Package {
            name: name.into(),
            version,
            digest: digest.into(),
            file: (*file).into(),
        })
    })();
    parsed.with_context(|| format!("apt-get --print-uris: expected URI, file, size, SHA256, got {line:?}"))
}

/// What a package depends on whose name starts so: a metapackage leads to the kernel proper.
///
/// # Errors
/// When there is none.
pub(super) fn dependency(name: &str, prefix: &str) -> Result<String> {
    let text = run(Command::new("apt-cache").args(["depends", "--important", name]))?;
    let names = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "));
    let found = names.into_iter().find(|used| used.starts_with(prefix));
    Ok(found
        .with_context(|| format!("{name} depends on no {prefix}*"))?
        .to_owned())
}

/// Fetches packages into a folder and unpacks them into another.
///
/// # Errors
/// When a version is no longer to be had (apt's lists are old), or does not unpack.
pub(super) fn unpack(packages: &[Package], files: &Path, into: &Path) -> Result<()> {
    for folder in [files, into] {
        fs::create_dir_all(folder).with_context(|| format!("make folder {}", folder.display()))?;
    }
    let exact = packages
        .iter()
        .map(|package| format!("{}={}", package.name, package.version));
    run(apt_get(files).arg("download").args(exact))?;
    for package in packages {
        run(Command::new("dpkg-deb")
            .arg("-x")
            .arg(files.join(&package.file))
            .arg(into))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_apt_is_a_package() {
        let line = "'http://deb.example/b_1%3a1.35.0-4%2bdeb12u1_amd64.deb' busybox-static_1%3a1.35.0-4+deb12u1_amd64.deb 928188 SHA256:3d3f";
        let package = parse_uri(line).unwrap();
        assert_eq!(
            (package.name.as_str(), package.version.as_str()),
            ("busybox-static", "1:1.35.0-4+deb12u1")
        );
        assert_eq!(package.digest, "3d3f");
        assert!(parse_uri("'http://deb.example/x' x 12").is_err());
        assert!(parse_uri("").is_err());
    }
}
