use std::fmt::{self, Write};

/// Foreign text for an error or a log line: what could disturb a terminal or forge a line is escaped, and it is short.
///
/// ```
/// use aegis_core::Printable;
///
/// assert_eq!(Printable::new("don't\n\u{1b}[2J\u{202e}").to_string(), r"don't\n\u{1b}[2J\u{202e}");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a>(&'a str);

/// Characters that are shown.
const MAX_CHARS: usize = 120;

impl<'a> Printable<'a> {
    /// Wraps a text; nothing is copied.
    pub const fn new(text: &'a str) -> Self {
        Self(text)
    }
}

/// At most 120 characters of the text, with an ellipsis where some were left out.
impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        for char in chars.by_ref().take(MAX_CHARS) {
            match char {
                '\'' | '"' => f.write_char(char)?,
                char => fmt::Display::fmt(&char.escape_debug(), f)?,
            }
        }
        if chars.next().is_some() {
            f.write_char('…')?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(Printable::new(text).to_string(), expected);
    }

    #[test]
    fn only_what_shows_itself_passes() {
        check("it's \"Ünïcode\" — ネオ", "it's \"Ünïcode\" — ネオ");
        check("\n\u{1b}[2J\u{202e}", "\\n\\u{1b}[2J\\u{202e}");
        check("\u{200b}\u{2028}\u{feff}\u{85}", "\\u{200b}\\u{2028}\\u{feff}\\u{85}");
        // So that an escape cannot be written by hand.
        check("\\n", "\\\\n");
    }

    #[test]
    fn long_text_is_cut() {
        check(&"ä".repeat(120), &"ä".repeat(120));
        check(&"ä".repeat(1_000_000), &format!("{}…", "ä".repeat(120)));
    }
}
