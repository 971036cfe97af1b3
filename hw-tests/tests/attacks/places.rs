//! A local user plays with the places that our programs trust: symlinks, hard links, pipes, directories that are theirs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use hw_tests::fleet::{Fleet, program, wait_for};

use crate::wire::controller;

const STRANGER: u32 = 4_711;

fn chmod(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// Runs it; it must end by itself.
fn ends(command: &mut Command, log: &Path) -> Result<(bool, String)> {
    let file = fs::File::create(log)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()?;
    let ended = wait_for("its end", || child.try_wait().ok().flatten());
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    Ok((ended?.success(), fs::read_to_string(log)?))
}

struct Place {
    fleet: Fleet,
    bundle: PathBuf,
}

impl Place {
    fn new() -> Result<Self> {
        let mut fleet = controller()?;
        let bundle = fleet.enrol("planet1", "princeton")?;
        fleet.kill_controller();
        Ok(Self { fleet, bundle })
    }

    /// A node manager with these places; it must refuse, naming `named`.
    fn node_refuses(
        &self,
        case: &str,
        state: &Path,
        socket: &Path,
        bundle: &Path,
        named: &Path,
    ) -> Result<()> {
        let config = self.fleet.path("planet1.toml");
        let root = format!("redbutton-test-{}-places", std::process::id());
        fs::write(
            &config,
            format!(
                "bundle = {bundle:?}\nstate_dir = {state:?}\nsocket = {socket:?}\nslivers_root = {root:?}\n"
            ),
        )?;
        let mut command = Command::new(program("redbutton-nodemgr")?);
        command.args(["run", "--config"]).arg(&config);
        let (good, said) =
            ends(&mut command, &self.fleet.path("node.log")).with_context(|| case.to_owned())?;
        ensure!(!good, "{case}: it ran: {said}");
        ensure!(
            said.contains(&named.display().to_string()),
            "{case}: {} is not named: {said}",
            named.display()
        );
        Ok(())
    }
}

#[test]
fn a_node_manager_keeps_nothing_where_others_can_change_it() -> Result<()> {
    if hw_tests::fleet::unable().is_some() {
        println!("skipped: slivers need root");
        return Ok(());
    }
    let place = Place::new()?;
    let good = place.fleet.path("good");
    fs::create_dir(&good)?;
    chmod(&good, 0o700)?;
    let (socket, bundle) = (good.join("sock"), &place.bundle);
    let shared = place.fleet.path("shared");
    fs::create_dir(&shared)?;
    for mode in [0o777, 0o770, 0o1777] {
        chmod(&shared, mode)?;
        place.node_refuses("its state, open to others", &shared, &socket, bundle, &shared)?;
        let own = place.fleet.path("own-state");
        place.node_refuses("its socket", &own, &shared.join("sock"), bundle, &shared)?;
    }
    // Below a place where a group may rename: it is whole, and can be moved away.
    let below = shared.join("state");
    fs::create_dir(&below)?;
    chmod(&below, 0o700)?;
    chmod(&shared, 0o770)?;
    place.node_refuses("below such a place", &below, &socket, bundle, &shared)?;
    chmod(&shared, 0o755)?;
    chown(&below, Some(STRANGER), Some(STRANGER))?;
    place.node_refuses("somebody else's", &below, &socket, bundle, &below)?;
    // A stranger's link, in a directory where anybody may make one.
    chmod(&shared, 0o1777)?;
    let link = shared.join("link");
    symlink(&good, &link)?;
    std::os::unix::fs::lchown(&link, Some(STRANGER), Some(STRANGER))?;
    place.node_refuses("through a stranger's link", &link, &socket, bundle, &link)?;
    ensure!(
        fs::read_dir(&good)?.count() == 0,
        "something was written through the link"
    );
    // A file of ours that a link of theirs points to stays as it is.
    let victim = place.fleet.path("victim");
    fs::write(&victim, "precious")?;
    let trap = place.fleet.path("trap");
    fs::create_dir(&trap)?;
    chmod(&trap, 0o777)?;
    symlink(&victim, trap.join("holds.new"))?;
    symlink(&victim, trap.join("holds"))?;
    place.node_refuses("traps", &trap, &socket, bundle, &trap)?;
    ensure!(
        fs::read_to_string(&victim)? == "precious",
        "the victim was written to"
    );
    Ok(())
}

#[test]
fn a_bundle_that_is_a_pipe_a_stranger_s_or_open_is_refused_at_once() -> Result<()> {
    let place = Place::new()?;
    let good = place.fleet.path("good");
    fs::create_dir(&good)?;
    chmod(&good, 0o700)?;
    let socket = good.join("sock");
    let pipe = place.fleet.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR)?;
    let copy = |name: &str, mode: u32| -> Result<PathBuf> {
        let path = place.fleet.path(name);
        fs::copy(&place.bundle, &path)?;
        chmod(&path, mode)?;
        Ok(path)
    };
    let mut cases = vec![
        ("a pipe", pipe),
        ("open", copy("open.bundle", 0o644)?),
        ("a directory", good.clone()),
    ];
    if nix::unistd::geteuid().is_root() {
        let theirs = copy("theirs.bundle", 0o600)?;
        chown(&theirs, Some(STRANGER), Some(STRANGER))?;
        cases.push(("a stranger's", theirs));
    }
    for (case, bundle) in cases {
        place.node_refuses(case, &good, &socket, &bundle, &bundle)?;
        let mut redbutton = Command::new(program("redbutton")?);
        redbutton.arg("--bundle").arg(&bundle).arg("whoami");
        let (ok, said) = ends(&mut redbutton, &place.fleet.path("redbutton.log"))?;
        ensure!(
            !ok && said.contains(&bundle.display().to_string()),
            "{case}: {said}"
        );
    }
    Ok(())
}

