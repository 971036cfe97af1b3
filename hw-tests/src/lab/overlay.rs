//! What our daemons need in a guest: a second archive behind the image's own, made of this workspace's build.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use lab::image::cpio::Archive;

use super::pod::{self, PodKeys};
use super::spec::{Shape, Spec};
use crate::fleet::program;

/// Installs the package once, and starts it as `deploy/README.md` says.
const INSTALL: &str = "#!/bin/sh -e\n\
    [ -e /usr/bin/redbutton-nodemgr ] || dpkg --install --force-confold /root/redbutton-nodemgr.deb\n\
    systemctl enable --now redbutton-slivers redbutton-nodemgr\n";

/// Our daemons as the node gets them: what this workspace built, without debug information.
fn stripped(name: &str) -> Result<Vec<u8>> {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = match FOLDER.get() {
        Some(folder) => folder,
        None => {
            let made = tempfile::tempdir()?;
            FOLDER.get_or_init(|| made)
        }
    };
    let small = folder.path().join(name);
    if !small.exists() {
        // Several threads may do the same work at first; each moves a whole file into place.
        let part = tempfile::NamedTempFile::new_in(folder.path())?;
        let done = Command::new("strip")
            .arg("-o")
            .arg(part.path())
            .arg(program(name)?)
            .status()
            .context("strip (Debian package binutils)")?;
        ensure!(done.success(), "strip {name}: {done}");
        part.persist(&small).context("keeping a stripped program")?;
    }
    fs::read(&small).with_context(|| small.display().to_string())
}

/// What makes a node this one.
pub(super) struct Outfit<'a> {
    pub(super) bundle: &'a Path,
    pub(super) public_key: &'a str,
    pub(super) pod_keys: &'a PodKeys,
}

pub(super) fn overlay(spec: &Spec, outfit: &Outfit<'_>) -> Result<Vec<u8>> {
    let config = format!(
        "bundle = \"/etc/redbutton/nodemgr.bundle\"\nstate_dir = \"/var/lib/redbutton/nodemgr\"\nrestart = {:?}\nslivers_root = {:?}\n{}",
        spec.shape.restart(),
        spec.shape.slivers_root(),
        spec.nodemgr
    );
    let mut archive = Archive::new();
    let at = |path: &str| match spec.shape {
        Shape::Small => path.to_owned(),
        // Copied onto the root before it is switched to.
        Shape::Full => format!("overlay/{path}"),
    };
    archive.file(&at("usr/bin/lab-hog"), 0o755, stripped("lab-hog")?);
    archive.file(&at("etc/redbutton/nodemgr.toml"), 0o644, config.into_bytes());
    archive.file(
        &at("etc/redbutton/nodemgr.bundle"),
        0o600,
        fs::read(outfit.bundle)?,
    );
    archive.file(
        &at("root/.ssh/authorized_keys"),
        0o600,
        outfit.public_key.as_bytes(),
    );
    match spec.shape {
        Shape::Small => {
            archive.file("usr/bin/redbutton-nodemgr", 0o755, stripped("redbutton-nodemgr")?);
            archive.file(
                "etc/lab.services",
                0o644,
                format!("nodemgr /usr/bin/redbutton-nodemgr run\n{}", pod::command(spec)),
            );
            archive.file(
                "usr/bin/redbutton-pod-listener",
                0o755,
                stripped("redbutton-pod-listener")?,
            );
            let keys = outfit.pod_keys.file(pod::node_of(outfit.bundle)?);
            archive.file("etc/redbutton/pod.toml", 0o600, keys);
        }
        Shape::Full => {
            // As an administrator installs it, at the first boot.
            archive.file("overlay/root/redbutton-nodemgr.deb", 0o644, fs::read(package()?)?);
            archive.file("overlay/etc/lab.d/10-redbutton.sh", 0o755, INSTALL);
        }
    }
    Ok(archive.to_bytes())
}

/// What `cargo xtask package --debug` made of the node manager.
pub(super) fn package() -> Result<PathBuf> {
    let built = program("redbutton-nodemgr")?;
    let target = built
        .ancestors()
        .nth(2)
        .context("a program outside of a target folder")?;
    let folder = target.join("debian");
    let found = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .find(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("redbutton-nodemgr_")
        });
    let package = found.with_context(|| {
        format!(
            "no package in {}: run `cargo xtask package --debug`",
            folder.display()
        )
    })?;
    Ok(package.path())
}

/// The kernel unpacks archives one after the other, each begun at a multiple of four.
pub(super) fn join(base: &Path, overlay: &[u8], out: &Path) -> Result<()> {
    fs::copy(base, out).with_context(|| format!("copying {}", base.display()))?;
    let mut file = File::options().append(true).open(out)?;
    let length = file.metadata()?.len();
    let padding = vec![0; usize::try_from(length.next_multiple_of(4) - length)?];
    file.write_all(&padding)?;
    file.write_all(overlay)?;
    Ok(())
}
