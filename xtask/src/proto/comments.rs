//! Makes the comments of a proto file safe to be Rust documentation.

use prost_types::FileDescriptorProto;

/// Rewrites the comments of `file` so that they show as the text they are.
///
/// A proto comment is written as plain text, while rustdoc reads Markdown: it
/// takes an indented line for a test to compile, `<T>` for HTML and `[x]` for
/// a link. Comments that belong to no element are dropped.
pub(super) fn sanitise(file: &mut FileDescriptorProto) {
    let Some(info) = &mut file.source_code_info else { return };
    for location in &mut info.location {
        location.leading_detached_comments.clear();
        for comment in [&mut location.leading_comments, &mut location.trailing_comments] {
            *comment = comment.as_deref().map(plain);
        }
    }
}

fn plain(comment: &str) -> String {
    let lines: Vec<String> = comment.lines().map(plain_line).collect();
    let text = lines.join("\n");
    text.trim_matches('\n').to_owned()
}

fn plain_line(line: &str) -> String {
    let mut plain = String::with_capacity(line.len() + 1);
    // One space between words: four in a row, also after the mark of a list
    // item, would begin a code block.
    for word in line.split_whitespace() {
        plain.push(' ');
        for c in word.chars().filter(|c| !reorders(*c)) {
            if matches!(c, '\\' | '`' | '~' | '[' | ']' | '<' | '>' | '#') {
                plain.push('\\');
            }
            plain.push(c);
        }
    }
    // Not a link, which would have to be marked as one.
    plain.replace("://", "\\://")
}

/// Whether `c` changes the direction of text, which rustc refuses in comments.
fn reorders(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[track_caller]
    fn check(comment: &str, expected: &str) {
        assert_eq!(plain(comment), expected);
    }

    #[test]
    fn indentation_begins_no_code_block() {
        check("\tlet x = 1;\n        x + 1", " let x = 1;\n x + 1");
        check(" -      not code", " - not code");
    }

    #[test]
    fn fences_open_nothing() {
        check(" ```rust\n fn", " \\`\\`\\`rust\n fn");
        check(" ~~~", " \\~\\~\\~");
    }

    #[test]
    fn markup_is_text() {
        check(" [x] <T> `a` */ # h", " \\[x\\] \\<T\\> \\`a\\` */ \\# h");
        check(" see https://example.com/a_b", " see https\\://example.com/a_b");
    }

    #[test]
    fn line_ends_of_windows_and_reordering_characters_vanish() {
        check(" one\r\n two\r\n", " one\n two");
        check(" a\u{202e}b", " ab");
    }
}
