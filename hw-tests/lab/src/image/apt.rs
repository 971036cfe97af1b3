//! Debian packages as material: apt says which version is current and fetches it (checking its signature chain and
//! digests), `dpkg-deb` unpacks it. Nothing is installed on this machine, no maintainer script runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// An archive's list of packages, below its suite.
const INDEX: &str = "main/binary-amd64/Packages";

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

/// Marks an error of apt's that fresh lists may heal.
#[derive(Debug)]
pub(super) struct OldLists;

impl std::fmt::Display for OldLists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("apt's lists may be missing or old")
    }
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
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        // A list of two hundred packages says nothing.
        let args: String = args.join(" ").chars().take(200).collect();
        bail!("{name} {args}: {}: {}", output.status, words.trim());
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

/// The names of all packages that these need on an empty machine, these among them; apt's patterns (`?essential`) and
/// `NAME-` (rather not this one) are understood. What is only recommended stays out.
///
/// # Errors
/// As [`resolve`].
pub(super) fn closure(names: &[&str]) -> Result<Vec<String>> {
    let nothing = tempfile::NamedTempFile::new().context("make a temporary file")?;
    let mut command = apt_get(Path::new("/"));
    for state in ["Dir::State::status", "Dir::State::extended_states"] {
        command
            .arg("-o")
            .arg(format!("{state}={}", nothing.path().display()));
    }
    command
        .args(["-y", "--no-install-recommends", "--print-uris", "install"])
        .args(names);
    let text = run(&mut command).context(OldLists)?;
    let files = text
        .lines()
        .filter(|line| line.starts_with('\''))
        .filter_map(|line| line.split(' ').nth(1));
    Ok(files
        .map(|file| file.split('_').next().unwrap_or(file).to_owned())
        .collect())
}

/// The package of the current cloud kernel, to which its metapackage leads.
///
/// # Errors
/// When apt does not know it.
pub(super) fn kernel() -> Result<String> {
    let meta = "linux-image-cloud-amd64";
    let text = run(Command::new("apt-cache").args(["depends", "--important", meta])).context(OldLists)?;
    let mut names = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "));
    let found = names.find(|used| used.starts_with("linux-image-"));
    Ok(found
        .with_context(|| format!("{meta} depends on no kernel"))?
        .to_owned())
}

/// Fetches the files of packages into a folder.
///
/// # Errors
/// When a version is no longer to be had (apt's lists are old).
pub(super) fn fetch(packages: &[Package], files: &Path) -> Result<()> {
    fs::create_dir_all(files).with_context(|| format!("make folder {}", files.display()))?;
    let exact = packages
        .iter()
        .map(|package| format!("{}={}", package.name, package.version));
    run(apt_get(files).arg("download").args(exact))
        .map(drop)
        .context(OldLists)
}

/// Unpacks fetched packages over each other.
///
/// # Errors
/// When one is not there or does not unpack.
pub(super) fn unpack(packages: &[Package], files: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("make folder {}", into.display()))?;
    for package in packages {
        run(Command::new("dpkg-deb")
            .arg("-x")
            .arg(files.join(&package.file))
            .arg(into))?;
    }
    Ok(())
}

/// Makes an archive for `debootstrap` of fetched packages: `files` is its `pool`, beside it come its indexes. Not
/// signed: apt has checked these files already.
///
/// # Errors
/// When a package cannot be read, or the indexes not be written.
pub(super) fn archive(packages: &[Package], files: &Path, suite: &str) -> Result<()> {
    let top = files.parent().context("a pool at the root")?;
    let pool = files
        .file_name()
        .context("a pool without a name")?
        .to_string_lossy()
        .into_owned();
    let mut index = String::new();
    for Package { file, digest, .. } in packages {
        let path = files.join(file);
        let size = fs::metadata(&path)
            .with_context(|| format!("stat {}", path.display()))?
            .len();
        let facts = run(Command::new("dpkg-deb").arg("--field").arg(&path))?;
        index.push_str(&format!(
            "{}\nFilename: {pool}/{file}\nSize: {size}\nSHA256: {digest}\n\n",
            facts.trim_end()
        ));
    }
    let release = format!(
        "Suite: {suite}\nCodename: {suite}\nComponents: main\nArchitectures: amd64\nSHA256:\n {} {} {INDEX}\n",
        super::store::digest(&index),
        index.len()
    );
    let folder = top.join("dists").join(suite);
    let at = folder.join(INDEX);
    fs::create_dir_all(folder.join("main/binary-amd64"))
        .with_context(|| format!("make {}", folder.display()))?;
    fs::write(&at, index).with_context(|| format!("write {}", at.display()))?;
    fs::write(folder.join("Release"), release).with_context(|| format!("write {}/Release", folder.display()))
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
