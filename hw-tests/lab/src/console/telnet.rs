//! Telnet as a console server speaks it: RFC 854 with the options BINARY (856), ECHO (857), SUPPRESS GO AHEAD (858) and
//! COM-PORT (2217). Pure: bytes in, bytes and events out.
//!
//! Each option has two sides, each on or off. A request that changes nothing is not answered (else two servers would
//! answer each other for ever), one for an option we do not have is refused. We offer ECHO and SUPPRESS GO AHEAD, so
//! that a person's client sends each key and leaves the echo to the guest.
//!
//! What it does not do: no line mode, no terminal type, no urgent data; a data mark is ignored like other commands.

use super::com_port::{ComPort, Purge};

const IAC: u8 = 255;
const SB: u8 = 250;
const SE: u8 = 240;
const BREAK: u8 = 243;
const ARE_YOU_THERE: u8 = 246;
const WILL: u8 = 251;
const WONT: u8 = 252;
const DO: u8 = 253;
const DONT: u8 = 254;

const BINARY: u8 = 0;
const ECHO: u8 = 1;
const SUPPRESS_GO_AHEAD: u8 = 3;
const COM_PORT: u8 = 44;

/// The longest sub-negotiation that is kept; COM-PORT needs 6 bytes, or a signature's text.
const SUB_BOUND: usize = 64;

/// One client's side of the conversation.
pub(super) struct Telnet {
    state: State,
    sub: Vec<u8>,
    /// What we do, and what the client does.
    ours: Side,
    theirs: Side,
    after_cr_in: bool,
    after_cr_out: bool,
    port: ComPort,
}

/// The options of one side.
#[derive(Default)]
struct Side {
    on: Vec<u8>,
    /// Proposed by us and not answered yet: the answer is not to be answered.
    asked: Vec<u8>,
}

#[derive(Clone, Copy)]
enum State {
    Data,
    Iac,
    Option(u8),
    Sub,
    SubIac,
}

/// What a client's bytes meant.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// For the guest.
    pub(super) data: Vec<u8>,
    /// For the client, already encoded.
    pub(super) reply: Vec<u8>,
    /// How many breaks begin.
    pub(super) breaks: usize,
    /// Whether what waits for the client is to be thrown away.
    pub(super) purge: bool,
}

impl Telnet {
    /// And what to send first.
    pub(super) fn new() -> (Self, Vec<u8>) {
        let telnet = Self {
            state: State::Data,
            sub: Vec::new(),
            ours: Side {
                on: Vec::new(),
                asked: vec![ECHO, SUPPRESS_GO_AHEAD],
            },
            theirs: Side::default(),
            after_cr_in: false,
            after_cr_out: false,
            port: ComPort::default(),
        };
        (telnet, vec![IAC, WILL, ECHO, IAC, WILL, SUPPRESS_GO_AHEAD])
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) -> Received {
        let mut out = Received::default();
        for &byte in bytes {
            self.state = match self.state {
                State::Data if byte == IAC => State::Iac,
                State::Data => {
                    self.data(byte, &mut out);
                    State::Data
                }
                State::Iac => match byte {
                    IAC => {
                        self.data(IAC, &mut out);
                        State::Data
                    }
                    WILL | WONT | DO | DONT => State::Option(byte),
                    SB => {
                        self.sub.clear();
                        State::Sub
                    }
                    BREAK => {
                        out.breaks += 1;
                        State::Data
                    }
                    ARE_YOU_THERE => {
                        out.reply.extend(b"\r\n[console is here]\r\n");
                        State::Data
                    }
                    _ => State::Data,
                },
                State::Option(verb) => {
                    self.negotiate(verb, byte, &mut out.reply);
                    State::Data
                }
                State::Sub if byte == IAC => State::SubIac,
                State::Sub => {
                    self.keep_sub(byte);
                    State::Sub
                }
                State::SubIac => match byte {
                    IAC => {
                        self.keep_sub(IAC);
                        State::Sub
                    }
                    SE => {
                        self.sub_ended(&mut out);
                        State::Data
                    }
                    // Broken: what follows is taken as data again.
                    _ => State::Data,
                },
            };
        }
        out
    }

