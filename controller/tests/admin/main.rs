//! `init` and `issue`: what they leave on the disk, and what they refuse.

mod ca;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use controller::admin::{
    AdminError, Init, InvitePerson, IssueNode, IssuePerson, init, invite_person, issue_node, issue_person,
};
use controller::pki::Authority;
use controller::store::{About, Holder, Invitee, KeyStore, NewPerson, NewSite, Note, SqliteStore, Store};
use proto::bundle::Bundle;
use proto::{DaemonRole, Identity, Version};
use time::{Duration, OffsetDateTime};

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect(text)
}

fn wish(dir: &Path) -> Init {
    Init {
        dir: dir.to_owned(),
        names: vec!["localhost".into(), "127.0.0.1".into()],
        support: vec![name("alice"), name("bob")],
        people: Vec::new(),
        daemons: vec!["localhost:17444".into()],
        bundles: true,
    }
}

fn note(action: &str) -> Note {
    Note {
        draft: audit::Draft {
            at_ms: 1,
            version: Version {
                incarnation: 1,
                epoch: 1,
            },
            person: Some(name("alice")),
            role: None,
            action: action.into(),
            target: "x".into(),
            reason: "a test".into(),
            evidence: String::new(),
            outcome: audit::Outcome::Allowed,
            detail: String::new(),
            order: None,
        },
        about: About::default(),
    }
}

fn read_bundle(path: &Path) -> Bundle {
    assert_eq!(
        fs::metadata(path).expect("there").permissions().mode() & 0o777,
        0o600,
        "{}",
        path.display()
    );
    Bundle::parse(&fs::read_to_string(path).expect("readable")).expect("a bundle")
}

/// Everything below a directory, by relative path.
fn tree(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                todo.push(path.clone());
            }
            found.push(path.strip_prefix(dir).expect("below").display().to_string());
        }
    }
    found.sort();
    found
}

/// Both ends of a TLS connection in memory: the controller's files on one, the bundle on the other.
fn shake_hands(dir: &Path, bundle: &Bundle) -> Result<(), String> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
    use std::sync::Arc;
    let read = |file: &str| fs::read_to_string(dir.join(file)).expect(file);
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    let chain = |pem: &str| {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .expect("a chain")
    };
    let view = Authority::open(dir, now()).expect("opens").view();
    let (shown, shown_key) = view.controller();
    let key = |pem: &str| PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key");
    let roots = |pem: &str| {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(pem)).expect("a CA");
        Arc::new(roots)
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&read("ca.pem")), Arc::clone(&provider));
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("roots"))
        .with_single_cert(chain(shown), key(shown_key.expose()))
        .expect("the controller's pair");
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots(&bundle.ca))
        .with_client_auth_cert(chain(&bundle.certificate), key(bundle.key.expose()))
        .expect("the bundle's pair");
    let mut server = ServerConnection::new(Arc::new(server)).expect("a server");
    let mut client =
        ClientConnection::new(Arc::new(client), "localhost".try_into().expect("a name")).expect("a client");
    for _ in 0..10 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("in memory");
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            server.read_tls(&mut wire).expect("in memory");
            server.process_new_packets().map_err(|error| error.to_string())?;
        }
        let mut wire = Vec::new();
        server.write_tls(&mut wire).expect("in memory");
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).expect("in memory");
            client.process_new_packets().map_err(|error| error.to_string())?;
        }
    }
    if server.is_handshaking() || client.is_handshaking() {
        Err("no end to it".into())
    } else {
        Ok(())
    }
}

