//! Which foreign cgroups are slivers: `[[adopt]] cgroup = "machine.slice/*", slice = "princeton_vm"`. Pure; the
//! tree is read through a closure.
//!
//! A pattern is a path below the cgroup2 mount, segment by segment; `*` stands for one or more characters inside
//! a segment and never crosses a `/`. The slice is a fixed name or a template: `{1}` is the text of the first
//! `*`, counted over the whole pattern. Text from a cgroup's name is hostile: what does not give a valid slice
//! name is refused by name. Whether a match *may* be adopted is the guard's decision, not ours.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use proto::SliceName;
use serde::{Serialize, Serializer};

use crate::cgroup::Found;

/// The most cgroups that one scan returns, so that a runaway manager cannot exhaust our memory and descriptors.
pub const MAX_MATCHES: usize = 4_096;

/// Why a pattern or a template is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing, or nothing but a `*`.
    #[error("pattern {0:?} would match everything")]
    Everything(String),
    /// Leading, trailing or doubled `/`, `.` or `..`.
    #[error("pattern {0:?} is not a path below the cgroup2 mount, like machine.slice/*")]
    NotAPath(String),
    /// `**`.
    #[error("pattern {0:?} has `**`; a `*` stays inside one segment, write each level")]
    Doubled(String),
    /// `?`, which other tools take for a wildcard.
    #[error("pattern {0:?} has `?`; only `*` is a wildcard")]
    QuestionMark(String),
    /// `{` without a number and `}`, or a number beyond the pattern's `*`.
    #[error("slice {slice:?} names {{{number}}}, but pattern {pattern:?} has {stars} `*`")]
    NoSuchStar {
        /// The template.
        slice: String,
        /// The number in braces.
        number: String,
        /// The pattern.
        pattern: String,
        /// Its stars.
        stars: usize,
    },
    /// A fixed name that is none.
    #[error("{0}")]
    Slice(#[from] proto::IdError),
}

/// One `[[adopt]]` entry, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pattern: String,
    slice: String,
    segments: Vec<Vec<String>>,
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.pattern, &self.slice).serialize(serializer)
    }
}

/// What a scan found. Paths are below the mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// Each cgroup that matches, with its slice or why the name gives none. The first rule wins.
    pub matches: BTreeMap<PathBuf, Result<SliceName, String>>,
    /// Directories in which a match may appear: to be watched. The mount itself is the empty path.
    pub parents: BTreeSet<PathBuf>,
    /// On hybrid hosts: what matches in v1 hierarchies alone.
    pub only_v1: BTreeSet<PathBuf>,
    /// More matched than [`MAX_MATCHES`].
    pub truncated: bool,
}

impl Rule {
    /// Checks a pattern and the slice it stands for.
    ///
    /// # Errors
    /// When the pattern is no path, matches everything, or the slice can never be a name.
    pub fn new(pattern: &str, slice: &str) -> Result<Self, PatternError> {
        let shown = || pattern.chars().take(200).collect::<String>();
        if pattern.is_empty() || pattern == "*" || pattern == "/" {
            return Err(PatternError::Everything(shown()));
        }
        if pattern.contains("**") {
            return Err(PatternError::Doubled(shown()));
        }
        if pattern.contains('?') {
            return Err(PatternError::QuestionMark(shown()));
        }
        let segments: Vec<Vec<String>> = pattern
            .split('/')
            .map(|segment| segment.split('*').map(str::to_owned).collect())
            .collect();
        let bad = |s: &str| s.is_empty() || s == "." || s == ".." || s.len() > 255 || s.contains('\0');
        if pattern.split('/').any(bad) || segments.len() > 16 {
            return Err(PatternError::NotAPath(shown()));
        }
        let rule = Self {
            pattern: pattern.to_owned(),
            slice: slice.to_owned(),
            segments,
        };
        let stars = rule.segments.iter().map(|pieces| pieces.len() - 1).sum::<usize>();
        // Every `*` as a plain letter: refuses a template that can never be a name, and any bad number.
        let sample = vec!["a"; stars];
        match rule.fill(&sample) {
            Ok(name) if rule.slice.contains('{') => {
                // What the stars give decides at run time whether it is a name.
                let _ = name;
                Ok(rule)
            }
            Ok(name) => {
                name.parse::<SliceName>()?;
                Ok(rule)
            }
            Err(number) => Err(PatternError::NoSuchStar {
                slice: slice.to_owned(),
                number,
                pattern: shown(),
                stars,
            }),
        }
    }

