//! Three providers are restarted one after another, as an update does it, and their callers do not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aegis::{NodeBuilder, Server, ServiceClient};
use aegis_proto::identity::v1::SubscribeSessionEventsRequest;
use aegis_testing::{TestMesh, eventually};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::service::{Client, Identity, LIMIT, SECOND, ask, ready};

const IDS: [&str; 3] = ["a", "b", "c"];
const CALLERS: u64 = 20;
const WATCHERS: u64 = 5;

#[derive(Default)]
struct Load {
    over: AtomicBool,
    calls: AtomicU64,
    /// Streams that were ended, and opened again.
    resumed: AtomicU64,
}

/// Calls of 1 to 20 ms, one after another.
async fn call(client: ServiceClient<Client>, load: Arc<Load>) -> Result<(), Status> {
    while !load.over.load(Ordering::Relaxed) {
        let millis = load.calls.fetch_add(1, Ordering::Relaxed) % 20 + 1;
        ask(&client, &format!("sleep {millis}")).await?;
    }
    Ok(())
}

/// A stream without an end, begun again whenever it ends.
async fn watch(client: ServiceClient<Client>, load: Arc<Load>) -> Result<(), Status> {
    while !load.over.load(Ordering::Relaxed) {
        let request = SubscribeSessionEventsRequest {};
        let mut events = client.get()?.subscribe_session_events(request).await?.into_inner();
        loop {
            match events.message().await {
                Ok(Some(_)) if load.over.load(Ordering::Relaxed) => return Ok(()),
                Ok(Some(_)) => {}
                Ok(None) => return Err(Status::internal("the stream ended well")),
                Err(status) if status.code() == Code::Unavailable => break,
                Err(status) => return Err(status),
            }
        }
        load.resumed.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn start(builder: NodeBuilder, identity: &Identity) -> Server {
    // Streams are not to hold the drain for long.
    identity.on(builder).drain_timeout(SECOND / 4).build().unwrap().start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_fails_no_call() {
    let mesh = TestMesh::loopback();
    // Each knows where the others listen, and comes back at its own address.
    let mut servers = Vec::new();
    let mut addresses: Vec<String> = Vec::new();
    for id in IDS {
        let identity = Identity::new(id);
        let server = mesh.start(identity.on(mesh.builder(id)).drain_timeout(SECOND / 4)).await;
        addresses.push(server.local_addr().to_string());
        servers.push((server, identity));
    }
    let pool = mesh.node("caller").pool();
    let client = ready(&pool, IDS.len()).await;
    let load = Arc::<Load>::default();
    let mut tasks = JoinSet::new();
    for _ in 0..CALLERS {
        tasks.spawn(call(client.clone(), Arc::clone(&load)));
    }
    for _ in 0..WATCHERS {
        tasks.spawn(watch(client.clone(), Arc::clone(&load)));
    }
    for _ in 0..2 {
        for (at, id) in IDS.into_iter().enumerate() {
            let (server, _) = servers.remove(0);
            server.shutdown().await.unwrap();
            let identity = Identity::new(id);
            let builder = mesh.builder(id).address(&addresses[at]).join(&addresses);
            let server = start(builder, &identity).await;
            // The next one goes when this one is back at work.
            eventually(LIMIT, || match identity.seen.calls() {
                0..10 => Err(format!("{id} gets no calls: {}", client.explain())),
                _ => Ok(()),
            })
            .await;
            servers.push((server, identity));
        }
    }
    load.over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap().unwrap();
    }
    let calls = load.calls.load(Ordering::Relaxed);
    assert!(300 < calls, "only {calls} calls were made");
    let resumed = load.resumed.load(Ordering::Relaxed);
    assert!(WATCHERS <= resumed, "only {resumed} streams were ended");
}
