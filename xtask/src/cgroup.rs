//! The safety net: one cgroup-v2 subtree of our own in which an isolated run lives, so that whatever it leaves
//! behind is found by name, killed and removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Our subtrees are called `redbutton-xtask-PID`.
const PREFIX: &str = "redbutton-xtask-";

/// The leaf for the run's own processes: a v2 cgroup with controllers keeps processes in leaves only.
pub(crate) const LEAF: &str = "init";

/// Where cgroup v2 is mounted, from the text of `/proc/self/mountinfo`: alone at `/sys/fs/cgroup`, or beside v1.
pub(crate) fn mount_in(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        // "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9": the fifth word is the mount point (proc(5)).
        (right.split(' ').next() == Some("cgroup2")).then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Where cgroup v2 is mounted here.
pub(crate) fn mount() -> Result<Option<PathBuf>> {
    Ok(mount_in(
        &fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?,
    ))
}

/// A subtree that is killed and removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Subtree {
    path: PathBuf,
    removed: bool,
}

impl Subtree {
    /// Makes `redbutton-xtask-PID` and its leaf; first removes what runs that were killed -9 left.
    pub(crate) fn create(mount: &Path) -> Result<Self> {
        sweep(mount)?;
        let path = mount.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make cgroup {}", path.display()))?;
        let subtree = Self { path, removed: false };
        fs::create_dir(subtree.path.join(LEAF))
            .with_context(|| format!("cannot make cgroup {}/{LEAF}", subtree.path.display()))?;
        Ok(subtree)
    }

    /// The subtree's folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Cgroups that somebody made inside and did not remove, deepest first, relative to the subtree.
    pub(crate) fn left_behind(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        descend(&self.path, &mut found)?;
        Ok(found
            .iter()
            .filter_map(|path| path.strip_prefix(&self.path).ok())
            .filter(|path| *path != Path::new(LEAF))
            .map(|path| path.display().to_string())
            .collect())
    }

    /// Kills whatever lives inside and removes it all.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.removed = true;
        remove(&self.path)
    }
}

impl Drop for Subtree {
    fn drop(&mut self) {
        if !self.removed
            && let Err(error) = remove(&self.path)
        {
            eprintln!("cargo xtask: {error:#}");
        }
    }
}

/// Child cgroups, deepest first, without the folder itself.
fn descend(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list cgroup {}", folder.display()))? {
        let entry = entry.with_context(|| format!("cannot list cgroup {}", folder.display()))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            descend(&entry.path(), found)?;
            found.push(entry.path());
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    // Kernels before 5.14 have no cgroup.kill; there the death of the PID namespace has killed everybody already.
    match fs::write(path.join("cgroup.kill"), "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot kill cgroup {}", path.display()));
        }
        _ => {}
    }
    let mut all = Vec::new();
    descend(path, &mut all)?;
    all.push(path.to_owned());
    // The kernel reaps in its own time; until then rmdir says EBUSY.
    let cap = Instant::now() + Duration::from_secs(10);
    for cgroup in all {
        while let Err(error) = fs::remove_dir(&cgroup) {
            match error.kind() {
                io::ErrorKind::NotFound => break,
                io::ErrorKind::ResourceBusy if Instant::now() < cap => {
                    std::thread::sleep(Duration::from_millis(5))
                }
                _ => bail!("cannot remove cgroup {}: {error}", cgroup.display()),
            }
        }
    }
    Ok(())
}

/// Removes subtrees whose xtask is gone.
fn sweep(mount: &Path) -> Result<()> {
    for entry in fs::read_dir(mount)
        .with_context(|| format!("cannot list {}", mount.display()))?
        .flatten()
    {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|pid| pid.parse::<i32>().ok());
        if let Some(owner) = owner
            && !Path::new(&format!("/proc/{owner}")).exists()
            // Its owner may live in a PID namespace that we do not see.
            && fs::read_to_string(entry.path().join("cgroup.events")).is_ok_and(|text| text.contains("populated 0"))
        {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_alone_and_beside_v1() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                      39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:7 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_in(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let pure = "30 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(mount_in(pure), Some("/sys/fs/cgroup".into()));
        let v1 = "39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n";
        assert_eq!(mount_in(v1), None);
    }
}
