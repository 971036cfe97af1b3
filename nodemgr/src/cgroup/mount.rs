//! Where cgroup2 is mounted, and what this kernel gives there.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Why there is no cgroup2 hierarchy to work in.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The list of mounts cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There is none.
    #[error("no cgroup2 file system in {path}: mount one, or boot with systemd.unified_cgroup_hierarchy=1")]
    NoCgroup2 {
        /// The list of mounts.
        path: PathBuf,
    },
    /// The given root is not a cgroup directory.
    #[error("{path} is not a cgroup2 directory: it has no cgroup.procs")]
    NotCgroup2 {
        /// The given root.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// What this kernel gives. Probed once; everything that decides takes it as an argument, so that any kernel
/// is a struct literal in a test. None: could not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// v1 hierarchies are mounted beside v2.
    pub hybrid: bool,
    /// `cgroup.kill` (5.14).
    pub kill: Option<bool>,
    /// `cgroup.freeze` (5.2).
    pub freeze: Option<bool>,
    /// Controllers that the root may hand down. Empty on hybrid hosts, where v1 has them.
    pub controllers: BTreeSet<String>,
    /// Pressure stall information per cgroup.
    pub psi: bool,
}

/// The cgroup2 mount.
#[derive(Debug, Clone)]
pub struct Mount {
    root: PathBuf,
    root_id: u64,
    v1: Vec<PathBuf>,
    facts: Facts,
}

impl Mount {
    /// Finds the mount in a file like `/proc/self/mountinfo`: pure v2 at `/sys/fs/cgroup`, or beside v1 at
    /// `/sys/fs/cgroup/unified`. Of several cgroup2 mounts the one that shows the whole hierarchy wins.
    ///
    /// # Errors
    /// When the file cannot be read or names no usable cgroup2.
    pub fn discover(mountinfo: &Path) -> Result<Self, MountError> {
        let text = fs::read(mountinfo).map_err(|source| MountError::Unreadable {
            path: mountinfo.to_owned(),
            source,
        })?;
        let mounts = parse_mountinfo(&text);
        let v1 = mounts
            .iter()
            .filter(|m| m.kind == Kind::V1)
            .map(|m| m.point.clone())
            .collect();
        let mut v2: Vec<_> = mounts.into_iter().filter(|m| m.kind == Kind::V2).collect();
        v2.sort_by_key(|mount| mount.shows != Path::new("/"));
        let best = v2.into_iter().next();
        let best = best.ok_or_else(|| MountError::NoCgroup2 {
            path: mountinfo.to_owned(),
        })?;
        Self::probe(best.point, v1)
    }

    /// Takes this directory as the mount: a configured root, or a test's. The v1 mounts are not looked for.
    ///
    /// # Errors
    /// When it is no cgroup directory.
    pub fn at(root: &Path) -> Result<Self, MountError> {
        Self::probe(root.to_owned(), Vec::new())
    }

    fn probe(root: PathBuf, v1: Vec<PathBuf>) -> Result<Self, MountError> {
        let not_one = |source| MountError::NotCgroup2 {
            path: root.clone(),
            source,
        };
        fs::metadata(root.join("cgroup.procs")).map_err(not_one)?;
        let root_id = fs::metadata(&root).map_err(not_one)?.ino();
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let facts = Facts {
            hybrid: !v1.is_empty(),
            kill: has_file(&root, "cgroup.kill", (5, 14)),
            freeze: has_file(&root, "cgroup.freeze", (5, 2)),
            controllers: controllers.split_whitespace().map(str::to_owned).collect(),
            psi: root.join("memory.pressure").exists(),
        };
        Ok(Self {
            root,
            root_id,
            v1,
            facts,
        })
    }

    /// The directory of the root cgroup.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The root cgroup's id.
    #[must_use]
    pub fn root_id(&self) -> u64 {
        self.root_id
    }

    /// Mount points of v1 hierarchies.
    #[must_use]
    pub fn v1(&self) -> &[PathBuf] {
        &self.v1
    }

    /// What this kernel gives.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Pretends that the kernel is another one: what a test of an old kernel, or a cautious operator, sets.
    #[must_use]
    pub fn with_facts(mut self, facts: Facts) -> Self {
        self.facts = facts;
        self
    }

    /// The directory of the cgroup at `path` (below the mount, with or without a leading slash).
    /// None when the path climbs (`..`).
    #[must_use]
    pub fn directory(&self, path: &Path) -> Option<PathBuf> {
        Some(self.root.join(normal(path)?))
    }

