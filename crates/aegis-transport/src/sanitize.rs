use http::header::Entry;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};
use tonic::metadata::MetadataMap;

const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// What `PROTOCOL-HTTP2.md` has a status message escape: all but printable ASCII, and the percent sign.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// Makes a status safe to be read by tonic, which panics on details that are not base64, and takes a message that is not
/// UTF-8 for a reason to forget the code.
///
/// Broken details are removed; of a broken message stays what can be read.
pub(crate) fn sanitize(headers: &mut HeaderMap) {
    // Looked through, since most have neither, and few others.
    if !headers.keys().any(|name| *name == MESSAGE || *name == DETAILS) {
        return;
    }
    if let Entry::Occupied(mut message) = headers.entry(MESSAGE)
        && let Some(mended) = mended(message.get())
    {
        message.insert(mended);
    }
    if headers.contains_key(&DETAILS) {
        // Asked of tonic itself, so that it is what its own decoder takes.
        let metadata = MetadataMap::from_headers(std::mem::take(headers));
        let broken =
            metadata.get_bin(DETAILS.as_str()).is_some_and(|details| details.to_bytes().is_err());
        *headers = metadata.into_headers();
        if broken {
            headers.remove(&DETAILS);
        }
    }
}

/// The message without what is not UTF-8; `None` where all of it is.
fn mended(message: &HeaderValue) -> Option<HeaderValue> {
    let decoded = percent_decode(message.as_bytes());
    if decoded.clone().decode_utf8().is_ok() {
        return None;
    }
    let text = decoded.decode_utf8_lossy();
    let encoded = utf8_percent_encode(&text, ESCAPED).to_string();
    // What is escaped is printable ASCII.
    Some(HeaderValue::from_maybe_shared(encoded).unwrap_or(HeaderValue::from_static("")))
}
