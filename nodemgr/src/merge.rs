//! What the node tells a controller that does not know it: its holds in full, the releases that it remembers, its own
//! audit. Everything is bounded to what a message takes; the controller asks again for the rest.

use proto::HoldId;
use proto::v1::{AuditEntry, Hold, MergeReply, MergeRequest, Tombstone};
use tonic::Status;

use crate::diary::Diary;
use crate::engine::Node;

/// Holds in one request. With the longest texts they fill two thirds of a message.
const HOLDS: usize = 64;
/// Entries in one reply, and the bytes that they may have.
const ENTRIES: usize = 256;
const ENTRY_BYTES: usize = 256 << 10;

/// Answers from the state as it is.
///
/// # Errors
/// When the request asks for too much at once or names no hold.
pub(crate) async fn reply(
    node: &Node,
    diary: Option<&Diary>,
    request: MergeRequest,
) -> Result<MergeReply, Status> {
    let MergeRequest {
        holds,
        entries_after,
        tombstones,
    } = request;
    if holds.len() > HOLDS {
        return Err(Status::invalid_argument(format!(
            "{} holds are asked for, at most {HOLDS} are told at once",
            holds.len()
        )));
    }
    let wanted: Vec<HoldId> = holds
        .iter()
        .map(|id| id.parse())
        .collect::<Result<_, proto::IdError>>()
        .map_err(|e| Status::invalid_argument(format!("holds: {e}")))?;
    let (holds, tombstones) = node.told(&wanted, tombstones);
    let entries = match diary {
        Some(diary) if diary.head().sequence > entries_after => {
            match diary.read(entries_after.saturating_add(1), ENTRIES).await {
                Ok(entries) => fitting(entries.into_iter().map(entry)),
                Err(error) => {
                    // The holds are worth telling all the same.
                    tracing::warn!(%error, "the diary cannot be read");
                    Vec::new()
                }
            }
        }
        _ => Vec::new(),
    };
    Ok(MergeReply {
        holds,
        tombstones,
        entries,
    })
}

impl Node {
    fn told(&self, wanted: &[HoldId], tombstones: bool) -> (Vec<Hold>, Vec<Tombstone>) {
        self.with_holds(|set, _| {
            let holds = wanted.iter().filter_map(|id| set.get_signed(*id));
            let stones = set.tombstones().stones().filter(|_| tombstones);
            (
                holds.cloned().map(Hold::from).collect(),
                stones.cloned().map(Tombstone::from).collect(),
            )
        })
    }
}

fn fitting(entries: impl Iterator<Item = AuditEntry>) -> Vec<AuditEntry> {
    let mut bytes = 0;
    entries
        .take_while(|entry| {
            bytes += prost::Message::encoded_len(entry) + 8;
            bytes <= ENTRY_BYTES
        })
        .collect()
}

/// An entry as the wire has it.
pub(crate) fn entry(entry: audit::Entry) -> AuditEntry {
    let audit::Entry {
        sequence,
        said,
        previous,
        hash,
    } = entry;
    let audit::Draft {
        at_ms,
        version,
        person,
        role,
        action,
        target,
        reason,
        evidence,
        outcome,
        detail,
        order,
    } = said;
    AuditEntry {
        sequence,
        at_ms,
        person: person.map(String::from).unwrap_or_default(),
        role: role
            .map_or(proto::v1::Role::Unspecified, proto::v1::Role::from)
            .into(),
        action,
        target,
        reason,
        evidence,
        outcome: outcome.to_string(),
        detail,
        order: order.map(String::from).unwrap_or_default(),
        previous: previous.as_bytes().to_vec(),
        hash: hash.as_bytes().to_vec(),
        version: Some(version.into()),
    }
}
