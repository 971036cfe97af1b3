//! What a file is, read from its bytes. It is never run here: whoever uploads a program must not run it on the
//! controller's machine.

use std::io::{self, Read};

/// Every program of ours has this in it once, then its name, a space, its version and a NUL or a line's end.
const MARK: &[u8] = b"redbutton-software=";
/// Longest name and version together.
const MAX_WORDS: usize = 128;
const PIECE: usize = 256 << 10;

/// What a program says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// `redbutton-nodemgr`.
    pub name: String,
    /// `0.2.0`.
    pub version: String,
    /// As `uname -m` says it; empty: any (a script).
    pub architecture: String,
}

/// Why a file is no program of ours.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The disk.
    #[error("the program cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Neither ELF nor a script.
    #[error("the file is no program: neither ELF nor a script")]
    Kind,
    /// A machine that nobody has.
    #[error("the program is for ELF machine {0}, known are x86_64 (62), aarch64 (183), riscv64 (243)")]
    Machine(u16),
    /// Somebody else's.
    #[error("the file is no program of Redbutton: it does not say its name and version")]
    NoMark,
    /// It contradicts itself.
    #[error("the program says two things of itself: {0:?} and {1:?}")]
    TwoMarks(String, String),
}

fn architecture(head: &[u8]) -> Result<String, InspectError> {
    if head.starts_with(b"#!") {
        return Ok(String::new());
    }
    let (Some(b"\x7fELF"), Some(order), Some(&[a, b])) = (
        head.get(..4),
        head.get(5),
        head.get(18..20).and_then(|two| <&[u8; 2]>::try_from(two).ok()),
    ) else {
        return Err(InspectError::Kind);
    };
    let machine = match order {
        1 => u16::from_le_bytes([a, b]),
        2 => u16::from_be_bytes([a, b]),
        _ => return Err(InspectError::Kind),
    };
    let known = match machine {
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        other => return Err(InspectError::Machine(other)),
    };
    Ok(known.to_owned())
}

/// `redbutton-nodemgr 0.2.0`, if that is what stands there.
fn words(after: &[u8]) -> Option<(String, String)> {
    let end = after
        .iter()
        .take(MAX_WORDS)
        .position(|b| matches!(b, 0 | b'\n'))?;
    let (name, version) = std::str::from_utf8(&after[..end]).ok()?.split_once(' ')?;
    let plain = |text: &str, more: &[u8]| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || more.contains(&b))
    };
    let good = plain(name, b"-") && version.len() <= 64 && plain(version, b"+-._~ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    good.then(|| (name.to_owned(), version.to_owned()))
}

/// Reads a program to its end.
///
/// # Errors
/// When it is none of ours.
pub fn inspect(mut file: impl Read) -> Result<Inspected, InspectError> {
    let mut found: Option<(String, String)> = None;
    let mut kind = None;
    let mut piece: Vec<u8> = Vec::with_capacity(2 * PIECE);
    loop {
        let had = piece.len();
        file.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
        let ended = piece.len() == had;
        if kind.is_none() {
            kind = Some(architecture(&piece)?);
        }
        // A mark near the end of a piece may go on in the next: it is looked at then.
        let overlap = MARK.len() + MAX_WORDS;
        let until = if ended {
            piece.len()
        } else {
            piece.len().saturating_sub(overlap)
        };
        for at in 0..until {
            if piece[at] != MARK[0] || !piece[at..].starts_with(MARK) {
                continue;
            }
            let Some(said) = words(&piece[at + MARK.len()..]) else {
                continue;
            };
            match &found {
                Some(before) if *before != said => {
                    let text = |(name, version): &(String, String)| format!("{name} {version}");
                    return Err(InspectError::TwoMarks(text(before), text(&said)));
                }
                _ => found = Some(said),
            }
        }
        piece.drain(..until);
        if ended {
            break;
        }
    }
    let (name, version) = found.ok_or(InspectError::NoMark)?;
    Ok(Inspected {
        name,
        version,
        architecture: kind.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn elf(machine: u16) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes
    }

    #[test]
    fn a_program_says_who_it_is_wherever_the_mark_lies() {
        for before in [0, 1, PIECE - 70, PIECE - 64, PIECE - 1, PIECE, 3 * PIECE - 100] {
            let mut bytes = elf(183);
            bytes.resize(64 + before, b'r');
            bytes.extend(b"\0redbutton-software=redbutton-nodemgr 0.2.0-rc.1\0 and more");
            let inspected = inspect(&*bytes).expect("a program");
            assert_eq!(
                (&*inspected.name, &*inspected.version, &*inspected.architecture),
                ("redbutton-nodemgr", "0.2.0-rc.1", "aarch64")
            );
        }
        let script = b"#!/bin/sh\n# redbutton-software=redbutton-nodemgr 0.2.0\nexit 0\n";
        assert_eq!(inspect(&script[..]).expect("a script").architecture, "");
    }

    #[test]
    fn what_is_none_of_ours_is_refused_for_its_reason() {
        assert!(matches!(inspect(&b""[..]), Err(InspectError::Kind)));
        assert!(matches!(inspect(&b"PK\x03\x04"[..]), Err(InspectError::Kind)));
        assert!(matches!(inspect(&*elf(40)), Err(InspectError::Machine(40))));
        assert!(matches!(inspect(&*elf(62)), Err(InspectError::NoMark)));
        let two = b"#!/bin/sh\n# redbutton-software=a 1\n# redbutton-software=a 2\n";
        assert!(matches!(inspect(&two[..]), Err(InspectError::TwoMarks(..))));
        let odd = b"#!/bin/sh\n# redbutton-software=a/../b 1\n";
        assert!(matches!(inspect(&odd[..]), Err(InspectError::NoMark)));
    }

    proptest! {
        #[test]
        fn inspect_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), elf_like: bool) {
            let mut all = if elf_like { elf(62) } else { Vec::new() };
            all.extend(bytes);
            all.extend(b"redbutton-software=");
            drop(inspect(&*all));
        }
    }
}
