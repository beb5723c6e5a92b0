//! A peer that allows no stream for a while: h2 does not say when its limit rises.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aegis_client::Verdict;
use aegis_testing::eventually;
use tokio::io::{AsyncReadExt as _, split};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::mesh::{Mesh, PATIENCE, call, identity, one_connection};
use crate::raw::{HEADERS, MAX_CONCURRENT_STREAMS, PREFACE, SETTINGS, write};

const SOON: Duration = Duration::from_millis(200);

/// Says how many streams it allows, and again whenever that changes; it answers nothing.
struct Narrow {
    address: SocketAddr,
    streams: watch::Sender<u32>,
    /// When requests came.
    requests: mpsc::UnboundedReceiver<Instant>,
    _tasks: JoinSet<()>,
}

impl Narrow {
    async fn start(mesh: &Mesh, id: &str, streams: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, tls) = (listener.local_addr().unwrap(), mesh.tls(id));
        let (streams, mut changes) = watch::channel(streams);
        let (arrived, requests) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (io, _) = listener.accept().await.unwrap();
            let (mut reader, mut writer) = split(tls.accept(io).await.unwrap().stream);
            reader.read_exact(&mut [0; PREFACE]).await.unwrap();
            let mut announcing = JoinSet::new();
            announcing.spawn(async move {
                changes.mark_changed();
                while changes.changed().await.is_ok() {
                    let mut setting = MAX_CONCURRENT_STREAMS.to_be_bytes().to_vec();
                    setting.extend_from_slice(&changes.borrow_and_update().to_be_bytes());
                    write(&mut writer, SETTINGS, 0, 0, &setting).await.unwrap();
                }
            });
            // Until the client is gone.
            let mut head = [0; 9];
            while reader.read_exact(&mut head).await.is_ok() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                reader.read_exact(&mut vec![0; length as usize]).await.unwrap();
                if head[3] == HEADERS {
                    arrived.send(Instant::now()).unwrap();
                }
            }
        });
        Self { address, streams, requests, _tasks: tasks }
    }

    /// Allows ten streams while calls wait, of which so many come soon.
    async fn widen(&mut self, waiting: usize) {
        assert!(self.requests.try_recv().is_err(), "a request came although none was allowed");
        let raised = Instant::now();
        self.streams.send_replace(10);
        for _ in 0..waiting {
            let arrived = self.requests.recv().await.unwrap();
            assert!(arrived - raised < SOON, "it came after {:?}", arrived - raised);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_for_a_limit_to_rise_from_zero_run_as_soon_as_it_does() {
    let mesh = Mesh::new();
    let mut narrow = Narrow::start(&mesh, "narrow", 0).await;
    let addresses = [("narrow", narrow.address)];
    let pool = mesh.builder(&addresses).settings(one_connection()).build().unwrap();
    let client = identity(&pool);
    let mut calls = JoinSet::new();
    let mut begin = |count| {
        for _ in 0..count {
            let client = client.clone();
            calls.spawn(async move { call(&client).await });
        }
    };
    // A peer that allows nothing yet is not connected, and calls wait for that.
    begin(3);
    tokio::time::sleep(SOON * 2).await;
    narrow.widen(3).await;
    client.wait_ready(1, PATIENCE).await.unwrap();

    // One that allows nothing any more is full.
    narrow.streams.send_replace(0);
    eventually(PATIENCE, || match &client.explain().candidates[0].verdict {
        Verdict::Full { slots: 0, .. } => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    begin(3);
    tokio::time::sleep(SOON * 2).await;
    narrow.widen(3).await;
}
