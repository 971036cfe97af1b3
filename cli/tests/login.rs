//! Logging in, renewing, inviting and locking out: the real `redbutton` against the real controller, with a real
//! ssh-agent.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use controller::admin::{self, Init, IssueNode, IssuePerson};
use controller::{Config, Handle};
use proto::bundle::Bundle;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// Longest that a test waits for anything.
const CAP: Duration = Duration::from_secs(30);

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect(text)
}

/// A controller and a folder for homes.
struct World {
    folder: tempfile::TempDir,
    people: SocketAddr,
    shutdown: CancellationToken,
    handle: Handle,
}

/// What one run came to.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl World {
    async fn new() -> Self {
        Self::with(0, |_| ()).await
    }

    /// Made so many days ago.
    async fn with(days_ago: i64, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let init = Init {
            dir: folder.path().join("state"),
            names: vec!["localhost".into()],
            support: vec![name("alice"), name("bob")],
            people: Vec::new(),
            daemons: Vec::new(),
            bundles: false,
        };
        admin::init(&init, OffsetDateTime::now_utc() - time::Duration::days(days_ago))
            .await
            .expect("a new controller");
        let mut config = Config {
            state: init.dir,
            ..Config::default()
        };
        let nowhere: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        config.people.listen = nowhere;
        config.daemons.listen = nowhere;
        change(&mut config);
        let shutdown = CancellationToken::new();
        let handle = controller::serve(config, shutdown.clone()).await.expect("serves");
        Self {
            people: handle.people_addr,
            folder,
            shutdown,
            handle,
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn state(&self) -> PathBuf {
        self.path("state")
    }

    fn invite(&self, person: &str) -> String {
        self.path(&format!("state/invites/{person}.invite"))
            .display()
            .to_string()
    }

    fn bundle(&self, home: &str) -> PathBuf {
        self.path(home).join(".config/redbutton/bundle")
    }

    fn read(&self, home: &str) -> Bundle {
        let text = std::fs::read_to_string(self.bundle(home)).expect("a bundle");
        Bundle::parse(&text).expect("a good bundle")
    }

    fn command(&self, home: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_redbutton"));
        command
            .arg("--controller")
            .arg(format!("localhost:{}", self.people.port()))
            .args(args)
            .env("HOME", self.path(home))
            .env_remove("REDBUTTON_BUNDLE")
            .env_remove("SSH_AUTH_SOCK")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    async fn run(&self, home: &str, args: &[&str]) -> Ran {
        Ran::of(self.command(home, args)).await
    }

    async fn ok(&self, home: &str, args: &[&str]) -> String {
        let ran = self.run(home, args).await;
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        ran.stdout
    }

    /// alice, logged in; a site, a slice, a node that never comes.
    async fn furnish(&self) {
        self.ok("alice", &["login", &self.invite("alice")]).await;
        self.ok("alice", &["site", "add", "princeton"]).await;
        self.ok("alice", &["slice", "add", "princeton_codeen"]).await;
        let wish = IssueNode {
            dir: self.state(),
            name: name("n1"),
            site: Some(name("princeton")),
            out: self.path("n1.bundle"),
            addresses: Vec::new(),
            life: None,
        };
        admin::issue_node(&wish, OffsetDateTime::now_utc())
            .await
            .expect("a node");
    }

    /// dan, a developer of the slice, invited and logged in.
    async fn dan(&self) {
        let args = [
            "invite",
            "dan",
            "--role",
            "developer",
            "--slice",
            "princeton_codeen",
            "--out",
            "dan.invite",
        ];
        self.ok("alice", &args).await;
        self.ok("dan", &["login", "dan.invite"]).await;
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.handle.finished().await;
    }
}

impl Ran {
    async fn of(mut command: Command) -> Self {
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .expect("joined");
        let Output {
            status,
            stdout,
            stderr,
        } = output.expect("redbutton starts");
        Self {
            code: status.code(),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invite_becomes_a_bundle_with_a_key_of_one_s_own_once() {
    let world = World::new().await;
    let said = world.ok("alice", &["login", &world.invite("alice")]).await;
    assert!(said.contains("alice") && said.contains("valid until"), "{said}");
    assert_eq!(mode(&world.bundle("alice")), 0o600);
    let folder = std::fs::read_dir(world.path("alice/.config/redbutton")).expect("there");
    assert_eq!(folder.count(), 1, "nothing is left beside the bundle");
    let invite = std::fs::read_to_string(world.invite("alice")).expect("the invite");
    let (bundle, invite) = (world.read("alice"), Bundle::parse(&invite).expect("a bundle"));
    assert_ne!(bundle.key.expose(), invite.key.expose());
    let said = world.ok("alice", &["whoami"]).await;
    assert!(said.contains("support"), "{said}");

    let ran = world.run("thief", &["login", &world.invite("alice")]).await;
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(ran.stderr.contains("used already"), "{ran:?}");
    assert!(!world.bundle("thief").exists());
    // An invite is no bundle, a bundle no invite.
    let ran = world
        .run("alice", &["--bundle", &world.invite("bob"), "whoami"])
        .await;
    assert_eq!(ran.code, Some(64), "{ran:?}");
    assert!(ran.stderr.contains("redbutton login"), "{ran:?}");
    let own = world.bundle("alice").display().to_string();
    let ran = world.run("other", &["login", &own]).await;
    assert_eq!(ran.code, Some(64), "{ran:?}");
    assert!(ran.stderr.contains("is no invite"), "{ran:?}");
    for text in [&ran.stderr, &ran.stdout] {
        assert!(!text.contains("PRIVATE"));
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_s_bundle_is_not_overwritten_unless_told_to() {
    let world = World::new().await;
    world.ok("home", &["login", &world.invite("alice")]).await;
    let ran = world.run("home", &["login", &world.invite("bob")]).await;
    assert_eq!(ran.code, Some(64), "{ran:?}");
    assert!(
        ran.stderr.contains("in the way") && ran.stderr.contains("--force"),
        "{ran:?}"
    );
    assert_eq!(world.read("home").name, "alice");
    // Nothing was used up by that.
    let said = world
        .ok("home", &["--json", "login", "--force", &world.invite("bob")])
        .await;
    let json: serde_json::Value = serde_json::from_str(&said).expect("a document");
    assert_eq!(json["person"], "bob");
    assert_eq!(world.read("home").identity, "redbutton://person/bob");
    // The same person may log in anew over their own.
    world
        .ok("home", &["invite", "bob", "--rekey", "--out", "again.invite"])
        .await;
    assert_eq!(mode(&world.path("again.invite")), 0o600);
    let before = world.read("home");
    world.ok("home", &["login", "again.invite"]).await;
    assert_ne!(world.read("home").key.expose(), before.key.expose());
    let ran = world
        .run("home", &["invite", "bob", "--out", "again.invite"])
        .await;
    assert_eq!(ran.code, Some(64), "{ran:?}");
    assert!(ran.stderr.contains("not overwritten"), "{ran:?}");
    let keys = world.ok("home", &["people", "keys"]).await;
    assert!(keys.contains("re-keyed") && keys.contains("in use now"), "{keys}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_was_cut_off_goes_on_with_the_same_key() {
    let world = World::new().await;
    world.ok("one", &["login", &world.invite("alice")]).await;
    // As after a crash between the controller's answer and the bundle: the key waits, the bundle is not there.
    let key = world.read("one").key;
    let pending = world.path("one/.config/redbutton/bundle.pending");
    std::fs::rename(world.bundle("one"), &pending).expect("moved");
    std::fs::write(&pending, key.expose()).expect("written");
    world.ok("one", &["login", &world.invite("alice")]).await;
    assert_eq!(world.read("one").key.expose(), key.expose());
    assert!(!pending.exists());
    world.ok("one", &["whoami"]).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_renews_a_certificate_whose_half_is_over() {
    // Certificates begin an hour back: of these, more than half is always over.
    let world = World::with(0, |config| config.keys.person_certificate_minutes = 30).await;
    world.ok("alice", &["login", &world.invite("alice")]).await;
    let before = world.read("alice");
    world.ok("alice", &["whoami"]).await;
    let after = world.read("alice");
    assert_ne!(after.certificate, before.certificate, "it was not renewed");
    assert_eq!(after.key.expose(), before.key.expose());
    assert_eq!(mode(&world.bundle("alice")), 0o600);
    world.ok("alice", &["login"]).await;
    assert_ne!(world.read("alice").certificate, after.certificate);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_invited_locked_out_and_removed_sees_it_at_once() {
    let world = World::new().await;
    world.furnish().await;
    world.dan().await;
    let said = world.ok("dan", &["whoami"]).await;
    assert!(said.contains("developer of princeton_codeen"), "{said}");
    let ran = world
        .run(
            "dan",
            &["invite", "eve", "--role", "support", "--out", "eve.invite"],
        )
        .await;
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(!world.path("eve.invite").exists());

    let said = world
        .ok(
            "alice",
            &[
                "--json",
                "people",
                "revoke-keys",
                "dan",
                "--reason",
                "laptop stolen",
            ],
        )
        .await;
    let json: serde_json::Value = serde_json::from_str(&said).expect("a document");
    assert_eq!(json["keys"][0]["revoked_why"], "laptop stolen", "{said}");
    assert_eq!(json["keys"][0]["revoked_by"], "alice", "{said}");
    let ran = world.run("dan", &["whoami"]).await;
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(ran.stderr.contains("revoked"), "{ran:?}");
    let ran = world.run("dan", &["login"]).await;
    assert_eq!(ran.code, Some(5), "{ran:?}");

    world
        .ok("alice", &["invite", "dan", "--out", "again.invite"])
        .await;
    let open = world.ok("alice", &["people", "invites"]).await;
    assert!(open.contains("dan") && open.contains("a key"), "{open}");
    world.ok("dan", &["login", "again.invite"]).await;
    world.ok("dan", &["whoami"]).await;
    world.ok("alice", &["people", "remove", "dan"]).await;
    let ran = world.run("dan", &["whoami"]).await;
    assert_eq!(ran.code, Some(5), "{ran:?}");
    world.end().await;
}

/// A child that is killed with the test.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_cut_by_a_lost_role_comes_back_and_goes_on_or_is_told() {
    let world = World::new().await;
    world.furnish().await;
    world.ok("alice", &["slice", "add", "princeton_other"]).await;
    world.dan().await;
    world
        .ok(
            "alice",
            &[
                "people",
                "grant",
                "dan",
                "--role",
                "developer",
                "--slice",
                "princeton_other",
            ],
        )
        .await;
    let press = [
        "--json",
        "--no-wait",
        "kill-slice",
        "princeton_codeen",
        "--reason",
        "floods a bank",
    ];
    let pressed = world.run("dan", &press).await;
    let json: serde_json::Value = serde_json::from_str(&pressed.stdout).expect("a document");
    let order = json["order"]["id"].as_str().expect("an id").to_owned();

    let mut child = world
        .command("dan", &["order", "watch", &order])
        .spawn()
        .expect("started");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut watching = Watching(child);
    let (line, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let reading = tokio::task::spawn_blocking(move || {
        while let Some(Ok(text)) = lines.next() {
            if line.send(text).is_err() {
                return;
            }
        }
    });
    let mut told = async |what: &str| {
        let found = async {
            while let Some(text) = seen.recv().await {
                if text.contains(what) {
                    return;
                }
            }
            panic!("it ended without saying {what:?}");
        };
        tokio::time::timeout(CAP, found)
            .await
            .unwrap_or_else(|_| panic!("it never said {what:?}"));
    };
    told("0/1").await;
    let revoke = |slice: &'static str| ["people", "revoke", "dan", "--role", "developer", "--slice", slice];
    world.ok("alice", &revoke("princeton_other")).await;
    told("looking again").await;
    assert!(watching.0.try_wait().expect("a child").is_none(), "it gave up");
    world.ok("alice", &revoke("princeton_codeen")).await;
    told("refused").await;
    let status = tokio::task::spawn_blocking(move || watching.0.wait().expect("a child"))
        .await
        .expect("joined");
    assert_eq!(status.code(), Some(5));
    reading.await.expect("read to its end");
    world.end().await;
}

/// A real ssh-agent, ended with the test.
struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(folder: &Path) -> Option<Self> {
        let socket = folder.join("agent");
        let child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self { child, socket })
    }

    fn add(&self, key: &Path) -> bool {
        let mut command = Command::new("ssh-add");
        command
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", &self.socket)
            .stdin(Stdio::null());
        command.output().expect("ssh-add starts").status.success()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_in_an_ssh_agent_logs_in_and_never_leaves_it() {
    let world = World::new().await;
    let Some(agent) = Agent::start(world.folder.path()) else {
        eprintln!("skipped: there is no ssh-agent on this machine");
        return;
    };
    for (kind, bits, person) in [("ed25519", "256", "alice"), ("ecdsa", "256", "bob")] {
        let key = world.path(kind);
        let made = Command::new("ssh-keygen")
            .args([
                "-q",
                "-t",
                kind,
                "-b",
                bits,
                "-N",
                "",
                "-C",
                &format!("{kind} of {person}"),
                "-f",
            ])
            .arg(&key)
            .status();
        assert!(made.expect("ssh-keygen starts").success());
        tokio::time::timeout(CAP, async {
            while !agent.add(&key) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("the agent takes the key");
        std::fs::remove_file(&key).expect("only the agent has it now");

        let run = async |args: &[&str]| {
            let mut command = world.command(person, args);
            command.env("SSH_AUTH_SOCK", &agent.socket);
            Ran::of(command).await
        };
        let ran = run(&["login", "--ssh-agent", "nothing", &world.invite(person)]).await;
        assert_eq!(ran.code, Some(64), "{ran:?}");
        assert!(
            ran.stderr.contains(&format!("{kind} of {person}")),
            "it lists what there is: {ran:?}"
        );
        let ran = run(&[
            "login",
            "--ssh-agent",
            &format!("{kind} of {person}"),
            &world.invite(person),
        ])
        .await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(world.read(person).key.expose(), "ssh-agent");
        let ran = run(&["whoami"]).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stdout.contains(person), "{ran:?}");
        let ran = run(&["login"]).await;
        assert_eq!(ran.code, Some(0), "renewal: {ran:?}");
        // Without the agent there is no key.
        let ran = world.run(person, &["whoami"]).await;
        assert_eq!(ran.code, Some(64), "{ran:?}");
        assert!(ran.stderr.contains("SSH_AUTH_SOCK"), "{ran:?}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_ended_is_renewed_before_dialling() {
    let world = World::with(180, |_| ()).await;
    let wish = IssuePerson {
        dir: world.state(),
        name: name("alice"),
        out: world.path("alice.bundle"),
        addresses: Vec::new(),
        life: Some(time::Duration::DAY),
    };
    let days_ago = |days| OffsetDateTime::now_utc() - time::Duration::days(days);
    admin::issue_person(&wish, days_ago(3)).await.expect("a bundle");
    let bundle = || std::fs::read_to_string(&wish.out).expect("a bundle");
    let ended = bundle();
    let file = wish.out.display().to_string();
    let said = world.ok("alice", &["--bundle", &file, "whoami"]).await;
    assert!(said.contains("support"), "{said}");
    assert_ne!(bundle(), ended);
    // Too long ago: told what to do.
    let late = IssuePerson {
        out: world.path("late.bundle"),
        ..wish.clone()
    };
    admin::issue_person(&late, days_ago(40)).await.expect("a bundle");
    let ran = world
        .run("alice", &["--bundle", &late.out.display().to_string(), "login"])
        .await;
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(ran.stderr.contains("ask support for an invite"), "{ran:?}");
    let ran = world
        .run("alice", &["--bundle", &late.out.display().to_string(), "whoami"])
        .await;
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("ask support for an invite"), "{ran:?}");
    let ran = world.run("bob", &["login", &world.invite("bob")]).await;
    assert_eq!(ran.code, Some(64), "{ran:?}");
    assert!(ran.stderr.contains("bob.invite has expired"), "{ran:?}");
    world.end().await;
}
