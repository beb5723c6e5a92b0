use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::ServiceInfo;

use crate::{Error, Explanation, ServiceChannel, ServicePool};

/// Makes clients of one service.
///
/// ```no_run
/// # async fn example<C: 'static>(pool: aegis_client::ServicePool, new: fn(aegis_client::ServiceChannel) -> C) -> Result<(), aegis_client::Error> {
/// use aegis_client::ServiceClient;
/// use aegis_core::ServiceInfo;
///
/// const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
///
/// // `new` is the generated `IdentityServiceClient::new`.
/// let identity = ServiceClient::new(&pool, IDENTITY_V1, new);
/// let client = identity.get()?; // each of its calls goes to the provider whose turn it is
/// # drop(client);
/// # Ok(())
/// # }
/// ```
///
/// While it lives, the providers of its service stay connected. Cloning it is cheap.
pub struct ServiceClient<C> {
    channel: ServiceChannel,
    factory: Arc<dyn Fn(ServiceChannel) -> C + Send + Sync>,
}

impl<C> ServiceClient<C> {
    /// Clients of `info`, made by `factory`: a generated client's `new`, or a closure that also sets message limits,
    /// compression or an interceptor.
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
    /// Its calls fail when that provider is gone. While the first sync or connection is under way, the provider is
    /// chosen with the first call.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn pinned(&self) -> Result<C, Error> {
        Ok((self.factory)(self.channel.pinned()?))
    }

    /// Waits until `count` providers are connected.
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
