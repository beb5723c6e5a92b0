use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::ServiceInfo;

use crate::{Error, Explanation, ServiceChannel, ServicePool};

/// Makes clients of one service.
///
/// ```
/// use aegis_client::ServiceClient;
/// use aegis_core::ServiceInfo;
/// use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
/// # use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
/// # struct Identity;
/// # impl IdentityService for Identity {}
///
/// const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), aegis_client::Error> {
/// # let mesh = aegis_testing::TestMesh::in_memory();
/// # let _one = mesh.serve("morpheus-1", |node| node.service(IDENTITY_V1, IdentityServiceServer::new(Identity))).await;
/// # let pool = mesh.node("vicky-1").pool();
/// let identity = ServiceClient::new(&pool, IDENTITY_V1, IdentityServiceClient::new);
/// let client = identity.get()?; // each of its calls goes to the provider whose turn it is
///
/// // What a generated client can be told is told in the factory.
/// let large = ServiceClient::new(&pool, IDENTITY_V1, |channel| {
///     IdentityServiceClient::new(channel).max_decoding_message_size(16 << 20)
/// });
/// let pinned = large.pinned()?; // all of its calls go to one provider
/// # drop((client, pinned));
/// # Ok(())
/// # }
/// ```
///
/// While it lives, the providers of its service stay connected. Cloning it is cheap; the last clone, and the last client
/// made by it, let them go.
pub struct ServiceClient<C> {
    channel: ServiceChannel,
    factory: Arc<dyn Fn(ServiceChannel) -> C + Send + Sync>,
}

impl<C> ServiceClient<C> {
    /// Clients of `info`, made by `factory`: a generated client's `new`, or a closure that also sets message limits,
    /// compression or an interceptor.
    ///
    /// The providers are dialled from now on, in the background. `factory` is called for each client.
    pub fn new(
        pool: &ServicePool,
        info: ServiceInfo,
        factory: impl Fn(ServiceChannel) -> C + Send + Sync + 'static,
    ) -> Self {
        Self { channel: pool.channel(info), factory: Arc::new(factory) }
    }

    /// A client; the provider is picked for each of its calls.
    ///
    /// # Errors
    /// [`Error::NoProviders`] once the first sync and each first connection attempt are over and nobody can be
    /// called; [`Error::NoTlsConfig`] if our own certificate is not usable now; [`Error::Closed`].
    pub fn get(&self) -> Result<C, Error> {
        self.channel.check()?;
        Ok((self.factory)(self.channel.clone()))
    }

    /// A client all of whose calls go to one provider: the one whose turn it is.
    ///
    /// Its calls fail with [`Error::PinLost`] when that provider is gone; another client may be pinned to another. While the
    /// first sync or connection is under way, the provider is chosen with the first call.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn pinned(&self) -> Result<C, Error> {
        Ok((self.factory)(self.channel.pinned()?))
    }

    /// Waits until `count` providers are connected, full ones among them; one that does not answer PINGs does not count.
    ///
    /// # Errors
    /// [`Error::NotReady`] after `timeout`; [`Error::Closed`] or [`Error::NoTlsConfig`] at once.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn wait_ready(&self, count: usize, timeout: Duration) -> Result<(), Error> {
        self.channel.wait_ready(count, timeout).await
    }

    /// Says for each provider whether it is called, and if not, why.
    pub fn explain(&self) -> Explanation {
        self.channel.explain()
    }

    /// The service its clients call.
    pub fn info(&self) -> &ServiceInfo {
        self.channel.info()
    }
}

impl<C> Clone for ServiceClient<C> {
    fn clone(&self) -> Self {
        Self { channel: self.channel.clone(), factory: Arc::clone(&self.factory) }
    }
}

impl<C> fmt::Debug for ServiceClient<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceClient").field("channel", &self.channel).finish_non_exhaustive()
    }
}
