use std::sync::Arc;
use std::time::Duration;

use aegis_testing::TestCa;
use aegis_transport::{Connections, Link, LinkStatus, Settings, Slot, Tcp};

use super::server::Server;

/// The connections of one client, and what a test does with them.
pub(crate) struct Client {
    pub(crate) connections: Connections,
}

impl Client {
    pub(crate) fn new(ca: &TestCa) -> Self {
        Self::with(ca, |_| {})
    }

    pub(crate) fn with(ca: &TestCa, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        change(&mut settings);
        let tls = ca.tls("client-1", "client");
        Self { connections: Connections::new(tls, Arc::new(Tcp::default()), settings) }
    }

    pub(crate) fn link(&self, server: &Server) -> Link {
        self.connections.link(server.target())
    }
}

pub(crate) fn request<B>(body: B) -> http::Request<B> {
    http::Request::post("http://ignored/test.Echo/Echo")
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap()
}

/// Waits until a condition holds.
pub(crate) async fn eventually<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = condition() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), looking).await.expect("not within 5 s")
}

/// A slot, as soon as there is one.
pub(crate) async fn slot(link: &Link) -> Slot {
    eventually(|| link.try_acquire().ok()).await
}

#[track_caller]
pub(crate) fn assert_connected(status: &LinkStatus) {
    assert!(matches!(status, LinkStatus::Connected { .. }), "{status:?}");
}
