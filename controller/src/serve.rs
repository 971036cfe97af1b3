//! Both ports, until somebody cancels. Orders are durable, so going down is quick: the ports close, links and
//! connections are cut, what was heard is recorded, the database is closed.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use link::{Acceptor, ServeConfig, Workers};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::admin::{Addresses, AddressesError, files};
use crate::fleet::{Fleet, Issuing, now_ms};
use crate::gate::Gate;
use crate::pki::{Authority, AuthorityError};
use crate::recovery::{Lock, RecoveryError, finish_restore};
use crate::rollout::Rollouts;
use crate::services::door::{Door, Reach};
use crate::services::{self, PeopleRoutes};
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
    /// The controller's certificates and keys.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Another controller serves from it, or a restore could not be finished.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The CA's certificate.
    #[error("the controller's CA")]
    Roots(#[from] trust::RootsError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Threads for the handshakes.
    #[error("no threads for handshakes")]
    Threads(#[source] std::io::Error),
    /// A port.
    #[error(transparent)]
    Listen(#[from] link::ListenError),
    /// Where people are told to dial.
    #[error(transparent)]
    Addresses(#[from] AddressesError),
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

/// Serves from the state directory of `config` until `shutdown` is cancelled. Both ports listen when this returns.
///
/// # Errors
/// When the state directory is not complete, the database cannot be used, or a port is taken.
pub async fn serve(config: Config, shutdown: CancellationToken) -> Result<Handle, ServeError> {
    let dir = &config.state;
    trust::own_directory(dir)?;
    let lock = Lock::take(dir)?;
    finish_restore(dir, &lock)?;
    let authority = Arc::new(Authority::open(dir, OffsetDateTime::now_utc())?);
    let tls = |source| ServeError::Tls {
        dir: dir.clone(),
        source,
    };
    let gate = Gate::new(authority.clone()).map_err(tls)?;
    let shown = gate.config().map_err(tls)?;
    let store = Arc::new(SqliteStore::open(&dir.join(files::DATABASE)).await?);
    // Ends after the ports, so that what links still say is recorded.
    let recording = CancellationToken::new();
    let shared: Arc<dyn Store> = store.clone();
    let Addresses {
        people: controllers,
        daemons,
    } = Addresses::load(dir)?;
    let issuing = Issuing {
        authority: authority.clone(),
        controllers: daemons,
        life: config.keys.node_life(),
    };
    let (fleet, mut fleet_tasks) =
        Fleet::load(shared, issuing, config.nodes.bounds(), recording.clone()).await?;
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
    let roots = authority.view().roots_pem().to_owned();
    fleet.trust_roots(trust::Roots::from_pem(&roots)?);
    fleet.policies().trust(roots);
    // What was approved before a crash is carried out before anybody can ask about it.
    fleet.resume_approved().await;
    let door = Arc::new(Door::new(authority, config.keys.door(controllers)));
    let (routes, health) = services::routes(fleet.clone(), door.clone(), rollouts).await?;
    let upkeep = {
        let fleet = fleet.clone();
        let on_roots = move |roots: String| {
            if let Ok(trusted) = trust::Roots::from_pem(&roots) {
                fleet.trust_roots(trusted);
            }
            fleet.policies().trust(roots);
        };
        tokio::spawn(gate.keep(recording.clone(), on_roots))
    };
    let keeping_record = tokio::spawn(door.clone().keep_record(store.clone(), recording.clone()));
    // Two, so that a person who dials stands behind no daemon.
    let workers = |name, threads, nice| Workers::start(name, threads, nice).map_err(ServeError::Threads);
    let people = Acceptor::bind_on(
        workers("people", 1, PEOPLE_NICE)?,
        config.people.listen,
        shown.clone(),
        config.people.bounds(),
    )?;
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let daemons = Acceptor::bind_on(
        workers("daemons", threads, DAEMONS_NICE)?,
        config.daemons.listen,
        shown,
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
        fleet.clone(),
        routes,
        door,
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
        for task in fleet_tasks.into_iter().chain([keeping_record, upkeep]) {
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
    fleet: Arc<Fleet>,
    routes: PeopleRoutes,
    door: Arc<Door>,
    alive: Alive,
    shutdown: CancellationToken,
    cut: CancellationToken,
) {
    while let Some(Some(accepted)) = shutdown.run_until_cancelled(acceptor.accept()).await {
        let peer = accepted.peer().clone();
        let routes = match Reach::of(&peer) {
            Some(Reach::Everything) => routes.everything.clone(),
            Some(Reach::Enrol) => routes.enrol.clone(),
            None => {
                tracing::warn!(peer = %peer.identity, address = %peer.address, "not a person");
                continue;
            }
        };
        let (entered, alive) = (door.enter(&peer, &cut, now_ms()), alive.clone());
        let fleet = fleet.clone();
        drop(tokio::spawn(async move {
            fleet.adopt_person(&peer).await;
            let serving =
                link::serve_accepted(accepted, routes, ServeConfig::default(), entered.token.clone());
            let ended = tokio::select! {
                ended = serving => ended,
                () = entered.certificate_ends(&peer) => Err(link::ServeError::Cut),
            };
            if let Err(error) = ended {
                tracing::debug!(peer = %peer.identity, address = %peer.address, %error, "connection ended");
            }
            drop(entered);
            drop(alive);
        }));
    }
}
