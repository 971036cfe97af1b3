//! A passphrase: from a file or from the terminal, never from the command line.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::KitError;
use crate::args::Global;

/// Shortest that seals a new kit, characters.
const SHORTEST: usize = 12;
/// Longest line that is read.
const LONGEST: u64 = 4 << 10;

/// A passphrase. Prints nothing of itself.
pub(crate) struct Passphrase(Zeroizing<String>);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("(secret)")
    }
}

impl Passphrase {
    #[cfg(test)]
    pub(crate) fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// For the key derivation alone.
    pub(super) fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// From the file that was named, else from the terminal.
    ///
    /// # Errors
    /// When the file cannot be read, or there is no terminal.
    pub(crate) fn of(global: &Global, question: &str) -> Result<Self, KitError> {
        match &global.passphrase_file {
            Some(path) => from_file(path),
            None => ask(question),
        }
    }

    /// For a new kit: long enough, and typed twice.
    ///
    /// # Errors
    /// As [`Passphrase::of`]; when it is too short, or not the same twice.
    pub(crate) fn new_one(global: &Global) -> Result<Self, KitError> {
        let passphrase = Self::of(global, "new passphrase of the kit: ")?;
        if passphrase.0.chars().count() < SHORTEST {
            return Err(KitError::Passphrase(format!(
                "the passphrase has fewer than {SHORTEST} characters"
            )));
        }
        if global.passphrase_file.is_none() && *ask("again: ")?.0 != *passphrase.0 {
            return Err(KitError::Passphrase("the passphrases are not the same".into()));
        }
        Ok(passphrase)
    }
}

/// The first line of a file, without its end.
fn from_file(path: &Path) -> Result<Passphrase, KitError> {
    let failed = |e: io::Error| KitError::Passphrase(format!("passphrase file {}: {e}", path.display()));
    let file = fs::File::open(path).map_err(failed)?;
    line(file).map_err(failed)
}

fn line(from: impl io::Read) -> io::Result<Passphrase> {
    let mut text = Zeroizing::new(String::new());
    BufReader::new(from.take(LONGEST)).read_line(&mut text)?;
    let length = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(length);
    if text.is_empty() {
        return Err(io::Error::other("it is empty"));
    }
    Ok(Passphrase(text))
}

/// The terminal shows what is typed again when this is dropped.
struct Silent<'a> {
    terminal: &'a fs::File,
    before: Termios,
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal.as_fd(), SetArg::TCSAFLUSH, &self.before);
    }
}

fn ask(question: &str) -> Result<Passphrase, KitError> {
    let failed = |e: io::Error| KitError::Passphrase(format!("no passphrase: the terminal: {e}"));
    let mut terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(failed)?;
    let before = tcgetattr(terminal.as_fd()).map_err(|e| failed(e.into()))?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    terminal.write_all(question.as_bytes()).map_err(failed)?;
    let shown = terminal.try_clone().map_err(failed)?;
    let passphrase = {
        let _silent = Silent {
            terminal: &shown,
            before,
        };
        tcsetattr(shown.as_fd(), SetArg::TCSAFLUSH, &silent).map_err(|e| failed(e.into()))?;
        line(&terminal).map_err(failed)
    };
    let _ = terminal.write_all(b"\n");
    passphrase
}
