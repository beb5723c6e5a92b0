//! Many calls on several threads, while the server sends its connections away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aegis_testing::TestCa;
use aegis_transport::{Link, Unavailable};
use tokio::task::JoinSet;

use crate::support::{Client, Http2, Server, collect, full, request};

const CALLERS: u64 = 32;
const CALLS: u64 = 100;

/// Answers everything, and ends the connection in order after a while.
async fn serve(mut http2: Http2, answered: Arc<AtomicU64>) {
    let mut leaving = Box::pin(tokio::time::sleep(Duration::from_millis(100)));
    let mut left = false;
    loop {
        tokio::select! {
            accepted = http2.accept() => {
                let Some(Ok((_, mut respond))) = accepted else {
                    return;
                };
                let mut reply = respond.send_response(http::Response::new(()), false).unwrap();
                let status = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
                drop(reply.send_data("reply".into(), false));
                drop(reply.send_trailers(status.into_iter().collect()));
                answered.fetch_add(1, Ordering::Relaxed);
            }
            () = &mut leaving, if !left => {
                left = true;
                http2.graceful_shutdown();
            }
        }
    }
}

/// One call, moved to the next connection as often as it was never sent.
async fn call(link: &Link, in_line: bool) {
    let mut changes = link.changes();
    loop {
        let slot = match link.try_acquire() {
            Ok(slot) => slot,
            Err(Unavailable::Closed) => panic!("closed"),
            // Nothing but its turn or what is reported wakes it, so that one that is lost shows.
            Err(_) if in_line => {
                tokio::time::timeout(Duration::from_secs(5), link.acquire()).await.unwrap()
            }
            Err(_) => {
                tokio::time::timeout(Duration::from_secs(5), changes.changed()).await.unwrap();
                continue;
            }
        };
        match slot.send(request(full("hello"))).await {
            Ok(response) => {
                let (data, trailers) = collect(response.into_body()).await.unwrap();
                assert_eq!(
                    (&data[..], trailers.unwrap()["grpc-status"].as_bytes()),
                    (&b"reply"[..], &b"0"[..])
                );
                return;
            }
            Err(error) => {
                assert!(error.never_sent().is_some(), "{error}");
                // Callers that never wait would keep each worker from the driver, which alone learns that the
                // connection is going.
                tokio::task::yield_now().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_call_is_lost_or_made_twice_while_connections_come_and_go() {
    check(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nor_when_they_wait_in_line() {
    check(true).await;
}

async fn check(in_line: bool) {
    let ca = TestCa::new();
    let server = Arc::new(Server::start(&ca, "server-1").await);
    let client = Client::with(&ca, |settings| {
        settings.streams = 10;
        settings.backoff.steady = Duration::ZERO;
    });
    let link = client.link(&server);
    let answered = Arc::new(AtomicU64::new(0));
    let (accepting, count) = (Arc::clone(&server), Arc::clone(&answered));
    server.spawn(async move {
        loop {
            let http2 = accepting.http2().await;
            tokio::spawn(serve(http2, Arc::clone(&count)));
        }
    });
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let link = link.clone();
        callers.spawn(async move {
            for _ in 0..CALLS {
                call(&link, in_line).await;
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    assert_eq!(answered.load(Ordering::Relaxed), CALLERS * CALLS);
    let counters = link.counters();
    assert!(1 < counters.connected, "{counters:?}");
    assert_eq!((link.in_flight(), counters.cancelled), (0, 0));
}
