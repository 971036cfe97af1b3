//! People, sites, slices, nodes, pages, the clock.

use std::os::unix::fs::PermissionsExt;

use authz::Grant;
use controller::store::{
    AuditFilter, NewNode, NewSlice, NodeSeen, NodeSelection, PageRequest, Store, StoreError, Visible,
};
use proto::{BootId, NodeId, SiteName, SliceName, Version};

use crate::common::*;

#[tokio::test]
async fn a_fresh_store_is_private_and_counts_from_one() {
    let place = Place::new();
    let store = place.create().await;
    let mode = |name: &str| {
        std::fs::metadata(place.dir.path().join(name))
            .expect(name)
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("redbutton.db"), 0o600);
    assert_eq!(mode("redbutton.db-wal"), 0o600);
    assert_eq!(store.incarnation().await.expect("a number"), 1);
    assert_eq!(store.reserve_epochs(1_000).await.expect("a block"), 1..1_001);
    assert_eq!(store.audit_head().await.expect("a head"), audit::Head::GENESIS);
    store.close().await.expect("closed");
    let store = place.open().await;
    assert_eq!(
        store.reserve_epochs(1_000).await.expect("the next block"),
        1_001..2_001
    );
    let error = store.reserve_epochs(u64::MAX).await.expect_err("not so many");
    assert!(
        matches!(error, StoreError::Invalid { what: "epochs", .. }),
        "{error}"
    );
}

#[tokio::test]
async fn what_exists_is_refused_by_name() {
    let place = Place::new();
    let store = place.create().await;
    add_site(&store, "princeton").await;
    add_slice(&store, "princeton_codeen").await;
    add_person(&store, "alice", vec![Grant::Support]).await;
    let node = add_node(&store, "node-1.example", "princeton").await;
    let before = store.audit_head().await.expect("a head");

    let site = controller::store::NewSite {
        name: name("princeton"),
        full_name: String::new(),
        abuse_contact: String::new(),
    };
    let error = store
        .create_site(&site, note("create-site", "princeton"))
        .await
        .expect_err("there");
    assert_eq!(error.to_string(), "site \"princeton\" exists already");
    let slice = NewSlice {
        name: name("princeton_codeen"),
        description: String::new(),
        contacts: vec![],
    };
    let error = store
        .create_slice(&slice, note("create-slice", "x"))
        .await
        .expect_err("there");
    assert_eq!(error.to_string(), "slice \"princeton_codeen\" exists already");
    let person = controller::store::NewPerson {
        name: name("alice"),
        full_name: String::new(),
        email: String::new(),
        grants: vec![],
    };
    let error = store
        .create_person(&person, note("create-person", "x"))
        .await
        .expect_err("there");
    assert_eq!(error.to_string(), "person \"alice\" exists already");
    let same_name = NewNode {
        id: NodeId::random(),
        name: name("node-1.example"),
        site: name("princeton"),
    };
    let error = store
        .create_node(&same_name, note("create-node", "x"))
        .await
        .expect_err("there");
    assert_eq!(error.to_string(), "node \"node-1.example\" exists already");
    let same_id = NewNode {
        id: node,
        name: name("node-2.example"),
        site: name("princeton"),
    };
    let error = store
        .create_node(&same_id, note("create-node", "x"))
        .await
        .expect_err("there");
    assert_eq!(error.to_string(), format!("node \"{node}\" exists already"));
    assert_eq!(
        store.audit_head().await.expect("a head"),
        before,
        "what failed left an audit entry"
    );
}

