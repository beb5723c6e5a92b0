use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aegis_client::{Balancer, OutlierDetection, PoolOptions};
use aegis_core::{Address, InvalidName, NodeId, NodeType, ServiceInfo};
use aegis_tls::{Subject, Tls, TlsOptions};
use aegis_topology::{Description, Label, ServiceEntry};
use aegis_transport::{Network, Tcp};
use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tower_layer::Layer;
use tower_service::Service;

use crate::error::BuildError;
use crate::handler::Handler;
use crate::limits::Limits;
use crate::node::{Node, Parts};
use crate::registry::{Registrations, Registry};

/// The type of a node that names none.
const DEFAULT_TYPE: NodeType = NodeType::from_static("node");

/// Describes a node; [`build`](Self::build) reports every mistake at once.
///
/// A node needs an id and certificates.
/// To serve it needs an address as well; without one it can only call others.
/// Of a single value that is given twice the last one counts; what is a list (services, seeds, addresses to
/// advertise, layers) adds up.
#[must_use = "a builder does nothing until build"]
pub struct NodeBuilder {
    id: Option<String>,
    name: Option<String>,
    node_type: Option<String>,
    address: Option<String>,
    advertise: Vec<String>,
    seeds: Vec<String>,
    tls: Option<TlsOptions>,
    registry: Registry,
    limits: Limits,
    drain_timeout: Duration,
    probe: Option<String>,
    zone: Option<String>,
    weight: u32,
    pool: PoolOptions,
    network: Arc<dyn Network>,
}

impl Default for NodeBuilder {
    fn default() -> Self {
        Self {
            id: None,
            name: None,
            node_type: None,
            address: None,
            advertise: Vec::new(),
            seeds: Vec::new(),
            tls: None,
            registry: Registry::default(),
            limits: Limits::default(),
            drain_timeout: Duration::from_secs(20),
            probe: None,
            zone: None,
            weight: ServiceEntry::DEFAULT_WEIGHT,
            pool: PoolOptions::default(),
            network: Arc::new(Tcp::default()),
        }
    }
}

impl NodeBuilder {
    /// The node's id: unique in the mesh, and what its certificate must say. Required; there is no default.
    ///
    /// The grammar is that of [`NodeId`].
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// A name for people, at most 64 characters (default: the id).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// What kind of node this is, such as `api-gateway` (default `node`); its certificate must say the same.
    pub fn node_type(mut self, node_type: impl Into<String>) -> Self {
        self.node_type = Some(node_type.into());
        self
    }

