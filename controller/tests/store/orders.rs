//! Orders and holds: once, whole, and found again.

use controller::store::{
    Committed, ImportedHold, OrderFilter, OrderState, PageRequest, Store, StoreError, Visible,
};
use proto::v1::Outcome;
use proto::{HoldId, NodeId, Scope, SliceName, Version};

use crate::common::*;

async fn fleet(store: &controller::store::SqliteStore) -> Vec<NodeId> {
    add_site(store, "princeton").await;
    add_site(store, "mit").await;
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(
            add_node(
                store,
                &format!("node-{n}"),
                if n == 2 { "mit" } else { "princeton" },
            )
            .await,
        );
    }
    nodes
}

#[tokio::test]
async fn the_same_press_twice_is_one_order() {
    let place = Place::new();
    let store = place.create().await;
    fleet(&store).await;
    let first = kill("key-1", "princeton_codeen", Scope::Fleet, 1);
    let created = press(&store, &first).await;
    assert_eq!(
        (created.id, created.state, created.counts.nodes),
        (first.id, OrderState::Open, 3)
    );
    assert_eq!(created.holds, first.sets);
    let head = store.audit_head().await.expect("a head");

    let again = kill("key-1", "princeton_codeen", Scope::Fleet, 2);
    let Committed::Existing(existing) = store
        .commit_order(&again, press_note(&again))
        .await
        .expect("known")
    else {
        panic!("a second order");
    };
    assert_eq!((existing.id, existing.version), (first.id, first.version));
    assert_eq!(existing.holds, first.sets);
    assert_eq!(existing.wish, first.wish);
    assert_eq!(
        store.audit_head().await.expect("a head"),
        head,
        "nothing was written"
    );
    assert_eq!(store.holds().await.expect("holds").len(), 1);
    let found = store
        .order_by_key(&name("alice"), "key-1")
        .await
        .expect("a look")
        .expect("there");
    assert_eq!(found.id, first.id);

    // Another person's same key is another order, and another hold.
    let mut other = kill("key-1", "princeton_codeen", Scope::Fleet, 3);
    other.person = name("bob");
    press(&store, &other).await;
    assert_eq!(store.holds().await.expect("holds").len(), 2);
    assert!(
        store
            .order_by_key(&name("carol"), "key-1")
            .await
            .expect("a look")
            .is_none()
    );
    assert_eq!(
        verified_audit(&store).await.last().expect("entries").said.order,
        Some(other.id)
    );
}

#[tokio::test]
async fn many_presses_with_one_key_at_once_are_one_order() {
    let place = Place::new();
    let store = std::sync::Arc::new(place.create().await);
    fleet(&store).await;
    let tasks: Vec<_> = (1..=16)
        .map(|epoch| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move {
                let order = kill("key", "princeton_codeen", Scope::Fleet, epoch);
                let note = press_note(&order);
                store.commit_order(&order, note).await.expect("durable")
            })
        })
        .collect();
    let mut created = 0;
    for task in tasks {
        created += usize::from(matches!(task.await.expect("no panic"), Committed::Created(_)));
    }
    assert_eq!(created, 1);
    assert_eq!(store.holds().await.expect("holds").len(), 1);
}

#[tokio::test]
async fn an_order_reaches_the_nodes_that_were_there() {
    let place = Place::new();
    let store = place.create().await;
    let nodes = fleet(&store).await;
    let everywhere = press(&store, &kill("a", "princeton_codeen", Scope::Fleet, 1)).await;
    let late = add_node(&store, "late", "princeton").await;
    assert_eq!(
        store.node(late).await.expect("there").enrolled,
        Version {
            incarnation: 1,
            epoch: 2
        }
    );
    let at_site = press(
        &store,
        &kill("b", "princeton_codeen", Scope::Site(name("princeton")), 2),
    )
    .await;
    let at_node = press(&store, &kill("c", "princeton_codeen", Scope::Node(nodes[2]), 3)).await;
    let reach = [everywhere, at_site, at_node].map(|order| order.counts.nodes);
    assert_eq!(reach, [3, 3, 1], "the late node belongs to what came after it");

    let nowhere = kill("d", "princeton_codeen", Scope::Site(name("cmu")), 4);
    let error = store
        .commit_order(&nowhere, press_note(&nowhere))
        .await
        .expect_err("no site");
    assert_eq!(error.to_string(), "site \"cmu\" does not exist");
    let stranger = NodeId::random();
    let nobody = kill("d", "princeton_codeen", Scope::Node(stranger), 4);
    let error = store
        .commit_order(&nobody, press_note(&nobody))
        .await
        .expect_err("no node");
    assert_eq!(error.to_string(), format!("node \"{stranger}\" does not exist"));
    let same_version = kill("d", "princeton_codeen", Scope::Fleet, 3);
    let error = store
        .commit_order(&same_version, press_note(&same_version))
        .await
        .expect_err("taken");
    assert_eq!(error.to_string(), "order of version \"1.3\" exists already");
    add_site(&store, "empty").await;
    let empty = press(
        &store,
        &kill("e", "princeton_codeen", Scope::Site(name("empty")), 5),
    )
    .await;
    assert_eq!(empty.state, OrderState::Closed, "nobody to reach");
    let open: Vec<_> = store
        .open_orders()
        .await
        .expect("open")
        .into_iter()
        .map(|(order, _)| order.key)
        .collect();
    assert_eq!(open, ["a", "b", "c"], "oldest first");
}