#[tokio::test]
async fn what_is_missing_is_named_and_leaves_nothing() {
    let place = Place::new();
    let store = place.create().await;
    let slice = NewSlice {
        name: name("mit_chord"),
        description: String::new(),
        contacts: vec![],
    };
    let error = store
        .create_slice(&slice, note("create-slice", "x"))
        .await
        .expect_err("no site");
    assert_eq!(error.to_string(), "site \"mit\" does not exist");
    let node = NewNode {
        id: NodeId::random(),
        name: name("node-1"),
        site: name("mit"),
    };
    let error = store
        .create_node(&node, note("create-node", "x"))
        .await
        .expect_err("no site");
    assert_eq!(error.to_string(), "site \"mit\" does not exist");
    for (grant, expected) in [
        (
            Grant::Developer(name("mit_chord")),
            "slice \"mit_chord\" does not exist",
        ),
        (Grant::Pi(name("mit")), "site \"mit\" does not exist"),
    ] {
        let person = controller::store::NewPerson {
            name: name("bob"),
            full_name: String::new(),
            email: String::new(),
            grants: vec![grant],
        };
        let error = store
            .create_person(&person, note("create-person", "x"))
            .await
            .expect_err("no such place");
        assert_eq!(error.to_string(), expected);
        let error = store.person(&name("bob")).await.expect_err("rolled back");
        assert_eq!(error.to_string(), "person \"bob\" does not exist");
    }
    assert_eq!(store.audit_head().await.expect("a head"), audit::Head::GENESIS);
}

#[tokio::test]
async fn grants_come_and_go_and_show_at_their_places() {
    let place = Place::new();
    let store = place.create().await;
    add_site(&store, "princeton").await;
    add_site(&store, "mit").await;
    add_slice(&store, "princeton_codeen").await;
    add_person(&store, "bob", vec![Grant::Pi(name("princeton"))]).await;
    add_person(&store, "carol", vec![]).await;
    let develops = Grant::Developer(name("princeton_codeen"));
    for _ in 0..2 {
        let carol = store
            .grant(&name("carol"), &develops, note("grant", "carol"))
            .await
            .expect("given");
        assert_eq!(carol.grants, std::slice::from_ref(&develops));
    }
    let admin = Grant::SiteAdmin(name("mit"));
    store
        .grant(&name("carol"), &admin, note("grant", "carol"))
        .await
        .expect("given");

    let slice = store.slice(&name("princeton_codeen")).await.expect("there");
    assert_eq!(
        (slice.developers, slice.pis),
        (vec![name("carol")], vec![name("bob")])
    );
    let site = store.site(&name("princeton")).await.expect("there");
    assert_eq!(
        (site.slices, site.nodes, site.pis, site.admins),
        (1, 0, vec![name("bob")], vec![])
    );
    assert_eq!(
        store.site(&name("mit")).await.expect("there").admins,
        [name("carol")]
    );
    let at = async |site: &str| -> Vec<String> {
        let site: SiteName = name(site);
        let page = store
            .people(Some(&site), &PageRequest::default())
            .await
            .expect("a page");
        page.items.iter().map(|person| person.name.to_string()).collect()
    };
    assert_eq!(at("princeton").await, ["bob", "carol"]);
    assert_eq!(at("mit").await, ["carol"]);

    for _ in 0..2 {
        let carol = store
            .revoke(&name("carol"), &develops, note("revoke", "carol"))
            .await
            .expect("taken");
        assert_eq!(carol.grants, std::slice::from_ref(&admin));
    }
    assert!(
        store
            .slice(&name("princeton_codeen"))
            .await
            .expect("there")
            .developers
            .is_empty()
    );
    let error = store
        .grant(&name("dave"), &admin, note("grant", "dave"))
        .await
        .expect_err("nobody");
    assert_eq!(error.to_string(), "person \"dave\" does not exist");
    verified_audit(&store).await;
}

