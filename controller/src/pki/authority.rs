//! The certificates and keys that everything else stands on, in one sealed file, and how they change.
//!
//! ```text
//!   root (staged) ──switch──▶ root (issuing) ──switch──▶ root (retiring) ──retire──▶ gone
//!     add                       └─▶ issuing CA (path length 0) ──▶ every leaf, with the issuing CA as its chain
//!   pki.sealed: roots, issuing CA, controller's certificate, signer: certificates and keys
//!   ca.pem:     the roots for everybody, written from it
//! ```
//! Invariants:
//! - One file, replaced by one rename: a crash leaves the state before a change or the one after it. `ca.pem` is
//!   written after it, and again at the next start if a crash came between.
//! - Whoever changes it holds the lock and reads it anew first: root's `redbutton-controller ca …` works beside the
//!   controller, which takes up the change within [`Authority::upkeep`].
//! - The root's key signs issuing CAs alone. A replaced issuing key is forgotten.
//! - The signer keeps its key for ever: what it signed stays good; only its certificate changes with the root.
//!
//! A state directory of the version before (keys in clear, leaves directly below the root) is moved here at the
//! first opening (`migrate.rs`).
//!
//! Whether a step would cut somebody off is not decided here but in `admin::rotation`, which knows the store.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use nix::fcntl::{Flock, FlockArg};
use proto::bundle::SecretPem;
use time::OffsetDateTime;
use trust::{Signer, Spki};

use super::kept::{Kept, Pair, Root, Stage};
use super::{Ca, FileError, PkiError, ServerName, migrate, replace_private, root};
use crate::admin::files;
use crate::crash;
use crate::seal::{KeySource, SealError, SealingKey, sealed_under};

/// What `pki.sealed` is sealed as.
const PURPOSE: &str = "pki";

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate or key.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// It cannot be sealed or opened.
    #[error("{path}", path = path.display())]
    Seal {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: SealError,
    },
    /// It was opened and is not what we write. Says nothing of the content.
    #[error("{path}: {message}", path = path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// There is no controller in the directory.
    #[error("{dir} holds no controller ({missing} is missing): run redbutton-controller init first", dir = dir.display())]
    NoController {
        /// Which.
        dir: PathBuf,
        /// The file that should be there.
        missing: &'static str,
    },
    /// The signer.
    #[error("the controller's signer")]
    Signer(#[from] trust::SignerError),
    /// A step that does not come next.
    #[error("{0}")]
    Order(&'static str),
}

/// A root, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootView {
    /// What its key is known by.
    pub id: Spki,
    /// Where it stands.
    pub stage: Stage,
    /// PEM.
    pub certificate: String,
    /// When it ends.
    pub expires: OffsetDateTime,
}

/// Everything as of one moment.
pub struct View {
    ca: Arc<Ca>,
    signer: Arc<Signer>,
    roots: Vec<RootView>,
    controller: Pair,
    sealed_by: KeySource,
    migrated: bool,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ca, roots, .. } = self;
        f.debug_struct("View")
            .field("ca", ca)
            .field("roots", roots)
            .finish_non_exhaustive()
    }
}

impl View {
    /// What issues leaves now.
    #[must_use]
    pub fn ca(&self) -> &Arc<Ca> {
        &self.ca
    }

    /// Says what must outlive the database.
    #[must_use]
    pub fn signer(&self) -> &Arc<Signer> {
        &self.signer
    }

    /// Every root that is trusted, PEM.
    #[must_use]
    pub fn roots_pem(&self) -> &str {
        self.ca.pem()
    }

    /// Every root that is trusted, the one that issues first.
    #[must_use]
    pub fn roots(&self) -> &[RootView] {
        &self.roots
    }

    /// The root that issues.
    #[must_use]
    pub fn root(&self) -> Spki {
        self.roots[0].id
    }

    /// The controller's own certificate with its chain, and its key.
    #[must_use]
    pub fn controller(&self) -> (&str, &SecretPem) {
        (&self.controller.certificate, &self.controller.key)
    }

    /// It came from the version before: bundles may be out whose keys the store does not know.
    #[must_use]
    pub const fn is_migrated(&self) -> bool {
        self.migrated
    }

    /// What seals it.
    #[must_use]
    pub fn sealed_by(&self) -> &KeySource {
        &self.sealed_by
    }
}

