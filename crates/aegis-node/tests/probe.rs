//! What a kubelet is told, and what others cannot do with that port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::Address;
use aegis_node::{BuildError, HealthStatus, Node, StartError};
use aegis_testing::{TestMesh, eventually};
use aegis_transport::{BoxFuture, BoxIo, Listener, Network};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::shutdown::{SECOND, with_silent_peer};
use crate::support::{LAB_V1, LIMIT, Lab, Peer, post, tls_in};

const PROBE: &str = "127.0.0.1:8081";

async fn connect(mesh: &TestMesh, address: SocketAddr) -> BoxIo {
    mesh.network().connect(&address.into()).await.unwrap()
}

/// All that the probe answers to some bytes before it closes.
async fn send(mesh: &TestMesh, address: SocketAddr, bytes: &[u8]) -> String {
    let mut io = connect(mesh, address).await;
    io.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset ends it as well.
    timeout(LIMIT, io.read_to_end(&mut answer)).await.expect("it does not close").ok();
    String::from_utf8(answer).unwrap()
}

/// The status and the body of an answer.
async fn get(mesh: &TestMesh, address: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\n\r\n");
    let answer = send(mesh, address, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("no answer");
    (head[9..12].parse().unwrap(), body.to_owned())
}

async fn check(mesh: &TestMesh, address: SocketAddr, live: u16, ready: (u16, &str)) {
    assert_eq!(get(mesh, address, "/livez").await.0, live);
    let (status, text) = get(mesh, address, "/readyz").await;
    assert_eq!((status, text.as_str()), (ready.0, ready.1));
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_the_node_and_turns_before_anything_else_at_its_end() {
    let mesh = TestMesh::in_memory();
    let (server, _b, lab) = with_silent_peer(&mesh, |node| node.probe("127.0.0.1:0")).await;
    let (address, probe) = (server.local_addr(), server.probe_addr().unwrap());
    check(&mesh, probe, 200, (200, "ok\n")).await;
    let health = server.node().health().clone();
    health.set(HealthStatus::Unhealthy, "the password of the database is hunter2").await;
    check(&mesh, probe, 200, (503, "unhealthy\n")).await;
    health.set(HealthStatus::Healthy, "").await;
    check(&mesh, probe, 200, (200, "ok\n")).await;

    let peer = Peer::over(tls_in(&mesh, "peer", address).await).await.unwrap();
    let (running, mut stream) = peer.open(post("Forever")).await.unwrap();
    stream.send_data(Bytes::new(), true).unwrap();
    eventually(LIMIT, || if lab.seen.calls() == 1 { Ok(()) } else { Err("not called") }).await;
    let shutdown = tokio::spawn(server.shutdown());
    eventually(LIMIT, || if shutdown.is_finished() { Err("it is over") } else { Ok(()) }).await;
    check(&mesh, probe, 200, (503, "draining\n")).await;
    // Connections are still welcome, as peers have not heard of it.
    Peer::over(tls_in(&mesh, "late", address).await).await.unwrap().ask().await;
    // And it says so to the end.
    let mut running = std::pin::pin!(running);
    while timeout(3 * SECOND, &mut running).await.is_err() {
        check(&mesh, probe, 200, (503, "draining\n")).await;
    }
    shutdown.await.unwrap().unwrap();
    assert!(mesh.network().connect(&probe.into()).await.is_err(), "the probe outlives the node");
}

/// A network that lets a node listen when it is allowed to, and whose listener then breaks if it is told to.
#[derive(Debug, Clone)]
struct Gate {
    inner: Arc<dyn Network>,
    open: Arc<Semaphore>,
    breaks: bool,
}

struct Broken(SocketAddr);

impl Network for Gate {
    fn connect(&self, address: &Address) -> BoxFuture<'static, io::Result<BoxIo>> {
        self.inner.connect(address)
    }

    fn bind(&self, address: &Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let binding = self.inner.bind(address);
        if address.to_string() == PROBE {
            return binding;
        }
        let (open, breaks) = (Arc::clone(&self.open), self.breaks);
        Box::pin(async move {
            open.acquire().await.unwrap().forget();
            let listener = binding.await?;
            Ok(if breaks { Box::new(Broken(listener.local_addr()?)) } else { listener })
        })
    }
}

impl Listener for Broken {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxIo>> {
        panic!("the listener broke")
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0)
    }
}