#[tokio::test]
async fn pages_neither_repeat_nor_hide_while_rows_are_added() {
    let place = Place::new();
    let store = place.create().await;
    add_site(&store, "a").await;
    for n in 0..25 {
        add_slice(&store, &format!("a_s{n:02}")).await;
    }
    let mut seen: Vec<SliceName> = Vec::new();
    let mut page = PageRequest {
        size: 10,
        token: String::new(),
    };
    loop {
        let got = store.slices(None, &page).await.expect("a page");
        seen.extend(got.items.into_iter().map(|slice| slice.name));
        // One before and one after what has been read.
        add_slice(&store, &format!("a_s00x{}", seen.len())).await;
        add_slice(&store, &format!("a_z{}", seen.len())).await;
        if got.next.is_empty() {
            break;
        }
        page.token = got.next;
        assert!(seen.len() < 100, "pages without end");
    }
    let old: Vec<_> = seen
        .iter()
        .filter(|slice| !slice.as_str().contains(['x', 'z']))
        .collect();
    assert_eq!(old.len(), 25, "{seen:?}");
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    let broken = PageRequest {
        size: 10,
        token: "'; DROP TABLE slices".into(),
    };
    let error = store.slices(None, &broken).await.expect_err("no token");
    assert!(
        matches!(
            error,
            StoreError::Invalid {
                what: "page token",
                ..
            }
        ),
        "{error}"
    );
    let error = store
        .orders(&Default::default(), &broken)
        .await
        .expect_err("no token");
    assert!(
        matches!(
            error,
            StoreError::Invalid {
                what: "page token",
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn nodes_are_found_and_their_signs_of_life_only_go_forward() {
    let place = Place::new();
    let store = place.create().await;
    add_site(&store, "princeton").await;
    add_site(&store, "mit").await;
    let one = add_node(&store, "node-1.example", "princeton").await;
    let two = add_node(&store, "node-2.example", "mit").await;
    let record = store.node_by_name(&name("node-1.example")).await.expect("there");
    assert_eq!(
        (record.id, record.enrolled),
        (
            one,
            Version {
                incarnation: 1,
                epoch: 1
            }
        )
    );
    assert_eq!((record.boot_id, record.last_seen_ms), (None, None));
    assert!(store.last_report(one).await.expect("a look").is_none());

    let boot = BootId::from_uuid(uuid::Uuid::from_u128(7));
    let seen = |node, at_ms, boot_id, report: Option<&[u8]>| NodeSeen {
        node,
        at_ms,
        boot_id,
        report: report.map(<[u8]>::to_vec),
    };
    let stranger = NodeId::random();
    store
        .record_seen(&[
            seen(one, 100, Some(boot), Some(b"first")),
            seen(stranger, 100, Some(boot), Some(b"nobody")),
            seen(two, 50, None, None),
        ])
        .await
        .expect("stored");
    store
        .record_seen(&[seen(one, 90, None, Some(b"late")), seen(one, 110, None, None)])
        .await
        .expect("stored");
    let record = store.node(one).await.expect("there");
    assert_eq!((record.boot_id, record.last_seen_ms), (Some(boot), Some(110)));
    let report = store.last_report(one).await.expect("a look").expect("a report");
    assert_eq!(
        (report.at_ms, report.report.as_slice()),
        (100, b"first".as_slice())
    );
    assert!(store.last_report(stranger).await.expect("a look").is_none());
    let error = store.node(stranger).await.expect_err("nobody");
    assert_eq!(error.to_string(), format!("node \"{stranger}\" does not exist"));

    assert_eq!(store.all_nodes().await.expect("all").len(), 2);
    let only = |sites: Option<&[&str]>, ids: Option<Vec<NodeId>>| NodeSelection {
        sites: sites.map(|sites| sites.iter().map(|site| name(site)).collect()),
        ids,
    };
    for (select, expected) in [
        (only(None, None), vec![one, two]),
        (only(Some(&["mit"]), None), vec![two]),
        (only(Some(&[]), None), vec![]),
        (only(None, Some(vec![one, stranger])), vec![one]),
        (only(Some(&["mit"]), Some(vec![one])), vec![]),
    ] {
        let page = store
            .nodes(&select, &PageRequest::default())
            .await
            .expect("a page");
        assert_eq!(
            page.items.iter().map(|node| node.id).collect::<Vec<_>>(),
            expected,
            "{select:?}"
        );
    }
}

#[tokio::test]
async fn the_audit_can_be_paged_narrowed_and_never_changed() {
    let place = Place::new();
    let store = place.create().await;
    for n in 0..7 {
        let mut note = note("kill-slice", &format!("target {}", n % 2));
        note.draft.person = Some(if n < 3 { name("bob") } else { name("alice") });
        note.about.slice = Some(if n == 0 {
            name("mit_chord")
        } else {
            name("princeton_codeen")
        });
        note.about.site = (n == 6).then(|| name("cmu"));
        store.append_audit(note).await.expect("appended");
    }
    let sequences = async |filter: AuditFilter, before: Option<u64>| {
        let page = store.audit_page(&filter, before, 3).await.expect("a page");
        (
            page.entries
                .iter()
                .map(|entry| entry.sequence)
                .collect::<Vec<_>>(),
            page.next_before,
        )
    };
    let all = AuditFilter {
        visible: Visible::All,
        ..AuditFilter::default()
    };
    assert_eq!(sequences(all.clone(), None).await, (vec![5, 6, 7], Some(5)));
    assert_eq!(sequences(all.clone(), Some(5)).await, (vec![2, 3, 4], Some(2)));
    assert_eq!(sequences(all.clone(), Some(2)).await, (vec![1], None));
    let bob = AuditFilter {
        person: Some(name("bob")),
        target: Some("target 0".into()),
        ..all.clone()
    };
    assert_eq!(sequences(bob, None).await, (vec![1, 3], None));
    assert_eq!(
        sequences(AuditFilter::default(), None).await,
        (vec![], None),
        "default deny"
    );
    let any = |person: Option<&str>, slices: &[&str], slices_of: &[&str], nodes_of: &[&str]| AuditFilter {
        visible: Visible::Any {
            person: person.map(name),
            slices: slices.iter().map(|slice| name(slice)).collect(),
            slices_of: slices_of.iter().map(|site| name(site)).collect(),
            nodes_of: nodes_of.iter().map(|site| name(site)).collect(),
        },
        ..AuditFilter::default()
    };
    assert_eq!(sequences(any(None, &["mit_chord"], &[], &[]), None).await.0, [1]);
    assert_eq!(
        sequences(any(None, &[], &["mit"], &["cmu"]), None).await.0,
        [1, 7]
    );
    assert_eq!(
        sequences(any(Some("bob"), &[], &[], &["cmu"]), None).await.0,
        [2, 3, 7]
    );
    assert_eq!(verified_audit(&store).await.len(), 7);
    store.close().await.expect("closed");

    // Not even by somebody with the file and a mistake.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(place.path());
    let mut raw = sqlx::ConnectOptions::connect(&options).await.expect("open");
    for (sql, expected) in [
        (
            "UPDATE audit SET person = 'mallory' WHERE sequence = 1",
            "never changed",
        ),
        ("DELETE FROM audit WHERE sequence = 7", "never deleted"),
        (
            "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE sequence = 3",
            "without a gap",
        ),
        (
            "INSERT INTO audit SELECT sequence + 2, at_ms, person, role, action, target, reason, evidence, outcome, detail, \
          order_id, incarnation, epoch, previous, hash, NULL, NULL, NULL, NULL FROM audit WHERE sequence = 7",
            "without a gap",
        ),
        ("DELETE FROM holds", ""),
    ] {
        let done = sqlx::query(sql).execute(&mut raw).await;
        match done {
            Err(error) => assert!(
                !expected.is_empty() && error.to_string().contains(expected),
                "{sql}: {error}"
            ),
            Ok(done) => assert!(
                expected.is_empty() && done.rows_affected() == 0,
                "{sql} changed something"
            ),
        }
    }
}
