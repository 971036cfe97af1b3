//! Both ports, until somebody cancels. Orders are durable, so going down is quick: the ports close, links and
//! connections are cut, what was heard is recorded, the database is closed.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use link::{Acceptor, ServeConfig, Workers};
use proto::Identity;
use proto::bundle::SecretPem;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::Config;
use crate::admin::files;
use crate::fleet::Fleet;
use crate::pki::{SignerFileError, load_signer};
use crate::services;
use crate::store::{SqliteStore, Store, StoreError};

/// Held by whatever serves.
type Alive = mpsc::Sender<()>;

/// Nice values of the threads that make handshakes: presses, and what they wait for, go first (ADR 0017).
const PEOPLE_NICE: i32 = 5;
const DAEMONS_NICE: i32 = 10;

/// For links and calls to end after the ports have closed.
const GRACE: Duration = Duration::from_secs(5);

/// Why the controller does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file of the state directory.
    #[error("{path}: cannot be read; redbutton-controller init makes it", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others can change the state directory.
    #[error("state directory")]
    Place(#[from] trust::PlaceError),
    /// Certificate or key.
    #[error("{dir}: controller's certificate and key", dir = dir.display())]
    Tls {
        /// The state directory.
        dir: PathBuf,
        /// What is wrong.
        #[source]
        source: link::TlsError,
    },
    /// The key that makes statements.
    #[error("the controller's signer")]
    Signer(#[from] SignerFileError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Threads for the handshakes.
    #[error("no threads for handshakes")]
    Threads(#[source] std::io::Error),
    /// A port.
    #[error(transparent)]
    Listen(#[from] link::ListenError),
    /// The descriptors of the services.
    #[error("gRPC reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A controller that serves.
#[derive(Debug)]
pub struct Handle {
    /// Where people call, with the real port.
    pub people_addr: SocketAddr,
    /// Where daemons dial, with the real port.
    pub daemons_addr: SocketAddr,
    finished: CancellationToken,
}

impl Handle {
    /// Waits until everything has ended after the shutdown.
    pub async fn finished(&self) {
        self.finished.cancelled().await;
    }
}

fn read(dir: &Path, name: &str) -> Result<String, ServeError> {
    let path = dir.join(name);
    std::fs::read_to_string(&path).map_err(|source| ServeError::File { path, source })
}

/// Serves from the state directory of `config` until `shutdown` is cancelled. Both ports listen when this returns.
///
/// # Errors
/// When the state directory is not complete, the database cannot be used, or a port is taken.
pub async fn serve(config: Config, shutdown: CancellationToken) -> Result<Handle, ServeError> {
    let dir = &config.state;
    trust::own_directory(dir)?;
    let (ca, certificate) = (read(dir, files::CA)?, read(dir, files::CONTROLLER)?);
    let key = SecretPem::new(read(dir, files::CONTROLLER_KEY)?);
    let tls = link::server_config(&ca, &certificate, &key).map_err(|source| ServeError::Tls {
        dir: dir.clone(),
        source,
    })?;
    let signer = Arc::new(load_signer(dir, OffsetDateTime::now_utc())?);
    let store = Arc::new(SqliteStore::open(&dir.join(files::DATABASE)).await?);
    // Ends after the ports, so that what links still say is recorded.
    let recording = CancellationToken::new();
    let shared: Arc<dyn Store> = store.clone();
    let (fleet, fleet_tasks) = Fleet::load(shared, signer, config.nodes.bounds(), recording.clone()).await?;
    let (routes, health) = services::routes(fleet.clone()).await?;
    // Two, so that a person who dials stands behind no daemon.
    let workers = |name, threads, nice| Workers::start(name, threads, nice).map_err(ServeError::Threads);
    let people = Acceptor::bind_on(
        workers("people", 1, PEOPLE_NICE)?,
        config.people.listen,
        tls.clone(),
        config.people.bounds(),
    )?;
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let daemons = Acceptor::bind_on(
        workers("daemons", threads, DAEMONS_NICE)?,
        config.daemons.listen,
        tls,
        config.daemons.bounds(),
    )?;
    let handle = Handle {
        people_addr: people.local_addr(),
        daemons_addr: daemons.local_addr(),
        finished: CancellationToken::new(),
    };
    // Every task of a connection holds a clone; when the last one is gone, nothing serves any more.
    let (alive, mut gone) = mpsc::channel(1);
    let cut = CancellationToken::new();
    drop(tokio::spawn(attend_daemons(
        daemons,
        fleet.clone(),
        alive.clone(),
        shutdown.clone(),
        cut.clone(),
    )));
    drop(tokio::spawn(attend_people(
        people,
        routes,
        alive,
        shutdown.clone(),
        cut.clone(),
    )));
    let finished = handle.finished.clone().drop_guard();
    drop(tokio::spawn(async move {
        let _finished = finished;
        shutdown.cancelled().await;
        health
            .set_service_status("", tonic_health::ServingStatus::NotServing)
            .await;
        cut.cancel();
        if tokio::time::timeout(GRACE, gone.recv()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        recording.cancel();
        for task in fleet_tasks {
            if tokio::time::timeout(GRACE, task).await.is_err() {
                tracing::warn!("what was heard last may not be recorded; nodes say it again");
            }
        }
        drop(fleet);
        match Arc::into_inner(store) {
            Some(store) => {
                if let Err(error) = store.close().await {
                    tracing::warn!(%error, "database was not closed cleanly");
                }
            }
            // A call is still reading; the database is safe without a goodbye.
            None => tracing::debug!("database is still in use"),
        }
    }));
    Ok(handle)
}

async fn attend_daemons(
    mut acceptor: Acceptor,
    fleet: Arc<Fleet>,
    alive: Alive,
    shutdown: CancellationToken,
    cut: CancellationToken,
) {
    while let Some(Some(accepted)) = shutdown.run_until_cancelled(acceptor.accept()).await {
        let (attending, alive) = (fleet.clone().attend(accepted, cut.clone()), alive.clone());
        drop(tokio::spawn(async move {
            attending.await;
            drop(alive);
        }));
    }
}

async fn attend_people(
    mut acceptor: Acceptor,
    routes: Routes,
    alive: Alive,
    shutdown: CancellationToken,
    cut: CancellationToken,
) {
    while let Some(Some(accepted)) = shutdown.run_until_cancelled(acceptor.accept()).await {
        if !matches!(accepted.peer().identity, Identity::Person(_)) {
            tracing::warn!(peer = %accepted.peer().identity, address = %accepted.peer().address, "not a person");
            continue;
        }
        let (routes, cut, alive) = (routes.clone(), cut.clone(), alive.clone());
        drop(tokio::spawn(async move {
            let peer = accepted.peer().clone();
            if let Err(error) = link::serve_accepted(accepted, routes, ServeConfig::default(), cut).await {
                tracing::debug!(peer = %peer.identity, address = %peer.address, %error, "connection ended");
            }
            drop(alive);
        }));
    }
}
