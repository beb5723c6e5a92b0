//! Peers that never get as far as a call, while others make theirs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aegis_node::Limits;
use aegis_testing::{TestCa, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{LIMIT, Peer, dial, listen, node, tls};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn silent_peers_keep_nobody_out() {
    let (lines, _guard) = listen();
    let limits = Limits::default().max_handshakes(8).handshake_timeout(LIMIT);
    let (mesh, server, _lab) = node(limits).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(server.local_addr()).await.unwrap());
    }
    let began = Instant::now();
    let peer = Peer::connect(mesh.ca(), "honest", server.local_addr()).await;
    peer.ask().await;
    // Half a second until the first of them are silent for long enough, then each makes room at once.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(20 < server.stats().evicted, "{:?}", server.stats());
    assert_eq!(lines.warnings("evicted").len(), 1);
    // The oldest went first.
    let mut byte = [0];
    assert!(!matches!(silent[0].read(&mut byte).await, Ok(1..)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_herd_waits_and_is_not_evicted() {
    let (mesh, server, _lab) = node(Limits::default().max_handshakes(2)).await;
    let began = Instant::now();
    let mut herd = JoinSet::new();
    for index in 0..60 {
        let (tls, address) = (mesh.ca().tls(&format!("c{index}"), "test"), server.local_addr());
        herd.spawn(async move {
            let peer = Peer::over(dial(&tls, address).await.unwrap()).await.unwrap();
            peer.ask().await;
            peer
        });
    }
    assert_eq!(herd.join_all().await.len(), 60);
    assert_eq!((server.stats().evicted, server.stats().refused), (0, 0));
    // A pause of 100 ms for each would take three times as long: it ends when a handshake does.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn connections_that_end_do_not_keep_the_door_shut() {
    let (mesh, server, _lab) = node(Limits::default().max_handshakes(2)).await;
    let address = server.local_addr();
    let mut open = Vec::new();
    for index in 0..40 {
        open.push(Peer::connect(mesh.ca(), &format!("c{index}"), address).await);
    }
    // Handshakes that are never silent for long: there is nothing to evict, and accepting pauses.
    let mut slow = JoinSet::new();
    for _ in 0..2 {
        let mut io = TcpStream::connect(address).await.unwrap();
        slow.spawn(async move {
            io.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
            while io.write_all(&[1]).await.is_ok() {
                tokio::time::sleep(SHORT / 3).await;
            }
        });
    }
    tokio::time::sleep(SHORT / 3).await;
    let closing = tokio::spawn(async move {
        while open.pop().is_some() {
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    for name in ["first", "second", "third"] {
        Peer::connect(mesh.ca(), name, address).await.ask().await;
    }
    assert!(!closing.is_finished(), "they waited until nobody left any more");
}

/// What a peer does in the place of a good handshake and HTTP/2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Misbehave {
    Silent,
    Plaintext,
    CloseEarly,
    Foreign,
    NoPreface,
    WrongPreface,
}

impl Misbehave {
    /// The peer's end, until the server has closed the connection.
    async fn run(self, mesh: &TestCa, address: SocketAddr) {
        match self {
            Self::Silent => {
                let mut io = TcpStream::connect(address).await.unwrap();
                drain(&mut io).await;
            }
            Self::Plaintext => {
                let mut io = TcpStream::connect(address).await.unwrap();
                io.write_all(b"GET / HTTP/1.1\r\nhost: server\r\n\r\n").await.unwrap();
                drain(&mut io).await;
            }
            Self::CloseEarly => {
                let mut io = TcpStream::connect(address).await.unwrap();
                // The head of a record with a ClientHello, and its first bytes.
                io.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.unwrap();
            }
            Self::Foreign => {
                let foreign = TestCa::new();
                let certificate = foreign.issue("foreign", "test").trusting(&[mesh, &foreign]);
                let subject =
                    aegis_tls::Subject::new("foreign".parse().unwrap(), "test".parse().unwrap());
                let tls = certificate.options().load(&subject).unwrap();
                // In TLS 1.3 the client learns of its refusal with the first read.
                if let Ok(mut io) = dial(&tls, address).await {
                    drain(&mut io).await;
                }
            }
            Self::NoPreface => drain(&mut tls(mesh, "mute", address).await.unwrap()).await,
            Self::WrongPreface => {
                let mut io = tls(mesh, "babel", address).await.unwrap();
                io.write_all(b"GET / HTTP/1.1\r\nhost: server\r\n\r\n").await.unwrap();
                drain(&mut io).await;
            }
        }
    }

    /// The node, where the handshake has shown it, and the word for the log.
    fn node_and_reason(self) -> (Option<&'static str>, &'static str) {
        match self {
            Self::Silent => (None, "timeout"),
            Self::Plaintext => (None, "not_tls"),
            Self::CloseEarly => (None, "io"),
            Self::Foreign => (None, "unknown_ca"),
            Self::NoPreface => (Some("mute"), "no_preface"),
            Self::WrongPreface => (Some("babel"), "no_http2"),
        }
    }
}

/// Reads until the other end closes.
async fn drain(io: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut bytes = [0; 1024];
    let reading = async { while let Ok(1..) = io.read(&mut bytes).await {} };
    tokio::time::timeout(LIMIT, reading).await.expect("the server did not close");
}

#[tokio::test]
async fn a_peer_that_does_not_get_in_is_counted_and_named_once() {
    use Misbehave::{CloseEarly, Foreign, NoPreface, Plaintext, Silent, WrongPreface};
    let (lines, _guard) = listen();
    let (mesh, server, _lab) = node(Limits::default().handshake_timeout(SHORT)).await;
    let address = server.local_addr();
    let calls = Calls::begin(mesh.ca(), address).await;
    let mut refused = 0;
    for peer in [Silent, Plaintext, CloseEarly, Foreign, NoPreface, WrongPreface] {
        let (node, reason) = peer.node_and_reason();
        for _ in 0..2 {
            peer.run(mesh.ca(), address).await;
            refused += 1;
            eventually(LIMIT, || match server.stats().refused {
                count if count == refused => Ok(()),
                count => Err(format!("{peer:?}: {count} are counted, not {refused}")),
            })
            .await;
        }
        // A connection that merely broke is nothing that a person has to look at.
        let level = if reason == "io" { "INFO" } else { "WARN" };
        let warnings = lines.lines_of(level, &format!("{reason:?}"));
        assert_eq!(warnings.len(), 1, "{peer:?}: {warnings:?}");
        assert!(warnings[0].contains(" peer=127.0.0.1:"), "{warnings:?}");
        let named = node.map(|node| format!(" node={node} "));
        assert!(named.is_none_or(|named| warnings[0].contains(&named)), "{warnings:?}");
        assert_eq!(node.is_some(), warnings[0].contains(" node="), "{warnings:?}");
        Peer::connect(mesh.ca(), "late", address).await.ask().await;
        eventually(LIMIT, || match server.stats().connections {
            1 => Ok(()),
            open => Err(format!("{peer:?}: {open} connections are open beside the steady one")),
        })
        .await;
    }
    assert!(10 < calls.end().await);
}

/// Calls without a pause, each of which has to go well.
struct Calls {
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Calls {
    async fn begin(ca: &TestCa, address: SocketAddr) -> Self {
        let peer = Peer::connect(ca, "steady", address).await;
        let (count, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (counted, stopped) = (Arc::clone(&count), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::SeqCst) {
                peer.ask().await;
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self { count, stop, task }
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
        self.count.load(Ordering::SeqCst)
    }
}
