use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::thread::{self, JoinHandle};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use proptest::prelude::*;

use super::*;

const CAP: Duration = Duration::from_secs(30);

/// A real shell on a real terminal as the guest, its bytes pumped as QEMU would.
struct Guest {
    _dir: tempfile::TempDir,
    console: Console,
    child: Child,
    pumps: Vec<JoinHandle<()>>,
    wire: UnixStream,
}

impl Guest {
    /// After each `noise` bytes of output the kernel says something.
    fn start(shell: &[&str], noise: Option<usize>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("con")).unwrap();
        let console = Console::attach("n1", &dir.path().join("con"), &dir.path().join("con.log")).unwrap();
        let (wire, _) = listener.accept().unwrap();
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(nix::libc::O_NOCTTY);
            options.open(ptsname_r(&master).unwrap()).unwrap()
        };
        let child = Command::new("setsid")
            .arg("--ctty")
            .args(shell)
            .env("TERM", "vt100")
            .env("HOME", dir.path())
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap();
        let mut out = File::from(std::os::fd::OwnedFd::from(master));
        let (mut typed, mut from, mut to) = (
            out.try_clone().unwrap(),
            wire.try_clone().unwrap(),
            wire.try_clone().unwrap(),
        );
        let up = thread::spawn(move || {
            for (count, byte) in BufReader::new(&mut out).bytes().enumerate() {
                let Ok(byte) = byte else { return };
                if noise.is_some_and(|noise| count % noise == noise - 1) {
                    let _ = to.write_all(b"[   12.345678] eth0: link is down\r\n");
                }
                if to.write_all(&[byte]).is_err() {
                    return;
                }
            }
        });
        let down = thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut typed);
        });
        Self {
            _dir: dir,
            console,
            child,
            pumps: vec![up, down],
            wire,
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.wire.shutdown(std::net::Shutdown::Both);
        for pump in self.pumps.drain(..) {
            let _ = pump.join();
        }
    }
}

/// The shells that a guest may have, as far as this machine has them.
fn shells() -> Vec<Vec<&'static str>> {
    let all = vec![
        vec!["/bin/sh", "-i"],
        vec!["busybox", "sh", "-i"],
        vec!["bash", "--norc", "-i"],
    ];
    let there = |shell: &Vec<&str>| {
        let there = Command::new(shell[0]).arg("true").output().is_ok();
        if !there {
            println!("skipped: no {} here", shell[0]);
        }
        there
    };
    all.into_iter().filter(there).collect()
}

#[test]
fn commands_run_in_real_shells_and_keep_their_state() {
    for kind in shells() {
        let guest = Guest::start(&kind, None);
        let shell = Shell::new(&guest.console);
        let run = |command: &str| {
            let Output { status, text, cut } = shell.run(command, CAP).unwrap();
            assert_eq!(cut, 0);
            (status, text)
        };
        assert_eq!(run("echo hello"), (0, "hello\n".to_owned()), "{kind:?}");
        assert_eq!(
            run("printf 'no end'; false"),
            (1, "no end".to_owned()),
            "{kind:?}"
        );
        assert_eq!(run("(exit 42)"), (42, String::new()), "{kind:?}");
        assert_eq!(
            run("cd /proc; x=\"it's $((6*7)) \\\\ 'q'\""),
            (0, String::new()),
            "{kind:?}"
        );
        assert_eq!(
            run("pwd; echo \"$x\""),
            (0, "/proc\nit's 42 \\ 'q'\n".to_owned()),
            "{kind:?}"
        );
        assert_eq!(
            run("for i in 1 2 3\ndo\n  echo $i\ndone"),
            (0, "1\n2\n3\n".to_owned()),
            "{kind:?}"
        );
        assert_eq!(run("cat; echo eof"), (0, "eof\n".to_owned()), "{kind:?}");
        assert_eq!(run("echo a; echo; echo"), (0, "a\n\n\n".to_owned()), "{kind:?}");
        assert_eq!(run("# nothing"), (0, String::new()), "{kind:?}");
        let long = format!("echo '{}' | wc -c", "x'\\''é ".repeat(700));
        assert_eq!(run(&long), (0, format!("{}\n", 700 * 5 + 1)), "{kind:?}");
        let (status, text) = run("if");
        assert!(
            status != 0 && text.to_lowercase().contains("syntax error"),
            "{kind:?}: {status} {text}"
        );
        let (status, text) = run("no-such-command");
        assert!(
            status == 127 && text.contains("not found"),
            "{kind:?}: {status} {text}"
        );
        assert_eq!(shell.check("echo on", CAP).unwrap(), "on\n");
        let error = shell.check("echo why; false", CAP).unwrap_err().to_string();
        assert!(error.contains("got 1") && error.contains("why"), "{error}");
    }
}

#[test]
fn kernel_messages_in_between_are_tolerated() {
    for kind in shells() {
        for noise in [61, 97, 200] {
            let guest = Guest::start(&kind, Some(noise));
            let output = Shell::new(&guest.console).run("seq 1 20; (exit 7)", CAP).unwrap();
            assert_eq!(output.status, 7, "{kind:?} {noise} {}", output.text);
            // A number may be cut in two by a message; most are not.
            let numbers = output
                .text
                .lines()
                .filter(|line| line.parse::<u32>().is_ok())
                .count();
            assert!(numbers >= 15, "{kind:?} {noise} {}", output.text);
        }
    }
}

#[test]
fn a_command_that_does_not_end_is_an_error_with_the_tail_and_is_interrupted() {
    let guest = Guest::start(&["/bin/sh", "-i"], None);
    let shell = Shell::new(&guest.console);
    shell.check("true", CAP).unwrap();
    let error = shell
        .run("echo started; sleep 1000", Duration::from_secs(3))
        .unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("did not end") && error.contains("started") && error.contains("sleep 1000"),
        "{error}"
    );
    assert_eq!(shell.run("echo next", CAP).unwrap().text, "next\n");
}

#[test]
fn a_console_without_a_shell_is_an_error() {
    let guest = Guest::start(&["cat"], None);
    let error = format!(
        "{:#}",
        Shell::new(&guest.console)
            .run("true", Duration::from_millis(300))
            .unwrap_err()
    );
    // Also: the echo of what was typed is not taken for an answer.
    assert!(
        error.contains("no shell answered") && error.contains("command eval"),
        "{error}"
    );
}

#[test]
fn output_is_bounded_to_its_end() {
    let guest = Guest::start(&["/bin/sh", "-i"], None);
    let output = Shell::new(&guest.console).run("seq 1 60000", CAP).unwrap();
    assert!(output.text.len() <= OUTPUT_BOUND && output.text.ends_with("\n60000\n"));
    assert!(output.cut > 0);
}

#[test]
fn what_cannot_be_typed_is_refused() {
    assert!(typed("echo a\tb", "t").is_err());
    assert!(typed("echo \u{3}", "t").is_err());
    assert!(typed(&"x".repeat(COMMAND_BOUND + 1), "t").is_err());
}

proptest! {
    #[test]
    fn typed_lines_are_short_and_hold_no_marker(command in "[ -~\n]{0,600}") {
        let typed = typed(&command, "tag-1").unwrap();
        prop_assert!(!typed.contains("LABtag-1"));
        let longest = typed.lines().map(str::len).max().unwrap();
        prop_assert!(longest <= TYPED_BOUND + 20, "{}", longest);
    }
}
