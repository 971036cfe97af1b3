//! The store against a naive model: everything in vectors, every number counted anew.

use std::collections::BTreeMap;

use controller::store::{Committed, OrderState, SqliteStore, Store};
use proptest::prelude::*;
use proto::v1::Outcome;
use proto::{HoldId, NodeId, OrderId, Scope};

use crate::common::*;

#[derive(Debug, Clone)]
enum Step {
    Enrol {
        site: usize,
    },
    Kill {
        key: usize,
        site: Option<usize>,
    },
    Release {
        key: usize,
        picks: Vec<prop::sample::Index>,
    },
    Answer(Vec<(prop::sample::Index, prop::sample::Index, usize, bool)>),
    Reopen,
}

const SITES: [&str; 2] = ["princeton", "mit"];
const OUTCOMES: [Outcome; 5] = [
    Outcome::Killed,
    Outcome::AlreadyDead,
    Outcome::Partial,
    Outcome::Failed,
    Outcome::Released,
];

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        2 => (0..SITES.len()).prop_map(|site| Step::Enrol { site }),
        3 => (0..6_usize, prop::option::of(0..SITES.len())).prop_map(|(key, site)| Step::Kill { key, site }),
        2 => (6..9_usize, prop::collection::vec(index(), 0..3)).prop_map(|(key, picks)| Step::Release { key, picks }),
        4 => prop::collection::vec((index(), index(), 0..OUTCOMES.len(), any::<bool>()), 1..12).prop_map(Step::Answer),
        1 => Just(Step::Reopen),
    ]
}

struct ModelOrder {
    id: OrderId,
    key: String,
    nodes: Vec<NodeId>,
    holds: Vec<HoldId>,
}

#[derive(Default)]
struct Model {
    nodes: Vec<(NodeId, &'static str)>,
    orders: Vec<ModelOrder>,
    holds: Vec<(HoldId, bool)>,
    results: BTreeMap<(OrderId, NodeId), (Outcome, bool)>,
    entries: usize,
}

impl Model {
    fn answer(&mut self, order: OrderId, node: NodeId, outcome: Outcome, proven: bool) {
        use Outcome::{AlreadyDead, Killed};
        let now = match self.results.get(&(order, node)) {
            Some((old, true)) => (*old, true),
            Some((Killed, false)) if outcome == AlreadyDead => (Killed, proven),
            _ => (outcome, proven),
        };
        self.results.insert((order, node), now);
    }