    /// Where to listen, `host:port`; port 0 lets the system choose (default: not at all).
    ///
    /// A node without an address only calls others: it has no services, and cannot be [started](Node::start).
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Where others reach this node, if not at [`address`](Self::address); several are tried in turn (default: the
    /// address that was bound).
    ///
    /// Needed where the bind address is unspecified (`0.0.0.0`, `[::]`) or translated.
    /// Port 0 stands for the port that was bound.
    pub fn advertise_address(mut self, address: impl Into<String>) -> Self {
        self.advertise.push(address.into());
        self
    }

    /// Addresses of nodes to learn the mesh from, `host:port` (default: none).
    ///
    /// One that answers is enough; all are tried again until they do, for as long as the node lives.
    /// A node without any is the first of its mesh.
    pub fn join<A: Into<String>>(mut self, seeds: impl IntoIterator<Item = A>) -> Self {
        self.seeds.extend(seeds.into_iter().map(Into::into));
        self
    }

    /// The directory of `<id>-cert.pem`, `<id>-key.pem` and `ca-cert.pem`. There is no default.
    ///
    /// With the feature `dev-ca` a development CA in that directory makes what is missing, with a warning when it is
    /// the CA itself, and replaces this node's own certificate when it ran out, is about to, or does not fit the node
    /// or its key. Nothing is replaced unless `ca-cert.pem` is a development CA.
    /// Without the feature a missing file is an error.
    /// Replaces an earlier [`tls`](Self::tls).
    pub fn cert_dir(self, directory: impl Into<PathBuf>) -> Self {
        self.tls(TlsOptions::cert_dir(directory))
    }

    /// The source of the node's certificates. Required, here or as [`cert_dir`](Self::cert_dir); there is no default.
    pub fn tls(mut self, options: TlsOptions) -> Self {
        self.tls = Some(options);
        self
    }

    /// Serves `handler`, a generated server, and advertises it as `info` (default: no service).
    ///
    /// Several handlers may make up one service, and several versions live side by side.
    /// One with an interceptor (`IdentityServiceServer::with_interceptor`) is a handler as well.
    pub fn service<S, B>(mut self, info: ServiceInfo, handler: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.registry.handlers.push(Handler::new(handler));
        self.advertise(info, [S::NAME])
    }

    /// Advertises `info` as served by gRPC services that are registered elsewhere in this builder.
    ///
    /// So one gRPC service can stand for several infos, and a handler among the [`routes`](Self::routes) be found.
    ///
    /// ```
    /// use aegis_core::ServiceInfo;
    /// use aegis_node::{BuildError, Node};
    /// use aegis_proto::identity::v1::identity_service_server::{self, IdentityService, IdentityServiceServer};
    ///
    /// struct Identity;
    ///
    /// impl IdentityService for Identity {}
    ///
    /// let identity = ServiceInfo::from_static("identity", "v1");
    /// let login = ServiceInfo::from_static("login", "v1");
    /// # let ca = aegis_testing::TestCa::new();
    /// # let tls = ca.options("morpheus-1", "node");
    /// let builder = Node::builder()
    ///     .id("morpheus-1")
    ///     .tls(tls)
    ///     .address("127.0.0.1:0")
    ///     .service(identity, IdentityServiceServer::new(Identity))
    ///     .advertise(login.clone(), [identity_service_server::SERVICE_NAME]);
    /// builder.build()?;
    ///
    /// // What nobody serves is not advertised.
    /// # let tls = ca.options("morpheus-1", "node");
    /// let builder = Node::builder()
    ///     .id("morpheus-1")
    ///     .tls(tls)
    ///     .address("127.0.0.1:0")
    ///     .advertise(login, ["login.v1.Login"]);
    /// assert!(matches!(builder.build(), Err(BuildError::Advertised { .. })));
    /// # Ok::<(), BuildError>(())
    /// ```
    pub fn advertise<N: Into<String>>(
        mut self,
        info: ServiceInfo,
        grpc_services: impl IntoIterator<Item = N>,
    ) -> Self {
        self.registry.services.push((info, grpc_services.into_iter().map(Into::into).collect()));
        self
    }

    /// Serves handlers without advertising them (default: none): what callers find by other ways than the directory.
    ///
    /// `add` is called once, now.
    ///
    /// ```
    /// use aegis_node::Node;
    /// # use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
    /// # struct Identity;
    /// # impl IdentityService for Identity {}
    /// # let tls = aegis_testing::TestCa::new().options("morpheus-1", "node");
    ///
    /// let node = Node::builder()
    ///     .id("morpheus-1")
    ///     .tls(tls)
    ///     .address("127.0.0.1:0")
    ///     .routes(|routes| routes.add(IdentityServiceServer::new(Identity)))
    ///     .build()?;
    /// # drop(node);
    /// # Ok::<(), aegis_node::BuildError>(())
    /// ```
    pub fn routes(mut self, add: impl FnOnce(Registrations) -> Registrations) -> Self {
        self.registry.handlers.extend(add(Registrations(Vec::new())).0);
        self
    }

    /// Wraps every handler of this node, our own services excepted, in a tower layer (default: none); the first one
    /// added runs first, as it does with tonic's own server.
    ///
    /// Handlers that are added after it are wrapped too. An error of the layer becomes a gRPC status: its own if it is
    /// a [`Status`](tonic::Status), else `UNKNOWN`. [`Handler`] has an example.
    pub fn layer<L, B>(mut self, layer: L) -> Self
    where
        L: Layer<Handler> + Send + Sync + 'static,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request<Body>>>::Future: Send + 'static,
        <L::Service as Service<Request<Body>>>::Error:
            Into<Box<dyn std::error::Error + Send + Sync>>,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.registry.wrap(move |handler| {
            let name = handler.name();
            Handler::layered(name, layer.layer(handler))
        });
        self
    }

