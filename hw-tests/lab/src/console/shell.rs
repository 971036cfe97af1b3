//! Commands on a console that has a root shell (busybox ash, dash or bash; with or without echo and prompts).
//!
//! ```text
//! typed:   _c='uname '            the command, quoted, in short lines: a line editor cuts long ones
//!          _c=$_c'-r'
//!          printf B; command eval "$_c" </dev/null; printf E $?
//! seen:    echo of all that, prompts …
//!          LABtagB.  LABtagB.  LABtagB.      three copies: a kernel message may fall into the middle of one
//!          6.1.0-cloud-amd64
//!          LABtagE0. LABtagE0. LABtagE0.
//! ```
//!
//! - `LAB` and the tag stand apart in what is typed, so its echo is never taken for a marker.
//! - Markers and command are on one line, so that the echo of the end does not fall into the output.
//! - `command eval` runs in the shell itself: `cd` stays, nothing is forked that the command does not fork (it works on
//!   a node that can fork no more), and a syntax error does not take the end marker with it, as plain `eval` would.
//! - The command reads /dev/null: it must not eat what is typed after it.
//!
//! What it does not do: log in; survive a command that ends the shell (`exit`: write `(exit 3)`); keep apart output and
//! kernel messages, which are extra lines in the text.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::hub::{Console, Hub, Offset};
use super::text;

/// The longest command; more belongs into a file.
const COMMAND_BOUND: usize = 16 << 10;

/// How much of an output is handed out: its end.
const OUTPUT_BOUND: usize = 256 << 10;

/// The longest line that is typed, without its quotes: busybox edits up to 1024.
const TYPED_BOUND: usize = 400;

/// How often a marker is printed.
const COPIES: usize = 3;

/// A root shell at the other end of a console.
pub struct Shell {
    hub: Arc<Hub>,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// As the shell counts: 128 and the signal for one that was killed.
    pub status: i32,
    /// What it printed, standard error too, safe to print; there may be lines of the kernel in it.
    pub text: String,
    /// How many bytes before `text` are left out (it is bounded to 256 KiB).
    pub cut: u64,
}

impl Shell {
    /// Types nothing yet. The shell must be there when [`Self::run`] is called, or come within its cap.
    #[must_use]
    pub fn new(console: &Console) -> Self {
        Self {
            hub: Arc::clone(console.hub()),
        }
    }

    /// Runs `command`, which may have several lines, and waits for its end.
    ///
    /// # Errors
    /// If it does not end within `cap` (the error shows the last 50 lines; a Ctrl-C is typed), if the console is not
    /// connected, if the command is too long or holds control characters.
    pub fn run(&self, command: &str, cap: Duration) -> Result<Output> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let tag = format!("{:x}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let typed = typed(command, &tag)?;
        let _running = self.hub.one_command();
        let since = Offset(self.hub.end());
        let outcome = self
            .hub
            .write(typed.as_bytes())
            .and_then(|()| self.collect(since, &tag, cap));
        if outcome.is_err() {
            self.hub.offer(b"\x03");
        }
        outcome.with_context(|| format!("run {command:?}"))
    }

    /// Runs `command`, which must succeed; its output.
    ///
    /// # Errors
    /// As [`Self::run`], and if the status is not 0: with the output.
    pub fn check(&self, command: &str, cap: Duration) -> Result<String> {
        let Output { status, text, .. } = self.run(command, cap)?;
        if status != 0 {
            bail!("run {command:?}: expected status 0, got {status}; it said:\n{text}");
        }
        Ok(text)
    }

    fn collect(&self, since: Offset, tag: &str, cap: Duration) -> Result<Output> {
        let deadline = Instant::now() + cap;
        let left = || deadline.saturating_duration_since(Instant::now());
        let (begin, end) = (format!("LAB{tag}B."), format!("LAB{tag}E"));
        let (which, line) = self
            .hub
            .wait_any(since, &[&begin, &end], cap)
            .context("no shell answered")?;
        // An end without a begin: all copies of that were broken, the output starts somewhere behind the echo.
        let (from, mut next) = if which == 0 {
            (line.end, line.end)
        } else {
            (since, line.at)
        };
        loop {
            let (_, line) = self
                .hub
                .wait_any(next, &[&end], left())
                .context("the command did not end")?;
            let (_, stop) = self
                .hub
                .wait_any(line.end, &["."], left())
                .context("the end is broken")?;
            let digits = self
                .hub
                .chunk_since(line.end.0, usize::try_from(stop.at.0 - line.end.0)?);
            if let Some(status) = std::str::from_utf8(&digits.bytes)
                .ok()
                .and_then(|text| text.parse().ok())
            {
                let most = usize::try_from(line.at.0.saturating_sub(from.0))?;
                let whole = self.hub.chunk_since(from.0, most);
                // What is gone at the front shifts the cut at the back.
                let there = most
                    .saturating_sub(usize::try_from(whole.lost)?)
                    .min(whole.bytes.len());
                let start = there.saturating_sub(OUTPUT_BOUND);
                let text = output_text(&whole.bytes[start..there], tag);
                return Ok(Output {
                    status,
                    text,
                    cut: whole.lost + start as u64,
                });
            }
            next = line.end;
        }
    }
}

/// What is typed to run `command` between markers with `tag`.
fn typed(command: &str, tag: &str) -> Result<String> {
    if command.len() > COMMAND_BOUND {
        bail!(
            "a command of {} bytes, at most {COMMAND_BOUND} can be typed",
            command.len()
        );
    }
    // A tab completes, others edit, interrupt or end the shell.
    if let Some(c) = command.chars().find(|c| c.is_control() && *c != '\n') {
        bail!("a command with the control character {c:?} cannot be typed: {command:?}");
    }
    // The first line end clears what may stand at the prompt.
    let mut out = String::from("\n_c=''\n_c=$_c'");
    let mut line = 0;
    for c in command.chars() {
        let quoted = if c == '\'' { 4 } else { c.len_utf8() };
        if line + quoted > TYPED_BOUND {
            out.push_str("'\n_c=$_c'");
            line = 0;
        }
        match c {
            '\'' => out.push_str("'\\''"),
            c => out.push(c),
        }
        line = if c == '\n' { 0 } else { line + quoted };
    }
    out.push_str("'\n");
    let begin = "%s%s.\\n".repeat(COPIES);
    let end = "%s%s%s.\\n".repeat(COPIES);
    let begins = format!(" LAB {tag}B").repeat(COPIES);
    let ends = format!(" LAB {tag}E $?").repeat(COPIES);
    out.push_str(&format!(
        "printf '\\n{begin}'{begins}; command eval \"$_c\" </dev/null; printf '\\n{end}'{ends}\n"
    ));
    Ok(out)
}

/// What stands between the first begin marker and the end marker, without the rest of their lines and copies.
fn output_text(between: &[u8], tag: &str) -> String {
    let text = text::safe(between);
    let lines: Vec<_> = text
        .split('\n')
        .skip(1)
        .filter(|line| !line.contains(tag))
        .collect();
    // The last line end is that before the end marker.
    let text = lines.join("\n");
    text.strip_suffix('\n').unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests;
