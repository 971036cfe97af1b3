//! `cargo xtask package`: Debian packages of what runs in a fleet, from this workspace's build and `deploy/`.
//!
//! `redbutton` (people), `redbutton-controller` and `redbutton-nodemgr`. They install programs, systemd units and their
//! documentation; nothing starts by itself, since a node without a bundle and a controller without `init` have
//! nothing to start with. Built with `dpkg-deb` alone; the same inputs give the same bytes (`SOURCE_DATE_EPOCH`).

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;
use crate::workspace::{Workspace, build_programs, cargo};

/// Below the package's root: what, from where in `deploy/` or as text.
enum From {
    Deploy(&'static str),
    Text(&'static str),
}

struct Package {
    name: &'static str,
    about: &'static str,
    depends: &'static str,
    files: &'static [(&'static str, From)],
    /// Files that an administrator edits: dpkg asks before it replaces them.
    conffiles: &'static [&'static str],
    /// Run as root once the files are there.
    postinst: &'static str,
}

/// Without systemd (a container, a chroot) there is nothing to tell it.
const POSTINST: &str = "#!/bin/sh\n\
    set -e\n\
    if [ \"$1\" = configure ]; then\n\
    \x20   if command -v systemd-sysusers >/dev/null; then systemd-sysusers redbutton.conf 2>/dev/null || true; fi\n\
    \x20   if command -v systemd-tmpfiles >/dev/null; then systemd-tmpfiles --create redbutton.conf || true; fi\n\
    \x20   if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n\
    fi\n";

/// What a node with systemd needs said; everything else has a default.
const NODEMGR: &str = "# See /usr/share/doc/redbutton-nodemgr/nodemgr.toml for every key.\n\
    slivers_root = \"redbutton.slice/redbutton-slivers.service\"\n\
    restart = \"systemd\"\n";

const PACKAGES: &[Package] = &[
    Package {
        name: "redbutton",
        about: "stop a slice on every node of a fleet: what people type",
        depends: "libc6 (>= 2.34), libgcc-s1",
        files: &[],
        conffiles: &[],
        postinst: "",
    },
    Package {
        name: "redbutton-controller",
        about: "the centre of a Redbutton fleet: people, orders, audit",
        depends: "libc6 (>= 2.34), libgcc-s1, redbutton",
        files: &[
            (
                "usr/lib/systemd/system/redbutton-controller.service",
                From::Deploy("systemd/redbutton-controller.service"),
            ),
            (
                "usr/lib/sysusers.d/redbutton.conf",
                From::Deploy("sysusers.d/redbutton.conf"),
            ),
            (
                "usr/lib/tmpfiles.d/redbutton.conf",
                From::Deploy("tmpfiles.d/redbutton.conf"),
            ),
            ("etc/redbutton/controller.toml", From::Deploy("controller.toml")),
        ],
        conffiles: &["/etc/redbutton/controller.toml"],
        postinst: POSTINST,
    },
    Package {
        name: "redbutton-nodemgr",
        about: "Redbutton's node manager: slivers, holds, kill",
        depends: "libc6 (>= 2.34), libgcc-s1",
        files: &[
            (
                "usr/lib/systemd/system/redbutton-nodemgr.service",
                From::Deploy("systemd/redbutton-nodemgr.service"),
            ),
            (
                "usr/lib/systemd/system/redbutton-slivers.service",
                From::Deploy("systemd/redbutton-slivers.service"),
            ),
            (
                "usr/lib/systemd/system/redbutton.slice",
                From::Deploy("systemd/redbutton.slice"),
            ),
            (
                "usr/lib/tmpfiles.d/redbutton-nodemgr.conf",
                From::Deploy("tmpfiles.d/redbutton.conf"),
            ),
            (
                "usr/share/doc/redbutton-nodemgr/nodemgr.toml",
                From::Deploy("nodemgr.toml"),
            ),
            (
                "usr/share/doc/redbutton-nodemgr/examples/princeton_codeen.service",
                From::Deploy("examples/princeton_codeen.service"),
            ),
            ("etc/redbutton/nodemgr.toml", From::Text(NODEMGR)),
        ],
        conffiles: &["/etc/redbutton/nodemgr.toml"],
        postinst: POSTINST,
    },
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// From the debug build, which the lab tests with
    #[arg(long)]
    debug: bool,
}

