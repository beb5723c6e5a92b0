//! Connections are replaced when they are old, and nobody notices.

use std::time::{Duration, Instant};

use aegis::Limits;
use aegis_proto::identity::v1::SubscribeSessionEventsRequest;
use aegis_testing::TestMesh;

use crate::service::{Identity, SECOND, ask, ready};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_of_age_is_replaced_without_a_failed_call() {
    let mesh = TestMesh::loopback();
    let limits = Limits::default().max_connection_age(SECOND, Duration::from_secs(60));
    let a = mesh.serve("a", |node| Identity::new("a").on(node).limits(limits)).await;
    let pool = mesh.node("c").pool();
    let identity = ready(&pool, 1).await;
    let mut events = identity
        .get()
        .unwrap()
        .subscribe_session_events(SubscribeSessionEventsRequest {})
        .await
        .unwrap()
        .into_inner();
    let subscription = tokio::spawn(async move {
        let mut count = 0;
        while let Some(_event) = events.message().await? {
            count += 1;
        }
        Ok::<u32, tonic::Status>(count)
    });

    let end = Instant::now() + Duration::from_secs(10);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let identity = identity.clone();
        callers.spawn(async move {
            let mut calls = 0;
            while Instant::now() < end {
                ask(&identity, "1").await?;
                calls += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok::<u32, tonic::Status>(calls)
        });
    }
    let results = callers.join_all().await;
    let calls: u32 = results.into_iter().map(Result::unwrap).sum();
    println!("{calls} calls, none failed, over {} connections", a.stats().accepted);
    assert!(1_000 < calls, "only {calls} calls were made");
    assert!(8 <= a.stats().accepted, "{:?}", a.stats());
    // The stream has outlived its connection's age ten times over.
    assert!(!subscription.is_finished());
    subscription.abort();
}
