//! The command line. By hand: the listener carries nothing that it does not need.

use std::path::PathBuf;

use crate::config::DEFAULT_KEYS;
use crate::restart::Places;
use crate::state::DEFAULT_STATE;

/// What `--help` prints.
pub const HELP: &str = "\
redbutton-pod-listener: reboots this node on one signed ICMP packet, when nothing else works

  run       listen (the unit file does this)
  check     say what is armed and what this kernel cannot give
  undo      put back the settings of the host that run has changed
  --version

Options, each with its default:
  --keys FILE          /var/lib/redbutton/pod/keys.toml
  --state DIR          /run/redbutton/pod-listener: must be on a tmpfs, so that it goes with the boot
  --slivers CGROUP     /sys/fs/cgroup/redbutton.slice: what kill-slivers kills
  --watchdog DEVICE    /dev/watchdog: opened at the moment of a reboot
  --proc DIR           /proc
  --leave-host         change no setting of the host (softirq priorities, console level)

Exit codes: 0 armed; 1 cannot run, or check found something missing; 64 usage or configuration.
";

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Listen.
    Run,
    /// Report.
    Check,
    /// Put the host's settings back.
    Undo,
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// The command line, read.
#[derive(Debug, Clone)]
pub struct Arguments {
    /// What to do.
    pub task: Task,
    /// The keys' file.
    pub keys: PathBuf,
    /// The state directory.
    pub state: PathBuf,
    /// Where the rest is.
    pub places: Places,
    /// Prepare the process alone.
    pub leave_host: bool,
}

impl Arguments {
    /// Reads arguments, the program's name not among them.
    ///
    /// # Errors
    /// A sentence that names the argument.
    pub fn parse(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Self, String> {
        let mut read = Self {
            task: Task::Help,
            keys: DEFAULT_KEYS.into(),
            state: DEFAULT_STATE.into(),
            places: Places::default(),
            leave_host: false,
        };
        let mut task = None;
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let word = argument.to_string_lossy().into_owned();
            let mut path = || {
                let value = arguments.next().filter(|value| !value.is_empty());
                value
                    .map(PathBuf::from)
                    .ok_or_else(|| format!("{word} needs a value"))
            };
            let told = match word.as_str() {
                "run" => Some(Task::Run),
                "check" => Some(Task::Check),
                "undo" => Some(Task::Undo),
                "-h" | "--help" | "help" => Some(Task::Help),
                "-V" | "--version" => Some(Task::Version),
                "--keys" => {
                    read.keys = path()?;
                    None
                }
                "--state" => {
                    read.state = path()?;
                    None
                }
                "--slivers" => {
                    read.places.slivers = path()?;
                    None
                }
                "--watchdog" => {
                    read.places.watchdog = path()?;
                    None
                }
                "--proc" => {
                    read.places.proc_root = path()?;
                    None
                }
                "--leave-host" => {
                    read.leave_host = true;
                    None
                }
                _ => return Err(format!("{word:?} is not known; --help lists what is")),
            };
            match (told, task) {
                (Some(_), Some(_)) => return Err(format!("{word:?} is one task too many")),
                (Some(told), None) => task = Some(told),
                (None, _) => {}
            }
        }
        read.task = task.ok_or("what shall it do? run, check or undo; --help says more")?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(Into::into))
    }

    #[test]
    fn a_line_is_read_and_what_is_wrong_is_named() {
        let read = parse("run --keys /k --leave-host --state /s").expect("good");
        assert_eq!(
            (read.task, read.keys.to_str(), read.leave_host),
            (Task::Run, Some("/k"), true)
        );
        for (line, words) in [
            ("", "what shall it do?"),
            ("run check", "one task too many"),
            ("run --kyes /k", "\"--kyes\" is not known"),
            ("run --keys", "--keys needs a value"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(words), "{error}");
        }
    }
}
