//! Why a provider is not called: the verdicts that no other story shows, each by what makes it true.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aegis_client::{ConnectionCounts, PoolOptions, ServiceClient, ServicePool, Settings, Verdict};
use aegis_core::NodeId;
use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use aegis_proto::identity::v1::{ValidateSessionRequest, ValidateSessionResponse};
use aegis_testing::{TestMesh, eventually};
use aegis_tls::Subject;
use aegis_topology::{Description, Label, NodeEntry, Publisher, Root, ServiceEntry};
use aegis_transport::{Connections, Tcp};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::{Code, Request, Response, Status};

use crate::mesh::{
    Client, IDENTITY, Mesh, PATIENCE, assert_status, call, call_many, identity, one_connection,
    send, timed,
};
use crate::provider::{Act, Provider};
use crate::raw::{Raw, RawPeer};

#[tokio::test]
async fn a_provider_in_its_first_attempt_is_connecting() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let pool = Mesh::new().builder(&[("silent", address)]).build().unwrap();
    let client = identity(&pool);
    client.get().expect("it may still connect");
    let explanation = client.explain();
    assert!(matches!(explanation.candidates[0].verdict, Verdict::Connecting { failures: 0, .. }));
    let line = format!("silent at {address}: connecting (0 picks)");
    assert!(explanation.to_string().contains(&line), "{explanation}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_falls_silent_gets_no_new_call_while_another_exists() {
    let mesh = Mesh::new();
    let silent = RawPeer::start(&mesh, "silent", Raw::Silence { streams: 100 }).await;
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
    let candidate = client.explain().candidate(&id).unwrap().clone();
    assert_eq!((candidate.connections.stalls, candidate.connections.lost), (1, 0));
    assert!(client.explain().to_string().contains("connection stalled once"));
    let before = silent.requests();
    let counts = call_many(&client, 50).await.unwrap();
    assert_eq!(counts["good"], 50);
    assert_eq!(silent.requests(), before);
    waiting.abort();
}

