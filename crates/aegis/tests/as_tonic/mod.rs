//! aegis carries a call as plain tonic does: one table, each row of which is played over both.
//!
//! Plain tonic is its own server and its own channel over TCP; aegis is two nodes over TCP on loopback.
//! Each row sees handler and caller; where the two differ, the row says what each does, and why.

mod describe;
mod echo;
mod layers;
mod limits;
mod long_headers;
mod metadata;
mod row;
mod seen;
mod statuses;
mod streams;
mod time;
mod wire;

use std::time::{Duration, Instant};

use aegis::{Node, Server, ServiceInfo};
use aegis_testing::TestMesh;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;
use tonic::transport::server::TcpIncoming;

use self::echo::{Client, Settings};
use self::row::{Expected, Outcome, Row};
use self::wire::around;

const ECHO_V1: ServiceInfo = ServiceInfo::from_static("echo", "v1");
/// Far longer than a row takes.
const LIMIT: Duration = Duration::from_secs(20);

fn table() -> Vec<Row> {
    [
        layers::rows(),
        limits::rows(),
        metadata::rows(),
        statuses::rows(),
        streams::rows(),
        time::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_through_aegis_is_seen_as_one_through_plain_tonic() {
    // For whoever works on one row.
    let only = std::env::var("AEGIS_ROW").unwrap_or_default();
    let (mut rows, mut wrong) = (0, Vec::new());
    // The table is made twice, so that what a row counts is counted of one call.
    for (row, again) in table().into_iter().zip(table()) {
        let (name, expected) = (row.name, again.expected.clone());
        if !name.contains(&only) {
            continue;
        }
        rows += 1;
        let plain = play(Way::Plain, row).await.outcome;
        let ours = play(Way::Aegis, again).await.outcome;
        let (plain_expected, ours_expected, why) = match expected {
            Expected::Same => (plain.clone(), plain.clone(), "as plain tonic"),
            Expected::Both(lines) => (owned(&lines), owned(&lines), "as written"),
            Expected::Differs { why, plain, ours } => (owned(&plain), owned(&ours), why),
        };
        for (who, found, expected) in
            [("plain tonic", plain, plain_expected), ("aegis", ours, ours_expected)]
        {
            if found != expected {
                wrong.push(format!("{name}: {who} {found:#?}, expected ({why}) {expected:#?}"));
            }
        }
    }
    println!("{rows} rows, each over plain tonic and over aegis");
    assert!(wrong.is_empty(), "{} outcomes are not as said:\n{}", wrong.len(), wrong.join("\n"));
}

fn owned(lines: &[&str]) -> Outcome {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Plain,
    Aegis,
}

struct Played {
    outcome: Outcome,
    took: Duration,
    /// Which our node has accepted.
    connections: u64,
}

/// Makes the row's call, and after it others that have to go well.
async fn play(way: Way, row: Row) -> Played {
    let name = row.name;
    let [first, second] = row.server_layers;
    let handler = InterceptedService::new(row.server, row.server_intercept);
    // Whatever serves and connects, for as long as the row is played.
    let mut serving = Serving::default();
    let (wire, server) = match way {
        Way::Plain => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tonic::transport::Server::builder()
                .layer(first)
                .layer(second)
                .add_service(handler)
                .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
            serving.tasks.spawn(async move { server.await.unwrap() });
            let channel = Endpoint::from_shared(format!("http://{address}")).unwrap();
            let channel = channel.connect().await.unwrap();
            (around(channel, row.client_layer, row.client_intercept), address)
        }
        Way::Aegis => {
            let mesh = TestMesh::loopback();
            let node = |node: aegis::NodeBuilder| {
                node.service(ECHO_V1, handler).layer(first).layer(second).limits(row.limits)
            };
            let server = mesh.serve("server", node).await;
            let address = server.local_addr();
            let caller = mesh.node("caller");
            let channel = caller.pool().channel(ECHO_V1);
            channel.wait_ready(1, LIMIT).await.unwrap();
            serving.nodes = Some((server, caller));
            (around(channel, row.client_layer, row.client_intercept), address)
        }
    };
    let client = Client::new(wire.clone(), row.client, server);
    let began = Instant::now();
    let outcome = tokio::time::timeout(LIMIT, (row.call)(client)).await;
    let took = began.elapsed();
    let mut outcome = outcome.unwrap_or_else(|_| vec!["it hangs".to_owned()]);
    let mut next = Client::new(wire, Settings::default(), server).at("/test.Echo/Ping");
    for _ in 0..10 {
        match tokio::time::timeout(LIMIT, next.unary(Bytes::from("ping"))).await {
            Ok(Ok(answer)) => assert_eq!(answer.into_inner(), "ping"),
            other => outcome.push(format!("a call after {name} fails: {other:?}")),
        }
    }
    let connections = serving.nodes.as_ref().map_or(0, |(server, _)| server.stats().accepted);
    Played { outcome, took, connections }
}

#[derive(Default)]
struct Serving {
    tasks: JoinSet<()>,
    nodes: Option<(Server, Node)>,
}
