//! Compression, and how long a message may be.

use aegis::Limits;
use bytes::Bytes;
use tonic::Response;
use tonic::codec::CompressionEncoding::{self, Gzip, Zstd};

use super::describe::{code, say, stream, unary};
use super::echo::Settings;
use super::row::Row;
use super::streams::of;

const MIB: usize = 1 << 20;

fn accept(encodings: &[CompressionEncoding]) -> Settings {
    Settings { accept: encodings.to_vec(), ..Settings::default() }
}

fn send(encoding: CompressionEncoding) -> Settings {
    Settings { send: Some(encoding), ..Settings::default() }
}

fn both(encoding: CompressionEncoding) -> Settings {
    Settings { accept: vec![encoding], send: Some(encoding), ..Settings::default() }
}

fn decode(limit: usize) -> Settings {
    Settings { decode: Some(limit), ..Settings::default() }
}

fn encode(limit: usize) -> Settings {
    Settings { encode: Some(limit), ..Settings::default() }
}

/// An echo whose answer begins with the request's encoding.
fn echo(name: &'static str, bytes: usize) -> Row {
    Row::unary(
        name,
        |request| async move {
            let encoding = request.metadata().get("grpc-encoding").cloned();
            let answer = [format!("{encoding:?} ").as_bytes(), request.get_ref()].concat();
            Ok(Response::new(answer.into()))
        },
        move |mut client| async move { unary(client.unary(Bytes::from(vec![b'x'; bytes])).await) },
    )
}

/// Asks for an answer of so many bytes.
fn answer(name: &'static str, bytes: usize) -> Row {
    Row::unary(
        name,
        move |_| async move { Ok(Response::new(Bytes::from(vec![b'x'; bytes]))) },
        |mut client| async move { unary(client.unary(Bytes::new()).await) },
    )
}

/// Sends so many bytes; the answer is their number.
fn question(name: &'static str, bytes: usize) -> Row {
    Row::unary(
        name,
        |request| async move { say(request.get_ref().len().to_string()) },
        move |mut client| async move { unary(client.unary(Bytes::from(vec![b'x'; bytes])).await) },
    )
}

/// A stream down whose second message is too long.
fn second_down(name: &'static str) -> Row {
    Row::down(
        name,
        |_| async { Ok(Response::new(of(&["short", &"x".repeat(1_025), "short"]))) },
        |mut client| async move { stream(client.down(Bytes::new()).await).await },
    )
}

/// A stream up and down whose second message up is too long; the handler tells what it reads.
fn second_up(name: &'static str) -> Row {
    Row::up(
        name,
        |request| async move { say(super::describe::drain(&mut request.into_inner()).await) },
        |mut client| async move {
            let messages = ["short".to_owned(), "x".repeat(1_025), "short".to_owned()];
            unary(client.up(tokio_stream::iter(messages.map(Bytes::from))).await)
        },
    )
}

fn compression() -> Vec<Row> {
    let mut rows = Vec::new();
    for (encoding, names) in [
        (Gzip, ["gzip both ways", "gzip to the server", "gzip to the client"]),
        (Zstd, ["zstd both ways", "zstd to the server", "zstd to the client"]),
    ] {
        let [all, up, down] = names;
        rows.push(echo(all, 500).server(both(encoding)).client(both(encoding)));
        rows.push(echo(up, 500).server(accept(&[encoding])).client(send(encoding)));
        rows.push(echo(down, 500).server(send(encoding)).client(accept(&[encoding])));
    }
    rows.push(echo("gzip to a server that takes none", 500).client(send(Gzip)));
    rows.push(
        echo("gzip to a server that takes zstd", 500).server(accept(&[Zstd])).client(send(Gzip)),
    );
    rows.push(echo("a server that sends gzip to a client that takes none", 500).server(send(Gzip)));
    rows.push(
        echo("a server that sends gzip to a client that takes zstd", 500)
            .server(send(Gzip))
            .client(accept(&[Zstd])),
    );
    rows.push(
        echo("a client that takes both from a server that sends zstd", 500)
            .server(send(Zstd))
            .client(accept(&[Gzip, Zstd])),
    );
    rows.push(echo("an empty message in gzip", 0).server(both(Gzip)).client(both(Gzip)));
    rows.push(echo("a mebibyte in zstd", MIB).server(both(Zstd)).client(both(Zstd)));
    rows.push(
        Row::both(
            "streams in gzip",
            |request| async move {
                let encoding = request.metadata().get("grpc-encoding").cloned();
                let read = super::describe::drain(&mut request.into_inner()).await;
                Ok(Response::new(of(&[&format!("{encoding:?}"), &read, "", &"z".repeat(500)])))
            },
            |mut client| async move {
                let messages = ["a".repeat(500), String::new(), "b".to_owned()];
                stream(client.both(tokio_stream::iter(messages.map(Bytes::from))).await).await
            },
        )
        .server(both(Gzip))
        .client(both(Gzip)),
    );
    // The limit is on what a message becomes, not on what came.
    rows.push(
        question("a request that grows beyond the limit of the server", 100_000)
            .server(Settings { decode: Some(10_000), ..accept(&[Gzip]) })
            .client(send(Gzip)),
    );
    rows.push(
        answer("an answer that grows beyond the limit of the client", 100_000)
            .server(send(Gzip))
            .client(Settings { decode: Some(10_000), ..accept(&[Gzip]) }),
    );
    rows
}