    /// A carriage return of a client in text mode comes with a NUL or a line feed; a serial line wants it alone.
    fn data(&mut self, byte: u8, out: &mut Received) {
        let after_cr = std::mem::replace(&mut self.after_cr_in, byte == b'\r');
        if after_cr && matches!(byte, 0 | b'\n') && !self.theirs.on.contains(&BINARY) {
            return;
        }
        out.data.push(byte);
    }

    fn keep_sub(&mut self, byte: u8) {
        // One more than allowed is kept, to know that it was too long.
        if self.sub.len() <= SUB_BOUND {
            self.sub.push(byte);
        }
    }

    fn negotiate(&mut self, verb: u8, option: u8, reply: &mut Vec<u8>) {
        let (side, yes, no, known) = match verb {
            DO | DONT => (
                &mut self.ours,
                WILL,
                WONT,
                [BINARY, ECHO, SUPPRESS_GO_AHEAD, COM_PORT].as_slice(),
            ),
            _ => (
                &mut self.theirs,
                DO,
                DONT,
                [BINARY, SUPPRESS_GO_AHEAD, COM_PORT].as_slice(),
            ),
        };
        let on = side.on.contains(&option);
        let asked = side.asked.contains(&option);
        side.asked.retain(|other| *other != option);
        match (matches!(verb, WILL | DO), on) {
            (true, false) if asked => side.on.push(option),
            (true, false) if known.contains(&option) => {
                side.on.push(option);
                reply.extend([IAC, yes, option]);
            }
            (true, false) => reply.extend([IAC, no, option]),
            (false, true) => {
                side.on.retain(|other| *other != option);
                reply.extend([IAC, no, option]);
            }
            (true, true) | (false, false) => {}
        }
        if self.has_com_port() {
            self.com_port_agreed(reply);
        }
    }

    /// A client announces COM-PORT (WILL); that one asks us to do it is tolerated.
    fn has_com_port(&self) -> bool {
        self.ours.on.contains(&COM_PORT) || self.theirs.on.contains(&COM_PORT)
    }

    /// Who has a serial line wants it as it is: binary both ways. Clients expect the server to propose that, and to
    /// tell the modem state without being asked (pyserial fails else).
    fn com_port_agreed(&mut self, reply: &mut Vec<u8>) {
        let Some(notices) = self.port.agreed() else { return };
        for (side, verb) in [(&mut self.ours, WILL), (&mut self.theirs, DO)] {
            if !side.on.contains(&BINARY) {
                side.asked.push(BINARY);
                reply.extend([IAC, verb, BINARY]);
            }
        }
        for notice in notices {
            sub_negotiation(&notice, reply);
        }
    }

    fn sub_ended(&mut self, out: &mut Received) {
        let sub = std::mem::take(&mut self.sub);
        let Some((&COM_PORT, command)) = sub.split_first() else {
            return;
        };
        if sub.len() > SUB_BOUND || !self.has_com_port() {
            return;
        }
        let answer = self.port.receive(command);
        out.breaks += usize::from(answer.break_begins);
        out.purge |= answer.purge == Some(Purge::ToClient);
        for reply in answer.replies {
            sub_negotiation(&reply, &mut out.reply);
        }
    }

    /// `bytes` of the guest as they go to the client.
    pub(super) fn encode(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let text = !self.ours.on.contains(&BINARY);
        for &byte in bytes {
            if std::mem::replace(&mut self.after_cr_out, byte == b'\r') && text && byte != b'\n' {
                out.push(0);
            }
            out.push(byte);
            if byte == IAC {
                out.push(IAC);
            }
        }
    }

    /// What to tell the client when the line changed: whether there is a guest (modem state: carrier), and whether
    /// bytes were lost (line state: overrun).
    pub(super) fn line(&mut self, guest: bool, lost: bool, out: &mut Vec<u8>) {
        for notice in self.port.line(guest, lost) {
            sub_negotiation(&notice, out);
        }
    }
}

fn sub_negotiation(body: &[u8], out: &mut Vec<u8>) {
    out.extend([IAC, SB, COM_PORT]);
    for &byte in body {
        out.push(byte);
        if byte == IAC {
            out.push(IAC);
        }
    }
    out.extend([IAC, SE]);
}

#[cfg(test)]
mod tests;
