use std::sync::{Arc, Mutex, PoisonError};

use aegis_core::Chain;
use aegis_node::{Node, NodeBuilder, Server};
use aegis_transport::{Network, Tcp};

use crate::{Faults, MemoryNetwork, TestCa};

/// A mesh of whole nodes within one process, over real mutual TLS and HTTP/2.
///
/// It owns no node: those that [`serve`](Self::serve) and [`start`](Self::start) return stop when they are dropped, and
/// live on when the mesh is.
///
/// ```
/// use std::time::Duration;
///
/// use aegis_client::ServiceClient;
/// use aegis_core::ServiceInfo;
/// use aegis_proto::identity::v1::{GetUserRequest, identity_service_client::IdentityServiceClient};
/// use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
/// use aegis_testing::TestMesh;
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
/// let status = identity.get()?.get_user(GetUserRequest::default()).await.unwrap_err();
/// assert_eq!(status.code(), tonic::Code::Unimplemented);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestMesh {
    ca: TestCa,
    faults: Faults,
    /// Without its faults.
    network: Arc<dyn Network>,
    /// Where the nodes listen that were started so far: the seeds of those to come.
    seeds: Mutex<Vec<String>>,
}

impl TestMesh {
    /// A mesh over pipes in memory: fast, and independent of the machine. tokio's paused time works with it.
    pub fn in_memory() -> Self {
        Self::over(Arc::new(MemoryNetwork::new()))
    }

    /// A mesh over TCP on the loopback interface, each node on a port of its own.
    pub fn loopback() -> Self {
        Self::over(Arc::new(Tcp::default()))
    }

    fn over(network: Arc<dyn Network>) -> Self {
        Self { ca: TestCa::new(), faults: Faults::new(), network, seeds: Mutex::default() }
    }

    /// Has the mesh's faults drawn from a seed of their own (default: that of `AEGIS_SEED`, or another one each time).
    ///
    /// Nodes that were started before keep the faults that they have.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.faults = Faults::seeded(seed);
        self
    }

    /// The CA of the mesh.
    pub fn ca(&self) -> &TestCa {
        &self.ca
    }

    /// What stands for the network; it has the faults of the mesh.
    pub fn network(&self) -> Arc<dyn Network> {
        self.faults.network(Arc::clone(&self.network))
    }

    /// What goes wrong on the links between the nodes, and in their handlers: nothing, until it is told so.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// use std::time::Duration;
    ///
    /// use aegis_testing::TestMesh;
    ///
    /// let mesh = TestMesh::in_memory();
    /// let _morpheus = mesh.serve("morpheus-1", |node| node).await;
    /// mesh.faults().to("morpheus-1").delay(Duration::from_millis(5)..=Duration::from_millis(50));
    /// mesh.faults().between("vicky-1", "morpheus-1").hang();
    /// mesh.faults().heal();
    /// # });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// A node's builder with id, type `test`, certificates, a free port, the nodes started so far as seeds, and the
    /// mesh's [faults](Self::faults) on its links and, as the outermost layer, around its handlers.
    ///
    /// Whatever is set on it afterwards counts. For another type give it other certificates too:
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// use aegis_testing::TestMesh;
    ///
    /// let mesh = TestMesh::in_memory();
    /// let gateway = mesh.builder("vicky-1").node_type("gateway").tls(mesh.ca().options("vicky-1", "gateway"));
    /// let server = mesh.start(gateway).await;
    /// assert_eq!(*server.node().node_type(), "gateway");
    /// # });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Panics
    /// If `id` is no node id.
    pub fn builder(&self, id: &str) -> NodeBuilder {
        let seeds = self.seeds.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Node::builder()
            .id(id)
            .node_type("test")
            .address("127.0.0.1:0")
            .tls(self.ca.options(id, "test"))
            .network(self.faults.network_of(id, Arc::clone(&self.network)))
            .layer(self.faults.layer(id))
            .join(seeds)
    }

    /// A node that only calls others.
    ///
    /// # Panics
    /// If the node cannot be built.
    pub fn node(&self, id: &str) -> Node {
        built(self.builder(id))
    }

    /// Builds and starts a node that serves; it is [stopped](Server) by dropping what is returned.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no node behind.
    ///
    /// # Panics
    /// If the node cannot be built or started.
    pub async fn serve(&self, id: &str, with: impl FnOnce(NodeBuilder) -> NodeBuilder) -> Server {
        self.start(with(self.builder(id))).await
    }

    /// Starts a node from its builder; nodes to come learn the mesh from it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no node behind.
    ///
    /// # Panics
    /// If the node cannot be built or started.
    #[expect(clippy::panic, reason = "this is a test's set-up")]
    pub async fn start(&self, builder: NodeBuilder) -> Server {
        let server = match built(builder).start().await {
            Ok(server) => server,
            Err(error) => panic!("{}", Chain::new(&error)),
        };
        self.seeds
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(server.local_addr().to_string());
        server
    }
}

#[expect(clippy::panic, reason = "this is a test's set-up")]
fn built(builder: NodeBuilder) -> Node {
    match builder.build() {
        Ok(node) => node,
        Err(error) => panic!("{}", Chain::new(&error)),
    }
}
