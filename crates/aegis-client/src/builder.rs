use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aegis_core::{Address, InvalidName, NodeId, ServiceInfo};
use aegis_gossip::Observer;
use aegis_tls::{Subject, TlsOptions};
use aegis_topology::{Description, Label, NodeEntry, Publisher, ServiceEntry};
use aegis_transport::{Connections, Network, Settings, Tcp};
use tokio::runtime::Handle;

use crate::balance::Balancer;
use crate::limit::ResponseLimit;
use crate::options::PoolOptions;
use crate::outlier::OutlierDetection;
use crate::policy::Policies;
use crate::shared::{Shared, Source};
use crate::{BuildError, CallPolicy, ServicePool};

/// Describes a pool that stands alone; [`build`](Self::build) reports every mistake at once.
///
/// It needs certificates, and either the providers or the seeds of a mesh.
/// Of a single value that is given twice the last one counts; providers and seeds add up.
///
/// ```
/// use aegis_client::ServicePool;
/// use aegis_core::ServiceInfo;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tls = aegis_testing::TestCa::new().options("vicky-1", "gateway");
/// let identity = ServiceInfo::from_static("identity", "v1");
/// let pool = ServicePool::builder()
///     .tls(tls) // such as TlsOptions::files("vicky.pem", "vicky.key", "ca.pem")
///     .provider("morpheus-1", "10.0.0.7:8443", [identity.clone()])
///     .provider("morpheus-1", "192.0.2.7:8443", [identity.clone()]) // the same node, if the first is not reached
///     .provider("morpheus-2", "10.0.0.8:8443", [identity.clone(), ServiceInfo::from_static("identity", "v2")])
///     .build()?;
/// assert_eq!(pool.directory().snapshot().providers(&identity).len(), 2);
/// # Ok(())
/// # }
/// ```
///
/// Mistakes are told all at once:
///
/// ```
/// use aegis_client::{BuildError, ServicePool};
/// # use aegis_core::ServiceInfo;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let error = ServicePool::builder().provider("Morpheus", "10.0.0.7", []).build().unwrap_err();
/// let mistakes: Vec<_> = error.mistakes().collect();
/// assert!(matches!(mistakes[..], [BuildError::Name { .. }, BuildError::Name { .. }, BuildError::NoTlsConfig]));
/// # }
/// ```
#[must_use = "a builder does nothing until build"]
#[derive(Debug)]
pub struct PoolBuilder {
    tls: Option<TlsOptions>,
    providers: Vec<Given>,
    seeds: Vec<String>,
    limit: ResponseLimit,
    policies: Policies,
    options: PoolOptions,
    network: Arc<dyn Network>,
    settings: Settings,
}

/// A provider as it was written down.
#[derive(Debug)]
struct Given {
    node_id: String,
    address: String,
    services: Vec<ServiceInfo>,
    foreign: bool,
}

impl Default for PoolBuilder {
    fn default() -> Self {
        Self {
            tls: None,
            providers: Vec::new(),
            seeds: Vec::new(),
            limit: ResponseLimit::Default,
            policies: Policies::default(),
            options: PoolOptions::default(),
            network: Arc::new(Tcp::default()),
            settings: Settings::default(),
        }
    }
}

impl PoolBuilder {
    /// The certificate to call with and the CA to trust. Required; there is no default.
    ///
    /// The certificate may name any node ([`Subject::any`]), so [`TlsOptions::cert_dir`] is no source here.
    pub fn tls(mut self, options: TlsOptions) -> Self {
        self.tls = Some(options);
        self
    }

    /// A provider at a fixed address, `host:port`, and the id that its certificate must say (default: none).
    ///
    /// Several addresses of one node are tried in turn; its services add up.
    /// Not together with [`seeds`](Self::seeds).
    pub fn provider(
        self,
        node_id: impl Into<String>,
        address: impl Into<String>,
        services: impl IntoIterator<Item = ServiceInfo>,
    ) -> Self {
        self.given(node_id.into(), address.into(), services, false)
    }

    /// A provider that is not aegis (a server on grpc-go or grpcio) with a certificate of this mesh (default: none).
    ///
    /// It is sent a keepalive PING every 5 min only, since such servers close connections that send more (gRFC A8), and
    /// the response limit is off unless it is set.
    pub fn foreign_provider(
        self,
        node_id: impl Into<String>,
        address: impl Into<String>,
        services: impl IntoIterator<Item = ServiceInfo>,
    ) -> Self {
        self.given(node_id.into(), address.into(), services, true)
    }

    fn given(
        mut self,
        node_id: String,
        address: String,
        services: impl IntoIterator<Item = ServiceInfo>,
        foreign: bool,
    ) -> Self {
        let services = services.into_iter().collect();
        self.providers.push(Given { node_id, address, services, foreign });
        self
    }

    /// Addresses of nodes to learn the mesh from, `host:port` (default: none): the pool follows their directory.
    ///
    /// One that answers is enough; all are tried again until they do.
    /// Not together with [`provider`](Self::provider).
    pub fn seeds<A: Into<String>>(mut self, seeds: impl IntoIterator<Item = A>) -> Self {
        self.seeds.extend(seeds.into_iter().map(Into::into));
        self
    }

    /// Limits how long a call without a deadline waits for its response headers (default 10 s, and no limit towards
    /// foreign providers; a value given here is for both).
    ///
    /// [`ServiceChannel::response_limit`](crate::ServiceChannel::response_limit) says what counts.
    pub fn response_limit(mut self, limit: Duration) -> Self {
        self.limit = ResponseLimit::Set(limit);
        self
    }

