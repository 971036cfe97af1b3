//! Bytes of a guest as text that can do no harm on a terminal, and the search in them. Pure.

/// `bytes` as text: line ends become `\n`, a tab stays, and every other control character, direction mark and invalid
/// byte is shown as an escape.
#[must_use]
pub fn safe(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let mut chars = chunk.valid().chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\n' | '\t' => out.push(c),
                // The kernel writes \r\n and the terminal may make \r\r\n of it: one line end all the same.
                '\r' => {
                    let mut ahead = chars.clone();
                    if ahead.find(|c| *c != '\r') != Some('\n') {
                        out.push_str("\\r");
                    }
                }
                c if c.is_control() || turns_the_text(c) => out.extend(c.escape_default()),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Characters that reorder or hide what stands around them.
fn turns_the_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The last `lines` lines of `bytes`, safe to print; a partial last line counts.
#[must_use]
pub fn last_lines(bytes: &[u8], lines: usize) -> String {
    let text = safe(bytes);
    let body = text.trim_end_matches('\n');
    let from = match lines {
        0 => body.len(),
        n => body.rmatch_indices('\n').nth(n - 1).map_or(0, |(at, _)| at + 1),
    };
    body[from..].to_owned()
}

/// Where `needle` first stands in `bytes`.
pub(super) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle.first()?;
    let mut from = 0;
    while let Some(step) = bytes.get(from..)?.iter().position(|byte| byte == first) {
        if bytes[from + step..].starts_with(needle) {
            return Some(from + step);
        }
        from += step + 1;
    }
    None
}

/// The first of `needles` in `bytes`, as (which, where); of two in the same place the earlier in the list.
pub(super) fn find_any(bytes: &[u8], needles: &[&str]) -> Option<(usize, usize)> {
    let found = needles
        .iter()
        .enumerate()
        .filter_map(|(i, needle)| Some((i, find(bytes, needle.as_bytes())?)));
    found.min_by_key(|(i, at)| (*at, *i))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_bytes_are_shown_and_line_ends_are_one() {
        assert_eq!(safe(b"a\r\r\nb\tc\r\n"), "a\nb\tc\n");
        assert_eq!(safe(b"10%\r20%"), "10%\\r20%");
        assert_eq!(safe(b"\x1b]0;x\x07"), "\\u{1b}]0;x\\u{7}");
        assert_eq!(safe("\u{202e}evil é".as_bytes()), "\\u{202e}evil é");
        assert_eq!(safe(b"\xff\xc3"), "\\xff\\xc3");
    }

    #[test]
    fn last_lines_are_the_last() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines(b"a\nb\nc", 2), "b\nc");
        assert_eq!(last_lines(b"a", 50), "a");
        assert_eq!(last_lines(b"a\nb", 0), "");
    }

    #[test]
    fn the_first_of_many_is_found() {
        assert_eq!(find(b"aaab", b"aab"), Some(1));
        assert_eq!(find(b"aaa", b"b"), None);
        assert_eq!(
            find_any(b"login: Password:", &["Password", "login"]),
            Some((1, 0))
        );
        assert_eq!(find_any(b"READY.", &["READY.", "READY"]), Some((0, 0)));
    }

    proptest! {
        #[test]
        fn safe_text_never_panics_and_holds_no_control_characters(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = safe(&bytes);
            prop_assert!(text.chars().all(|c| c == '\n' || c == '\t' || !(c.is_control() || turns_the_text(c))));
            let _ = last_lines(&bytes, 3);
        }

        #[test]
        fn find_agrees_with_windows(bytes in prop::collection::vec(0u8..3, 0..40), needle in prop::collection::vec(0u8..3, 1..4)) {
            prop_assert_eq!(find(&bytes, &needle), bytes.windows(needle.len()).position(|w| w == needle));
        }
    }
}