    /// The bounds of the server (default: [`Limits::default`], whose methods name each value).
    ///
    /// ```
    /// use aegis_node::{Limits, Node};
    /// # let tls = aegis_testing::TestCa::new().options("morpheus-1", "node");
    ///
    /// let limits = Limits::default().max_connections(1_000).max_message_bytes(16 << 20);
    /// let node = Node::builder().id("morpheus-1").tls(tls).limits(limits).build()?;
    /// # drop(node);
    /// # Ok::<(), aegis_node::BuildError>(())
    /// ```
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How long calls may go on once a shutdown began (default 20 s); then they end with `UNAVAILABLE`.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Where to answer `/livez` and `/readyz` over plain HTTP, `host:port` (default: nowhere): for a kubelet, which has
    /// no client certificate. Port 0 lets the system choose; [`Server::probe_addr`](crate::Server::probe_addr) tells it.
    ///
    /// `/livez` is 200 while the node's server runs. `/readyz` is 200 while it takes calls and is not
    /// [unhealthy](crate::Health::set), and 503 with a word why otherwise: `starting`, `draining`, `unhealthy`. During a
    /// drain it is so before anything else happens, and until the end. Any other path is 404, and only `GET` and `HEAD`
    /// are answered.
    ///
    /// It asks nobody who they are, and tells nothing else. One request is answered per connection, of 8 KiB at most;
    /// a connection lives for 2 s at most, and of more than 64 the oldest is closed.
    ///
    /// ```
    /// use aegis_testing::TestMesh;
    /// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    /// use tokio::net::TcpStream;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mesh = TestMesh::loopback();
    /// let server = mesh.serve("morpheus-1", |node| node.probe("127.0.0.1:0")).await;
    /// let address = server.probe_addr().ok_or("no probe")?;
    ///
    /// // As a kubelet does, or curl.
    /// let mut http = TcpStream::connect(address).await?;
    /// http.write_all(b"GET /readyz HTTP/1.1\r\nhost: morpheus-1\r\n\r\n").await?;
    /// let mut answer = String::new();
    /// http.read_to_string(&mut answer).await?;
    /// assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn probe(mut self, address: impl Into<String>) -> Self {
        self.probe = Some(address.into());
        self
    }

    /// The share of the calls that this node's services want beside other providers of them: 1 to 10,000 (default 100).
    ///
    /// Callers that balance by weight ([`Balancer::weighted`]) honour it; twice the weight is twice the calls. 0 stands for the
    /// default, and more than 10,000 for 10,000.
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Where this node is, such as `berlin-1`, at most 64 characters (default: nowhere in particular). It is advertised, for
    /// [balancers of your own](aegis_client::Balance) and for people.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Which provider a call of this node's [pool](Node::pool) goes to (default: [`Balancer::round_robin`]).
    pub fn balance(mut self, balancer: Balancer) -> Self {
        self.pool.balance(balancer);
        self
    }

    /// The same for the calls of one service, in one version (default: as for all).
    pub fn balance_service(mut self, service: ServiceInfo, balancer: Balancer) -> Self {
        self.pool.balance_service(service, balancer);
        self
    }

    /// When the [pool](Node::pool) leaves a connected provider out because it fails (default:
    /// [`OutlierDetection::default`], whose fields name each value).
    pub fn outlier_detection(mut self, detection: OutlierDetection) -> Self {
        self.pool.outlier_detection(Some(detection));
        self
    }

    /// Lets the [pool](Node::pool) call a connected provider however often it fails (default: it is
    /// [ejected](OutlierDetection)).
    pub fn no_outlier_detection(mut self) -> Self {
        self.pool.outlier_detection(None);
        self
    }

    /// What stands for the network; for tests.
    #[doc(hidden)]
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// Checks everything and loads the certificates; opens no socket, and needs no runtime.
    ///
    /// Blocking: it reads files, and with [`cert_dir`](Self::cert_dir) may write some.
    ///
    /// # Errors
    /// [`BuildError`], with every mistake in it; certificates are looked at once all else is right.
    pub fn build(self) -> Result<Node, BuildError> {
        let mut mistakes = Vec::new();
        let id = match &self.id {
            None => note(&mut mistakes, Err(BuildError::NoId)),
            Some(id) => note(&mut mistakes, name("id", NodeId::new(id))),
        };
        let node_type = match &self.node_type {
            None => Some(DEFAULT_TYPE),
            Some(node_type) => note(&mut mistakes, name("node_type", NodeType::new(node_type))),
        };
        let label = self.name.as_ref().or(self.id.as_ref()).map(Label::new);
        let label = match label {
            Some(Ok(label)) => label,
            Some(Err(source)) => {
                // A bad id is reported as such already.
                if self.name.is_some() {
                    mistakes.push(BuildError::Label { source });
                }
                Label::default()
            }
            None => Label::default(),
        };
        let zone = match self.zone.as_ref().map(Label::new) {
            Some(Err(source)) => {
                mistakes.push(BuildError::Label { source });
                Label::default()
            }
            zone => zone.and_then(Result::ok).unwrap_or_default(),
        };
        let bind = self
            .address
            .as_ref()
            .and_then(|address| note(&mut mistakes, name("address", address.parse::<Address>())));
        let probe = self
            .probe
            .as_ref()
            .and_then(|address| note(&mut mistakes, name("probe", address.parse::<Address>())));
        if let (Some(probe), Some(bind)) = (&probe, &bind)
            && meet(probe, bind)
        {
            mistakes.push(BuildError::Probe { address: probe.clone() });
        }
        let advertised = parse_all(&mut mistakes, "advertise_address", &self.advertise);
        let seeds = parse_all(&mut mistakes, "join", &self.seeds);
        if let Some(mistake) = bind.as_ref().and_then(|bind| unreachable(bind, &advertised)) {
            mistakes.push(mistake);
        }
        if self.address.is_none() && (self.registry.has_services() || self.probe.is_some()) {
            mistakes.push(BuildError::NoAddress);
        }
        let (routes, entries) = self.registry.table(&mut mistakes);
        // Its limits are the directory's: checked now, with stand-ins for what only the socket knows.
        let entries = entries.into_iter().map(|entry| entry.with_weight(self.weight));
        let description = Description::new(label, [], entries)
            .map(|description| description.in_zone(zone))
            .map_err(|source| BuildError::Description { source });
        let description = note(&mut mistakes, description);
        let services = self.registry.names();

        let tls = match (self.tls, id, node_type) {
            (None, ..) => note(&mut mistakes, Err(BuildError::NoTlsConfig)),
            // A certificate is issued only for a node that will exist.
            (Some(options), Some(id), Some(node_type)) if mistakes.is_empty() => note(
                &mut mistakes,
                load(options, &Subject::new(id.clone(), node_type.clone()).services(services)),
            )
            .map(|tls| (tls, id, node_type)),
            (Some(_), ..) => None,
        };
        match (BuildError::collect(mistakes), tls, description) {
            (None, Some((tls, id, node_type)), Some(description)) => Ok(Node::new(Parts {
                id,
                node_type,
                description,
                bind,
                advertised,
                seeds,
                tls,
                routes,
                limits: self.limits,
                drain_timeout: self.drain_timeout,
                probe,
                pool: self.pool,
                network: self.network,
            })),
            (Some(error), ..) => Err(error),
            (None, ..) => Err(BuildError::NoTlsConfig),
        }
    }
}

