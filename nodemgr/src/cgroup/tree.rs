//! Our own subtrees: `redbutton.slice/<slice>`. Made and removed through cgroups-rs; everything that it would
//! swallow (which controllers were really enabled) is read back here.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cgroups_rs::CgroupPid;
use cgroups_rs::fs::Cgroup;
use proto::SliceName;

use super::hierarchy::Rooted;
use super::mount::normal;
use super::{Mount, Sliver, SliverError};

/// Controllers that limits and proofs use, where the kernel has them.
const WANTED: [&str; 4] = ["pids", "memory", "cpu", "io"];

/// Why a subtree of ours cannot be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The slivers' root must be text and below the mount.
    #[error("slivers' root {path} must be a UTF-8 path below the cgroup2 mount, and not the mount itself")]
    BadRoot {
        /// As it was configured.
        path: PathBuf,
    },
    /// A directory could not be made.
    #[error("cannot make cgroup {path}")]
    Make {
        /// Path below the mount.
        path: PathBuf,
        /// The cause.
        #[source]
        source: cgroups_rs::fs::error::Error,
    },
    /// A process could not be moved.
    #[error("cannot move process {pid} into cgroup {path}")]
    Move {
        /// The process.
        pid: i32,
        /// Path below the mount.
        path: PathBuf,
        /// The cause.
        #[source]
        source: cgroups_rs::fs::error::Error,
    },
    /// A cgroup of the subtree is still used.
    #[error("cannot remove cgroup {path}")]
    Remove {
        /// Path below the mount.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It was made but cannot be opened.
    #[error(transparent)]
    Open(#[from] SliverError),
}

/// What became of one controller that we wanted for our slivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControllerState {
    /// Read back: children have it.
    Enabled,
    /// The kernel or a hybrid host does not offer it here.
    Absent,
    /// Offered, but it could not be enabled: why.
    Refused(String),
}

/// A sliver that was just made (or was there already).
#[derive(Debug)]
pub struct Made {
    /// Open and ready to be killed.
    pub sliver: Sliver,
    /// Each wanted controller and what became of it.
    pub controllers: Vec<(&'static str, ControllerState)>,
}

/// The subtree under which our own slivers live.
#[derive(Debug, Clone)]
pub struct Tree {
    mount: Mount,
    root: PathBuf,
}

impl Tree {
    /// Names the root; makes nothing. Default of DESIGN.md: `redbutton.slice`.
    ///
    /// # Errors
    /// When the root is the mount itself, leads out of it or is not text (cgroups-rs panics on that).
    pub fn new(mount: &Mount, root: &Path) -> Result<Self, TreeError> {
        match normal(root) {
            Some(clean) if !clean.as_os_str().is_empty() && clean.to_str().is_some() => Ok(Self {
                mount: mount.clone(),
                root: clean,
            }),
            _ => Err(TreeError::BadRoot {
                path: root.to_owned(),
            }),
        }
    }

    /// The root, below the mount.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a slice's sliver lives, below the mount.
    #[must_use]
    pub fn path(&self, slice: &SliceName) -> PathBuf {
        self.root.join(slice.as_str())
    }

    /// Makes (or finds) the sliver of a slice, with the controllers that can be had.
    ///
    /// # Errors
    /// When the directories cannot be made or opened.
    pub fn make(&self, slice: &SliceName) -> Result<Made, TreeError> {
        let path = self.path(slice);
        // An empty list: cgroups-rs makes the directories, and leaves the controllers to us. With a list it
        // would check it against a constant root and swallow every error.
        Cgroup::new_with_specified_controllers(Rooted::new(self.mount.root()), &path, Some(Vec::new()))
            .map_err(|source| TreeError::Make {
                path: path.clone(),
                source,
            })?;
        let controllers = self.enable_controllers();
        Ok(Made {
            sliver: Sliver::open(&self.mount, &path)?,
            controllers,
        })
    }

    /// Opens a slice's sliver, if it exists.
    ///
    /// # Errors
    /// When it exists and cannot be opened.
    pub fn existing(&self, slice: &SliceName) -> Result<Option<Sliver>, TreeError> {
        match Sliver::open(&self.mount, &self.path(slice)) {
            Ok(sliver) => Ok(Some(sliver)),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The slices that have a subtree. Directories whose name is no slice name are left out.
    #[must_use]
    pub fn slices(&self) -> Vec<SliceName> {
        let entries = fs::read_dir(self.mount.root().join(&self.root));
        let names = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().is_dir());
        let mut slices: Vec<SliceName> = names
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        slices.sort();
        slices
    }

    /// Moves a process, with all its threads, into a slice's sliver.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self, slice: &SliceName, pid: i32) -> Result<(), TreeError> {
        let path = self.path(slice);
        let group = Cgroup::load(Rooted::new(self.mount.root()), &path);
        group
            .add_task_by_tgid(CgroupPid::from(u64::try_from(pid).unwrap_or(0)))
            .map_err(|source| TreeError::Move { pid, path, source })
    }

    /// Removes a slice's empty subtree, children first. A subtree that is not there is fine.
    ///
    /// # Errors
    /// When a process or a zombie's cgroup still holds it.
    pub fn remove(&self, slice: &SliceName) -> Result<(), TreeError> {
        let path = self.path(slice);
        remove_empty(&self.mount.root().join(&path)).map_err(|source| TreeError::Remove { path, source })
    }

    /// Removes the root itself when nothing is left in it; false when something is.
    #[must_use]
    pub fn remove_root(&self) -> bool {
        Cgroup::load(Rooted::new(self.mount.root()), &self.root)
            .delete()
            .is_ok()
    }

    /// Hands controllers down from the mount's root to our slivers, one level after the other.
    fn enable_controllers(&self) -> Vec<(&'static str, ControllerState)> {
        let mut levels = vec![self.mount.root().to_owned()];
        for part in self.root.components() {
            levels.push(levels[levels.len() - 1].join(part));
        }
        WANTED
            .into_iter()
            .map(|name| (name, hand_down(&levels, name)))
            .collect()
    }
}

fn hand_down(levels: &[PathBuf], name: &str) -> ControllerState {
    for level in levels {
        if !listed(&level.join("cgroup.controllers")).contains(name) {
            return ControllerState::Absent;
        }
        let control = level.join("cgroup.subtree_control");
        if listed(&control).contains(name) {
            continue;
        }
        let refused = |why: String| ControllerState::Refused(format!("{}: {why}", control.display()));
        let written = fs::OpenOptions::new().write(true).create(false).open(&control);
        if let Err(error) =
            written.and_then(|mut file| io::Write::write_all(&mut file, format!("+{name}").as_bytes()))
        {
            return refused(error.to_string());
        }
        if !listed(&control).contains(name) {
            return refused("written, but not there when read back".to_owned());
        }
    }
    ControllerState::Enabled
}

fn listed(file: &Path) -> BTreeSet<String> {
    fs::read_to_string(file)
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// Removes a directory of cgroups, deepest first. Links are never followed.
fn remove_empty(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty(&entry.path())?;
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