/// What upkeep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Upkeep {
    /// Another process, or we, changed something: what was handed to others has to be handed anew.
    pub changed: bool,
    /// The issuing CA was replaced, half its life being over.
    pub issuing: bool,
    /// The controller's own certificate was renewed.
    pub controller: bool,
}

/// The controller's certificates and keys.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    view: RwLock<Arc<View>>,
    stamp: Mutex<Option<Stamp>>,
}

/// Tells one `pki.sealed` from the next: each is a new file.
type Stamp = (u64, i64, i64);

impl Authority {
    /// Makes everything for a new controller.
    ///
    /// # Errors
    /// What the system said; [`PkiError::ServerName`].
    pub fn create(dir: &Path, names: &[ServerName], now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let kept = Kept::generate(names, now)?;
        let key = SealingKey::find_or_make(dir, credentials().as_deref()).map_err(seal_error(dir))?;
        write(dir, &kept, &key)?;
        Self::open(dir, now)
    }

    /// Opens those of a state directory, and renews what is due. One of the version before is moved first.
    ///
    /// # Errors
    /// Names the file and what is wrong with it, and nothing of a key.
    pub fn open(dir: &Path, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let authority = Self::open_as_it_is(dir, now)?;
        authority.upkeep(now)?;
        Ok(authority)
    }

    fn open_as_it_is(dir: &Path, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let _lock = lock(dir)?;
        let path = dir.join(files::PKI);
        let is_there = |name: &str| fs::symlink_metadata(dir.join(name)).is_ok();
        if !is_there(files::PKI) {
            if !is_there(files::OLD_CA_KEY) {
                return Err(AuthorityError::NoController {
                    dir: dir.to_owned(),
                    missing: files::PKI,
                });
            }
            let kept = migrate::read(dir, now)?;
            let key = SealingKey::find_or_make(dir, credentials().as_deref()).map_err(seal_error(&path))?;
            crash::point("controller.migrate-before-sealed");
            write(dir, &kept, &key)?;
            crash::point("controller.migrate-after-sealed");
            tracing::info!(sealed_by = %key.source(), "keys are sealed now; those in clear are removed");
        }
        let (kept, key, stamp) = read(dir)?;
        tidy(dir, &kept)?;
        let view = view(&kept, &key)?;
        Ok(Self {
            dir: dir.to_owned(),
            view: RwLock::new(Arc::new(view)),
            stamp: Mutex::new(Some(stamp)),
        })
    }

    /// Everything as of now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What issues leaves now.
    #[must_use]
    pub fn ca(&self) -> Arc<Ca> {
        self.view().ca.clone()
    }

    /// Says what must outlive the database.
    #[must_use]
    pub fn signer(&self) -> Arc<Signer> {
        self.view().signer.clone()
    }

    /// Takes up what another process changed, and renews what is due. To be called now and then.
    ///
    /// # Errors
    /// What the system said; then everything is as before.
    pub fn upkeep(&self, now: OffsetDateTime) -> Result<Upkeep, AuthorityError> {
        let stamp = *self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.dir.join(files::PKI);
        let mut done = Upkeep {
            changed: stamp_of(&path).map_err(FileError::io(&path, "read"))? != stamp.unwrap_or_default(),
            ..Upkeep::default()
        };
        let view = self.view();
        let half_over =
            |(begins, ends): (OffsetDateTime, OffsetDateTime)| begins + (ends - begins) / 2 <= now;
        let due = half_over((view.ca.begins(), view.ca.expires()))
            || half_over(root::life_of(&view.controller.certificate)?);
        if !done.changed && !due {
            return Ok(done);
        }
        self.change(|kept| {
            // A root near its own end gives no longer life: then there is nothing to win.
            if half_over(root::life_of(&kept.issuing.certificate)?) && !half_over_root(kept, now)? {
                kept.issue_anew(now)?;
                done.issuing = true;
            }
            if half_over(root::life_of(&kept.controller.certificate)?) {
                kept.serve_anew(now)?;
                done.controller = true;
            }
            Ok(done.issuing || done.controller)
        })?;
        done.changed |= done.issuing || done.controller;
        Ok(done)
    }

