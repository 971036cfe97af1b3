//! The incidents of PDN-03-015, replayed: what went wrong on PlanetLab happens again, here, on purpose.
//!
//! ```text
//!   replays::all() ──▸ run(incident)
//!                        needs met? ── no ──▸ skipped, with the reason
//!                        │ yes
//!                        ├─ unprotected(story)   the fault does its harm, asserted from outside
//!                        ├─ protected(story)     what Redbutton does about it
//!                        └─ judge ──▸ passed | partial | failed (artefacts in target/incidents/NN-name)
//! ```
//!
//! An [`Incident`] says what its row of the list asks for ([`Ask`]). What exists must be shown by the protected run,
//! word for word ([`Story::shows`]); what does not exist yet is *missing*, and the incident is *partial*, never
//! passed. A replay is two functions over a [`Story`]: no globals, everything waited for by condition, everything
//! cleaned up when it returns or panics. Adding one: a module in [`replays`], a line in [`replays::all`], a test in
//! `tests/incidents`.
//!
//! Not here: machines to break (`redbutton-lab`), and what belongs to no incident (`tests/`).

mod judge;
mod need;
pub mod replays;
mod story;
pub mod victim;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

pub use judge::{Ask, Counts, Outcome, Ran, judge};
pub use need::Need;
pub use story::{Phase, Story};

/// One incident of the list, and how it is replayed.
#[derive(Debug)]
pub struct Incident {
    /// Its row.
    pub number: u8,
    /// As its test and its folder of artefacts are called: `port_0`.
    pub name: &'static str,
    /// As the paper calls it: `port 0`.
    pub title: &'static str,
    /// When it happened: `27 Nov 2002`.
    pub date: &'static str,
    /// What the machine must offer.
    pub needs: &'static [Need],
    /// What the row says must be shown.
    pub asks: &'static [Ask],
    /// The fault without us: returns `Ok` when it really did its harm.
    pub unprotected: fn(&mut Story) -> Result<()>,
    /// The fault with us: returns `Ok` when what exists does what the row asks.
    pub protected: fn(&mut Story) -> Result<()>,
}

/// Replays an incident and prints its timeline. On failure artefacts are kept in a folder of its own in `artefacts`.
#[must_use]
pub fn run(incident: &Incident, artefacts: &Path) -> Outcome {
    println!("── {} “{}” ({})", incident.number, incident.title, incident.date);
    let unmet: Vec<String> = incident.needs.iter().filter_map(Need::unmet).collect();
    if !unmet.is_empty() {
        return Outcome::Skipped(unmet.join("; "));
    }
    let folder = artefacts.join(format!("{:02}-{}", incident.number, incident.name));
    // Of an earlier run: it would be taken for this one's.
    let _ = std::fs::remove_dir_all(&folder);
    let unprotected = play(Phase::Unprotected, incident.unprotected, &folder);
    let protected = play(Phase::Protected, incident.protected, &folder);
    judge(incident.asks, &unprotected, &protected)
}

fn play(phase: Phase, replay: fn(&mut Story) -> Result<()>, folder: &Path) -> Ran {
    println!("  {phase}:");
    let mut story = match Story::begin(phase) {
        Ok(story) => story,
        Err(error) => return Ran::failed(format!("{phase}: {error:#}")),
    };
    let result = catch_unwind(AssertUnwindSafe(|| replay(&mut story)))
        .unwrap_or_else(|panic| Err(anyhow!("panicked: {}", text_of(panic.as_ref()))));
    let Err(error) = result else {
        return Ran {
            shown: story.shown(),
            failure: None,
        };
    };
    story.tell("the replay", &format!("FAILED: {error:#}"));
    let folder = folder.join(phase.to_string());
    let kept = match story.save(&folder) {
        Ok(()) => format!("artefacts: {}", folder.display()),
        Err(lost) => format!("artefacts are incomplete: {lost:#}"),
    };
    Ran::failed(format!("{phase}: {error:#} ({kept})"))
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "with something that is no text".into())
}

/// An incident as a test: fails when it fails, says `skipped: …` and `partial: …` as `cargo xtask test` reads them.
///
/// # Errors
/// When the replay failed, or there is no such incident.
pub fn as_test(number: u8, name: &str) -> Result<()> {
    let incident = replays::all()
        .iter()
        .find(|incident| incident.number == number && incident.name == name)
        .with_context(|| format!("no replay is number {number} and called {name}"))?;
    match run(incident, &artefacts()?) {
        Outcome::Passed => {}
        Outcome::Partial(missing) => println!("partial: {}", missing.join("; ")),
        Outcome::Skipped(reason) => println!("skipped: {reason}"),
        Outcome::Failed(why) => bail!("incident {number} “{}”: {why}", incident.title),
    }
    Ok(())
}

/// Where artefacts go: `incidents` in the target folder that the running program was built into.
///
/// # Errors
/// When the program does not know its own path.
pub fn artefacts() -> Result<PathBuf> {
    let me = std::env::current_exe().context("own path")?;
    // target/debug/incidents, target/debug/deps/incidents-0123
    let build = me
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .context("own folder")?;
    Ok(build.parent().unwrap_or(build).join("incidents"))
}

#[cfg(test)]
mod tests {
    use super::*;

    static INCIDENT: Incident = Incident {
        number: 99,
        name: "made_up",
        title: "made up",
        date: "1 Jan 1970",
        needs: &[],
        asks: &[Ask::shown("a"), Ask::missing("b", "c")],
        unprotected: |_| Ok(()),
        protected: |story| {
            story.shows("a");
            Ok(())
        },
    };

    #[test]
    fn an_incident_whose_row_asks_for_more_is_partial_and_keeps_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            run(&INCIDENT, folder.path()),
            Outcome::Partial(vec!["b: c".into()])
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_failing_run_leaves_its_timeline_and_what_it_kept_also_when_it_panics() {
        let folder = tempfile::tempdir().unwrap();
        let incident = Incident {
            protected: |story| {
                let gone = tempfile::tempdir()?;
                let log = gone.path().join("console.log");
                std::fs::write(&log, "last words\n")?;
                story.keep(&log);
                std::fs::write(story.folder().join("capture.pcap"), "packets")?;
                story.keep_made("journal", || Ok(b"written by nobody".to_vec()));
                story.tell("node 1", "goes down");
                panic!("for good");
            },
            ..INCIDENT
        };
        let Outcome::Failed(why) = run(&incident, folder.path()) else {
            panic!("did not fail");
        };
        assert!(why.contains("for good"), "{why}");
        let read = |name: &str| {
            std::fs::read_to_string(folder.path().join("99-made_up/protected").join(name)).unwrap()
        };
        assert_eq!(read("console.log"), "last words\n", "of a folder that is gone");
        assert_eq!(read("capture.pcap"), "packets");
        assert_eq!(read("journal"), "written by nobody");
        assert!(read("timeline.txt").contains("node 1 goes down"));
    }

    #[test]
    fn an_unmet_need_skips_with_its_reason() {
        let incident = Incident {
            needs: &[Need {
                name: "a moon base",
                probe: || Err("there is none".into()),
            }],
            unprotected: |_| panic!("ran"),
            ..INCIDENT
        };
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            run(&incident, folder.path()),
            Outcome::Skipped("a moon base: there is none".into())
        );
    }
}
