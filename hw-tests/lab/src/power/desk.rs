//! Where the programs that a front end starts ask us: a unix socket, a line in, lines out.
//!
//! They ask with a small Perl script (Perl is in every Debian), not with a program of ours, since cargo does not
//! build the programs of a package that is only depended on.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::server::{Ending, Listener, Server, Stream};

/// The script: `ask SOCKET WORD…` for one question, `ask SOCKET -` to pass lines on in both directions.
const ASK: &str = include_str!("ask.pl");

/// A longer line ends the conversation.
const LINE: u64 = 1024;

/// One line without its end, and what is answered to it: whole lines. `None` hangs up.
pub(super) type Conversation = Box<dyn FnMut(&str) -> Option<String> + Send>;

/// A socket and the script that asks there, in a folder of the front end's own.
pub(super) struct Desk {
    script: PathBuf,
    socket: PathBuf,
    _server: Server,
}

impl Desk {
    /// `open` makes a conversation for each client. The folder must be closed to others (a `TempDir` is).
    pub(super) fn start(
        folder: &Path,
        open: impl Fn() -> Conversation + Send + Sync + 'static,
    ) -> Result<Self> {
        let script = folder.join("ask");
        write_private(&script, ASK, 0o700)?;
        let socket = folder.join("desk");
        let listener =
            UnixListener::bind(&socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
        let serve = move |stream: Stream, _: &Ending| converse(stream, open());
        Ok(Self {
            script,
            socket,
            _server: Server::start("power desk", Listener::Unix(listener), Arc::new(serve))?,
        })
    }

    /// The command that asks; what is asked is to be appended.
    pub(super) fn command(&self) -> String {
        format!("{} {}", self.script.display(), self.socket.display())
    }
}

fn converse(mut stream: Stream, mut answer: Conversation) {
    let Ok(input) = stream.try_clone() else {
        return;
    };
    let mut input = BufReader::new(input);
    loop {
        let mut line = Vec::new();
        match input.by_ref().take(LINE).read_until(b'\n', &mut line) {
            Ok(got) if got > 0 && line.ends_with(b"\n") => {}
            _ => return,
        }
        let line = String::from_utf8_lossy(&line);
        let Some(text) = answer(line.trim_end_matches(['\r', '\n'])) else {
            return;
        };
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// Writes a file that nobody else can read at any moment.
pub(super) fn write_private(path: &Path, text: &str, mode: u32) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;

    let write = || {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        // The umask may have taken bits away.
        file.set_permissions(std::fs::Permissions::from_mode(mode))
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
