//! The database of release 0.1.0 (commit c157691), made by its programs: a kill that waits for a node which never came,
//! a freeze, a kill and its release, a refusal. DO NOT CHANGE THIS TEST nor the files in `golden/0.1.0`: such databases
//! are out there, and an update must go on from them.

use audit::{Head, Verifier};
use controller::store::{OrderFilter, OrderKind, OrderState, PageRequest, SqliteStore, Store, Visible};
use prost::Message;
use proto::v1::{NodeReport, Outcome};
use proto::{HoldKind, Role};

use crate::common::{Place, name};

const DATABASE: &[u8] = include_bytes!("../golden/0.1.0/redbutton.db");
const AUDIT: &str = include_str!("../golden/0.1.0/audit.jsonl");
const ADDRESSES: &str = include_str!("../golden/0.1.0/addresses.toml");
const CONFIG: &str = include_str!("../golden/0.1.0/controller.toml");

async fn store(place: &Place) -> SqliteStore {
    std::fs::write(place.path(), DATABASE).expect("a copy");
    place.open().await
}

#[tokio::test]
async fn everything_in_the_database_is_there_after_the_update() {
    let place = Place::new();
    let store = store(&place).await;
    assert_eq!(store.incarnation().await.expect("read"), 1);
    let all = PageRequest::default();
    let people = store.people(None, &all).await.expect("read").items;
    let people: Vec<(String, usize)> = people
        .iter()
        .map(|person| (person.name.to_string(), person.grants.len()))
        .collect();
    let expected = ["alice", "bob", "dev", "pat"].map(|name| (name.to_owned(), 1));
    assert_eq!(people, expected);
    let sites = store.sites(&all).await.expect("read").items;
    assert_eq!(sites.iter().map(|site| site.nodes).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(store.slices(None, &all).await.expect("read").items.len(), 3);

    let node = store.node_by_name(&name("planet1")).await.expect("enrolled");
    assert_eq!(node.id.to_string(), "75275cd5-1715-4425-85e5-20aa365471fd");
    let report = store
        .last_report(node.id)
        .await
        .expect("read")
        .expect("it reported");
    let report = NodeReport::decode(&*report.report).expect("a report of 0.1.0");
    assert_eq!((report.protocol, &*report.agent_version), (1, "0.1.0"));
    assert_eq!(report.slivers.len(), 3);

    let filter = OrderFilter {
        slice: None,
        open_only: false,
        visible: Visible::All,
    };
    let orders = store.orders(&filter, &all).await.expect("read").items;
    let orders: Vec<(OrderKind, OrderState)> = orders.iter().map(|order| (order.kind, order.state)).collect();
    let expected = [
        (OrderKind::Release, OrderState::Closed),
        (OrderKind::KillSliver, OrderState::Closed),
        (OrderKind::FreezeSliver, OrderState::Closed),
        (OrderKind::KillSlice, OrderState::Answered),
    ];
    assert_eq!(
        orders.iter().map(|order| order.0).collect::<Vec<_>>(),
        expected.map(|order| order.0)
    );
    assert_eq!(
        orders
            .iter()
            .filter(|order| order.1 != OrderState::Closed)
            .count(),
        1
    );
    let open = store.open_orders().await.expect("read");
    let [(order, results)] = &open[..] else {
        panic!("one order waits for planet2: {open:?}")
    };
    assert_eq!((order.counts.nodes, results.len()), (2, 1));
    let results = store.results(order.id).await.expect("read");
    let answer = results[0].answer.as_ref().expect("planet1's");
    assert_eq!(
        (results[0].outcome, answer.outcome()),
        (Outcome::Killed, Outcome::Killed)
    );
    assert!(answer.slivers[0].killed == Some(1) && answer.durable);

    let holds: Vec<_> = store
        .holds()
        .await
        .expect("read")
        .into_iter()
        .map(|record| record.hold)
        .collect();
    let said: Vec<(HoldKind, Role, &str)> = holds
        .iter()
        .map(|hold| (hold.kind, hold.role, hold.reason.as_str()))
        .collect();
    assert_eq!(
        said,
        [
            (HoldKind::Suspend, Role::Support, "golden"),
            (HoldKind::Freeze, Role::Pi, "golden")
        ]
    );
    let released: proto::HoldId = name("01a20fd1-7c5b-73c0-adea-8115b78fc0ed");
    assert_eq!(store.released_among(&[released]).await.expect("read"), [released]);
    store.close().await.expect("closed");
    // And once more: an update happens once.
    place.open().await.close().await.expect("closed");
}

#[tokio::test]
async fn the_chain_in_the_database_is_the_one_that_was_exported() {
    let place = Place::new();
    let store = store(&place).await;
    let exported = audit::verify_lines(AUDIT.as_bytes(), None, &[]).expect("0.1.0 exported it");
    let entries = store.audit_from(1, 1_000).await.expect("read");
    let mut verifier = Verifier::new(Some(Head::GENESIS), &[]);
    entries.iter().for_each(|entry| verifier.push(entry));
    let verified = verifier.finish().expect("whole");
    // One entry more than the export: of the export itself nothing is noted, so none.
    assert_eq!(verified.head, exported.head);
    let next = store
        .append_audit(crate::common::note("whoami", "golden"))
        .await
        .expect("it goes on");
    assert_eq!(next.sequence, exported.head.sequence + 1);
}

#[test]
fn addresses_and_configuration_are_read() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("addresses.toml"), ADDRESSES).expect("a copy");
    let addresses = controller::admin::Addresses::load(dir.path()).expect("0.1.0 wrote it");
    assert_eq!(addresses.people, ["127.0.0.1:44447"]);
    controller::Config::parse(CONFIG, std::path::Path::new("controller.toml")).expect("0.1.0 shipped it");
}
