//! When a call ends, whatever the provider does.

use std::time::{Duration, Instant};

use aegis_client::{RequestExt as _, ServiceClient, deadline};
use aegis_proto::identity::v1::SubscribeSessionEventsRequest;
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_testing::eventually;
use tonic::{Code, Request};
use tower_service::Service as _;

use crate::bodies::{Pieces, upload};
use crate::mesh::{
    IDENTITY, Mesh, PATIENCE, assert_status, call, fill, identity, request, send, timed,
};
use crate::provider::{Act, Provider};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_handler_is_given_up_at_the_deadline() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "slow").await;
    provider.always(Act::AnswerAfter(Duration::from_secs(2)));
    let (_pool, client) = mesh.connected(&[&provider]).await;
    let began = Instant::now();
    let calls = (0..50).map(|_| send(&client, timed(SHORT)));
    for outcome in futures_util::future::join_all(calls).await {
        let status = outcome.unwrap_err();
        assert_status(&status, Code::DeadlineExceeded, &["slow at 127.0.0.1", "attempt 1"]);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // The provider learns of it, so that the handler can stop.
    eventually(PATIENCE, || match provider.reset() {
        50 => Ok(()),
        some => Err(format!("{some} of 50 streams were reset")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_at_the_deadline_too() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    provider.always(Act::Stream);
    let (_pool, client) = mesh.connected(&[&provider]).await;
    let mut subscribe = Request::new(SubscribeSessionEventsRequest::default());
    subscribe.set_timeout(SHORT);
    let stream = client.get().unwrap().subscribe_session_events(subscribe).await.unwrap();
    let mut stream = stream.into_inner();
    let mut events = 0;
    let status = loop {
        match stream.message().await {
            Ok(event) => events += usize::from(event.is_some()),
            Err(status) => break status,
        }
    };
    assert_status(&status, Code::DeadlineExceeded, &["a at 127.0.0.1"]);
    assert!(0 < events);
}

#[tokio::test]
async fn the_provider_is_told_what_remains() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let pool = mesh.pool(&[&provider]);
    let client = identity(&pool);
    // From a cold start, so that part of the deadline goes into connecting.
    send(&client, timed(Duration::from_secs(9))).await.unwrap();
    let header = provider.last_headers()["grpc-timeout"].to_str().unwrap().to_owned();
    let micros: u64 = header.strip_suffix('u').expect(&header).parse().unwrap();
    assert!((8_000_000..9_000_000).contains(&micros), "{header}");
    // Without a deadline nothing is said: the local limit is nobody else's business.
    call(&client).await.unwrap();
    assert!(!provider.last_headers().contains_key("grpc-timeout"));
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_not_sent() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (_pool, client) = mesh.connected(&[&provider]).await;
    for timeout in [Duration::ZERO, Duration::from_nanos(1)] {
        let status = send(&client, timed(timeout)).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{timeout:?}");
    }
    let past = Instant::now();
    for own in [request(), timed(PATIENCE)] {
        let status = deadline::scope(past, send(&client, own)).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }
    assert_eq!(provider.requests(), 0);
    call(&client).await.unwrap();
}

#[tokio::test]
async fn long_and_malformed_timeouts_are_taken_or_refused_but_never_fire_at_once() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (_pool, client) = mesh.connected(&[&provider]).await;
    for days in [30, 3 * 365, 1_000_000] {
        send(&client, timed(Duration::from_secs(days * 86_400))).await.unwrap();
        let header = provider.last_headers()["grpc-timeout"].clone();
        assert!(header.len() <= 9, "{header:?}");
    }
    let before = provider.requests();
    let written = |values: &[&str]| {
        let mut request = request();
        for value in values {
            request.metadata_mut().append("grpc-timeout", value.parse().unwrap());
        }
        request
    };
    for malformed in [&["100000000S"][..], &["-1S"], &["5"], &[""], &["1.5S"], &["1S", "1S"]] {
        let status = send(&client, written(malformed)).await.unwrap_err();
        assert_status(&status, Code::InvalidArgument, &["grpc-timeout"]);
    }
    let status = send(&client, written(&["0m"])).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(provider.requests(), before);
    send(&client, written(&["99999999H"])).await.unwrap();
    // Ten years are as good as all of them.
    let header = provider.last_headers()["grpc-timeout"].to_str().unwrap().to_owned();
    let minutes: u64 = header.strip_suffix('M').expect(&header).parse().unwrap();
    assert_eq!(minutes, 10 * 365 * 24 * 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_made_in_a_handler_ends_by_the_handlers_deadline() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    provider.always(Act::Hang);
    let (_pool, client) = mesh.connected(&[&provider]).await;
    let began = Instant::now();
    let outcome =
        deadline::scope(began + SHORT, send(&client, timed(Duration::from_secs(3)))).await;
    assert_eq!(outcome.unwrap_err().code(), Code::DeadlineExceeded);
    assert!(SHORT <= began.elapsed() && began.elapsed() < Duration::from_secs(2));
    let header = provider.last_headers()["grpc-timeout"].to_str().unwrap().to_owned();
    let micros: u64 = header.strip_suffix('u').expect(&header).parse().unwrap();
    assert!(micros <= 200_000, "{header}");
    // The shorter of the two counts, whichever it is.
    let far = Instant::now() + Duration::from_secs(60);
    let outcome = deadline::scope(far, send(&client, timed(Duration::from_millis(20)))).await;
    assert_eq!(outcome.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_call_may_leave_the_handlers_deadline_aside() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    provider.always(Act::AnswerAfter(Duration::from_millis(50)));
    let (_pool, client) = mesh.connected(&[&provider]).await;
    let soon = Instant::now() + Duration::from_millis(10);
    deadline::scope(soon, send(&client, request().without_inherited_deadline())).await.unwrap();
    assert!(!provider.last_headers().contains_key("grpc-timeout"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_a_deadline_ends_by_the_response_limit() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    provider.always(Act::Hang);
    let pool = mesh.builder(&[("a", provider.address)]).response_limit(SHORT).build().unwrap();
    let client = identity(&pool);
    client.wait_ready(1, PATIENCE).await.unwrap();
    let status = call(&client).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, &["response_limit of 200ms", "a at 127.0.0.1"]);
    // A deadline takes its place, also a longer one.
    provider.always(Act::AnswerAfter(SHORT * 2));
    send(&client, timed(PATIENCE)).await.unwrap();
    // It ends with the headers: a stream may take longer.
    provider.always(Act::Stream);
    let subscribe = SubscribeSessionEventsRequest::default();
    let stream = client.get().unwrap().subscribe_session_events(subscribe).await.unwrap();
    let (mut stream, began) = (stream.into_inner(), Instant::now());
    while began.elapsed() < SHORT * 2 {
        stream.message().await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_response_limit_is_changed_and_switched_off_by_name() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    provider.always(Act::AnswerAfter(SHORT));
    let pool = mesh
        .builder(&[("a", provider.address)])
        .response_limit(Duration::from_millis(20))
        .build()
        .unwrap();
    for (limited, code) in [(true, Some(Code::DeadlineExceeded)), (false, None)] {
        let factory = move |channel: aegis_client::ServiceChannel| {
            IdentityServiceClient::new(if limited { channel } else { channel.no_response_limit() })
        };
        let client = ServiceClient::new(&pool, IDENTITY, factory);
        client.wait_ready(1, PATIENCE).await.unwrap();
        assert_eq!(call(&client).await.err().map(|it| it.code()), code);
    }
    let channel = pool.channel(IDENTITY).response_limit(PATIENCE);
    IdentityServiceClient::new(channel).validate_session(request()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_provider_is_limited_only_when_asked() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    provider.always(Act::AnswerAfter(SHORT));
    let builder = || {
        let address = provider.address.to_string();
        aegis_client::ServicePool::builder().tls(mesh.options()).foreign_provider(
            "a",
            address,
            [IDENTITY],
        )
    };
    let limited = identity(&builder().response_limit(SHORT / 10).build().unwrap());
    limited.wait_ready(1, PATIENCE).await.unwrap();
    assert_eq!(call(&limited).await.unwrap_err().code(), Code::DeadlineExceeded);
    let unlimited = identity(&builder().build().unwrap());
    call(&unlimited).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_never_gets_a_stream_says_so() {
    let mesh = Mesh::new();
    let provider = Provider::with_streams(&mesh, "narrow", 1).await;
    provider.always(Act::Hang);
    let (pool, client) = mesh.connected(&[&provider]).await;
    let _hanging = fill(&client, "narrow").await;
    let status = send(&client, timed(SHORT)).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, &["waited for a stream"]);
    let channel = pool.channel(IDENTITY).response_limit(SHORT);
    let status = IdentityServiceClient::new(channel).validate_session(request()).await.unwrap_err();
    let words = ["response_limit of 200ms", "waited for a stream", "identity/v1"];
    assert_status(&status, Code::ResourceExhausted, &words);
    assert_eq!(provider.requests(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_piece_of_the_request_restarts_the_response_limit() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let pool = mesh.pool(&[&provider]);
    let mut channel = pool.channel(IDENTITY).response_limit(SHORT);
    channel.wait_ready(1, PATIENCE).await.unwrap();
    let pieces = Pieces::new(&[10; 5], false).every(SHORT / 2);
    let began = Instant::now();
    channel.call(upload(pieces)).await.unwrap();
    assert!(SHORT * 2 < began.elapsed());
    // A piece that does not come ends it.
    let pieces = Pieces::new(&[10; 5], false).every(SHORT * 2);
    let status = channel.call(upload(pieces)).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, &["response_limit of 200ms"]);
    // So does a window that does not open.
    provider.always(Act::Ignore);
    let status = channel.call(upload(Pieces::new(&[100_000; 50], false))).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, &["response_limit of 200ms"]);
}
