//! Peers that never get as far as a call, beside those that call all the time.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aegis::{Limits, ServicePool};
use aegis_testing::{TestCa, TestMesh, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;

use crate::openssl::have_openssl;
use crate::service::{IDENTITY_V1, Identity, LIMIT, SECOND, ask, client, ready};

/// Reads until the other end closes; whether it did in time.
async fn is_closed(io: &mut TcpStream) -> bool {
    let mut bytes = [0; 1_024];
    let reading = async { while let Ok(1..) = io.read(&mut bytes).await {} };
    timeout(LIMIT, reading).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_of_every_kind_cost_no_good_call_and_are_told_why() {
    if !have_openssl() {
        return;
    }
    let mesh = TestMesh::loopback();
    let limits = Limits::default().handshake_timeout(2 * SECOND);
    let a = mesh.serve("a", |node| Identity::new("a").on(node).limits(limits)).await;
    let address = a.local_addr();
    let steady = ready(&mesh.node("c").pool(), 1).await;
    let stop = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicU32::new(0));
    let (stopped, counting) = (Arc::clone(&stop), Arc::clone(&made));
    let calls = tokio::spawn(async move {
        let mut slowest = Duration::ZERO;
        while !stopped.load(Ordering::SeqCst) {
            let began = Instant::now();
            ask(&steady, "1").await.unwrap();
            slowest = slowest.max(began.elapsed());
            counting.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        slowest
    });

    // Two hundred that say nothing: each is closed when its time for the handshake is over, and new ones get in meanwhile.
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let late = mesh.node("late");
    assert_eq!(ask(&ready(&late.pool(), 1).await, "1").await.unwrap().name, "a");
    for io in &mut silent {
        assert!(is_closed(io).await, "a silent peer stays connected");
    }
    let refused = |count: u64| {
        let stats = a.stats();
        if count <= stats.refused { Ok(stats.refused) } else { Err(format!("{stats:?}")) }
    };
    let before = eventually(LIMIT, || refused(200)).await;

    // Another protocol, and a handshake that breaks off.
    let mut http1 = TcpStream::connect(address).await.unwrap();
    http1.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(is_closed(&mut http1).await);
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.unwrap();
    drop(half);
    let before = eventually(LIMIT, || refused(before + 2)).await;

    // Without a certificate.
    let nobody = tokio::task::spawn_blocking(move || {
        Command::new("openssl")
            .args(["s_client", "-alpn", "h2", "-ign_eof", "-connect", &address.to_string()])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    });
    let output = timeout(LIMIT, nobody).await.expect("it hangs").unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(text.contains("certificate required"), "{text}");
    let before = eventually(LIMIT, || refused(before + 1)).await;

    // With one of another CA: the caller learns the reason long before its deadline, and does not dial in a loop.
    let other = TestCa::new();
    let foreign = ServicePool::builder()
        .tls(other.issue("foreign", "test").trusting(&[&other, mesh.ca()]).options())
        .provider("a", address.to_string(), [IDENTITY_V1])
        .build()
        .unwrap();
    let began = Instant::now();
    let status = timeout(2 * SECOND, ask(&client(&foreign), "1")).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    for needed in ["does not know our CA", "UnknownCA"] {
        assert!(status.message().contains(needed), "{status}");
    }
    while began.elapsed() < 3 * SECOND {
        assert!(ask(&client(&foreign), "1").await.is_err());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The first, and those after 1 s and 1.6 s more, each a fifth sooner at most.
    let dials = a.stats().refused - before;
    assert!((1..=3).contains(&dials), "{dials} dials in 3 s");

    // However slow the machine is.
    let count = eventually(LIMIT, || match made.load(Ordering::SeqCst) {
        count if 500 < count => Ok(count),
        count => Err(format!("{count} good calls so far")),
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    let slowest = calls.await.unwrap();
    println!("{count} calls, none failed, the slowest took {slowest:?}");
    assert_eq!(ask(&ready(&late.pool(), 1).await, "1").await.unwrap().name, "a");
}
