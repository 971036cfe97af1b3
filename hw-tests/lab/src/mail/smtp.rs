//! One SMTP conversation as its server (RFC 5321 with SIZE, 8BITMIME, PIPELINING). Pure: bytes in; replies, mails and
//! the wish to close out.
//!
//! ```text
//!            EHLO/HELO          MAIL             RCPT             DATA            CRLF.CRLF
//! greeting ────────────► idle ────────► sender ────────► sender ────────► data ────────────► idle
//!                          ▲───────────── RSET, EHLO ──────────┘
//! ```
//!
//! Command lines may end in a bare line feed (somebody types); within a mail only CRLF counts, so that a bare one
//! smuggles nothing.

/// The largest mail that is taken.
pub const MAIL_BOUND: usize = 1 << 20;

/// The longest command line: twice of what RFC 5321 asks for.
const LINE_BOUND: usize = 1024;

const RECIPIENTS_BOUND: usize = 100;

/// Where in a conversation a [`Fault`] strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// When the sender connects.
    Greeting,
    /// At MAIL FROM.
    Sender,
    /// At RCPT TO.
    Recipient,
    /// When the whole mail has come.
    Data,
}

/// What a server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers so at this stage: 4xx asks the sender to try again, 5xx to give up.
    Refuse(Stage, u16),
    /// Says nothing more from this stage on and leaves the connection open.
    Hang(Stage),
    /// Keeps the mail, then closes without an answer: a careful sender sends it again.
    CloseAfterData,
}

/// A mail as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Of the envelope; empty for a notice that must not be answered.
    pub from: String,
    /// Of the envelope.
    pub to: Vec<String>,
    /// In order, unfolded; what is not a header line is left out.
    pub headers: Vec<(String, String)>,
    /// After the first empty line; line ends are `\n`, invalid bytes replaced.
    pub body: String,
}

impl Mail {
    /// The first header called so, in any case of letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// What bytes of the sender lead to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) replies: Vec<u8>,
    pub(super) mails: Vec<Mail>,
    pub(super) close: bool,
}

impl Step {
    fn say(&mut self, reply: &str) {
        self.replies.extend_from_slice(reply.as_bytes());
        self.replies.extend_from_slice(b"\r\n");
    }
}

pub(super) struct Session {
    phase: Phase,
    /// What of the current line, or mail, has come. One that is too long is cut at the front.
    held: Vec<u8>,
    too_long: bool,
    greeted: bool,
    from: Option<String>,
    to: Vec<String>,
}

#[derive(PartialEq, Eq)]
enum Phase {
    Command,
    Data,
    /// Hangs or has ended: nothing is answered any more.
    Deaf,
}

impl Session {
    pub(super) fn open(fault: Option<Fault>) -> (Self, Step) {
        let mut session = Self {
            phase: Phase::Command,
            held: Vec::new(),
            too_long: false,
            greeted: false,
            from: None,
            to: Vec::new(),
        };
        let mut step = Step::default();
        if session.strikes(Stage::Greeting, fault, &mut step) {
            step.close = session.phase != Phase::Deaf;
        } else {
            step.say("220 sink.lab.invalid ESMTP");
        }
        (session, step)
    }

    /// `room`: how many more mails can be kept.
    pub(super) fn receive(&mut self, bytes: &[u8], fault: Option<Fault>, room: usize) -> Step {
        let mut step = Step::default();
        for &byte in bytes {
            if step.close || self.phase == Phase::Deaf {
                break;
            }
            self.held.push(byte);
            match self.phase {
                Phase::Data => self.data(fault, room, &mut step),
                _ if byte == b'\n' => self.line(fault, &mut step),
                _ if self.held.len() > LINE_BOUND => {
                    self.too_long = true;
                    self.held.clear();
                }
                _ => {}
            }
        }
        step
    }

    /// Whether `fault` strikes at `stage`, having done its worst.
    fn strikes(&mut self, stage: Stage, fault: Option<Fault>, step: &mut Step) -> bool {
        match fault {
            Some(Fault::Refuse(at, code)) if at == stage => step.say(&format!("{code} the lab refuses")),
            Some(Fault::Hang(at)) if at == stage => self.phase = Phase::Deaf,
            _ => return false,
        }
        true
    }

