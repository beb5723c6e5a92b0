//! A call through two hops: `a` asks `b`, which asks `c` before it can answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aegis::{Server, ServiceClient, ServiceInfo};
use aegis_proto::identity::v1::GetUserRequest;
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_testing::{TestMesh, eventually};
use tokio::task::JoinSet;
use tonic::{Code, Request, Response, Status};

use crate::service::{Client, Identity, LIMIT, SECOND, ready, scaled};

const LAST_V1: ServiceInfo = ServiceInfo::from_static("last", "v1");

struct Hops {
    first: ServiceClient<Client>,
    b: Identity,
    c: Identity,
    _servers: [Server; 2],
}

impl Hops {
    async fn start(mesh: &TestMesh) -> Self {
        let c = Identity::new("c");
        let c_server = mesh.serve("c", |node| node.service(LAST_V1, c.server())).await;
        let builder = mesh.builder("b");
        let pool = mesh.node("b-as-client").pool();
        let to_c = ServiceClient::new(&pool, LAST_V1, IdentityServiceClient::new);
        to_c.wait_ready(1, LIMIT).await.unwrap();
        let b = Identity::new("b").relaying(to_c);
        let b_server = mesh.start(b.on(builder)).await;
        let first = ready(&mesh.node("a").pool(), 1).await;
        Self { first, b, c, _servers: [b_server, c_server] }
    }

    async fn ask(&self, text: &str, timeout: Duration) -> Result<(), Status> {
        ask(&self.first, text, timeout).await.map(drop)
    }

    /// Waits until no handler runs any more.
    async fn idle(&self) {
        eventually(LIMIT, || {
            for (name, seen) in [("b", &self.b.seen), ("c", &self.c.seen)] {
                let over = seen.finished() + seen.cancelled();
                if over < seen.calls() {
                    return Err(format!("{over} of {} calls of {name} are over", seen.calls()));
                }
            }
            Ok(())
        })
        .await;
    }
}

async fn ask(
    client: &ServiceClient<Client>,
    text: &str,
    timeout: Duration,
) -> Result<Response<aegis_proto::identity::v1::GetUserResponse>, Status> {
    let mut request = Request::new(GetUserRequest { user_id: text.to_owned() });
    request.set_timeout(timeout);
    client.get()?.get_user(request).await
}

const MILLI: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_deadline_set_two_hops_up_arrives_with_what_is_left_of_it() {
    let mesh = TestMesh::in_memory();
    let hops = Hops::start(&mesh).await;
    // Half of a second, of which `b` works 400 ms; it gives `c` three seconds, and knows that it has less.
    hops.ask("later 400 x", 500 * MILLI).await.unwrap();
    let (b, c) = (hops.b.seen.left().unwrap(), hops.c.seen.left().unwrap());
    assert!((499 * MILLI..=500 * MILLI).contains(&b), "{b:?}");
    assert!((95 * MILLI..=100 * MILLI).contains(&c), "{c:?}");
    // The shorter one counts, whichever it is.
    hops.ask("later 400 x", 60 * SECOND).await.unwrap();
    let c = hops.c.seen.left().unwrap();
    assert!((2_995 * MILLI..=3 * SECOND).contains(&c), "{c:?}");
    // And what has to outlive the caller says so.
    hops.ask("aside x", 500 * MILLI).await.unwrap();
    let c = hops.c.seen.left().unwrap();
    assert!((2_995 * MILLI..=3 * SECOND).contains(&c), "{c:?}");
    // Without any deadline there is none to inherit.
    hops.first.get().unwrap().get_user(GetUserRequest { user_id: "relay x".into() }).await.unwrap();
    assert_eq!((hops.b.seen.left(), hops.c.seen.left()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn all_hops_end_with_the_deadline_of_the_first() {
    let mesh = TestMesh::in_memory();
    let hops = Hops::start(&mesh).await;
    let began = tokio::time::Instant::now();
    let status = hops.ask("later 400 sleep 1000", 500 * MILLI).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!((500 * MILLI..505 * MILLI).contains(&began.elapsed()), "{:?}", began.elapsed());
    hops.idle().await;
    assert!(began.elapsed() < 700 * MILLI, "{:?}", began.elapsed());
    assert_eq!((hops.c.seen.calls(), hops.c.seen.finished()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_caller_drops_is_dropped_at_every_hop() {
    let mesh = TestMesh::in_memory();
    let hops = Hops::start(&mesh).await;
    let client = hops.first.clone();
    let call = tokio::spawn(async move { ask(&client, "relay forever", LIMIT).await.map(drop) });
    eventually(LIMIT, || if hops.c.seen.calls() == 1 { Ok(()) } else { Err("not called") }).await;
    let dropped = tokio::time::Instant::now();
    call.abort();
    hops.idle().await;
    assert_eq!((hops.b.seen.cancelled(), hops.c.seen.cancelled()), (1, 1));
    assert!(dropped.elapsed() < 100 * MILLI, "{:?}", dropped.elapsed());
}

/// grpc/grpc-dotnet#1402: whose clock is first must not show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_is_never_taken_for_a_cancellation_on_a_busy_machine() {
    let mesh = TestMesh::loopback();
    let hops = Hops::start(&mesh).await;
    let busy = Arc::new(AtomicBool::new(true));
    let burners = [(); 2].map(|()| {
        let busy = Arc::clone(&busy);
        std::thread::spawn(move || while busy.load(Ordering::Relaxed) {})
    });
    let mut calls = JoinSet::new();
    let mut due = tokio::time::Instant::now();
    for _ in 0..scaled(300, 1_000) {
        due += 3 * MILLI;
        let client = hops.first.clone();
        calls.spawn(async move {
            tokio::time::sleep_until(due).await;
            ask(&client, "later 80 sleep 1000", 100 * MILLI).await.map(drop)
        });
    }
    while let Some(ended) = calls.join_next().await {
        let status = ended.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    }
    hops.idle().await;
    busy.store(false, Ordering::Relaxed);
    for burner in burners {
        burner.join().unwrap();
    }
    assert_eq!(hops.c.seen.finished(), 0, "work went on that nobody waited for");
}