#[tokio::test]
async fn init_makes_a_whole_controller() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("state");
    let done = init(&wish(&dir), now()).await.expect("made");
    assert_eq!(
        tree(&dir),
        [
            "addresses.toml",
            "bundles",
            "bundles/alice.bundle",
            "bundles/bob.bundle",
            "ca.pem",
            "pki.lock",
            "pki.sealed",
            "redbutton.db",
            "seal.key"
        ]
    );
    assert_eq!(tree(place.path()).len(), 10, "nothing is left beside it");
    for file in tree(&dir) {
        let mode = fs::metadata(dir.join(&file)).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, if file == "bundles" { 0o700 } else { 0o600 }, "{file}");
    }
    assert_eq!(
        fs::metadata(&dir).expect("there").permissions().mode() & 0o777,
        0o700
    );
    let shown = done.to_string();
    assert!(
        shown.contains("sealed with the file")
            && shown.contains("state/seal.key, mode 0600")
            && shown.contains("bob.bundle"),
        "{shown}"
    );

    assert_eq!(
        done.bundles,
        [dir.join("bundles/alice.bundle"), dir.join("bundles/bob.bundle")]
    );
    for (path, person) in done.bundles.iter().zip(["alice", "bob"]) {
        let bundle = read_bundle(path);
        assert_eq!(
            bundle.identity().expect("somebody"),
            Identity::Person(name(person))
        );
        assert_eq!(bundle.controllers, ["localhost:7443", "127.0.0.1:7443"]);
        shake_hands(&dir, &bundle).expect("a connection");
    }

    let store = SqliteStore::open(&dir.join("redbutton.db"))
        .await
        .expect("the store");
    for person in ["alice", "bob"] {
        assert_eq!(
            store.person(&name(person)).await.expect("there").grants,
            [authz::Grant::Support]
        );
    }
    let entries = store.audit_from(1, 10).await.expect("entries");
    let actions: Vec<_> = entries.iter().map(|entry| entry.said.action.as_str()).collect();
    assert_eq!(actions, ["init", "init-person", "init-person"]);
    assert!(
        entries
            .iter()
            .all(|entry| entry.said.person.is_none() && entry.said.detail.contains('@'))
    );
    audit::verify(entries.iter(), None, &[]).expect("a chain");
}

/// What people type: no key of theirs is made here.
#[tokio::test]
async fn init_invites_the_first_two_and_root_can_invite_them_again() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("state");
    let wish = Init {
        bundles: false,
        ..wish(&dir)
    };
    let done = init(&wish, now()).await.expect("made");
    assert!(!dir.join("bundles").exists() && done.bundles.is_empty());
    assert_eq!(
        done.invites,
        [dir.join("invites/alice.invite"), dir.join("invites/bob.invite")]
    );
    let shown = done.to_string();
    assert!(
        shown.contains(&format!(
            "redbutton login {}",
            dir.join("invites/bob.invite").display()
        )),
        "{shown}"
    );
    let again = InvitePerson {
        dir: dir.clone(),
        name: name("alice"),
        out: place.path().join("again.invite"),
        addresses: vec!["localhost:1".into()],
        life: Some(Duration::HOUR),
        rekey: true,
    };
    let made = invite_person(&again, now()).await.expect("made");
    assert!(made.to_string().contains("redbutton login"), "{made}");
    let error = invite_person(&again, now()).await.expect_err("there already");
    assert!(matches!(error, AdminError::File(_)), "{error}");
    let nobody = InvitePerson {
        name: name("nobody"),
        out: place.path().join("nobody.invite"),
        ..again.clone()
    };
    let error = invite_person(&nobody, now()).await.expect_err("nobody");
    assert!(matches!(error, AdminError::UnknownPerson { .. }), "{error}");

    let store = SqliteStore::open(&dir.join("redbutton.db"))
        .await
        .expect("the store");
    let open = store.open_invites(0).await.expect("read");
    assert_eq!(open.len(), 3);
    for (path, rekey) in [(&done.invites[0], false), (&again.out, true)] {
        let invite = read_bundle(path);
        assert_eq!(invite.name, "alice");
        let Identity::Invite(id) = invite.identity().expect("somebody") else {
            panic!("{} is no invite", invite.identity);
        };
        let record = open.iter().find(|record| record.id == id).expect("kept");
        let alice = Invitee::Person {
            name: name("alice"),
            at_most: vec![authz::Grant::Support],
            rekey,
        };
        assert_eq!((&record.invitee, &record.created_by), (&alice, &None));
        shake_hands(&dir, &invite).expect("a connection");
    }
    assert!(
        store
            .keys_of(&Holder::Person(name("alice")))
            .await
            .expect("read")
            .is_empty()
    );
    assert!(
        store
            .ties(&name("alice"), &name("bob"), 0)
            .await
            .expect("read")
            .is_empty()
    );
}

#[tokio::test]
async fn init_touches_nothing_that_is_there() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("state");
    fs::create_dir(&dir).expect("made");
    fs::write(dir.join("precious"), "x").expect("written");
    let error = init(&wish(&dir), now()).await.expect_err("not empty");
    assert!(matches!(error, AdminError::NotEmpty { .. }), "{error}");
    assert!(error.to_string().contains("state is not empty"), "{error}");
    assert_eq!(tree(place.path()), ["state", "state/precious"]);

    let twice = place.path().join("twice");
    init(&wish(&twice), now()).await.expect("made");
    let ca = fs::read(twice.join("ca.pem")).expect("there");
    init(&wish(&twice), now()).await.expect_err("not empty");
    assert_eq!(fs::read(twice.join("ca.pem")).expect("there"), ca);
}

