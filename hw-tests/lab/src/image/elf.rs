//! The little of the ELF format that is needed to put programs and kernel modules into an image: which libraries a
//! program names, and what a kernel module says about itself (`.modinfo`). 64-bit little-endian only, which is all
//! that a lab guest runs. Bytes are not trusted: what does not fit is an error, never a panic.

use anyhow::{Context, Result, bail};

/// `DT_NEEDED` and `DT_STRTAB`'s section is found by the dynamic section's link (System V ABI, chapter 5).
const SECTION_DYNAMIC: u32 = 6;
const TAG_NEEDED: u64 = 1;

/// A section header, as far as it is used here.
struct Section<'a> {
    name: u32,
    kind: u32,
    link: u32,
    content: &'a [u8],
}

/// The names of the shared libraries that a program or library asks for; none for a static one.
///
/// # Errors
/// When it is no 64-bit little-endian ELF file, or is cut short.
pub(super) fn needed(elf: &[u8]) -> Result<Vec<String>> {
    let sections = sections(elf)?;
    let mut names = Vec::new();
    for section in sections.iter().filter(|section| section.kind == SECTION_DYNAMIC) {
        let strings = sections
            .get(section.link as usize)
            .context("no string table for the dynamic section")?;
        for pair in section.content.chunks_exact(16) {
            if number(pair, 0, 8)? == TAG_NEEDED {
                names.push(string(strings.content, number(pair, 8, 8)?)?);
            }
        }
    }
    Ok(names)
}

/// A kernel module's `key=value` facts, in the file's order.
///
/// # Errors
/// As [`needed`], and when there is no `.modinfo`.
pub(super) fn modinfo(elf: &[u8]) -> Result<Vec<(String, String)>> {
    let sections = sections(elf)?;
    let names = sections
        .get(usize::try_from(number(elf, 0x3e, 2)?)?)
        .context("no table of section names")?;
    for section in &sections {
        if string(names.content, u64::from(section.name))? == ".modinfo" {
            let text = String::from_utf8_lossy(section.content);
            let facts = text.split('\0').filter_map(|fact| fact.split_once('='));
            return Ok(facts
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect());
        }
    }
    bail!("no .modinfo section")
}

fn sections(elf: &[u8]) -> Result<Vec<Section<'_>>> {
    if elf.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("no 64-bit little-endian ELF file");
    }
    let table = number(elf, 0x28, 8)?;
    let (size, count) = (number(elf, 0x3a, 2)?, number(elf, 0x3c, 2)?);
    let mut found = Vec::new();
    for index in 0..count {
        let at = usize::try_from(
            table
                .checked_add(index * size)
                .context("section table out of range")?,
        )?;
        let header = elf
            .get(at..)
            .and_then(|rest| rest.get(..64))
            .context("section header out of range")?;
        let kind = u32::try_from(number(header, 4, 4)?)?;
        let (offset, length) = (number(header, 0x18, 8)?, number(header, 0x20, 8)?);
        // A section of kind 8 (`NOBITS`) has a length and no bytes; nothing of it is read here.
        let content = if kind == 8 {
            &[][..]
        } else {
            slice(elf, offset, length)?
        };
        let (name, link) = (
            u32::try_from(number(header, 0, 4)?)?,
            u32::try_from(number(header, 0x28, 4)?)?,
        );
        found.push(Section {
            name,
            kind,
            link,
            content,
        });
    }
    Ok(found)
}

fn slice(bytes: &[u8], offset: u64, length: u64) -> Result<&[u8]> {
    let (start, length) = (usize::try_from(offset)?, usize::try_from(length)?);
    let found = bytes.get(start..).and_then(|rest| rest.get(..length));
    found.with_context(|| format!("{length} bytes at {start} of {} are asked for", bytes.len()))
}

fn number(bytes: &[u8], offset: usize, length: usize) -> Result<u64> {
    let found = slice(bytes, offset as u64, length as u64)?;
    Ok(found
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn string(table: &[u8], offset: u64) -> Result<String> {
    let rest = table
        .get(usize::try_from(offset)?..)
        .context("string out of range")?;
    let end = rest
        .iter()
        .position(|byte| *byte == 0)
        .context("string without an end")?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_test_program_needs_the_c_library() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(needed(&own).unwrap().contains(&"libc.so.6".to_owned()));
        assert!(modinfo(&own).is_err());
    }

    #[test]
    fn text_is_no_program() {
        assert!(needed(b"#!/bin/sh\n").is_err());
        assert!(needed(b"\x7fELF\x02\x01").is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panics(tail in prop::collection::vec(any::<u8>(), 0..512)) {
            let elf = [b"\x7fELF\x02\x01".as_slice(), &tail].concat();
            let _ = needed(&elf);
            let _ = modinfo(&elf);
        }
    }
}
