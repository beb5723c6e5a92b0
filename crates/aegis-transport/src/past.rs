use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aegis_core::{Address, NodeId};
use tokio::time::Instant;

use crate::backoff::Attempts;
use crate::error::DialError;
use crate::node::About;

/// Nodes that are remembered; more than that are in trouble only where a mesh is cut in two.
const REMEMBERED: usize = 4_096;

/// Nodes that could not be reached and that nobody wants now.
///
/// Whoever asks for a node every now and then must neither dial it each time nor make the log say each time that it is down.
#[derive(Debug, Default)]
pub(crate) struct Past(Mutex<HashMap<NodeId, Trouble>>);

/// What a keeper has learned about a node that it could not reach.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) attempts: Attempts,
    pub(crate) not_before: Instant,
    pub(crate) error: Option<Arc<DialError>>,
    pub(crate) warned: Option<Instant>,
    pub(crate) said_down: bool,
    /// What it is about: other addresses or a later record are news.
    pub(crate) addresses: Arc<[Address]>,
    pub(crate) record: (u64, u64),
}

impl Past {
    pub(crate) fn remember(&self, id: NodeId, trouble: Trouble) {
        let mut nodes = self.lock();
        if REMEMBERED <= nodes.len() && !nodes.contains_key(&id) {
            let oldest = nodes.iter().min_by_key(|(_, it)| it.not_before);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                nodes.remove(&oldest);
            }
        }
        nodes.insert(id, trouble);
    }

    /// What is known of a node that is wanted again; where there is news of it, only what the log said.
    pub(crate) fn recall(&self, about: &About) -> Option<Trouble> {
        let mut trouble = self.lock().remove(&about.id)?;
        if *trouble.addresses != *about.addresses || trouble.record < about.record {
            trouble.attempts.reset();
            trouble.not_before = Instant::now();
            trouble.error = None;
        }
        Some(trouble)
    }

    /// The sections under the lock assign and move; none can panic half-way.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn trouble(not_before: Instant) -> Trouble {
        Trouble {
            attempts: Attempts::default(),
            not_before,
            error: Some(Arc::new(DialError::NoAddress)),
            warned: None,
            said_down: true,
            addresses: [address(1)].into(),
            record: (1, 1),
        }
    }

    fn address(port: u16) -> Address {
        format!("127.0.0.1:{port}").parse().unwrap()
    }

    fn about(id: &str, port: u16, record: (u64, u64)) -> About {
        About { id: id.parse().unwrap(), foreign: false, addresses: vec![address(port)], record }
    }

    #[test]
    fn only_another_address_or_a_later_record_is_news() {
        for (port, record, is_news) in [
            (1, (1, 1), false),
            (1, (0, 9), false),
            (1, (1, 2), true),
            (1, (2, 0), true),
            (2, (1, 1), true),
        ] {
            let past = Past::default();
            past.remember("a".parse().unwrap(), trouble(Instant::now() + Duration::from_secs(60)));
            let known = past.recall(&about("a", port, record)).unwrap();
            assert_eq!(known.error.is_none(), is_news, "{port} {record:?}");
            assert_eq!(known.not_before <= Instant::now(), is_news, "{port} {record:?}");
            assert!(known.said_down);
            assert!(past.recall(&about("a", port, record)).is_none());
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes() {
        let past = Past::default();
        let now = Instant::now();
        for at in 0..=REMEMBERED as u64 {
            let id = format!("n{at}").parse().unwrap();
            past.remember(id, trouble(now + Duration::from_secs(at)));
        }
        assert_eq!(past.lock().len(), REMEMBERED);
        assert!(past.recall(&about("n0", 1, (1, 1))).is_none());
        assert!(past.recall(&about("n1", 1, (1, 1))).is_some());
    }
}
