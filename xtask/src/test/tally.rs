//! Reads the output of `cargo test -- --show-output`: counts, times by package, and which passing tests said
//! `skipped: REASON` or `partial: REASON`. Pure: lines in, numbers out (the clock of the durations apart).

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// What a test that cannot run here prints.
const SKIPPED: &str = "skipped: ";
/// What a replay of an incident prints that shows less than is asked for. It has passed what it asserts.
const PARTIAL: &str = "partial: ";
/// The test binary of the incidents: `incidents-0123`.
const INCIDENTS: &str = "incidents-";

/// The tests of incidents among all.
#[derive(Default)]
struct Incidents {
    /// Partial and skipped ones included.
    said_passed: usize,
    partial: usize,
    failed: usize,
    skipped: usize,
}

/// The sum over any number of test binaries.
pub(super) struct Tally {
    /// File name of a test binary → its package.
    owners: HashMap<String, String>,
    /// Said to be passed, skipped ones included; see [`Tally::passed`].
    pub(super) passed: usize,
    pub(super) failed: usize,
    /// Test and reason.
    pub(super) skipped: Vec<(String, String)>,
    /// Test and what is missing. Such tests are among the passed ones.
    pub(super) partial: Vec<(String, String)>,
    incidents: Incidents,
    /// Names of failed tests.
    pub(super) failures: Vec<String>,
    marked: usize,
    times: BTreeMap<String, Duration>,
    /// The package and binary that run now, since when.
    current: Option<(String, String, Instant)>,
    /// Inside the dump of passing tests' output.
    dumping: bool,
    /// The test whose output is being dumped.
    dumped: Option<String>,
}

impl Tally {
    pub(super) fn new(owners: HashMap<String, String>) -> Self {
        Self {
            owners,
            passed: 0,
            failed: 0,
            skipped: Vec::new(),
            partial: Vec::new(),
            incidents: Incidents::default(),
            failures: Vec::new(),
            marked: 0,
            times: BTreeMap::new(),
            current: None,
            dumping: false,
            dumped: None,
        }
    }

    /// Tests that really ran and passed.
    pub(super) fn passed(&self) -> usize {
        self.passed.saturating_sub(self.marked)
    }

    /// The closing line of the incidents, when one was among the tests.
    pub(super) fn incidents(&self) -> Option<String> {
        let Incidents {
            said_passed,
            partial,
            failed,
            skipped,
        } = self.incidents;
        let passed = said_passed.saturating_sub(partial + skipped);
        (said_passed + failed > 0).then(|| {
            format!("incidents: passed={passed} partial={partial} failed={failed} skipped={skipped}")
        })
    }

    /// Something that is not a test of cargo's was skipped.
    pub(super) fn skip(&mut self, what: &str, reason: &str) {
        self.skipped.push((what.to_owned(), reason.to_owned()));
    }

    /// The binary that runs now.
    pub(super) fn running(&self) -> Option<&str> {
        self.current.as_ref().map(|(_, binary, _)| binary.as_str())
    }

    /// Test time of each package.
    pub(super) fn by_package(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.times.iter().map(|(package, time)| (package.as_str(), *time))
    }

    /// Takes one line; says whether a person wants to see it. Output of passing tests stays in the log.
    pub(super) fn feed(&mut self, line: &str) -> bool {
        if let Some(binary) = started(line) {
            self.finish_binary();
            let package = self
                .owners
                .get(&binary)
                .cloned()
                .unwrap_or_else(|| binary.clone());
            self.current = Some((package, binary, Instant::now()));
        } else if line == "successes:" {
            self.dumping = true;
            self.dumped = None;
        } else if line == "failures:" {
            self.dumping = false;
        } else if let Some(counts) = result(line) {
            self.dumping = false;
            self.add(counts);
        } else if self.dumping {
            self.dumped_line(line);
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(self.qualified(name));
        } else if let Some((name, reason)) = ignored(line) {
            self.skipped.push((self.qualified(name), reason.to_owned()));
        }
        !self.dumping
    }

    /// The binary that ran last is done.
    pub(super) fn finish_binary(&mut self) {
        if let Some((package, _, since)) = self.current.take() {
            *self.times.entry(package).or_default() += since.elapsed();
        }
    }

    fn qualified(&self, test: &str) -> String {
        self.current
            .as_ref()
            .map_or_else(|| test.to_owned(), |(package, _, _)| format!("{package} {test}"))
    }

