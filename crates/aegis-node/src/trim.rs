//! Keeps the headers and trailers of an answer within what a client accepts.
//!
//! Clients refuse header lists above 16 KiB (tonic, hyper and our own by default; RFC 9113 §10.5.1),
//! and the caller would learn nothing but a broken stream. A long error text is cut instead, its code is kept.

use http::{HeaderMap, HeaderValue};
use tonic::Status;

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
const MARK: &str = "...%20[shortened]";

/// Room for what the header map does not show: the pseudo-header of an answer.
const SLACK: usize = 64;

/// What to answer instead of an answer whose initial metadata no client would take.
///
/// The head of a refusal is none of these: it holds a status, which [`trim`] shortens.
pub(crate) fn too_long(head: &HeaderMap, limit: usize) -> Option<Status> {
    let size = size(head) + SLACK;
    (limit < size && !head.contains_key(STATUS)).then(|| {
        Status::resource_exhausted(format!(
            "the answer begins with {size} bytes of metadata, above the {limit} that clients accept"
        ))
    })
}

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

/// At most `room` bytes, not ending within a percent escape or within the escapes of one character.
fn cut(message: &str, room: usize) -> &str {
    let Some(mut head) = message.get(..room.min(message.len())) else { return "" };
    if head.len() == message.len() {
        return head;
    }
    let bytes = head.as_bytes();
    // An escape that was cut in two.
    if let Some(begun) = bytes.iter().rev().take(2).position(|byte| *byte == b'%') {
        head = head.get(..bytes.len() - 1 - begun).unwrap_or_default();
    }
    // A character of several escapes: one that leads, and up to three that follow.
    let mut rest = head;
    for following in 0..4 {
        let Some((before, byte)) = last_escape(rest) else { break };
        rest = before;
        match byte {
            0x80..0xC0 => {}
            0xC0.. if following < byte.leading_ones() - 1 => return before,
            _ => break,
        }
    }
    head
}

/// The byte that the last three characters stand for, if they are an escape, and what comes before.
fn last_escape(text: &str) -> Option<(&str, u8)> {
    let (before, escape) = text.split_at_checked(text.len().checked_sub(3)?)?;
    let byte = u8::from_str_radix(escape.strip_prefix('%')?, 16).ok()?;
    Some((before, byte))
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
    fn no_character_is_cut_in_two_and_nothing_more_than_it_is_lost() {
        for (message, room, expected) in [
            ("%F0%9F%98%80x", 13, "%F0%9F%98%80x"),
            ("%F0%9F%98%80x", 12, "%F0%9F%98%80"),
            ("%F0%9F%98%80x", 11, ""),
            ("%F0%9F%98%80x", 1, ""),
            ("a%20bad%20face", 13, "a%20bad%20fac"),
            ("a%20bad%20face", 9, "a%20bad"),
            ("a%20bad%20face", 8, "a%20bad"),
            ("%C3%A9%C3%A9", 9, "%C3%A9"),
            ("%C3%A9%C3%A9", 0, ""),
            // What is no escape, or no UTF-8, is none of ours.
            ("%zz%zz%zz", 6, "%zz%zz"),
            ("%80%80%80%80%80%80", 15, "%80%80%80%80%80"),
            ("%FF%FF%FF", 6, "%FF"),
        ] {
            assert_eq!(cut(message, room), expected, "{message} in {room}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_left_of_a_text_is_its_beginning(text in ".{0,20}", room in 0_usize..80) {
            let mut headers = HeaderMap::new();
            Status::internal(&text).add_header(&mut headers).unwrap();
            let message = headers.get(MESSAGE).map_or("", |message| message.to_str().unwrap());
            let sent = HeaderMap::from_iter([
                (STATUS.parse().unwrap(), "13".parse().unwrap()),
                (MESSAGE.parse().unwrap(), cut(message, room).parse::<HeaderValue>().unwrap()),
            ]);
            let kept = Status::from_header_map(&sent).unwrap();
            assert!(text.starts_with(kept.message()), "{:?} of {text:?}", kept.message());
            assert!(text.len() == kept.message().len() || room < cut(message, room).len() + 12);
        }
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
