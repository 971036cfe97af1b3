//! What is to run, and what came of what ran. Pure.
//!
//! ```text
//!          activate(B)                  attached              steady
//!  A ────────────────────▶ B, on trial ─────────▶ B, on trial ──────▶ B
//!  ▲                            │ too many starts, too late  │           │
//!  └────────────────────────────┴────────── revert ──────────┴───────────┘
//! ```
//! Format 1, JSON. A reader that meets a higher format, or cannot read it, starts the package: it never guesses.

use proto::Version;
use serde::{Deserialize, Serialize};

/// The format that is written.
const FORMAT: u32 = 1;
/// Starts of a program on trial; then the one before it returns.
pub(crate) const STARTS: u32 = 3;
/// Characters of a reason that are kept.
const WHY: usize = 500;

/// A program in the state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// SHA-256 of its file, hex. Its folder's name.
    pub sha256: String,
    /// What it calls itself.
    pub version: String,
}

/// A program that has not proven itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub(crate) starts: u32,
    pub(crate) deadline_ms: u64,
    /// The controller has taken the link.
    pub(crate) attached: bool,
}

/// The last program that was left for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left {
    pub(crate) sha256: String,
    pub(crate) why: String,
}

/// Everything that outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    format: u32,
    /// What runs; `None`: the package.
    pub(crate) current: Option<Program>,
    /// What ran before it; `None`: the package.
    pub(crate) previous: Option<Program>,
    /// The package's version when `current` was chosen.
    packaged: String,
    pub(crate) trial: Option<Trial>,
    /// Rises with every activation and every return.
    pub(crate) attempt: u64,
    pub(crate) left: Option<Left>,
    /// Of the last manifest that was obeyed.
    decided: (u64, u64),
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            format: FORMAT,
            current: None,
            previous: None,
            packaged: String::new(),
            trial: None,
            attempt: 0,
            left: None,
            decided: (0, 0),
        }
    }
}

/// Why a ledger says nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error("format is {0}, this program reads {FORMAT}")]
    Format(u32),
    #[error("{0}")]
    Syntax(#[from] serde_json::Error),
    #[error("{0:?} is no SHA-256")]
    Digest(String),
}

