//! Metadata of requests and of answers, and the addresses.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response};
use tower::ServiceExt as _;

use super::describe::{metadata, say, stream, unary};
use super::row::Row;
use super::streams::of;

/// A handler that tells the metadata it gets.
fn told(name: &'static str, fill: impl FnOnce(&mut MetadataMap) + Send + 'static) -> Row {
    Row::unary(
        name,
        |request| async move { say(metadata(request.metadata())) },
        |mut client| async move {
            let mut request = Request::new(Bytes::new());
            fill(request.metadata_mut());
            unary(client.unary(request).await)
        },
    )
}

/// A handler that answers with metadata.
fn given(name: &'static str, fill: impl Fn(&mut MetadataMap) + Send + Sync + 'static) -> Row {
    Row::unary(
        name,
        move |_| {
            let mut response = Response::new(Bytes::new());
            fill(response.metadata_mut());
            async { Ok(response) }
        },
        |mut client| async move { unary(client.unary(Bytes::new()).await) },
    )
}

fn all_kinds(map: &mut MetadataMap) {
    map.insert("ascii", "some text, with = and ; \"quotes\"".parse().unwrap());
    map.insert("empty", "".parse().unwrap());
    map.insert("spaces", "a  b".parse().unwrap());
    for value in ["first", "second", "first"] {
        map.append("double", value.parse().unwrap());
    }
    map.insert_bin("one-bin", MetadataValue::from_bytes(&[1]));
    map.insert_bin("two-bin", MetadataValue::from_bytes(&[0, 255]));
    map.insert_bin("three-bin", MetadataValue::from_bytes(b"abc"));
    map.insert_bin("nothing-bin", MetadataValue::from_bytes(b""));
    for value in [&b"x"[..], b"y,z", b""] {
        map.append_bin("double-bin", MetadataValue::from_bytes(value));
    }
    map.insert("opaque", MetadataValue::try_from(&b"caf\xe9 \xff"[..]).unwrap());
}

fn reserved(map: &mut MetadataMap) {
    for name in ["te", "content-type", "grpc-status", "grpc-message", "grpc-message-type"] {
        map.insert(name, "mine".parse().unwrap());
    }
    map.insert("grpc-encoding", "identity".parse().unwrap());
    map.insert("grpc-accept-encoding", "identity".parse().unwrap());
    map.insert("grpc-mine", "kept".parse().unwrap());
    map.insert("x-mine", "kept".parse().unwrap());
}

/// What the handler reads of one name, and whether the bytes can be had.
fn read_bin(map: &MetadataMap) -> String {
    let values = map.get_all_bin("k-bin").iter().map(|value| {
        let bytes = value.to_bytes();
        bytes.map_or_else(|_| "broken".to_owned(), |bytes| format!("{:?}", bytes.as_ref()))
    });
    values.collect::<Vec<_>>().join(" & ")
}

