//! What peers that stall, lie or send nonsense can do, and what not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aegis_gossip::{Settings, SyncError};
use aegis_proto::mesh::v1 as wire;
use aegis_proto::mesh::v1::directory_service_server::DirectoryService;
use aegis_testing::{TestCa, eventually};
use aegis_topology::NodeState;
use bytes::Bytes;
use tonic::codegen::async_trait;
use tonic::{Code, Request, Response, Status};

use crate::mesh::{Node, SOON, Stranger, describe, now, push, record, shows, sign};

/// Holds whatever the caller holds.
pub(crate) struct Echo;

#[async_trait]
impl DirectoryService for Echo {
    async fn sync(
        &self,
        request: Request<wire::SyncRequest>,
    ) -> Result<Response<wire::SyncResponse>, Status> {
        let root = request.into_inner().root;
        Ok(Response::new(wire::SyncResponse { root, ..Default::default() }))
    }
}

/// Never answers.
struct Stalled;

#[async_trait]
impl DirectoryService for Stalled {
    async fn sync(
        &self,
        _: Request<wire::SyncRequest>,
    ) -> Result<Response<wire::SyncResponse>, Status> {
        std::future::pending().await
    }
}

/// Always claims to hold something else, which it never shows.
struct Liar {
    exchanges: Arc<AtomicUsize>,
}

#[async_trait]
impl DirectoryService for Liar {
    async fn sync(
        &self,
        request: Request<wire::SyncRequest>,
    ) -> Result<Response<wire::SyncResponse>, Status> {
        if request.get_ref().buckets.is_empty() {
            self.exchanges.fetch_add(1, Ordering::Relaxed);
        }
        let root = Bytes::from_static(&[7; 16]);
        Ok(Response::new(wire::SyncResponse { root, ..Default::default() }))
    }
}

/// Answers each call just in time, and always has one more page of nonsense.
struct Dripping;

#[async_trait]
impl DirectoryService for Dripping {
    async fn sync(
        &self,
        _: Request<wire::SyncRequest>,
    ) -> Result<Response<wire::SyncResponse>, Status> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let unknown =
            wire::Stamp { key: Bytes::from_static(&[1; 16]), incarnation: 1, ..Default::default() };
        Ok(Response::new(wire::SyncResponse {
            root: Bytes::from_static(&[7; 16]),
            recent: vec![unknown.clone()],
            stamps: vec![unknown],
            records: vec![nonsense(1)],
            next_page: Bytes::from_static(&[1]),
            ..Default::default()
        }))
    }
}

/// A record with a body that is none.
fn nonsense(body: u32) -> wire::SignedRecord {
    let chain = wire::CertificateChain::default();
    wire::SignedRecord {
        body: Bytes::copy_from_slice(&body.to_be_bytes()),
        certificate: Some(wire::signed_record::Certificate::Chain(chain)),
        ..Default::default()
    }
}

/// Syncs too rarely for a test, so that only pushes bring news.
fn pushing() -> Settings {
    let mut settings = Settings::default();
    settings.sync_every = Duration::from_secs(3_600);
    settings.seed_every = Duration::from_secs(3_600);
    settings.call_timeout = Duration::from_secs(60);
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stalls_does_not_keep_news_from_the_others() {
    let ca = TestCa::new();
    let a = Node::start_with(&ca, "a", "127.0.0.1:0", &[], pushing()).await;
    let b = Node::start_with(&ca, "b", "127.0.0.1:0", &[&a.address], pushing()).await;
    shows(&b.directory(), &["a", "b"]).await;
    let tls = ca.tls("stalled", "worker");
    let stalled = Stranger::start(&tls, Stalled).await;
    let mut own = record(&tls, "stalled");
    own.description = describe(&stalled.address);
    push(&tls, &a, [sign(&tls, &own)]).await;
    shows(&b.directory(), &["a", "b", "stalled"]).await;
    for (at, id) in ["n1", "n2", "n3", "n4", "n5", "n6"].into_iter().enumerate() {
        let tls = ca.tls(id, "worker");
        push(&tls, &a, [sign(&tls, &record(&tls, id))]).await;
        let seen = b.directory().wait_for(|it| it.nodes().len() == 4 + at, SOON).await;
        assert!(seen.is_ok(), "{id} did not reach b");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_whom_syncs_lead_to_nothing_is_still_told_that_a_node_drains() {
    let ca = TestCa::new();
    let mut settings = Settings::default();
    settings.sync_every = Duration::from_millis(2);
    let a = Node::start_with(&ca, "a", "127.0.0.1:0", &[], settings).await;
    let tls = ca.tls("liar", "worker");
    let exchanges = Arc::new(AtomicUsize::new(0));
    let liar = Stranger::start(&tls, Liar { exchanges: Arc::clone(&exchanges) }).await;
    let mut own = record(&tls, "liar");
    own.description = describe(&liar.address);
    push(&tls, &a, [sign(&tls, &own)]).await;
    eventually(5 * SOON, || match exchanges.load(Ordering::Relaxed) {
        8.. => Ok(()),
        few => Err(format!("{few} exchanges only")),
    })
    .await;
    let acknowledged = a.member.set_state(NodeState::Draining, SOON).await.unwrap();
    assert_eq!((acknowledged.asked, acknowledged.acknowledged), (1, 1));
}

#[tokio::test]
async fn records_that_cannot_be_read_cost_their_sender_its_budget() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let mallory = ca.tls("mallory", "worker");
    push(&mallory, &a, (0..4_000).map(nonsense)).await;
    let counters = a.member.counters();
    assert_eq!(counters.refused + counters.over_budget, 4_000);
    // Twice the rate at once, and what the time of the call adds.
    assert!((400..1_000).contains(&counters.refused), "{counters:?}");
    // Others have a budget of their own.
    let b = ca.tls("b", "worker");
    push(&b, &a, [sign(&b, &record(&b, "b"))]).await;
    shows(&a.directory(), &["a", "b"]).await;
}

#[tokio::test]
async fn a_record_whose_time_is_over_is_nothing_to_complain_about() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let b = ca.tls("b", "worker");
    let mut over = record(&b, "b");
    over.issued_at = now().saturating_sub(Duration::from_secs(60));
    over.expires_at = now().saturating_sub(Duration::from_millis(1));
    push(&b, &a, [sign(&b, &over)]).await;
    assert_eq!(a.member.counters().refused, 0);
    assert_eq!(a.directory().snapshot().nodes().len(), 1);
}

#[tokio::test]
async fn a_malformed_record_does_not_take_the_others_of_its_message_along() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let b = ca.tls("b", "worker");
    let malformed = wire::SignedRecord::default();
    push(&b, &a, [malformed, sign(&b, &record(&b, "b")).into()]).await;
    shows(&a.directory(), &["a", "b"]).await;
    assert_eq!(a.member.counters().refused, 1);
}

#[tokio::test]
async fn a_sync_ends_though_its_peer_always_has_one_more_answer() {
    let ca = TestCa::new();
    let mut settings = Settings::default();
    settings.call_timeout = Duration::from_millis(100);
    let a = Node::start_with(&ca, "a", "127.0.0.1:0", &[], settings).await;
    let dripping = Stranger::start(&ca.tls("dripping", "worker"), Dripping).await;
    let sync = a.member.sync_now(&dripping.address);
    // All calls that one exchange may have would take a dozen seconds.
    let error = tokio::time::timeout(3 * SOON, sync).await.unwrap().unwrap_err();
    let SyncError::Call { status, .. } = &error else { panic!("{error}") };
    assert_eq!(status.code(), Code::DeadlineExceeded);
}
