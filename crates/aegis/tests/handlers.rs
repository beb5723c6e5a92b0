//! What handlers see, and what the server makes of what they do.

use std::time::Duration;

use aegis::client::RequestExt as _;
use aegis::{ServiceClient, ServiceInfo};
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_proto::identity::v1::{GetUserRequest, SubscribeSessionEventsRequest};
use aegis_testing::{TestMesh, eventually};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};

use crate::service::{IDENTITY_V1, Identity, LIMIT, ask, client, ready};

const LAST_V1: ServiceInfo = ServiceInfo::from_static("last", "v1");

#[tokio::test]
async fn a_handler_knows_its_caller_by_the_certificate_not_by_headers() {
    let mesh = TestMesh::in_memory();
    let _a = mesh.serve("a", |node| Identity::new("a").on(node)).await;
    let c = mesh.node("c");
    let identity = ready(&c.pool(), 1).await;
    let mut request = Request::new(GetUserRequest::default());
    for forged in
        ["x-forwarded-client-cert", "caller", "caller-id", "aegis-service", "aegis-caller"]
    {
        request
            .metadata_mut()
            .insert(forged, "spiffe://mesh.test/aegis/admin/root".parse().unwrap());
    }
    let reply = identity.get().unwrap().get_user(request).await.unwrap().into_inner();
    assert_eq!(reply.email, c.spiffe_id().to_string());
    assert!(reply.avatar_url.contains("aegis/"), "the user agent is {}", reply.avatar_url);
}

#[tokio::test]
async fn a_handler_sees_both_socket_addresses() {
    let mesh = TestMesh::loopback();
    let a = mesh.serve("a", |node| Identity::new("a").on(node)).await;
    let identity = ready(&mesh.node("c").pool(), 1).await;
    let reply = ask(&identity, "addresses").await.unwrap();
    let (remote, local) = reply.id.split_once(' ').unwrap();
    assert!(remote.starts_with("127.0.0.1:"), "{reply:?}");
    assert_eq!(local, a.local_addr().to_string());
}

#[tokio::test]
async fn a_panic_ends_its_call_and_nothing_else() {
    let mesh = TestMesh::in_memory();
    let a = mesh.serve("a", |node| Identity::new("a").on(node)).await;
    let identity = ready(&mesh.node("c").pool(), 1).await;
    let accepted = a.stats().accepted;
    assert_eq!(ask(&identity, "panic at the disco").await.unwrap_err().code(), Code::Internal);
    assert_eq!(ask(&identity, "1").await.unwrap().name, "a");
    assert_eq!(a.stats().accepted, accepted, "the connection was replaced");
}

#[tokio::test]
async fn an_expired_deadline_is_told_as_such_and_cancels_the_handler() {
    let mesh = TestMesh::in_memory();
    let identity = Identity::new("a");
    let _a = mesh.serve("a", |node| identity.on(node)).await;
    let client = ready(&mesh.node("c").pool(), 1).await;
    for _ in 0..10 {
        let mut request = Request::new(GetUserRequest { user_id: "forever".to_owned() });
        request.set_timeout(Duration::from_millis(50));
        let status = client.get().unwrap().get_user(request).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    }
    eventually(LIMIT, || match (identity.seen.calls(), identity.seen.cancelled()) {
        (10, 10) => Ok(()),
        (calls, cancelled) => Err(format!("{cancelled} of {calls} handlers were cancelled")),
    })
    .await;
    assert_eq!(identity.seen.finished(), 0);
}

