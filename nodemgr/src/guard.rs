//! The wrong cgroup: what may never be killed or frozen, whatever an order or an adopt pattern says.
//!
//! Protected are the *homes* of the node's own services, found at start by where their units put them:
//! `/init.scope`, `/system.slice/sshd.service`, `/system.slice/docker.service`, and where pid 1, this process and its
//! parents live. Never by process name (a slice may call its process `sshd`), and only at the places where the
//! host's manager puts units (a slice may call a cgroup of its own `sshd.service`, too).
//!
//! A cgroup is refused when it is a protected home or contains one; so the root always is. What lies *inside* a home
//! is not: containers may live below the service that runs them. The check is pure, over paths and ids recorded
//! at start; [`Guard::check_now`] also reads again where pid 1 and this process live, through files opened at start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cgroup::{self, Mount, Sliver, normal_path, read_short};
use crate::procfs::{self, Proc};

/// Units whose cgroup is a protected home, as patterns of paths below the mount.
const UNITS: [&str; 37] = [
    "init.scope",
    "system.slice/systemd-*.service",
    "system.slice/dbus.service",
    "system.slice/dbus-broker.service",
    "system.slice/polkit.service",
    "system.slice/ssh.service",
    "system.slice/sshd.service",
    "system.slice/ssh@*.service",
    "system.slice/sshd@*.service",
    "system.slice/*/ssh@*.service",
    "system.slice/*/sshd@*.service",
    "system.slice/dropbear.service",
    "system.slice/getty@*.service",
    "system.slice/*/getty@*.service",
    "system.slice/*/serial-getty@*.service",
    "system.slice/NetworkManager.service",
    "system.slice/networking.service",
    "system.slice/wpa_supplicant.service",
    "system.slice/dhcpcd.service",
    "system.slice/chrony.service",
    "system.slice/chronyd.service",
    "system.slice/cron.service",
    "system.slice/rsyslog.service",
    "system.slice/docker.service",
    "system.slice/containerd.service",
    "system.slice/crio.service",
    "system.slice/kubelet.service",
    "system.slice/k3s.service",
    "system.slice/k3s-agent.service",
    "system.slice/podman.service",
    "system.slice/libvirtd.service",
    "system.slice/virtqemud.service",
    "system.slice/lxc.service",
    "system.slice/lxcfs.service",
    "system.slice/redbutton-*.service",
    "runtime.slice/*.service",
    "podruntime.slice/*.service",
];

/// Longest chain of parents that is followed.
const MAX_PARENTS: usize = 64;

/// Why the guard could not be set up. Without one nothing may be killed.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Where a process lives cannot be told.
    #[error("cannot tell the cgroup of process {who}")]
    Home {
        /// pid 1, ourselves, …
        who: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A configured path leads out of the mount.
    #[error("protected path {path} leads out of the hierarchy")]
    Climbs {
        /// As configured.
        path: PathBuf,
    },
}

/// Why a cgroup may not be touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The whole machine.
    #[error("cgroup / is the root of the hierarchy")]
    Root,
    /// The path leads out of the mount.
    #[error("cgroup path {path} leads out of the hierarchy")]
    Climbs {
        /// As given.
        path: PathBuf,
    },
    /// It is a protected home.
    #[error("cgroup {path} is the home of {who}")]
    Home {
        /// The refused cgroup.
        path: PathBuf,
        /// Whose.
        who: String,
    },
    /// A protected home lies in it.
    #[error("cgroup {path} contains {home}, the home of {who}")]
    Contains {
        /// The refused cgroup.
        path: PathBuf,
        /// The home in it.
        home: PathBuf,
        /// Whose.
        who: String,
    },
    /// Its processes live at the domain.
    #[error("cgroup {path} is {kind}: its processes belong to {domain}, name that one")]
    Threaded {
        /// The refused cgroup.
        path: PathBuf,
        /// What `cgroup.type` says.
        kind: String,
        /// The nearest ancestor that owns the processes.
        domain: PathBuf,
    },
    /// On a hybrid host: only v1 knows it.
    #[error(
        "cgroup {path} exists only in the v1 hierarchy {mount}: its processes are not in cgroup2 and cannot be adopted"
    )]
    OnlyV1 {
        /// The refused path.
        path: PathBuf,
        /// Where it exists.
        mount: PathBuf,
    },
    /// There is no such cgroup.
    #[error("cgroup {path} does not exist")]
    Gone {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be examined, so it is not touched.
    #[error("cannot examine cgroup {path}: {why}")]
    Unknown {
        /// The path.
        path: PathBuf,
        /// The cause.
        why: String,
    },
}

