use std::any::Any;
use std::fmt;
use std::sync::Arc;

use aegis_core::ServiceInfo;
use aegis_tls::Tls;
use aegis_topology::Directory;
use aegis_transport::Connections;
use tokio::runtime::Handle;

use crate::limit::ResponseLimit;
use crate::options::PoolOptions;
use crate::policy::Policies;
use crate::shared::{Shared, Source};
use crate::{CallPolicy, Explanation, PoolBuilder, ServiceChannel};

/// Connections to the providers of services, shared by all clients made from it.
///
/// Cloning it is cheap; clones are the same pool. A provider is dialled while a channel of a service that it
/// provides exists. When the last clone, channel and answer is gone, the connections close.
#[derive(Clone)]
pub struct ServicePool {
    pub(crate) shared: Arc<Shared>,
    pub(crate) policies: Policies,
}

impl ServicePool {
    /// A pool of its own, for a process that is no node.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }

    /// The pool of a node: it shares the node's directory, connections and certificate.
    ///
    /// `follower` is what keeps the directory up to date: it lives as long as the pool, also where the node is dropped
    /// before. Closing the pool leaves directory and connections open. To be called inside a tokio runtime.
    #[doc(hidden)]
    pub fn for_node(
        directory: Directory,
        connections: Connections,
        tls: Tls,
        follower: Arc<dyn Any + Send + Sync>,
        options: PoolOptions,
    ) -> Self {
        let shared = Shared::start(
            directory,
            connections,
            tls,
            ResponseLimit::Default,
            options,
            Source::Node(follower),
            Handle::current(),
        );
        Self { shared, policies: Policies::default() }
    }

    /// The channel of a service; its providers are dialled from now on, in the background.
    pub fn channel(&self, info: ServiceInfo) -> ServiceChannel {
        ServiceChannel::new(self.shared.service(info), self.policies.clone())
    }

    /// The same pool for clients whose calls of a method, or of a whole gRPC service, are made like this (default: no call
    /// is repeated once a provider may have seen it).
    ///
    /// Pools and channels that were made before are as they were; [`ServiceChannel::policy`] says what a name is.
    ///
    /// ```
    /// use aegis_client::CallPolicy;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let mesh = aegis_testing::TestMesh::in_memory();
    /// # let node = mesh.node("vicky-1");
    /// let reads = CallPolicy::new().idempotent();
    /// let pool = node.pool().with_policy("/aegis.identity.v1.IdentityService/GetUser", reads);
    /// # drop(pool);
    /// # }
    /// ```
    #[must_use]
    pub fn with_policy(mut self, name: &str, policy: CallPolicy) -> Self {
        self.policies.set(name, policy);
        self
    }

    /// The directory of the mesh as this pool follows it; of static providers, what the builder was told.
    pub fn directory(&self) -> Directory {
        self.shared.directory()
    }

    /// Says for each node that advertises a service whether it is called, and if not, why.
    pub fn explain(&self, info: &ServiceInfo) -> Explanation {
        self.shared.explain(info)
    }

    /// Refuses new calls, waits for those under way, and closes the connections that are not shared with a node.
    ///
    /// A call that waits for a provider or a stream, or is about to move, is under way: it goes on as if the pool were
    /// open. A stream counts until its end, so callers that hold endless ones put a timeout around this.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the pool closed for new calls; calls under way go on.
    pub async fn close(&self) {
        self.shared.close().await;
    }
}

impl fmt::Debug for ServicePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServicePool").field("source", &self.shared.source).finish_non_exhaustive()
    }
}
