//! The gRPC service `SoftwareUpdates`, on the link.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use prost::Message;
use proto::v1::software_updates_server::{SoftwareUpdates, SoftwareUpdatesServer};
use proto::v1::{self, SoftwareState};
use proto::{MAX_MESSAGE_BYTES, Version};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use trust::{Kind, Roots};

use super::ledger::{Ledger, Program};
use super::place::{Place, PlaceError, hex};
use super::{NAME, PACKAGED, SELF, trial, version};
use crate::worker::Worker;

/// Largest program.
const MAX_SIZE: u64 = 256 << 20;
/// Largest piece.
const MAX_CHUNK: usize = 256 << 10;
/// Longest version.
const MAX_VERSION: usize = 64;
/// What a deadline may be.
const DEADLINE_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;
/// Between saying that we end and ending: the answer leaves first.
const LEAVE: Duration = Duration::from_millis(250);
/// How long a new program must live with a link until its starts are not counted any more.
const STEADY: Duration = Duration::from_secs(10);

/// What the service is made from.
pub(crate) struct Setup {
    pub(crate) state_dir: PathBuf,
    /// What a new program is tried with.
    pub(crate) config_file: PathBuf,
    /// Why no program can be changed here; empty: it can.
    pub(crate) refused: String,
    /// Whose signers may name a program.
    pub(crate) roots: Arc<RwLock<Roots>>,
    /// Ends the daemon.
    pub(crate) shutdown: CancellationToken,
}

/// A program that was announced and may come in.
#[derive(Debug, Clone)]
struct Offered {
    program: Program,
    size: u64,
    decided: Version,
}

struct Inner {
    setup: Setup,
    place: Place,
    worker: Worker,
    /// Which program speaks; empty: the package.
    running: String,
    packaged: String,
    ledger: Mutex<Ledger>,
    offered: Mutex<Option<Offered>>,
}

/// Programs of this node. Cheap to clone.
#[derive(Clone)]
pub struct Updates(Arc<Inner>);

impl std::fmt::Debug for Updates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Updates")
            .field("running", &self.0.running)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Text that goes into logs, tables and file names of others: short and plain.
fn is_version(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_VERSION
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".+-~_".contains(&b))
}

impl Updates {
    /// Speaks for this process.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub(crate) fn new(setup: Setup) -> std::io::Result<Self> {
        let place = Place::below(&setup.state_dir);
        let text = |name| std::env::var(name).unwrap_or_default();
        let ledger = place.read().unwrap_or_else(|error| {
            tracing::error!(%error, "which program is to run here cannot be read");
            Ledger::default()
        });
        let packaged = match text(PACKAGED) {
            none if none.is_empty() => version().to_owned(),
            known => known,
        };
        Ok(Self(Arc::new(Inner {
            setup,
            place,
            worker: Worker::start("software")?,
            running: text(SELF),
            packaged,
            ledger: Mutex::new(ledger),
            offered: Mutex::default(),
        })))
    }

    pub(crate) fn server(&self) -> SoftwareUpdatesServer<Self> {
        SoftwareUpdatesServer::new(self.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// For reports.
    pub(crate) fn state(&self) -> SoftwareState {
        let ledger = lock(&self.0.ledger);
        let (left_sha256, left_why) = match &ledger.left {
            Some(left) => (unhex(&left.sha256), left.why.clone()),
            None => Default::default(),
        };
        SoftwareState {
            sha256: unhex(&self.0.running),
            version: version().to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            trial: ledger.trial.is_some(),
            attempt: ledger.attempt,
            left_sha256,
            left_why,
            refused: self.0.setup.refused.clone(),
        }
    }

    /// The controller has taken the link: a program on trial has done what it must.
    pub(crate) fn attached(&self) {
        let waits = lock(&self.0.ledger)
            .trial
            .as_ref()
            .is_some_and(|trial| !trial.attached);
        if !waits {
            return;
        }
        let updates = self.clone();
        tokio::spawn(async move {
            updates
                .note(|ledger| {
                    if let Some(trial) = &mut ledger.trial {
                        trial.attached = true;
                    }
                })
                .await;
            tokio::time::sleep(STEADY).await;
            updates.note(|ledger| ledger.trial = None).await;
        });
    }

    async fn note(&self, change: impl FnOnce(&mut Ledger) + Send + 'static) {
        if let Err(status) = self.change(change).await {
            tracing::error!(error = status.message(), "what runs here cannot be noted");
        }
    }

    /// Changes the ledger on disk, then here.
    async fn change(&self, change: impl FnOnce(&mut Ledger) + Send + 'static) -> Result<(), Status> {
        let inner = self.0.clone();
        self.blocking(move || {
            let ((), ledger) = inner.place.change(change)?;
            *lock(&inner.ledger) = ledger;
            Ok(())
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, PlaceError> + Send + 'static,
    ) -> Result<T, Status> {
        let done = self.0.worker.run(job).await;
        done.map_err(|busy| Status::resource_exhausted(busy.to_string()))?
            .map_err(|error| match error {
                PlaceError::Io { .. } | PlaceError::Ledger { .. } => Status::unavailable(error.to_string()),
                PlaceError::Offset { .. } => Status::out_of_range(error.to_string()),
                PlaceError::Digest(_) | PlaceError::TooLong { .. } | PlaceError::Wrong { .. } => {
                    Status::invalid_argument(error.to_string())
                }
            })
    }

    fn may_change(&self) -> Result<(), Status> {
        match self.0.setup.refused.as_str() {
            "" => Ok(()),
            why => Err(Status::failed_precondition(why)),
        }
    }

    /// What a manifest names, if it may come in.
    fn judge(&self, statement: Option<v1::SignedStatement>) -> Result<Offered, Status> {
        let refuse = |why: String| Err(Status::permission_denied(why));
        let statement = statement.unwrap_or_default();
        let roots = self
            .0
            .setup
            .roots
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let body = match trust::verify(&statement, &roots, Kind::Software) {
            Ok(body) => body,
            Err(error) => return refuse(format!("manifest: {error}")),
        };
        let v1::Manifest {
            name,
            version,
            sha256,
            size,
            architecture,
            decided,
        } = v1::Manifest::decode(body).map_err(|e| Status::invalid_argument(format!("manifest: {e}")))?;
        if name != NAME {
            return refuse(format!("manifest is for {name:.40?}, this is {NAME}"));
        }
        if !architecture.is_empty() && architecture != std::env::consts::ARCH {
            let here = std::env::consts::ARCH;
            return refuse(format!(
                "manifest is for {architecture:.40?}, this machine is {here}"
            ));
        }
        if !is_version(&version) || sha256.len() != 32 || !(1..=MAX_SIZE).contains(&size) {
            return refuse("manifest names no program: version, SHA-256 or size is malformed".into());
        }
        let decided = decided.map(Version::from).unwrap_or_default();
        if !lock(&self.0.ledger).accepts(decided) {
            return refuse(format!(
                "manifest was decided at {decided}: this node has obeyed a later one"
            ));
        }
        Ok(Offered {
            program: Program {
                sha256: hex(&sha256),
                version,
            },
            size,
            decided,
        })
    }

    fn offered(&self, sha256: &[u8]) -> Result<Offered, Status> {
        let wanted = hex(sha256);
        lock(&self.0.offered)
            .clone()
            .filter(|offered| offered.program.sha256 == wanted)
            .ok_or_else(|| Status::failed_precondition("this program was not offered on this link's daemon"))
    }

    fn end_soon(&self) {
        let shutdown = self.0.setup.shutdown.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LEAVE).await;
            shutdown.cancel();
        });
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .filter_map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok())
        .collect()
}