/// Of the only candidate, once they are as they should be.
async fn counted(
    client: &ServiceClient<Client>,
    expected: fn(&ConnectionCounts) -> bool,
) -> String {
    eventually(PATIENCE, || {
        let explanation = client.explain();
        match explanation.candidates.as_slice() {
            [it] if expected(&it.connections) => Ok(explanation.to_string()),
            others => Err(format!("{others:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_to_connections_is_counted() {
    let mesh = Mesh::new();
    let address = Provider::start(&mesh, "a").await.kill().await;
    let pool = mesh.builder(&[("a", address)]).build().unwrap();
    let unasked = pool.explain(&IDENTITY).candidates[0].connections;
    assert_eq!(unasked, ConnectionCounts::default());
    let client = identity(&pool);
    let line = counted(&client, |it| 0 < it.dial_failures && it.dial_failures <= it.dials).await;
    assert!(line.contains("(0 picks; connection dialled in vain"), "{line}");
    assert_eq!(client.explain().candidates[0].connections.established, 0);

    let provider = Provider::bind(&mesh, "a", address).await;
    client.wait_ready(1, PATIENCE).await.unwrap();
    counted(&client, |it| it.established == 1 && it.dials == it.dial_failures + 1).await;
    provider.once(Act::GoAway);
    call(&client).await.unwrap();
    let line = counted(&client, |it| (it.go_aways, it.lost, it.established) == (1, 0, 2)).await;
    assert!(line.contains(", sent away once)"), "{line}");
    client.wait_ready(1, PATIENCE).await.unwrap();
    provider.once(Act::Cut);
    call(&client).await.unwrap_err();
    let line = counted(&client, |it| (it.go_aways, it.lost, it.established) == (1, 1, 3)).await;
    assert!(line.contains(", sent away once, lost once)"), "{line}");
    counted(&client, |it| it.stalls == 0 && it.dials == it.dial_failures + 3).await;
}

// It may be merely busy, so a call that has no other place to go is worth a try.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_provider_is_called_although_it_is_silent() {
    let mesh = Mesh::new();
    let silent = RawPeer::start(&mesh, "silent", Raw::Silence { streams: 100 }).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_providers_take_turns_where_there_is_no_other() {
    let mesh = Mesh::new();
    let one = RawPeer::start(&mesh, "one", Raw::Silence { streams: 100 }).await;
    let two = RawPeer::start(&mesh, "two", Raw::Silence { streams: 100 }).await;
    let pool = mesh.builder(&[("one", one.address), ("two", two.address)]).build().unwrap();
    let client = identity(&pool);
    client.wait_ready(2, PATIENCE).await.unwrap();
    let _hanging = hang(&client, 2);
    until_stalled(&client).await;
    for _ in 0..4 {
        let status = send(&client, timed(Duration::from_millis(50))).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }
    let picks: Vec<_> = client.explain().candidates.iter().map(|it| it.picks).collect();
    assert_eq!(picks, [3, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_wait_for_a_stream_of_the_only_provider_although_it_is_silent() {
    let mesh = Mesh::new();
    let silent = RawPeer::start(&mesh, "silent", Raw::Silence { streams: 1 }).await;
    let addresses = [("silent", silent.address)];
    // Or a second connection is made before it falls silent.
    let pool = mesh.builder(&addresses).settings(one_connection()).build().unwrap();
    let client = identity(&pool);
    client.wait_ready(1, PATIENCE).await.unwrap();
    let pinned = client.pinned().unwrap();
    let mut hanging = hang(&client, 1);
    until_stalled(&client).await;
    let status = send(&client, timed(Duration::from_millis(200))).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, &["waited for a stream"]);
    let status = pinned.clone().validate_session(timed(Duration::from_millis(200))).await;
    assert_status(&status.unwrap_err(), Code::DeadlineExceeded, &["waited for a stream"]);
    assert_eq!(client.explain().candidates[0].picks, 1);
    // The stream that becomes free is theirs, although PINGs are not answered.
    hanging.shutdown().await;
    let status = send(&client, timed(Duration::from_millis(400))).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, &["node silent at"]);
    assert_eq!(client.explain().candidates[0].picks, 2);
}

fn hang(client: &ServiceClient<Client>, calls: usize) -> JoinSet<()> {
    let mut hanging = JoinSet::new();
    for _ in 0..calls {
        let client = client.clone();
        hanging.spawn(async move { drop(call(&client).await) });
    }
    hanging
}

async fn until_stalled(client: &ServiceClient<Client>) {
    eventually(PATIENCE, || {
        let explanation = client.explain();
        match explanation.candidates.iter().find(|it| !matches!(it.verdict, Verdict::Stalled)) {
            None => Ok(()),
            Some(other) => Err(other.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_was_just_learnt_of_is_connecting() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let tls = mesh.options().load(&Subject::any()).unwrap();
    let connections = Connections::new(tls.clone(), Arc::new(Tcp::default()), Settings::default());
    let publisher = Publisher::fixed([]);
    let pool = ServicePool::for_node(
        publisher.directory(),
        connections,
        tls,
        Arc::new(()),
        PoolOptions::default(),
    );
    assert!(pool.explain(&IDENTITY).candidates.is_empty());
    let client = identity(&pool);
    let entry = || {
        let address = provider.address.to_string().parse().unwrap();
        let services = [ServiceEntry::new(IDENTITY)];
        let description = Description::new(Label::default(), [address], services).unwrap();
        Arc::new(NodeEntry::fixed(NodeId::new("a").unwrap(), description))
    };
    publisher.publish(Root::default(), [entry()]);
    // The pool's task has not run since.
    assert!(matches!(
        client.explain().candidates[0].verdict,
        Verdict::Connecting { failures: 0, .. }
    ));
    client.wait_ready(1, PATIENCE).await.unwrap();
    assert!(client.explain().candidates[0].verdict.is_eligible());
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
