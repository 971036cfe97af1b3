//! Text from elsewhere, made safe to show. Pure.
//!
//! A slice may call its process `\x1b]0;owned\x07`, or hide a line by a newline or by turning the direction of
//! writing. Whatever a terminal would obey instead of showing is written as its number: `\u{1b}`.

/// Whether a terminal or an editor would act on this character instead of showing it.
pub(crate) fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Zero width and direction marks, line and paragraph separators, embeddings, isolates.
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// One line of at most `max` characters; hostile characters are written as numbers, a cut is shown by `…`.
pub(crate) fn line(text: &str, max: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(max));
    let mut room = max;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let piece = if is_hostile(c) { escaped(c) } else { c.to_string() };
        let width = piece.chars().count();
        let last = rest.as_str().is_empty();
        if width > room || (width == room && !last) {
            shown.push('…');
            return shown;
        }
        room -= width;
        shown.push_str(&piece);
    }
    shown
}

/// Whole text of several lines: line feeds stay, everything else that is hostile becomes visible.
pub(crate) fn page(text: &str) -> String {
    if !text.chars().any(|c| c != '\n' && is_hostile(c)) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && is_hostile(c) {
            shown.push_str(&escaped(c))
        } else {
            shown.push(c)
        }
    }
    shown
}

/// JSON text whose strings carry nothing that a terminal obeys. In JSON such characters stand only inside
/// strings (serde_json escapes those below U+0020 itself), where `\uXXXX` is the same character.
pub(crate) fn json(text: &str) -> String {
    let hostile = |c: char| c != '\n' && is_hostile(c);
    if !text.chars().any(hostile) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if hostile(c) {
            let mut units = [0_u16; 2];
            for unit in c.encode_utf16(&mut units) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

fn escaped(c: char) -> String {
    match c {
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        '\r' => "\\r".to_owned(),
        c => format!("\\u{{{:x}}}", u32::from(c)),
    }
}

/// `1 node`, `2 nodes`.
pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_becomes_visible() {
        assert_eq!(line("\u{1b}]0;owned\u{7}", 40), "\\u{1b}]0;owned\\u{7}");
        assert_eq!(line("a\nb\tc\rd", 40), "a\\nb\\tc\\rd");
        assert_eq!(line("x\u{202e}y\u{9b}z\u{7f}", 40), "x\\u{202e}y\\u{9b}z\\u{7f}");
        assert_eq!(page("one\ntwo\u{1b}[2J"), "one\ntwo\\u{1b}[2J");
    }

    #[test]
    fn no_character_of_any_plane_slips_through() {
        for c in (0..=0x10_ffff_u32).filter_map(char::from_u32) {
            let shown = line(&c.to_string(), 40);
            assert!(!shown.chars().any(is_hostile), "{c:?}");
            assert!(
                !page(&c.to_string()).chars().any(|c| c != '\n' && is_hostile(c)),
                "{c:?}"
            );
        }
    }

    #[test]
    fn a_line_is_bounded_and_says_so() {
        assert_eq!(line("abcdef", 6), "abcdef");
        assert_eq!(line("abcdefg", 6), "abcde…");
        assert_eq!(line("\u{1b}\u{1b}", 6), "…");
        assert_eq!(line("\u{1b}\u{1b}", 7), "\\u{1b}…");
        assert_eq!(line("", 3), "");
        for max in 1..30 {
            assert!(
                line("ab\u{1b}cd\u{202e}ef\u{1b}", max).chars().count() <= max,
                "{max}"
            );
        }
    }

    #[test]
    fn json_keeps_its_meaning() {
        let hostile = "a\u{1b}[2J\u{9b}\u{7f}\u{202e}\u{e0041}\n";
        let text = json(&serde_json::to_string(&hostile).expect("a string"));
        assert!(!text.chars().any(is_hostile), "{text}");
        assert_eq!(
            serde_json::from_str::<String>(&text).expect("still JSON"),
            hostile
        );
    }
}