/// A value of binary metadata as some language writes it: what the handler reads.
fn written(name: &'static str, values: &'static [&'static [u8]], read: &'static str) -> Row {
    let row = Row::unary(
        name,
        |request| async move { say(read_bin(request.metadata())) },
        |mut client| async move {
            // The head is not what the row is about.
            let answer = client.unary(Bytes::new()).await.unwrap();
            vec![String::from_utf8(answer.into_inner().to_vec()).unwrap()]
        },
    );
    row.client_layer(move |mut request, inner| async move {
        put(request.headers_mut(), values);
        inner.oneshot(request).await
    })
    .shows([read])
}

/// The same from a server: what the caller reads.
fn answered(name: &'static str, values: &'static [&'static [u8]], read: &'static str) -> Row {
    let row = Row::unary(
        name,
        |_| async { say("") },
        |mut client| async move {
            let answer = client.unary(Bytes::new()).await.unwrap();
            vec![read_bin(answer.metadata())]
        },
    );
    row.server_layer(move |request, inner| async move {
        let mut response = inner.oneshot(request).await?;
        put(response.headers_mut(), values);
        Ok(response)
    })
    .shows([read])
}

fn put(headers: &mut HeaderMap, values: &[&[u8]]) {
    for value in values {
        let name = HeaderName::from_static("k-bin");
        headers.append(name, HeaderValue::from_bytes(value).unwrap());
    }
}

fn binary() -> Vec<Row> {
    vec![
        written("one byte, padded", &[b"AQ=="], "[1]"),
        written("one byte, not padded", &[b"AQ"], "[1]"),
        written("two bytes, padded", &[b"AQI="], "[1, 2]"),
        written("two bytes, not padded", &[b"AQI"], "[1, 2]"),
        written("three bytes", &[b"AQID"], "[1, 2, 3]"),
        written("no bytes", &[b""], "[]"),
        written("two values", &[b"AQ", b"Ag=="], "[1] & [2]"),
        written("two values in one, which nobody takes apart", &[b"AQ,Ag"], "broken"),
        written("what is no base64", &[b"!"], "broken"),
        written("what is no text", &[b"\xff"], "broken"),
        written("a broken value before a good one", &[b"!", b"Ag"], "broken & [2]"),
        answered("an answer's bytes, padded", &[b"AQ=="], "[1]"),
        answered("an answer's bytes, not padded", &[b"AQ"], "[1]"),
        answered("an answer's two values", &[b"AQ", b"Ag=="], "[1] & [2]"),
        answered("an answer's two values in one", &[b"AQ,Ag"], "broken"),
        answered("an answer's broken bytes", &[b"!"], "broken"),
        // What we write is what `PROTOCOL-HTTP2.md` wants of a sender.
        Row::unary(
            "bytes are sent without padding",
            |request| async move {
                let headers = request.metadata().clone().into_headers();
                say(format!("{:?}", headers.get("k-bin")))
            },
            |mut client| async move {
                let mut request = Request::new(Bytes::new());
                request.metadata_mut().insert_bin("k-bin", MetadataValue::from_bytes(&[1]));
                unary(client.unary(request).await)
            },
        )
        .shows([
            "head {content-type: \"application/grpc\", grpc-status: \"0\"}",
            "message \"Some(\\\"AQ\\\")\"",
        ]),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = vec![
        told("what a handler sees of a bare request", |_| {}),
        told("metadata of every kind in a request", all_kinds),
        told("reserved names in a request", reserved),
        given("metadata of every kind in an answer", all_kinds),
        given("reserved names in an answer", reserved),
        Row::down(
            "metadata at the head of a stream",
            |_| async {
                let mut response = Response::new(of(&["a"]));
                all_kinds(response.metadata_mut());
                Ok(response)
            },
            |mut client| async move { stream(client.down(Bytes::new()).await).await },
        ),
        Row::unary(
            "trailers of a request",
            |request| async move { say(metadata(request.metadata())) },
            |mut client| async move { unary(client.unary(Bytes::new()).await) },
        )
        .client_layer(|request, inner| async move { inner.oneshot(request.map(trailing)).await }),
        Row::up(
            "trailers of a request stream",
            |request| async move {
                let mut stream = request.into_inner();
                let read = super::describe::drain(&mut stream).await;
                let trailers = stream.trailers().await?.map(|trailers| metadata(&trailers));
                say(format!("{read} {trailers:?}"))
            },
            |mut client| async move {
                let messages = ["a", "b"].map(Bytes::from);
                unary(client.up(tokio_stream::iter(messages)).await)
            },
        )
        .client_layer(|request, inner| async move { inner.oneshot(request.map(trailing)).await }),
        Row::unary(
            "both socket addresses",
            |request| async move {
                let (remote, local) = (request.remote_addr(), request.local_addr());
                say(format!("{} {}", remote.unwrap(), local.unwrap()))
            },
            |mut client| async move {
                let server = client.server;
                let answer = client.unary(Bytes::new()).await.unwrap().into_inner();
                let text = std::str::from_utf8(&answer).unwrap().to_owned();
                let (remote, local) = text.split_once(' ').unwrap();
                let remote: std::net::SocketAddr = remote.parse().unwrap();
                vec![
                    format!(
                        "the caller is {}, on a port of its own: {}",
                        remote.ip(),
                        remote.port() != server.port()
                    ),
                    format!("the server is itself: {}", local == server.to_string()),
                ]
            },
        )
        .shows([
            "the caller is 127.0.0.1, on a port of its own: true",
            "the server is itself: true",
        ]),
        Row::unary(
            "the name that a caller gives itself comes first",
            |request| async move {
                let agent = request.metadata().get("user-agent").unwrap().to_str().unwrap();
                say(agent.split(' ').next().unwrap())
            },
            |mut client| async move {
                let mut request = Request::new(Bytes::new());
                request.metadata_mut().insert("user-agent", "mine/1".parse().unwrap());
                unary(client.unary(request).await)
            },
        ),
    ];
    rows.extend(binary());
    rows
}

fn trailing(body: Body) -> Body {
    let trailers = HeaderMap::from_iter([
        (HeaderName::from_static("late"), HeaderValue::from_static("trailer")),
        (HeaderName::from_static("late-bin"), HeaderValue::from_static("AQ")),
    ]);
    Body::new(body.with_trailers(std::future::ready(Some(Ok(trailers)))))
}