impl fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("id", &self.id)
            .field("address", &self.address)
            .field("services", &self.registry.services)
            .finish_non_exhaustive()
    }
}

fn note<T>(mistakes: &mut Vec<BuildError>, result: Result<T, BuildError>) -> Option<T> {
    result.map_err(|mistake| mistakes.push(mistake)).ok()
}

fn name<T>(setting: &'static str, result: Result<T, InvalidName>) -> Result<T, BuildError> {
    result.map_err(|source| BuildError::Name { setting, source })
}

fn parse_all(
    mistakes: &mut Vec<BuildError>,
    setting: &'static str,
    addresses: &[String],
) -> Vec<Address> {
    addresses.iter().filter_map(|address| note(mistakes, name(setting, address.parse()))).collect()
}

/// The mistake of a node that nobody could reach at what it advertises. Port 0 is filled in after bind.
fn unreachable(bind: &Address, advertised: &[Address]) -> Option<BuildError> {
    let unspecified = |address: &&Address| !address.with_port(1).is_reachable();
    let bad = if advertised.is_empty() {
        Some(bind).filter(unspecified)
    } else {
        advertised.iter().find(unspecified)
    };
    bad.map(|address| BuildError::Advertise { address: address.clone() })
}

/// Whether two listeners would want the same socket.
fn meet(one: &Address, other: &Address) -> bool {
    let everywhere = |it: &Address| it.ip().is_some_and(|ip| ip.to_canonical().is_unspecified());
    let same_host = one.host() == other.host() || everywhere(one) || everywhere(other);
    one.port() != 0 && one.port() == other.port() && same_host
}

fn load(options: TlsOptions, subject: &Subject) -> Result<Tls, BuildError> {
    options.load(subject).map_err(|source| BuildError::Tls { source })
}
