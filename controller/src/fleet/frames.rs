//! What goes over the `Obey` stream: commands that are encoded once for all nodes, and a codec with small
//! buffers. tonic's own takes 8 KiB for each direction of each stream, which is more than all else of an idle
//! node in this crate.

use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use futures_util::Stream;
use prost::Message;
use proto::canonical::Signature;
use proto::v1::{self, command::Action};
use proto::{BootId, Hold, HoldId, Lifted, OrderId, Tombstone, Version};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::store::{OrderKind, OrderRecord, SignedRelease, Wish};

/// Encoded commands that belong together: one send, however many nodes.
pub(crate) type Batch = Arc<[Bytes]>;

/// The commands of an order; `now` is the highest version that was ever sent. `boot` replaces what a reboot or
/// halt did not know at its press.
pub(crate) fn commands(order: &OrderRecord, now: Version, boot: Option<BootId>) -> Batch {
    let one = |action| command(Some(order.id), now, order.version, action, None);
    let word = |hold: &HoldId| order.signatures.get(hold);
    let boot = |known: &Option<BootId>| known.or(boot).map(String::from).unwrap_or_default();
    match (&order.wish, order.kind) {
        (Wish::Release { holds }, _) => holds
            .iter()
            .map(|hold| {
                let action = Action::Release((*hold).into());
                command(Some(order.id), now, order.version, action, word(hold))
            })
            .collect::<Vec<_>>()
            .into(),
        (Wish::Reboot { boot_id, .. }, _) => Arc::new([one(Action::Reboot(v1::Reboot {
            boot_id: boot(boot_id),
        }))]),
        (Wish::Stop { boot_id, .. }, _) => Arc::new([one(Action::Halt(v1::Halt {
            boot_id: boot(boot_id),
        }))]),
        (Wish::StopEveryNode { .. }, _) => Arc::new([one(Action::Halt(v1::Halt { boot_id: boot(&None) }))]),
        (
            Wish::Hold { .. },
            OrderKind::Release | OrderKind::RebootNode | OrderKind::StopNode | OrderKind::StopEveryNode,
        ) => Arc::new([]),
        (Wish::Hold { .. }, _) => order
            .holds
            .iter()
            .map(|hold| one(Action::Impose(signed(hold, word(&hold.id)))))
            .collect::<Vec<_>>()
            .into(),
    }
}

/// Bytes of holds in one sync. Whoever pressed often enough must not make a message that no node takes.
const MAX_SYNC: usize = 256 << 10;

/// What a node is told at once, beside what holds on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catchup {
    /// Released meanwhile.
    pub(crate) released: Vec<HoldId>,
    /// The controller's word for some of these.
    pub(crate) tombstones: Vec<SignedRelease>,
    /// Holds that the node has under another id now.
    pub(crate) renamed: Vec<HoldId>,
    /// Tombstones of the node that are kept here.
    pub(crate) recorded: Vec<HoldId>,
}

/// Everything that holds on a node, sent after what it is owed: one sync, or several, which add up. What was renamed
/// falls with the last, when its new name stands.
pub(crate) fn sync<'a>(
    now: Version,
    holds: impl Iterator<Item = (&'a Hold, Option<&'a Signature>)>,
    news: Catchup,
) -> Vec<Bytes> {
    let Catchup {
        released,
        tombstones,
        renamed,
        recorded,
    } = news;
    let ids = |ids: Vec<HoldId>| ids.into_iter().map(String::from).collect::<Vec<_>>();
    let stone = |SignedRelease {
                     hold,
                     version,
                     signature,
                 }| {
        let lifted = Lifted::Signed { version, signature };
        Tombstone { hold, lifted }.into()
    };
    let mut parts = vec![v1::Sync {
        holds: Vec::new(),
        released: ids(released),
        tombstones: tombstones.into_iter().map(stone).collect(),
        recorded: ids(recorded),
    }];
    let mut bytes = parts[0].encoded_len();
    for (hold, word) in holds {
        let hold = signed(hold, word);
        bytes += hold.encoded_len() + 8;
        if bytes > MAX_SYNC {
            bytes = hold.encoded_len() + 8;
            parts.push(v1::Sync::default());
        }
        if let Some(part) = parts.last_mut() {
            part.holds.push(hold);
        }
    }
    if let Some(part) = parts.last_mut() {
        part.released.extend(ids(renamed));
    }
    parts
        .into_iter()
        .map(|part| command(None, now, now, Action::Sync(part), None))
        .collect()
}

/// Where the audit stands, for a node to keep.
pub(crate) fn witness(now: Version, statement: v1::SignedStatement) -> Bytes {
    command(None, now, now, Action::Witness(statement), None)
}

