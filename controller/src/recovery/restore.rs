//! `restore`: an earlier copy of the database takes over, in a new incarnation.

use std::fmt;
use std::fs::{self, File};
use std::io::{self as std_io, Read};
use std::path::{Path, PathBuf};

use proto::{PersonName, Version};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use trust::Roots;

use super::approval::two_people;
use super::backup::{Secrets, private};
use super::{Lock, RecoveryError, io};
use crate::admin::files;
use crate::pki::{FileError, create_private, sync_directory};
use crate::store::{About, Note, SqliteStore, high_water};

/// Where the new database is made.
const FOLDER: &str = "restoring";
/// In there: the new database is whole; a [`Plan`].
const READY: &str = "ready";
/// Of a database with its write-ahead log.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

/// Which database takes over.
#[derive(Debug, Clone)]
pub enum Source {
    /// A copy that `backup` made.
    Backup(PathBuf),
    /// The one that is in place: somebody put it there by hand.
    InPlace,
}

/// A restore to be made.
#[derive(Debug, Clone)]
pub struct Restore {
    /// The state directory.
    pub dir: PathBuf,
    /// From where.
    pub source: Source,
    /// Keys and certificates that are missing in the state directory.
    pub secrets: Option<PathBuf>,
    /// Files of those who agreed.
    pub approvals: Vec<PathBuf>,
    /// Why one person does it alone; `None`: two do it.
    pub alone: Option<String>,
}

/// What was restored.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The new life.
    pub incarnation: u64,
    /// With the highest epoch that was ever handed out in the copy.
    pub version: Version,
    /// The end of the restored audit, before the entry about this.
    pub head: audit::Head,
    /// Who agreed.
    pub people: Vec<PersonName>,
    /// The database that was there before.
    pub aside: Option<PathBuf>,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "restored up to audit entry {}; incarnation {} begins",
            self.head.sequence, self.incarnation
        )?;
        if let Some(aside) = &self.aside {
            writeln!(f, "the database before it: {}", aside.display())?;
        }
        if self.people.is_empty() {
            writeln!(f, "by one person alone: it stands so in the audit")?;
        }
        write!(
            f,
            "invites and join tokens from before are void; nodes that attach bring the holds that the backup does not know"
        )
    }
}

/// An audit entry by whoever is root here.
pub(super) fn system_note(
    version: Version,
    now: OffsetDateTime,
    action: &str,
    target: &str,
    detail: String,
) -> Note {
    Note {
        draft: audit::Draft {
            at_ms: i64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX),
            version,
            person: None,
            role: None,
            action: action.to_owned(),
            target: target.to_owned(),
            reason: format!("controller {action}"),
            evidence: String::new(),
            outcome: audit::Outcome::Done,
            detail,
            order: None,
        },
        about: About::default(),
    }
}

/// SHA-256 of a file: what people sign.
///
/// # Errors
/// When it cannot be read.
fn digest(path: &Path) -> Result<[u8; 32], RecoveryError> {
    let mut file = File::open(path).map_err(io(path, "read"))?;
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(io(path, "read"))? {
            0 => return Ok(sha.finalize().into()),
            read => sha.update(&buffer[..read]),
        }
    }
}

/// What is left to do after the commit point.
struct Plan {
    /// What the new database begins with.
    mark: Version,
}

impl Plan {
    /// Where the old database goes: another place at each restore.
    fn aside(&self) -> String {
        format!("{}.before-{}", files::DATABASE, self.mark.incarnation)
    }

    fn to_text(&self) -> String {
        format!("{} {}\n", self.mark.incarnation, self.mark.epoch)
    }

    fn parse(text: &str) -> Option<Self> {
        let (incarnation, epoch) = text.trim_end().split_once(' ')?;
        let mark = Version {
            incarnation: incarnation.parse().ok()?,
            epoch: epoch.parse().ok()?,
        };
        Some(Self { mark })
    }
}

/// Puts a copy in the place of the database.
///
/// # Errors
/// See [`RecoveryError`]; then the old controller is as it was.
pub async fn restore(wish: &Restore, now: OffsetDateTime) -> Result<Restored, RecoveryError> {
    let dir = &wish.dir;
    let _lock = Lock::take(dir)?;
    finish(dir)?;
    if let Some(path) = &wish.secrets {
        bring_secrets(dir, path)?;
    }
    let database = dir.join(files::DATABASE);
    let folder = fresh_folder(dir)?;
    let part = folder.join(files::DATABASE);
    let signed = match &wish.source {
        Source::Backup(path) => {
            fs::copy(path, &part).map_err(io(path, "copy"))?;
            digest(path)?
        }
        Source::InPlace => {
            // With its log: the copy is opened as the original would be.
            for end in PARTS {
                let from = with_end(&database, end);
                match fs::copy(&from, with_end(&part, end)) {
                    Err(error) if error.kind() == std_io::ErrorKind::NotFound && !end.is_empty() => {}
                    copied => drop(copied.map_err(io(&from, "copy"))?),
                }
            }
            digest(&database)?
        }
    };
    private(&part)?;
    crash("controller.restore.copied");
    let store = SqliteStore::open(&part).await?;
    let made = prepare(&store, wish, &signed, now).await;
    store.close().await?;
    let mut restored = made?;
    File::open(&part)
        .and_then(|file| file.sync_all())
        .map_err(io(&part, "sync"))?;
    let plan = Plan {
        mark: restored.version,
    };
    restored.aside = database.exists().then(|| dir.join(plan.aside()));
    crash("controller.restore.before-ready");
    create_private(&folder.join(READY), &plan.to_text())?;
    crash("controller.restore.after-ready");
    finish(dir)?;
    Ok(restored)
}

