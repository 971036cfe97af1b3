//! What a replay tells while it runs, and what it leaves when it fails.
//!
//! Files are opened when they are registered: a lab or a fleet removes its folder before anybody can look at the
//! wreck, and an open file outlives its name.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::fleet::Fleet;

/// Lines of each log that a failure shows.
const TAIL: usize = 50;

/// Which of the two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The fault alone.
    Unprotected,
    /// The fault and Redbutton.
    Protected,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Unprotected => "unprotected",
            Phase::Protected => "protected",
        })
    }
}

enum Source {
    Open(File),
    /// Not there yet when it was registered.
    Path(PathBuf),
    Made(Box<dyn FnMut() -> Result<Vec<u8>>>),
}

/// One run of a replay.
pub struct Story {
    phase: Phase,
    since: Instant,
    lines: Vec<String>,
    shown: BTreeSet<&'static str>,
    folder: tempfile::TempDir,
    kept: Vec<(String, Source)>,
}

impl Story {
    pub(super) fn begin(phase: Phase) -> Result<Self> {
        Ok(Self {
            phase,
            since: Instant::now(),
            lines: Vec::new(),
            shown: BTreeSet::new(),
            folder: tempfile::Builder::new()
                .prefix("incident-")
                .tempdir()
                .context("a folder for artefacts")?,
            kept: Vec::new(),
        })
    }

    /// Which run this is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// A step: who does what, now.
    pub fn tell(&mut self, who: &str, what: &str) {
        let line = format!("{:>7.2} s  {who} {what}", self.since.elapsed().as_secs_f64());
        self.say(line);
    }

    /// Something measured or counted, worth knowing and not asserted.
    pub fn fact(&mut self, what: &str, value: impl fmt::Display) {
        self.say(format!("{:>7}    {what}: {value}", ""));
    }

    /// A claim of the incident's row, which has just been asserted.
    pub fn shows(&mut self, claim: &'static str) {
        self.shown.insert(claim);
        self.say(format!("{:>7}  ✓ {claim}", ""));
    }

    fn say(&mut self, line: String) {
        println!("{line}");
        self.lines.push(line);
    }

    pub(super) fn shown(&self) -> BTreeSet<&'static str> {
        self.shown.clone()
    }

    /// A folder whose files are kept on failure: captures, consoles. A short path: sockets fit.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps a copy of this file on failure, also when its folder is gone by then.
    pub fn keep(&mut self, path: impl Into<PathBuf>) {
        let path = path.into();
        let name = path
            .file_name()
            .map_or_else(|| "unnamed".into(), |name| name.to_string_lossy().into_owned());
        let source = File::open(&path).map_or(Source::Path(path), Source::Open);
        self.kept.push((name, source));
    }

    /// Keeps what this makes on failure, under this name.
    pub fn keep_made(&mut self, name: &str, make: impl FnMut() -> Result<Vec<u8>> + 'static) {
        self.kept.push((name.into(), Source::Made(Box::new(make))));
    }

    /// Keeps the logs of a fleet's daemons on failure.
    pub fn keep_fleet(&mut self, fleet: &Fleet) {
        for log in fleet.logs() {
            self.keep(log);
        }
    }

    /// Somebody types `redbutton …`: told as it is typed, with its exit code.
    ///
    /// # Errors
    /// When it says no JSON.
    pub fn types(&mut self, fleet: &Fleet, person: &str, words: &[&str]) -> Result<(i32, Value)> {
        let quoted: Vec<String> = words
            .iter()
            .map(|word| {
                if word.contains(' ') {
                    format!("'{word}'")
                } else {
                    (*word).to_owned()
                }
            })
            .collect();
        self.tell(person, &format!("types redbutton {}", quoted.join(" ")));
        let (code, said) = fleet.json(person, words)?;
        self.tell("redbutton", &format!("exits with {code}"));
        Ok((code, said))
    }

    /// Copies all that is kept into a folder, and shows the end of each log.
    pub(super) fn save(&mut self, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to).with_context(|| to.display().to_string())?;
        let mut lost = Vec::new();
        for (name, source) in &mut self.kept {
            match contents(source) {
                Ok(bytes) => {
                    if name.ends_with(".log") {
                        println!("--- {name}, last {TAIL} lines\n{}", tail(&bytes));
                    }
                    std::fs::write(to.join(&*name), bytes).with_context(|| name.clone())?;
                }
                // The others are worth having all the more.
                Err(error) => lost.push(format!("{name}: {error:#}")),
            }
        }
        for entry in std::fs::read_dir(self.folder.path())? {
            let entry = entry?;
            // Sockets and folders of the replay's own are no artefacts.
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name()))
                    .with_context(|| entry.path().display().to_string())?;
            }
        }
        self.lines
            .extend(lost.into_iter().map(|what| format!("lost: {what}")));
        std::fs::write(to.join("timeline.txt"), self.lines.join("\n") + "\n").context("timeline.txt")
    }
}

fn contents(source: &mut Source) -> Result<Vec<u8>> {
    match source {
        Source::Open(file) => {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0))?;
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        }
        Source::Path(path) => std::fs::read(&*path).with_context(|| path.display().to_string()),
        Source::Made(make) => make(),
    }
}

fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