/// A protected place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Path below the mount.
    pub path: PathBuf,
    /// The cgroup's id at start. None for a configured path that did not exist.
    pub id: Option<u64>,
    /// Whose it is, for people.
    pub who: String,
}

/// What was recorded at start.
#[derive(Debug)]
pub struct Guard {
    root_id: u64,
    homes: Vec<Home>,
    /// Every home and each of its ancestors, by id: the number of the home.
    ids: BTreeMap<u64, usize>,
    /// `/proc/1/cgroup` and our own, open for good.
    watched: Vec<(&'static str, File)>,
}

impl Guard {
    /// Records the homes. `proc_root` is `/proc`, `own` this process, `extra` what the operator protects as well
    /// (paths below the mount; they need not exist yet).
    ///
    /// # Errors
    /// When it cannot be told where pid 1 or this process lives, or an extra path climbs.
    pub fn record(mount: &Mount, proc_root: &Path, own: i32, extra: &[PathBuf]) -> Result<Self, GuardError> {
        let mut guard = Self {
            root_id: mount.root_id(),
            homes: Vec::new(),
            ids: BTreeMap::new(),
            watched: Vec::new(),
        };
        let proc = Proc::at(proc_root);
        for (who, pid) in [("pid 1", 1), ("this node manager", own)] {
            let failed = |source| GuardError::Home {
                who: format!("{pid} ({who})"),
                source,
            };
            let file = File::open(proc_root.join(pid.to_string()).join("cgroup")).map_err(failed)?;
            let home = read_home(&file).map_err(failed)?;
            guard.watched.push((who, file));
            guard.add(mount, home, who.to_owned());
        }
        let mut pid = own;
        for _ in 0..MAX_PARENTS {
            pid = match proc.parent(pid) {
                Ok(parent) if parent > 1 => parent,
                _ => break,
            };
            // A parent that left meanwhile protects nothing any more.
            if let Ok(home) = proc.home(pid) {
                guard.add(
                    mount,
                    home,
                    format!("process {pid}, a parent of this node manager"),
                );
            }
        }
        for unit in UNITS {
            for path in cgroup::find(mount, unit).cgroups {
                let who = format!("unit {}", path.file_name().unwrap_or_default().to_string_lossy());
                guard.add(mount, Some(path), who);
            }
        }
        for path in extra {
            let clean = normal_path(path).ok_or_else(|| GuardError::Climbs { path: path.clone() })?;
            guard.add(
                mount,
                Some(clean),
                "the configured list of protected cgroups".to_owned(),
            );
        }
        Ok(guard)
    }

    /// `path` is None when the process lives outside of what this mount shows: nothing here contains it.
    fn add(&mut self, mount: &Mount, path: Option<PathBuf>, who: String) {
        let Some(path) = path else { return };
        if self.homes.iter().any(|home| home.path == path) {
            return;
        }
        let id_of = |path: &Path| {
            fs::metadata(mount.root().join(path))
                .ok()
                .map(|found| found.ino())
        };
        let number = self.homes.len();
        let ancestors = path.ancestors().filter_map(|above| Some((id_of(above)?, number)));
        for (id, number) in ancestors {
            self.ids.entry(id).or_insert(number);
        }
        let id = id_of(&path);
        self.homes.push(Home { path, id, who });
    }

    /// Everything protected.
    #[must_use]
    pub fn homes(&self) -> &[Home] {
        &self.homes
    }

