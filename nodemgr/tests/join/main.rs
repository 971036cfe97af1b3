//! `redbutton-nodemgr join` with a real controller: the real program, killed at each of its steps.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use controller::admin::{self, Init};
use controller::pki::Authority;
use controller::store::{
    About, InviteRecord, Invitee, KeyStore, NewInvite, NewSite, Note, SqliteStore, Store,
};
use proto::bundle::Bundle;
use proto::{InviteId, NodeId};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect(text)
}

struct World {
    dir: tempfile::TempDir,
    port: u16,
    handle: controller::Handle,
    stop: CancellationToken,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let init = Init {
            dir: dir.path().join("state"),
            names: vec!["localhost".into()],
            support: vec![name("alice"), name("otto")],
            people: Vec::new(),
            daemons: Vec::new(),
            bundles: true,
        };
        admin::init(&init, OffsetDateTime::now_utc()).await.expect("made");
        let mut config = controller::Config {
            state: dir.path().join("state"),
            ..controller::Config::default()
        };
        config.people.listen = "127.0.0.1:0".parse().expect("an address");
        config.daemons.listen = "127.0.0.1:0".parse().expect("an address");
        let stop = CancellationToken::new();
        let handle = controller::serve(config, stop.clone()).await.expect("serves");
        Self {
            port: handle.daemons_addr.port(),
            dir,
            handle,
            stop,
        }
    }

    async fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.dir.path().join("state/redbutton.db"))
            .await
            .expect("the store")
    }

    /// A join token in a file.
    async fn token(&self, node: &str) -> (PathBuf, InviteId) {
        let store = self.store().await;
        let site = NewSite {
            name: name("princeton"),
            full_name: String::new(),
            abuse_contact: String::new(),
        };
        // There already, from the second token on.
        let _ = store.create_site(&site, note()).await;
        let ca = Authority::open(&self.dir.path().join("state"), OffsetDateTime::now_utc())
            .expect("opens")
            .ca();
        let id = InviteId::random();
        let issued = ca
            .invite(id, time::Duration::HOUR, OffsetDateTime::now_utc())
            .expect("made");
        let invite = NewInvite {
            id,
            spki: issued.spki().expect("a key"),
            invitee: Invitee::NewNode {
                id: NodeId::random(),
                name: name(node),
                site: name("princeton"),
            },
            created_by: None,
            expires_at_ms: i64::MAX,
        };
        store.create_invite(&invite, note()).await.expect("kept");
        store.close().await.expect("closed");
        let bundle = Bundle {
            format: Bundle::FORMAT,
            identity: issued.identity.to_string(),
            name: node.to_owned(),
            controllers: vec![format!("localhost:{}", self.port)],
            ca: ca.pem().to_owned(),
            certificate: issued.certificate,
            key: issued.key,
        };
        let path = self.dir.path().join(format!("{node}.token"));
        std::fs::write(&path, bundle.to_text()).expect("written");
        (path, id)
    }

    async fn invite(&self, id: InviteId) -> InviteRecord {
        let store = self.store().await;
        let invite = store.invite(id).await.expect("there");
        store.close().await.expect("closed");
        invite
    }

    /// The program's configuration, with the bundle's place.
    fn config(&self, node: &str) -> (PathBuf, PathBuf) {
        let (config, bundle) = (
            self.dir.path().join(format!("{node}.toml")),
            self.dir.path().join(format!("{node}.bundle")),
        );
        std::fs::write(&config, format!("bundle = {bundle:?}\n")).expect("written");
        (config, bundle)
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.handle.finished())
            .await
            .expect("ends");
    }
}

fn note() -> Note {
    Note {
        draft: audit::Draft {
            at_ms: 1,
            version: proto::Version {
                incarnation: 1,
                epoch: 0,
            },
            person: None,
            role: None,
            action: "test".into(),
            target: "x".into(),
            reason: String::new(),
            evidence: String::new(),
            outcome: audit::Outcome::Done,
            detail: String::new(),
            order: None,
        },
        about: About::default(),
    }
}

async fn join(config: &Path, token: &Path, crash_at: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redbutton-nodemgr"));
    command
        .arg("--config")
        .arg(config)
        .arg("join")
        .arg(token)
        .env_remove("REDBUTTON_CRASH_AT")
        .stdin(Stdio::null());
    if let Some(point) = crash_at {
        command.env("REDBUTTON_CRASH_AT", point);
    }
    // The controller serves in this very process meanwhile.
    tokio::task::spawn_blocking(move || command.output().expect("starts"))
        .await
        .expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_was_cut_down_anywhere_goes_on_with_the_same_command() {
    let world = World::new().await;
    for (number, point) in [
        "nodemgr.join-after-key",
        "nodemgr.join-before-bundle",
        "nodemgr.join-after-bundle",
    ]
    .iter()
    .enumerate()
    {
        let node = format!("n{number}");
        let (token, id) = world.token(&node).await;
        let (config, place) = world.config(&node);
        let crashed = join(&config, &token, Some(point)).await;
        assert!(crashed.status.code().is_none(), "{point}: {crashed:?}");
        let key = |path: &Path| std::fs::read_to_string(path).expect("a file");
        let made = key(&place.with_extension("bundle.joining"));

        let done = join(&config, &token, None).await;
        assert!(done.status.success(), "{point}: {done:?}");
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            said.contains("systemctl enable --now redbutton-nodemgr"),
            "{said}"
        );
        let bundle = Bundle::parse(&key(&place)).expect("a bundle");
        assert_eq!(bundle.key.expose(), made, "{point}: one key all along");
        assert!(!place.with_extension("bundle.joining").exists());
        assert!(world.invite(id).await.used.is_some());
        let secret = made.lines().nth(1).expect("base64");
        for output in [&crashed, &done] {
            assert!(!String::from_utf8_lossy(&output.stderr).contains(secret));
            assert!(!String::from_utf8_lossy(&output.stdout).contains(secret));
        }
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_used_says_so_and_leaves_no_bundle() {
    let world = World::new().await;
    let (token, _) = world.token("n1").await;
    let (config, _) = world.config("n1");
    assert!(join(&config, &token, None).await.status.success());
    let (thief, place) = world.config("thief");
    let refused = join(&thief, &token, None).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the controller refused") && said.contains("used already"),
        "{said}"
    );
    assert!(!place.exists());
    world.end().await;
}