    /// The pattern as configured.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The template with the stars' texts put in; the offending number otherwise.
    fn fill(&self, captures: &[&str]) -> Result<String, String> {
        let mut name = String::new();
        let mut rest = self.slice.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (number, after) = after.split_once('}').ok_or_else(|| after.to_owned())?;
            let index: usize = number.parse().map_err(|_| number.to_owned())?;
            let text = index
                .checked_sub(1)
                .and_then(|i| captures.get(i))
                .ok_or_else(|| number.to_owned())?;
            name.push_str(before);
            name.push_str(text);
            rest = after;
        }
        name.push_str(rest);
        Ok(name)
    }

    /// The slice of a path that matches; `None` when it does not.
    #[must_use]
    pub fn slice_of(&self, cgroup: &str) -> Option<Result<SliceName, String>> {
        let mut captures = Vec::new();
        let mut names = cgroup.split('/');
        for pieces in &self.segments {
            if !segment_matches(pieces, names.next()?, &mut captures) {
                return None;
            }
        }
        if names.next().is_some() {
            return None;
        }
        let name = match self.fill(&captures) {
            Ok(name) => name,
            Err(number) => return Some(Err(format!("template names {{{number}}}"))),
        };
        Some(name.parse().map_err(|e: proto::IdError| e.to_string()))
    }

    /// Whether some match might be of this slice.
    #[must_use]
    pub fn may_give(&self, slice: &SliceName) -> bool {
        self.slice.contains('{') || self.slice == slice.as_str()
    }

    /// The patterns of the directories above: in those a match may appear. The mount itself is the empty one.
    fn parents(&self) -> impl Iterator<Item = &str> {
        std::iter::once("").chain(self.pattern.match_indices('/').map(|(at, _)| &self.pattern[..at]))
    }
}

/// Looks through the tree: `find` gives the cgroups that a pattern matches, at most so many that memory is safe.
pub fn scan(rules: &[Rule], mut find: impl FnMut(&str) -> Found) -> Scan {
    let mut scan = Scan::default();
    for rule in rules {
        let found = find(&rule.pattern);
        scan.truncated |= found.truncated;
        scan.only_v1.extend(found.only_v1);
        for cgroup in found.cgroups {
            // Names that are no text match no pattern that is.
            let Some(slice) = cgroup.to_str().and_then(|path| rule.slice_of(path)) else {
                continue;
            };
            scan.matches.entry(cgroup).or_insert(slice);
        }
        for pattern in rule.parents() {
            match pattern {
                "" => drop(scan.parents.insert(PathBuf::new())),
                pattern => scan.parents.extend(find(pattern).cgroups),
            }
        }
    }
    while scan.matches.len() > MAX_MATCHES {
        scan.truncated = true;
        scan.matches.pop_last();
    }
    scan
}

/// Whether a name is the pieces with one or more characters between each two, which go to `captures`.
fn segment_matches<'n>(pieces: &[String], name: &'n str, captures: &mut Vec<&'n str>) -> bool {
    let Some((first, rest)) = pieces.split_first() else {
        return false;
    };
    let Some(mut left) = name.strip_prefix(first.as_str()) else {
        return false;
    };
    let Some((last, middle)) = rest.split_last() else {
        return left.is_empty();
    };
    let kept = captures.len();
    // Each star takes as little as it can; the last one takes what remains, so this finds a match if there is one.
    for piece in middle {
        let Some(from) = left.chars().next().map(char::len_utf8) else {
            captures.truncate(kept);
            return false;
        };
        let Some(at) = left[from..].find(piece.as_str()) else {
            captures.truncate(kept);
            return false;
        };
        captures.push(&left[..from + at]);
        left = &left[from + at + piece.len()..];
    }
    match left.strip_suffix(last.as_str()) {
        Some(text) if !text.is_empty() => {
            captures.push(text);
            true
        }
        _ => {
            captures.truncate(kept);
            false
        }
    }
}

