//! `init`: a new controller, whole or not at all.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use authz::Grant;
use proto::bundle::Bundle;
use proto::{PersonName, Version};
use time::OffsetDateTime;

use super::invite::{self, INVITE_LIFE};
use super::{Addresses, AdminError, files, millis, whose_shell};
use crate::pki::{Authority, Ca, FileError, Issued, PERSON_LIFE, ServerName, create_private, sync_directory};
use crate::seal::KeySource;
use crate::store::{About, Holder, KeyStore, NewKey, NewPerson, Note, SqliteStore, Store};

/// What a new controller is to be.
#[derive(Debug, Clone)]
pub struct Init {
    /// The state directory: not there yet, or empty.
    pub dir: PathBuf,
    /// DNS names and IP addresses under which peers reach the controller.
    pub names: Vec<String>,
    /// At least two: acts of two people need them, and they vouch for each other from the first day.
    pub support: Vec<PersonName>,
    /// Where bundles tell people to dial; empty: every name, port 7443.
    pub people: Vec<String>,
    /// Where bundles tell daemons to dial; empty: every name, port 7444.
    pub daemons: Vec<String>,
    /// Ready bundles with long-lived certificates instead of invites: for tests and trials.
    pub bundles: bool,
}

/// What `init` made.
#[derive(Debug, Clone)]
pub struct Initialised {
    /// The state directory.
    pub dir: PathBuf,
    /// The support people's invites, to be handed over and taken away from here; or none, and bundles.
    pub invites: Vec<PathBuf>,
    /// Their bundles, if asked for: private keys, to be handed over and taken away from here.
    pub bundles: Vec<PathBuf>,
    /// Until when those are good.
    pub handouts_expire: OffsetDateTime,
    /// Until when the CA is good.
    pub ca_expires: OffsetDateTime,
    /// What seals its secrets.
    pub sealed_by: KeySource,
}

impl fmt::Display for Initialised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "controller made in {}; its CA is good until {}",
            self.dir.display(),
            self.ca_expires.date()
        )?;
        let until = self.handouts_expire.date();
        if !self.bundles.is_empty() {
            writeln!(
                f,
                "support bundles, good until {until}, each a private key to hand over and delete here:"
            )?;
        }
        if !self.invites.is_empty() {
            writeln!(
                f,
                "support invites, each to be used once until {until} by whom it is for, once the controller serves:"
            )?;
        }
        for bundle in &self.bundles {
            writeln!(f, "  {}", bundle.display())?;
        }
        for invite in &self.invites {
            writeln!(f, "  redbutton login {}", invite.display())?;
        }
        write!(f, "its secrets are sealed with {}", self.sealed_by)
    }
}

/// Makes a new controller. Everything is built in a directory beside and renamed into place.
///
/// # Errors
/// See [`AdminError`]; then nothing was made.
pub async fn init(wish: &Init, now: OffsetDateTime) -> Result<Initialised, AdminError> {
    let names = wish
        .names
        .iter()
        .map(|name| name.parse())
        .collect::<Result<Vec<ServerName>, _>>()?;
    if names.is_empty() {
        return Err(AdminError::NoName);
    }
    let mut addresses = Addresses::of_names(&names);
    for (wanted, list) in [
        (&wish.people, &mut addresses.people),
        (&wish.daemons, &mut addresses.daemons),
    ] {
        if !wanted.is_empty() {
            list.clone_from(wanted);
        }
    }
    addresses.check()?;
    let mut people = wish.support.clone();
    people.sort();
    people.dedup();
    if people.len() < 2 || people.len() != wish.support.len() {
        let got = wish
            .support
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        return Err(AdminError::SupportPeople {
            got: if got.is_empty() { "none".to_owned() } else { got },
        });
    }
    // The directory's owner is whom the service runs as, where the package made it.
    let owner = look_at(&wish.dir)?;

    let scaffold = Scaffold::beside(&wish.dir)?;
    let (ca_expires, handouts_expire, sealed_by) =
        build(&scaffold.path, &names, &addresses, wish, now).await?;
    if let Some((uid, gid)) = owner {
        hand_over(&scaffold.path, uid, gid)?;
    }
    scaffold.put(&wish.dir)?;
    let paths = |path: fn(&Path, &PersonName) -> PathBuf| {
        wish.support.iter().map(|name| path(&wish.dir, name)).collect()
    };
    let (invites, bundles) = if wish.bundles {
        (Vec::new(), paths(bundle_path))
    } else {
        (paths(invite::path), Vec::new())
    };
    Ok(Initialised {
        dir: wish.dir.clone(),
        invites,
        bundles,
        handouts_expire,
        ca_expires,
        // Found in the scaffold, which is the directory now.
        sealed_by: match sealed_by {
            KeySource::File(_) => KeySource::File(wish.dir.join(files::SEAL_KEY)),
            credential @ KeySource::Credential(_) => credential,
        },
    })
}

fn bundle_path(dir: &Path, name: &PersonName) -> PathBuf {
    dir.join(files::BUNDLES).join(format!("{name}.bundle"))
}

/// Not there: `None`. There and empty: whose it is.
fn look_at(dir: &Path) -> Result<Option<(u32, u32)>, AdminError> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::io(dir, "read")(error).into()),
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(AdminError::NotEmpty { dir: dir.to_owned() }),
            None => {
                let meta = fs::metadata(dir).map_err(FileError::io(dir, "read"))?;
                Ok(Some((meta.uid(), meta.gid())))
            }
        },
    }
}