/// The subcommand.
pub(crate) fn main(arguments: &Arguments) -> Result<u8> {
    let workspace = Workspace::read()?;
    for path in build(&workspace, arguments.debug)? {
        println!("{}", path.display());
    }
    Ok(0)
}

/// Builds the programs and packs them; returns the packages' paths.
pub(crate) fn build(workspace: &Workspace, debug: bool) -> Result<Vec<PathBuf>> {
    let programs: Vec<&str> = PACKAGES.iter().map(|package| package.name).collect();
    if debug {
        build_programs(&programs)?;
    } else {
        let mut command = cargo();
        command.args(["build", "--quiet", "--release"]);
        run::loudly(command.args(programs.iter().flat_map(|name| ["--bin", name])))?;
    }
    let programs = workspace.target.join(if debug { "debug" } else { "release" });
    let out = workspace.target.join("debian");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    PACKAGES
        .iter()
        .map(|package| pack(package, &workspace.root, &programs, &out))
        .collect()
}

fn pack(package: &Package, source: &Path, programs: &Path, out: &Path) -> Result<PathBuf> {
    let root = tempfile::tempdir().context("cannot make a temporary folder")?;
    // dpkg insists on a control folder that everybody may read.
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).context("cannot open the folder")?;
    let put = |path: &str, content: &[u8], mode: u32| -> Result<()> {
        let path = root.path().join(path);
        let folder = path.parent().context("a file without a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("cannot set the mode of {}", path.display()))
    };
    let read = |path: PathBuf| fs::read(&path).with_context(|| format!("cannot read {}", path.display()));

    let program = format!("usr/bin/{}", package.name);
    put(&program, &[], 0o755)?;
    run::loudly(
        Command::new("strip")
            .arg("-o")
            .arg(root.path().join(&program))
            .arg(programs.join(package.name)),
    )?;
    for (path, from) in package.files {
        let content = match from {
            From::Deploy(name) => read(source.join("deploy").join(name))?,
            From::Text(text) => text.as_bytes().to_vec(),
        };
        put(path, &content, 0o644)?;
    }
    let documents = format!("usr/share/doc/{}", package.name);
    put(
        &format!("{documents}/README.md"),
        &read(source.join("deploy/README.md"))?,
        0o644,
    )?;
    let copyright = [
        read(source.join("LICENSE-MIT"))?,
        read(source.join("LICENSE-APACHE"))?,
    ]
    .concat();
    put(&format!("{documents}/copyright"), &copyright, 0o644)?;

    put("DEBIAN/control", control(package).as_bytes(), 0o644)?;
    if !package.postinst.is_empty() {
        put("DEBIAN/postinst", package.postinst.as_bytes(), 0o755)?;
    }
    if !package.conffiles.is_empty() {
        put(
            "DEBIAN/conffiles",
            (package.conffiles.join("\n") + "\n").as_bytes(),
            0o644,
        )?;
    }
    let path = out.join(format!(
        "{}_{}_amd64.deb",
        package.name,
        env!("CARGO_PKG_VERSION")
    ));
    run::loudly(
        Command::new("dpkg-deb")
            .args(["--build", "--root-owner-group", "-Zxz", "-z1"])
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .arg(root.path())
            .arg(&path),
    )?;
    Ok(path)
}

fn control(package: &Package) -> String {
    let mut text = String::new();
    for (key, value) in [
        ("Package", package.name),
        ("Version", env!("CARGO_PKG_VERSION")),
        ("Architecture", "amd64"),
        ("Section", "admin"),
        ("Priority", "optional"),
        ("Maintainer", "Redbutton <redbutton@redbutton.invalid>"),
        ("Depends", package.depends),
        ("Description", package.about),
    ] {
        let _ = writeln!(text, "{key}: {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_file_has_what_dpkg_insists_on() {
        let text = control(&PACKAGES[2]);
        for line in [
            "Package: redbutton-nodemgr\n",
            "Architecture: amd64\n",
            "Description: ",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn every_file_of_deploy_that_is_packed_exists() {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        for (path, from) in PACKAGES.iter().flat_map(|package| package.files) {
            if let From::Deploy(name) = from {
                assert!(deploy.join(name).is_file(), "{path} comes from deploy/{name}");
            }
        }
    }
}