#[tokio::test]
async fn an_empty_directory_is_filled_and_stays_its_owners() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("state");
    fs::create_dir(&dir).expect("made");
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: another owner needs root");
        return;
    }
    std::os::unix::fs::chown(&dir, Some(4_711), Some(4_712)).expect("given away");
    init(&wish(&dir), now()).await.expect("made");
    for file in tree(&dir)
        .into_iter()
        .map(|file| dir.join(file))
        .chain([dir.clone()])
    {
        let meta = fs::metadata(&file).expect("there");
        assert_eq!((meta.uid(), meta.gid()), (4_711, 4_712), "{}", file.display());
    }
}

#[tokio::test]
async fn a_wrong_wish_is_named_and_leaves_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("state");
    let with = |change: fn(&mut Init)| {
        let mut wish = wish(&dir);
        change(&mut wish);
        wish
    };
    for (wish, expected) in [
        (
            with(|wish| wish.names.clear()),
            "at least one DNS name or IP address",
        ),
        (
            with(|wish| wish.names.push("Not a name".into())),
            "server name \"Not a name\" is neither",
        ),
        (
            with(|wish| wish.support.clear()),
            "at least two support people, each once, got: none",
        ),
        (
            with(|wish| wish.support.truncate(1)),
            "at least two support people, each once, got: alice",
        ),
        (
            with(|wish| wish.support = vec![name("eve"), name("eve")]),
            "each once, got: eve, eve",
        ),
        (
            with(|wish| wish.people = vec!["localhost".into()]),
            "address \"localhost\" is not HOST:PORT",
        ),
        (
            with(|wish| wish.daemons = vec!["localhost:99999".into()]),
            "address \"localhost:99999\" is not HOST:PORT",
        ),
    ] {
        let error = init(&wish, now()).await.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(tree(place.path()).is_empty(), "{expected}: something was left");
    }
}

async fn controller(place: &Path) -> (PathBuf, SqliteStore) {
    let dir = place.join("state");
    init(&wish(&dir), now()).await.expect("made");
    let store = SqliteStore::open(&dir.join("redbutton.db"))
        .await
        .expect("the store");
    let carol = NewPerson {
        name: name("carol"),
        full_name: String::new(),
        email: String::new(),
        grants: vec![],
    };
    store
        .create_person(&carol, note("create-person"))
        .await
        .expect("new");
    let site = NewSite {
        name: name("princeton"),
        full_name: String::new(),
        abuse_contact: String::new(),
    };
    store.create_site(&site, note("create-site")).await.expect("new");
    (dir, store)
}

#[tokio::test]
async fn a_person_gets_a_bundle_while_the_controller_serves() {
    let place = tempfile::tempdir().expect("a directory");
    let (dir, serving) = controller(place.path()).await;
    let out = place.path().join("carol.bundle");
    let wish = IssuePerson {
        dir: dir.clone(),
        name: name("carol"),
        out: out.clone(),
        addresses: vec![],
        life: None,
    };
    let done = issue_person(&wish, now()).await.expect("issued");
    let bundle = read_bundle(&out);
    assert_eq!(
        bundle.identity().expect("somebody"),
        Identity::Person(name("carol"))
    );
    assert_eq!(bundle.controllers, ["localhost:7443", "127.0.0.1:7443"]);
    assert!(done.expires > now() + Duration::days(89) && !done.enrolled);
    shake_hands(&dir, &bundle).expect("a connection");
    let head = serving.audit_head().await.expect("a head");
    let last = serving
        .audit_from(head.sequence, 1)
        .await
        .expect("entries")
        .remove(0);
    assert_eq!(
        (last.said.action.as_str(), last.said.target.as_str()),
        ("issue-person", "carol")
    );

    // Never over something; nothing is audited that was not made.
    let error = issue_person(&wish, now()).await.expect_err("there already");
    assert!(
        error.to_string().contains("carol.bundle exists already"),
        "{error}"
    );
    let nobody = IssuePerson {
        name: name("mallory"),
        out: place.path().join("m.bundle"),
        ..wish.clone()
    };
    let error = issue_person(&nobody, now()).await.expect_err("nobody");
    assert!(
        error.to_string().starts_with("person mallory does not exist"),
        "{error}"
    );
    assert!(!nobody.out.exists());
    assert_eq!(serving.audit_head().await.expect("a head"), head);

    let elsewhere = IssuePerson {
        out: place.path().join("elsewhere.bundle"),
        addresses: vec!["controller.example:443".into()],
        life: Some(Duration::hours(1)),
        ..wish
    };
    let done = issue_person(&elsewhere, now()).await.expect("issued");
    assert_eq!(
        read_bundle(&elsewhere.out).controllers,
        ["controller.example:443"]
    );
    assert!(done.expires < now() + Duration::hours(2));
}