async fn build(
    dir: &Path,
    names: &[ServerName],
    addresses: &Addresses,
    wish: &Init,
    now: OffsetDateTime,
) -> Result<(OffsetDateTime, OffsetDateTime, KeySource), AdminError> {
    let authority = Authority::create(dir, names, now)?;
    let ca = authority.ca();
    addresses.create(dir)?;

    let handouts = dir.join(if wish.bundles {
        files::BUNDLES
    } else {
        files::INVITES
    });
    DirBuilder::new()
        .mode(0o700)
        .create(&handouts)
        .map_err(FileError::io(&handouts, "create"))?;
    let store = SqliteStore::create(&dir.join(files::DATABASE)).await?;
    let filled = fill(dir, &ca, &store, addresses, wish, now).await;
    store.close().await?;
    let expire = filled?;
    sync_directory(dir)?;
    let view = authority.view();
    let root = view.roots().first().map_or(expire, |root| root.expires);
    Ok((root, expire, view.sealed_by().clone()))
}

/// The first people and how they get in. Returns when that ends.
async fn fill(
    dir: &Path,
    ca: &Ca,
    store: &SqliteStore,
    addresses: &Addresses,
    wish: &Init,
    now: OffsetDateTime,
) -> Result<OffsetDateTime, AdminError> {
    let incarnation = store.incarnation().await?;
    let note = |action: &str, target: String, detail: String| Note {
        draft: audit::Draft {
            at_ms: millis(now),
            version: Version {
                incarnation,
                epoch: 0,
            },
            person: None,
            role: None,
            action: action.to_owned(),
            target,
            reason: "controller init".to_owned(),
            evidence: String::new(),
            outcome: audit::Outcome::Done,
            detail,
            order: None,
        },
        about: About::default(),
    };
    store
        .append_audit(note(
            "init",
            "controller".to_owned(),
            format!("by {}", whose_shell()),
        ))
        .await?;
    let mut expire = ca.expires();
    for name in &wish.support {
        let person = NewPerson {
            name: name.clone(),
            full_name: String::new(),
            email: String::new(),
            grants: vec![Grant::Support],
        };
        let controllers = addresses.people.clone();
        let how = if wish.bundles { "a bundle" } else { "an invite" };
        let detail = format!("support, with {how}, by {}", whose_shell());
        let note = |action| note(action, name.to_string(), detail.clone());
        // Root made all of them together: nobody is tied to anybody.
        let (path, bundle, until) = if wish.bundles {
            let issued = ca.person(name, PERSON_LIFE, now)?;
            let until = issued.expires;
            let key = NewKey {
                spki: issued.spki()?,
                holder: Holder::Person(name.clone()),
                enrolled_by: None,
                certificate_expires_at_ms: millis(until),
            };
            store
                .create_person_with_key(&person, &key, note("init-person"))
                .await?;
            let bundle = bundle(ca, issued, name.as_str(), controllers);
            (bundle_path(dir, name), bundle, until)
        } else {
            let record = store.create_person(&person, note("init-person")).await?;
            let note = note("invite-person");
            let (bundle, until) =
                invite::make(ca, store, record, false, controllers, INVITE_LIFE, note, now).await?;
            (invite::path(dir, name), bundle, until)
        };
        create_private(&path, &bundle.to_text())?;
        expire = expire.min(until);
    }
    Ok(expire)
}

/// The bundle of somebody, with the addresses of their port.
pub(super) fn bundle(ca: &Ca, issued: Issued, name: &str, controllers: Vec<String>) -> Bundle {
    Bundle {
        format: Bundle::FORMAT,
        identity: issued.identity.to_string(),
        name: name.to_owned(),
        controllers,
        ca: ca.pem().to_owned(),
        certificate: issued.certificate,
        key: issued.key,
    }
}

/// The directory in which everything is built; removed unless it was put in its place.
struct Scaffold {
    path: PathBuf,
    parent: PathBuf,
    done: bool,
}

impl Scaffold {
    fn beside(dir: &Path) -> Result<Self, AdminError> {
        let parent = match dir.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&parent).map_err(FileError::io(&parent, "create"))?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let path = parent.join(format!(".{name}.init.{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(FileError::io(&path, "create"))?;
        let scaffold = Self {
            path,
            parent,
            done: false,
        };
        // Before any key is in it: whoever can move it can read where it goes.
        trust::own_directory(&scaffold.path)?;
        Ok(scaffold)
    }

    /// An empty directory gives way, one that was filled meanwhile does not.
    fn put(mut self, dir: &Path) -> Result<(), AdminError> {
        fs::rename(&self.path, dir).map_err(|error| match error.kind() {
            std::io::ErrorKind::DirectoryNotEmpty => AdminError::NotEmpty { dir: dir.to_owned() },
            _ => FileError::io(dir, "put the new controller in its place")(error).into(),
        })?;
        self.done = true;
        Ok(sync_directory(&self.parent)?)
    }
}

impl Drop for Scaffold {
    fn drop(&mut self) {
        if !self.done {
            // Best effort: what is left is private and under a hidden name.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn hand_over(path: &Path, uid: u32, gid: u32) -> Result<(), AdminError> {
    chown(path, Some(uid), Some(gid)).map_err(FileError::io(path, "hand over"))?;
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(FileError::io(path, "read"))? {
            hand_over(&entry.map_err(FileError::io(path, "read"))?.path(), uid, gid)?;
        }
    }
    Ok(())
}