    fn line(&mut self, fault: Option<Fault>, step: &mut Step) {
        let line = std::mem::take(&mut self.held);
        if std::mem::take(&mut self.too_long) {
            return step.say("500 line too long");
        }
        let Ok(line) = str::from_utf8(&line) else {
            return step.say("500 not text");
        };
        let line = line.trim_end();
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => {
                self.reset(true);
                step.say("250-sink.lab.invalid");
                step.say(&format!("250-SIZE {MAIL_BOUND}"));
                step.say("250-8BITMIME");
                step.say("250 PIPELINING");
            }
            "HELO" => {
                self.reset(true);
                step.say("250 sink.lab.invalid");
            }
            "MAIL" => self.mail(rest, fault, step),
            "RCPT" => self.recipient(rest, fault, step),
            "DATA" if self.to.is_empty() => step.say("503 no recipients"),
            "DATA" => {
                self.phase = Phase::Data;
                step.say("354 end with a single dot");
            }
            "RSET" => {
                self.reset(self.greeted);
                step.say("250 ok");
            }
            "NOOP" => step.say("250 ok"),
            "VRFY" => step.say("252 send and see"),
            "QUIT" => {
                step.say("221 bye");
                step.close = true;
            }
            _ => step.say("500 unknown command"),
        }
    }

    fn reset(&mut self, greeted: bool) {
        self.greeted = greeted;
        self.from = None;
        self.to.clear();
    }

    fn mail(&mut self, rest: &str, fault: Option<Fault>, step: &mut Step) {
        if !self.greeted || self.from.is_some() {
            return step.say("503 not now");
        }
        let Some((from, parameters)) = path(rest, "FROM:") else {
            return step.say("501 expected FROM:<address>");
        };
        let size = parameters
            .split(' ')
            .find_map(|one| one.to_ascii_uppercase().strip_prefix("SIZE=")?.parse().ok());
        if size.is_some_and(|size: u64| size > MAIL_BOUND as u64) {
            return step.say("552 too big");
        }
        if !self.strikes(Stage::Sender, fault, step) {
            self.from = Some(from.to_owned());
            step.say("250 ok");
        }
    }

    fn recipient(&mut self, rest: &str, fault: Option<Fault>, step: &mut Step) {
        if self.from.is_none() {
            return step.say("503 not now");
        }
        if self.to.len() >= RECIPIENTS_BOUND {
            return step.say("452 too many recipients");
        }
        match path(rest, "TO:") {
            Some((to, _)) if !to.is_empty() => {
                if !self.strikes(Stage::Recipient, fault, step) {
                    self.to.push(to.to_owned());
                    step.say("250 ok");
                }
            }
            _ => step.say("501 expected TO:<address>"),
        }
    }

    fn data(&mut self, fault: Option<Fault>, room: usize, step: &mut Step) {
        let ended = match self.too_long {
            false => self.held == b".\r\n" || self.held.ends_with(b"\r\n.\r\n"),
            true => self.held.ends_with(b"\r\n.\r\n"),
        };
        if !ended {
            // Of a mail that is too big only what may be its end is kept; the bound is for the part after the cut too.
            if self.held.len() > MAIL_BOUND || (self.too_long && self.held.len() > LINE_BOUND) {
                self.too_long = true;
                self.held.drain(..self.held.len() - 5);
            }
            return;
        }
        self.phase = Phase::Command;
        let data = std::mem::take(&mut self.held);
        let (from, to) = (self.from.take().unwrap_or_default(), std::mem::take(&mut self.to));
        if std::mem::take(&mut self.too_long) {
            step.say("552 too big");
        } else if room <= step.mails.len() {
            step.say("452 no room for more mails");
        } else if !self.strikes(Stage::Data, fault, step) {
            step.mails.push(parse(from, to, &data));
            match fault {
                Some(Fault::CloseAfterData) => step.close = true,
                _ => step.say("250 kept"),
            }
        }
    }
}

/// `FROM:<address> PARAMETERS`; a space before the address is tolerated.
fn path<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let (head, tail) = rest.split_at_checked(keyword.len())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let (address, parameters) = tail.trim_start().strip_prefix('<')?.split_once('>')?;
    Some((address, parameters.trim()))
}

/// `data` ends with the line of the dot.
fn parse(from: String, to: Vec<String>, data: &[u8]) -> Mail {
    let data = data.strip_suffix(b".\r\n").unwrap_or(data);
    let text = String::from_utf8_lossy(data);
    let mut lines = text
        .split("\r\n")
        .map(|line| line.strip_prefix('.').unwrap_or(line));
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        match (
            line.starts_with([' ', '\t']),
            headers.last_mut(),
            line.split_once(':'),
        ) {
            (true, Some((_, value)), _) => {
                value.push(' ');
                value.push_str(line.trim());
            }
            (false, _, Some((name, value))) => {
                headers.push((name.trim().to_owned(), value.trim().to_owned()))
            }
            _ => {}
        }
    }
    Mail {
        from,
        to,
        headers,
        body: lines.collect::<Vec<_>>().join("\n"),
    }
}

#[cfg(test)]
mod tests;
