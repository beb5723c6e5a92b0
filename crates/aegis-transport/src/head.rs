use bytes::Bytes;
use http::header::{HOST, HeaderValue, TE, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Uri, Version};

use crate::connection::Connection;

const AGENT: &str = concat!("aegis/", env!("CARGO_PKG_VERSION"));
const OUR_AGENT: HeaderValue = HeaderValue::from_static(AGENT);
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// The longest header list that is sent to a server that does not say how long a one it takes, in bytes.
const LONGEST: usize = 60 << 10;

/// The longest header list that is sent to a server with this `SETTINGS_MAX_HEADER_LIST_SIZE`, in bytes.
///
/// A longer one may be answered. But where it goes over several frames, h2, and with it hyper and tonic, ends the connection, and
/// with that the calls of others: the first frame is too much already, and the next begins within a field.
pub(crate) fn longest(said: Option<u32>) -> usize {
    // h2 takes less than it says.
    said.map_or(LONGEST, |said| usize::try_from(said).unwrap_or(usize::MAX).saturating_sub(1))
}

/// The size of a request's header list (RFC 9113 §6.5.2).
pub(crate) fn size(head: &http::Request<()>) -> usize {
    let uri = head.uri();
    let pseudo = [
        (":method", head.method().as_str()),
        (":scheme", uri.scheme_str().unwrap_or_default()),
        (":authority", uri.authority().map_or("", Authority::as_str)),
        (":path", uri.path_and_query().map_or("", PathAndQuery::as_str)),
    ];
    let pseudo = pseudo.iter().map(|(name, value)| name.len() + value.len() + FIELD);
    pseudo.sum::<usize>() + fields_size(head.headers())
}

/// The same of trailers.
pub(crate) fn fields_size(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD).sum()
}

/// What each field counts beside its name and value.
const FIELD: usize = 32;

/// The request's head as it goes on the wire, and its body.
pub(crate) fn split<B>(
    request: http::Request<B>,
    connection: &Connection,
) -> (http::Request<()>, B) {
    let (mut head, body) = request.into_parts();
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTPS);
    uri.authority = Some(connection.authority.clone());
    uri.path_and_query =
        Some(head.uri.into_parts().path_and_query.unwrap_or(PathAndQuery::from_static("/")));
    // Scheme, authority and path together always are a URI.
    head.uri = Uri::from_parts(uri).unwrap_or_default();
    head.version = Version::HTTP_2;
    finish_headers(&mut head.headers);
    // What layers left for each other is not for the wire, and may hold handles.
    head.extensions.clear();
    (http::Request::from_parts(head, ()), body)
}

fn finish_headers(headers: &mut HeaderMap) {
    headers.remove(HOST);
    headers.insert(TE, TRAILERS);
    let agent = match headers.get(USER_AGENT) {
        None => OUR_AGENT,
        Some(theirs) => {
            let both = [theirs.as_bytes(), b" ", AGENT.as_bytes()].concat();
            HeaderValue::from_maybe_shared(Bytes::from(both)).unwrap_or(OUR_AGENT)
        }
    };
    headers.insert(USER_AGENT, agent);
}