const LIMITS: &str = "a node bounds messages both ways (Limits::max_message_bytes), with the code that gRPC names for it";
const WHOSE: &str =
    "the caller's own mistake is told as such, where plain tonic says that its stream was reset";
const HTTP2: &str = "status Internal \"h2 protocol error: http2 error\"";
const ENCODED: &str = "status OutOfRange \"Error, encoded message length too large: found 1025 bytes, \
                       the limit is: 1024 bytes\"";
const DECODED: &str = "status OutOfRange \"Error, decoded message length too large: found 4194305 bytes, \
                       the limit is: 4194304 bytes\" {content-type: \"application/grpc\"}";
const TOO_LONG: &str = "status ResourceExhausted \"a message of 4194305 bytes is longer than this server's limit \
                        of 4194304 bytes (Limits::max_message_bytes)\" {content-type: \"application/grpc\"}";

fn lengths() -> Vec<Row> {
    vec![
        question("a request as long as the server decodes", 1_024).server(decode(1_024)),
        question("a request longer than the server decodes", 1_025).server(decode(1_024)),
        question("a request as long as the client encodes", 1_024).client(encode(1_024)),
        question("a request longer than the client encodes", 1_025).client(encode(1_024)).differs(
            WHOSE,
            [HTTP2],
            [ENCODED],
        ),
        answer("an answer as long as the server encodes", 1_024).server(encode(1_024)),
        answer("an answer longer than the server encodes", 1_025).server(encode(1_024)),
        answer("an answer as long as the client decodes", 1_024).client(decode(1_024)),
        answer("an answer longer than the client decodes", 1_025).client(decode(1_024)),
        second_down("a message in a stream longer than the server encodes").server(encode(1_024)),
        second_down("a message in a stream longer than the client decodes").client(decode(1_024)),
        second_up("a message in a stream longer than the server decodes").server(decode(1_024)),
        second_up("a message in a stream longer than the client encodes")
            .client(encode(1_024))
            .differs(WHOSE, [HTTP2], [ENCODED]),
        question("an empty request", 0),
        answer("an empty answer", 0),
        question("a request of 4 MiB less one byte", 4 * MIB - 1),
        question("a request of 4 MiB", 4 * MIB),
        answer("an answer of 4 MiB less one byte", 4 * MIB - 1),
        answer("an answer of 4 MiB", 4 * MIB),
        question("a request of more than 4 MiB", 4 * MIB + 1).differs(
            LIMITS,
            [DECODED],
            [TOO_LONG],
        ),
        answer("an answer of more than 4 MiB", 4 * MIB + 1).differs(LIMITS, [DECODED], [TOO_LONG]),
        answer("an answer of more than 4 MiB to a client that takes it", 4 * MIB + 1)
            .client(decode(16 * MIB))
            .differs(
                LIMITS,
                [
                    "head {content-type: \"application/grpc\", grpc-status: \"0\"}",
                    "message of 4194305 bytes, 11e4293e20000078",
                ],
                [TOO_LONG],
            ),
        question("a request of 6 MiB where both allow it", 6 * MIB)
            .server(decode(8 * MIB))
            .limits(Limits::default().max_message_bytes(8 * MIB)),
        answer("an answer of 6 MiB where both allow it", 6 * MIB)
            .client(decode(8 * MIB))
            .limits(Limits::default().max_message_bytes(8 * MIB)),
        Row::both(
            "a stream of large messages both ways",
            |request| async move { Ok(Response::new(super::streams::echo(request.into_inner()))) },
            |mut client| async move {
                let messages = (0..6).map(|byte| Bytes::from(vec![byte; MIB + usize::from(byte)]));
                let messages: Vec<_> = messages.collect();
                stream(client.both(tokio_stream::iter(messages)).await).await
            },
        ),
        Row::up(
            "a caller that is told of a message too long while it sends",
            |request| async move {
                let mut stream = request.into_inner();
                loop {
                    if let Err(status) = super::describe::next(&mut stream).await {
                        return say(code(&status));
                    }
                }
            },
            |mut client| async move {
                let messages = (0..64).map(|_| Bytes::from(vec![7; MIB])).collect::<Vec<_>>();
                unary(client.up(tokio_stream::iter(messages)).await)
            },
        )
        .server(decode(1_024)),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = compression();
    rows.extend(lengths());
    rows
}
