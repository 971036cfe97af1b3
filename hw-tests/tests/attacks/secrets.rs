//! Secrets are searched for where they leak: arguments, environment, logs at their loudest, error texts, core dumps.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use hw_tests::fleet::{Daemon, Fleet, program, unable, wait_for};

use crate::wire::*;

/// Lines of private keys, each of which betrays one.
fn needles(fleet: &Fleet, files: &[std::path::PathBuf]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![fleet.state()];
    let mut files = files.to_vec();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        let mut inside = false;
        for line in text.lines() {
            if line.contains("-----BEGIN") && line.contains("PRIVATE KEY") {
                inside = true;
            } else if line.contains("-----END") {
                inside = false;
            } else if inside && line.len() >= 16 {
                // The head of a key is the same for all keys of a kind; the end is the key.
                found.push(line[line.len() - 16..].to_owned());
            }
        }
    }
    ensure!(
        found.len() >= 4,
        "only {} lines of keys: what is searched for?",
        found.len()
    );
    Ok(found)
}

fn search(where_: &str, bytes: &[u8], needles: &[String]) -> Result<()> {
    let text = String::from_utf8_lossy(bytes);
    ensure!(
        !needles.iter().any(|needle| text.contains(needle)),
        "a private key is in {where_}"
    );
    for word in ["PRIVATE KEY", "(secret)-----"] {
        ensure!(!text.contains(word), "{word:?} is in {where_}");
    }
    Ok(())
}

fn search_process(name: &str, pid: u32, needles: &[String]) -> Result<()> {
    for file in ["cmdline", "environ"] {
        let path = format!("/proc/{pid}/{file}");
        let bytes = std::fs::read(&path).with_context(|| path.clone())?;
        ensure!(!bytes.is_empty() || file == "environ", "{path} is empty");
        search(&format!("{name}: {path}"), &bytes, needles)?;
    }
    Ok(())
}

fn dumps_no_core(name: &str, pid: u32) -> Result<()> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find(|line| line.starts_with("Max core file size"));
    let line = line.context("no core limit")?;
    let numbers: Vec<&str> = line
        .split_whitespace()
        .filter(|word| word.parse::<u64>().is_ok())
        .collect();
    ensure!(numbers == ["0", "0"], "{name} may dump its memory: {line}");
    Ok(())
}

/// Where dumps go to a program, the limit is ignored: what counts then is that the process is not dumpable. The kernel
/// shows it by whom its files belong to, once it is not root's anyway: so the daemon is run as somebody else.
#[test]
fn a_controller_of_an_ordinary_user_cannot_be_looked_into_by_that_user() -> Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    use std::os::unix::process::CommandExt;
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can run it as somebody else");
        return Ok(());
    }
    const NOBODY: u32 = 65_534;
    let mut fleet = controller()?;
    fleet.kill_controller();
    let mut all = vec![fleet.path("")];
    while let Some(path) = all.pop() {
        chown(&path, Some(NOBODY), Some(NOBODY))?;
        if path.is_dir() {
            all.extend(std::fs::read_dir(&path)?.filter_map(|entry| Some(entry.ok()?.path())));
        }
    }
    // A copy that anybody may run, wherever the build is.
    let copy = fleet.path("controller-copy");
    std::fs::copy(program("redbutton-controller")?, &copy)?;
    let mut command = Command::new(&copy);
    command
        .args(["serve", "--config"])
        .arg(fleet.path("controller.toml"));
    command.uid(NOBODY).gid(NOBODY);
    let mut daemon = Daemon::start("controller", &mut command, &fleet.path("nobody.log"))?;
    let people = fleet.people();
    daemon.wait_for("the port", || {
        std::net::TcpStream::connect(&people).ok().map(drop)
    })?;
    let pid = daemon.pid();
    dumps_no_core("controller", pid)?;
    let owner = std::fs::metadata(format!("/proc/{pid}/mem"))?.uid();
    ensure!(owner == 0, "uid {owner} can look into the controller's memory");
    Ok(())
}