#[tokio::test]
async fn a_release_is_for_ever_and_says_who() {
    let place = Place::new();
    let store = place.create().await;
    fleet(&store).await;
    let one = press(&store, &kill("1", "princeton_codeen", Scope::Fleet, 1))
        .await
        .holds[0]
        .id;
    let two = press(&store, &kill("2", "princeton_codeen", Scope::Fleet, 2))
        .await
        .holds[0]
        .id;
    let lifted = press(&store, &release("3", "princeton_codeen", vec![one], 3)).await;
    assert_eq!(lifted.holds.iter().map(|hold| hold.id).collect::<Vec<_>>(), [one]);
    let standing: Vec<_> = store
        .holds()
        .await
        .expect("holds")
        .into_iter()
        .map(|record| record.hold.id)
        .collect();
    assert_eq!(standing, [two]);
    let record = store.hold(one).await.expect("kept");
    let released = record.released.expect("lifted");
    assert_eq!((released.order, released.version.epoch), (lifted.id, 3));

    // Again, by somebody else: the first release stays; the order is kept all the same.
    let mut again = release("4", "princeton_codeen", vec![one, two], 4);
    again.person = name("bob");
    let again = press(&store, &again).await;
    assert_eq!(again.holds.iter().map(|hold| hold.id).collect::<Vec<_>>(), [two]);
    assert_eq!(
        store
            .hold(one)
            .await
            .expect("kept")
            .released
            .expect("lifted")
            .person,
        name("alice")
    );

    let stranger = HoldId::new();
    let mut among = store.released_among(&[one, stranger, two]).await.expect("a look");
    among.sort();
    assert_eq!(among, [one, two]);
    assert_eq!(store.known_among(&[stranger, one]).await.expect("a look"), [one]);
    let unknown = release("5", "princeton_codeen", vec![stranger], 5);
    let error = store
        .commit_order(&unknown, press_note(&unknown))
        .await
        .expect_err("no hold");
    assert_eq!(error.to_string(), format!("hold \"{stranger}\" does not exist"));
    assert!(
        store
            .order_by_key(&name("alice"), "5")
            .await
            .expect("a look")
            .is_none(),
        "rolled back"
    );
    verified_audit(&store).await;
}

