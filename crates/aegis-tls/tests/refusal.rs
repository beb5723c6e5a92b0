//! In TLS 1.3 a refused client has finished its handshake; the reason has to reach it all the same.

use aegis_testing::TestCa;
use aegis_tls::{AcceptError, ConnectError, Expected, Rejection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::trusting;

/// Dials over real sockets, since only they lose an alert when a connection is reset.
async fn refused(write_first: bool) -> (String, &'static str, AcceptError) {
    let (ours, theirs) = (TestCa::new(), TestCa::new());
    // The client trusts the server, the server does not trust the client.
    let client = trusting(&ours, "vicky", &[&theirs]);
    let server = theirs.tls("morpheus-1", "worker");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accept = async {
        let (socket, _) = listener.accept().await.unwrap();
        server.accept(socket).await.unwrap_err()
    };
    let connect = async {
        let socket = TcpStream::connect(address).await.unwrap();
        let mut connected = client.connect(Expected::AnyMember, socket).await.unwrap();
        assert_eq!(connected.refusal.get(), None);
        if write_first {
            // Until the server's reset is in the way.
            while connected.stream.write_all(&[0; 4096]).await.is_ok()
                && connected.stream.flush().await.is_ok()
            {
                tokio::task::yield_now().await;
            }
        } else {
            connected.stream.read(&mut [0; 64]).await.unwrap_err();
        }
        let refusal = connected.refusal.get().expect("the alert was remembered");
        (refusal.to_string(), refusal.reason())
    };
    let (accept_error, (text, reason)) = tokio::join!(accept, connect);
    (text, reason, accept_error)
}

#[tokio::test]
async fn the_refused_client_learns_why() {
    let (text, reason, error) = refused(false).await;
    assert_eq!(reason, "unknown_ca");
    assert!(text.starts_with("it does not know our CA (alert UnknownCA)"), "{text}");
    assert!(matches!(error, AcceptError::Untrusted { reason: Rejection::UnknownCa { .. } }));
    assert_eq!(error.reason(), "unknown_ca");
}

#[tokio::test]
async fn a_client_that_only_writes_learns_it_too() {
    for _ in 0..4 {
        let (_, reason, _) = refused(true).await;
        assert_eq!(reason, "unknown_ca");
    }
}

#[tokio::test]
async fn a_client_that_refuses_tells_the_server() {
    let (ours, theirs) = (TestCa::new(), TestCa::new());
    let (client, server) = (ours.tls("vicky", "gateway"), theirs.tls("morpheus-1", "worker"));
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (connected, accepted) =
        tokio::join!(client.connect(Expected::AnyMember, near), server.accept(far));
    let connected = connected.unwrap_err();
    assert!(
        matches!(connected, ConnectError::Untrusted { reason: Rejection::UnknownCa { .. } }),
        "{connected:?}"
    );
    let accepted = accepted.unwrap_err();
    assert!(matches!(accepted, AcceptError::Refused(refusal) if refusal.reason() == "unknown_ca"));
    assert!(accepted.to_string().starts_with("the client refuses us: it does not know our CA"));
}