#[tokio::test]
async fn a_node_is_enrolled_once_and_issued_to_again() {
    let place = tempfile::tempdir().expect("a directory");
    let (dir, serving) = controller(place.path()).await;
    let wish = IssueNode {
        dir: dir.clone(),
        name: name("node-1.example"),
        site: None,
        out: place.path().join("1.bundle"),
        addresses: vec![],
        life: None,
    };
    let error = issue_node(&wish, now()).await.expect_err("where?");
    assert_eq!(error.to_string(), "node node-1.example is new: name its site");
    let error = issue_node(
        &IssueNode {
            site: Some(name("cmu")),
            ..wish.clone()
        },
        now(),
    )
    .await
    .expect_err("no site");
    assert_eq!(error.to_string(), "site \"cmu\" does not exist");
    assert!(!wish.out.exists() && serving.all_nodes().await.expect("nodes").is_empty());

    let first = issue_node(
        &IssueNode {
            site: Some(name("princeton")),
            ..wish.clone()
        },
        now(),
    )
    .await
    .expect("issued");
    let node = serving.node_by_name(&wish.name).await.expect("enrolled");
    assert!(first.enrolled);
    assert_eq!(first.identity, Identity::Daemon(node.id, DaemonRole::NodeManager));
    let bundle = read_bundle(&wish.out);
    assert_eq!(
        (bundle.identity().expect("somebody"), bundle.name.as_str()),
        (first.identity.clone(), "node-1.example")
    );
    assert_eq!(bundle.controllers, ["localhost:17444"], "the daemons' port");
    shake_hands(&dir, &bundle).expect("a connection");

    let again = IssueNode {
        out: place.path().join("2.bundle"),
        ..wish.clone()
    };
    let second = issue_node(&again, now()).await.expect("issued again");
    assert!(!second.enrolled);
    assert_eq!(second.identity, first.identity);
    assert_ne!(
        read_bundle(&again.out).key.expose(),
        bundle.key.expose(),
        "a new key"
    );
    let moved = IssueNode {
        out: place.path().join("3.bundle"),
        site: Some(name("mit")),
        ..wish
    };
    let error = issue_node(&moved, now()).await.expect_err("it does not move");
    assert_eq!(
        error.to_string(),
        "node node-1.example is at princeton, not at mit"
    );
    let entries = serving.audit_from(1, 100).await.expect("entries");
    audit::verify(entries.iter(), None, &[]).expect("a chain");
    assert_eq!(
        entries
            .iter()
            .filter(|entry| entry.said.action == "issue-node")
            .count(),
        2
    );
}

#[tokio::test]
async fn without_a_controller_there_is_nothing_to_issue() {
    let place = tempfile::tempdir().expect("a directory");
    let wish = IssuePerson {
        dir: place.path().to_owned(),
        name: name("carol"),
        out: place.path().join("carol.bundle"),
        addresses: vec![],
        life: None,
    };
    let error = issue_person(&wish, now()).await.expect_err("nothing there");
    assert!(
        error
            .to_string()
            .contains("holds no controller (pki.sealed is missing)"),
        "{error}"
    );
    let (dir, _store) = controller(place.path()).await;
    let secret = fs::read_to_string(dir.join("seal.key")).expect("there");
    let sealed = fs::read(dir.join("pki.sealed")).expect("there");
    fs::write(dir.join("pki.sealed"), &sealed[..65 * (sealed.len() / 130)]).expect("cut");
    let error = issue_person(
        &IssuePerson {
            dir: dir.clone(),
            ..wish.clone()
        },
        now(),
    )
    .await
    .expect_err("half a file");
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(error.to_string().ends_with("pki.sealed"), "{error}");
    assert_eq!(cause, "sealed file is damaged or was changed");
    assert!(!format!("{error:?}").contains(secret.trim()));
    fs::write(dir.join("pki.sealed"), &sealed).expect("whole again");
    fs::remove_file(dir.join("seal.key")).expect("ours");
    let error = issue_person(&IssuePerson { dir, ..wish }, now())
        .await
        .expect_err("no key");
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(
        cause.contains("has no sealing key") && cause.contains("redbutton-seal"),
        "{cause}"
    );
}
