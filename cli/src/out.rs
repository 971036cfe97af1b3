//! The only place that writes. Results go to stdout, progress and messages to stderr; nothing that a terminal
//! would obey gets through, wherever the text came from.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::Failure;
use crate::text;

/// How wide tables are when nobody can tell.
const WIDTH: u16 = 80;

/// How to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    /// JSON instead of text.
    pub(crate) json: bool,
    /// Results only.
    pub(crate) quiet: bool,
}

impl Out {
    /// The result: the view as one JSON document, or its text.
    pub(crate) fn result<T: Serialize>(
        &self,
        view: &T,
        text: impl FnOnce(u16) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            self.json_line(view)
        } else {
            write(io::stdout(), &text::page(&text(width())))
        }
    }

    /// One JSON document on one line.
    pub(crate) fn json_line<T: Serialize>(&self, view: &T) -> Result<(), Failure> {
        let json = serde_json::to_string(view).map_err(|error| Failure::Output(error.into()))?;
        write(io::stdout(), &(text::json(&json) + "\n"))
    }

    /// JSON that somebody else has formed, one document on one line.
    pub(crate) fn formed_json(&self, json: &str) -> Result<(), Failure> {
        write(io::stdout(), &text::json(json))
    }

    /// One line of a result that comes piece by piece.
    pub(crate) fn text_line(&self, line: &str) -> Result<(), Failure> {
        write(io::stdout(), &(text::page(line) + "\n"))
    }

    /// A message beside the result; not with `--quiet`.
    pub(crate) fn note(&self, line: &str) {
        if !self.quiet {
            self.warn(line);
        }
    }

    /// A message that nothing silences. A stderr that is gone is no reason to stop.
    pub(crate) fn warn(&self, line: &str) {
        let _ = write(io::stderr(), &(text::line(line, 1_000) + "\n"));
    }

    /// A failure: on stderr, or with `--json` as the document on stdout.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.json {
            // Nobody is left to tell when this fails.
            let _ = self.json_line(&failure.document());
        } else {
            let _ = write(io::stderr(), &text::page(&crate::failure::to_text(failure)));
        }
    }

    /// Asks for one line on the terminal; `None` when nobody can be asked.
    pub(crate) fn ask(&self, question: &str) -> Option<String> {
        if !io::stdin().is_terminal() {
            return None;
        }
        write(io::stderr(), question).ok()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).ok()?;
        Some(answer)
    }
}

/// Columns of the terminal at stdout, within bounds.
fn width() -> u16 {
    comfy_table::Table::new().width().unwrap_or(WIDTH).clamp(60, 200)
}

/// A reader that has seen enough (`| head`) closes the pipe: that is no failure.
fn write(mut to: impl Write, text: &str) -> Result<(), Failure> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Failure::Output),
    }
}
