//! The node's own key and what certifies it.
//!
//! ```text
//!   join TOKEN ─▶ key made here (0600, never leaves) ─▶ Keys.Request / Install over the token's link ─▶ bundle
//!   run ────────▶ bundle's key ─▶ Keys.Request / Install over every link ─▶ STATE/credentials ─▶ the next dial
//! ```
//! The bundle holds the key and is written once, by `join` or by `redbutton-controller issue`. What is renewed holds
//! nothing secret and stands in the state directory, so that `/etc` may be read-only; it counts only for the
//! bundle's own key, so that a new bundle is never overruled by what was renewed for the old one.
//!
//! Invariants: nothing is taken that would not dial (whole, for our key and node, leading to the roots that come
//! with it); it is on the disk before it is acknowledged; a disk that refuses it costs only the acknowledgement, the
//! next dial uses it all the same.
//!
//! The clock: the controller's is believed only where ours agrees. What both say has passed is kept in
//! `STATE/clock-floor` and holds for a machine whose clock is wrong later ([`link::TimeFloor`] says what for).

mod file;
mod join;
mod pair;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use link::{Credentials, TimeFloor};
use proto::MAX_MESSAGE_BYTES;
use proto::bundle::Bundle;
use proto::v1::keys_server::{Keys, KeysServer};
use proto::v1::{
    KeyInstall, KeyInstallReply, KeyRefusal, KeyRefusalReply, KeyRequest, KeyRequestReply, NodeReport,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

pub use file::FileError;
pub use join::{JoinError, Joined, TRY_FOR, join, join_blocking, read_token};
pub use pair::PairError;

use crate::worker::Worker;
use pair::Pair;

/// Characters of a refusal that are logged.
const MAX_REASON: usize = 500;

/// The node's credentials while the daemon runs. Clones are the same.
#[derive(Debug, Clone)]
pub struct NodeKeys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state_dir: PathBuf,
    pair: Pair,
    now: watch::Sender<Arc<Bundle>>,
    dialled_with: Mutex<Option<Credentials>>,
    floor: Arc<TimeFloor>,
    worker: Worker,
}

impl NodeKeys {
    /// Takes up a bundle, and what was renewed for its key.
    ///
    /// # Errors
    /// When the bundle's key is none, or the thread cannot be made. What was renewed and cannot be read is passed
    /// over: the bundle is as good as ever.
    pub fn load(bundle: Bundle, state_dir: PathBuf) -> Result<Self, PairError> {
        let pair = Pair::of_bundle(&bundle)?;
        let bundle = match file::renewed(&state_dir) {
            Ok(Some(renewed)) => match renewed.over(&bundle, &pair) {
                Ok(renewed) => renewed,
                Err(why) => {
                    tracing::info!(why, "what was renewed is for another bundle, and passed over");
                    bundle
                }
            },
            Ok(None) => bundle,
            Err(error) => {
                tracing::warn!(%error, "what was renewed cannot be read; the bundle is used");
                bundle
            }
        };
        let floor = Arc::new(TimeFloor::new(file::floor(&state_dir)));
        Ok(Self(Arc::new(Inner {
            state_dir,
            pair,
            now: watch::channel(Arc::new(bundle)).0,
            dialled_with: Mutex::default(),
            floor,
            worker: Worker::start("keys")?,
        })))
    }

    /// The bundle to dial with now.
    #[must_use]
    pub fn bundle(&self) -> Arc<Bundle> {
        self.0.now.borrow().clone()
    }

    /// The same, and each that comes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Bundle>> {
        self.0.now.subscribe()
    }

    /// What has passed for certain.
    #[must_use]
    pub fn floor(&self) -> Arc<TimeFloor> {
        self.0.floor.clone()
    }

    /// Whoever dials with the bundle dials with each that comes.
    pub fn renews(&self, credentials: Credentials) {
        *self.0.dialled_with.lock().unwrap_or_else(PoisonError::into_inner) = Some(credentials);
    }

    /// For the link.
    #[must_use]
    pub fn service(&self) -> KeysServer<Self> {
        KeysServer::new(self.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Adds to a report which key and certificate are used.
    pub(crate) fn tell(&self, report: NodeReport) -> NodeReport {
        NodeReport {
            key_spki: self.0.pair.spki().to_string(),
            certificate_expires_at_ms: pair::ends(&self.bundle().certificate).unwrap_or(0),
            ..report
        }
    }
}

impl Inner {
    /// Blocking: files.
    fn install(&self, install: &KeyInstall) -> Result<(), Status> {
        let before = self.now.borrow().clone();
        let bundle = self
            .pair
            .certified(install, &before, Some(&before.identity))
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if let Some(credentials) = &*self.dialled_with.lock().unwrap_or_else(PoisonError::into_inner) {
            credentials
                .replace(&bundle)
                .map_err(|error| Status::invalid_argument(format!("cannot be dialled with: {error}")))?;
        }
        crate::crash::point("nodemgr.install-before-write");
        let written = file::write_renewed(&self.state_dir, &bundle, &install.site);
        crate::crash::point("nodemgr.install-after-write");
        // The next dial uses it, on the disk or not.
        self.now.send_replace(Arc::new(bundle));
        self.raise_floor(install.at_ms);
        written.map_err(|error| Status::resource_exhausted(format!("used, but not durable: {error}")))?;
        tracing::info!(key = %self.pair.spki(), "a new certificate is installed");
        Ok(())
    }

    fn raise_floor(&self, controller_ms: i64) {
        let passed = agreed(controller_ms, clock_ms());
        if self.floor.raise(passed)
            && let Err(error) = file::write_floor(&self.state_dir, passed)
        {
            tracing::warn!(%error, "what has passed is not on the disk");
        }
    }
}

/// Seconds since 1970 that have passed by both clocks. One clock that runs ahead, ours or the controller's, must not
/// shut us off from a controller whose certificates are of the true time.
fn agreed(controller_ms: i64, own_ms: i64) -> u64 {
    u64::try_from(controller_ms.min(own_ms) / 1_000).unwrap_or(0)
}

fn clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What a controller says to somebody whom it does not let in, for the log.
fn reason(refusal: &KeyRefusal) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    refusal.reason.chars().take(MAX_REASON).map(plain).collect()
}

#[tonic::async_trait]
impl Keys for NodeKeys {
    async fn request(&self, _: Request<KeyRequest>) -> Result<Response<KeyRequestReply>, Status> {
        let request = self
            .0
            .pair
            .request()
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(KeyRequestReply {
            request,
            clock_ms: clock_ms(),
        }))
    }

    async fn install(&self, request: Request<KeyInstall>) -> Result<Response<KeyInstallReply>, Status> {
        let inner = self.0.clone();
        let install = request.into_inner();
        self.0
            .worker
            .run(move || inner.install(&install))
            .await
            .map_err(|busy| Status::resource_exhausted(busy.to_string()))??;
        Ok(Response::new(KeyInstallReply {
            key: self.0.pair.spki().to_string(),
        }))
    }

    async fn refuse(&self, request: Request<KeyRefusal>) -> Result<Response<KeyRefusalReply>, Status> {
        let reason = reason(request.get_ref());
        tracing::error!(reason, "the controller does not let this node in");
        Ok(Response::new(KeyRefusalReply {}))
    }
}

#[cfg(test)]
mod tests;
