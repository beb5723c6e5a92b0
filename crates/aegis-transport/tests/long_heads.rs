//! A request with more metadata than its server takes ends its own call, and no other.

use aegis_testing::TestCa;
use aegis_transport::{CallError, Link};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use tonic::Code;

use crate::support::{Client, Server, chunks, full, request, slot};

/// A server that says that it takes so many bytes of header fields, and answers each call.
async fn start(header_list: Option<u32>) -> (Client, Server, Link) {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let link = client.link(&server);
    let stream = server.stream().await;
    server.spawn(async move {
        let mut builder = h2::server::Builder::new();
        if let Some(header_list) = header_list {
            builder.max_header_list_size(header_list);
        }
        let mut http2 = builder.handshake::<_, Bytes>(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = http2.accept().await {
            tokio::spawn(async move {
                let mut body = request.into_body();
                while let Some(Ok(_)) = body.data().await {}
                let trailers = body.trailers().await;
                let mut response = http::Response::new(());
                let status = if trailers.is_ok() { "0" } else { "13" };
                response.headers_mut().insert("grpc-status", HeaderValue::from_static(status));
                drop(respond.send_response(response, true));
            });
        }
    });
    (client, server, link)
}

/// So many fields with a value of so many times one character.
fn fields(count: usize, length: usize, character: char) -> HeaderMap {
    let value = HeaderValue::try_from(character.to_string().repeat(length)).unwrap();
    let name = |index| HeaderName::try_from(format!("x-{index:04}")).unwrap();
    (0..count).map(|index| (name(index), value.clone())).collect()
}

/// Makes a call with these fields and then one without; `None` where the first was answered well.
async fn call(link: &Link, server: &Server, fields: HeaderMap) -> Option<(Code, String)> {
    let mut long = request(full("x"));
    long.headers_mut().extend(fields);
    let sent = slot(link).await.send(long).await;
    let sent = sent.map(|response| assert_eq!(response.headers()["grpc-status"], "0"));
    let error = sent.err().map(|error| (error.code(), error.to_string()));
    let after = slot(link).await.send(request(full("x"))).await;
    let status = after.map(|response| response.headers()["grpc-status"].clone());
    assert_eq!(status.ok(), Some(HeaderValue::from_static("0")), "after {error:?}");
    assert_eq!(server.dials(), 1, "{error:?} cost the connection");
    error
}

/// hyper, tonic and our own server take 16 KiB.
const USUAL: u32 = 16 << 10;

#[tokio::test]
async fn more_metadata_than_the_server_takes_costs_no_connection_whatever_its_shape() {
    let (_client, server, link) = start(Some(USUAL)).await;
    for (count, length, character) in [
        (1, 17_000, 'x'),
        // More than twice as long on the wire.
        (1, 58_000, '\\'),
        // These go over several frames.
        (50, 1_000, 'x'),
        (2, 20_000, 'x'),
        (1_000, 1_000, 'x'),
    ] {
        let fields = fields(count, length, character);
        let (code, text) = call(&link, &server, fields).await.unwrap();
        assert_eq!(code, Code::ResourceExhausted, "{count} of {length} {character}: {text}");
        assert!(text.contains("above the 16383 that are sent to it"), "{text}");
    }
}

#[tokio::test]
async fn metadata_up_to_what_the_server_takes_is_sent() {
    for (said, longest) in [(Some(USUAL), 16_383), (Some(200 << 10), 204_799), (None, 60 << 10)] {
        let (_client, server, link) = start(said).await;
        // What the other fields of a call weigh.
        let (_, text) = call(&link, &server, fields(1, 1 << 20, 'x')).await.unwrap();
        let (_, size) = text.split_once(" is ").unwrap();
        let size: usize = size.split_once(" bytes").unwrap().0.parse().unwrap();
        let room = longest - (size - (1 << 20));
        assert_eq!(call(&link, &server, fields(1, room, 'x')).await, None, "{said:?}");
        let (code, text) = call(&link, &server, fields(1, room + 1, 'x')).await.unwrap();
        assert_eq!(code, Code::ResourceExhausted, "{said:?}: {text}");
    }
}

#[tokio::test]
async fn trailers_of_a_request_keep_to_it_too() {
    let (_client, server, link) = start(Some(USUAL)).await;
    for (data, count, code) in [
        (0, 50, Some(Code::ResourceExhausted)),
        (1, 50, Some(Code::ResourceExhausted)),
        (1, 5, None),
    ] {
        let (feed, body) = chunks();
        for _ in 0..data {
            feed.send(Ok(Frame::data(Bytes::from_static(b"x")))).unwrap();
        }
        feed.send(Ok(Frame::trailers(fields(count, 1_000, 'x')))).unwrap();
        let sent = slot(&link).await.send(request(body)).await;
        assert_eq!(sent.as_ref().err().map(CallError::code), code, "{sent:?}");
        assert_eq!(call(&link, &server, HeaderMap::new()).await, None);
    }
}
