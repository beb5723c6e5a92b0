//! What the stories share: a CA, a pool over providers at fixed addresses, and clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use aegis_client::{PoolBuilder, ServiceChannel, ServiceClient, ServicePool, Settings, Verdict};
use aegis_core::{NodeId, ServiceInfo};
use aegis_proto::identity::v1::ValidateSessionRequest;
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_testing::{TestCa, eventually};
use aegis_tls::{Tls, TlsOptions};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};

use crate::provider::Provider;

pub(crate) const IDENTITY: ServiceInfo = ServiceInfo::from_static("identity", "v1");
/// Long enough for a busy machine; nothing is expected to take it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) type Client = IdentityServiceClient<ServiceChannel>;

pub(crate) struct Mesh {
    ca: TestCa,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        Self { ca: TestCa::new() }
    }

    pub(crate) fn tls(&self, id: &str) -> Tls {
        self.ca.tls(id, "identity-server")
    }

    pub(crate) fn options(&self) -> TlsOptions {
        self.ca.options("vicky", "api-gateway")
    }

    /// A caller that trusts this mesh, but has its certificate from another CA.
    pub(crate) fn stranger(&self, other: &Self) -> TlsOptions {
        other.ca.issue("neo", "api-gateway").trusting(&[&self.ca, &other.ca]).options()
    }

    pub(crate) fn builder(&self, providers: &[(&str, SocketAddr)]) -> PoolBuilder {
        let builder = ServicePool::builder().tls(self.options());
        providers.iter().fold(builder, |it, (id, at)| it.provider(*id, at.to_string(), [IDENTITY]))
    }

    pub(crate) fn pool(&self, providers: &[&Provider]) -> ServicePool {
        let providers: Vec<_> = providers.iter().map(|it| (it.id.as_str(), it.address)).collect();
        self.builder(&providers).build().unwrap()
    }

    /// A pool and its clients, with every provider connected.
    pub(crate) async fn connected(
        &self,
        providers: &[&Provider],
    ) -> (ServicePool, ServiceClient<Client>) {
        let pool = self.pool(providers);
        let client = identity(&pool);
        client.wait_ready(providers.len(), PATIENCE).await.unwrap();
        (pool, client)
    }
}

/// No second connection comes beside a full one.
pub(crate) fn one_connection() -> Settings {
    let mut settings = Settings::default();
    settings.connections = 1;
    settings
}

pub(crate) fn identity(pool: &ServicePool) -> ServiceClient<Client> {
    ServiceClient::new(pool, IDENTITY, IdentityServiceClient::new)
}

pub(crate) fn request() -> Request<ValidateSessionRequest> {
    Request::new(ValidateSessionRequest { token: "user-7".to_owned() })
}

pub(crate) fn timed(timeout: Duration) -> Request<ValidateSessionRequest> {
    let mut request = request();
    request.set_timeout(timeout);
    request
}

/// Calls once and says which provider answered.
pub(crate) async fn call(client: &ServiceClient<Client>) -> Result<String, Status> {
    send(client, request()).await
}

pub(crate) async fn send(
    client: &ServiceClient<Client>,
    request: Request<ValidateSessionRequest>,
) -> Result<String, Status> {
    let reply = client.get()?.validate_session(request).await?;
    Ok(reply.into_inner().user_id)
}

/// Calls so often, several at a time, and counts the answers of each provider; fails with the first failure.
pub(crate) async fn call_many(
    client: &ServiceClient<Client>,
    calls: usize,
) -> Result<BTreeMap<String, usize>, Status> {
    const AT_ONCE: usize = 8;
    let mut tasks = JoinSet::new();
    for worker in 0..AT_ONCE {
        let client = client.clone();
        tasks.spawn(async move {
            let mut answers = Vec::new();
            for _ in (worker..calls).step_by(AT_ONCE) {
                answers.push(call(&client).await?);
            }
            Ok::<_, Status>(answers)
        });
    }
    let mut counts = BTreeMap::new();
    while let Some(answers) = tasks.join_next().await {
        for id in answers.unwrap()? {
            *counts.entry(id).or_default() += 1;
        }
    }
    Ok(counts)
}

#[track_caller]
pub(crate) fn assert_status(status: &Status, code: Code, words: &[&str]) {
    assert_eq!(status.code(), code, "{status}");
    for word in words {
        assert!(status.message().contains(word), "{word:?} is not in {:?}", status.message());
    }
}

/// Makes calls until a provider that hangs, with one stream on each connection, has no slot on the last connection
/// it may have. They end with the set.
pub(crate) async fn fill(client: &ServiceClient<Client>, id: &str) -> JoinSet<()> {
    let id = NodeId::new(id).unwrap();
    let mut hanging = JoinSet::new();
    eventually(PATIENCE, || {
        let verdict = client.explain().candidate(&id).unwrap().verdict.clone();
        match verdict {
            Verdict::Full { slots: 4, .. } => return Ok(()),
            Verdict::Full { .. } => {}
            _ => {
                let client = client.clone();
                hanging.spawn(async move { drop(call(&client).await) });
            }
        }
        Err(format!("it is {verdict}"))
    })
    .await;
    hanging
}
