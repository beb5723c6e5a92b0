//! Requests that no handler gets to see, and those that any HTTP/2 client may make.

use aegis_node::Limits;
use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use bytes::Bytes;
use http::{HeaderValue, Method, Request};

use crate::support::{
    Answer, END_HEADERS, END_STREAM, Frames, Kind, Peer, node, node_with, post, read,
    request_block, tls,
};

/// The answer to a request that differs from a good one as `change` says; the connection goes on.
async fn answer(peer: &Peer, change: impl FnOnce(&mut Request<()>)) -> Answer {
    let mut request = post("Echo");
    change(&mut request);
    let answer = peer.call(request, Bytes::new()).await.unwrap();
    peer.ask().await;
    answer
}

#[tokio::test]
async fn what_is_no_grpc_request_is_answered_in_http() {
    let (mesh, server, lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
        let answer = answer(&peer, |request| *request.method_mut() = method.clone()).await;
        assert_eq!(answer.head.status, 405, "{method}");
        assert_eq!(answer.head.headers["allow"], "POST");
    }
    for content_type in [Some("application/json"), Some("application/grpc-web"), Some(""), None] {
        let answer = answer(&peer, |request| {
            request.headers_mut().remove("content-type");
            if let Some(content_type) = content_type {
                request
                    .headers_mut()
                    .insert("content-type", HeaderValue::from_static(content_type));
            }
        })
        .await;
        assert_eq!(answer.head.status, 415, "{content_type:?}");
    }
    // Only the calls in between came to the handler.
    assert_eq!(lab.seen.calls(), 9);
}

