//! How a pool ends.

use std::time::Duration;

use aegis_client::{Error, RequestExt as _};
use aegis_proto::identity::v1::SubscribeSessionEventsRequest;
use aegis_testing::eventually;
use h2::Reason;

use crate::mesh::{Client, IDENTITY, Mesh, PATIENCE, call, identity, request};
use crate::provider::{Act, Provider};

// On one thread, where a call that has ended has returned before anybody else runs.
#[tokio::test]
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
        assert!(call.is_finished());
        assert_eq!(call.await.unwrap().unwrap(), "a");
    }
    assert_eq!(provider.reset(), 0);
}

#[tokio::test]
async fn closing_waits_for_the_calls_that_wait_for_a_stream_or_another_provider() {
    const CALLS: usize = 20;
    let mesh = Mesh::new();
    let narrow = Provider::with_streams(&mesh, "narrow", 1).await;
    narrow.always(Act::AnswerAfter(Duration::from_millis(20)));
    narrow.once(Act::Reset(Reason::REFUSED_STREAM));
    let (pool, client) = mesh.connected(&[&narrow]).await;
    let calls: Vec<_> = (0..CALLS)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { call(&client).await })
        })
        .collect();
    eventually(PATIENCE, || match client.explain().calls {
        20 => Ok(()),
        some => Err(format!("{some} of {CALLS} calls have begun")),
    })
    .await;
    assert!(narrow.requests() < CALLS, "most of them wait");
    pool.close().await;
    for call in calls {
        assert!(call.is_finished());
        assert_eq!(call.await.unwrap().unwrap(), "narrow");
    }
    assert!(matches!(client.get(), Err(Error::Closed)));
}

#[tokio::test]
async fn closing_waits_for_a_call_that_waits_for_a_provider() {
    let mesh = Mesh::new();
    let address = Provider::start(&mesh, "late").await.kill().await;
    let pool = mesh.builder(&[("late", address)]).build().unwrap();
    let client = identity(&pool);
    call(&client).await.expect_err("the first attempt fails");
    let mut waiting = request().wait_ready();
    waiting.set_timeout(PATIENCE);
    let ready = client.clone();
    let ready = tokio::spawn(async move { ready.wait_ready(1, PATIENCE).await });
    let mut held = Client::new(pool.channel(IDENTITY));
    let call = tokio::spawn(async move { held.validate_session(waiting).await });
    eventually(PATIENCE, || match client.explain().calls {
        2 => Ok(()),
        some => Err(format!("{some} calls have begun")),
    })
    .await;
    let close = tokio::spawn(async move { pool.close().await });
    assert!(matches!(ready.await.unwrap(), Err(Error::Closed)), "it is no call");
    assert!(!close.is_finished());
    // Closing the pool is not the end of dialling.
    let _late = Provider::bind(&mesh, "late", address).await;
    assert_eq!(call.await.unwrap().unwrap().into_inner().user_id, "late");
    close.await.unwrap();
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
