//! A store in a directory of its own, and things to put into it.

use std::path::PathBuf;

use authz::Grant;
use controller::store::{
    About, Committed, NewNode, NewOrder, NewPerson, NewSite, NewSlice, Note, OrderKind, OrderRecord,
    ResultRecord, Signatures, SqliteStore, Store, Wish,
};
use proto::v1::{Answer, Outcome};
use proto::{Hold, HoldId, HoldKind, NodeId, OrderId, Role, Scope, Version};

pub(crate) const NOW: i64 = 1_800_000_000_000;

pub(crate) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect(text)
}

/// A new store; its directory goes when this does.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("redbutton.db")
    }

    pub(crate) async fn create(&self) -> SqliteStore {
        SqliteStore::create(&self.path()).await.expect("a new store")
    }

    pub(crate) async fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.path()).await.expect("the store")
    }
}

/// What is said of anything in these tests.
pub(crate) fn note(action: &str, target: &(impl ToString + ?Sized)) -> Note {
    Note {
        draft: audit::Draft {
            at_ms: NOW,
            version: Version {
                incarnation: 1,
                epoch: 0,
            },
            person: Some(name("alice")),
            role: Some(Role::Support),
            action: action.to_owned(),
            target: target.to_string(),
            reason: "a test".to_owned(),
            evidence: String::new(),
            outcome: audit::Outcome::Allowed,
            detail: String::new(),
            order: None,
        },
        about: About::default(),
    }
}

pub(crate) async fn add_site(store: &SqliteStore, site: &str) {
    let site = NewSite {
        name: name(site),
        full_name: "A Site".into(),
        abuse_contact: "abuse@site.example".into(),
    };
    store
        .create_site(&site, note("create-site", &site.name))
        .await
        .expect("a new site");
}

pub(crate) async fn add_slice(store: &SqliteStore, slice: &str) {
    let slice = NewSlice {
        name: name(slice),
        description: "d".into(),
        contacts: vec!["c@site.example".into()],
    };
    store
        .create_slice(&slice, note("create-slice", &slice.name))
        .await
        .expect("a new slice");
}

pub(crate) async fn add_person(store: &SqliteStore, person: &str, grants: Vec<Grant>) {
    let person = NewPerson {
        name: name(person),
        full_name: "P".into(),
        email: "p@site.example".into(),
        grants,
    };
    store
        .create_person(&person, note("create-person", &person.name))
        .await
        .expect("a new person");
}

pub(crate) async fn add_node(store: &SqliteStore, node: &str, site: &str) -> NodeId {
    let node = NewNode {
        id: NodeId::random(),
        name: name(node),
        site: name(site),
    };
    store
        .create_node(&node, note("create-node", &node.name))
        .await
        .expect("a new node");
    node.id
}

pub(crate) fn hold(slice: &str, scope: Scope, epoch: u64) -> Hold {
    Hold {
        id: HoldId::new(),
        slice: Some(name(slice)),
        scope,
        kind: HoldKind::Suspend,
        holder: name("alice"),
        role: Role::Support,
        reason: "floods a bank".into(),
        evidence: String::new(),
        set_at_ms: NOW,
        version: Version {
            incarnation: 1,
            epoch,
        },
    }
}

/// Kill the slice in the scope.
pub(crate) fn kill(key: &str, slice: &str, scope: Scope, epoch: u64) -> NewOrder {
    let hold = hold(slice, scope.clone(), epoch);
    NewOrder {
        id: OrderId::new(),
        key: key.into(),
        person: name("alice"),
        role: Role::Support,
        kind: OrderKind::KillSlice,
        slice: Some(name(slice)),
        scope: scope.clone(),
        target: format!("{slice} somewhere"),
        reason: "floods a bank".into(),
        evidence: String::new(),
        pressed_at_ms: NOW,
        version: Version {
            incarnation: 1,
            epoch,
        },
        wish: Wish::Hold {
            slice: Some(name(slice)),
            scope,
            kind: HoldKind::Suspend,
        },
        sets: vec![hold],
        lifts: Vec::new(),
        signatures: Signatures::new(),
    }
}

/// Lift these holds everywhere.
pub(crate) fn release(key: &str, slice: &str, lifts: Vec<HoldId>, epoch: u64) -> NewOrder {
    NewOrder {
        kind: OrderKind::Release,
        wish: Wish::Release { holds: lifts.clone() },
        sets: Vec::new(),
        lifts,
        ..kill(key, slice, Scope::Fleet, epoch)
    }
}

pub(crate) fn press_note(order: &NewOrder) -> Note {
    let mut note = note(order.kind.as_str(), &order.target);
    note.draft.order = Some(order.id);
    note.draft.version = order.version;
    note.about.slice.clone_from(&order.slice);
    note
}

pub(crate) async fn press(store: &SqliteStore, order: &NewOrder) -> OrderRecord {
    match store
        .commit_order(order, press_note(order))
        .await
        .expect("durable")
    {
        Committed::Created(order) => order,
        Committed::Existing(order) => panic!("{} was there before", order.id),
    }
}

pub(crate) fn result(order: OrderId, node: NodeId, outcome: Outcome, proven: bool) -> ResultRecord {
    let answer = Answer {
        order: order.to_string(),
        outcome: outcome.into(),
        proven,
        ..Answer::default()
    };
    ResultRecord {
        order,
        node,
        outcome,
        proven,
        answered_at_ms: NOW,
        answer: Some(answer),
    }
}

/// The whole chain, verified.
pub(crate) async fn verified_audit(store: &SqliteStore) -> Vec<audit::Entry> {
    let mut entries = Vec::new();
    loop {
        let more = store
            .audit_from(entries.len() as u64 + 1, 100)
            .await
            .expect("the chain");
        if more.is_empty() {
            break;
        }
        entries.extend(more);
    }
    let head = store.audit_head().await.expect("a head");
    let verified = audit::verify(entries.iter(), None, &[head]).expect("the chain is whole");
    assert_eq!(verified.head, head);
    entries
}