    fn dumped_line(&mut self, line: &str) {
        if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.dumped = Some(name.to_owned());
            return;
        }
        let line = line.trim_start();
        let incident = usize::from(self.is_incident());
        // Once for each test, however often it says so.
        if let Some(reason) = line.strip_prefix(SKIPPED)
            && let Some(name) = self.dumped.take()
        {
            self.marked += 1;
            self.incidents.skipped += incident;
            self.skipped.push((self.qualified(&name), reason.to_owned()));
        } else if let Some(missing) = line.strip_prefix(PARTIAL)
            && let Some(name) = self.dumped.take()
        {
            self.incidents.partial += incident;
            self.partial.push((self.qualified(&name), missing.to_owned()));
        }
    }

    /// Whether the binary that runs now is that of the incidents.
    fn is_incident(&self) -> bool {
        self.running().is_some_and(|binary| binary.starts_with(INCIDENTS))
    }

    /// `3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
    fn add(&mut self, counts: &str) {
        for part in counts.split("; ") {
            let Some((number, what)) = part.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<usize>() else {
                continue;
            };
            let incidents = if self.is_incident() { number } else { 0 };
            match what {
                "passed" => {
                    self.passed += number;
                    self.incidents.said_passed += incidents;
                }
                "failed" => {
                    self.failed += number;
                    self.incidents.failed += incidents;
                }
                _ => {}
            }
        }
    }
}

/// The file name of the binary in cargo's `Running unittests src/lib.rs (target/debug/deps/authz-0123)`, or
/// `doc-tests authz`.
fn started(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(package) = line.strip_prefix("Doc-tests ") {
        return Some(format!("doc-tests {package}"));
    }
    let path = line
        .strip_prefix("Running ")?
        .strip_suffix(')')?
        .rsplit_once(" (")?
        .1;
    Some(path.rsplit('/').next().unwrap_or(path).to_owned())
}

/// The counts of a closing line; a test may print something that only begins alike.
fn result(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("test result: ")?;
    rest.strip_prefix("ok. ")
        .or_else(|| rest.strip_prefix("FAILED. "))
}

/// `test name ... ignored` or `test name ... ignored, reason`.
fn ignored(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    Some((name, rest.strip_prefix(", ").unwrap_or("marked #[ignore]")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
     Running unittests src/lib.rs (target/debug/deps/authz-0f1e)

running 4 tests
test a::passes ... ok
test a::needs_root ... ok
test a::fails ... FAILED
test a::later ... ignored, needs a lab guest

successes:

---- a::passes stdout ----
test result: not this one, it is a test's own output... but no counts
some noise

---- a::needs_root stdout ----
skipped: needs root
skipped: needs root


successes:
    a::needs_root
    a::passes

failures:

---- a::fails stdout ----
skipped: printed by a failing test, which counts as failed

failures:
    a::fails

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

   Doc-tests authz

running 1 test
test authz/src/lib.rs - (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s";

    const INCIDENTS: &str = "\
     Running tests/incidents/main.rs (target/debug/deps/incidents-77aa)

running 4 tests
test port_0 ... ok
test dos_attack ... ok
test sydney1 ... ok
test uiuc3 ... FAILED

successes:

---- dos_attack stdout ----
── 23 “DOS attack” (24 Apr 2003)
partial: the fleet view names the slice: there is no flow auditor yet

---- sydney1 stdout ----
skipped: qemu: not here

successes:
    dos_attack
    port_0
    sydney1

failures:

---- uiuc3 stdout ----
partial: of a failing test, which counts as failed

failures:
    uiuc3

test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.01s
";

    fn fed() -> (Tally, Vec<&'static str>) {
        let mut tally = Tally::new(HashMap::from([("authz-0f1e".into(), "redbutton-authz".into())]));
        let shown = OUTPUT.lines().filter(|line| tally.feed(line)).collect();
        tally.finish_binary();
        (tally, shown)
    }

    #[test]
    fn passed_failed_and_skipped_are_told_apart() {
        let (tally, _) = fed();
        assert_eq!((tally.passed(), tally.failed, tally.skipped.len()), (2, 1, 2));
        assert_eq!(tally.failures, ["redbutton-authz a::fails"]);
        assert_eq!(
            tally.skipped,
            [
                (
                    "redbutton-authz a::later".to_owned(),
                    "needs a lab guest".to_owned()
                ),
                (
                    "redbutton-authz a::needs_root".to_owned(),
                    "needs root".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn what_passing_tests_print_is_not_shown_and_what_failing_ones_print_is() {
        let (_, shown) = fed();
        assert!(!shown.contains(&"some noise"));
        assert!(shown.contains(&"---- a::fails stdout ----"));
        assert!(shown.contains(&"test a::passes ... ok"));
    }

    #[test]
    fn a_partial_incident_passes_and_is_listed_and_counted_apart() {
        let mut tally = Tally::new(HashMap::new());
        for line in INCIDENTS.lines() {
            tally.feed(line);
        }
        assert_eq!((tally.passed(), tally.failed, tally.skipped.len()), (2, 1, 1));
        assert_eq!(
            tally.partial,
            [(
                "incidents-77aa dos_attack".to_owned(),
                "the fleet view names the slice: there is no flow auditor yet".to_owned()
            )]
        );
        assert_eq!(
            tally.incidents().as_deref(),
            Some("incidents: passed=1 partial=1 failed=1 skipped=1")
        );
        assert_eq!(fed().0.incidents(), None, "where no incident was among the tests");
    }

    #[test]
    fn time_is_kept_by_package() {
        let (tally, _) = fed();
        let packages: Vec<&str> = tally.by_package().map(|(package, _)| package).collect();
        assert_eq!(packages, ["doc-tests authz", "redbutton-authz"]);
    }
}
