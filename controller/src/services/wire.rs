//! From records to messages.

use prost::Message;
use proto::v1::{self, NodeResult, OrderEvent};
use tokio::sync::mpsc;
use tonic::Status;

use super::pages::MAX_ROWS_BYTES;
use crate::fleet::{LiveOrder, Standing};
use crate::store::{OrderState, PersonRecord, ResultRecord};

/// Bytes of holds in an order; a release of hundreds with long reasons shows the first of them.
const MAX_HOLDS_BYTES: usize = 256 << 10;

/// As many as fit into `budget` bytes.
pub(crate) fn fitting<M: Message>(rows: impl Iterator<Item = M>, budget: usize) -> Vec<M> {
    let mut left = budget;
    rows.take_while(|row| {
        let bytes = row.encoded_len() + 8;
        let fits = bytes <= left;
        left = left.saturating_sub(bytes);
        fits
    })
    .collect()
}

pub(crate) fn person(record: PersonRecord) -> v1::Person {
    let PersonRecord {
        name,
        full_name,
        email,
        grants,
        created_at_ms,
    } = record;
    v1::Person {
        name: name.into(),
        full_name,
        email,
        grants: grants.iter().map(grant).collect(),
        created_at_ms,
    }
}

pub(crate) fn grant(grant: &authz::Grant) -> v1::Grant {
    v1::Grant {
        role: v1::Role::from(grant.role()).into(),
        slice: grant.slice().map(ToString::to_string).unwrap_or_default(),
        site: grant.site().map(ToString::to_string).unwrap_or_default(),
    }
}

pub(crate) fn order(live: &LiveOrder) -> v1::Order {
    let LiveOrder {
        record,
        state,
        counts,
        settled: _,
    } = live;
    let state = match state {
        OrderState::Open => v1::OrderState::Open,
        OrderState::Answered => v1::OrderState::Answered,
        OrderState::Closed => v1::OrderState::Closed,
    };
    v1::Order {
        id: record.id.into(),
        version: Some(record.version.into()),
        person: record.person.to_string(),
        role: v1::Role::from(record.role).into(),
        kind: record.kind.to_string(),
        target: record.target.clone(),
        reason: record.reason.clone(),
        evidence: record.evidence.clone(),
        pressed_at_ms: record.pressed_at_ms,
        state: state.into(),
        holds: fitting(record.holds.iter().cloned().map(v1::Hold::from), MAX_HOLDS_BYTES),
        counts: Some(*counts),
        slice: record.slice.as_ref().map(ToString::to_string).unwrap_or_default(),
        scope: Some(record.scope.clone().into()),
    }
}

pub(crate) fn node_result(standing: &Standing, result: Option<ResultRecord>) -> NodeResult {
    let Standing {
        node,
        outcome,
        proven,
    } = standing;
    let (answer, answered_at_ms) = match result {
        Some(result) => (result.answer, result.answered_at_ms),
        None => (None, 0),
    };
    NodeResult {
        node: node.id.to_string(),
        node_name: node.name.to_string(),
        site: node.site.to_string(),
        outcome: (*outcome).into(),
        answer,
        answered_at_ms,
        proven: *proven,
    }
}

/// Takes evidence, then proofs, out of results until all of them fit into one message; if the bare results do not
/// fit either, those of the nodes that did best are left out, and the counts tell how many.
pub(crate) fn fit_results(mut results: Vec<NodeResult>) -> Vec<NodeResult> {
    let bytes = |results: &[NodeResult]| results.iter().map(|r| r.encoded_len() + 8).sum::<usize>();
    let budget = MAX_ROWS_BYTES - MAX_HOLDS_BYTES;
    if bytes(&results) > budget {
        for sliver in results
            .iter_mut()
            .filter_map(|r| r.answer.as_mut())
            .flat_map(|answer| &mut answer.slivers)
        {
            sliver.evidence = None;
        }
    }
    if bytes(&results) > budget {
        results.sort_by_key(|result| (result.proven, result.node_name.clone()));
        for result in results.iter_mut().filter(|result| result.proven) {
            result.answer = None;
        }
    }
    if bytes(&results) > budget {
        results = fitting(results.into_iter(), budget);
    }
    results
}

/// Sends an event, in several if it is too long for one. False when nobody reads any more.
pub(crate) async fn send_event(
    events: &mpsc::Sender<Result<OrderEvent, Status>>,
    live: &LiveOrder,
    results: Vec<NodeResult>,
    last: bool,
) -> bool {
    let order = order(live);
    let budget = MAX_ROWS_BYTES.saturating_sub(order.encoded_len());
    let mut part = Vec::new();
    let mut left = budget;
    for result in results {
        let bytes = result.encoded_len() + 8;
        if bytes > left && !part.is_empty() {
            let changed = std::mem::take(&mut part);
            let event = OrderEvent {
                order: Some(order.clone()),
                changed,
                last: false,
            };
            if events.send(Ok(event)).await.is_err() {
                return false;
            }
            left = budget;
        }
        left = left.saturating_sub(bytes);
        part.push(result);
    }
    events
        .send(Ok(OrderEvent {
            order: Some(order),
            changed: part,
            last,
        }))
        .await
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{Answer, Evidence, Outcome, Process, SliverProof};

    #[test]
    fn ten_thousand_results_fit_and_those_in_trouble_stay() {
        let result = |n: u32| {
            let process = Process {
                command_line: "x".repeat(100),
                ..Process::default()
            };
            let evidence = Evidence {
                processes: vec![process],
                incomplete: String::new(),
            };
            let sliver = SliverProof {
                slice: "princeton_codeen".into(),
                evidence: Some(evidence),
                ..SliverProof::default()
            };
            NodeResult {
                node: proto::NodeId::random().to_string(),
                node_name: format!("node-{n:05}.example.org"),
                site: "princeton".into(),
                outcome: if n == 9_999 {
                    Outcome::Failed
                } else {
                    Outcome::Killed
                }
                .into(),
                answer: Some(Answer {
                    slivers: vec![sliver],
                    ..Answer::default()
                }),
                answered_at_ms: 1,
                proven: n != 9_999,
            }
        };
        let fit = fit_results((0..10_000).map(result).collect());
        assert!(fit.iter().map(|r| r.encoded_len() + 8).sum::<usize>() < proto::MAX_MESSAGE_BYTES);
        assert!(fit.len() > 5_000, "{}", fit.len());
        assert_eq!(fit[0].outcome(), Outcome::Failed);
        assert!(fit[0].answer.is_some());
        let few = fit_results((0..10).map(result).collect());
        assert!(
            few.iter()
                .all(|r| r.answer.as_ref().is_some_and(|a| a.slivers[0].evidence.is_some()))
        );
    }
}
