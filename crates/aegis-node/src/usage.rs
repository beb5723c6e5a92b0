use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aegis_core::ServiceInfo;

/// How often a service was called since the node was built: whether an old version can go.
///
/// Calls count when they arrive, whatever becomes of them. See [`Node::usage`](crate::Node::usage).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceUsage {
    /// The service and version.
    pub service: ServiceInfo,
    /// Calls that named it, as every call through a `ServiceChannel` does.
    pub calls: u64,
    /// Calls that named nothing, by clients that are not aegis, to a gRPC service it is served by. Where several versions
    /// share a gRPC service, each of them may have been meant, and each counts them.
    pub unnamed: u64,
}

/// A service that a gRPC service stands for, and its calls.
#[derive(Debug, Clone)]
pub(crate) struct Served(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    info: ServiceInfo,
    /// As calls name it.
    text: String,
    calls: AtomicU64,
    unnamed: AtomicU64,
}

impl Served {
    pub(crate) fn new(info: ServiceInfo) -> Self {
        let text = info.to_string();
        Self(Arc::new(Counted { info, text, calls: AtomicU64::new(0), unnamed: AtomicU64::new(0) }))
    }

    pub(crate) fn info(&self) -> &ServiceInfo {
        &self.0.info
    }

    /// Whether a call means this service; counts it if so.
    pub(crate) fn is_named(&self, wanted: &[u8]) -> bool {
        let named = self.0.text.as_bytes() == wanted;
        if named {
            self.0.calls.fetch_add(1, Ordering::Relaxed);
        }
        named
    }

    pub(crate) fn count_unnamed(&self) {
        self.0.unnamed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn usage(&self) -> ServiceUsage {
        ServiceUsage {
            service: self.0.info.clone(),
            calls: self.0.calls.load(Ordering::Relaxed),
            unnamed: self.0.unnamed.load(Ordering::Relaxed),
        }
    }
}

/// The sums over the gRPC services that one service has.
pub(crate) fn sums(usages: impl Iterator<Item = ServiceUsage>) -> Vec<ServiceUsage> {
    let mut sums: BTreeMap<ServiceInfo, ServiceUsage> = BTreeMap::new();
    for usage in usages {
        sums.entry(usage.service.clone())
            .and_modify(|sum| {
                sum.calls += usage.calls;
                sum.unnamed += usage.unnamed;
            })
            .or_insert(usage);
    }
    sums.into_values().collect()
}
