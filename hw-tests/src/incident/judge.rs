//! The verdict on a replay. Pure: what was asked and what happened in, the outcome out.

use std::collections::BTreeSet;
use std::fmt;

/// One thing that the row of an incident says must be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    claim: &'static str,
    /// What does not exist yet, and in which issue it comes; `None`: it can be shown.
    lacks: Option<&'static str>,
}

impl Ask {
    /// The protected run shows it, and says so in the same words.
    #[must_use]
    pub const fn shown(claim: &'static str) -> Self {
        Self { claim, lacks: None }
    }

    /// It cannot be shown yet.
    #[must_use]
    pub const fn missing(claim: &'static str, lacks: &'static str) -> Self {
        Self {
            claim,
            lacks: Some(lacks),
        }
    }

    /// In the words of the list.
    #[must_use]
    pub const fn claim(&self) -> &'static str {
        self.claim
    }

    /// What does not exist yet.
    #[must_use]
    pub const fn lacks(&self) -> Option<&'static str> {
        self.lacks
    }
}

/// What one of the two runs came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ran {
    /// Claims it has shown.
    pub shown: BTreeSet<&'static str>,
    /// Why it did not go as expected.
    pub failure: Option<String>,
}

impl Ran {
    pub(super) fn failed(why: String) -> Self {
        Self {
            failure: Some(why),
            ..Self::default()
        }
    }
}

/// What became of an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Both runs went as expected and all that the row asks for was shown.
    Passed,
    /// Both runs went as expected, but these claims wait for something that does not exist yet.
    Partial(Vec<String>),
    /// Why.
    Failed(String),
    /// Why it cannot run here.
    Skipped(String),
}

impl Outcome {
    /// The word for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Partial(_) => "partial",
            Outcome::Failed(_) => "failed",
            Outcome::Skipped(_) => "skipped",
        }
    }

    /// The rest of it; empty when it passed.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Outcome::Passed => String::new(),
            Outcome::Partial(missing) => missing.join("; "),
            Outcome::Failed(why) | Outcome::Skipped(why) => why.clone(),
        }
    }
}

/// How many came to what. Shows itself as the closing line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    passed: usize,
    partial: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    /// One more.
    pub fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Partial(_) => self.partial += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Skipped(_) => self.skipped += 1,
        }
    }

    /// Whether none failed.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.failed == 0
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            partial,
            failed,
            skipped,
        } = self;
        write!(
            f,
            "incidents: passed={passed} partial={partial} failed={failed} skipped={skipped}"
        )
    }
}

/// The verdict. A claim that can be shown must have been, and nothing else may claim to have been shown.
#[must_use]
pub fn judge(asks: &[Ask], unprotected: &Ran, protected: &Ran) -> Outcome {
    let mut faults: Vec<String> = [unprotected, protected]
        .iter()
        .filter_map(|ran| ran.failure.clone())
        .collect();
    let can_be_shown = |claim: &str| asks.iter().any(|ask| ask.claim == claim && ask.lacks.is_none());
    if protected.failure.is_none() {
        faults.extend(
            asks.iter()
                .filter(|ask| ask.lacks.is_none() && !protected.shown.contains(ask.claim))
                .map(|ask| format!("the protected run did not show “{}”", ask.claim)),
        );
    }
    faults.extend(
        protected
            .shown
            .iter()
            .filter(|claim| !can_be_shown(claim))
            .map(|claim| format!("“{claim}” was shown, but is not asked for or said to be missing")),
    );
    faults.extend(
        unprotected
            .shown
            .iter()
            .map(|claim| format!("the unprotected run showed “{claim}”: that takes no Redbutton")),
    );
    if asks.is_empty() {
        faults.push("the row asks for nothing".into());
    }
    if !faults.is_empty() {
        return Outcome::Failed(faults.join("; "));
    }
    let missing: Vec<String> = asks
        .iter()
        .filter_map(|ask| Some(format!("{}: {}", ask.claim, ask.lacks?)))
        .collect();
    if missing.is_empty() {
        Outcome::Passed
    } else {
        Outcome::Partial(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD: Ask = Ask::shown("killed everywhere");
    const VIEW: Ask = Ask::missing("view names it", "no flows");

    fn ran(shown: &[&'static str]) -> Ran {
        Ran {
            shown: shown.iter().copied().collect(),
            failure: None,
        }
    }

    #[test]
    fn passed_is_all_that_is_asked_for_and_shown() {
        assert_eq!(
            judge(&[DEAD], &ran(&[]), &ran(&["killed everywhere"])),
            Outcome::Passed
        );
        assert_eq!(
            judge(&[DEAD, VIEW], &ran(&[]), &ran(&["killed everywhere"])),
            Outcome::Partial(vec!["view names it: no flows".into()])
        );
    }

    #[test]
    fn nothing_is_believed_that_was_not_shown() {
        let bad = [
            judge(&[DEAD], &ran(&[]), &ran(&[])),
            judge(
                &[DEAD, VIEW],
                &ran(&[]),
                &ran(&["killed everywhere", "view names it"]),
            ),
            judge(&[DEAD], &ran(&[]), &ran(&["killed everywhere", "by magic"])),
            judge(
                &[DEAD],
                &ran(&["killed everywhere"]),
                &ran(&["killed everywhere"]),
            ),
            judge(&[], &ran(&[]), &ran(&[])),
            judge(
                &[DEAD],
                &Ran::failed("no harm was done".into()),
                &ran(&["killed everywhere"]),
            ),
            judge(&[DEAD], &ran(&[]), &Ran::failed("it lives".into())),
        ];
        for outcome in &bad {
            assert_eq!(outcome.word(), "failed", "{outcome:?}");
        }
        assert_eq!(bad[6].reason(), "it lives", "one reason is enough");
    }

    #[test]
    fn the_closing_line_counts_each_once() {
        let mut counts = Counts::default();
        counts.add(&Outcome::Passed);
        counts.add(&Outcome::Partial(vec![]));
        counts.add(&Outcome::Skipped(String::new()));
        assert!(counts.is_good());
        counts.add(&Outcome::Failed(String::new()));
        assert!(!counts.is_good());
        assert_eq!(
            counts.to_string(),
            "incidents: passed=1 partial=1 failed=1 skipped=1"
        );
    }
}
