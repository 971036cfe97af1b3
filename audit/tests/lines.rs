//! The file, read as if an enemy had written it.

use std::io::{self, BufRead, BufReader, Read};

use audit::lines::{Lines, MAX_LINE_BYTES};
use audit::{Fault, LinesError, verify_lines};
use proptest::prelude::*;

const FILE: &str = include_str!("golden-v1.jsonl");

fn first() -> &'static str {
    FILE.lines().next().expect("three lines")
}

fn refusal(line: &str) -> String {
    match verify_lines(line.as_bytes(), None, &[]) {
        Ok(verified) => panic!("{line:?} was accepted: {verified:?}"),
        Err(why) => why.to_string(),
    }
}

#[test]
fn the_last_newline_may_be_missing() {
    assert_eq!(
        verify_lines(FILE.trim_end().as_bytes(), None, &[])
            .expect("a chain")
            .entries,
        3
    );
    assert_eq!(
        verify_lines(&b""[..], None, &[]).expect("an empty chain").entries,
        0
    );
}

#[test]
fn whatever_is_not_an_entry_is_refused_by_line_and_name() {
    for (from, to, says) in [
        (
            "{\"sequence\"",
            "{\"extra\":1,\"sequence\"",
            "unknown field `extra`",
        ),
        (
            "{\"sequence\"",
            "{\"sequence\":1,\"sequence\"",
            "duplicate field `sequence`",
        ),
        ("\"evidence\":\"ticket 4711\",", "", "missing field `evidence`"),
        ("\"sequence\":1", "\"sequence\":-1", "invalid value"),
        ("\"sequence\":1", "\"sequence\":1.0", "invalid type"),
        (
            "\"sequence\":1",
            "\"sequence\":18446744073709551616",
            "invalid type",
        ),
        (
            "\"alice\"",
            "\"Alice\"",
            "person: person name \"Alice\" is malformed",
        ),
        ("\"alice\"", "null", "invalid type: null"),
        ("\"support\"", "\"root\"", "role \"root\" is unknown"),
        (
            "\"allowed\"",
            "\"perhaps\"",
            "outcome \"perhaps\" is unknown: expected allowed, refused, failed or done",
        ),
        ("\"allowed\"", "\"\"", "outcome \"\" is unknown"),
        ("0193f2a0-", "x193f2a0-", "order: order id"),
        ("\"5bf63f", "\"5BF63F", "hash: hash \"5BF63F"),
        ("\"hash\":\"5b", "\"hash\":\"", "hash: hash"),
        ("}", "}{}", "trailing characters"),
        ("}", "", "EOF"),
    ] {
        assert!(first().contains(from), "{from:?} is not in the line");
        let why = refusal(&first().replacen(from, to, 1));
        assert!(
            why.starts_with("audit line 1 is no entry: ") && why.contains(says),
            "{from:?} → {to:?}: {why}"
        );
    }
    for line in ["\n", "   \n", "[]", "{}", "null", "\u{feff}{}", "\0"] {
        assert!(
            refusal(line).starts_with("audit line 1 is no entry: "),
            "{line:?}"
        );
    }
    let why = refusal(&format!("{}\n\n", first()));
    assert!(why.starts_with("audit line 2 is no entry"), "{why}");
}

#[test]
fn what_the_parser_quotes_is_bounded() {
    let why = refusal(&format!("{{\"{}\":1}}", "x".repeat(50_000)));
    assert!(why.len() < 300, "{}", why.len());
}

#[test]
fn lines_are_bounded_to_the_byte() {
    let pad = |bytes: usize| format!("{}{}", first(), " ".repeat(bytes - first().len()));
    for end in ["", "\n"] {
        let fits = pad(MAX_LINE_BYTES) + end;
        assert_eq!(verify_lines(fits.as_bytes(), None, &[]).expect("fits").entries, 1);
        let long = pad(MAX_LINE_BYTES + 1) + end;
        assert!(matches!(
            verify_lines(long.as_bytes(), None, &[]),
            Err(LinesError::TooLong { line: 1 })
        ));
    }
}

