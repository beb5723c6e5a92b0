//! What a peer writes where a status belongs never costs the caller more than what it broke.

use aegis_testing::TestCa;
use aegis_transport::Link;
use tonic::{Code, Status};

use crate::support::{Client, Raw, Server, collect, field, full, request, slot};

type Fields<'a> = [(&'a str, &'a [u8])];

/// The status that tonic reads from a response that is nothing but its head.
async fn in_the_head(link: &Link, raw: &mut Raw, fields: &Fields<'_>) -> Status {
    let sent = tokio::spawn(slot(link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    raw.trailers_only(stream, fields).await;
    Status::from_header_map(sent.await.unwrap().unwrap().headers()).unwrap()
}

async fn in_the_trailers(link: &Link, raw: &mut Raw, fields: &Fields<'_>) -> Status {
    let sent = tokio::spawn(slot(link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    raw.head(stream).await;
    let block = fields.iter().flat_map(|(name, value)| field(name, value)).collect::<Vec<_>>();
    raw.headers(stream, 5, &block).await;
    let (_, trailers) = collect(sent.await.unwrap().unwrap().into_body()).await.unwrap();
    Status::from_header_map(&trailers.unwrap()).unwrap()
}

async fn check(fields: &Fields<'_>, code: Code, message: &str, details: &[u8]) {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let link = client.link(&server);
    let mut raw = server.greeted(10).await;
    for status in
        [in_the_head(&link, &mut raw, fields).await, in_the_trailers(&link, &mut raw, fields).await]
    {
        let found = (status.code(), status.message(), status.details());
        assert_eq!(found, (code, message, details), "{fields:?}");
    }
}

#[tokio::test]
async fn details_are_read_padded_or_not_and_left_out_when_broken() {
    for (sent, details) in [
        (&b"aGk="[..], &b"hi"[..]),
        (b"aGk", b"hi"),
        (b"", b""),
        (b"!", b""),
        (b"a", b""),
        (b"aGk==", b""),
        (b"aG-_", b""),
        (b"aGk=,aGk=", b""),
        (b"\xff", b""),
    ] {
        let fields: &Fields<'_> = &[("grpc-status", b"9"), ("grpc-status-details-bin", sent)];
        check(fields, Code::FailedPrecondition, "", details).await;
    }
}

#[tokio::test]
async fn a_second_value_of_the_details_hides_no_broken_first_one() {
    let fields: &Fields<'_> = &[
        ("grpc-status", b"9"),
        ("grpc-status-details-bin", b"!"),
        ("grpc-status-details-bin", b"aGk="),
    ];
    check(fields, Code::FailedPrecondition, "", b"").await;
}

#[tokio::test]
async fn a_broken_message_does_not_cost_the_code() {
    for (sent, message) in [
        (&b"100%25 %C3%A9%0A"[..], "100% \u{e9}\n"),
        (b"%zz", "%zz"),
        (b"%E4%B8", "\u{fffd}"),
        (b"50%25 of %E4%B8 is gone", "50% of \u{fffd} is gone"),
        (b"\xff", "\u{fffd}"),
    ] {
        let fields: &Fields<'_> = &[("grpc-status", b"5"), ("grpc-message", sent)];
        check(fields, Code::NotFound, message, b"").await;
    }
}

#[tokio::test]
async fn a_code_that_is_none_is_unknown() {
    for sent in [&b"abc"[..], b"", b"-1", b"17", b"\xff", b"007"] {
        let fields: &Fields<'_> = &[("grpc-status", sent), ("grpc-message", b"why")];
        check(fields, Code::Unknown, "why", b"").await;
    }
}
