//! Bringing a program to a node, over its link: a chunk at a time, and no faster than all of them together may.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use link::Link;
use proto::v1::software_updates_client::SoftwareUpdatesClient;
use proto::v1::{
    ActivateSoftwareRequest, OfferSoftwareRequest, RevertSoftwareRequest, SignedStatement, SoftwareChunk,
    SoftwareState,
};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::{Code, Response, Status};

use super::model::Told;

/// Bytes of a chunk: what a press may have to wait for on the wire. 0.25 s at 1 Mbit/s.
const CHUNK: usize = 32 << 10;
/// For the answer to an offer or a chunk.
const ANSWER: Duration = Duration::from_secs(30);
/// For the node to try the program and to note it.
const SWITCH: Duration = Duration::from_secs(90);

/// Bytes for all nodes together.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_second: u64,
    /// When the wire is free again.
    free: Mutex<Instant>,
}

impl Throttle {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            free: Mutex::new(Instant::now()),
        }
    }

    /// Waits for the turn of so many bytes.
    async fn take(&self, bytes: usize) {
        let took = Duration::from_micros(bytes as u64 * 1_000_000 / self.bytes_per_second);
        let turn = {
            let mut free = self.free.lock().await;
            let turn = (*free).max(Instant::now());
            *free = turn + took;
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

/// What is brought where.
pub(super) struct Parcel<'a> {
    pub(super) manifest: SignedStatement,
    pub(super) sha256: Vec<u8>,
    pub(super) size: u64,
    pub(super) path: &'a Path,
    pub(super) deadline_ms: u64,
}

/// How a call ended that was not answered well.
enum Failed {
    /// The node says no.
    Refused(String),
    /// The link, or time.
    Link(String),
}

fn client(link: Link) -> SoftwareUpdatesClient<Link> {
    SoftwareUpdatesClient::with_origin(link, Link::origin())
        .max_decoding_message_size(proto::MAX_MESSAGE_BYTES)
}

async fn within<T>(
    after: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failed> {
    match tokio::time::timeout(after, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => {
            let said: String = status.message().chars().take(500).collect();
            Err(match status.code() {
                Code::PermissionDenied
                | Code::InvalidArgument
                | Code::FailedPrecondition
                | Code::Unimplemented => Failed::Refused(said),
                _ => Failed::Link(said),
            })
        }
        Err(_) => Err(Failed::Link(format!("no answer within {after:?}"))),
    }
}

impl From<Failed> for Told {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Refused(why) => Told::Refused(why),
            Failed::Link(why) => Told::Broken(why),
        }
    }
}

async fn read(path: &Path, offset: u64, most: usize) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    let job = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; most];
        File::open(path)?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    });
    job.await.map_err(io::Error::other)?
}

/// Brings a program to a node and lets it switch.
pub(super) async fn push(link: Link, parcel: Parcel<'_>, throttle: &Throttle) -> Told {
    let mut client = client(link);
    if let Err(told) = bring(&mut client, &parcel, throttle).await {
        return told;
    }
    let request = ActivateSoftwareRequest {
        sha256: parcel.sha256,
        deadline_ms: parcel.deadline_ms,
    };
    match within(SWITCH, client.activate(request)).await {
        Ok(SoftwareState { attempt, .. }) => Told::Switches(attempt),
        Err(Failed::Refused(why)) => Told::Refused(why),
        Err(Failed::Link(_)) => Told::Unsure,
    }
}

async fn bring(
    client: &mut SoftwareUpdatesClient<Link>,
    parcel: &Parcel<'_>,
    throttle: &Throttle,
) -> Result<(), Told> {
    let offer = OfferSoftwareRequest {
        manifest: Some(parcel.manifest.clone()),
    };
    let mut have = within(ANSWER, client.offer(offer)).await?.have;
    while have < parcel.size {
        let most = usize::try_from(parcel.size - have).unwrap_or(CHUNK).min(CHUNK);
        let data = read(parcel.path, have, most)
            .await
            .map_err(|e| Told::Refused(format!("the controller's copy {}: {e}", parcel.path.display())))?;
        throttle.take(data.len()).await;
        let chunk = SoftwareChunk {
            sha256: parcel.sha256.clone(),
            offset: have,
            data,
        };
        let now = within(ANSWER, client.chunk(chunk)).await?.have;
        if now <= have || now > parcel.size {
            return Err(Told::Refused(format!(
                "it says that it has {now} bytes after {have}"
            )));
        }
        have = now;
    }
    Ok(())
}

/// Lets a node go back.
pub(super) async fn send_back(link: Link, sha256: Vec<u8>, why: String) -> Told {
    let request = RevertSoftwareRequest { sha256, why };
    match within(SWITCH, client(link).revert(request)).await {
        Ok(_) => Told::GoesBack,
        Err(failed) => failed.into(),
    }
}