    fn state(&self, order: &ModelOrder) -> OrderState {
        let of: Vec<_> = self
            .results
            .iter()
            .filter(|((of, _), _)| *of == order.id)
            .collect();
        let answered = of.len();
        let proven = of.iter().filter(|(_, (_, proven))| *proven).count();
        match order.nodes.len() {
            reach if proven >= reach => OrderState::Closed,
            reach if answered >= reach => OrderState::Answered,
            _ => OrderState::Open,
        }
    }
}

async fn run(steps: Vec<Step>) {
    let place = Place::new();
    let mut store = place.create().await;
    let mut model = Model::default();
    for site in SITES {
        add_site(&store, site).await;
        model.entries += 1;
    }
    for (n, step) in steps.into_iter().enumerate() {
        let epoch = n as u64 + 1;
        match step {
            Step::Enrol { site } => {
                let node = add_node(&store, &format!("node-{n}"), SITES[site]).await;
                model.nodes.push((node, SITES[site]));
                model.entries += 1;
            }
            Step::Kill { key, site } => {
                let scope = site.map_or(Scope::Fleet, |site| Scope::Site(name(SITES[site])));
                let order = kill(&format!("key-{key}"), "princeton_codeen", scope, epoch);
                let holds: Vec<_> = order.sets.iter().map(|hold| hold.id).collect();
                let reach = |at: &str| site.is_none_or(|site| SITES[site] == at);
                let nodes = model
                    .nodes
                    .iter()
                    .filter(|(_, at)| reach(at))
                    .map(|(node, _)| *node)
                    .collect();
                if commit(&store, &mut model, &order, nodes, holds.clone()).await {
                    model.holds.extend(holds.into_iter().map(|hold| (hold, true)));
                }
            }
            Step::Release { key, picks } => {
                let mut lifts: Vec<_> = match model.holds.len() {
                    0 => Vec::new(),
                    some => picks.iter().map(|pick| model.holds[pick.index(some)].0).collect(),
                };
                lifts.sort();
                lifts.dedup();
                let order = release(&format!("key-{key}"), "princeton_codeen", lifts.clone(), epoch);
                let nodes = model.nodes.iter().map(|(node, _)| *node).collect();
                let standing = |id: &HoldId| model.holds.contains(&(*id, true));
                let lifted = lifts.iter().copied().filter(standing).collect();
                if commit(&store, &mut model, &order, nodes, lifted).await {
                    for (hold, stands) in &mut model.holds {
                        *stands &= !lifts.contains(hold);
                    }
                }
            }
            Step::Answer(answers) => {
                let mut batch = Vec::new();
                for (order, node, outcome, proven) in answers {
                    if model.orders.is_empty() {
                        continue;
                    }
                    let order = &model.orders[order.index(model.orders.len())];
                    if order.nodes.is_empty() {
                        continue;
                    }
                    let node = order.nodes[node.index(order.nodes.len())];
                    let (id, outcome) = (order.id, OUTCOMES[outcome]);
                    batch.push(result(id, node, outcome, proven));
                    model.answer(id, node, outcome, proven);
                }
                let done = store.record_results(&batch).await.expect("stored");
                assert!(done.unknown.is_empty());
                for progress in done.orders {
                    let order = model
                        .orders
                        .iter()
                        .find(|order| order.id == progress.order)
                        .expect("ours");
                    assert_eq!(progress.state, model.state(order));
                }
            }
            Step::Reopen => {
                store.close().await.expect("closed");
                store = place.open().await;
            }
        }
    }
    compare(&store, &model).await;
}

async fn commit(
    store: &SqliteStore,
    model: &mut Model,
    order: &controller::store::NewOrder,
    nodes: Vec<NodeId>,
    holds: Vec<HoldId>,
) -> bool {
    let done = store
        .commit_order(order, press_note(order))
        .await
        .expect("durable");
    let known = model.orders.iter().find(|known| known.key == order.key);
    match (&done, known) {
        (Committed::Existing(existing), Some(known)) => {
            assert_eq!(existing.id, known.id);
            false
        }
        (Committed::Created(created), None) => {
            assert_eq!(created.counts.nodes as usize, nodes.len());
            model.orders.push(ModelOrder {
                id: order.id,
                key: order.key.clone(),
                nodes,
                holds,
            });
            model.entries += 1;
            true
        }
        (done, known) => panic!("{done:?}, but the model has {:?}", known.map(|known| known.id)),
    }
}

async fn compare(store: &SqliteStore, model: &Model) {
    let mut open = Vec::new();
    for order in &model.orders {
        let stored = store.order(order.id).await.expect("there");
        assert_eq!(stored.state, model.state(order), "order {}", order.key);
        let mut ids: Vec<_> = stored.holds.iter().map(|hold| hold.id).collect();
        ids.sort();
        let mut expected = order.holds.clone();
        expected.sort();
        assert_eq!(ids, expected, "holds of order {}", order.key);
        let rows = store.results(order.id).await.expect("rows");
        let expected: Vec<_> = model
            .results
            .iter()
            .filter(|((of, _), _)| *of == order.id)
            .collect();
        let got: BTreeMap<_, _> = rows
            .iter()
            .map(|row| ((row.order, row.node), (row.outcome, row.proven)))
            .collect();
        assert_eq!(
            got.iter().collect::<Vec<_>>(),
            expected,
            "results of order {}",
            order.key
        );
        let of = |outcome| expected.iter().filter(|(_, (got, _))| *got == outcome).count();
        assert_eq!(stored.counts.killed as usize, of(Outcome::Killed));
        assert_eq!(stored.counts.already_dead as usize, of(Outcome::AlreadyDead));
        assert_eq!(stored.counts.partial as usize, of(Outcome::Partial));
        assert_eq!(stored.counts.failed as usize, of(Outcome::Failed));
        assert_eq!(stored.counts.released as usize, of(Outcome::Released));
        assert_eq!(
            stored.counts.proven as usize,
            expected.iter().filter(|(_, (_, proven))| *proven).count()
        );
        if stored.state != OrderState::Closed {
            open.push(order.id);
        }
    }
    let stored: Vec<_> = store
        .open_orders()
        .await
        .expect("open")
        .iter()
        .map(|(order, _)| order.id)
        .collect();
    assert_eq!(stored, open);
    let mut standing: Vec<_> = store
        .holds()
        .await
        .expect("holds")
        .iter()
        .map(|record| record.hold.id)
        .collect();
    standing.sort();
    let mut expected: Vec<_> = model
        .holds
        .iter()
        .filter(|(_, stands)| *stands)
        .map(|(hold, _)| *hold)
        .collect();
    expected.sort();
    assert_eq!(standing, expected);
    let all: Vec<_> = model.holds.iter().map(|(hold, _)| *hold).collect();
    let released = store.released_among(&all).await.expect("a look");
    assert_eq!(released.len() + standing.len(), all.len());
    assert_eq!(verified_audit(store).await.len(), model.entries);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_store_behaves_like_the_model(steps in prop::collection::vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(run(steps));
    }
}
