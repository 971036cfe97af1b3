//! Both ports, until somebody cancels. Orders are durable, so going down is quick: the ports close, links and
//! connections are cut, what was heard is recorded, the database is closed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use link::{Acceptor, ServeConfig};
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
use crate::recovery::{Lock, RecoveryError, finish_restore};
use crate::rollout::Rollouts;
use crate::services;
use crate::store::{SqliteStore, Store, StoreError};

/// Held by whatever serves.
type Alive = mpsc::Sender<()>;

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
    /// Another controller serves from it, or a restore could not be finished.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The CA's certificate.
    #[error("the controller's CA")]
    Roots(#[from] trust::RootsError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    let lock = Lock::take(dir)?;
    finish_restore(dir, &lock)?;
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
    let (fleet, mut fleet_tasks) =
        Fleet::load(shared, signer, config.nodes.bounds(), recording.clone()).await?;
    let (rollouts, rollouts_task) = Rollouts::start(
        fleet.clone(),
        store.clone(),
        dir,
        config.rollouts.bounds(),
        recording.clone(),
    )
    .await?;
    fleet.set_rollouts(&rollouts);
    fleet_tasks.push(rollouts_task);
    fleet.trust_roots(trust::Roots::from_pem(&ca)?);
    // What was approved before a crash is carried out before anybody can ask about it.
    fleet.resume_approved().await;
    let (routes, health) = services::routes(fleet.clone(), rollouts).await?;
    let people = Acceptor::bind(config.people.listen, tls.clone(), config.people.bounds())?;
    let daemons = Acceptor::bind(config.daemons.listen, tls, config.daemons.bounds())?;
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
    drop(tokio::spawn(tell_health(
        fleet.alarms(),
        health.clone(),
        shutdown.clone(),
    )));
    let finished = handle.finished.clone().drop_guard();
    drop(tokio::spawn(async move {
        // In this order at the end: the directory is free once we say that we have finished.
        let _finished = finished;
        let _lock = lock;
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

/// The health of the service `redbutton.audit` is that of the audit: once an alarm is raised, it does not serve.
async fn tell_health(
    mut alarms: tokio::sync::watch::Receiver<Vec<String>>,
    health: tonic_health::server::HealthReporter,
    shutdown: CancellationToken,
) {
    loop {
        let status = if alarms.borrow_and_update().is_empty() {
            tonic_health::ServingStatus::Serving
        } else {
            tonic_health::ServingStatus::NotServing
        };
        health.set_service_status("redbutton.audit", status).await;
        match shutdown.run_until_cancelled(alarms.changed()).await {
            Some(Ok(())) => {}
            _ => return,
        }
    }
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
