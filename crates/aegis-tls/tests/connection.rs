//! Good and bad handshakes between two of us, and with peers that speak something else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aegis_testing::{Flaw, KeyKind, TestCa};
use aegis_tls::{AcceptError, Accepted, Caller, ConnectError, Connected, Expected, Tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::{any_name, id, raw_client, raw_server, subject};

async fn handshake(
    client: &Tls,
    expected: Expected<'_>,
    server: &Tls,
) -> (Result<Connected<DuplexStream>, ConnectError>, Result<Accepted<DuplexStream>, AcceptError>) {
    let (near, far) = duplex(64 * 1024);
    tokio::join!(client.connect(expected, near), server.accept(far))
}

#[tokio::test]
async fn both_sides_know_each_other_and_talk() {
    let ca = TestCa::new();
    let (vicky, morpheus) = (ca.tls("vicky", "gateway"), ca.tls("morpheus-1", "identity-server"));
    let pin = id("morpheus-1");
    let (connected, accepted) = handshake(&vicky, Expected::Node(&pin), &morpheus).await;
    let (mut connected, mut accepted) = (connected.unwrap(), accepted.unwrap());

    assert_eq!(connected.peer, morpheus.spiffe_id());
    let caller = &accepted.caller;
    assert_eq!((caller.node_id().as_str(), caller.node_type().as_str()), ("vicky", "gateway"));
    assert_eq!(caller.spiffe_id(), &vicky.spiffe_id());
    assert_eq!(caller.chain().count(), 1);
    assert_eq!(caller.not_after(), vicky.not_after());

    let mut answer = [0; 4];
    connected.stream.write_all(b"ping").await.unwrap();
    connected.stream.flush().await.unwrap();
    accepted.stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");
    assert_eq!(connected.refusal.get(), None);
}

#[tokio::test]
async fn ids_that_are_no_dns_names_connect_to_each_other() {
    let ca = TestCa::new();
    let ids = ["10", "node.1", "a.-b", "a_b", "morpheus-1"];
    for server in ids {
        for client in ids {
            let (client_tls, server_tls) = (ca.tls(client, "worker"), ca.tls(server, "worker"));
            let pin = id(server);
            let (connected, accepted) =
                handshake(&client_tls, Expected::Node(&pin), &server_tls).await;
            assert_eq!(connected.unwrap().peer.node_id(), server);
            assert_eq!(accepted.unwrap().caller.node_id(), client);
        }
    }
}

#[tokio::test]
async fn nodes_with_keys_of_each_kind_connect_to_each_other() {
    let ca = TestCa::new();
    let nodes = KeyKind::ALL.map(|kind| {
        let cert = ca.issue_with(kind, "morpheus-1", "worker");
        (kind, cert.options().load(&subject("morpheus-1", "worker")).unwrap())
    });
    for (client_kind, client) in &nodes {
        for (server_kind, server) in &nodes {
            let (connected, accepted) = handshake(client, Expected::AnyMember, server).await;
            assert!(connected.is_ok(), "{client_kind:?} to {server_kind:?}: {connected:?}");
            assert!(accepted.is_ok(), "{client_kind:?} to {server_kind:?}: {accepted:?}");
        }
    }
}

#[tokio::test]
async fn another_node_than_the_dialled_one_gets_no_byte() {
    let ca = TestCa::new();
    let (vicky, mouse) = (ca.tls("vicky", "gateway"), ca.tls("mouse-1", "worker"));
    let pin = id("morpheus-1");
    let (connected, accepted) = handshake(&vicky, Expected::Node(&pin), &mouse).await;
    match connected {
        Err(ConnectError::WrongNode { expected, found }) => {
            assert_eq!((expected.as_str(), found.as_str()), ("morpheus-1", "mouse-1"));
        }
        other => panic!("{other:?}"),
    }
    // It ended within the handshake, with an alert that says why.
    match accepted {
        Err(AcceptError::Refused(refusal)) => {
            assert_eq!(refusal.reason(), "wrong_node");
            assert!(refusal.to_string().contains("AccessDenied"), "{refusal}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(mouse.parsed_certificates(), 0);
    // The pin alone was wrong.
    let pin = id("mouse-1");
    handshake(&vicky, Expected::Node(&pin), &mouse).await.0.unwrap();
    handshake(&vicky, Expected::AnyMember, &mouse).await.0.unwrap();
}

#[tokio::test]
async fn certificates_of_callers_are_counted_once_per_handshake_good_or_bad() {
    let ca = TestCa::new();
    let server = ca.tls("morpheus-1", "worker");
    let (good, foreign) = (ca.tls("vicky", "gateway"), TestCa::new().tls("vicky", "gateway"));
    let bad = raw_client(Some(&ca.issue_bad("vicky", "gateway", Flaw::OnlyServerAuth)));
    let mut parsed = 0;
    for _ in 0..2 {
        handshake(&good, Expected::AnyMember, &server).await.1.unwrap();
        parsed += 1;
        assert_eq!(server.parsed_certificates(), parsed);

        let (near, far) = duplex(64 * 1024);
        let client = async {
            let connector = TlsConnector::from(Arc::new(bad.clone()));
            if let Ok(mut stream) = connector.connect(any_name(), near).await {
                drop(stream.read(&mut [0; 1]).await);
            }
        };
        let (refused, ()) = tokio::join!(server.accept(far), client);
        assert!(matches!(refused, Err(AcceptError::Untrusted { .. })), "{refused:?}");
        parsed += 1;
        assert_eq!(server.parsed_certificates(), parsed);

        // It refuses us before it shows its own.
        handshake(&foreign, Expected::AnyMember, &server).await.1.unwrap_err();
        assert_eq!(server.parsed_certificates(), parsed);
    }
}

#[test]
fn a_request_from_elsewhere_has_no_caller() {
    let error = Caller::from_request(&tonic::Request::new(())).unwrap_err();
    assert_eq!(tonic::Status::from(error).code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn no_ticket_is_issued_and_no_session_is_resumed() {
    let ca = TestCa::new();
    let server = ca.tls("morpheus-1", "worker");
    // A client that would resume if it could.
    let store = Arc::new(rustls::client::ClientSessionMemoryCache::new(8));
    let mut config = raw_client(Some(&ca.issue("vicky", "gateway")));
    config.resumption = rustls::client::Resumption::store(store);
    let config = Arc::new(config);
    for _ in 0..2 {
        let (near, far) = duplex(64 * 1024);
        let client = async {
            let connector = TlsConnector::from(Arc::clone(&config));
            let mut stream = connector.connect(any_name(), near).await.unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            let connection = stream.get_ref().1;
            assert_eq!(connection.handshake_kind(), Some(rustls::HandshakeKind::Full));
            assert_eq!(connection.tls13_tickets_received(), 0);
            let group = connection.negotiated_key_exchange_group().unwrap().name();
            assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
        };
        let accept = async {
            let mut accepted = server.accept(far).await.unwrap();
            accepted.stream.write_all(b"x").await.unwrap();
            accepted.stream.flush().await.unwrap();
            // Until the client has read it.
            drop(accepted.stream.read(&mut [0; 1]).await);
        };
        tokio::join!(client, accept);
    }
    assert_eq!(server.parsed_certificates(), 2);
}

#[tokio::test]
async fn our_client_takes_no_ticket_of_a_foreign_server() {
    let ca = TestCa::new();
    let client = ca.tls("vicky", "gateway");
    let config = raw_server(&ca.issue("morpheus-1", "worker"));
    let config = Arc::new(config);
    assert!(0 < config.send_tls13_tickets);
    for _ in 0..2 {
        let (near, far) = duplex(64 * 1024);
        let connect = async {
            let connected = client.connect(Expected::AnyMember, near).await.unwrap();
            let mut stream = connected.stream;
            drop(stream.read(&mut [0; 1]).await);
        };
        let accept = async {
            let mut stream = TlsAcceptor::from(Arc::clone(&config)).accept(far).await.unwrap();
            stream.write_all(b"x").await.unwrap();
            stream.flush().await.unwrap();
            let connection = stream.get_ref().1;
            assert_eq!(connection.handshake_kind(), Some(rustls::HandshakeKind::Full));
            let group = connection.negotiated_key_exchange_group().unwrap().name();
            assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
        };
        tokio::join!(connect, accept);
    }
}

#[tokio::test]
async fn http2_is_required_of_both_sides() {
    let ca = TestCa::new();
    let tls = ca.tls("morpheus-1", "worker");
    for alpn in [vec![], vec![b"http/1.1".to_vec()]] {
        let (near, far) = duplex(64 * 1024);
        let mut config = raw_client(Some(&ca.issue("vicky", "gateway")));
        config.alpn_protocols.clone_from(&alpn);
        let client = async {
            let connector = TlsConnector::from(Arc::new(config));
            if let Ok(mut stream) = connector.connect(any_name(), near).await {
                drop(stream.read(&mut [0; 1]).await);
            }
        };
        // Whatever was accepted is dropped, so that the client does not wait for it.
        let accept = async { tls.accept(far).await.map(drop) };
        let (accepted, ()) = tokio::join!(accept, client);
        assert!(matches!(accepted, Err(AcceptError::NoAlpn)), "{accepted:?}");

        let (near, far) = duplex(64 * 1024);
        let mut config = raw_server(&ca.issue("vicky", "gateway"));
        config.alpn_protocols = alpn;
        let server = async {
            drop(TlsAcceptor::from(Arc::new(config)).accept(far).await);
        };
        let (connected, ()) = tokio::join!(tls.connect(Expected::AnyMember, near), server);
        match connected {
            Err(ConnectError::NoAlpn) => {}
            Err(ConnectError::Refused(refusal)) => assert_eq!(refusal.reason(), "no_alpn"),
            other => panic!("{other:?}"),
        }
    }
}

/// What `accept` says to a client that sends these bytes and then waits.
async fn accept_bytes(bytes: &[u8]) -> AcceptError {
    let tls = TestCa::new().tls("morpheus-1", "worker");
    let (mut near, far) = duplex(64 * 1024);
    near.write_all(bytes).await.unwrap();
    let client = async move {
        let mut answer = Vec::new();
        drop(near.read_to_end(&mut answer).await);
    };
    tokio::join!(tls.accept(far), client).0.unwrap_err()
}

/// What `connect` says to a server that answers the `ClientHello` with these bytes.
async fn connect_bytes(bytes: &[u8]) -> ConnectError {
    let tls = TestCa::new().tls("morpheus-1", "worker");
    let (near, mut far) = duplex(64 * 1024);
    let server = async move {
        drop(far.read(&mut [0; 4096]).await);
        far.write_all(bytes).await.unwrap();
        drop(far.read(&mut [0; 4096]).await);
    };
    tokio::join!(tls.connect(Expected::AnyMember, near), server).0.unwrap_err()
}

#[tokio::test]
async fn plaintext_is_called_plaintext() {
    for bytes in
        ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "SSH-2.0-x\r\n"]
    {
        let error = accept_bytes(bytes.as_bytes()).await;
        assert!(matches!(error, AcceptError::NotTls), "{bytes:?}: {error:?}");
    }
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    for bytes in [b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), &settings] {
        let error = connect_bytes(bytes).await;
        assert!(matches!(error, ConnectError::NotTls), "{error:?}");
    }
}

#[tokio::test]
async fn an_older_tls_is_refused() {
    // A ClientHello of TLS 1.2: no supported_versions, one cipher suite, one group, one signature scheme.
    let mut hello = vec![0x03, 0x03];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    hello.extend([0, 20, 0, 10, 0, 4, 0, 2, 0, 29, 0, 13, 0, 4, 0, 2, 4, 3, 0, 23, 0, 0]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    let error = accept_bytes(&record).await;
    assert!(matches!(error, AcceptError::OldTls), "{error:?}");

    // A server that knows no TLS 1.3 answers with the alert protocol_version.
    let error = connect_bytes(&[21, 3, 3, 0, 2, 2, 70]).await;
    assert!(matches!(error, ConnectError::OldTls), "{error:?}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_no_caller() {
    let tls = TestCa::new().tls("morpheus-1", "worker");
    let (near, far) = duplex(64 * 1024);
    let client = async {
        let connector = TlsConnector::from(Arc::new(raw_client(None)));
        let mut stream = connector.connect(any_name(), near).await.unwrap();
        stream.read(&mut [0; 1]).await.unwrap_err().to_string()
    };
    let (accepted, told) = tokio::join!(tls.accept(far), client);
    assert!(matches!(accepted, Err(AcceptError::NoCertificate)), "{accepted:?}");
    assert!(told.contains("CertificateRequired"), "{told}");
    assert_eq!(tls.parsed_certificates(), 0);
}

#[tokio::test]
async fn a_peer_that_goes_away_in_the_handshake_is_an_io_error() {
    let tls = TestCa::new().tls("morpheus-1", "worker");
    let (near, far) = duplex(64 * 1024);
    drop(near);
    assert!(matches!(tls.accept(far).await, Err(AcceptError::Io { .. })));
    let (near, far) = duplex(64 * 1024);
    drop(far);
    let error = tls.connect(Expected::AnyMember, near).await.unwrap_err();
    assert!(matches!(error, ConnectError::Io { .. }));
}

#[tokio::test]
async fn a_peer_that_vanishes_later_is_told_in_plain_words() {
    let ca = TestCa::new();
    let (vicky, morpheus) = (ca.tls("vicky", "gateway"), ca.tls("morpheus-1", "worker"));
    let check = |result: io::Result<usize>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(error.to_string(), "it closed without a goodbye, as a killed process does");
    };
    let (connected, accepted) = handshake(&vicky, Expected::AnyMember, &morpheus).await;
    drop(accepted);
    check(connected.unwrap().stream.read(&mut [0]).await);
    let (connected, accepted) = handshake(&vicky, Expected::AnyMember, &morpheus).await;
    drop(connected);
    check(accepted.unwrap().stream.read(&mut [0]).await);
    // One that says goodbye is no error.
    let (connected, accepted) = handshake(&vicky, Expected::AnyMember, &morpheus).await;
    connected.unwrap().stream.shutdown().await.unwrap();
    assert_eq!(accepted.unwrap().stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_refused_client_that_does_not_read_is_let_go_soon() {
    let tls = TestCa::new().tls("morpheus-1", "worker");
    let (mut near, far) = duplex(64 * 1024);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let accepted = tokio::time::timeout(Duration::from_secs(2), tls.accept(far)).await;
    assert!(matches!(accepted, Ok(Err(AcceptError::NotTls))));
}

#[tokio::test]
async fn our_own_expired_certificate_is_not_shown() {
    let ca = TestCa::new();
    let clock = crate::support::TestClock::now();
    let reader = clock.clone();
    let tls = ca
        .options("vicky", "gateway")
        .clock(move || reader.read())
        .load(&subject("vicky", "gateway"))
        .unwrap();
    tls.check_usable().unwrap();
    clock.set(tls.not_after() + Duration::from_secs(1));
    let error = tls.check_usable().unwrap_err();
    assert_eq!(error.identity, tls.spiffe_id());
    let (near, _far) = duplex(1024);
    let connected = tls.connect(Expected::AnyMember, near).await;
    assert!(matches!(connected, Err(ConnectError::NoCertificate(_))), "{connected:?}");
}
