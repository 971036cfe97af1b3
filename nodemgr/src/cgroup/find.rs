//! What an adopt pattern matches: `machine.slice/*`, `kubepods.slice/*/cri-containerd-*.scope`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Mount;
use super::mount::normal;

/// Most matches of one pattern: a bound, not a wish.
const MAX_MATCHES: usize = 10_000;

/// What a pattern found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Cgroups of the cgroup2 hierarchy, paths below the mount, sorted.
    pub cgroups: Vec<PathBuf>,
    /// On hybrid hosts: paths that match only in v1 hierarchies. Their processes cannot be adopted.
    pub only_v1: Vec<PathBuf>,
    /// There were more than fit.
    pub truncated: bool,
}

/// Finds the cgroups whose path matches `pattern`, component by component; `*` stands for any bytes in one
/// component, `?` for one byte. A pattern never matches the root.
#[must_use]
pub fn find(mount: &Mount, pattern: &str) -> Found {
    let Some(pattern) = normal(Path::new(pattern)) else {
        return Found::default();
    };
    let parts: Vec<&OsStr> = pattern.iter().collect();
    let mut found = Found::default();
    if parts.is_empty() {
        return found;
    }
    let mut matched = BTreeSet::new();
    found.truncated = !walk(mount.root(), Path::new(""), &parts, &mut matched);
    let mut v1 = BTreeSet::new();
    for point in mount.v1() {
        found.truncated |= !walk(point, Path::new(""), &parts, &mut v1);
    }
    found.only_v1 = v1
        .into_iter()
        .filter(|path| !mount.root().join(path).is_dir())
        .collect();
    found.cgroups = matched.into_iter().collect();
    found
}

/// False when the bound was hit.
fn walk(root: &Path, below: &Path, parts: &[&OsStr], matched: &mut BTreeSet<PathBuf>) -> bool {
    let Some((part, rest)) = parts.split_first() else {
        matched.insert(below.to_owned());
        return matched.len() < MAX_MATCHES;
    };
    for entry in fs::read_dir(root.join(below)).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir())
            || !glob(part.as_bytes(), entry.file_name().as_bytes())
        {
            continue;
        }
        if !walk(root, &below.join(entry.file_name()), rest, matched) {
            return false;
        }
    }
    true
}

/// Whether a path below the mount matches a pattern, by itself.
#[must_use]
pub fn matches(pattern: &str, path: &Path) -> bool {
    let (Some(pattern), Some(path)) = (normal(Path::new(pattern)), normal(path)) else {
        return false;
    };
    let (pattern, path): (Vec<_>, Vec<_>) = (pattern.iter().collect(), path.iter().collect());
    !path.is_empty()
        && pattern.len() == path.len()
        && pattern
            .iter()
            .zip(&path)
            .all(|(part, name)| glob(part.as_bytes(), name.as_bytes()))
}

/// One component. Linear in both with one place to come back to: no pattern can make it slow.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut back = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    p = star + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The obvious, slow one.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => naive(rest, name) || (!name.is_empty() && naive(pattern, &name[1..])),
            (Some((b'?', rest)), Some((_, tail))) => naive(rest, tail),
            (Some((byte, rest)), Some((first, tail))) => byte == first && naive(rest, tail),
            _ => false,
        }
    }

    #[test]
    fn patterns_of_the_managers() {
        assert!(matches(
            "machine.slice/*",
            Path::new("machine.slice/libpod-1.scope")
        ));
        assert!(matches(
            "/system.slice/docker-*.scope",
            Path::new("/system.slice/docker-ab.scope")
        ));
        assert!(!matches("machine.slice/*", Path::new("machine.slice/a/b")));
        assert!(!matches("machine.slice/*", Path::new("machine.slice")));
        assert!(!matches("", Path::new("")));
        assert!(!matches("../*", Path::new("../a")));
    }

    #[test]
    fn what_exists_only_in_v1_is_named() {
        let top = tempfile::tempdir().expect("a directory");
        let (v1, v2) = (top.path().join("memory"), top.path().join("unified"));
        for directory in [
            v1.join("docker/abc"),
            v1.join("docker/both"),
            v2.join("docker/both"),
        ] {
            fs::create_dir_all(directory).expect("made");
        }
        fs::write(v2.join("cgroup.procs"), "").expect("written");
        let line =
            |number, point: &Path, kind| format!("{number} 1 0:1 / {} rw - {kind} x rw\n", point.display());
        let mountinfo = top.path().join("mountinfo");
        fs::write(&mountinfo, line(1, &v1, "cgroup") + &line(2, &v2, "cgroup2")).expect("written");
        let mount = Mount::discover(&mountinfo).expect("a mount");
        assert!(mount.facts().hybrid);
        let found = find(&mount, "docker/*");
        assert_eq!(found.cgroups, [PathBuf::from("docker/both")]);
        assert_eq!(found.only_v1, [PathBuf::from("docker/abc")]);
        assert_eq!(mount.in_v1(Path::new("docker/abc")), [v1.as_path()]);
        assert!(!found.truncated);
    }

    proptest! {
        #[test]
        fn the_matcher_is_the_naive_one(pattern in "[ab*?]{0,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), naive(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