    /// Puts a new issuing CA in the place of the one there is. Cuts nobody off: what the old one signed leads to the
    /// same root.
    ///
    /// # Errors
    /// What the system said; then everything is as before.
    pub fn rotate_issuing(&self, now: OffsetDateTime) -> Result<(), AuthorityError> {
        self.change(|kept| {
            kept.issue_anew(now)?;
            kept.serve_anew(now)?;
            Ok(true)
        })
    }

    /// Adds a root that everybody learns to trust and that signs nothing yet. Returns its id.
    ///
    /// # Errors
    /// [`AuthorityError::Order`] when a change of roots is under way.
    pub fn add_root(&self, now: OffsetDateTime) -> Result<Spki, AuthorityError> {
        let mut added = None;
        self.change(|kept| {
            if kept.roots.len() > 1 {
                return Err(AuthorityError::Order(
                    "a change of roots is under way: see `redbutton-controller ca status`",
                ));
            }
            let (certificate, key) = root::make_root(now)?;
            added = Some(root::key_of(&certificate)?);
            kept.roots.push(Root {
                certificate,
                key,
                stage: Stage::Staged,
            });
            Ok(true)
        })?;
        added.ok_or(AuthorityError::Order("no root was added"))
    }

    /// Issues below the staged root from now on; the one before stays trusted. Whoever does not trust the new root
    /// is cut off: the caller has looked.
    ///
    /// # Errors
    /// [`AuthorityError::Order`] when there is none.
    pub fn switch_root(&self, now: OffsetDateTime) -> Result<(), AuthorityError> {
        self.change(|kept| {
            let staged = kept.roots.iter().position(|root| root.stage == Stage::Staged);
            let staged = staged.ok_or(AuthorityError::Order(
                "there is no new root to switch to: add one first with `ca root add`",
            ))?;
            for root in &mut kept.roots {
                root.stage = Stage::Retiring;
            }
            kept.roots[staged].stage = Stage::Issuing;
            kept.roots.swap(0, staged);
            kept.issue_anew(now)?;
            kept.serve_anew(now)?;
            kept.sign_anew(now)?;
            Ok(true)
        })
    }

    /// Trusts the old root no more, or takes a staged one back. Whoever has nothing below the other root is cut
    /// off: the caller has looked.
    ///
    /// # Errors
    /// [`AuthorityError::Order`] when there is none.
    pub fn retire_root(&self) -> Result<(), AuthorityError> {
        self.change(|kept| {
            let before = kept.roots.len();
            kept.roots.retain(|root| root.stage == Stage::Issuing);
            if kept.roots.len() == before {
                return Err(AuthorityError::Order("there is no old root to retire"));
            }
            Ok(true)
        })
    }

    /// Reads, changes and writes under the lock; takes up the result.
    fn change(
        &self,
        change: impl FnOnce(&mut Kept) -> Result<bool, AuthorityError>,
    ) -> Result<(), AuthorityError> {
        let _lock = lock(&self.dir)?;
        let (mut kept, key, _) = read(&self.dir)?;
        if change(&mut kept)? {
            crash::point("controller.pki-before-sealed");
            write(&self.dir, &kept, &key)?;
            crash::point("controller.pki-after-sealed");
        }
        tidy(&self.dir, &kept)?;
        let (kept, key, stamp) = read(&self.dir)?;
        let new = Arc::new(view(&kept, &key)?);
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = new;
        *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) = Some(stamp);
        Ok(())
    }
}

fn half_over_root(kept: &Kept, now: OffsetDateTime) -> Result<bool, PkiError> {
    let (_, ends) = root::life_of(&kept.issuing_root()?.certificate)?;
    let (_, issuing_ends) = root::life_of(&kept.issuing.certificate)?;
    Ok(issuing_ends >= ends || ends <= now)
}

fn credentials() -> Option<std::ffi::OsString> {
    std::env::var_os("CREDENTIALS_DIRECTORY")
}

fn seal_error(path: &Path) -> impl FnOnce(SealError) -> AuthorityError {
    move |source| AuthorityError::Seal {
        path: path.to_owned(),
        source,
    }
}

fn lock(dir: &Path) -> Result<Flock<File>, AuthorityError> {
    let path = dir.join(files::PKI_LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&path)
        .and_then(|file| super::give_to_owner(dir, &file).map(|()| file));
    let file = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(AuthorityError::NoController {
                dir: dir.to_owned(),
                missing: files::PKI,
            });
        }
        other => other.map_err(FileError::io(&path, "open"))?,
    };
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| FileError::io(&path, "lock")(errno.into()).into())
}

