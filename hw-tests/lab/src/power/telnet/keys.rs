//! What a client typed: telnet's options taken out, lines and ESC left. Takes any bytes.

/// The longest line that is remembered; what goes beyond is dropped.
pub(super) const LINE: usize = 80;

const IAC: u8 = 255;
const SB: u8 = 250;
const SE: u8 = 240;
/// WILL, WONT, DO, DONT: each with an option.
const OPTIONS: std::ops::RangeInclusive<u8> = 251..=254;

/// Something that was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// A line, without its end.
    Line(String),
    /// ESC.
    Escape,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Within {
    #[default]
    Text,
    /// After an IAC.
    Command,
    /// After WILL and the like.
    Option,
    /// Between IAC SB and IAC SE.
    Sub,
    SubCommand,
}

/// The bytes of one client so far.
#[derive(Debug, Default)]
pub(super) struct Keys {
    within: Within,
    line: Vec<u8>,
    after_return: bool,
}

impl Keys {
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Key> {
        let mut keys = Vec::new();
        for &byte in bytes {
            match self.within {
                Within::Text if byte == IAC => self.within = Within::Command,
                Within::Text => self.text(byte, &mut keys),
                Within::Command => {
                    self.within = match byte {
                        SB => Within::Sub,
                        byte if OPTIONS.contains(&byte) => Within::Option,
                        // An escaped 255 is no letter of any menu.
                        _ => Within::Text,
                    };
                }
                Within::Option => self.within = Within::Text,
                Within::Sub if byte == IAC => self.within = Within::SubCommand,
                Within::Sub => {}
                Within::SubCommand => {
                    self.within = if byte == SE { Within::Text } else { Within::Sub };
                }
            }
        }
        keys
    }

    fn text(&mut self, byte: u8, keys: &mut Vec<Key>) {
        let after_return = std::mem::take(&mut self.after_return);
        match byte {
            // CR LF and CR NUL are one end of line.
            b'\n' | 0 if after_return => {}
            b'\r' | b'\n' => {
                self.after_return = byte == b'\r';
                let line = std::mem::take(&mut self.line);
                keys.push(Key::Line(String::from_utf8_lossy(&line).into_owned()));
            }
            0x1b => {
                self.line.clear();
                keys.push(Key::Escape);
            }
            0x08 | 0x7f => {
                self.line.pop();
            }
            0x20..=0x7e if self.line.len() < LINE => self.line.push(byte),
            _ => {}
        }
    }
}
