//! Handlers that keep the threads of the runtime, which they should not, but some will.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use aegis_testing::TestMesh;
use bytes::Bytes;
use h2::{Ping, PingPong, client};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{LAB_V1, Lab, post, tls};

/// What a busy machine may add: it has other things to run than the server's workers.
const SLACK: Duration = Duration::from_millis(40);

/// A server on a runtime of its own with two workers.
struct OnTwo {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl OnTwo {
    fn start(mesh: &TestMesh) -> Self {
        let node = mesh.builder("server").service(LAB_V1, Lab::default()).build().unwrap();
        let (told, address) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async move {
                let server = node.start().await.unwrap();
                told.send(server.local_addr()).unwrap();
                stopped.await.ok();
            });
        });
        Self { address: address.recv().unwrap(), stop, thread }
    }

    fn stop(self) {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

/// Asks again and again; ends with the connection, and says how long the worst answer took.
async fn worst(mut pings: PingPong) -> Duration {
    let mut worst = Duration::ZERO;
    loop {
        let asked = Instant::now();
        let answered = pings.ping(Ping::opaque()).await.is_ok();
        worst = worst.max(asked.elapsed());
        if !answered {
            return worst;
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// So many calls at once to a server with two workers: how long all of them took, and the worst PING meanwhile.
async fn beside(method: &str, calls: usize) -> (Duration, Duration) {
    let mesh = TestMesh::loopback();
    let server = OnTwo::start(&mesh);
    let io = tls(mesh.ca(), "peer", server.address).await.unwrap();
    let (send, mut connection) = client::handshake(io).await.unwrap();
    let pings = connection.ping_pong().unwrap();
    let driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let mut send = send.ready().await.unwrap();
    let began = Instant::now();
    let mut answers = Vec::new();
    for _ in 0..calls {
        let (answer, mut stream) = send.send_request(post(method), false).unwrap();
        stream.send_data(Bytes::new(), true).unwrap();
        answers.push(answer);
        send = send.ready().await.unwrap();
    }
    let worst = tokio::spawn(worst(pings));
    for answer in answers {
        assert_eq!(answer.await.unwrap().status(), 200);
    }
    let took = began.elapsed();
    drop((send, driver));
    let worst = worst.await.unwrap();
    server.stop();
    println!("{calls} {method} took {took:?}; the worst PING {worst:?}");
    (took, worst)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_ping_waits_for_longer_than_one_handler_takes() {
    const TAKES: Duration = Duration::from_millis(400);
    for method in ["Sleep400", "Burn400"] {
        let (took, worst) = beside(method, 8).await;
        // The server had work for four of them in a row on each worker.
        assert!(4 * TAKES <= took, "{took:?}");
        assert!(worst < TAKES + SLACK, "{method}: a PING was answered after {worst:?}");
    }
}
