//! What goes wrong between nodes and within them, on purpose.

#[cfg(feature = "mesh")]
mod calls;
mod delay;
mod link;
mod network;
mod queue;
mod rules;
mod seed;
mod stream;
mod way;

use std::fmt;
use std::sync::Arc;

use aegis_transport::Network;

#[cfg(feature = "mesh")]
pub use self::calls::{CallFaults, FaultLayer, FaultService};
pub use self::delay::Delay;
pub use self::link::{Direction, LinkFaults};
use self::network::FaultyNetwork;
use self::rules::{Shared, Which};

/// Faults of a mesh: of the links between its nodes, and of the methods that they serve.
///
/// ```text
/// Faults ─┬─ to("b"), between("a", "b")    links: refuse, hang, delay, cut, ... any Network below TLS
///         └─ at("b"), at("b").method(..)   calls: fail, hang, delay             a tower layer
/// ```
///
/// Every [`TestMesh`](crate::TestMesh) has one, [`TestMesh::faults`](crate::TestMesh::faults), whose nodes are under it
/// already. Nothing is wrong until it is told so; each fault is switched on and off while nodes run, and connections and
/// calls that are under way meet it too. Waits are on tokio's clock, paused time included.
///
/// ```
/// use std::time::Duration;
///
/// use aegis_client::ServiceClient;
/// use aegis_core::ServiceInfo;
/// use aegis_proto::identity::v1::{GetUserRequest, identity_service_client::IdentityServiceClient};
/// use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
/// use aegis_testing::TestMesh;
/// use tonic::{Code, Status};
///
/// const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
///
/// struct Fake;
///
/// impl IdentityService for Fake {}
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mesh = TestMesh::in_memory();
/// let _a = mesh.serve("a", |node| node.service(IDENTITY_V1, IdentityServiceServer::new(Fake))).await;
/// let c = mesh.node("c");
/// let identity = ServiceClient::new(&c.pool(), IDENTITY_V1, IdentityServiceClient::new);
/// identity.wait_ready(1, Duration::from_secs(5)).await?;
///
/// // A method that fails,
/// mesh.faults().at("a").fail(Status::resource_exhausted("full"));
/// let status = identity.get()?.get_user(GetUserRequest::default()).await.unwrap_err();
/// assert_eq!(status.code(), Code::ResourceExhausted);
/// mesh.faults().heal();
///
/// // and a node that died: its connections break, and nobody gets another.
/// mesh.faults().to("a").refuse().cut();
/// let status = identity.get()?.get_user(GetUserRequest::default()).await.unwrap_err();
/// assert_eq!(status.code(), Code::Unavailable);
///
/// // It is back.
/// mesh.faults().heal();
/// identity.wait_ready(1, Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Seed
///
/// Delays within a range and shares of calls are drawn from a seed: the nth draw of one connection or method is the same
/// under the same seed. It is `AEGIS_SEED` from the environment where that is set, else another one each time; a test that
/// panics after anything was drawn prints it.
///
/// # What it does not do
///
/// Bytes are late, held or cut off, never changed, dropped or reordered: beneath them TCP would have mended that.
/// What a dialler sent over a slow or hung link is lost when it drops the connection before the bytes have left.
///
/// A clone has the same faults.
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

impl Faults {
    /// None yet, with the seed of the environment or, where it has none, another one each time.
    pub fn new() -> Self {
        Self::seeded(seed::from_environment())
    }

    /// None yet; what is drawn is drawn from this seed.
    pub fn seeded(seed: u64) -> Self {
        Self { shared: Arc::new(Shared::new(seed)) }
    }

    /// What draws come from.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// The faults of links to a node or an address (`host:port`), whoever dials it.
    ///
    /// A node is known by the network that it binds with ([`network_of`](Self::network_of); a [`TestMesh`](crate::TestMesh)
    /// sees to it), also before it does.
    pub fn to(&self, target: impl Into<String>) -> LinkFaults {
        LinkFaults::new(&self.shared, Which::to(target.into()))
    }

    /// The faults of links between two nodes, whichever of them dials; what is set here counts before what is set for
    /// [all](Self::to).
    pub fn between(&self, one: impl Into<String>, other: impl Into<String>) -> LinkFaults {
        LinkFaults::new(&self.shared, Which::between(one.into(), other.into()))
    }

    /// The faults of all calls that a node serves, or of those under a name of a [`layer`](Self::layer).
    #[cfg(feature = "mesh")]
    pub fn at(&self, node: impl Into<String>) -> CallFaults {
        CallFaults::new(&self.shared, node.into(), None)
    }

    /// A tower layer under which calls meet the faults of [`at`](Self::at) with this name: for
    /// [`NodeBuilder::layer`](aegis_node::NodeBuilder::layer), or around a
    /// [`ServiceChannel`](aegis_client::ServiceChannel).
    #[cfg(feature = "mesh")]
    pub fn layer(&self, name: impl Into<String>) -> FaultLayer {
        FaultLayer::new(&self.shared, name.into())
    }

    /// A network whose links have these faults; who dials with it is nobody by name.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// use std::sync::Arc;
    ///
    /// use aegis_testing::Faults;
    /// use aegis_transport::{Network as _, Tcp};
    ///
    /// let faults = Faults::new();
    /// let network = faults.network(Arc::new(Tcp::default()));
    /// let listener = network.bind(&"127.0.0.1:0".parse()?).await?;
    /// let address = listener.local_addr()?;
    ///
    /// faults.to(address.to_string()).refuse();
    /// assert!(network.connect(&address.into()).await.is_err());
    /// faults.heal();
    /// assert!(network.connect(&address.into()).await.is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn network(&self, network: Arc<dyn Network>) -> Arc<dyn Network> {
        Arc::new(FaultyNetwork::new(&self.shared, None, network))
    }

    /// A network for one node: what it binds is from then on known by its id, and what it dials is from it.
    pub fn network_of(&self, id: impl Into<String>, network: Arc<dyn Network>) -> Arc<dyn Network> {
        Arc::new(FaultyNetwork::new(&self.shared, Some(id.into()), network))
    }

    /// Ends every fault of links and of calls, as [`LinkFaults::heal`] and [`CallFaults::heal`] do for one.
    pub fn heal(&self) {
        self.shared.change(rules::Links::heal);
        #[cfg(feature = "mesh")]
        self.shared.calls.heal();
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("seed", &self.shared.seed).finish_non_exhaustive()
    }
}

impl Drop for Faults {
    #[expect(clippy::print_stderr, reason = "it is for whoever reads the failed test's output")]
    fn drop(&mut self) {
        if std::thread::panicking() && self.shared.must_tell() {
            eprintln!("faults were drawn: AEGIS_SEED={} draws them again", self.shared.seed);
        }
    }
}
