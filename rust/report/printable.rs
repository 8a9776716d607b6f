//! Text in which everything that cannot be seen is written out: names come from strangers' files, and a character that
//! turns the direction of reading shows another name than the one that is meant.

/// The text on one line: what is not printable is written out, such as `\n` and `\u{202e}`. Printable is what it is on a
/// terminal: everything but control and format characters, line and paragraph separators, spaces other than the space,
/// and what has no character.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == ' ' || is_printable(c) { out.push(c) } else { out.extend(c.escape_default()) }
    }
    out
}

fn is_printable(c: char) -> bool {
    // A mark is written out at the beginning of a text only, and belongs to its letter elsewhere.
    let mut buffer = ['a', c].iter().collect::<String>();
    let shown: String = buffer.escape_debug().skip(1).collect();
    buffer.remove(0);
    matches!(c, '\\' | '"' | '\'') || shown == buffer
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn what_turns_or_hides_text_is_written_out() {
        let turning =
            "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{200e}\u{200f}\u{61c}";
        let hiding = "\u{0}\u{7}\u{1b}\u{7f}\u{85}\u{9b}\u{ad}\u{200b}\u{200d}\u{2028}\u{2029}\u{2060}\u{feff}\u{fffe}\u{e0041}";
        for c in turning.chars().chain(hiding.chars()) {
            let shown = printable(&format!("a{c}b"));
            assert!(shown.is_ascii() && shown.starts_with("a\\") && shown.ends_with('b'), "{shown:?}");
        }
        assert_eq!(printable("a\u{202e}\n\tb"), "a\\u{202e}\\n\\tb");
    }

    #[test]
    fn what_can_be_seen_stays() {
        for text in ["", "i2_s \"x\" 'y' \\z", "größer – Ωμέγα 日本語 שלום e\u{301} 🦀", "±3 % ✅ ⚠\u{fe0f}"]
        {
            assert_eq!(printable(text), text);
        }
    }
}