#[tonic::async_trait]
impl SoftwareUpdates for Updates {
    async fn state(&self, _: Request<v1::SoftwareStateRequest>) -> Result<Response<SoftwareState>, Status> {
        Ok(Response::new(Updates::state(self)))
    }

    async fn offer(
        &self,
        request: Request<v1::OfferSoftwareRequest>,
    ) -> Result<Response<v1::OfferSoftwareReply>, Status> {
        self.may_change()?;
        let offered = self.judge(request.into_inner().manifest)?;
        let (place, sha256, size) = (self.0.place.clone(), offered.program.sha256.clone(), offered.size);
        let have = self.blocking(move || place.expect(&sha256, size)).await?;
        *lock(&self.0.offered) = Some(offered);
        Ok(Response::new(v1::OfferSoftwareReply { have }))
    }

    async fn chunk(
        &self,
        request: Request<v1::SoftwareChunk>,
    ) -> Result<Response<v1::SoftwareChunkReply>, Status> {
        self.may_change()?;
        let v1::SoftwareChunk { sha256, offset, data } = request.into_inner();
        if data.is_empty() || data.len() > MAX_CHUNK {
            return Err(Status::invalid_argument(format!(
                "a piece has {} bytes, expected 1 to {MAX_CHUNK}",
                data.len()
            )));
        }
        let Offered { program, size, .. } = self.offered(&sha256)?;
        let place = self.0.place.clone();
        let have = self
            .blocking(move || place.take(&program.sha256, size, offset, &data))
            .await?;
        Ok(Response::new(v1::SoftwareChunkReply { have }))
    }

    async fn activate(
        &self,
        request: Request<v1::ActivateSoftwareRequest>,
    ) -> Result<Response<SoftwareState>, Status> {
        self.may_change()?;
        let v1::ActivateSoftwareRequest { sha256, deadline_ms } = request.into_inner();
        if !DEADLINE_MS.contains(&deadline_ms) {
            let (least, most) = (DEADLINE_MS.start(), DEADLINE_MS.end());
            let why = format!("deadline_ms is {deadline_ms}, expected {least} to {most}");
            return Err(Status::invalid_argument(why));
        }
        let Offered { program, decided, .. } = self.offered(&sha256)?;
        if program.sha256 == self.0.running {
            return Ok(Response::new(Updates::state(self)));
        }
        let (place, config, tried) = (
            self.0.place.clone(),
            self.0.setup.config_file.clone(),
            program.clone(),
        );
        let good = self
            .blocking(move || {
                Ok(place
                    .whole(&tried)
                    .and_then(|()| trial::try_out(&place.program(&tried.sha256), &tried.version, &config)))
            })
            .await?;
        if let Err(why) = good {
            return Err(Status::failed_precondition(format!("it stays as it is: {why}")));
        }
        let packaged = self.0.packaged.clone();
        tracing::warn!(
            version = program.version,
            sha256 = program.sha256,
            "another version takes over"
        );
        self.change(move |ledger| ledger.activate(program, &packaged, decided, deadline_ms))
            .await?;
        self.end_soon();
        Ok(Response::new(Updates::state(self)))
    }

    async fn revert(
        &self,
        request: Request<v1::RevertSoftwareRequest>,
    ) -> Result<Response<SoftwareState>, Status> {
        self.may_change()?;
        let v1::RevertSoftwareRequest { sha256, why } = request.into_inner();
        let wanted = hex(&sha256);
        if wanted.is_empty() || wanted != self.0.running {
            return Ok(Response::new(Updates::state(self)));
        }
        tracing::warn!(%why, "the version before this one takes over");
        self.change(move |ledger| {
            if ledger.current.as_ref().is_some_and(|p| p.sha256 == wanted) {
                ledger.leave(&why);
            }
        })
        .await?;
        self.end_soon();
        Ok(Response::new(Updates::state(self)))
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