/// 64 lower-case hexadecimal digits: nothing else becomes a path.
pub(crate) fn is_digest(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl Ledger {
    /// Reads the file's text.
    pub(crate) fn parse(text: &str) -> Result<Self, LedgerError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let Head { format } = serde_json::from_str(text)?;
        if format != FORMAT {
            return Err(LedgerError::Format(format));
        }
        let ledger: Self = serde_json::from_str(text)?;
        for program in [&ledger.current, &ledger.previous].into_iter().flatten() {
            if !is_digest(&program.sha256) {
                return Err(LedgerError::Digest(program.sha256.chars().take(80).collect()));
            }
        }
        Ok(ledger)
    }

    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a struct of texts and numbers has a JSON form")
    }

    /// Whether a decision of this age may be obeyed.
    pub(crate) fn accepts(&self, decided: Version) -> bool {
        (decided.incarnation, decided.epoch) >= self.decided
    }

    /// From now on this program, on trial.
    pub(crate) fn activate(&mut self, program: Program, packaged: &str, decided: Version, deadline_ms: u64) {
        self.previous = self.current.replace(program);
        packaged.clone_into(&mut self.packaged);
        self.trial = Some(Trial {
            starts: 0,
            deadline_ms,
            attached: false,
        });
        self.attempt += 1;
        self.left = None;
        self.decided = self.decided.max((decided.incarnation, decided.epoch));
    }

    /// Back to what ran before. Nothing when the package runs.
    pub(crate) fn leave(&mut self, why: &str) {
        let Some(program) = self.current.take() else {
            return;
        };
        self.left = Some(Left {
            sha256: program.sha256,
            why: why.chars().take(WHY).collect(),
        });
        self.current = self.previous.take();
        self.trial = None;
        self.attempt += 1;
    }

    /// The packaged program, of version `packaged`, starts: what is it to become? Counts the start. `whole` says what
    /// is wrong with a program's file.
    pub(crate) fn start(
        &mut self,
        packaged: &str,
        whole: impl Fn(&Program) -> Result<(), String>,
    ) -> Option<Program> {
        if self.current.is_some() && self.packaged != packaged {
            self.previous = None;
            self.leave(&format!(
                "the package was changed from {} to {packaged}, which runs",
                self.packaged
            ));
        }
        loop {
            let program = self.current.clone()?;
            if let Some(trial) = &mut self.trial {
                if trial.starts >= STARTS {
                    self.leave(&format!(
                        "it was started {STARTS} times and did not stay attached"
                    ));
                    continue;
                }
                trial.starts += 1;
            }
            match whole(&program) {
                Ok(()) => return Some(program),
                Err(why) => self.leave(&why),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn program(n: u8) -> Program {
        Program {
            sha256: format!("{n:064x}"),
            version: format!("0.{n}.0"),
        }
    }

    fn at(epoch: u64) -> Version {
        Version {
            incarnation: 1,
            epoch,
        }
    }

    fn fine(_: &Program) -> Result<(), String> {
        Ok(())
    }

    #[test]
    fn without_an_activation_the_package_runs() {
        assert_eq!(Ledger::default().start("0.1.0", fine), None);
    }

    #[test]
    fn a_program_that_never_stays_is_left_after_its_starts_for_the_one_before_it() {
        let mut ledger = Ledger::default();
        ledger.activate(program(2), "0.1.0", at(1), 1);
        assert_eq!(ledger.start("0.1.0", fine), Some(program(2)));
        ledger.trial = None;
        ledger.activate(program(3), "0.1.0", at(2), 1);
        for _ in 0..STARTS {
            assert_eq!(ledger.start("0.1.0", fine), Some(program(3)));
        }
        assert_eq!(ledger.start("0.1.0", fine), Some(program(2)));
        let left = ledger.left.clone().expect("why");
        assert_eq!(left.sha256, program(3).sha256);
        assert!(left.why.contains("3 times"), "{}", left.why);
        for _ in 0..10 {
            assert_eq!(
                ledger.start("0.1.0", fine),
                Some(program(2)),
                "proven ones are not counted"
            );
        }
    }

    #[test]
    fn a_broken_file_and_another_package_lead_to_the_package() {
        let mut ledger = Ledger::default();
        ledger.activate(program(2), "0.1.0", at(1), 1);
        assert_eq!(ledger.start("0.1.0", |_| Err("torn".into())), None);
        assert_eq!(ledger.left.as_ref().map(|left| &*left.why), Some("torn"));
        ledger.activate(program(2), "0.1.0", at(1), 1);
        assert_eq!(ledger.start("0.3.0", fine), None);
        assert!(
            ledger
                .left
                .as_ref()
                .is_some_and(|left| left.why.contains("0.3.0"))
        );
    }

    #[test]
    fn an_old_decision_is_not_obeyed_again() {
        let mut ledger = Ledger::default();
        ledger.activate(program(2), "0.1.0", at(5), 1);
        assert!(ledger.accepts(at(5)) && ledger.accepts(at(6)) && !ledger.accepts(at(4)));
        let later = Version {
            incarnation: 2,
            epoch: 1,
        };
        assert!(ledger.accepts(later));
    }

    /// Do not change this text: nodes have such files on their disks.
    #[test]
    fn format_1_is_read_as_it_was_written() {
        let text = r#"{"format":1,"current":{"sha256":"0000000000000000000000000000000000000000000000000000000000000002","version":"0.2.0"},"previous":null,"packaged":"0.1.0","trial":{"starts":1,"deadline_ms":120000,"attached":false},"attempt":1,"left":{"sha256":"aa","why":"late"},"decided":[1,7]}"#;
        let ledger = Ledger::parse(text).expect("format 1");
        assert_eq!(ledger.current, Some(program(2)));
        assert_eq!(ledger.to_text(), text);
        assert!(matches!(
            Ledger::parse(&text.replace("\"format\":1", "\"format\":2")),
            Err(LedgerError::Format(2))
        ));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Activate(u8),
        Start(bool),
        Steady,
        Leave,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (2..6u8).prop_map(Event::Activate),
            any::<bool>().prop_map(Event::Start),
            Just(Event::Steady),
            Just(Event::Leave)
        ]
    }

    proptest! {
        /// However it goes, no unproven program is started more often than it may be, and the file says the same.
        #[test]
        fn nothing_on_trial_starts_for_ever(events in proptest::collection::vec(event(), 0..200)) {
            let mut ledger = Ledger::default();
            let mut running = 0u32;
            let mut attempt = 0;
            for event in events {
                match event {
                    Event::Activate(n) => ledger.activate(program(n), "p", at(1), 1),
                    Event::Start(good) => {
                        let whole = |_: &Program| if good { Ok(()) } else { Err("bad".to_owned()) };
                        let started = ledger.start("p", whole);
                        prop_assert_eq!(&started, &ledger.current);
                        if ledger.attempt != attempt {
                            (attempt, running) = (ledger.attempt, 0);
                        }
                        if ledger.trial.is_some() {
                            running += 1;
                            prop_assert!(running <= STARTS);
                        }
                    }
                    Event::Steady => ledger.trial = None,
                    Event::Leave => ledger.leave("test"),
                }
                prop_assert_eq!(&Ledger::parse(&ledger.to_text()).expect("own text"), &ledger);
            }
        }

        #[test]
        fn parse_never_panics(text in ".{0,300}") {
            drop(Ledger::parse(&text));
        }
    }
}