#[test]
fn an_endless_line_ends_at_the_bound() {
    struct Endless {
        read: usize,
    }
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(b'x');
            self.read += buffer.len();
            Ok(buffer.len())
        }
    }
    let mut reader = BufReader::with_capacity(4096, Endless { read: 0 });
    assert!(matches!(
        verify_lines(&mut reader, None, &[]),
        Err(LinesError::TooLong { line: 1 })
    ));
    assert!(
        reader.get_ref().read <= MAX_LINE_BYTES + 2 * 4096,
        "{} bytes were read",
        reader.get_ref().read
    );
}

#[test]
fn a_reader_that_fails_is_named_and_ends_it() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("disk on fire"))
        }
    }
    let reader = BufReader::new(FILE.as_bytes().chain(Broken));
    let mut entries = Lines::new(reader);
    assert_eq!(entries.by_ref().take(3).filter(Result::is_ok).count(), 3);
    assert!(matches!(
        entries.next(),
        Some(Err(LinesError::Read { line: 4, .. }))
    ));
    assert!(entries.next().is_none());
}

#[test]
fn of_a_break_and_a_torn_line_after_it_the_break_is_reported() {
    let mut broken: Vec<&str> = FILE.lines().collect();
    broken.remove(0);
    broken.push("{\"torn");
    let why = verify_lines(broken.join("\n").as_bytes(), None, &[]).expect_err("broken");
    assert!(
        matches!(why, LinesError::Chain(Fault::Gap { missing: 1, found: 2 })),
        "{why}"
    );
}

/// Every single character of every line counts: change one digit or letter and it is found.
#[test]
fn no_character_can_be_changed() {
    for (at, was) in FILE.char_indices().filter(|(_, c)| c.is_ascii_alphanumeric()) {
        let other = match was {
            '9' => '8',
            'z' => 'y',
            'Z' => 'Y',
            c => char::from(c as u8 + 1),
        };
        let mut edited = FILE.to_owned();
        edited.replace_range(at..=at, &other.to_string());
        assert!(
            verify_lines(edited.as_bytes(), None, &[]).is_err(),
            "{was} → {other} at byte {at}"
        );
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        for entry in Lines::new(&bytes[..]) {
            let _ = entry;
        }
        let _ = verify_lines(&bytes[..], None, &[]);
    }

    /// True lines, mauled: cut out, doubled, overwritten. Either refused, or nothing of content was touched.
    #[test]
    fn mauled_files_never_pass(at in any::<prop::sample::Index>(), len in 0usize..40, put in prop::collection::vec(any::<u8>(), 0..40)) {
        let whole = FILE.as_bytes();
        let at = at.index(whole.len());
        let end = (at + len).min(whole.len());
        let mauled = [&whole[..at], &put, &whole[end..]].concat();
        if let Ok(verified) = verify_lines(&mauled[..], None, &[]) {
            let read: Result<Vec<_>, _> = Lines::new(&mauled[..]).collect();
            let truth: Result<Vec<_>, _> = Lines::new(whole).collect();
            let (read, truth) = (read.expect("verified"), truth.expect("golden"));
            prop_assert_eq!(&read[..], &truth[..read.len()]);
            prop_assert_eq!(verified.entries as usize, read.len());
        }
    }

    #[test]
    fn chunks_of_any_size_read_alike(size in 1usize..600) {
        let reader = BufReader::with_capacity(size, FILE.as_bytes());
        prop_assert!(reader.capacity() >= 1);
        prop_assert_eq!(verify_lines(reader, None, &[]).expect("a chain").entries, 3);
    }
}

/// The streaming verifier takes any `BufRead`, also a borrowed one.
#[test]
fn a_borrowed_reader_will_do() {
    let mut reader: Box<dyn BufRead> = Box::new(FILE.as_bytes());
    assert!(verify_lines(&mut *reader, None, &[]).is_ok());
}
