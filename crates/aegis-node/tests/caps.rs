//! The bounds on finished connections.

use aegis_node::{Limits, Server};
use aegis_testing::{TestCa, eventually};
use tokio::time::{sleep, timeout};

use crate::support::{LIMIT, Peer, dial, node};

/// Whether a further connection of `id` is served: a call goes through.
async fn is_served(ca: &TestCa, id: &str, server: &Server) -> Option<Peer> {
    let io = dial(&ca.tls(id, "test"), server.local_addr()).await.ok()?;
    let peer = Peer::over(io).await.ok()?;
    let answer = peer.call(crate::support::post("Seen"), bytes::Bytes::new());
    let answer = timeout(LIMIT, answer).await.expect("neither served nor closed");
    answer.is_ok().then_some(peer)
}

/// Two connections are open of those that `limits` let be, a third of `third` is refused until one of them closes.
async fn check(limits: Limits, ids: [&str; 2], third: &str) {
    let (mesh, server, _lab) = node(limits).await;
    let first = is_served(mesh.ca(), ids[0], &server).await.expect("the first is served");
    let second = is_served(mesh.ca(), ids[1], &server).await.expect("the second is served");
    assert_eq!((server.stats().connections, server.stats().over_limit), (2, 0));

    assert!(is_served(mesh.ca(), third, &server).await.is_none());
    assert_eq!((server.stats().connections, server.stats().over_limit), (2, 1));
    first.ask().await;
    second.ask().await;

    drop(first);
    eventually(LIMIT, || match server.stats().connections {
        1 => Ok(()),
        open => Err(format!("{open} are open")),
    })
    .await;
    is_served(mesh.ca(), third, &server).await.expect("there is room again");
}

#[tokio::test]
async fn a_connection_too_many_is_closed_and_room_is_given_again() {
    check(Limits::default().max_connections(2), ["a", "b"], "c").await;
}

#[tokio::test]
async fn a_node_has_so_many_connections_and_no_more() {
    check(Limits::default().max_connections_per_identity(2), ["a", "a"], "a").await;
}

#[tokio::test]
async fn one_node_with_many_connections_leaves_others_theirs() {
    let (mesh, server, _lab) = node(Limits::default().max_connections_per_identity(2)).await;
    let mut greedy = Vec::new();
    for _ in 0..10 {
        greedy.extend(is_served(mesh.ca(), "greedy", &server).await);
    }
    assert_eq!((greedy.len(), server.stats().over_limit), (2, 8));
    is_served(mesh.ca(), "modest", &server).await.expect("others are served");
    // Closing and opening many times leaves no count behind.
    drop(greedy);
    for _ in 0..10 {
        while 1 < server.stats().connections {
            sleep(std::time::Duration::from_millis(1)).await;
        }
        let peer = is_served(mesh.ca(), "greedy", &server).await;
        assert!(peer.is_some(), "{:?}", server.stats());
    }
}
