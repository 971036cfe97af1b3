//! The commands of RFC 2217's COM-PORT-OPTION, as the server of a line that runs at any speed. Pure.
//!
//! Settings are remembered and told, and change nothing: QEMU's line has no speed. Notices go only to a client that
//! has agreed to the option, masked as it asked (RFC 2217 3: line state 0 and modem state 255 at first).

const SIGNATURE: u8 = 0;
const SET_BAUDRATE: u8 = 1;
const SET_DATASIZE: u8 = 2;
const SET_PARITY: u8 = 3;
const SET_STOPSIZE: u8 = 4;
const SET_CONTROL: u8 = 5;
const NOTIFY_LINESTATE: u8 = 6;
const NOTIFY_MODEMSTATE: u8 = 7;
const SET_LINESTATE_MASK: u8 = 10;
const SET_MODEMSTATE_MASK: u8 = 11;
const PURGE_DATA: u8 = 12;

/// A server's command is the client's and this.
const SERVER: u8 = 100;

const OVERRUN: u8 = 0x02;
const TRANSMITTER_EMPTY: u8 = 0x60;

const CARRIER_DSR_CTS: u8 = 0x80 | 0x20 | 0x10;
const CARRIER_DSR_CTS_CHANGED: u8 = 0x08 | 0x02 | 0x01;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purge {
    /// What has come from the guest and waits.
    ToClient,
    /// What has been typed and waits: nothing does here.
    ToGuest,
}

/// What a command asks for, and the bodies of the answers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) replies: Vec<Vec<u8>>,
    pub(super) break_begins: bool,
    pub(super) purge: Option<Purge>,
}

pub(super) struct ComPort {
    agreed: bool,
    baud: u32,
    data_size: u8,
    parity: u8,
    stop_size: u8,
    /// SET-CONTROL values: flow control out, break, DTR, RTS, flow control in.
    flow_out: u8,
    breaking: u8,
    dtr: u8,
    rts: u8,
    flow_in: u8,
    line_mask: u8,
    modem_mask: u8,
    guest: bool,
}

impl Default for ComPort {
    fn default() -> Self {
        Self {
            agreed: false,
            baud: 115_200,
            data_size: 8,
            parity: 1,
            stop_size: 1,
            flow_out: 1,
            breaking: 6,
            dtr: 8,
            rts: 11,
            flow_in: 14,
            line_mask: 0,
            modem_mask: 255,
            guest: false,
        }
    }
}

impl ComPort {
    /// What to tell when the option has been agreed for the first time.
    pub(super) fn agreed(&mut self) -> Option<Vec<Vec<u8>>> {
        let first = !std::mem::replace(&mut self.agreed, true);
        first.then(|| self.modem_state(0).into_iter().collect())
    }

    /// `command` is a sub-negotiation without the option's number.
    pub(super) fn receive(&mut self, command: &[u8]) -> Answer {
        let mut answer = Answer::default();
        let Some((&code, value)) = command.split_first() else {
            return answer;
        };
        let reply = |value: &[u8]| [&[SERVER + code], value].concat();
        match (code, value) {
            // A client that tells its own is not asking.
            (SIGNATURE, []) => answer.replies.push(reply(b"lab")),
            (SET_BAUDRATE, &[a, b, c, d]) => {
                // 0 asks, as for all settings.
                match u32::from_be_bytes([a, b, c, d]) {
                    0 => {}
                    baud => self.baud = baud,
                }
                answer.replies.push(reply(&self.baud.to_be_bytes()));
            }
            (SET_DATASIZE, &[size]) => answer
                .replies
                .push(reply(&[set(&mut self.data_size, size, 5..=8)])),
            (SET_PARITY, &[parity]) => answer
                .replies
                .push(reply(&[set(&mut self.parity, parity, 1..=5)])),
            (SET_STOPSIZE, &[size]) => answer
                .replies
                .push(reply(&[set(&mut self.stop_size, size, 1..=3)])),
            (SET_CONTROL, &[control]) => {
                answer.break_begins = control == 5;
                if let Some(value) = self.control(control) {
                    answer.replies.push(reply(&[value]));
                }
            }
            (SET_LINESTATE_MASK, &[mask]) => {
                self.line_mask = mask;
                answer.replies.push(reply(&[mask]));
                answer.replies.extend(self.line_state(TRANSMITTER_EMPTY));
            }
            (SET_MODEMSTATE_MASK, &[mask]) => {
                self.modem_mask = mask;
                answer.replies.push(reply(&[mask]));
                answer.replies.extend(self.modem_state(0));
            }
            (PURGE_DATA, &[which @ 1..=3]) => {
                answer.purge = Some(if which == 2 {
                    Purge::ToGuest
                } else {
                    Purge::ToClient
                });
                answer.replies.push(reply(&[which]));
            }
            // Flow control by command (8, 9) and what we do not know: no answer.
            _ => {}
        }
        answer
    }

    fn control(&mut self, control: u8) -> Option<u8> {
        let (kept, asks) = match control {
            0..=3 | 17 | 19 => (&mut self.flow_out, 0),
            4..=6 => (&mut self.breaking, 4),
            7..=9 => (&mut self.dtr, 7),
            10..=12 => (&mut self.rts, 10),
            13..=16 | 18 => (&mut self.flow_in, 13),
            _ => return None,
        };
        if control != asks {
            *kept = control;
        }
        Some(*kept)
    }

    /// Notices for what happened since the last call.
    pub(super) fn line(&mut self, guest: bool, lost: bool) -> Vec<Vec<u8>> {
        let changed = std::mem::replace(&mut self.guest, guest) != guest;
        if !self.agreed {
            return Vec::new();
        }
        let modem = changed
            .then(|| self.modem_state(CARRIER_DSR_CTS_CHANGED))
            .flatten();
        let line = lost
            .then(|| self.line_state(TRANSMITTER_EMPTY | OVERRUN))
            .flatten();
        modem.into_iter().chain(line).collect()
    }

    fn modem_state(&self, changed: u8) -> Option<Vec<u8>> {
        let state = if self.guest { CARRIER_DSR_CTS } else { 0 } | changed;
        (self.modem_mask != 0).then(|| vec![SERVER + NOTIFY_MODEMSTATE, state & self.modem_mask])
    }

    fn line_state(&self, state: u8) -> Option<Vec<u8>> {
        (state & self.line_mask != 0).then(|| vec![SERVER + NOTIFY_LINESTATE, state & self.line_mask])
    }
}

/// A setting that is in range is taken; what then holds.
fn set(kept: &mut u8, wanted: u8, range: std::ops::RangeInclusive<u8>) -> u8 {
    if range.contains(&wanted) {
        *kept = wanted;
    }
    *kept
}
