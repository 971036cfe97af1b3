//! The whole daemon: state, socket, link, in this order, so that holds are in force before anything can start and
//! before anybody can ask.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use link::{DialConfig, DialError, Dialer, Door, LinkState};
use proto::bundle::{Bundle, BundleError};
use proto::{DaemonRole, Identity, NodeId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trust::Roots;

use crate::diary::Diary;
use crate::engine::{Node, Setup, StartError};
use crate::keys::{NodeKeys, PairError};
use crate::policy::Policy;
use crate::software::{self, Updates};
use crate::{Agent, Config, Listening, config, direct, exec, prepare, restart};

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The bundle's file.
    #[error("bundle")]
    BundleFile(#[from] trust::PlaceError),
    /// The bundle's text.
    #[error("bundle {path}", path = path.display())]
    Bundle {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: BundleError,
    },
    /// The bundle of somebody else.
    #[error("bundle {path} speaks for {identity}, expected redbutton://node/UUID/nodemgr", path = path.display())]
    NotOurs {
        /// Which.
        path: PathBuf,
        /// Whom it speaks for.
        identity: String,
    },
    /// What it holds cannot be dialled with.
    #[error("cannot dial with this bundle")]
    Dial(#[from] DialError),
    /// The CA's certificates in it.
    #[error("bundle")]
    Roots(#[from] trust::RootsError),
    /// The node itself.
    #[error("cannot start")]
    Start(#[from] StartError),
    /// The socket of `exec`.
    #[error("socket {path}: {source}", path = path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The certificate that people at the node's door see.
    #[error("cannot serve people with this bundle")]
    Door(#[from] link::TlsError),
    /// The bundle's key.
    #[error("bundle")]
    Keys(#[from] PairError),
    /// The agent's threads.
    #[error("cannot make the agent's threads: {0}")]
    Threads(io::Error),
}

/// Runs until `shutdown`. `prepared` is what [`prepare::process`] gave, called before any thread existed.
///
/// Slivers outlive us: ending kills nothing, and what is held stays held.
///
/// # Errors
/// When it cannot begin. Once begun, no error ends it: it dials again, and holds on to what it knows.
pub async fn run(
    config: Config,
    prepared: Vec<prepare::Step>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let (bundle, node) = read_bundle(&config.bundle)?;
    let keys = NodeKeys::load(bundle, config.state_dir.clone())?;
    let bundle = keys.bundle();
    let dialer = Dialer::with_floor(&bundle, DialConfig::default(), keys.floor())?;
    keys.renews(dialer.credentials());
    let door = Door::new(&bundle.ca, &bundle.certificate, &bundle.key)?;
    let direct = config.direct.clone();
    let state_dir = config.state_dir.clone();
    let updates = updates_of(&config, &bundle, &shutdown)?;
    let programs = updates.roots.clone();
    let updates = Updates::new(updates).map_err(RunError::Threads)?;
    let socket = config.socket.clone();
    let restarter = restart::restarter(config.restart);
    let node = Node::start(Setup {
        config,
        node,
        prepared,
        restarter,
    })?;
    match trust::Roots::from_pem(&bundle.ca) {
        Ok(roots) => node.trust_roots(roots),
        Err(error) => tracing::error!(%error, "no audit head will be kept"),
    }
    // After the node: the state directory is ours then.
    let policy = Arc::new(Policy::load(&state_dir, &bundle.ca)?);
    let (address, now) = watch::channel(None);
    let listening = Listening {
        now,
        told: direct.address,
    };
    let diary = Diary::open(&state_dir).map_err(RunError::Threads)?;
    let agent = Agent::new(node.clone())
        .and_then(|agent| agent.guided_by(policy.clone(), listening))
        .map(|agent| agent.certified_by(keys.clone()))
        .map_err(RunError::Threads)?
        .with_updates(updates)
        .with_diary(diary.clone());
    let agent = Arc::new(agent);
    let followers = Followers {
        door: door.clone(),
        policy: policy.clone(),
        node: node.clone(),
        programs,
    };
    let renewed = tokio::spawn(followers.follow(keys, shutdown.clone()));
    let parts = direct::Parts {
        node: node.clone(),
        agent: agent.clone(),
        policy,
        diary,
        name: bundle.name.clone(),
    };
    let people = direct
        .listen
        .map(|at| tokio::spawn(direct::serve(parts, door, at, address, shutdown.clone())));
    let routes = Agent::shared_routes(agent);
    let starts = exec::serve(node.clone(), &socket, shutdown.clone())
        .map_err(|source| RunError::Socket { path: socket, source })?;
    let starts = tokio::spawn(starts);
    let watchdog = tokio::spawn(feed_watchdog(node, shutdown.clone()));
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(controllers = ?bundle.controllers, "ready");
    dialer.run(routes, shutdown, told).await;
    notify(&[sd_notify::NotifyState::Stopping]);
    // Both end by the same token; a panic in either has been logged.
    let _ = tokio::join!(starts, watchdog, renewed);
    if let Some(people) = people {
        let _ = people.await;
    }
    Ok(())
}

/// Whoever uses the certificate or the roots: what is renewed counts at once, without a restart.
struct Followers {
    door: Arc<Door>,
    policy: Arc<Policy>,
    node: Arc<Node>,
    programs: Arc<RwLock<Roots>>,
}

impl Followers {
    async fn follow(self, keys: NodeKeys, shutdown: CancellationToken) {
        let mut changes = keys.changes();
        loop {
            self.door.it_is_past(keys.floor().seconds());
            match shutdown.run_until_cancelled(changes.changed()).await {
                Some(Ok(())) => {}
                _ => return,
            }
            let bundle = changes.borrow_and_update().clone();
            self.take(&bundle);
        }
    }

    fn take(&self, bundle: &Bundle) {
        if let Err(error) = self.door.show(&bundle.certificate, &bundle.key) {
            tracing::error!(%error, "cannot show the new certificate to people");
        }
        let trusted = self.policy.trust(&bundle.ca).and_then(|()| {
            let roots = Roots::from_pem(&bundle.ca)?;
            self.node.trust_roots(roots.clone());
            *self.programs.write().unwrap_or_else(PoisonError::into_inner) = roots;
            Ok(())
        });
        if let Err(error) = trusted {
            tracing::error!(%error, "cannot trust the new roots");
        }
    }
}

/// What changing the program takes.
fn updates_of(
    config: &Config,
    bundle: &Bundle,
    shutdown: &CancellationToken,
) -> Result<software::Setup, RunError> {
    // systemd sets this for all that it starts, and the unit says Restart=always.
    let by_systemd = std::env::var_os("INVOCATION_ID").is_some();
    let refused = match config.updates {
        config::Updates::Off => "updates = \"off\" in this node's configuration",
        config::Updates::Auto if !by_systemd => {
            "no service manager is known that starts this daemon again: set updates = \"on\" where one does"
        }
        config::Updates::Auto | config::Updates::On => "",
    };
    Ok(software::Setup {
        state_dir: config.state_dir.clone(),
        config_file: config.file.clone(),
        refused: refused.into(),
        roots: Arc::new(RwLock::new(Roots::from_pem(&bundle.ca)?)),
        shutdown: shutdown.clone(),
    })
}

/// Cancels the token at SIGTERM or SIGINT.
///
/// # Errors
/// When the signals cannot be caught.
pub fn stop_on_signal(shutdown: CancellationToken) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    })
}

/// For each thread that serves the link: a press must be heard while a fork bomb wants all of the CPU.
pub fn prepare_link_thread() {
    // Where it may not be had, `kill.priority` in the report says so for the threads that matter more.
    let _ = crate::sys::nice(-20);
}

fn told(state: LinkState) {
    match state {
        LinkState::Connecting { controller } => tracing::debug!(controller, "dialling"),
        LinkState::Attached { controller } => {
            tracing::info!(controller, "attached");
            notify(&[sd_notify::NotifyState::Status(&format!(
                "attached to {controller}"
            ))]);
        }
        LinkState::BackingOff {
            wait,
            failures,
            error,
        } => {
            tracing::warn!(?wait, failures, error, "no link");
            notify(&[sd_notify::NotifyState::Status(&format!("no link: {error}"))]);
        }
    }
}

/// Without systemd there is nobody to tell.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

/// Pings the watchdog as long as the loops that enforce the holds go round; a daemon that hangs is restarted, and
/// obeys its holds again.
async fn feed_watchdog(node: Arc<Node>, shutdown: CancellationToken) {
    let Some(every) = sd_notify::watchdog_enabled() else {
        return;
    };
    let every = (every / 3).max(Duration::from_millis(100));
    while shutdown
        .run_until_cancelled(tokio::time::sleep(every))
        .await
        .is_some()
    {
        if node.is_well() {
            notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}

fn read_bundle(path: &Path) -> Result<(Bundle, NodeId), RunError> {
    let text = trust::read_private(path, Bundle::MAX_BYTES)?;
    let bundle = Bundle::parse(&text).map_err(|source| RunError::Bundle {
        path: path.to_owned(),
        source,
    })?;
    match bundle.identity() {
        Ok(Identity::Daemon(node, DaemonRole::NodeManager)) => Ok((bundle, node)),
        _ => Err(RunError::NotOurs {
            path: path.to_owned(),
            identity: bundle.identity.clone(),
        }),
    }
}
