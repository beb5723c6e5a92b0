//! This crate under tonic's own server, without the rest of aegis.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use aegis_testing::TestCa;
use aegis_tls::{Accepted, Caller, Expected, ServerStream, Tls};
use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::server::Connected;

use crate::support::id;

/// What a user writes: tonic puts the `ConnectInfo` into the extensions of each request.
struct Connection(Accepted<DuplexStream>);

impl Connection {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut ServerStream<DuplexStream>> {
        Pin::new(&mut self.get_mut().0.stream)
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.0.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

/// Makes `calls` unary calls over one connection of the client's own.
async fn call(client: &Tls, io: DuplexStream, calls: usize) {
    let connected = client.connect(Expected::Node(&id("morpheus-1")), io).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(connected.stream).await.unwrap();
    let driver = tokio::spawn(connection);
    for _ in 0..calls {
        let request = Request::post("https://morpheus-1/grpc.health.v1.Health/Check")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        requests = requests.ready().await.unwrap();
        let (response, mut body) = requests.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        let mut response = response.await.unwrap().into_body();
        while let Some(chunk) = response.data().await {
            response.flow_control().release_capacity(chunk.unwrap().len()).unwrap();
        }
        let trailers = response.trailers().await.unwrap().unwrap();
        assert_eq!(trailers.get("grpc-status").unwrap(), "0");
    }
    drop(requests);
    driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_handler_under_plain_tonic_knows_its_caller_and_pays_for_it_once() {
    let ca = TestCa::new();
    let (server, vicky, mouse) =
        (ca.tls("morpheus-1", "worker"), ca.tls("vicky", "gateway"), ca.tls("mouse-1", "worker"));
    let callers = Arc::new(Mutex::new(Vec::new()));
    let (_reporter, health) = tonic_health::server::health_reporter();
    let seen = Arc::clone(&callers);
    let health = tonic::service::interceptor::InterceptedService::new(
        health,
        move |request: tonic::Request<()>| {
            seen.lock().unwrap().push(Caller::from_request(&request)?.node_id().to_string());
            Ok(request)
        },
    );

    let (connections, incoming) = tokio::sync::mpsc::unbounded_channel();
    let serve = tonic::transport::Server::builder()
        .add_service(health)
        .serve_with_incoming(UnboundedReceiverStream::new(incoming));
    let calls = async {
        for (client, calls, connection) in [(&vicky, 1_000, 1), (&mouse, 1, 2)] {
            let (near, far) = duplex(64 * 1024);
            let accept = async {
                let accepted = server.accept(far).await.unwrap();
                connections.send(io::Result::Ok(Connection(accepted))).ok().unwrap();
            };
            tokio::join!(call(client, near, calls), accept);
            assert_eq!(server.parsed_certificates(), connection);
        }
        drop(connections);
    };
    let (outcome, ()) = tokio::join!(serve, calls);
    outcome.unwrap();
    let callers = callers.lock().unwrap();
    assert_eq!(callers.len(), 1_001);
    assert_eq!(callers.iter().filter(|caller| *caller == "vicky").count(), 1_000);
    assert_eq!(callers.last().unwrap(), "mouse-1");
}