    /// Whether the cgroup with this path and id may be touched, by what was recorded at start.
    ///
    /// # Errors
    /// The reason why not.
    pub fn check(&self, path: &Path, id: u64) -> Result<(), Refusal> {
        let clean = normal_path(path).ok_or_else(|| Refusal::Climbs {
            path: path.to_owned(),
        })?;
        if id == self.root_id || clean.as_os_str().is_empty() {
            return Err(Refusal::Root);
        }
        if let Some(home) = self.homes.iter().find(|home| home.path.starts_with(&clean)) {
            return Err(refuse(&clean, home));
        }
        match self.ids.get(&id) {
            Some(number) => Err(refuse(&clean, &self.homes[*number])),
            None => Ok(()),
        }
    }

    /// The same, and where pid 1 and this process live *now*. Opens nothing: part of every kill.
    ///
    /// # Errors
    /// The reason why not.
    pub fn check_now(&self, sliver: &Sliver) -> Result<(), Refusal> {
        self.check(sliver.path(), sliver.id())?;
        for (who, file) in &self.watched {
            let unknown = |error: io::Error| Refusal::Unknown {
                path: sliver.path().to_owned(),
                why: format!("cannot tell where {who} lives: {error}"),
            };
            if let Some(path) = read_home(file).map_err(unknown)?
                && path.starts_with(sliver.path())
            {
                let home = Home {
                    path,
                    id: None,
                    who: (*who).to_owned(),
                };
                return Err(refuse(sliver.path(), &home));
            }
        }
        Ok(())
    }

    /// Whether the cgroup at this path may be adopted; gives its id.
    ///
    /// # Errors
    /// The reason why not: as [`Guard::check`], and threaded cgroups, and on hybrid hosts paths only in v1.
    pub fn check_adoption(&self, mount: &Mount, path: &Path) -> Result<u64, Refusal> {
        let clean = normal_path(path).ok_or_else(|| Refusal::Climbs {
            path: path.to_owned(),
        })?;
        let unknown = |error: io::Error| Refusal::Unknown {
            path: clean.clone(),
            why: error.to_string(),
        };
        let id = match fs::symlink_metadata(mount.root().join(&clean)) {
            Ok(found) if found.is_dir() => found.ino(),
            Ok(_) => return Err(unknown(io::ErrorKind::NotADirectory.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(match mount.in_v1(&clean).first() {
                    Some(point) => Refusal::OnlyV1 {
                        path: clean,
                        mount: (*point).to_owned(),
                    },
                    None => Refusal::Gone { path: clean },
                });
            }
            Err(error) => return Err(unknown(error)),
        };
        self.check(&clean, id)?;
        let kind = cgroup_type(mount, &clean).map_err(unknown)?;
        if kind == "threaded" || kind == "domain invalid" {
            let domain = domain_of(mount, &clean);
            return Err(Refusal::Threaded {
                path: clean,
                kind,
                domain,
            });
        }
        Ok(id)
    }
}

fn refuse(path: &Path, home: &Home) -> Refusal {
    if home.path == path {
        return Refusal::Home {
            path: path.to_owned(),
            who: home.who.clone(),
        };
    }
    Refusal::Contains {
        path: path.to_owned(),
        home: home.path.clone(),
        who: home.who.clone(),
    }
}

fn read_home(file: &File) -> io::Result<Option<PathBuf>> {
    // One line for each v1 hierarchy, then v2's. Cut off, it could hide the home.
    let mut buffer = [0_u8; 32 * 1024];
    let text = read_short(file, &mut buffer)?;
    if text.len() == 32 * 1024 {
        return Err(io::Error::other("longer than 32 KiB"));
    }
    Ok(procfs::home_of(text))
}

fn cgroup_type(mount: &Mount, path: &Path) -> io::Result<String> {
    fs::read_to_string(mount.root().join(path).join("cgroup.type")).map(|text| text.trim().to_owned())
}

/// The nearest ancestor that is no threaded cgroup; the root where all are.
fn domain_of(mount: &Mount, path: &Path) -> PathBuf {
    let mut above = path.ancestors().skip(1);
    let domain = above.find(|path| {
        cgroup_type(mount, path).is_ok_and(|kind| kind.starts_with("domain") && kind != "domain invalid")
    });
    domain.unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests;