fn gated(mesh: &TestMesh, breaks: bool) -> (Node, Arc<Semaphore>) {
    let open = Arc::new(Semaphore::new(0));
    let gate = Gate { inner: mesh.network(), open: Arc::clone(&open), breaks };
    let builder = mesh.builder("server").service(LAB_V1, Lab::default()).probe(PROBE);
    (builder.network(Arc::new(gate)).build().unwrap(), open)
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_is_alive_and_not_ready() {
    let mesh = TestMesh::in_memory();
    let (node, open) = gated(&mesh, false);
    let probe = PROBE.parse().unwrap();
    for _ in 0..2 {
        // The second time after a start that was given up.
        let starting = node.start();
        let mut starting = std::pin::pin!(starting);
        assert!(timeout(SECOND, &mut starting).await.is_err());
        let asked = tokio::select! {
            () = check(&mesh, probe, 200, (503, "starting\n")) => true,
            _ = &mut starting => false,
        };
        assert!(asked, "it has started");
    }
    open.add_permits(1);
    let server = node.start().await.unwrap();
    assert_eq!(server.probe_addr(), Some(probe));
    check(&mesh, probe, 200, (200, "ok\n")).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_server_stopped_is_not_alive() {
    let mesh = TestMesh::in_memory();
    let (node, open) = gated(&mesh, true);
    open.add_permits(1);
    let _server = node.start().await.unwrap();
    let probe = PROBE.parse().unwrap();
    check(&mesh, probe, 503, (503, "the server has stopped\n")).await;
}

#[tokio::test(start_paused = true)]
async fn two_paths_and_two_methods_are_answered_once_per_connection() {
    let mesh = TestMesh::in_memory();
    let server = mesh.serve("server", |node| node.probe("127.0.0.1:0")).await;
    let probe = server.probe_addr().unwrap();
    for (line, status) in [
        ("GET /livez HTTP/1.1", 200),
        ("GET /livez HTTP/1.0", 200),
        ("GET /livez?verbose HTTP/1.1", 200),
        ("GET http://node/readyz HTTP/1.1", 200),
        ("HEAD /readyz HTTP/1.1", 200),
        ("POST /livez HTTP/1.1", 405),
        ("DELETE /readyz HTTP/1.1", 405),
        ("GET / HTTP/1.1", 404),
        ("GET /livez/ HTTP/1.1", 404),
        ("GET /LIVEZ HTTP/1.1", 404),
        ("GET //livez HTTP/1.1", 404),
        ("GET /%6civez HTTP/1.1", 404),
        ("POST /metrics HTTP/1.1", 404),
        ("OPTIONS * HTTP/1.1", 404),
        ("CONNECT node:443 HTTP/1.1", 404),
    ] {
        let one = format!("{line}\r\nhost: node\r\nconnection: keep-alive\r\n\r\n");
        let answer = send(&mesh, probe, one.repeat(2).as_bytes()).await;
        assert!(answer[9..].starts_with(&status.to_string()), "{line}: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{line}: {answer}");
        let allow = answer.contains("allow: GET, HEAD\r\n");
        assert_eq!(allow, status == 405, "{line}: {answer}");
        let empty = answer.ends_with("\r\n\r\n");
        assert_eq!(empty, line.starts_with("HEAD"), "{line}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_refused_or_cut_within_two_seconds() {
    let mesh = TestMesh::in_memory();
    let server = mesh.serve("server", |node| node.probe("127.0.0.1:0")).await;
    let probe = server.probe_addr().unwrap();
    let long = format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(100));
    let path = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000));
    let body = "POST /livez HTTP/1.1\r\ncontent-length: 99999999\r\n\r\nx";
    let chunks = "GET /livez HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n";
    for (bytes, statuses) in [
        (&b""[..], &[][..]),
        (b"GET", &[]),
        (b"GET /livez HTTP/1.1\r\nhost", &[]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &["400"]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[]),
        (b"GET /livez HTTP/9.9\r\n\r\n", &["400", "505"]),
        (b"GET /livez HTTP/1.1\r\nx\0y: z\r\n\r\n", &["400"]),
        (b"\r\n\r\n\r\n\r\n", &[]),
        (&vec![0; 20_000], &["400"]),
        (long.as_bytes(), &["400", "431"]),
        (many.as_bytes(), &["400", "431"]),
        (path.as_bytes(), &["400", "414", "431"]),
        (body.as_bytes(), &["405"]),
        (chunks.as_bytes(), &["200"]),
    ] {
        let began = Instant::now();
        let answer = send(&mesh, probe, bytes).await;
        let status = answer.get(9..12);
        let fine = status.map_or(statuses.is_empty(), |it| statuses.contains(&it));
        assert!(fine, "{:?}: {answer}", String::from_utf8_lossy(&bytes[..bytes.len().min(40)]));
        assert!(began.elapsed() <= 2 * SECOND + Duration::from_millis(10), "{bytes:?}");
        check(&mesh, probe, 200, (200, "ok\n")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_hold_their_connection_keep_no_prober_out() {
    let mesh = TestMesh::in_memory();
    let server = mesh.serve("server", |node| node.probe("127.0.0.1:0")).await;
    let probe = server.probe_addr().unwrap();
    let mut slow = JoinSet::new();
    for _ in 0..200 {
        let mut io = connect(&mesh, probe).await;
        // A byte now and then, and no answer is read.
        slow.spawn(async move {
            let began = Instant::now();
            for byte in b"GET /livez HTTP/1.1\r\n".iter().cycle() {
                if io.write_all(&[*byte]).await.is_err() {
                    break;
                }
                sleep(SECOND / 10).await;
            }
            began.elapsed()
        });
        let asked = Instant::now();
        check(&mesh, probe, 200, (200, "ok\n")).await;
        assert!(asked.elapsed() < SECOND / 10, "the prober waited for {:?}", asked.elapsed());
    }
    while let Some(held) = slow.join_next().await {
        assert!(held.unwrap() <= 3 * SECOND);
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_the_probes_is_refused() {
    let mesh = TestMesh::in_memory();
    let problem = |address: Option<&str>, probe: &str| {
        let mut builder = Node::builder().id("a").tls(mesh.ca().options("a", "node")).probe(probe);
        if let Some(address) = address {
            builder = builder.address(address);
        }
        builder.build().err()
    };
    for bad in ["", "8081", ":8081", "127.0.0.1", "http://127.0.0.1:8081", "127.0.0.1:65536"] {
        let error = problem(Some("127.0.0.1:8443"), bad);
        let named = matches!(&error, Some(BuildError::Name { setting: "probe", .. }));
        assert!(named, "{bad}: {error:?}");
    }
    let error = problem(None, PROBE);
    assert!(matches!(error, Some(BuildError::NoAddress)), "{error:?}");
    for (address, probe, met) in [
        ("127.0.0.1:8443", "127.0.0.1:8443", true),
        ("127.0.0.1:8443", "0.0.0.0:8443", true),
        ("127.0.0.1:8443", "[::]:8443", true),
        ("127.0.0.1:8443", "127.0.0.2:8443", false),
        ("127.0.0.1:8443", "0.0.0.0:8081", false),
        ("127.0.0.1:0", "127.0.0.1:0", false),
    ] {
        let error = problem(Some(address), probe);
        assert_eq!(matches!(&error, Some(BuildError::Probe { .. })), met, "{probe}: {error:?}");
        assert_eq!(error.is_some(), met, "{probe}: {error:?}");
    }
    // One that is taken shows at the start, and nothing is left running.
    let taken = mesh.network().bind(&PROBE.parse().unwrap()).await.unwrap();
    let node = mesh.builder("a").probe(PROBE).build().unwrap();
    let error = node.start().await.unwrap_err();
    assert!(matches!(&error, StartError::Bind { address, .. } if address.to_string() == PROBE));
    drop(taken);
    let server = node.start().await.unwrap();
    assert_eq!(server.probe_addr(), PROBE.parse().ok());
}