async fn prepare(
    store: &SqliteStore,
    wish: &Restore,
    signed: &[u8; 32],
    now: OffsetDateTime,
) -> Result<Restored, RecoveryError> {
    let head = store.check_whole().await?;
    let people = match &wish.alone {
        Some(_) => Vec::new(),
        None => {
            let path = wish.dir.join(files::CA);
            let pem = fs::read_to_string(&path).map_err(io(&path, "read"))?;
            let roots = Roots::from_pem(&pem).map_err(|error| RecoveryError::Secrets {
                path,
                why: error.to_string(),
            })?;
            two_people(&wish.approvals, signed, &roots, store, now).await?
        }
    };
    let by = match &wish.alone {
        Some(reason) => format!("ALONE, without a second person: {reason}"),
        None => format!(
            "approved by {}",
            people
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" and ")
        ),
    };
    let mark = high_water::read(&high_water::beside(&wish.dir.join(files::DATABASE)))
        .ok()
        .flatten()
        .map_or(0, |mark| mark.incarnation);
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    let from = match &wish.source {
        Source::Backup(path) => path.display().to_string(),
        Source::InPlace => "the database in place".to_owned(),
    };
    let incarnation = store
        .begin_incarnation(mark.max(seconds.saturating_sub(1)), |version| {
            system_note(
                version,
                now,
                "restore",
                "controller",
                format!("from {from}, which ended at audit entry {head}; {by}"),
            )
        })
        .await?;
    Ok(Restored {
        incarnation,
        version: store.handed_out().await?,
        head,
        people,
        aside: None,
    })
}

/// Finishes a restore that a crash has cut off after its commit point, and forgets one from before it. Whoever serves
/// calls this first.
///
/// # Errors
/// What the system said; calling it again goes on.
pub fn finish_restore(dir: &Path, _lock: &Lock) -> Result<(), RecoveryError> {
    finish(dir)
}

fn finish(dir: &Path) -> Result<(), RecoveryError> {
    let folder = dir.join(FOLDER);
    let ready = folder.join(READY);
    let plan = match fs::read_to_string(&ready) {
        Ok(text) => Plan::parse(&text).ok_or_else(|| {
            io(&ready, "understand")(std_io::Error::other("it is not what a restore writes"))
        })?,
        Err(error) if error.kind() == std_io::ErrorKind::NotFound => {
            return match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std_io::ErrorKind::NotFound => {
                    Err(io(&folder, "remove")(error))
                }
                _ => Ok(()),
            };
        }
        Err(error) => return Err(io(&ready, "read")(error)),
    };
    let (database, part) = (dir.join(files::DATABASE), folder.join(files::DATABASE));
    if part.exists() {
        // The log first goes with its database: beside another one it would be replayed into that.
        for end in ["-shm", "-wal", ""] {
            let from = with_end(&database, end);
            let to = with_end(&dir.join(plan.aside()), end);
            match fs::rename(&from, &to) {
                Err(error) if error.kind() == std_io::ErrorKind::NotFound => {}
                moved => moved.map_err(io(&from, "set aside"))?,
            }
            crash("controller.restore.aside");
        }
        sync_directory(dir)?;
        fs::rename(&part, &database).map_err(io(&database, "put in place"))?;
        sync_directory(dir)?;
        crash("controller.restore.in-place");
    }
    // So that the next restore of the same backup, in the same second, begins yet another life.
    high_water::raise(&high_water::beside(&database), plan.mark)?;
    fs::remove_dir_all(&folder).map_err(io(&folder, "remove"))?;
    Ok(sync_directory(dir)?)
}

fn crash(point: &str) {
    crate::crash::point(point);
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn fresh_folder(dir: &Path) -> Result<PathBuf, RecoveryError> {
    use std::os::unix::fs::DirBuilderExt;
    let folder = dir.join(FOLDER);
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .map_err(io(&folder, "create"))?;
    Ok(folder)
}

/// Writes those files that are not there; one that is there and differs is an error.
fn bring_secrets(dir: &Path, path: &Path) -> Result<(), RecoveryError> {
    let wrong = |why: &str| RecoveryError::Secrets {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    let text = fs::read_to_string(path).map_err(io(path, "read"))?;
    // The parser's words are dropped: they may quote the text.
    let secrets: Secrets =
        toml::from_str(&text).map_err(|_| wrong("is not what `backup --secrets` writes"))?;
    if secrets.format != Secrets::FORMAT {
        return Err(wrong("has a format that this program does not read"));
    }
    if let Some(name) = secrets.files.keys().find(|name| !Secrets::is_one(name)) {
        return Err(wrong(&format!(
            "names {name:?}, which is no file of a state directory"
        )));
    }
    for (name, text) in &secrets.files {
        let place = dir.join(name);
        match fs::read_to_string(&place) {
            Ok(there) if there == *text => {}
            Ok(_) => {
                return Err(wrong(&format!(
                    "{name} is there already, and another one: remove one of them"
                )));
            }
            Err(error) if error.kind() == std_io::ErrorKind::NotFound => create_private(&place, text)?,
            Err(error) => return Err(FileError::io(&place, "read")(error).into()),
        }
    }
    Ok(())
}
