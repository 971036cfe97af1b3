//! Trying a program before anything depends on it: as a child, with our configuration.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{NAME, PACKAGED, SELF};

/// For each of the two questions.
const DEADLINE: Duration = Duration::from_secs(20);
/// Bytes of what it says that are read.
const SAYS: u64 = 4 << 10;

/// Asks a program who it is, and whether it can work with this configuration on this machine. Blocking.
pub(super) fn try_out(program: &Path, version: &str, config: &Path) -> Result<(), String> {
    let said = run(program, |command| command.arg("--version"))?;
    let expected = format!("{NAME} {version}");
    if said.trim() != expected {
        return Err(format!(
            "it calls itself {:?}, expected {expected:?}",
            said.trim()
        ));
    }
    run(program, |command| {
        command.arg("--config").arg(config).arg("check")
    })
    .map(drop)
}

fn run(program: &Path, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<String, String> {
    let said = program.with_file_name("said");
    let failed = |error: &dyn std::fmt::Display| format!("trying it: {error}");
    let file = File::create(&said).map_err(|e| failed(&e))?;
    let mut command = Command::new(program);
    arguments(&mut command)
        .env_remove(SELF)
        .env_remove(PACKAGED)
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(file.try_clone().map_err(|e| failed(&e))?)
        .stderr(file);
    let mut child = command.spawn().map_err(|e| failed(&e))?;
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if Instant::now() < deadline => std::thread::park_timeout(Duration::from_millis(10)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                break Err(format!("trying it took longer than {DEADLINE:?}"));
            }
            Err(error) => break Err(failed(&error)),
        }
    };
    let mut bytes = Vec::new();
    let read = File::open(&said).and_then(|file| file.take(SAYS).read_to_end(&mut bytes));
    let _ = std::fs::remove_file(&said);
    let status = status?;
    read.map_err(|e| failed(&e))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if status.success() {
        return Ok(text);
    }
    let last = text
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or_default();
    Err(format!("tried, it ended with {status}: {last:.200}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("program");
        std::fs::write(&path, text).expect("a script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("its mode");
        (dir, path)
    }

    #[test]
    fn a_program_says_its_version_and_takes_the_configuration() {
        let good = "#!/bin/sh\n[ \"$1\" = --version ] && echo redbutton-nodemgr 0.2.0\n[ \"$3\" = check ] || [ $# = 1 ]\n";
        let (_dir, path) = script(good);
        let config = Path::new("/etc/redbutton/nodemgr.toml");
        assert_eq!(try_out(&path, "0.2.0", config), Ok(()));
        let other = try_out(&path, "0.3.0", config).expect_err("another version");
        assert!(other.contains("0.2.0") && other.contains("0.3.0"), "{other}");
        let (_dir, path) = script(&good.replace("[ \"$3\" = check ] ||", "echo no such key >&2; false ||"));
        let refused = try_out(&path, "0.2.0", config).expect_err("a wrong configuration");
        assert!(refused.contains("no such key"), "{refused}");
        let (_dir, path) = script("not a program");
        assert!(try_out(&path, "0.2.0", config).is_err());
    }
}
