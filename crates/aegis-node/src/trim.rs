//! Keeps the headers and trailers of an answer within what a client accepts.
//!
//! Clients refuse header lists above 16 KiB (tonic, hyper and our own by default; RFC 9113 §10.5.1),
//! and the caller would learn nothing but a broken stream. A long error text is cut instead, its code is kept.

use http::{HeaderMap, HeaderValue};
use tonic::Status;

const MESSAGE: &str = "grpc-message";
const MARK: &str = "...%20[shortened]";

/// Room for what the header map does not show: the pseudo-header of an answer.
const SLACK: usize = 64;

/// Cuts `grpc-message`, and if that is not enough replaces the whole status by one of the same code.
pub(crate) fn trim(headers: &mut HeaderMap, limit: usize) {
    let limit = limit.saturating_sub(SLACK);
    if size(headers) <= limit {
        return;
    }
    if let Some(message) = headers.get(MESSAGE).and_then(|message| message.to_str().ok()) {
        let rest = size(headers) - message.len();
        let room = limit.saturating_sub(rest + MARK.len());
        let cut = cut(message, room);
        if let Ok(value) = HeaderValue::try_from(format!("{cut}{MARK}")) {
            headers.insert(MESSAGE, value);
        }
    }
    if size(headers) <= limit {
        return;
    }
    let code =
        Status::from_header_map(headers).map_or(tonic::Code::Unknown, |status| status.code());
    let content_type = headers.remove(http::header::CONTENT_TYPE);
    headers.clear();
    if let Some(content_type) = content_type {
        headers.insert(http::header::CONTENT_TYPE, content_type);
    }
    let status = Status::new(
        code,
        format!(
            "the status was longer than {limit} bytes of headers: its text and metadata are left out"
        ),
    );
    // A short text without metadata always fits a header map.
    drop(status.add_header(headers));
}

/// At most `room` bytes, not ending within a percent escape or within the bytes of one character.
fn cut(message: &str, room: usize) -> &str {
    let Some(head) = message.get(..room.min(message.len())) else { return "" };
    // Escaped characters are up to four escapes long; a run of escapes may end in the middle of one.
    let plain = head.trim_end_matches(|c: char| c == '%' || c.is_ascii_hexdigit());
    let tail = head.get(plain.len()..).unwrap_or_default();
    if tail.contains('%') { plain } else { head }
}

/// RFC 9113 §6.5.2: the length of name and value, and 32 bytes for each field.
fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::MetadataValue;

    #[track_caller]
    fn check(mut status: Status, metadata: usize) -> Status {
        let code = status.code();
        if 0 < metadata {
            status
                .metadata_mut()
                .insert("long", MetadataValue::try_from("x".repeat(metadata)).unwrap());
        }
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        trim(&mut headers, 16 * 1024);
        assert!(size(&headers) <= 16 * 1024);
        let sent = Status::from_header_map(&headers).unwrap();
        assert_eq!(sent.code(), code);
        sent
    }

    #[test]
    fn a_long_text_is_cut_and_marked() {
        let sent = check(Status::internal("a".repeat(100_000)), 0);
        assert!(sent.message().starts_with("aaaa") && sent.message().ends_with("... [shortened]"));
        assert!(8_000 < sent.message().len());
    }

    #[test]
    fn text_of_many_escapes_still_reads_as_text() {
        let sent = check(Status::internal(format!("x {}", "😀 é%".repeat(10_000))), 0);
        assert!(sent.message().ends_with("... [shortened]"), "{}", sent.message().len());
        assert!(!sent.message().contains('\u{fffd}'));
    }

    #[test]
    fn metadata_that_does_not_fit_is_left_out_with_a_word() {
        let sent = check(Status::not_found("gone"), 20_000);
        assert!(sent.message().contains("left out") && sent.metadata().get("long").is_none());
    }

    #[test]
    fn what_fits_is_left_alone() {
        assert_eq!(check(Status::not_found("gone"), 100).message(), "gone");
    }
}
