//! How a pool ends.

use std::time::Duration;

use aegis_proto::identity::v1::SubscribeSessionEventsRequest;
use aegis_testing::eventually;

use crate::mesh::{Mesh, PATIENCE, call};
use crate::provider::{Act, Provider};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_waits_for_the_calls_under_way() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    provider.always(Act::AnswerAfter(Duration::from_millis(200)));
    let (pool, client) = mesh.connected(&[&provider]).await;
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { call(&client).await })
        })
        .collect();
    eventually(PATIENCE, || match provider.requests() {
        10 => Ok(()),
        some => Err(format!("{some} of 10 calls arrived")),
    })
    .await;
    pool.close().await;
    for call in calls {
        assert!(call.is_finished() || call.await.unwrap().is_ok());
    }
    assert_eq!(provider.reset(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_waits_for_a_stream_and_ends_with_it() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    provider.always(Act::Stream);
    let (pool, client) = mesh.connected(&[&provider]).await;
    let subscribe = SubscribeSessionEventsRequest::default();
    let stream = client.get().unwrap().subscribe_session_events(subscribe).await.unwrap();
    let mut stream = stream.into_inner();
    let mut close = tokio::spawn(async move { pool.close().await });
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut close).await.is_err());
    stream.message().await.unwrap().unwrap();
    drop(stream);
    tokio::time::timeout(PATIENCE, close).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_everything_closes_the_connections() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (pool, client) = mesh.connected(&[&provider]).await;
    call(&client).await.unwrap();
    assert_eq!(provider.open(), 1);
    drop(pool);
    call(&client).await.expect("a client keeps its pool");
    drop(client);
    eventually(PATIENCE, || match provider.open() {
        0 => Ok(()),
        some => Err(format!("{some} connections are open")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_outlives_its_client() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    provider.always(Act::Stream);
    let (pool, client) = mesh.connected(&[&provider]).await;
    let subscribe = SubscribeSessionEventsRequest::default();
    let stream = client.get().unwrap().subscribe_session_events(subscribe).await.unwrap();
    let mut stream = stream.into_inner();
    drop((pool, client));
    for _ in 0..5 {
        stream.message().await.unwrap().unwrap();
    }
    drop(stream);
    eventually(PATIENCE, || match provider.open() {
        0 => Ok(()),
        some => Err(format!("{some} connections are open")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_grow_old_cost_no_call_while_a_stream_is_open() {
    const AGE: Duration = Duration::from_millis(600);
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    provider.max_age(AGE);
    let (_pool, client) = mesh.connected(&[&provider]).await;
    provider.once(Act::Stream);
    let subscribe = SubscribeSessionEventsRequest::default();
    let stream = client.get().unwrap().subscribe_session_events(subscribe).await.unwrap();
    let mut stream = stream.into_inner();
    let end = tokio::time::Instant::now() + AGE * 5;
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                while tokio::time::Instant::now() < end {
                    call(&client).await?;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Ok::<_, tonic::Status>(())
            })
        })
        .collect();
    while tokio::time::Instant::now() < end {
        stream.message().await.unwrap().expect("the stream goes on");
    }
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert!(4 <= provider.connections(), "{} connections", provider.connections());
}