fn stamp_of(path: &Path) -> io::Result<Stamp> {
    let meta = fs::metadata(path)?;
    Ok((meta.ino(), meta.mtime(), meta.mtime_nsec()))
}

fn write(dir: &Path, kept: &Kept, key: &SealingKey) -> Result<(), AuthorityError> {
    let path = dir.join(files::PKI);
    let sealed = key
        .seal_text(PURPOSE, kept.to_text().expose())
        .map_err(seal_error(&path))?;
    Ok(replace_private(&path, sealed.as_bytes())?)
}

/// Reads it with whichever key it was sealed with; where that is the file and a credential has come meanwhile, it is
/// sealed with the credential from now on.
fn read(dir: &Path) -> Result<(Kept, SealingKey, Stamp), AuthorityError> {
    let path = dir.join(files::PKI);
    let sealed = fs::read_to_string(&path).map_err(FileError::io(&path, "read"))?;
    let mut keys = SealingKey::find(dir, credentials().as_deref()).map_err(seal_error(&path))?;
    if keys.is_empty() {
        return Err(seal_error(&path)(SealError::NoKey { dir: dir.to_owned() }));
    }
    let under = sealed_under(&sealed).map_err(seal_error(&path))?;
    let id = |key: &SealingKey| {
        key.id()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let Some(at) = keys.iter().position(|key| id(key) == under) else {
        let have = keys.iter().map(id).collect::<Vec<_>>().join(", ");
        return Err(seal_error(&path)(SealError::OtherKey { got: under, have }));
    };
    let plain = keys[at].open_text(PURPOSE, &sealed).map_err(seal_error(&path))?;
    let kept = Kept::from_text(&plain).map_err(|message| AuthorityError::Content {
        path: path.clone(),
        message,
    })?;
    let others = keys.len() > 1;
    let best = keys.swap_remove(0);
    if at != 0 {
        write(dir, &kept, &best)?;
        crash::point("controller.reseal-after-sealed");
    }
    if others {
        // The credential seals everything now; also after a crash that came between the two.
        let old = dir.join(files::SEAL_KEY);
        fs::remove_file(&old).map_err(FileError::io(&old, "remove"))?;
        tracing::info!(sealed_by = %best.source(), "{} is removed", files::SEAL_KEY);
    }
    let stamp = stamp_of(&path).map_err(FileError::io(&path, "read"))?;
    Ok((kept, best, stamp))
}

/// What follows from `pki.sealed`: the roots for everybody; and no key in clear beside it.
fn tidy(dir: &Path, kept: &Kept) -> Result<(), AuthorityError> {
    let path = dir.join(files::CA);
    let roots = kept.roots_pem();
    if fs::read_to_string(&path).ok().as_deref() != Some(&roots) {
        replace_private(&path, roots.as_bytes())?;
        crash::point("controller.pki-after-roots");
    }
    let mut removed = false;
    for name in [
        files::OLD_CA_KEY,
        files::OLD_CONTROLLER_KEY,
        files::OLD_SIGNER_KEY,
        files::OLD_CONTROLLER,
        files::OLD_SIGNER,
    ] {
        let path = dir.join(name);
        match fs::remove_file(&path) {
            Ok(()) => removed = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(FileError::io(&path, "remove")(error).into()),
        }
        crash::point("controller.pki-between-removals");
    }
    if removed {
        super::sync_directory(dir)?;
    }
    Ok(())
}

fn view(kept: &Kept, key: &SealingKey) -> Result<View, AuthorityError> {
    let mut roots = Vec::new();
    for kept in &kept.roots {
        roots.push(RootView {
            id: root::key_of(&kept.certificate)?,
            stage: kept.stage,
            expires: root::life_of(&kept.certificate)?.1,
            certificate: kept.certificate.clone(),
        });
    }
    Ok(View {
        ca: Arc::new(kept.ca()?),
        signer: Arc::new(Signer::load(&kept.signer.certificate, &kept.signer.key)?),
        roots,
        controller: kept.controller.clone(),
        sealed_by: key.source().clone(),
        migrated: kept.migrated,
    })
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
