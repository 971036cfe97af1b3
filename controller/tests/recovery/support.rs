//! A controller's state directory, and people who sign.

use std::fs;
use std::path::PathBuf;

use controller::admin::{Init, init};
use controller::pki::Authority;
use controller::recovery::{Backup, Restore, Source};
use controller::store::{About, NewPerson, Note, SqliteStore, Store};
use proto::Version;
use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use trust::RestoreApproval;

pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) dir: PathBuf,
}

pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn note(action: &str, target: &str) -> Note {
    Note {
        draft: audit::Draft {
            at_ms: 1,
            version: Version {
                incarnation: 1,
                epoch: 1,
            },
            person: None,
            role: None,
            action: action.to_owned(),
            target: target.to_owned(),
            reason: String::new(),
            evidence: String::new(),
            outcome: audit::Outcome::Done,
            detail: String::new(),
            order: None,
        },
        about: About::default(),
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let dir = folder.path().join("controller");
        let wish = Init {
            dir: dir.clone(),
            names: vec!["localhost".into()],
            support: vec!["alice".parse().expect("valid"), "bob".parse().expect("valid")],
            people: Vec::new(),
            daemons: Vec::new(),
            bundles: true,
        };
        init(&wish, now()).await.expect("a controller");
        let world = Self { folder, dir };
        world.reserve().await;
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn backup(&self, secrets: Option<&str>) -> Backup {
        Backup {
            dir: self.dir.clone(),
            out: self.path("copy"),
            secrets: secrets.map(|name| self.path(name)),
        }
    }

    /// A restore of the copy, with approvals of these people for it as it is now.
    pub(crate) fn restore(&self, people: &[&str]) -> Restore {
        let bytes = fs::read(self.path("copy")).unwrap_or_default();
        let approvals = people.iter().enumerate().map(|(number, person)| {
            let path = self.path(&format!("approval-{number}"));
            fs::write(&path, approval(self, person, &bytes, now())).expect("written");
            path
        });
        Restore {
            dir: self.dir.clone(),
            source: Source::Backup(self.path("copy")),
            secrets: None,
            approvals: approvals.collect(),
            alone: None,
        }
    }

    pub(crate) async fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.dir.join("redbutton.db"))
            .await
            .expect("a database")
    }

    pub(crate) async fn reserve(&self) {
        let store = self.store().await;
        store.reserve_epochs(1_000).await.expect("reserved");
        store.close().await.expect("closed");
    }

    pub(crate) async fn note(&self, target: &str) {
        let store = self.store().await;
        store.append_audit(note("note", target)).await.expect("written");
        store.close().await.expect("closed");
    }

    pub(crate) async fn person(&self, name: &str) {
        let store = self.store().await;
        let person = NewPerson {
            name: name.parse().expect("valid"),
            full_name: String::new(),
            email: String::new(),
            grants: vec![authz::Grant::Support],
        };
        store
            .create_person(&person, note("create", name))
            .await
            .expect("created");
        store.close().await.expect("closed");
    }

    pub(crate) async fn entries(&self) -> Vec<audit::Entry> {
        let store = self.store().await;
        let entries = store.audit_from(1, 1_000).await.expect("read");
        store.close().await.expect("closed");
        entries
    }

    pub(crate) async fn notes(&self) -> Vec<String> {
        let entries = self.entries().await;
        entries
            .into_iter()
            .filter(|entry| entry.said.action == "note")
            .map(|entry| entry.said.target)
            .collect()
    }

    pub(crate) async fn incarnation(&self) -> u64 {
        let store = self.store().await;
        let incarnation = store.incarnation().await.expect("read");
        store.close().await.expect("closed");
        incarnation
    }
}

/// What `redbutton sign-restore` makes, with a certificate of that moment.
pub(crate) fn approval(world: &World, person: &str, backup: &[u8], made: OffsetDateTime) -> String {
    let ca = Authority::open(&world.dir, OffsetDateTime::now_utc())
        .expect("opens")
        .ca();
    let issued = ca
        .person(&person.parse().expect("valid"), Duration::days(1), made)
        .expect("a certificate");
    let digest: [u8; 32] = Sha256::digest(backup).into();
    let key = PrivateKeyDer::from_pem_slice(issued.key.expose().as_bytes()).expect("a key");
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).expect("a key");
    let signer = key
        .choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256])
        .expect("P-256");
    let signature = signer.sign(&RestoreApproval::to_sign(&digest)).expect("signed");
    RestoreApproval::new(&digest, &signature, &issued.certificate).to_text()
}