fn serve(fleet: &Fleet) -> Result<(bool, String)> {
    let mut command = Command::new(program("redbutton-controller")?);
    command
        .args(["serve", "--config"])
        .arg(fleet.path("controller.toml"));
    ends(&mut command, &fleet.path("serve.log"))
}

#[test]
fn a_controller_does_not_serve_from_a_place_that_others_can_change() -> Result<()> {
    let place = Place::new()?;
    let fleet = &place.fleet;
    let state = fleet.state();
    for mode in [0o770, 0o777] {
        chmod(&state, mode)?;
        let (ok, said) = serve(fleet)?;
        ensure!(!ok && said.contains("chmod go-w"), "mode {mode:o}: {said}");
    }
    chmod(&state, 0o700)?;
    chmod(&fleet.path(""), 0o777)?;
    let (ok, said) = serve(fleet)?;
    ensure!(!ok && said.contains("chmod go-w"), "a parent of mode 777: {said}");
    chmod(&fleet.path(""), 0o700)?;
    if nix::unistd::geteuid().is_root() {
        chown(&state, Some(STRANGER), Some(STRANGER))?;
        let (ok, said) = serve(fleet)?;
        ensure!(!ok && said.contains("belongs to uid"), "a stranger's: {said}");
        chown(&state, Some(0), Some(0))?;
    }
    Ok(())
}

/// Everything that `init` makes is its owner's alone, and it makes nothing in a place that is not.
#[test]
fn what_init_makes_is_its_owner_s_alone() -> Result<()> {
    let place = Place::new()?;
    let fleet = &place.fleet;
    let mut all = vec![fleet.state()];
    let mut seen = 0;
    while let Some(path) = all.pop() {
        let mode = fs::symlink_metadata(&path)?.permissions().mode();
        ensure!(mode & 0o022 == 0, "{} has mode {mode:o}", path.display());
        let holds_key =
            !path.is_dir() && fs::read_to_string(&path).is_ok_and(|text| text.contains("PRIVATE KEY"));
        if holds_key || path.is_dir() || path.extension().is_some_and(|kind| kind == "db" || kind == "key") {
            ensure!(mode & 0o077 == 0, "{} has mode {mode:o}", path.display());
            seen += 1;
        }
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                all.push(entry?.path());
            }
        }
    }
    ensure!(seen >= 4, "only {seen} secrets were found");
    let shared = fleet.path("shared");
    fs::create_dir(&shared)?;
    chmod(&shared, 0o777)?;
    let output: Output = Command::new(program("redbutton-controller")?)
        .args([
            "init",
            "--name",
            "localhost",
            "--support",
            "alice",
            "--support",
            "bob",
            "--state",
        ])
        .arg(shared.join("state"))
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && said.contains("chmod go-w"),
        "init in a shared place: {said}"
    );
    ensure!(fs::read_dir(&shared)?.count() == 0, "init left something behind");
    Ok(())
}
