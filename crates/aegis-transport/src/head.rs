use bytes::Bytes;
use http::header::{HOST, HeaderValue, TE, USER_AGENT};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, Method, Uri, Version};

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

/// The head of a request, finished for the wire once for all the times it is sent.
///
/// Of the URI only path and query count: `:scheme` is `https`, `:authority` the server name of the node it is sent to.
/// `te: trailers` and the user agent are set (one that is there is kept, with ours after it), `host` is taken out.
#[derive(Debug, Clone)]
pub struct RequestHead {
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
}

impl RequestHead {
    /// Finishes a head. What layers left for each other in its extensions is not for the wire, and goes.
    pub fn new(head: Parts) -> Self {
        let mut headers = head.headers;
        finish(&mut headers);
        let path = head.uri.into_parts().path_and_query;
        Self { method: head.method, path: path.unwrap_or(PathAndQuery::from_static("/")), headers }
    }

    /// Sets a header field for all the times the head is sent.
    pub fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.insert(name, value);
    }

    /// The head of one request to this node.
    pub(crate) fn to(&self, authority: &Authority) -> http::Request<()> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(authority.clone());
        uri.path_and_query = Some(self.path.clone());
        let mut request = http::Request::new(());
        *request.method_mut() = self.method.clone();
        // Scheme, authority and path together always are a URI.
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// Looked through rather than looked up: most heads have two or three fields.
fn finish(headers: &mut HeaderMap) {
    let (mut host, mut te, mut trailers, mut agent) = (false, 0, false, None);
    for (name, value) in &*headers {
        match *name {
            HOST => host = true,
            TE => (te, trailers) = (te + 1, value == TRAILERS),
            USER_AGENT => agent = Some(value.clone()),
            _ => {}
        }
    }
    if host {
        headers.remove(HOST);
    }
    if te != 1 || !trailers {
        headers.insert(TE, TRAILERS);
    }
    let agent = match agent {
        None => OUR_AGENT,
        Some(theirs) => {
            let both = [theirs.as_bytes(), b" ", AGENT.as_bytes()].concat();
            HeaderValue::from_maybe_shared(Bytes::from(both)).unwrap_or(OUR_AGENT)
        }
    };
    headers.insert(USER_AGENT, agent);
}
