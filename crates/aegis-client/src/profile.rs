use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aegis_core::{NodeId, ServiceInfo};
use aegis_topology::{NodeEntry, ServiceEntry};
use tokio::time::Instant;

use crate::load::Load;

/// What a balancer may know of a provider of one service.
#[derive(Debug)]
pub(crate) struct Profile {
    pub(crate) node_id: NodeId,
    pub(crate) load: Load,
    weight: AtomicU32,
    entry: Mutex<Arc<NodeEntry>>,
}

impl Profile {
    pub(crate) fn new(entry: &Arc<NodeEntry>, info: &ServiceInfo, now: Instant) -> Self {
        Self {
            node_id: entry.node_id().clone(),
            load: Load::new(now),
            weight: AtomicU32::new(weight(entry, info)),
            entry: Mutex::new(Arc::clone(entry)),
        }
    }

    /// Its entry in the directory, as the pool saw it last.
    pub(crate) fn entry(&self) -> Arc<NodeEntry> {
        Arc::clone(&self.entry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes another entry over; whether it is one.
    pub(crate) fn heed(&self, entry: &Arc<NodeEntry>, info: &ServiceInfo) -> bool {
        let mut known = self.entry.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&known, entry) {
            return false;
        }
        *known = Arc::clone(entry);
        drop(known);
        self.weigh(weight(entry, info));
        true
    }

    pub(crate) fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    pub(crate) fn weigh(&self, weight: u32) {
        self.weight.store(weight, Ordering::Relaxed);
    }
}

fn weight(entry: &NodeEntry, info: &ServiceInfo) -> u32 {
    entry.service(info).map_or(ServiceEntry::DEFAULT_WEIGHT, ServiceEntry::weight)
}