fn signed(hold: &Hold, word: Option<&Signature>) -> v1::Hold {
    v1::Hold {
        signature: word.map(|word| word.to_vec()).unwrap_or_default(),
        ..hold.clone().into()
    }
}

fn command(
    order: Option<OrderId>,
    now: Version,
    given: Version,
    action: Action,
    release: Option<&Signature>,
) -> Bytes {
    let order = order.map(String::from).unwrap_or_default();
    let command = v1::Command {
        now: Some(now.into()),
        order,
        given: Some(given.into()),
        release_signature: release.map(|word| word.to_vec()).unwrap_or_default(),
        action: Some(action),
    };
    command.encode_to_vec().into()
}

/// The request side of `Obey`: what a node is owed on attach, then whatever is pressed.
#[derive(Debug)]
pub(crate) struct Outgoing {
    current: Option<(Batch, usize)>,
    pressed: mpsc::Receiver<Batch>,
}

impl Outgoing {
    pub(crate) fn new(owed: Batch, pressed: mpsc::Receiver<Batch>) -> Self {
        Self {
            current: Some((owed, 0)),
            pressed,
        }
    }
}

impl Stream for Outgoing {
    type Item = Bytes;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some((batch, at)) = &mut self.current {
                if let Some(frame) = batch.get(*at).cloned() {
                    *at += 1;
                    return Poll::Ready(Some(frame));
                }
                self.current = None;
            }
            match self.pressed.poll_recv(cx) {
                Poll::Ready(Some(batch)) => self.current = Some((batch, 0)),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Sends encoded messages, receives `M`.
#[derive(Debug)]
pub(crate) struct Lean<M>(PhantomData<fn() -> M>);

impl<M> Default for Lean<M> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<M> Lean<M> {
    /// A press is about 300 bytes, an answer about 400; larger ones grow the buffer.
    const BUFFER: usize = 512;
    const YIELD: usize = 16 << 10;
}

impl<M: Message + Default + 'static> Codec for Lean<M> {
    type Encode = Bytes;
    type Decode = M;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<M> Encoder for Lean<M> {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(Self::BUFFER, Self::YIELD)
    }
}

impl<M: Message + Default> Decoder for Lean<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        let message =
            M::decode(&mut *from).map_err(|e| Status::internal(format!("malformed message: {e}")))?;
        // prost stops where the message ends; what is left would be read as the next frame.
        from.advance(from.remaining());
        Ok(Some(message))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(Self::BUFFER, Self::YIELD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{HoldKind, Role, Scope};

    #[test]
    fn a_sync_is_whole_however_many_holds_there_are() {
        let hold = |epoch| Hold {
            id: HoldId::new(),
            slice: None,
            scope: Scope::Fleet,
            kind: HoldKind::Suspend,
            holder: "alice".parse().expect("valid"),
            role: Role::Support,
            reason: "ä".repeat(1_000),
            evidence: "ö".repeat(1_000),
            set_at_ms: 0,
            version: Version {
                incarnation: 1,
                epoch,
            },
        };
        let holds: Vec<Hold> = (0..500).map(hold).collect();
        let released: Vec<HoldId> = (0..100).map(|_| HoldId::new()).collect();
        let renamed = HoldId::new();
        let news = Catchup {
            released: released.clone(),
            renamed: vec![renamed],
            ..Catchup::default()
        };
        let frames = sync(Version::default(), holds.iter().map(|hold| (hold, None)), news);
        assert!(frames.len() > 1);
        let last = v1::Command::decode(frames[frames.len() - 1].clone()).expect("a command");
        assert!(
            matches!(last.action, Some(Action::Sync(part)) if part.released == [renamed.to_string()]),
            "what was renamed falls last"
        );
        let mut seen = (Vec::new(), Vec::new());
        for frame in frames {
            assert!(frame.len() < proto::MAX_MESSAGE_BYTES);
            let command = v1::Command::decode(frame).expect("a command");
            let Some(Action::Sync(part)) = command.action else {
                panic!("no sync")
            };
            seen.0.extend(part.holds.into_iter().map(|hold| hold.id));
            seen.1.extend(part.released);
        }
        assert_eq!(
            seen.0,
            holds.iter().map(|hold| hold.id.to_string()).collect::<Vec<_>>()
        );
        let ids = released.iter().chain([&renamed]);
        assert_eq!(seen.1, ids.map(HoldId::to_string).collect::<Vec<_>>());
        assert_eq!(
            sync(Version::default(), [].into_iter(), Catchup::default()).len(),
            1,
            "a node waits for its sync"
        );
    }
}
