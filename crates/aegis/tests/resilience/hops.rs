//! A deadline on its way through three nodes: 500 ms, of which the second one works 400.
//!
//! Its own deadline for the third is 3 s, and the third takes 1 s.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aegis::client::deadline;
use aegis::{ServiceClient, ServiceInfo};
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use aegis_proto::identity::v1::{GetUserRequest, GetUserResponse};
use aegis_testing::{TestMesh, eventually};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Response, Status};

use super::load::{send, timed};
use crate::service::{Client, IDENTITY_V1, LIMIT, SECOND, ready};

const LAST_V1: ServiceInfo = ServiceInfo::from_static("last", "v1");
const CALLS: usize = 1_000;
const AT_ONCE: usize = 50;
const WHOLE: Duration = Duration::from_millis(500);
const WORK: Duration = Duration::from_millis(400);

/// What the handlers of the two that serve saw.
#[derive(Default)]
struct Seen {
    /// Of the first one's budget, after the work: what the middle one may still spend.
    left_of_callers: Mutex<Vec<Duration>>,
    /// What the last one was told.
    told: Mutex<Vec<Duration>>,
    running: AtomicUsize,
}

/// A handler that runs, until it is dropped.
struct Running(Arc<Seen>);

impl Running {
    fn new(seen: &Arc<Seen>) -> Self {
        seen.running.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(seen))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Works for a while, then asks the last one, with a deadline of its own that is too long.
struct Middle {
    seen: Arc<Seen>,
    last: ServiceClient<Client>,
}

#[tonic::async_trait]
impl IdentityService for Middle {
    async fn get_user(
        &self,
        _: Request<GetUserRequest>,
    ) -> Result<Response<GetUserResponse>, Status> {
        let _running = Running::new(&self.seen);
        sleep(WORK).await;
        let left = deadline::inherited().unwrap().saturating_duration_since(Instant::now().into());
        self.seen.left_of_callers.lock().unwrap().push(left);
        self.last.get()?.get_user(timed("1", SECOND * 3)).await
    }
}

/// A timeout as it is written on the wire.
fn timeout(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let number = number.parse().unwrap();
    match unit {
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => panic!("{text}"),
    }
}

/// Takes a second.
struct Last(Arc<Seen>);

#[tonic::async_trait]
impl IdentityService for Last {
    async fn get_user(
        &self,
        request: Request<GetUserRequest>,
    ) -> Result<Response<GetUserResponse>, Status> {
        let _running = Running::new(&self.0);
        let told = request.metadata().get("grpc-timeout").unwrap().to_str().unwrap();
        self.0.told.lock().unwrap().push(timeout(told));
        sleep(SECOND).await;
        Ok(Response::new(GetUserResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_node_is_told_what_is_left_of_the_first_ones_deadline() {
    let (mesh, seen) = (TestMesh::loopback(), Arc::<Seen>::default());
    let last = IdentityServiceServer::new(Last(Arc::clone(&seen)));
    let _last = mesh.serve("c", |node| node.service(LAST_V1, last)).await;
    let pool = mesh.node("m").pool();
    let last = ServiceClient::new(&pool, LAST_V1, IdentityServiceClient::new);
    last.wait_ready(1, LIMIT).await.unwrap();
    let middle = IdentityServiceServer::new(Middle { seen: Arc::clone(&seen), last });
    let _middle = mesh.serve("b", |node| node.service(IDENTITY_V1, middle)).await;
    let pool = mesh.node("a").pool();
    let identity = ready(&pool, 1).await;

    let mut callers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let identity = identity.clone();
        callers.spawn(async move {
            let mut ends = Vec::new();
            for _ in 0..CALLS / AT_ONCE {
                let began = Instant::now();
                ends.push((send(&identity, timed("1", WHOLE)).await, began.elapsed()));
            }
            ends
        });
    }
    let ends = callers.join_all().await.concat();
    for (end, took) in &ends {
        assert_eq!(end.as_ref().unwrap_err().code(), Code::DeadlineExceeded, "{end:?}");
        assert!(WHOLE <= *took, "{took:?}");
    }
    assert_eq!(ends.len(), CALLS);
    // Nothing of it runs on.
    eventually(SECOND / 5, || match seen.running.load(Ordering::SeqCst) {
        0 => Ok(()),
        running => Err(format!("{running} handlers still run")),
    })
    .await;
    let (left, told) = (seen.left_of_callers.lock().unwrap(), seen.told.lock().unwrap());
    println!(
        "{} of {CALLS} calls reached the last node, told {:?} at most",
        told.len(),
        told.iter().max()
    );
    // On a busy machine some of them have no time left for the last hop.
    assert!(CALLS / 2 < told.len());
    assert!(left.iter().chain(&*told).all(|left| *left + WORK <= WHOLE), "{left:?} {told:?}");
}