#[tokio::test]
async fn a_hold_that_only_a_node_knew_is_taken_over_once() {
    let place = Place::new();
    let store = place.create().await;
    let nodes = fleet(&store).await;
    // A hostile node may make up a version; it comes back as it was.
    let mut hold = hold("princeton_codeen", Scope::Node(nodes[0]), u64::MAX);
    hold.version.incarnation = u64::MAX - 1;
    let import = ImportedHold {
        hold: hold.clone(),
        node: nodes[0],
        signature: None,
    };
    assert!(
        store
            .import_hold(&import, note("import-hold", &hold.id))
            .await
            .expect("taken over")
    );
    let head = store.audit_head().await.expect("a head");
    assert!(
        !store
            .import_hold(&import, note("import-hold", &hold.id))
            .await
            .expect("known")
    );
    assert_eq!(store.audit_head().await.expect("a head"), head);
    let record = store.hold(hold.id).await.expect("there");
    assert_eq!(
        (record.hold, record.imported_from),
        (hold.clone(), Some(nodes[0]))
    );
    let mine = release("r", "princeton_codeen", vec![hold.id], 1);
    press(&store, &mine).await;
    assert!(
        !store
            .import_hold(&import, note("import-hold", &hold.id))
            .await
            .expect("known")
    );
    assert!(
        store.holds().await.expect("holds").is_empty(),
        "released stays released"
    );
    let stranger = ImportedHold {
        node: NodeId::random(),
        ..import
    };
    let error = store
        .import_hold(&stranger, note("import-hold", "x"))
        .await
        .expect_err("nobody");
    assert!(
        matches!(error, StoreError::NotFound { what: "node", .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_hold_may_come_from_a_node_before_its_order_reaches_the_disk() {
    let place = Place::new();
    let store = place.create().await;
    let nodes = fleet(&store).await;
    let order = kill("late", "princeton_codeen", Scope::Fleet, 1);
    let import = ImportedHold {
        hold: order.sets[0].clone(),
        node: nodes[1],
        signature: None,
    };
    assert!(
        store
            .import_hold(&import, note("import-hold", "x"))
            .await
            .expect("taken over")
    );
    let order = press(&store, &order).await;
    assert_eq!(order.holds, [import.hold]);
    assert_eq!(store.holds().await.expect("holds").len(), 1);
}

#[tokio::test]
async fn lists_show_what_may_be_seen_newest_first() {
    let place = Place::new();
    let store = place.create().await;
    let nodes = fleet(&store).await;
    press(&store, &kill("1", "princeton_codeen", Scope::Fleet, 1)).await;
    press(&store, &kill("2", "mit_chord", Scope::Site(name("princeton")), 2)).await;
    press(&store, &kill("3", "mit_chord", Scope::Node(nodes[2]), 3)).await;
    let mut bobs = kill("4", "mit_ron", Scope::Fleet, 4);
    bobs.person = name("bob");
    let bobs = press(&store, &bobs).await;
    let rows: Vec<_> = nodes
        .iter()
        .map(|node| result(bobs.id, *node, Outcome::Killed, true))
        .collect();
    store.record_results(&rows).await.expect("stored");

    let keys = async |filter: OrderFilter| -> Vec<String> {
        let page = store
            .orders(&filter, &PageRequest::default())
            .await
            .expect("a page");
        page.items.into_iter().map(|order| order.key).collect()
    };
    let all = OrderFilter {
        visible: Visible::All,
        ..OrderFilter::default()
    };
    assert_eq!(keys(all.clone()).await, ["4", "3", "2", "1"]);
    assert_eq!(
        keys(OrderFilter {
            open_only: true,
            ..all.clone()
        })
        .await,
        ["3", "2", "1"]
    );
    let chord: Option<SliceName> = Some(name("mit_chord"));
    assert_eq!(
        keys(OrderFilter {
            slice: chord,
            ..all.clone()
        })
        .await,
        ["3", "2"]
    );
    assert!(keys(OrderFilter::default()).await.is_empty(), "default deny");
    let any = |person: Option<&str>, slices: &[&str], slices_of: &[&str], nodes_of: &[&str]| OrderFilter {
        visible: Visible::Any {
            person: person.map(name),
            slices: slices.iter().map(|slice| name(slice)).collect(),
            slices_of: slices_of.iter().map(|site| name(site)).collect(),
            nodes_of: nodes_of.iter().map(|site| name(site)).collect(),
        },
        ..OrderFilter::default()
    };
    assert_eq!(
        keys(any(None, &["princeton_codeen"], &[], &[])).await,
        ["1"],
        "a developer"
    );
    assert_eq!(keys(any(None, &[], &["mit"], &[])).await, ["4", "3", "2"], "a PI");
    assert_eq!(
        keys(any(None, &[], &[], &["princeton"])).await,
        ["2"],
        "a site admin"
    );
    assert_eq!(
        keys(any(None, &[], &[], &["mit"])).await,
        ["3"],
        "the node's site"
    );
    assert_eq!(keys(any(Some("bob"), &[], &[], &[])).await, ["4"]);
    assert!(keys(any(None, &[], &[], &[])).await.is_empty());

    let first = PageRequest {
        size: 3,
        token: String::new(),
    };
    let page = store.orders(&all, &first).await.expect("a page");
    let second = PageRequest {
        size: 3,
        token: page.next,
    };
    press(&store, &kill("5", "mit_ron", Scope::Fleet, 5)).await;
    let page = store.orders(&all, &second).await.expect("a page");
    assert_eq!(
        page.items
            .iter()
            .map(|order| order.key.as_str())
            .collect::<Vec<_>>(),
        ["1"]
    );
    assert!(page.next.is_empty());
}
