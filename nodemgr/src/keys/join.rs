//! `redbutton-nodemgr join`: this machine becomes the node that a token is for.
//!
//! ```text
//!   token ─▶ BUNDLE.joining: a key, made here ─▶ dial with the token ─▶ Request ─▶ Install ─▶ BUNDLE ─▶ .joining gone
//!                        └───────── a crash anywhere: the same command again goes on ─────────┘
//! ```
//! The controller takes a token once, but by the same key again until it expires: an answer that was lost on its way
//! is no dead end.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use link::{DialConfig, DialError, Dialer, LinkState, TimeFloor};
use proto::Identity;
use proto::bundle::{Bundle, BundleError, SecretPem};
use proto::v1::keys_server::{Keys, KeysServer};
use proto::v1::{KeyInstall, KeyInstallReply, KeyRefusal, KeyRefusalReply, KeyRequest, KeyRequestReply};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::file::{self, FileError};
use super::pair::{Pair, PairError};
use super::{clock_ms, reason};

/// How long it tries before it gives up.
pub const TRY_FOR: Duration = Duration::from_secs(120);

/// Why this machine did not become a node.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token's text.
    #[error("token")]
    Token(#[from] BundleError),
    /// Something else than a token.
    #[error(
        "this is the bundle of {identity}, not a join token: ask for one with `redbutton node enroll NAME --site SITE`"
    )]
    NotToken {
        /// Whose.
        identity: String,
    },
    /// The key.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// It cannot be dialled with.
    #[error("token")]
    Dial(#[from] DialError),
    /// The controller said no.
    #[error("the controller refused: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// Nobody answered.
    #[error("not certified within {after:?}: {last}; the same command goes on where this one ended")]
    Late {
        /// How long it was tried.
        after: Duration,
        /// What went wrong last.
        last: String,
    },
}

/// This machine is a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Its name.
    pub name: String,
    /// Whom it speaks for.
    pub identity: String,
    /// Where its bundle is.
    pub bundle: PathBuf,
}

impl fmt::Display for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            identity,
            bundle,
        } = self;
        write!(
            f,
            "this machine is {name} ({identity}); its key was made here and stands in {}\nstart it: systemctl enable --now redbutton-nodemgr (or: redbutton-nodemgr run); one that runs is restarted",
            bundle.display()
        )
    }
}

/// What the one link is for.
struct Joining {
    pair: Pair,
    token: Bundle,
    place: PathBuf,
    end: Mutex<Option<Result<Joined, JoinError>>>,
    done: CancellationToken,
}

impl Joining {
    fn end(&self, with: Result<Joined, JoinError>) {
        self.end
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(with);
    }

    fn install(&self, install: &KeyInstall) -> Result<Joined, JoinError> {
        let bundle = self.pair.certified(install, &self.token, None)?;
        // What would not dial is not written.
        link::client_config(&bundle).map_err(DialError::from)?;
        crate::crash::point("nodemgr.join-before-bundle");
        file::replace(&self.place, bundle.to_text().as_bytes())?;
        crate::crash::point("nodemgr.join-after-bundle");
        file::remove(&joining(&self.place))?;
        Ok(Joined {
            name: bundle.name,
            identity: bundle.identity,
            bundle: self.place.clone(),
        })
    }
}

struct Service(Arc<Joining>);

#[tonic::async_trait]
impl Keys for Service {
    async fn request(&self, _: Request<KeyRequest>) -> Result<Response<KeyRequestReply>, Status> {
        let request = self.0.pair.request();
        Ok(Response::new(KeyRequestReply {
            request: request.map_err(|error| Status::internal(error.to_string()))?,
            clock_ms: clock_ms(),
        }))
    }

    async fn install(&self, request: Request<KeyInstall>) -> Result<Response<KeyInstallReply>, Status> {
        let install = request.into_inner();
        match self.0.install(&install) {
            // The link is cut by the controller once it has this answer.
            Ok(joined) => self.0.end(Ok(joined)),
            Err(error) => {
                let status = Status::failed_precondition(error.to_string());
                self.0.end(Err(error));
                self.0.done.cancel();
                return Err(status);
            }
        }
        Ok(Response::new(KeyInstallReply {
            key: self.0.pair.spki().to_string(),
        }))
    }

    async fn refuse(&self, request: Request<KeyRefusal>) -> Result<Response<KeyRefusalReply>, Status> {
        self.0.end(Err(JoinError::Refused {
            reason: reason(request.get_ref()),
        }));
        Ok(Response::new(KeyRefusalReply {}))
    }
}

fn joining(place: &Path) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(".joining");
    PathBuf::from(name)
}

/// A token's text: a file, or standard input for `-`.
///
/// # Errors
/// When it cannot be read.
pub fn read_token(from: &Path) -> Result<String, FileError> {
    let read = if from == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(from)
    };
    read.map_err(file::io_error(from, "read"))
}

/// [`join`] for a program that does nothing else.
///
/// # Errors
/// See [`JoinError`].
pub fn join_blocking(token: &Path, place: &Path) -> Result<Joined, JoinError> {
    let text = read_token(token)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(PairError::Thread)?;
    runtime.block_on(join(&text, place, TRY_FOR))
}

/// Has a key that is made here certified with a token, and writes the node's bundle to `place`.
///
/// # Errors
/// See [`JoinError`]. The key that was made stays beside `place` for the next try.
pub async fn join(token: &str, place: &Path, try_for: Duration) -> Result<Joined, JoinError> {
    let token = Bundle::parse(token)?;
    if !matches!(token.identity(), Ok(Identity::Invite(_))) {
        return Err(JoinError::NotToken {
            identity: token.identity.chars().take(120).collect(),
        });
    }
    let kept = joining(place);
    let pair = match file::private(&kept)? {
        Some(pem) => Pair::of_pem(SecretPem::new(pem))?,
        None => {
            let made = Pair::make()?;
            // On the disk before anybody certifies it: a certified key must not be lost with us.
            file::replace(&kept, made.pem().expose().as_bytes())?;
            crate::crash::point("nodemgr.join-after-key");
            made
        }
    };
    // A token is good for an hour, while this machine's clock may say 1970.
    let dialer = Dialer::with_floor(&token, DialConfig::default(), Arc::new(TimeFloor::default()))?;
    let joining = Arc::new(Joining {
        pair,
        token,
        place: place.to_owned(),
        end: Mutex::default(),
        done: CancellationToken::new(),
    });
    let last = Mutex::new(String::from("no controller answered"));
    let ended = |state| {
        if let LinkState::BackingOff { error, .. } = state {
            // The end of the one link; before that a failed dial, and the next may do.
            if joining
                .end
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some()
            {
                joining.done.cancel();
            }
            *last.lock().unwrap_or_else(PoisonError::into_inner) = error;
        }
    };
    let routes = Routes::new(KeysServer::new(Service(joining.clone())));
    let dialling = Box::pin(dialer.run(routes, joining.done.clone(), ended));
    let late = tokio::time::timeout(try_for, dialling).await.is_err();
    let end = joining.end.lock().unwrap_or_else(PoisonError::into_inner).take();
    match end {
        Some(end) => end,
        None if late => Err(JoinError::Late {
            after: try_for,
            last: last.into_inner().unwrap_or_else(PoisonError::into_inner),
        }),
        None => Err(JoinError::Refused {
            reason: last.into_inner().unwrap_or_else(PoisonError::into_inner),
        }),
    }
}
