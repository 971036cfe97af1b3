//! What is shown while nodes answer: a bar on a terminal, otherwise a line whenever the counts change, at most
//! one a second. Always on stderr.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::out::Out;
use crate::render::order as text;
use crate::view::order::Order;

/// Shows how far an order is.
pub(crate) enum Progress {
    /// Nothing is shown.
    Hidden,
    /// A terminal.
    Bar(ProgressBar),
    /// A file or a pipe.
    Lines(Out, Pacer),
}

impl Progress {
    /// What suits stderr.
    pub(crate) fn new(out: Out) -> Self {
        if out.quiet {
            Progress::Hidden
        } else if io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
            let style = ProgressStyle::with_template("{wide_bar} {msg} {elapsed}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            Progress::Bar(bar)
        } else {
            Progress::Lines(out, Pacer::new(Duration::from_secs(1)))
        }
    }

    /// The order stands like this now.
    pub(crate) fn show(&mut self, order: &Order, now: Instant) {
        match self {
            Progress::Hidden => {}
            Progress::Bar(bar) => {
                bar.set_length(u64::from(order.counts.nodes));
                bar.set_position(order.counts.done());
                bar.set_message(text::progress(order));
            }
            Progress::Lines(out, pacer) => {
                if let Some(line) = pacer.offer(text::progress(order), now) {
                    out.note(&line);
                }
            }
        }
    }

    /// Time has passed: a line that was held back may be due.
    pub(crate) fn tick(&mut self, now: Instant) {
        match self {
            Progress::Hidden => {}
            Progress::Bar(bar) => bar.tick(),
            Progress::Lines(out, pacer) => {
                if let Some(line) = pacer.due(now) {
                    out.note(&line);
                }
            }
        }
    }

    /// A message between two states.
    pub(crate) fn say(&self, out: Out, message: &str) {
        match self {
            Progress::Bar(bar) => bar.suspend(|| out.note(message)),
            _ => out.note(message),
        }
    }

    /// Leaves nothing behind on a terminal.
    pub(crate) fn finish(self) {
        match self {
            Progress::Hidden | Progress::Lines(..) => {}
            Progress::Bar(bar) => bar.finish_and_clear(),
        }
    }
}

/// Lets a changed line through at most once in a while. Pure: time is an argument.
#[derive(Debug)]
pub(crate) struct Pacer {
    every: Duration,
    last: Option<(Instant, String)>,
    held: Option<String>,
}

impl Pacer {
    /// At most one line in this time.
    pub(crate) const fn new(every: Duration) -> Self {
        Self {
            every,
            last: None,
            held: None,
        }
    }

    /// A line to show; returned if it may be shown now, held back otherwise.
    pub(crate) fn offer(&mut self, line: String, now: Instant) -> Option<String> {
        let same = self.last.as_ref().is_some_and(|(_, shown)| *shown == line);
        self.held = if same { None } else { Some(line) };
        self.due(now)
    }

    /// The line that was held back, once its time has come.
    pub(crate) fn due(&mut self, now: Instant) -> Option<String> {
        if self
            .last
            .as_ref()
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) < self.every)
        {
            return None;
        }
        let line = self.held.take()?;
        self.last = Some((now, line.clone()));
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_at_each_change_at_most_one_a_second() {
        let mut pacer = Pacer::new(Duration::from_secs(1));
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(pacer.offer("1".into(), at(0)).as_deref(), Some("1"));
        assert_eq!(pacer.offer("2".into(), at(10)), None);
        assert_eq!(pacer.offer("3".into(), at(20)), None);
        assert_eq!(pacer.due(at(999)), None);
        assert_eq!(pacer.due(at(1_000)).as_deref(), Some("3"));
        assert_eq!(pacer.due(at(9_000)), None, "nothing changed");
        assert_eq!(pacer.offer("3".into(), at(9_001)), None, "nothing changed");
        assert_eq!(pacer.offer("4".into(), at(9_002)).as_deref(), Some("4"));
        assert_eq!(pacer.offer("5".into(), at(9_003)), None);
        assert_eq!(
            pacer.offer("4".into(), at(9_004)),
            None,
            "back to what is shown: nothing is held"
        );
        assert_eq!(pacer.due(at(20_000)), None);
    }
}
