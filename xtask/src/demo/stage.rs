//! Where the story is told: narration, what a person types, what comes back, and whether that was as told.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Lines of output that are shown before it is cut.
const SHOWN: usize = 24;

/// How long any condition may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The stage. Everything happens in one folder, which goes away with the isolation.
pub(super) struct Stage {
    programs: PathBuf,
    folder: PathBuf,
    colour: bool,
    started: Instant,
    acts: u32,
}

impl Stage {
    pub(super) fn new(programs: &Path, colour: bool) -> Self {
        Self {
            programs: programs.to_owned(),
            folder: std::env::temp_dir(),
            colour,
            started: Instant::now(),
            acts: 0,
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// A file of the story.
    pub(super) fn write(&self, name: &str, text: &str, mode: u32) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("cannot set the mode of {}", path.display()))
    }

    /// A program of this build (or of the system), to be run in the folder.
    pub(super) fn program(&self, name: &str) -> Command {
        let ours = self.programs.join(name);
        let mut command = Command::new(if ours.exists() { ours } else { name.into() });
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .env_remove("REDBUTTON_BUNDLE");
        command
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Begins an act.
    pub(super) fn act(&mut self, title: &str) {
        self.acts += 1;
        let line = format!("{}. {title}", self.acts);
        println!(
            "\n{}  {}",
            self.paint("1", &line),
            self.paint("2", &format!("[{:.1} s]", self.elapsed().as_secs_f64()))
        );
    }

    /// Tells something, indented.
    pub(super) fn tell(&self, text: &str) {
        for line in text.lines() {
            println!("   {line}");
        }
    }

    /// Something that was checked and is so.
    pub(super) fn proof(&self, text: &str) {
        println!("   {} {text}", self.paint("32", "✔"));
    }

    /// Something that must be so, told once it is.
    pub(super) fn insist(&self, holds: bool, claim: &str) -> Result<()> {
        if !holds {
            bail!("this was to be true and is not: {claim}");
        }
        self.proof(claim);
        Ok(())
    }

    /// Shows a command without running it here: a daemon.
    pub(super) fn typed(&self, who: &str, line: &str) {
        println!(
            "   {} {}",
            self.paint("36", &format!("{who}$")),
            self.paint("1", line)
        );
    }

    /// Shows a command, runs it as `who`, shows what it says, and insists on the exit code. People are known by
    /// their bundle; `root` has none. Returns what it said.
    pub(super) fn run(&self, who: &str, line: &str, expected: i32) -> Result<String> {
        self.run_short(who, line, expected, SHOWN)
    }

    /// The same, with no more than so many lines shown.
    pub(super) fn run_short(&self, who: &str, line: &str, expected: i32, shown: usize) -> Result<String> {
        self.typed(who, line);
        let mut command = self.command(who, line)?;
        // One pipe for both streams: in the order in which a person would see them.
        let (mut reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        command
            .stdout(writer.try_clone().context("cannot make a pipe")?)
            .stderr(writer);
        let mut child = command.spawn().with_context(|| format!("cannot start {line}"))?;
        drop(command);
        let mut said = String::new();
        reader
            .read_to_string(&mut said)
            .context("cannot read what it says")?;
        let status = child.wait().context("cannot wait for it")?;

        let lines: Vec<&str> = said
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect();
        for line in lines.iter().take(shown) {
            println!("     {line}");
        }
        if shown > 0 && lines.len() > shown {
            println!("     … {} more lines", lines.len() - shown);
        }
        if status.code() != Some(expected) {
            bail!("{who}$ {line}: expected exit code {expected}, got {status}\n{said}");
        }
        if expected != 0 {
            println!("     {}", self.paint("33", &format!("exit code {expected}")));
        }
        Ok(said)
    }

    /// Runs a command unseen, insists on success and returns its standard output.
    pub(super) fn quietly(&self, who: &str, line: &str) -> Result<String> {
        let output = self
            .command(who, line)?
            .output()
            .with_context(|| format!("cannot start {line}"))?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "{who}$ {line}: {}\n{stdout}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(stdout)
    }

    /// The command of a line, for somebody.
    pub(super) fn command(&self, who: &str, line: &str) -> Result<Command> {
        let mut words = words(line).into_iter();
        let mut command = self.program(&words.next().context("no command")?);
        command.args(words);
        if who != "root" {
            command.env("REDBUTTON_BUNDLE", format!("{who}.bundle"));
        }
        Ok(command)
    }
}

/// Polls until `condition` gives something.
pub(super) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let cap = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition()? {
            return Ok(found);
        }
        if Instant::now() >= cap {
            bail!("{what}: not within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The words of a line, as a shell splits them: at blanks, but not inside single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_as_a_shell_does() {
        assert_eq!(
            words("kill-slice a_b --reason 'fork bomb' --all"),
            ["kill-slice", "a_b", "--reason", "fork bomb", "--all"]
        );
        assert_eq!(words("  x  "), ["x"]);
    }
}
