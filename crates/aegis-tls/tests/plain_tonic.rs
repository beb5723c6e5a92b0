//! This crate under tonic's own server, without the rest of aegis.

use std::io;
use std::sync::{Arc, Mutex};

use aegis_testing::TestCa;
use aegis_tls::{Caller, Expected, Tls};
use bytes::Bytes;
use http::Request;
use tokio::io::{DuplexStream, duplex};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::support::id;

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
                connections.send(io::Result::Ok(accepted)).ok().unwrap();
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