    /// Lets a call without a deadline wait for ever (default: it does not, see [`response_limit`](Self::response_limit)).
    pub fn no_response_limit(mut self) -> Self {
        self.limit = ResponseLimit::Off;
        self
    }

    /// How the calls of a method are made, `/package.Service/Method`, or those of a whole gRPC service, `package.Service`
    /// (default: none is repeated once a provider may have seen it).
    ///
    /// [`ServiceChannel::policy`](crate::ServiceChannel::policy) says which counts where several fit.
    pub fn policy(mut self, name: &str, policy: CallPolicy) -> Self {
        self.policies.set(name, policy);
        self
    }

    /// Which provider a call goes to (default: [`Balancer::round_robin`]).
    pub fn balance(mut self, balancer: Balancer) -> Self {
        self.options.balance(balancer);
        self
    }

    /// The same for one service, in one version (default: as for all).
    pub fn balance_service(mut self, service: ServiceInfo, balancer: Balancer) -> Self {
        self.options.balance_service(service, balancer);
        self
    }

    /// When a connected provider is left out because it fails (default: [`OutlierDetection::default`], whose fields name
    /// each value).
    pub fn outlier_detection(mut self, detection: OutlierDetection) -> Self {
        self.options.outlier_detection(Some(detection));
        self
    }

    /// Calls a connected provider however often it fails (default: it is [ejected](OutlierDetection)).
    pub fn no_outlier_detection(mut self) -> Self {
        self.options.outlier_detection(None);
        self
    }

    /// Where byte streams come from (TCP); tests put pipes in memory here.
    #[doc(hidden)]
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// What connections may use, and how patient they are (default: [`Settings::default`], whose fields name each value).
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Reads the certificates and makes the pool; nothing is dialled before there is a channel, seeds excepted.
    ///
    /// Blocks for the files' reading. To be called inside a tokio runtime, which the pool's tasks then run on.
    ///
    /// # Errors
    /// [`BuildError`] with every mistake; no runtime is one of them.
    pub fn build(self) -> Result<ServicePool, BuildError> {
        let mut mistakes = Vec::new();
        let nodes = nodes(self.providers, &mut mistakes);
        let mut seeds = Vec::new();
        for seed in self.seeds {
            if let Some(seed) = parse::<Address>("seeds", &seed, &mut mistakes) {
                seeds.push(seed);
            }
        }
        match (nodes.is_empty(), seeds.is_empty()) {
            (true, true) if mistakes.is_empty() => mistakes.push(BuildError::NobodyToCall),
            (false, false) => mistakes.push(BuildError::ProvidersAndSeeds),
            _ => {}
        }
        let tls = match self.tls.map(|options| options.load(&Subject::any())) {
            Some(Ok(tls)) => Some(tls),
            Some(Err(source)) => {
                mistakes.push(BuildError::Tls { source });
                None
            }
            None => {
                mistakes.push(BuildError::NoTlsConfig);
                None
            }
        };
        let runtime = Handle::try_current().ok();
        if runtime.is_none() {
            mistakes.push(BuildError::NoRuntime);
        }
        let mistake = BuildError::collect(mistakes);
        let (Some(tls), Some(runtime), None) = (tls, runtime, &mistake) else {
            return Err(mistake.unwrap_or(BuildError::NoTlsConfig));
        };
        let connections = Connections::new(tls.clone(), self.network, self.settings);
        let (directory, source) = if seeds.is_empty() {
            (Publisher::fixed(nodes).directory(), Source::Fixed)
        } else {
            let observer = Observer::start(
                tls.clone(),
                connections.clone(),
                seeds,
                aegis_gossip::Settings::default(),
            );
            (observer.directory(), Source::Observer(Mutex::new(Some(observer))))
        };
        let shared =
            Shared::start(directory, connections, tls, self.limit, self.options, source, runtime);
        Ok(ServicePool { shared, policies: self.policies })
    }
}

/// One entry for each node that was given, with all its addresses and services.
fn nodes(given: Vec<Given>, mistakes: &mut Vec<BuildError>) -> Vec<NodeEntry> {
    struct Node {
        id: NodeId,
        addresses: Vec<Address>,
        services: Vec<ServiceInfo>,
        foreign: bool,
    }
    let mut nodes: Vec<Node> = Vec::new();
    for Given { node_id, address, services, foreign } in given {
        let id = parse::<NodeId>("provider", &node_id, mistakes);
        let address = parse::<Address>("provider", &address, mistakes);
        let (Some(id), Some(address)) = (id, address) else { continue };
        if !address.is_reachable() {
            mistakes.push(BuildError::Unreachable { node: id, address });
            continue;
        }
        if services.is_empty() {
            mistakes.push(BuildError::NoServices { node: id });
            continue;
        }
        match nodes.iter_mut().find(|it| it.id == id) {
            Some(node) => {
                node.addresses.push(address);
                node.services.extend(services);
                node.foreign |= foreign;
            }
            None => nodes.push(Node { id, addresses: vec![address], services, foreign }),
        }
    }
    let mut entries = Vec::new();
    for Node { id, addresses, services, foreign } in nodes {
        let services = services.into_iter().map(ServiceEntry::new);
        match Description::new(Label::default(), addresses, services) {
            Ok(description) => {
                let entry = NodeEntry::fixed(id, description);
                entries.push(if foreign { entry.foreign() } else { entry });
            }
            Err(source) => mistakes.push(BuildError::Description { node: id, source }),
        }
    }
    entries
}

fn parse<T: FromStr<Err = InvalidName>>(
    setting: &'static str,
    text: &str,
    mistakes: &mut Vec<BuildError>,
) -> Option<T> {
    text.parse().map_err(|source| mistakes.push(BuildError::Name { setting, source })).ok()
}