#[test]
fn no_key_is_in_arguments_environment_logs_or_dumps() -> Result<()> {
    if let Some(reason) = unable() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let mut fleet = Fleet::start_with("[log]\nfilter = \"trace\"\n")?;
    fleet.site("princeton")?;
    fleet.slice("princeton_codeen")?;
    fleet.person("dan", &["--role", "developer", "--slice", "princeton_codeen"])?;
    let bundle = fleet.enrol("planet1", "princeton")?;
    let needles = needles(&fleet, &[bundle.clone(), fleet.bundle("dan")])?;

    // A node manager at its loudest, on a slivers' root of its own.
    let root = format!("redbutton-test-{}-secrets", std::process::id());
    let config = fleet.path("planet1.toml");
    std::fs::write(
        &config,
        format!(
            "bundle = {bundle:?}\nstate_dir = {:?}\nsocket = {:?}\nslivers_root = {root:?}\n",
            fleet.path("planet1-state"),
            fleet.path("planet1.sock")
        ),
    )?;
    let mut command = Command::new(program("redbutton-nodemgr")?);
    command
        .args(["run", "--config"])
        .arg(&config)
        .env("REDBUTTON_LOG", "trace");
    let log = fleet.path("planet1.log");
    let node = Daemon::start("planet1", &mut command, &log)?;
    fleet.attached("planet1")?;

    let mut said = Vec::new();
    for (person, words) in [
        (
            "alice",
            &["kill-slice", "princeton_codeen", "--reason", "worm"][..],
        ),
        ("alice", &["whoami"]),
        ("alice", &["node", "show", "planet1"]),
        ("dan", &["slice", "kill", "princeton_codeen", "--reason", "mine"]),
        ("dan", &["node", "reboot", "planet1", "--reason", "not mine"]),
    ] {
        let mut redbutton = Command::new(program("redbutton")?);
        redbutton
            .args(words)
            .env("REDBUTTON_BUNDLE", fleet.bundle(person))
            .env("RUST_LOG", "trace")
            .env("RUST_BACKTRACE", "full")
            .stdin(Stdio::null());
        let output = redbutton.output()?;
        said.extend(output.stdout);
        said.extend(output.stderr);
    }
    // Bundles that are broken in every line: errors that quote what they could not read would quote the key.
    let text = std::fs::read_to_string(&bundle)?;
    let broken = fleet.path("broken.bundle");
    for cut in (0..text.len()).step_by(97) {
        for damaged in [
            text[..cut].to_owned(),
            format!("{}\u{1}{}", &text[..cut], &text[cut..]),
        ] {
            write_private(&broken, &damaged)?;
            let output = Command::new(program("redbutton")?)
                .args(["--bundle"])
                .arg(&broken)
                .args(["--timeout", "1", "whoami"])
                .stdin(Stdio::null())
                .output()?;
            said.extend(output.stdout);
            said.extend(output.stderr);
        }
    }
    search("what redbutton says", &said, &needles)?;

    let controller = fleet.controller().pid();
    for (name, pid) in [("controller", controller), ("node manager", node.pid())] {
        search_process(name, pid, &needles)?;
        dumps_no_core(name, pid)?;
    }
    for log in [fleet.path("controller.log"), log] {
        let bytes = std::fs::read(&log)?;
        ensure!(bytes.len() > 1_000, "{} is not loud", log.display());
        search(&log.display().to_string(), &bytes, &needles)?;
    }
    // What is kept beside the keys themselves.
    let mut databases = 0;
    for entry in std::fs::read_dir(fleet.state())? {
        let path = entry?.path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains(".db"))
        {
            databases += 1;
            search(&path.display().to_string(), &std::fs::read(&path)?, &needles)?;
        }
    }
    ensure!(databases > 0, "no database was searched");
    for entry in std::fs::read_dir(fleet.path("planet1-state"))? {
        let path = entry?.path();
        if path.is_file() {
            search(&path.display().to_string(), &std::fs::read(&path)?, &needles)?;
        }
    }
    drop(node);
    let cgroup = nodemgr::cgroup::Mount::discover(Path::new("/proc/self/mountinfo"))?
        .root()
        .join(&root);
    let slice = cgroup.join("princeton_codeen");
    let _ = std::fs::remove_dir(slice);
    wait_for("the slivers' root to go", || {
        for entry in std::fs::read_dir(&cgroup).into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(entry.path());
        }
        let _ = std::fs::remove_dir(&cgroup);
        (!cgroup.exists()).then_some(())
    })
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