#[tokio::test]
async fn a_path_that_nobody_serves_is_unimplemented() {
    let (mesh, server, _lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    let long = format!("/{}/M", "x".repeat(8_000));
    for path in [
        "/",
        "//",
        "/test.Lab",
        "//test.Lab/Echo",
        "/test.lab/Echo",
        "/test.%4Cab/Echo",
        "/../test.Lab/Echo",
        "/test.Nothing/M",
        &long,
    ] {
        let answer = answer(&peer, |request| {
            *request.uri_mut() = format!("https://server{path}").parse().unwrap();
        })
        .await;
        assert_eq!((answer.head.status.as_u16(), answer.code()), (200, Some("12")), "{path}");
        assert!(answer.text().len() < 400, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_path_without_a_slash_breaks_its_stream_only() {
    let (mesh, server, _lab) = node(Limits::default()).await;
    let mut frames = Frames::connect(mesh.ca(), "peer", server.local_addr()).await;
    let flags = END_HEADERS | END_STREAM;
    for (stream, path) in [(1, "test.Lab/Echo"), (3, ""), (5, "*")] {
        frames.send(Kind::Headers, flags, stream, &request_block(path)).await;
        let frame = loop {
            let frame = frames.frame().await.expect("the connection was closed");
            if frame.stream == stream {
                break frame;
            }
        };
        // A path of its own grammar (`*`) is a request, if one that nobody serves.
        assert!(matches!(frame.kind, Kind::Reset | Kind::Headers), "{path:?}: {frame:?}");
    }
    frames.send(Kind::Headers, flags, 7, &request_block("/test.Lab/Seen")).await;
    assert_eq!(frames.next(Kind::Data).await.stream, 7);
}

#[tokio::test]
async fn a_caller_that_means_another_service_is_told_to_look_elsewhere() {
    let (mesh, server, lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    for (wanted, served) in [
        (Some("lab/v1"), true),
        (None, true),
        (Some("lab/v2"), false),
        (Some("other/v1"), false),
        (Some("lab"), false),
        (Some("lab/v1/x"), false),
        (Some(""), false),
        (Some("lab/v\u{e9}"), false),
    ] {
        let before = lab.seen.calls();
        let answer = answer(&peer, |request| {
            if let Some(wanted) = wanted {
                request
                    .headers_mut()
                    .insert("aegis-service", HeaderValue::from_bytes(wanted.as_bytes()).unwrap());
            }
        })
        .await;
        let refused = answer.head.headers.get("aegis-refused");
        if served {
            assert_eq!((answer.code(), refused), (Some("0"), None), "{wanted:?}");
        } else {
            assert_eq!(answer.code(), Some("12"), "{wanted:?}");
            assert_eq!(refused.unwrap(), "not-served", "{wanted:?}");
        }
        // One more is the call that shows the connection to be alive.
        assert_eq!(lab.seen.calls() - before, 1 + u64::from(served), "{wanted:?}");
    }
}

#[derive(Debug)]
struct Nothing;

impl IdentityService for Nothing {}

#[tokio::test]
async fn a_handler_that_is_not_advertised_serves_those_who_name_no_service() {
    let with = |node: aegis_node::NodeBuilder| {
        node.routes(|routes| routes.add(IdentityServiceServer::new(Nothing)))
    };
    let (mesh, server, _lab) = node_with(Limits::default(), with).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    let get_user = |request: &mut Request<()>| {
        *request.uri_mut() =
            "https://server/aegis.identity.v1.IdentityService/GetUser".parse().unwrap();
    };
    let stub = answer(&peer, get_user).await;
    // The stub's own answer, not that of the table.
    assert_eq!(stub.code(), Some("13"), "{stub:?}");
    let refused = answer(&peer, |request| {
        get_user(request);
        request.headers_mut().insert("aegis-service", HeaderValue::from_static("lab/v1"));
    })
    .await;
    assert_eq!(refused.code(), Some("12"));
    assert_eq!(refused.head.headers["aegis-refused"], "not-served");
}

#[tokio::test]
async fn a_header_list_above_the_limit_ends_its_call_and_not_the_connection() {
    let (mesh, server, _lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    for length in [17_000, 64_000] {
        let mut request = post("Echo");
        request.headers_mut().insert("long", "x".repeat(length).parse().unwrap());
        match peer.call(request, Bytes::new()).await {
            Ok(answer) => assert_eq!(answer.head.status, 431),
            Err(error) => assert!(error.is_reset() && error.is_remote(), "{error:?}"),
        }
        for _ in 0..10 {
            peer.ask().await;
        }
    }
    let mut request = post("Echo");
    request.headers_mut().insert("long", "x".repeat(15_000).parse().unwrap());
    assert_eq!(peer.call(request, Bytes::new()).await.unwrap().code(), Some("0"));
}

/// What each `grpc-timeout` gets: a code, at once or never.
#[tokio::test]
async fn each_timeout_gets_its_documented_answer() {
    const OK: Option<&str> = Some("0");
    const INVALID: Option<&str> = Some("3");
    const EXCEEDED: Option<&str> = Some("4");
    let (mesh, server, lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    for (method, values, code) in [
        ("Seen", &["99999999H"][..], OK),
        ("Seen", &["1H"], OK),
        ("Seen", &[], OK),
        ("Forever", &["50m"], EXCEEDED),
        ("Forever", &["50000u"], EXCEEDED),
        ("Forever", &["1n"], EXCEEDED),
        // No time is no time, even where the handler would need none.
        ("Seen", &["0m"], EXCEEDED),
        ("Seen", &["0H"], EXCEEDED),
        ("Seen", &["100000000S"], INVALID),
        ("Seen", &["-1S"], INVALID),
        ("Seen", &["5"], INVALID),
        ("Seen", &[""], INVALID),
        ("Seen", &["S"], INVALID),
        ("Seen", &["1.5S"], INVALID),
        ("Seen", &["1s"], INVALID),
        ("Seen", &["\u{e9}"], INVALID),
        ("Seen", &["1S", "1S"], INVALID),
    ] {
        let mut request = post(method);
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request.headers_mut().append("grpc-timeout", value);
        }
        let calls = lab.seen.calls();
        let answer = tokio::time::timeout(crate::support::LIMIT, peer.call(request, Bytes::new()));
        let answer = answer.await.expect("the call hangs").unwrap();
        assert_eq!(answer.code(), code, "{values:?}: {answer:?}");
        if code == INVALID || values == ["0m"] {
            assert_eq!(lab.seen.calls(), calls, "{values:?} came to the handler");
        }
        peer.ask().await;
    }
}

#[tokio::test]
async fn a_call_whose_time_passed_while_it_waited_for_its_turn_does_not_run() {
    let (mesh, server, lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    peer.ask().await;
    let mut calls = Vec::new();
    // On one thread, so the last has to wait for the others, longer than it has time.
    for (method, timeout) in [("Sleep60", "1S"), ("Sleep60", "1S"), ("Seen", "100m")] {
        let mut request = post(method);
        request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
        calls.push(peer.open(request).await.unwrap());
    }
    let mut codes = Vec::new();
    for (answer, _stream) in calls {
        codes.push(read(answer.await.unwrap()).await.unwrap().code().map(str::to_owned));
    }
    assert_eq!(codes, ["0", "0", "4"].map(|code| Some(code.to_owned())));
    assert_eq!(lab.seen.calls(), 3, "it came to the handler");
}

#[tokio::test]
async fn an_answer_with_too_much_metadata_is_a_clear_error() {
    let (mesh, server, _lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    let answer = peer.call(post("Metadata"), Bytes::new()).await.unwrap();
    assert_eq!(answer.code(), Some("8"), "{answer:?}");
    assert!(answer.text().contains("metadata"), "{answer:?}");
    assert!(answer.data.is_empty() && !answer.head.headers.contains_key("long"));
    peer.ask().await;
    // A limit of the operator's own is kept to as well.
    let (mesh, server, _lab) = node(Limits::default().max_header_list_bytes(64 << 10)).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    assert_eq!(peer.call(post("Metadata"), Bytes::new()).await.unwrap().code(), Some("0"));
    // And to what the caller takes.
    let io = tls(mesh.ca(), "peer", server.local_addr()).await.unwrap();
    let peer = Peer::with(h2::client::Builder::new().max_header_list_size(16 << 10), io).await;
    let peer = peer.unwrap();
    let answer = peer.call(post("Metadata"), Bytes::new()).await.unwrap();
    assert_eq!(answer.code(), Some("8"), "{answer:?}");
    assert!(answer.text().contains("16384"), "{answer:?}");
    peer.ask().await;
}
