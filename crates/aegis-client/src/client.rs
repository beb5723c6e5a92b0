use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
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
    fallbacks: Vec<ServiceChannel>,
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
        Self { channel: pool.channel(info), fallbacks: Vec::new(), factory: Arc::new(factory) }
    }

    /// Falls back to another version, or another service, where none of those named before has a connected provider
    /// (default: no fallback).
    ///
    /// Each client is made for the first of them that has a connected provider at that moment; while none has one, for the
    /// first that may have one soon. So a client is best got for each piece of work, not kept: one that is kept stays with
    /// its version, and a call that is on its way to a version's last provider as that leaves fails with `UNAVAILABLE`, as
    /// without a fallback: only a new client can speak another version. `factory` sees which it is by [`ServiceChannel::info`]; where the versions have different generated
    /// clients, it makes an enum of them. [`explain_all`](Self::explain_all) counts the calls of each.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use aegis_client::ServiceClient;
    /// use aegis_core::ServiceInfo;
    /// use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient as V1;
    /// use aegis_proto::identity::v2::identity_service_client::IdentityServiceClient as V2;
    /// # use aegis_client::ServiceChannel;
    /// # use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
    /// # struct Identity;
    /// # impl IdentityService for Identity {}
    ///
    /// const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
    /// const IDENTITY_V2: ServiceInfo = ServiceInfo::from_static("identity", "v2");
    ///
    /// enum Identities {
    ///     New(V2<ServiceChannel>),
    ///     Old(V1<ServiceChannel>),
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), aegis_client::Error> {
    /// # let mesh = aegis_testing::TestMesh::in_memory();
    /// # let _one = mesh.serve("morpheus-1", |node| node.service(IDENTITY_V1, IdentityServiceServer::new(Identity))).await;
    /// # let pool = mesh.node("vicky-1").pool();
    /// let identity = ServiceClient::new(&pool, IDENTITY_V2, |channel| {
    ///     if *channel.info() == IDENTITY_V2 {
    ///         Identities::New(V2::new(channel))
    ///     } else {
    ///         Identities::Old(V1::new(channel))
    ///     }
    /// })
    /// .or(IDENTITY_V1);
    /// identity.wait_ready(1, Duration::from_secs(5)).await?; // of any of the versions
    /// match identity.get()? {
    ///     Identities::New(_client) => unreachable!("nobody serves it yet"),
    ///     Identities::Old(_client) => {}
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn or(mut self, info: ServiceInfo) -> Self {
        self.fallbacks.push(self.channel.of(info));
        self
    }

    /// The channel of the first version that is connected, else of the first that may be soon.
    fn choose(&self) -> Result<&ServiceChannel, Error> {
        if let Some(connected) = self.channels().find(|channel| channel.is_connected()) {
            return connected.check().map(|()| connected);
        }
        let Err(error) = self.channel.check() else { return Ok(&self.channel) };
        self.fallbacks.iter().find(|channel| channel.check().is_ok()).ok_or(error)
    }

    fn channels(&self) -> impl Iterator<Item = &ServiceChannel> {
        std::iter::once(&self.channel).chain(&self.fallbacks)
    }

    /// A client; the provider is picked for each of its calls.
    ///
    /// # Errors
    /// [`Error::NoProviders`] once the first sync and each first connection attempt are over and nobody can be
    /// called; [`Error::NoTlsConfig`] if our own certificate is not usable now; [`Error::Closed`].
    pub fn get(&self) -> Result<C, Error> {
        Ok((self.factory)(self.choose()?.clone()))
    }

    /// A client all of whose calls go to one provider: the one whose turn it is.
    ///
    /// Its calls fail with [`Error::PinLost`] when that provider is gone; another client may be pinned to another. While the
    /// first sync or connection is under way, the provider is chosen with the first call.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn pinned(&self) -> Result<C, Error> {
        Ok((self.factory)(self.choose()?.pinned()?))
    }

    /// Waits until `count` providers of one version are connected, full ones among them; one that does not answer PINGs does not count.
    ///
    /// # Errors
    /// [`Error::NotReady`] after `timeout`; [`Error::Closed`] or [`Error::NoTlsConfig`] at once.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn wait_ready(&self, count: usize, timeout: Duration) -> Result<(), Error> {
        let mut waits: Vec<_> =
            self.channels().map(|channel| Box::pin(channel.connected(count))).collect();
        let first = poll_fn(|cx| {
            let mut polled = waits.iter_mut().map(|wait| wait.as_mut().poll(cx));
            polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
        });
        match tokio::time::timeout(timeout, first).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.channel.not_ready(count)),
        }
    }

    /// Says for each provider whether it is called, and if not, why; of the preferred version.
    pub fn explain(&self) -> Explanation {
        self.channel.explain()
    }

    /// The same for each version, in the order of preference: also how many calls each had.
    pub fn explain_all(&self) -> Vec<Explanation> {
        self.channels().map(ServiceChannel::explain).collect()
    }

    /// The service its clients call; the preferred version.
    pub fn info(&self) -> &ServiceInfo {
        self.channel.info()
    }
}

impl<C> Clone for ServiceClient<C> {
    fn clone(&self) -> Self {
        Self {
            channel: self.channel.clone(),
            fallbacks: self.fallbacks.clone(),
            factory: Arc::clone(&self.factory),
        }
    }
}

impl<C> fmt::Debug for ServiceClient<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceClient").field("channel", &self.channel).finish_non_exhaustive()
    }
}
