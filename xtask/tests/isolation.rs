//! `cargo xtask isolate`, driven as a person would: what must never get out of it, and that nothing of it remains.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// `false` and a line for the runner when this machine cannot isolate.
fn can_isolate() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: making namespaces needs root");
    }
    root
}

fn isolate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("isolate");
    command
}

fn bash(script: &str) -> Output {
    isolate()
        .args(["--", "bash", "-c", script])
        .output()
        .expect("xtask starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let cap = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < cap, "{what}: not within 30 s");
        std::thread::yield_now();
    }
}

fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

/// Whether some process has this word on its command line.
fn runs(word: &str) -> bool {
    fs::read_dir("/proc").expect("readable").flatten().any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|argument| argument == word.as_bytes())
    })
}

#[test]
fn the_command_lives_in_a_world_of_its_own() {
    if !can_isolate() {
        return;
    }
    let output = bash(
        "echo pid1=$(tr '\\0' ' ' </proc/1/cmdline); hostname=$(cat /proc/sys/kernel/hostname); echo $hostname; \
         ls -l /proc/self/ns/pid; exec 3<>/dev/tcp/127.0.0.1/9 || echo lo answers",
    );
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{error}");
    assert!(out.contains("isolate-init"), "{out}");
    assert!(out.contains("redbutton-xtask"), "{out}");
    let ours = fs::read_link("/proc/self/ns/pid").expect("a namespace");
    assert!(!out.contains(&*ours.to_string_lossy()), "{out}");
    // Refused, not unreachable: lo is up and nobody listens.
    assert!(out.contains("Connection refused"), "{out}");
    assert!(out.contains("lo answers"), "{out}");
}

#[test]
fn exit_codes_and_output_come_through_in_order() {
    if !can_isolate() {
        return;
    }
    let output = bash("echo one; echo two >&2; echo three; exit 42");
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(text(&output.stdout), "one\ntwo\nthree\n");
}

#[test]
fn signals_reach_the_command() {
    if !can_isolate() {
        return;
    }
    // xtask blocks these for itself, and a signal mask is inherited.
    let output = bash(
        "grep -E '^Sig(Blk|Ign)' /proc/self/status; for s in INT TERM HUP QUIT; do (kill -$s $BASHPID; echo deaf to $s); done",
    );
    let out = text(&output.stdout);
    assert!(out.contains("SigBlk:\t0000000000000000"), "{out}");
    assert!(!out.lines().any(|line| line.starts_with("deaf")), "{out}");
}

#[test]
fn what_could_reset_the_machine_is_masked() {
    if !can_isolate() {
        return;
    }
    let output = bash(
        "for file in /proc/sysrq-trigger /dev/watchdog*; do [ ! -e $file ] || stat -L -c '%t:%T %n' $file; done",
    );
    // /dev/null is character device 1:3. Machines without these files have nothing to mask.
    for line in text(&output.stdout).lines() {
        assert!(line.starts_with("1:3 "), "{line}");
    }
    assert!(output.status.success());
}

#[test]
fn a_process_left_behind_is_named_and_killed() {
    if !can_isolate() {
        return;
    }
    let word = format!("4242.{}", std::process::id());
    let output = bash(&format!("setsid sleep {word} >/dev/null 2>&1 & exit 0"));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains(&format!("(sleep {word})")),
        "{}",
        text(&output.stderr)
    );
    until("the sleeper dies", || !runs(&word));
}

#[test]
fn a_cgroup_left_behind_is_named_and_removed() {
    if !can_isolate() {
        return;
    }
    let Some(mount) = cgroup2() else {
        println!("skipped: no cgroup v2 is mounted here");
        return;
    };
    let output = bash(&format!("mkdir -p {}/redbutton-leak/inner", mount.display()));
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("cgroup redbutton-leak/inner"), "{error}");
    assert!(
        !mount.join("redbutton-leak").exists(),
        "it was made in the real tree"
    );
}

#[test]
fn the_end_of_time_kills_everybody() {
    if !can_isolate() {
        return;
    }
    let word = format!("4343.{}", std::process::id());
    let output = isolate()
        .args(["--cap-seconds", "1", "--", "bash", "-c"])
        .arg(format!("trap '' TERM INT; sleep {word}"))
        .output()
        .expect("xtask starts");
    assert!(
        text(&output.stderr).contains("its limit"),
        "{}",
        text(&output.stderr)
    );
    assert!(!output.status.success());
    assert!(!runs(&word));
}

/// Starts a sleeper inside, ends xtask by this signal, and waits until nothing remains of either.
fn end_by(signal: Signal, seconds: &str) -> (Option<i32>, u32) {
    let word = format!("{seconds}.{}", std::process::id());
    let mut child = isolate()
        .args(["--", "bash", "-c"])
        .arg(format!("setsid sleep {word} & echo ready; wait"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("xtask starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("a line");
    assert_eq!(line, "ready\n");
    until("the sleeper runs", || runs(&word));
    kill(
        Pid::from_raw(i32::try_from(child.id()).expect("a process id")),
        signal,
    )
    .expect("it lives");
    let status = child.wait().expect("it ends");
    until("the sleeper dies", || !runs(&word));
    (status.code(), child.id())
}

#[test]
fn ctrl_c_leaves_nothing() {
    if !can_isolate() {
        return;
    }
    let (code, pid) = end_by(Signal::SIGINT, "4444");
    assert_eq!(code, Some(130));
    if let Some(mount) = cgroup2() {
        assert!(!mount.join(format!("redbutton-xtask-{pid}")).exists());
    }
}

#[test]
fn kill_9_of_xtask_leaves_no_process_and_the_next_run_removes_its_cgroup() {
    if !can_isolate() {
        return;
    }
    let (_, pid) = end_by(Signal::SIGKILL, "4545");
    let Some(mount) = cgroup2() else {
        println!("skipped: no cgroup v2 is mounted here");
        return;
    };
    let left = mount.join(format!("redbutton-xtask-{pid}"));
    until("the last process leaves the cgroup", || {
        fs::read_to_string(left.join("cgroup.events")).is_ok_and(|events| events.contains("populated 0"))
    });
    assert!(bash("true").status.success());
    assert!(!left.exists());
}

#[test]
fn without_root_a_process_that_holds_the_output_holds_nobody_up() {
    if !can_isolate() {
        return;
    }
    // As the user nobody: unisolated, so that only the process group says what belongs to the run. The program is
    // copied to where that user may start it.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(folder.path(), open).expect("ours");
    let program = folder.path().join("xtask");
    fs::copy(env!("CARGO_BIN_EXE_xtask"), &program).expect("copied");
    let word = format!("4646.{}", std::process::id());
    let output = Command::new(&program)
        .args([
            "isolate",
            "--",
            "sh",
            "-c",
            &format!("id -u; sleep {word} & exit 3"),
        ])
        .env("TMPDIR", folder.path())
        .current_dir(folder.path())
        .uid(65534)
        .gid(65534)
        .output()
        .expect("xtask starts");
    assert_eq!(text(&output.stdout), "65534\n", "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(3));
    until("the sleeper dies", || !runs(&word));
}