/// Who starts the processes of a cgroup again, by the names that managers give.
#[must_use]
pub fn manager(cgroup: &str) -> &'static str {
    let named = |test: fn(&str) -> bool| cgroup.split('/').any(test);
    if named(|s| s.starts_with("kubepods")) {
        "kubernetes"
    } else if named(|s| s.starts_with("libpod-") || s == "libpod_parent") {
        "podman"
    } else if named(|s| s.starts_with("docker-") || s == "docker") {
        "docker"
    } else if named(|s| s.ends_with(".service") || s.ends_with(".scope") || s.ends_with(".slice")) {
        "systemd"
    } else {
        "unknown"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(pattern: &str, slice: &str) -> Rule {
        Rule::new(pattern, slice).expect("valid rule")
    }

    #[test]
    fn patterns_that_match_everything_or_nothing_are_refused() {
        for bad in [
            "",
            "*",
            "/",
            "/machine.slice",
            "a/",
            "a//b",
            "../x",
            "a/./b",
            "a/**",
            "**",
            "a/b?",
        ] {
            assert!(Rule::new(bad, "a_b").is_err(), "{bad:?} was accepted");
        }
        for (slice, why) in [
            ("princeton", "malformed"),
            ("", "empty"),
            ("p_{2}", "names {2}, but pattern \"m/*\" has 1"),
            ("p_{0}", "names {0}"),
            ("p_{x}", "names {x}"),
            ("p_{1", "names {1"),
        ] {
            let error = Rule::new("m/*", slice).expect_err(slice).to_string();
            assert!(error.contains(why), "{slice:?}: {error}");
        }
    }

    #[test]
    fn a_star_stays_inside_its_segment_and_is_never_empty() {
        let one = rule("machine.slice/vm-*.scope", "princeton_vm");
        assert!(one.slice_of("machine.slice/vm-7.scope").is_some());
        for other in [
            "machine.slice/vm-.scope",
            "machine.slice/vm-7",
            "machine.slice",
            "machine.slice/vm-7.scope/x",
        ] {
            assert_eq!(one.slice_of(other), None, "{other}");
        }
    }

    #[test]
    fn captures_give_the_slice_and_hostile_names_are_refused() {
        let two = rule("pods/*/c-*.scope", "{1}_{2}");
        assert_eq!(
            two.slice_of("pods/princeton/c-codeen.scope"),
            Some(Ok("princeton_codeen".parse().expect("valid")))
        );
        assert!(
            matches!(two.slice_of("pods/Princeton/c-x.scope"), Some(Err(why)) if why.contains("malformed"))
        );
        let long = format!("pods/{}/c-x.scope", "a".repeat(80));
        assert!(matches!(two.slice_of(&long), Some(Err(why)) if why.contains("at most 63")));
    }

    /// The finder over a fixed list, as [`crate::cgroup::find`] does it over the tree.
    fn among(all: &[&str]) -> impl FnMut(&str) -> Found {
        let all: Vec<PathBuf> = all.iter().map(PathBuf::from).collect();
        move |pattern| Found {
            cgroups: all
                .iter()
                .filter(|path| crate::cgroup::matches(pattern, path))
                .cloned()
                .collect(),
            ..Found::default()
        }
    }

    #[test]
    fn a_scan_gives_each_cgroup_once_and_the_parents_to_watch() {
        let rules = [
            rule("machine.slice/vm-1.scope", "first_wins"),
            rule("machine.slice/vm-*.scope", "princeton_vm"),
            rule("system.slice/docker-*.scope", "princeton_{1}"),
            rule("gone.slice/*", "a_b"),
        ];
        let found = scan(
            &rules,
            among(&[
                "machine.slice",
                "machine.slice/vm-1.scope",
                "machine.slice/vm-2.scope",
                "machine.slice/other",
                "system.slice",
                "system.slice/docker-abc.scope",
                "system.slice/sshd.service",
            ]),
        );
        let shown: Vec<_> = found
            .matches
            .iter()
            .map(|(path, slice)| format!("{}={}", path.display(), slice.as_ref().expect("valid")))
            .collect();
        assert_eq!(
            shown,
            [
                "machine.slice/vm-1.scope=first_wins",
                "machine.slice/vm-2.scope=princeton_vm",
                "system.slice/docker-abc.scope=princeton_abc"
            ]
        );
        assert_eq!(
            found.parents,
            ["", "machine.slice", "system.slice"].map(PathBuf::from).into()
        );
    }

    #[test]
    fn a_flood_of_cgroups_is_cut_off_and_said() {
        let found = scan(&[rule("a/*", "a_b")], |pattern| Found {
            cgroups: match pattern {
                "a" => vec!["a".into()],
                _ => (0..10_000).map(|n| format!("a/c{n}").into()).collect(),
            },
            ..Found::default()
        });
        assert!(found.truncated);
        assert_eq!(found.matches.len(), MAX_MATCHES);
    }

    #[test]
    fn managers_are_known_by_their_names() {
        for (cgroup, who) in [
            ("system.slice/docker-0a1b.scope", "docker"),
            ("docker/0a1b", "docker"),
            ("machine.slice/libpod-77.scope", "podman"),
            (
                "kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope",
                "kubernetes",
            ),
            ("kubepods/besteffort/pod1/2", "kubernetes"),
            ("system.slice/nginx.service", "systemd"),
            ("machine.slice/vm", "systemd"),
            ("lab/x", "unknown"),
        ] {
            assert_eq!(manager(cgroup), who, "{cgroup}");
        }
    }

    /// The oracle: try every way to cut the name.
    fn naive(pieces: &[String], name: &str) -> bool {
        match pieces {
            [] => false,
            [only] => name == only,
            [first, rest @ ..] => name.strip_prefix(first.as_str()).is_some_and(|left| {
                left.char_indices()
                    .skip(1)
                    .map(|(at, _)| at)
                    .chain([left.len()])
                    .filter(|at| *at > 0)
                    .any(|at| naive(rest, &left[at..]))
            }),
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_trying_everything(pattern in "[ab*]{1,8}", name in "[ab]{0,8}") {
            let pieces: Vec<String> = pattern.split('*').map(str::to_owned).collect();
            let mut captures = Vec::new();
            let matched = segment_matches(&pieces, &name, &mut captures);
            prop_assert_eq!(matched, naive(&pieces, &name));
            prop_assert_eq!(captures.len(), if matched { pieces.len() - 1 } else { 0 });
            prop_assert!(captures.iter().all(|text| !text.is_empty()));
        }

        #[test]
        fn patterns_and_names_never_panic(pattern in ".{0,40}", slice in ".{0,20}", name in ".{0,40}") {
            if let Ok(rule) = Rule::new(&pattern, &slice) {
                let _ = rule.slice_of(&name);
            }
        }
    }
}
