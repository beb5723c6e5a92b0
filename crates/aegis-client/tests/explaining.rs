//! Why a provider is not called: the verdicts that no other story shows, each by what makes it true.

use std::time::{Duration, Instant};

use aegis_client::{ServicePool, Verdict};
use aegis_core::NodeId;
use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use aegis_proto::identity::v1::{ValidateSessionRequest, ValidateSessionResponse};
use aegis_testing::{TestMesh, eventually};
use tokio::net::TcpListener;
use tonic::{Code, Request, Response, Status};

use crate::mesh::{IDENTITY, Mesh, PATIENCE, call, call_many, identity, send, timed};
use crate::provider::Provider;
use crate::raw::{Raw, RawPeer};

#[tokio::test]
async fn a_provider_in_its_first_attempt_is_connecting() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let pool = Mesh::new().builder(&[("silent", address)]).build().unwrap();
    let client = identity(&pool);
    client.get().expect("it may still connect");
    let explanation = client.explain();
    assert!(matches!(explanation.candidates[0].verdict, Verdict::Connecting { failures: 0 }));
    let line = format!("silent at {address}: connecting (0 picks)");
    assert!(explanation.to_string().contains(&line), "{explanation}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_falls_silent_gets_no_new_call_while_another_exists() {
    let mesh = Mesh::new();
    let silent = RawPeer::start(&mesh, "silent", Raw::Silence).await;
    let good = Provider::start(&mesh, "good").await;
    let addresses = [("good", good.address), ("silent", silent.address)];
    let pool = mesh.builder(&addresses).build().unwrap();
    let client = identity(&pool);
    client.wait_ready(2, PATIENCE).await.unwrap();
    // One of the two is with the silent one, which from then on answers nothing, PINGs neither.
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { (call(&client).await, call(&client).await) }
    });
    let id = NodeId::new("silent").unwrap();
    eventually(PATIENCE, || match &client.explain().candidate(&id).unwrap().verdict {
        Verdict::Stalled => Ok(()),
        verdict => Err(verdict.to_string()),
    })
    .await;
    let before = silent.requests();
    let counts = call_many(&client, 50).await.unwrap();
    assert_eq!(counts["good"], 50);
    assert_eq!(silent.requests(), before);
    waiting.abort();
}

// It may be merely busy, so a call that has no other place to go is worth a try.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_provider_is_called_although_it_is_silent() {
    let mesh = Mesh::new();
    let silent = RawPeer::start(&mesh, "silent", Raw::Silence).await;
    let pool = mesh.builder(&[("silent", silent.address)]).build().unwrap();
    let alone = identity(&pool);
    alone.wait_ready(1, PATIENCE).await.unwrap();
    let hanging = tokio::spawn({
        let alone = alone.clone();
        async move { call(&alone).await }
    });
    eventually(PATIENCE, || match &alone.explain().candidates[0].verdict {
        Verdict::Stalled => Ok(()),
        verdict => Err(verdict.to_string()),
    })
    .await;
    let status = send(&alone, timed(Duration::from_millis(100))).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("silent at 127.0.0.1"), "{status}");
    assert_eq!(alone.explain().candidates[0].picks, 2);
    hanging.abort();
}

/// Answers after a while.
struct Slow(Duration);

#[tonic::async_trait]
impl IdentityService for Slow {
    async fn validate_session(
        &self,
        _: Request<ValidateSessionRequest>,
    ) -> Result<Response<ValidateSessionResponse>, Status> {
        tokio::time::sleep(self.0).await;
        Ok(Response::new(ValidateSessionResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_drains_is_told_from_one_that_failed() {
    let mesh = TestMesh::in_memory();
    let seed = mesh.serve("seed", |node| node).await;
    let slow = IdentityServiceServer::new(Slow(Duration::from_millis(600)));
    let server = mesh.serve("a", |node| node.service(IDENTITY, slow)).await;
    let pool = ServicePool::builder()
        .tls(mesh.ca().options("vicky", "api-gateway"))
        .network(mesh.network())
        .seeds([seed.local_addr().to_string()])
        .build()
        .unwrap();
    let client = identity(&pool);
    client.wait_ready(1, PATIENCE).await.unwrap();
    let (under_way, began) = (call(&client), Instant::now());
    let draining = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.shutdown().await
    };
    let explaining = eventually(PATIENCE, || match client.explain().candidates.as_slice() {
        [it] if matches!(it.verdict, Verdict::Draining) => Ok(client.explain()),
        others => Err(format!("{others:?}")),
    });
    let (answer, shutdown, explanation) = tokio::join!(under_way, draining, explaining);
    answer.unwrap();
    shutdown.unwrap();
    assert!(Duration::from_millis(600) <= began.elapsed());
    assert!(explanation.to_string().contains("a at"), "{explanation}");
    assert!(explanation.to_string().contains(": draining"), "{explanation}");
}
