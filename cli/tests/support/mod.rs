//! A controller that says what it is told to say, over real mutual TLS, and the real `redbutton` beside it.

pub(crate) mod fake;
pub(crate) mod pki;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use proto::bundle::{Bundle, SecretPem};

use nix::pty::{OpenptyResult as Pty, openpty};
use pki::Credentials;

/// A home directory with a bundle in it.
pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
}

impl Home {
    /// Writes a bundle that dials `controllers` as `who`, trusting `ca`.
    pub(crate) fn new(ca: &str, who: &Credentials, controllers: &[String]) -> Self {
        let bundle = Bundle {
            format: Bundle::FORMAT,
            identity: "redbutton://person/alice".into(),
            name: "alice".into(),
            controllers: controllers.to_vec(),
            ca: ca.to_owned(),
            certificate: who.certificate.clone(),
            key: SecretPem::new(who.key.clone()),
        };
        let home = Self {
            dir: tempfile::tempdir().expect("a directory"),
        };
        std::fs::create_dir_all(home.bundle().parent().expect("a parent")).expect("made");
        std::fs::write(home.bundle(), bundle.to_text()).expect("written");
        home.chmod(0o600);
        home
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.dir.path().join(".config/redbutton/bundle")
    }

    pub(crate) fn chmod(&self, mode: u32) {
        std::fs::set_permissions(self.bundle(), std::fs::Permissions::from_mode(mode)).expect("mode set");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_redbutton"));
        command
            .args(args)
            .env("HOME", self.dir.path())
            .env_remove("REDBUTTON_BUNDLE")
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `redbutton` to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.command(args);
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .expect("joined");
        Ran::of(output.expect("redbutton starts"))
    }

    /// Runs `redbutton` at a terminal of its own (stdin and stderr; stdout is a pipe), where a person answers
    /// once `question` is shown. What the terminal showed is in `stderr`.
    pub(crate) async fn run_at_terminal(
        &self,
        args: &[&str],
        question: &'static str,
        answer: &'static str,
    ) -> Ran {
        let Pty { master, slave } = openpty(None, None).expect("a terminal");
        let mut command = self.command(args);
        command
            .stdin(slave.try_clone().expect("a descriptor"))
            .stderr(slave);
        let child = command.spawn().expect("redbutton starts");
        // The command holds the terminal's other end open until it is dropped.
        drop(command);
        let talk = move || {
            let mut terminal = File::from(master);
            let mut shown = Vec::new();
            let mut answered = false;
            let mut piece = [0_u8; 4096];
            // A terminal whose last user has gone answers EIO.
            while let Ok(read @ 1..) = terminal.read(&mut piece) {
                shown.extend_from_slice(&piece[..read]);
                if !answered && String::from_utf8_lossy(&shown).contains(question) {
                    terminal.write_all(answer.as_bytes()).expect("typed");
                    answered = true;
                }
            }
            let mut output = child.wait_with_output().expect("waited");
            output.stderr = shown;
            output
        };
        Ran::of(tokio::task::spawn_blocking(talk).await.expect("joined"))
    }

    /// Runs `redbutton` and interrupts it once its stderr has a line with `sign`.
    pub(crate) async fn run_until(&self, args: &[&str], sign: &'static str) -> Ran {
        let mut child: Child = self.command(args).spawn().expect("redbutton starts");
        let interrupted = move || {
            let mut reader = BufReader::new(child.stderr.take().expect("piped"));
            let mut stderr = String::new();
            while !stderr.contains(sign) {
                let read = reader.read_line(&mut stderr).expect("readable");
                assert!(read > 0, "ended before {sign:?}: {stderr}");
            }
            let kill = Command::new("sh")
                .arg("-c")
                .arg(format!("kill -INT {}", child.id()))
                .status();
            assert!(kill.expect("sh starts").success());
            reader.read_to_string(&mut stderr).expect("readable");
            let mut output = child.wait_with_output().expect("waited");
            output.stderr = stderr.into_bytes();
            output
        };
        Ran::of(tokio::task::spawn_blocking(interrupted).await.expect("joined"))
    }
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}