    /// Where v1 hierarchies have a cgroup of this path: their mount points, empty where none has.
    #[must_use]
    pub fn in_v1(&self, path: &Path) -> Vec<&Path> {
        let Some(path) = normal(path) else {
            return Vec::new();
        };
        self.v1
            .iter()
            .filter(|point| point.join(&path).is_dir())
            .map(PathBuf::as_path)
            .collect()
    }
}

/// A path below the mount as all of this crate writes it: relative, no dots. None when it climbs.
#[must_use]
pub(crate) fn normal(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// The root has neither file, so one of its children is asked, and the kernel's version where it has none.
fn has_file(root: &Path, name: &str, since: (u32, u32)) -> Option<bool> {
    let child = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join("cgroup.events").exists());
    match child {
        Some(child) => Some(child.join(name).exists()),
        None => kernel_version().map(|version| version >= since),
    }
}

fn kernel_version() -> Option<(u32, u32)> {
    let name = nix::sys::utsname::uname().ok()?;
    parse_release(name.release().to_str()?)
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    V1,
    V2,
}

#[derive(Debug, PartialEq, Eq)]
struct MountLine {
    point: PathBuf,
    shows: PathBuf,
    kind: Kind,
}

/// proc(5), mountinfo: `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`. Lines of other file
/// systems and lines that make no sense are left out.
fn parse_mountinfo(text: &[u8]) -> Vec<MountLine> {
    text.split(|b| *b == b'\n').filter_map(parse_mount).collect()
}

fn parse_mount(line: &[u8]) -> Option<MountLine> {
    let mut fields = line.split(|b| *b == b' ');
    let shows = unescape(fields.nth(3)?);
    let point = unescape(fields.next()?);
    let kind = match fields.skip_while(|field| *field != b"-").nth(1)? {
        b"cgroup" => Kind::V1,
        b"cgroup2" => Kind::V2,
        _ => return None,
    };
    Some(MountLine { point, shows, kind })
}

/// The kernel writes space, tab, newline and backslash as `\040`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|digits| digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) if first == b'\\' && digits[0] <= b'3' => {
                plain.push(digits.iter().fold(0, |sum, digit| sum * 8 + (digit - b'0')));
                rest = &after[3..];
            }
            _ => {
                plain.push(first);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HYBRID: &[u8] = b"\
30 28 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
40 30 0:36 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_hybrid_host_has_v2_beside_v1() {
        let mounts = parse_mountinfo(HYBRID);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].kind, Kind::V1);
        assert_eq!(mounts[1].point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mounts[1].kind, Kind::V2);
    }

    #[test]
    fn mount_points_are_unescaped() {
        let line = b"1 2 0:1 / /a\\040b\\134c rw - cgroup2 none rw";
        assert_eq!(parse_mount(line).expect("a line").point, Path::new("/a b\\c"));
    }

    #[test]
    fn no_cgroup2_is_said_with_the_file_that_was_read() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "1 2 0:1 / / rw - ext4 /dev/vda rw\n").expect("written");
        let error = Mount::discover(file.path())
            .expect_err("there is none")
            .to_string();
        assert!(error.starts_with("no cgroup2 file system in /"), "{error}");
        let error = Mount::at(Path::new("/proc")).expect_err("not one").to_string();
        assert_eq!(error, "/proc is not a cgroup2 directory: it has no cgroup.procs");
    }

    #[test]
    fn releases_of_distributions() {
        assert_eq!(parse_release("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parse_release("5.2-rc1"), Some((5, 2)));
        assert_eq!(parse_release("unknown"), None);
    }

    #[test]
    fn paths_below_the_mount_never_climb() {
        assert_eq!(normal(Path::new("/a/./b/")), Some(PathBuf::from("a/b")));
        assert_eq!(normal(Path::new("/")), Some(PathBuf::new()));
        assert_eq!(normal(Path::new("a/../..")), None);
    }

    proptest! {
        #[test]
        fn mountinfo_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_mountinfo(&bytes);
        }

        #[test]
        fn mountinfo_near_the_truth(text in "[0-9]{1,2} [0-9] 0:1 [/\\\\a0-7 ]{0,12} [/\\\\a0-7]{1,12} rw( - (cgroup|cgroup2|x) y rw)?") {
            let _ = parse_mountinfo(text.as_bytes());
        }
    }
}