#[tokio::test]
async fn a_deadline_ends_a_stream_too() {
    let mesh = TestMesh::in_memory();
    let identity = Identity::new("a");
    let _a = mesh.serve("a", |node| identity.on(node)).await;
    let client = ready(&mesh.node("c").pool(), 1).await;
    let mut request = Request::new(SubscribeSessionEventsRequest {});
    request.set_timeout(Duration::from_millis(200));
    let mut events =
        client.get().unwrap().subscribe_session_events(request).await.unwrap().into_inner();
    let mut count = 0;
    let status = loop {
        match events.message().await {
            Ok(Some(_)) => count += 1,
            Ok(None) => panic!("the stream ended well"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(0 < count, "no event came before the deadline");
    eventually(LIMIT, || {
        if identity.seen.cancelled() == 1 { Ok(()) } else { Err("the handler's stream lives") }
    })
    .await;
}

#[tokio::test]
async fn a_call_that_its_caller_drops_is_dropped_by_the_server() {
    let mesh = TestMesh::in_memory();
    let identity = Identity::new("a");
    let _a = mesh.serve("a", |node| identity.on(node)).await;
    let client = ready(&mesh.node("c").pool(), 1).await;
    let call = tokio::spawn(async move { ask(&client, "forever").await });
    eventually(LIMIT, || if identity.seen.calls() == 1 { Ok(()) } else { Err("not called") }).await;
    call.abort();
    eventually(LIMIT, || {
        if identity.seen.cancelled() == 1 { Ok(()) } else { Err("the handler lives") }
    })
    .await;
}

#[tokio::test]
async fn a_long_error_text_is_shortened_and_keeps_its_code() {
    let mesh = TestMesh::in_memory();
    let _a = mesh.serve("a", |node| Identity::new("a").on(node)).await;
    let identity = ready(&mesh.node("c").pool(), 1).await;
    let status = ask(&identity, &format!("fail {}", "e".repeat(100_000))).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().ends_with("[shortened]"));
    for _ in 0..10 {
        ask(&identity, "1").await.unwrap();
    }
}

#[tokio::test]
async fn an_error_text_arrives_as_it_was_written() {
    let mesh = TestMesh::in_memory();
    let _a = mesh.serve("a", |node| Identity::new("a").on(node)).await;
    let identity = ready(&mesh.node("c").pool(), 1).await;
    let text = "100% é\n😀 %zz";
    assert_eq!(ask(&identity, &format!("fail {text}")).await.unwrap_err().message(), text);
}

#[tokio::test]
async fn a_message_above_the_limit_ends_its_call_in_either_direction() {
    let mesh = TestMesh::in_memory();
    let _a = mesh.serve("a", |node| Identity::new("a").on(node)).await;
    let identity = client(&mesh.node("c").pool());
    let large = |bytes| format!("large {bytes}");
    let roomy = || identity.get().unwrap().max_decoding_message_size(64 << 20);
    let sent =
        roomy().get_user(GetUserRequest { user_id: large(5 << 20) }.waiting()).await.unwrap_err();
    assert_eq!(sent.code(), Code::ResourceExhausted, "{sent}");
    let received =
        roomy().get_user(GetUserRequest { user_id: "x".repeat(5 << 20) }).await.unwrap_err();
    assert_eq!(received.code(), Code::ResourceExhausted, "{received}");
    // Just below, both ways.
    roomy().get_user(GetUserRequest { user_id: large((4 << 20) - 1_000) }).await.unwrap();
    roomy().get_user(GetUserRequest { user_id: "x".repeat((4 << 20) - 1_000) }).await.unwrap();
}

/// A request that waits for a provider.
trait Waiting: Sized {
    fn waiting(self) -> Request<Self> {
        Request::new(self).wait_ready()
    }
}

impl Waiting for GetUserRequest {}

#[tokio::test]
async fn compression_works_both_ways() {
    let mesh = TestMesh::in_memory();
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let id = format!("{encoding}");
        let server =
            Identity::new(&id).server().accept_compressed(encoding).send_compressed(encoding);
        let a = mesh.serve(&id, |node| node.service(IDENTITY_V1, server)).await;
        let pool = mesh.node("c").pool();
        let identity = ServiceClient::new(&pool, IDENTITY_V1, move |channel| {
            IdentityServiceClient::new(channel)
                .accept_compressed(encoding)
                .send_compressed(encoding)
        });
        identity.wait_ready(1, LIMIT).await.unwrap();
        let reply = identity
            .get()
            .unwrap()
            .get_user(GetUserRequest { user_id: "compress".to_owned() })
            .await
            .unwrap();
        assert_eq!(reply.metadata().get("grpc-encoding").unwrap(), id.as_str());
        assert_eq!(reply.into_inner().id.len(), 100_000);
        a.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn the_error_of_a_layer_is_a_status() {
    #[derive(Clone)]
    struct Refuse;
    impl<S> tower_layer::Layer<S> for Refuse {
        type Service = Self;
        fn layer(&self, _: S) -> Self {
            Self
        }
    }
    impl tonic::codegen::Service<http::Request<tonic::body::Body>> for Refuse {
        type Response = http::Response<tonic::body::Body>;
        type Error = tonic::Status;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;
        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Self::Error>> {
            std::task::Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
            std::future::ready(Err(tonic::Status::permission_denied("not today")))
        }
    }
    let mesh = TestMesh::in_memory();
    let _a = mesh.serve("a", |node| Identity::new("a").on(node).layer(Refuse)).await;
    let identity = ready(&mesh.node("c").pool(), 1).await;
    let status = ask(&identity, "1").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "not today"));
}

#[tokio::test]
async fn no_call_pays_for_certificates() {
    let mesh = TestMesh::in_memory();
    let a = mesh.serve("a", |node| Identity::new("a").on(node)).await;
    let b = mesh.node("b");
    let identity = ready(&b.pool(), 1).await;
    let before = a.stats();
    assert_eq!(before.certificates_parsed, before.accepted, "one for each connection");
    for _ in 0..1_000 {
        ask(&identity, "1").await.unwrap();
    }
    assert_eq!(a.stats().certificates_parsed, before.certificates_parsed);
    assert!(before.calls + 1_000 <= a.stats().calls);
    ready(&mesh.node("c").pool(), 1).await;
    assert_eq!(a.stats().certificates_parsed, a.stats().accepted);
    assert!(before.certificates_parsed < a.stats().certificates_parsed);
}

#[tokio::test]
async fn a_call_made_in_a_handler_ends_with_the_call_it_is_made_for() {
    let mesh = TestMesh::in_memory();
    let last = Identity::new("last");
    let _last = mesh.serve("last", |node| node.service(LAST_V1, last.server())).await;
    let middle_pool = mesh.node("m").pool();
    let to_last = ServiceClient::new(&middle_pool, LAST_V1, IdentityServiceClient::new);
    to_last.wait_ready(1, LIMIT).await.unwrap();
    let middle = Identity::new("middle").relaying(to_last);
    let _middle = mesh.serve("middle", |node| middle.on(node)).await;
    let client = ready(&mesh.node("c").pool(), 1).await;

    let mut request = Request::new(GetUserRequest { user_id: "relay forever".to_owned() });
    request.set_timeout(Duration::from_millis(200));
    let status = client.get().unwrap().get_user(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    eventually(LIMIT, || match (last.seen.calls(), last.seen.cancelled()) {
        (1, 1) => Ok(()),
        (calls, cancelled) => Err(format!("{cancelled} of {calls} calls ended")),
    })
    .await;
}

#[tokio::test]
async fn a_status_that_a_handler_passes_on_is_no_refusal_of_its_own() {
    let mesh = TestMesh::in_memory();
    let (a, b) = (Identity::new("a"), Identity::new("b"));
    let _a = mesh.serve("a", |node| a.on(node)).await;
    let _b = mesh.serve("b", |node| b.on(node)).await;
    let client = ready(&mesh.node("c").pool(), 2).await;
    let status = ask(&client, "refuse").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.metadata().get("aegis-refused").is_none(), "{status:?}");
    assert_eq!(a.seen.calls() + b.seen.calls(), 1, "the call was made again elsewhere");
}
