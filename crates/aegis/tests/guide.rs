//! Reads the blocks of the guides that are no Rust, for the tests that carry them out.

/// The contents of the code blocks of this kind, in their order.
pub(crate) fn blocks(guide: &str, kind: &str) -> Vec<String> {
    let mut found: Vec<Vec<&str>> = Vec::new();
    let mut open: Option<bool> = None;
    for line in guide.lines() {
        match (open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(language == kind);
                if language == kind {
                    found.push(Vec::new());
                }
            }
            (Some(_), Some(_)) => open = None,
            (Some(true), None) => found.last_mut().unwrap().push(line),
            _ => {}
        }
    }
    found.iter().map(|lines| lines.join("\n")).collect()
}
